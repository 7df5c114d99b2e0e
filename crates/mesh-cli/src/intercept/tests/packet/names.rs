//! Questions for names, and which zone of connection tracking each datagram is in.

use super::*;

/// A question with the same ports from an application and from the proxy, and both answers.
#[test]
fn an_applications_question_is_not_taken_for_the_proxys_own() {
    for line in [
        "--redirect-dns --capture-all-dns",
        "--redirect-dns --dns-servers 10.96.0.10",
    ] {
        let options = options(line);
        let question = Packet {
            hook: "OUTPUT",
            interface: "eth0",
            from: "10.0.0.1".parse().unwrap(),
            to: "10.96.0.10".parse().unwrap(),
            is_tcp: false,
            port: 53,
            user: 1000,
            group: 1000,
            mark: 0,
            connection_mark: 0,
            is_established: false,
            zone: None,
            source_port: 40000,
        };
        let own = Packet {
            user: 1337,
            ..question.clone()
        };
        let to_application = Packet {
            interface: "lo",
            from: "127.0.0.1".parse().unwrap(),
            to: "10.0.0.1".parse().unwrap(),
            port: 40000,
            source_port: 15053,
            ..own.clone()
        };
        let to_proxy = Packet {
            hook: "PREROUTING",
            from: "10.96.0.10".parse().unwrap(),
            to: "10.0.0.1".parse().unwrap(),
            port: 40000,
            source_port: 53,
            ..question.clone()
        };
        for (packet, expected, zone) in [
            (&question, Fate::Redirected(15053), 2),
            (&own, Fate::Direct, 1),
            (&to_application, Fate::Direct, 2),
            (&to_proxy, Fate::Direct, 1),
        ] {
            let (fate, after) = decide(&options, packet);
            assert_eq!((fate, after.zone), (expected, Some(zone)), "{packet:?}");
        }
        let elsewhere = Packet {
            to: "8.8.8.8".parse().unwrap(),
            ..question
        };
        let all = options.capture_all_dns;
        assert_eq!(decide(&options, &elsewhere).0 == Fate::Direct, !all);
    }
}
