//! How TLS, the PROXY protocol and DNS reach clusters, and bytes where nothing is intercepted.

#[path = "support/lib.rs"]
mod support;

use mesh_core::model::{
    ClientTls, DiscoveryKind, ProxyProtocol, SecretSource, Snapshot, StringMatch, TlsVersion,
};
use mesh_istio::{Capture, Node};
use support::{
    client, cluster, clusters, good, lines, listener, listeners, object, service, snapshot, world,
};

const A: &str = "outbound|80||a.default.svc.cluster.local";

fn rule(policy: &str) -> String {
    service("a", "default", 80) + &object("DestinationRule", &format!("host: a, {policy}"))
}

fn tls<'s>(snapshot: &'s Snapshot, name: &str) -> &'s ClientTls {
    cluster(snapshot, name).tls.as_ref().expect("TLS")
}

#[test]
fn simple_trusts_the_machine_and_asks_for_the_requests_host() {
    let (snapshot, findings) = client(&rule("trafficPolicy: {tls: {mode: SIMPLE}}"));
    assert!(findings.is_empty(), "{findings:?}");
    let tls = tls(&snapshot, A);
    let validation = tls.validation.as_ref().unwrap();
    let roots = validation.roots.as_ref().unwrap();
    assert_eq!(
        (&*roots.name, &roots.source),
        ("file-root:system", &SecretSource::Local)
    );
    assert!(tls.auto_sni && tls.auto_san && tls.sni.is_empty() && tls.certificates.is_empty());
    assert_eq!(
        (tls.params.min, tls.params.max),
        (Some(TlsVersion::V1_2), Some(TlsVersion::V1_3))
    );
    assert!(tls.alpn.is_empty());
}

#[test]
fn mutual_shows_a_certificate_and_checks_what_was_said() {
    let (snapshot, _) = client(&rule(
        "trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}, tls: {mode: MUTUAL, \
         clientCertificate: /c, privateKey: /k, caCertificates: /ca, caCrl: /crl, sni: x.example, \
         subjectAltNames: [y.example]}}",
    ));
    let tls = tls(&snapshot, A);
    let validation = tls.validation.as_ref().unwrap();
    assert_eq!(tls.certificates[0].name, "file-cert:/c~/k");
    assert_eq!(validation.roots.as_ref().unwrap().name, "file-root:/ca");
    assert_eq!(validation.revoked.as_ref().unwrap().name, "file-crl:/crl");
    assert_eq!(
        validation.subject_alt_names,
        [StringMatch::Exact("y.example".to_owned())]
    );
    assert_eq!(tls.sni, "x.example");
    assert!(!tls.auto_sni && !tls.auto_san);
    assert_eq!(tls.alpn, ["h2"]);
}

#[test]
fn whoever_skips_the_check_checks_nothing() {
    let (snapshot, _) = client(&rule(
        "trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}",
    ));
    let tls = tls(&snapshot, A);
    let validation = tls.validation.as_ref().unwrap();
    assert!(validation.roots.is_none() && validation.subject_alt_names.is_empty());
    assert!(tls.auto_sni && !tls.auto_san);
}

#[test]
fn a_block_of_tls_is_inherited_and_switched_off_as_a_whole() {
    let (snapshot, _) = client(&rule(
        "trafficPolicy: {tls: {mode: SIMPLE}}, subsets: [{name: v1}, \
         {name: v2, trafficPolicy: {tls: {mode: DISABLE}}}, \
         {name: v3, trafficPolicy: {portLevelSettings: [{port: {number: 80}}]}}]",
    ));
    let secured = |subset: &str| {
        let name = format!("outbound|80|{subset}|a.default.svc.cluster.local");
        cluster(&snapshot, &name).tls.is_some()
    };
    assert!(secured("") && secured("v1") && !secured("v2") && !secured("v3"));
}

#[test]
fn what_does_not_go_with_a_mode_is_taken_as_istio_takes_it_and_told() {
    let files = "clientCertificate: /c, privateKey: /k, caCertificates: /r, caCrl: /l";
    let rest = "subjectAltNames: [a], sni: a.example, insecureSkipVerify: true";
    for mode in ["mode: DISABLE, ", ""] {
        let text = rule(&format!(
            "trafficPolicy: {{tls: {{{mode}{files}, credentialName: s, {rest}}}}}"
        ));
        let (world, findings) = world(&text);
        assert_eq!(world.len(), 3, "{findings:?}");
        let told = lines(&findings);
        assert_eq!(told.len(), 8, "{told:?}");
        let idle = |line: &String| line.contains("has no effect with mode DISABLE");
        assert!(told.iter().all(idle), "{told:?}");
        let (snapshot, _) = snapshot(&world, &Node::sidecar("client", "default"));
        assert!(cluster(&snapshot, A).tls.is_none());
    }

    for (fields, tells) in [
        ("clientCertificate: /c, privateKey: /k", "with mode SIMPLE"),
        ("caCrl: /l", "with no caCertificates"),
        (
            "insecureSkipVerify: true, caCrl: /l",
            "with no caCertificates",
        ),
    ] {
        let text = rule(&format!(
            "trafficPolicy: {{tls: {{mode: SIMPLE, {fields}}}}}"
        ));
        let (world, findings) = world(&text);
        let told = lines(&findings);
        assert!(!told.is_empty(), "{fields}");
        assert!(told.iter().all(|line| line.contains(tells)), "{told:?}");
        let (snapshot, _) = snapshot(&world, &Node::sidecar("client", "default"));
        let tls = tls(&snapshot, A);
        assert!(tls.certificates.is_empty());
        let validation = tls.validation.as_ref().unwrap();
        assert!(validation.revoked.is_none());
    }

    // Whoever shows a certificate from a Secret need not check the other side by it.
    let text = rule(
        "workloadSelector: {matchLabels: {}}, \
         trafficPolicy: {tls: {mode: MUTUAL, credentialName: s, insecureSkipVerify: true}}",
    );
    let world = good(&text);
    let (snapshot, _) = snapshot(&world, &Node::sidecar("client", "default"));
    let tls = tls(&snapshot, A);
    assert_eq!(tls.certificates.len(), 1);
    assert!(tls.validation.as_ref().unwrap().roots.is_none());
}

#[test]
fn names_of_a_service_entry_hold_unless_a_rule_has_its_own() {
    let entry = object(
        "ServiceEntry",
        "hosts: [api.example], resolution: DNS, subjectAltNames: [real.example], \
         ports: [{number: 443, name: p, protocol: HTTPS}]",
    );
    for (own, expected) in [
        ("", "real.example"),
        (", subjectAltNames: [own.example]", "own.example"),
    ] {
        let rule = object(
            "DestinationRule",
            &format!("host: api.example, trafficPolicy: {{tls: {{mode: SIMPLE{own}}}}}"),
        );
        let (snapshot, _) = client(&format!("{entry}---\n{rule}"));
        let tls = tls(&snapshot, "outbound|443||api.example");
        let names = &tls.validation.as_ref().unwrap().subject_alt_names;
        assert_eq!(*names, [StringMatch::Exact(expected.to_owned())]);
        assert!(!tls.auto_san);
    }
}

#[test]
fn secrets_are_for_gateways_and_for_selected_sidecars() {
    let plain = "trafficPolicy: {tls: {mode: MUTUAL, credentialName: c}}";
    let (unselected, findings) = client(&rule(plain));
    assert!(tls(&unselected, A).certificates.is_empty());
    assert_eq!(findings.len(), 1);
    assert!(
        findings[0].to_string().contains("is for gateways"),
        "{}",
        findings[0]
    );

    let selected = rule(&format!("workloadSelector: {{matchLabels: {{}}}}, {plain}"));
    let world = good(&selected);
    let (sidecar, findings) = snapshot(&world, &Node::sidecar("client", "default"));
    assert_eq!(tls(&sidecar, A).certificates[0].name, "kubernetes://c");
    assert!(lines(&findings)[0].contains("the Secret \"c\" in namespace \"default\" is missing"));

    let (gateway, _) = snapshot(&good(&rule(plain)), &Node::gateway("g", "default"));
    let roots = &tls(&gateway, A).validation.as_ref().unwrap().roots;
    assert_eq!(roots.as_ref().unwrap().name, "kubernetes://c-cacert");
}

#[test]
fn the_proxy_protocol_holds_but_for_ports_with_settings_of_their_own() {
    for (version, expected) in [
        ("{}", ProxyProtocol::V1),
        ("{version: V2}", ProxyProtocol::V2),
    ] {
        let (snapshot, _) = client(&rule(&format!(
            "trafficPolicy: {{proxyProtocol: {version}}}"
        )));
        assert_eq!(cluster(&snapshot, A).proxy_protocol, Some(expected));
    }
    let (snapshot, _) = client(&rule(
        "trafficPolicy: {proxyProtocol: {}, portLevelSettings: [{port: {number: 80}}]}",
    ));
    assert_eq!(cluster(&snapshot, A).proxy_protocol, None);
}

#[test]
fn a_resolution_says_how_endpoints_become_known() {
    let entry = |host: &str, resolution: &str| {
        object(
            "ServiceEntry",
            &format!(
                "hosts: ['{host}'], resolution: {resolution}, \
                 ports: [{{number: 80, name: p, protocol: HTTP}}]"
            ),
        )
    };
    for (host, resolution, plain, intercepted) in [
        (
            "a.example",
            "NONE",
            DiscoveryKind::Authority,
            DiscoveryKind::OriginalDestination,
        ),
        (
            "a.example",
            "STATIC",
            DiscoveryKind::Endpoints,
            DiscoveryKind::Endpoints,
        ),
        (
            "a.example",
            "DNS",
            DiscoveryKind::StrictDns,
            DiscoveryKind::StrictDns,
        ),
        (
            "a.example",
            "DNS_ROUND_ROBIN",
            DiscoveryKind::LogicalDns,
            DiscoveryKind::LogicalDns,
        ),
        (
            "*.example",
            "DYNAMIC_DNS",
            DiscoveryKind::Authority,
            DiscoveryKind::Authority,
        ),
    ] {
        let world = good(&entry(host, resolution));
        for (capture, expected) in [(Capture::None, plain), (Capture::Redirect, intercepted)] {
            let mut node = Node::sidecar("client", "default");
            node.capture = capture;
            let (snapshot, _) = snapshot(&world, &node);
            let found = cluster(&snapshot, &format!("outbound|80||{host}")).discovery;
            assert_eq!(found, expected, "{resolution} {capture:?}");
        }
    }
}

#[test]
fn names_are_looked_up_as_often_as_the_mesh_says() {
    let text = object(
        "ServiceEntry",
        "hosts: [a.example], resolution: DNS, ports: [{number: 80, name: p, protocol: HTTP}]",
    ) + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\n\
         data:\n  mesh: 'dnsRefreshRate: 5s'\n";
    let (snapshot, _) = client(&text);
    let dns = cluster(&snapshot, "outbound|80||a.example").dns;
    assert_eq!((dns.refresh.as_secs(), dns.jitter.as_millis()), (5, 100));
}

#[test]
fn bytes_have_a_listener_where_a_sidecar_asks_for_one() {
    let tcp = |name: &str| service(name, "default", 7000).replace("name: http", "name: tcp");
    let egress = |more: &str| {
        object(
            "Sidecar",
            &format!(
                "egress: [{{port: {{number: 7000, protocol: TCP}}, bind: 127.0.0.7{more}, \
                 hosts: ['./a.default.svc.cluster.local']}}, {{hosts: ['./*']}}]"
            ),
        ) + "---\n"
    };
    let (snapshot, findings) = client(&(egress("") + &tcp("a") + &tcp("b")));
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!(listeners(&snapshot), ["127.0.0.7_7000", "127.0.0.1_15001"]);
    let own = listener(&snapshot, "127.0.0.7_7000");
    assert!(own.bind);
    assert_eq!(
        clusters(&own.chains[0]),
        ["outbound|7000||a.default.svc.cluster.local"]
    );
    let (_, findings) = client(&(egress(", captureMode: IPTABLES") + &tcp("a")));
    assert!(
        lines(&findings)[0].contains("nothing is intercepted"),
        "{findings:?}"
    );
}

#[test]
fn an_application_may_be_called_for_bytes() {
    let text = object(
        "Sidecar",
        "ingress: [{port: {number: 7000, protocol: TCP}, defaultEndpoint: '127.0.0.1:7001'}]",
    );
    let (snapshot, _) = client(&text);
    let way_in = listener(&snapshot, "127.0.0.1_7000");
    assert_eq!(clusters(&way_in.chains[0]), ["inbound|7000||"]);
    assert!(snapshot.table("inbound|7000||").is_none());
}

#[test]
fn rules_below_http_are_said_to_have_no_effect_where_nothing_listens() {
    let rules = object(
        "VirtualService",
        "hosts: [a], tcp: [{route: [{destination: {host: a}}]}]",
    );
    let (_, findings) = client(&(service("a", "default", 80) + &rules));
    assert_eq!(findings.len(), 1);
    let line = findings[0].to_string();
    assert!(line.contains("spec.tcp: tcp has no effect here"), "{line}");
    let (_, findings) = snapshot(
        &good(&(service("a", "default", 80) + &rules)),
        &Node::gateway("g", "default"),
    );
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn nothing_that_comes_to_a_gateway_was_going_somewhere_else() {
    let text = service("h", "default", 80).replace("selector:", "clusterIP: None, selector:")
        + &object(
            "ServiceEntry",
            "hosts: [n.example], resolution: NONE, ports: [{number: 80, name: p, protocol: HTTP}]",
        );
    let mut node = Node::gateway("g", "default");
    node.capture = Capture::Redirect;
    let (gateway, _) = snapshot(&good(&text), &node);
    for name in [
        "outbound|80||h.default.svc.cluster.local",
        "outbound|80||n.example",
    ] {
        assert_eq!(
            cluster(&gateway, name).discovery,
            DiscoveryKind::Endpoints,
            "{name}"
        );
    }
}
