//! Makes the next snapshot of what is in force.

use super::Assemble;
use mesh_core::model::{EndpointSet, Snapshot, SnapshotBuilder};
use mesh_core::{Invalid, Name};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The last snapshot, and how it differs from what is in force.
#[derive(Debug)]
pub(super) struct Output {
    snapshot: Arc<Snapshot>,
    pub(super) clusters: bool,
    pub(super) tables: bool,
    pub(super) listeners: bool,
    /// Some listeners have tables without policies.
    stripped: bool,
    /// Endpoints of clusters that came into force.
    pub(super) endpoints: BTreeMap<Name, Arc<EndpointSet>>,
}

// === impl Output ===

impl Output {
    pub(super) fn new() -> Self {
        Self {
            snapshot: Arc::default(),
            clusters: false,
            tables: false,
            listeners: false,
            stripped: false,
            endpoints: BTreeMap::new(),
        }
    }

    pub(super) fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }
}

// === impl Assemble ===

impl Assemble {
    /// Makes a snapshot if anything changed.
    pub(super) fn publish(&mut self) {
        if !(self.output.clusters || self.output.tables || self.output.listeners) {
            return;
        }
        match self.build() {
            Ok(snapshot) => {
                self.secrets.output.clear();
                self.output = Output {
                    snapshot: snapshot.clone(),
                    stripped: self.output.stripped,
                    ..Output::new()
                };
                self.step.snapshot = Some(snapshot);
            }
            // Everything was checked one by one, so this is what `configure` did.
            Err(error) => {
                self.warn(format!(
                    "the configuration does not fit together and the last one stays: {error}"
                ));
                for verdict in &mut self.step.verdicts {
                    if verdict.result.is_ok() {
                        verdict.result = Err(error.clone());
                    }
                }
            }
        }
    }

    fn build(&mut self) -> Result<Arc<Snapshot>, Invalid> {
        let fit = self.output.tables || self.output.listeners || self.options.configure.is_some();
        let mut listeners = if fit {
            self.fitted_listeners()
        } else {
            Vec::new()
        };
        self.with_files_in_listeners(&mut listeners);
        // One of them may name another table, now or no longer.
        let lacking = self.stripped.tables().next().is_some();
        self.output.tables |= fit && (lacking || self.output.stripped);
        self.output.listeners |= fit && (lacking || self.output.stripped);
        self.output.stripped = lacking;
        let previous = &self.output.snapshot;
        let configure = self.options.configure.as_ref();
        let mut builder = SnapshotBuilder::from(previous);
        if self.output.clusters || configure.is_some() {
            let mut clusters: Vec<_> = self.clusters.active().cloned().collect();
            self.with_files_in_clusters(&mut clusters);
            for cluster in clusters {
                builder.cluster(cluster);
            }
        } else {
            builder.keep_clusters();
        }
        for (name, set) in &self.output.endpoints {
            builder.endpoints(name.clone(), set.clone());
        }
        if self.output.tables || configure.is_some() {
            for table in self.tables.active().chain(self.stripped.tables()) {
                builder.routes(table.clone());
            }
        } else {
            builder.keep_routes();
        }
        if self.output.listeners || configure.is_some() {
            for listener in listeners {
                builder.listener(listener);
            }
        } else {
            builder.keep_listeners();
        }
        for (named, secret) in &self.secrets.output {
            builder.secret(named.clone(), secret.clone());
        }
        if let Some(configure) = configure {
            configure(&mut builder);
        }
        let (snapshot, warnings) = builder.build()?;
        self.step.warnings.extend(warnings);
        Ok(snapshot)
    }
}
