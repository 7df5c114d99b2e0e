//! Where an answer's `location` leads. Pure.
//!
//! Envoy takes absolute URLs of http and https only, and reads them as browsers do (its `Url`):
//! without regard to case in scheme and host, without user information, the usual port and the
//! fragment, dots in the path resolved, what no URL may hold escaped.

use http::uri::Authority;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// A place that a request can go on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// Whether it is of https.
    pub(super) secure: bool,
    /// Host, and port where it is not the usual one.
    pub(super) authority: String,
    /// Path and query.
    pub(super) path: String,
}

/// What is escaped in a path or query.
const UNSAFE: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'{')
    .add(b'}');

/// Reads the value of a `location`. None if it is no absolute URL of http or https.
pub(super) fn parse(value: &str) -> Option<Location> {
    let value = value.trim_matches(|c: char| c <= ' ');
    let (scheme, rest) = value.split_once("://")?;
    let secure = match scheme {
        it if it.eq_ignore_ascii_case("https") => true,
        it if it.eq_ignore_ascii_case("http") => false,
        _ => return None,
    };
    let (rest, _fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let end = rest.find(['/', '?', '\\']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let authority = settled(authority, secure)?;
    let (path, query) = match target.find('?') {
        Some(at) => target.split_at(at),
        None => (target, ""),
    };
    let path = without_dots(&path.replace('\\', "/"));
    let escaped = utf8_percent_encode(&path, UNSAFE);
    let path = format!("{escaped}{}", utf8_percent_encode(query, UNSAFE));
    Some(Location {
        secure,
        authority,
        path,
    })
}

/// Host and port as they are written in a request.
fn settled(authority: &str, secure: bool) -> Option<String> {
    let host = authority.rsplit_once('@').map_or(authority, |(_, it)| it);
    let parsed: Authority = host.parse().ok()?;
    let name = parsed.host().to_ascii_lowercase();
    let port = host[parsed.host().len()..].strip_prefix(':');
    let usual = if secure { 443 } else { 80 };
    if name.is_empty() {
        return None;
    }
    match port.unwrap_or_default() {
        "" => Some(name),
        port => match port.parse::<u16>().ok()? {
            0 => None,
            port if port == usual => Some(name),
            port => Some(format!("{name}:{port}")),
        },
    }
}

/// The path with `.` and `..` resolved (RFC 3986 §5.2.4; the URL standard takes `%2e` for a dot).
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(part) = parts.next() {
        let is_last = parts.peek().is_none();
        match part.to_ascii_lowercase().replace("%2e", ".").as_str() {
            "." => {}
            ".." => {
                kept.pop();
            }
            _ => {
                kept.push(part);
                continue;
            }
        }
        // What ends in dots is a directory.
        if is_last {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(value: &str) -> Option<(bool, String, String)> {
        parse(value).map(|it| (it.secure, it.authority, it.path))
    }

    #[test]
    fn an_absolute_url_of_http_is_a_place_and_nothing_else_is() {
        for (value, expected) in [
            ("http://a.test/x?q=1", (false, "a.test", "/x?q=1")),
            ("https://a.test", (true, "a.test", "/")),
            ("HTTP://A.Test:80/X", (false, "a.test", "/X")),
            ("http://a.test:443/", (false, "a.test:443", "/")),
            ("https://a.test:443/", (true, "a.test", "/")),
            ("http://a.test:8080?q", (false, "a.test:8080", "/?q")),
            ("http://me:pw@a.test/", (false, "a.test", "/")),
            ("http://a.test/x#part", (false, "a.test", "/x")),
            ("http://a.test/a/./b/../c", (false, "a.test", "/a/c")),
            ("http://a.test/a/%2E%2e", (false, "a.test", "/")),
            ("http://a.test/../../x/.", (false, "a.test", "/x/")),
            ("http://a.test/a b?c d", (false, "a.test", "/a%20b?c%20d")),
            ("http://[::1]:81/", (false, "[::1]:81", "/")),
            ("  http://a.test/ ", (false, "a.test", "/")),
        ] {
            let expected = (expected.0, expected.1.to_owned(), expected.2.to_owned());
            assert_eq!(at(value), Some(expected), "{value}");
        }
        for value in [
            "",
            "/x",
            "//a.test/x",
            "x",
            "ftp://a.test/",
            "http://",
            "http:///x",
            "http://a.test:0/",
            "http://a.test:99999/",
            "http://a.test:x/",
            "http://a b/",
        ] {
            assert_eq!(at(value), None, "{value}");
        }
    }

    proptest! {
        /// Whatever an upstream says, what is read of it fits into a request.
        #[test]
        fn what_is_read_can_be_sent(value in "(http://|https://)?[ -~]{0,30}") {
            if let Some(it) = parse(&value) {
                let uri = format!("http://{}{}", it.authority, it.path);
                prop_assert!(it.path.starts_with('/'));
                prop_assert!(!it.path.contains(['#', ' ']));
                prop_assert!(it.authority.parse::<Authority>().is_ok(), "{uri}");
            }
        }
    }
}
