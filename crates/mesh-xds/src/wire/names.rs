//! The names under which Envoy has the extensions that are known here.

/// Cross-origin rules.
pub(crate) const CORS: &str = "envoy.filters.http.cors";
/// Delays and aborts.
pub(crate) const FAULT: &str = "envoy.filters.http.fault";
/// Local rate limit.
pub(crate) const RATE_LIMIT: &str = "envoy.filters.http.local_ratelimit";
/// Requests are kept at an endpoint.
pub(crate) const SESSION: &str = "envoy.filters.http.stateful_session";
/// Rules that judge requests.
pub(crate) const AUTHZ: &str = "envoy.filters.http.rbac";
/// A service is asked about requests.
pub(crate) const EXTERNAL: &str = "envoy.filters.http.ext_authz";
/// A service is asked about connections.
pub(crate) const EXTERNAL_OF_CONNECTIONS: &str = "envoy.filters.network.ext_authz";
/// Rules that judge connections.
pub(crate) const AUTHZ_OF_CONNECTIONS: &str = "envoy.filters.network.rbac";
/// What is kept of requests, and what it is made by.
pub(crate) const FILTER_STATE: &str = "envoy.filters.http.set_filter_state";
pub(crate) const STRING: &str = "envoy.string";
pub(crate) const HASHABLE_STRING: &str = "envoy.hashable_string";
pub(crate) const IP: &str = "envoy.network.ip";
/// Tokens, and where what they say is kept.
pub(crate) const JWT: &str = "envoy.filters.http.jwt_authn";
/// What a token says.
pub(crate) const JWT_PAYLOAD: &str = "payload";
/// What is missing is asked for.
pub(crate) const ON_DEMAND: &str = "envoy.filters.http.on_demand";
/// Retries avoid hosts that were tried.
pub(crate) const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
pub(crate) const OMIT_CANARY_HOSTS: &str = "envoy.retry_host_predicates.omit_canary_hosts";
pub(crate) const OMIT_HOST_METADATA: &str = "envoy.retry_host_predicates.omit_host_metadata";
/// Redirects are followed to routes like these.
pub(crate) const ALLOW_LISTED_ROUTES: &str =
    "envoy.internal_redirect_predicates.allow_listed_routes";
pub(crate) const PREVIOUS_ROUTES: &str = "envoy.internal_redirect_predicates.previous_routes";
pub(crate) const SAFE_CROSS_SCHEME: &str = "envoy.internal_redirect_predicates.safe_cross_scheme";
/// Paths of a template, and what is made of them.
pub(crate) const TEMPLATE: &str = "envoy.path.match.uri_template.uri_template_matcher";
pub(crate) const TEMPLATE_REWRITE: &str = "envoy.path.rewrite.uri_template.uri_template_rewriter";
/// Retries avoid priorities that were tried.
pub(crate) const PREVIOUS_PRIORITIES: &str = "envoy.retry_priorities.previous_priorities";
