//! Which host and rule a request meets, and which cluster it is sent to.

use super::*;
use mesh_core::model::{Fraction, QueryMatch, Target};

pub(super) fn groups() -> Vec<Group> {
    vec![
        hosts(),
        ports_ignored(),
        host_order(),
        paths(),
        any_case(),
        headers(),
        pseudo_headers(),
        queries(),
        targets(),
    ]
}

fn to(name: &str, domains: &[&str]) -> VirtualHost {
    let host = VirtualHost::new(name, domains.iter().copied());
    // The host's name in the answer says which was met, whatever the backend.
    host.rule(answer("/", name))
}

fn answer(path: &str, text: &str) -> Rule {
    let mut with = mesh_core::model::DirectResponse::default();
    with.body = text.to_owned().into();
    act(path, Action::Respond(with))
}

fn hosts() -> Group {
    let hosts = [
        to("exact", &["www.example.com"]),
        to("port", &["www.example.com:8080"]),
        to("suffix", &["*.example.com"]),
        to("longer suffix", &["*.b.example.com"]),
        to("dash suffix", &["*-x.example.com"]),
        to("prefix", &["www.example.*"]),
        to("short prefix", &["www.*"]),
        to("suffix with port", &["*.example.com:9000"]),
        to("address", &["10.0.0.1", "[::1]:80"]),
        to("any", &["*"]),
    ];
    let calls = [
        "www.example.com",
        "WWW.Example.COM",
        "www.example.com:8080",
        "www.example.com:80",
        "www.example.com:9000",
        "api.example.com",
        "api.example.com:80",
        "api.example.com:9000",
        "a.b.example.com",
        "b.example.com",
        "example.com",
        ".example.com",
        "q-x.example.com",
        "www.example.org",
        "www.example.org:1",
        "www.other",
        "www.",
        "10.0.0.1",
        "10.0.0.1:80",
        "[::1]:80",
        "[::1]",
        "other",
        "www.example.com.",
        "user@www.example.com",
        "a_b.example.com",
    ];
    Group::hosts("hosts", hosts, calls.map(|host| get("/").host(host)))
        .raw(
            "a target with authority",
            b"GET http://api.example.com/x HTTP/1.1\r\nhost: www.example.com\r\n\r\n",
        )
        .raw(
            "a target with https",
            b"GET https://api.example.com/x HTTP/1.1\r\nhost: www.example.com\r\n\r\n",
        )
        .raw(
            "a target with only an authority",
            b"GET http://api.example.com HTTP/1.1\r\nhost: x\r\n\r\n",
        )
        .raw(
            "a target with a query and no path",
            b"GET http://api.example.com?a=b HTTP/1.1\r\nhost: x\r\n\r\n",
        )
        .raw(
            "a target with an authority and no host",
            b"GET http://api.example.com/x HTTP/1.1\r\n\r\n",
        )
}

fn ports_ignored() -> Group {
    let hosts = [
        to("exact", &["www.example.com"]),
        to("suffix", &["*.example.com"]),
        to("v6", &["[::1]"]),
    ];
    let calls = [
        "www.example.com",
        "www.example.com:8080",
        "a.example.com:1",
        "www.example.com:x",
        "www.example.com:",
        "[::1]:80",
        "[::1]",
        "nothing:80",
    ];
    let group = Group::hosts(
        "ports-ignored",
        hosts,
        calls.map(|host| get("/").host(host)),
    );
    group.table(|table| table.ignore_port = true)
}

fn host_order() -> Group {
    // The host that is met decides alone, even when none of its rules matches.
    let hosts = [
        VirtualHost::new("narrow", ["a.example.com"]).rule(answer("/only", "narrow")),
        to("wide", &["*"]),
    ];
    let calls = [
        get("/only").host("a.example.com"),
        get("/else").host("a.example.com"),
        get("/else").host("b.example.com"),
    ];
    Group::hosts("host-order", hosts, calls)
}

fn paths() -> Group {
    let rules = [
        rule(PathMatch::Exact("/exact".into()), "a"),
        rule(PathMatch::SeparatedPrefix("/sep".into()), "b"),
        rule(PathMatch::Regex(pattern("/re/[0-9]+")), "c"),
        rule(PathMatch::Regex(pattern("/dot/.*")), "c"),
        rule(PathMatch::Prefix("/pre".into()), "b"),
        rule(PathMatch::Prefix("/pre/fix".into()), "a"),
        rule(PathMatch::Exact("/query?x".into()), "a"),
        rule(PathMatch::Exact("*".into()), "a"),
    ];
    let mut calls = gets([
        "/exact",
        "/exact/",
        "/exact?x=1",
        "/exact#f",
        "/Exact",
        "/sep",
        "/sep/",
        "/sep/x",
        "/sepx",
        "/sep?x",
        "/re/1",
        "/re/12?x",
        "/re/",
        "/re/1x",
        "/x/re/1",
        "/dot/a/b",
        "/pre",
        "/prefix",
        "/pre/fix",
        "/pre?x=/exact",
        "/",
        "/query?x",
        "/%65xact",
        "/exact%2f",
        "/pre;a=b",
        "/pre%",
        "/pre/%zz",
        "/pre/a%20b",
        "/pre/\u{e9}",
        "/pre/a|b",
        "/pre/\"",
        "/pre/{x}",
        "/pre/a?b?c#d",
    ]);
    calls.push(send("OPTIONS", "*"));
    calls.push(send("FROB", "/pre"));
    Group::rules("paths", rules, calls)
}

fn any_case() -> Group {
    let rules = [
        rule(PathMatch::ExactIgnoreCase("/Exact".into()), "a"),
        rule(PathMatch::SeparatedPrefixIgnoreCase("/Sep".into()), "b"),
        rule(PathMatch::PrefixIgnoreCase("/Pre".into()), "c"),
    ];
    let calls = gets(["/eXACT", "/exacT/", "/SEP/x", "/SEPX", "/PREfix", "/x"]);
    Group::rules("any-case", rules, calls)
}

fn headers() -> Group {
    let when = |path: &str, wanted: HeaderMatch| {
        with(rule(PathMatch::Prefix(path.into()), "a"), |rule| {
            rule.condition.headers.push(wanted);
        })
    };
    let text = |value: StringMatch| header_is("x-k", ValueMatch::Text(value));
    let invert = |mut wanted: HeaderMatch| {
        wanted.invert = true;
        wanted
    };
    let empty = |mut wanted: HeaderMatch| {
        wanted.missing_is_empty = true;
        wanted
    };
    let kinds = [
        ("exact", text(exact("v"))),
        ("joined", text(exact("v,w"))),
        ("nocase", text(StringMatch::ExactIgnoreCase("V".into()))),
        ("prefix", text(StringMatch::Prefix("v".into()))),
        ("suffix", text(StringMatch::Suffix("v".into()))),
        ("contains", text(StringMatch::Contains("v".into()))),
        ("regex", text(StringMatch::Regex(pattern("v+")))),
        ("present", header_is("x-k", ValueMatch::Present(true))),
        ("absent", header_is("x-k", ValueMatch::Present(false))),
        ("range", header_is("x-k", ValueMatch::Range(-1, 10))),
    ];
    let mut rules = Vec::new();
    let mut calls = Vec::new();
    for (name, wanted) in kinds {
        let variants = [
            ("plain", wanted.clone()),
            ("invert", invert(wanted.clone())),
            ("empty", empty(wanted.clone())),
            ("invert-empty", invert(empty(wanted))),
        ];
        for (variant, wanted) in variants {
            let path = format!("/{name}/{variant}/");
            rules.push(when(&path, wanted));
            calls.push(get(&path));
            for value in ["v", "V", "vv", "xv", "v,w", "5", "10", "-1", "5x", ""] {
                calls.push(get(&path).header("x-k", value));
            }
            calls.push(get(&path).header("x-k", "v").header("x-k", "w"));
            calls.push(get(&path).header("x-k", "w").header("x-k", "v"));
            calls.push(get(&path).header("x-k", "50").header("x-k", "5"));
        }
    }
    Group::rules("headers", rules, calls)
}

fn pseudo_headers() -> Group {
    let when = |path: &str, key: HeaderKey, value: StringMatch| {
        with(rule(PathMatch::Prefix(path.into()), "a"), |rule| {
            rule.condition.headers.push(HeaderMatch::text(key, value));
        })
    };
    let rules = [
        when("/method", HeaderKey::Method, exact("POST")),
        when("/authority", HeaderKey::Authority, exact("mesh:80")),
        when("/lower", HeaderKey::Authority, exact("upper")),
        when("/scheme", HeaderKey::Scheme, exact("http")),
        when("/path", HeaderKey::Path, exact("/path?a=b")),
        when(
            "/host",
            HeaderKey::Header(http::header::HOST),
            exact("mesh"),
        ),
        with(rule(PathMatch::Prefix("/grpc".into()), "a"), |rule| {
            rule.condition.grpc = true;
        }),
        with(rule(PathMatch::Prefix("/share".into()), "a"), |rule| {
            rule.condition.share = Some(Fraction::NONE);
        }),
        with(rule(PathMatch::Prefix("/share".into()), "b"), |rule| {
            rule.condition.share = Some(Fraction::ALL);
        }),
        // Both conditions of a rule have to hold; the next rule is for the rest.
        with(rule(PathMatch::Prefix("/both".into()), "a"), |rule| {
            let is = |name| header_is(name, ValueMatch::Present(true));
            rule.condition.headers.extend([is("x-1"), is("x-2")]);
        }),
        rule(PathMatch::Prefix("/both".into()), "b"),
    ];
    let calls = [
        get("/method"),
        send("POST", "/method").body("x"),
        send("post", "/method"),
        get("/authority").host("mesh:80"),
        get("/authority"),
        get("/lower").host("UPPER"),
        get("/scheme"),
        get("/path?a=b"),
        get("/path"),
        get("/host"),
        send("POST", "/grpc").grpc().body(""),
        send("POST", "/grpc")
            .header("content-type", "application/grpc+proto")
            .body(""),
        send("POST", "/grpc")
            .header("content-type", "application/grpc;x")
            .body(""),
        send("POST", "/grpc")
            .header("content-type", "application/grpc-web")
            .body(""),
        send("POST", "/grpc")
            .header("content-type", "text/plain")
            .body(""),
        get("/share"),
        get("/both").header("x-1", ""),
        get("/both").header("x-1", "").header("X-2", "y"),
    ];
    Group::rules("pseudo-headers", rules, calls)
}

fn queries() -> Group {
    let when = |path: &str, value: ValueMatch| {
        with(rule(PathMatch::Prefix(path.into()), "a"), |rule| {
            let name = "k".to_owned();
            rule.condition.query.push(QueryMatch { name, value });
        })
    };
    let rules = [
        when("/exact", ValueMatch::Text(exact("v"))),
        when("/empty", ValueMatch::Text(exact(""))),
        when(
            "/regex",
            ValueMatch::Text(StringMatch::Regex(pattern("v.*"))),
        ),
        when("/prefix", ValueMatch::Text(StringMatch::Prefix("v".into()))),
        when("/escaped", ValueMatch::Text(exact("a b"))),
        when("/present", ValueMatch::Present(true)),
        when("/absent", ValueMatch::Present(false)),
    ];
    let calls = gets([
        "/exact?k=v",
        "/exact?k=vv",
        "/exact?K=v",
        "/exact",
        "/exact?a=b&k=v",
        "/exact?k=w&k=v",
        "/exact?k=v&k=w",
        "/exact?k",
        "/exact?kk=v",
        "/exact?k=v#f",
        "/exact?k=%76",
        "/exact?%6b=v",
        "/exact?a;k=v",
        "/exact?k=v;x",
        "/empty?k",
        "/empty?k=",
        "/empty",
        "/regex?k=vw",
        "/regex?k=xv",
        "/prefix?k=vv",
        "/escaped?k=a%20b",
        "/escaped?k=a+b",
        "/present?k",
        "/present?k=1",
        "/present?a=k",
        "/present",
        "/absent?k",
        "/absent?a",
        "/absent",
    ]);
    Group::rules("queries", rules, calls)
}

fn targets() -> Group {
    let split = |parts: &[(&str, u32)]| {
        Action::Forward(Forward::split(
            parts.iter().map(|(name, weight)| (*name, *weight)),
        ))
    };
    let by_header = changed(Forward::default(), |to| {
        to.to = Target::Header("x-cluster".parse().unwrap());
    });
    let missing = |status: u16| {
        Action::Forward(changed(Forward::to("missing"), |to| {
            to.not_found = Some(http::StatusCode::from_u16(status).unwrap());
        }))
    };
    let rules = [
        act("/all-b", split(&[("a", 0), ("b", 100)])),
        act("/all-a", split(&[("a", 100), ("b", 0)])),
        act("/split-missing", split(&[("missing", 1)])),
        act("/by-header", Action::Forward(by_header)),
        act("/missing-404", missing(404)),
        act("/missing-500", missing(500)),
        act("/missing", Action::Forward(Forward::to("missing"))),
        act("/empty", Action::Forward(Forward::to("empty"))),
        act("/refused", Action::Forward(Forward::to("refused"))),
    ];
    let mut calls = gets([
        "/all-b",
        "/all-b",
        "/all-a",
        "/split-missing",
        "/by-header",
        "/missing",
        "/missing-404",
        "/missing-500",
        "/empty",
        "/refused",
        "/no-route",
    ]);
    calls.push(get("/by-header").header("x-cluster", "c"));
    calls.push(get("/by-header").header("x-cluster", "missing"));
    calls.push(get("/by-header").header("x-cluster", ""));
    for path in [
        "/missing",
        "/empty",
        "/refused",
        "/no-route",
        "/by-header",
        "/missing-404",
    ] {
        calls.push(send("POST", path).grpc().body(""));
        calls.push(send("HEAD", path));
    }
    Group::rules("targets", rules, calls)
}
