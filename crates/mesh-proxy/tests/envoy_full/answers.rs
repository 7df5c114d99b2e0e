//! Redirects, fixed responses, rewrites, faults, CORS, rate limits.

use super::*;
use http::StatusCode;
use mesh_core::model::{
    AbortWith, AuthorityRewrite, Cors, DelayBy, DirectResponse, Fault, FaultAbort, FaultDelay,
    Fraction, PathRewrite, RateLimit, Redirect, RedirectPath,
};
use std::sync::Arc;
use std::time::Duration;

pub(super) fn groups() -> Vec<Group> {
    vec![
        redirects(),
        require_tls(),
        direct(),
        rewrites(),
        faults(),
        cors(),
        rate_limits(),
    ]
}

fn redirects() -> Group {
    let to = |path: &str, change: &dyn Fn(&mut Redirect)| {
        let mut redirect = Redirect::default();
        change(&mut redirect);
        act(path, Action::Redirect(redirect))
    };
    let mut rules = vec![
        to("/host", &|r| r.host = Some("new.example".into())),
        to("/port", &|r| r.port = Some(8443)),
        to("/scheme", &|r| r.scheme = Some("https".into())),
        to("/both", &|r| {
            r.scheme = Some("https".into());
            r.port = Some(443);
        }),
        to("/http-80", &|r| {
            r.scheme = Some("http".into());
            r.port = Some(80);
        }),
        to("/full-query", &|r| {
            r.path = RedirectPath::Full("/x?own=1".into())
        }),
        to("/full", &|r| r.path = RedirectPath::Full("/x".into())),
        to("/prefix/", &|r| {
            r.path = RedirectPath::Prefix("/new/".into())
        }),
        to("/regex", &|r| {
            r.path = RedirectPath::Regex(pattern("/regex/([a-z]+)"), "/r/\\1".into());
        }),
        to("/strip", &|r| r.strip_query = true),
        to("/strip-full", &|r| {
            r.strip_query = true;
            r.path = RedirectPath::Full("/y?own=1".into());
        }),
        to("/all", &|r| {
            r.code = 308;
            r.scheme = Some("https".into());
            r.host = Some("h.example".into());
            r.port = Some(1234);
            r.path = RedirectPath::Full("/z".into());
        }),
        to("/nothing", &|_| {}),
    ];
    for code in [301, 302, 303, 307, 308] {
        rules.push(to(&format!("/code/{code}"), &|r| {
            r.code = code;
            r.host = Some("h".into());
        }));
    }
    let calls = [
        get("/host?q=1"),
        get("/host").host("old:8080"),
        get("/host").host("old:80"),
        get("/port").host("old:80"),
        get("/port").host("old"),
        get("/port").host("[::1]:80"),
        get("/scheme").host("old:80"),
        get("/scheme").host("old:8080"),
        get("/scheme").host("old:443"),
        get("/scheme").host("[::1]:80"),
        get("/scheme")
            .header("x-forwarded-proto", "https")
            .host("old:443"),
        get("/host").header("x-forwarded-proto", "https"),
        get("/both").host("old:80"),
        get("/http-80"),
        get("/full?q=1"),
        get("/full-query?q=1"),
        get("/prefix/a/b?q=1"),
        get("/prefix/"),
        get("/regex/abc/d?q=1"),
        get("/regex"),
        get("/strip/a?q=1"),
        get("/strip-full?q=1"),
        get("/all?q=1"),
        get("/nothing?q"),
        get("/host#frag"),
        get("/code/301"),
        get("/code/302"),
        send("POST", "/code/303").body("x"),
        send("POST", "/code/307").body("x"),
        send("HEAD", "/code/308"),
        send("POST", "/host").grpc().body(""),
    ];
    Group::rules("redirects", rules, calls)
}

fn require_tls() -> Group {
    let host = changed(all([Rule::prefix_to("/", "a")]), |host| {
        host.require_tls = true
    });
    let calls = [
        get("/a?b=c"),
        get("/a").host("mesh:80"),
        get("/a").host("mesh:8080"),
        get("/a").header("x-forwarded-proto", "https"),
        send("POST", "/a").body("x"),
        send("POST", "/a").grpc().body(""),
        send("HEAD", "/a"),
    ];
    Group::hosts("require-tls", [host], calls)
}

fn direct() -> Group {
    let with = |path: &str, status: u16, body: &'static str| {
        let response = changed(DirectResponse::default(), |it| {
            it.status = StatusCode::from_u16(status).unwrap();
            it.body = body.into();
        });
        act(path, Action::Respond(response))
    };
    let typed = with("/typed", 200, "{}");
    let typed = super::with(typed, |rule| {
        rule.response_edits
            .add
            .push(edits::set("content-type", "application/json"));
    });
    let rules = [
        with("/200", 200, "hello\n"),
        with("/bare", 200, ""),
        with("/204", 204, ""),
        with("/304", 304, ""),
        with("/404", 404, "no"),
        with("/503", 503, "later"),
        with("/429", 429, "slow"),
        with("/299", 299, "odd"),
        typed,
    ];
    let mut calls = gets([
        "/200", "/bare", "/204", "/304", "/404", "/503", "/429", "/299", "/typed",
    ]);
    calls.extend([
        send("HEAD", "/200"),
        send("HEAD", "/404"),
        send("POST", "/200").body("ignored"),
        send("POST", "/503").grpc().body(""),
        send("POST", "/200").grpc().body(""),
        send("POST", "/404").grpc().body(""),
        send("POST", "/bare").grpc().body(""),
        get("/200").header("connection", "close"),
    ]);
    Group::rules("direct", rules, calls)
}

fn rewrites() -> Group {
    let to = |path: PathMatch, change: &dyn Fn(&mut Forward)| {
        let mut forward = Forward::to("a");
        change(&mut forward);
        let mut condition = Condition::default();
        condition.path = path;
        Rule::new(condition, Action::Forward(forward))
    };
    let prefix = |path: &str| PathMatch::Prefix(path.to_owned());
    let becomes = |with: &str| PathRewrite::Prefix(with.to_owned());
    let rules = [
        to(prefix("/slash/"), &|f| f.path = becomes("/")),
        to(prefix("/none"), &|f| f.path = becomes("/")),
        to(prefix("/long"), &|f| f.path = becomes("/a/b/")),
        to(PathMatch::Exact("/exact".into()), &|f| {
            f.path = becomes("/new")
        }),
        to(PathMatch::SeparatedPrefix("/sep".into()), &|f| {
            f.path = becomes("/new")
        }),
        to(PathMatch::PrefixIgnoreCase("/case".into()), &|f| {
            f.path = becomes("/new")
        }),
        to(PathMatch::Regex(pattern("/rx/.*")), &|f| {
            f.path = becomes("/whole")
        }),
        to(prefix("/re/"), &|f| {
            f.path = PathRewrite::Regex(pattern("/re/([a-z]+)/([a-z]+)"), "/\\2/\\1".into());
        }),
        to(prefix("/glob"), &|f| {
            f.path = PathRewrite::Regex(pattern("[0-9]"), "n".into());
        }),
        to(prefix("/authority"), &|f| {
            f.authority = Some(AuthorityRewrite::Literal("new.example:81".into()).into());
        }),
        to(prefix("/from-header"), &|f| {
            f.authority = Some(AuthorityRewrite::FromHeader("x-host".parse().unwrap()).into());
        }),
        to(prefix("/two"), &|f| {
            f.path = becomes("/both");
            f.authority = Some(AuthorityRewrite::Literal("both.example".into()).into());
        }),
    ];
    let mut calls = gets([
        "/slash/",
        "/slash/a?q=1",
        "/none",
        "/none/a",
        "/nonesuch?q",
        "/long",
        "/long/x?y",
        "/exact?q=1",
        "/sep",
        "/sep/x?q",
        "/CASE/x",
        "/rx/a/b?q=1",
        "/re/a/b?q=/re/x/y",
        "/re/a",
        "/glob/1/22?3",
        "/authority",
        "/from-header",
        "/two/x",
    ]);
    calls.extend([
        get("/from-header").header("x-host", "given.example"),
        get("/from-header").header("x-host", ""),
        get("/none/a").header("x-envoy-original-path", "/forged"),
        get("/two/x").header("x-forwarded-host", "there"),
        get("/two/x").header("x-envoy-original-host", "forged"),
    ]);
    Group::rules("rewrites", rules, calls)
}

fn faults() -> Group {
    let fault = |path: &str, delay: Option<FaultDelay>, abort: Option<FaultAbort>| {
        with(rule(PathMatch::Prefix(path.into()), "a"), |rule| {
            let fault = changed(Fault::default(), |it| {
                it.delay = delay;
                it.abort = abort;
            });
            rule.fault = Some(Arc::new(fault));
        })
    };
    let abort = |with, share| Some(FaultAbort { with, share });
    let http = |status| AbortWith::Http(StatusCode::from_u16(status).unwrap());
    let delay = Some(FaultDelay {
        by: DelayBy::Fixed(Duration::from_millis(30)),
        share: Fraction::ALL,
    });
    let rules = [
        fault("/abort", None, abort(http(418), Fraction::ALL)),
        fault("/never", None, abort(http(500), Fraction::NONE)),
        fault("/delay", delay.clone(), None),
        fault("/both", delay, abort(http(503), Fraction::ALL)),
        fault("/grpc", None, abort(AbortWith::Grpc(8), Fraction::ALL)),
        // The fault comes before routing finds out that there is no such cluster.
        with(
            fault("/missing", None, abort(http(500), Fraction::ALL)),
            |rule| {
                rule.action = Action::Forward(Forward::to("missing"));
            },
        ),
        // A redirect is made by the router, after the fault filter.
        with(
            fault("/redirect", None, abort(http(500), Fraction::ALL)),
            |rule| {
                let to = changed(Redirect::default(), |r| r.host = Some("h".into()));
                rule.action = Action::Redirect(to);
            },
        ),
        with(
            fault("/edits", None, abort(http(500), Fraction::ALL)),
            |rule| {
                rule.response_edits.add.push(edits::append("x-edit", "1"));
            },
        ),
    ];
    let mut calls = gets([
        "/abort",
        "/never",
        "/delay",
        "/both",
        "/grpc",
        "/missing",
        "/redirect",
        "/edits",
    ]);
    calls.extend([
        send("HEAD", "/abort"),
        send("POST", "/abort").grpc().body(""),
        send("POST", "/grpc").grpc().body(""),
        send("POST", "/abort").body("xyz"),
        get("/never").header("x-envoy-fault-abort-request", "503"),
    ]);
    Group::rules("faults", rules, calls)
}

fn cors() -> Group {
    let policy = |change: &dyn Fn(&mut Cors)| {
        let mut cors = Cors::default();
        cors.allow_origins = vec![
            exact("http://good.example"),
            StringMatch::Suffix(".trusted".into()),
            StringMatch::Regex(pattern("https://[a-z]+\\.re")),
        ];
        cors.allow_methods = "GET, POST".into();
        cors.allow_headers = "x-a,x-b".into();
        cors.expose_headers = "x-c".into();
        cors.max_age = "60".into();
        change(&mut cors);
        Some(Arc::new(cors))
    };
    let on = |path: &str, change: &dyn Fn(&mut Cors)| {
        let cors = policy(change);
        with(rule(PathMatch::Prefix(path.into()), "a"), |rule| {
            rule.cors = cors
        })
    };
    let rules = [
        on("/plain", &|_| {}),
        on("/credentials", &|it| it.allow_credentials = Some(true)),
        on("/forward", &|it| {
            it.forward_unmatched_preflights = Some(true)
        }),
        on("/any", &|it| it.allow_origins = vec![exact("*")]),
        on("/bare", &|it| {
            it.allow_methods.clear();
            it.allow_headers.clear();
            it.expose_headers.clear();
            it.max_age.clear();
        }),
        on("/nobody", &|it| it.allow_origins.clear()),
        with(on("/missing", &|_| {}), |rule| {
            rule.action = Action::Forward(Forward::to("missing"));
        }),
        with(on("/edited", &|_| {}), |rule| {
            rule.response_edits.add.push(edits::append("x-edit", "1"));
        }),
        rule(PathMatch::Prefix("/host-policy".into()), "a"),
    ];
    let mut calls = Vec::new();
    let paths = [
        "/plain",
        "/credentials",
        "/forward",
        "/any",
        "/bare",
        "/nobody",
        "/missing",
        "/edited",
        "/host-policy",
    ];
    for path in paths {
        for origin in ["http://good.example", "http://bad.example"] {
            let preflight = send("OPTIONS", path)
                .header("origin", origin)
                .header("access-control-request-method", "GET");
            calls.push(preflight);
            calls.push(get(path).header("origin", origin));
        }
    }
    let options = |path| send("OPTIONS", path);
    calls.extend([
        options("/plain"),
        options("/plain").header("origin", "http://good.example"),
        options("/plain").header("access-control-request-method", "GET"),
        get("/plain").header("origin", "http://x.trusted"),
        get("/plain").header("origin", "https://abc.re"),
        get("/plain").header("origin", "https://abc.ren"),
        get("/plain").header("origin", "HTTP://GOOD.EXAMPLE"),
        get("/plain").header("origin", ""),
        get("/plain")
            .header("access-control-request-method", "GET")
            .header("origin", "http://good.example"),
        options("/plain")
            .header("origin", "http://good.example")
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "x-z"),
        options("/plain")
            .header("origin", "http://good.example")
            .header("access-control-request-method", "")
            .script("200"),
    ]);
    let host = changed(all(rules), |host| {
        host.cors = policy(&|it| it.max_age = "7".into());
    });
    Group::hosts("cors", [host], calls)
}

fn rate_limits() -> Group {
    let limited = |path: &str, status: u16| {
        with(rule(PathMatch::Prefix(path.into()), "a"), |rule| {
            let mut limit = RateLimit::new(1, 1, Duration::from_secs(3600));
            limit.status = StatusCode::from_u16(status).unwrap();
            rule.rate_limit = Some(Arc::new(limit));
        })
    };
    let rules = [
        limited("/429", 429),
        limited("/503", 503),
        limited("/grpc", 429),
    ];
    let mut calls = gets(["/429", "/429", "/429", "/503", "/503"]);
    calls.push(send("HEAD", "/429"));
    calls.extend([0, 1].map(|_| send("POST", "/grpc").grpc().body("")));
    Group::rules("rate-limits", rules, calls)
}
