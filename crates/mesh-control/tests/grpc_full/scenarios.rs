//! What clients are to do with a configuration. Each function is a test.

use crate::ports::free_address;
use crate::support::{Backends, Control, Language, Peers, Tally};

/// A service `echo` on port 7070 with these endpoints, each a subset of its own.
fn service(backends: &Backends, names: &[&str]) -> String {
    let endpoints: String = names
        .iter()
        .map(|name| {
            let port = backends.ports[name];
            format!("  - {{address: 127.0.0.1, ports: {{grpc: {port}}}, labels: {{v: {name}}}}}\n")
        })
        .collect();
    let endpoints = match names {
        [] => String::new(),
        _ => format!("  endpoints:\n{endpoints}"),
    };
    format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: echo}}
spec:
  hosts: [echo.test]
  ports: [{{number: 7070, name: grpc, protocol: GRPC}}]
  resolution: STATIC
{endpoints}"
    )
}

/// Subsets a, b and c of `echo`, and a traffic policy.
fn destination(policy: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: echo}}
spec:
  host: echo.test
  trafficPolicy: {{{policy}}}
  subsets:
  - {{name: a, labels: {{v: a}}}}
  - {{name: b, labels: {{v: b}}}}
  - {{name: c, labels: {{v: c}}}}
"
    )
}

/// Routes of `echo`: the lines of `spec.http`.
fn routes(http: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: echo}}
spec:
  hosts: [echo.test]
  http:
{http}"
    )
}

const ECHO: &str = "xds:///echo.test:7070";

fn accepted(control: &Control) {
    assert_eq!(control.rejected(), Vec::<String>::new());
}

pub(crate) async fn splits_by_weight_under_each_name_of_the_service(
    peers: Peers,
    language: Language,
) {
    let backends = peers.backends(["a", "b"]).await;
    // A Service of Kubernetes has short names too.
    let slices: String = ["a", "b"]
        .map(|name| {
            let port = backends.ports[name];
            format!(
                "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}}}
spec: {{address: 127.0.0.1, ports: {{grpc: {port}}}, labels: {{app: echo, v: {name}}}}}
"
            )
        })
        .concat();
    let yaml = format!(
        "apiVersion: v1
kind: Service
metadata: {{name: echo}}
spec: {{selector: {{app: echo}}, ports: [{{name: grpc, port: 7070}}]}}
{slices}{}{}",
        destination("").replace("echo.test", "echo"),
        routes(
            "  - route:
    - {destination: {host: echo, subset: a}, weight: 80}
    - {destination: {host: echo, subset: b}, weight: 20}
"
        )
        .replace("[echo.test]", "[echo]"),
    );
    let control = Control::start(&yaml).await;
    let mut client = peers.client(language, &control);
    for name in [
        "echo",
        "echo.default",
        "echo.default.svc",
        "echo.default.svc.cluster.local",
    ] {
        let tally = client.calls(&format!("xds:///{name}:7070"), 300).await;
        assert!(tally.errors.is_empty(), "{name}: {tally:?}");
        // 60 expected; five standard deviations are 35.
        assert!((25..=95).contains(&tally.replies["b"]), "{name}: {tally:?}");
    }
    accepted(&control);
}

pub(crate) async fn routes_by_headers_and_methods(peers: Peers, language: Language) {
    let backends = peers.backends(["a", "b", "c"]).await;
    let to =
        |subset| format!("    route: [{{destination: {{host: echo.test, subset: {subset}}}}}]\n");
    let yaml = service(&backends, &["a", "b", "c"])
        + &destination(
            "loadBalancer: {simple: RANDOM}, outlierDetection: {consecutive5xxErrors: 3}",
        )
        + &routes(&format!(
            "  - match:
    - headers: {{x-user: {{exact: jason}}}}
    - headers: {{x-tier: {{regex: 'gold|silver'}}}}
{}  - match:
    - uri: {{exact: /mesh.test.Echo/Other}}
      method: {{exact: POST}}
    - method: {{exact: GET}}
    - queryParams: {{a: {{exact: b}}}}
{}  - match:
    - withoutHeaders: {{x-mode: {{exact: safe}}}}
      headers: {{x-probe: {{}}}}
    - withoutHeaders: {{x-user: {{}}}}
      headers: {{x-alone: {{}}}}
{}  - {}",
            to("a"),
            to("b"),
            to("b"),
            to("c").trim_start(),
        ));
    let control = Control::start(&yaml).await;
    let mut client = peers.client(language, &control);
    for (method, metadata, expected) in [
        ("Say", &[][..], "c"),
        ("Say", &[("x-user", "jason")], "a"),
        ("Say", &[("x-user", "jasons")], "c"),
        ("Say", &[("x-tier", "silver")], "a"),
        ("Say", &[("x-tier", "silvers")], "c"),
        ("Other", &[], "b"),
        ("Others", &[], "c"),
        // Of a header that is not there, it is true that it has another value.
        ("Say", &[("x-probe", "1")], "b"),
        ("Say", &[("x-probe", "1"), ("x-mode", "bold")], "b"),
        ("Say", &[("x-probe", "1"), ("x-mode", "safe")], "c"),
        ("Say", &[("x-alone", "1")], "b"),
        ("Say", &[("x-alone", "1"), ("x-user", "ann")], "c"),
    ] {
        let tally = client.calls_with(ECHO, method, 5, metadata, 20.0).await;
        assert_eq!(
            tally,
            Tally::replies([(expected, 5)]),
            "{method} {metadata:?}"
        );
    }
    accepted(&control);
}

pub(crate) async fn loses_no_call_when_endpoints_come_and_go(peers: Peers, language: Language) {
    let backends = peers.backends(["a", "b", "c"]).await;
    let control = Control::start(&service(&backends, &["a", "b"])).await;
    let mut client = peers.client(language, &control);
    client.start(ECHO).await;
    client.settles_on(&["a", "b"]).await;
    for _ in 0..5 {
        for names in [&["b"][..], &["b", "c"], &["a"], &["a", "b", "c"]] {
            control.apply(&service(&backends, names));
            client.settles_on(names).await;
        }
    }
    let last = client.stop().await;
    assert!(last.errors.is_empty(), "{last:?}");
    accepted(&control);
}

pub(crate) async fn keeps_to_the_limit_of_requests(peers: Peers, language: Language) {
    let backends = peers.backends(["a"]).await;
    let limit = "connectionPool: {http: {http2MaxRequests: 3}}";
    let no_retry = routes(
        "  - retries: {attempts: 0}
    route: [{destination: {host: echo.test}}]
",
    );
    let yaml = service(&backends, &["a"]) + &destination(limit) + &no_retry;
    let control = Control::start(&yaml).await;
    let mut client = peers.client(language, &control);
    assert_eq!(client.calls(ECHO, 1).await, Tally::replies([("a", 1)]));
    let held = client.hold(ECHO, 8, 5).await;
    assert_eq!(held, Tally::errors([("UNAVAILABLE", 5)]));
    // What was cancelled counts no more.
    assert_eq!(client.calls(ECHO, 5).await, Tally::replies([("a", 5)]));
    // Without a limit there is none, not gRPC's own of 1024 either.
    control.apply(&(service(&backends, &["a"]) + &destination("") + &no_retry));
    let mut fresh = peers.client(language, &control);
    assert_eq!(fresh.calls(ECHO, 1).await, Tally::replies([("a", 1)]));
    assert_eq!(fresh.hold(ECHO, 1_100, 0).await, Tally::default());
    accepted(&control);
}

pub(crate) async fn retries_the_codes_of_the_policy_only(peers: Peers, language: Language) {
    let backends = peers.backends(["a", "b"]).await;
    let yaml = service(&backends, &["a", "b"])
        + &routes(
            "  - retries: {attempts: 3, retryOn: 'resource-exhausted,5xx,reset', backoff: 5ms}
    route: [{destination: {host: echo.test}}]
",
        );
    let control = Control::start(&yaml).await;
    let mut client = peers.client(language, &control);
    for (id, status, fail, expected) in [
        ("1", "RESOURCE_EXHAUSTED", "0", None),
        ("2", "RESOURCE_EXHAUSTED", "1", None),
        ("3", "RESOURCE_EXHAUSTED", "3", None),
        ("4", "RESOURCE_EXHAUSTED", "4", Some("RESOURCE_EXHAUSTED")),
        ("5", "UNAVAILABLE", "1", Some("UNAVAILABLE")),
    ] {
        let metadata = [("x-id", id), ("x-status", status), ("x-fail", fail)];
        let tally = client.calls_with(ECHO, "Flaky", 1, &metadata, 20.0).await;
        match expected {
            None => assert!(tally.errors.is_empty(), "{id}: {tally:?}"),
            Some(error) => assert_eq!(tally, Tally::errors([(error, 1)]), "{id}"),
        }
    }
    accepted(&control);
}

pub(crate) async fn applies_timeouts_and_faults(peers: Peers, language: Language) {
    let backends = peers.backends(["a"]).await;
    let yaml = service(&backends, &["a"])
        + &routes(
            "  - match: [{uri: {exact: /mesh.test.Echo/Hold}}]
    timeout: 0.3s
    route: [{destination: {host: echo.test}}]
  - match: [{headers: {x-fault: {exact: abort}}}]
    fault: {abort: {grpcStatus: DATA_LOSS, percentage: {value: 100}}}
    route: [{destination: {host: echo.test}}]
  - match: [{headers: {x-fault: {exact: status}}}]
    fault: {abort: {httpStatus: 403, percentage: {value: 100}}}
    route: [{destination: {host: echo.test}}]
  - match: [{headers: {x-fault: {exact: delay}}}]
    fault: {delay: {fixedDelay: 20s, percentage: {value: 100}}}
    route: [{destination: {host: echo.test}}]
  - route: [{destination: {host: echo.test}}]
",
        );
    let control = Control::start(&yaml).await;
    let mut client = peers.client(language, &control);
    assert_eq!(client.calls(ECHO, 3).await, Tally::replies([("a", 3)]));
    for (method, fault, patience, expected) in [
        ("Hold", "", 20.0, "DEADLINE_EXCEEDED"),
        ("Say", "abort", 20.0, "DATA_LOSS"),
        ("Say", "status", 20.0, "PERMISSION_DENIED"),
        ("Say", "delay", 0.5, "DEADLINE_EXCEEDED"),
    ] {
        let start = tokio::time::Instant::now();
        let metadata = [("x-fault", fault)];
        let tally = client
            .calls_with(ECHO, method, 1, &metadata, patience)
            .await;
        assert_eq!(tally, Tally::errors([(expected, 1)]), "{method} {fault}");
        assert!(start.elapsed().as_secs() < 10, "{method} {fault}");
    }
    accepted(&control);
}

pub(crate) async fn answers_for_routes_that_only_a_proxy_can_follow(
    peers: Peers,
    language: Language,
) {
    let backends = peers.backends(["a"]).await;
    let yaml = service(&backends, &["a"])
        + &routes(
            "  - match: [{headers: {x-to: {exact: elsewhere}}}]
    redirect: {authority: elsewhere.test}
  - match: [{headers: {x-to: {exact: nowhere}}}]
    directResponse: {status: 404, body: {string: nothing here}}
  - match: [{headers: {x-to: {exact: everywhere}}}]
    rewrite: {uri: /else, authority: elsewhere.test}
    headers: {request: {add: {x-added: 'yes'}, remove: [x-to]}}
    mirrors: [{destination: {host: echo.test}}]
    corsPolicy: {allowOrigins: [{exact: '*'}]}
    route: [{destination: {host: echo.test}}]
  - route: [{destination: {host: echo.test}}]
",
        );
    let control = Control::start(&yaml).await;
    let mut client = peers.client(language, &control);
    assert_eq!(client.calls(ECHO, 3).await, Tally::replies([("a", 3)]));
    for (to, expected) in [
        ("elsewhere", Tally::errors([("UNKNOWN", 1)])),
        ("nowhere", Tally::errors([("UNIMPLEMENTED", 1)])),
        ("everywhere", Tally::replies([("a", 1)])),
    ] {
        let tally = client
            .calls_with(ECHO, "Say", 1, &[("x-to", to)], 20.0)
            .await;
        assert_eq!(tally, expected, "{to}");
    }
    accepted(&control);
}

pub(crate) async fn keeps_calls_with_one_header_together(peers: Peers, language: Language) {
    let names = ["a", "b", "c"];
    let backends = peers.backends(names).await;
    let policy = "loadBalancer: {consistentHash: {httpHeaderName: x-user}}";
    let control = Control::start(&(service(&backends, &names) + &destination(policy))).await;
    let mut client = peers.client(language, &control);
    let mut chosen = std::collections::BTreeSet::new();
    for user in 0..20 {
        let user = format!("user-{user}");
        let metadata = [("x-user", user.as_str())];
        let tally = client.calls_with(ECHO, "Say", 5, &metadata, 20.0).await;
        let own = names.map(|name| Tally::replies([(name, 5)]));
        let own = own.iter().position(|one| *one == tally);
        chosen.insert(own.unwrap_or_else(|| panic!("{user} is everywhere: {tally:?}")));
    }
    assert!(chosen.len() > 1, "all users share one endpoint");
    accepted(&control);
}

pub(crate) async fn resolves_services_by_dns(peers: Peers, language: Language) {
    let backends = peers.backends(["a"]).await;
    let port = backends.ports["a"];
    let yaml = format!(
        "apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: echo}}
spec:
  hosts: [echo.test]
  ports: [{{number: 7070, name: grpc, protocol: GRPC}}]
  resolution: DNS
  endpoints: [{{address: localhost, ports: {{grpc: {port}}}}}]
"
    );
    let control = Control::start(&yaml).await;
    let mut client = peers.client(language, &control);
    assert_eq!(client.calls(ECHO, 3).await, Tally::replies([("a", 3)]));
    accepted(&control);
}

pub(crate) async fn serves(peers: Peers, language: Language) {
    let control = Control::start("").await;
    let address = free_address();
    let port = address.port();
    // The control plane does not know the port yet, so the server does not accept.
    let _server = peers.server(&control, address).await;
    let mut client = peers.client(language, &control);
    let target = address.to_string();
    let before = client.calls_with(&target, "Say", 1, &[], 2.0).await;
    assert!(before.replies.is_empty(), "{before:?}");
    control.apply(&format!(
        "apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: client, annotations: {{mesh-rs.dev/inbound: '{port}={port}'}}}}
spec: {{address: 127.0.0.1}}
"
    ));
    let after = client.calls_with(&target, "Say", 1, &[], 20.0).await;
    assert_eq!(after, Tally::replies([("served", 1)]));
    accepted(&control);
}
