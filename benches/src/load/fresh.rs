//! A new connection for each request, as many as go, in plain or with TLS.

use std::{
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    runtime, task, time,
};
use tokio_rustls::TlsConnector;

use crate::{
    reply::{Done, Reply},
    tls::{self, Group},
};

/// The server closes, so that the ports of the client are free again at once.
const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nhost: localhost\r\nuser-agent: peers-load\r\nconnection: close\r\n\r\n";
const RIGHT: Done = Done {
    status: 200,
    length: 1024,
};
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    address: SocketAddr,

    /// With TLS, and this as the only group that is offered
    #[arg(long, value_enum)]
    group: Option<Group>,

    /// Connections at a time
    #[arg(long, default_value_t = 64)]
    connections: usize,

    #[arg(long, default_value_t = 2)]
    threads: usize,

    #[arg(long, default_value_t = 5)]
    seconds: u32,

    /// Seconds before that, which do not count
    #[arg(long, default_value_t = 1)]
    warm: u32,
}

#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Found {
    requests: u64,
    wrong: u64,
    /// Requests, each with a connection, a second.
    rate: f64,
    /// The first thing that was wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// The time that counts.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: Instant,
    until: Instant,
}

/// # Errors
///
/// If no client can be made.
pub(crate) fn run(options: &Options) -> anyhow::Result<Found> {
    let config = options.group.map(tls::client).transpose()?;
    let from = Instant::now() + Duration::from_secs(options.warm.into());
    let until = from + Duration::from_secs(options.seconds.into());
    let window = Window { from, until };
    let threads = options.threads.max(1);
    let each = options.connections.div_ceil(threads);
    let address = options.address;
    let running: Vec<_> = (0..threads)
        .map(|_| {
            let config = config.clone();
            thread::spawn(move || several(address, config.as_ref(), each, window))
        })
        .collect();
    let mut found = Found::default();
    for thread in running {
        found.add(
            thread
                .join()
                .expect("a thread of the load does not panic")?,
        );
    }
    found.rate = found.requests as f64 / f64::from(options.seconds.max(1));
    Ok(found)
}

/// What one thread does.
fn several(
    address: SocketAddr,
    config: Option<&Arc<ClientConfig>>,
    number: usize,
    window: Window,
) -> anyhow::Result<Found> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    task::LocalSet::new().block_on(&runtime, async {
        let connector = config.map(|it| TlsConnector::from(it.clone()));
        let callers: Vec<_> = (0..number)
            .map(|_| task::spawn_local(call(address, connector.clone(), window)))
            .collect();
        let mut found = Found::default();
        for caller in callers {
            found.add(caller.await.context("a caller ended")?);
        }
        Ok(found)
    })
}

/// One connection after the other until the time is over.
async fn call(address: SocketAddr, connector: Option<TlsConnector>, window: Window) -> Found {
    let mut found = Found::default();
    while Instant::now() < window.until {
        let done = match time::timeout(LIMIT, once(address, connector.as_ref())).await {
            Ok(done) => done,
            Err(_) => Err(anyhow::anyhow!("no answer in {LIMIT:?}")),
        };
        let now = Instant::now();
        if now < window.from || now >= window.until {
            continue;
        }
        match done {
            Ok(RIGHT) => found.requests += 1,
            Ok(done) => found.fail(format!("{done:?}")),
            Err(error) => found.fail(format!("{error:#}")),
        }
    }
    found
}

async fn once(address: SocketAddr, connector: Option<&TlsConnector>) -> anyhow::Result<Done> {
    let stream = TcpStream::connect(address)
        .await
        .context("cannot connect")?;
    stream.set_nodelay(true)?;
    match connector {
        None => ask(stream).await,
        Some(connector) => {
            let stream = connector.connect(tls::name(), stream).await;
            ask(stream.context("TLS")?).await
        }
    }
}

/// Asks, and reads until the other side closes.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> anyhow::Result<Done> {
    stream.write_all(REQUEST).await.context("cannot send")?;
    let mut reply = Reply::default();
    let mut piece = [0; 4096];
    let mut done = None;
    loop {
        match stream.read(&mut piece).await {
            Ok(0) => break,
            Ok(length) => done = done.or(reply.take(&piece[..length])?),
            // Some close without saying so in TLS first.
            Err(_) if done.is_some() => break,
            Err(error) => return Err(error).context("cannot read"),
        }
    }
    match done {
        Some(done) => Ok(done),
        None => bail!("closed before the response"),
    }
}

// === impl Found ===

impl Found {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.wrong += other.wrong;
        self.error = self.error.take().or(other.error);
    }

    fn fail(&mut self, error: String) {
        self.wrong += 1;
        self.error.get_or_insert(error);
    }
}
