//! HTTP/1.1 as it may not be written, or hardly: framing, hop-by-hop headers, methods, targets, hosts,
//! upgrades, versions, limits, interim responses, and responses that have no body.
//!
//! Left out, because Envoy may close without a word: what comes at once behind a request with a fixed
//! answer. Left out, because it is a matter of time whether the upstream was asked: malformed chunks.

use super::usual_clusters;
use crate::config::{Config, Source};
use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

/// A request in parts, before it is written.
struct Raw {
    method: &'static str,
    target: String,
    version: &'static str,
    host: Option<&'static str>,
    script: &'static str,
    lines: Vec<String>,
    /// What says how long the body is, and the body.
    framing: (String, String),
}

/// Fields that are about one connection, in all the ways that they are written.
const HOP_BY_HOP: &[&str] = &[
    "connection: keep-alive",
    "connection: close",
    "Connection: Close",
    "connection: x-mine\r\nx-mine: 1",
    "connection: x-mine, close\r\nx-mine: 1",
    "connection: te\r\nte: trailers",
    "te: trailers",
    "te: gzip",
    "te: trailers, deflate",
    "keep-alive: timeout=5",
    "proxy-connection: keep-alive",
    "proxy-authorization: basic x",
    "trailer: x-after",
    "connection: upgrade",
    "connection: host",
    "connection: x-mine, Host\r\nx-mine: 1",
    "connection: x-forwarded-for",
    "connection: close, X-Forwarded-Proto",
    "connection: :path",
    "connection: a, b, c, d, e, f, g, h, i",
    "connection: a, b, c, d, e, f, g, h, i, j",
    "connection: x-mine,, ,x-mine\r\nx-mine: 1",
];

/// Wishes to go on in another protocol.
const UPGRADES: &[&str] = &[
    "connection: upgrade\r\nupgrade: h2c",
    "connection: Upgrade, http2-settings\r\nupgrade: H2C\r\nhttp2-settings: AAMAAABkAAQAAP__",
    "upgrade: h2c",
    "upgrade: foo",
    "connection: upgrade\r\nupgrade: bar",
    "connection: upgrade\r\nupgrade: h2c, bar",
    "connection: upgrade, x-mine\r\nupgrade: h2c\r\nx-mine: 1",
    "connection: upgrade, host\r\nupgrade: h2c",
    "connection: close, upgrade\r\nupgrade: h2c",
    "connection: upgrade\r\nupgrade: foo",
    "connection: upgrade\r\nUpgrade: Foo",
    "connection: upgrade\r\nupgrade: websocket",
];

/// Fields that are right, wrong, or nearly so.
const FIELDS: &[&str] = &[
    "x-a: 1",
    "x-a:1",
    "x-a:\t 1 \t",
    "x-a:",
    "x-a: a\tb",
    "x-a: \u{e9}\u{ff}",
    "x-a: \"q\" <b>",
    "X-Mixed-Case: V",
    "x_under: 1",
    "x-a!#$%&'*+.^`|~: 1",
    "x-a : 1",
    "x a: 1",
    "x-a",
    ": 1",
    "x(a): 1",
    "x-a: a\0b",
    "x-a: a\u{1}b",
    "x-a: a\u{7f}b",
    "x-\u{e9}: 1",
    "cookie: a=1\r\ncookie: b=2",
    "x-two: 1\r\nx-two: 2",
];

/// How long a body is said to be, and what it is. All of them are whole, or refused at once.
const FRAMING: &[(&str, &str)] = &[
    ("content-length: 4\r\n", "body"),
    ("content-length: 0\r\n", ""),
    ("Content-Length: 4\r\n", "body"),
    ("content-length: 04\r\n", "body"),
    ("content-length: 4\r\ncontent-length: 4\r\n", "body"),
    ("content-length: 4\r\ncontent-length: 5\r\n", "body"),
    ("content-length: 4, 4\r\n", "body"),
    ("content-length: +4\r\n", "body"),
    ("content-length: -4\r\n", "body"),
    ("content-length: 0x4\r\n", "body"),
    ("content-length: 4 4\r\n", "body"),
    ("content-length: four\r\n", "body"),
    ("content-length:\r\n", ""),
    ("content-length: 99999999999999999999\r\n", "body"),
    ("transfer-encoding: chunked\r\n", "4\r\nbody\r\n0\r\n\r\n"),
    (
        "transfer-encoding: chunked\r\n",
        "2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
    ),
    ("transfer-encoding: chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: Chunked\r\n", "4\r\nbody\r\n0\r\n\r\n"),
    ("transfer-encoding: chunked\r\n", "004\r\nbody\r\n0\r\n\r\n"),
    (
        "transfer-encoding: chunked\r\n",
        "4;a=b\r\nbody\r\n0\r\n\r\n",
    ),
    (
        "transfer-encoding: chunked\r\n",
        "4\r\nbody\r\n0\r\nx-after: 1\r\n\r\n",
    ),
    ("transfer-encoding: gzip\r\n", ""),
    ("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: chunked, chunked\r\n", "0\r\n\r\n"),
    ("transfer-encoding: identity\r\n", ""),
    (
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "0\r\n\r\n",
    ),
    (
        "content-length: 4\r\ntransfer-encoding: chunked\r\n",
        "4\r\nbody\r\n0\r\n\r\n",
    ),
    (
        "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        "4\r\nbody\r\n0\r\n\r\n",
    ),
];

const TARGETS: &[&str] = &[
    "/",
    "/a/b?c=d",
    "/a?",
    "/?a?b",
    "/a%20b",
    "/a%zz",
    "/%00",
    "/a;b=c",
    "/a//b",
    "http://other.test/x",
    "HTTP://other.test/x",
    "http://other.test",
    "http://other.test:80/x?y",
    "https://other.test/x",
    "/a|b",
    "/a{b}",
    "/[a]",
    "a",
    "mesh.test:80",
    "/\u{e9}",
    "/\u{c3}\u{a9}",
    "/a?\u{ff}",
    "http://other.test/\u{c3}\u{a9}",
    "ftp://other.test/x",
];

const METHODS: &[&str] = &[
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE",
];

/// Methods that few know, and that nobody does.
const RARE_METHODS: &[&str] = &[
    "ACL",
    "MSEARCH",
    "PROPFIND",
    "PURGE",
    "UNSUBSCRIBE",
    "FOO",
    "get",
    "GETX",
    "M-SEARCH",
    "PUT!",
    "VERSION-CONTROL",
];

/// Methods with targets of forms that only some of them take.
const FORMS: &[(&str, &str)] = &[
    ("OPTIONS", "*"),
    ("GET", "*"),
    ("POST", "*"),
    ("OPTIONS", "http://other.test"),
    ("CONNECT", "mesh.test:80"),
    ("CONNECT", "mesh.test"),
    ("CONNECT", "/"),
    ("CONNECT", "*"),
    ("CONNECT", "http://other.test/"),
];

const HOSTS: &[Option<&str>] = &[
    None,
    Some("MESH.test"),
    Some("mesh.test:80"),
    Some("[::1]:80"),
    Some("a_b.test"),
    Some("mesh.test:x"),
];

const NO_HOSTS: &[&str] = &[
    "a/b", "a b", "a\u{e9}", "a<b", "a?b", "a#b", "a|b", "a\\b", "a\"b",
];

/// Something that has to be tried: its name, and how a request that does is known.
type Kind = (&'static str, fn(&str) -> bool);

/// How often a request is drawn until it is of a kind. The rarest kind is one of two hundred.
const TRIES: usize = 2_000;

pub(crate) const KINDS: &[Kind] = &[
    ("upgrade to h2c", |raw| holds(raw, "upgrade: h2c")),
    ("another upgrade", |raw| holds(raw, "upgrade: bar")),
    ("upgrade that may pass", |raw| {
        holds(raw, "upgrade\r\nupgrade: foo")
    }),
    ("upgrade that is late", |raw| {
        holds(raw, "upgrade: websocket") && holds(raw, "x-script: hang")
    }),
    ("rare method", |raw| starts(raw, &RARE_METHODS[..5])),
    ("unknown method", |raw| starts(raw, &RARE_METHODS[5..])),
    ("target *", |raw| holds(raw, " * http/1.1")),
    ("tunnel", |raw| raw.starts_with("CONNECT ")),
    ("no host", |raw| !holds(raw, "\r\nhost: ")),
    ("bad host", |raw| {
        let bad = |host: &&str| holds(raw, &format!("\r\nhost: {host}\r\n"));
        NO_HOSTS.iter().any(bad)
    }),
    ("connection names host", |raw| {
        holds(raw, "connection: host") || holds(raw, ", host\r\n")
    }),
    ("connection names too much", |raw| {
        holds(raw, "connection: x-forwarded") || holds(raw, "h, i, j\r\n")
    }),
    ("bytes above 127 in a target", |raw| {
        let line = raw.lines().next().unwrap_or_default();
        !line.is_ascii()
    }),
    ("interim responses", |raw| {
        holds(raw, "x-script: interim") || holds(raw, "x-script: early")
    }),
];

const VERSIONS: &[&str] = &[
    "HTTP/1.0",
    "HTTP/1.1",
    "HTTP/1.2",
    "HTTP/2.0",
    "HTTP/3.0",
    "http/1.1",
    "HTTP/1",
    "HTTPS/1.1",
    "HTTP/1.1x",
];

const SCRIPTS: &[&str] = &[
    "200",
    "204",
    "304",
    "404",
    "chunked",
    "trailers",
    "until-close",
    "cookies",
    "interim",
    "early",
];

pub(super) fn generate(dice: &mut Dice, requests: usize) -> Config {
    // No backend answers with 101.
    let mut to = json!({"cluster": "$a"});
    if dice.chance(40) {
        to["upgrade_configs"] = json!([
            {"upgrade_type": "foo", "enabled": dice.chance(50)},
            {"upgrade_type": "Bar", "enabled": dice.chance(30)},
        ]);
    }
    if dice.chance(40) {
        to["retry_policy"] = json!({"retry_on": "5xx", "num_retries": 1});
    }
    let upgrades = ["foo", "bar", "websocket"].map(|kind| json!({"upgrade_type": kind}));
    let late = json!({"cluster": "$a", "timeout": "0.250s"});
    let routes = json!([
        {
            "name": "fixed",
            "match": {"prefix": "/fixed"},
            "direct_response": {"status": 200, "body": {"inline_string": "fixed"}},
        },
        {"name": "late", "match": {"prefix": "/late"}, "route": late},
        {"name": "to-a", "match": {"prefix": "/"}, "route": to},
    ]);
    let mut manager = json!({"route_config": {"virtual_hosts": [
        {"name": "v0", "domains": ["*"], "routes": routes},
    ]}});
    if dice.chance(60) {
        manager["upgrade_configs"] = json!(upgrades);
    }
    let fields = dice.chance(30).then(|| dice.between(10, 40));
    if let Some(fields) = fields {
        manager["common_http_protocol_options"] = json!({"max_headers_count": fields});
    }
    let kib = dice.chance(30).then(|| dice.between(1, 16));
    if let Some(kib) = kib {
        manager["max_request_headers_kb"] = json!(kib);
    }
    let limits = (kib.unwrap_or(60) << 10, fields.unwrap_or(100));
    let calls = calls(dice, requests, limits);
    Config {
        area: "protocol",
        source: Source {
            manager,
            clusters: Value::Array(usual_clusters()),
        },
        calls,
    }
}

/// One of each kind first, as far as there is room for as many others: what is rare by chance has to
/// be tried, too.
fn calls(dice: &mut Dice, requests: usize, limits: (usize, usize)) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::with_capacity(requests);
    for (_, is) in KINDS.iter().take(requests / 2) {
        let mut drawn = (0..TRIES).map(|_| call(dice, limits));
        calls.extend(drawn.find(|call| call.raw.as_deref().is_some_and(is)));
    }
    while calls.len() < requests {
        calls.push(call(dice, limits));
    }
    calls
}

fn call(dice: &mut Dice, (most_bytes, most_fields): (usize, usize)) -> Call {
    let mut raw = Raw {
        method: dice.pick(&["GET", "POST", "HEAD", "PUT"]),
        target: dice.pick(&["/", "/x?y=1", "/fixed"]).into(),
        version: "HTTP/1.1",
        host: Some("mesh.test"),
        script: dice.pick(SCRIPTS),
        lines: Vec::new(),
        framing: Default::default(),
    };
    if matches!(raw.method, "POST" | "PUT") {
        raw.framing = owned(dice.pick(&FRAMING[..3]));
    }
    // One: of two faults either may be found first.
    oddity(dice, &mut raw, most_bytes, most_fields);
    let mut call = Call::get(&raw.target);
    call.method = raw.method.into();
    // What is compared of a body depends on whether there is one.
    call.body.clone_from(&raw.framing.1);
    call.raw = Some(raw.write());
    if raw.target != "/fixed" && dice.chance(25) {
        let pipelined = dice.between(1, 3);
        call.then = (0..pipelined).map(|_| follower(dice)).collect();
    }
    call
}

/// A request that is sent behind another, before that is answered (RFC 9112 §9.3.2).
fn follower(dice: &mut Dice) -> String {
    let mut raw = Raw {
        method: dice.pick(&["GET", "POST", "HEAD"]),
        target: dice.pick(&["/", "/then?y=1"]).into(),
        version: "HTTP/1.1",
        host: Some("mesh.test"),
        script: "200",
        lines: Vec::new(),
        framing: Default::default(),
    };
    if raw.method == "POST" {
        raw.framing = owned(dice.pick(&[FRAMING[0], FRAMING[14]]));
    }
    match dice.below(8) {
        0 => raw.host = None,
        1 => raw.version = "HTTP/1.0",
        2 => raw.lines.push("connection: close".into()),
        3 => raw.version = "HTTP/1.1x",
        _ => {}
    }
    raw.write()
}

/// Makes one thing about a request unusual.
fn oddity(dice: &mut Dice, raw: &mut Raw, most_bytes: usize, most_fields: usize) {
    match dice.below(16) {
        0 | 1 => raw.lines.push(dice.pick(HOP_BY_HOP).into()),
        2 | 3 => raw.lines.push(dice.pick(FIELDS).into()),
        4 | 5 => {
            raw.method = dice.pick(&["POST", "PUT"]);
            raw.framing = owned(dice.pick(FRAMING));
        }
        6 => raw.target = dice.pick(TARGETS).into(),
        7 => raw.method = dice.pick(METHODS),
        8 => raw.version = dice.pick(VERSIONS),
        9 => raw.host = dice.pick(HOSTS),
        12 => raw.host = Some(dice.pick(NO_HOSTS)),
        13 => {
            raw.lines.push(dice.pick(UPGRADES).into());
            // Envoy holds a body back until the upgrade is answered.
            raw.framing = Default::default();
            match dice.below(6) {
                0 => raw.script = dice.pick(&["503,200", "503"]),
                1 => {
                    // The time until an answer is bounded for this one alone.
                    raw.lines = vec!["connection: upgrade\r\nupgrade: WebSocket".into()];
                    (raw.target, raw.script) = ("/late".into(), "hang");
                }
                _ => {}
            }
        }
        14 => {
            raw.method = dice.pick(RARE_METHODS);
            raw.framing = Default::default();
        }
        15 => {
            let (method, target) = dice.pick(FORMS);
            (raw.method, raw.target) = (method, target.into());
            raw.framing = Default::default();
        }
        10 => {
            // Clear of the limit on either side: how a field counts is nobody's business.
            let near = if dice.chance(50) {
                most_bytes / 2
            } else {
                2 * most_bytes
            };
            if dice.chance(50) {
                raw.target = format!("/{}", "p".repeat(near));
            } else {
                raw.lines.push(format!("x-long: {}", "v".repeat(near)));
            }
        }
        _ => {
            let near = if dice.chance(50) {
                most_fields / 2
            } else {
                most_fields + 20
            };
            let many = (0..near).map(|n| format!("x-{n}: {n}"));
            raw.lines.push(many.collect::<Vec<_>>().join("\r\n"));
        }
    }
}

fn holds(raw: &str, what: &str) -> bool {
    raw.to_ascii_lowercase().contains(what)
}

fn starts(raw: &str, methods: &[&str]) -> bool {
    let method = raw.split(' ').next();
    method.is_some_and(|method| methods.contains(&method))
}

fn owned((length, body): (&str, &str)) -> (String, String) {
    (length.to_owned(), body.to_owned())
}

// === impl Raw ===

impl Raw {
    fn write(&self) -> String {
        let Self {
            method,
            target,
            version,
            script,
            framing: (length, body),
            ..
        } = self;
        let mut text = format!("{method} {target} {version}\r\n");
        if let Some(host) = self.host {
            text += &format!("host: {host}\r\n");
        }
        text += &format!("x-case: {{case}}\r\nx-script: {script}\r\n");
        for line in &self.lines {
            text += line;
            text += "\r\n";
        }
        text + length + "\r\n" + body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_generated_and_few_requests_are_of_it() {
        let calls = generate(&mut Dice::of(1, 0), 2000).calls;
        let raws: Vec<String> = calls.into_iter().filter_map(|call| call.raw).collect();
        for (kind, is) in KINDS {
            let times = raws.iter().filter(|raw| is(raw)).count();
            assert!((5..600).contains(&times), "{kind}: {times}");
        }
    }
}
