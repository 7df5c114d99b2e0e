//! Backends that fail, timeouts, retries and circuit breakers.

use super::*;
use mesh_core::model::{Retry, RetryOn};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn groups() -> Vec<Group> {
    vec![
        failures(),
        timeouts(),
        retries(),
        host_retries(),
        overflow(),
    ]
}

/// Longer than an answer takes on a busy machine, shorter than what hangs.
const FEW: Duration = Duration::from_millis(400);

fn failures() -> Group {
    let words = [
        "close",
        "reset",
        "head-then-close",
        "head-then-reset",
        "chunked-cut",
        "204",
        "304",
        "304-length",
        "chunked",
        "until-close",
        "http10",
        "hop-headers",
        "conn-close",
        "cookies",
        "interim",
        "garbage",
        "two-lengths",
        "500",
        "503",
        "404",
        "299",
        "ratelimited",
        "grpc-unavailable",
        "odd-reason",
    ];
    let mut calls = Vec::new();
    for word in words {
        calls.push(get("/").script(word));
        // The connection after a failure is a fresh one.
        calls.push(get("/after"));
    }
    for word in ["200", "204", "304", "chunked", "503"] {
        calls.push(send("HEAD", "/").script(word));
    }
    for word in ["close", "503", "404", "429", "500", "cookies"] {
        calls.push(send("POST", "/").grpc().script(word).body("xx"));
    }
    calls.push(send("POST", "/").body("abc"));
    calls.push(send("POST", "/").header("content-length", "0"));
    calls.push(
        send("PUT", "/")
            .header("Expect", "100-continue")
            .body("abc"),
    );
    calls.push(get("/").body("get with body"));
    calls.push(send("DELETE", "/"));
    calls.push(send("POST", "/"));
    Group::plain("failures", calls).raw(
        "a chunked request with trailers",
        b"POST / HTTP/1.1\r\nhost: mesh\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
    )
}

fn timeouts() -> Group {
    let to = |path: &str, change: &dyn Fn(&mut Rule)| {
        with(rule(PathMatch::Prefix(path.into()), "a"), change)
    };
    let rules = [
        to("/route", &|rule| rule.timeout = Some(FEW)),
        to("/long", &|rule| rule.timeout = Some(Duration::from_secs(3))),
        to("/idle", &|rule| rule.idle_timeout = Some(FEW)),
        to("/stream", &|rule| rule.max_stream_duration = Some(FEW)),
        to("/grpc-max", &|rule| rule.max_grpc_timeout = Some(FEW)),
        to("/grpc-stream", &|rule| {
            rule.max_stream_duration = Some(Duration::ZERO);
            rule.max_grpc_timeout = Some(Duration::ZERO);
        }),
        to("/grpc", &|rule| {
            rule.max_grpc_timeout = Some(Duration::ZERO)
        }),
        to("/none", &|_| {}),
    ];
    let calls = [
        get("/route").script("hang"),
        get("/route"),
        get("/long"),
        get("/long")
            .header("x-envoy-upstream-rq-timeout-ms", "50")
            .script("hang"),
        get("/none")
            .header("x-envoy-upstream-rq-timeout-ms", "50")
            .script("hang"),
        get("/none").header("x-envoy-upstream-rq-timeout-ms", "x"),
        get("/none").header("x-envoy-upstream-rq-timeout-alt-response", "1"),
        get("/none").header("x-envoy-expected-rq-timeout-ms", "50"),
        get("/route")
            .header("x-envoy-upstream-rq-timeout-alt-response", "1")
            .script("hang"),
        send("POST", "/route").script("hang").body("abc"),
        send("POST", "/route").grpc().script("hang").body(""),
        send("HEAD", "/route").script("hang"),
        get("/idle").script("hang"),
        get("/stream").script("hang"),
        send("POST", "/grpc")
            .grpc()
            .header("grpc-timeout", "50m")
            .script("hang")
            .body(""),
        send("POST", "/grpc")
            .grpc()
            .header("grpc-timeout", "5S")
            .body(""),
        send("POST", "/grpc-max")
            .grpc()
            .header("grpc-timeout", "5S")
            .script("hang")
            .body(""),
        send("POST", "/grpc-stream")
            .grpc()
            .header("grpc-timeout", "50m")
            .script("hang")
            .body(""),
        send("POST", "/grpc-stream")
            .grpc()
            .header("grpc-timeout", "5S")
            .body(""),
        send("POST", "/none")
            .grpc()
            .header("grpc-timeout", "50m")
            .script("slow")
            .body(""),
    ];
    Group::rules("timeouts", rules, calls)
}

fn policy(on: &[RetryOn], change: &dyn Fn(&mut Retry)) -> Option<Arc<Retry>> {
    let mut retry = Retry::default();
    retry.on = on.iter().copied().fold(RetryOn::default(), RetryOn::with);
    retry.attempts = 2;
    retry.backoff_base = Duration::from_millis(1);
    retry.backoff_max = Duration::from_millis(5);
    change(&mut retry);
    Some(Arc::new(retry))
}

fn retries() -> Group {
    let to = |path: &str, on: &[RetryOn], change: &dyn Fn(&mut Retry)| {
        let retry = policy(on, change);
        with(rule(PathMatch::Prefix(path.into()), "a"), |rule| {
            rule.retry = retry
        })
    };
    let rules = [
        to("/5xx", &[RetryOn::SERVER_ERROR], &|_| {}),
        to("/gateway", &[RetryOn::GATEWAY_ERROR], &|_| {}),
        to("/reset", &[RetryOn::RESET], &|_| {}),
        to("/before", &[RetryOn::RESET_BEFORE_REQUEST], &|_| {}),
        with(
            to("/connect", &[RetryOn::CONNECT_FAILURE], &|_| {}),
            |rule| {
                rule.action = Action::Forward(Forward::to("refused"));
            },
        ),
        with(to("/empty", &[RetryOn::SERVER_ERROR], &|_| {}), |rule| {
            rule.action = Action::Forward(Forward::to("empty"));
        }),
        to("/codes", &[RetryOn::RETRIABLE_STATUS_CODES], &|it| {
            it.status_codes = vec![404, 418]
        }),
        to("/4xx", &[RetryOn::RETRIABLE_4XX], &|_| {}),
        to("/limited", &[RetryOn::RATE_LIMITED], &|_| {}),
        to("/grpc", &[RetryOn::GRPC_UNAVAILABLE], &|_| {}),
        to("/try", &[RetryOn::GATEWAY_ERROR], &|it| {
            it.per_try_timeout = Some(FEW)
        }),
        to("/try-5xx", &[RetryOn::SERVER_ERROR], &|it| {
            it.per_try_timeout = Some(FEW)
        }),
        to("/no-try", &[RetryOn::CONNECT_FAILURE], &|it| {
            it.per_try_timeout = Some(FEW)
        }),
        to("/try-idle", &[RetryOn::SERVER_ERROR], &|it| {
            it.per_try_idle_timeout = Some(FEW)
        }),
        with(to("/timeout", &[RetryOn::SERVER_ERROR], &|_| {}), |rule| {
            rule.timeout = Some(FEW);
        }),
        with(
            to("/both", &[RetryOn::SERVER_ERROR], &|it| {
                it.per_try_timeout = Some(FEW);
            }),
            |rule| rule.timeout = Some(Duration::from_secs(5)),
        ),
        rule(PathMatch::Prefix("/host-policy".into()), "a"),
        with(to("/edits", &[RetryOn::SERVER_ERROR], &|_| {}), |rule| {
            rule.request_edits.add.push(edits::append("x-edit", "1"));
            rule.response_edits.add.push(edits::append("x-edit", "1"));
            if let Action::Forward(to) = &mut rule.action {
                to.path = mesh_core::model::PathRewrite::Prefix("/rewritten".into());
            }
        }),
    ];
    let calls = [
        get("/5xx").script("503,200"),
        get("/5xx").script("500,503,200"),
        get("/5xx").script("500,501,502,200"),
        get("/5xx").script("close,200"),
        get("/5xx").script("close"),
        get("/5xx").script("reset,200"),
        get("/5xx").script("429"),
        get("/5xx").script("head-then-close"),
        get("/5xx").script("garbage,200"),
        get("/5xx").script("garbage"),
        send("POST", "/5xx").script("503,200").body("abc"),
        send("POST", "/5xx").script("close,200").body("abc"),
        send("HEAD", "/5xx").script("503,200"),
        get("/5xx")
            .script("503,200")
            .header("x-envoy-max-retries", "0"),
        get("/5xx")
            .script("503,503,503,503,200")
            .header("x-envoy-max-retries", "4"),
        get("/5xx")
            .script("409,200")
            .header("x-envoy-retry-on", "retriable-4xx"),
        get("/5xx")
            .script("418,200")
            .header("x-envoy-retry-on", "retriable-status-codes")
            .header("x-envoy-retriable-status-codes", "418"),
        get("/5xx")
            .script("503,200")
            .header("x-envoy-attempt-count", "7"),
        get("/gateway").script("502,200"),
        get("/gateway").script("500,200"),
        get("/gateway").script("close,200"),
        get("/reset").script("close,200"),
        get("/reset").script("503,200"),
        get("/reset").script("reset,reset,reset"),
        get("/before").script("close,200"),
        get("/connect"),
        send("POST", "/connect").grpc().body(""),
        get("/empty"),
        get("/codes").script("404,200"),
        get("/codes").script("418,404,418"),
        get("/codes").script("503,200"),
        get("/4xx").script("409,200"),
        get("/4xx").script("404,200"),
        get("/limited").script("ratelimited,200"),
        get("/limited").script("429,200"),
        send("POST", "/grpc")
            .grpc()
            .script("grpc-unavailable,200")
            .body(""),
        send("POST", "/grpc")
            .grpc()
            .script("grpc-unavailable")
            .body(""),
        get("/try").script("hang,200"),
        get("/try").script("hang"),
        send("POST", "/try").grpc().script("hang").body(""),
        get("/try-5xx").script("hang,503,200"),
        get("/no-try").script("hang"),
        get("/try-idle").script("hang,200"),
        get("/try-idle").script("hang"),
        get("/timeout").script("503,hang"),
        get("/timeout").script("hang"),
        get("/both").script("hang,200"),
        get("/none-of-these"),
        get("/host-policy").script("503,200"),
        get("/host-policy")
            .script("503,200")
            .header("x-envoy-retry-on", "reset"),
        get("/edits").script("503,200"),
        get("/edits").script("503"),
    ];
    let host = changed(all(rules), |host| {
        host.count_attempts = true;
        host.retry = policy(&[RetryOn::SERVER_ERROR], &|_| {});
    });
    Group::hosts("retries", [host], calls)
}

fn host_retries() -> Group {
    // Without attempt counts and with no policy but the caller's.
    let calls = [
        get("/").script("503,200"),
        get("/").script("503,200").header("x-envoy-retry-on", "5xx"),
        get("/")
            .script("503,503,200")
            .header("x-envoy-retry-on", "5xx"),
        get("/")
            .script("503,200")
            .header("x-envoy-retry-on", "5xx")
            .header("x-envoy-max-retries", "2"),
        get("/")
            .script("grpc-unavailable,200")
            .header("x-envoy-retry-grpc-on", "unavailable"),
        get("/")
            .script("503,200")
            .header("x-envoy-retry-on", "nonsense"),
        get("/")
            .script("hang,200")
            .header("x-envoy-retry-on", "5xx")
            .header("x-envoy-upstream-rq-per-try-timeout-ms", "400"),
        get("/")
            .script("503,200")
            .header("x-envoy-retry-on", "5xx")
            .header("x-envoy-hedge-on-per-try-timeout", "true"),
    ];
    Group::plain("caller-retries", calls)
}

fn overflow() -> Group {
    let no_requests = changed(Cluster::new("no-requests"), |it| it.limits.max_requests = 0);
    let no_retries = changed(Cluster::new("no-retries"), |it| it.limits.max_retries = 0);
    let no_pending = changed(Cluster::new("no-pending"), |it| it.limits.max_pending = 0);
    let rules = [
        Rule::prefix_to("/tight", "tight"),
        Rule::prefix_to("/no-requests", "no-requests"),
        Rule::prefix_to("/no-pending", "no-pending"),
        with(Rule::prefix_to("/no-retries", "no-retries"), |rule| {
            rule.retry = policy(&[RetryOn::SERVER_ERROR], &|_| {});
        }),
    ];
    let calls = [
        get("/tight").script("hold,hold,hold").crowded(),
        send("POST", "/tight")
            .grpc()
            .script("hold")
            .body("")
            .crowded(),
        get("/tight"),
        get("/no-requests"),
        get("/no-pending"),
        send("POST", "/no-requests").grpc().body(""),
        get("/no-retries").script("503,200"),
        get("/no-retries").script("close,200"),
    ];
    Group::rules("overflow", rules, calls)
        .cluster(tight("tight"), &["a"])
        .cluster(no_requests, &["a"])
        .cluster(no_retries, &["a"])
        .cluster(no_pending, &["a"])
}
