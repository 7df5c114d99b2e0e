//! Filter chains: matches, and what two of them may not have in common.

use crate::{back, generate, name, plain, refused};
use mesh_core::model::{FilterChain, HttpManager, Listener, TcpProxy};
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::listener::v3 as pb;
use mesh_xds::pb::google::protobuf::UInt32Value;
use mesh_xds::read::{self, RouteSource};
use mesh_xds::write;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_listener_with_several_chains_survives(listener in generate::listener()) {
        let read = back(&listener, None);
        let tables: Vec<_> = listener.managers().map(|manager| &manager.routes).collect();
        let named: Vec<_> = read.routes.iter().map(|routes| match routes {
            RouteSource::Named(routes) => &routes.name,
            inline => panic!("{inline:?}"),
        }).collect();
        prop_assert_eq!(named, tables);
        prop_assert_eq!(read.listener, listener);
        prop_assert!(read.secrets.is_empty());
    }

    #[test]
    fn a_chain_twice_is_refused_whatever_it_matches(
        matches in generate::matches(), label in name(),
    ) {
        let mut one = FilterChain::tcp(TcpProxy::to("s", "c"));
        one.matches = matches;
        let mut other = one.clone();
        other.name = label;
        let listener = Listener::new("l", ([127, 0, 0, 1], 80).into()).chain(one).chain(other);
        prop_assert_eq!(
            refused(&write::listener(&listener, None)),
            "filter_chains[1].filter_chain_match: matches the same as filter_chains[0]"
        );
    }
}

/// Two chains that match so.
fn two(one: pb::FilterChainMatch, other: pb::FilterChainMatch) -> pb::Listener {
    let mut proto = write::listener(&plain(), None);
    let mut chain = proto.filter_chains[0].clone();
    proto.filter_chains[0].filter_chain_match = Some(one);
    chain.filter_chain_match = Some(other);
    proto.filter_chains.push(chain);
    proto
}

fn names(names: &[&str]) -> pb::FilterChainMatch {
    pb::FilterChainMatch {
        server_names: names.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

#[test]
fn chains_that_overlap_in_part_are_refused() {
    let overlap = two(
        names(&["a.example", "b.example"]),
        names(&["c.example", "b.example"]),
    );
    assert!(refused(&overlap).contains("matches the same as filter_chains[0]"));
    assert!(read::listener(&two(names(&["a.example"]), names(&["*.example"]))).is_ok());
    assert!(read::listener(&two(names(&["a.example"]), names(&[]))).is_ok());
    let blocks = |length| pb::FilterChainMatch {
        prefix_ranges: vec![core::CidrRange {
            address_prefix: "10.1.2.3".to_owned(),
            prefix_len: Some(UInt32Value { value: length }),
        }],
        ..Default::default()
    };
    assert!(read::listener(&two(blocks(8), blocks(16))).is_ok());
    // Only the first bits count, and a prefix that is too long is the whole address.
    assert!(read::listener(&two(blocks(32), blocks(64))).is_err());
}

#[test]
fn what_a_match_cannot_say_is_refused_by_its_field() {
    type Change = fn(&mut pb::FilterChainMatch);
    let changes: [(&str, Change); 6] = [
        (
            "server_names[0]: \"a*.example\": only a whole first label may be `*`",
            |m| {
                m.server_names = vec!["a*.example".to_owned()];
            },
        ),
        (
            "server_names[0]: \"*\": only a whole first label may be `*`",
            |m| {
                m.server_names = vec!["*".to_owned()];
            },
        ),
        (
            "transport_protocol: \"quic\" is not supported; use raw_buffer or tls",
            |m| {
                m.transport_protocol = "quic".to_owned();
            },
        ),
        ("destination_port: 0 is not a port", |m| {
            m.destination_port = Some(UInt32Value { value: 0 });
        }),
        ("source_ports[0]: 65536 is not a port", |m| {
            m.source_ports = vec![65536]
        }),
        ("address_suffix: not supported", |m| {
            m.address_suffix = ".1".to_owned()
        }),
    ];
    for (message, change) in changes {
        let mut proto = write::listener(&plain(), None);
        change(
            proto.filter_chains[0]
                .filter_chain_match
                .get_or_insert_default(),
        );
        let expected = format!("filter_chains[0].filter_chain_match.{message}");
        assert_eq!(refused(&proto), expected);
    }
}

#[test]
fn each_manager_has_a_table_of_its_own() {
    let manager = |routes| FilterChain::http(HttpManager::new("s", routes));
    let mut named = manager("b");
    named.matches.server_names = vec!["a.example".into()];
    let listener = Listener::new("l", ([127, 0, 0, 1], 80).into())
        .chain(manager("a"))
        .chain(named);
    let table = mesh_core::model::RouteTable::new("b");
    match &back(&listener, Some(&table)).routes[..] {
        [RouteSource::Named(one), RouteSource::Inline(other)] => {
            assert_eq!((one.name.as_str(), other.name.as_str()), ("a", "b"));
        }
        other => panic!("{other:?}"),
    }
}
