//! Copies of requests.

use super::{Fraction, HeaderEdits};
use crate::{Name, Origin};
use http::HeaderName;

/// A copy of the request sent elsewhere; its answer is thrown away.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mirror {
    /// Where this was configured.
    pub origin: Origin,
    /// The cluster that gets the copies. Empty where a header names it.
    pub cluster: Name,
    /// The cluster is named by the first of these headers of the request as it goes out; without
    /// one there is no copy. Default none: it is [`Mirror::cluster`].
    pub cluster_header: Option<HeaderName>,
    /// Which share of requests is copied.
    pub share: Fraction,
    /// Append `-shadow` to the copy's host (Envoy's default; Istio switches it off).
    pub shadow_host: bool,
    /// Changes to the copy's headers. One after the other: each finds those before it done, and
    /// removals come last.
    pub edits: HeaderEdits,
    /// The copy's host, instead of the request's.
    pub authority: Option<Name>,
}

// === impl Mirror ===

impl Mirror {
    /// A copy of every request to this cluster, with the same headers.
    pub fn to(cluster: impl Into<Name>) -> Self {
        Self {
            origin: Origin::NONE,
            cluster: cluster.into(),
            cluster_header: None,
            share: Fraction::ALL,
            shadow_host: false,
            edits: HeaderEdits::default(),
            authority: None,
        }
    }
}
