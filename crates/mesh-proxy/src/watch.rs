//! Watching files: whoever changes them, and however.

use notify::{RecursiveMode, Watcher};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::mpsc;

/// Files are read again this often even when nothing was reported: not every file system reports.
pub(crate) const POLL: Duration = Duration::from_secs(60);

/// What happens is told after this long at the latest, however much goes on: a log in the same
/// directory is never quiet.
const LONGEST: Duration = Duration::from_secs(2);

/// Says when something happens to files.
pub(crate) struct Changes {
    /// None where files cannot be watched; they are polled then.
    watcher: Option<notify::RecommendedWatcher>,
    watched: Vec<PathBuf>,
    changes: mpsc::Receiver<()>,
}

// === impl Changes ===

impl Changes {
    /// Watches nothing yet.
    pub(crate) fn new() -> Self {
        // One place is enough: whatever happened, everything is read again.
        let (changed, changes) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is an event too; following those would never end.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // A full channel means that a change is noted already.
                let _ = changed.try_send(());
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, every = ?POLL, "files cannot be watched; they are polled");
        }
        Self {
            watcher: watcher.ok(),
            watched: Vec::new(),
            changes,
        }
    }

    /// Watches a file, or a directory with all that is in it.
    pub(crate) fn watch(&mut self, path: &Path) {
        // A file is replaced rather than written by most editors, and by Kubernetes through a
        // link in its directory, so the directory is what is watched.
        let (place, mode) = if path.is_dir() {
            (path, RecursiveMode::Recursive)
        } else {
            (path.parent().unwrap_or(path), RecursiveMode::NonRecursive)
        };
        let place = if place.as_os_str().is_empty() {
            Path::new(".")
        } else {
            place
        };
        if self.watched.iter().any(|watched| watched == place) {
            return;
        }
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        match watcher.watch(place, mode) {
            Ok(()) => self.watched.push(place.to_owned()),
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, every = ?POLL, "cannot be watched; it is polled");
            }
        }
    }

    /// Watches nothing any more.
    pub(crate) fn clear(&mut self) {
        for place in self.watched.drain(..) {
            if let Some(watcher) = &mut self.watcher {
                // It may be gone, which is what we want.
                let _ = watcher.unwatch(&place);
            }
        }
    }

    /// Waits until something happened and nothing more does for `settle`, which is waited for up to
    /// two seconds, or until it is time to look in any case.
    ///
    /// # Cancel safety
    /// What happened while nobody waited is noted, but for changes within `settle`.
    pub(crate) async fn next(&mut self, settle: Duration) {
        tokio::select! {
            Some(()) = self.changes.recv() => {
                let quiet = async {
                    while let Ok(Some(())) = tokio::time::timeout(settle, self.changes.recv()).await {}
                };
                let _ = tokio::time::timeout(LONGEST, quiet).await;
            }
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_never_ends_is_told_all_the_same() {
        let (changed, receiver) = mpsc::channel(1);
        let mut changes = Changes {
            watcher: None,
            watched: Vec::new(),
            changes: receiver,
        };
        let settle = Duration::from_millis(100);
        // Somebody writes a log into the directory of a configuration.
        let writing = tokio::spawn(async move {
            loop {
                let _ = changed.try_send(());
                tokio::time::sleep(settle / 2).await;
            }
        });
        let told = tokio::time::timeout(POLL / 2, changes.next(settle)).await;
        assert!(told.is_ok(), "a change waits for the log to end");
        writing.abort();
    }
}
