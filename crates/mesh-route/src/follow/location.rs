//! Where an answer's `location` leads. Pure.
//!
//! Envoy takes absolute URLs of http and https only, and of those only what can stand in a request
//! as it is (seen of Envoy 1.40): nothing in the path may have to be escaped. Dots in the path stay, and
//! so does the usual port; user information and the fragment go.

use http::uri::{Authority, PathAndQuery};

/// A place that a request can go on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// Whether it is of https.
    pub(super) secure: bool,
    /// Host and port as they were written.
    pub(super) authority: Authority,
    /// Path and query.
    pub(super) path: PathAndQuery,
}

/// Reads the value of a `location`. None if it is no absolute URL of http or https.
pub(super) fn parse(value: &str) -> Option<Location> {
    let (scheme, rest) = value.split_once("://")?;
    let secure = match scheme {
        it if it.eq_ignore_ascii_case("https") => true,
        it if it.eq_ignore_ascii_case("http") => false,
        _ => return None,
    };
    let (rest, _fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at(end);
    let authority = authority.rsplit_once('@').map_or(authority, |(_, it)| it);
    let port = authority.rsplit_once(':').map_or("", |(_, port)| port);
    let is_port = port.is_empty() || port.ends_with(']') || port.parse::<u16>().is_ok();
    if !is_port {
        return None;
    }
    let authority: Authority = authority.parse().ok()?;
    let path = match target.starts_with('/') {
        true => PathAndQuery::try_from(target),
        false => PathAndQuery::try_from(format!("/{target}")),
    };
    Some(Location {
        secure,
        path: path.ok()?,
        authority: Some(authority).filter(|it| !it.host().is_empty())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_absolute_url_of_http_is_a_place_and_nothing_else_is() {
        for (value, expected) in [
            ("http://a.test/x?q=1", (false, "a.test", "/x?q=1")),
            ("https://a.test", (true, "a.test", "/")),
            ("HTTP://A.Test:80/X", (false, "A.Test:80", "/X")),
            ("http://a.test:8080?q", (false, "a.test:8080", "/?q")),
            ("http://a.test/x#part", (false, "a.test", "/x")),
            ("http://a.test/a/./b/../c", (false, "a.test", "/a/./b/../c")),
            ("http://[::1]:81/", (false, "[::1]:81", "/")),
            ("http://[::1]/", (false, "[::1]", "/")),
            ("http://me:pw@a.test/", (false, "a.test", "/")),
        ] {
            let it = parse(value).unwrap_or_else(|| panic!("{value}"));
            let told = (it.secure, it.authority.as_str(), it.path.as_str());
            assert_eq!(told, expected, "{value}");
        }
        for value in [
            "",
            "/x",
            "//a.test/x",
            "x",
            "ftp://a.test/",
            "http://",
            "http:///x",
            "http://a.test:99999/",
            "http://a.test:x/",
            "http://a b/",
            "http://a.test/a b",
        ] {
            assert_eq!(parse(value), None, "{value}");
        }
    }

    proptest! {
        /// Whatever an upstream says, what is read of it is what it said.
        #[test]
        fn what_is_read_stands_in_the_value(value in "(http://|https://)?[ -~]{0,30}") {
            if let Some(it) = parse(&value) {
                prop_assert!(value.contains(it.authority.as_str()));
                prop_assert!(!it.path.as_str().contains(['#', ' ']));
            }
        }
    }
}
