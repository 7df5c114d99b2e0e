//! Answers that send a request elsewhere, and are followed here instead of being passed on.

use crate::{Name, Origin};
use http::{HeaderName, StatusCode};

/// Which redirects of an upstream are followed before anybody sees them (Envoy
/// `InternalRedirectPolicy`): the request is routed anew, to where the answer's `location` says.
///
/// Only a request that has come in whole, and whose body was kept, goes on; in every other case the
/// answer is passed on as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FollowRedirects {
    /// Where this was configured.
    pub origin: Origin,
    /// How often one request goes on. Default 1.
    pub most: u32,
    /// Which statuses redirect. Default 302 alone; Envoy knows 301, 302, 303, 307 and 308.
    pub statuses: Vec<StatusCode>,
    /// Whether it may go from http to https, or back. Default false.
    pub other_scheme: bool,
    /// What the route that it would take has to be. All have to hold. Default nothing.
    pub targets: Vec<RedirectTarget>,
    /// Headers of the answer that the request takes along, in place of its own of the same name;
    /// one that the answer lacks is taken off. Default none.
    pub copy_headers: Vec<HeaderName>,
}

/// What a route has to be that a redirect leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RedirectTarget {
    /// None that the request was redirected to before by the same route (Envoy
    /// `previous_routes`).
    NotPrevious,
    /// One with a name on this list (Envoy `allow_listed_routes`).
    Named(Vec<Name>),
    /// Any, but not from http to https (Envoy `safe_cross_scheme`).
    SafeScheme,
}

// === impl FollowRedirects ===

impl Default for FollowRedirects {
    fn default() -> Self {
        Self {
            origin: Origin::NONE,
            most: 1,
            statuses: vec![StatusCode::FOUND],
            other_scheme: false,
            targets: Vec::new(),
            copy_headers: Vec::new(),
        }
    }
}
