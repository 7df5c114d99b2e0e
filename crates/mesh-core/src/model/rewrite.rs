//! What a rule makes of a request's target: for the upstream, and for a caller that is sent elsewhere.

use super::{Pattern, TemplateRewrite};
use crate::{Name, Origin};
use http::HeaderName;

/// How the path is rewritten before forwarding. The query stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PathRewrite {
    /// Not at all.
    #[default]
    Keep,
    /// The matched prefix (or the whole path, for exact and regex matches) becomes this.
    Prefix(String),
    /// Every match of the expression becomes this text, with `\1` for groups.
    Regex(Pattern, String),
    /// The path becomes this, with what stood at the names of the matched
    /// [`PathMatch::Template`](super::PathMatch::Template) (Envoy `path_rewrite_policy`).
    Template(TemplateRewrite),
}

/// How the authority is rewritten before forwarding.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthorityRewrite {
    /// Becomes this text.
    Literal(Name),
    /// Becomes the chosen endpoint's host name, if it has one (`auto_host_rewrite`).
    FromEndpoint,
    /// Becomes the value of this request header, if present.
    FromHeader(HeaderName),
    /// Becomes the path without its query, in which every match of the expression became this
    /// text, with `\1` for groups (`host_rewrite_path_regex`).
    FromPath(Pattern, String),
}

/// A redirect (Envoy `RedirectAction`). Parts that are not set stay as the request has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redirect {
    /// Where it was configured.
    pub origin: Origin,
    /// 301, 302, 303, 307 or 308. Zero means 301.
    pub code: u16,
    /// New scheme.
    pub scheme: Option<Name>,
    /// New host, without port.
    pub host: Option<Name>,
    /// New port.
    pub port: Option<u16>,
    /// New path.
    pub path: RedirectPath,
    /// Drop the query.
    pub strip_query: bool,
}

/// The path of a redirect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RedirectPath {
    /// As requested.
    #[default]
    Keep,
    /// This one; brings its own query if it has one.
    Full(String),
    /// The matched prefix becomes this.
    Prefix(String),
    /// Every match of the expression becomes this text.
    Regex(Pattern, String),
}
