use super::*;
use mesh_core::model::{FilterChain, TcpProxy};
use naive::naive;
use proptest::prelude::*;

mod naive;

fn matcher(chains: &[ChainMatch]) -> Matcher {
    let mut listener = Listener::new("in", "0.0.0.0:1".parse().unwrap());
    for matches in chains {
        let mut chain = FilterChain::tcp(TcpProxy::to("p", "c"));
        chain.matches = matches.clone();
        listener = listener.chain(chain);
    }
    Matcher::of(&listener)
}

fn asks(change: impl FnOnce(&mut ChainMatch)) -> ChainMatch {
    let mut matches = ChainMatch::default();
    change(&mut matches);
    matches
}

fn names(names: &[&str]) -> Vec<Name> {
    names.iter().map(|name| Name::from(*name)).collect()
}

/// A connection from 10.0.0.1:5 to 10.0.0.2:80.
fn traits() -> Traits<'static> {
    let source = "10.0.0.1:5".parse().unwrap();
    Traits {
        destination: "10.0.0.2:80".parse().unwrap(),
        server_name: "",
        transport: TransportProtocol::Plain,
        protocols: &[],
        direct_source: source,
        source,
    }
}

#[test]
fn one_chain_for_everything_needs_no_look() {
    assert!(matcher(&[ChainMatch::default()]).is_fixed());
    assert_eq!(matcher(&[ChainMatch::default()]).choose(&traits()), Some(0));
    assert_eq!(matcher(&[]).choose(&traits()), None);
    let port = asks(|m| m.destination_port = Some(80));
    assert!(!matcher(&[port]).is_fixed());
}

#[test]
fn a_port_with_chains_of_its_own_never_gets_a_chain_for_all_ports() {
    let own = asks(|m| {
        m.destination_port = Some(80);
        m.server_names = names(&["a.com"]);
    });
    let all = asks(|m| m.server_names = names(&["b.com"]));
    let chains = matcher(&[own, all]);
    let asking = |server_name| Traits {
        server_name,
        ..traits()
    };
    assert_eq!(chains.choose(&asking("a.com")), Some(0));
    assert_eq!(chains.choose(&asking("b.com")), None);
    let elsewhere = Traits {
        destination: "10.0.0.2:81".parse().unwrap(),
        ..asking("b.com")
    };
    assert_eq!(chains.choose(&elsewhere), Some(1));
}

#[test]
fn the_longest_prefix_is_chosen_even_if_its_chain_then_fails() {
    let near = asks(|m| {
        m.destinations = vec!["10.0.0.0/8".parse().unwrap()];
        m.source_ports = vec![1];
    });
    let far = asks(|m| m.destinations = vec!["0.0.0.0/0".parse().unwrap()]);
    let chains = matcher(&[far, near, ChainMatch::default()]);
    assert_eq!(chains.choose(&traits()), None);
    let other = Traits {
        destination: "11.0.0.1:80".parse().unwrap(),
        ..traits()
    };
    assert_eq!(chains.choose(&other), Some(0));
    let v6 = Traits {
        destination: "[::1]:80".parse().unwrap(),
        ..traits()
    };
    assert_eq!(chains.choose(&v6), Some(2));
}

#[test]
fn an_exact_server_name_comes_before_the_longest_ending() {
    let chains = matcher(&[
        asks(|m| m.server_names = names(&["*.com"])),
        asks(|m| m.server_names = names(&["*.A.com"])),
        asks(|m| m.server_names = names(&["www.a.com"])),
        ChainMatch::default(),
    ]);
    for (server_name, expected) in [
        ("www.a.com", 2),
        ("x.a.com", 1),
        ("y.x.a.com", 1),
        ("a.com", 0),
        ("x.com", 0),
        ("com", 3),
        (".com", 3),
        ("x.com.", 3),
        ("b.org", 3),
        ("", 3),
    ] {
        let traits = Traits {
            server_name,
            ..traits()
        };
        // The name itself is what Envoy looks up first, so it finds `*.com` for `.com`.
        let expected = if server_name == ".com" { 0 } else { expected };
        assert_eq!(chains.choose(&traits), Some(expected), "{server_name}");
    }
}

#[test]
fn the_callers_first_protocol_wins_and_what_it_speaks_comes_before() {
    let protocol = |name| asks(|m| m.protocols = names(&[name]));
    let tls = asks(|m| m.transport = Some(TransportProtocol::Tls));
    let chains = matcher(&[protocol("h2"), protocol("http/1.1"), tls]);
    let offered = names(&["foo", "http/1.1", "h2"]);
    let plain = Traits {
        protocols: &offered,
        ..traits()
    };
    assert_eq!(chains.choose(&plain), Some(1));
    let secured = Traits {
        transport: TransportProtocol::Tls,
        ..plain
    };
    assert_eq!(chains.choose(&secured), Some(2));
    assert_eq!(chains.choose(&traits()), None);
}

#[test]
fn only_one_address_of_each_family_is_loopback() {
    let kind = |kind| asks(|m| m.source_kind = kind);
    let chains = matcher(&[
        kind(SourceKind::SameIpOrLoopback),
        kind(SourceKind::External),
        kind(SourceKind::Any),
    ]);
    for (source, destination, expected) in [
        ("127.0.0.1:1", "10.0.0.2:80", 0),
        ("127.0.0.2:1", "127.0.0.1:80", 1),
        ("127.0.0.2:1", "127.0.0.2:80", 0),
        ("[::1]:1", "[::2]:80", 0),
        ("10.0.0.1:1", "10.0.0.2:80", 1),
    ] {
        let traits = Traits {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            ..traits()
        };
        assert_eq!(
            chains.choose(&traits),
            Some(expected),
            "{source} {destination}"
        );
    }
}

#[test]
fn where_a_connection_really_comes_from_is_asked_before_what_was_said() {
    let said = asks(|m| m.sources = vec!["10.0.0.0/8".parse().unwrap()]);
    let really = asks(|m| m.direct_sources = vec!["127.0.0.0/8".parse().unwrap()]);
    let chains = matcher(&[said, really]);
    let proxied = Traits {
        direct_source: "127.0.0.1:9".parse().unwrap(),
        ..traits()
    };
    assert_eq!(chains.choose(&proxied), Some(1));
    assert_eq!(chains.choose(&traits()), Some(0));
}

#[test]
fn of_chains_that_ask_for_the_same_the_first_wins() {
    let port = || asks(|m| m.source_ports = vec![5, 6]);
    assert_eq!(matcher(&[port(), port()]).choose(&traits()), Some(0));
}

fn some<T: Clone + std::fmt::Debug + 'static>(
    values: &'static [T],
) -> impl Strategy<Value = Vec<T>> {
    proptest::sample::subsequence(values, 0..=values.len().min(2))
}

fn blocks() -> impl Strategy<Value = Vec<Cidr>> {
    some(&[
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.1",
        "127.0.0.0/8",
        "::/0",
        "::1",
    ])
    .prop_map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect())
}

fn words(values: &'static [&'static str]) -> impl Strategy<Value = Vec<Name>> {
    some(values).prop_map(|texts| names(&texts))
}

fn transport() -> impl Strategy<Value = TransportProtocol> {
    prop_oneof![Just(TransportProtocol::Plain), Just(TransportProtocol::Tls)]
}

/// Most ask for little, so that several chains are left at each step.
fn chain_match() -> impl Strategy<Value = ChainMatch> {
    let port = proptest::option::weighted(0.3, 80u16..82);
    const KINDS: [SourceKind; 4] = [
        SourceKind::Any,
        SourceKind::Any,
        SourceKind::SameIpOrLoopback,
        SourceKind::External,
    ];
    (
        (
            port,
            blocks(),
            words(&["a.com", "*.a.com", "*.com", "x.a.com"]),
        ),
        proptest::option::weighted(0.3, transport()),
        (
            words(&["h2", "http/1.1"]),
            blocks(),
            proptest::sample::select(&KINDS[..]),
        ),
        (blocks(), some(&[1u16, 2])),
        any::<u16>(),
    )
        .prop_map(
            |((port, to, sni), transport, (alpn, direct, kind), (from, ports), keep)| {
                let mut matches = ChainMatch::default();
                let keeps = |bit: u16| keep & (1 << bit) != 0;
                matches.destination_port = port;
                matches.destinations = if keeps(0) { to } else { Vec::new() };
                matches.server_names = if keeps(1) { sni } else { Vec::new() };
                matches.transport = transport;
                matches.protocols = if keeps(2) { alpn } else { Vec::new() };
                matches.direct_sources = if keeps(3) { direct } else { Vec::new() };
                matches.source_kind = kind;
                matches.sources = if keeps(4) { from } else { Vec::new() };
                matches.source_ports = if keeps(5) { ports } else { Vec::new() };
                matches
            },
        )
}

fn address() -> impl Strategy<Value = SocketAddr> {
    let ip = proptest::sample::select(
        &[
            "10.0.0.1",
            "10.0.0.2",
            "127.0.0.1",
            "127.0.0.2",
            "11.0.0.1",
            "::1",
            "::2",
        ][..],
    );
    let port = proptest::sample::select(&[1u16, 2, 80, 81][..]);
    (ip, port).prop_map(|(ip, port)| SocketAddr::new(ip.parse().unwrap(), port))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_chain_is_chosen_as_the_documentation_says(
        chains in proptest::collection::vec(chain_match(), 0..8),
        (destination, direct_source, source) in (address(), address(), address()),
        server_name in proptest::sample::select(
            &["", "a.com", "x.a.com", "y.x.a.com", "b.com", "com", "a.com."][..],
        ),
        transport in transport(),
        protocols in words(&["http/1.1", "foo", "h2"]),
    ) {
        let traits = Traits {
            destination,
            server_name,
            transport,
            protocols: &protocols,
            direct_source,
            source,
        };
        prop_assert_eq!(matcher(&chains).choose(&traits), naive(&chains, &traits));
    }
}
