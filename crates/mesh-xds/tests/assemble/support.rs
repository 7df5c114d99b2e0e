//! Resources in short, and an assembly with a clock of its own.

use mesh_core::Name;
use mesh_core::model::{
    Address, Cluster, EndpointSet, HttpManager, Listener, RouteTable, Rule, Snapshot, VirtualHost,
};
use mesh_xds::TypeUrl;
use mesh_xds::assemble::{Assemble, Change, Options, Step, To};
use mesh_xds::read::{
    ClusterResource, EndpointsResource, ListenerResource, Reference, Resource, RouteSource, Source,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const WAIT: Duration = Duration::from_secs(15);

pub(crate) fn ads(name: &str, wait: Option<Duration>) -> Reference {
    Reference {
        name: name.into(),
        from: Source::Ads,
        initial_fetch_timeout: wait,
        watched_directory: None,
    }
}

/// A cluster whose endpoints are the resource of the same name.
pub(crate) fn eds_cluster(name: &str) -> Resource {
    eds_cluster_with(Cluster::new(name), Some(WAIT))
}

pub(crate) fn eds_cluster_with(cluster: Cluster, wait: Option<Duration>) -> Resource {
    let eds = ads(&cluster.name, wait);
    Resource::Cluster(Box::new(ClusterResource {
        cluster,
        endpoints: None,
        eds: Some(eds),
        secrets: Vec::new(),
    }))
}

/// A cluster with an endpoint of its own.
pub(crate) fn cluster(name: &str) -> Resource {
    Resource::Cluster(Box::new(ClusterResource {
        cluster: Cluster::new(name),
        endpoints: Some(set(&[1])),
        eds: None,
        secrets: Vec::new(),
    }))
}

pub(crate) fn set(ports: &[u16]) -> EndpointSet {
    let address = |port: &u16| format!("127.0.0.1:{port}").parse::<Address>().unwrap();
    EndpointSet::of(ports.iter().map(address))
}

pub(crate) fn endpoints(name: &str, ports: &[u16]) -> Resource {
    Resource::Endpoints(EndpointsResource {
        name: name.into(),
        endpoints: set(ports),
    })
}

pub(crate) fn table(name: &str, clusters: &[&str]) -> RouteTable {
    let host = clusters
        .iter()
        .fold(VirtualHost::new("all", ["*"]), |host, to| {
            host.rule(Rule::prefix_to("/", *to))
        });
    RouteTable::new(name).host(host)
}

pub(crate) fn routes(name: &str, clusters: &[&str]) -> Resource {
    Resource::Routes(Box::new(table(name, clusters)))
}

pub(crate) fn listener(name: &str, port: u16, routes: &str) -> Resource {
    listener_with(name, port, RouteSource::Named(ads(routes, Some(WAIT))))
}

pub(crate) fn listener_with(name: &str, port: u16, routes: RouteSource) -> Resource {
    let table = match &routes {
        RouteSource::Inline(table) => table.name.clone(),
        RouteSource::Named(reference) => reference.name.clone(),
    };
    let manager = HttpManager::new(name, table);
    Resource::Listener(Box::new(ListenerResource {
        listener: Listener::http(name, ([127, 0, 0, 1], port).into(), manager),
        routes: vec![routes],
        secrets: Vec::new(),
    }))
}

pub(crate) struct World {
    pub(crate) assemble: Assemble,
    pub(crate) now: Instant,
    ticket: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        Self {
            assemble: Assemble::new(options),
            now: Instant::now(),
            ticket: 0,
        }
    }

    pub(crate) fn set(&mut self, resources: impl IntoIterator<Item = Resource>) -> Step {
        self.apply(resources.into_iter().map(To::Is))
    }

    pub(crate) fn remove(&mut self, kind: TypeUrl, name: &str) -> Step {
        self.apply([To::Gone(kind, name.into())])
    }

    /// One ticket for each call.
    pub(crate) fn apply(&mut self, changes: impl IntoIterator<Item = To>) -> Step {
        self.apply_from(Source::Ads, changes)
    }

    pub(crate) fn apply_from(
        &mut self,
        from: Source,
        changes: impl IntoIterator<Item = To>,
    ) -> Step {
        self.ticket += 1;
        let changes = changes.into_iter().map(|to| Change {
            from: from.clone(),
            ticket: self.ticket,
            to,
        });
        self.assemble.apply(changes.collect(), self.now)
    }

    pub(crate) fn sleep(&mut self, time: Duration) -> Step {
        self.now += time;
        self.assemble.tick(self.now)
    }

    pub(crate) fn snapshot(&self) -> &Arc<Snapshot> {
        self.assemble.snapshot()
    }

    pub(crate) fn has_cluster(&self, name: &str) -> bool {
        self.snapshot().cluster(name).is_some()
    }

    pub(crate) fn ports(&self, cluster: &str) -> Vec<u16> {
        let live = self.snapshot().cluster(cluster).unwrap().live();
        live.endpoints()
            .load()
            .iter()
            .map(|endpoint| endpoint.address.port())
            .collect()
    }

    /// The clusters that a table in force refers to; None without the table.
    pub(crate) fn routes(&self, table: &str) -> Option<Vec<Name>> {
        Some(clusters_of(self.snapshot().table(table)?))
    }

    pub(crate) fn listeners(&self) -> Vec<(String, u16)> {
        let listeners = self.snapshot().listeners().iter();
        listeners
            .map(|listener| (listener.name.to_string(), listener.address.port()))
            .collect()
    }
}

pub(crate) fn clusters_of(table: &RouteTable) -> Vec<Name> {
    let rules = table.virtual_hosts.iter().flat_map(|host| &host.rules);
    let forwards = rules.filter_map(|rule| rule.forward());
    forwards
        .flat_map(|forward| forward.clusters().map(|(name, _)| name.clone()))
        .collect()
}

/// What was refused in a step.
pub(crate) fn refused(step: &Step) -> Vec<(String, String)> {
    let refused = step.verdicts.iter().filter_map(|verdict| {
        let error = verdict.result.as_ref().err()?;
        Some((verdict.name.to_string(), error.to_string()))
    });
    refused.collect()
}

/// The names of what was accepted in a step.
pub(crate) fn accepted(step: &Step) -> Vec<&str> {
    let accepted = step
        .verdicts
        .iter()
        .filter(|verdict| verdict.result.is_ok());
    accepted.map(|verdict| verdict.name.as_str()).collect()
}
