//! What services say that are asked whether a request may go on: `x-asked` names it.

use crate::wire::Message;

/// Who is asked over gRPC, and over HTTP.
pub(super) const ASKED: [&str; 2] = ["y", "z"];

/// Where questions go over gRPC.
pub(super) const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// An answer of HTTP/1.1; none where there is none.
pub(super) fn answer(word: &str) -> Option<String> {
    let of = |status: &str, headers: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
    };
    Some(match word {
        "allow-edit" => of(
            "200 OK",
            "x-up: 1\r\nx-up: 2\r\nx-set-a: s\r\nx-more: 1\r\nx-down: d\r\nx-edit-down: e\r\n\
             x-envoy-auth-headers-to-remove: x-gone, host\r\n",
            "",
        ),
        "deny" => of("401 Unauthorized", "www-authenticate: Basic\r\n", "who?"),
        "deny-much" => of(
            "429 Too Many Requests",
            "content-type: application/x\r\nx-why: a\r\nx-why: b\r\nx-other: c\r\n",
            "much",
        ),
        "deny-302" => of("302 Found", "location: /login\r\nset-cookie: a=b\r\n", ""),
        "deny-201" => of("201 Created", "", ""),
        "error" => of("503 Service Unavailable", "x-why: down\r\n", "down"),
        "broken" => return None,
        _ => of("200 OK", "", ""),
    })
}

/// A `CheckResponse`; none where the call itself fails.
pub(super) fn message(word: &str) -> Option<Vec<u8>> {
    let denied = |code: u64, rest: Vec<u8>| {
        [
            field(1, &number(1, 7)),
            field(2, &[field(1, &number(1, code)), rest].concat()),
        ]
        .concat()
    };
    let ok = field(1, &[]);
    Some(match word {
        "allow-edit" => {
            let edits = [
                field(2, &option("x-up", "1", &[])),
                field(2, &option("x-up", "2", &[])),
                field(2, &option("x-more", "1", &field(2, &number(1, 1)))),
                field(2, &option("x-none", "1", &field(2, &number(1, 1)))),
                field(2, &option("x-set-a", "s", &number(3, 2))),
                field(5, b"x-gone"),
                field(5, b"host"),
                field(6, &option("x-down", "d", &[])),
                field(6, &option("x-down", "e", &[])),
                field(6, &option("x-edit", "set", &field(2, &[]))),
                field(7, &[field(1, b"q"), field(2, b"v")].concat()),
            ];
            [ok, field(3, &edits.concat())].concat()
        }
        "deny" => denied(
            401,
            [
                field(2, &option("www-authenticate", "Basic", &[])),
                field(3, b"who?"),
            ]
            .concat(),
        ),
        "deny-much" => denied(
            429,
            [
                field(2, &option("content-type", "application/x", &[])),
                field(2, &option("x-why", "a", &[])),
                field(2, &option("x-why", "b", &[])),
                field(2, &option("x-late", "c", &field(2, &number(1, 1)))),
                field(3, b"much"),
            ]
            .concat(),
        ),
        "deny-302" => denied(302, field(2, &option("location", "/login", &[]))),
        "deny-201" => denied(201, Vec::new()),
        "deny-plain" => field(1, &number(1, 7)),
        "say-error" => [
            field(1, &number(1, 13)),
            field(5, &[field(1, &number(1, 502)), field(3, b"said")].concat()),
        ]
        .concat(),
        "empty" => Vec::new(),
        "broken" => vec![0xff],
        "error" => return None,
        _ => ok,
    })
}

fn option(name: &str, value: &str, rest: &[u8]) -> Vec<u8> {
    let header = [field(1, name.as_bytes()), field(2, value.as_bytes())].concat();
    [field(1, &header), rest.to_vec()].concat()
}

fn field(at: u8, bytes: &[u8]) -> Vec<u8> {
    [
        &varint(u64::from(at << 3 | 2)),
        &varint(bytes.len() as u64),
        bytes,
    ]
    .concat()
}

fn number(at: u8, value: u64) -> Vec<u8> {
    [varint(u64::from(at << 3)), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// What a `CheckRequest` in its frame tells, in place of the message that it came in.
pub(super) fn told(mut message: Message) -> Message {
    let framed = std::mem::take(&mut message.body);
    message.headers.retain(|(name, _)| name == ":authority");
    let told = framed.get(5..).unwrap_or_default();
    walk(told, &mut Vec::new(), &mut message);
    // Maps have no order.
    message.headers.sort();
    message
}

/// The way to a field, and what it is told as.
const FIELDS: &[(&[u64], &str)] = &[
    (&[1, 1, 1, 1, 2], "(source)"),
    (&[1, 1, 4], "(principal)"),
    (&[1, 2, 1, 1, 2], "(destination)"),
    (&[1, 2, 1, 1, 3], "(destination port)"),
    (&[1, 4, 2, 2], "(method)"),
    (&[1, 4, 2, 4], "(path)"),
    (&[1, 4, 2, 5], "(host)"),
    (&[1, 4, 2, 6], "(scheme)"),
    (&[1, 4, 2, 9], "(size)"),
    (&[1, 4, 2, 10], "(protocol)"),
    (&[1, 4, 2, 11], "(body)"),
    (&[1, 4, 2, 12], "(raw body)"),
];
/// An entry of the map of headers.
const HEADER: &[u64] = &[1, 4, 2, 3];
/// An entry of the map of what routes tell.
const CONTEXT: &[u64] = &[1, 10];

fn walk(mut bytes: &[u8], way: &mut Vec<u64>, message: &mut Message) {
    while let Some((key, rest)) = read(bytes) {
        way.push(key >> 3);
        let known = FIELDS.iter().find(|(at, _)| *at == &way[..]);
        let (value, after) = match key & 7 {
            0 => match read(rest) {
                Some((value, after)) => (value.to_string().into_bytes(), after),
                None => return,
            },
            2 => match read(rest).and_then(|(length, rest)| rest.split_at_checked(length as usize))
            {
                Some((value, after)) => (value.to_vec(), after),
                None => return,
            },
            _ => return,
        };
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if let Some((_, name)) = known {
            message.headers.push(((*name).to_owned(), text(&value)));
        } else if *way == HEADER {
            let name = inner(&value, 1);
            message.headers.push((text(name), text(inner(&value, 2))));
        } else if *way == CONTEXT {
            let name = format!("(context {})", text(inner(&value, 1)));
            message.headers.push((name, text(inner(&value, 2))));
        } else if key & 7 == 2 && FIELDS.iter().any(|(at, _)| at.starts_with(way))
            || HEADER.starts_with(way)
            || CONTEXT.starts_with(way)
        {
            walk(&value, way, message);
        }
        way.pop();
        bytes = after;
    }
}

/// A field of bytes in a message that has nothing else.
fn inner(mut bytes: &[u8], wanted: u64) -> &[u8] {
    while let Some((key, rest)) = read(bytes) {
        let split = read(rest).and_then(|(length, rest)| rest.split_at_checked(length as usize));
        let Some((value, after)) = split else { break };
        if key >> 3 == wanted {
            return value;
        }
        bytes = after;
    }
    b""
}

fn read(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[at + 1..]));
        }
    }
    None
}
