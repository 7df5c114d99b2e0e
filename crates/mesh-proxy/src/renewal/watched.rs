//! Files beside a certificate that change on their own: roots, and lists of revoked certificates.

use mesh_identity::MAX_TRUST_BYTES;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file that is read when it is not as it was.
#[derive(Debug)]
pub(super) struct Watched {
    path: Option<PathBuf>,
    /// Its length, and when it was written.
    seen: Option<(u64, SystemTime)>,
}

// === impl Watched ===

impl Watched {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, seen: None }
    }

    /// Whether there is a file to look at.
    pub(super) fn is_some(&self) -> bool {
        self.path.is_some()
    }

    /// What it says, if that is new. What cannot be read is said in the log.
    pub(super) async fn news(&mut self) -> Option<Vec<u8>> {
        let (path, was) = (self.path.clone()?, self.seen);
        let reading = tokio::task::spawn_blocking(move || {
            let stamp = stamp(&path).ok();
            (stamp != was).then(|| (stamp, read(&path)))
        });
        let (stamp, text) = reading.await.ok()??;
        self.seen = stamp;
        match text {
            Ok(text) => Some(text),
            Err(error) => {
                let path = self.path.as_deref().map(Path::display);
                let path = path.map(|path| path.to_string());
                tracing::warn!(path, %error, "cannot be read; what it said last stays");
                None
            }
        }
    }
}

fn stamp(path: &Path) -> io::Result<(u64, SystemTime)> {
    let status = std::fs::metadata(path)?;
    Ok((status.len(), status.modified()?))
}

/// A file of no more than [`MAX_TRUST_BYTES`].
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "not a regular file",
        ));
    }
    let mut text = Vec::new();
    file.take(MAX_TRUST_BYTES as u64 + 1)
        .read_to_end(&mut text)?;
    if text.len() > MAX_TRUST_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "larger than 16 MiB",
        ));
    }
    Ok(text)
}

/// These certificates and those, each once, as PEM.
pub(super) fn merged(these: &[u8], those: &[u8]) -> Vec<u8> {
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let mut all: Vec<&[u8]> = Vec::new();
    for mut rest in [these, those] {
        while let Some(at) = rest.windows(END.len()).position(|it| it == END) {
            let (one, next) = rest.split_at(at + END.len());
            let one = one.trim_ascii();
            if !all.contains(&one) {
                all.push(one);
            }
            rest = next;
        }
    }
    let mut text = all.join(&b'\n');
    if !text.is_empty() {
        text.push(b'\n');
    }
    text
}
