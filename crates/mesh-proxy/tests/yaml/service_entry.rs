//! `ServiceEntry` and `WorkloadEntry`: services that Kubernetes does not know.

use crate::town::{Backend, Town, mesh_config, object, object_in, refused};

const PORTS: &str = "ports: [{number: 80, name: http, protocol: HTTP}]";

fn at(backend: &Backend) -> String {
    format!(
        "{{address: 127.0.0.1, ports: {{http: {}}}}}",
        backend.address.port()
    )
}

/// Everything else is 502, so an answer of a backend means that the entry worked.
fn only_known(entry: &str) -> String {
    mesh_config(&["outboundTrafficPolicy: {mode: REGISTRY_ONLY}"])
        + &object("ServiceEntry", "e", entry)
}

#[tokio::test]
async fn static_endpoints_are_reached_by_the_entrys_hosts() {
    let one = Backend::start("v1").await;
    let town = Town::client(&only_known(&format!(
        "{{hosts: [api.example, '*.api.example'], {PORTS}, resolution: STATIC, endpoints: [{}]}}",
        at(&one)
    )))
    .await;
    for (host, line) in [
        ("api.example", "200 v1"),
        ("api.example:80", "200 v1"),
        ("x.api.example", "200 v1"),
        ("other.example", "502 "),
        ("api.example:81", "502 "),
    ] {
        assert_eq!(town.get(host, "/").await.line(), line, "{host}");
    }
    assert_eq!(one.seen()[0].host, "api.example");
}

#[tokio::test]
async fn dns_looks_up_the_host_or_the_names_of_its_endpoints() {
    let one = Backend::start("v1").await;
    let port = one.address.port();
    for (entry, host) in [
        (
            format!(
                "{{hosts: [localhost], resolution: DNS, \
                 ports: [{{number: {port}, name: http, protocol: HTTP}}]}}"
            ),
            format!("localhost:{port}"),
        ),
        (
            format!(
                "{{hosts: [api.example], {PORTS}, resolution: DNS, \
                 endpoints: [{{address: localhost, ports: {{http: {port}}}}}]}}"
            ),
            "api.example".to_owned(),
        ),
    ] {
        let town = Town::client(&only_known(&entry)).await;
        assert_eq!(town.get(&host, "/").await.line(), "200 v1", "{host}");
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_503() {
    let town = Town::client(&only_known(&format!(
        "{{hosts: [no-such-name.invalid], {PORTS}, resolution: DNS}}"
    )))
    .await;
    assert_eq!(town.get("no-such-name.invalid", "/").await.status, 503);
}

#[tokio::test]
async fn target_port_is_the_endpoints_port_unless_it_says_one_itself() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let ports = format!(
        "ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {}}}]",
        one.address.port()
    );
    for (endpoint, body) in [("{address: 127.0.0.1}".to_owned(), "v1"), (at(&two), "v2")] {
        let town = Town::client(&only_known(&format!(
            "{{hosts: [api.example], {ports}, resolution: STATIC, endpoints: [{endpoint}]}}"
        )))
        .await;
        assert_eq!(town.get("api.example", "/").await.body, body);
    }
}

#[tokio::test]
async fn port_protocols_choose_the_version() {
    for (protocol, version) in [
        ("HTTP", http::Version::HTTP_11),
        ("HTTP2", http::Version::HTTP_2),
        ("GRPC", http::Version::HTTP_2),
    ] {
        let one = Backend::start("v1").await;
        let town = Town::client(&only_known(&format!(
            "{{hosts: [api.example], ports: [{{number: 80, name: http, protocol: {protocol}}}], \
             resolution: STATIC, endpoints: [{}]}}",
            at(&one)
        )))
        .await;
        assert_eq!(town.get("api.example", "/").await.line(), "200 v1");
        assert_eq!(one.only().version, version, "{protocol}");
    }
}

#[tokio::test]
async fn addresses_are_names_of_the_service_too() {
    let one = Backend::start("v1").await;
    let town = Town::client(&only_known(&format!(
        "{{hosts: [api.example], addresses: [240.0.0.7], {PORTS}, resolution: STATIC, \
         endpoints: [{}]}}",
        at(&one)
    )))
    .await;
    assert_eq!(town.get("240.0.0.7", "/").await.line(), "200 v1");
    assert_eq!(town.get("240.0.0.8", "/").await.line(), "502 ");
}

#[tokio::test]
async fn workload_selector_takes_workload_entries_and_pods_of_its_namespace() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let workload = |backend: &Backend, app: &str| {
        format!(
            "{{address: 127.0.0.1, labels: {{app: {app}}}, ports: {{http: {}}}}}",
            backend.address.port()
        )
    };
    let yaml = only_known(&format!(
        "{{hosts: [api.example], {PORTS}, resolution: STATIC, \
         workloadSelector: {{labels: {{app: api}}}}}}"
    )) + &object("WorkloadEntry", "one", &workload(&one, "api"))
        + &object("WorkloadEntry", "two", &workload(&two, "other"))
        + &object_in("other", "WorkloadEntry", "three", &workload(&two, "api"));
    let bodies = Town::client(&yaml)
        .await
        .bodies("api.example", "/", 10)
        .await;
    assert!(bodies.iter().all(|body| body == "v1"), "{bodies:?}");

    let port = one.address.port();
    let yaml = only_known(&format!(
        "{{hosts: [api.example], resolution: STATIC, workloadSelector: {{labels: {{app: api}}}}, \
         ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]}}"
    )) + "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: default, labels: {app: api}}\n\
          status: {podIP: 127.0.0.1}\n";
    assert_eq!(
        Town::client(&yaml)
            .await
            .get("api.example", "/")
            .await
            .line(),
        "200 v1"
    );
}

#[tokio::test]
async fn labels_of_endpoints_make_subsets() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let labelled = |backend: &Backend| {
        at(backend).replace(
            "{address",
            &format!("{{labels: {{version: {}}}, address", backend.name),
        )
    };
    let yaml = only_known(&format!(
        "{{hosts: [api.example], {PORTS}, resolution: STATIC, endpoints: [{}, {}]}}",
        labelled(&one),
        labelled(&two)
    )) + &object(
        "DestinationRule",
        "e",
        "{host: api.example, subsets: [{name: two, labels: {version: v2}}]}",
    ) + &object(
        "VirtualService",
        "e",
        "{hosts: [api.example], http: [{route: [{destination: {host: api.example, subset: two}}]}]}",
    );
    let bodies = Town::client(&yaml)
        .await
        .bodies("api.example", "/", 10)
        .await;
    assert!(bodies.iter().all(|body| body == "v2"), "{bodies:?}");
}

#[tokio::test]
async fn weight_of_endpoints_is_their_share() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let heavy = at(&one).replace("{address", "{weight: 3, address");
    let yaml = only_known(&format!(
        "{{hosts: [api.example], {PORTS}, resolution: STATIC, endpoints: [{heavy}, {}]}}",
        at(&two)
    ));
    // RANDOM goes by nothing, as in Envoy.
    for (simple, share) in [
        ("ROUND_ROBIN", 260..=340),
        ("RANDOM", 150..=250),
        ("LEAST_REQUEST", 260..=340),
    ] {
        one.forget();
        let rule =
            format!("{{host: api.example, trafficPolicy: {{loadBalancer: {{simple: {simple}}}}}}}");
        let town = Town::client(&(yaml.clone() + &object("DestinationRule", "e", &rule))).await;
        town.bodies("api.example", "/", 400).await;
        assert!(share.contains(&one.count()), "{simple}: {}", one.count());
    }
}

#[tokio::test]
async fn locality_does_not_keep_endpoints_from_their_share() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    let far = at(&one).replace("{address", "{locality: far/away, address");
    let yaml = only_known(&format!(
        "{{hosts: [api.example], {PORTS}, resolution: STATIC, endpoints: [{far}, {}]}}",
        at(&two)
    ));
    Town::client(&yaml)
        .await
        .bodies("api.example", "/", 100)
        .await;
    assert!((25..=75).contains(&one.count()), "{}", one.count());
}

#[tokio::test]
async fn export_to_and_the_default_of_the_mesh_hide_entries_from_other_namespaces() {
    let one = Backend::start("v1").await;
    for (mesh, export, line) in [
        ("", "exportTo: ['*'], ", "200 v1"),
        ("", "exportTo: [default], ", "200 v1"),
        ("", "exportTo: ['.'], ", "502 "),
        ("", "exportTo: ['~'], ", "502 "),
        ("", "", "200 v1"),
        ("defaultServiceExportTo: ['.']", "", "502 "),
    ] {
        let yaml = mesh_config(&["outboundTrafficPolicy: {mode: REGISTRY_ONLY}", mesh])
            + &object_in(
                "other",
                "ServiceEntry",
                "e",
                &format!(
                    "{{hosts: [api.example], {export}{PORTS}, resolution: STATIC, endpoints: [{}]}}",
                    at(&one)
                ),
            );
        let town = Town::client(&yaml).await;
        assert_eq!(
            town.get("api.example", "/").await.line(),
            line,
            "{mesh} {export}"
        );
    }
}

#[tokio::test]
async fn the_entry_is_told_in_metrics() {
    let one = Backend::start("v1").await;
    let endpoint = at(&one).replace("{address", "{serviceAccount: robot, address");
    let yaml = only_known(&format!(
        "{{hosts: [api.example], location: MESH_EXTERNAL, {PORTS}, resolution: STATIC, \
         endpoints: [{endpoint}]}}"
    ));
    let town = Town::client(&yaml).await;
    town.get("api.example", "/").await;
    let metrics = town.admin("/stats/prometheus").await;
    let line = metrics
        .lines()
        .find(|line| line.starts_with("istio_requests_total{"))
        .unwrap();
    for label in [
        "destination_service=\"api.example\"",
        "destination_workload=\"e-0\"",
    ] {
        assert!(line.contains(label), "{line}");
    }
}

#[test]
fn what_comes_later_is_refused_by_name() {
    let field = "network";
    let yaml = object("WorkloadEntry", "w", "{address: 127.0.0.1, network: n}");
    let errors = refused(&yaml);
    assert!(
        errors.contains(field) && errors.contains("not supported"),
        "{field}: {errors}"
    );
}
