//! Kubernetes Secrets: what is read of them, and that nothing of it is ever shown.

#[path = "support/lib.rs"]
mod support;

use mesh_core::model::Secret as Live;
use mesh_istio::Files;
use proptest::prelude::*;
use support::{good, lines, world};

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\\nhush\\n-----END CERTIFICATE-----\\n";
const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\\nhush\\n-----END EC PRIVATE KEY-----\\n";

fn secret(data: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\n{data}\n")
}

#[test]
fn secrets_are_read_in_both_spellings_and_never_shown() {
    for (cert, key, ca, crl) in [
        ("tls.crt", "tls.key", "ca.crt", "ca.crl"),
        ("cert", "key", "cacert", "crl"),
    ] {
        let text = secret(&format!(
            "stringData: {{{cert}: \"{CERTIFICATE}\", {key}: \"{KEY}\", {ca}: \"{CERTIFICATE}\", \
             {crl}: \"-----BEGIN X509 CRL-----\\nhush\\n\"}}\n\
             data: {{other: '!'}}"
        ))
        .replace("{name: a}", "{name: a, annotations: {last: hush}}");
        let world = good(&text);
        let (meta, found) = world.secrets().next().unwrap();
        let Some(Live::Certificate { chain, key }) = found.certificate.as_deref() else {
            panic!("a certificate")
        };
        assert!(
            chain.starts_with(b"-----BEGIN CERT") && key.expose().starts_with(b"-----BEGIN EC")
        );
        let Some(Live::Trust { roots, revoked }) = found.trust.as_deref() else {
            panic!("roots")
        };
        assert!(roots.starts_with(b"-----BEGIN CERT") && revoked.starts_with(b"-----BEGIN X509"));
        let files = Files::from_text("s.yaml", &text);
        for shown in [
            format!("{world:?}"),
            format!("{meta:?}"),
            format!("{files:?}"),
        ] {
            assert!(!shown.contains("hush"), "{shown}");
        }
    }
}

#[test]
fn data_is_base64_and_what_is_beside_certificates_is_let_be() {
    let world = good(&secret(
        "type: Opaque\ndata: {cacert: 'LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t\n  Cg==', user: '?'}",
    ));
    let (_, found) = world.secrets().next().unwrap();
    assert!(found.certificate.is_none());
    let trust = Live::roots("-----BEGIN CERTIFICATE-----\n");
    assert_eq!(found.trust.as_deref(), Some(&trust));
    assert_eq!(good(&secret("data: {password: aGVsbG8=}")).len(), 1);
}

#[test]
fn a_bad_secret_is_refused_without_being_quoted() {
    let cases = [
        (
            secret("data: {tls.crt: 'hush!', tls.key: aGVsbG8=}"),
            "data[\"tls.crt\"]: not base64",
        ),
        (
            secret("stringData: {tls.crt: hush, tls.key: hush}"),
            "the certificate is not PEM",
        ),
        (
            secret("stringData: {ca.crt: hush}"),
            "the roots are not PEM",
        ),
        (
            secret("stringData: {tls.key: [hush]}"),
            "expected text, found a list",
        ),
    ];
    for (text, words) in &cases {
        let (world, findings) = world(text);
        assert!(world.is_empty(), "refused, yet in force:\n{text}");
        let said = lines(&findings);
        assert!(
            said.iter().any(|line| line.contains(words)),
            "{words:?} in {said:?}"
        );
        for finding in &findings {
            assert!(!finding.render().contains("hush"), "{}", finding.render());
        }
    }
    // Nor is anything that stands in the same file, broken or not.
    let text = format!("{}---\n{{hush: ]\n", secret("stringData: {tls.key: hush}"));
    let (_, findings) = world(&text);
    assert!(!findings.is_empty());
    assert!(
        findings
            .iter()
            .all(|finding| !finding.render().contains("hush"))
    );
}

proptest! {
    #[test]
    fn no_value_of_a_secret_is_ever_shown(
        value in "[g-z]{12,40}",
        key in "tls\\.crt|tls\\.key|ca\\.crt|ca\\.crl|cert|key|cacert|crl|other",
        field in "data|stringData|dta",
        shape in 0..4usize,
    ) {
        let value = match shape {
            0 => value,
            1 => format!("[{value}]"),
            2 => format!("{{x: {value}}}"),
            _ => format!("'-----BEGIN CERTIFICATE-----{value}'"),
        };
        let (world, findings) = world(&secret(&format!("{field}: {{{key}: {value}, tls.key: {value}}}")));
        let hidden = value.trim_matches(|c: char| !c.is_ascii_lowercase() );
        let hidden = hidden.rsplit(|c: char| !c.is_ascii_lowercase()).next().unwrap();
        let shown = format!("{world:?}");
        prop_assert!(!shown.contains(hidden), "{}", shown);
        for finding in findings {
            prop_assert!(!finding.render().contains(hidden), "{}", finding.render());
        }
    }
}
