use super::*;
use clap::Parser;
use proptest::prelude::*;
use std::fmt::Write;

mod kernel;
mod packet;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    options: Options,
}

/// The options of a command line.
fn options(line: &str) -> Options {
    let words = std::iter::once("intercept").chain(line.split_whitespace());
    Line::try_parse_from(words).unwrap().options
}

fn refused(words: &[&str]) -> String {
    let words = std::iter::once(&"intercept").chain(words);
    match Line::try_parse_from(words) {
        Ok(line) => line.options.check().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

/// The rules of one family.
fn rules(options: &Options, family: Family) -> String {
    State::planned(&plan(options, family)).to_string()
}

/// Any options that are not refused.
fn any_options() -> impl Strategy<Value = Options> {
    let ports = || proptest::collection::vec(prop_oneof![1u16..6, 15000u16..15100], 0..4);
    let blocks = || {
        let block = prop_oneof![
            Just("10.0.0.0/8"),
            Just("10.1.0.0/16"),
            Just("10.1.2.3/32"),
            Just("0.0.0.0/0"),
            Just("fd00::/8"),
            Just("fd01::/16"),
            Just("::/0"),
        ];
        proptest::collection::vec(block, 0..4)
    };
    let interfaces = || proptest::sample::subsequence(vec!["eth0", "eth1", "net+"], 0..=2);
    let ids = || proptest::collection::vec(1336u32..1340, 1..3);
    let lists = (
        (ports(), ports(), ports(), ports()),
        (blocks(), blocks()),
        (interfaces(), interfaces()),
        (ids(), ids()),
    );
    let flags: (_, _, _, _) = (any::<bool>(), any::<bool>(), any::<bool>(), 0..4);
    (lists, flags).prop_filter_map("options in each other's way", |(lists, flags)| {
        let ((include, exclude, outbound, not_outbound), (to, not_to), (vms, not), (users, groups)) =
            lists;
        let (is_tproxy, all_inbound, all_outbound, dns) = flags;
        let mut words: Vec<String> = vec!["intercept".into()];
        let mut add = |option: &str, values: Vec<String>| {
            words.push(format!("--{option}={}", values.join(",")));
        };
        let star = || vec!["*".to_owned()];
        let text = |ports: Vec<u16>| ports.iter().map(u16::to_string).collect::<Vec<_>>();
        let texts = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let numbers = |ids: Vec<u32>| ids.iter().map(u32::to_string).collect::<Vec<_>>();
        add("mode", texts(vec![if is_tproxy { "tproxy" } else { "redirect" }]));
        if all_inbound {
            add("exclude-inbound-ports", text(exclude));
        }
        let inbound = if all_inbound { star() } else { text(include) };
        add("include-inbound-ports", inbound);
        let destinations = if all_outbound { star() } else { texts(to) };
        add("include-outbound-ip-ranges", destinations);
        add("exclude-outbound-ip-ranges", texts(not_to));
        add("include-outbound-ports", text(outbound));
        add("exclude-outbound-ports", text(not_outbound));
        add("kubevirt-interfaces", texts(vms));
        add("exclude-interfaces", texts(not));
        add("proxy-uid", numbers(users));
        add("proxy-gid", numbers(groups));
        match dns {
            0 => {}
            1 => words.extend(["--redirect-dns".into(), "--capture-all-dns".into()]),
            _ => {
                let servers = if dns == 2 { "10.1.2.3,fd01::1" } else { "10.1.2.3" };
                words.push("--redirect-dns".into());
                words.push(format!("--dns-servers={servers}"));
            }
        }
        let options = Line::try_parse_from(words).unwrap().options;
        options.check().is_ok().then_some(options)
    })
}

/// Compared line by line with what istio-iptables prints for the arguments of Istio's injection
/// (`-p 15001 -z 15006 -u 1337 -m REDIRECT -i * -b * -d 15090,15021,15020`): the same but for our
/// mark in the built-in chains, and with chains declared as iptables-save does.
#[test]
fn the_default_is_what_istio_sets_up() {
    let expected = "\
*nat
:ISTIO_INBOUND - [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_REDIRECT - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
-A PREROUTING -p tcp -m comment --comment mesh-intercept -j ISTIO_INBOUND
-A ISTIO_INBOUND -p tcp --dport 15008 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A OUTPUT -m comment --comment mesh-intercept -j ISTIO_OUTPUT
-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
COMMIT
";
    let v4 = rules(&options(""), Family::V4);
    assert_eq!(v4, expected);
    let v6 = expected
        .replace("127.0.0.6/32", "::6/128")
        .replace("127.0.0.1/32", "::1/128");
    assert_eq!(rules(&options(""), Family::V6), v6);
    let printed = as_text(&options(""));
    assert_eq!(
        printed,
        format!(
            "# iptables-restore --noflush\n{v4}# ip -6 addr add ::6/128 dev lo\n\
             # ip6tables-restore --noflush\n{v6}"
        )
    );
}

/// As Istio's in TPROXY mode, again but for our mark; the three rules that istio-iptables inserts
/// at the head of ISTIO_INBOUND are written where they end up.
#[test]
fn tproxy_adds_istios_marks_and_routes() {
    let text = rules(&options("--mode tproxy"), Family::V6);
    let mangle = text.split("*nat").next().unwrap();
    assert_eq!(
        mangle.replace(" -m comment --comment mesh-intercept", ""),
        "\
*mangle
:ISTIO_INBOUND - [0:0]
:ISTIO_DIVERT - [0:0]
:ISTIO_TPROXY - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A PREROUTING -p tcp -m mark --mark 1337 -j CONNMARK --save-mark
-A OUTPUT -p tcp -o lo -m mark --mark 1337 -j RETURN
-A OUTPUT ! -d ::1/128 -p tcp -o lo -m owner --uid-owner 1337 -j MARK --set-mark 1338
-A OUTPUT ! -d ::1/128 -p tcp -o lo -m owner --gid-owner 1337 -j MARK --set-mark 1338
-A OUTPUT -p tcp -m connmark --mark 1337 -j CONNMARK --restore-mark
-A ISTIO_INBOUND -p tcp -m mark --mark 1337 -j RETURN
-A ISTIO_INBOUND -p tcp -s ::6/128 -i lo -j RETURN
-A ISTIO_INBOUND -p tcp -i lo -m mark ! --mark 1338 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15090 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15021 -j RETURN
-A ISTIO_INBOUND -p tcp --dport 15020 -j RETURN
-A ISTIO_INBOUND -p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT
-A ISTIO_INBOUND -p tcp -j ISTIO_TPROXY
-A ISTIO_DIVERT -j MARK --set-mark 1337
-A ISTIO_DIVERT -j ACCEPT
-A ISTIO_TPROXY ! -d ::1/128 -p tcp -j TPROXY --tproxy-mark 1337/0xffffffff --on-port 15006
COMMIT
"
    );
    let printed = as_text(&options("--mode tproxy"));
    for command in [
        "# ip -4 rule add fwmark 1337 lookup 133\n",
        "# ip -4 route add local default dev lo table 133\n",
        "# ip -6 rule add fwmark 1337 lookup 133\n",
        "# ip -6 route add local default dev lo table 133\n",
    ] {
        assert!(printed.contains(command), "{command}");
    }
}

/// What is new, the rest is as without it but for port 53 in the rules about loopback: as
/// istio-iptables has it with `--redirect-dns`, and with a chain for what it writes into OUTPUT.
#[test]
fn names_are_asked_for_at_the_proxy_as_istio_has_it() {
    let options = options("--redirect-dns --dns-servers 10.96.0.10,fd00::a,127.0.0.53");
    let text = rules(&options, Family::V4);
    let text = text.replace(" -m comment --comment mesh-intercept", "");
    let raw = "\
*raw
:ISTIO_OUTPUT_DNS - [0:0]
:ISTIO_INBOUND - [0:0]
-A OUTPUT -p udp -j ISTIO_OUTPUT_DNS
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --uid-owner 1337 -j CT --zone 2
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --gid-owner 1337 -j CT --zone 1
-A ISTIO_OUTPUT_DNS -p udp --sport 15053 -m owner --gid-owner 1337 -j CT --zone 2
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.96.0.10/32 -j CT --zone 2
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 127.0.0.53/32 -j CT --zone 2
-A PREROUTING -p udp -j ISTIO_INBOUND
-A ISTIO_INBOUND -p udp --sport 53 -s 10.96.0.10/32 -j CT --zone 1
-A ISTIO_INBOUND -p udp --sport 53 -s 127.0.0.53/32 -j CT --zone 1
COMMIT
";
    assert!(text.starts_with(raw), "{text}");
    let nat = "\
-A ISTIO_OUTPUT -o lo -s 127.0.0.6/32 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp -m multiport ! --dports 53,15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m owner ! --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -o lo ! -d 127.0.0.1/32 -p tcp -m multiport ! --dports 53,15008 -m owner --gid-owner 1337 -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -o lo -p tcp ! --dport 53 -m owner ! --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -p tcp --dport 53 -d 10.96.0.10/32 -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT -p tcp --dport 53 -d 127.0.0.53/32 -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A OUTPUT -p udp -j ISTIO_OUTPUT_DNS
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -m owner --gid-owner 1337 -j RETURN
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 10.96.0.10/32 -j REDIRECT --to-ports 15053
-A ISTIO_OUTPUT_DNS -p udp --dport 53 -d 127.0.0.53/32 -j REDIRECT --to-ports 15053
";
    assert!(text.contains(nat), "{text}");
    let v6 = rules(&options, Family::V6);
    assert!(v6.contains("-d fd00::a/128") && !v6.contains("10.96.0.10"));
    // Without a server of the family there is nothing to lead to.
    let options = self::options("--redirect-dns --dns-servers 10.96.0.10");
    let v6 = rules(&options, Family::V6);
    assert!(
        !v6.contains("*raw") && !v6.contains("ISTIO_OUTPUT_DNS"),
        "{v6}"
    );
}

#[test]
fn the_name_servers_of_the_machine_are_read_only_where_they_count() {
    let server: std::net::IpAddr = "10.0.0.2".parse().unwrap();
    for (line, read) in [
        ("", false),
        ("--redirect-dns", true),
        ("--redirect-dns --capture-all-dns", false),
        ("--redirect-dns --dns-servers 10.0.0.1", false),
    ] {
        let mut options = options(line);
        options.read_servers(|| vec![server]);
        assert_eq!(options.dns_servers.0.contains(&server), read, "{line}");
        assert!(options.check().is_ok(), "{line}");
    }
}

#[test]
fn json_says_the_same_as_the_text() {
    let options = options("--mode tproxy --exclude-outbound-ports 25");
    let mut text = String::new();
    for family in as_json(&options).as_array().unwrap() {
        for command in family["commands"].as_array().unwrap() {
            let words = command.as_array().unwrap().iter();
            let words: Vec<&str> = words.map(|word| word.as_str().unwrap()).collect();
            writeln!(text, "# {}", words.join(" ")).unwrap();
        }
        let program = family["restore"][0].as_str().unwrap();
        writeln!(text, "# {program} --noflush").unwrap();
        for table in family["tables"].as_array().unwrap() {
            writeln!(text, "*{}", table["table"].as_str().unwrap()).unwrap();
            for chain in table["chains"].as_array().unwrap() {
                writeln!(text, ":{} - [0:0]", chain.as_str().unwrap()).unwrap();
            }
            for rule in table["rules"].as_array().unwrap() {
                writeln!(text, "{}", rule.as_str().unwrap()).unwrap();
            }
            text += "COMMIT\n";
        }
    }
    assert_eq!(text, as_text(&options));
}

#[test]
fn options_in_each_others_way_are_refused_by_name() {
    for (words, option) in [
        (&["--redirect-dns"][..], "--redirect-dns"),
        (
            &[
                "--redirect-dns",
                "--no-ipv6",
                "--dns-servers",
                "fd00::a,::1",
            ],
            "--redirect-dns",
        ),
        (
            &["--redirect-dns", "--capture-all-dns", "--dns-port", "15006"],
            "--dns-port",
        ),
        (&["--inbound-port", "15001"], "--inbound-port"),
        (&["--proxy-uid", "", "--proxy-gid", ""], "--proxy-uid"),
        (
            &[
                "--include-inbound-ports",
                "80",
                "--exclude-inbound-ports",
                "81",
            ],
            "--exclude-inbound-ports",
        ),
        (
            &[
                "--kubevirt-interfaces",
                "a,b",
                "--exclude-interfaces",
                "c,b",
            ],
            "--exclude-interfaces: b",
        ),
    ] {
        let message = refused(words);
        assert!(message.starts_with(option), "{words:?}: {message}");
    }
}

#[test]
fn values_that_are_none_are_refused_with_the_option_and_the_value() {
    for (option, value, word) in [
        ("--exclude-inbound-ports", "80,0", "\"0\""),
        ("--include-inbound-ports", "80,*", "\"*\""),
        ("--exclude-outbound-ports", "65536", "\"65536\""),
        ("--exclude-outbound-ports", "+80", "\"+80\""),
        ("--exclude-outbound-ip-ranges", "*", "`*`"),
        ("--include-outbound-ip-ranges", "10.0.0.0/33", "/33"),
        ("--include-outbound-ip-ranges", "reviews", "\"reviews\""),
        ("--proxy-uid", "istio-proxy", "\"istio-proxy\""),
        ("--proxy-gid", "4294967295", "\"4294967295\""),
        (
            "--kubevirt-interfaces",
            "eth0 -j ACCEPT",
            "\"eth0 -j ACCEPT\"",
        ),
        (
            "--exclude-interfaces",
            "sixteen-letters-",
            "\"sixteen-letters-\"",
        ),
        ("--exclude-interfaces", "+", "\"+\""),
        ("--outbound-port", "0", "'0'"),
        ("--dns-servers", "10.0.0.10,dns.example", "\"dns.example\""),
    ] {
        let message = refused(&[option, value]);
        assert!(
            message.contains(option) && message.contains(word),
            "{message}"
        );
    }
}

#[test]
fn lists_are_read_as_istio_writes_them() {
    let options = options("--exclude-inbound-ports=8080,15020,,8080, --proxy-uid=3,4");
    assert_eq!(options.exclude_inbound_ports.0, [8080, 15020]);
    assert_eq!(options.proxy_uid.0, [3, 4]);
}

#[test]
fn a_namespace_cannot_be_an_option_or_a_path() {
    assert_eq!(namespace_name("blue").unwrap(), "blue");
    for name in ["", "-all", "../x", "a/b", "."] {
        assert!(namespace_name(name).is_err(), "{name}");
    }
}
