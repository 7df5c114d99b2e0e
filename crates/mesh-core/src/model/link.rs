//! Puts a snapshot together: checks references, keeps what did not change.

mod check;
mod reuse;

use self::check::{check_clusters, check_listeners, check_tables};
use self::reuse::reuse;
use super::{
    AccessLog, Cluster, ClusterEntry, EndpointSet, Filter, Listener, LiveCluster, LiveSecret,
    RouteTable, Secret, SecretRef, Snapshot,
};
use crate::{Invalid, Name, Origin, Origins, Slot};
use foldhash::fast::RandomState;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Collects the parts of a [`Snapshot`].
///
/// Started from a previous snapshot, it carries over the live state of clusters that are still
/// there, and whatever was compiled from virtual hosts and tables that are still the same. A part
/// that is given as the very same `Arc` again is not looked at at all.
#[derive(Debug, Default)]
pub struct SnapshotBuilder {
    previous: Option<Arc<Snapshot>>,
    keeps_listeners: bool,
    listeners: Vec<Arc<Listener>>,
    keeps_tables: bool,
    tables: Vec<Arc<RouteTable>>,
    keeps_clusters: bool,
    clusters: Vec<Arc<Cluster>>,
    endpoints: HashMap<Name, Arc<EndpointSet>>,
    secrets: HashMap<SecretRef, Option<Arc<Secret>>>,
    origins: Arc<Origins>,
}

/// Something that works but is probably not meant: a route to a cluster that does not exist.
#[derive(Clone, Debug)]
pub struct Warning {
    /// Where it comes from.
    pub origin: Origin,
    /// What it is.
    pub message: String,
}

/// Where each name stands.
pub(super) type Index = Arc<HashMap<Name, usize, RandomState>>;

// === impl SnapshotBuilder ===

impl SnapshotBuilder {
    /// Starts from nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a successor of `previous`. Parts have to be given again; what is the same is
    /// recognised and reused.
    pub fn from(previous: &Arc<Snapshot>) -> Self {
        Self {
            previous: Some(previous.clone()),
            ..Self::default()
        }
    }

    /// The table in which origins are noted.
    pub fn origins(&mut self) -> &mut Origins {
        Arc::make_mut(&mut self.origins)
    }

    /// Sets the table in which origins are noted: the one of the previous snapshot, when its parts
    /// are given again.
    pub fn set_origins(&mut self, origins: Arc<Origins>) -> &mut Self {
        self.origins = origins;
        self
    }

    /// Adds a listener.
    pub fn listener(&mut self, listener: impl Into<Arc<Listener>>) -> &mut Self {
        self.listeners.push(listener.into());
        self
    }

    /// Takes over all listeners of the previous snapshot; with nothing added to them that costs
    /// nothing, however many they are.
    pub fn keep_listeners(&mut self) -> &mut Self {
        self.keeps_listeners = true;
        self
    }

    /// Makes every listener that was added write this access log and no other.
    pub fn replace_access_logs(&mut self, log: &AccessLog) -> &mut Self {
        for listener in &mut self.listeners {
            let listener = Arc::make_mut(listener);
            listener.for_each_chain(|chain| match &mut chain.filter {
                Filter::Http(manager) => {
                    Arc::make_mut(manager).access_log = vec![log.clone()];
                }
                Filter::Tcp(proxy) => Arc::make_mut(proxy).access_log = vec![log.clone()],
            });
        }
        self
    }

    /// Makes the listeners of these names that were added accept connections whatever address they
    /// were going to (Envoy `transparent`).
    pub fn make_transparent(&mut self, names: &[&str]) -> &mut Self {
        for listener in &mut self.listeners {
            if names.contains(&&*listener.name) && !listener.transparent {
                Arc::make_mut(listener).transparent = true;
            }
        }
        self
    }

    /// Adds a route table.
    pub fn routes(&mut self, table: impl Into<Arc<RouteTable>>) -> &mut Self {
        self.tables.push(table.into());
        self
    }

    /// Takes over all route tables of the previous snapshot; with nothing added to them that costs
    /// nothing, however many they are.
    pub fn keep_routes(&mut self) -> &mut Self {
        self.keeps_tables = true;
        self
    }

    /// Adds a cluster.
    pub fn cluster(&mut self, cluster: impl Into<Arc<Cluster>>) -> &mut Self {
        self.clusters.push(cluster.into());
        self
    }

    /// Takes over all clusters of the previous snapshot; with nothing added to them that costs
    /// nothing, however many they are.
    pub fn keep_clusters(&mut self) -> &mut Self {
        self.keeps_clusters = true;
        self
    }

    /// Whether a cluster with this name was added or is kept.
    pub fn has_cluster(&self, name: &str) -> bool {
        let kept = || self.previous.as_ref()?.cluster(name);
        self.clusters.iter().any(|cluster| cluster.name == name)
            || (self.keeps_clusters && kept().is_some())
    }

    /// Sets the endpoints of a cluster. They are published when the snapshot is built. A cluster
    /// whose endpoints are not given keeps those that it has.
    pub fn endpoints(
        &mut self,
        cluster: impl Into<Name>,
        endpoints: impl Into<Arc<EndpointSet>>,
    ) -> &mut Self {
        self.endpoints.insert(cluster.into(), endpoints.into());
        self
    }

    /// Sets a secret, or says that there is none. It is published when the snapshot is built, if
    /// a listener or cluster names it. A secret that is not given keeps its value.
    pub fn secret(
        &mut self,
        named: SecretRef,
        secret: impl Into<Option<Arc<Secret>>>,
    ) -> &mut Self {
        self.secrets.insert(named, secret.into());
        self
    }

    /// Checks and links the parts.
    ///
    /// A table that was in the previous snapshot as the very same `Arc` was checked then: what is
    /// said of it now are warnings about clusters that left, and only if clusters came or left.
    ///
    /// # Errors
    /// If two listeners, tables or clusters have the same name, two listeners the same address, a
    /// domain stands in two virtual hosts of a table, a listener names a table that does not
    /// exist, or a table with `validate_clusters` a cluster that does not exist.
    pub fn build(self) -> Result<(Arc<Snapshot>, Vec<Warning>), Invalid> {
        let Self {
            previous,
            keeps_listeners,
            listeners,
            keeps_tables,
            tables,
            keeps_clusters,
            clusters,
            endpoints,
            secrets,
            origins,
        } = self;
        let previous = previous.as_deref();
        let version = previous.map_or(1, |previous| previous.version + 1);
        let mut next_key = previous.map_or(1, |previous| previous.next_key);

        let (entries, cluster_index) = match previous.filter(|_| keeps_clusters) {
            Some(old) if clusters.is_empty() => (old.clusters.clone(), old.cluster_index.clone()),
            kept => {
                let mut entries = kept.map_or_else(Vec::new, |old| old.clusters.to_vec());
                entries.reserve(clusters.len());
                // Most stand where they stood, one after the other: those need no looking up.
                let mut next = 0;
                for config in clusters {
                    let there = previous.and_then(|previous| previous.clusters.get(next));
                    let there = there.filter(|there| Arc::ptr_eq(&there.config, &config));
                    if let Some(there) = there {
                        entries.push(there.clone());
                        next += 1;
                        continue;
                    }
                    let at = previous.and_then(|previous| previous.cluster_index(&config.name));
                    next = at.map_or(next, |at| at + 1);
                    let old = previous
                        .zip(at)
                        .map(|(previous, at)| &previous.clusters[at]);
                    entries.push(entry(config, old, version, &mut next_key));
                }
                let name: fn(&ClusterEntry) -> &Name = |entry| &entry.config.name;
                let old = previous.map(|old| (&**old.clusters, &old.cluster_index));
                let index = index_of(&entries, old, name)
                    .map_err(|name| Invalid::new(format!("clusters[{name}]"), "defined twice"))?;
                (Arc::new(entries), index)
            }
        };

        let same_clusters =
            previous.is_some_and(|old| Arc::ptr_eq(&old.cluster_index, &cluster_index));
        let mut warnings = Vec::new();
        let (linked, table_index) = match previous.filter(|_| keeps_tables) {
            Some(old) if tables.is_empty() => (old.tables.clone(), old.table_index.clone()),
            kept => {
                let mut linked = kept.map_or_else(Vec::new, |old| old.tables.to_vec());
                linked.extend(tables);
                let name: fn(&RouteTable) -> &Name = |table| &table.name;
                let old = previous.map(|old| (&**old.tables, &old.table_index));
                let index = index_of(&linked, old, name)
                    .map_err(|name| Invalid::new(format!("routes[{name}]"), "defined twice"))?;
                (Arc::new(linked), index)
            }
        };
        let mut policed = HashSet::new();
        for (at, table) in linked.iter().enumerate() {
            let there = previous.and_then(|previous| previous.tables.get(at));
            let old = there
                .filter(|there| Arc::ptr_eq(there, table))
                .or_else(|| previous.and_then(|previous| previous.table(&table.name)));
            let checked = old.is_some_and(|old| Arc::ptr_eq(old, table));
            let said = previous.filter(|_| checked);
            if said.map_or_else(
                || table.says_policies(),
                |old| old.policed.contains(&table.name),
            ) {
                policed.insert(table.name.clone());
            }
            if checked && same_clusters {
                continue;
            }
            let within = |e: Invalid| e.within(format!("routes[{}]", table.name));
            let strict = table.validate_clusters && !checked;
            check_clusters(table, strict, &cluster_index, &mut warnings).map_err(within)?;
            if !checked {
                table.check_domains().map_err(within)?;
                if let Some(old) = old {
                    reuse(table, old);
                }
            }
        }

        let listeners = match previous.filter(|_| keeps_listeners) {
            Some(old) if listeners.is_empty() => {
                if !Arc::ptr_eq(&old.table_index, &table_index) {
                    check_tables(&old.listeners, &table_index)?;
                }
                old.listeners.clone()
            }
            kept => {
                let mut all = kept.map_or_else(Vec::new, |old| old.listeners.to_vec());
                all.extend(listeners);
                check_listeners(&all)?;
                check_tables(&all, &table_index)?;
                Arc::new(all)
            }
        };

        for listener in listeners.iter() {
            for chain in listener.all_chains() {
                let Some(proxy) = chain.proxy() else { continue };
                for (cluster, origin) in proxy.clusters() {
                    if !cluster_index.contains_key(cluster) {
                        let message = format!(
                            "cluster {cluster:?} does not exist; connections sent there are closed"
                        );
                        let origin = [origin, chain.origin, listener.origin]
                            .into_iter()
                            .find(|origin| !origin.is_none())
                            .unwrap_or(Origin::NONE);
                        warnings.push(Warning { origin, message });
                    }
                }
            }
        }
        let live_secrets = link_secrets(previous, &listeners, &entries);

        // Everything is in order: only now is anything changed that others can see.
        for (name, set) in endpoints {
            if let Some(entry) = cluster_index
                .get(&name)
                .and_then(|index| entries.get(*index))
            {
                entry.live.publish_endpoints(set);
            }
        }
        for (named, secret) in secrets {
            if let Some(live) = live_secrets.get(&named) {
                live.publish(secret);
            }
        }
        let snapshot = Snapshot {
            version,
            listeners,
            tables: linked,
            table_index,
            policed,
            clusters: entries,
            cluster_index,
            secrets: live_secrets,
            origins,
            next_key,
        };
        Ok((Arc::new(snapshot), warnings))
    }
}

/// The entry for a cluster: the old one itself where nothing changed.
fn entry(
    config: Arc<Cluster>,
    old: Option<&Arc<ClusterEntry>>,
    version: u64,
    next_key: &mut u64,
) -> Arc<ClusterEntry> {
    let Some(old) = old else {
        let live = Arc::new(LiveCluster::new(*next_key, config.name.clone()));
        *next_key += 1;
        return Arc::new(ClusterEntry {
            config,
            live,
            revision: version,
            secrets: OnceLock::new(),
            tls: Slot::default(),
        });
    };
    if Arc::ptr_eq(&old.config, &config) {
        return old.clone();
    }
    let revision = if *old.config == *config {
        old.revision
    } else {
        version
    };
    let tls = Slot::default();
    if old.config.tls == config.tls && old.config.tls_matches == config.tls_matches {
        tls.adopt(&old.tls);
    }
    Arc::new(ClusterEntry {
        config,
        live: old.live.clone(),
        revision,
        secrets: OnceLock::new(),
        tls,
    })
}

/// What listeners and clusters name, each with what the previous snapshot had under that name.
fn link_secrets(
    previous: Option<&Snapshot>,
    listeners: &Arc<Vec<Arc<Listener>>>,
    clusters: &Arc<Vec<Arc<ClusterEntry>>>,
) -> Arc<HashMap<SecretRef, Arc<LiveSecret>>> {
    if let Some(old) = previous
        && Arc::ptr_eq(&old.listeners, listeners)
        && Arc::ptr_eq(&old.clusters, clusters)
    {
        return old.secrets.clone();
    }
    let chains = listeners.iter().flat_map(|listener| listener.all_chains());
    let servers = chains.filter_map(|chain| chain.tls.as_ref());
    let clients = clusters.iter().flat_map(|entry| entry.config.all_tls());
    let mut secrets = HashMap::new();
    let named = servers.flat_map(|tls| tls.secrets());
    for named in named.chain(clients.flat_map(|tls| tls.secrets())) {
        if !secrets.contains_key(named) {
            let live = previous.and_then(|previous| previous.secrets.get(named).cloned());
            let live = live.unwrap_or_else(|| Arc::new(LiveSecret::new(named.name.clone())));
            secrets.insert(named.clone(), live);
        }
    }
    for entry in clusters.iter() {
        let mut named = entry
            .config
            .all_tls()
            .flat_map(|tls| tls.secrets())
            .peekable();
        if named.peek().is_some() {
            entry.secrets.get_or_init(|| {
                let live = |named: &SecretRef| Some((named.clone(), secrets.get(named)?.clone()));
                named.filter_map(live).collect()
            });
        }
    }
    match previous.map(|previous| &previous.secrets) {
        Some(old) if old.len() == secrets.len() && old.keys().all(|k| secrets.contains_key(k)) => {
            old.clone()
        }
        _ => Arc::new(secrets),
    }
}

/// Where each name stands. The previous index is shared while the names stand as they stood.
///
/// # Errors
/// A name that stands twice.
fn index_of<T>(
    items: &[Arc<T>],
    old: Option<(&[Arc<T>], &Index)>,
    name: impl Fn(&T) -> &Name,
) -> Result<Index, Name> {
    if let Some((old, index)) = old
        && old.len() == items.len()
        && old
            .iter()
            .zip(items)
            .all(|(old, new)| name(old) == name(new))
    {
        return Ok(index.clone());
    }
    let mut index = HashMap::with_capacity_and_hasher(items.len(), RandomState::default());
    for (at, item) in items.iter().enumerate() {
        let name = name(item);
        if index.insert(name.clone(), at).is_some() {
            return Err(name.clone());
        }
    }
    Ok(Arc::new(index))
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests;
