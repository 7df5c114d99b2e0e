//! Who may ask a serving proxy by a header of the request.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use std::fmt;
use std::hint::black_box;

/// The request header that carries the token, and the response header that carries the answer.
pub(super) const NAME: HeaderName = HeaderName::from_static("x-mesh-explain");

/// The secret that a request has to bring: in `x-mesh-explain` to be explained, or to the admin
/// interface as `authorization: Bearer TOKEN`.
#[derive(Clone)]
pub struct Token(Box<[u8]>);

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a token has {SHORTEST} to {LONGEST} characters of ASCII, without spaces")]
pub struct BadToken;

/// What is shorter can be guessed.
const SHORTEST: usize = 16;

const LONGEST: usize = 1024;

// === impl Token ===

impl Token {
    /// A token; space around it, as at the end of a file, does not count.
    ///
    /// # Errors
    /// If it is shorter than 16 or longer than 1024 characters, or cannot stand in a header.
    pub fn new(text: &str) -> Result<Self, BadToken> {
        let text = text.trim();
        let fits = (SHORTEST..=LONGEST).contains(&text.len());
        match fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(text.as_bytes().into())),
            false => Err(BadToken),
        }
    }

    /// Takes the header out of a request, whatever it says. True where it says the token, once.
    pub(super) fn take(&self, headers: &mut HeaderMap) -> bool {
        let mut lines = headers.get_all(&NAME).iter();
        let (first, more) = (lines.next(), lines.next().is_some());
        let Some(first) = first else {
            return false;
        };
        let right = self.is(first.as_bytes()) && !more;
        headers.remove(&NAME);
        right
    }

    /// Whether a request brings it as `authorization: Bearer TOKEN` (RFC 6750 §2.1), once.
    pub(crate) fn authorizes(&self, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return false;
        };
        let line = line.as_bytes();
        let Some((scheme, said)) = line.split_at_checked(b"Bearer ".len()) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"Bearer ") && self.is(said)
    }

    /// Compares in a time that says nothing of where two texts of one length differ.
    fn is(&self, said: &[u8]) -> bool {
        if said.len() != self.0.len() {
            return false;
        }
        let pairs = self.0.iter().zip(said);
        black_box(pairs.fold(0, |all, (a, b)| black_box(all | (a ^ b)))) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_header_is_taken_out_and_only_the_token_alone_is_right() {
        let token = Token::new(" 0123456789abcdef\n").unwrap();
        for (lines, right) in [
            (&["0123456789abcdef"][..], true),
            (&["0123456789abcdeg"], false),
            (&["1123456789abcdef"], false),
            (&["0123456789abcde"], false),
            (&["0123456789abcdef0"], false),
            (&[""], false),
            (&["0123456789abcdef", "x"], false),
            (&["x", "0123456789abcdef"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(NAME, HeaderValue::from_static(line));
            }
            assert_eq!(token.take(&mut headers), right, "{lines:?}");
            assert!(headers.is_empty(), "{lines:?}");
        }
    }

    #[test]
    fn a_token_that_is_short_or_cannot_be_sent_is_refused_and_none_is_shown() {
        for text in [
            "",
            "0123456789abcde",
            "0123456789 abcdef",
            "0123456789abcdéf",
        ] {
            assert!(Token::new(text).is_err(), "{text}");
        }
        assert!(Token::new(&"x".repeat(1025)).is_err());
        let shown = format!("{:?}", Token::new("0123456789abcdef").unwrap());
        assert!(!shown.contains('0'), "{shown}");
    }
}
