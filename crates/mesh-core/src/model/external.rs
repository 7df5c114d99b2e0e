//! Asking a service elsewhere whether a request or connection may go on (Envoy's filters
//! `ext_authz`, Istio's action CUSTOM).

use super::{Authz, StringMatch};
use crate::{Name, Origin};
use http::{HeaderName, HeaderValue};
use std::time::Duration;

/// A service that is asked whether something may go on.
///
/// It belongs to an [`Authz`] and is asked after that one's own rules. What it says goes: where it
/// denies, the next rules are not asked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct External {
    /// Where it was configured.
    pub origin: Origin,
    /// The filter's name, by which routes speak of it; of connections nothing. Empty is Istio's,
    /// `envoy.filters.http.ext_authz`.
    pub name: Name,
    /// Its cluster.
    pub cluster: Name,
    /// How long it may take. None is without end. Istio's default is 600 s.
    pub timeout: Option<Duration>,
    /// How it is asked.
    pub ask: Ask,
    /// It is asked only where one of the rules on trial ([`Authz::trial`]) matches whose name is as
    /// this says (`filter_enabled_metadata` on what those rules note). None: always.
    pub only: Option<StringMatch>,
    /// Let through what it could not be asked about (`failure_mode_allow`). Default false.
    pub fail_open: bool,
    /// The status of the answer where it could not be asked (`status_on_error`). Default 403.
    pub status_on_error: u16,
    /// The body of the request is sent along (`with_request_body`). Default none.
    pub body: Option<AskedBody>,
    /// The route is found anew once it has changed the request (`clear_route_cache`). Otherwise it is
    /// that of the request as it came. Default false.
    pub clear_route: bool,
    /// Put after `ext_authz.` in the names of its statistics, with a dot behind it. Default empty.
    /// Of connections it is the whole name before theirs, and never empty.
    pub stat_prefix: Name,
}

/// How a service is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The head of the request, in part, is sent to it as a request: 200 lets it through.
    Http(AskHttp),
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc(AskGrpc),
}

/// How a service is asked over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AskHttp {
    /// Put before the path. Default empty.
    pub path_prefix: Name,
    /// The `uri` of the service, which nobody goes by; kept to be written again.
    pub uri: Name,
    /// Headers sent along besides the authority and `authorization` (`allowed_headers`).
    pub headers: Vec<StringMatch>,
    /// Set on what is sent, in place of any of the same name.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Headers of its answer set on the request where it allows it.
    pub upstream: Vec<StringMatch>,
    /// The same, beside any of the same name.
    pub upstream_append: Vec<StringMatch>,
    /// Headers of its answer in ours where it denies, with `www-authenticate`, `location` and the
    /// length of its body. None: all but `host`.
    pub deny: Vec<StringMatch>,
    /// Headers of its answer added to the response where it allows it.
    pub allow: Vec<StringMatch>,
}

/// How a service is asked over gRPC.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AskGrpc {
    /// `:authority`; empty is the name of the cluster.
    pub authority: Name,
    /// Headers told of; empty is all (`allowed_headers`).
    pub headers: Vec<StringMatch>,
}

/// How the body of a request is sent along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AskedBody {
    /// No more than this, in bytes; not 0.
    pub limit: u32,
    /// Of a longer one the beginning is sent. Otherwise it is answered with 413.
    pub partial: bool,
    /// As bytes rather than as text, over gRPC.
    pub raw: bool,
}

// === impl External ===

impl External {
    /// A service in a cluster, with Envoy's defaults.
    pub fn new(cluster: impl Into<Name>, ask: Ask) -> Self {
        Self {
            origin: Origin::NONE,
            name: Name::default(),
            cluster: cluster.into(),
            timeout: None,
            ask,
            only: None,
            fail_open: false,
            status_on_error: 403,
            body: None,
            clear_route: false,
            stat_prefix: Name::default(),
        }
    }
}

impl Authz {
    /// A service that is asked about everything.
    pub fn asking(external: External) -> Self {
        Self {
            external: Some(external),
            ..Self::default()
        }
    }
}
