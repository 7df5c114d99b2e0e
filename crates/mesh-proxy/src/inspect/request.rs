//! HTTP in plain text: the preface of HTTP/2, or a request line of HTTP/1.
//!
//! What counts as a request line is what Envoy's `http_inspector` takes: any method, whitespace of
//! any kind, no version or any version. Unlike there, what cannot become one is told before the
//! line ends.

use super::Look;

/// A version of HTTP in plain text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Plain {
    /// HTTP/1.0, or any other number, or none.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 with prior knowledge.
    Http2,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Looks for HTTP in a connection's first bytes.
pub fn http(bytes: &[u8]) -> Look<Plain> {
    if bytes.starts_with(PREFACE) {
        return Look::Yes(Plain::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return Look::Incomplete;
    }
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let line = &bytes[..end.unwrap_or(bytes.len())];
    // Nothing that is no text can follow in any part of the line.
    let method = line.iter().position(|byte| is_space(*byte));
    let method = &line[..method.unwrap_or(line.len())];
    let begins = !method.is_empty() || bytes.is_empty();
    if !begins
        || !method.iter().all(|byte| is_token(*byte))
        || line.iter().any(|byte| *byte >= 0x7f)
    {
        return Look::No;
    }
    if end.is_none() {
        return Look::Incomplete;
    }
    let rest = trim_end(&line[method.len()..]);
    let Some(start) = rest.iter().position(|byte| !is_space(*byte)) else {
        return Look::No;
    };
    let rest = &rest[start..];
    let split = rest.iter().position(|byte| is_space(*byte));
    let (target, version) = rest.split_at(split.unwrap_or(rest.len()));
    let start = version.iter().position(|byte| !is_space(*byte));
    let version = &version[start.unwrap_or(version.len())..];
    if !is_target(target, method == b"CONNECT") {
        return Look::No;
    }
    match version {
        b"HTTP/1.1" => Look::Yes(Plain::Http11),
        b"" => Look::Yes(Plain::Http10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Look::Yes(Plain::Http10)
        }
        _ => Look::No,
    }
}

fn trim_end(bytes: &[u8]) -> &[u8] {
    let last = bytes.iter().rposition(|byte| !is_space(*byte));
    &bytes[..last.map_or(0, |last| last + 1)]
}

fn is_space(byte: u8) -> bool {
    byte <= b' '
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A path, `*`, or an absolute form; for CONNECT also a host and port.
fn is_target(target: &[u8], connect: bool) -> bool {
    match target {
        [] => false,
        [b'/' | b'*', ..] => true,
        _ if connect => is_authority(target),
        _ => {
            let scheme = target.iter().position(|byte| !byte.is_ascii_alphabetic());
            let (scheme, rest) = target.split_at(scheme.unwrap_or(target.len()));
            !scheme.is_empty() && rest.strip_prefix(b"://").is_some_and(is_authority)
        }
    }
}

fn is_authority(text: &[u8]) -> bool {
    let end = text.iter().position(|byte| b"/?".contains(byte));
    let host = &text[..end.unwrap_or(text.len())];
    let is_of_host =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=@[]_~".contains(byte);
    host.iter().all(is_of_host) && !host.windows(2).any(|pair| pair == b"@@")
}

// === impl Plain ===

impl Plain {
    /// The version as filter chains name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "http/1.0",
            Self::Http11 => "http/1.1",
            Self::Http2 => "h2c",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn look(text: &str) -> Option<&'static str> {
        match http(text.as_bytes()) {
            Look::Yes(plain) => Some(plain.as_str()),
            Look::No => None,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    /// What Envoy 1.40 says of the same bytes, each tried.
    #[test]
    fn a_request_line_is_what_envoy_takes_for_one() {
        for (line, expected) in [
            ("GET / HTTP/1.1\r\n", Some("http/1.1")),
            ("GET / HTTP/1.1\n", Some("http/1.1")),
            ("GET / HTTP/1.0\r\n", Some("http/1.0")),
            ("GET / HTTP/2.0\r\n", Some("http/1.0")),
            ("GET / HTTP/1.2\r\n", Some("http/1.0")),
            ("GET /\r\n", Some("http/1.0")),
            ("FOO / HTTP/1.1\r\n", Some("http/1.1")),
            ("get / HTTP/1.1\r\n", Some("http/1.1")),
            ("M-SEARCH * HTTP/1.1\r\n", Some("http/1.1")),
            ("GET  / HTTP/1.1\r\n", Some("http/1.1")),
            ("GET / HTTP/1.1 \r\n", Some("http/1.1")),
            ("GET /\tHTTP/1.1\r\n", Some("http/1.1")),
            ("GET /\u{1} HTTP/1.1\r\n", Some("http/1.1")),
            ("GET * HTTP/1.1\r\n", Some("http/1.1")),
            ("GET http://a/ HTTP/1.1\r\n", Some("http/1.1")),
            ("CONNECT a:1 HTTP/1.1\r\n", Some("http/1.1")),
            ("CONNECT / HTTP/1.1\r\n", Some("http/1.1")),
            ("GET / x HTTP/1.1\r\n", None),
            ("\r\nGET / HTTP/1.1\r\n", None),
            ("\nGET / HTTP/1.1\r\n", None),
            ("\tGET / HTTP/1.1\r\n", None),
            ("GET / http/1.1\r\n", None),
            ("GET / HTTP/1.1x\r\n", None),
            ("GET foo HTTP/1.1\r\n", None),
            ("GET ? HTTP/1.1\r\n", None),
            ("GET /a\u{e9} HTTP/1.1\r\n", None),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some("h2c")),
            ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Some("http/1.0")),
        ] {
            assert_eq!(look(line), expected, "{line:?}");
        }
    }

    #[test]
    fn what_may_become_a_request_line_is_waited_for() {
        for bytes in [
            &b""[..],
            b"P",
            b"PRI * HTTP/2.0\r\n",
            b"GET",
            b"X",
            b"GET / HTTP/1.1",
            b"GET / HTTP/1.1\r",
        ] {
            assert_eq!(http(bytes), Look::Incomplete, "{bytes:?}");
        }
    }

    #[test]
    fn what_cannot_become_a_request_line_is_told_at_once() {
        for bytes in [
            &b"\0"[..],
            b"\x16\x03\x01",
            b" GET",
            b"{\"a\"",
            b"GET /\xff",
            b"\x80",
        ] {
            assert_eq!(http(bytes), Look::No, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_verdict(
            bytes in prop_oneof![
                any::<Vec<u8>>(),
                "(GET|PRI|CONNECT|x)?[ \t]?(/|\\*|http://|a:1)?[ -~]{0,5} ?(HTTP/[0-9]\\.[0-9])?(\r|\n|\r\n)?.{0,4}"
                    .prop_map(String::into_bytes),
                (0..PREFACE.len()).prop_map(|end| PREFACE[..end].to_vec()),
            ],
        ) {
            let whole = http(&bytes);
            for end in 0..bytes.len() {
                let part = http(&bytes[..end]);
                prop_assert!(part == Look::Incomplete || part == whole, "{part:?} {whole:?}");
            }
        }
    }
}
