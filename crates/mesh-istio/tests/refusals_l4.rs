//! What is refused below HTTP: TLS settings, L4 rules, service entries.

#[path = "support/lib.rs"]
mod support;

use mesh_istio::spec::gateway::{Callers, Security};
use mesh_istio::spec::tls::{Credential, Roots};
use proptest::prelude::*;
use support::{destination_rule, good, lines, object, world};

/// Each text is refused with a message that holds the words beside it.
fn refused(cases: &[(String, &str)]) {
    for (text, words) in cases {
        let (world, findings) = world(text);
        let errors: Vec<String> = findings
            .iter()
            .filter(|f| f.is_error())
            .map(ToString::to_string)
            .collect();
        assert!(
            errors.iter().any(|line| line.contains(words)),
            "{words:?} in {errors:?}\n{text}"
        );
        assert!(world.is_empty(), "refused, yet in force:\n{text}");
    }
}

fn server(protocol: &str, rest: &str) -> String {
    object(
        "Gateway",
        &format!(
            "servers: [{{port: {{number: 443, name: p, protocol: {protocol}}}, hosts: [a.example]{rest}}}]"
        ),
    )
}

fn tls(settings: &str) -> String {
    server("HTTPS", &format!(", tls: {{{settings}}}"))
}

/// A VirtualService with this beside its host `a.example`.
fn rules(text: &str) -> String {
    object(
        "VirtualService",
        &format!("hosts: [a.example, '*.b.example'], {text}"),
    )
}

fn entry(text: &str) -> String {
    object(
        "ServiceEntry",
        &format!("hosts: [a.example], ports: [{{number: 443, name: tls, protocol: TLS}}], {text}"),
    )
}

#[test]
fn servers_have_tls_settings_that_make_sense() {
    let hash = "00:11".repeat(16);
    refused(&[
        (server("HTTPS", ""), "spec.servers[0]: tls is missing"),
        (server("TLS", ""), "tls is missing"),
        (server("GRPC-WEB", ""), "not supported: protocol GRPC-WEB"),
        (server("UDP", ""), "\"UDP\" is not one of HTTP, HTTPS"),
        (
            server("TLS", ", tls: {httpsRedirect: true, mode: PASSTHROUGH}"),
            "tls.httpsRedirect is for HTTP servers",
        ),
        (
            server("HTTP", ", tls: {mode: SIMPLE, credentialName: a}"),
            "write protocol HTTPS",
        ),
        (
            server("TCP", ", tls: {mode: SIMPLE, credentialName: a}"),
            "write protocol TLS",
        ),
        (
            tls("mode: SIMPLE, credentialName: a").replace("name: p, ", ""),
            "port.name is missing",
        ),
        (
            tls("mode: ISTIO_MUTUAL, credentialName: x"),
            "tls: credentialName is not allowed with mode ISTIO_MUTUAL",
        ),
        (
            tls("mode: STRICT"),
            "\"STRICT\" is not one of PASSTHROUGH, SIMPLE",
        ),
        (tls("mode: SIMPLE"), "a certificate is missing"),
        (
            tls("mode: SIMPLE, serverCertificate: /c"),
            "privateKey is missing",
        ),
        (
            tls("mode: SIMPLE, privateKey: /k"),
            "serverCertificate is missing",
        ),
        (
            tls("mode: SIMPLE, serverCertificate: /c, privateKey: /k, credentialName: a"),
            "serverCertificate and credentialName exclude one another",
        ),
        (
            tls("mode: SIMPLE, serverCertificate: '/c~1', privateKey: /k"),
            "\"~\" in the path",
        ),
        (
            tls("mode: SIMPLE, credentialNames: [a, b, c]"),
            "credentialNames has one or two entries, not 3",
        ),
        (
            tls("mode: SIMPLE, tlsCertificates: [{serverCertificate: /c}]"),
            "tlsCertificates[0]: privateKey is missing",
        ),
        (
            tls("mode: MUTUAL, serverCertificate: /c, privateKey: /k"),
            "caCertificates is missing",
        ),
        (
            tls("mode: SIMPLE, credentialName: a, caCertificates: /ca"),
            "caCertificates needs mode MUTUAL",
        ),
        (
            tls("mode: SIMPLE, credentialName: a, subjectAltNames: [x]"),
            "subjectAltNames needs mode MUTUAL",
        ),
        (
            tls("mode: MUTUAL, credentialName: a, caCrl: /crl"),
            "caCrl goes with caCertificates",
        ),
        (
            tls("mode: MUTUAL, credentialName: a, caCertificates: /ca, caCertCredentialName: b"),
            "exclude one another",
        ),
        (
            tls("mode: PASSTHROUGH, credentialName: a"),
            "credentialName needs a mode in which TLS ends here",
        ),
        (
            tls("mode: AUTO_PASSTHROUGH, minProtocolVersion: TLSV1_2"),
            "minProtocolVersion needs a mode in which TLS ends here",
        ),
        (
            tls("mode: SIMPLE, credentialName: 'configmap://a'"),
            "credentials of configmap",
        ),
        (
            tls("mode: SIMPLE, credentialName: other/a"),
            "credentials of other namespaces",
        ),
        (
            tls("mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_0"),
            "minProtocolVersion: not supported: TLSV1_0 is broken",
        ),
        (
            tls("mode: SIMPLE, credentialName: a, maxProtocolVersion: TLSV1_1"),
            "maxProtocolVersion: not supported: TLSV1_1 is broken",
        ),
        (
            tls(
                "mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2",
            ),
            "minProtocolVersion is above maxProtocolVersion",
        ),
        (
            tls("mode: SIMPLE, credentialName: a, cipherSuites: [ECDHE-RSA-AES128-SHA]"),
            "cipherSuites[0]: not supported: cipher suite \"ECDHE-RSA-AES128-SHA\"",
        ),
        (
            tls("mode: MUTUAL, credentialName: a, verifyCertificateSpki: [aGVsbG8=]"),
            "verifyCertificateSpki[0]: expected the 32 bytes of SHA-256, found 5",
        ),
        (
            tls("mode: MUTUAL, credentialName: a, verifyCertificateHash: ['0g']"),
            "not hexadecimal digits",
        ),
        (
            tls(&format!(
                "mode: MUTUAL, credentialName: a, verifyCertificateHash: ['{hash}00']"
            )),
            "found 33",
        ),
        (
            tls("mode: SIMPLE, credentialName: a, insecureSkipVerify: true"),
            "insecureSkipVerify: not supported",
        ),
    ]);
}

#[test]
fn a_star_stands_for_whole_labels_in_server_names() {
    let words = "is not a TLS server name";
    refused(&[
        (
            tls("mode: SIMPLE, credentialName: c").replace("a.example", "'*-a.example'"),
            words,
        ),
        (
            entry("resolution: NONE").replace("a.example", "'*-a.example'"),
            words,
        ),
        (
            rules(
                "tls: [{match: [{sniHosts: ['*-a.b.example']}], route: [{destination: {host: a}}]}]",
            ),
            words,
        ),
    ]);
    good(&server("HTTP", "").replace("a.example", "'*-a.example'"));
}

#[test]
fn a_server_is_read_with_all_that_it_says() {
    let hash = "0a".repeat(32);
    let text = tls(&format!(
        "mode: OPTIONAL_MUTUAL, credentialNames: [rsa, ecdsa], caCertCredentialName: ca, \
         subjectAltNames: [x], verifyCertificateHash: ['{hash}'], \
         verifyCertificateSpki: [AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=], minProtocolVersion: TLS_AUTO, \
         maxProtocolVersion: TLSV1_3, cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256]"
    ));
    let world = good(&text);
    let (_, gateway) = world.gateways().next().unwrap();
    let Security::Terminate(found) = &gateway.servers[0].security else {
        panic!("TLS ends here")
    };
    assert_eq!(found.callers, Callers::MayShow);
    assert_eq!(found.hashes, [[10; 32]]);
    assert_eq!(found.spki, [[0; 32]]);
    assert_eq!(found.subject_alt_names, ["x"]);
    assert_eq!(found.min, None);
    assert_eq!(found.ciphers, ["ECDHE-RSA-AES128-GCM-SHA256"]);
    assert!(matches!(&found.certificates[1], Credential::Named(name) if name.value == "ecdsa"));
    assert!(matches!(&found.roots, Some(Roots::Named(name)) if name.value == "ca"));
    let names: Vec<&str> = found.credentials().map(|name| name.as_str()).collect();
    assert_eq!(names, ["rsa", "ecdsa", "ca"]);
}

#[test]
fn certificates_in_files_may_be_several() {
    let one = "{serverCertificate: /c1, privateKey: /k1}";
    let two = "{serverCertificate: /c2, privateKey: /k2}";
    let world = good(&tls(&format!(
        "mode: SIMPLE, tlsCertificates: [{one}, {two}]"
    )));
    let (_, gateway) = world.gateways().next().unwrap();
    let Security::Terminate(found) = &gateway.servers[0].security else {
        panic!("TLS ends here")
    };
    assert_eq!(found.certificates.len(), 2);
    let second = format!("{:?}", found.certificates[1]);
    assert!(second.contains("/c2") && second.contains("/k2"), "{second}");
}

#[test]
fn tls_without_a_mode_is_passed_on_and_a_redirect_alone_is_no_tls() {
    let security = |text: &str| {
        let world = good(text);
        let (_, gateway) = world.gateways().next().unwrap();
        let server = &gateway.servers[0];
        (server.security.clone(), server.https_redirect)
    };
    assert_eq!(security(&tls("")), (Security::Passthrough, false));
    assert_eq!(
        security(&server("HTTP", ", tls: {httpsRedirect: true}")),
        (Security::Plain, true)
    );
    assert_eq!(security(&server("MONGO", "")), (Security::Plain, false));
}

#[test]
fn suites_of_tls_1_3_and_repetitions_change_nothing() {
    let (world, findings) = world(&tls(
        "mode: SIMPLE, credentialName: a, cipherSuites: [TLS_AES_128_GCM_SHA256, \
         ECDHE-RSA-AES128-GCM-SHA256, ECDHE-RSA-AES128-GCM-SHA256]",
    ));
    assert_eq!(world.len(), 1);
    let said = lines(&findings);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("cannot be chosen") && said[1].contains("given twice"));
}

#[test]
fn rules_below_http_are_checked() {
    let to = "route: [{destination: {host: a}}]";
    refused(&[
        (rules("tls: [{}]"), "spec.tls[0]: match is missing"),
        (rules(&format!("tls: [{{{to}}}]")), "match is missing"),
        (
            rules(&format!("tls: [{{match: [{{}}], {to}}}]")),
            "match[0]: sniHosts is missing",
        ),
        (
            rules("tls: [{match: [{sniHosts: [a.example]}]}]"),
            "spec.tls[0]: route is missing",
        ),
        (
            rules(&format!(
                "tls: [{{match: [{{sniHosts: [c.example]}}], {to}}}]"
            )),
            "sniHosts[0]: \"c.example\" is not among the hosts",
        ),
        (
            rules(&format!(
                "tls: [{{match: [{{sniHosts: ['*.example']}}], {to}}}]"
            )),
            "is not among the hosts of the virtual service: a.example, *.b.example",
        ),
        (
            rules(&format!(
                "tcp: [{{match: [{{sniHosts: [a.example]}}], {to}}}]"
            )),
            "sniHosts: unknown field",
        ),
        (
            rules(&format!(
                "tcp: [{{match: [{{destinationSubnets: [10.0.0.0/33]}}], {to}}}]"
            )),
            "destinationSubnets[0]: \"10.0.0.0/33\" is neither",
        ),
        (
            rules(&format!(
                "tcp: [{{match: [{{sourceSubnet: 10.0.0.0/8}}], {to}}}]"
            )),
            "sourceSubnet: not supported",
        ),
        (
            rules(&format!("tcp: [{{match: [{{port: 0}}], {to}}}]")),
            "0 is not between",
        ),
        (rules("tcp: [{}]"), "spec.tcp[0]: route is missing"),
        (
            rules("tcp: [{route: []}]"),
            "needs at least one destination",
        ),
        (
            rules("tcp: [{route: [{destination: {host: a}}, {destination: {host: b}}]}]"),
            "must not all be 0",
        ),
        (
            rules("tcp: [{route: [{destination: {host: a}, headers: {}}]}]"),
            "headers: unknown field",
        ),
        (
            object("VirtualService", &format!("tcp: [{{{to}}}]")),
            "has http rules only",
        ),
        (
            object("VirtualService", "hosts: [a]"),
            "http, tls and tcp are missing",
        ),
    ]);
    let (world, findings) = world(&rules(&format!("tcp: [{{{to}}}, {{{to}}}]")));
    assert_eq!(world.len(), 1);
    assert!(lines(&findings)[0].contains("spec.tcp[1]: never reached"));
}

#[test]
fn tls_towards_endpoints_is_checked() {
    let tls = |text: &str| destination_rule(&format!("{{tls: {{{text}}}}}"));
    refused(&[
        (
            tls("mode: ISTIO_MUTUAL, caCertificates: /x"),
            "trafficPolicy.tls: caCertificates is not allowed with mode ISTIO_MUTUAL",
        ),
        (
            tls("mode: TLS"),
            "\"TLS\" is not one of DISABLE, SIMPLE, MUTUAL",
        ),
        (tls("mode: MUTUAL"), "clientCertificate is missing"),
        (
            tls("mode: MUTUAL, clientCertificate: /c"),
            "privateKey is missing",
        ),
        (
            tls("mode: MUTUAL, credentialName: a, privateKey: /k"),
            "privateKey and credentialName exclude one another",
        ),
        (
            tls("mode: SIMPLE, credentialName: a, caCrl: /crl"),
            "caCrl and credentialName exclude one another",
        ),
        (
            tls("mode: SIMPLE, insecureSkipVerify: true, credentialName: a"),
            "credentialName and insecureSkipVerify exclude one another",
        ),
        (
            tls("mode: SIMPLE, insecureSkipVerify: true, subjectAltNames: [a]"),
            "subjectAltNames and insecureSkipVerify exclude one another",
        ),
        (
            tls("mode: SIMPLE, sni: '*.a'"),
            "\"*.a\" is not a host name",
        ),
        (
            destination_rule("{tunnel: {targetHost: a}}"),
            "tunnel: targetPort is missing",
        ),
        (
            destination_rule("{tunnel: {targetHost: '*.a', targetPort: 1}}"),
            "is neither a host name nor an IP address",
        ),
        (
            destination_rule("{tunnel: {targetHost: a, targetPort: 1, protocol: UDP}}"),
            "\"UDP\" is not one of CONNECT and POST",
        ),
        (
            destination_rule("{tunnel: {targetHost: a, targetPort: 1}, proxyProtocol: {}}"),
            "exclude one another",
        ),
        (
            destination_rule("{proxyProtocol: {version: V3}}"),
            "\"V3\" is not one of V1, V2",
        ),
        (
            destination_rule("{portLevelSettings: [{port: {number: 1}, tunnel: {}}]}"),
            "portLevelSettings[0].tunnel: unknown field",
        ),
    ]);
}

#[test]
fn service_entries_are_checked_by_their_resolution() {
    refused(&[
        (
            entry("resolution: DNS, addresses: [10.0.0.0/8]"),
            "the block 10.0.0.0/8 needs resolution NONE or STATIC",
        ),
        (
            entry("addresses: [10.0.0.x]"),
            "addresses[0]: \"10.0.0.x\" is neither",
        ),
        (
            entry("resolution: NONE, endpoints: [{address: 1.2.3.4}]"),
            "endpoints and resolution NONE exclude one another",
        ),
        (
            entry("workloadSelector: {labels: {a: b}}"),
            "workloadSelector needs resolution STATIC",
        ),
        (
            entry("resolution: DNS_ROUND_ROBIN, endpoints: [{address: a.b}, {address: a.c}]"),
            "takes one endpoint at most",
        ),
        (
            entry("resolution: DNS_ROUND_ROBIN").replace("a.example", "'*.example'"),
            "endpoints are missing",
        ),
        (
            entry("resolution: DYNAMIC_DNS"),
            "\"a.example\" is none: write DNS",
        ),
        (
            entry("resolution: DYNAMIC_DNS, endpoints: [{address: 1.2.3.4}]"),
            "endpoints and resolution DYNAMIC_DNS",
        ),
        (
            entry("resolution: DYNAMIC_DNS, addresses: [1.2.3.4]"),
            "addresses and resolution DYNAMIC_DNS",
        ),
        (
            entry("resolution: STATIC, endpoints: [{address: 1.2.3.4, ports: {http: 1}}]"),
            "an endpoint has a port \"http\"",
        ),
        (
            entry("resolution: NONE").replace("protocol: TLS", "protocol: UDP"),
            "\"UDP\" is not one of",
        ),
        (
            entry("resolution: MAYBE"),
            "\"MAYBE\" is not one of NONE, STATIC",
        ),
    ]);
    for text in [
        entry("location: MESH_EXTERNAL"),
        entry("addresses: [10.0.0.0/8, '2001:db8::1'], subjectAltNames: [x]"),
        entry("resolution: DYNAMIC_DNS").replace("a.example", "'*.example'"),
        entry("resolution: DNS_ROUND_ROBIN, endpoints: [{address: b.example}]"),
    ] {
        good(&text);
    }
}
proptest! {
    #[test]
    fn digests_are_read_as_they_are_written(
        bytes in proptest::array::uniform32(any::<u8>()),
        colons in any::<bool>(),
    ) {
        let pairs: Vec<String> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        let hash = pairs.join(if colons { ":" } else { "" });
        let world = good(&tls(&format!(
            "mode: MUTUAL, credentialName: a, verifyCertificateHash: ['{hash}']"
        )));
        let (_, gateway) = world.gateways().next().unwrap();
        let Security::Terminate(found) = &gateway.servers[0].security else {
            panic!("TLS ends here")
        };
        prop_assert_eq!(&found.hashes, &[bytes]);
    }

    #[test]
    fn whatever_is_said_of_tls_is_read_or_refused_and_never_both(
        mode in "SIMPLE|MUTUAL|PASSTHROUGH|OPTIONAL_MUTUAL|AUTO_PASSTHROUGH|ISTIO_MUTUAL|X",
        fields in proptest::collection::btree_set(0..8usize, 0..5),
        protocol in "HTTP|HTTPS|TLS|TCP|MONGO|GRPC",
    ) {
        let known = [
            "credentialName: c", "credentialNames: [c]", "serverCertificate: /c", "privateKey: /k",
            "caCertificates: /ca", "caCrl: /crl", "httpsRedirect: true", "subjectAltNames: [a]",
        ];
        let fields: Vec<&str> = fields.into_iter().map(|index| known[index]).collect();
        let settings = format!(", tls: {{mode: {mode}, {}}}", fields.join(", "));
        let (world, findings) = world(&server(&protocol, &settings));
        let refused = findings.iter().any(|finding| finding.is_error());
        prop_assert_eq!(world.is_empty(), refused, "{:?}", findings);
        if let Some((_, gateway)) = world.gateways().next()
            && let Security::Terminate(found) = &gateway.servers[0].security
        {
            prop_assert_eq!(found.mesh, mode == "ISTIO_MUTUAL");
            prop_assert_eq!(found.certificates.is_empty(), found.mesh);
            let asks = found.callers != Callers::Anonymous && !found.mesh;
            prop_assert_eq!(found.roots.is_some(), asks);
        }
    }
}
