//! What the admin interface knows of where the configuration comes from.

use bytes::Bytes;
use mesh_core::model::{ListenerAddress, Snapshot};
use mesh_core::{Feed, Name};
use mesh_xds::bootstrap::{Bootstrap, From as Place};
use mesh_xds::client::{Handle, KindStatus, ResourceState, ResourceStatus, Status};
use mesh_xds::pb::envoy::config::bootstrap::v3::Bootstrap as BootstrapProto;
use mesh_xds::{Encoded, TypeUrl};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What the admin interface knows of where the configuration comes from.
#[derive(Debug)]
pub(crate) struct Control {
    status: Feed<Status>,
    handle: Handle,
    files: Mutex<BTreeMap<(TypeUrl, PathBuf), FileStatus>>,
    /// Envoy's bootstrap message.
    bootstrap: Encoded,
    /// Where the admin interface is.
    admin: OnceLock<ListenerAddress>,
    /// What is static.
    fixed: HashSet<(TypeUrl, Name)>,
    /// What the first configuration consists of, and how long it is waited for. None is for ever.
    awaited: Vec<(TypeUrl, Option<Duration>)>,
    /// The first configuration was in force once.
    initialized: AtomicBool,
}

/// What is known of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileStatus {
    /// How it went.
    pub(crate) status: KindStatus,
    /// What is in force of it, and what was refused.
    pub(crate) resources: Vec<Known>,
}

/// What is known of a resource that is not static.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) name: Name,
    /// The version that was accepted.
    pub(crate) version: Option<Name>,
    /// It as it came, as far as it is kept.
    pub(crate) body: Option<Bytes>,
    /// The version that was accepted is not in force yet.
    pub(crate) waits: bool,
    /// The latest version was refused.
    pub(crate) refused: Option<Refused>,
}

/// A version that was refused.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) version: Name,
    /// Why.
    pub(crate) reason: String,
    /// It as it came, as far as it is kept.
    pub(crate) body: Option<Bytes>,
}

// === impl Control ===

impl Control {
    pub(super) fn new(status: Feed<Status>, handle: Handle) -> Self {
        Self {
            status,
            handle,
            files: Mutex::default(),
            bootstrap: Encoded::of("", &BootstrapProto::default()),
            admin: OnceLock::new(),
            fixed: HashSet::new(),
            // A control plane is waited for, as Istio's own bootstrap has it.
            awaited: vec![(TypeUrl::Cluster, None), (TypeUrl::Listener, None)],
            initialized: AtomicBool::new(false),
        }
    }

    pub(super) fn bootstrapped(&mut self, bootstrap: &Bootstrap) {
        self.bootstrap = Encoded::new("", bootstrap.encoded.clone());
        let clusters = bootstrap.clusters.iter().map(|c| &c.cluster.name);
        let listeners = bootstrap.listeners.iter().map(|l| &l.listener.name);
        self.fixed = clusters
            .map(|name| (TypeUrl::Cluster, name.clone()))
            .chain(listeners.map(|name| (TypeUrl::Listener, name.clone())))
            .collect();
        let sources = [
            (TypeUrl::Cluster, &bootstrap.cds),
            (TypeUrl::Listener, &bootstrap.lds),
        ];
        let awaited = sources.into_iter().filter_map(|(kind, from)| {
            let from = from.as_ref()?;
            // A file that is not there yet is not waited for.
            (from.from == Place::Ads).then_some((kind, from.initial_fetch_timeout))
        });
        self.awaited = awaited.collect();
    }

    pub(super) fn described(&mut self, bootstrap: &BootstrapProto) {
        self.bootstrap = Encoded::of("", bootstrap);
    }

    pub(super) fn file(&self, kind: TypeUrl, path: PathBuf, status: Option<FileStatus>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match status {
            Some(status) => files.insert((kind, path), status),
            None => files.remove(&(kind, path)),
        };
    }

    /// The bootstrap message.
    pub(crate) fn bootstrap(&self) -> &Encoded {
        &self.bootstrap
    }

    /// Where the admin interface is.
    pub(crate) fn admin(&self) -> Option<&ListenerAddress> {
        self.admin.get()
    }

    /// Notes where the admin interface is. Of several proxies that one driver drives the first
    /// counts.
    pub(crate) fn admin_at(&self, address: ListenerAddress) {
        let _ = self.admin.set(address);
    }

    /// Whether a resource is there for good.
    pub(crate) fn is_static(&self, kind: TypeUrl, name: &Name) -> bool {
        self.fixed.contains(&(kind, name.clone()))
    }

    /// How it stands with the control plane.
    pub(crate) fn connected(&self) -> bool {
        self.status.load().connected
    }

    /// Why there is no control plane: what the last attempt said, while there is none.
    pub(crate) fn last_error(&self) -> Option<String> {
        let status = self.status.load();
        status.last_error.clone().filter(|_| !status.connected)
    }

    /// What was counted for each type, in files and at the control plane together.
    pub(crate) fn kinds(&self) -> BTreeMap<TypeUrl, KindStatus> {
        let mut kinds = self.status.load().kinds.clone();
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        for ((kind, _), file) in files.iter() {
            let all = kinds.entry(*kind).or_default();
            all.update_attempt += file.status.update_attempt;
            all.update_success += file.status.update_success;
            all.update_rejected += file.status.update_rejected;
            if all.version.is_empty() {
                all.version.clone_from(&file.status.version);
            }
        }
        kinds
    }

    /// What is known of the resources of a type. Costs as much as there are.
    pub(crate) async fn resources(&self, kind: TypeUrl) -> Vec<Known> {
        // When the client has ended, nothing is known.
        let all = self.handle.resources(kind).await.unwrap_or_default();
        let mut all: Vec<Known> = all.into_iter().map(Known::from).collect();
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let files = files.iter().filter(|((of, _), _)| *of == kind);
        all.extend(files.flat_map(|(_, file)| file.resources.iter().cloned()));
        all
    }

    /// Whether the first configuration is in force, or was once: listeners and clusters came, and
    /// none of them waits for something, or they did not come in time.
    pub(crate) async fn is_initialized(&self, snapshot: &Snapshot, started: Instant) -> bool {
        if self.initialized.load(Ordering::Relaxed) {
            return true;
        }
        let kinds = self.status.load().kinds.clone();
        for (kind, wait) in &self.awaited {
            if wait.is_some_and(|wait| started.elapsed() > wait) {
                continue;
            }
            if kinds
                .get(kind)
                .is_none_or(|status| status.update_attempt == 0)
            {
                return false;
            }
            for resource in self.resources(*kind).await {
                let accepted = resource.version.is_some() && resource.refused.is_none();
                let waits = accepted && !is_in_force(snapshot, *kind, &resource.name);
                if waits {
                    return false;
                }
            }
        }
        self.initialized.store(true, Ordering::Relaxed);
        true
    }
}

// === impl Known ===

impl Known {
    /// Of which only the name is known.
    pub(crate) fn of(name: Name) -> Self {
        Self {
            name,
            version: None,
            body: None,
            waits: false,
            refused: None,
        }
    }
}

impl From<ResourceStatus> for Known {
    fn from(status: ResourceStatus) -> Self {
        let refused = match status.state {
            ResourceState::Refused { version, reason } => Some(Refused {
                version,
                reason,
                body: status.refused_body,
            }),
            _ => None,
        };
        Self {
            name: status.name,
            version: status.version,
            body: status.body,
            waits: status.waits,
            refused,
        }
    }
}

/// Whether a listener or cluster is in a snapshot.
fn is_in_force(snapshot: &Snapshot, kind: TypeUrl, name: &str) -> bool {
    match kind {
        TypeUrl::Cluster => snapshot.cluster(name).is_some(),
        _ => snapshot.listeners().iter().any(|one| *one.name == *name),
    }
}
