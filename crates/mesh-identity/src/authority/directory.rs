//! An authority's directory: the files of Istio's secret `cacerts`, and what our own steps need
//! besides.
//!
//! | file | |
//! |---|---|
//! | `ca-cert.pem`, `ca-key.pem` | the certificate that signs, and its key |
//! | `cert-chain.pem` | what lies between it and a root; may be missing |
//! | `root-cert.pem` | the roots that are trusted |
//! | `ca-crl.pem` | lists of revoked certificates; may be missing |
//! | `next/`, `previous/` | the certificate and key that come, and those that were |
//!
//! Each file is replaced as a whole. Everything is for the owner alone: files 0600, folders 0700.

use super::material::{Material, Pair};
use crate::{MAX_CERTIFICATE_BYTES, MAX_TRUST_BYTES};
use mesh_core::Invalid;
use mesh_core::model::SecretBytes;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Where the files of an authority are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory(PathBuf);

const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const CHAIN: &str = "cert-chain.pem";
const ROOTS: &str = "root-cert.pem";
const REVOKED: &str = "ca-crl.pem";
const NEXT: &str = "next";
const PREVIOUS: &str = "previous";

// === impl Directory ===

impl Directory {
    /// The files in a folder, which need not be there.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether there is no authority yet: neither a certificate nor a key.
    pub fn is_empty(&self) -> bool {
        !self.0.join(CERTIFICATE).exists() && !self.0.join(KEY).exists()
    }

    /// Reads the files.
    ///
    /// # Errors
    /// The file and why it cannot be read. What stands in it is looked at by
    /// [`Authority::new`](super::Authority::new).
    pub fn read(&self) -> Result<Material, Invalid> {
        let current = self.pair("")?;
        let current = current.ok_or_else(|| missing(&self.0.join(CERTIFICATE)))?;
        let roots = self.file(ROOTS, MAX_TRUST_BYTES)?;
        Ok(Material {
            chain: self.file(CHAIN, MAX_CERTIFICATE_BYTES)?.unwrap_or_default(),
            roots: roots.ok_or_else(|| missing(&self.0.join(ROOTS)))?,
            revoked: self.file(REVOKED, MAX_TRUST_BYTES)?.unwrap_or_default(),
            next: self.pair(NEXT)?,
            previous: self.pair(PREVIOUS)?,
            current,
        })
    }

    /// Writes what has changed. In an order that leaves nobody without a root that is needed: what
    /// is read in between can be used, except between the two files of a pair that is replaced.
    ///
    /// # Errors
    /// The file and why it cannot be written.
    pub fn write(&self, material: &Material) -> Result<(), Invalid> {
        folder(&self.0).map_err(|error| named(&self.0, &error))?;
        let was = match self.is_empty() {
            true => None,
            false => Some(self.read()?),
        };
        let was = was.as_ref();
        // More roots first, fewer last.
        let roots = |write: bool| match write {
            true => self.put(ROOTS, &material.roots),
            false => Ok(()),
        };
        let grows = was.is_none_or(|was| was.roots.len() <= material.roots.len());
        roots(grows)?;
        for (folder, pair) in [(NEXT, &material.next), (PREVIOUS, &material.previous)] {
            if let Some(pair) = pair {
                self.put_pair(folder, pair)?;
            }
        }
        if was.is_none_or(|was| was.current != material.current) {
            self.put_pair("", &material.current)?;
        }
        for (file, text) in [(CHAIN, &material.chain), (REVOKED, &material.revoked)] {
            if !text.is_empty() {
                self.put(file, text)?;
            }
        }
        for (folder, pair) in [(NEXT, &material.next), (PREVIOUS, &material.previous)] {
            let path = self.0.join(folder);
            if pair.is_none() && path.exists() {
                fs::remove_dir_all(&path).map_err(|error| named(&path, &error))?;
            }
        }
        roots(!grows)
    }

    /// Writes lists of revoked certificates alone.
    ///
    /// # Errors
    /// The file and why it cannot be written.
    pub fn write_revoked(&self, revoked: &[u8]) -> Result<(), Invalid> {
        self.put(REVOKED, revoked)
    }

    fn pair(&self, folder: &str) -> Result<Option<Pair>, Invalid> {
        let name = |file: &str| match folder {
            "" => file.to_owned(),
            folder => format!("{folder}/{file}"),
        };
        let certificate = self.file(&name(CERTIFICATE), MAX_CERTIFICATE_BYTES)?;
        let key = self.file(&name(KEY), MAX_CERTIFICATE_BYTES)?;
        match (certificate, key) {
            (Some(certificate), Some(key)) => Ok(Some(Pair {
                certificate,
                key: SecretBytes::new(key),
            })),
            (None, None) => Ok(None),
            (None, Some(_)) => Err(missing(&self.0.join(name(CERTIFICATE)))),
            (Some(_), None) => Err(missing(&self.0.join(name(KEY)))),
        }
    }

    fn file(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>, Invalid> {
        let path = self.0.join(name);
        let read = || {
            let file = File::open(&path)?;
            let status = file.metadata()?;
            if !status.is_file() {
                let error = io::ErrorKind::InvalidInput;
                return Err(io::Error::new(error, "not a regular file"));
            }
            let length = usize::try_from(status.len()).unwrap_or(usize::MAX);
            // Never grown while it is read, which would leave parts of a key behind.
            let mut bytes = Vec::with_capacity(length.min(most) + 2);
            file.take(most as u64 + 1).read_to_end(&mut bytes)?;
            if bytes.len() > most {
                let message = format!("larger than the {most} bytes allowed");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(&path, &error)),
        }
    }

    fn put_pair(&self, folder_name: &str, pair: &Pair) -> Result<(), Invalid> {
        let path = self.0.join(folder_name);
        folder(&path).map_err(|error| named(&path, &error))?;
        let name = |file: &str| Path::new(folder_name).join(file);
        self.put(name(KEY), pair.key.expose())?;
        self.put(name(CERTIFICATE), &pair.certificate)
    }

    /// Replaces a file as a whole.
    fn put(&self, name: impl AsRef<Path>, text: &[u8]) -> Result<(), Invalid> {
        let path = self.0.join(name);
        let new = path.with_extension("pem.new");
        let write = || {
            // Left behind by somebody who did not come to an end.
            match fs::remove_file(&new) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = private(OpenOptions::new().write(true).create_new(true)).open(&new)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(|error| named(&path, &error))
    }
}

#[cfg(unix)]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600)
}

#[cfg(not(unix))]
fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// Makes a folder for the owner alone. One that is there is left as it is.
fn folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn missing(path: &Path) -> Invalid {
    Invalid::new(path.display().to_string(), "is missing")
}

fn named(path: &Path, error: &io::Error) -> Invalid {
    Invalid::new(path.display().to_string(), error.to_string())
}
