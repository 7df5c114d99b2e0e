//! Secrets that lie in files.
//!
//! Files are looked at once a second, by their status. That needs no more than a few system calls
//! for each file, and it sees what watching misses: Kubernetes swaps a `..data` link two levels
//! above the file that is named, and network and overlay file systems tell nobody of changes.

use crate::secret::check_secret;
use crate::{MAX_CERTIFICATE_BYTES, MAX_TRUST_BYTES, pem};
use mesh_core::Feed;
use mesh_core::model::{LiveSecret, Secret, SecretName, SecretRef, SecretSource, Snapshot};
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep, timeout};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Reads the secrets whose names say that they lie in files (`file-cert:`, `file-root:`,
/// `file-crl:`) and follows the files as they change.
///
/// A file that cannot be used, or is gone, is warned about once and the last good secret stays in
/// use. A certificate and its key are published together or not at all.
#[derive(Debug)]
pub struct Files {
    feed: Feed<Snapshot>,
    watched: HashMap<SecretRef, Watched>,
}

#[derive(Debug)]
struct Watched {
    live: Arc<LiveSecret>,
    /// What the files were when they were looked at last.
    seen: Seen,
    /// Roots of the system are read again after [`SYSTEM`].
    read: Instant,
}

/// Which files these are, in which state; or why they could not be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Seen {
    #[default]
    Never,
    Stamps(Vec<Stamp>),
    Failed(io::ErrorKind),
    System,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    /// Device, node and the time of its last change, where the system has them.
    identity: [i64; 4],
}

type Outcome = (Seen, Option<Result<Secret, String>>);

const EVERY: Duration = Duration::from_secs(1);

/// How often the roots that the machine trusts are read.
const SYSTEM: Duration = Duration::from_secs(3600);

/// How often files that change while they are read are read again at once.
const ATTEMPTS: usize = 3;

/// Reads the roots that the machine trusts (`file-root:system`), where OpenSSL would look for them
/// (`SSL_CERT_FILE` and `SSL_CERT_DIR` are minded). Blocks.
///
/// # Errors
/// None were found.
pub fn system_roots() -> io::Result<Secret> {
    let mut found = rustls_native_certs::load_native_certs();
    // What the rest of this crate could not read would spoil the others.
    found
        .certs
        .retain(|der| X509Certificate::from_der(der).is_ok());
    if found.certs.is_empty() {
        let why = found.errors.first().map(ToString::to_string);
        let why = why.unwrap_or_else(|| "no roots of trust are installed".to_owned());
        return Err(io::Error::new(io::ErrorKind::NotFound, why));
    }
    Ok(Secret::roots(pem::to_pem(&found.certs)))
}

// === impl Files ===

impl Files {
    /// Follows the files that the snapshots of a feed name. Nothing is read before
    /// [`Files::refresh`] or [`Files::run`].
    pub fn new(feed: Feed<Snapshot>) -> Self {
        Self {
            feed,
            watched: HashMap::new(),
        }
    }

    /// Follows the files for ever: the user runs it, and drops it to stop. After the feed's
    /// publisher is gone its last snapshot stays.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn run(mut self) {
        loop {
            self.refresh().await;
            if let Ok(Err(_)) = timeout(EVERY, self.feed.changed()).await {
                sleep(EVERY).await;
            }
        }
    }

    /// Looks at all files now and publishes what changed: before listeners are opened, so that the
    /// first handshakes find their certificates. Reading happens on tokio's threads for blocking.
    ///
    /// # Cancel safety
    /// What was read is published or looked at again.
    pub async fn refresh(&mut self) {
        let snapshot = self.feed.load();
        self.follow(&snapshot);
        let due: Vec<_> = self
            .watched
            .iter()
            .map(|(named, watched)| {
                let fresh = watched.seen == Seen::System && watched.read.elapsed() < SYSTEM;
                (named.clone(), watched.seen.clone(), fresh)
            })
            .filter(|(_, _, fresh)| !fresh)
            .collect();
        let look = move || -> Vec<(SecretRef, Outcome)> {
            let looked = due.into_iter().map(|(named, seen, _)| {
                let outcome = look(SecretName::of(&named.name), &seen, &mut || {});
                (named, outcome)
            });
            looked.collect()
        };
        // An error is a panic or a runtime that ends; neither leaves anything to publish.
        let Ok(looked) = tokio::task::spawn_blocking(look).await else {
            return;
        };
        for (named, (seen, outcome)) in looked {
            let Some(watched) = self.watched.get_mut(&named) else {
                continue;
            };
            watched.seen = seen;
            watched.read = Instant::now();
            match outcome {
                None => {}
                Some(Ok(secret)) => watched.live.publish(Some(Arc::new(secret))),
                Some(Err(error)) => {
                    let kept = watched.live.value().load().is_some();
                    tracing::warn!(secret = %named.name, error, kept, "files of a secret refused");
                }
            }
        }
    }

    fn follow(&mut self, snapshot: &Snapshot) {
        let secrets = snapshot.secrets();
        self.watched.retain(|named, watched| {
            secrets
                .get(named)
                .is_some_and(|live| Arc::ptr_eq(live, &watched.live))
        });
        for (named, live) in secrets.iter() {
            let local = named.source == SecretSource::Local;
            if local && !matches!(SecretName::of(&named.name), SecretName::Other(_)) {
                self.watched
                    .entry(named.clone())
                    .or_insert_with(|| Watched {
                        live: live.clone(),
                        seen: Seen::Never,
                        read: Instant::now(),
                    });
            }
        }
    }
}

/// Looks at the files of one secret and reads them if they are not as they were. `after` is called
/// after each reading: tests change files there.
fn look(name: SecretName<'_>, seen: &Seen, after: &mut dyn FnMut()) -> Outcome {
    let paths: &[&str] = match name {
        SecretName::CertificateFiles { certificate, key } => &[certificate, key],
        SecretName::RootFile(file) | SecretName::RevokedFile(file) => &[file],
        SecretName::SystemRoots => {
            let roots = system_roots().map_err(|error| error.to_string());
            return (Seen::System, Some(roots));
        }
        _ => return (seen.clone(), None),
    };
    let mut last = Seen::Never;
    for _ in 0..ATTEMPTS {
        match attempt(name, paths, seen, after) {
            Ok(None) => return (seen.clone(), None),
            Ok(Some((stamps, Some(secret)))) => return (Seen::Stamps(stamps), Some(secret)),
            // Changed while they were read: at once again, later if that goes on.
            Ok(Some((_, None))) => last = Seen::Never,
            Err(error) => {
                let failed = Seen::Failed(error.kind());
                let news = (failed != *seen).then(|| Err(error.to_string()));
                return (failed, news);
            }
        }
    }
    (last, None)
}

type Attempt = Option<(Vec<Stamp>, Option<Result<Secret, String>>)>;

fn attempt(
    name: SecretName<'_>,
    paths: &[&str],
    seen: &Seen,
    after: &mut dyn FnMut(),
) -> io::Result<Attempt> {
    let before = stamps(paths)?;
    if matches!(seen, Seen::Stamps(known) if *known == before) {
        return Ok(None);
    }
    let most = match name {
        SecretName::CertificateFiles { .. } => MAX_CERTIFICATE_BYTES,
        _ => MAX_TRUST_BYTES,
    };
    let mut read = paths.iter().map(|path| read(path, most));
    let mut next = || read.next().unwrap_or_else(|| Ok(Vec::new()));
    let secret = match name {
        SecretName::CertificateFiles { .. } => {
            let chain = next()?;
            Secret::certificate(chain, next()?)
        }
        SecretName::RevokedFile(_) => Secret::Trust {
            roots: Vec::new(),
            revoked: next()?,
        },
        _ => Secret::roots(next()?),
    };
    after();
    if stamps(paths)? != before {
        return Ok(Some((before, None)));
    }
    let checked = check_secret(&secret).map_err(|error| error.to_string());
    Ok(Some((before, Some(checked.map(|()| secret)))))
}

fn stamps(paths: &[&str]) -> io::Result<Vec<Stamp>> {
    let stamp = |path: &&str| {
        let status = fs::metadata(path).map_err(|error| named(path, &error))?;
        if !status.is_file() {
            // A pipe would block for ever.
            let error = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(named(path, &error));
        }
        Ok(Stamp {
            length: status.len(),
            modified: status.modified().ok(),
            identity: identity(&status),
        })
    };
    paths.iter().map(stamp).collect()
}

#[cfg(unix)]
fn identity(status: &Metadata) -> [i64; 4] {
    use std::os::unix::fs::MetadataExt;
    [
        status.dev().cast_signed(),
        status.ino().cast_signed(),
        status.ctime(),
        status.ctime_nsec(),
    ]
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> [i64; 4] {
    [0; 4]
}

fn read(path: &str, most: usize) -> io::Result<Vec<u8>> {
    let read = || {
        let file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        // Never grown while it is read, which would leave parts of a key behind.
        let mut bytes = Vec::with_capacity(length.min(most) + 2);
        file.take(most as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > most {
            let message = format!("larger than the {most} bytes allowed");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(bytes)
    };
    read().map_err(|error| named(path, &error))
}

fn named(path: &str, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::generate_simple_self_signed;

    #[test]
    fn a_file_that_changes_while_it_is_read_is_read_again() {
        let one = || {
            generate_simple_self_signed(["a.test".to_owned()])
                .unwrap()
                .cert
                .pem()
        };
        let (part, whole) = (one(), [one(), one()].concat());
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("ca.pem");
        let name = SecretName::RootFile(path.to_str().unwrap());
        fs::write(&path, &part).unwrap();
        let mut writes = vec![whole.clone()];
        let (seen, read) = look(name, &Seen::Never, &mut || {
            if let Some(text) = writes.pop() {
                fs::write(&path, text).unwrap();
            }
        });
        assert!(read == Some(Ok(Secret::roots(whole))));
        // As they were: nothing to read.
        assert!(look(name, &seen, &mut || panic!("read again")).1.is_none());
        // One that never rests is looked at later.
        let mut text = part.clone();
        fs::write(&path, &text).unwrap();
        let (seen, read) = look(name, &seen, &mut || {
            text.push('\n');
            fs::write(&path, &text).unwrap();
        });
        assert!(read.is_none() && seen == Seen::Never);
        fs::write(&path, &part).unwrap();
        let (_, read) = look(name, &seen, &mut || {});
        assert!(read == Some(Ok(Secret::roots(part))));
    }
}
