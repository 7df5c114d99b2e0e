//! As many requests as go on connections that are kept, with mutual TLS: h2load shows no certificate.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    crowd::{self, Found, Window},
    reply::{Done, Reply},
    tls::{self, Group, Identity},
};

/// How long a handshake, or a request, may take.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    address: SocketAddr,

    /// With the caller's certificate of this folder (see `authority`)
    #[arg(long, value_name = "FOLDER")]
    mutual: PathBuf,

    #[arg(long, default_value = "/")]
    path: String,

    /// Bytes that each body has to have
    #[arg(long, default_value_t = 1024)]
    length: usize,

    #[command(flatten)]
    crowd: crowd::Options,
}

/// What each caller has to know.
#[derive(Clone)]
struct Target {
    address: SocketAddr,
    connector: TlsConnector,
    request: String,
    right: Done,
}

/// # Errors
///
/// If no client can be made.
pub(crate) fn run(options: &Options) -> anyhow::Result<Found> {
    let identity = Identity::caller(&options.mutual)?;
    let target = Target {
        address: options.address,
        connector: tls::client(Group::X25519, Some(identity))?.into(),
        request: format!(
            "GET {} HTTP/1.1\r\nhost: localhost\r\nuser-agent: peers-load\r\n\r\n",
            options.path
        ),
        right: Done {
            status: 200,
            length: options.length,
        },
    };
    crowd::run(&options.crowd, move |window| call(target.clone(), window))
}

/// One request after the other until the time is over; a connection that breaks is made again, and
/// what was asked on it was wrong.
async fn call(target: Target, window: Window) -> Found {
    let mut found = Found::default();
    let mut piece = vec![0; 16 * 1024];
    while !window.is_over() {
        let mut stream = match within(target.connect()).await {
            Ok(stream) => stream,
            Err(error) => {
                found.count(Err(error), target.right, window);
                continue;
            }
        };
        let mut reply = Reply::default();
        while !window.is_over() {
            let request = target.request.as_bytes();
            let done = within(ask(&mut stream, request, &mut reply, &mut piece)).await;
            let is_broken = done.is_err();
            found.count(done, target.right, window);
            if is_broken {
                break;
            }
        }
    }
    found
}

async fn within<T>(what: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match time::timeout(LIMIT, what).await {
        Ok(done) => done,
        Err(_) => bail!("nothing in {LIMIT:?}"),
    }
}

/// One request and its response, after which the reply is as new.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
    reply: &mut Reply,
    piece: &mut [u8],
) -> anyhow::Result<Done> {
    stream.write_all(request).await.context("cannot send")?;
    stream.flush().await.context("cannot send")?;
    loop {
        let length = stream.read(piece).await.context("cannot read")?;
        if length == 0 {
            bail!("closed before the response");
        }
        if let Some(done) = reply.take(&piece[..length])? {
            return Ok(done);
        }
    }
}

// === impl Target ===

impl Target {
    async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let stream = self.connector.connect(tls::name(), stream).await;
        stream.context("TLS")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// Answers each request that comes whole in one piece with the next of these pieces.
    async fn asked(answers: &[&'static [u8]]) -> Vec<anyhow::Result<Done>> {
        let (mut near, mut far) = duplex(4096);
        let mut found = Vec::new();
        let mut reply = Reply::default();
        let mut piece = [0; 7];
        for answer in answers {
            far.write_all(answer).await.unwrap();
            found.push(ask(&mut near, b"GET", &mut reply, &mut piece).await);
        }
        drop(far);
        found.push(ask(&mut near, b"GET", &mut reply, &mut piece).await);
        found
    }

    #[tokio::test(flavor = "current_thread")]
    async fn one_connection_has_many_requests_until_it_is_closed() {
        let right: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
        let late: &[u8] = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n";
        let found = asked(&[right, late, right]).await;
        let done = found.iter().map(|it| it.as_ref().ok().copied());
        let of = |status, length| Some(Done { status, length });
        let expected = [of(200, 3), of(503, 0), of(200, 3), None];
        assert_eq!(done.collect::<Vec<_>>(), expected);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn bytes_after_a_body_are_an_error() {
        let found = asked(&[b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab"]).await;
        assert!(found[0].is_err());
    }
}
