//! Route tables: which rule a request meets and what the rule says.

use super::edits::HeaderEdits;
use super::follow::FollowRedirects;
use super::policy::{Cors, Hedge, RateLimit, Retry};
use super::{
    AuthorityRewrite, Condition, Fault, HashPolicy, Mirror, PathMatch, PathRewrite, Priority,
    Redirect, RoutePolicies, RouteSession,
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
    /// How requests are kept at an endpoint. None is as the listener has it.
    pub session: Option<RouteSession>,
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
    pub authority: Option<Box<AuthorityRewrite>>,
    /// Append the authority that is replaced to `x-forwarded-host`.
    pub append_forwarded_host: bool,
    /// Status when the cluster does not exist. Default 503.
    pub not_found: Option<StatusCode>,
    /// Where the rewrite was configured.
    pub rewrite_origin: Origin,
    /// What consistent hashing goes by, in order.
    pub hash: Vec<HashPolicy>,
    /// What a weighted split is drawn by.
    pub draw: Draw,
    /// Upgrades by their names, lower case, that pass or do not pass here, whatever the listener
    /// says (Envoy `RouteAction.upgrade_configs`). Default none: as the listener says.
    pub upgrades: Vec<(Name, bool)>,
    /// Which endpoints of the cluster are asked for: names and values as JSON (Envoy
    /// `metadata_match`).
    pub subset: BTreeMap<Name, Name>,
    /// Whose limits and connections its requests use.
    pub priority: Priority,
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

/// What decides about a weighted split (Envoy `WeightedCluster.random_value_specifier`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Draw {
    /// Chance.
    #[default]
    Random,
    /// The number in this request header, from 0 up to 2⁶⁴ − 1. Chance where it is missing, comes
    /// more than once or is no such number.
    Header(Box<HeaderName>),
    /// The hash by [`Forward::hash`]; a cookie that would have to be made is left out. Chance where
    /// nothing of it is there.
    Hash,
}

/// One destination of a weighted split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Weighted {
    /// Where it was configured.
    pub origin: Origin,
    /// The cluster. Empty where a header names it.
    pub cluster: Name,
    /// The cluster is named by the first of these request headers, and does not exist where it is
    /// missing. Default none: it is [`Weighted::cluster`].
    pub cluster_header: Option<HeaderName>,
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

    /// The names of all clusters that this may send to, with where each was named; not those that
    /// requests name.
    pub fn clusters(&self) -> impl Iterator<Item = (&Name, Origin)> {
        let (one, many): (Option<(&Name, Origin)>, &[Weighted]) = match &self.to {
            Target::Cluster(name, origin) => (Some((name, *origin)), &[]),
            Target::Weighted(parts) => (None, parts),
            Target::Header(_) => (None, &[]),
        };
        one.into_iter().chain(
            many.iter()
                .filter(|part| part.cluster_header.is_none())
                .map(|part| (&part.cluster, part.origin)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_small() {
        // Thousands of them are held, each behind an `Arc`: the next size that allocators have is
        // an eighth to a quarter above this one.
        let counts = 2 * size_of::<usize>();
        assert!(counts + size_of::<Rule>() <= 640, "{}", size_of::<Rule>());
    }
}
