//! Header edits at four levels, their order, and templates.

use super::*;
use http::HeaderValue;
use mesh_core::model::{
    AddMode, HeaderAdd, HeaderChanges, HeaderEdits, HeaderTemplate, Piece, Target, Weighted,
};

pub(super) fn groups() -> Vec<Group> {
    vec![
        levels("edit-levels", false),
        levels("edit-levels-reversed", true),
        modes(),
        templates(),
    ]
}

fn put(name: &str, value: HeaderTemplate, mode: AddMode) -> HeaderAdd {
    let name = name.parse().unwrap();
    HeaderAdd {
        name,
        value,
        mode,
        keep_empty: false,
    }
}

fn fixed(value: &str) -> HeaderTemplate {
    HeaderTemplate::Fixed(HeaderValue::from_str(value).unwrap())
}

pub(super) fn append(name: &str, value: &str) -> HeaderAdd {
    put(name, fixed(value), AddMode::Append)
}

pub(super) fn set(name: &str, value: &str) -> HeaderAdd {
    put(name, fixed(value), AddMode::Overwrite)
}

fn absent(name: &str, value: &str) -> HeaderAdd {
    put(name, fixed(value), AddMode::IfAbsent)
}

/// The same edits at each level, told apart by value.
fn at(level: &str) -> HeaderEdits {
    let remove = vec![
        "x-remove".parse().unwrap(),
        format!("x-by-{level}").parse().unwrap(),
    ];
    let add = vec![
        append("x-append", level),
        set("x-set", level),
        absent("x-absent", level),
        append(&format!("x-{level}"), "1"),
        // Added here, removed at another level.
        append("x-by-table", level),
        append("x-by-route", level),
    ];
    HeaderChanges { remove, add }.into()
}

fn levels(name: &'static str, reversed: bool) -> Group {
    let part = changed(Weighted::default(), |part| {
        part.cluster = "a".into();
        part.weight = 100;
        part.request_edits = at("cluster");
        part.response_edits = at("cluster");
    });
    let forward = changed(Forward::default(), |to| {
        to.to = Target::Weighted(vec![part])
    });
    let edited = |action| {
        with(act("/", action), |rule| {
            rule.request_edits = at("route");
            rule.response_edits = at("route");
        })
    };
    let rules = [
        with(edited(Action::Forward(Forward::to("missing"))), |rule| {
            rule.condition.path = PathMatch::Prefix("/missing".into());
        }),
        with(edited(Action::Respond(Default::default())), |rule| {
            rule.condition.path = PathMatch::Prefix("/direct".into());
        }),
        with(edited(Action::Redirect(Default::default())), |rule| {
            rule.condition.path = PathMatch::Prefix("/redirect".into());
        }),
        with(edited(Action::Forward(forward)), |rule| {
            rule.condition.path = PathMatch::Prefix("/split".into());
        }),
    ];
    let host = changed(all(rules), |host| {
        host.request_edits = at("host");
        host.response_edits = at("host");
    });
    let calls = [
        get("/split"),
        get("/split")
            .header("x-append", "caller")
            .header("x-set", "caller")
            .header("x-set", "twice")
            .header("x-absent", "caller")
            .header("x-remove", "caller"),
        get("/split").script("cookies"),
        get("/split").script("close"),
        get("/missing"),
        get("/direct"),
        get("/redirect"),
        get("/no-route"),
    ];
    Group::hosts(name, [host], calls).table(|table| {
        table.request_edits = at("table");
        table.response_edits = at("table");
        table.most_specific_edits_win = reversed;
    })
}

fn modes() -> Group {
    let request = |path: &str, add: Vec<HeaderAdd>, remove: &[&str]| {
        with(rule(PathMatch::Prefix(path.into()), "a"), |rule| {
            rule.request_edits.add = add;
            rule.request_edits.remove = remove.iter().map(|name| name.parse().unwrap()).collect();
        })
    };
    let response = |path: &str, add: Vec<HeaderAdd>, remove: &[&str]| {
        with(rule(PathMatch::Prefix(path.into()), "a"), |rule| {
            rule.response_edits.add = add;
            rule.response_edits.remove = remove.iter().map(|name| name.parse().unwrap()).collect();
        })
    };
    let rules = [
        request("/twice", vec![append("x-m", "1"), append("x-m", "2")], &[]),
        request(
            "/set-append",
            vec![append("x-m", "1"), set("x-m", "2")],
            &[],
        ),
        request(
            "/append-set",
            vec![set("x-m", "2"), append("x-m", "1")],
            &[],
        ),
        request("/two-sets", vec![set("x-m", "1"), set("x-m", "2")], &[]),
        request(
            "/two-absents",
            vec![absent("x-m", "1"), absent("x-m", "2")],
            &[],
        ),
        request(
            "/append-absent",
            vec![append("x-m", "1"), absent("x-m", "2")],
            &[],
        ),
        request("/remove-add", vec![append("x-m", "1")], &["x-m"]),
        request("/remove-absent", vec![absent("x-m", "1")], &["x-m"]),
        request("/percent", vec![append("x-m", "100%")], &[]),
        request(
            "/known",
            vec![set("user-agent", "ours"), append("cookie", "c=1")],
            &["accept"],
        ),
        request(
            "/forwarded",
            vec![set("x-forwarded-proto", "wss")],
            &["x-request-id"],
        ),
        response(
            "/answer",
            vec![set("x-multi", "0"), append("set-cookie", "c=3")],
            &["x-backend"],
        ),
        response("/server", vec![set("server", "mine")], &["content-length"]),
        response(
            "/drop",
            vec![],
            &["set-cookie", "x-envoy-upstream-service-time"],
        ),
    ];
    let mut calls = Vec::new();
    for path in [
        "/twice",
        "/set-append",
        "/append-set",
        "/two-sets",
        "/two-absents",
        "/append-absent",
        "/remove-add",
        "/remove-absent",
        "/percent",
    ] {
        calls.push(get(path));
        calls.push(get(path).header("x-m", "caller"));
        calls.push(get(path).header("x-m", ""));
    }
    calls.extend([
        get("/known"),
        get("/known")
            .header("user-agent", "theirs")
            .header("cookie", "a=1")
            .header("accept", "*/*"),
        get("/known")
            .header("cookie", "a=1")
            .header("cookie", "b=2"),
        get("/forwarded"),
        get("/answer").script("cookies"),
        get("/server").script("cookies"),
        get("/server"),
        get("/drop").script("cookies"),
    ]);
    Group::rules("edit-modes", rules, calls)
}

fn templates() -> Group {
    let pieces = |pieces: Vec<Piece>| HeaderTemplate::Pieces(pieces);
    let text = |text: &str| Piece::Text(text.to_owned());
    let header = |name: &str| name.parse().unwrap();
    let every = |edits: &mut HeaderEdits| {
        let add = |name: &str, value| put(name, value, AddMode::Append);
        edits.add = vec![
            add("x-req", pieces(vec![Piece::RequestHeader(header("x-in"))])),
            add(
                "x-mixed",
                pieces(vec![
                    text("<"),
                    Piece::RequestHeader(header("x-in")),
                    text("|50%|"),
                    Piece::RequestHeader(header("x-none")),
                    text(">"),
                ]),
            ),
            add(
                "x-resp",
                pieces(vec![Piece::ResponseHeader(header("x-backend"))]),
            ),
            add("x-remote", pieces(vec![Piece::DownstreamRemoteAddress])),
            add(
                "x-remote-ip",
                pieces(vec![Piece::DownstreamRemoteAddressWithoutPort]),
            ),
            add("x-local", pieces(vec![Piece::DownstreamLocalAddress])),
            add("x-protocol", pieces(vec![Piece::Protocol])),
            add("x-code", pieces(vec![Piece::ResponseCode])),
            add("x-flags", pieces(vec![Piece::ResponseFlags])),
            add("x-details", pieces(vec![Piece::ResponseCodeDetails])),
            add("x-route", pieces(vec![Piece::RouteName])),
            add("x-upstream", pieces(vec![Piece::UpstreamHost])),
            add("x-cluster", pieces(vec![Piece::UpstreamCluster])),
        ];
    };
    let named = |name: &str, action: Action| {
        with(act(&format!("/{name}"), action), |rule| {
            rule.name = name.into();
            every(&mut rule.request_edits);
            every(&mut rule.response_edits);
        })
    };
    let rules = [
        named("forward", Action::Forward(Forward::to("a"))),
        named("missing", Action::Forward(Forward::to("missing"))),
        named("empty", Action::Forward(Forward::to("empty"))),
        named("direct", Action::Respond(Default::default())),
    ];
    let calls = [
        get("/forward"),
        get("/forward").header("x-in", "v"),
        get("/forward").header("x-in", "v").header("x-in", "w"),
        get("/forward").script("503"),
        get("/forward").script("close"),
        get("/missing").header("x-in", "v"),
        get("/empty"),
        get("/direct").header("x-in", "v"),
    ];
    Group::rules("templates", rules, calls)
}
