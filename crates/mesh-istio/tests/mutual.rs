//! Mutual TLS where the recordings of istiod say nothing: nodes without an identity, ports that are
//! called rather than intercepted, TLS of a Sidecar's own, subsets, aliases, and what is refused.

#[path = "support/lib.rs"]
mod support;

use std::sync::Arc;

use mesh_core::model::{Filter, FilterChain, Listener, Snapshot, StringMatch, TransportProtocol};
use mesh_istio::{Capture, Diagnostic, Inbound, Node, Role, Severity};
use support::{lines, snapshot, world};

const BLACK_HOLE: &str = "BlackHoleCluster";

fn node(capture: Capture, identity: bool) -> Node {
    let mut node = Node::sidecar("a-1", "default");
    node.capture = capture;
    node.identity = identity;
    node.labels = [("app".to_owned(), "a".to_owned())].into();
    node.address = [10, 0, 0, 1].into();
    if capture == Capture::None {
        node.role = Role::Sidecar {
            inbound: vec![Inbound {
                port: 8080,
                application: 9080,
            }],
        };
    }
    node
}

fn compiled(node: &Node, text: &str) -> (Arc<Snapshot>, Vec<Diagnostic>) {
    let (world, findings) = world(text);
    assert!(!findings.iter().any(Diagnostic::is_error), "{findings:?}");
    snapshot(&world, node)
}

fn peers(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: p}}\nspec: {{mtls: {{mode: {mode}}}}}\n---\n"
    )
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {clusterIP: 10.1.0.1, selector: {app: a}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
";

fn listener<'s>(snapshot: &'s Snapshot, name: &str) -> &'s Listener {
    let mut all = snapshot.listeners().iter();
    all.find(|one| one.name == name).unwrap()
}

/// What a chain takes and where it leads: `tls! → http` ends TLS.
fn shown(chain: &FilterChain) -> String {
    let transport = match chain.matches.transport {
        Some(TransportProtocol::Tls) => "tls",
        Some(TransportProtocol::Plain) => "plain",
        _ => "any",
    };
    let ends = if chain.tls.is_some() { "!" } else { "" };
    let to = match &chain.filter {
        Filter::Http(_) => "http",
        Filter::Tcp(proxy) if proxy.clusters().any(|(name, _)| *name == *BLACK_HOLE) => "nobody",
        _ => "bytes",
    };
    format!("{transport}{ends} → {to}")
}

fn chains(listener: &Listener, port: Option<u16>) -> Vec<String> {
    let all = listener.all_chains();
    let of_port = all.filter(|chain| chain.matches.destination_port == port);
    of_port.map(|chain| shown(chain)).collect()
}

#[test]
fn without_an_identity_a_port_takes_plain_text_where_it_may_and_nothing_where_it_may_not() {
    for (mode, port, rest, warns) in [
        ("PERMISSIVE", "plain → http", 3, false),
        ("DISABLE", "plain → http", 2, false),
        ("STRICT", "any → nobody", 1, true),
    ] {
        let text = peers(mode) + SERVICE;
        let (snapshot, findings) = compiled(&node(Capture::Redirect, false), &text);
        let inbound = listener(&snapshot, "virtualInbound");
        assert_eq!(chains(inbound, Some(8080)), [port], "{mode}");
        let others = chains(inbound, None);
        assert_eq!(others.len(), rest, "{mode}: {others:?}");
        assert!(
            !inbound.all_chains().any(|chain| chain.tls.is_some()),
            "{mode}"
        );
        let warned = lines(&findings)
            .iter()
            .any(|line| line.contains("STRICT needs a certificate"));
        assert_eq!(warned, warns, "{mode}: {findings:?}");
    }
}

#[test]
fn a_port_that_is_called_takes_what_one_that_is_intercepted_takes() {
    for (mode, expected) in [
        ("PERMISSIVE", &["tls! → http", "plain → http"][..]),
        ("STRICT", &["tls! → http"]),
    ] {
        let text = peers(mode) + SERVICE;
        let (snapshot, _) = compiled(&node(Capture::None, true), &text);
        let inbound = listener(&snapshot, "10.0.0.1_8080");
        assert_eq!(chains(inbound, None), expected, "{mode}");
        assert!(inbound.inspect.tls.is_some(), "{mode}");
    }
    let (snapshot, _) = compiled(&node(Capture::None, true), &(peers("DISABLE") + SERVICE));
    assert!(listener(&snapshot, "10.0.0.1_8080").inspect.tls.is_none());
    let (snapshot, _) = compiled(&node(Capture::None, false), &(peers("STRICT") + SERVICE));
    let inbound = listener(&snapshot, "10.0.0.1_8080");
    assert_eq!(chains(inbound, None), ["any → nobody"]);
}

#[test]
fn tls_of_a_sidecar_ends_where_nothing_else_can_come() {
    let sidecar = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: s}
spec:
  ingress:
  - port: {number: 8080, protocol: HTTPS, name: https}
    tls: {mode: SIMPLE, serverCertificate: /c.pem, privateKey: /k.pem}
---
";
    let text = |mode: &str| peers(mode) + SERVICE + sidecar;
    let (snapshot, findings) = compiled(&node(Capture::Redirect, true), &text("DISABLE"));
    let inbound = listener(&snapshot, "virtualInbound");
    assert_eq!(chains(inbound, Some(8080)), ["tls! → http"]);
    assert!(findings.is_empty(), "{findings:?}");
    // Elsewhere TLS would have to be told from mutual TLS.
    let (snapshot, findings) = compiled(&node(Capture::Redirect, true), &text("STRICT"));
    let inbound = listener(&snapshot, "virtualInbound");
    let tls = inbound.all_chains().filter_map(|chain| chain.tls.as_ref());
    let mut names = tls
        .flat_map(|tls| tls.secrets())
        .map(|named| named.name.as_str());
    assert!(names.all(|name| matches!(name, "default" | "ROOTCA")));
    assert!(
        lines(&findings).iter().any(|line| line.contains("DISABLE")),
        "{findings:?}"
    );
}

fn destination(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: d}}\n\
         spec: {{host: a, {spec}}}\n---\n"
    )
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a-1, labels: {app: a, version: v1, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: one}
status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
---
";

#[test]
fn a_rule_for_mutual_tls_without_an_identity_is_an_error_and_still_no_plain_text() {
    let rule = destination("trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}");
    let text = rule + SERVICE + POD;
    let (snapshot, findings) = compiled(&node(Capture::Redirect, false), &text);
    let error = findings.iter().find(|one| one.severity == Severity::Error);
    let error = error.expect("it is said").to_string();
    assert!(error.contains("spec.trafficPolicy.tls.mode"), "{error}");
    let cluster = snapshot
        .cluster("outbound|80||a.default.svc.cluster.local")
        .unwrap();
    assert!(cluster.config().tls.is_some());

    let (_, findings) = compiled(&node(Capture::Redirect, true), &text);
    assert!(!findings.iter().any(Diagnostic::is_error), "{findings:?}");
    // By itself it only begins where there is an identity.
    let (snapshot, _) = compiled(&node(Capture::Redirect, false), &(SERVICE.to_owned() + POD));
    let cluster = snapshot
        .cluster("outbound|80||a.default.svc.cluster.local")
        .unwrap();
    assert!(cluster.config().tls.is_none() && cluster.config().tls_matches.is_empty());
}

#[test]
fn subsets_have_server_names_of_their_own_and_aliases_accounts_too() {
    let mesh = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    trustDomain: one.example
    trustDomainAliases: [two.example]
---
";
    let rule = destination("subsets: [{name: v1, labels: {version: v1}}]");
    let text = mesh.to_owned() + &rule + SERVICE + POD;
    let (snapshot, findings) = compiled(&node(Capture::Redirect, true), &text);
    assert!(findings.is_empty(), "{findings:?}");
    let cluster = snapshot
        .cluster("outbound|80|v1|a.default.svc.cluster.local")
        .unwrap();
    let tls = cluster.config().tls_matches[0].tls.as_ref().unwrap();
    assert_eq!(tls.sni, "outbound_.80_.v1_.a.default.svc.cluster.local");
    let accounts = &tls.validation.as_ref().unwrap().subject_alt_names;
    let exact = |domain: &str| StringMatch::Exact(format!("spiffe://{domain}/ns/default/sa/one"));
    assert_eq!(*accounts, [exact("one.example"), exact("two.example")]);
    let inbound = listener(&snapshot, "virtualInbound");
    let server = inbound
        .all_chains()
        .find_map(|chain| chain.tls.clone())
        .unwrap();
    let domains = &server.validation.as_ref().unwrap().subject_alt_names;
    let prefix = |domain: &str| StringMatch::Prefix(format!("spiffe://{domain}/"));
    assert_eq!(*domains, [prefix("one.example"), prefix("two.example")]);
}

#[test]
fn what_a_peer_authentication_cannot_say_is_refused_by_its_field() {
    for (spec, expected) in [
        ("{mtls: {mode: MAYBE}}", "spec.mtls.mode"),
        ("{portLevelMtls: {80: {mode: STRICT}}}", "needs a selector"),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {}}",
            "portLevelMtls is empty",
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {http: {mode: STRICT}}}",
            "\"http\" is not a port",
        ),
        (
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {}}}",
            "\"0\" is not a port",
        ),
        ("{mtls: {mode: STRICT, more: 1}}", "unknown field"),
    ] {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p}}\nspec: {spec}\n"
        );
        let (_, findings) = world(&text);
        let said = lines(&findings).join("\n");
        assert!(said.contains(expected), "{spec}: {said}");
    }
}
