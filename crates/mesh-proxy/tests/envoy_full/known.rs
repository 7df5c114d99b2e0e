//! Differences that are allowed, each with its reason.

use super::compare::Difference;

/// Why a difference is no failure of the test, and which ones that holds for.
struct Excuse {
    reason: &'static str,
    holds: fn(&Difference) -> bool,
}

/// Differences that stay.
const ALLOWED: &[Excuse] = &[
    Excuse {
        reason: "user information in a host is refused, as RFC 9110 §4.2.4 wants; Envoy takes it",
        holds: |it| it.group == "hosts" && it.label.contains("host=user@"),
    },
    Excuse {
        reason: "the phrase after the status says nothing (RFC 9112 §4)",
        holds: |it| it.fact == "reason",
    },
    Excuse {
        reason: "Envoy says that the body it leaves out of an answer to HEAD would be chunked",
        holds: |it| {
            it.label.starts_with("HEAD ") && it.is("header transfer-encoding", "chunked", "(none)")
        },
    },
    Excuse {
        reason: "what `connection` names stays behind (RFC 9110 §7.6.1); Envoy passes it on",
        holds: |it| it.label.ends_with("hop-headers") && it.is("header x-hop", "1", "(none)"),
    },
    Excuse {
        reason: "framing belongs to the connection: it puts back a content-length that was removed",
        holds: |it| {
            it.of("edit-modes", &["GET /server"])
                && matches!(
                    &*it.fact,
                    "header content-length" | "header transfer-encoding"
                )
        },
    },
    Excuse {
        reason: "a fixed answer of 304 has a location in Envoy, as if it were a redirect",
        holds: |it| it.of("direct", &["GET /304"]) && it.fact == "header location",
    },
    Excuse {
        reason: "a path refused for an escaped slash is logged as it came; Envoy decodes it",
        holds: |it| {
            it.group == "path-rejected"
                && it.fact == "log"
                && it.ours.starts_with("400 - path_normalization_failed ")
        },
    },
    Excuse {
        reason: "two host fields have to be refused (RFC 9112 §3.2); Envoy takes them",
        holds: |it| it.of("heads", &["two hosts", "the same host twice"]),
    },
    Excuse {
        reason: "a folded line may be refused (RFC 9112 §5.2); Envoy unfolds it",
        holds: |it| it.of("heads", &["a folded line"]),
    },
    Excuse {
        reason: "a fragment is no request to the codec; in Envoy to the normalisation of paths",
        holds: |it| it.label.contains('#'),
    },
    Excuse {
        reason: "http::Uri refuses these in a query; Envoy passes them on",
        holds: |it| {
            it.group.starts_with("characters")
                && ["/p\"q", "/p<q", "/p>q", "/p`q"]
                    .iter()
                    .any(|path| it.label.contains(path))
        },
    },
    Excuse {
        reason: "who has sent the body need not be told to go on (RFC 9110 §10.1.1); Envoy always tells",
        holds: |it| {
            it.label.contains(" Expect=100-continue ")
                && it.is("interim", "HTTP/1.1 100 Continue", "")
        },
    },
    Excuse {
        reason: "connection options ignore case (RFC 9110 §7.6.1)",
        holds: |it| it.is("upstream 0 header connection", "Upgrade", "upgrade"),
    },
    Excuse {
        reason: "Envoy has no route for an empty x-forwarded-proto; it plays no part in ours",
        holds: |it| it.label == "GET / x-forwarded-proto=",
    },
    Excuse {
        reason: "an upstream is not asked for a body that is found to be malformed at once",
        holds: |it| it.of("heads", &["a bad chunk"]) && it.fact == "upstream count",
    },
    Excuse {
        reason: "lines of x-forwarded-for that are not ours are passed on as lines",
        holds: |it| it.group == "inside" && it.fact == "upstream 0 header x-forwarded-for",
    },
];

// === impl Difference ===

impl Difference {
    fn is(&self, fact: &str, envoy: &str, ours: &str) -> bool {
        self.fact == fact && self.envoy == envoy && self.ours == ours
    }

    /// Whether it is of one of these requests, or of one of these with more headers.
    fn of(&self, group: &str, labels: &[&str]) -> bool {
        let is_or_extends = |label: &&str| {
            let rest = self.label.strip_prefix(label);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
        };
        self.group == group && labels.iter().any(is_or_extends)
    }
}

/// The differences without an excuse. When everything was run, an excuse that explains nothing is
/// a failure too.
pub fn judge(differences: &[Difference], everything: bool) -> Vec<&Difference> {
    let mut idle = Vec::new();
    for excuse in ALLOWED {
        let explained = differences.iter().filter(|it| (excuse.holds)(it)).count();
        println!("allowed: {explained} × {}", excuse.reason);
        if explained == 0 {
            idle.push(excuse.reason);
        }
    }
    assert!(
        idle.is_empty() || !everything,
        "no difference is left of these, so they have to go: {idle:#?}"
    );
    let open = |it: &&Difference| !ALLOWED.iter().any(|excuse| (excuse.holds)(it));
    differences.iter().filter(open).collect()
}
