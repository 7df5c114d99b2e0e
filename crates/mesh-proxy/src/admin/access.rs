//! Who may do what at the admin interface.
//!
//! Most of it is for everybody who reaches it. What changes something, and what is known of secrets,
//! is for whoever brings the token; where there is none, for everybody who reaches an interface that
//! only this machine reaches. What a browser sends on behalf of a page changes nothing.

use crate::explain::Token;
use http::{HeaderMap, StatusCode, header};
use mesh_core::model::ListenerAddress;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// To look at something.
    Look,
    /// To look at what is known of secrets: names, whose they are, until when they are good.
    Secrets,
    /// To change something.
    Change,
}

// === impl Kind ===

impl Kind {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/quitquitquit" | "/drain_listeners" => Self::Change,
            "/certs" | "/config_dump" => Self::Secrets,
            _ => Self::Look,
        }
    }

    /// Whether a request with these headers may have it at an interface with this address.
    ///
    /// # Errors
    /// What to answer else.
    pub(super) fn check(
        self,
        headers: &HeaderMap,
        token: Option<&Token>,
        address: &ListenerAddress,
    ) -> Result<(), (StatusCode, &'static str)> {
        if self == Self::Look {
            return Ok(());
        }
        // Browsers say so of every request that a page makes them POST (the Fetch standard).
        if self == Self::Change && headers.contains_key(header::ORIGIN) {
            return Err((StatusCode::FORBIDDEN, "not for pages in a browser\n"));
        }
        match token {
            Some(token) if token.authorizes(headers) => Ok(()),
            Some(_) => Err((
                StatusCode::UNAUTHORIZED,
                "send the token: authorization: Bearer TOKEN\n",
            )),
            None if is_local(address) => Ok(()),
            None => Err((
                StatusCode::FORBIDDEN,
                "on an address that is not loopback this needs a token (--admin-token-file)\n",
            )),
        }
    }
}

fn is_local(address: &ListenerAddress) -> bool {
    match address {
        ListenerAddress::Socket(address) => address.ip().to_canonical().is_loopback(),
        ListenerAddress::Unix(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    }

    fn socket(text: &str) -> ListenerAddress {
        ListenerAddress::Socket(text.parse().unwrap())
    }

    #[test]
    fn without_a_token_only_local_interfaces_change_anything_or_tell_of_secrets() {
        let open = socket("0.0.0.0:15000");
        let none = HeaderMap::new();
        for local in [
            "127.0.0.1:1",
            "127.9.9.9:1",
            "[::1]:1",
            "[::ffff:127.0.0.1]:1",
        ] {
            for path in ["/certs", "/config_dump", "/quitquitquit", "/stats"] {
                assert_eq!(Kind::of(path).check(&none, None, &socket(local)), Ok(()));
            }
        }
        for path in [
            "/certs",
            "/config_dump",
            "/quitquitquit",
            "/drain_listeners",
        ] {
            let refused = Kind::of(path).check(&none, None, &open).unwrap_err();
            assert_eq!(refused.0, StatusCode::FORBIDDEN, "{path}");
        }
        assert_eq!(Kind::of("/ready").check(&none, None, &open), Ok(()));
    }

    #[test]
    fn with_a_token_it_is_asked_for_everywhere_and_only_the_right_one_is_taken() {
        let token = Token::new("0123456789abcdef").unwrap();
        for (lines, right) in [
            (&[("authorization", "Bearer 0123456789abcdef")][..], true),
            (&[("authorization", "bearer 0123456789abcdef")], true),
            (&[("authorization", "Bearer 0123456789abcdeg")], false),
            (&[("authorization", "Basic 0123456789abcdef")], false),
            (&[("authorization", "0123456789abcdef")], false),
            (&[("x-mesh-explain", "0123456789abcdef")], false),
            (
                &[
                    ("authorization", "Bearer 0123456789abcdef"),
                    ("authorization", "Bearer x"),
                ],
                false,
            ),
            (&[], false),
        ] {
            for path in ["/certs", "/config_dump", "/quitquitquit"] {
                let address = socket("127.0.0.1:1");
                let checked = Kind::of(path).check(&headers(lines), Some(&token), &address);
                assert_eq!(checked.is_ok(), right, "{path} {lines:?}");
            }
        }
    }

    #[test]
    fn a_page_in_a_browser_changes_nothing() {
        let page = headers(&[("origin", "http://evil.test")]);
        let local = socket("127.0.0.1:1");
        let refused = Kind::Change.check(&page, None, &local).unwrap_err();
        assert_eq!(refused.0, StatusCode::FORBIDDEN);
        assert_eq!(Kind::Look.check(&page, None, &local), Ok(()));
    }
}
