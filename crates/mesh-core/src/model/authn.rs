//! Who calls, by the token that they bring.
//!
//! Plain data in the shape of Envoy's filter `jwt_authn` (`JwtAuthentication`), so that it says the
//! same in three places. Istio's RequestAuthentication is compiled to it.

use super::PathMatch;
use crate::{Name, Origin, Slot};
use http::{HeaderName, Uri};
use std::fmt;
use std::time::Duration;

/// Which tokens requests have to bring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authn {
    /// Who issues tokens, in the order of their names. Names are unique.
    pub providers: Vec<JwtProvider>,
    /// What is asked of requests: of the first rule that matches. What none matches is let through.
    pub rules: Vec<AuthnRule>,
    /// What routes may ask instead, by its name, in the order of the names (`requirement_map`).
    pub named: Vec<(Name, TokenRequirement)>,
    /// Preflights of browsers are let through: they cannot bring a token
    /// (`bypass_cors_preflight`). Default false.
    pub bypass_preflight: bool,
    /// Refusals do not say why (`strip_failure_response`). Default false.
    pub silent: bool,
    /// For the compiled form and the keys that were fetched, kept by whoever verifies.
    pub slot: Slot,
}

/// Something is asked of requests with such a path.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthnRule {
    /// Which paths. A prefix is compared with path and query, as Envoy does here.
    pub path: PathMatch,
    /// What is asked.
    pub requires: TokenRequirement,
}

/// What is asked of a request (`JwtRequirement`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TokenRequirement {
    /// Nothing.
    #[default]
    Nothing,
    /// A token of this provider, for one of these audiences; without any, for one of the
    /// provider's own.
    Provider(Name, Vec<Name>),
    /// One of these; the first that holds ends it.
    Any(Vec<Self>),
    /// All of these.
    All(Vec<Self>),
    /// None at all, or valid ones of any providers (`allow_missing`).
    AllowMissing,
    /// Anything; what is valid is noted (`allow_missing_or_failed`).
    AllowMissingOrFailed,
}

/// Who issues tokens (`JwtProvider`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct JwtProvider {
    /// Its name, as requirements have it.
    pub name: Name,
    /// Where it was configured.
    pub origin: Origin,
    /// The claim `iss` has to be this; empty takes any.
    pub issuer: Name,
    /// One of the token's audiences has to be among these; none takes any.
    pub audiences: Vec<Name>,
    /// The keys that tokens are signed with.
    pub keys: Jwks,
    /// Headers that may bring a token, each with what stands before it. Without headers, parameters
    /// and cookies: `Authorization` with `Bearer `, and the parameter `access_token`.
    pub from_headers: Vec<(HeaderName, String)>,
    /// Parameters of the query that may bring a token.
    pub from_params: Vec<String>,
    /// Cookies that may bring a token.
    pub from_cookies: Vec<String>,
    /// The token goes on with the request. Otherwise it is taken off, but never out of cookies.
    /// Default false.
    pub forward: bool,
    /// The header that the payload goes on in, base64url as it came.
    pub payload_header: Option<HeaderName>,
    /// Pad it with `=`. Default false.
    pub pad_payload: bool,
    /// Headers that claims go on in. Callers' own are taken off.
    pub claim_headers: Vec<ClaimHeader>,
    /// Keep the payload, for rules and routes that ask for claims (`payload_in_metadata`).
    pub keep_claims: bool,
    /// Claims that are kept as a list of the words in them
    /// (`normalize_payload_in_metadata.space_delimited_claims`).
    pub word_claims: Vec<Name>,
    /// How far clocks may be apart. Default 60 s, in whole seconds.
    pub clock_skew: Duration,
    /// Routes are looked for with what the token says, not before (`clear_route_cache`). Default
    /// false.
    pub clear_route: bool,
}

/// A header that a claim goes on in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimHeader {
    /// Its name.
    pub header: HeaderName,
    /// The claim; a dot leads into what is nested.
    pub claim: Name,
}

/// Keys, as a JSON Web Key Set (RFC 7517).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Jwks {
    /// Here they are. Text that is none has no key, so that no token is valid.
    Inline(Name),
    /// They are got from somewhere else.
    Remote(RemoteJwks),
}

/// Where keys are got from (`RemoteJwks`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteJwks {
    /// What is asked for.
    pub uri: Uri,
    /// The cluster that is asked.
    pub cluster: Name,
    /// For the whole answer.
    pub timeout: Duration,
    /// How long keys are used before they are got again. Default 10 min.
    pub cache_for: Duration,
    /// Further attempts after one that failed. Default 0.
    pub retries: u32,
}

// === impl AuthnRule ===

impl AuthnRule {
    /// Every request has to meet this.
    pub fn always(requires: TokenRequirement) -> Self {
        Self::at(PathMatch::Prefix("/".into()), requires)
    }

    /// Requests with such a path have to meet this.
    pub fn at(path: PathMatch, requires: TokenRequirement) -> Self {
        Self { path, requires }
    }
}

// === impl JwtProvider ===

impl JwtProvider {
    /// A provider by its name, its issuer and its keys, with Envoy's defaults.
    pub fn new(name: impl Into<Name>, issuer: impl Into<Name>, keys: Jwks) -> Self {
        Self {
            name: name.into(),
            origin: Origin::NONE,
            issuer: issuer.into(),
            audiences: Vec::new(),
            keys,
            from_headers: Vec::new(),
            from_params: Vec::new(),
            from_cookies: Vec::new(),
            forward: false,
            payload_header: None,
            pad_payload: false,
            claim_headers: Vec::new(),
            keep_claims: false,
            word_claims: Vec::new(),
            clock_skew: Duration::from_secs(60),
            clear_route: false,
        }
    }
}

// === impl Jwks ===

impl fmt::Debug for Jwks {
    /// A set may hold symmetric keys, so it is not shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(text) => write!(f, "Inline({} bytes)", text.len()),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

// === impl RemoteJwks ===

impl RemoteJwks {
    /// Keys of a URI, asked of a cluster, with Envoy's defaults and a timeout of 5 s (Istio's).
    pub fn new(uri: Uri, cluster: impl Into<Name>) -> Self {
        Self {
            uri,
            cluster: cluster.into(),
            timeout: Duration::from_secs(5),
            cache_for: Duration::from_secs(600),
            retries: 0,
        }
    }
}
