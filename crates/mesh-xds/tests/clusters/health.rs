//! Active health checks: generated, and what is refused of them.

use super::{eds, refused, time};
use http::{HeaderName, HeaderValue, Method};
use mesh_core::Name;
use mesh_core::model::{
    AddMode, Address, Cluster, DiscoveryKind, EndpointCheck, GrpcProbe, HeaderAdd, HeaderChanges,
    HeaderEdits, HeaderTemplate, HealthCheck, HttpProbe, Probe, StringMatch, TcpProbe,
    UpstreamProtocol,
};
use mesh_xds::pb::envoy::config::cluster::v3 as pb;
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::core::v3::health_check::{self, HealthChecker, Payload, payload};
use mesh_xds::pb::envoy::r#type::v3::Int64Range;
use mesh_xds::pb::google::protobuf::{Duration as Wire, UInt32Value};
use mesh_xds::{read, write};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What a cluster says of health checks.
#[derive(Clone, Debug)]
pub(crate) struct Checks(Option<(HealthCheck, bool)>);

impl Checks {
    /// What goes with the rest of the cluster; the rest is not said.
    pub(crate) fn lay(self, cluster: &mut Cluster) {
        let named = [DiscoveryKind::Authority, DiscoveryKind::OriginalDestination];
        let Some((mut check, keep)) = self.0 else {
            return;
        };
        if named.contains(&cluster.discovery) {
            return;
        }
        if cluster.protocol == UpstreamProtocol::Http1 && matches!(check.probe, Probe::Grpc(_)) {
            check.probe = Probe::Tcp(TcpProbe::default());
        }
        cluster.health_checks = [check].into();
        cluster.keep_removed = keep && cluster.discovery == DiscoveryKind::StrictDns;
    }
}

pub(crate) fn checks() -> BoxedStrategy<Checks> {
    option::of((check(), any::<bool>()))
        .prop_map(Checks)
        .boxed()
}

fn maybe_time() -> BoxedStrategy<Duration> {
    prop_oneof![Just(Duration::ZERO), time()].boxed()
}

fn check() -> BoxedStrategy<HealthCheck> {
    let times = (time(), time(), maybe_time(), maybe_time(), time());
    let more = (
        option::of(time()),
        option::of(time()),
        option::of(time()),
        option::of(time()),
    );
    let counts = (any::<u32>(), any::<u32>(), any::<u32>(), any::<bool>());
    (probe(), times, more, counts)
        .prop_map(|(probe, times, more, counts)| {
            let mut check = HealthCheck::new(probe, times.0, times.1);
            check.pace.initial_jitter = times.2;
            check.pace.jitter = times.3;
            check.pace.no_traffic = times.4;
            check.pace.no_traffic_healthy = more.0;
            check.pace.unhealthy = more.1;
            check.pace.unhealthy_edge = more.2;
            check.pace.healthy_edge = more.3;
            check.pace.jitter_percent = counts.0;
            check.unhealthy_threshold = counts.1;
            check.healthy_threshold = counts.2;
            check.reuse_connection = counts.3;
            check
        })
        .boxed()
}

fn host() -> BoxedStrategy<Name> {
    prop_oneof![
        Just(""),
        Just("a.example"),
        Just("a_b.example:80"),
        Just("[::1]:1")
    ]
    .prop_map(Name::from)
    .boxed()
}

fn edits() -> BoxedStrategy<HeaderEdits> {
    let name = "x-[a-z]{1,3}".prop_map(|name| HeaderName::try_from(name).unwrap());
    let value = "[ -~]{0,5}".prop_map(|text| HeaderValue::try_from(text).unwrap());
    let mode = select(vec![AddMode::Append, AddMode::Overwrite, AddMode::IfAbsent]);
    let add = (name.clone(), value, mode, any::<bool>());
    let add = add.prop_map(|(name, value, mode, keep_empty)| HeaderAdd {
        name,
        value: HeaderTemplate::Fixed(value),
        mode,
        keep_empty,
    });
    (vec(name, 0..2), vec(add, 0..3))
        .prop_map(|(remove, add)| HeaderChanges { remove, add }.into())
        .boxed()
}

fn ranges(least: usize) -> BoxedStrategy<Vec<Range<u16>>> {
    let range = (100_u16..600, 1_u16..500).prop_map(|(start, more)| start..(start + more).min(600));
    vec(range, least..3).boxed()
}

fn probe() -> BoxedStrategy<Probe> {
    let bytes = || vec(any::<u8>(), 0..5).prop_map(bytes::Bytes::from);
    let method = select(vec![
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ]);
    let service = option::of("[a-z]{1,4}".prop_map(StringMatch::Prefix));
    let answer = (
        ranges(1),
        ranges(0),
        vec(bytes(), 0..3),
        any::<u64>(),
        service,
    );
    let http = (
        host(),
        "/[a-z?=&]{0,6}",
        method,
        edits(),
        any::<bool>(),
        answer,
    );
    let http = http.prop_map(|(host, path, method, edits, http2, answer)| {
        let mut probe = HttpProbe::new(path);
        (probe.host, probe.method, probe.edits, probe.http2) = (host, method, edits, http2);
        (probe.expected, probe.retriable, probe.receive) = (answer.0, answer.1, answer.2);
        (probe.body_limit, probe.service) = (answer.3, answer.4);
        Probe::Http(Box::new(probe))
    });
    let tcp = (bytes(), vec(bytes(), 0..3));
    let tcp = tcp.prop_map(|(send, receive)| Probe::Tcp(TcpProbe { send, receive }));
    let grpc = ("[ -~]{0,5}", host(), edits()).prop_map(|(service, authority, mut metadata)| {
        metadata.remove.clear();
        Probe::Grpc(GrpcProbe {
            service: service.into(),
            authority,
            metadata,
        })
    });
    prop_oneof![http, tcp, grpc].boxed()
}

/// What an endpoint at this address says of its own checks.
pub(crate) fn of_endpoint() -> BoxedStrategy<Option<EndpointCheck>> {
    let address = any::<([u8; 4], u16)>().prop_map(|(ip, port)| Address::Socket((ip, port).into()));
    let check = (
        any::<bool>(),
        option::of(1_u16..),
        option::of(address),
        host(),
    );
    let check = check.prop_map(|(disabled, port, address, hostname)| EndpointCheck {
        disabled,
        port,
        address,
        hostname,
    });
    let said = |check: &EndpointCheck| *check != EndpointCheck::default();
    option::of(check)
        .prop_map(move |check| check.filter(said))
        .boxed()
}

// === what is said of checks ===

fn second() -> Option<Wire> {
    Some(Wire {
        seconds: 1,
        nanos: 0,
    })
}

fn checker() -> core::HealthCheck {
    core::HealthCheck {
        timeout: second(),
        interval: second(),
        unhealthy_threshold: Some(UInt32Value { value: 3 }),
        healthy_threshold: Some(UInt32Value { value: 2 }),
        health_checker: Some(HealthChecker::HttpHealthCheck(http())),
        ..Default::default()
    }
}

fn http() -> health_check::HttpHealthCheck {
    health_check::HttpHealthCheck {
        path: "/healthz".to_owned(),
        ..Default::default()
    }
}

fn cluster(checks: Vec<core::HealthCheck>) -> pb::Cluster {
    let mut cluster = eds();
    cluster.health_checks = checks;
    cluster
}

#[test]
fn a_check_that_says_little_has_envoys_defaults() {
    let read = read::cluster(&cluster(vec![checker()])).unwrap().cluster;
    let probe = Probe::Http(Box::new(HttpProbe::new("/healthz")));
    let mut expected = HealthCheck::new(probe, Duration::from_secs(1), Duration::from_secs(1));
    expected.unhealthy_threshold = 3;
    expected.healthy_threshold = 2;
    assert_eq!(read.health_checks, [expected].into());
    assert!(read.keep_removed, "healthy endpoints stay until they fail");
    let mut quick = cluster(vec![checker()]);
    quick.ignore_health_on_host_removal = true;
    assert!(!read::cluster(&quick).unwrap().cluster.keep_removed);
    let given = write::cluster(&read, Some(&Default::default()));
    let read = read::cluster(&given).unwrap().cluster;
    assert!(!read.keep_removed, "nobody takes endpoints of these away");
}

#[test]
fn text_is_bytes_in_base_16() {
    let text = |text: &str| Payload {
        payload: Some(payload::Payload::Text(text.to_owned())),
    };
    let with = |receive: &str| {
        let mut check = checker();
        check.health_checker = Some(HealthChecker::TcpHealthCheck(
            health_check::TcpHealthCheck {
                receive: vec![text(receive)],
                ..Default::default()
            },
        ));
        read::cluster(&cluster(vec![check])).map(|read| read.cluster)
    };
    let read = with("00fF10").unwrap();
    let expected = TcpProbe {
        receive: vec![bytes::Bytes::from_static(&[0, 255, 16])],
        ..TcpProbe::default()
    };
    assert_eq!(read.health_checks[0].probe, Probe::Tcp(expected));
    for text in ["", "0", "0g", "+1"] {
        let message = format!(
            "health_checks[0].tcp_health_check.receive[0].text: {text:?} is not bytes in base 16"
        );
        assert_eq!(with(text).unwrap_err().to_string(), message);
    }
}

#[test]
fn what_is_not_supported_of_checks_is_refused_by_its_field() {
    type Change = fn(&mut core::HealthCheck);
    let changes: [(&str, Change); 8] = [
        ("timeout: required, but missing", |c| c.timeout = None),
        ("interval: must be more than zero", |c| {
            c.interval = Some(Wire::default());
        }),
        ("healthy_threshold: required, but missing", |c| {
            c.healthy_threshold = None;
        }),
        ("health_checker: required, but missing", |c| {
            c.health_checker = None;
        }),
        ("custom_health_check: not supported", |c| {
            c.health_checker = Some(HealthChecker::CustomHealthCheck(Default::default()));
        }),
        ("tls_options: not supported", |c| {
            c.tls_options = Some(health_check::TlsOptions {
                alpn_protocols: vec!["x".to_owned()],
            });
        }),
        ("event_logger: not supported", |c| {
            c.event_logger.push(Default::default());
        }),
        ("grpc_health_check: the cluster has to speak HTTP/2", |c| {
            c.health_checker = Some(HealthChecker::GrpcHealthCheck(Default::default()));
        }),
    ];
    for (message, change) in changes {
        let mut check = checker();
        change(&mut check);
        assert_eq!(
            refused(&cluster(vec![check])),
            format!("health_checks[0].{message}")
        );
    }
    type Http = fn(&mut health_check::HttpHealthCheck);
    let changes: [(&str, Http); 6] = [
        ("path: \"x\" is not a path that begins with '/'", |h| {
            h.path = "x".to_owned();
        }),
        ("method: CONNECT is not possible", |h| {
            h.method = core::RequestMethod::Connect.into();
        }),
        ("codec_client_type: HTTP3 is not supported", |h| {
            h.codec_client_type = 2
        }),
        (
            "expected_statuses[0]: 200 to 200 is not a range within 100 to 600",
            |h| {
                h.expected_statuses.push(Int64Range {
                    start: 200,
                    end: 200,
                });
            },
        ),
        ("host: \"a b\" is not the host of a request", |h| {
            h.host = "a b".to_owned();
        }),
        (
            "request_headers_to_add[0].header.value: format operators are not supported in health checks",
            |h| {
                h.request_headers_to_add.push(core::HeaderValueOption {
                    header: Some(core::HeaderValue {
                        key: "x".to_owned(),
                        value: "%PROTOCOL%".to_owned(),
                        ..Default::default()
                    }),
                    ..Default::default()
                });
            },
        ),
    ];
    for (message, change) in changes {
        let (mut check, mut http) = (checker(), http());
        change(&mut http);
        check.health_checker = Some(HealthChecker::HttpHealthCheck(http));
        let expected = format!("health_checks[0].http_health_check.{message}");
        assert_eq!(refused(&cluster(vec![check])), expected);
    }
    assert_eq!(
        refused(&cluster(vec![checker(), checker()])),
        "health_checks[1]: more than one check of a cluster is not supported"
    );
    let mut named = Cluster::new("c");
    named.discovery = DiscoveryKind::Authority;
    let mut named = write::cluster(&named, None);
    named.health_checks = vec![checker()];
    assert_eq!(
        refused(&named),
        "health_checks: not supported where requests or connections name the endpoints"
    );
}

#[test]
fn a_socket_in_the_file_system_has_no_port_to_ask() {
    let path = mesh_core::model::UnixPath::new("/run/x").unwrap();
    let mut endpoint = mesh_core::model::Endpoint::new(Address::Unix(path));
    let check = EndpointCheck {
        port: Some(80),
        ..EndpointCheck::default()
    };
    endpoint.check = Some(Arc::new(check));
    let set = mesh_core::model::EndpointSet::from_endpoints(vec![Arc::new(endpoint)]);
    let proto = write::cluster(&Cluster::new("c"), Some(&set));
    assert_eq!(
        refused(&proto),
        "load_assignment.endpoints[0].lb_endpoints[0].endpoint.health_check_config.port_value: \
         a Unix domain socket has no port"
    );
}
