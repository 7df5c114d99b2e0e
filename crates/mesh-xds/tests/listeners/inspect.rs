//! Listener filters, and what Envoy adds by itself.

use crate::{any_of, plain, refused, unknown};
use mesh_core::model::{Inspector, PortRange};
use mesh_xds::pb::envoy::config::listener::v3 as pb;
use mesh_xds::pb::envoy::config::listener::v3::listener_filter_chain_match_predicate::{
    MatchSet, Rule,
};
use mesh_xds::pb::google::protobuf::{Any, BoolValue};
use mesh_xds::{read, write};

const FILTERS: &str = "envoy.extensions.filters.listener";

fn filter(kind: &str) -> pb::ListenerFilter {
    with(unknown(&format!("{FILTERS}.{kind}")))
}

fn with(any: Any) -> pb::ListenerFilter {
    pb::ListenerFilter {
        config_type: Some(pb::listener_filter::ConfigType::TypedConfig(any)),
        ..Default::default()
    }
}

fn listener(filters: Vec<pb::ListenerFilter>) -> pb::Listener {
    let mut proto = write::listener(&plain(), None);
    proto.listener_filters = filters;
    proto
}

fn rule(rule: Rule) -> pb::ListenerFilterChainMatchPredicate {
    pb::ListenerFilterChainMatchPredicate { rule: Some(rule) }
}

fn range(start: i32, end: i32) -> pb::ListenerFilterChainMatchPredicate {
    use mesh_xds::pb::envoy::r#type::v3::Int32Range;
    rule(Rule::DestinationPortRange(Int32Range { start, end }))
}

#[test]
fn an_inspector_leaves_out_the_ports_of_a_condition() {
    let mut inspector = filter("http_inspector.v3.HttpInspector");
    let inner = rule(Rule::OrMatch(MatchSet {
        rules: vec![range(80, 81), range(-5, 3)],
    }));
    inspector.filter_disabled = Some(rule(Rule::OrMatch(MatchSet {
        rules: vec![inner, range(15006, 15007)],
    })));
    let read = read::listener(&listener(vec![inspector])).unwrap().listener;
    let expected = Inspector {
        except: vec![
            PortRange::single(80),
            PortRange { start: 0, end: 3 },
            PortRange::single(15006),
        ],
    };
    assert_eq!(read.inspect.http, Some(expected));
}

#[test]
fn what_a_chain_asks_about_is_looked_for() {
    let mut proto = listener(Vec::new());
    assert_eq!(read::listener(&proto).unwrap().listener.inspect.tls, None);
    proto.filter_chains[0].filter_chain_match = Some(pb::FilterChainMatch {
        server_names: vec!["a.example".to_owned()],
        ..Default::default()
    });
    let read = read::listener(&proto).unwrap().listener;
    assert_eq!(read.inspect.tls, Some(Inspector::default()));
    let matches = proto.filter_chains[0].filter_chain_match.as_mut().unwrap();
    matches.transport_protocol = "raw_buffer".to_owned();
    assert_eq!(read::listener(&proto).unwrap().listener.inspect.tls, None);
}

#[test]
fn who_hands_connections_over_asks_where_they_were_going() {
    let mut proto = listener(Vec::new());
    proto.use_original_dst = Some(BoolValue { value: true });
    let read = read::listener(&proto).unwrap().listener;
    assert!(read.hand_off && read.inspect.original_destination);
}

#[test]
fn what_a_filter_cannot_do_is_refused_by_its_place() {
    use mesh_xds::pb::envoy::extensions::filters::listener::original_src::v3::OriginalSrc;
    use mesh_xds::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
    use mesh_xds::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
    let disabled = |kind: &str, predicate| {
        let mut filter = filter(kind);
        filter.filter_disabled = Some(predicate);
        filter
    };
    let tls = TlsInspector {
        enable_ja3_fingerprinting: Some(BoolValue { value: true }),
        ..Default::default()
    };
    let header = ProxyProtocol {
        disallowed_versions: vec![0],
        ..Default::default()
    };
    for (filters, message) in [
        (
            vec![
                filter("original_dst.v3.OriginalDst"),
                filter("original_dst.v3.OriginalDst"),
            ],
            "listener_filters[1]: the same filter a second time has no effect",
        ),
        (
            vec![
                filter("tls_inspector.v3.TlsInspector"),
                filter("proxy_protocol.v3.ProxyProtocol"),
            ],
            "listener_filters[1]: has to stand before filters that look at what comes after",
        ),
        (
            vec![
                filter("original_src.v3.OriginalSrc"),
                filter("original_src.v3.OriginalSrc"),
            ],
            "listener_filters[1]: the same filter a second time has no effect",
        ),
        (
            vec![
                filter("original_src.v3.OriginalSrc"),
                filter("proxy_protocol.v3.ProxyProtocol"),
            ],
            "listener_filters[1]: has to stand before the filter that keeps the caller's address",
        ),
        (
            vec![with(any_of(&OriginalSrc {
                bind_port: true,
                mark: 1337,
            }))],
            "listener_filters[0].typed_config.bind_port: not supported",
        ),
        (
            vec![disabled("original_dst.v3.OriginalDst", range(80, 81))],
            "listener_filters[0].filter_disabled: not supported",
        ),
        (
            vec![disabled(
                "http_inspector.v3.HttpInspector",
                rule(Rule::AnyMatch(true)),
            )],
            "listener_filters[0].filter_disabled.any_match: not supported",
        ),
        (
            vec![with(any_of(&tls))],
            "listener_filters[0].typed_config.enable_ja3_fingerprinting: not supported",
        ),
        (
            vec![with(any_of(&header))],
            "listener_filters[0].typed_config.disallowed_versions: not supported",
        ),
    ] {
        let error = refused(&listener(filters));
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn conditions_in_conditions_have_an_end() {
    let mut predicate = range(1, 2);
    for _ in 0..10_000 {
        predicate = rule(Rule::OrMatch(MatchSet {
            rules: vec![predicate],
        }));
    }
    let mut inspector = filter("http_inspector.v3.HttpInspector");
    inspector.filter_disabled = Some(predicate);
    assert!(refused(&listener(vec![inspector])).contains("nested more than"));
}

#[test]
fn a_listener_logs_only_what_no_chain_was_found_for() {
    use mesh_core::model::AccessLog;
    let mut model = plain();
    model.access_log = vec![AccessLog {
        path: "/log".into(),
        format: "x\n".into(),
    }];
    let mut proto = write::listener(&model, None);
    assert_eq!(read::listener(&proto).unwrap().listener, model);
    proto.access_log[0].filter = None;
    assert!(refused(&proto).starts_with("access_log[0].filter: "));
}
