//! Clusters and their endpoints.

use super::Assemble;
use super::links::{is_made_up, key};
use crate::TypeUrl;
use crate::read::{ClusterResource, Reference, Source};
use mesh_core::model::{Cluster, EndpointSet};
use mesh_core::{Invalid, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// The clusters.
#[derive(Debug, Default)]
pub(super) struct Clusters {
    all: BTreeMap<Name, State>,
    /// Those that may have what they wait for.
    check: BTreeSet<Name>,
}

/// A cluster: the version in force, and the one that waits for its endpoints.
#[derive(Debug, Default)]
struct State {
    fixed: bool,
    active: Option<Version>,
    warming: Option<Warming>,
}

#[derive(Debug)]
struct Warming {
    version: Version,
    deadline: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
struct Version {
    config: Arc<Cluster>,
    endpoints: Option<Arc<EndpointSet>>,
    eds: Option<Reference>,
}

// === impl Clusters ===

impl Clusters {
    /// The clusters in force.
    pub(super) fn active(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.all
            .values()
            .filter_map(|state| Some(&state.active.as_ref()?.config))
    }

    /// Whether routes to this cluster wait: it is known but was never in force. Before the first
    /// answer about clusters (`due`), one that is not known may still come.
    pub(super) fn holds(&self, name: &str, due: bool) -> bool {
        self.all
            .get(name)
            .map_or(due, |state| state.active.is_none())
    }

    /// Whether its latest version waits for endpoints.
    pub(super) fn waits(&self, name: &str) -> bool {
        self.all
            .get(name)
            .is_some_and(|state| state.warming.is_some())
    }

    /// Whether the cluster is known.
    pub(super) fn is_known(&self, name: &str) -> bool {
        self.all.contains_key(name)
    }
}

// === impl Version ===

impl Version {
    fn link(&self) -> Option<Name> {
        self.eds.as_ref().map(|eds| key(&eds.from, &eds.name))
    }
}

// === impl Assemble ===

impl Assemble {
    pub(super) fn set_cluster(
        &mut self,
        resource: ClusterResource,
        ticket: u64,
        fixed: bool,
        now: Instant,
    ) {
        let name = resource.cluster.name.clone();
        self.verdict(ticket, TypeUrl::Cluster, &name, Ok(()));
        let state = self.clusters.all.entry(name.clone()).or_default();
        if state.fixed && !fixed {
            self.warn(format!(
                "cluster {name:?} is static; what the control plane sends has no effect"
            ));
            return;
        }
        state.fixed = fixed;
        let version = Version {
            config: Arc::new(resource.cluster),
            endpoints: resource.endpoints.map(Arc::new),
            eds: resource.eds,
        };
        if state.warming.as_ref().is_some_and(|w| w.version == version) {
            return;
        }
        let left = state.warming.take();
        // Back to the version in force: nothing is left to wait for.
        let back = state.active.as_ref() == Some(&version);
        if let Some(left) = left {
            self.cluster_left(&name, &left.version, left.deadline);
        }
        if back {
            return;
        }
        let mut deadline = None;
        if let (Some(eds), Some(link)) = (&version.eds, version.link()) {
            self.endpoints.refer(&link, Some(eds), &name);
            deadline = eds.initial_fetch_timeout.map(|wait| now + wait);
        }
        if let Some(at) = deadline {
            self.deadlines.insert((at, TypeUrl::Cluster, name.clone()));
        }
        if let Some(state) = self.clusters.all.get_mut(&name) {
            state.warming = Some(Warming { version, deadline });
        }
        self.clusters.check.insert(name);
    }

    pub(super) fn remove_cluster(&mut self, name: &Name) {
        let Some(state) = self.clusters.all.get(name) else {
            return;
        };
        if state.fixed {
            return;
        }
        let Some(state) = self.clusters.all.remove(name) else {
            return;
        };
        if let Some(left) = state.warming {
            self.cluster_left(name, &left.version, left.deadline);
        }
        if let Some(left) = state.active {
            self.cluster_left(name, &left, None);
            self.output.clusters = true;
        }
        self.tables.check_all();
        self.output.endpoints.remove(name);
    }

    /// Brings into force the clusters whose endpoints are known.
    pub(super) fn warm_clusters(&mut self) {
        for name in std::mem::take(&mut self.clusters.check) {
            let Some(warming) = self
                .clusters
                .all
                .get(&name)
                .and_then(|s| s.warming.as_ref())
            else {
                continue;
            };
            let ready = warming.version.link().is_none_or(|link| {
                self.endpoints
                    .get(&link)
                    .is_some_and(|link| link.value.is_some() || link.absent)
            });
            if ready {
                self.activate_cluster(&name);
            }
        }
    }

    /// The time for its endpoints is up.
    pub(super) fn cluster_waited(&mut self, name: &Name, at: Instant) {
        let state = self.clusters.all.get(name);
        let Some(warming) = state.and_then(|state| state.warming.as_ref()) else {
            return;
        };
        if warming.deadline == Some(at) {
            self.warn(format!(
                "cluster {name:?} got no endpoints in time; it goes on without any"
            ));
            self.activate_cluster(name);
        }
    }

    fn activate_cluster(&mut self, name: &Name) {
        let Some(state) = self.clusters.all.get_mut(name) else {
            return;
        };
        let Some(Warming { version, deadline }) = state.warming.take() else {
            return;
        };
        let link = version.link();
        let inline = version.endpoints.clone();
        let old = state.active.replace(version);
        if let Some(old) = old {
            self.cluster_left(name, &old, deadline);
        } else if let Some(at) = deadline {
            self.deadlines.remove(&(at, TypeUrl::Cluster, name.clone()));
        }
        let found = link.as_ref().map(|link| self.endpoints.get(link));
        let endpoints = match found {
            Some(link) => link.and_then(|link| link.value.clone()),
            None => inline,
        };
        self.output.clusters = true;
        self.output
            .endpoints
            .insert(name.clone(), endpoints.unwrap_or_default());
        self.tables.check_all();
    }

    /// A version of a cluster that is no longer wanted lets go of its endpoints, unless another
    /// version uses them too.
    fn cluster_left(&mut self, name: &Name, version: &Version, deadline: Option<Instant>) {
        if let Some(at) = deadline {
            self.deadlines.remove(&(at, TypeUrl::Cluster, name.clone()));
        }
        let Some(link) = version.link() else {
            return;
        };
        let uses = |version: &Version| version.link().as_ref() == Some(&link);
        let still = self.clusters.all.get(name).is_some_and(|state| {
            state.active.as_ref().is_some_and(uses)
                || state.warming.as_ref().is_some_and(|w| uses(&w.version))
        });
        if !still {
            self.endpoints.release(&link, name);
        }
    }

    pub(super) fn set_endpoints(
        &mut self,
        from: &Source,
        name: &Name,
        set: EndpointSet,
    ) -> Result<(), Invalid> {
        if *from == Source::Ads && is_made_up(name) {
            return Err(Invalid::new(
                "cluster_name",
                "is of a form that is used here for files",
            ));
        }
        let link = self.endpoints.entry(&key(from, name));
        link.absent = false;
        if link.value.as_deref() == Some(&set) {
            return Ok(());
        }
        let set = Arc::new(set);
        link.value = Some(set.clone());
        for user in link.users.clone() {
            self.endpoints_for(&user, &key(from, name), &set);
            self.clusters.check.insert(user);
        }
        Ok(())
    }

    /// Gives new endpoints to a cluster in force that uses them.
    fn endpoints_for(&mut self, user: &Name, link: &Name, set: &Arc<EndpointSet>) {
        let active = self.clusters.all.get(user).and_then(|s| s.active.as_ref());
        if active.and_then(Version::link).as_ref() != Some(link) {
            return;
        }
        if let Some(waiting) = self.output.endpoints.get_mut(user) {
            *waiting = set.clone();
        } else if let Some(entry) = self.output.snapshot().cluster(user) {
            entry.live().publish_endpoints(set.clone());
        }
    }

    /// Clusters that have endpoints keep them; those that wait for them go on without.
    pub(super) fn endpoints_gone(&mut self, from: &Source, name: &Name) {
        let key = key(from, name);
        let Some(link) = self.endpoints.get_mut(&key) else {
            return;
        };
        link.absent = true;
        if link.users.is_empty() {
            link.value = None;
        }
        self.clusters.check.extend(link.users.iter().cloned());
    }
}
