//! Statistics as text: Envoy's `/stats` in its three formats.
//!
//! A [`Scrape`] collects what there is to tell at one moment; a [`Query`] says what of it is asked
//! for, in the words of Envoy's admin interface. Two clusters (or listeners) with one name in the
//! statistics are added up.
//!
//! The gauges of circuit breakers are worked out here from what is in use and the limits in force.
//! Where Envoy tells what was ever used from what never was, here `usedonly` leaves out whatever
//! is zero.
//!
//! ```
//! use mesh_core::stats::{Block, HttpStat, Kind};
//! use mesh_core::Shard;
//! use mesh_telemetry::expose::{Query, Scrape};
//!
//! let block = Block::default();
//! block.add(Shard::default(), HttpStat::Rq2xx, 3);
//! let mut scrape = Scrape::new();
//! scrape.http("ingress", &block).value("server.live", Kind::Gauge, 1);
//!
//! let query = Query::parse("usedonly&filter=2xx|live")?;
//! assert_eq!(scrape.text(&query), "http.ingress.downstream_rq_2xx: 3\nserver.live: 1\n");
//! assert!(scrape.prometheus(&query).contains(
//!     "envoy_http_downstream_rq_xx{envoy_response_code_class=\"2\",\
//!      envoy_http_conn_manager_prefix=\"ingress\"} 3\n"
//! ));
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

mod breakers;
mod id;
mod json;
mod prometheus;
mod quantile;
mod query;
mod text;

use id::{Id, Owner, Subject};

pub use query::{Output, Query, Select};

use crate::Telemetry;
use crate::istio::{Labels, Series, TcpSeries};
use mesh_core::model::{Balancing, Cluster, ClusterEntry, Snapshot};
use mesh_core::stats::{
    AuthzStat, Block, ClusterStat, Codes, ExternalStat, HttpStat, Kind, ListenerStat, RouteStat,
    SessionStat, Stat, Summary, TcpStat, TlsStat,
};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that there is to tell at one moment.
#[derive(Debug, Default)]
pub struct Scrape {
    /// What is collected; everything without it.
    only: Option<Query>,
    samples: Vec<Sample>,
    histograms: Vec<Distribution>,
    series: Vec<(Labels, Arc<Series>)>,
    connections: Vec<(Labels, Arc<TcpSeries>)>,
}

/// One counter or gauge.
#[derive(Clone, Debug)]
struct Sample {
    id: Id,
    kind: Kind,
    value: u64,
}

/// One histogram.
#[derive(Clone, Debug)]
struct Distribution {
    id: Id,
    summary: Summary,
}

/// A number as it is shown: of all that have one name.
#[derive(Clone, Copy, Debug)]
struct Shown<'a> {
    id: &'a Id,
    kind: Kind,
    value: u64,
}

// === impl Scrape ===

impl Scrape {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing yet, and of what is added only what this query asks for: all statistics of many
    /// clusters take far more memory than the few that most ask for.
    ///
    /// ```
    /// use mesh_core::stats::Kind;
    /// use mesh_telemetry::expose::{Query, Scrape};
    ///
    /// let query = Query::parse("filter=^server")?;
    /// let mut scrape = Scrape::only(query.clone());
    /// scrape.value("server.live", Kind::Gauge, 1).value("other", Kind::Gauge, 1);
    /// assert_eq!(scrape.text(&query), scrape.text(&Query::default()));
    /// # Ok::<(), mesh_core::Invalid>(())
    /// ```
    pub fn only(query: Query) -> Self {
        Self {
            only: Some(query),
            ..Self::default()
        }
    }

    /// Adds every cluster of a snapshot, and the names that its rules have in statistics. What was
    /// counted for rules is with [`Scrape::telemetry`].
    pub fn snapshot(&mut self, snapshot: &Snapshot) -> &mut Self {
        for cluster in snapshot.clusters() {
            self.cluster(cluster);
        }
        let untouched = Block::default();
        for host in snapshot.tables().iter().flat_map(|t| &t.virtual_hosts) {
            let prefixes = host.rules.iter().map(|rule| &rule.stat_prefix);
            for prefix in prefixes.filter(|prefix| !prefix.is_empty()) {
                self.route(&host.name, prefix, &untouched);
            }
        }
        self
    }

    /// Adds a cluster: `cluster.NAME.*`, by its name in statistics if it has one of its own.
    pub fn cluster(&mut self, cluster: &ClusterEntry) -> &mut Self {
        let config = cluster.config();
        let live = cluster.live();
        let name = config.stat_name.as_ref().unwrap_or(&config.name);
        let owner = Subject::new(Owner::Cluster(clean(name)));
        let block = live.stats().block();
        for (stat, name, kind) in ClusterStat::ALL {
            if !is_of(*stat, config) {
                continue;
            }
            let value = match breakers::is_open(*stat, cluster) {
                Some(open) => u64::from(open),
                None => block.get(*stat),
            };
            self.sample(&owner, *name, *kind, value);
        }
        for (name, left) in breakers::remaining(cluster) {
            self.sample(&owner, name, Kind::Gauge, left);
        }
        for (code, count) in live.stats().codes().counts() {
            let name = format!("upstream_rq_{code}");
            self.sample(&owner, name, Kind::Counter, count);
        }
        if let Some(codes) = live.stats().retried_codes() {
            self.once_more(&owner, "retry", codes);
        }
        if let Some(codes) = live.stats().canary_codes() {
            self.once_more(&owner, "canary", codes);
        }
        if let Some(block) = live.stats().tls() {
            self.agreed(&owner, block);
        }
        for (name, histogram) in [
            ("upstream_rq_time", live.stats().request_time()),
            ("upstream_cx_connect_ms", live.stats().connect_time()),
        ] {
            let id = Id::new(&owner, name);
            if self.collects(&id, Select::Histograms) {
                let summary = histogram.summary();
                self.histograms.push(Distribution { id, summary });
            }
        }
        self
    }

    /// Adds the statistics of a listener's HTTP side: `http.PREFIX.*`.
    pub fn http(&mut self, prefix: &str, block: &Block<HttpStat>) -> &mut Self {
        let owner = Subject::new(Owner::Http(clean(prefix)));
        for (name, kind, value) in block.iter() {
            self.sample(&owner, name, kind, value);
        }
        self
    }

    /// Adds what was counted where rules judge requests (`http.PREFIX.NAME*`) or, without a prefix,
    /// connections (`NAME*`).
    pub fn authz(
        &mut self,
        prefix: Option<&str>,
        name: &str,
        block: &Block<AuthzStat>,
    ) -> &mut Self {
        let owner = Subject::new(http(prefix));
        let name = clean(name);
        for (stat, kind, value) in block.iter() {
            self.sample(&owner, format!("{name}{stat}"), kind, value);
        }
        self
    }

    /// Adds what was counted where a service is asked about requests (`http.PREFIX.NAME*`) or, without
    /// a prefix, about connections (`NAME*`).
    pub fn external(
        &mut self,
        prefix: Option<&str>,
        name: &str,
        block: &Block<ExternalStat>,
    ) -> &mut Self {
        let owner = Subject::new(http(prefix));
        let name = clean(name);
        for (stat, kind, value) in block.iter() {
            self.sample(&owner, format!("{name}{stat}"), kind, value);
        }
        self
    }

    /// Adds what was counted of sessions: `http.PREFIX.stateful_session.NAME.*`, or without a prefix, of
    /// rules', `stateful_session.NAME.*`.
    pub fn session(
        &mut self,
        prefix: Option<&str>,
        name: &str,
        block: &Block<SessionStat>,
    ) -> &mut Self {
        let owner = Subject::new(http(prefix));
        let name = clean(name);
        for (stat, kind, value) in block.iter() {
            let name = format!("stateful_session.{name}.{stat}");
            self.sample(&owner, name, kind, value);
        }
        self
    }

    /// Adds the statistics of connections that are passed on as they are: `tcp.PREFIX.*`.
    pub fn tcp(&mut self, prefix: &str, block: &Block<TcpStat>) -> &mut Self {
        let owner = Subject::new(Owner::Tcp(clean(prefix)));
        for (name, kind, value) in block.iter() {
            self.sample(&owner, name, kind, value);
        }
        self
    }

    /// Adds the statistics of a listener, by its address: `listener.ADDRESS.*`.
    pub fn listener(&mut self, address: &str, block: &Block<ListenerStat>) -> &mut Self {
        let owner = Subject::new(Owner::Listener(clean(address)));
        for (name, kind, value) in block.iter() {
            self.sample(&owner, name, kind, value);
        }
        self
    }

    /// Adds what the handshakes of a listener agreed on, by its address:
    /// `listener.ADDRESS.ssl.ciphers.*` and the like.
    pub fn listener_tls(&mut self, address: &str, block: &Block<TlsStat>) -> &mut Self {
        self.agreed(&Subject::new(Owner::Listener(clean(address))), block);
        self
    }

    /// As in Envoy only those that have counted.
    fn agreed(&mut self, owner: &Arc<Subject>, block: &Block<TlsStat>) {
        for (name, kind, value) in block.iter().filter(|(_, _, value)| *value > 0) {
            self.sample(owner, name, kind, value);
        }
    }

    /// Adds the statistics of rules: `vhost.HOST.route.PREFIX.*`, with the names as they are.
    /// Adds `retry.upstream_rq_*`: each code, its class, and all together.
    fn once_more(&mut self, owner: &Arc<Subject>, prefix: &str, codes: &Codes) {
        let mut sums = BTreeMap::<String, u64>::new();
        for (code, count) in codes.counts() {
            for name in [
                code.to_string(),
                format!("{}xx", code / 100),
                "completed".into(),
            ] {
                *sums.entry(name).or_default() += count;
            }
        }
        for (name, count) in sums {
            let name = format!("{prefix}.upstream_rq_{name}");
            self.sample(owner, name, Kind::Counter, count);
        }
    }

    fn route(&mut self, host: &str, prefix: &str, block: &Block<RouteStat>) {
        let owner = Subject::new(Owner::Route(printable(host), printable(prefix)));
        for (name, kind, value) in block.iter() {
            self.sample(&owner, name, kind, value);
        }
    }

    /// Adds a number of the process, e.g. `server.live`.
    pub fn value(&mut self, name: &str, kind: Kind, value: u64) -> &mut Self {
        self.sample(&Subject::new(Owner::Process), name.to_owned(), kind, value);
        self
    }

    /// Adds Istio's standard metrics, which only the Prometheus format has, the statistics of rules
    /// with a prefix (`vhost.HOST.route.PREFIX.*`), and what telemetry has to tell of itself:
    /// `telemetry.access_log_lines_dropped`, `telemetry.series_refused`.
    pub fn telemetry(&mut self, telemetry: &Telemetry) -> &mut Self {
        self.series.extend(telemetry.registry.all());
        self.connections.extend(telemetry.connections.all());
        for ((host, prefix), stats) in telemetry.routes.all() {
            self.route(&host, &prefix, &stats.block);
            let owner = Subject::new(Owner::Route(printable(&host), printable(&prefix)));
            for (code, count) in stats.codes.counts() {
                let name = format!("upstream_rq_{code}");
                self.sample(&owner, name, Kind::Counter, count);
            }
        }
        let dropped = telemetry.dropped_lines();
        self.value("telemetry.access_log_lines_dropped", Kind::Gauge, dropped);
        let refused = telemetry.refused_series();
        self.value("telemetry.series_refused", Kind::Counter, refused)
    }

    /// Writes what is asked for, in the format that is asked for.
    pub fn write(&self, query: &Query) -> String {
        match query.output {
            Output::Text => self.text(query),
            Output::Json => self.json(query),
            Output::Prometheus => self.prometheus(query),
        }
    }

    /// Lines of `name: value`, as Envoy's `/stats`.
    pub fn text(&self, query: &Query) -> String {
        let samples = self.samples(query);
        text::write(shown(&samples, query), &self.distributions(query))
    }

    /// As Envoy's `/stats?format=json`.
    pub fn json(&self, query: &Query) -> String {
        let samples = self.samples(query);
        json::write(shown(&samples, query), &self.distributions(query))
    }

    /// As Envoy's `/stats/prometheus`: the text format of Prometheus, version 0.0.4.
    pub fn prometheus(&self, query: &Query) -> String {
        let samples = self.samples(query);
        prometheus::write(
            shown(&samples, query),
            &self.distributions(query),
            &self.series,
            &self.connections,
            query,
        )
    }

    fn sample(
        &mut self,
        of: &Arc<Subject>,
        stat: impl Into<Cow<'static, str>>,
        kind: Kind,
        value: u64,
    ) {
        // Where only what is used is asked for, zeros add nothing to others of their name.
        if value == 0 && self.only.as_ref().is_some_and(|query| query.used_only) {
            return;
        }
        let id = Id::new(of, stat);
        if self.collects(&id, kind.into()) {
            self.samples.push(Sample { id, kind, value });
        }
    }

    fn collects(&self, id: &Id, kind: Select) -> bool {
        let only = self.only.as_ref();
        only.is_none_or(|query| query.selects(id, kind))
    }

    /// The counters and gauges asked for, by name.
    fn samples(&self, query: &Query) -> Vec<&Sample> {
        let all = self.samples.iter();
        let mut sorted: Vec<&Sample> = all
            .filter(|sample| query.selects(&sample.id, sample.kind.into()))
            .collect();
        sorted.sort_by(|a, b| a.id.cmp(&b.id));
        sorted
    }

    fn distributions(&self, query: &Query) -> Vec<Distribution> {
        let mut chosen: Vec<Distribution> = Vec::new();
        let mut sorted: Vec<&Distribution> = self.histograms.iter().collect();
        sorted.sort_by(|a, b| a.id.cmp(&b.id));
        for one in sorted {
            if !query.selects(&one.id, Select::Histograms) {
                continue;
            }
            match chosen.last_mut() {
                Some(last) if last.id == one.id => add(&mut last.summary, &one.summary),
                _ => chosen.push(one.clone()),
            }
        }
        chosen.retain(|one| !query.used_only || one.summary.count != 0);
        chosen
    }
}

/// Each name once, of samples that are in order.
fn shown<'a>(sorted: &'a [&'a Sample], query: &Query) -> impl Iterator<Item = Shown<'a>> {
    let used_only = query.used_only;
    let alike = sorted.chunk_by(|one, other| one.id == other.id);
    let summed = alike.map(|alike| Shown {
        id: &alike[0].id,
        kind: alike[0].kind,
        value: alike
            .iter()
            .fold(0, |sum, sample| sum.wrapping_add(sample.value)),
    });
    summed.filter(move |shown| !used_only || shown.value != 0)
}

fn http(prefix: Option<&str>) -> Owner {
    prefix.map_or(Owner::Process, |prefix| Owner::Http(clean(prefix)))
}

fn add(sum: &mut Summary, more: &Summary) {
    for (bucket, value) in sum.cumulative.iter_mut().zip(more.cumulative) {
        *bucket += value;
    }
    sum.count += more.count;
    sum.sum += more.sum;
}

/// As Envoy: a colon in a name becomes `_`. A line break would forge a line.
fn clean(name: &str) -> String {
    name.replace(|c: char| c == ':' || c.is_control(), "_")
}

/// A name as it is, as Envoy leaves those of virtual hosts and routes.
fn printable(name: &str) -> String {
    name.replace(char::is_control, "_")
}

/// Whether a cluster that is balanced so has the statistic: only a ring has points.
fn is_of(stat: ClusterStat, config: &Cluster) -> bool {
    let balancing = config.balancing;
    match stat {
        ClusterStat::RingSize | ClusterStat::RingLeast | ClusterStat::RingMost => {
            matches!(balancing, Balancing::RingHash(_))
        }
        ClusterStat::MaglevLeast | ClusterStat::MaglevMost => {
            matches!(balancing, Balancing::Maglev(_))
        }
        ClusterStat::CheckAttempt
        | ClusterStat::CheckSuccess
        | ClusterStat::CheckFailure
        | ClusterStat::CheckPassiveFailure
        | ClusterStat::CheckNetworkFailure
        | ClusterStat::CheckVerifyCluster
        | ClusterStat::CheckHealthy
        | ClusterStat::CheckDegraded => !config.health_checks.is_empty(),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
