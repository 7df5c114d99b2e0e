//! Servers in every mode, and who calls them.

use super::pki::Pki;
use super::tools::Tool;
use serde_json::{Value, json};

/// A listener.
pub struct Server {
    pub name: &'static str,
    pub chains: Vec<Chain>,
}

/// One of its chains.
pub struct Chain {
    pub names: &'static [&'static str],
    pub tls: Option<Value>,
    /// Where bytes go. None: requests are answered by the proxy.
    pub cluster: Option<&'static str>,
}

/// Somebody calls a server.
pub struct Call {
    pub server: &'static str,
    pub label: String,
    pub tool: Tool,
}

/// All that is bad about certificates, by the name of the file; `a` and `spiffe` are good.
pub const BAD: [&str; 8] = [
    "expired", "future", "unknown", "twin", "revoked", "weak", "below", "alone",
];

/// The servers.
pub fn servers(pki: &Pki) -> Vec<Server> {
    let shown = |names: &[&str]| certificates(pki, names);
    let simple = |params: Value| {
        let mut common = shown(&["a"]);
        common["tls_params"] = params;
        json!({"common_tls_context": common})
    };
    let asking = |required: bool, validation: Value| {
        let mut common = shown(&["a"]);
        common["validation_context"] = validation;
        json!({"common_tls_context": common, "require_client_certificate": required})
    };
    let ca = || json!({"filename": pki.at("ca.pem")});
    let crl = || json!({"filename": pki.at("crl.pem")});
    let alpn = |protocols: &[&str]| {
        let mut common = shown(&["a"]);
        common["alpn_protocols"] = json!(protocols);
        json!({"common_tls_context": common})
    };
    let san = |kind: &str, exact: &str| {
        json!({
            "trusted_ca": ca(),
            "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": exact}}],
        })
    };
    let uri = "spiffe://td/ns/c/sa/d";
    let ciphers = |names: &[&str], certificate: &str| {
        let mut common = shown(&[certificate]);
        common["tls_params"] = json!({
            "tls_maximum_protocol_version": "TLSv1_2", "cipher_suites": names,
        });
        json!({"common_tls_context": common})
    };
    let one = |name, tls| Server {
        name,
        chains: vec![Chain {
            names: &[],
            tls: Some(tls),
            cluster: None,
        }],
    };
    let named = |names, certificate| Chain {
        names,
        tls: Some(json!({"common_tls_context": shown(&[certificate])})),
        cluster: None,
    };
    let through = |names, cluster| Chain {
        names,
        tls: None,
        cluster: Some(cluster),
    };
    vec![
        one("simple", simple(json!({}))),
        one(
            "mutual",
            asking(true, json!({"trusted_ca": ca(), "crl": crl()})),
        ),
        one(
            "optional",
            asking(false, json!({"trusted_ca": ca(), "crl": crl()})),
        ),
        one(
            "untrusted",
            asking(
                false,
                json!({
                    "trusted_ca": ca(), "trust_chain_verification": "ACCEPT_UNTRUSTED",
                }),
            ),
        ),
        one("uri", asking(true, san("URI", uri))),
        one("dns", asking(true, san("DNS", "client.test"))),
        one(
            "spki",
            asking(
                true,
                json!({"verify_certificate_spki": [pki.spki("client")]}),
            ),
        ),
        one(
            "hash",
            asking(
                true,
                json!({"verify_certificate_hash": [pki.hash("client")]}),
            ),
        ),
        one(
            "pinned",
            asking(
                true,
                json!({
                    "trusted_ca": ca(), "verify_certificate_hash": [pki.hash("client")],
                }),
            ),
        ),
        one(
            "several",
            json!({"common_tls_context": shown(&["b", "a", "wild"])}),
        ),
        one("both", json!({"common_tls_context": shown(&["rsa", "a"])})),
        one("alpn", alpn(&["h2", "http/1.1"])),
        one("one", alpn(&["http/1.1"])),
        one(
            "min13",
            simple(json!({
                "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
            })),
        ),
        one(
            "max12",
            simple(json!({
                "tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_2",
            })),
        ),
        one("aes256", ciphers(&["ECDHE-RSA-AES256-GCM-SHA384"], "rsa")),
        one(
            "mixed",
            ciphers(
                &["[ECDHE-ECDSA-AES128-GCM-SHA256|ECDHE-ECDSA-CHACHA20-POLY1305]"],
                "a",
            ),
        ),
        one("p384", simple(json!({"ecdh_curves": ["P-384"]}))),
        Server {
            name: "sni",
            chains: vec![
                named(&["a.test"], "a"),
                named(&["*.wild.test"], "wild"),
                named(&["b.test"], "b"),
            ],
        },
        Server {
            name: "passthrough",
            chains: vec![
                through(&["a.test"], "behind-a"),
                through(&["b.test"], "behind-b"),
                through(&["*.wild.test"], "behind-wild"),
            ],
        },
    ]
}

/// Who calls them.
pub fn calls(pki: &Pki, h2load: bool) -> Vec<Call> {
    let mut calls = Calls {
        pki,
        calls: Vec::new(),
    };
    for server in [
        "simple",
        "mutual",
        "optional",
        "untrusted",
        "uri",
        "dns",
        "spki",
        "hash",
        "pinned",
        "several",
        "both",
        "alpn",
        "one",
        "min13",
        "max12",
        "aes256",
        "mixed",
        "p384",
        "sni",
        "passthrough",
    ] {
        calls.curl(server, "a.test", &[]);
        calls.curl(server, "a.test", &["--http1.1"]);
        calls.openssl(server, Some("a.test"), &[]);
        calls.openssl(server, Some("a.test"), &["-tls1_2"]);
        calls.openssl(
            server,
            Some("a.test"),
            &["-tls1_1", "-cipher", "ALL@SECLEVEL=0"],
        );
        calls.openssl(server, Some("other.test"), &[]);
        calls.openssl(server, None, &[]);
        if h2load {
            calls.add(server, "h2load".into(), Tool::H2load { host: "a.test" });
        }
    }
    // Callers with certificates, in both versions.
    for server in [
        "simple",
        "mutual",
        "optional",
        "untrusted",
        "uri",
        "dns",
        "spki",
        "hash",
        "pinned",
    ] {
        for certificate in ["client", "spiffe"].into_iter().chain(BAD) {
            let (shown, key) = calls.files(certificate);
            for version in ["-tls1_2", "-tls1_3"] {
                let arguments = [
                    "-cert",
                    &shown,
                    "-cert_chain",
                    &shown,
                    "-key",
                    &key,
                    version,
                ];
                calls.labelled(server, certificate, version, &arguments);
            }
        }
        let (shown, key) = calls.files("client");
        let tool = curl("a.test", &["--cert", &shown, "--key", &key]);
        calls.add(server, "curl with client".into(), tool);
    }
    for (server, name) in [
        ("several", "x.wild.test"),
        ("several", "x.y.wild.test"),
        ("several", "B.test"),
        ("several", "b.test"),
        ("sni", "x.wild.test"),
        ("sni", "x.y.wild.test"),
        ("sni", "B.TEST"),
        ("passthrough", "b.test"),
        ("passthrough", "x.wild.test"),
    ] {
        calls.openssl(server, Some(name), &[]);
        calls.curl(server, name, &[]);
    }
    for ciphers in [
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
    ] {
        for server in ["simple", "both", "aes256", "mixed"] {
            calls.openssl(server, Some("a.test"), &["-tls1_2", "-cipher", ciphers]);
        }
    }
    // No forward secrecy, or CBC.
    for ciphers in ["AES128-GCM-SHA256", "ECDHE-RSA-AES128-SHA"] {
        calls.openssl("both", Some("a.test"), &["-tls1_2", "-cipher", ciphers]);
    }
    calls.openssl(
        "mixed",
        Some("a.test"),
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
    );
    calls.openssl("both", Some("a.test"), &["-sigalgs", "RSA-PSS+SHA256"]);
    calls.openssl("both", Some("a.test"), &["-sigalgs", "ECDSA+SHA256"]);
    for groups in ["P-256", "P-384", "P-521", "X25519"] {
        calls.openssl("simple", Some("a.test"), &["-groups", groups]);
        calls.openssl("p384", Some("a.test"), &["-groups", groups]);
    }
    for server in ["simple", "alpn", "one"] {
        for protocols in [
            "h2",
            "h2,http/1.1",
            "http/1.1,h2",
            "http/1.0",
            "unknown,http/1.1",
        ] {
            calls.agree(server, protocols);
        }
    }
    calls.curl("alpn", "a.test", &["--http2"]);
    calls.curl("one", "a.test", &["--http2"]);
    calls.curl("simple", "b.test", &[]);
    calls.calls
}

struct Calls<'a> {
    pki: &'a Pki,
    calls: Vec<Call>,
}

// === impl Calls ===

impl Calls<'_> {
    fn add(&mut self, server: &'static str, label: String, tool: Tool) {
        self.calls.push(Call {
            server,
            label,
            tool,
        });
    }

    fn files(&self, name: &str) -> (String, String) {
        (
            self.pki.at(&format!("{name}.pem")),
            self.pki.at(&format!("{name}.key")),
        )
    }

    fn curl(&mut self, server: &'static str, host: &'static str, arguments: &[&str]) {
        let label = format!("curl {host} {}", arguments.join(" "));
        self.add(server, label, curl(host, arguments));
    }

    fn openssl(&mut self, server: &'static str, name: Option<&'static str>, arguments: &[&str]) {
        let label = format!("openssl {} {}", name.unwrap_or("-"), arguments.join(" "));
        self.add(server, label, openssl(name, arguments, true));
    }

    fn labelled(&mut self, server: &'static str, who: &str, version: &str, arguments: &[&str]) {
        // Else openssl itself will not show the weak one.
        let all = [arguments, &["-cipher", "ALL@SECLEVEL=0"]].concat();
        let tool = openssl(Some("a.test"), &all, true);
        self.add(server, format!("openssl with {who} {version}"), tool);
    }

    /// A handshake about what is spoken inside.
    fn agree(&mut self, server: &'static str, protocols: &str) {
        let tool = openssl(Some("a.test"), &["-alpn", protocols], false);
        self.add(server, format!("alpn {protocols}"), tool);
    }
}

fn curl(host: &'static str, arguments: &[&str]) -> Tool {
    Tool::Curl {
        host,
        arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
    }
}

fn openssl(name: Option<&'static str>, arguments: &[&str], request: bool) -> Tool {
    Tool::OpenSsl {
        name,
        arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
        request,
    }
}

/// What shows these certificates.
pub fn certificates(pki: &Pki, names: &[&str]) -> Value {
    let of = |name: &&str| {
        json!({
            "certificate_chain": {"filename": pki.at(&format!("{name}.pem"))},
            "private_key": {"filename": pki.at(&format!("{name}.key"))},
        })
    };
    json!({"tls_certificates": names.iter().map(of).collect::<Vec<_>>()})
}
