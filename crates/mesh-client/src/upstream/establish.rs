//! Making one connection and driving it until it is closed.

use super::connect::Dial;
use super::counted::Counted;
use super::fault::{self, Broken};
use super::lane::{Lane, Protocol};
use super::lease::{Meta, Shared, Units};
use super::outgoing::Outgoing;
use super::pool::Pool;
use super::seat::Seat;
use super::secure::{Offer, Secured};
use super::transport::{Connected, Io};
use crate::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_core::model::{Cluster, ClusterEntry};
use mesh_core::stats::ClusterStat;
use mesh_core::{Error, Failure};
use mesh_http1::client::{Connection, SendRequest};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tokio::runtime::Handle;

/// Flow control windows of upstream HTTP/2 connections. The connection's is larger than a
/// stream's, so that one slow stream cannot hold up the others.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Largest head of an HTTP/2 response. Envoy's default for heads.
const MAX_HEAD: u32 = 60 << 10;

/// One connection that is wanted.
pub(super) struct Attempt {
    place: Place,
    protocol: Protocol,
    entry: Arc<ClusterEntry>,
    /// HTTP/2 streams to expect before the peer says how many it allows.
    streams: usize,
    seat: Seat,
}

/// A connection's part of the numbers of its lane. Whatever becomes of the task that drives the
/// connection (it ends, panics, its runtime is shut down), they are put right exactly once.
struct Place {
    pool: Weak<Pool>,
    protocol: Protocol,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Open,
    Over,
}

/// A connection, ready for requests.
pub(super) enum Made {
    Http1(SendRequest<Io, Body>, Arc<Meta>),
    Http2(Arc<Shared>),
}

/// Drives a connection until it is closed.
enum Driver {
    Http1(Connection<Io, Body>, Counted),
    Http2(Pin<Box<dyn Future<Output = ()> + Send>>),
}

/// Makes connections, each in a task of its own: a caller that goes away must not end an attempt
/// that others wait for. A task ends when its connection is closed, which is also what happens
/// when the pool goes away; an attempt may last until its timeout.
pub(super) fn spawn(attempts: Vec<Attempt>) {
    if attempts.is_empty() {
        return;
    }
    // Without a runtime the attempts are dropped, which tells whoever waits.
    let Ok(runtime) = Handle::try_current() else {
        return;
    };
    for attempt in attempts {
        runtime.spawn(attempt.run());
    }
}

// === impl Attempt ===

impl Attempt {
    /// For a connection that `lane` has already counted.
    pub(super) fn new(pool: &Arc<Pool>, lane: &Lane, seat: Seat) -> Self {
        Self {
            place: Place {
                pool: Arc::downgrade(pool),
                protocol: lane.protocol,
                state: State::Connecting,
            },
            protocol: lane.protocol,
            entry: lane.entry.clone(),
            streams: lane.expected_streams(),
            seat,
        }
    }

    async fn run(self) {
        // In a box, for the task lasts as long as the connection and making it takes far more.
        if let Some((mut place, driver)) = Box::pin(self.establish()).await {
            driver.run().await;
            place.closed();
        }
    }

    async fn establish(self) -> Option<(Place, Driver)> {
        let Self {
            mut place,
            protocol,
            entry,
            streams,
            seat,
        } = self;
        let started = tokio::time::Instant::now();
        let dial = place.pool.upgrade().map(|pool| Dial {
            connector: pool.connector.clone(),
            host: pool.host.clone(),
            entry: entry.clone(),
            variant: pool.variant.clone(),
            offer: match protocol {
                Protocol::Http1 => Offer::Http1,
                Protocol::Http2 => Offer::Http2,
                Protocol::Alpn => Offer::Either,
            },
            counted: pool.counted.clone(),
        })?;
        let made = dial.dial().await;
        let pool = place.pool.upgrade()?;
        let connected = match made {
            Ok(connected) => connected,
            Err(error) => {
                // The unit of the connection limit first, so that a waiter may use it.
                drop(seat);
                place.failed(&error);
                return None;
            }
        };
        let units = Units::new(&pool.counted, &pool.host, seat, started.elapsed());
        let meta = Arc::new(Meta {
            lane: protocol,
            remote: connected.remote,
            local: connected.local,
            opened: started.into_std(),
            requests: AtomicU32::new(0),
            lapse: pool.host.lapse(),
            broken: units.reason(),
        });
        let Connected { stream, tls, .. } = connected;
        let is_http2 = match protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::Alpn => Secured::is_http2(tls.as_ref()),
        };
        let io = Io::new(stream, units);
        let made = if is_http2 {
            http2(&pool, io, meta, entry.config(), streams).await
        } else {
            Ok(http1(&pool, io, meta))
        };
        match made {
            Ok((made, driver)) => {
                place.established(made);
                // From here on only the connection itself: the pool may go away.
                Some((place, driver))
            }
            Err(error) => {
                place.failed(&fault::sending(Broken::Http2(error), true, None));
                None
            }
        }
    }
}

// === impl Driver ===

impl Driver {
    async fn run(self) {
        match self {
            // How it ended is told to the request that was on it; an idle one just closes.
            Self::Http1(connection, counted) => {
                if let Err(mesh_http1::Error::Unasked) = connection.await {
                    counted.count(ClusterStat::CxProtocolError);
                }
            }
            Self::Http2(connection) => connection.await,
        }
    }
}

// === impl Place ===

impl Place {
    fn established(&mut self, made: Made) {
        self.state = State::Open;
        if let Some(pool) = self.pool.upgrade() {
            pool.established(self.protocol, made);
        }
    }

    fn failed(&mut self, error: &Error) {
        self.state = State::Over;
        if let Some(pool) = self.pool.upgrade() {
            pool.connect_failed(self.protocol, error);
        }
    }

    fn closed(&mut self) {
        self.state = State::Over;
        if let Some(pool) = self.pool.upgrade() {
            pool.closed(self.protocol);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.state == State::Over {
            return;
        }
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        let cause = "the task of the connection was dropped";
        let error = Error::with_source(Failure::ConnectFailed, cause);
        match self.state {
            State::Connecting => pool.connect_failed(self.protocol, &error),
            State::Open => pool.abandoned(self.protocol, &error),
            State::Over => {}
        }
    }
}

/// Nothing is sent before a request.
fn http1(pool: &Pool, io: Io, meta: Arc<Meta>) -> (Made, Driver) {
    pool.count(ClusterStat::CxHttp1Total);
    let counted = pool.counted.clone();
    // Envoy counts an interim response as an answer, once for a request.
    let on_interim = Arc::new(move |status| counted.answered(status));
    let (sender, connection) = pool.http1.handshake_telling(io, on_interim);
    let driver = Driver::Http1(connection, pool.counted.clone());
    (Made::Http1(sender, meta), driver)
}

/// The HTTP/2 handshake, which does not wait for the peer's part.
async fn http2(
    pool: &Pool,
    io: Io,
    meta: Arc<Meta>,
    config: &Cluster,
    streams: usize,
) -> Result<(Made, Driver), hyper::Error> {
    pool.count(ClusterStat::CxHttp2Total);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_max_send_streams(streams)
        .max_header_list_size(MAX_HEAD)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    if let Some((interval, timeout)) = config.http2_keepalive {
        builder
            .keep_alive_interval(interval)
            .keep_alive_timeout(timeout);
    }
    let (sender, mut connection) = builder.handshake::<_, Outgoing>(TokioIo::new(io)).await?;
    let most = Arc::new(AtomicUsize::new(streams));
    let publish = most.clone();
    let driver = Box::pin(async move {
        // As with HTTP/1. The peer's limit on streams is only known in here.
        let _ = poll_fn(|cx| {
            let done = Pin::new(&mut connection).poll(cx);
            publish.store(connection.current_max_send_streams(), Ordering::Relaxed);
            done
        })
        .await;
    });
    let shared = Shared::new(sender, most, meta, pool.now());
    Ok((Made::Http2(Arc::new(shared)), Driver::Http2(driver)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a future of this function takes.
    fn size<F>(_: impl FnOnce(Attempt) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_open_connection_does_not_hold_what_it_took_to_make_it() {
        let (open, making) = (size(Attempt::run), size(Attempt::establish));
        println!("the task of a connection: {open} bytes; making it: {making}");
        assert!(open <= 384, "{open} bytes for each open connection");
    }
}
