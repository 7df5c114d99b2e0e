//! Files: read, watched, and given to a control plane.

use crate::Control;
use mesh_istio::{Diagnostic, Files};
use notify::{RecursiveMode, Watcher};
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Quiet time after a change before files are read: a file that is being written is read whole.
/// What is read waits again, for other changes.
const SETTLE: Duration = Duration::from_millis(20);

/// Files are read after this long at the latest, however much goes on around them: a log in the same
/// directory is never quiet.
const LONGEST: Duration = Duration::from_secs(2);

/// Files are read again this often even when nothing was reported: not every file system reports.
const POLL: Duration = Duration::from_secs(60);

/// Where the configuration is.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// Files and directories of YAML.
    pub paths: Vec<PathBuf>,
    /// A MeshConfig file, if it is not among the objects.
    pub mesh_config: Option<PathBuf>,
}

// === impl Source ===

impl Source {
    /// The files as they are now. What cannot be read is carried along as such.
    pub fn read(&self) -> Files {
        let files = Files::read(&self.paths);
        match &self.mesh_config {
            Some(path) => files.and_mesh_config(path),
            None => files,
        }
    }

    /// Follows the files until the future is dropped: gives every change to `control`, and what
    /// is new among its findings to `report`.
    pub async fn watch(self, control: Control, report: impl Fn(&[Diagnostic])) {
        // One place is enough: whatever happened, everything is read again.
        let (changed, mut changes) = mpsc::channel(1);
        let watcher = self.watcher(changed);
        if let Err(error) = &watcher {
            tracing::warn!(%error, every = ?POLL, "files cannot be watched; they are polled");
        }
        let mut said: Vec<String> = Vec::new();
        // What stands there when watching begins may be newer than what was taken over.
        let (mut known, hasher) = (None, RandomState::new());
        loop {
            tokio::select! {
                Some(()) = changes.recv() => {
                    let _ = tokio::time::timeout(LONGEST, quiet(&mut changes)).await;
                }
                () = tokio::time::sleep(POLL) => {}
            }
            let files = self.read();
            // Other files change in a directory, too: a log of ours, for one.
            let now = Some(hasher.hash_one(&files));
            if now == known {
                continue;
            }
            known = now;
            let mut findings = control.update(&files).findings;
            let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
            findings.retain(|finding| !said.contains(&finding.to_string()));
            said = texts;
            report(&findings);
        }
    }

    fn watcher(&self, changed: mpsc::Sender<()>) -> notify::Result<notify::RecommendedWatcher> {
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Reading a file is an event too; following those would never end.
                if event.is_ok_and(|event| !event.kind.is_access()) {
                    // A full channel means that a change is noted already.
                    let _ = changed.try_send(());
                }
            })?;
        for path in self.paths.iter().chain(&self.mesh_config) {
            // Most editors replace a file rather than write it, and Kubernetes replaces a link in
            // its directory, so the directory is what is watched.
            let (place, mode) = match path.is_dir() {
                true => (path.as_path(), RecursiveMode::Recursive),
                false => {
                    let parent = path.parent().unwrap_or(path);
                    (parent, RecursiveMode::NonRecursive)
                }
            };
            let here = place.as_os_str().is_empty();
            watcher.watch(if here { Path::new(".") } else { place }, mode)?;
        }
        Ok(watcher)
    }
}

async fn quiet(changes: &mut mpsc::Receiver<()>) {
    while let Ok(Some(())) = tokio::time::timeout(SETTLE, changes.recv()).await {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: []}}";

    #[tokio::test]
    async fn a_file_that_comes_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let source = Source {
            paths: vec![directory.path().to_owned()],
            mesh_config: None,
        };
        let control = Control::builder().build();
        control.update(&source.read());
        let watching = tokio::spawn(source.watch(control.clone(), |_| {}));
        // The watcher is set up by the first poll of the task.
        tokio::task::yield_now().await;
        fs::write(
            directory.path().join("a.yaml"),
            SERVICE.replace("[]", "[{port: 80}]"),
        )
        .unwrap();
        while control
            .engine()
            .inputs()
            .is_none_or(|inputs| inputs.services.is_empty())
        {
            tokio::task::yield_now().await;
            control.flush();
        }
        watching.abort();
    }
}
