//! What goes into [`Assemble`](super::Assemble), and what comes out.

use super::listeners::Admit;
use crate::TypeUrl;
use crate::read::{Reference, Resource, Source};
use mesh_core::model::{Snapshot, SnapshotBuilder, Warning};
use mesh_core::{Invalid, Name};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How snapshots are put together.
#[non_exhaustive]
pub struct Options {
    /// How long a route table waits for clusters that are known but not yet in force. Default
    /// 15 s, which is also Envoy's default `initial_fetch_timeout`. A cluster that may wait for
    /// its endpoints for ever does not hold a table for ever.
    pub routes_wait: Duration,
    /// Changes what is about to become a snapshot, for instance access logs. It sees all parts of
    /// each snapshot, so with it every snapshot costs a visit to every part.
    pub configure: Option<Configure>,
    /// Asked for each new listener, and for each that wants another address, before it is
    /// accepted: to open its socket, so that it is refused if that cannot be done, as Envoy refuses
    /// it. Not asked for those that are [fixed](super::Assemble::fix).
    pub admit: Option<Admit>,
}

/// Changes what is about to become a snapshot.
pub type Configure = Box<dyn Fn(&mut SnapshotBuilder) + Send + Sync>;

/// A resource that came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where it comes from. References with the same source find it.
    pub from: Source,
    /// Comes back with the [`Verdict`].
    pub ticket: u64,
    /// What happened.
    pub to: To,
}

/// What happened to a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// It came, or changed.
    Is(Resource),
    /// It went, or does not exist.
    Gone(TypeUrl, Name),
}

/// What followed from changes.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Step {
    /// The new snapshot, if there is one. Not yet published anywhere.
    pub snapshot: Option<Arc<Snapshot>>,
    /// What works but is probably not meant, and waits that were given up. Each is said once.
    pub warnings: Vec<Warning>,
    /// Resources that are referred to from now on, or no longer.
    pub interests: Vec<Interest>,
    /// What became of changes: of each [`To::Is`] exactly once, in this step or a later one.
    pub verdicts: Vec<Verdict>,
}

/// A resource is needed, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something refers to it.
    Start(TypeUrl, Reference),
    /// Nothing does any more, and it was forgotten.
    Stop(TypeUrl, Source, Name),
}

/// What became of a change.
///
/// Clusters and listeners are accepted when they begin to wait for what they refer to: a server
/// that sends things in order would wait for ever otherwise. Route tables that wait for clusters
/// are accepted when they are in force, so that a server which removes a cluster after routes
/// without it were acknowledged removes nothing that is still in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The ticket of the change.
    pub ticket: u64,
    /// The resource's type.
    pub kind: TypeUrl,
    /// The resource's name.
    pub name: Name,
    /// Accepted, or why not.
    pub result: Result<(), Invalid>,
}

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self {
            routes_wait: Duration::from_secs(15),
            configure: None,
            admit: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("routes_wait", &self.routes_wait)
            .field("configure", &self.configure.is_some())
            .field("admit", &self.admit.is_some())
            .finish()
    }
}
