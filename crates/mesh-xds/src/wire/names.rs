//! The names under which Envoy has the extensions that are known here.

/// Cross-origin rules.
pub(crate) const CORS: &str = "envoy.filters.http.cors";
/// Delays and aborts.
pub(crate) const FAULT: &str = "envoy.filters.http.fault";
/// Local rate limit.
pub(crate) const RATE_LIMIT: &str = "envoy.filters.http.local_ratelimit";
/// What is missing is asked for.
pub(crate) const ON_DEMAND: &str = "envoy.filters.http.on_demand";
/// Retries avoid hosts that were tried.
pub(crate) const PREVIOUS_HOSTS: &str = "envoy.retry_host_predicates.previous_hosts";
/// Retries avoid priorities that were tried.
pub(crate) const PREVIOUS_PRIORITIES: &str = "envoy.retry_priorities.previous_priorities";
