//! Talking to a client that runs.

use super::demand::Asker;
use super::machine::{ResourceStatus, Variant};
use crate::TypeUrl;
use crate::read::{Resource, SecretResource};
use mesh_core::demand::{Missing, Outcome};
use mesh_core::model::StreamOpening;
use mesh_core::{Demand, Invalid, Name};
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};

/// Talks to a client that runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
}

/// The client has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the xDS client has ended")]
pub struct Gone;

/// A resource that something refers to and that is in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct FileReference {
    /// Its type.
    pub kind: TypeUrl,
    /// The file.
    pub path: PathBuf,
    /// Its name.
    pub name: Name,
    /// Watched instead of the file's own directory.
    pub watched_directory: Option<PathBuf>,
}

/// A secret that something refers to and that a service of its own has.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct ServiceReference {
    /// The cluster that the service is at.
    pub cluster: Name,
    /// How it is to be spoken to.
    pub variant: Variant,
    /// What its streams begin with besides.
    pub opening: StreamOpening,
    /// The secret's name.
    pub name: Name,
}

#[derive(Debug)]
pub(super) enum Command {
    SupplySecrets {
        cluster: Name,
        variant: Variant,
        opening: StreamOpening,
        secrets: Vec<SecretResource>,
        gone: Vec<Name>,
        answer: oneshot::Sender<Vec<(Name, Invalid)>>,
    },
    Supply {
        kind: TypeUrl,
        path: PathBuf,
        resources: Vec<Resource>,
        answer: oneshot::Sender<Vec<(Name, Invalid)>>,
    },
    Ask {
        missing: Missing,
        answer: oneshot::Sender<Outcome>,
    },
    Resources {
        kind: TypeUrl,
        answer: oneshot::Sender<Vec<ResourceStatus>>,
    },
}

// === impl Handle ===

impl Handle {
    pub(super) fn new(commands: mpsc::Sender<Command>) -> Self {
        Self { commands }
    }

    /// Says what all the resources of a type in a file are now. Those that the file had before and
    /// has no longer are removed. Returns what was refused.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn supply(
        &self,
        kind: TypeUrl,
        path: PathBuf,
        resources: Vec<Resource>,
    ) -> Result<Vec<(Name, Invalid)>, Gone> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Supply {
            kind,
            path,
            resources,
            answer,
        };
        self.commands.send(command).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }

    /// Says what came and went of the secrets that the service at a cluster has, for those who want
    /// them from it in this variant and so opened ([`ServiceReference`]). Returns what was refused.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn supply_secrets(
        &self,
        cluster: Name,
        variant: Variant,
        opening: StreamOpening,
        secrets: Vec<SecretResource>,
        gone: Vec<Name>,
    ) -> Result<Vec<(Name, Invalid)>, Gone> {
        let (answer, answered) = oneshot::channel();
        let command = Command::SupplySecrets {
            cluster,
            variant,
            opening,
            secrets,
            gone,
            answer,
        };
        self.commands.send(command).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }

    /// For those who find something missing: asks the control plane for it, with the delta variant.
    /// Nothing is asked for unless the client runs.
    pub fn demand(&self) -> Demand {
        Demand::new(Asker {
            commands: self.commands.clone(),
        })
    }

    /// What is known of each resource of a type that comes from the control plane.
    ///
    /// # Errors
    /// If the client has ended.
    pub async fn resources(&self, kind: TypeUrl) -> Result<Vec<ResourceStatus>, Gone> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Resources { kind, answer };
        self.commands.send(command).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }
}
