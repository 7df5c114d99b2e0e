//! What is not the same, and which of it may be so.

use super::tools::Facts;
use std::fmt;

/// One fact that is not the same.
#[derive(Debug)]
pub struct Difference {
    /// The server, or `upstream`.
    pub server: &'static str,
    pub label: String,
    pub fact: String,
    pub envoy: String,
    pub ours: String,
}

/// Why a difference is no failure of the test, and which ones that holds for.
struct Excuse {
    reason: &'static str,
    holds: fn(&Difference) -> bool,
}

/// Differences that stay.
const ALLOWED: &[Excuse] = &[
    Excuse {
        reason: "of TLS 1.2's ciphers Envoy prefers AES-128 and ChaCha20, we go by the caller's order",
        holds: |it| {
            (it.fact == "agreed" || it.fact == "log")
                && it.envoy.contains("ECDHE-ECDSA-CHACHA20-POLY1305")
                && it.same_but(&[(
                    "ECDHE-ECDSA-CHACHA20-POLY1305",
                    "ECDHE-ECDSA-AES256-GCM-SHA384",
                )])
        },
    },
    Excuse {
        reason: "P-384 is among our groups where nothing is said, and not among Envoy's",
        holds: |it| it.server == "simple" && it.label.ends_with("-groups P-384"),
    },
    Excuse {
        reason: "rustls has the alert 46 (unknown) where BoringSSL has 114 (hash) or 48 (authority)",
        holds: |it| it.alert("114", "46") || it.alert("48", "46"),
    },
    Excuse {
        reason: "rustls finds out about TLS 1.1 by what its hello lacks, and says 40 in place of 70",
        holds: |it| it.label.contains("-tls1_1") && it.alert("70", "40"),
    },
    Excuse {
        reason: "rustls says 116 (certificate required) in TLS 1.2, too, where it is 40 by the book",
        holds: |it| it.label.ends_with("-tls1_2") && it.alert("40", "116"),
    },
    Excuse {
        reason: "RSA keys of less than 2048 bits are refused, even where the chain need not be right; \
                 Envoy refuses them only in certificates of its own",
        holds: |it| {
            let weak = ["with weak ", "weak first", "weak again", "weak-accepted "];
            weak.iter().any(|word| it.label.contains(word))
        },
    },
    Excuse {
        reason: "without its inspector Envoy does not log the server name; we do once we end TLS",
        holds: |it| {
            it.server == "simple"
                && it.fact == "log"
                && it.envoy.contains(" sni=- ")
                && !it.ours.contains(" sni=- ")
        },
    },
    Excuse {
        reason: "what is accepted though it is not to be trusted does not count as refused",
        holds: |it| {
            let accepts = it.server == "untrusted" || it.label.contains("-accepted ");
            accepts && it.is("ssl.fail_verify_error", "+1", "(none)")
        },
    },
    Excuse {
        reason: "a bad signature in a chain leaves errors of BoringSSL's behind: they are in the log, \
                 and fail a connection upstream although it was accepted",
        holds: |it| {
            it.label.starts_with("twin-accepted ")
                || it.label.starts_with("twin ") && it.fact == "log" && it.has("BAD_SIGNATURE")
        },
    },
    Excuse {
        reason: "BoringSSL has two words for a handshake that the server refuses at once, we one",
        holds: |it| {
            it.fact == "log" && it.has("|268435610:SSL_routines:OPENSSL_internal:HANDSHAKE")
        },
    },
    Excuse {
        reason: "a refusal in TLS 1.3 comes after the handshake: Envoy does not log why, we do",
        holds: |it| {
            it.label.starts_with("mutual-")
                && it.fact == "log"
                && it.envoy.starts_with("503 UC [-] ")
                && it.ours.starts_with("503 UC [TLS_error:|")
        },
    },
    Excuse {
        reason: "a server of TLS 1.1 refuses a client of 1.3 with another alert than one of 1.2",
        holds: |it| it.label.starts_with("old ") && it.fact == "log",
    },
    Excuse {
        reason: "where in a chain it failed is not told by the library that checks",
        holds: |it| {
            it.label.starts_with("below ")
                && it.fact == "log"
                && it.same_but(&[("_at_depth_1:", "_at_depth_0:")])
        },
    },
    Excuse {
        reason: "a certificate that is its own issuer is one of an unknown issuer",
        holds: |it| {
            let words = (
                "self_signed_certificate",
                "unable_to_get_local_issuer_certificate",
            );
            it.label.starts_with("alone ") && it.fact == "log" && it.same_but(&[words])
        },
    },
    Excuse {
        reason: "our clients speak TLS 1.3 where nothing is said, Envoy's 1.2",
        holds: |it| {
            let counted = |fact: &str, envoy: &str, ours: &str| {
                it.fact == fact && it.envoy == envoy && it.ours == ours
            };
            let told = it.fact == "body" && it.same_but(&[("TLSv1.2 ", "TLSv1.3 ")]);
            it.server == "upstream"
                && (told
                    || counted("ssl.versions.TLSv1.2", "+1", "(none)")
                    || counted("ssl.versions.TLSv1.3", "(none)", "+1"))
        },
    },
];

/// What comes up by chance, and so need not.
const BY_CHANCE: &[Excuse] = &[Excuse {
    reason: "in TLS 1.3 the certificate is missed after the handshake, when a request is under \
                 way: a reset may take the alert away, on either side",
    holds: |it| {
        let lost = it.alert("(none)", "116") || it.alert("116", "(none)");
        lost && it.label.starts_with("openssl ")
    },
}];

// === impl Difference ===

impl Difference {
    pub fn between(server: &'static str, label: &str, envoy: &Facts, ours: &Facts) -> Vec<Self> {
        let mut names: Vec<&String> = envoy.keys().chain(ours.keys()).collect();
        names.sort();
        names.dedup();
        let value = |facts: &Facts, name: &String| {
            let value = facts.get(name).map_or("(none)", String::as_str);
            value.to_owned()
        };
        let pairs = names.into_iter().map(|name| Self {
            server,
            label: label.to_owned(),
            fact: name.clone(),
            envoy: value(envoy, name),
            ours: value(ours, name),
        });
        pairs.filter(|it| it.envoy != it.ours).collect()
    }

    fn is(&self, fact: &str, envoy: &str, ours: &str) -> bool {
        self.fact == fact && self.envoy == envoy && self.ours == ours
    }

    fn alert(&self, envoy: &str, ours: &str) -> bool {
        self.is("alert", envoy, ours)
    }

    fn has(&self, text: &str) -> bool {
        self.envoy.contains(text)
    }

    /// Nothing differs but these words.
    fn same_but(&self, words: &[(&str, &str)]) -> bool {
        let replace = |text: String, (envoy, ours): &(&str, &str)| text.replace(envoy, ours);
        words.iter().fold(self.envoy.clone(), replace) == self.ours
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            server,
            label,
            fact,
            envoy,
            ours,
        } = self;
        writeln!(f, "--- {server}: {label}: {fact}")?;
        writeln!(f, "  envoy: {envoy}")?;
        write!(f, "  ours:  {ours}")
    }
}

/// The differences without an excuse. An excuse that explains nothing is a failure, too.
pub fn judge(differences: &[Difference]) -> Vec<&Difference> {
    let mut idle = Vec::new();
    for excuse in ALLOWED {
        let explained = differences.iter().filter(|it| (excuse.holds)(it)).count();
        println!("allowed: {explained} × {}", excuse.reason);
        if explained == 0 {
            idle.push(excuse.reason);
        }
    }
    assert!(
        idle.is_empty(),
        "no difference is left of these, so they have to go: {idle:#?}"
    );
    let open = |it: &&Difference| {
        let mut all = ALLOWED.iter().chain(BY_CHANCE);
        !all.any(|excuse| (excuse.holds)(it))
    };
    differences.iter().filter(open).collect()
}
