//! What a request has to look like for a rule.

use super::{ClaimMatch, FilterStateMatch, Fraction, PathTemplate, Pattern, StringMatch};
use crate::exchange::TlsInfo;
use crate::{Name, Origin};
use http::HeaderName;

/// What a request has to look like; all parts have to hold (Envoy `RouteMatch`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Condition {
    /// Where the match block was configured.
    pub origin: Origin,
    /// The path.
    pub path: PathMatch,
    /// Headers and pseudo-headers.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Vec<QueryMatch>,
    /// Cookies.
    pub cookies: Vec<CookieMatch>,
    /// What the caller's connection has to be like.
    pub tls: Option<TlsCondition>,
    /// What the caller's token says (Envoy `dynamic_metadata` of the filter `jwt_authn`).
    pub claims: Vec<ClaimCondition>,
    /// What the listener kept of it (Envoy `filter_state`).
    pub filter_state: Vec<FilterStateMatch>,
    /// Only gRPC requests (`content-type: application/grpc…`).
    pub grpc: bool,
    /// Only this share of requests.
    pub share: Option<Fraction>,
}

/// A condition on a claim of the caller's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimCondition {
    /// The claim.
    pub claim: ClaimMatch,
    /// Match when it is not so; a missing claim then matches.
    pub invert: bool,
}

/// How the path is compared. The query never takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathMatch {
    /// The path begins with these bytes: `/foo` matches `/foobar`.
    Prefix(String),
    /// The path is this.
    Exact(String),
    /// The path is this or goes on with `/` after it.
    SeparatedPrefix(String),
    /// As [`PathMatch::Prefix`], ASCII case ignored.
    PrefixIgnoreCase(String),
    /// As [`PathMatch::Exact`], ASCII case ignored.
    ExactIgnoreCase(String),
    /// As [`PathMatch::SeparatedPrefix`], ASCII case ignored.
    SeparatedPrefixIgnoreCase(String),
    /// The whole path matches the expression.
    Regex(Pattern),
    /// `CONNECT` requests.
    Connect,
    /// The path is of this template (Envoy `path_match_policy`).
    Template(PathTemplate),
}

/// A condition on a header or pseudo-header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Which header.
    pub key: HeaderKey,
    /// What it has to be. Of a header that comes more than once any line has to be so.
    pub value: ValueMatch,
    /// Match when the value does not. A missing header still does not match, unless
    /// `missing_is_empty`.
    pub invert: bool,
    /// Treat a missing header as an empty value.
    pub missing_is_empty: bool,
}

/// What a [`HeaderMatch`] looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HeaderKey {
    /// `:method`
    Method,
    /// `:authority`
    Authority,
    /// `:scheme`
    Scheme,
    /// `:path`, query included
    Path,
    /// A header.
    Header(HeaderName),
}

/// What a header or query value has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// Text.
    Text(StringMatch),
    /// Present (`true`) or absent (`false`).
    Present(bool),
    /// A decimal integer with start ≤ value < end.
    Range(i64, i64),
}

/// A condition on the first value of a query parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// The parameter.
    pub name: String,
    /// What it has to be.
    pub value: ValueMatch,
}

/// A condition on the first cookie of a name (Envoy `CookieMatcher`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieMatch {
    /// The cookie.
    pub name: Name,
    /// What its value has to be, without the quotes around it.
    pub value: StringMatch,
    /// Match when the value does not. A missing cookie then matches, too.
    pub invert: bool,
}

/// A condition on the certificate of the caller (Envoy `RouteMatch.TlsContextMatchOptions`). On a
/// connection without TLS none is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlsCondition {
    /// Whether one has to be shown, or must not. Default either.
    pub presented: Option<bool>,
    /// Whether one has to be shown that was found valid, or must not. Default either.
    pub validated: Option<bool>,
}

// === impl PathMatch ===

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}

// === impl HeaderMatch ===

impl HeaderMatch {
    /// A header that has to have this text.
    pub fn text(key: HeaderKey, value: StringMatch) -> Self {
        Self {
            key,
            value: ValueMatch::Text(value),
            invert: false,
            missing_is_empty: false,
        }
    }

    /// A header that has to be there.
    pub fn present(name: HeaderName) -> Self {
        Self {
            key: HeaderKey::Header(name),
            value: ValueMatch::Present(true),
            invert: false,
            missing_is_empty: false,
        }
    }

    /// Whether it holds of a header with these lines, none where it is missing. What begins with
    /// a colon has one line at most.
    ///
    /// Envoy (since `match_headers_individually`) looks at each line of a header that comes more
    /// than once, and never at all of them joined.
    pub fn holds<'a>(&self, lines: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let mut lines = lines.into_iter().peekable();
        if lines.peek().is_none() && !self.missing_is_empty {
            return self.value == ValueMatch::Present(self.invert);
        }
        if lines.peek().is_none() {
            return self.value.holds(b"") != self.invert;
        }
        lines.any(|line| self.value.holds(line)) != self.invert
    }
}

// === impl CookieMatch ===

impl CookieMatch {
    /// Whether it holds of this value, none where the cookie is missing.
    pub fn holds(&self, value: Option<&[u8]>) -> bool {
        value.is_some_and(|value| self.value.matches(value)) != self.invert
    }
}

// === impl TlsCondition ===

impl TlsCondition {
    /// Whether it holds of a connection.
    pub fn holds(&self, tls: Option<&TlsInfo>) -> bool {
        let shown = tls.and_then(|tls| tls.peer.as_ref());
        let validated = shown.is_some_and(|peer| peer.validated);
        self.presented.is_none_or(|want| want == shown.is_some())
            && self.validated.is_none_or(|want| want == validated)
    }
}

// === impl ValueMatch ===

impl ValueMatch {
    /// Whether it holds of a value that is there.
    pub fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Text(text) => text.matches(value),
            Self::Range(start, end) => std::str::from_utf8(value)
                .ok()
                .and_then(|value| value.trim().parse::<i64>().ok())
                .is_some_and(|value| (*start..*end).contains(&value)),
            Self::Present(present) => *present,
        }
    }
}
