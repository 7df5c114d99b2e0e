//! Clusters and endpoints, written and read back, and what is refused or defaulted on the way.

#[path = "clusters/assignments.rs"]
mod assignments;
#[path = "clusters/balancing.rs"]
mod balancing;
#[path = "clusters/generate.rs"]
mod generate;
#[path = "clusters/health.rs"]
mod health;
#[path = "clusters/reported.rs"]
mod reported;
#[path = "clusters/subsets.rs"]
mod subsets;
#[path = "tls/generate.rs"]
mod tls;

use mesh_core::Name;
use mesh_core::model::{
    Address, Balancing, ClientTls, Cluster, DiscoveryKind, Dns, DnsFamily, Drop, Endpoint,
    EndpointCheck, EndpointSet, FailurePercentage, Fraction, Health, Limits, Locality,
    LocalityEndpoints, Outlier, ProxyProtocol, Real, RetryBudget, ServiceRef, SuccessRate,
    TcpKeepalive, TlsMatch, UnixPath, UpstreamProtocol, WorkloadRef,
};
use mesh_xds::pb::envoy::config::cluster::v3 as pb;
use mesh_xds::pb::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, DiscoveryType, EdsClusterConfig, LbPolicy,
};
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::endpoint::v3 as endpoint;
use mesh_xds::pb::google::protobuf::UInt32Value;
use mesh_xds::read::{self, Resource, Source};
use mesh_xds::{TypeUrl, write};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::Duration;

// === what is generated ===

fn name() -> BoxedStrategy<Name> {
    prop_oneof![
        "[a-z]{1,8}",
        "outbound\\|[0-9]{1,4}\\|[a-z]{0,3}\\|[a-z]{1,5}\\.example",
        "inbound\\|80\\|\\|",
        "[ -~]{1,12}",
    ]
    .prop_map(Name::from)
    .boxed()
}

fn text() -> BoxedStrategy<Name> {
    prop_oneof![Just(String::new()), "[a-z;/.]{1,6}", "\\PC{0,5}"]
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

/// Envoy refuses less than a millisecond for pings of HTTP/2.
fn ping_time() -> BoxedStrategy<Duration> {
    time()
        .prop_map(|time| time.max(Duration::from_millis(1)))
        .boxed()
}

fn number() -> BoxedStrategy<u32> {
    prop_oneof![0_u32..10, Just(1024), Just(u32::MAX), any::<u32>()].boxed()
}

fn limits() -> BoxedStrategy<Limits> {
    let budget =
        (0_u32..=1_000_000, number(), option::of(time())).prop_map(|(share, min, time)| {
            RetryBudget {
                share: Fraction::millionths(share),
                min_concurrency: min,
                interval: time.unwrap_or_default(),
            }
        });
    let values = [(); 6].map(|()| number());
    let some = (values, option::of(budget), any::<bool>()).prop_map(|(values, budget, track)| {
        let [connections, pending, requests, retries, pools, of_one] = values;
        let mut limits = Limits::envoy();
        limits.max_connections = connections;
        limits.max_pending = pending;
        limits.max_requests = requests;
        limits.max_retries = retries;
        limits.budget = budget;
        limits.max_pools = pools;
        limits.max_connections_per_host = of_one;
        limits.track_remaining = track;
        limits
    });
    prop_oneof![Just(Limits::envoy()), Just(Limits::unlimited()), some].boxed()
}

fn outlier() -> BoxedStrategy<Outlier> {
    let rate = (number(), number(), number()).prop_map(|(min_hosts, request_volume, factor)| {
        SuccessRate {
            min_hosts,
            request_volume,
            stdev_factor: factor,
        }
    });
    let share = (0_u32..=100, number(), number()).prop_map(|(threshold, min_hosts, volume)| {
        FailurePercentage {
            threshold,
            min_hosts,
            request_volume: volume,
        }
    });
    (
        (number(), number(), number(), any::<bool>(), any::<bool>()),
        (time(), time(), time(), 0_u32..=100, any::<bool>()),
        (
            option::of(rate),
            option::of(share),
            vec(100_u16..600, 0..4),
            number(),
        ),
    )
        .prop_map(|(counts, times, rates)| {
            let mut outlier = Outlier::default();
            outlier.consecutive_5xx = counts.0;
            outlier.consecutive_gateway_failure = counts.1;
            outlier.consecutive_local_failure = counts.2;
            outlier.split_local_origin = counts.3;
            outlier.uneject_on_check = counts.4;
            outlier.interval = times.0;
            outlier.base_ejection_time = times.1;
            outlier.max_ejection_time = times.1.max(times.2);
            outlier.max_ejection_percent = times.3;
            outlier.always_eject_one = times.4;
            outlier.success_rate = rates.0;
            outlier.failure_percentage = rates.1;
            outlier.error_codes = rates.2;
            let counts = |ejects: u32| if ejects > 0 { 0 } else { rates.3 };
            outlier.unenforced.consecutive_5xx = counts(outlier.consecutive_5xx);
            outlier.unenforced.consecutive_gateway_failure =
                counts(outlier.consecutive_gateway_failure);
            outlier.unenforced.consecutive_local_failure =
                counts(outlier.consecutive_local_failure);
            outlier
        })
        .boxed()
}

fn keepalive() -> BoxedStrategy<TcpKeepalive> {
    let seconds = || option::of((1_u64..100_000).prop_map(Duration::from_secs));
    (option::of(1_u32..99), seconds(), seconds())
        .prop_map(|(probes, time, interval)| TcpKeepalive {
            probes,
            time,
            interval,
        })
        .boxed()
}

fn service() -> BoxedStrategy<ServiceRef> {
    let port = prop_oneof![Just(0), Just(80), any::<u16>()];
    (text(), text(), text(), text(), port)
        .prop_map(|(host, name, namespace, subset, port)| ServiceRef {
            host,
            name,
            namespace,
            subset,
            port,
        })
        .boxed()
}

fn facts() -> BoxedStrategy<std::collections::BTreeMap<Name, Name>> {
    let known = prop_oneof![
        Just("istio/config"),
        Just("istio/services"),
        Just("istio/subset"),
        Just("mesh/x"),
        Just("mesh.service/port"),
        Just("/x"),
        Just("x/"),
    ];
    let key = prop_oneof![known.prop_map(Name::from), text()];
    btree_map(key, text(), 0..4).boxed()
}

fn dns() -> BoxedStrategy<Dns> {
    let family = prop_oneof![
        Just(DnsFamily::Auto),
        Just(DnsFamily::V4Only),
        Just(DnsFamily::V6Only),
        Just(DnsFamily::V4Preferred),
        Just(DnsFamily::All),
    ];
    let refresh = (2_u64..100_000).prop_map(Duration::from_millis);
    let failure = option::of((time(), time()).prop_map(|(a, b)| (a.min(b), a.max(b))));
    let jitter = prop_oneof![Just(Duration::ZERO), time()];
    (refresh, jitter, any::<bool>(), failure, family)
        .prop_map(|(refresh, jitter, ttl, failure, family)| {
            let mut dns = Dns::default();
            dns.refresh = refresh;
            dns.jitter = jitter;
            dns.respect_ttl = ttl;
            // Envoy wants at least a millisecond.
            dns.failure_refresh = failure.filter(|(base, _)| base.as_millis() > 1);
            dns.family = family;
            dns
        })
        .boxed()
}

fn client_tls() -> BoxedStrategy<ClientTls> {
    let flags = (any::<bool>(), any::<bool>());
    let sni = prop_oneof![Just(Name::default()), "[a-z]{1,9}".prop_map(Name::from)];
    (tls::server_tls(), sni, flags)
        .prop_map(|(server, sni, flags)| {
            let mut tls = ClientTls::default();
            tls.params = server.params;
            tls.alpn = server.alpn;
            tls.certificates = server.certificates;
            tls.certificates.truncate(usize::from(flags.0));
            tls.validation = server.validation;
            tls.sni = sni;
            (tls.auto_sni, tls.auto_san) = flags;
            tls
        })
        .boxed()
}

/// Ways for some endpoints.
fn matches() -> BoxedStrategy<Vec<TlsMatch>> {
    vec((name(), generate::values(), option::of(client_tls())), 0..3)
        .prop_map(|all| {
            let one = |(index, (name, labels, tls)): (usize, (Name, _, Option<_>))| TlsMatch {
                // Each by a name of its own.
                name: format!("{index}{name}").into(),
                labels,
                tls: tls.map(Arc::new),
            };
            all.into_iter().enumerate().map(one).collect()
        })
        .boxed()
}

/// The name to ask for is one setting for all ways.
fn alike(cluster: &mut Cluster) {
    let Some(first) = cluster.all_tls().next() else {
        return;
    };
    let (sni, san) = (first.auto_sni, first.auto_san);
    let matched = cluster.tls_matches.iter_mut();
    for one in matched.filter_map(|one| one.tls.as_mut()) {
        let one = Arc::make_mut(one);
        one.auto_sni = sni;
        if sni {
            one.auto_san = san;
        }
    }
}

fn cluster_of(kind: DiscoveryKind) -> BoxedStrategy<Cluster> {
    let protocol = prop_oneof![
        Just(UpstreamProtocol::Alpn),
        Just(UpstreamProtocol::Http1),
        Just(UpstreamProtocol::Http2),
        Just(UpstreamProtocol::AsDownstream),
    ];
    let http = (
        protocol,
        number(),
        option::of(time()),
        option::of(time()),
        prop_oneof![
            Just(i32::MAX.unsigned_abs()),
            1_u32..=i32::MAX.unsigned_abs()
        ],
        option::of((ping_time(), ping_time())),
    );
    let rest = (
        option::of(keepalive()),
        service(),
        option::of(name()),
        facts(),
    );
    let policy = (
        generate::choice(),
        time(),
        [limits(), limits()],
        option::of(outlier()),
        0_u32..=100,
        health::checks(),
    );
    let header = prop_oneof![Just(ProxyProtocol::V1), Just(ProxyProtocol::V2)];
    let wire = (
        option::of(client_tls()),
        option::of(header),
        option::of(any::<std::net::IpAddr>()),
        dns(),
        matches(),
    );
    (name(), policy, http, rest, wire)
        .prop_map(move |(name, policy, http, rest, wire)| {
            let mut cluster = Cluster::new(name);
            cluster.discovery = kind;
            let chosen = [DiscoveryKind::Authority, DiscoveryKind::OriginalDestination];
            policy.0.lay(&mut cluster, chosen.contains(&kind));
            cluster.connect_timeout = policy.1;
            [cluster.limits, cluster.high] = policy.2;
            cluster.close_unhealthy = cluster.high.max_requests % 2 == 1;
            cluster.outlier = policy.3;
            cluster.panic_threshold = policy.4;
            cluster.tls = wire.0.map(Arc::new);
            cluster.proxy_protocol = wire.1;
            cluster.bind_source = wire.2;
            cluster.dns = wire.3;
            cluster.tls_matches = wire.4;
            alike(&mut cluster);
            cluster.protocol = http.0;
            // Only TLS can agree on a protocol.
            if cluster.protocol == UpstreamProtocol::Alpn && cluster.tls.is_none() {
                cluster.protocol = UpstreamProtocol::Http2;
            }
            cluster.max_requests_per_connection = http.1;
            cluster.idle_timeout = http.2;
            cluster.max_connection_duration = http.3;
            if cluster.protocol != UpstreamProtocol::Http1 {
                cluster.max_concurrent_streams = http.4;
                cluster.http2_keepalive = http.5;
            }
            policy.5.lay(&mut cluster);
            cluster.tcp_keepalive = rest.0;
            cluster.service = rest.1;
            cluster.stat_name = rest.2;
            cluster.metadata = rest.3;
            cluster
        })
        .boxed()
}

fn an_endpoint() -> BoxedStrategy<Endpoint> {
    let address = prop_oneof![
        any::<([u8; 4], u16)>().prop_map(|(ip, port)| Address::Socket((ip, port).into())),
        any::<([u16; 8], u16)>().prop_map(|(ip, port)| Address::Socket((ip, port).into())),
        "[@./a-z][a-z/]{1,20}".prop_map(|path| Address::Unix(UnixPath::new(&path).unwrap())),
        ("[a-z]{1,5}\\.example", any::<u16>())
            .prop_map(|(host, port)| Address::Host(host.into(), port)),
    ];
    let health = prop_oneof![
        Just(Health::Healthy),
        Just(Health::Degraded),
        Just(Health::Unhealthy),
        Just(Health::Draining),
    ];
    let workload = vec(text(), 8).prop_map(|parts| {
        let mut parts = parts.into_iter();
        let mut next = || parts.next().unwrap();
        let mut workload = WorkloadRef::default();
        workload.name = next();
        workload.namespace = next();
        workload.app = next();
        workload.version = next();
        workload.canonical_service = next();
        workload.canonical_revision = next();
        workload.principal = next();
        workload.cluster = next();
        workload
    });
    let labels = btree_map(text(), text(), 0..4);
    let balanced = (
        text(),
        generate::values(),
        health::of_endpoint(),
        generate::values(),
    );
    (
        address,
        1..=u32::MAX,
        health,
        workload,
        labels,
        text(),
        balanced,
    )
        .prop_map(
            |(address, weight, health, workload, labels, hostname, balanced)| {
                let mut endpoint = Endpoint::new(address);
                endpoint.weight = weight;
                endpoint.health = health;
                endpoint.workload = Arc::new(workload);
                endpoint.labels = Arc::new(labels);
                endpoint.hash_key = balanced.0;
                endpoint.subset = Arc::new(balanced.1);
                endpoint.check = balanced.2.map(Arc::new);
                endpoint.transport = Arc::new(balanced.3);
                if let (Address::Unix(_), Some(check)) = (&endpoint.address, &mut endpoint.check) {
                    let check = Arc::make_mut(check);
                    if check.address.is_none() {
                        check.port = None;
                    }
                    if *check == EndpointCheck::default() {
                        endpoint.check = None;
                    }
                }
                if let Address::Socket(_) = endpoint.address {
                    endpoint.hostname = hostname;
                }
                endpoint
            },
        )
        .boxed()
}

fn endpoint_set() -> BoxedStrategy<EndpointSet> {
    let endpoints = vec(an_endpoint().prop_map(Arc::new), 0..4);
    let locality = (text(), text(), text(), 0_u32..=128, number(), endpoints);
    let locality = locality.prop_map(|(region, zone, sub_zone, priority, weight, endpoints)| {
        let mut group = LocalityEndpoints::default();
        group.locality = Locality {
            region,
            zone,
            sub_zone,
        };
        group.priority = priority;
        group.weight = weight;
        group.endpoints = endpoints;
        group
    });
    let share = (0_u32..=1_000_000).prop_map(Fraction::millionths);
    let drop = ("[a-z]{1,4}", share).prop_map(|(category, share)| Drop {
        category: category.into(),
        share,
    });
    (vec(locality, 0..4), option::of(1_u32..), vec(drop, 0..3))
        .prop_map(|(localities, overprovisioning, drops)| {
            let mut set = EndpointSet::default();
            set.localities = localities;
            set.overprovisioning = overprovisioning;
            set.drops = drops;
            set
        })
        .boxed()
}

// === there and back ===

fn back(cluster: &Cluster, endpoints: Option<&EndpointSet>) -> read::ClusterResource {
    let encoded = write::encode(&cluster.name, &write::cluster(cluster, endpoints));
    assert_eq!(read::name(&encoded.bytes).unwrap(), cluster.name);
    match read::resource(TypeUrl::Cluster, &encoded.bytes) {
        Ok(Resource::Cluster(read)) => *read,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn a_cluster_by_reference_survives(
        mut cluster in cluster_of(DiscoveryKind::Endpoints), keep: bool,
    ) {
        cluster.keep_removed = keep && !cluster.health_checks.is_empty();
        let read = back(&cluster, None);
        prop_assert_eq!(&read.cluster, &cluster);
        prop_assert_eq!(read.endpoints, None);
        let eds = read.eds.unwrap();
        prop_assert_eq!((&eds.name, &eds.from), (&cluster.name, &Source::Ads));
        prop_assert_eq!(eds.initial_fetch_timeout, None);
    }

    #[test]
    fn a_cluster_with_its_endpoints_survives(
        cluster in prop_oneof![
            cluster_of(DiscoveryKind::Endpoints),
            cluster_of(DiscoveryKind::StrictDns),
        ],
        set in endpoint_set(),
    ) {
        let read = back(&cluster, Some(&set));
        prop_assert_eq!(read.cluster, cluster);
        prop_assert_eq!(read.endpoints, Some(set));
        prop_assert_eq!(read.eds, None);
    }

    #[test]
    fn a_cluster_of_one_name_survives(
        cluster in cluster_of(DiscoveryKind::LogicalDns), endpoint in an_endpoint(),
    ) {
        let set = EndpointSet::from_endpoints(vec![Arc::new(endpoint)]);
        let read = back(&cluster, Some(&set));
        prop_assert_eq!((read.cluster, read.endpoints), (cluster, Some(set)));
    }

    #[test]
    fn a_cluster_that_requests_choose_survives(
        cluster in prop_oneof![
            cluster_of(DiscoveryKind::Authority),
            cluster_of(DiscoveryKind::OriginalDestination),
        ],
    ) {
        let read = back(&cluster, None);
        prop_assert_eq!(read.cluster, cluster);
        prop_assert_eq!((read.endpoints, read.eds), (None, None));
    }

    #[test]
    fn endpoints_survive(name in name(), set in endpoint_set()) {
        let encoded = write::encode(&name, &write::endpoints(&name, &set));
        match read::resource(TypeUrl::Endpoints, &encoded.bytes) {
            Ok(Resource::Endpoints(read)) => {
                prop_assert_eq!(read.name, name);
                prop_assert_eq!(read.endpoints, set);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn equal_resources_have_equal_bytes(
        cluster in cluster_of(DiscoveryKind::Endpoints), set in endpoint_set(),
    ) {
        let encode = || write::encode("x", &write::cluster(&cluster, Some(&set)));
        prop_assert_eq!(encode(), encode());
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..200)) {
        for kind in TypeUrl::ALL {
            let _ = read::resource(kind, &bytes);
        }
        let _ = read::name(&bytes);
    }

    #[test]
    fn no_damage_makes_a_reader_panic(
        cluster in cluster_of(DiscoveryKind::StrictDns),
        set in endpoint_set(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let encoded = write::encode("x", &write::cluster(&cluster, Some(&set)));
        let mut bytes = encoded.bytes.to_vec();
        for (at, with) in damage {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
        }
        let _ = read::resource(TypeUrl::Cluster, &bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = read::resource(TypeUrl::Cluster, &bytes);
    }
}

// === what Envoy means where nothing is said ===

fn eds() -> pb::Cluster {
    write::cluster(&Cluster::new("c"), None)
}

fn is(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn refused(cluster: &pb::Cluster) -> String {
    read::cluster(cluster).unwrap_err().to_string()
}

#[test]
fn a_cluster_that_says_nothing_has_envoys_defaults() {
    let proto = pb::Cluster {
        name: "c".to_owned(),
        ..Default::default()
    };
    let read = read::cluster(&proto).unwrap();
    let mut expected = Cluster::new("c");
    expected.balancing = Balancing::RoundRobin;
    assert_eq!(read.cluster, expected);
    assert_eq!(read.endpoints, Some(EndpointSet::default()));
}

#[test]
fn outlier_detection_that_says_nothing_has_envoys_defaults_not_istios() {
    let mut proto = eds();
    proto.outlier_detection = Some(pb::OutlierDetection::default());
    let read = read::cluster(&proto).unwrap().cluster.outlier.unwrap();
    let mut expected = Outlier::default();
    expected.success_rate = Some(SuccessRate::default());
    expected.unenforced.consecutive_gateway_failure = 5;
    assert_eq!(read, expected);
}

#[test]
fn the_longest_ejection_is_never_shorter_than_the_first() {
    let mut proto = eds();
    let time = |seconds| Some(mesh_xds::pb::google::protobuf::Duration { seconds, nanos: 0 });
    proto.outlier_detection = Some(pb::OutlierDetection {
        base_ejection_time: time(400),
        ..Default::default()
    });
    let read = read::cluster(&proto).unwrap().cluster.outlier.unwrap();
    assert_eq!(read.max_ejection_time, Duration::from_secs(400));
    proto.outlier_detection.as_mut().unwrap().max_ejection_time = time(399);
    assert!(refused(&proto).starts_with("outlier_detection.max_ejection_time: "));
}

#[test]
fn an_ejection_is_enforced_or_it_is_not() {
    let mut proto = eds();
    let detection = proto.outlier_detection.insert(pb::OutlierDetection {
        consecutive_5xx: is(7),
        enforcing_consecutive_5xx: is(0),
        enforcing_consecutive_gateway_failure: is(100),
        enforcing_success_rate: is(0),
        ..Default::default()
    });
    detection.consecutive_gateway_failure = None;
    let read = read::cluster(&proto).unwrap().cluster.outlier.unwrap();
    assert_eq!(read.consecutive_5xx, 0);
    assert_eq!(read.consecutive_gateway_failure, 5);
    assert_eq!(read.success_rate, None);
    let detection = proto.outlier_detection.as_mut().unwrap();
    detection.enforcing_failure_percentage = is(50);
    assert!(refused(&proto).starts_with("outlier_detection.enforcing_failure_percentage: 50 %"));
}

#[test]
fn local_failures_apart_have_the_rate_rule_of_the_others() {
    let mut proto = eds();
    proto.outlier_detection = Some(pb::OutlierDetection {
        enforcing_success_rate: is(0),
        ..Default::default()
    });
    assert!(
        read::cluster(&proto).is_ok(),
        "not split: it does not count"
    );
    let detection = proto.outlier_detection.as_mut().unwrap();
    detection.split_external_local_origin_errors = true;
    assert!(refused(&proto).starts_with("outlier_detection.enforcing_local_origin_success_rate: "));
}

#[test]
fn zero_turns_tcp_keep_alive_off() {
    let mut proto = eds();
    let keepalive = |probes| core::TcpKeepalive {
        keepalive_probes: is(probes),
        ..Default::default()
    };
    for (probes, on) in [(0, false), (3, true)] {
        proto.upstream_connection_options = Some(pb::UpstreamConnectionOptions {
            tcp_keepalive: Some(keepalive(probes)),
            ..Default::default()
        });
        let read = read::cluster(&proto).unwrap().cluster;
        assert_eq!(read.tcp_keepalive.is_some(), on);
    }
}

#[test]
fn the_older_spelling_of_http_2_is_read_alone_and_refused_beside_the_newer() {
    let mut proto = eds();
    #[expect(deprecated, reason = "this is what is tested")]
    {
        proto.http2_protocol_options = Some(core::Http2ProtocolOptions::default());
    }
    let read = read::cluster(&proto).unwrap().cluster;
    assert_eq!(read.protocol, UpstreamProtocol::Http2);
    let mut other = Cluster::new("c");
    other.protocol = UpstreamProtocol::Http2;
    proto.typed_extension_protocol_options =
        write::cluster(&other, None).typed_extension_protocol_options;
    assert!(refused(&proto).starts_with("http2_protocol_options: has no effect beside"));
}

#[test]
fn the_newer_spelling_of_balancing_wins_and_the_first_known_policy_counts() {
    use mesh_xds::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
    use mesh_xds::pb::google::protobuf::Any;
    use prost::Message as _;
    let policy = |url: &str, value: Vec<u8>| pb::load_balancing_policy::Policy {
        typed_extension_config: Some(core::TypedExtensionConfig {
            name: "any".to_owned(),
            typed_config: Some(Any {
                type_url: format!("type.googleapis.com/{url}"),
                value,
            }),
        }),
    };
    let least = LeastRequest {
        choice_count: is(5),
        ..Default::default()
    };
    let mut proto = eds();
    proto.lb_policy = LbPolicy::Random.into();
    proto.load_balancing_policy = Some(pb::LoadBalancingPolicy {
        policies: vec![
            policy("xds.unknown.Policy", Vec::new()),
            policy(
                "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
                least.encode_to_vec(),
            ),
        ],
    });
    let read = read::cluster(&proto).unwrap().cluster;
    assert_eq!(
        read.balancing,
        Balancing::LeastRequest {
            choices: 5,
            bias: Real::ONE
        }
    );
    proto.load_balancing_policy.as_mut().unwrap().policies.pop();
    assert_eq!(
        refused(&proto),
        "load_balancing_policy.policies: not supported: xds.unknown.Policy"
    );
}

#[test]
fn istios_passthrough_cluster_goes_where_the_connection_was_going() {
    let proto = pb::Cluster {
        name: "PassthroughCluster".to_owned(),
        lb_policy: LbPolicy::ClusterProvided.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(
            DiscoveryType::OriginalDst.into(),
        )),
        ..Default::default()
    };
    let read = read::cluster(&proto).unwrap();
    assert_eq!(read.cluster.discovery, DiscoveryKind::OriginalDestination);
    let mut inbound = proto;
    let address = core::SocketAddress {
        address: "127.0.0.6".to_owned(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(0)),
        ..Default::default()
    };
    let bind = inbound.upstream_bind_config.insert(core::BindConfig {
        source_address: Some(address.clone()),
        ..Default::default()
    });
    bind.freebind = Some(mesh_xds::pb::google::protobuf::BoolValue { value: false });
    let read = read::cluster(&inbound).unwrap().cluster;
    assert_eq!(read.bind_source, Some([127, 0, 0, 6].into()));
    inbound
        .upstream_bind_config
        .as_mut()
        .unwrap()
        .source_address = Some(core::SocketAddress {
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(1)),
        ..address
    });
    assert_eq!(
        refused(&inbound),
        "upstream_bind_config.source_address: 127.0.0.6:1 is not an IP address with the port 0"
    );
}

#[test]
fn where_a_connection_was_going_is_not_overridden() {
    use mesh_xds::pb::envoy::config::cluster::v3::cluster::{LbConfig, OriginalDstLbConfig};
    let mut cluster = Cluster::new("c");
    cluster.discovery = DiscoveryKind::OriginalDestination;
    let mut proto = write::cluster(&cluster, None);
    proto.lb_config = Some(LbConfig::OriginalDstLbConfig(OriginalDstLbConfig {
        use_http_header: true,
        ..Default::default()
    }));
    assert_eq!(
        refused(&proto),
        "original_dst_lb_config.use_http_header: not supported"
    );
    proto.lb_config = None;
    proto.lb_policy = LbPolicy::RoundRobin.into();
    assert!(refused(&proto).starts_with("lb_policy: ROUND_ROBIN does not go with"));
}

#[test]
fn an_endpoint_service_may_have_a_name_of_its_own() {
    let mut proto = eds();
    let config: &mut EdsClusterConfig = proto.eds_cluster_config.as_mut().unwrap();
    config.service_name = "other".to_owned();
    let eds = |proto: &pb::Cluster| read::cluster(proto).unwrap().eds.unwrap().name;
    assert_eq!(eds(&proto), "other");
    proto
        .eds_cluster_config
        .as_mut()
        .unwrap()
        .service_name
        .clear();
    assert_eq!(eds(&proto), "c");
}

// === what is refused ===

#[test]
fn what_the_model_cannot_say_is_refused_by_its_field() {
    type Change = fn(&mut pb::Cluster);
    let changes: [(&str, Change); 6] = [
        ("lb_policy: 99 is not a known value", |c| c.lb_policy = 99),
        (
            "lb_policy: CLUSTER_PROVIDED does not go with this type of cluster",
            |c| {
                c.lb_policy = LbPolicy::ClusterProvided.into();
            },
        ),
        (
            "load_assignment: does not go with this type of cluster",
            |c| {
                c.load_assignment = Some(endpoint::ClusterLoadAssignment::default());
            },
        ),
        (
            "typed_extension_protocol_options[\"x\"]: not supported",
            |c| {
                c.typed_extension_protocol_options
                    .insert("x".to_owned(), Default::default());
            },
        ),
        (
            "common_lb_config.healthy_panic_threshold.value: 33.5 is not a whole number from 0 to 100",
            |c| {
                c.common_lb_config
                    .get_or_insert_default()
                    .healthy_panic_threshold =
                    Some(mesh_xds::pb::envoy::r#type::v3::Percent { value: 33.5 });
            },
        ),
        (
            "circuit_breakers.per_host_thresholds[0].max_requests: not supported",
            |c| {
                let breakers = c.circuit_breakers.get_or_insert_default();
                breakers.per_host_thresholds.push(Default::default());
                breakers.per_host_thresholds[0].max_requests = Some(Default::default());
            },
        ),
    ];
    for (message, change) in changes {
        let mut proto = eds();
        change(&mut proto);
        assert_eq!(refused(&proto), message);
    }
}

#[test]
fn endpoints_that_cannot_be_reached_are_refused_by_their_place() {
    let set = EndpointSet::of(["10.0.0.1:80".parse::<Address>().unwrap()]);
    type Change = fn(&mut endpoint::Endpoint);
    let pipe = |e: &mut endpoint::Endpoint| {
        e.address = Some(core::Address {
            address: Some(core::address::Address::Pipe(core::Pipe::default())),
        });
    };
    let changes: [(&str, Change); 2] = [
        (
            "address.pipe.path: a Unix socket's path is required, but missing",
            pipe,
        ),
        ("address: required, but missing", |e| e.address = None),
    ];
    for (message, change) in changes {
        let mut proto = write::endpoints("c", &set);
        let one = &mut proto.endpoints[0].lb_endpoints[0];
        match one.host_identifier.as_mut().unwrap() {
            endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint) => change(endpoint),
            other => panic!("{other:?}"),
        }
        let error = read::endpoints(&proto).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("endpoints[0].lb_endpoints[0].endpoint.{message}")
        );
    }
}

#[test]
fn a_name_of_several_addresses_has_one_endpoint() {
    let mut cluster = Cluster::new("c");
    cluster.discovery = DiscoveryKind::LogicalDns;
    let proto = write::cluster(&cluster, Some(&EndpointSet::default()));
    assert!(refused(&proto).starts_with("load_assignment: "));
}

// === as istiod writes it ===

#[test]
fn a_service_is_found_in_istios_metadata_and_its_port_in_the_name() {
    let mut cluster = Cluster::new("outbound|80|v1|a.example");
    cluster.service.host = "a.example".into();
    cluster.service.name = "a".into();
    cluster.service.subset = "v1".into();
    cluster.service.port = 80;
    let metadata = write::cluster(&cluster, None).metadata.unwrap();
    let namespaces: Vec<_> = metadata.filter_metadata.keys().collect();
    assert_eq!(namespaces, ["istio"], "nothing of our own is needed");
}

#[test]
fn a_workload_is_found_in_istios_metadata() {
    let set = EndpointSet::of(["10.0.0.1:80".parse::<Address>().unwrap()]);
    let mut proto = write::endpoints("c", &set);
    let mut endpoint = Endpoint::clone(&set.localities[0].endpoints[0]);
    let mut workload = WorkloadRef::default();
    workload.name = "catalog-v1".into();
    workload.namespace = "shop".into();
    workload.canonical_service = "catalog".into();
    workload.canonical_revision = "v1".into();
    workload.cluster = "Kubernetes".into();
    endpoint.workload = Arc::new(workload.clone());
    let written = write::endpoints("c", &EndpointSet::from_endpoints(vec![Arc::new(endpoint)]));
    let metadata = written.endpoints[0].lb_endpoints[0]
        .metadata
        .clone()
        .unwrap();
    let text = format!("{metadata:?}");
    assert!(
        text.contains("catalog-v1;shop;catalog;v1;Kubernetes"),
        "{text}"
    );
    proto.endpoints[0].lb_endpoints[0].metadata = Some(metadata);
    let read = read::endpoints(&proto).unwrap().endpoints;
    assert_eq!(*read.localities[0].endpoints[0].workload, workload);
}

#[test]
fn of_several_thresholds_for_one_priority_the_first_counts() {
    let mut proto = eds();
    let one = |priority: core::RoutingPriority, requests| pb::circuit_breakers::Thresholds {
        priority: priority.into(),
        max_requests: is(requests),
        ..Default::default()
    };
    let (default, high) = (core::RoutingPriority::Default, core::RoutingPriority::High);
    proto.circuit_breakers.get_or_insert_default().thresholds =
        vec![one(high, 1), one(default, 2), one(high, 3), one(default, 4)];
    let cluster = read::cluster(&proto).unwrap().cluster;
    assert_eq!(
        (cluster.high.max_requests, cluster.limits.max_requests),
        (1, 2)
    );
    assert_eq!(cluster.high.max_pending, 1024, "Envoy's default");
}
