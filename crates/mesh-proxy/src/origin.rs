//! Downstream connections, and where they were going to before they were intercepted.

#[cfg(test)]
pub(crate) mod pipe;

use socket2::{SockAddr, SockRef};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// The address of what has none: both ends of a connection to a Unix domain socket. Chains are
/// chosen by it, as in Envoy (`FilterChainManagerImpl`, `fakeAddress`).
pub(crate) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::BROADCAST), 0);

/// A connection from a caller: a socket, or something around one.
pub(crate) trait Downstream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Where the connection was going to, if the kernel knows.
    fn original_destination(&self) -> Option<SocketAddr>;

    /// From now on closing the connection resets it, if it is a socket: what is secured is closed
    /// without a `close_notify`, as in Envoy.
    fn reset_when_closed(&self);

    /// The socket, where bytes go over it as they are and none were read that are still to come.
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

impl Downstream for TcpStream {
    fn original_destination(&self) -> Option<SocketAddr> {
        let socket = SockRef::from(self);
        let local = self.local_addr().ok()?;
        let (redirected, transparent): (io::Result<SockAddr>, _) = match canonical(local) {
            SocketAddr::V4(_) => (socket.original_dst_v4(), socket.ip_transparent_v4()),
            SocketAddr::V6(_) => (socket.original_dst_v6(), socket.ip_transparent_v6()),
        };
        // Redirected (REDIRECT, DNAT): the kernel remembers. With TPROXY nothing was changed.
        match redirected {
            Ok(address) => address.as_socket(),
            Err(_) => transparent.is_ok_and(|is| is).then_some(local),
        }
        .map(canonical)
    }

    fn reset_when_closed(&self) {
        // The peer may be gone already.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }

    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Downstream for UnixStream {
    fn original_destination(&self) -> Option<SocketAddr> {
        None
    }

    fn reset_when_closed(&self) {
        // There is no such thing: closing is all that the peer sees.
    }
}

/// An IPv4 address as such, where a socket for both families tells it as one of IPv6.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn an_address_of_ipv4_is_told_as_such() {
        let mapped = "[::ffff:10.0.0.1]:80".parse().unwrap();
        assert_eq!(canonical(mapped).to_string(), "10.0.0.1:80");
        for same in ["[::1]:80", "10.0.0.1:80"] {
            assert_eq!(canonical(same.parse().unwrap()).to_string(), same);
        }
    }

    #[tokio::test]
    async fn a_connection_that_nobody_intercepted_goes_nowhere_else() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap();
        let (_caller, accepted) = tokio::join!(TcpStream::connect(local), listener.accept());
        // Where the kernel tracks connections it says that of all, and the truth.
        let original = accepted.unwrap().0.original_destination();
        assert!(original.is_none_or(|original| original == local));
    }
}
