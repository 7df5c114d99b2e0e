//! Sessions: requests of one caller stay at one endpoint.

use super::HashCookie;
use crate::Name;
use crate::Slot;
use http::{HeaderName, StatusCode};
use std::sync::Arc;

/// Keeps requests at the endpoint that answered before, which the caller is told and tells again
/// (Envoy's HTTP filter `stateful_session`).
///
/// The first attempt goes there, past balancing, if the endpoint is among those of the cluster and
/// its health is one of [`Cluster::session_health`](super::Cluster::session_health); further attempts
/// are balanced. Whoever answers is told to the caller where it was not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Session {
    /// Where the caller is told of its endpoint. None keeps no session; it only counts.
    pub state: Option<SessionState>,
    /// Where the endpoint is not there, or not well enough, the request fails. Default: it is balanced.
    pub strict: bool,
    /// What a request is answered with whose endpoint is not there, where `strict`: a status from 200
    /// to 599. Default 503, which is the answer where it is there and not well enough, too.
    pub missing_status: StatusCode,
    /// Prefix of its statistics: `http.<manager's prefix>.stateful_session.<prefix>.*`, and
    /// `stateful_session.<prefix>.*` of a rule's own. Empty counts nothing.
    pub stat_prefix: Name,
    /// For who counts.
    pub slot: Slot,
}

/// Where a caller is told of its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// In a cookie, for requests to its path. Its time to live is told, and kept to, in whole
    /// seconds; with zero or none it ends with the caller.
    Cookie(HashCookie),
    /// In a header.
    Header(HeaderName),
    /// In a header of the endpoint's own that holds a session, around the value.
    Envelope(HeaderName),
}

/// What a rule says of sessions, in place of its listener.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteSession {
    /// There are none.
    Off,
    /// They are kept so. Only where the listener has any (Envoy's filter has to be there).
    Instead(Arc<Session>),
}

/// Which endpoints a session may be kept at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SessionHealth {
    /// Healthy ones (Envoy `UNKNOWN` and `HEALTHY`). Default true.
    pub healthy: bool,
    /// Degraded ones. Default true.
    pub degraded: bool,
    /// Those that are not well, or are ejected (Envoy `UNHEALTHY` and `TIMEOUT`). Default false.
    pub unhealthy: bool,
    /// Those that drain. Default false.
    pub draining: bool,
}

// === impl Session ===

impl Session {
    /// Keeps sessions so, and balances where that is not possible.
    pub fn new(state: SessionState) -> Self {
        Self {
            state: Some(state),
            ..Self::default()
        }
    }
}

impl Default for Session {
    fn default() -> Self {
        Self {
            state: None,
            strict: false,
            missing_status: StatusCode::SERVICE_UNAVAILABLE,
            stat_prefix: Name::default(),
            slot: Slot::default(),
        }
    }
}

// === impl SessionHealth ===

impl SessionHealth {
    /// No endpoint.
    pub const NONE: Self = Self {
        healthy: false,
        degraded: false,
        unhealthy: false,
        draining: false,
    };

    /// Whether endpoints with this health are among them.
    pub fn has(&self, health: super::Health) -> bool {
        match health {
            super::Health::Healthy => self.healthy,
            super::Health::Degraded => self.degraded,
            super::Health::Unhealthy => self.unhealthy,
            super::Health::Draining => self.draining,
        }
    }
}

impl Default for SessionHealth {
    fn default() -> Self {
        Self {
            healthy: true,
            degraded: true,
            ..Self::NONE
        }
    }
}
