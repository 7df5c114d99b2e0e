//! What is sent for a configuration, as Envoy's JSON.

use std::collections::BTreeMap;

use mesh_core::model::{
    Action, Balancing, Cluster, Endpoint, EndpointSet, Forward, Listener, Real, Retry, RetryOn,
    RouteTable, Rule, Snapshot, SnapshotBuilder, Target, VirtualHost,
};
use mesh_istio::{Files, Inbound, Node, Role, World, compile};
use mesh_xds::json::Codec;
use mesh_xds::schema;
use serde_json::{Value, json};

use super::*;

type Sent = BTreeMap<(TypeUrl, String), Value>;

const HOST: &str = "echo.shop.svc.cluster.local";

fn compiled(yaml: &str, node: &Node) -> std::sync::Arc<Snapshot> {
    let mut world = World::default();
    assert_eq!(world.update(&Files::from_text("a.yaml", yaml)), Vec::new());
    let mut builder = SnapshotBuilder::new();
    compile(&world, node, &mut builder);
    builder.build().unwrap().0
}

/// Each resource, which has to be one that Envoy's own rules allow.
fn read(resources: Vec<(TypeUrl, Encoded)>) -> Sent {
    let codec = Codec::new();
    let each = resources.into_iter().map(|(kind, one)| {
        let (_, message) = kind.url().split_once('/').unwrap();
        schema::check(message, &one.bytes).unwrap_or_else(|why| panic!("{}: {why}", one.name));
        let text = codec.to_json(message, &one.bytes).unwrap();
        (
            (kind, one.name.to_string()),
            serde_json::from_str(&text).unwrap(),
        )
    });
    each.collect()
}

fn sent(yaml: &str) -> Sent {
    read(resources(&compiled(yaml, &Node::sidecar("client", "shop"))))
}

fn names(sent: &Sent, kind: TypeUrl) -> Vec<&str> {
    let of_kind = sent.keys().filter(|(one, _)| *one == kind);
    of_kind.map(|(_, name)| name.as_str()).collect()
}

/// What is sent for a virtual host with these rules.
fn routes(rules: Vec<Rule>) -> Vec<Value> {
    let mut host = VirtualHost::new("a:1", ["a:1"]);
    host.rules = rules.into_iter().map(std::sync::Arc::new).collect();
    let sent = read(resources(&snapshot(host, Vec::new())));
    let table = &sent[&(TypeUrl::Routes, "outbound|1||a".to_owned())];
    let routes = table["virtual_hosts"][0]["routes"].as_array();
    routes.cloned().unwrap_or_default()
}

fn snapshot(host: VirtualHost, clusters: Vec<(Cluster, EndpointSet)>) -> std::sync::Arc<Snapshot> {
    let mut builder = SnapshotBuilder::new();
    for (cluster, endpoints) in clusters {
        builder.endpoints(cluster.name.clone(), endpoints);
        builder.cluster(cluster);
    }
    builder.routes(RouteTable::new("t").host(host));
    let address = "127.0.0.1:15001".parse().unwrap();
    let manager = HttpManager::new("t", "t");
    builder.listener(Listener::http("t", address, manager));
    builder.build().unwrap().0
}

fn cluster(cluster: Cluster, endpoints: EndpointSet) -> Sent {
    let rule = Rule::prefix_to("/", cluster.name.clone());
    let host = VirtualHost::new("a:1", ["a:1"]).rule(rule);
    read(resources(&snapshot(host, vec![(cluster, endpoints)])))
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: shop}
spec: {clusterIP: 10.0.0.9, ports: [{name: grpc, port: 7070}, {name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: wide, namespace: shop}
spec: {hosts: ['*.wide.test'], http: [{route: [{destination: {host: echo, port: {number: 80}}}]}]}
";

#[test]
fn a_target_is_any_name_of_a_service_with_its_port() {
    let sent = sent(SERVICE);
    let mut expected: Vec<String> = ["echo", "echo.shop", "echo.shop.svc", HOST]
        .iter()
        .flat_map(|name| [format!("{name}:7070"), format!("{name}:80")])
        .collect();
    expected.sort();
    assert_eq!(names(&sent, TypeUrl::Listener), expected);
    let tables = [
        format!("outbound|7070||{HOST}"),
        format!("outbound|80||{HOST}"),
    ];
    assert_eq!(names(&sent, TypeUrl::Routes), tables);
    assert_eq!(names(&sent, TypeUrl::Cluster), tables);
    assert_eq!(names(&sent, TypeUrl::Endpoints), tables);
}

#[test]
fn a_service_of_another_namespace_has_no_name_of_one_word() {
    let yaml = SERVICE.replace("namespace: shop", "namespace: other");
    let sent = sent(&yaml);
    let listeners = names(&sent, TypeUrl::Listener);
    assert!(listeners.contains(&"echo.other:7070"), "{listeners:?}");
    assert!(!listeners.contains(&"echo:7070"), "{listeners:?}");
}

#[test]
fn a_listener_leads_to_its_table_and_has_the_filter_for_faults() {
    let sent = sent(SERVICE);
    let table = format!("outbound|7070||{HOST}");
    let listener = &sent[&(TypeUrl::Listener, "echo:7070".to_owned())];
    let manager = &listener["api_listener"]["api_listener"];
    assert_eq!(manager["rds"]["route_config_name"], json!(table));
    assert_eq!(manager["rds"]["config_source"]["ads"], json!({}));
    let filters = manager["http_filters"].as_array().unwrap().iter();
    let filters: Vec<&Value> = filters.map(|one| &one["name"]).collect();
    assert_eq!(
        filters,
        ["envoy.filters.http.fault", "envoy.filters.http.router"]
    );
}

#[test]
fn a_table_has_one_virtual_host_with_each_domain_twice() {
    let sent = sent(SERVICE);
    let table = &sent[&(TypeUrl::Routes, format!("outbound|7070||{HOST}"))];
    let hosts = table["virtual_hosts"].as_array().unwrap();
    assert_eq!(hosts.len(), 1);
    let domains = hosts[0]["domains"].as_array().unwrap();
    for domain in ["echo", "echo.shop", HOST, "10.0.0.9"] {
        assert!(domains.contains(&json!(domain)), "{domains:?}");
        assert!(
            domains.contains(&json!(format!("{domain}:7070"))),
            "{domains:?}"
        );
    }
    assert!(table.get("ignore_port_in_host_matching").is_none());
}

#[test]
fn a_route_has_istios_retries_as_far_as_grpc_knows_them_and_no_limit() {
    let sent = sent(SERVICE);
    let table = &sent[&(TypeUrl::Routes, format!("outbound|7070||{HOST}"))];
    let route = &table["virtual_hosts"][0]["routes"][0]["route"];
    assert_eq!(route["retry_policy"]["retry_on"], "cancelled,unavailable");
    assert_eq!(route["retry_policy"]["num_retries"], 2);
    assert!(route["retry_policy"].get("retry_host_predicate").is_none());
    assert_eq!(
        route["max_stream_duration"],
        json!({"max_stream_duration": "0s"})
    );
    assert!(route.get("max_grpc_timeout").is_none());
}

#[test]
fn the_shorter_limit_counts_and_zero_is_none() {
    for (timeout, stream, expected) in [
        (None, None, "0s"),
        (Some(0), Some(2), "2s"),
        (Some(3), Some(2), "2s"),
        (Some(3), Some(0), "3s"),
    ] {
        let mut rule = Rule::prefix_to("/", "c");
        rule.timeout = timeout.map(std::time::Duration::from_secs);
        rule.max_stream_duration = stream.map(std::time::Duration::from_secs);
        let sent = &routes(vec![rule])[0]["route"]["max_stream_duration"];
        assert_eq!(
            sent["max_stream_duration"], expected,
            "{timeout:?} {stream:?}"
        );
    }
}

#[test]
fn a_policy_that_retries_on_nothing_of_grpc_is_none() {
    for (on, attempts) in [
        (RetryOn::SERVER_ERROR.with(RetryOn::RESET), 2),
        (RetryOn::GRPC_INTERNAL, 0),
    ] {
        let mut retry = Retry::default();
        (retry.on, retry.attempts) = (on, attempts);
        let mut rule = Rule::prefix_to("/", "c");
        rule.retry = Some(retry.into());
        assert!(routes(vec![rule])[0]["route"].get("retry_policy").is_none());
    }
}

#[test]
fn what_only_a_proxy_does_is_not_sent() {
    let yaml = format!(
        "{SERVICE}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: echo, namespace: shop}}
spec:
  hosts: [echo]
  http:
  - name: all
    rewrite: {{uri: /else, authority: elsewhere.test}}
    headers: {{request: {{add: {{x-added: 'yes'}}}}, response: {{remove: [x-gone]}}}}
    mirrors: [{{destination: {{host: mirror.test}}}}]
    corsPolicy: {{allowOrigins: [{{exact: '*'}}]}}
    fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 10}}}}}}
    route: [{{destination: {{host: echo, port: {{number: 80}}}}}}]
"
    );
    let sent = sent(&yaml);
    let table = &sent[&(TypeUrl::Routes, format!("outbound|7070||{HOST}"))];
    let route = &table["virtual_hosts"][0]["routes"][0];
    let keys: Vec<&String> = route.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["match", "name", "route", "typed_per_filter_config"]);
    let filters = route["typed_per_filter_config"].as_object().unwrap();
    let filters: Vec<&String> = filters.keys().collect();
    assert_eq!(filters, ["envoy.filters.http.fault"]);
    let action: Vec<&String> = route["route"].as_object().unwrap().keys().collect();
    assert_eq!(
        action,
        ["cluster", "max_stream_duration", "retry_policy", "timeout"]
    );
    assert!(!names(&sent, TypeUrl::Cluster).contains(&"outbound|80||mirror.test"));
}

#[test]
fn an_answer_becomes_a_fault_with_the_status_that_clients_make_of_it() {
    let yaml = |action: &str| {
        format!(
            "{SERVICE}---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: echo, namespace: shop}}
spec: {{hosts: [echo], http: [{{{action}}}]}}
"
        )
    };
    for (action, status) in [
        ("redirect: {uri: /else}", 2),
        ("directResponse: {status: 200}", 2),
        ("directResponse: {status: 403}", 7),
        ("directResponse: {status: 404}", 12),
        ("directResponse: {status: 503}", 14),
    ] {
        let sent = sent(&yaml(action));
        let table = &sent[&(TypeUrl::Routes, format!("outbound|7070||{HOST}"))];
        let route = &table["virtual_hosts"][0]["routes"][0];
        let abort = &route["typed_per_filter_config"]["envoy.filters.http.fault"]["abort"];
        assert_eq!(abort["grpc_status"], status, "{action}");
        assert_eq!(abort["percentage"]["numerator"], 1_000_000, "{action}");
        // The route has to lead somewhere, and the cluster has to be there.
        assert_eq!(route["route"]["cluster"], "BlackHoleCluster");
        assert_eq!(names(&sent, TypeUrl::Cluster), ["BlackHoleCluster"]);
    }
}

#[test]
fn weights_that_grpc_refuses_make_calls_fail() {
    let header = Target::Header("x-cluster".parse().unwrap());
    let split = |parts: &[(&str, u32)]| Forward::split(parts.iter().copied());
    let mut by_header = Forward::default();
    by_header.to = header;
    for forward in [
        by_header,
        Forward::to(""),
        split(&[]),
        split(&[("a", 0)]),
        split(&[("a", u32::MAX), ("b", 1)]),
        split(&[("", 1)]),
    ] {
        let rule = Rule::new(Default::default(), Action::Forward(forward.clone()));
        let route = &routes(vec![rule])[0];
        assert_eq!(route["route"]["cluster"], "BlackHoleCluster", "{forward:?}");
    }
    let rule = Rule::new(
        Default::default(),
        Action::Forward(split(&[("a", 0), ("b", u32::MAX)])),
    );
    let parts = &routes(vec![rule])[0]["route"]["weighted_clusters"]["clusters"];
    assert_eq!(parts, &json!([{"name": "b", "weight": u32::MAX}]));
}

#[test]
fn least_request_is_asked_for_and_round_robin_taken_instead() {
    for (choices, expected) in [(0, 2), (2, 2), (5, 5), (u32::MAX, 10)] {
        let mut one = Cluster::new("c");
        one.balancing = Balancing::LeastRequest {
            choices,
            bias: Real::ONE,
        };
        let sent = cluster(one, EndpointSet::default());
        let proto = &sent[&(TypeUrl::Cluster, "c".to_owned())];
        assert!(
            proto.get("lb_policy").is_none(),
            "round robin is the default"
        );
        let list = &proto["load_balancing_policy"]["policies"][0]["typed_extension_config"];
        let inner = &list["typed_config"]["endpoint_picking_policy"]["policies"];
        let kinds = [0, 1].map(|at| &inner[at]["typed_extension_config"]["typed_config"]);
        assert_eq!(kinds[0]["choice_count"], expected);
        assert!(kinds[1]["@type"].as_str().unwrap().ends_with(".RoundRobin"));
    }
    for balancing in [Balancing::Random, Balancing::RoundRobin] {
        let mut one = Cluster::new("c");
        one.balancing = balancing;
        let sent = cluster(one, EndpointSet::default());
        let proto = &sent[&(TypeUrl::Cluster, "c".to_owned())];
        assert!(proto.get("lb_policy").is_none() && proto.get("load_balancing_policy").is_none());
    }
}

#[test]
fn a_service_without_limits_is_not_limited_to_what_grpc_takes_for_granted() {
    let sent = sent(SERVICE);
    let proto = &sent[&(TypeUrl::Cluster, format!("outbound|80||{HOST}"))];
    let thresholds = &proto["circuit_breakers"]["thresholds"][0];
    assert_eq!(thresholds["max_requests"], u32::MAX);
    assert!(proto.get("typed_extension_protocol_options").is_none());
}

#[test]
fn a_cluster_resolved_by_dns_has_addresses_or_one_name() {
    let dns = |addresses: &[&str]| {
        let mut one = Cluster::new("c");
        one.discovery = mesh_core::model::DiscoveryKind::StrictDns;
        let each = addresses.iter().map(|text| text.parse().unwrap());
        let endpoints =
            each.map(|address: mesh_core::model::Address| Endpoint::new(address).into());
        cluster(one, EndpointSet::from_endpoints(endpoints.collect()))
    };
    let names_only = dns(&["one.test:80", "two.test:80"]);
    let proto = &names_only[&(TypeUrl::Cluster, "c".to_owned())];
    assert_eq!(proto["type"], "LOGICAL_DNS");
    let localities = proto["load_assignment"]["endpoints"].as_array().unwrap();
    assert_eq!(localities.len(), 1);
    let endpoints = localities[0]["lb_endpoints"].as_array().unwrap();
    assert_eq!(endpoints.len(), 1);
    let address = &endpoints[0]["endpoint"]["address"]["socket_address"]["address"];
    assert_eq!(address, "one.test");
    assert_eq!(names(&names_only, TypeUrl::Endpoints), Vec::<&str>::new());
    for addresses in [&["one.test:80", "10.0.0.1:80"][..], &[]] {
        let sent = dns(addresses);
        assert_eq!(sent[&(TypeUrl::Cluster, "c".to_owned())]["type"], "EDS");
        assert_eq!(names(&sent, TypeUrl::Endpoints), ["c"]);
    }
}

#[test]
fn the_endpoints_of_a_service_are_encoded_as_for_a_proxy() {
    let workload = |name: &str, zone: &str| {
        format!(
            "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: '{name}', namespace: shop}}
spec: {{address: 10.0.1.{name}, locality: r/{zone}, labels: {{app: echo}}, weight: 3}}
"
        )
    };
    let service = SERVICE.replace("{clusterIP", "{selector: {app: echo}, clusterIP");
    let yaml = service + &workload("1", "b") + &workload("2", "a") + &workload("3", "b");
    let snapshot = compiled(&yaml, &Node::sidecar("client", "shop"));
    let endpoints = |all: Vec<(TypeUrl, Encoded)>| -> Vec<Encoded> {
        let name = format!("outbound|7070||{HOST}");
        let each = all.into_iter();
        let of_kind = each.filter(|(kind, one)| *kind == TypeUrl::Endpoints && *one.name == *name);
        of_kind.map(|(_, one)| one).collect()
    };
    let sent = endpoints(resources(&snapshot));
    assert!(sent[0].bytes.len() > 100, "there are some");
    assert_eq!(sent, endpoints(write::snapshot(&snapshot)));
}

fn accepting(port: u16) -> std::sync::Arc<Snapshot> {
    let mut node = Node::sidecar("server", "shop");
    node.address = "10.1.2.3".parse().unwrap();
    let application = port;
    node.role = Role::Sidecar {
        inbound: vec![Inbound { port, application }],
    };
    compiled("", &node)
}

#[test]
fn a_server_finds_its_listener_under_each_usual_address() {
    let snapshot = accepting(50051);
    let sent = read(server_resources(&snapshot));
    let prefixes = [
        "grpc/server?xds.resource.listening_address=",
        "xds.istio.io/grpc/lds/inbound/",
    ];
    let addresses = ["0.0.0.0", "[::]", "127.0.0.1", "[::1]", "10.1.2.3"];
    for (prefix, address) in prefixes
        .into_iter()
        .flat_map(|prefix| addresses.map(|address| (prefix, address)))
    {
        let name = format!("{prefix}{address}:50051");
        let listener = &sent[&(TypeUrl::Listener, name.clone())];
        let socket = &listener["address"]["socket_address"];
        assert_eq!(socket["address"], address.trim_matches(['[', ']']));
        assert_eq!(socket["port_value"], 50051);
        let config = &listener["filter_chains"][0]["filters"][0]["typed_config"];
        let route = &config["route_config"]["virtual_hosts"][0]["routes"][0];
        assert_eq!(route["non_forwarding_action"], json!({}));
        let found = server_listener(&snapshot, &name).unwrap();
        assert_eq!(*found.name, *name);
    }
    assert_eq!(sent.len(), 10);
    assert!(
        resources(&snapshot)
            .iter()
            .all(|(_, one)| !one.name.contains("grpc/"))
    );
}

#[test]
fn a_server_on_another_address_is_answered_and_one_on_another_port_is_not() {
    let snapshot = accepting(50051);
    let named = |address: &str| {
        let name = format!("grpc/server?xds.resource.listening_address={address}");
        server_listener(&snapshot, &name)
    };
    assert!(named("10.9.9.9:50051").is_some());
    for address in [
        "10.9.9.9:50052",
        "10.9.9.9",
        ":50051",
        "10.9.9.9:050051",
        "[0:0::1]:50051",
        "",
    ] {
        assert_eq!(named(address), None, "{address}");
    }
    assert_eq!(server_listener(&snapshot, "10.9.9.9:50051"), None);
}

#[test]
fn hashes_are_a_ring_and_headers_whatever_they_are_elsewhere() {
    let hash = |hash: &str| {
        format!(
            "{SERVICE}---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: echo, namespace: shop}}
spec: {{host: echo, trafficPolicy: {{loadBalancer: {{consistentHash: {{{hash}}}}}}}}}
"
        )
    };
    for (asked, size, headers) in [
        ("httpHeaderName: x-user, minimumRingSize: 99", "99", true),
        (
            "httpHeaderName: x-user, maglev: {tableSize: 1009}",
            "1024",
            true,
        ),
        ("useSourceIp: true", "1024", false),
    ] {
        let (mut world, node) = (World::default(), Node::sidecar("client", "shop"));
        world.update(&Files::from_text("a.yaml", &hash(asked)));
        let mut builder = SnapshotBuilder::new();
        compile(&world, &node, &mut builder);
        let sent = read(resources(&builder.build().unwrap().0));
        let name = format!("outbound|7070||{HOST}");
        let proto = &sent[&(TypeUrl::Cluster, name)];
        assert_eq!(proto["lb_policy"], "RING_HASH");
        assert_eq!(proto["ring_hash_lb_config"]["minimum_ring_size"], size);
        assert_eq!(proto["load_balancing_policy"], Value::Null);
        let tables = sent
            .iter()
            .filter(|((kind, _), _)| *kind == TypeUrl::Routes);
        let text: String = tables.map(|(_, table)| table.to_string()).collect();
        assert_eq!(
            text.contains("\"header_name\":\"x-user\""),
            headers,
            "{text}"
        );
        assert!(!text.contains("connection_properties"));
    }
}
