//! Puts a snapshot together: checks references, keeps what did not change.

use super::{
    AccessLog, Cluster, ClusterEntry, EndpointSet, Filter, Listener, LiveCluster, RouteTable,
    Snapshot, VirtualHost,
};
use crate::{Invalid, Name, Origin, Origins};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// Collects the parts of a [`Snapshot`].
///
/// Started from a previous snapshot, it carries over the live state of clusters that are still
/// there, and whatever was compiled from virtual hosts and tables that are still the same.
#[derive(Debug, Default)]
pub struct SnapshotBuilder {
    previous: Option<Arc<Snapshot>>,
    listeners: Vec<Arc<Listener>>,
    tables: Vec<RouteTable>,
    clusters: Vec<Arc<Cluster>>,
    endpoints: HashMap<Name, Arc<EndpointSet>>,
    origins: Origins,
}

/// Something that works but is probably not meant: a route to a cluster that does not exist.
#[derive(Clone, Debug)]
pub struct Warning {
    /// Where it comes from.
    pub origin: Origin,
    /// What it is.
    pub message: String,
}

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
        &mut self.origins
    }

    /// Adds a listener.
    pub fn listener(&mut self, listener: Listener) -> &mut Self {
        self.listeners.push(Arc::new(listener));
        self
    }

    /// Makes every listener that was added write this access log and no other.
    pub fn replace_access_logs(&mut self, log: &AccessLog) -> &mut Self {
        for listener in &mut self.listeners {
            let Filter::Http(manager) = &mut Arc::make_mut(listener).filter;
            Arc::make_mut(manager).access_log = vec![log.clone()];
        }
        self
    }

    /// Adds a route table.
    pub fn routes(&mut self, table: RouteTable) -> &mut Self {
        self.tables.push(table);
        self
    }

    /// Adds a cluster.
    pub fn cluster(&mut self, cluster: Cluster) -> &mut Self {
        self.clusters.push(Arc::new(cluster));
        self
    }

    /// Whether a cluster with this name was added.
    pub fn has_cluster(&self, name: &str) -> bool {
        self.clusters.iter().any(|cluster| cluster.name == name)
    }

    /// Sets the endpoints of a cluster. They are published when the snapshot is built. A cluster
    /// whose endpoints are not given keeps those that it has.
    pub fn endpoints(&mut self, cluster: impl Into<Name>, endpoints: EndpointSet) -> &mut Self {
        self.endpoints.insert(cluster.into(), Arc::new(endpoints));
        self
    }

    /// Checks and links the parts.
    ///
    /// # Errors
    /// If two listeners, tables or clusters have the same name, two listeners the same address, a
    /// domain stands in two virtual hosts of a table, a listener names a table that does not
    /// exist, or a table with `validate_clusters` a cluster that does not exist.
    pub fn build(self) -> Result<(Arc<Snapshot>, Vec<Warning>), Invalid> {
        let Self {
            previous,
            listeners,
            tables,
            clusters,
            endpoints,
            origins,
        } = self;
        let version = previous.as_ref().map_or(1, |previous| previous.version + 1);
        let mut next_key = previous.as_ref().map_or(1, |previous| previous.next_key);

        let mut cluster_index = HashMap::with_capacity(clusters.len());
        let mut entries = Vec::with_capacity(clusters.len());
        for config in clusters {
            let name = config.name.clone();
            if cluster_index.insert(name.clone(), entries.len()).is_some() {
                return Err(Invalid::new(format!("clusters[{name}]"), "defined twice"));
            }
            let old = previous
                .as_ref()
                .and_then(|previous| previous.cluster(&name));
            let live = old.map_or_else(
                || {
                    next_key += 1;
                    Arc::new(LiveCluster::new(next_key - 1, name.clone()))
                },
                |old| old.live.clone(),
            );
            let revision = match old {
                Some(old) if *old.config == *config => old.revision,
                _ => version,
            };
            entries.push(Arc::new(ClusterEntry {
                config,
                live,
                revision,
            }));
        }

        let mut warnings = Vec::new();
        let mut table_index = HashMap::with_capacity(tables.len());
        let mut linked = Vec::with_capacity(tables.len());
        for table in tables {
            let name = table.name.clone();
            if table_index.insert(name.clone(), linked.len()).is_some() {
                return Err(Invalid::new(format!("routes[{name}]"), "defined twice"));
            }
            check_domains(&table).map_err(|e| e.within(format!("routes[{name}]")))?;
            check_clusters(&table, &cluster_index, &mut warnings)
                .map_err(|e| e.within(format!("routes[{name}]")))?;
            if let Some(old) = previous.as_ref().and_then(|previous| previous.table(&name)) {
                reuse(&table, old);
            }
            linked.push(Arc::new(table));
        }

        let mut names = HashSet::new();
        let mut addresses = HashSet::new();
        for listener in &listeners {
            let path = || format!("listeners[{}]", listener.name);
            if !names.insert(&listener.name) {
                return Err(Invalid::new(path(), "defined twice"));
            }
            if !addresses.insert(listener.address) {
                let message = format!("{} is the address of another listener", listener.address);
                return Err(Invalid::new(path(), message));
            }
            let Filter::Http(manager) = &listener.filter;
            if !table_index.contains_key(&manager.routes) {
                let message = format!("route table {:?} does not exist", manager.routes);
                return Err(Invalid::new(path(), message));
            }
        }

        // Everything is in order: only now is anything changed that others can see.
        for (name, set) in endpoints {
            if let Some(entry) = cluster_index
                .get(&name)
                .and_then(|index| entries.get(*index))
            {
                entry.live.publish_endpoints(set);
            }
        }
        let snapshot = Snapshot {
            version,
            listeners,
            tables: linked,
            table_index,
            clusters: entries,
            cluster_index,
            origins: Arc::new(origins),
            next_key,
        };
        Ok((Arc::new(snapshot), warnings))
    }
}

/// Domains are unique over a whole table (Envoy refuses the table otherwise).
fn check_domains(table: &RouteTable) -> Result<(), Invalid> {
    let mut seen: HashMap<&Name, &VirtualHost> = HashMap::new();
    for host in &table.virtual_hosts {
        for domain in &host.domains {
            if let Some(other) = seen.insert(domain, host) {
                let message = format!("domain {domain:?} is also in virtual host {:?}", other.name);
                return Err(Invalid::new(
                    format!("virtual_hosts[{}].domains", host.name),
                    message,
                ));
            }
        }
    }
    Ok(())
}

fn check_clusters(
    table: &RouteTable,
    known: &HashMap<Name, usize>,
    warnings: &mut Vec<Warning>,
) -> Result<(), Invalid> {
    for host in &table.virtual_hosts {
        for (index, rule) in host.rules.iter().enumerate() {
            let forwards = rule
                .forward()
                .into_iter()
                .flat_map(super::Forward::clusters);
            let mirrors = rule
                .mirrors
                .iter()
                .map(|mirror| (&mirror.cluster, mirror.origin));
            for (cluster, origin) in forwards.chain(mirrors) {
                if known.contains_key(cluster) {
                    continue;
                }
                let message = format!("cluster {cluster:?} does not exist");
                if table.validate_clusters {
                    let path = format!("virtual_hosts[{}].routes[{index}]", host.name);
                    return Err(Invalid::new(path, message));
                }
                let origin = if origin.is_none() {
                    rule.origin
                } else {
                    origin
                };
                let message = format!("{message}; requests sent there are answered 503 NC");
                warnings.push(Warning { origin, message });
            }
        }
    }
    Ok(())
}

/// Hands over what was compiled from the previous table to the parts that are still the same.
fn reuse(table: &RouteTable, old: &RouteTable) {
    let by_name: HashMap<&Name, usize> = old
        .virtual_hosts
        .iter()
        .enumerate()
        .map(|(at, host)| (&host.name, at))
        .collect();
    let mut all_the_same = table.virtual_hosts.len() == old.virtual_hosts.len();
    for (at, host) in table.virtual_hosts.iter().enumerate() {
        // Each host is compared once; it is what costs.
        let was = by_name.get(&host.name).copied();
        let Some(before) = was
            .map(|was| &old.virtual_hosts[was])
            .filter(|was| *host == **was)
        else {
            all_the_same = false;
            continue;
        };
        all_the_same &= was == Some(at);
        host.slot.adopt(&before.slot);
        // The rules are the same, so their buckets go on as they stand.
        for (rule, old) in host.rules.iter().zip(&before.rules) {
            if let (Some(limit), Some(old)) = (&rule.rate_limit, &old.rate_limit) {
                limit.slot.adopt(&old.slot);
            }
        }
    }
    if all_the_same && settings(table) == settings(old) {
        table.slot.adopt(&old.slot);
    }
}

/// A table without its virtual hosts.
fn settings(table: &RouteTable) -> RouteTable {
    RouteTable {
        name: table.name.clone(),
        virtual_hosts: Vec::new(),
        ignore_port: table.ignore_port,
        validate_clusters: table.validate_clusters,
        request_edits: table.request_edits.clone(),
        response_edits: table.response_edits.clone(),
        most_specific_edits_win: table.most_specific_edits_win,
        slot: crate::Slot::default(),
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{HttpManager, Rule};
    use crate::origin::Place;

    fn table(rules: &[&str]) -> RouteTable {
        let host = rules
            .iter()
            .fold(VirtualHost::new("all", ["*"]), |host, to| {
                host.rule(Rule::prefix_to("/", *to))
            });
        RouteTable::new("t")
            .host(host)
            .host(VirtualHost::new("other", ["other"]))
    }

    fn build(builder: SnapshotBuilder) -> (Arc<Snapshot>, Vec<Warning>) {
        builder.build().unwrap()
    }

    #[test]
    fn a_route_to_an_unknown_cluster_is_a_warning_unless_the_table_validates() {
        let mut builder = SnapshotBuilder::new();
        builder.routes(table(&["gone"]));
        assert_eq!(build(builder).1.len(), 1);

        let mut builder = SnapshotBuilder::new();
        let mut strict = table(&["gone"]);
        strict.validate_clusters = true;
        builder.routes(strict);
        let error = builder.build().unwrap_err();
        assert_eq!(error.path(), "routes[t].virtual_hosts[all].routes[0]");
    }

    #[test]
    fn a_rate_limit_that_did_not_change_keeps_its_bucket() {
        let limited = || {
            let mut rule = Rule::prefix_to("/", "a");
            let limit = crate::model::RateLimit::new(1, 1, std::time::Duration::from_secs(1));
            rule.rate_limit = Some(Arc::new(limit));
            RouteTable::new("t").host(VirtualHost::new("all", ["*"]).rule(rule))
        };
        let bucket = |snapshot: &Snapshot| {
            let rule = &snapshot.tables()[0].virtual_hosts[0].rules[0];
            rule.rate_limit.clone().unwrap()
        };
        let mut builder = SnapshotBuilder::new();
        builder.routes(limited());
        let (first, _) = build(builder);
        bucket(&first).slot.get_or_init(|| 7_u8);
        let mut builder = SnapshotBuilder::from(&first);
        builder.routes(limited());
        let (second, _) = build(builder);
        assert_eq!(bucket(&second).slot.get::<u8>(), Some(&7));
    }

    #[test]
    fn a_domain_in_two_virtual_hosts_is_refused() {
        let mut builder = SnapshotBuilder::new();
        builder.routes(table(&[]).host(VirtualHost::new("third", ["*"])));
        assert!(builder.build().unwrap_err().to_string().contains("\"*\""));
    }

    #[test]
    fn a_listener_without_its_table_is_refused() {
        let mut builder = SnapshotBuilder::new();
        let address = "127.0.0.1:80".parse().unwrap();
        builder.listener(Listener::http(
            "l",
            address,
            HttpManager::new("l", "missing"),
        ));
        assert!(builder.build().unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn a_cluster_keeps_its_key_its_counts_and_its_endpoints() {
        let mut builder = SnapshotBuilder::new();
        builder.cluster(Cluster::new("a"));
        builder.endpoints(
            "a",
            EndpointSet::of(["127.0.0.1:1".parse::<crate::model::Address>().unwrap()]),
        );
        let (first, _) = build(builder);
        let mut builder = SnapshotBuilder::from(&first);
        let mut changed = Cluster::new("a");
        changed.max_requests_per_connection = 1;
        builder.cluster(changed).cluster(Cluster::new("b"));
        let (second, _) = build(builder);
        let (old, new) = (first.cluster("a").unwrap(), second.cluster("a").unwrap());
        assert_eq!(old.key(), new.key());
        assert!(new.revision() > old.revision());
        assert_eq!(new.live().endpoints().load().len(), 1);

        // Removed and added again it is another cluster.
        let (third, _) = build(SnapshotBuilder::from(&second));
        let mut builder = SnapshotBuilder::from(&third);
        builder.cluster(Cluster::new("a"));
        let (fourth, _) = build(builder);
        assert_ne!(fourth.cluster("a").unwrap().key(), old.key());
    }

    #[test]
    fn what_was_compiled_from_an_unchanged_host_is_reused_although_lines_moved() {
        let mut builder = SnapshotBuilder::new();
        builder.cluster(Cluster::new("a")).routes(table(&["a"]));
        let (first, _) = build(builder);
        for host in &first.table("t").unwrap().virtual_hosts {
            host.slot.get_or_init(|| 1_u8);
        }
        let mut builder = SnapshotBuilder::from(&first);
        let moved = builder
            .origins()
            .add(Place::new("VirtualService x.y", "f", 99, 1));
        let mut next = table(&["a"]);
        Arc::make_mut(&mut next.virtual_hosts[0]).origin = moved;
        Arc::make_mut(&mut next.virtual_hosts[1]).count_attempts = true;
        builder.cluster(Cluster::new("a")).routes(next);
        let (second, _) = build(builder);
        let hosts = &second.table("t").unwrap().virtual_hosts;
        assert_eq!(
            hosts[0].slot.get::<u8>(),
            Some(&1),
            "unchanged but for its line"
        );
        assert_eq!(hosts[1].slot.get::<u8>(), None, "changed");
        let place = second.origins().place(hosts[0].origin).unwrap();
        assert_eq!(place.line, 99, "the new line is what an explanation shows");
    }
}
