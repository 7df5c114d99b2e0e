//! Unix domain sockets, and the addresses that a listener can have.

use crate::{Invalid, Name};
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// The name of a Unix domain socket, as Envoy spells it (`Pipe.path`): a path, relative to the
/// working directory of the process where it does not begin with `/`, or `@` and a name in Linux'
/// abstract namespace, which is in no file system and has no file mode.
///
/// Between 1 and 107 bytes without a zero byte: what fits into the system's `sockaddr_un`. It is
/// not checked whether there is such a socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixPath(Name);

/// Where a listener accepts connections. Printed as Envoy prints it: an IP address and a port, or
/// the bare path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ListenerAddress {
    /// An IP address and port. Port 0 is any that is free.
    Socket(SocketAddr),
    /// A Unix domain socket.
    Unix(UnixPath),
}

/// The longest name, in bytes: a path ends with a zero byte in 108.
const LONGEST: usize = 107;

/// How addresses of Unix domain sockets begin in Istio's fields.
const SCHEME: &str = "unix://";

// === impl UnixPath ===

impl UnixPath {
    /// From Envoy's spelling.
    ///
    /// # Errors
    /// If it is empty, too long, or has a zero byte.
    pub fn new(path: &str) -> Result<Self, Invalid> {
        let wrong = |what: &str| Err(Invalid::new("", format!("a Unix socket's path {what}")));
        match path {
            "" => wrong("is required, but missing"),
            "@" => wrong("needs a name behind the @"),
            _ if path.contains('\0') => wrong("cannot have a zero byte"),
            _ if path.len() > LONGEST => {
                let is = path.len();
                wrong(&format!("has {LONGEST} bytes at most; this one has {is}"))
            }
            _ => Ok(Self(path.into())),
        }
    }

    /// From Istio's spelling: `unix:///path`, `unix://./relative` or `unix://@abstract`. None
    /// where the text does not begin so.
    pub fn from_url(text: &str) -> Option<Result<Self, Invalid>> {
        text.strip_prefix(SCHEME).map(Self::new)
    }

    /// Envoy's spelling.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its name in Linux' abstract namespace, if it is there and not in the file system.
    pub fn abstract_name(&self) -> Option<&str> {
        self.0.strip_prefix('@')
    }
}

impl FromStr for UnixPath {
    type Err = Invalid;

    /// As [`UnixPath::new`].
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl fmt::Display for UnixPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl ListenerAddress ===

impl ListenerAddress {
    /// The IP address and port, where it is one.
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The Unix domain socket, where it is one.
    pub fn unix(&self) -> Option<&UnixPath> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Socket(_) => None,
        }
    }

    /// The port; 0 where there is none, as with a Unix domain socket.
    pub fn port(&self) -> u16 {
        self.socket().map_or(0, |socket| socket.port())
    }

    /// Whether it may become another when it is bound: port 0.
    pub fn is_any(&self) -> bool {
        self.socket().is_some_and(|socket| socket.port() == 0)
    }
}

impl From<SocketAddr> for ListenerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

impl From<UnixPath> for ListenerAddress {
    fn from(path: UnixPath) -> Self {
        Self::Unix(path)
    }
}

impl PartialEq<SocketAddr> for ListenerAddress {
    fn eq(&self, other: &SocketAddr) -> bool {
        self.socket() == Some(*other)
    }
}

impl fmt::Display for ListenerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Unix(path) => path.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_has_no_room_for_is_refused() {
        let longest = format!("/{}", "x".repeat(106));
        assert!(UnixPath::new(&longest).is_ok());
        for wrong in ["", "@", "/a\0b", &format!("{longest}x")] {
            let error = UnixPath::new(wrong).unwrap_err().to_string();
            assert!(error.contains("Unix socket's path"), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn an_abstract_name_is_no_path() {
        let name = |text| UnixPath::new(text).unwrap();
        assert_eq!(name("@mesh").abstract_name(), Some("mesh"));
        assert_eq!(name("/run/@mesh").abstract_name(), None);
    }

    #[test]
    fn a_listener_address_is_printed_as_envoy_does() {
        let unix = ListenerAddress::from(UnixPath::new("/run/a.sock").unwrap());
        assert_eq!(unix.to_string(), "/run/a.sock");
        assert!(!unix.is_any());
        let socket: SocketAddr = "[::1]:0".parse().unwrap();
        assert_eq!(ListenerAddress::from(socket).to_string(), "[::1]:0");
        assert!(ListenerAddress::from(socket).is_any());
    }
}
