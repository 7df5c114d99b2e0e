//! Who is signed in: a name in the cookie `session`, believed without a password.
//!
//! Plain names stand in the cookie as they are, so that a route can match `session=jason`; any
//! other byte is percent-encoded.

use std::fmt::Write as _;

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, InvalidHeaderValue},
};

/// The longest name, in bytes; a cookie that holds more is ignored.
const LONGEST: usize = 64;

/// The name of a signed-in user: not empty, no control characters, at most 64 bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct User(String);

/// A `Set-Cookie` that forgets who was signed in.
pub(crate) const SIGNED_OUT: HeaderValue =
    HeaderValue::from_static("session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");

// === impl User ===

impl User {
    /// A name as it was typed; none where it is empty, too long or not one line of text.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let name = name.trim();
        let fits = !name.is_empty() && name.len() <= LONGEST;
        (fits && !name.contains(char::is_control)).then(|| Self(name.to_owned()))
    }

    /// The user whose session the request belongs to.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        // HTTP/2 may send each pair in a header of its own (RFC 9113 §8.2.3).
        headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .find_map(|pair| pair.trim().strip_prefix("session="))
            .and_then(decoded)
            .and_then(|name| Self::named(&name))
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    /// The `Set-Cookie` that signs this user in.
    pub(crate) fn cookie(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        let token = encoded(&self.0);
        HeaderValue::from_str(&format!("session={token}; Path=/; HttpOnly; SameSite=Lax"))
    }

    /// The value of `end-user`: the name, percent-encoded unless it is ASCII. The `http` crate would
    /// take it as it is, but what the proxies on the way make of other bytes differs.
    pub(crate) fn header(&self) -> Result<HeaderValue, InvalidHeaderValue> {
        if self.0.is_ascii() {
            return HeaderValue::from_str(&self.0);
        }
        HeaderValue::from_str(&encoded(&self.0))
    }
}

fn encoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn decoded(token: &str) -> Option<String> {
    let mut out = Vec::with_capacity(token.len());
    let mut bytes = token.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        out.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_cookie(cookie: &str) -> HeaderMap {
        let value = HeaderValue::from_str(cookie).unwrap();
        HeaderMap::from_iter([(COOKIE, value)])
    }

    #[test]
    fn a_plain_name_stands_in_the_cookie_as_it_is() {
        let cookie = User::named(" jason ").unwrap().cookie().unwrap();
        assert!(cookie.to_str().unwrap().starts_with("session=jason; "));
    }

    #[test]
    fn any_name_survives_the_cookie() {
        for name in ["jason", "Ann O'Nym", "a;b=c%", "Zoë 🦀", "<b>"] {
            let user = User::named(name).unwrap();
            let cookie = user.cookie().unwrap();
            let pair = cookie
                .to_str()
                .unwrap()
                .split("; ")
                .next()
                .unwrap()
                .to_owned();
            let headers = with_cookie(&format!("other=1; {pair}; last=2"));
            assert_eq!(User::of(&headers), Some(user));
        }
    }

    #[test]
    fn what_is_no_name_signs_no_one_in() {
        for name in ["", "  ", "a\nb", &"x".repeat(65)] {
            assert_eq!(User::named(name), None);
        }
        for cookie in [
            "",
            "session=",
            "session=%0d%0a",
            "session=%zz",
            "session=%4",
        ] {
            assert_eq!(User::of(&with_cookie(cookie)), None, "{cookie}");
        }
    }

    #[test]
    fn the_header_is_the_name_and_always_ascii() {
        let header = |name| User::named(name).unwrap().header().unwrap();
        assert_eq!(header("Ann Nym"), "Ann Nym");
        assert_eq!(header("Zoë"), "Zo%C3%AB");
    }
}
