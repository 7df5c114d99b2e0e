//! Accepts connections.

use super::handle::{Server, Shared};
use super::routes::Routes;
use super::stream::Peer;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_core::Rng;
use mesh_core::exchange::TlsInfo;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic_health::ServingStatus;
use tower_service::Service;

/// How long to wait after an accept failed for want of something, such as file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a connection whose streams were ended may take to close.
const LAST: Duration = Duration::from_secs(1);

/// How long TLS may take to be agreed on.
#[cfg(feature = "tls")]
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How bytes become a connection.
#[derive(Clone)]
enum Security {
    Plain,
    #[cfg(feature = "tls")]
    Tls(mesh_identity::Acceptor),
}

/// Where connections come from.
enum Door {
    Tcp(TcpListener, Security),
    Unix(UnixListener),
}

/// What came in.
enum Caller {
    Tcp(TcpStream, SocketAddr, Security),
    Unix(UnixStream),
}

/// Runs the tasks of one connection's streams; they end with it.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

// === impl Server ===

impl Server {
    /// Serves connections (HTTP/2 with prior knowledge, as gRPC has it) until `shutdown`
    /// completes; then ends all streams with `UNAVAILABLE`, and waits for the connections to close
    /// for as long as the grace of [`super::ServerBuilder::max_connection_age`].
    ///
    /// Every task belongs to the future: dropping it closes everything at once.
    ///
    /// # Errors
    /// The listener is broken.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let door = Door::Tcp(listener, Security::Plain);
        self.accept(door, shutdown).await
    }

    /// As [`Server::serve`], on a Unix domain socket: who may reach its file may ask. Callers have
    /// no address.
    ///
    /// # Errors
    /// The listener is broken.
    pub async fn serve_unix(
        &self,
        listener: UnixListener,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        self.accept(Door::Unix(listener), shutdown).await
    }

    /// As [`Server::serve`], but with TLS: callers that offer protocols have to offer `h2`. Several
    /// listeners can be served at once. A handshake may take 10 s.
    ///
    /// # Errors
    /// The listener is broken.
    #[cfg(feature = "tls")]
    pub async fn serve_tls(
        &self,
        listener: TcpListener,
        acceptor: mesh_identity::Acceptor,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let door = Door::Tcp(listener, Security::Tls(acceptor));
        self.accept(door, shutdown).await
    }

    async fn accept(&self, door: Door, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let mut shutdown = pin!(shutdown);
        let (stop, stopped) = watch::channel(false);
        let mut connections = JoinSet::new();
        let rng = Rng::from_system();
        self.shared
            .health
            .set_service_status("", ServingStatus::Serving)
            .await;
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                accepted = door.accept() => match accepted {
                    Ok(caller) => {
                        let age = self.shared.transport.age.map(|age| jitter(age, rng.word()));
                        let shared = self.shared.clone();
                        connections.spawn(secure(shared, caller, age, stopped.clone()));
                    }
                    Err(error) if is_passing(&error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(PAUSE).await;
                    }
                    Err(error) => return Err(error),
                },
            }
        }
        drop(door);
        self.shared
            .health
            .set_service_status("", ServingStatus::NotServing)
            .await;
        stop.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        // Who has not closed by then is cut off when `connections` is dropped.
        let _ = tokio::time::timeout(self.shared.transport.grace, all).await;
        Ok(())
    }
}

// === impl Door ===

impl Door {
    async fn accept(&self) -> io::Result<Caller> {
        match self {
            Self::Tcp(listener, security) => {
                let (stream, address) = listener.accept().await?;
                // Messages are written whole; waiting to fill a segment only delays them.
                let _ = stream.set_nodelay(true);
                Ok(Caller::Tcp(stream, address, security.clone()))
            }
            Self::Unix(listener) => Ok(Caller::Unix(listener.accept().await?.0)),
        }
    }
}

/// One connection, from its first byte.
async fn secure(
    shared: Arc<Shared>,
    caller: Caller,
    age: Option<Duration>,
    stopped: watch::Receiver<bool>,
) {
    let (stream, address, security) = match caller {
        Caller::Unix(stream) => return serve(shared, stream, (None, None), age, stopped).await,
        Caller::Tcp(stream, address, security) => (stream, address, security),
    };
    match security {
        Security::Plain => serve(shared, stream, (Some(address), None), age, stopped).await,
        #[cfg(feature = "tls")]
        Security::Tls(acceptor) => {
            let mut told = stopped.clone();
            let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
            let accepted = tokio::select! {
                accepted = handshake => accepted,
                _ = told.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok(Ok((stream, told))) => {
                    serve(shared, stream, (Some(address), Some(told)), age, stopped).await
                }
                Ok(Err(error)) => tracing::info!(%error, %address, "a handshake failed"),
                Err(_) => tracing::info!(%address, "a handshake took too long"),
            }
        }
    }
}

/// One connection.
async fn serve(
    shared: Arc<Shared>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    (address, tls): (Option<SocketAddr>, Option<Arc<TlsInfo>>),
    age: Option<Duration>,
    mut stopped: watch::Receiver<bool>,
) {
    let (end, closing) = watch::channel(false);
    let peer = Peer {
        address,
        tls,
        closing,
    };
    let tasks = Tasks::default();
    let mut http = http2::Builder::new(tasks);
    http.timer(TokioTimer::new())
        .max_concurrent_streams(shared.limits.streams_per_connection);
    if let Some((interval, timeout)) = shared.transport.keep_alive {
        http.keep_alive_interval(interval)
            .keep_alive_timeout(timeout);
    }
    let grace = shared.transport.grace;
    let routes = Routes::new(shared);
    let service = service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        routes.clone().call(request)
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let aged = tokio::select! {
        ended = connection.as_mut() => return log(ended, address),
        () = sleep(age) => true,
        // The server is gone, or says so: the same.
        _ = stopped.wait_for(|stop| *stop) => false,
    };
    connection.as_mut().graceful_shutdown();
    if aged {
        tokio::select! {
            ended = connection.as_mut() => return log(ended, address),
            () = tokio::time::sleep(grace) => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    }
    end.send_replace(true);
    if let Ok(ended) = tokio::time::timeout(LAST, connection).await {
        log(ended, address);
    }
}

fn log(ended: Result<(), hyper::Error>, address: Option<SocketAddr>) {
    if let Err(error) = ended {
        tracing::debug!(%error, ?address, "a connection broke");
    }
}

async fn sleep(until: Option<Duration>) {
    match until {
        Some(until) => tokio::time::sleep(until).await,
        None => std::future::pending().await,
    }
}

/// Nine to eleven tenths of an age, by a random word.
fn jitter(age: Duration, word: u64) -> Duration {
    let share = word as f64 / u64::MAX as f64;
    age.mul_f64(0.9 + 0.2 * share)
}

/// Whether the next connection may be accepted although this one was not.
fn is_passing(error: &io::Error) -> bool {
    // EMFILE and ENFILE have no kind of their own.
    matches!(error.raw_os_error(), Some(23 | 24))
        || matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionRefused
                | io::ErrorKind::Interrupted
                | io::ErrorKind::OutOfMemory
                | io::ErrorKind::WouldBlock
        )
}

// === impl Tasks ===

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_connections_is_spread() {
        let age = Duration::from_secs(100);
        assert_eq!(jitter(age, 0), Duration::from_secs(90));
        assert_eq!(jitter(age, u64::MAX).as_secs_f64().round(), 110.0);
    }
}
