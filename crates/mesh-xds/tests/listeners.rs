//! Listeners, written and read back, and what is refused or defaulted on the way.

#[path = "listeners/authz.rs"]
mod authz;
#[path = "listeners/chains.rs"]
mod chains;
#[path = "listeners/external.rs"]
mod external;
#[path = "listeners/filter_state.rs"]
mod filter_state;
#[path = "listeners/generate.rs"]
mod generate;
#[path = "listeners/inspect.rs"]
mod inspect;
#[path = "listeners/session.rs"]
mod session;
#[path = "listeners/tcp.rs"]
mod tcp;
#[path = "tls/generate.rs"]
mod tls;

use http::{HeaderName, StatusCode};
use mesh_core::Name;
use mesh_core::model::{
    AccessLog, ClientCertificate, Cluster, ClustersOnDemand, Direction, DiscoveryKind,
    EscapedSlashes, FilterChain, ForwardedCertificate, HashCookie, HttpManager, Listener,
    ListenerAddress, PathNormalization, RateLimit, RouteTable, Rule, Session, SessionState,
    SnapshotBuilder, StripPort, UnixPath, VirtualHost,
};
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::listener::v3 as pb;
use mesh_xds::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use mesh_xds::pb::google::protobuf::{Any, BoolValue};
use mesh_xds::read::{self, Resource, RouteSource, Source};
use mesh_xds::{TypeUrl, write};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;

// === what is generated ===

fn name() -> BoxedStrategy<Name> {
    prop_oneof!["[a-z0-9._|;]{1,12}", "[ -~]{1,12}"]
        .prop_map(Name::from)
        .boxed()
}

fn time() -> BoxedStrategy<Duration> {
    prop_oneof![
        (1_u64..100_000).prop_map(Duration::from_millis),
        (1_u64..1_000_000_000_000).prop_map(Duration::from_nanos),
    ]
    .boxed()
}

fn access_log() -> BoxedStrategy<AccessLog> {
    let format = prop_oneof![Just(String::new()), "[ -~]{1,20}\n"];
    ("/[a-z]{1,8}", format)
        .prop_map(|(path, format)| AccessLog {
            path: path.into(),
            format: format.into(),
        })
        .boxed()
}

fn path() -> BoxedStrategy<PathNormalization> {
    let escaped = prop_oneof![
        Just(EscapedSlashes::Keep),
        Just(EscapedSlashes::Reject),
        Just(EscapedSlashes::Redirect),
        Just(EscapedSlashes::Decode),
    ];
    (any::<bool>(), any::<bool>(), escaped)
        .prop_map(
            |(normalize, merge_slashes, escaped_slashes)| PathNormalization {
                normalize,
                merge_slashes,
                escaped_slashes,
            },
        )
        .boxed()
}

/// A status of an error that is on Envoy's list.
fn status() -> BoxedStrategy<u16> {
    use mesh_xds::pb::envoy::r#type::v3::StatusCode;
    (400_u16..600)
        .prop_filter("not on Envoy's list", |code| {
            StatusCode::try_from(i32::from(*code)).is_ok()
        })
        .boxed()
}

fn rate_limit() -> BoxedStrategy<RateLimit> {
    let interval = (50_u64..100_000).prop_map(Duration::from_millis);
    (1..=u32::MAX, 1..=u32::MAX, interval, status())
        .prop_map(|(max, fill, interval, status)| {
            let mut limit = RateLimit::new(max, fill, interval);
            limit.status = StatusCode::from_u16(status).unwrap();
            limit
        })
        .boxed()
}

fn client_certificate() -> BoxedStrategy<ClientCertificate> {
    let mode = proptest::sample::select(vec![
        ForwardedCertificate::Sanitize,
        ForwardedCertificate::ForwardOnly,
        ForwardedCertificate::AppendForward,
        ForwardedCertificate::SanitizeSet,
        ForwardedCertificate::AlwaysForwardOnly,
    ]);
    (mode, any::<[bool; 5]>())
        .prop_map(|(mode, parts)| {
            let mut told = ClientCertificate::default();
            told.mode = mode;
            [told.subject, told.cert, told.chain, told.dns, told.uri] = parts;
            told
        })
        .boxed()
}

fn session() -> BoxedStrategy<Session> {
    let header = || "x-[a-z]{1,4}".prop_map(|name| HeaderName::try_from(name).unwrap());
    let cookie = (name(), option::of(time()), vec((name(), name()), 0..3)).prop_map(
        |(name, ttl, attributes)| {
            let mut cookie = HashCookie::default();
            (cookie.name, cookie.ttl, cookie.attributes) = (name, ttl, attributes);
            SessionState::Cookie(cookie)
        },
    );
    let state = prop_oneof![
        cookie,
        header().prop_map(SessionState::Header),
        header().prop_map(SessionState::Envelope),
    ];
    (option::of(state), any::<bool>(), 200_u16..600, name())
        .prop_map(|(state, strict, status, prefix)| {
            let mut session = Session::default();
            (session.state, session.strict, session.stat_prefix) = (state, strict, prefix);
            if strict {
                session.missing_status = StatusCode::from_u16(status).unwrap();
            }
            session
        })
        .boxed()
}

fn manager() -> BoxedStrategy<HttpManager> {
    let direction = prop_oneof![
        Just(Direction::Inbound),
        Just(Direction::Outbound),
        Just(Direction::Gateway),
    ];
    let server = prop_oneof![Just(Name::default()), name()];
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<u32>());
    let numbers = (1_u32..=8192, 1..=u32::MAX, 1..=i32::MAX.unsigned_abs());
    let times = (
        option::of(time()),
        option::of(time()),
        option::of(time()),
        option::of(time()),
    );
    let rest = (
        vec(access_log(), 0..3),
        path(),
        vec("[a-b][a-z]{0,8}".prop_map(Name::from), 0..3),
        option::of(rate_limit()),
        proptest::sample::subsequence(
            vec![
                "envoy.filters.http.cors",
                "envoy.filters.http.fault",
                "envoy.filters.http.local_ratelimit",
            ],
            0..=3,
        ),
        option::of(prop_oneof![
            Just(ClustersOnDemand::Off),
            time().prop_map(ClustersOnDemand::Within),
        ]),
        client_certificate(),
        option::of(session()),
        option::of(filter_state::generated()),
    );
    let names = (name(), name(), server, direction);
    let port = proptest::sample::select(vec![StripPort::Keep, StripPort::Matching, StripPort::Any]);
    let via = prop_oneof![Just(Name::default()), name()];
    let marks = (via, port, any::<bool>(), any::<bool>(), any::<bool>());
    (names, flags, numbers, times, rest, marks)
        .prop_map(|(names, flags, numbers, times, rest, marks)| {
            let mut manager = HttpManager::new(names.0, names.1);
            manager.server_name = names.2;
            manager.via = marks.0;
            manager.strip_port = marks.1;
            manager.server_if_absent = marks.2 && !manager.server_name.is_empty();
            manager.keep_forwarded_for = marks.3;
            manager.request_id_in_response = marks.4;
            manager.direction = names.3;
            manager.use_remote_address = flags.0;
            manager.request_id = flags.1;
            manager.keep_external_request_id = flags.2;
            manager.trusted_hops = flags.3;
            manager.max_head_kib = numbers.0;
            manager.max_headers = numbers.1;
            manager.max_concurrent_streams = numbers.2;
            manager.idle_timeout = times.0;
            manager.stream_idle_timeout = times.1;
            manager.request_timeout = times.2;
            manager.request_head_timeout = times.3;
            manager.access_log = rest.0;
            manager.path = rest.1;
            manager.upgrades = rest.2;
            manager.upgrades.sort();
            manager.upgrades.dedup();
            manager.rate_limit = rest.3.map(Arc::new);
            manager.missing_filters = rest.4.into_iter().map(Name::from).collect();
            manager.on_demand = rest.5;
            manager.client_certificate = rest.6;
            manager.session = rest.7.map(Arc::new);
            manager.filter_state = rest.8.map(Arc::new);
            manager
        })
        .boxed()
}

fn listener() -> BoxedStrategy<Listener> {
    let address = prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|at| (std::net::SocketAddr::from(at).into(), 0)),
        any::<([u16; 8], u16)>().prop_map(|at| (std::net::SocketAddr::from(at).into(), 0)),
        ("[./a-z][a-z/]{1,20}", 0..=0o777_u32)
            .prop_map(|(path, mode)| (UnixPath::new(&path).unwrap().into(), mode)),
        "@[a-z/]{1,20}".prop_map(|name| (UnixPath::new(&name).unwrap().into(), 0)),
    ];
    (name(), address, manager())
        .prop_map(
            |(name, (address, mode), manager): (_, (ListenerAddress, _), _)| {
                let chain = FilterChain::http(manager);
                let mut listener = Listener::at(name, address).chain(chain);
                listener.mode = mode;
                listener
            },
        )
        .boxed()
}

// === there and back ===

fn back(listener: &Listener, routes: Option<&RouteTable>) -> read::ListenerResource {
    let proto = write::forwarding_listener(listener, routes);
    let encoded = write::encode(&listener.name, &proto);
    match read::resource(TypeUrl::Listener, &encoded.bytes) {
        Ok(Resource::Listener(read)) => *read,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn a_listener_by_reference_survives(listener in listener()) {
        let read = back(&listener, None);
        let manager = listener.managers().next().unwrap();
        match &read.routes[..] {
            [RouteSource::Named(routes)] => {
                prop_assert_eq!((&routes.name, &routes.from), (&manager.routes, &Source::Ads));
                prop_assert_eq!(routes.initial_fetch_timeout, None);
            }
            inline => panic!("{inline:?}"),
        }
        prop_assert_eq!(read.listener, listener);
    }

    #[test]
    fn a_listener_with_its_routes_survives(listener in listener(), checked in any::<bool>()) {
        let manager = listener.managers().next().unwrap();
        let host = VirtualHost::new("a", ["*"]).rule(Rule::prefix_to("/", "c"));
        let mut table = RouteTable::new(manager.routes.as_str()).host(host);
        table.validate_clusters = checked;
        let read = back(&listener, Some(&table));
        prop_assert_eq!(read.listener, listener);
        match &read.routes[..] {
            [RouteSource::Inline(routes)] => prop_assert_eq!(&**routes, &table),
            named => panic!("{named:?}"),
        }
    }

    #[test]
    fn no_damage_makes_the_reader_panic(
        listener in listener(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let encoded = write::encode("x", &write::listener(&listener, None));
        let mut bytes = encoded.bytes.to_vec();
        for (at, with) in damage {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
        }
        let _ = read::resource(TypeUrl::Listener, &bytes);
    }
}

// === a listener to change ===

fn any_of<M: prost::Message + prost::Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

fn plain() -> Listener {
    let manager = HttpManager::new("stat", "routes");
    Listener::http("l", "127.0.0.1:80".parse().unwrap(), manager)
}

/// A listener whose manager was changed.
fn with(change: impl FnOnce(&mut hcm::HttpConnectionManager)) -> pb::Listener {
    let mut proto = write::listener(&plain(), None);
    let filter = &mut proto.filter_chains[0].filters[0];
    let Some(pb::filter::ConfigType::TypedConfig(any)) = &mut filter.config_type else {
        unreachable!()
    };
    let mut manager = hcm::HttpConnectionManager::decode(any.value.as_slice()).unwrap();
    change(&mut manager);
    *any = any_of(&manager);
    proto
}

fn read_manager(proto: &pb::Listener) -> HttpManager {
    let read = read::listener(proto).unwrap();
    HttpManager::clone(read.listener.managers().next().unwrap())
}

fn refused(proto: &pb::Listener) -> String {
    read::listener(proto).unwrap_err().to_string()
}

fn router() -> hcm::HttpFilter {
    use mesh_xds::pb::envoy::extensions::filters::http::router::v3::Router;
    filter("router", any_of(&Router::default()))
}

fn filter(name: &str, config: Any) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(config)),
        ..Default::default()
    }
}

fn unknown(url: &str) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{url}"),
        value: Vec::new(),
    }
}

// === what Envoy means where nothing is said ===

#[test]
fn a_manager_that_says_nothing_has_envoys_defaults() {
    let manager = read_manager(&with(|manager| {
        *manager = hcm::HttpConnectionManager {
            stat_prefix: manager.stat_prefix.clone(),
            route_specifier: manager.route_specifier.clone(),
            http_filters: vec![router()],
            ..Default::default()
        };
    }));
    let mut expected = HttpManager::new("stat", "routes");
    expected.server_name = "envoy".into();
    expected.path.normalize = false;
    expected.stream_idle_timeout = Some(Duration::from_secs(300));
    expected.upgrades.clear();
    // The router is all that it has.
    expected.missing_filters = manager.missing_filters.clone();
    assert_eq!(manager, expected);
}

#[test]
fn the_edge_is_told_by_looking_at_the_peers_address() {
    for (direction, edge, expected) in [
        (core::TrafficDirection::Inbound, true, Direction::Inbound),
        (core::TrafficDirection::Outbound, false, Direction::Outbound),
        (core::TrafficDirection::Outbound, true, Direction::Gateway),
        (
            core::TrafficDirection::Unspecified,
            true,
            Direction::Gateway,
        ),
        (
            core::TrafficDirection::Unspecified,
            false,
            Direction::Outbound,
        ),
    ] {
        let mut proto = with(|manager| {
            manager.use_remote_address = Some(BoolValue { value: edge });
        });
        proto.traffic_direction = direction.into();
        assert_eq!(
            read_manager(&proto).direction,
            expected,
            "{direction:?} {edge}"
        );
    }
}

#[test]
fn routes_in_a_listener_have_its_name_if_they_have_none_and_are_checked() {
    let proto = with(|manager| {
        manager.route_specifier = Some(hcm::http_connection_manager::RouteSpecifier::RouteConfig(
            Default::default(),
        ));
    });
    match &read::listener(&proto).unwrap().routes[..] {
        [RouteSource::Inline(table)] => {
            assert_eq!(table.name, "l");
            assert!(table.validate_clusters);
        }
        named => panic!("{named:?}"),
    }
    assert_eq!(read_manager(&proto).routes, "l");
}

#[test]
fn one_filter_chain_may_be_the_default_one() {
    let mut proto = write::listener(&plain(), None);
    proto.default_filter_chain = proto.filter_chains.pop();
    let read = read::listener(&proto).unwrap().listener;
    assert!(read.chains.is_empty());
    assert_eq!(read.default_chain.as_ref(), plain().chains.first());
    let chain = proto.default_filter_chain.as_mut().unwrap();
    chain.filter_chain_match = Some(pb::FilterChainMatch {
        transport_protocol: "tls".to_owned(),
        ..Default::default()
    });
    let error = refused(&proto);
    assert!(
        error.starts_with("default_filter_chain.filter_chain_match: has no effect"),
        "{error}"
    );
}

#[test]
fn a_log_without_a_format_has_envoys_and_istios_is_the_models_own() {
    use mesh_xds::pb::envoy::config::accesslog::v3 as log;
    use mesh_xds::pb::envoy::extensions::access_loggers::file::v3::FileAccessLog;
    use mesh_xds::pb::envoy::extensions::access_loggers::stream::v3::StdoutAccessLog;
    let logger = |any| log::AccessLog {
        config_type: Some(log::access_log::ConfigType::TypedConfig(any)),
        ..Default::default()
    };
    let file = FileAccessLog {
        path: "/a".to_owned(),
        access_log_format: None,
    };
    let manager = read_manager(&with(|manager| {
        manager.access_log = vec![
            logger(any_of(&file)),
            logger(any_of(&StdoutAccessLog::default())),
        ];
    }));
    let paths: Vec<_> = manager
        .access_log
        .iter()
        .map(|log| log.path.as_str())
        .collect();
    assert_eq!(paths, ["/a", "/dev/stdout"]);
    for log in &manager.access_log {
        assert!(
            log.format.ends_with("\"%UPSTREAM_HOST%\"\n"),
            "{}",
            log.format
        );
    }

    let mut listener = HttpManager::new("stat", "routes");
    listener.access_log = vec![AccessLog {
        path: "-".into(),
        format: Name::default(),
    }];
    let proto = write::listener(
        &Listener::http("l", "127.0.0.1:80".parse().unwrap(), listener),
        None,
    );
    let log = &read_manager(&proto).access_log[0];
    assert_eq!(
        (log.path.as_str(), log.format.as_str()),
        ("/dev/stdout", "")
    );
}

#[test]
fn an_upgrade_that_is_switched_off_is_none() {
    let upgrade = |kind: &str, on| hcm::http_connection_manager::UpgradeConfig {
        upgrade_type: kind.to_owned(),
        enabled: Some(BoolValue { value: on }),
        ..Default::default()
    };
    let manager = read_manager(&with(|manager| {
        manager.upgrade_configs = vec![upgrade("WebSocket", true), upgrade("spdy", false)];
    }));
    assert_eq!(manager.upgrades, ["websocket"]);
}

// === filters ===

#[test]
fn what_istiod_sends_without_effect_here_is_accepted() {
    let mut proto = with(|manager| {
        manager.http_filters.insert(
            0,
            filter(
                "a",
                unknown("envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"),
            ),
        );
        manager.tracing = Some(Default::default());
        manager.proxy_100_continue = true;
        manager.request_id_extension = Some(hcm::RequestIdExtension {
            typed_config: Some(unknown(
                "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig",
            )),
        });
    });
    let any = unknown("envoy.tcp.metadataexchange.config.MetadataExchange");
    let exchange = pb::Filter {
        name: "istio.metadata_exchange".to_owned(),
        config_type: Some(pb::filter::ConfigType::TypedConfig(any)),
    };
    proto.filter_chains[0].filters.insert(0, exchange);
    assert_eq!(read::listener(&proto).unwrap().listener, plain());
}

#[test]
fn the_router_is_required_and_last() {
    let proto = with(|manager| manager.http_filters.clear());
    assert!(refused(&proto).contains("http_filters: required, but missing"));
    let proto = with(|manager| {
        manager.http_filters.pop();
    });
    assert!(refused(&proto).contains("http_filters[2]: the last filter has to be"));
    let proto = with(|manager| manager.http_filters.insert(0, router()));
    assert!(refused(&proto).contains("http_filters[0]: the router has to be the last"));
}

#[test]
fn an_unknown_filter_is_refused_unless_it_is_optional() {
    let add = |optional| {
        with(|manager| {
            let mut lua = filter("lua", unknown("x.Lua"));
            lua.is_optional = optional;
            manager.http_filters.insert(0, lua);
        })
    };
    assert_eq!(
        refused(&add(false)),
        "filter_chains[0].filters[0].typed_config.http_filters[0].typed_config: \
         \"x.Lua\" is not supported"
    );
    assert_eq!(read::listener(&add(true)).unwrap().listener, plain());
}

#[test]
fn a_limit_that_is_not_switched_on_limits_nothing_and_half_a_limit_is_refused() {
    use mesh_xds::pb::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
    use mesh_xds::pb::envoy::r#type::v3::{FractionalPercent, TokenBucket};
    let limit = |percent: Option<u32>| {
        let share = percent.map(|numerator| core::RuntimeFractionalPercent {
            default_value: Some(FractionalPercent {
                numerator,
                denominator: 0,
            }),
            ..Default::default()
        });
        let config = LocalRateLimit {
            stat_prefix: "x".to_owned(),
            token_bucket: Some(TokenBucket {
                max_tokens: 3,
                fill_interval: Some(mesh_xds::pb::google::protobuf::Duration {
                    seconds: 1,
                    nanos: 0,
                }),
                ..Default::default()
            }),
            filter_enabled: share.clone(),
            filter_enforced: share,
            ..Default::default()
        };
        with(|manager| manager.http_filters[0] = filter("limit", any_of(&config)))
    };
    assert_eq!(read_manager(&limit(None)).rate_limit, None);
    let on = read_manager(&limit(Some(100))).rate_limit.unwrap();
    assert_eq!(*on, RateLimit::new(3, 1, Duration::from_secs(1)));
    assert!(refused(&limit(Some(50))).contains("filter_enabled: 50% of requests is not supported"));
}

#[test]
fn filters_that_routes_may_configure_are_known_by_their_names_and_kinds() {
    assert_eq!(read_manager(&with(|_| {})).missing_filters, [""; 0]);
    let other = "envoy.filters.http.fault";
    let manager = read_manager(&with(|manager| {
        manager
            .http_filters
            .retain(|filter| filter.name.ends_with("router"));
        let cors = mesh_xds::pb::envoy::extensions::filters::http::cors::v3::Cors {};
        // One has another name, and one the name of another.
        manager
            .http_filters
            .insert(0, filter("cors", any_of(&cors)));
        manager.http_filters.insert(1, filter(other, any_of(&cors)));
    }));
    let all = [
        "envoy.filters.http.cors",
        other,
        "envoy.filters.http.local_ratelimit",
    ];
    assert_eq!(manager.missing_filters, all);
}

// === what is refused ===

#[test]
fn what_a_manager_cannot_do_is_refused_by_its_field() {
    use hcm::http_connection_manager as inner;
    type Change = fn(&mut hcm::HttpConnectionManager);
    let changes: [(&str, Change); 5] = [
        ("codec_type: only AUTO is supported", |m| {
            m.codec_type = inner::CodecType::Http2.into();
        }),
        ("via: cannot stand in a header", |m| {
            m.via = "x\n".to_owned()
        }),
        (
            "common_http_protocol_options.max_stream_duration: not supported",
            |m| {
                m.common_http_protocol_options
                    .get_or_insert_default()
                    .max_stream_duration = Some(Default::default());
            },
        ),
        ("route_specifier: required, but missing", |m| {
            m.route_specifier = None
        }),
        (
            "upgrade_configs[0].upgrade_type: \"CONNECT\" is not supported",
            |m| {
                m.upgrade_configs[0].upgrade_type = "CONNECT".to_owned();
            },
        ),
    ];
    for (message, change) in changes {
        let error = refused(&with(change));
        let expected = format!("filter_chains[0].filters[0].typed_config.{message}");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn what_a_listener_cannot_do_is_refused_by_its_field() {
    type Change = fn(&mut pb::Listener);
    let changes: [(&str, Change); 6] = [
        ("freebind: true is not supported yet", |l| {
            l.freebind = Some(BoolValue { value: true });
        }),
        ("filter_chains: required, but missing", |l| {
            l.filter_chains.clear();
        }),
        ("filter_chains[0].filters: required, but missing", |l| {
            l.filter_chains[0].filters.clear();
        }),
        (
            "filter_chains[0].transport_socket.typed_config: \"x.Tls\" is not supported",
            |l| {
                l.filter_chains[0].transport_socket = Some(core::TransportSocket {
                    config_type: Some(core::transport_socket::ConfigType::TypedConfig(unknown(
                        "x.Tls",
                    ))),
                    ..Default::default()
                });
            },
        ),
        (
            "filter_chains[0].filters[0].typed_config: \"x.Tcp\" is not supported: the last \
             filter is an HTTP connection manager or a TCP proxy",
            |l| {
                l.filter_chains[0].filters[0].config_type =
                    Some(pb::filter::ConfigType::TypedConfig(unknown("x.Tcp")));
            },
        ),
        (
            "listener_filters[0].typed_config: \"x.Other\" is not supported",
            |l| {
                l.listener_filters.push(pb::ListenerFilter {
                    config_type: Some(pb::listener_filter::ConfigType::TypedConfig(unknown(
                        "x.Other",
                    ))),
                    ..Default::default()
                });
            },
        ),
    ];
    for (message, change) in changes {
        let mut proto = write::listener(&plain(), None);
        change(&mut proto);
        assert_eq!(refused(&proto), message);
    }
}

// === gRPC clients, and everything at once ===

#[test]
fn what_is_for_grpc_clients_is_refused() {
    let mut proto = write::listener(&plain(), None);
    proto.api_listener = Some(pb::ApiListener::default());
    assert!(refused(&proto).starts_with("api_listener: "));
}

#[test]
fn a_snapshot_is_written_whole_and_in_sending_order() {
    let mut builder = SnapshotBuilder::new();
    let mut pass = Cluster::new("pass");
    pass.discovery = DiscoveryKind::Authority;
    let mut dns = Cluster::new("dns");
    dns.discovery = DiscoveryKind::StrictDns;
    builder
        .cluster(Cluster::new("c"))
        .cluster(pass)
        .cluster(dns);
    builder.routes(RouteTable::new("routes"));
    builder.listener(plain());
    let (snapshot, _) = builder.build().unwrap();
    let written = write::snapshot(&snapshot);
    let names: Vec<_> = written
        .iter()
        .map(|(kind, one)| (kind.short(), one.name.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("CDS", "c"),
            ("CDS", "pass"),
            ("CDS", "dns"),
            ("EDS", "c"),
            ("LDS", "l"),
            ("RDS", "routes"),
        ]
    );
    for (kind, one) in &written {
        read::resource(*kind, &one.bytes).unwrap();
    }
    assert_eq!(
        written[4].1,
        write::encode("l", &write::forwarding_listener(&plain(), None))
    );
    assert_eq!(
        written,
        write::snapshot(&snapshot),
        "versions do not change by themselves"
    );
}
