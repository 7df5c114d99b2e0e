//! Who may do what: rules that judge requests and connections.
//!
//! Plain data in Envoy's shape (`RBAC`), so that it says the same in three places. Istio's
//! AuthorizationPolicy is compiled to it.

use super::{Cidr, External, HeaderMatch, PathTemplate, PortRange, StringMatch};
use crate::{Claim, Name, Origin, Slot};
use std::sync::Arc;

/// Rules that judge together (Envoy's `RBAC` filter, for HTTP and for connections).
///
/// Several of them are asked in order: what one denies the next is not asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authz {
    /// The filter's name, by which routes speak of it; of connections nothing. Empty is Istio's,
    /// `envoy.filters.http.rbac`.
    pub name: Name,
    /// The rules in force. None: everything is allowed.
    pub rules: Option<AuthzRules>,
    /// Rules on trial: what they would say is counted and noted, nothing else (`shadow_rules`,
    /// Istio's `istio.io/dry-run`).
    pub trial: Option<AuthzRules>,
    /// In front of the names of statistics of `rules`: for requests between `rbac.` and `allowed`,
    /// for connections before `rbac.`, e.g. `tcp.`. As in Envoy a dot is put after it.
    pub stat_prefix: Name,
    /// In front of the names of statistics and notes of `trial`, e.g. `istio_dry_run_allow_`.
    pub trial_prefix: Name,
    /// Asked after the rules in force (Envoy's `ext_authz` behind the `RBAC` filter, Istio's CUSTOM).
    pub external: Option<External>,
    /// For the compiled form, kept by whoever judges.
    pub slot: Slot,
}

/// An action, and the policies that it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthzRules {
    /// What a match means.
    pub action: AuthzAction,
    /// Any of these may match; the first is the one that is told. Envoy has them in the order of
    /// their names.
    pub policies: Vec<Arc<AuthzPolicy>>,
}

/// What it means that a policy matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AuthzAction {
    /// Allowed if a policy matches, denied if none does.
    #[default]
    Allow,
    /// Denied if a policy matches.
    Deny,
    /// Always allowed; a match is noted (Istio's AUDIT).
    Log,
}

/// One policy: it matches if both of its conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthzPolicy {
    /// Its name, as it is told in `RESPONSE_CODE_DETAILS`, e.g.
    /// `ns[shop]-policy[deny-some]-rule[0]`.
    pub name: Name,
    /// Where it was configured.
    pub origin: Origin,
    /// What is done (Envoy's `permissions`).
    pub permission: Predicate,
    /// Who does it (Envoy's `principals`).
    pub principal: Predicate,
}

/// A condition on a request or connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Predicate {
    /// Holds always.
    #[default]
    Always,
    /// All of these hold; with none of them it holds.
    All(Vec<Self>),
    /// One of these holds; with none of them it does not.
    Any(Vec<Self>),
    /// The other does not hold.
    Not(Box<Self>),
    /// A fact is as it says.
    Fact(Fact),
}

/// A fact about a request or connection. What there is not, as a header of a connection of bytes,
/// is not a match.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fact {
    /// A header, or `:method`, `:authority`, `:path`.
    Header(HeaderMatch),
    /// The path without query and fragment, as it is before rewrites.
    Path(StringMatch),
    /// The same by a template of segments, e.g. `/users/*/files/**` (Envoy `uri_template`).
    PathTemplate(PathTemplate),
    /// The address that the connection was going to lies in this block.
    Destination(Cidr),
    /// The port that the connection was going to.
    DestinationPort(PortRange),
    /// The server name that the connection asks for; empty where it asks for none.
    ServerName(StringMatch),
    /// Secured by TLS, and of the peer's certificate one of the URIs, one of the DNS names, or the
    /// subject matches; the subject of a certificate that was not shown or not checked is empty.
    /// None asks for TLS alone, even without a certificate (Envoy `authenticated`).
    Peer(Option<StringMatch>),
    /// The address on the connection itself lies in this block (`direct_remote_ip`).
    Direct(Cidr),
    /// The connection's peer lies in this block, the PROXY protocol's header believed, but not
    /// `x-forwarded-for` (`source_ip`).
    Source(Cidr),
    /// The caller lies in this block, `x-forwarded-for` and the PROXY protocol's header believed as
    /// far as they are trusted (`remote_ip`).
    Remote(Cidr),
    /// A claim of the caller's token (RequestAuthentication).
    Claim(ClaimMatch),
}

/// A claim of a token that was found valid.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClaimMatch {
    /// The way to the claim, e.g. `["realm_access", "roles"]`.
    pub path: Vec<Name>,
    /// It is one of these.
    pub values: Vec<StringMatch>,
    /// It may be a list as well, of which one is as said.
    pub list: bool,
}

// === impl ClaimMatch ===

impl ClaimMatch {
    /// Whether a token says so. Without a token nothing does.
    pub fn holds(&self, claims: Option<&Claim>) -> bool {
        let one = |claim: &Claim| {
            let text = claim.text().map(str::as_bytes);
            text.is_some_and(|text| self.values.iter().any(|value| value.matches(text)))
        };
        match claims.and_then(|claims| claims.at(&self.path)) {
            Some(Claim::List(items)) => self.list && items.iter().any(one),
            Some(claim) => one(claim),
            None => false,
        }
    }

    /// A claim by the way to it, and what it may be.
    pub fn new(
        path: impl IntoIterator<Item = impl Into<Name>>,
        values: impl IntoIterator<Item = StringMatch>,
    ) -> Self {
        Self {
            path: path.into_iter().map(Into::into).collect(),
            values: values.into_iter().collect(),
            list: false,
        }
    }
}

// === impl AuthzPolicy ===

impl AuthzPolicy {
    /// A policy by its two conditions.
    pub fn new(name: impl Into<Name>, permission: Predicate, principal: Predicate) -> Self {
        Self {
            name: name.into(),
            origin: Origin::NONE,
            permission,
            principal,
        }
    }
}

// === impl AuthzRules ===

impl AuthzRules {
    /// Rules of an action.
    pub fn new(action: AuthzAction, policies: impl IntoIterator<Item = AuthzPolicy>) -> Self {
        Self {
            action,
            policies: policies.into_iter().map(Arc::new).collect(),
        }
    }
}
