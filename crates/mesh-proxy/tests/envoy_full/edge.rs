//! What is done to a request's head before it is routed.

use super::*;
use mesh_core::model::EscapedSlashes;
use std::time::Duration;

pub(super) fn groups() -> Vec<Group> {
    vec![
        inside(),
        outside("outside", 0, false),
        outside("outside-keeps-ids", 0, true),
        outside("one-hop", 1, false),
        outside("two-hops", 2, false),
        characters("characters", |_| {}),
        characters("characters-kept", |manager| manager.path.normalize = false),
        paths("path-kept", |manager| manager.path.normalize = false),
        paths("path-normal", |_| {}),
        paths("path-merged", |manager| manager.path.merge_slashes = true),
        paths("path-decoded", |manager| {
            manager.path.merge_slashes = true;
            manager.path.escaped_slashes = EscapedSlashes::Decode;
        }),
        paths("path-rejected", |manager| {
            manager.path.escaped_slashes = EscapedSlashes::Reject;
        }),
        paths("path-redirected", |manager| {
            manager.path.escaped_slashes = EscapedSlashes::Redirect;
        }),
        heads(),
        limits(),
        upgrades(),
    ]
}

fn forwarded() -> Vec<Draft> {
    let id = "11111111-2222-4333-8444-555555555555";
    vec![
        get("/"),
        get("/").header("x-forwarded-for", "1.2.3.4"),
        get("/").header("x-forwarded-for", "1.2.3.4, 10.0.0.1"),
        get("/")
            .header("x-forwarded-for", "1.2.3.4")
            .header("x-forwarded-for", "5.6.7.8"),
        get("/").header("x-forwarded-for", "10.0.0.1"),
        get("/").header("x-forwarded-for", "nonsense"),
        get("/").header("x-forwarded-for", "1.2.3.4,nonsense"),
        get("/").header("x-forwarded-for", ""),
        get("/").header("x-forwarded-for", "::1"),
        get("/").header("x-forwarded-proto", "https"),
        get("/").header("x-forwarded-proto", "HTTPS"),
        get("/").header("x-forwarded-proto", "ftp"),
        get("/").header("x-forwarded-proto", ""),
        get("/")
            .header("x-forwarded-host", "theirs")
            .header("x-forwarded-port", "1"),
        get("/").header("x-request-id", id),
        get("/").header("x-request-id", "short"),
        get("/").header("x-request-id", ""),
        get("/").header("x-envoy-internal", "true"),
        get("/").header("x-envoy-external-address", "9.9.9.9"),
        get("/").header("x-envoy-force-trace", "1"),
        get("/").header("x-envoy-upstream-rq-timeout-ms", "3000"),
        get("/").header("x-envoy-decorator-operation", "op"),
        get("/")
            .header("x-envoy-downstream-service-cluster", "c")
            .header("user-agent", "u"),
        get("/")
            .header("x-envoy-peer-metadata", "bWV0YQ==")
            .header("x-envoy-peer-metadata-id", "i"),
        get("/")
            .header("x-envoy-original-path", "/o")
            .header("x-envoy-ip-tags", "t"),
        get("/").header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        get("/")
            .header("x-b3-traceid", "463ac35c9f6413ad")
            .header("b3", "0"),
        get("/")
            .header("forwarded", "for=1.2.3.4")
            .header("via", "1.1 x"),
        get("/").script("503,200").header("x-envoy-retry-on", "5xx"),
    ]
}

fn inside() -> Group {
    Group::plain("inside", forwarded())
}

fn outside(name: &'static str, hops: u32, keep: bool) -> Group {
    Group::plain(name, forwarded()).managed(|manager| {
        manager.use_remote_address = true;
        manager.trusted_hops = hops;
        manager.keep_external_request_id = keep;
    })
}

fn paths(name: &'static str, change: impl FnOnce(&mut HttpManager)) -> Group {
    let calls = gets([
        "/a//b",
        "//a",
        "/a/./b",
        "/a/../b",
        "/../a",
        "/a/..",
        "/a/.",
        "/a/../../b",
        "/a%2fb",
        "/a%2Fb%5cc",
        "/a%2e%2e/b",
        "/a/%2e%2e/b",
        "/%61%7e%41",
        "/a%20b",
        "/a%7Cb",
        "/a\\b",
        "/a/b?c=/../d//e",
        "/a/b?c=%2f",
        "/a%00b",
        "/a%",
        "/a%2",
        "/a%zz",
        "/a/...",
        "/.a/..b",
        "/a;x/../b",
        "/a/%2e",
        "/a#b/../c",
        "/a/?",
        "/?a",
        "/a%2f..%2fb",
        "/a%252fb",
        "/a%2fb?q=%2F",
    ]);
    let asterisk = Draft::from_line("OPTIONS *");
    Group::plain(name, calls.into_iter().chain([asterisk])).managed(change)
}

/// Each character of ASCII that can stand in a path, as it is and escaped, in a path and a query.
fn characters(name: &'static str, change: impl FnOnce(&mut HttpManager)) -> Group {
    let mut calls = Vec::new();
    for byte in 0x20..0x7f_u8 {
        let c = char::from(byte);
        if !c.is_ascii_alphanumeric() && !" #?/".contains(c) {
            calls.push(get(&format!("/p{c}q?a{c}b")));
        }
    }
    for byte in (1..0x30)
        .chain(0x3a..0x42)
        .chain(0x5a..0x62)
        .chain(0x7a..=0xff_u8)
    {
        calls.push(get(&format!("/p%{byte:02x}q?a%{byte:02x}b")));
    }
    Group::plain(name, calls).managed(change)
}

fn heads() -> Group {
    let calls = vec![
        get("/").host(""),
        get("/").host("bad host"),
        get("/").host("a/b"),
        get("/").host("a:b"),
        get("/").header("connection", "close"),
        get("/")
            .header("connection", "x-hop, keep-alive")
            .header("x-hop", "1"),
        get("/")
            .header("connection", "x-hop")
            .header("keep-alive", "timeout=5"),
        get("/")
            .header("proxy-connection", "keep-alive")
            .header("te", "trailers"),
        get("/").header("te", "gzip"),
        get("/").header("te", "trailers, deflate"),
        get("/")
            .header("X-Mixed-Case", "Value")
            .header("x_under", "1"),
        get("/").header("x-latin", "caf\u{e9}"),
        get("/").header("x-spaces", "  a  b  "),
        get("/").header("x-dup", "1").header("X-Dup", "2"),
        get("/").header("x-empty", ""),
        get("/").header("content-length", "-1"),
        get("/").header("content-length", "+1"),
        get("/").header("transfer-encoding", "identity"),
        get("/").header("transfer-encoding", "gzip"),
        get("/").header("transfer-encoding", "gzip, chunked"),
        get("/").header(":path", "/forged"),
        get("/").header("bad name", "1"),
        get("/")
            .header("x-script", "200")
            .header("x-backend", "forged"),
        send("TRACE", "/"),
        send("CONNECT", "mesh:80"),
        send("PATCH", "/"),
        send("PROPFIND", "/"),
    ];
    Group::plain("heads", calls)
        .raw("no host", b"GET / HTTP/1.1\r\n\r\n")
        .raw("two hosts", b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n")
        .raw("the same host twice", b"GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n")
        .raw("HTTP/1.0", b"GET / HTTP/1.0\r\nhost: mesh\r\n\r\n")
        .raw("HTTP/1.0 without host", b"GET / HTTP/1.0\r\n\r\n")
        .raw("HTTP/0.9", b"GET /\r\n\r\n")
        .raw("HTTP/1.2", b"GET / HTTP/1.2\r\nhost: mesh\r\n\r\n")
        .raw("HTTP/3.0", b"GET / HTTP/3.0\r\nhost: mesh\r\n\r\n")
        .raw("a space before the colon", b"GET / HTTP/1.1\r\nhost: mesh\r\nx-a : 1\r\n\r\n")
        .raw("a folded line", b"GET / HTTP/1.1\r\nhost: mesh\r\nx-a: 1\r\n 2\r\n\r\n")
        .raw("bare line feeds", b"GET / HTTP/1.1\nhost: mesh\n\n")
        .raw("a NUL in a value", b"GET / HTTP/1.1\r\nhost: mesh\r\nx-a: \0\r\n\r\n")
        .raw("a control character in a value", b"GET / HTTP/1.1\r\nhost: mesh\r\nx-a: \x01\r\n\r\n")
        .raw("no target", b"GET  HTTP/1.1\r\nhost: mesh\r\n\r\n")
        .raw("a target without slash", b"GET x HTTP/1.1\r\nhost: mesh\r\n\r\n")
        .raw("a lower case version", b"GET / http/1.1\r\nhost: mesh\r\n\r\n")
        .raw("an empty line first", b"\r\nGET / HTTP/1.1\r\nhost: mesh\r\n\r\n")
        .raw("two lengths", b"POST / HTTP/1.1\r\nhost: mesh\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab")
        .raw("the same length twice", b"POST / HTTP/1.1\r\nhost: mesh\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na")
        .raw("a length and chunks", b"POST / HTTP/1.1\r\nhost: mesh\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
        .raw("a bad chunk", b"POST / HTTP/1.1\r\nhost: mesh\r\ntransfer-encoding: chunked\r\n\r\nzz\r\na\r\n0\r\n\r\n")
        .raw("chunk extensions", b"POST / HTTP/1.1\r\nhost: mesh\r\ntransfer-encoding: chunked\r\n\r\n1;a=b\r\na\r\n0\r\n\r\n")
        .raw("garbage", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not http\r\n\r\n")
}

fn limits() -> Group {
    let mut many = get("/");
    for n in 0..40 {
        many = many.header(&format!("x-{n}"), "1");
    }
    let calls = [
        get("/").header("x-large", &"a".repeat(9_000)),
        get("/").header("x-large", &"a".repeat(30_000)),
        get(&format!("/{}", "a".repeat(9_000))),
        get(&format!("/{}", "a".repeat(30_000))),
        many,
    ];
    let mut group = Group::plain("limits", calls).managed(|manager| {
        manager.max_head_kib = 16;
        manager.max_headers = 30;
        manager.request_timeout = Some(Duration::from_secs(3));
    });
    for call in &mut group.calls {
        call.label.truncate(40);
    }
    let short = b"POST / HTTP/1.1\r\nhost: mesh\r\ncontent-length: 9\r\n\r\nabc";
    group = group.raw("a body that does not come", short);
    group.calls.last_mut().unwrap().cut = true;
    group
}

fn upgrades() -> Group {
    let upgrade = |to: &str| {
        get("/")
            .header("connection", "Upgrade")
            .header("upgrade", to)
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let calls = [
        upgrade("websocket").script("switch"),
        upgrade("WebSocket").script("switch"),
        upgrade("websocket").script("200"),
        upgrade("websocket").script("403"),
        upgrade("websocket").script("close"),
        upgrade("h2c"),
        upgrade("other"),
        get("/").header("upgrade", "websocket"),
    ];
    Group::plain("upgrades", calls)
}
