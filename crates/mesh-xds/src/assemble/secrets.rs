//! Secrets, and the clusters and listeners that need them.

use super::Assemble;
use super::links::{Links, is_made_up, key};
use super::waits::{Awaited, Waits};
use crate::TypeUrl;
use crate::read::{Reference, SecretResource, SecretValue, Source};
use mesh_core::model::{Cluster, Listener, Secret, SecretName, SecretRef, SecretSource};
use mesh_core::{Invalid, Name};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long Envoy waits for what is in a file, where nothing can be said.
const FILE_FETCH: Duration = Duration::from_secs(15);

/// The secrets.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    pub(super) links: Links<SecretValue>,
    /// Those that are there for good (`static_resources.secrets`).
    fixed: BTreeMap<Name, SecretValue>,
    /// Values of secrets that came into force, or that need a new snapshot to be seen.
    pub(super) output: Vec<(SecretRef, Option<Arc<Secret>>)>,
}

/// The secrets that a version of a cluster or listener needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Needs {
    named: Vec<SecretRef>,
    given: Vec<(SecretRef, Arc<Secret>)>,
}

/// Who needs a secret.
#[derive(Clone, Copy)]
pub(super) enum User {
    Cluster,
    Listener,
}

// === impl Needs ===

impl Needs {
    pub(super) fn of_cluster(cluster: &Cluster, given: Vec<(SecretRef, Arc<Secret>)>) -> Self {
        let named = cluster.all_tls().flat_map(|tls| tls.secrets());
        Self::new(named, given)
    }

    pub(super) fn of_listener(listener: &Listener, given: Vec<(SecretRef, Arc<Secret>)>) -> Self {
        let tls = listener.all_chains().filter_map(|chain| chain.tls.as_ref());
        Self::new(tls.flat_map(|tls| tls.secrets()), given)
    }

    fn new<'a>(
        named: impl Iterator<Item = &'a SecretRef>,
        given: Vec<(SecretRef, Arc<Secret>)>,
    ) -> Self {
        let mut seen = HashSet::new();
        let named = named.filter(|named| seen.insert(*named)).cloned();
        Self {
            named: named.collect(),
            given,
        }
    }

    /// Each that somebody else provides, with where.
    fn asked(&self) -> impl Iterator<Item = (&SecretRef, Name, Reference)> {
        self.named.iter().filter_map(|named| {
            let reference = reference(named)?;
            let key = key(&reference.from, &reference.name);
            Some((named, key, reference))
        })
    }

    fn has(&self, link: &str) -> bool {
        self.asked().any(|(_, key, _)| *key == *link)
    }
}

// === impl User ===

impl User {
    fn called(self, name: &str) -> Name {
        match self {
            Self::Cluster => format!("cluster {name}").into(),
            Self::Listener => format!("listener {name}").into(),
        }
    }
}

// === impl Assemble ===

impl Assemble {
    pub(super) fn set_secret(
        &mut self,
        from: &Source,
        resource: SecretResource,
        fixed: bool,
    ) -> Result<(), Invalid> {
        let SecretResource { name, value } = resource;
        if fixed {
            self.secrets.fixed.insert(name, value);
            return Ok(());
        }
        if *from == Source::Ads && is_made_up(&name) {
            let message = "is of a form that is used here for files and services";
            return Err(Invalid::new("name", message));
        }
        let key = key(from, &name);
        let link = self.secrets.links.entry(&key);
        link.absent = false;
        if link.value.as_deref() != Some(&value) {
            link.value = Some(Arc::new(value));
            self.secret_changed(&key);
        }
        Ok(())
    }

    /// Nobody has the secret any more: new handshakes that need it fail, and everything else stays.
    pub(super) fn secret_gone(&mut self, from: &Source, name: &Name) {
        let key = key(from, name);
        if let Some(link) = self.secrets.links.get_mut(&key) {
            link.absent = true;
            link.value = None;
            self.secret_changed(&key);
        }
    }

    /// Those who wait for it look again, and those in force get it.
    fn secret_changed(&mut self, key: &Name) {
        let Some(link) = self.secrets.links.get(key) else {
            return;
        };
        let users: Vec<Name> = link.users.iter().cloned().collect();
        let mut changed = Vec::new();
        for user in users {
            let needs = if let Some(name) = user.strip_prefix("cluster ") {
                self.clusters.check(name);
                self.clusters.needs(name)
            } else if let Some(name) = user.strip_prefix("listener ") {
                self.listeners.check(name);
                self.listeners.needs(name)
            } else {
                None
            };
            let asked = needs.into_iter().flat_map(Needs::asked);
            changed.extend(
                asked
                    .filter(|asked| asked.1 == *key)
                    .map(|asked| asked.0.clone()),
            );
        }
        for named in changed {
            let value = self.value_of(&named, &[]);
            // What a snapshot that could not be made would have had.
            self.secrets.output.retain(|(waiting, _)| *waiting != named);
            match self.output.snapshot().secret(&named) {
                Some(live) if !matches!(value, Some(SecretValue::At(_))) => {
                    live.publish(given(value));
                }
                // It is, or was, another secret that is named in its place.
                _ => {
                    self.secrets.output.push((named, given(value)));
                    self.output.listeners = true;
                    self.output.clusters = true;
                }
            }
        }
    }

    /// What is known of a secret.
    fn value_of(
        &self,
        named: &SecretRef,
        with: &[(SecretRef, Arc<Secret>)],
    ) -> Option<SecretValue> {
        if let Some(reference) = reference(named) {
            let link = self.secrets.links.get(&key(&reference.from, &named.name));
            return link.and_then(|link| link.value.as_deref().cloned());
        }
        let given = with.iter().find(|(given, _)| given == named);
        match given {
            Some((_, secret)) => Some(SecretValue::Given(secret.clone())),
            None => self.secrets.fixed.get(&named.name).cloned(),
        }
    }

    /// Refuses secrets that nobody can provide, as Envoy does.
    pub(super) fn check_needs(&self, needs: &Needs) -> Result<(), Invalid> {
        for named in &needs.named {
            if named.source == SecretSource::Local
                && matches!(SecretName::of(&named.name), SecretName::Other(_))
                && self.value_of(named, &needs.given).is_none()
            {
                let message = format!("no static secret is called {:?}", named.name);
                return Err(Invalid::new("transport_socket", message));
            }
        }
        Ok(())
    }

    /// A version begins to wait for its secrets.
    pub(super) fn refer_secrets(
        &mut self,
        user: User,
        name: &Name,
        needs: &Needs,
        waits: &mut Waits,
        now: Instant,
    ) {
        for (_, key, reference) in needs.asked() {
            waits.add(
                Awaited::Secret(key.clone()),
                reference.initial_fetch_timeout,
                now,
            );
            self.secrets
                .links
                .refer(&key, Some(&reference), &user.called(name));
        }
    }

    /// Whether a version has all secrets that it waits for.
    pub(super) fn has_secrets(&self, needs: &Needs, waits: &Waits) -> bool {
        needs.asked().all(|(_, key, _)| {
            let link = self.secrets.links.get(&key);
            link.is_some_and(|link| link.value.is_some() || link.absent)
                || waits.gave_up(&Awaited::Secret(key))
        })
    }

    /// A version came into force: its secrets go with the next snapshot.
    pub(super) fn give_secrets(&mut self, needs: &Needs) {
        for named in &needs.named {
            if named.source == SecretSource::Local
                && !matches!(SecretName::of(&named.name), SecretName::Other(_))
            {
                // Its name says where it lies; nobody here knows more.
                continue;
            }
            let value = given(self.value_of(named, &needs.given));
            self.secrets.output.push((named.clone(), value));
        }
    }

    /// A version is no longer wanted. `still` are the versions that its owner has.
    pub(super) fn release_secrets<'a>(
        links: &mut Links<SecretValue>,
        user: User,
        name: &Name,
        left: &Needs,
        still: impl Iterator<Item = &'a Needs> + Clone,
    ) {
        for (_, key, _) in left.asked() {
            if !still.clone().any(|needs| needs.has(&key)) {
                links.release(&key, &user.called(name));
            }
        }
    }

    /// The same secret by the name that says where it lies, if that is what is known of it.
    fn moved(&self, named: &SecretRef) -> Option<SecretRef> {
        match self.value_of(named, &[])? {
            SecretValue::At(name) => Some(SecretRef::local(name)),
            SecretValue::Given(_) => None,
        }
    }

    /// Whether any secret has to be called by another name.
    fn moves(&self) -> bool {
        let links = self.secrets.links.iter();
        let values = links.filter_map(|(_, link)| link.value.as_deref());
        let mut values = values.chain(self.secrets.fixed.values());
        values.any(|value| matches!(value, SecretValue::At(_)))
    }

    /// Listeners as they go into a snapshot: with secrets that lie in files called so.
    pub(super) fn with_files_in_listeners(&self, all: &mut [Arc<Listener>]) {
        if !self.moves() {
            return;
        }
        for listener in all {
            let chains = listener.all_chains().filter_map(|chain| chain.tls.as_ref());
            if !self.any_moved(chains.flat_map(|tls| tls.secrets())) {
                continue;
            }
            let mut changed = Listener::clone(listener);
            changed.for_each_chain(|chain| {
                if let Some(tls) = &mut chain.tls {
                    let tls = Arc::make_mut(tls);
                    let validation = tls.validation.iter_mut();
                    let other = validation.flat_map(|v| [&mut v.roots, &mut v.revoked]);
                    self.rename(tls.certificates.iter_mut().chain(other.flatten()));
                }
            });
            let mut before = self.output.snapshot().listeners().iter();
            let same = before.find(|before| ***before == changed);
            *listener = same.cloned().unwrap_or_else(|| Arc::new(changed));
        }
    }

    /// Clusters likewise.
    pub(super) fn with_files_in_clusters(&self, all: &mut [Arc<Cluster>]) {
        if !self.moves() {
            return;
        }
        for cluster in all {
            if !self.any_moved(cluster.all_tls().flat_map(|tls| tls.secrets())) {
                continue;
            }
            let mut changed = Cluster::clone(cluster);
            let matched = changed.tls_matches.iter_mut();
            let matched = matched.filter_map(|one| one.tls.as_mut());
            for tls in changed.tls.iter_mut().chain(matched) {
                let tls = Arc::make_mut(tls);
                let validation = tls.validation.iter_mut();
                let other = validation.flat_map(|v| [&mut v.roots, &mut v.revoked]);
                self.rename(tls.certificates.iter_mut().chain(other.flatten()));
            }
            let before = self.output.snapshot().cluster(&changed.name);
            let before = before.map(|entry| entry.config());
            let same = before.filter(|before| ***before == changed);
            *cluster = same.cloned().unwrap_or_else(|| Arc::new(changed));
        }
    }

    fn any_moved<'a>(&self, mut named: impl Iterator<Item = &'a SecretRef>) -> bool {
        named.any(|named| self.moved(named).is_some())
    }

    fn rename<'a>(&self, all: impl Iterator<Item = &'a mut SecretRef>) {
        for named in all {
            if let Some(moved) = self.moved(named) {
                *named = moved;
            }
        }
    }

    /// Asks for secrets that are needed from now on, and no longer for others.
    pub(super) fn follow_secrets(&mut self) {
        let (interests, _) = self.secrets.links.follow(TypeUrl::Secret);
        self.step.interests.extend(interests);
    }
}

fn given(value: Option<SecretValue>) -> Option<Arc<Secret>> {
    match value? {
        SecretValue::Given(secret) => Some(secret),
        SecretValue::At(_) => None,
    }
}

/// How a secret is to be asked for, if somebody else provides it.
fn reference(named: &SecretRef) -> Option<Reference> {
    let limit = |wait: Duration| (!wait.is_zero()).then_some(wait);
    let (from, watched_directory, initial_fetch_timeout) = match &named.source {
        SecretSource::ControlPlane {
            initial_fetch_timeout,
        } => (Source::Ads, None, limit(*initial_fetch_timeout)),
        SecretSource::Service {
            cluster,
            delta,
            opening,
            initial_fetch_timeout,
        } => {
            let service = Source::Service {
                cluster: cluster.clone(),
                delta: *delta,
                opening: opening.clone(),
            };
            (service, None, limit(*initial_fetch_timeout))
        }
        SecretSource::File { path, watched } => {
            let watched = (!watched.is_empty()).then(|| watched.as_str().into());
            let file = Source::Path(path.as_str().into());
            (file, watched, Some(FILE_FETCH))
        }
        _ => return None,
    };
    Some(Reference {
        name: named.name.clone(),
        from,
        watched_directory,
        initial_fetch_timeout,
    })
}
