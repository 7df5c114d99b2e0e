//! How endpoints are chosen: hashes, localities and warm-up, from the YAML to the model.

#[path = "support/lib.rs"]
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::model::{
    Balancing, EndpointSet, HashSource, LocalityBalancing, Maglev, Real, RingHash, Snapshot,
    SnapshotBuilder, TcpProxy,
};
use mesh_istio::{
    Files, Node, Severity, Workshop, World, endpoints_of, localities, parse_locality, services,
};
use proptest::prelude::*;
use support::{cluster, good, host, lines, snapshot, world};

const NAME: &str = "outbound|80||a.default.svc.cluster.local";

/// A service with endpoints in these localities, and a destination rule.
fn service(places: &[&str], policy: &str) -> String {
    let mut text = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: \
                    a}, ports: [{name: http, port: 80}]}}\n"
        .to_owned();
    for (index, place) in places.iter().enumerate() {
        text += &format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: \
             w{index}}}, spec: {{address: 10.0.0.{index}, locality: {place}, labels: {{app: a, \
             tier: t{}}}}}}}\n",
            index % 2
        );
    }
    if !policy.is_empty() {
        text += &rule("a", policy);
    }
    text
}

fn rule(host: &str, policy: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: \
         {host}}}, spec: {{host: {host}, trafficPolicy: {{{policy}}}}}}}\n"
    )
}

fn client(place: &str) -> Node {
    let mut node = Node::sidecar("client", "default");
    node.locality = parse_locality(place);
    node.labels.insert("tier".to_owned(), "t1".to_owned());
    node
}

fn seen_from(text: &str, place: &str) -> Arc<Snapshot> {
    let (world, findings) = world(text);
    let errors = findings
        .iter()
        .filter(|one| one.severity == Severity::Error);
    assert_eq!(errors.count(), 0, "{}", lines(&findings).join("\n"));
    snapshot(&world, &client(place)).0
}

/// Priority, weight and last bytes of addresses by locality.
fn groups(snapshot: &Snapshot) -> Vec<(String, u32, u32, Vec<String>)> {
    let set = snapshot.cluster(NAME).unwrap().live().endpoints().load();
    let each = set.localities.iter().map(|group| {
        let endpoints = group.endpoints.iter();
        let last = |address: String| address["10.0.0.".len()..address.len() - 3].to_owned();
        let endpoints = endpoints.map(|one| last(one.address.to_string())).collect();
        let place = group.locality.to_string();
        (place, group.priority, group.weight, endpoints)
    });
    each.collect()
}

fn priorities(text: &str, place: &str) -> Vec<(String, u32)> {
    let all = groups(&seen_from(text, place));
    all.into_iter()
        .map(|(place, priority, ..)| (place, priority))
        .collect()
}

const OUTLIER: &str = "outlierDetection: {consecutive5xxErrors: 3}";
const PLACES: [&str; 5] = ["r1/z1/s1", "r1/z1/s2", "r1/z2/s1", "r2/z1/s1", "r3/z1/s1"];

fn of(priorities: [u32; 5]) -> Vec<(String, u32)> {
    PLACES
        .into_iter()
        .map(str::to_owned)
        .zip(priorities)
        .collect()
}

#[test]
fn endpoints_nearby_come_first_once_somebody_notices_that_they_fail() {
    assert_eq!(priorities(&service(&PLACES, ""), "r1/z1/s1"), of([0; 5]));
    let text = service(&PLACES, OUTLIER);
    assert_eq!(priorities(&text, "r1/z1/s1"), of([0, 1, 2, 3, 3]));
    // Without gaps: nothing is as near as that.
    assert_eq!(priorities(&text, "r1/z3/s1"), of([0, 0, 0, 1, 1]));
    assert_eq!(priorities(&text, "r9"), of([0; 5]));
    let off = format!("{OUTLIER}, loadBalancer: {{localityLbSetting: {{enabled: false}}}}");
    assert_eq!(priorities(&service(&PLACES, &off), "r1/z1/s1"), of([0; 5]));
}

#[test]
fn a_region_may_have_another_that_follows_it() {
    let setting = "loadBalancer: {localityLbSetting: {failover: [{from: r1, to: r3}]}}";
    let text = service(&PLACES, &format!("{OUTLIER}, {setting}"));
    assert_eq!(priorities(&text, "r1/z1/s1"), of([0, 1, 2, 4, 3]));
    // Of callers elsewhere it says nothing.
    assert_eq!(priorities(&text, "r2/z1/s1"), of([1, 1, 1, 0, 1]));
    let cluster_of = |text: &str| cluster(&seen_from(text, "r1"), NAME).localities;
    assert_eq!(cluster_of(&text), LocalityBalancing::Weighted);
    assert_eq!(
        cluster_of(&service(&PLACES, OUTLIER)),
        LocalityBalancing::Ignored
    );
    let (_, findings) = world(&service(&PLACES, setting));
    assert!(
        findings[0].message.contains("without outlierDetection"),
        "{}",
        findings[0]
    );
    assert_eq!(
        cluster_of(&service(&PLACES, setting)),
        LocalityBalancing::Ignored
    );
}

#[test]
fn labels_decide_in_their_order() {
    let by = |labels: &str| {
        let setting =
            format!("loadBalancer: {{localityLbSetting: {{failoverPriority: [{labels}]}}}}");
        service(&PLACES, &format!("{OUTLIER}, {setting}"))
    };
    // The second label counts only where the first is the same.
    let text = by("topology.kubernetes.io/region, tier");
    let found: BTreeMap<_, _> = priorities(&text, "r1/z1/s1").into_iter().collect();
    let expected = of([1, 0, 1, 2, 2]).into_iter().collect();
    assert_eq!(found, expected);
    // A value that is said stands for the caller's.
    let text = by("tier=t0");
    assert_eq!(priorities(&text, "r1/z1/s1"), of([0, 1, 0, 1, 0]));
    // One locality may have endpoints of several priorities.
    let text = by("tier").replace("r1/z1/s2", "r1/z1/s1");
    let all = groups(&seen_from(&text, ""));
    assert_eq!(all[0], ("r1/z1/s1".to_owned(), 0, 1, vec!["1".to_owned()]));
    assert_eq!(all[1], ("r1/z1/s1".to_owned(), 1, 1, vec!["0".to_owned()]));
}

#[test]
fn shares_are_dealt_out_by_locality() {
    let setting = "loadBalancer: {localityLbSetting: {distribute: [{from: r1/z1/*, to: {r1/z1/*: \
                   70, r1/z2: 20, r2: 10}}, {from: '*', to: {r3: 100}}]}}";
    let text = service(&PLACES, setting);
    let weights = |place: &str| {
        let all = groups(&seen_from(&text, place));
        let each = all.into_iter().map(|(_, priority, weight, endpoints)| {
            assert_eq!(priority, 0);
            (weight, endpoints.len())
        });
        each.collect::<Vec<_>>()
    };
    // Two localities share the 70; nobody goes where nothing is said of.
    assert_eq!(
        weights("r1/z1/s1"),
        [(35, 1), (35, 1), (20, 1), (10, 1), (1, 0)]
    );
    assert_eq!(
        weights("r2/z1/s1"),
        [(1, 0), (1, 0), (1, 0), (1, 0), (100, 1)]
    );
    let seen = seen_from(&text, "r1");
    assert_eq!(cluster(&seen, NAME).localities, LocalityBalancing::Weighted);
}

/// What is seen from the first of the places, with such a `MeshConfig`.
fn seen_in(mesh: &str, text: &str) -> Arc<Snapshot> {
    let mut world = World::default();
    let files = Files::from_text("a.yaml", text).and_mesh_config_text("mesh.yaml", mesh);
    assert!(world.update(&files).is_empty());
    snapshot(&world, &client("r1/z1/s1")).0
}

#[test]
fn shares_of_the_mesh_need_nothing_of_a_service() {
    let mesh = "{localityLbSetting: {distribute: [{from: r1, to: {r2: 30, r3: 70}}]}}";
    let snapshot = seen_in(mesh, &service(&PLACES, ""));
    let each = groups(&snapshot).into_iter();
    let each: Vec<_> = each.map(|(.., weight, who)| (weight, who.len())).collect();
    assert_eq!(each, [(1, 0), (1, 0), (1, 0), (30, 1), (70, 1)]);
}

#[test]
fn the_mesh_has_a_setting_for_everybody_and_services_one_for_themselves() {
    let mesh = "{localityLbSetting: {failover: [{from: r1, to: r3}]}}";
    let text = service(&PLACES, OUTLIER);
    let compiled = |mesh: &str, text: &str| {
        let all = groups(&seen_in(mesh, text)).into_iter();
        all.map(|group| group.1).collect::<Vec<_>>()
    };
    assert_eq!(compiled(mesh, &text), [0, 1, 2, 4, 3]);
    assert_eq!(
        compiled("{localityLbSetting: {enabled: false}}", &text),
        [0; 5]
    );
    // A service's own wish needs no outlier detection.
    let text = service(&PLACES, "");
    let own = text.replace(
        "{name: http, port: 80}]",
        "{name: http, port: 80}], trafficDistribution: PreferClose",
    );
    assert_eq!(compiled("{}", &own), [0, 0, 1, 2, 2]);
    let annotated = text.replace(
        "metadata: {name: a}",
        "metadata: {name: a, annotations: {networking.istio.io/traffic-distribution: PreferSameZone}}",
    );
    assert_eq!(compiled("{}", &annotated), [0, 0, 1, 2, 2]);
}

/// How zones are told apart, if they are.
fn zones(text: &str) -> Option<(u32, u64)> {
    match cluster(&seen_from(text, "r1/z1/s1"), NAME).localities {
        LocalityBalancing::ZoneAware(zones) => Some((zones.enabled, zones.minimum)),
        _ => None,
    }
}

fn zone_aware(setting: &str) -> String {
    let balancer = format!("loadBalancer: {{zoneAwareLbSetting: {{{setting}}}}}");
    service(&PLACES, &balancer)
}

#[test]
fn with_zones_first_only_regions_have_priorities() {
    // Nobody has to notice that endpoints fail.
    let text = zone_aware("enabled: true");
    assert_eq!(priorities(&text, "r1/z1/s1"), of([0, 0, 0, 1, 1]));
    assert_eq!(priorities(&text, "r2/z9"), of([1, 1, 1, 0, 1]));
    assert_eq!(priorities(&text, "r9"), of([0; 5]));
    assert_eq!(zones(&text), Some((100, 6)));
    assert_eq!(zones(&zone_aware("")), Some((100, 6)));
    assert_eq!(zones(&zone_aware("minClusterSize: 2")), Some((100, 2)));

    let text = zone_aware("failover: [{from: r1, to: r3}]");
    assert_eq!(priorities(&text, "r1/z1/s1"), of([0, 0, 0, 2, 1]));
    assert_eq!(priorities(&text, "r2"), of([1, 1, 1, 0, 1]));
    // Labels count more, and within each rank the region does: w0, w2 and w4 are of tier t0.
    let text = zone_aware("failoverPriority: [tier]");
    let found: BTreeMap<_, _> = priorities(&text, "r1/z1/s1").into_iter().collect();
    assert_eq!(found, of([2, 0, 2, 1, 3]).into_iter().collect());
}

#[test]
fn zones_that_are_switched_off_stay_so_where_a_proxy_would_tell_them_apart() {
    let text = zone_aware("enabled: false, failover: [{from: r1, to: r3}]");
    assert_eq!(priorities(&text, "r1/z1/s1"), of([0; 5]));
    assert_eq!(zones(&text), Some((0, 6)));
    // Not even localities count then, although they would without the setting.
    let noticed = format!("{OUTLIER}, loadBalancer: {{zoneAwareLbSetting: {{enabled: false}}}}");
    let text = service(&PLACES, &noticed);
    assert_eq!(priorities(&text, "r1/z1/s1"), of([0; 5]));
    assert_eq!(zones(&service(&PLACES, OUTLIER)), None);
}

#[test]
fn a_subset_and_a_port_have_zones_of_their_own() {
    let off = "loadBalancer: {zoneAwareLbSetting: {enabled: false}}";
    let on = "loadBalancer: {zoneAwareLbSetting: {minClusterSize: 3}}";
    let text = service(&PLACES, "")
        + &format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: \
             a}}, spec: {{host: a, trafficPolicy: {{{off}, portLevelSettings: [{{port: {{number: \
             80}}, {on}}}]}}, subsets: [{{name: s, labels: {{app: a}}, trafficPolicy: {{loadBalancer: \
             {{localityLbSetting: {{distribute: [{{from: r1, to: {{r1: 100}}}}]}}}}}}}}]}}}}\n"
        );
    assert_eq!(zones(&text), Some((100, 3)));
    assert_eq!(
        zones(&text.replace("number: 80", "number: 81")),
        Some((0, 6))
    );
    let seen = seen_from(&text.replace("number: 80", "number: 81"), "r1");
    let subset = cluster(&seen, "outbound|80|s|a.default.svc.cluster.local");
    assert_eq!(subset.localities, LocalityBalancing::Weighted);
}

#[test]
fn a_rule_wins_over_the_service_over_zones_of_the_mesh_over_its_localities() {
    let compiled = |mesh: &str, policy: &str, distribution: &str| {
        let mut text = service(&PLACES, policy);
        if !distribution.is_empty() {
            let port = "{name: http, port: 80}]";
            let more = format!("{port}, trafficDistribution: {distribution}");
            text = text.replace(port, &more);
        }
        let mut world = World::default();
        let files = Files::from_text("a.yaml", &text).and_mesh_config_text("mesh.yaml", mesh);
        assert!(world.update(&files).is_empty());
        let (snapshot, _) = snapshot(&world, &client("r1/z1/s1"));
        let zones = match cluster(&snapshot, NAME).localities {
            LocalityBalancing::ZoneAware(zones) => Some((zones.enabled, zones.minimum)),
            _ => None,
        };
        let priorities = groups(&snapshot).into_iter().map(|group| group.1);
        (zones, priorities.collect::<Vec<_>>())
    };
    let mesh = "{zoneAwareLbSetting: {failover: [{from: r1, to: r3}], minClusterSize: 1}, \
                localityLbSetting: {enabled: true}}";
    let own = "loadBalancer: {zoneAwareLbSetting: {}}";
    let locality = format!("{OUTLIER}, loadBalancer: {{localityLbSetting: {{enabled: true}}}}");
    assert_eq!(
        compiled(mesh, OUTLIER, ""),
        (Some((100, 1)), vec![0, 0, 0, 2, 1])
    );
    assert_eq!(
        compiled(mesh, own, ""),
        (Some((100, 6)), vec![0, 0, 0, 1, 1])
    );
    assert_eq!(compiled(mesh, &locality, ""), (None, vec![0, 1, 2, 3, 3]));
    assert_eq!(
        compiled(mesh, OUTLIER, "PreferClose"),
        (None, vec![0, 0, 1, 2, 2])
    );
    assert_eq!(
        compiled(mesh, own, "PreferClose"),
        (Some((100, 6)), vec![0, 0, 0, 1, 1])
    );
    // Localities of the mesh count where its zones do not.
    let off = "{zoneAwareLbSetting: {enabled: false}}";
    assert_eq!(
        compiled(off, OUTLIER, ""),
        (Some((0, 6)), vec![0, 1, 2, 3, 3])
    );
    assert_eq!(
        compiled(off, own, ""),
        (Some((100, 6)), vec![0, 0, 0, 1, 1])
    );
}

#[test]
fn pods_are_where_their_machines_are() {
    let text = "
apiVersion: v1
kind: Node
metadata: {name: m, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec: {nodeName: m}
---
apiVersion: v1
kind: Pod
metadata: {name: q, labels: {istio-locality: a.b.c}}
spec: {nodeName: m}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: w}
spec: {address: 10.0.0.1, locality: x/y}
";
    let found = localities(&good(text));
    let of = |name: &str| found[&("default".to_owned(), name.to_owned())].to_string();
    assert_eq!([of("p"), of("q"), of("w")], ["r/z/", "a/b/c", "x/y/"]);
}

#[test]
fn a_hash_is_the_clusters_and_its_source_the_routes() {
    let sources = |snapshot: &Snapshot| -> Vec<HashSource> {
        let host = host(snapshot, "http_proxy", "a.default.svc.cluster.local:80");
        let forward = host.rules[0].forward().unwrap();
        forward
            .hash
            .iter()
            .map(|policy| policy.source.clone())
            .collect()
    };
    let ring = |least: u64| {
        let mut ring = RingHash::default();
        ring.minimum = least;
        Balancing::RingHash(ring)
    };
    let mut table = Maglev::default();
    table.size = 1009;
    for (asked, balancing, expected) in [
        (
            "httpHeaderName: X-User",
            ring(1024),
            "Header(\"x-user\", None)",
        ),
        (
            "useSourceIp: true, ringHash: {minimumRingSize: 7}",
            ring(7),
            "SourceIp",
        ),
        ("useSourceIp: true, minimumRingSize: 9", ring(9), "SourceIp"),
        (
            "httpQueryParameterName: q, ringHash: {}",
            ring(1024),
            "Query",
        ),
        (
            "httpCookie: {name: c, ttl: 0s, path: /p}",
            ring(1024),
            "ttl: Some(0ns)",
        ),
        (
            "httpCookie: {name: c}, maglev: {tableSize: 1009}",
            Balancing::Maglev(table),
            "ttl: None",
        ),
    ] {
        let text = service(
            &["r"],
            &format!("loadBalancer: {{consistentHash: {{{asked}}}}}"),
        );
        let seen = seen_from(&text, "");
        assert_eq!(cluster(&seen, NAME).balancing, balancing, "{asked}");
        let found = format!("{:?}", sources(&seen));
        assert!(found.contains(expected), "{found}");
    }
    let seen = seen_from(
        &service(
            &["r"],
            "loadBalancer: {consistentHash: {useSourceIp: false}}",
        ),
        "",
    );
    assert_eq!(sources(&seen), []);
    assert_eq!(cluster(&seen, NAME).balancing, ring(1024));
}

#[test]
fn all_destinations_of_a_route_say_what_it_hashes_by() {
    let hash =
        |header: &str| format!("loadBalancer: {{consistentHash: {{httpHeaderName: {header}}}}}");
    let b = service(&["r"], &hash("x-b"))
        .replace("name: a}", "name: b}")
        .replace("host: a", "host: b");
    let b = b
        .replace("name: w0", "name: v0")
        .replace("{name: a}", "{name: b}");
    let route = |to: &str| {
        format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: \
             v}}, spec: {{hosts: [a], http: [{{route: [{to}]}}]}}}}\n"
        )
    };
    let both = "{destination: {host: a}, weight: 1}, {destination: {host: b}, weight: 1}";
    for (to, sources, elsewhere) in [
        (both, 2, true),
        ("{destination: {host: a}}", 1, false),
        (
            "{destination: {host: a}, weight: 1}, {destination: {host: b}, weight: 0}",
            1,
            true,
        ),
    ] {
        let text = service(&["r"], &hash("x-a"))
            + "---\n"
            + &b.replace(
                "kind: DestinationRule, metadata: {name: a}",
                "kind: DestinationRule, metadata: {name: b}",
            )
            + &route(to);
        let seen = seen_from(&text, "");
        let rule = &host(&seen, "http_proxy", "a.default.svc.cluster.local:80").rules[0];
        assert_eq!(rule.forward().unwrap().hash.len(), sources, "{to}");
        // A single destination that hashes keeps its endpoint in retries.
        assert_eq!(
            rule.retry.as_ref().unwrap().avoid_previous_hosts,
            elsewhere,
            "{to}"
        );
    }
}

#[test]
fn bytes_are_hashed_by_the_callers_address_only() {
    let text = |hash: &str| {
        let text = service(
            &["r"],
            &format!("loadBalancer: {{consistentHash: {{{hash}}}}}"),
        );
        text.replace("name: http,", "name: tcp,")
            .replace("selector:", "clusterIP: 10.1.1.1, selector:")
    };
    let proxies = |text: &str| -> Vec<TcpProxy> {
        let mut node = client("");
        node.capture = mesh_istio::Capture::Redirect;
        let (snapshot, _) = snapshot(&good(text), &node);
        let listeners = snapshot.listeners().iter();
        let chains = listeners.flat_map(|one| one.chains.iter());
        let proxies = chains.filter_map(|chain| chain.proxy().map(|one| TcpProxy::clone(one)));
        proxies
            .filter(|one| one.stat_prefix.contains("outbound|80"))
            .collect()
    };
    assert!(proxies(&text("useSourceIp: true"))[0].hash_source_ip);
    assert!(!proxies(&text("httpHeaderName: x"))[0].hash_source_ip);
}

#[test]
fn new_endpoints_warm_up_where_weights_count() {
    let slow = |policy: &str| {
        let seen = seen_from(&service(&["r"], &format!("loadBalancer: {{{policy}}}")), "");
        let slow = cluster(&seen, NAME).slow_start;
        slow.map(|slow| (slow.window.as_secs(), slow.minimum, slow.aggression))
    };
    let full = "warmup: {duration: 90s, minimumPercent: 20, aggression: 1.5}";
    let aggression = Real::new(1.5).unwrap();
    assert_eq!(
        slow(&format!("simple: ROUND_ROBIN, {full}")),
        Some((90, 20, aggression))
    );
    assert_eq!(slow("warmup: {duration: 30s}"), Some((30, 10, Real::ONE)));
    assert_eq!(slow("warmupDurationSecs: 45s"), Some((45, 10, Real::ONE)));
    assert_eq!(slow(&format!("simple: RANDOM, {full}")), None);
    assert_eq!(
        slow(&format!("consistentHash: {{useSourceIp: true}}, {full}")),
        None
    );
}

#[test]
fn a_warm_up_that_has_no_effect_is_warned_of() {
    let warned = |policy: &str| {
        let (_, findings) = world(&service(&["r"], &format!("loadBalancer: {{{policy}}}")));
        let idle = |line: &String| line.contains("has no effect");
        lines(&findings).iter().filter(|line| idle(line)).count()
    };
    let (new, old) = ("warmup: {duration: 30s}", "warmupDurationSecs: 30s");
    for asked in [new, old] {
        for idle in [
            "simple: RANDOM",
            "simple: PASSTHROUGH",
            "consistentHash: {useSourceIp: true}",
        ] {
            assert_eq!(warned(&format!("{idle}, {asked}")), 1, "{idle}, {asked}");
        }
        for fit in ["simple: ROUND_ROBIN, ", "simple: LEAST_REQUEST, ", ""] {
            assert_eq!(warned(&format!("{fit}{asked}")), 0, "{fit}{asked}");
        }
    }
}

fn policy() -> impl Strategy<Value = String> {
    let setting = prop_oneof![
        Just("failover: [{from: r1, to: r2}]"),
        Just("failoverPriority: [topology.kubernetes.io/region, tier, 'x=y']"),
        Just("failoverPriority: [tier=t0], failover: [{from: r2, to: r3}]"),
        Just("distribute: [{from: r1/*, to: {r1/z1: 60, r2: 40}}, {from: '*', to: {r3: 100}}]"),
        Just("enabled: false"),
        Just("enabled: true"),
    ];
    (setting, any::<bool>()).prop_map(|(setting, outlier)| {
        let outlier = if outlier {
            OUTLIER
        } else {
            "connectionPool: {tcp: {maxConnections: 1}}"
        };
        format!("{outlier}, loadBalancer: {{localityLbSetting: {{{setting}}}}}")
    })
}

fn place() -> impl Strategy<Value = String> {
    let part = |texts: [&'static str; 4]| prop::sample::select(texts.to_vec());
    (
        part(["r1", "r2", "r3", ""]),
        part(["/z1", "/z2", "/z3", ""]),
    )
        .prop_map(|(region, zone)| format!("{region}{zone}"))
}

proptest! {
    /// One compiler for all makes what a new one makes, and what it tells of the endpoints is
    /// enough to make them from other instances too.
    #[test]
    fn what_is_told_of_endpoints_makes_them(
        worlds in prop::collection::vec(
            (prop::collection::vec(place(), 0..6), prop::option::of(policy())), 1..4,
        ),
        nodes in prop::collection::vec(place(), 1..4),
    ) {
        let mut workshop = Workshop::new();
        for (places, policy) in worlds {
            let places: Vec<String> = places.iter().map(|place| format!("'{place}'")).collect();
            let places: Vec<&str> = places.iter().map(String::as_str).collect();
            let (world, _) = world(&service(&places, policy.as_deref().unwrap_or("")));
            for node in &nodes {
                let mut builder = SnapshotBuilder::new();
                workshop.compile(&world, &client(node), &mut builder);
                let (shared, _) = builder.build().unwrap();
                let (alone, _) = snapshot(&world, &client(node));
                let load = |snapshot: &Snapshot| -> Arc<EndpointSet> {
                    snapshot.cluster(NAME).unwrap().live().endpoints().load()
                };
                prop_assert_eq!(load(&shared), load(&alone));
                let (_, instances) = services(&world).swap_remove(0);
                let spread = workshop.spread(NAME).map(|spread| &**spread);
                let made = endpoints_of(&instances, 80, [], spread);
                prop_assert_eq!(&made, &*load(&alone));
                // Nobody is lost but where shares say so, and priorities have no gaps.
                let mut seen: Vec<u32> = made.localities.iter().map(|one| one.priority).collect();
                seen.sort_unstable();
                seen.dedup();
                prop_assert!(seen.iter().copied().eq(0..seen.len() as u32), "{:?}", seen);
            }
        }
    }
}
