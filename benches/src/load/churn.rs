//! Callers as they come in a day: plain, with TLS and over HTTP/2, each at its pace; some come back on a
//! new connection, and some leave before they are answered.
//!
//! What is counted is how requests ended. Whoever asked for this knows which ends there may be.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    runtime, task, time,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    reply::{Done, Reply},
    tls::{self, Group},
};

/// How long a connection, or a request, may take.
const LIMIT: Duration = Duration::from_secs(20);
/// Of the callers of each kind, so many in sixteen have TLS, and so many HTTP/2.
const TLS: usize = 4;
const HTTP2: usize = 4;
const KINDS: usize = 16;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// HTTP/1.1
    #[arg(long)]
    h1: SocketAddr,

    /// HTTP/2 with prior knowledge
    #[arg(long)]
    h2: SocketAddr,

    /// HTTP/1.1 over TLS
    #[arg(long)]
    tls: SocketAddr,

    /// Requests a second of all together; 0 for as many as go
    #[arg(long, default_value_t = 0)]
    rate: u32,

    /// Callers, with a connection each
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    callers: u32,

    #[arg(long, default_value_t = 5)]
    seconds: u32,

    /// One request in so many is left before it is answered, with a reset; 0 for none
    #[arg(long, default_value_t = 0)]
    leaves: u32,

    /// After so many requests a caller comes back on a new connection; 0 for never
    #[arg(long, default_value_t = 0)]
    renews: u32,
}

/// How requests ended.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Found {
    requests: u64,
    /// By status.
    statuses: BTreeMap<u16, u64>,
    /// Requests that were left.
    left: u64,
    connections: u64,
    /// Without an answer, and the first reason.
    broken: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Requests a second.
    rate: f64,
}

/// How a caller calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Tls,
    Http2,
}

/// What a caller has open.
enum Line {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Http2(SendRequest<Empty<Bytes>>, task::JoinHandle<()>),
}

struct Caller {
    options: Options,
    kind: Kind,
    connector: TlsConnector,
    /// What is drawn from.
    state: u64,
    until: Instant,
    found: Found,
}

/// # Errors
///
/// If there is no runtime.
pub(crate) fn run(options: &Options) -> anyhow::Result<Found> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let connector: TlsConnector = tls::client(Group::X25519, None)?.into();
    let until = Instant::now() + Duration::from_secs(options.seconds.into());
    task::LocalSet::new().block_on(&runtime, async {
        let number = options.callers as usize;
        let callers: Vec<_> = (0..number)
            .map(|at| {
                let caller = Caller {
                    options: options.clone(),
                    kind: kind(at),
                    connector: connector.clone(),
                    state: at as u64 + 1,
                    until,
                    found: Found::default(),
                };
                task::spawn_local(caller.run(at))
            })
            .collect();
        let mut found = Found::default();
        for caller in callers {
            found.add(caller.await.context("a caller ended")?);
        }
        found.rate = found.requests as f64 / f64::from(options.seconds.max(1));
        Ok(found)
    })
}

/// Of which kind a caller is.
fn kind(at: usize) -> Kind {
    match at % KINDS {
        place if place < TLS => Kind::Tls,
        place if place < TLS + HTTP2 => Kind::Http2,
        _ => Kind::Plain,
    }
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nuser-agent: peers-load\r\n\r\n";

/// What is seen of a response.
async fn answered(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Done> {
    let mut reply = Reply::default();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece).await.context("cannot read")?;
        if length == 0 {
            bail!("closed before the response");
        }
        if let Some(done) = reply.take(&piece[..length])? {
            return Ok(done);
        }
    }
}

async fn send(stream: &mut (impl AsyncWrite + Unpin)) -> anyhow::Result<()> {
    stream.write_all(REQUEST).await.context("cannot send")?;
    stream.flush().await.context("cannot send")
}

async fn within<T>(what: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match time::timeout(LIMIT, what).await {
        Ok(done) => done,
        Err(_) => bail!("nothing in {LIMIT:?}"),
    }
}

// === impl Caller ===

impl Caller {
    async fn run(mut self, at: usize) -> Found {
        let pace = match self.options.rate {
            0 => None,
            rate => Some(Duration::from_secs(1) * self.options.callers / rate),
        };
        // They do not all begin at once.
        let begin = time::Instant::now() + pace.unwrap_or_default() / KINDS as u32 * at as u32;
        let mut due = begin;
        let mut line: Option<(Line, u32)> = None;
        while Instant::now() < self.until {
            if let Some(pace) = pace {
                time::sleep_until(due).await;
                // Whoever is late is not later still because of it.
                due = (due + pace).max(time::Instant::now());
            }
            let (mut open, asked) = match line.take() {
                Some(open) => open,
                None => match within(self.connect()).await {
                    Ok(open) => (open, 0),
                    Err(error) => {
                        self.found.fail(&error);
                        continue;
                    }
                },
            };
            let leaves = self.draws(self.options.leaves);
            if leaves {
                // Whether it is answered before nobody knows.
                self.found.left += u64::from(within(open.leave()).await.is_ok());
                continue;
            }
            match within(open.ask(&self.options)).await {
                Ok(done) => {
                    self.found.requests += 1;
                    let is_right = done.status != 200 || done.length == 1024;
                    let status = if is_right { done.status } else { 0 };
                    *self.found.statuses.entry(status).or_default() += 1;
                    let renews = self.options.renews;
                    if renews == 0 || asked + 1 < renews {
                        line = Some((open, asked + 1));
                    }
                }
                Err(error) => self.found.fail(&error),
            }
        }
        self.found
    }

    async fn connect(&mut self) -> anyhow::Result<Line> {
        let options = &self.options;
        let address = match self.kind {
            Kind::Plain => options.h1,
            Kind::Tls => options.tls,
            Kind::Http2 => options.h2,
        };
        let stream = TcpStream::connect(address).await;
        let stream = stream.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let line = match self.kind {
            Kind::Plain => Line::Plain(stream),
            Kind::Tls => {
                let stream = self.connector.connect(tls::name(), stream).await;
                Line::Tls(Box::new(stream.context("TLS")?))
            }
            Kind::Http2 => {
                let shaken = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
                let (sender, connection) = shaken.await.context("HTTP/2")?;
                // What becomes of it its requests tell.
                let running = task::spawn(async move { drop(connection.await) });
                Line::Http2(sender, running)
            }
        };
        self.found.connections += 1;
        Ok(line)
    }

    /// Whether it is the one in so many.
    fn draws(&mut self, one_in: u32) -> bool {
        // xorshift64: never 0, as it does not begin with that.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        one_in > 0 && (self.state >> 11).is_multiple_of(one_in.into())
    }
}

// === impl Line ===

impl Line {
    async fn ask(&mut self, options: &Options) -> anyhow::Result<Done> {
        match self {
            Self::Plain(stream) => {
                send(stream).await?;
                answered(stream).await
            }
            Self::Tls(stream) => {
                send(stream).await?;
                answered(stream).await
            }
            Self::Http2(sender, _) => {
                let response = sender.send_request(request(options.h2)?).await?;
                let status = response.status().as_u16();
                let body = response.into_body().collect().await?;
                Ok(Done {
                    status,
                    length: body.to_bytes().len(),
                })
            }
        }
    }

    /// Sends a request and is gone: with a reset of the connection, or of the stream.
    async fn leave(mut self) -> anyhow::Result<()> {
        match &mut self {
            Self::Plain(stream) => {
                send(stream).await?;
                stream.set_zero_linger()?;
            }
            Self::Tls(stream) => {
                send(&mut **stream).await?;
                stream.get_ref().0.set_zero_linger()?;
            }
            Self::Http2(sender, _) => {
                let address = SocketAddr::from(([127, 0, 0, 1], 80));
                let asked = sender.send_request(request(address)?);
                // Long enough to be sent, mostly too short to be answered.
                drop(time::timeout(Duration::from_micros(300), asked).await);
            }
        }
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Self::Http2(_, running) = self {
            running.abort();
        }
    }
}

fn request(address: SocketAddr) -> anyhow::Result<Request<Empty<Bytes>>> {
    let request = Request::get(format!("http://{address}/h2/"));
    Ok(request.body(Empty::new())?)
}

// === impl Found ===

impl Found {
    fn fail(&mut self, error: &anyhow::Error) {
        self.broken += 1;
        self.error.get_or_insert_with(|| format!("{error:#}"));
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.left += other.left;
        self.connections += other.connections;
        self.broken += other.broken;
        for (status, number) in other.statuses {
            *self.statuses.entry(status).or_default() += number;
        }
        self.error = self.error.take().or(other.error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_callers_are_plain_and_of_each_other_kind_there_is_a_quarter() {
        let of = |wanted| (0..64).filter(|at| kind(*at) == wanted).count();
        let all = [Kind::Plain, Kind::Tls, Kind::Http2].map(of);
        assert_eq!(all, [32, 16, 16]);
    }

    #[test]
    fn ends_of_all_callers_are_added_up_and_the_first_error_is_told() {
        let mut all = Found::default();
        for (status, number) in [(200, 3), (503, 1), (200, 2)] {
            let mut one = Found {
                requests: number,
                statuses: BTreeMap::from([(status, number)]),
                ..Found::default()
            };
            one.fail(&anyhow::anyhow!("{status}"));
            all.add(one);
        }
        assert_eq!(all.statuses, BTreeMap::from([(200, 5), (503, 1)]));
        assert_eq!((all.requests, all.broken), (6, 3));
        assert_eq!(all.error.as_deref(), Some("200"));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_response_in_pieces_is_read_to_its_end() {
        let (mut near, mut far) = tokio::io::duplex(16);
        let text: &[u8] = b"HTTP/1.1 503 No\r\ncontent-length: 3\r\n\r\nabc";
        let writing = async { far.write_all(text).await.unwrap() };
        let (done, ()) = tokio::join!(answered(&mut near), writing);
        let expected = Done {
            status: 503,
            length: 3,
        };
        assert_eq!(done.unwrap(), expected);
        drop(far);
        assert!(answered(&mut near).await.is_err());
    }
}
