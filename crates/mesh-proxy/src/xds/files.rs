//! Resources in files: read, handed to the client, and followed.

use super::control::{Control, FileStatus, Known, Refused};
use crate::watch::Changes;
use mesh_core::{Feed, Name};
use mesh_xds::TypeUrl;
use mesh_xds::bootstrap::{FileContents, Format};
use mesh_xds::client::{FileReference, Handle};
use mesh_xds::read::{Reader, Resource};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

/// Quiet time after a change before files are read: who writes a file writes more than once.
const SETTLE: Duration = Duration::from_millis(50);

/// The most that is read of one file.
const LARGEST_FILE: u64 = 64 << 20;

/// A file that the bootstrap names.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) kind: TypeUrl,
    pub(super) path: PathBuf,
    /// Watched instead of the file.
    pub(super) directory: Option<PathBuf>,
}

/// Follows the files that the bootstrap names, and those that resources refer to.
#[derive(Debug)]
pub(super) struct Files {
    named: Vec<Watched>,
    referred: Feed<BTreeSet<FileReference>>,
    handle: Handle,
    control: Arc<Control>,
    known: HashMap<(TypeUrl, PathBuf), File>,
    /// What is watched.
    watched: BTreeSet<PathBuf>,
    reader: Reader,
}

/// What is known of a file.
#[derive(Debug, Default)]
struct File {
    /// Its text as it was last looked at, or why there was none.
    seen: Option<Result<String, String>>,
    /// Some of it may be accepted another time: a listener whose address was in use.
    again: bool,
    /// The last good version of each resource that it has.
    good: BTreeMap<Name, Resource>,
    status: FileStatus,
}

// === impl Files ===

impl Files {
    pub(super) fn new(
        named: Vec<Watched>,
        referred: Feed<BTreeSet<FileReference>>,
        handle: Handle,
        control: Arc<Control>,
    ) -> Self {
        Self {
            named,
            referred,
            handle,
            control,
            known: HashMap::new(),
            watched: BTreeSet::new(),
            reader: Reader::default(),
        }
    }

    /// Runs until the client has ended.
    pub(super) async fn run(mut self) {
        let mut referred = self.referred.clone();
        let mut changes: Option<Changes> = None;
        loop {
            let wanted = self.wanted();
            if wanted.is_empty() {
                changes = None;
                self.watched.clear();
            } else {
                self.watch(changes.get_or_insert_with(Changes::new));
            }
            // After watching, so that no change is missed in between.
            if self.read(&wanted).await.is_err() {
                return;
            }
            let happened = async {
                match &mut changes {
                    Some(changes) => changes.next(SETTLE).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = happened => {}
                changed = referred.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// The files that matter now.
    fn wanted(&self) -> BTreeSet<(TypeUrl, PathBuf)> {
        let named = self.named.iter().map(|file| (file.kind, file.path.clone()));
        let referred = self.referred.load();
        let referred = referred.iter().map(|file| (file.kind, file.path.clone()));
        named.chain(referred).collect()
    }

    /// Watches where they are, or where they say.
    fn watch(&mut self, changes: &mut Changes) {
        let named = self
            .named
            .iter()
            .map(|file| file.directory.as_ref().unwrap_or(&file.path));
        let referred = self.referred.load();
        let referred = referred
            .iter()
            .map(|file| file.watched_directory.as_ref().unwrap_or(&file.path));
        let places: BTreeSet<PathBuf> = named.chain(referred).cloned().collect();
        if self.watched == places {
            return;
        }
        changes.clear();
        for place in &places {
            changes.watch(place);
        }
        self.watched = places;
    }

    /// Reads what is new and hands over what changed.
    async fn read(
        &mut self,
        wanted: &BTreeSet<(TypeUrl, PathBuf)>,
    ) -> Result<(), mesh_xds::client::Gone> {
        let gone: Vec<_> = self
            .known
            .keys()
            .filter(|file| !wanted.contains(*file))
            .cloned()
            .collect();
        for (kind, path) in gone {
            self.known.remove(&(kind, path.clone()));
            self.control.file(kind, path.clone(), None);
            self.handle.supply(kind, path, Vec::new()).await?;
        }
        for (kind, path) in wanted {
            let file = self.known.entry((*kind, path.clone())).or_default();
            let text = text(path).map_err(|error| error.to_string());
            if file.seen.as_ref() == Some(&text) && !file.again {
                continue;
            }
            file.again = false;
            let found = take_in(&self.reader, file, *kind, path, &text);
            file.seen = Some(text);
            if let Some((version, mut refused)) = found {
                let good: Vec<Resource> = file.good.values().cloned().collect();
                let more = self.handle.supply(*kind, path.clone(), good).await?;
                file.again = !more.is_empty();
                refused.extend(more.into_iter().map(|(name, why)| (name, why.to_string())));
                file.settle(&version, refused);
            }
            self.control
                .file(*kind, path.clone(), Some(file.status.clone()));
        }
        Ok(())
    }
}

// === impl File ===

impl File {
    /// Notes how it went.
    fn settle(&mut self, version: &Name, refused: BTreeMap<Name, String>) {
        let status = &mut self.status.status;
        if refused.is_empty() {
            status.update_success += 1;
            version.as_str().clone_into(&mut status.version);
        } else {
            status.update_rejected += 1;
            let reasons = refused.iter().map(|(name, why)| format!("{name}: {why}"));
            status.last_refusal = Some(reasons.collect::<Vec<_>>().join("; "));
        }
        let names: BTreeSet<&Name> = self.good.keys().chain(refused.keys()).collect();
        let resources = names.into_iter().map(|name| Known {
            name: name.clone(),
            version: self.good.contains_key(name).then(|| version.clone()),
            body: None,
            waits: false,
            refused: refused.get(name).map(|why| Refused {
                version: version.clone(),
                reason: why.clone(),
                body: None,
            }),
        });
        self.status.resources = resources.collect();
    }
}

/// Takes in the text of a file: what is good of it replaces what was there. Gives its version and
/// what was refused; nothing if the text as a whole cannot be used, and nothing changes then.
fn take_in(
    reader: &Reader,
    file: &mut File,
    kind: TypeUrl,
    path: &Path,
    text: &Result<String, String>,
) -> Option<(Name, BTreeMap<Name, String>)> {
    let shown = path.display();
    file.status.status.update_attempt += 1;
    let read = text.as_ref().map_err(Clone::clone).and_then(|text| {
        let format = Format::of(path).map_err(|error| error.to_string())?;
        FileContents::read_by(reader, kind, format, text).map_err(|error| error.to_string())
    });
    let contents = match read {
        Ok(contents) => contents,
        Err(error) => {
            tracing::error!(path = %shown, %error, "a file of resources cannot be used; what it had stays");
            file.status.status.update_rejected += 1;
            file.status.status.last_refusal = Some(error);
            return None;
        }
    };
    let mut good = BTreeMap::new();
    let mut refused = BTreeMap::new();
    for (name, resource) in contents.resources {
        match resource {
            Ok(resource) => {
                good.insert(name, resource);
            }
            Err(error) => {
                tracing::error!(path = %shown, %name, %error, "a resource was refused; the last good one stays");
                if let Some(before) = file.good.remove(&name) {
                    good.insert(name.clone(), before);
                }
                refused.insert(name, error.to_string());
            }
        }
    }
    file.good = good;
    Some((contents.version, refused))
}

fn text(path: &Path) -> io::Result<String> {
    let size = fs::metadata(path)?.len();
    if size > LARGEST_FILE {
        let message = format!("{size} bytes are more than the {LARGEST_FILE} that are read");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    fs::read_to_string(path)
}
