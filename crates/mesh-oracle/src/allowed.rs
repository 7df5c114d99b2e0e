//! Differences that are allowed, each narrow and with its reason. `docs/envoy-differences.md`
//! tells users of them.

mod redirects;

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
            // Of those that follow a request at once as well.
            let then = it.fact.strip_prefix("then ").and_then(|fact| {
                let (at, fact) = fact.split_once(' ')?;
                Some((at.parse::<usize>().ok()?, fact))
            });
            let head = |at| {
                case.is(|call| {
                    call.then
                        .get(at)
                        .is_some_and(|it: &String| it.starts_with("HEAD "))
                })
            };
            let (of_head, fact) = match then {
                Some((at, fact)) => (head(at), fact),
                None => (case.is(|call| call.method == "HEAD"), &*it.fact),
            };
            let said = (&*it.envoy, &*it.ours) == ("chunked", "(none)");
            of_head && fact == "header transfer-encoding" && said
        },
    },
    Allowed {
        id: "close-after-too-much",
        reason: "a body that is too long for the service that is asked was read: there is no need to \
                 close its connection",
        holds: |it, case| {
            let buffered = case
                .config
                .source
                .manager
                .to_string()
                .contains("with_request_body");
            let said = (&*it.envoy, &*it.ours) == ("close", "(none)");
            buffered
                && it.fact == "header connection"
                && said
                && case.is(|call| !call.http2 && !call.body.is_empty())
        },
    },
    Allowed {
        id: "log-of-a-followed-redirect",
        reason: "the log of a request that was redirected tells of it; Envoy's tells of where it went \
                 on, and of where it would have gone where it could not",
        holds: redirects::tells_of_the_next,
    },
    Allowed {
        id: "caller-of-a-followed-redirect",
        reason: "who calls is still known where a redirect was followed; Envoy takes the next peer",
        holds: |it, case| {
            let said = case.is(|call| call.header("x-forwarded-for").is_some());
            let remote = it.fact == "log remote" || it.fact.starts_with("header x-");
            let peer = it.envoy.contains("CALLER") || it.envoy == "127.0.0.1";
            redirects::is_sent_elsewhere(case) && said && remote && peer
        },
    },
    Allowed {
        id: "scheme-after-a-redirect",
        reason: "an edit that tells the scheme of a request whose redirect could not be followed has it; \
                 Envoy's has it twice",
        holds: redirects::has_scheme_twice,
    },
    Allowed {
        id: "digits-of-a-length",
        reason: "a length is written without the zeros that it began with; Envoy passes them on",
        holds: |it, _| {
            it.fact.starts_with("upstream ")
                && it.fact.ends_with(" header content-length")
                && it.envoy.starts_with('0')
                && it.envoy.parse::<u64>().ok() == it.ours.parse().ok()
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
            // Told of it, whole or its first bytes; a header may have other values besides.
            let of_path = |(envoy, ours): (&str, &str)| {
                let is = !envoy.starts_with('/') && ours.starts_with('/');
                is && format!("/{envoy}").starts_with(ours)
            };
            let values = || it.envoy.split(" | ").zip(it.ours.split(" | "));
            let told = values().any(of_path)
                && values().all(|pair| pair.0 == pair.1 || of_path(pair))
                && it.envoy.split(" | ").count() == it.ours.split(" | ").count();
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
            let sent = it.fact.ends_with(" line") || it.fact == "log sent-path";
            // Or told of it.
            let url = it.fact.ends_with("header x-envoy-original-url");
            let path = sent || url || it.fact.starts_with("header x-");
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
        id: "graceful-goaway",
        reason: "a connection that its server ends gracefully, with two GOAWAYs (RFC 9113 §6.8), \
                 counts as a broken one in Envoy",
        holds: |it, case| {
            let number = |text: &str| text.parse::<usize>().unwrap_or(0);
            let said = |(_, value): &(String, String)| value.split(',').any(|it| it == "goaway");
            let calls = case.config.calls.iter();
            let times = calls.filter(|call| call.headers.iter().any(said)).count();
            it.fact == "counter cluster.CONFIG.h.upstream_cx_protocol_error"
                && number(&it.ours) < number(&it.envoy)
                && number(&it.envoy) - number(&it.ours) <= times
        },
    },
    Allowed {
        id: "interim-over-http2",
        reason: "interim responses over HTTP/2 are passed over before anybody counts them",
        holds: |it, case| {
            let said = |(name, value): &(String, String)| {
                name == "x-script" && matches!(&**value, "interim" | "early")
            };
            let number = |text: &str| text.parse::<usize>().unwrap_or(0);
            let calls = case.config.calls.iter();
            let times = calls.filter(|call| call.headers.iter().any(said)).count();
            let counted = it
                .fact
                .strip_prefix("counter cluster.CONFIG.h.upstream_rq_");
            let missing = number(&it.envoy).saturating_sub(number(&it.ours));
            match counted {
                Some("1xx" | "100" | "103") => it.ours == "(none)" && missing <= times,
                Some("completed") => (1..=times).contains(&missing),
                _ => false,
            }
        },
    },
    Allowed {
        id: "end-of-a-check",
        reason: "a connection of a health check over HTTP/2 that its server ends gracefully counts as a \
                 broken one in Envoy",
        holds: |it, case| {
            let clusters = case.config.source.clusters.as_array();
            let over_http2 = clusters.into_iter().flatten().any(|cluster| {
                let checks = cluster["health_checks"].as_array();
                checks.into_iter().flatten().any(|check| {
                    check["http_health_check"]["codec_client_type"] == "HTTP2"
                        || !check["grpc_health_check"].is_null()
                })
            });
            over_http2
                && it.fact == "counter cluster.CONFIG.e.upstream_cx_protocol_error"
                && it.ours == "(none)"
        },
    },
    Allowed {
        id: "turn-of-a-table",
        reason: "how many entries of a table or a ring a host has is a matter of the moment while \
                 ejections end",
        holds: |it, case| {
            let table = it.fact.strip_prefix("counter cluster.CONFIG.e.maglev_lb.");
            let ring = it
                .fact
                .strip_prefix("counter cluster.CONFIG.e.ring_hash_lb.");
            case.config.area == "ejection"
                && (table.is_some_and(|it| it.ends_with("_entries_per_host"))
                    || ring.is_some_and(|it| it == "size" || it.ends_with("_hashes_per_host")))
        },
    },
    Allowed {
        id: "route-of-a-refused-path",
        reason: "a path that is refused, for %00 or an escaped slash, is refused before a route is looked \
                 for; Envoy's log names the one that it would have taken, and its answer is edited as \
                 that one's are",
        holds: |it, case| {
            let manager = &case.config.source.manager;
            let source = &case.config.source;
            // Istio's meshes do, unless they say that they do not.
            let mut meshes = source.documents("MeshConfig");
            let normalized = match source.role() {
                Some(_) => {
                    !meshes.any(|it| it["spec"]["pathNormalization"]["normalization"] == "NONE")
                }
                None => manager["normalize_path"] == true,
            };
            let slashes = manager["path_with_escaped_slashes_action"] == "REJECT_REQUEST";
            let refused = |call: &Call| {
                let target = call.raw.as_deref().unwrap_or(&call.target);
                let line = target.split("\r\n").next().unwrap_or(target);
                let path = line.split(['?', '#']).next().unwrap_or(line);
                let path = path.to_ascii_lowercase();
                (normalized && path.contains("%00"))
                    || (slashes && (path.contains("%2f") || path.contains("%5c")))
            };
            let unknown = match &*it.fact {
                "log route" | "log cluster" => it.ours == "-",
                "header x-edit" => it.ours == "(none)",
                _ => false,
            };
            unknown && case.is(refused)
        },
    },
    Allowed {
        id: "no-body-said-in-http-1",
        reason: "an embedded client is asked in HTTP/1.1 for what Envoy is asked in HTTP/2, where a \
                 request without a body need not say so",
        holds: |it, case| {
            it.peer == "embedded"
                && it.fact.starts_with("upstream ")
                && it.fact.ends_with(" header content-length")
                && (&*it.envoy, &*it.ours) == ("(none)", "0")
                && case.is(|call| call.http2 && call.body.is_empty())
        },
    },
    Allowed {
        id: "unread-body",
        reason: "how much of a body was read when the answer went out is a matter of time",
        holds: |it, case| {
            // What comes behind an upgrade is none of a request, and Envoy counts it as a body.
            let read = |call: &Call| !call.body.is_empty() || !call.then.is_empty();
            it.fact == "log received" && case.is(read)
        },
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
