//! Changes to headers, and what their values are made from.

use super::HeaderKey;
use http::{HeaderName, HeaderValue};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};

/// Header changes in one direction, as most rules have them: none. Those take the place of a pointer
/// and no memory besides; others are used like the [`HeaderChanges`] that they are.
///
/// ```
/// use http::header::SERVER;
/// use mesh_core::model::HeaderEdits;
///
/// let mut edits = HeaderEdits::default();
/// assert!(edits.is_empty() && edits.remove.is_empty());
/// edits.remove.push(SERVER);
/// assert_eq!(edits.remove, [SERVER]);
/// ```
#[derive(Clone, Default)]
pub struct HeaderEdits(Option<Box<HeaderChanges>>);

/// Header changes in one direction, applied in the order remove, then set, then add.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderChanges {
    /// Names removed.
    pub remove: Vec<HeaderName>,
    /// Values added, in order.
    pub add: Vec<HeaderAdd>,
}

static NO_CHANGES: HeaderChanges = HeaderChanges {
    remove: Vec::new(),
    add: Vec::new(),
};

/// One header put on a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderAdd {
    /// The header.
    pub name: HeaderName,
    /// Its value; may contain format operators such as `%DOWNSTREAM_REMOTE_ADDRESS%`.
    pub value: HeaderTemplate,
    /// What to do when the header is already there.
    pub mode: AddMode,
    /// Put the header on even if its value comes out empty; else it is left out then. Default
    /// false.
    pub keep_empty: bool,
}

/// What to do when a header that is to be added is already there (`append_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddMode {
    /// Add another value.
    Append,
    /// Replace what is there, or add it (`OVERWRITE_IF_EXISTS_OR_ADD`).
    Overwrite,
    /// Leave what is there (`ADD_IF_ABSENT`).
    IfAbsent,
    /// Replace what is there, and do nothing where nothing is (`OVERWRITE_IF_EXISTS`).
    OverwriteIfPresent,
}

/// A header value: plain text, or text with `%OPERATOR%`s filled in per message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderTemplate {
    /// A fixed value.
    Fixed(HeaderValue),
    /// Pieces put together for each message.
    Pieces(Vec<Piece>),
}

/// A piece of a [`HeaderTemplate`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Piece {
    /// Plain text.
    Text(String),
    /// `%REQ(name)%`: a request header.
    RequestHeader(HeaderName),
    /// `%REQ(:name)%`: a part of the request line, as it is by then.
    RequestPart(HeaderKey),
    /// `%RESP(name)%`: a response header.
    ResponseHeader(HeaderName),
    /// `%REQ(a?b)%`, `%RESP(a?b)%`: the first of two that has a value.
    FirstOf(Box<Self>, Box<Self>),
    /// `%…:N%`: the first so many bytes of a value.
    Shortened(Box<Self>, usize),
    /// `%DOWNSTREAM_REMOTE_ADDRESS%`: the caller's address with port.
    DownstreamRemoteAddress,
    /// `%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%`.
    DownstreamRemoteAddressWithoutPort,
    /// `%DOWNSTREAM_LOCAL_ADDRESS%`.
    DownstreamLocalAddress,
    /// `%PROTOCOL%`: `HTTP/1.1`, `HTTP/2`.
    Protocol,
    /// `%RESPONSE_CODE%`.
    ResponseCode,
    /// `%RESPONSE_FLAGS%`.
    ResponseFlags,
    /// `%RESPONSE_CODE_DETAILS%`.
    ResponseCodeDetails,
    /// `%ROUTE_NAME%`.
    RouteName,
    /// `%UPSTREAM_HOST%`.
    UpstreamHost,
    /// `%UPSTREAM_CLUSTER%`.
    UpstreamCluster,
    /// `%UPSTREAM_REQUEST_ATTEMPT_COUNT%`: in a request 1, whichever attempt it goes out with; in an
    /// answer 0 where there was none.
    UpstreamRequestAttemptCount,
    /// `%START_TIME%`: RFC 3339 with milliseconds.
    StartTime,
}

// === impl HeaderEdits ===

impl HeaderEdits {
    /// Whether there is nothing to do.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|changes| changes.is_empty())
    }
}

impl Deref for HeaderEdits {
    type Target = HeaderChanges;

    #[inline]
    fn deref(&self) -> &HeaderChanges {
        self.0.as_deref().unwrap_or(&NO_CHANGES)
    }
}

impl DerefMut for HeaderEdits {
    fn deref_mut(&mut self) -> &mut HeaderChanges {
        self.0.get_or_insert_default()
    }
}

impl From<HeaderChanges> for HeaderEdits {
    fn from(changes: HeaderChanges) -> Self {
        Self((!changes.is_empty()).then(|| Box::new(changes)))
    }
}

impl fmt::Debug for HeaderEdits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl PartialEq for HeaderEdits {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for HeaderEdits {}

impl Hash for HeaderEdits {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

// === impl HeaderChanges ===

impl HeaderChanges {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.add.is_empty()
    }
}

// === impl Piece ===

impl Piece {
    /// Reads a format operator without its percent signs: `REQ(x-user?:path):10`. None if it is not
    /// known here. Only `REQ` and `RESP` have alternatives and lengths, as in Envoy.
    pub fn parse(operator: &str) -> Option<Self> {
        let Some((whose, rest)) = operator.split_once('(') else {
            return Self::plain(operator);
        };
        let (argument, length) = rest.rsplit_once(')')?;
        let piece = match argument.split_once('?') {
            Some((first, second)) => Self::FirstOf(
                Box::new(Self::header(whose, first)?),
                Box::new(Self::header(whose, second)?),
            ),
            None => Self::header(whose, argument)?,
        };
        if length.is_empty() {
            return Some(piece);
        }
        let digits = length.strip_prefix(':')?;
        let all_digits = digits.bytes().all(|digit| digit.is_ascii_digit());
        let length = digits.parse().ok().filter(|_| all_digits)?;
        Some(Self::Shortened(Box::new(piece), length))
    }

    fn header(whose: &str, name: &str) -> Option<Self> {
        let part = match &*name.to_ascii_lowercase() {
            ":method" => Some(HeaderKey::Method),
            ":authority" => Some(HeaderKey::Authority),
            ":scheme" => Some(HeaderKey::Scheme),
            ":path" => Some(HeaderKey::Path),
            _ => None,
        };
        match (whose, part) {
            ("REQ", Some(part)) => Some(Self::RequestPart(part)),
            ("REQ", None) => Some(Self::RequestHeader(name.parse().ok()?)),
            ("RESP", None) => Some(Self::ResponseHeader(name.parse().ok()?)),
            _ => None,
        }
    }

    fn plain(operator: &str) -> Option<Self> {
        Some(match operator {
            "DOWNSTREAM_REMOTE_ADDRESS" => Self::DownstreamRemoteAddress,
            "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Self::DownstreamRemoteAddressWithoutPort,
            "DOWNSTREAM_LOCAL_ADDRESS" => Self::DownstreamLocalAddress,
            "PROTOCOL" => Self::Protocol,
            "RESPONSE_CODE" => Self::ResponseCode,
            "RESPONSE_FLAGS" => Self::ResponseFlags,
            "RESPONSE_CODE_DETAILS" => Self::ResponseCodeDetails,
            "ROUTE_NAME" => Self::RouteName,
            "UPSTREAM_HOST" => Self::UpstreamHost,
            "UPSTREAM_CLUSTER" => Self::UpstreamCluster,
            "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Self::UpstreamRequestAttemptCount,
            "START_TIME" => Self::StartTime,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_may_have_another_in_its_place_and_be_shortened() {
        let one = |text| Piece::parse(text).unwrap();
        let header = |name| Box::new(Piece::RequestHeader(HeaderName::from_static(name)));
        assert_eq!(one("REQ(:PATH)"), Piece::RequestPart(HeaderKey::Path));
        assert_eq!(one("REQ(A?b)"), Piece::FirstOf(header("a"), header("b")));
        assert_eq!(one("REQ(a):10"), Piece::Shortened(header("a"), 10));
        let path = Box::new(Piece::RequestPart(HeaderKey::Path));
        let either = Box::new(Piece::FirstOf(header("a"), path));
        assert_eq!(one("REQ(a?:path):0"), Piece::Shortened(either, 0));
    }

    #[test]
    fn what_is_no_operator_is_none() {
        for text in [
            "NO_SUCH",
            "REQ(:nothing)",
            "RESP(:path)",
            "REQ(a?b?c)",
            "REQ(a?)",
            "REQ(?a)",
            "REQ()",
            "REQ(x",
            "REQ(x):",
            "REQ(x):+1",
            "REQ(x)10",
            "REQ(x):99999999999999999999",
            "PROTOCOL:3",
            "PROTOCOL()",
        ] {
            assert_eq!(Piece::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in "[A-Z(:?)a-z0-9é]{0,20}") {
            let _ = Piece::parse(&text);
        }
    }
}
