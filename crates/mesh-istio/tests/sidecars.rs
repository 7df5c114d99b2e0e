//! What a sidecar gets: its listeners, virtual hosts, rules and clusters.

#[path = "support/lib.rs"]
mod support;

use std::time::Duration;

use mesh_core::model::{
    Action, AddMode, AuthorityRewrite, Balancing, DelayBy, Direction, DiscoveryKind, PathMatch,
    PathRewrite, RetryOn, Target, UpstreamProtocol,
};
use mesh_istio::Node;
use support::{
    BOOKINFO, addresses, client, cluster, good, host, hosts, lines, manager, of, service, snapshot,
    to,
};

const REVIEWS: &str = "reviews.default.svc.cluster.local";

#[test]
fn listens_where_its_node_says() {
    let sidecar = of(&good(BOOKINFO), "productpage-v1");
    let at: Vec<String> = sidecar
        .listeners()
        .iter()
        .map(|l| format!("{} {}", l.name, l.address))
        .collect();
    assert_eq!(
        at,
        [
            "127.0.0.1_20101 127.0.0.1:20101",
            "127.0.0.1_20106 127.0.0.1:20106"
        ]
    );
    let out = manager(&sidecar, "127.0.0.1_20101");
    assert_eq!(
        (out.direction, &*out.routes),
        (Direction::Outbound, "http_proxy")
    );
    assert_eq!(out.stat_prefix, "outbound_127.0.0.1_20101");
    assert_eq!(out.access_log[0].path, "/dev/stdout");
    assert!(out.path.normalize && out.path.merge_slashes);
    let inbound = manager(&sidecar, "127.0.0.1_20106");
    assert_eq!(
        (inbound.direction, &*inbound.routes),
        (Direction::Inbound, "inbound|20106||")
    );
}

#[test]
fn hands_inbound_requests_to_the_application() {
    let sidecar = of(&good(BOOKINFO), "productpage-v1");
    let inbound = host(&sidecar, "inbound|20106||", "inbound|http|9080");
    let rule = &inbound.rules[0];
    assert_eq!((&*rule.name, to(rule)), ("default", "inbound|20106||"));
    assert_eq!(
        rule.operation,
        "productpage.default.svc.cluster.local:9080/*"
    );
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!(
        (retry.attempts, retry.on),
        (2, RetryOn::RESET_BEFORE_REQUEST)
    );
    assert_eq!(addresses(&sidecar, "inbound|20106||"), ["127.0.0.1:20180"]);
    let service = &cluster(&sidecar, "inbound|20106||").service;
    assert_eq!((&*service.name, service.port), ("productpage", 9080));
}

#[test]
fn finds_services_by_every_form_of_their_name() {
    let sidecar = of(&good(BOOKINFO), "productpage-v1");
    let names: Vec<&str> = host(&sidecar, "http_proxy", &format!("{REVIEWS}:9080"))
        .domains
        .iter()
        .map(|domain| &**domain)
        .filter(|domain| !domain.contains("svc"))
        .collect();
    assert_eq!(
        names,
        [
            "reviews:9080",
            "reviews",
            "reviews.default:9080",
            "reviews.default"
        ]
    );
    // Of a service with several ports the names alone mean port 80.
    let admin = host(
        &sidecar,
        "http_proxy",
        "ratings.default.svc.cluster.local:80",
    );
    assert!(admin.domains.iter().any(|domain| domain == "ratings"));
    let main = host(
        &sidecar,
        "http_proxy",
        "ratings.default.svc.cluster.local:9080",
    );
    assert!(main.domains.iter().all(|domain| domain.contains(":9080")));
    let table = sidecar.table("http_proxy").unwrap();
    assert!(!table.ignore_port && !table.validate_clusters);
}

#[test]
fn makes_one_rule_of_every_match_block() {
    let sidecar = of(&good(BOOKINFO), "productpage-v1");
    let rules = &host(&sidecar, "http_proxy", &format!("{REVIEWS}:9080")).rules;
    assert_eq!(rules.len(), 3);
    let v2 = format!("outbound|9080|v2|{REVIEWS}");
    assert_eq!(
        rules
            .iter()
            .take(2)
            .map(|r| (&*r.name, to(r)))
            .collect::<Vec<_>>(),
        [("jason", v2.as_str()), ("jason", v2.as_str()),]
    );
    assert_eq!(rules[0].timeout, Some(Duration::from_millis(500)));
    assert_eq!(rules[0].max_grpc_timeout, Some(Duration::from_millis(500)));
    let retry = rules[0].retry.as_ref().unwrap();
    assert_eq!(
        (retry.attempts, retry.status_codes.as_slice()),
        (3, [503].as_slice())
    );
    assert!(retry.on.has(RetryOn::SERVER_ERROR) && retry.on.has(RetryOn::RETRIABLE_STATUS_CODES));
    assert_eq!(retry.per_try_timeout, Some(Duration::from_millis(100)));
    assert_eq!(
        rules[1].condition.path,
        PathMatch::Prefix("/reviews".to_owned())
    );
    // Both come from one place, but for their own blocks.
    let place = |origin| sidecar.origins().place(origin).unwrap().clone();
    assert_eq!(place(rules[0].origin), place(rules[1].origin));
    assert_eq!(
        place(rules[0].origin).object,
        "VirtualService reviews.default"
    );
    assert!(place(rules[1].condition.origin).line > place(rules[0].condition.origin).line);
    let source = BOOKINFO
        .lines()
        .nth(place(rules[0].origin).line as usize - 1)
        .unwrap();
    assert_eq!(source.trim(), "- name: jason");
}

#[test]
fn splits_by_weight_and_mirrors() {
    let sidecar = of(&good(BOOKINFO), "productpage-v1");
    let rule = &host(&sidecar, "http_proxy", &format!("{REVIEWS}:9080")).rules[2];
    let Some(Target::Weighted(parts)) = rule.forward().map(|f| &f.to) else {
        panic!("a split")
    };
    let shares: Vec<_> = parts.iter().map(|p| (p.weight, &*p.cluster)).collect();
    let (v1, v2) = (
        format!("outbound|9080|v1|{REVIEWS}"),
        format!("outbound|9080|v2|{REVIEWS}"),
    );
    assert_eq!(shares, [(90, v1.as_str()), (10, v2.as_str())]);
    assert_eq!(parts[1].request_edits.add[0].mode, AddMode::Overwrite);
    assert_eq!(
        (&*rule.mirrors[0].cluster, rule.mirrors[0].shadow_host),
        (v2.as_str(), false)
    );
    assert_eq!(rule.mirrors[0].share.to_string(), "12.5%");
    assert_eq!(rule.operation, "reviews:9080/*");
    let retry = rule.retry.as_ref().unwrap();
    assert_eq!(
        (
            retry.attempts,
            retry.host_attempts,
            retry.avoid_previous_hosts
        ),
        (2, 5, true)
    );
    assert_eq!(
        retry.on.names().collect::<Vec<_>>(),
        [
            "connect-failure",
            "refused-stream",
            "retriable-status-codes",
            "cancelled",
            "unavailable"
        ],
    );
}

#[test]
fn rewrites_redirects_answers_and_fails_on_purpose() {
    let sidecar = of(&good(BOOKINFO), "productpage-v1");
    let rules = &host(
        &sidecar,
        "http_proxy",
        "ratings.default.svc.cluster.local:9080",
    )
    .rules;
    let fault = rules[0].fault.as_ref().unwrap();
    assert_eq!(
        fault.delay.as_ref().unwrap().by,
        DelayBy::Fixed(Duration::from_secs(7))
    );
    assert_eq!(fault.abort.as_ref().unwrap().share.to_string(), "0.5%");
    let Action::Redirect(redirect) = &rules[1].action else {
        panic!("a redirect")
    };
    assert_eq!((redirect.code, redirect.port), (302, Some(8443)));
    assert_eq!(redirect.host.as_deref(), Some("new.example"));
    assert!(rules[1].retry.is_none());
    let Action::Respond(answer) = &rules[2].action else {
        panic!("an answer")
    };
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &b"fine"[..])
    );
    let forward = rules[3].forward().unwrap();
    assert_eq!(forward.path, PathRewrite::Prefix("/v2/".to_owned()));
    assert_eq!(
        forward.authority,
        Some(AuthorityRewrite::Literal("inner.example".into()).into())
    );
    assert_eq!(rules[3].cors.as_ref().unwrap().max_age, "3600");
}

#[test]
fn clusters_inherit_block_by_block() {
    let sidecar = of(&good(BOOKINFO), "productpage-v1");
    let plain = cluster(&sidecar, "outbound|80||ratings.default.svc.cluster.local");
    assert_eq!(plain.balancing, Balancing::LEAST_REQUEST);
    assert_eq!(plain.connect_timeout, Duration::from_secs(10));
    assert_eq!(
        (plain.limits.max_connections, plain.limits.max_retries),
        (u32::MAX, u32::MAX)
    );
    assert_eq!((plain.panic_threshold, plain.outlier.is_none()), (50, true));

    let v2 = cluster(&sidecar, &format!("outbound|9080|v2|{REVIEWS}"));
    assert_eq!(v2.balancing, Balancing::Random);
    assert_eq!(
        (v2.limits.max_connections, v2.limits.max_pending),
        (100, 10)
    );
    assert_eq!(
        (v2.max_requests_per_connection, v2.connect_timeout),
        (5, Duration::from_secs(2))
    );
    let outlier = v2.outlier.as_ref().unwrap();
    assert_eq!(
        (outlier.consecutive_5xx, outlier.max_ejection_percent),
        (1, 100)
    );
    assert_eq!((v2.panic_threshold, &*v2.service.subset), (0, "v2"));
    let place = sidecar.origins().place(v2.origin).unwrap();
    assert_eq!(place.object, "DestinationRule reviews.default");
    assert!(
        cluster(&sidecar, &format!("outbound|9080|v1|{REVIEWS}"))
            .outlier
            .is_none()
    );
}

#[test]
fn endpoints_come_from_workload_entries_with_their_weight_and_place() {
    let sidecar = of(&good(BOOKINFO), "productpage-v1");
    let all = format!("outbound|9080||{REVIEWS}");
    assert_eq!(
        addresses(&sidecar, &all),
        ["127.0.0.1:20206", "127.0.0.1:20306"]
    );
    assert_eq!(
        addresses(&sidecar, &format!("outbound|9080|v1|{REVIEWS}")),
        ["127.0.0.1:20206"]
    );
    let set = sidecar.cluster(&all).unwrap().live().endpoints().load();
    let second = &set.localities[1];
    assert_eq!(
        (second.locality.to_string().as_str(), second.weight),
        ("here/zone-a/", 3)
    );
    let workload = &second.endpoints[0].workload;
    assert_eq!(
        (&*workload.name, &*workload.canonical_revision),
        ("reviews-v2", "v2")
    );
}

#[test]
fn service_entries_are_services() {
    let sidecar = of(&good(BOOKINFO), "productpage-v1");
    let dns = cluster(&sidecar, "outbound|80||api.example");
    assert_eq!(dns.discovery, DiscoveryKind::StrictDns);
    assert_eq!(
        addresses(&sidecar, "outbound|80||api.example"),
        ["backend.example:8080"]
    );
    let fixed = cluster(&sidecar, "outbound|8000||fixed.example");
    assert_eq!(fixed.protocol, UpstreamProtocol::Http2);
    assert_eq!(
        addresses(&sidecar, "outbound|8000||fixed.example"),
        ["10.0.0.7:8001"]
    );
    let domains = &host(&sidecar, "http_proxy", "fixed.example:8000").domains;
    assert!(domains.iter().any(|domain| domain == "10.1.2.3:8000"));
}

#[test]
fn unknown_hosts_pass_or_are_blocked() {
    let open = of(&good(BOOKINFO), "productpage-v1");
    assert_eq!(hosts(&open, "http_proxy").last(), Some(&"allow_any"));
    assert_eq!(
        to(&host(&open, "http_proxy", "allow_any").rules[0]),
        "PassthroughCluster"
    );
    assert_eq!(
        cluster(&open, "PassthroughCluster").discovery,
        DiscoveryKind::Authority
    );
    assert!(addresses(&open, "BlackHoleCluster").is_empty());

    let closed = of(&good(BOOKINFO), "ratings-v1");
    let Action::Respond(answer) = &host(&closed, "http_proxy", "block_all").rules[0].action else {
        panic!("an answer")
    };
    assert_eq!(answer.status.as_u16(), 502);
}

#[test]
fn a_sidecar_resource_narrows_and_adds_listeners() {
    let sidecar = of(&good(BOOKINFO), "ratings-v1");
    let names: Vec<&str> = sidecar.listeners().iter().map(|l| &*l.name).collect();
    assert_eq!(
        names,
        ["127.0.0.1_9080", "127.0.0.1_20401", "127.0.0.1_20406"]
    );
    assert_eq!(
        hosts(&sidecar, "9080"),
        [&format!("{REVIEWS}:9080"), "block_all"]
    );
    assert!(sidecar.table("9080").unwrap().ignore_port);
    assert!(hosts(&sidecar, "http_proxy").contains(&"productpage.default.svc.cluster.local:9080"));
    assert_eq!(addresses(&sidecar, "inbound|20406||"), ["127.0.0.1:20480"]);
}

#[test]
fn warns_of_destinations_that_do_not_exist() {
    let text = service("a", "default", 80)
        + &service("b", "default", 80)
        + "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [a, b]
  http:
  - match: [{uri: {prefix: /1}}]
    route: [{destination: {host: a, subset: v9}}]
  - match: [{uri: {prefix: /2}}]
    route: [{destination: {host: nowhere}}]
  - route: [{destination: {host: a, port: {number: 81}}}]
";
    let (snapshot, findings) = client(&text);
    let found = lines(&findings);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(
        found[0].starts_with(
            "mesh.yaml:28:45: warning: VirtualService v.default: \
         spec.http[0].route[0].destination.subset: no DestinationRule for"
        ),
        "{}",
        found[0]
    );
    assert!(found[1].contains("no service has the host \"nowhere.default.svc.cluster.local\""));
    assert!(found[2].contains("has no port 81"));
    let rules = &host(&snapshot, "http_proxy", "a.default.svc.cluster.local:80").rules;
    assert_eq!(to(&rules[0]), "outbound|80|v9|a.default.svc.cluster.local");
}

#[test]
fn the_first_virtual_service_for_a_host_wins_and_the_second_is_told() {
    let rule = |name: &str, to: &str| {
        format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: \
             {name}}}, spec: {{hosts: [a], http: [{{route: [{{destination: {{host: {to}}}}}]}}]}}}}\n"
        )
    };
    let text = service("a", "default", 80)
        + &service("b", "default", 80)
        + &rule("z-first", "a")
        + &rule("a-second", "b");
    let (snapshot, findings) = client(&text);
    // No creation times: by name.
    let rules = &host(&snapshot, "http_proxy", "a.default.svc.cluster.local:80").rules;
    assert_eq!(to(&rules[0]), "outbound|80||b.default.svc.cluster.local");
    assert!(
        findings[0]
            .message
            .contains("VirtualService a-second.default speaks for host")
    );
    assert_eq!(
        findings[0].object.as_deref(),
        Some("VirtualService z-first.default")
    );
}

#[test]
fn destination_rules_are_looked_up_by_namespace_before_specificity() {
    let rule = |namespace: &str, host: &str, limit: u32| {
        format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: \
             d, namespace: {namespace}}}, spec: {{host: {host}, trafficPolicy: {{connectionPool: \
             {{tcp: {{maxConnections: {limit}}}}}}}}}}}\n"
        )
    };
    let exact = "a.pay.svc.cluster.local";
    let limit = |text: String| {
        let (snapshot, _) = client(&(service("a", "pay", 80) + &text));
        cluster(&snapshot, &format!("outbound|80||{exact}"))
            .limits
            .max_connections
    };
    let (own, theirs, root) = (
        rule("default", "'*.local'", 1),
        rule("pay", exact, 2),
        rule("istio-system", exact, 3),
    );
    assert_eq!(limit(own + &theirs + &root), 1);
    assert_eq!(limit(theirs + &root), 2);
    assert_eq!(limit(root), 3);
    assert_eq!(limit(rule("elsewhere", exact, 4)), u32::MAX);
}

#[test]
fn match_blocks_for_other_clients_are_left_out() {
    let text = service("a", "default", 80)
        + "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v}
spec:
  hosts: [a]
  http:
  - {name: mine, match: [{sourceLabels: {app: client}}, {sourceNamespace: pay}], route: [{destination: {host: a}}]}
  - {name: port, match: [{port: 81}], route: [{destination: {host: a}}]}
  - {name: gateway, match: [{gateways: [g]}], route: [{destination: {host: a}}]}
";
    let world = good(&text);
    let mut node = Node::sidecar("client", "default");
    let names = |node: &Node| -> Vec<String> {
        let (snapshot, _) = snapshot(&world, node);
        let host = host(&snapshot, "http_proxy", "a.default.svc.cluster.local:80");
        host.rules
            .iter()
            .map(|rule| rule.name.to_string())
            .collect()
    };
    // With nothing left the service is reached as if there were no rules.
    assert_eq!(names(&node), ["default"]);
    node.labels.insert("app".to_owned(), "client".to_owned());
    assert_eq!(names(&node), ["mine"]);
}

#[test]
fn what_is_not_exported_is_not_seen() {
    let text = service("a", "pay", 80)
        + &service("b", "pay", 80).replace(
            "name: b, namespace: pay}",
            "name: b, namespace: pay, annotations: {networking.istio.io/exportTo: .}}",
        );
    let (snapshot, _) = client(&text);
    assert_eq!(
        hosts(&snapshot, "http_proxy"),
        ["a.pay.svc.cluster.local:80", "allow_any"]
    );
    let domains = &host(&snapshot, "http_proxy", "a.pay.svc.cluster.local:80").domains;
    assert!(
        domains
            .iter()
            .all(|domain| domain != "a" && domain != "a:80")
    );
}

#[test]
fn retries_may_be_switched_off_and_set_for_the_mesh() {
    let rule = |retries: &str| {
        format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: v}}, \
             spec: {{hosts: [a], http: [{{{retries} route: [{{destination: {{host: a}}}}]}}]}}}}\n"
        )
    };
    let attempts = |mesh: &str, text: &str| {
        let text = format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: istio}}, data: {{mesh: '{mesh}'}}}}\
             \n---\n{}{text}",
            service("a", "default", 80),
        );
        let (snapshot, _) = client(&text);
        let host = host(&snapshot, "http_proxy", "a.default.svc.cluster.local:80");
        host.rules[0]
            .retry
            .as_ref()
            .map(|retry| (retry.attempts, retry.on))
    };
    let mesh = "{defaultHttpRetryPolicy: {attempts: 4, retryOn: 5xx}}";
    assert_eq!(attempts("{}", &rule("retries: {},")), None);
    assert_eq!(attempts("{}", &rule("")).map(|(n, _)| n), Some(2));
    assert_eq!(attempts(mesh, &rule("")), Some((4, RetryOn::SERVER_ERROR)));
    assert_eq!(attempts(mesh, ""), Some((4, RetryOn::SERVER_ERROR)));
    assert_eq!(
        attempts(mesh, &rule("retries: {attempts: 1},")).map(|(n, _)| n),
        Some(1)
    );
}

#[test]
fn unix_sockets_are_the_way_out_and_where_the_application_and_endpoints_are() {
    let kind = |kind: &str, name: &str, spec: &str| {
        format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: {kind}, \
             metadata: {{name: {name}, namespace: default}}, spec: {{{spec}}}}}\n"
        )
    };
    let text = kind(
        "ServiceEntry",
        "shop",
        "hosts: [shop.example], ports: [{number: 80, name: http, protocol: HTTP}], \
         resolution: STATIC, endpoints: [{address: 'unix:///run/shop.sock'}]",
    ) + &kind(
        "Sidecar",
        "s",
        "ingress: [{port: {number: 9080, protocol: HTTP}, \
          defaultEndpoint: 'unix:///run/app.sock'}], \
         egress: [{port: {number: 0, protocol: HTTP}, bind: 'unix:///run/out.sock', \
          hosts: ['*/*']}]",
    );
    let mut node = Node::sidecar("client", "default");
    node.address = [127, 0, 0, 1].into();
    let (sidecar, findings) = snapshot(&good(&text), &node);
    assert!(findings.is_empty(), "{findings:?}");
    let way_out = sidecar
        .listeners()
        .iter()
        .find(|one| *one.name == *"unix:///run/out.sock_0")
        .unwrap();
    assert_eq!(way_out.address.to_string(), "/run/out.sock");
    // As with a proxy that is asked for everything, the authority's port decides.
    let shop = host(&sidecar, "unix:///run/out.sock", "shop.example:80");
    assert_eq!(to(&shop.rules[0]), "outbound|80||shop.example");
    let at = |cluster: &str| addresses(&sidecar, cluster);
    assert_eq!(at("outbound|80||shop.example"), ["unix:///run/shop.sock"]);
    assert_eq!(at("inbound|9080||"), ["unix:///run/app.sock"]);
}
