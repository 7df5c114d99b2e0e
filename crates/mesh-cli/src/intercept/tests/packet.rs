//! What the printed rules do to packets: a reader of rules and a small netfilter, so that the rules
//! are held against what the options promise and not against the code that wrote them.

use super::super::options::Selection;
use super::*;
use mesh_core::model::Cidr;
use std::collections::HashMap;
use std::net::IpAddr;

mod names;

/// A packet at one of the two hooks.
#[derive(Clone, Debug)]
struct Packet {
    hook: &'static str,
    interface: &'static str,
    from: IpAddr,
    to: IpAddr,
    is_tcp: bool,
    port: u16,
    user: u32,
    group: u32,
    mark: u32,
    connection_mark: u32,
    is_established: bool,
    /// The zone of connection tracking: that of the first rule that names one.
    zone: Option<u16>,
    source_port: u16,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes where it wants.
    Direct,
    Redirected(u16),
    Transparent(u16),
}

/// How a walk through a chain ends.
enum End {
    Fell,
    Stopped(Fate),
}

/// The rules of a table by chain, as words.
type Tables = HashMap<String, HashMap<String, Vec<Vec<String>>>>;

/// Reads what iptables-restore would. Panics at what is none of its syntax.
fn read(text: &str) -> Tables {
    let mut tables = Tables::new();
    let mut current = None;
    for line in text.lines() {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match words[0].as_str() {
            "COMMIT" => current = None,
            name if name.starts_with('*') => {
                current = Some(name[1..].to_owned());
                let table = tables.entry(name[1..].to_owned()).or_default();
                for built_in in ["PREROUTING", "OUTPUT"] {
                    table.insert(built_in.into(), Vec::new());
                }
            }
            name if name.starts_with(':') => {
                let table = tables.get_mut(current.as_ref().unwrap()).unwrap();
                assert!(table.insert(name[1..].to_owned(), Vec::new()).is_none());
            }
            "-A" => {
                let table = tables.get_mut(current.as_ref().unwrap()).unwrap();
                table.get_mut(&words[1]).unwrap().push(words[2..].to_vec());
            }
            "-I" => {
                let table = tables.get_mut(current.as_ref().unwrap()).unwrap();
                let place: usize = words[2].parse().unwrap();
                let chain = table.get_mut(&words[1]).unwrap();
                chain.insert(place - 1, words[3..].to_vec());
            }
            _ => panic!("no line of iptables-restore: {line}"),
        }
    }
    assert_eq!(current, None, "no COMMIT at the end");
    tables
}

fn fate(tables: &Tables, packet: &Packet) -> (Fate, Packet) {
    let mut packet = packet.clone();
    for table in ["raw", "mangle", "nat"] {
        let Some(chains) = tables.get(table) else {
            continue;
        };
        if let End::Stopped(fate) = walk(chains, packet.hook, &mut packet, 0)
            && fate != Fate::Direct
        {
            return (fate, packet);
        }
    }
    (Fate::Direct, packet)
}

fn walk(
    chains: &HashMap<String, Vec<Vec<String>>>,
    name: &str,
    packet: &mut Packet,
    depth: usize,
) -> End {
    assert!(depth < 9, "chains lead to each other for ever");
    for rule in chains
        .get(name)
        .unwrap_or_else(|| panic!("no chain {name}"))
    {
        let Some(target) = matched(rule, packet) else {
            continue;
        };
        let number = |index: usize| target[index].parse().unwrap();
        match target[0].as_str() {
            "RETURN" => return End::Fell,
            "ACCEPT" => return End::Stopped(Fate::Direct),
            "REDIRECT" => {
                assert_eq!(target[1], "--to-ports", "{rule:?}");
                // iptables refuses a port without a protocol that has some.
                assert!(rule.contains(&"-p".to_owned()), "{rule:?}");
                return End::Stopped(Fate::Redirected(number(2)));
            }
            "TPROXY" => {
                assert_eq!(
                    target[1..4],
                    ["--tproxy-mark", "1337/0xffffffff", "--on-port"]
                );
                return End::Stopped(Fate::Transparent(number(4)));
            }
            "MARK" => {
                assert_eq!(target[1], "--set-mark");
                packet.mark = target[2].parse().unwrap();
            }
            "CT" => {
                assert_eq!(target[1], "--zone");
                packet.zone = packet.zone.or_else(|| target[2].parse().ok());
            }
            "CONNMARK" if target[1] == "--save-mark" => packet.connection_mark = packet.mark,
            "CONNMARK" if target[1] == "--restore-mark" => packet.mark = packet.connection_mark,
            chain => {
                assert_eq!(target.len(), 1, "{rule:?}");
                if let End::Stopped(fate) = walk(chains, chain, packet, depth + 1) {
                    return End::Stopped(fate);
                }
            }
        }
    }
    End::Fell
}

/// The words of the target if all conditions hold.
fn matched<'a>(rule: &'a [String], packet: &Packet) -> Option<&'a [String]> {
    let mut words = rule.iter().map(String::as_str).enumerate();
    let mut is_not = false;
    let mut says_protocol = false;
    loop {
        let (index, word) = words.next().expect("a rule has a target");
        if word == "-j" {
            return Some(&rule[index + 1..]);
        }
        if word == "!" {
            is_not = true;
            continue;
        }
        let (_, value) = words.next().expect("an option has a value");
        let number = || value.parse::<u32>().unwrap();
        let block = || value.parse::<Cidr>().unwrap();
        let holds = match word {
            "-m" => {
                let known = [
                    "owner",
                    "mark",
                    "connmark",
                    "conntrack",
                    "comment",
                    "multiport",
                ];
                assert!(known.contains(&value));
                assert!(!is_not);
                continue;
            }
            "--comment" => {
                assert_eq!(value, "mesh-intercept");
                true
            }
            "-i" | "-o" => {
                assert_eq!(word == "-i", packet.hook == "PREROUTING", "{rule:?}");
                match value.strip_suffix('+') {
                    Some(start) => packet.interface.starts_with(start),
                    None => packet.interface == value,
                }
            }
            "-s" => block().contains(packet.from),
            "-d" => block().contains(packet.to),
            "-p" => {
                assert!(["tcp", "udp"].contains(&value));
                says_protocol = true;
                packet.is_tcp == (value == "tcp")
            }
            "--dport" | "--sport" | "--dports" => {
                // iptables refuses a port without a protocol that has some.
                assert!(says_protocol, "{rule:?}");
                let port = match word {
                    "--sport" => packet.source_port,
                    _ => packet.port,
                };
                let mut ports = value.split(',').map(|one| one.parse::<u16>().unwrap());
                ports.any(|one| one == port)
            }
            "--ctstate" => packet.is_established,
            "--uid-owner" => packet.user == number(),
            "--gid-owner" => packet.group == number(),
            "--mark" if rule[..index].contains(&"connmark".to_owned()) => {
                packet.connection_mark == number()
            }
            "--mark" => packet.mark == number(),
            _ => panic!("no option: {word} in {rule:?}"),
        };
        if holds == is_not {
            return None;
        }
        is_not = false;
    }
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let address = |is_v4: bool| {
        let texts = if is_v4 {
            ["10.1.2.3", "10.1.9.9", "10.9.9.9", "93.184.216.34"]
        } else {
            ["fd01::1", "fd01:2::1", "fd02::1", "2001:db8::1"]
        };
        proptest::sample::select(texts.to_vec()).prop_map(|text| text.parse::<IpAddr>().unwrap())
    };
    any::<bool>().prop_flat_map(move |is_v4| {
        let ids = || prop_oneof![Just(0u32), 1336u32..1340];
        (
            (address(is_v4), address(is_v4)),
            prop_oneof![1u16..7, 15000u16..15100, Just(53)],
            proptest::sample::select(vec!["eth0", "eth1", "eth2", "net7"]),
            (ids(), ids()),
            any::<bool>(),
        )
            .prop_map(
                |((from, to), port, interface, (user, group), is_tcp)| Packet {
                    hook: "OUTPUT",
                    interface,
                    from,
                    to,
                    is_tcp,
                    port,
                    user,
                    group,
                    mark: 0,
                    connection_mark: 0,
                    is_established: false,
                    zone: None,
                    source_port: 40000,
                },
            )
    })
}

fn decide(options: &Options, packet: &Packet) -> (Fate, Packet) {
    let family = if packet.to.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    fate(&read(&rules(options, family)), packet)
}

/// Whether a packet is a question to a name server that is answered by the proxy.
fn is_captured_question(options: &Options, packet: &Packet) -> bool {
    let servers = &options.dns_servers.0;
    options.redirect_dns
        && packet.port == 53
        && !is_proxys(options, packet)
        && (options.capture_all_dns || servers.contains(&packet.to))
}

fn names(interfaces: &[String], packet: &Packet) -> bool {
    interfaces.iter().any(|name| match name.strip_suffix('+') {
        Some(start) => packet.interface.starts_with(start),
        None => packet.interface == name,
    })
}

fn is_proxys(options: &Options, packet: &Packet) -> bool {
    options.proxy_uid.0.contains(&packet.user) || options.proxy_gid.0.contains(&packet.group)
}

fn is_included(options: &Options, to: IpAddr) -> bool {
    match &options.include_outbound_ip_ranges {
        Selection::All => true,
        Selection::Only(blocks) => blocks.0.iter().any(|block| block.contains(to)),
    }
}

proptest! {
    #[test]
    fn an_application_is_intercepted_on_the_way_out_as_the_options_say(
        options in any_options(), packet in any_packet(),
    ) {
        let to = packet.to;
        let asks = is_captured_question(&options, &packet);
        let left_alone = !packet.is_tcp
            || is_proxys(&options, &packet)
            || names(&options.exclude_interfaces.0, &packet)
            || options.exclude_outbound_ports.0.contains(&packet.port)
            || options.exclude_outbound_ip_ranges.0.iter().any(|block| block.contains(to));
        let wanted = is_included(&options, to)
            || options.include_outbound_ports.0.contains(&packet.port);
        // Exclusions by port and interface are about connections, and come before questions.
        let excluded = packet.is_tcp
            && (names(&options.exclude_interfaces.0, &packet)
                || options.exclude_outbound_ports.0.contains(&packet.port));
        let expected = if asks && !excluded {
            Fate::Redirected(15053)
        } else if left_alone || !wanted {
            Fate::Direct
        } else {
            Fate::Redirected(15001)
        };
        let (fate, after) = decide(&options, &packet);
        prop_assert_eq!(fate, expected);
        prop_assert_eq!(after.mark, 0, "only what stays on the machine is marked");
    }

    #[test]
    fn a_connection_from_elsewhere_is_intercepted_as_the_options_say(
        options in any_options(), packet in any_packet(),
    ) {
        let packet = Packet { hook: "PREROUTING", ..packet };
        let port = packet.port;
        let is_tunnel = options.mode == options::Mode::Redirect && port == 15008;
        let wanted = match &options.include_inbound_ports {
            Selection::All => {
                ![15090, 15021, 15020].contains(&port)
                    && !options.exclude_inbound_ports.0.contains(&port)
            }
            Selection::Only(ports) => ports.0.contains(&port),
        };
        let expected = if !packet.is_tcp {
            Fate::Direct
        } else if names(&options.kubevirt_interfaces.0, &packet) {
            // The prefix of one may be the whole of another.
            prop_assume!(!names(&options.exclude_interfaces.0, &packet));
            if is_included(&options, packet.to) { Fate::Redirected(15001) } else { Fate::Direct }
        } else if names(&options.exclude_interfaces.0, &packet) || is_tunnel || !wanted {
            Fate::Direct
        } else if options.mode == options::Mode::Tproxy {
            Fate::Transparent(15006)
        } else {
            Fate::Redirected(15006)
        };
        prop_assert_eq!(decide(&options, &packet).0, expected);
    }

    #[test]
    fn an_application_is_left_alone_when_it_calls_a_neighbour_on_the_machine(
        options in any_options(), packet in any_packet(), is_loopback: bool,
    ) {
        let mut packet = Packet { interface: "lo", ..packet };
        prop_assume!(!options.proxy_uid.0.contains(&packet.user));
        prop_assume!(!options.proxy_gid.0.contains(&packet.group));
        // A name server on the machine is another matter.
        prop_assume!(!options.redirect_dns || packet.port != 53);
        if is_loopback {
            packet.to = if packet.to.is_ipv4() { "127.0.0.1" } else { "::1" }.parse().unwrap();
        }
        let (fate, after) = decide(&options, &packet);
        prop_assert_eq!(fate, Fate::Direct);
        // Nor is it when it arrives.
        let arriving = Packet { hook: "PREROUTING", mark: after.mark, ..packet };
        prop_assume!(options.mode == options::Mode::Tproxy);
        prop_assert_eq!(decide(&options, &arriving).0, Fate::Direct);
    }

    #[test]
    fn what_a_proxy_sends_to_its_own_machine_passes_inbound(
        options in any_options(), packet in any_packet(),
    ) {
        let user = options.proxy_uid.0[options.proxy_uid.0.len() - 1];
        let packet = Packet { interface: "lo", user, is_tcp: true, ..packet };
        prop_assume!(packet.port != 15008);
        prop_assume!(!options.redirect_dns || packet.port != 53);
        prop_assume!(!options.exclude_outbound_ports.0.contains(&packet.port));
        prop_assert_eq!(decide(&options, &packet).0, Fate::Redirected(15006));
        // But not what inbound itself passes on, nor what goes to loopback.
        let (source, loopback): (IpAddr, IpAddr) = if packet.to.is_ipv4() {
            ("127.0.0.6".parse().unwrap(), "127.0.0.1".parse().unwrap())
        } else {
            ("::6".parse().unwrap(), "::1".parse().unwrap())
        };
        for packet in [
            Packet { from: source, ..packet.clone() },
            Packet { to: loopback, ..packet },
        ] {
            let (fate, after) = decide(&options, &packet);
            prop_assert_eq!(fate, Fate::Direct);
            let is_marked_inbound = after.mark == 1337;
            prop_assert!(!is_marked_inbound);
        }
    }
}

/// Istio leaves loopback alone unless a block of it is asked for, and 127.0.0.1 even then.
#[test]
fn a_block_of_loopback_is_intercepted_if_it_is_asked_for() {
    let packet = |to: &str| Packet {
        hook: "OUTPUT",
        interface: "lo",
        from: "127.0.0.1".parse().unwrap(),
        to: to.parse().unwrap(),
        is_tcp: true,
        port: 80,
        user: 1000,
        group: 1000,
        mark: 0,
        connection_mark: 0,
        is_established: false,
        zone: None,
        source_port: 40000,
    };
    let asked_for = options("--include-outbound-ip-ranges 127.1.0.0/16");
    for (options, to, expected) in [
        (&asked_for, "127.1.2.3", Fate::Redirected(15001)),
        (&asked_for, "127.0.0.1", Fate::Direct),
        (&options(""), "127.1.2.3", Fate::Direct),
    ] {
        assert_eq!(decide(options, &packet(to)).0, expected, "{to}");
    }
}

/// The way of a connection that keeps the client's address, packet by packet.
#[test]
fn with_tproxy_answers_find_back_to_the_proxy() {
    let options = options("--mode tproxy");
    let to_application = Packet {
        hook: "OUTPUT",
        interface: "lo",
        from: "10.1.9.9".parse().unwrap(),
        to: "10.1.2.3".parse().unwrap(),
        is_tcp: true,
        port: 8080,
        user: 0,
        group: 1337,
        // As the proxy's socket says.
        mark: 1337,
        connection_mark: 0,
        is_established: false,
        zone: None,
        source_port: 40000,
    };
    let (fate, sent) = decide(&options, &to_application);
    assert_eq!((fate, sent.mark), (Fate::Direct, 1337));
    let arriving = Packet {
        hook: "PREROUTING",
        ..sent
    };
    let (fate, arrived) = decide(&options, &arriving);
    assert_eq!((fate, arrived.connection_mark), (Fate::Direct, 1337));
    // The application answers the client; the mark leads it to the routes of table 133.
    let answer = Packet {
        hook: "OUTPUT",
        interface: "eth0",
        user: 1000,
        group: 1000,
        mark: 0,
        is_established: true,
        ..arrived
    };
    assert_eq!(decide(&options, &answer).1.mark, 1337);
}
