//! What a gateway gets that ends TLS, passes it on, or passes bytes on.

#[path = "support/lib.rs"]
mod support;

use std::sync::Arc;

use mesh_core::model::{
    Direction, Secret, SecretRef, SecretSource, ServerTls, Snapshot, SnapshotBuilder,
};
use mesh_istio::{Capture, Files, Node, World, compile};
use support::{cluster, clusters, good, hosts, lines, listener, listeners, service, to, world};

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\\nMIIB\\n-----END PRIVATE KEY-----\\n";

fn gateway(name: &str, servers: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {{name: {name}}}, \
         spec: {{servers: [{servers}]}}}}\n"
    )
}

fn server(protocol: &str, host: &str, tls: &str) -> String {
    format!(
        "{{port: {{number: 443, name: p-{}, protocol: {protocol}}}, hosts: ['{host}']{tls}}}",
        host.replace(['*', '.', '/'], "")
    )
}

fn rules(name: &str, hosts: &str, rules: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: {name}}}, \
         spec: {{hosts: [{hosts}], gateways: [g], {rules}}}}}\n"
    )
}

fn secret(name: &str, namespace: &str, data: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Secret, metadata: {{name: {name}, namespace: {namespace}}}, \
         stringData: {{{data}}}}}\n"
    )
}

fn pair() -> String {
    format!("tls.crt: \"{CERTIFICATE}\", tls.key: \"{KEY}\"")
}

fn roots() -> String {
    format!("ca.crt: \"{CERTIFICATE}\"")
}

fn snapshot(text: &str) -> (Arc<Snapshot>, Vec<String>) {
    let (snapshot, findings) = support::snapshot(&good(text), &Node::gateway("g", "default"));
    (snapshot, lines(&findings))
}

fn tls(snapshot: &Snapshot, listener: &str, chain: usize) -> Arc<ServerTls> {
    let chain = &support::listener(snapshot, listener).chains[chain];
    Arc::clone(chain.tls.as_ref().expect("TLS"))
}

fn held(snapshot: &Snapshot, named: &SecretRef) -> Option<Arc<Secret>> {
    let live = snapshot.secret(named).expect("named by the snapshot");
    Option::clone(&live.value().load())
}

const TO_A: &str = "http: [{route: [{destination: {host: a}}]}]";
const SIMPLE: &str = ", tls: {mode: SIMPLE, credentialName: c}";

#[test]
fn a_certificate_is_found_by_name_in_the_gateways_own_namespace() {
    let text = service("a", "default", 80)
        + &gateway("g", &server("HTTPS", "a.example", SIMPLE))
        + &rules("v", "a.example", TO_A)
        + &secret("c", "default", &pair());
    let (snapshot, findings) = snapshot(&text);
    assert_eq!(findings, Vec::<String>::new());
    assert_eq!(listeners(&snapshot), ["0.0.0.0_443"]);
    let port = listener(&snapshot, "0.0.0.0_443");
    assert!(port.inspect.tls.is_some());
    assert_eq!(port.chains[0].matches.server_names, ["a.example"]);
    let manager = port.chains[0].manager().unwrap();
    assert_eq!(manager.routes, "https.443.p-aexample.g.default");
    assert_eq!(manager.direction, Direction::Gateway);
    assert_eq!(hosts(&snapshot, &manager.routes), ["a.example:443"]);
    let tls = tls(&snapshot, "0.0.0.0_443", 0);
    assert_eq!(tls.alpn, ["h2", "http/1.1"]);
    assert!(tls.validation.is_none() && !tls.require_client_certificate);
    let named = &tls.certificates[0];
    assert_eq!(named.name, "kubernetes://c");
    assert!(matches!(named.source, SecretSource::ControlPlane { .. }));
    let Some(Secret::Certificate { key, .. }) = held(&snapshot, named).as_deref().cloned() else {
        panic!("a certificate")
    };
    assert!(key.expose().starts_with(b"-----BEGIN PRIVATE"));
}

#[test]
fn a_secret_that_is_not_there_is_said_to_be_and_the_rest_is_served() {
    let text = gateway(
        "g",
        &[
            server("HTTPS", "a.example", SIMPLE),
            server(
                "HTTPS",
                "b.example",
                ", tls: {mode: MUTUAL, credentialName: d}",
            ),
        ]
        .join(", "),
    ) + &secret("c", "other", &pair())
        + &secret("d", "default", &pair());
    let (snapshot, findings) = snapshot(&text);
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(
        findings[0].contains("no Secret \"c\" in namespace \"default\" has tls.crt and tls.key")
    );
    assert!(findings[1].contains("no Secret \"d\" in namespace \"default\" has ca.crt"));
    assert_eq!(listener(&snapshot, "0.0.0.0_443").chains.len(), 2);
    let missing = &tls(&snapshot, "0.0.0.0_443", 0).certificates[0];
    assert_eq!(held(&snapshot, missing), None);
    let there = &tls(&snapshot, "0.0.0.0_443", 1).certificates[0];
    assert!(held(&snapshot, there).is_some());
}

#[test]
fn a_secret_that_comes_changes_and_goes_reaches_the_same_listener() {
    let base = gateway("g", &server("HTTPS", "a.example", SIMPLE));
    let node = Node::gateway("g", "default");
    let mut world = World::default();
    let mut last: Option<Arc<Snapshot>> = None;
    let changed = pair().replace("MIIB", "MIIC");
    let mut seen = Vec::new();
    for text in [None, Some(pair()), Some(changed), None] {
        let more = text.map(|data| secret("c", "default", &data));
        world.update(&Files::from_text(
            "a.yaml",
            &(base.clone() + &more.unwrap_or_default()),
        ));
        let mut builder = match &last {
            Some(last) => SnapshotBuilder::from(last),
            None => SnapshotBuilder::new(),
        };
        compile(&world, &node, &mut builder);
        let (snapshot, _) = builder.build().unwrap();
        let named = tls(&snapshot, "0.0.0.0_443", 0).certificates[0].clone();
        seen.push(held(&snapshot, &named));
        last = Some(snapshot);
    }
    assert!(seen[0].is_none() && seen[3].is_none());
    assert!(seen[1].is_some() && seen[2].is_some() && seen[1] != seen[2]);
}

#[test]
fn roots_stand_in_a_secret_of_their_own_or_beside_the_certificate() {
    let mutual = ", tls: {mode: MUTUAL, credentialName: c, subjectAltNames: [client]}";
    let apart = secret("c", "default", &pair()) + &secret("c-cacert", "default", &roots());
    let beside = secret("c", "default", &format!("{}, {}", pair(), roots()));
    for secrets in [apart, beside] {
        let (snapshot, findings) =
            snapshot(&(gateway("g", &server("HTTPS", "a.example", mutual)) + &secrets));
        assert_eq!(findings, Vec::<String>::new());
        let tls = tls(&snapshot, "0.0.0.0_443", 0);
        let validation = tls.validation.as_ref().unwrap();
        let named = validation.roots.as_ref().unwrap();
        assert_eq!(named.name, "kubernetes://c-cacert");
        assert!(held(&snapshot, named).is_some());
        assert!(tls.require_client_certificate);
        assert_eq!(validation.subject_alt_names.len(), 1);
    }
}

#[test]
fn files_are_read_by_the_proxy_or_asked_of_istiods_agent() {
    let text = gateway(
        "g",
        &server(
            "HTTPS",
            "*",
            ", tls: {mode: OPTIONAL_MUTUAL, serverCertificate: /c, privateKey: /k, \
             caCertificates: /ca, caCrl: /crl, minProtocolVersion: TLSV1_3}",
        ),
    );
    for (capture, agent) in [(Capture::None, false), (Capture::Redirect, true)] {
        let mut node = Node::gateway("g", "default");
        node.capture = capture;
        let (snapshot, _) = support::snapshot(&good(&text), &node);
        let tls = tls(&snapshot, "0.0.0.0_443", 0);
        let validation = tls.validation.as_ref().unwrap();
        let named = [&tls.certificates[0], validation.roots.as_ref().unwrap()];
        assert_eq!(named[0].name, "file-cert:/c~/k");
        assert_eq!(named[1].name, "file-root:/ca");
        assert_eq!(validation.revoked.as_ref().unwrap().name, "file-crl:/crl");
        for one in named {
            let asked = matches!(&one.source, SecretSource::Service { cluster, .. } if *cluster == "sds-grpc");
            assert_eq!(asked, agent);
            assert_eq!(one.source == SecretSource::Local, !agent);
        }
        assert!(!tls.require_client_certificate);
        // Every name there is: nothing has to be asked for.
        let chain = &listener(&snapshot, "0.0.0.0_443").chains[0];
        assert!(chain.matches.server_names.is_empty());
    }
}

#[test]
fn tls_goes_on_by_server_name_and_each_name_once() {
    let text = service("a", "default", 8443)
        + &service("b", "default", 8443)
        + &gateway(
            "g",
            &server("TLS", "*.example", ", tls: {mode: PASSTHROUGH}"),
        )
        + &rules(
            "v",
            "'*.example'",
            "tls: [{match: [{sniHosts: [a.example, b.example]}], \
             route: [{destination: {host: a}}]}, \
             {match: [{sniHosts: [b.example, c.example], port: 443}, {sniHosts: [d.example], \
             port: 444}], route: [{destination: {host: b}}]}]",
        );
    let (snapshot, findings) = snapshot(&text);
    assert_eq!(findings, Vec::<String>::new());
    let chains = &listener(&snapshot, "0.0.0.0_443").chains;
    let names: Vec<_> = chains
        .iter()
        .map(|chain| &*chain.matches.server_names)
        .collect();
    assert_eq!(names, [&["a.example", "b.example"][..], &["c.example"]]);
    assert_eq!(
        clusters(&chains[1]),
        ["outbound|8443||b.default.svc.cluster.local"]
    );
    assert_eq!(chains[1].proxy().unwrap().direction, Direction::Gateway);
}

#[test]
fn bytes_go_to_the_first_rule_inside_tls_or_not() {
    let tcp = "tcp: [{match: [{port: 1}], route: [{destination: {host: no}}]}, \
               {match: [{port: 443}], route: [{destination: {host: a}}]}, \
               {route: [{destination: {host: no}}]}]";
    for (protocol, settings, secured) in [("MONGO", "", false), ("TLS", SIMPLE, true)] {
        let text = service("a", "default", 7000)
            + &gateway("g", &server(protocol, "a.example", settings))
            + &rules("v", "'*.example'", tcp)
            + &secret("c", "default", &pair());
        let (snapshot, findings) = snapshot(&text);
        assert_eq!(findings, Vec::<String>::new());
        let chains = &listener(&snapshot, "0.0.0.0_443").chains;
        assert_eq!(chains.len(), 1);
        assert_eq!(
            clusters(&chains[0]),
            ["outbound|7000||a.default.svc.cluster.local"]
        );
        assert_eq!(chains[0].tls.is_some(), secured);
        assert_eq!(chains[0].matches.server_names.is_empty(), !secured);
    }
}

#[test]
fn a_server_without_a_rule_is_said_to_serve_nothing() {
    for (protocol, settings, words) in [
        ("TCP", "", "no tcp rule is for this server"),
        (
            "TLS",
            ", tls: {mode: PASSTHROUGH}",
            "no tls rule is for this server",
        ),
    ] {
        let (snapshot, findings) =
            snapshot(&gateway("g", &server(protocol, "a.example", settings)));
        assert!(findings[0].contains(words), "{findings:?}");
        assert!(listeners(&snapshot).is_empty());
    }
}

#[test]
fn servers_of_several_gateways_meet_at_a_port_as_far_as_they_fit() {
    let text = service("a", "default", 80)
        + &gateway("g", &server("HTTPS", "a.example", SIMPLE))
        + &gateway("h", &server("HTTPS", "b.example", SIMPLE))
        + &gateway("i", &server("HTTPS", "a.example", SIMPLE))
        + &gateway("j", &server("HTTP", "c.example", ""))
        + &gateway("k", &server("TCP", "*", ""))
        + &secret("c", "default", &pair());
    let (snapshot, findings) = snapshot(&text);
    let chains = &listener(&snapshot, "0.0.0.0_443").chains;
    let names: Vec<_> = chains
        .iter()
        .map(|chain| &chain.matches.server_names[0])
        .collect();
    assert_eq!(names, ["a.example", "b.example"]);
    assert_eq!(findings.len(), 3, "{findings:?}");
    assert!(findings[0].contains("Gateway j.default") && findings[0].contains("something else"));
    assert!(findings[1].contains("Gateway k.default"));
    assert!(findings[2].contains("Gateway i.default") && findings[2].contains("another server"));
}

#[test]
fn http_and_https_of_one_gateway_have_tables_apart() {
    let plain = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*'], \
                 tls: {httpsRedirect: true}}";
    let both = format!("{plain}, {}", server("HTTPS", "*", SIMPLE));
    let text = service("a", "default", 80)
        + &gateway("g", &both)
        + &rules("v", "a.example", TO_A)
        + &secret("c", "default", &pair());
    let (snapshot, _) = snapshot(&text);
    assert_eq!(listeners(&snapshot), ["0.0.0.0_80", "0.0.0.0_443"]);
    let redirected = support::host(&snapshot, "http.80", "a.example:80");
    assert!(redirected.require_tls);
    let served = support::host(&snapshot, "https.443.p-.g.default", "a.example:443");
    assert!(!served.require_tls);
    assert_eq!(
        to(&served.rules[0]),
        "outbound|80||a.default.svc.cluster.local"
    );
}

#[test]
fn clusters_are_reached_by_the_server_name_that_names_them() {
    let rule = "---\n{apiVersion: networking.istio.io/v1, kind: DestinationRule, \
                metadata: {name: d}, spec: {host: a, trafficPolicy: {tls: {mode: SIMPLE}}, \
                subsets: [{name: v1, labels: {version: v1}}]}}\n";
    let text = service("a", "default", 80)
        + rule
        + &gateway(
            "g",
            &server("TLS", "*.local", ", tls: {mode: AUTO_PASSTHROUGH}"),
        );
    let (snapshot, findings) = snapshot(&text);
    assert_eq!(findings, Vec::<String>::new());
    let chains = &listener(&snapshot, "0.0.0.0_443").chains;
    let names: Vec<_> = chains
        .iter()
        .map(|chain| &*chain.matches.server_names[0])
        .collect();
    let whole = "outbound_.80_._.a.default.svc.cluster.local";
    assert_eq!(
        names,
        [whole, "outbound_.80_.v1_.a.default.svc.cluster.local"]
    );
    assert_eq!(clusters(&chains[0]), [whole]);
    // Only who speaks the mesh's own TLS gets through, and what is inside stays as it is.
    assert!(chains[0].matches.protocols.contains(&"istio".into()));
    assert!(cluster(&snapshot, whole).tls.is_none());
    assert_eq!(
        support::addresses(&snapshot, whole),
        support::addresses(&snapshot, "outbound|80||a.default.svc.cluster.local")
    );
}

#[test]
fn a_broken_secret_keeps_its_last_good_version() {
    let mut files = World::default();
    files.update(&Files::from_text(
        "a.yaml",
        &secret("c", "default", &pair()),
    ));
    let findings = files.update(&Files::from_text(
        "a.yaml",
        &secret("c", "default", "tls.crt: x, tls.key: y"),
    ));
    assert!(findings.iter().any(|finding| finding.is_error()));
    assert!(files.secret("default", "c").unwrap().certificate.is_some());
    assert_eq!(world("").0.secret("default", "c"), None);
}
