//! Clusters and their endpoints.

use super::Assemble;
use super::links::{is_made_up, key, shown};
use super::secrets::{Needs, User};
use super::waits::{Awaited, Waits};
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
    waits: Waits,
}

#[derive(Debug, PartialEq, Eq)]
struct Version {
    config: Arc<Cluster>,
    endpoints: Option<Arc<EndpointSet>>,
    eds: Option<Reference>,
    needs: Needs,
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

    /// Looks at what waits the next time.
    pub(super) fn check(&mut self, name: &str) {
        self.check.insert(name.into());
    }

    /// The secrets of the version in force.
    pub(super) fn needs(&self, name: &str) -> Option<&Needs> {
        let active = self.all.get(name)?.active.as_ref();
        active.map(|active| &active.needs)
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
        let needs = Needs::of_cluster(&resource.cluster, resource.secrets);
        let result = self.check_needs(&needs);
        let refused = result.is_err();
        self.verdict(ticket, TypeUrl::Cluster, &name, result);
        if refused {
            return;
        }
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
            needs,
        };
        if state.warming.as_ref().is_some_and(|w| w.version == version) {
            return;
        }
        let left = state.warming.take();
        // Back to the version in force: nothing is left to wait for.
        let back = state.active.as_ref() == Some(&version);
        if let Some(left) = left {
            self.cluster_left(&name, &left.version, Some(&left.waits));
        }
        if back {
            return;
        }
        let mut waits = Waits::default();
        if let (Some(eds), Some(link)) = (&version.eds, version.link()) {
            self.endpoints.refer(&link, Some(eds), &name);
            waits.add(Awaited::Endpoints, eds.initial_fetch_timeout, now);
        }
        self.refer_secrets(User::Cluster, &name, &version.needs, &mut waits, now);
        for at in waits.instants() {
            self.deadlines.insert((at, TypeUrl::Cluster, name.clone()));
        }
        if let Some(state) = self.clusters.all.get_mut(&name) {
            state.warming = Some(Warming { version, waits });
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
            self.cluster_left(name, &left.version, Some(&left.waits));
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
            let ready = ready || warming.waits.gave_up(&Awaited::Endpoints);
            if ready && self.has_secrets(&warming.version.needs, &warming.waits) {
                self.activate_cluster(&name);
            }
        }
    }

    /// The time for something that it waits for is up.
    pub(super) fn cluster_waited(&mut self, name: &Name, at: Instant) {
        let Some(state) = self.clusters.all.get_mut(name) else {
            return;
        };
        let Some(warming) = &mut state.warming else {
            return;
        };
        for what in warming.waits.expire(at) {
            let message = match what {
                Awaited::Secret(key) => {
                    let link = self.secrets.links.get(&key);
                    if link.is_some_and(|link| link.value.is_some()) {
                        continue;
                    }
                    format!(
                        "cluster {name:?} did not get its secret {:?} in time; it goes on without it",
                        shown(&key)
                    )
                }
                _ => format!("cluster {name:?} got no endpoints in time; it goes on without any"),
            };
            self.warn(message);
        }
        self.clusters.check.insert(name.clone());
    }

    fn activate_cluster(&mut self, name: &Name) {
        let Some(state) = self.clusters.all.get_mut(name) else {
            return;
        };
        let Some(Warming { version, waits }) = state.warming.take() else {
            return;
        };
        let link = version.link();
        let inline = version.endpoints.clone();
        let needs = version.needs.clone();
        let old = state.active.replace(version);
        match old {
            Some(old) => self.cluster_left(name, &old, Some(&waits)),
            None => self.cluster_waits_no_more(name, &waits),
        }
        self.give_secrets(&needs);
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
    fn cluster_left(&mut self, name: &Name, version: &Version, waits: Option<&Waits>) {
        if let Some(waits) = waits {
            self.cluster_waits_no_more(name, waits);
        }
        let state = self.clusters.all.get(name);
        let others = state.into_iter().flat_map(|state| {
            let warming = state.warming.as_ref().map(|warming| &warming.version);
            state
                .active
                .iter()
                .chain(warming)
                .map(|version| &version.needs)
        });
        let links = &mut self.secrets.links;
        Self::release_secrets(links, User::Cluster, name, &version.needs, others);
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

    fn cluster_waits_no_more(&mut self, name: &Name, waits: &Waits) {
        for at in waits.instants() {
            self.deadlines.remove(&(at, TypeUrl::Cluster, name.clone()));
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
