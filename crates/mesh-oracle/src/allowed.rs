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
            it.fact.ends_with(" line") && with_slash.as_deref() == Some(&*it.ours)
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
pub(crate) const OPEN: &[Allowed] = &[
    Allowed {
        id: "log-rewritten",
        reason: "mesh-telemetry: REQ(:PATH) and REQ(:AUTHORITY) are those that came in, before \
                 normalisation and rewrites",
        holds: |it, _| it.fact == "log authority" || it.fact == "log path",
    },
    Allowed {
        id: "copies-are-ours",
        reason: "mesh-route: a mirrored copy has no x-envoy-internal and no more x-forwarded-for",
        holds: |it, _| {
            it.fact.starts_with("upstream 1 header")
                && (it.fact.ends_with("x-envoy-internal") || it.fact.ends_with("x-forwarded-for"))
        },
    },
    Allowed {
        id: "asterisk-is-no-path",
        reason: "admit.rs: what does not begin with a slash is absolute_path_rejected, not NR",
        holds: |it, case| {
            let asterisk = |call: &Call| !call.target.starts_with('/');
            let missed = case.config.calls.iter().any(asterisk);
            (case.is(asterisk) && matches!(&*it.fact, "log details" | "log flags"))
                || (missed && matches!(&*it.fact, COUNTER_ROUTER | COUNTER_NO_ROUTE))
        },
    },
    Allowed {
        id: "remote-address",
        reason: "mesh-route template.rs: DOWNSTREAM_REMOTE_ADDRESS is not what x-forwarded-for says",
        holds: |it, case| {
            case.is(|call| call.header("x-forwarded-for").is_some())
                && it.envoy.contains(":0")
                && it.ours.contains("CALLER")
        },
    },
];

const COUNTER_ROUTER: &str = "counter http.CONFIG.rq_total";
const COUNTER_NO_ROUTE: &str = "counter http.CONFIG.no_route";

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
