//! Listening sockets.

mod unix;

pub(crate) use unix::{Accepting, InUse, UnixSocket};

use crate::origin::Downstream;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel holds for us until we accept them.
const BACKLOG: i32 = 4096;

/// Pause after an error of the process (no descriptors left), so that it can recover.
const PAUSE: Duration = Duration::from_millis(50);

/// A listening socket.
pub(crate) trait Accept: Send + 'static {
    type Stream: Downstream;

    /// The next connection. Errors that concern one connection are skipped, those of the process
    /// are waited out.
    fn next(&self) -> impl Future<Output = Ready<Self::Stream>> + Send;

    /// The connections that the kernel holds for a socket that is about to be closed, which would
    /// reset them.
    fn waiting(self) -> Vec<Ready<Self::Stream>>;
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Ready<S> {
    pub(crate) stream: S,
    /// Who calls; [`NOWHERE`](crate::origin::NOWHERE) where that has no address.
    pub(crate) peer: SocketAddr,
    /// Where the call went, if the system says.
    pub(crate) local: Option<SocketAddr>,
}

/// The sockets that the workers get for a listener.
#[derive(Debug)]
pub(crate) enum Opened {
    /// One of TCP, which is one worker's own.
    Tcp(StdListener),
    /// A Unix domain socket, which all share.
    Unix(UnixSocket),
}

/// Opens one worker's socket for `address`. Each worker has its own; the kernel spreads
/// connections over them.
pub(crate) fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = socket_for(address)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket for an address, not bound yet. Others can bind the same address at once.
pub(crate) fn socket_for(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // All addresses of IPv6 are not those of IPv4, too (Envoy `ipv4_compat`, which is off).
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Lets a socket take connections for addresses that are not ours (TPROXY).
pub(crate) fn make_transparent(listener: &StdListener) -> io::Result<()> {
    let socket = SockRef::from(listener);
    match listener.local_addr()? {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true),
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true),
    }
}

/// Checks that nobody else listens on `address`. The sockets of our workers share their port, so
/// without this another process that shares it too would silently get half of the connections.
pub(crate) fn check_free(address: SocketAddr) -> io::Result<()> {
    let socket = socket_for(address)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> Ready<TcpStream> {
        loop {
            match self.accept().await {
                Ok((stream, peer)) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        // The peer has gone already.
                        tracing::debug!(%peer, %error, "set_nodelay");
                        continue;
                    }
                    return ready(stream, peer);
                }
                Err(error) => pause(&error).await,
            }
        }
    }

    fn waiting(self) -> Vec<Ready<TcpStream>> {
        let mut accepted = Vec::new();
        let Ok(listener) = self.into_std() else {
            return accepted;
        };
        // No more than fit into the queue: callers that keep coming must not keep us.
        while accepted.len() <= BACKLOG.unsigned_abs() as usize {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let prepared = stream
                        .set_nodelay(true)
                        .and_then(|()| stream.set_nonblocking(true));
                    match prepared.and_then(|()| TcpStream::from_std(stream)) {
                        Ok(stream) => accepted.push(ready(stream, peer)),
                        Err(error) => tracing::debug!(%peer, %error, "accept"),
                    }
                }
                Err(error) if is_of_connection(&error) => {}
                // There are none left, or the process has no descriptors for them.
                Err(_) => break,
            }
        }
        accepted
    }
}

fn ready(stream: TcpStream, peer: SocketAddr) -> Ready<TcpStream> {
    let local = stream.local_addr().ok();
    Ready {
        stream,
        peer,
        local,
    }
}

/// What there is to do about an error before the next connection is accepted.
async fn pause(error: &io::Error) {
    if is_of_connection(error) {
        tracing::debug!(%error, "accept");
    } else {
        tracing::warn!(%error, "accept; pausing");
        tokio::time::sleep(PAUSE).await;
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_for_ipv6_leaves_ipv4_to_another() {
        let Ok(v6) = listen("[::]:0".parse().unwrap()) else {
            println!("skipped: no IPv6 here");
            return;
        };
        let port = v6.local_addr().unwrap().port();
        let v4 = SocketAddr::from(([0, 0, 0, 0], port));
        check_free(v4).unwrap();
        listen(v4).unwrap();
    }

    #[tokio::test]
    async fn workers_share_a_port_and_a_stranger_is_noticed() {
        let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = first.local_addr().unwrap();
        let _second = listen(address).unwrap();
        assert!(check_free(address).is_err());
    }

    #[tokio::test]
    async fn a_socket_for_all_of_ipv6_leaves_ipv4_alone() {
        let six = listen("[::]:0".parse().unwrap()).unwrap();
        let port = six.local_addr().unwrap().port();
        check_free(SocketAddr::from(([0, 0, 0, 0], port))).unwrap();
    }

    #[tokio::test]
    async fn what_the_kernel_has_accepted_is_handed_over() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let callers = [(); 200].map(|()| std::net::TcpStream::connect(address).unwrap());
        let accepted = TcpListener::from_std(listener).unwrap().waiting();
        assert_eq!(accepted.len(), callers.len());
    }
}
