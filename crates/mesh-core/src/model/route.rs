//! Route tables: which rule a request meets and what the rule says.

use super::edits::HeaderEdits;
use super::follow::FollowRedirects;
use super::policy::{Cors, Fault, Hedge, Mirror, RateLimit, Retry};
use super::{
    AuthorityRewrite, HashPolicy, PathRewrite, Pattern, Redirect, RoutePolicies, StringMatch,
};
use crate::{Name, Origin, Slot};
use bytes::Bytes;
use http::{HeaderName, StatusCode};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The routes of one or more listeners (Envoy `RouteConfiguration`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RouteTable {
    /// The table's name; listeners refer to it.
    pub name: Name,
    /// Virtual hosts. Domains are unique over all of them.
    pub virtual_hosts: Vec<Arc<VirtualHost>>,
    /// Ignore the port in the authority when looking for a virtual host.
    pub ignore_port: bool,
    /// Refuse routes that name an unknown cluster, instead of answering 503 NC at run time.
    pub validate_clusters: bool,
    /// Changes to every request of this table.
    pub request_edits: HeaderEdits,
    /// Changes to every response of this table.
    pub response_edits: HeaderEdits,
    /// Apply the edits of the table first and of the destination last, instead of the reverse.
    pub most_specific_edits_win: bool,
    /// Virtual hosts that are not there are asked for (Envoy `vhds`). They come in a later version
    /// of this table. Default none.
    pub on_demand: Option<HostsOnDemand>,
    /// What mesh-route compiled from this table.
    pub slot: Slot,
}

/// How virtual hosts that are not in a table are asked for. Only requests that come through a
/// manager with [`HttpManager::on_demand`](super::HttpManager::on_demand) ask.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostsOnDemand {
    /// The name by which whoever provides virtual hosts knows the table.
    pub table: Name,
    /// How long a request waits. None waits for as long as the request lives. Where configuration
    /// says nothing it is 15 s (`vhds.config_source.initial_fetch_timeout`; Envoy waits until the
    /// stream's idle timeout).
    pub wait: Option<Duration>,
}

/// Whether requests for clusters that do not exist ask for them (Envoy `OnDemandCds`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClustersOnDemand {
    /// They do not; they fail at once.
    #[default]
    Off,
    /// They do, and wait this long for an answer. Envoy's default is 5 s.
    Within(Duration),
}

/// The rules for a set of domains (Envoy `VirtualHost`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VirtualHost {
    /// Its name, for logs and stats.
    pub name: Name,
    /// Where it was configured.
    pub origin: Origin,
    /// `example.com`, `*.example.com`, `example.*` or `*`, with or without port. Lower case.
    pub domains: Vec<Name>,
    /// Rules in order; the first that matches wins.
    pub rules: Vec<Arc<Rule>>,
    /// Retries of the rules that have none of their own.
    pub retry: Option<Arc<Retry>>,
    /// Overlapping attempts of the rules that say nothing of them.
    pub hedge: Option<Hedge>,
    /// Cross-origin rules of the rules that have none of their own.
    pub cors: Option<Arc<Cors>>,
    /// Clusters on demand for the rules that say nothing of it. None is as the manager has it.
    pub on_demand: Option<ClustersOnDemand>,
    /// What is said of the filters that judge, for the rules that say nothing of them.
    pub policies: Option<Arc<RoutePolicies>>,
    /// Answer plain-text requests with a redirect to https.
    pub require_tls: bool,
    /// Put `x-envoy-attempt-count` on requests.
    pub count_attempts: bool,
    /// Put `x-envoy-attempt-count` on responses.
    pub count_attempts_in_response: bool,
    /// Changes to every request of this host.
    pub request_edits: HeaderEdits,
    /// Changes to every response of this host.
    pub response_edits: HeaderEdits,
    /// What mesh-route compiled from the rules.
    pub slot: Slot,
}

/// One rule: a condition, an action and the policies for requests that meet it (Envoy `Route`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// Its name, for logs; may be empty.
    pub name: Name,
    /// Where it was configured.
    pub origin: Origin,
    /// What a request has to look like.
    pub condition: Condition,
    /// What is done with it.
    pub action: Action,
    /// Limit from the end of the request to the end of the response, retries included. None is no
    /// limit (Istio's default; Envoy's own default of 15 s is written out by whoever reads xDS).
    pub timeout: Option<Duration>,
    /// Where the timeout was configured.
    pub timeout_origin: Origin,
    /// Limit without any progress on the stream, in either direction.
    pub idle_timeout: Option<Duration>,
    /// Limit for the whole stream, from its arrival; `Some(0)` is none. Where it is set, `timeout`
    /// plays no part, as in Envoy (`RouteAction.max_stream_duration`).
    pub max_stream_duration: Option<Duration>,
    /// The most that a caller's `grpc-timeout` may ask for; `Some(0)` is unlimited, `None` ignores
    /// the header. What it asks for takes the place of `max_stream_duration` where that is set
    /// (`grpc_timeout_header_max`), and else of `timeout` (`max_grpc_timeout`).
    pub max_grpc_timeout: Option<Duration>,
    /// So much earlier than its caller the request gives up that brings a `grpc-timeout`
    /// (`grpc_timeout_header_offset`, or `grpc_timeout_offset`, which leaves shorter ones alone).
    pub grpc_timeout_offset: Duration,
    /// Retries.
    pub retry: Option<Arc<Retry>>,
    /// Overlapping attempts. None is as the virtual host has it.
    pub hedge: Option<Hedge>,
    /// Redirects of upstreams that are followed here. Default none: all are passed on.
    pub follow: Option<Arc<FollowRedirects>>,
    /// Delays and aborts.
    pub fault: Option<Arc<Fault>>,
    /// Cross-origin rules.
    pub cors: Option<Arc<Cors>>,
    /// Copies.
    pub mirrors: Vec<Mirror>,
    /// Local rate limit.
    pub rate_limit: Option<Arc<RateLimit>>,
    /// Clusters on demand. None is as the virtual host has it.
    pub on_demand: Option<ClustersOnDemand>,
    /// What is said of the filters that judge. None is as the virtual host has it.
    pub policies: Option<Arc<RoutePolicies>>,
    /// Changes to the request.
    pub request_edits: HeaderEdits,
    /// Changes to the response.
    pub response_edits: HeaderEdits,
    /// Name of the operation in traces, e.g. `reviews.default.svc.cluster.local:9080/*`.
    pub operation: Name,
    /// Extra stat prefix for this rule.
    pub stat_prefix: Name,
}

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
    /// What the caller's token says (Envoy `dynamic_metadata` of the filter `jwt_authn`).
    pub claims: Vec<ClaimCondition>,
    /// Only gRPC requests (`content-type: application/grpc…`).
    pub grpc: bool,
    /// Only this share of requests.
    pub share: Option<super::Fraction>,
}

/// A condition on a claim of the caller's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimCondition {
    /// The claim.
    pub claim: super::ClaimMatch,
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
}

/// A condition on a header or pseudo-header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Which header.
    pub key: HeaderKey,
    /// What it has to be. A header that comes more than once matches text when any of its lines
    /// does; for the other kinds of values its lines are joined with `,`.
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

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Send it to a cluster.
    Forward(Forward),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer with a fixed response.
    Respond(DirectResponse),
}

/// Where a request is sent and how it is rewritten on the way (Envoy `RouteAction`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forward {
    /// Where to.
    pub to: Target,
    /// Changes to the path.
    pub path: PathRewrite,
    /// Replaces the authority.
    pub authority: Option<AuthorityRewrite>,
    /// Append the authority that is replaced to `x-forwarded-host`.
    pub append_forwarded_host: bool,
    /// Status when the cluster does not exist. Default 503.
    pub not_found: Option<StatusCode>,
    /// Where the rewrite was configured.
    pub rewrite_origin: Origin,
    /// What consistent hashing goes by, in order.
    pub hash: Vec<HashPolicy>,
    /// Which endpoints of the cluster are asked for: names and values as JSON (Envoy
    /// `metadata_match`).
    pub subset: BTreeMap<Name, Name>,
}

/// The cluster or clusters that a rule sends to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// One cluster.
    Cluster(Name, Origin),
    /// One of several, drawn by weight.
    Weighted(Vec<Weighted>),
    /// The cluster named by a request header; a missing header is answered 404.
    Header(HeaderName),
}

/// One destination of a weighted split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Weighted {
    /// Where it was configured.
    pub origin: Origin,
    /// The cluster.
    pub cluster: Name,
    /// Its share of the sum of all weights.
    pub weight: u32,
    /// Which endpoints of the cluster are asked for; wins over the rule's of the same name.
    pub subset: BTreeMap<Name, Name>,
    /// Changes to requests sent there.
    pub request_edits: HeaderEdits,
    /// Changes to responses from there.
    pub response_edits: HeaderEdits,
}

/// A fixed response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectResponse {
    /// Where it was configured.
    pub origin: Origin,
    /// Its status.
    pub status: StatusCode,
    /// Its body; with one, the content type is `text/plain` unless an edit says otherwise.
    pub body: Bytes,
}

// === defaults ===

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".to_owned())
    }
}

impl Default for Target {
    fn default() -> Self {
        Self::Cluster(Name::default(), Origin::NONE)
    }
}

impl Default for Action {
    fn default() -> Self {
        Self::Forward(Forward::default())
    }
}

// === impl VirtualHost ===

impl VirtualHost {
    /// A virtual host for `domains` with rules to come.
    pub fn new<D: Into<Name>>(name: impl Into<Name>, domains: impl IntoIterator<Item = D>) -> Self {
        Self {
            name: name.into(),
            domains: domains.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Adds a rule after those that are there.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(Arc::new(rule));
        self
    }
}

// === impl RouteTable ===

impl RouteTable {
    /// An empty table.
    pub fn new(name: impl Into<Name>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Adds a virtual host.
    #[must_use]
    pub fn host(mut self, host: VirtualHost) -> Self {
        self.virtual_hosts.push(Arc::new(host));
        self
    }
}

// === impl Rule ===

impl Rule {
    /// A rule that sends what begins with `prefix` to `cluster`.
    pub fn prefix_to(prefix: &str, cluster: impl Into<Name>) -> Self {
        Self {
            condition: Condition {
                path: PathMatch::Prefix(prefix.to_owned()),
                ..Condition::default()
            },
            action: Action::Forward(Forward::to(cluster)),
            ..Self::default()
        }
    }

    /// A rule with this condition and action and no policy.
    pub fn new(condition: Condition, action: Action) -> Self {
        Self {
            condition,
            action,
            ..Self::default()
        }
    }

    /// The forwarding part, when the rule forwards.
    pub fn forward(&self) -> Option<&Forward> {
        match &self.action {
            Action::Forward(forward) => Some(forward),
            _ => None,
        }
    }
}

// === impl Forward ===

impl Forward {
    /// Everything to one cluster.
    pub fn to(cluster: impl Into<Name>) -> Self {
        Self {
            to: Target::Cluster(cluster.into(), Origin::NONE),
            ..Self::default()
        }
    }

    /// A weighted split.
    pub fn split<N: Into<Name>>(parts: impl IntoIterator<Item = (N, u32)>) -> Self {
        let parts = parts
            .into_iter()
            .map(|(cluster, weight)| Weighted {
                cluster: cluster.into(),
                weight,
                ..Weighted::default()
            })
            .collect();
        Self {
            to: Target::Weighted(parts),
            ..Self::default()
        }
    }

    /// The names of all clusters that this may send to, with where each was named.
    pub fn clusters(&self) -> impl Iterator<Item = (&Name, Origin)> {
        let (one, many): (Option<(&Name, Origin)>, &[Weighted]) = match &self.to {
            Target::Cluster(name, origin) => (Some((name, *origin)), &[]),
            Target::Weighted(parts) => (None, parts),
            Target::Header(_) => (None, &[]),
        };
        one.into_iter()
            .chain(many.iter().map(|part| (&part.cluster, part.origin)))
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
