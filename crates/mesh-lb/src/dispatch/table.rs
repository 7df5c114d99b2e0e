//! One worker's services and cursors, by cluster and host.

use super::zone::Zone;
use crate::words::WordMap;
use crate::{Ask, ClusterHosts, Host, HostSet, MakeEndpoint, Picker};
use mesh_core::HostId;
use mesh_core::model::{Address, ClusterEntry, ClusterKey, DiscoveryKind, Endpoint, Snapshot};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How many hosts named by requests a worker keeps services for.
pub(super) const MOST_AUTHORITIES: usize = 1024;

/// How often named hosts that nobody uses are looked for, and how long one without a connection
/// is kept where it is the destination of intercepted connections (Envoy `cleanup_interval`).
const CLEANUP: Duration = Duration::from_secs(5);

/// How long one without a connection is kept where it is named by an authority (Envoy `host_ttl`).
const AUTHORITY_KEPT: Duration = Duration::from_secs(300);

pub(crate) struct Table<S> {
    rows: WordMap<ClusterKey, Row<S>>,
    authorities: HashMap<(ClusterKey, Address), Named<S>>,
    /// Counts uses of `authorities`.
    uses: u64,
    /// When unused ones were last looked for.
    cleaned: Option<Instant>,
    /// The newest snapshot seen.
    version: u64,
    /// A request with an older snapshot brought back a cluster that had been dropped.
    has_stragglers: bool,
    /// The cluster of nodes like this one, for who brings no snapshot along.
    pub(super) local: Option<Arc<ClusterEntry>>,
}

/// A host and its service.
pub(super) struct Placed<S> {
    pub(super) host: Arc<Host>,
    pub(super) service: S,
}

/// What belongs to one cluster.
struct Row<S> {
    picker: Picker,
    services: WordMap<HostId, S>,
    /// The change of endpoints that `services` was last compared with.
    stamp: u64,
    /// The configuration that `services` were made for.
    revision: u64,
}

/// A host that requests name themselves.
struct Named<S> {
    host: Arc<Host>,
    service: S,
    revision: u64,
    used: u64,
    used_at: Instant,
    kept: Duration,
}

// === impl Table ===

impl<S: Clone> Table<S> {
    /// Notes the snapshot of a request for this cluster, and drops what a newer one has dropped.
    pub(super) fn meet(&mut self, snapshot: Option<&Snapshot>, key: ClusterKey) {
        let Some(snapshot) = snapshot else {
            return;
        };
        let version = snapshot.version();
        if version > self.version || (version == self.version && self.has_stragglers) {
            self.prune(snapshot);
        } else if version < self.version && !self.rows.contains_key(&key) {
            self.has_stragglers = true;
        }
    }

    /// Drops what is not in `snapshot`, and services of hosts that have left since.
    pub(super) fn adopt(&mut self, snapshot: &Snapshot) {
        if snapshot.version() < self.version {
            return;
        }
        self.prune(snapshot);
        for entry in snapshot.clusters() {
            if let Some(row) = self.rows.get_mut(&entry.key()) {
                let hosts = ClusterHosts::of(entry);
                hosts.follow();
                hosts.with(|set| row.follow(entry, set));
            }
        }
    }

    fn prune(&mut self, snapshot: &Snapshot) {
        self.version = snapshot.version();
        self.has_stragglers = false;
        if self.rows.is_empty() && self.authorities.is_empty() {
            return;
        }
        let alive: WordMap<ClusterKey, ()> = snapshot
            .clusters()
            .iter()
            .map(|entry| (entry.key(), ()))
            .collect();
        self.rows.retain(|key, _| alive.contains_key(key));
        self.authorities
            .retain(|(key, _), _| alive.contains_key(key));
    }

    /// The hosts of the cluster of nodes like this one.
    pub(super) fn peers(
        &self,
        zone: &Zone,
        snapshot: Option<&Snapshot>,
        now: Instant,
    ) -> Option<Arc<HostSet>> {
        let name = zone.cluster.as_ref()?;
        let entry = match snapshot {
            Some(snapshot) => snapshot.cluster(name)?,
            None => self.local.as_ref()?,
        };
        let hosts = ClusterHosts::of(entry);
        hosts.locate(&zone.locality);
        Some(hosts.refresh(entry, now))
    }

    /// Chooses a host of `set`, with its service.
    pub(super) fn place<M>(
        &mut self,
        entry: &Arc<ClusterEntry>,
        set: &HostSet,
        ask: &Ask<'_>,
        chosen: Option<Arc<Host>>,
        make: &M,
    ) -> Option<Placed<S>>
    where
        M: MakeEndpoint<Service = S>,
    {
        let row = self
            .rows
            .entry(entry.key())
            .or_insert_with(|| Row::new(entry));
        row.follow(entry, set);
        let host = match chosen {
            Some(host) => host,
            None => row.picker.choose(set, ask)?.host,
        };
        let service = row
            .services
            .entry(host.id())
            .or_insert_with(|| make.make(&host, entry))
            .clone();
        Some(Placed { host, service })
    }

    /// The host at this address, made for the request if it is not known.
    pub(super) fn place_at<M>(
        &mut self,
        entry: &Arc<ClusterEntry>,
        address: Address,
        now: Instant,
        make: &M,
    ) -> Placed<S>
    where
        M: MakeEndpoint<Service = S>,
    {
        self.forget_the_unused(now);
        self.uses += 1;
        let used = self.uses;
        let key = (entry.key(), address);
        if let Some(named) = self.authorities.get_mut(&key)
            && named.revision >= entry.revision()
        {
            named.used = used;
            named.used_at = now;
            return Placed {
                host: named.host.clone(),
                service: named.service.clone(),
            };
        }
        if self.authorities.len() >= MOST_AUTHORITIES {
            self.forget_the_oldest();
        }
        let endpoint = Arc::new(Endpoint::new(key.1.clone()));
        let host = Arc::new(Host::new(endpoint, 0, Arc::default()));
        let service = make.make(&host, entry);
        let placed = Placed {
            host: host.clone(),
            service: service.clone(),
        };
        let named = Named {
            host,
            service,
            revision: entry.revision(),
            used,
            used_at: now,
            kept: match entry.config().discovery {
                DiscoveryKind::OriginalDestination => CLEANUP,
                _ => AUTHORITY_KEPT,
            },
        };
        self.authorities.insert(key, named);
        placed
    }

    /// Hosts come and go with those who name them: one that nobody has named for a while and that
    /// no connection leads to is forgotten.
    fn forget_the_unused(&mut self, now: Instant) {
        let cleaned = *self.cleaned.get_or_insert(now);
        if now.saturating_duration_since(cleaned) < CLEANUP {
            return;
        }
        self.cleaned = Some(now);
        self.authorities.retain(|_, named| {
            let unused = now.saturating_duration_since(named.used_at);
            unused < named.kept || named.host.active() > 0 || named.host.counts().cx_active > 0
        });
    }

    /// Only new names come here and the bound is small, so looking at all of them will do.
    fn forget_the_oldest(&mut self) {
        let oldest = self.authorities.iter().min_by_key(|(_, named)| named.used);
        if let Some(key) = oldest.map(|(key, _)| key.clone()) {
            self.authorities.remove(&key);
        }
    }
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self {
            rows: WordMap::default(),
            authorities: HashMap::new(),
            uses: 0,
            cleaned: None,
            version: 0,
            has_stragglers: false,
            local: None,
        }
    }
}

impl<S> fmt::Debug for Table<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("version", &self.version)
            .field("clusters", &self.rows.len())
            .field("authorities", &self.authorities.len())
            .finish_non_exhaustive()
    }
}

// === impl Row ===

impl<S> Row<S> {
    fn new(entry: &ClusterEntry) -> Self {
        Self {
            picker: Picker::default(),
            services: WordMap::default(),
            stamp: 0,
            revision: entry.revision(),
        }
    }

    /// Drops the services of hosts that left, and all of them when the cluster is configured
    /// anew: they were made for the old configuration.
    fn follow(&mut self, entry: &ClusterEntry, set: &HostSet) {
        if entry.revision() > self.revision {
            self.revision = entry.revision();
            self.services.clear();
        }
        let members = set.members();
        if self.stamp != members.stamp {
            self.stamp = members.stamp;
            self.services.retain(|id, _| members.contains(*id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::flight::Owner;
    use super::*;
    use mesh_core::model::{Cluster, EndpointSet, SnapshotBuilder};
    use mesh_core::model::{RouteTable, Rule, VirtualHost};
    use mesh_core::{Caller, Exchange, Matched, Pinned};
    use mesh_test::fixture::address;

    fn snapshot(previous: Option<&Arc<Snapshot>>, clusters: &[&str]) -> Arc<Snapshot> {
        let mut builder = previous.map_or_else(SnapshotBuilder::new, SnapshotBuilder::from);
        let host = VirtualHost::new("all", ["*"]).rule(Rule::prefix_to("/", "a"));
        builder.routes(RouteTable::new("t").host(host));
        for name in clusters {
            builder.cluster(Cluster::new(*name));
            builder.endpoints(*name, EndpointSet::of([address("10.0.0.1:1")]));
        }
        builder.build().unwrap().0
    }

    fn owner(snapshot: &Arc<Snapshot>, cluster: &str) -> Owner {
        let exchange = Exchange::new(Instant::now(), Caller::default());
        let matched = Matched::new(Pinned::new(snapshot.clone()), 0, 0, 0);
        exchange.set_matched(matched.to(None, snapshot.cluster_index(cluster)));
        Owner::Route(exchange)
    }

    fn make(_: &Arc<Host>, _: &Arc<ClusterEntry>) -> Arc<()> {
        Arc::new(())
    }

    fn send(table: &mut Table<Arc<()>>, owner: &Owner) -> Arc<()> {
        let entry = owner.cluster();
        let set = ClusterHosts::of(entry).current();
        table.meet(owner.snapshot(), entry.key());
        let placed = table.place(entry, &set, &Ask::new(0), None, &make);
        placed.expect("one host").service
    }

    #[test]
    fn a_cluster_that_a_newer_snapshot_has_not_got_is_dropped() {
        let mut table = Table::default();
        let first = snapshot(None, &["a", "b"]);
        let (a, b) = (
            send(&mut table, &owner(&first, "a")),
            send(&mut table, &owner(&first, "b")),
        );
        assert_eq!(Arc::strong_count(&b), 2);
        let second = snapshot(Some(&first), &["a"]);
        send(&mut table, &owner(&second, "a"));
        assert_eq!(
            Arc::strong_count(&b),
            1,
            "gone from the table; its request goes on"
        );
        assert_eq!(Arc::strong_count(&a), 2);
    }

    #[test]
    fn a_late_request_brings_a_dropped_cluster_back_only_for_a_while() {
        let mut table = Table::default();
        let first = snapshot(None, &["a", "b"]);
        let second = snapshot(Some(&first), &["a"]);
        send(&mut table, &owner(&second, "a"));
        let late = send(&mut table, &owner(&first, "b"));
        assert_eq!(Arc::strong_count(&late), 2);
        send(&mut table, &owner(&second, "a"));
        assert_eq!(Arc::strong_count(&late), 1);
    }

    #[test]
    fn a_host_that_left_takes_its_service_with_it() {
        let mut table = Table::default();
        let first = snapshot(None, &["a"]);
        let service = send(&mut table, &owner(&first, "a"));
        let entry = &first.clusters()[0];
        entry
            .live()
            .publish_endpoints(Arc::new(EndpointSet::of([address("10.0.0.1:2")])));
        table.adopt(&first);
        assert_eq!(Arc::strong_count(&service), 1);
    }

    #[test]
    fn another_configuration_makes_other_services() {
        let mut table = Table::default();
        let first = snapshot(None, &["a"]);
        let old = send(&mut table, &owner(&first, "a"));
        let mut builder = SnapshotBuilder::from(&first);
        let host = VirtualHost::new("all", ["*"]).rule(Rule::prefix_to("/", "a"));
        builder.routes(RouteTable::new("t").host(host));
        let mut changed = Cluster::new("a");
        changed.max_requests_per_connection = 1;
        builder.cluster(changed);
        let (second, _) = builder.build().unwrap();
        let new = send(&mut table, &owner(&second, "a"));
        assert!(!Arc::ptr_eq(&old, &new));
        // A late request of the old configuration shares what there is now.
        let late = send(&mut table, &owner(&first, "a"));
        assert!(Arc::ptr_eq(&new, &late));
    }

    #[test]
    fn of_named_hosts_the_least_recently_used_is_forgotten_first() {
        let mut table = Table::default();
        let snapshot = snapshot(None, &["a"]);
        let entry = &snapshot.clusters()[0];
        let now = Instant::now();
        let mut at = |port: usize| {
            let address = address(&format!("example.com:{port}"));
            table.place_at(entry, address, now, &make).service
        };
        let first = at(1);
        let second = at(2);
        for port in 3..=MOST_AUTHORITIES {
            at(port);
        }
        assert!(Arc::ptr_eq(&first, &at(1)), "used again");
        at(MOST_AUTHORITIES + 1);
        assert!(Arc::ptr_eq(&first, &at(1)));
        assert_eq!(Arc::strong_count(&second), 1, "forgotten");
        assert_eq!(table.authorities.len(), MOST_AUTHORITIES);
    }
    #[test]
    fn a_destination_is_forgotten_once_nobody_goes_there_and_no_connection_is_open() {
        let mut table = Table::default();
        let mut cluster = Cluster::new("a");
        cluster.discovery = DiscoveryKind::OriginalDestination;
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster);
        let snapshot = builder.build().unwrap().0;
        let entry = &snapshot.clusters()[0];
        let start = Instant::now();
        let mut at = |port: u16, after: u64| {
            let now = start + Duration::from_secs(after);
            let placed = table.place_at(entry, address(&format!("10.0.0.1:{port}")), now, &make);
            (placed, table.authorities.len())
        };
        let (connected, _) = at(1, 0);
        let connection = connected.host.connected();
        at(2, 0);
        assert_eq!(at(3, 4).1, 3, "not looked for yet");
        assert_eq!(at(4, 6).1, 3, "the second is gone, the first is connected");
        drop(connection);
        assert_eq!(at(4, 12).1, 1);
        assert_ne!(at(1, 13).0.host.id(), connected.host.id());
    }
}
