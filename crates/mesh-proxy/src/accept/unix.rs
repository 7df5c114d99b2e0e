//! Listening on Unix domain sockets.
//!
//! Workers cannot have a socket each, as they have for TCP: a path belongs to one. They share one,
//! as in Envoy: each waits on it, and the first to accept has the connection.
//!
//! A file that nobody listens on any more, left behind by a process that was killed, is replaced;
//! Envoy replaces any. The file is removed with the last of its users, unless somebody else has put
//! another in its place; Envoy leaves it.

use super::{BACKLOG, Ready, is_of_connection, pause};
use crate::origin::NOWHERE;
use mesh_core::model::UnixPath;
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::sync::{Arc, Weak};
use tokio::net::{UnixListener, UnixStream};

/// A Unix domain socket that is bound. Clones share it; the last takes its file away.
#[derive(Clone, Debug)]
pub(crate) struct UnixSocket(Arc<Bound>);

/// Finds a [`UnixSocket`] for as long as it is in use.
#[derive(Debug)]
pub(crate) struct InUse(Weak<Bound>);

#[derive(Debug)]
struct Bound {
    path: UnixPath,
    /// Device and number of the file, by which it is known again. None for an abstract name.
    file: Option<(u64, u64)>,
    socket: Socket,
}

/// Accepts what comes to a socket.
#[derive(Debug)]
pub(crate) struct Accepting {
    listener: UnixListener,
    _socket: UnixSocket,
}

// === impl UnixSocket ===

impl UnixSocket {
    /// Binds the path and sets the file's mode, unless that is 0. Nobody can connect yet.
    ///
    /// # Errors
    /// If somebody listens there, a file of another kind is in the way, or the system refuses.
    pub(crate) fn bind(path: &UnixPath, mode: u32) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        let address = address(path)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path, &address, error)?;
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        let file = match path.abstract_name() {
            Some(_) => None,
            None => Some(identity(path)?),
        };
        let bound = Self(Arc::new(Bound {
            path: path.clone(),
            file,
            socket,
        }));
        bound.set_mode(mode)?;
        Ok(bound)
    }

    /// Changes the file's mode; 0 leaves it as it is.
    pub(crate) fn set_mode(&self, mode: u32) -> io::Result<()> {
        match self.0.file {
            Some(_) if mode != 0 => {
                fs::set_permissions(self.0.path.as_str(), Permissions::from_mode(mode))
            }
            _ => Ok(()),
        }
    }

    /// From now on others can connect. More than once does no harm.
    pub(crate) fn listen(&self) -> io::Result<()> {
        self.0.socket.listen(BACKLOG)
    }

    pub(crate) fn in_use(&self) -> InUse {
        InUse(Arc::downgrade(&self.0))
    }

    /// A share of the connections that come, for the runtime that this is called in.
    pub(crate) fn accepting(self) -> io::Result<Accepting> {
        let listener = StdListener::from(self.0.socket.try_clone()?);
        Ok(Accepting {
            listener: UnixListener::from_std(listener)?,
            _socket: self,
        })
    }
}

// === impl InUse ===

impl InUse {
    pub(crate) fn get(&self) -> Option<UnixSocket> {
        self.0.upgrade().map(UnixSocket)
    }
}

// === impl Bound ===

impl Drop for Bound {
    fn drop(&mut self) {
        // While the socket is open no other file can get its number.
        let ours = self
            .file
            .is_some_and(|file| identity(&self.path).is_ok_and(|there| there == file));
        if ours && let Err(error) = fs::remove_file(self.path.as_str()) {
            tracing::debug!(path = %self.path, %error, "the socket's file stays");
        }
    }
}

// === impl Accepting ===

impl super::Accept for Accepting {
    type Stream = UnixStream;

    async fn next(&self) -> Ready<UnixStream> {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return ready(stream),
                Err(error) => pause(&error).await,
            }
        }
    }

    fn waiting(self) -> Vec<Ready<UnixStream>> {
        let mut accepted = Vec::new();
        // The others may be at it too: what is left once they are through is nobody's.
        let Ok(listener) = self.listener.into_std() else {
            return accepted;
        };
        while accepted.len() <= BACKLOG.unsigned_abs() as usize {
            match listener.accept() {
                Ok((stream, _)) => {
                    let prepared = stream.set_nonblocking(true);
                    match prepared.and_then(|()| UnixStream::from_std(stream)) {
                        Ok(stream) => accepted.push(ready(stream)),
                        Err(error) => tracing::debug!(%error, "accept"),
                    }
                }
                Err(error) if is_of_connection(&error) => {}
                Err(_) => break,
            }
        }
        accepted
    }
}

/// Who calls has no address, and where the call went is in the listener's configuration.
fn ready(stream: UnixStream) -> Ready<UnixStream> {
    Ready {
        stream,
        peer: NOWHERE,
        local: Some(NOWHERE),
    }
}

fn address(path: &UnixPath) -> io::Result<SockAddr> {
    match path.abstract_name() {
        // The system's spelling begins with a zero byte.
        Some(name) => SockAddr::unix(format!("\0{name}")),
        None => SockAddr::unix(path.as_str()),
    }
}

fn identity(path: &UnixPath) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path.as_str())?;
    Ok((file.dev(), file.ino()))
}

/// Removes the file of a socket that nobody listens on. `taken` is why there has to be room.
fn remove_stale(path: &UnixPath, address: &SockAddr, taken: io::Error) -> io::Result<()> {
    if path.abstract_name().is_some() {
        return Err(taken);
    }
    let there = fs::symlink_metadata(path.as_str())?;
    if !there.file_type().is_socket() {
        let message = "a file that is no socket is in the way";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    let caller = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    caller.set_nonblocking(true)?;
    match caller.connect(address) {
        // The file of a socket that is closed, or that nobody can connect to yet.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(%path, "replaces the file of a socket that nobody listens on");
            fs::remove_file(path.as_str())
        }
        // Somebody has it, whether there is room for one more caller or not.
        _ => Err(taken),
    }
}

#[cfg(test)]
mod tests;
