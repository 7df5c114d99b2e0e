//! Differences that are allowed, each narrow and with its reason. `docs/envoy-differences.md`
//! tells users of them.

use crate::config::Config;
use crate::difference::Difference;
use crate::request::Call;

/// Why a difference is no failure, and which ones that holds for.
pub(crate) struct Allowed {
    pub(crate) id: &'static str,
    pub(crate) reason: &'static str,
    holds: fn(&Difference, &Case<'_>) -> bool,
}

/// Where a difference was found.
pub(crate) struct Case<'a> {
    pub(crate) config: &'a Config,
    pub(crate) call: Option<&'a Call>,
}

/// All of them.
pub(crate) const ALLOWED: &[Allowed] = &[
    Allowed {
        id: "reason-phrase",
        reason: "the phrase after the status says nothing (RFC 9112 §4)",
        holds: |it, _| it.fact == "reason",
    },
    Allowed {
        id: "head-framing",
        reason: "Envoy says that the body it leaves out of an answer to HEAD would be chunked",
        holds: |it, case| {
            case.is(|call| call.method == "HEAD")
                && it.is("header transfer-encoding", "chunked", "(none)")
        },
    },
    Allowed {
        id: "flag-order",
        reason: "flags are a set: Envoy writes them in the order that they came about",
        holds: |it, _| {
            let sorted = |text: &str| {
                let mut flags: Vec<String> = text.split(',').map(str::to_owned).collect();
                flags.sort();
                flags
            };
            let told = |flags: &str| flags.split(' ').map(sorted).collect::<Vec<_>>();
            matches!(&*it.fact, "log flags" | "header x-edit") && told(&it.envoy) == told(&it.ours)
        },
    },
    Allowed {
        id: "path-begins-with-a-slash",
        reason: "a rewrite that leaves a path without its slash is sent with one (RFC 9112 §3.2.1)",
        holds: |it, _| {
            let with_slash = it.envoy.split_once(' ').and_then(|(backend, line)| {
                let (method, path) = line.split_once(' ')?;
                (!path.starts_with('/')).then(|| format!("{backend} {method} /{path}"))
            });
            let logged = !it.envoy.starts_with('/') && it.ours == format!("/{}", it.envoy);
            // Told of it, whole or its first bytes.
            let told = !it.envoy.starts_with('/')
                && it.ours.starts_with('/')
                && format!("/{}", it.envoy).starts_with(&it.ours);
            (it.fact.ends_with(" line") && with_slash.as_deref() == Some(&*it.ours))
                || (it.fact == "log sent-path" && logged)
                || (it.fact.starts_with("header x-") && told)
        },
    },
    Allowed {
        id: "escaped-in-a-path",
        reason: "what no URI may hold (RFC 3986 §2) is escaped where a rewrite brings it in",
        holds: |it, _| {
            let escaped = it.envoy.replace('<', "%3C").replace('>', "%3E");
            let path = it.fact.ends_with(" line") || it.fact == "log sent-path";
            path && escaped != it.envoy && escaped == it.ours
        },
    },
    Allowed {
        id: "refused-path-as-it-came",
        reason: "a path that is refused for an escaped slash is logged as it came; Envoy's log has it \
                 decoded",
        holds: |it, case| {
            let manager = &case.config.source.manager;
            let end = it.ours.find('?').unwrap_or(it.ours.len());
            let (path, query) = it.ours.split_at(end);
            let path = path.replace("%2f", "/").replace("%2F", "/");
            let decoded = path.replace("%5c", "\\").replace("%5C", "\\") + query;
            manager["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
                && matches!(&*it.fact, "log path" | "log sent-path")
                && decoded == it.envoy
                && decoded != it.ours
        },
    },
    Allowed {
        id: "one-port-in-a-location",
        reason: "port_redirect replaces the port in host_redirect; Envoy writes both",
        holds: |it, _| it.fact == "header location" && it.envoy.contains("new.test:81:"),
    },
    Allowed {
        id: "location-of-a-fixed-answer",
        reason: "a fixed answer of 201 has a location in Envoy, as if it were a redirect to itself",
        holds: |it, case| {
            let manager = case.config.source.manager.to_string();
            it.fact == "header location"
                && it.ours == "(none)"
                && manager.contains(r#""status":201"#)
        },
    },
    Allowed {
        id: "flag-of-a-limit",
        reason: "an edit that tells the flags of a refusal by a rate limit finds them; in Envoy they \
                 are set too late",
        holds: |it, _| {
            let told = it
                .envoy
                .replace("- local_rate_limited", "RL local_rate_limited");
            it.fact == "header x-edit" && told != it.envoy && told == it.ours
        },
    },
    Allowed {
        id: "unread-body",
        reason: "how much of a body was read when the answer went out is a matter of time",
        holds: |it, case| it.fact == "log received" && case.is(|call| !call.body.is_empty()),
    },
];

/// Differences whose cause is known and that have to go. They count as differences; that they are
/// here only keeps what is new from drowning in them.
pub(crate) const OPEN: &[Allowed] = &[];

/// The first in a list that explains a difference, as its place there.
pub(crate) fn explains(
    list: &[Allowed],
    difference: &Difference,
    config: &Config,
) -> Option<usize> {
    let call = difference.call.and_then(|at| config.calls.get(at));
    let case = Case { config, call };
    list.iter().position(|it| (it.holds)(difference, &case))
}

// === impl Case ===

impl Case<'_> {
    fn is(&self, what: impl Fn(&Call) -> bool) -> bool {
        self.call.is_some_and(what)
    }
}
