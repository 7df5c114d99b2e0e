//! A new connection for each request, as many as go, in plain or with TLS.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time,
};
use tokio_rustls::TlsConnector;

use crate::{
    crowd::{self, Found, Window},
    reply::{Done, Reply},
    tls::{self, Group, Identity},
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

    /// With the caller's certificate of this folder (see `authority`)
    #[arg(long, value_name = "FOLDER", requires = "group")]
    mutual: Option<PathBuf>,

    #[command(flatten)]
    crowd: crowd::Options,
}

/// # Errors
///
/// If no client can be made.
pub(crate) fn run(options: &Options) -> anyhow::Result<Found> {
    let identity = options
        .mutual
        .as_deref()
        .map(Identity::caller)
        .transpose()?;
    let config = options.group.map(|group| tls::client(group, identity));
    let connector = config.transpose()?.map(TlsConnector::from);
    let address = options.address;
    crowd::run(&options.crowd, move |window| {
        call(address, connector.clone(), window)
    })
}

/// One connection after the other until the time is over.
async fn call(address: SocketAddr, connector: Option<TlsConnector>, window: Window) -> Found {
    let mut found = Found::default();
    while !window.is_over() {
        let done = match time::timeout(LIMIT, once(address, connector.as_ref())).await {
            Ok(done) => done,
            Err(_) => Err(anyhow::anyhow!("no answer in {LIMIT:?}")),
        };
        found.count(done, RIGHT, window);
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
