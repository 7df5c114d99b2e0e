//! Clusters in every mode, and what they meet.

use super::backend::Backend;
use super::downstream::{BAD, certificates};
use super::pki::Pki;
use mesh_core::model::TlsVersion;
use serde_json::{Value, json};

/// A cluster, its backend, and the host that is asked for.
pub struct Upstream {
    pub name: String,
    pub backend: Backend,
    /// How it is called. None: without TLS.
    pub tls: Option<Value>,
    /// `HttpProtocolOptions`.
    pub http: Option<Value>,
    pub host: &'static str,
}

/// The clusters behind the server that passes connections through.
pub fn behind() -> [(&'static str, Backend); 3] {
    [
        ("behind-a", Backend::of("a")),
        ("behind-b", Backend::of("b")),
        ("behind-wild", Backend::of("wild")),
    ]
}

/// The clusters that are called by path.
pub fn upstreams(pki: &Pki) -> Vec<Upstream> {
    let ca = || json!({"filename": pki.at("ca.pem")});
    let crl = || json!({"filename": pki.at("crl.pem")});
    let checked = |validation: Value| json!({"sni": "a.test", "common_tls_context": {"validation_context": validation}});
    let simple = || checked(json!({"trusted_ca": ca()}));
    let named = |kind: &str, matcher: Value| {
        checked(json!({
            "trusted_ca": ca(),
            "match_typed_subject_alt_names": [{"san_type": kind, "matcher": matcher}],
        }))
    };
    let shows = |name: &str| {
        let mut common = certificates(pki, &[name]);
        common["validation_context"] = json!({"trusted_ca": ca()});
        json!({"sni": "a.test", "common_tls_context": common})
    };
    let params = |params: Value| {
        let mut tls = simple();
        tls["common_tls_context"]["tls_params"] = params;
        tls
    };
    let only = |certificate, version| Backend {
        version: Some(version),
        ..Backend::of(certificate)
    };
    let mutual = |version| Backend {
        mutual: true,
        ..only("a", version)
    };
    let speaks = |alpn| Backend {
        alpn,
        ..Backend::of("a")
    };
    let program = |certificate, arguments| Backend {
        openssl: Some(arguments),
        ..Backend::of(certificate)
    };
    let (v12, v13) = (TlsVersion::V1_2, TlsVersion::V1_3);
    let mut all = Vec::new();
    let mut add = |name: &str, backend: Backend, tls: Option<Value>| {
        all.push(Upstream {
            name: name.to_owned(),
            backend,
            tls,
            http: None,
            host: "a.test",
        });
    };
    add("simple", Backend::of("a"), Some(simple()));
    add("simple-12", only("a", v12), Some(simple()));
    add(
        "simple-13",
        only("a", v13),
        Some(params(json!({"tls_maximum_protocol_version": "TLSv1_3"}))),
    );
    add(
        "max-12",
        Backend::of("a"),
        Some(params(json!({"tls_maximum_protocol_version": "TLSv1_2"}))),
    );
    add(
        "min-13",
        only("a", v12),
        Some(params(json!({
            "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
        }))),
    );
    add(
        "cipher",
        only("rsa", v12),
        Some(params(json!({
            "cipher_suites": ["ECDHE-RSA-AES256-GCM-SHA384"], "tls_maximum_protocol_version": "TLSv1_2",
        }))),
    );
    add(
        "no-cipher",
        only("rsa", v12),
        Some(params(json!({
            "cipher_suites": ["ECDHE-ECDSA-AES256-GCM-SHA384"], "tls_maximum_protocol_version": "TLSv1_2",
        }))),
    );
    add(
        "anything",
        Backend::of("alone"),
        Some(json!({"sni": "a.test"})),
    );
    add("anything-expired", Backend::of("expired"), Some(json!({})));
    add(
        "no-sni",
        Backend::of("a"),
        Some(json!({
            "common_tls_context": {"validation_context": {"trusted_ca": ca()}},
        })),
    );
    add(
        "san",
        Backend::of("a"),
        Some(named("DNS", json!({"exact": "a.test"}))),
    );
    add(
        "san-uri",
        Backend::of("spiffe"),
        Some(named("URI", json!({"exact": "spiffe://td/ns/x/sa/y"}))),
    );
    add(
        "san-prefix",
        Backend::of("spiffe"),
        Some(named("URI", json!({"prefix": "spiffe://td/ns/x/"}))),
    );
    add(
        "san-wrong",
        Backend::of("a"),
        Some(named("DNS", json!({"exact": "b.test"}))),
    );
    add(
        "san-uri-wrong",
        Backend::of("spiffe"),
        Some(named("URI", json!({"exact": "spiffe://td/ns/x/sa/z"}))),
    );
    add(
        "san-none",
        Backend::of("unknown"),
        Some(named("DNS", json!({"exact": "a.test"}))),
    );
    for (name, field, right) in [
        ("spki", "verify_certificate_spki", pki.spki("a")),
        ("spki-wrong", "verify_certificate_spki", pki.spki("b")),
        ("hash", "verify_certificate_hash", pki.hash("a")),
        ("hash-wrong", "verify_certificate_hash", pki.hash("b")),
    ] {
        add(
            name,
            Backend::of("a"),
            Some(checked(json!({"trusted_ca": ca(), field: [right]}))),
        );
        add(
            &format!("{name}-only"),
            Backend::of("a"),
            Some(checked(json!({field: [right]}))),
        );
    }
    add(
        "crl",
        Backend::of("a"),
        Some(checked(json!({"trusted_ca": ca(), "crl": crl()}))),
    );
    for certificate in BAD {
        let backend = match certificate {
            "weak" => program("weak", &["-cipher", "ALL@SECLEVEL=0"]),
            other => Backend::of(other),
        };
        let tls = checked(json!({"trusted_ca": ca(), "crl": crl()}));
        add(certificate, backend.clone(), Some(tls));
        add(
            &format!("{certificate}-accepted"),
            backend,
            Some(checked(json!({
                "trusted_ca": ca(), "trust_chain_verification": "ACCEPT_UNTRUSTED",
            }))),
        );
    }
    for (version, backend) in [("12", mutual(v12)), ("13", mutual(v13))] {
        let reaches = |mut tls: Value| {
            tls["common_tls_context"]["tls_params"] =
                json!({"tls_maximum_protocol_version": "TLSv1_3"});
            Some(tls)
        };
        add(
            &format!("mutual-{version}"),
            backend.clone(),
            reaches(shows("client")),
        );
        add(
            &format!("mutual-nothing-{version}"),
            backend.clone(),
            reaches(simple()),
        );
        add(
            &format!("mutual-expired-{version}"),
            backend.clone(),
            reaches(shows("expired")),
        );
        add(
            &format!("mutual-unknown-{version}"),
            backend,
            reaches(shows("unknown")),
        );
    }
    let old: &[&str] = &["-tls1_1", "-cipher", "ALL@SECLEVEL=0"];
    add("old", program("rsa", old), Some(simple()));
    let openssl: &[&str] = &[];
    add("openssl", program("rsa", openssl), Some(simple()));
    let cbc: &[&str] = &["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA"];
    add("cbc", program("rsa", cbc), Some(simple()));
    add("plain-behind-tls", Backend::default(), Some(simple()));
    add("tls-behind-plain", Backend::of("a"), None);

    let explicit = || json!({"explicit_http_config": {"http_protocol_options": {}}});
    let by_name = |host, san: bool| {
        let mut options = explicit();
        options["upstream_http_protocol_options"] =
            json!({"auto_sni": true, "auto_san_validation": san});
        let tls = json!({"common_tls_context": {"validation_context": {"trusted_ca": ca()}}});
        (host, Some(tls), Some(options))
    };
    let auto = || Some(json!({"auto_config": {}}));
    let h2 = || Some(json!({"explicit_http_config": {"http2_protocol_options": {}}}));
    for (name, backend, (host, tls, http)) in [
        ("auto-sni", Backend::of("a"), by_name("a.test", false)),
        (
            "auto-sni-port",
            Backend::of("a"),
            by_name("a.test:8443", false),
        ),
        (
            "auto-sni-address",
            Backend::of("a"),
            by_name("127.0.0.1", false),
        ),
        ("auto-san", Backend::of("a"), by_name("a.test", true)),
        (
            "auto-san-wild",
            Backend::of("wild"),
            by_name("x.wild.test", true),
        ),
        ("auto-san-wrong", Backend::of("a"), by_name("c.test", true)),
        (
            "auto-h2",
            speaks(&["h2", "http/1.1"]),
            ("a.test", Some(simple()), auto()),
        ),
        (
            "auto-h1",
            speaks(&["http/1.1"]),
            ("a.test", Some(simple()), auto()),
        ),
        ("auto-none", speaks(&[]), ("a.test", Some(simple()), auto())),
        (
            "h2",
            speaks(&["h2", "http/1.1"]),
            ("a.test", Some(simple()), h2()),
        ),
        ("h2-silent", speaks(&[]), ("a.test", Some(simple()), h2())),
    ] {
        all.push(Upstream {
            name: name.to_owned(),
            backend,
            tls,
            http,
            host,
        });
    }
    all
}
