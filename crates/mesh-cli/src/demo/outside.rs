//! Servers outside of the mesh: nobody's sidecar, known only to the tasks that lead to them.
//!
//! There are two of each kind, `one` and `two`, which say who they are: for TCP each line comes
//! back with the name in front; for HTTPS there is httpbin, whose `/hostname` says it.

use super::files::CERTIFICATES;
use anyhow::Context;
use axum::serve::Listener;
use mesh_core::model::{Secret, SecretRef, ServerTls};
use mesh_identity::{Acceptor, TlsStream};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// The servers: a name, and the ports for TCP and HTTPS above the base port.
pub(crate) const SERVERS: [(&str, u16, u16); 2] = [("one", 781, 783), ("two", 782, 784)];

/// The longest line that comes back in one piece, in bytes.
const LONGEST: u64 = 64 << 10;

/// TCP connections, or handshakes for HTTPS, that a server has at once; others wait.
const MOST: usize = 1024;

/// Handshakes that take longer are given up.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The pause after a connection that could not be accepted, as when there are no more files.
const PAUSE: Duration = Duration::from_millis(100);

/// Servers that run until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Outside(JoinSet<()>);

/// Accepts connections whose handshake is done.
struct Secured {
    listener: TcpListener,
    acceptor: Acceptor,
    handshakes: JoinSet<Option<(TlsStream<TcpStream>, SocketAddr)>>,
}

// === impl Outside ===

impl Outside {
    /// Starts the servers of a name, and says where they are.
    pub(crate) async fn start(
        &mut self,
        (name, tcp, https): (&'static str, u16, u16),
        base_port: u16,
        certificates: &Path,
    ) -> anyhow::Result<String> {
        let lines = listen(base_port + tcp).await?;
        let secured = Secured {
            listener: listen(base_port + https).await?,
            acceptor: acceptor(name, certificates)?,
            handshakes: JoinSet::new(),
        };
        let what = format!(
            "outside of the mesh: TCP echo on {}, HTTPS on {}",
            lines.local_addr()?,
            secured.listener.local_addr()?,
        );
        self.0.spawn(echo(lines, name));
        self.0.spawn(async move {
            let served = axum::serve(secured, httpbin::named(name));
            if let Err(error) = served.await {
                tracing::error!(%error, name, "a server outside of the mesh");
            }
        });
        Ok(what)
    }
}

async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}; another demo may be running (--listen and --base-port \
             choose ports)"
        )
    })
}

/// What shows the certificate of `NAME.pem`.
fn acceptor(name: &str, certificates: &Path) -> anyhow::Result<Acceptor> {
    let file = format!("{name}.pem");
    let mut known = CERTIFICATES.iter();
    let (certificate, key, _) = known
        .find(|(certificate, _, _)| *certificate == file)
        .with_context(|| format!("there is no certificate {file}"))?;
    let read = |file: &str| {
        let path = certificates.join(file);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let secret = Secret::certificate(read(certificate)?, read(key)?);
    let named = SecretRef::local(name);
    let mut tls = ServerTls::default();
    tls.certificates = vec![named.clone()];
    tls.alpn = vec!["http/1.1".into()];
    let (acceptor, _) = Acceptor::alone(Arc::new(tls), [(named, Arc::new(secret))])?;
    Ok(acceptor)
}

/// Sends each line back, with a name in front.
async fn echo(listener: TcpListener, name: &'static str) {
    let mut connections = JoinSet::new();
    loop {
        let room = connections.len() < MOST;
        tokio::select! {
            (stream, _) = accept(&listener), if room => {
                connections.spawn(repeat(stream, name));
            }
            // Who goes away is not news.
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn repeat(stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut line = Vec::new();
    loop {
        line.clear();
        line.extend_from_slice(name.as_bytes());
        line.push(b' ');
        let rest = (&mut read).take(LONGEST);
        if { rest }.read_until(b'\n', &mut line).await? == 0 {
            return write.shutdown().await;
        }
        write.write_all(&line).await?;
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "a server outside of the mesh cannot accept");
                sleep(PAUSE).await;
            }
        }
    }
}

// === impl Secured ===

impl Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let listener = &self.listener;
            let room = self.handshakes.len() < MOST;
            tokio::select! {
                (stream, peer) = accept(listener), if room => {
                    let acceptor = self.acceptor.clone();
                    self.handshakes.spawn(async move {
                        let shaken = timeout(HANDSHAKE, acceptor.accept(stream)).await;
                        // Callers see why; that some do not like the certificate is a task.
                        let (stream, _) = shaken.ok()?.ok()?;
                        Some((stream, peer))
                    });
                }
                Some(done) = self.handshakes.join_next() => {
                    if let Ok(Some(ready)) = done {
                        return ready;
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let (near, far) = tokio::join!(near, listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn lines_come_back_with_a_name_and_the_end_is_passed_on() {
        let (mut near, far) = pair().await;
        let echo = tokio::spawn(repeat(far, "one"));
        near.write_all(b"a\nb\nc").await.unwrap();
        near.shutdown().await.unwrap();
        let mut all = String::new();
        near.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "one a\none b\none c");
        echo.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_line_without_an_end_comes_back_in_pieces() {
        let (near, far) = pair().await;
        let echo = tokio::spawn(repeat(far, "one"));
        let (mut read, mut write) = near.into_split();
        let long = vec![b'x'; 100_000];
        let send = async {
            write.write_all(&long).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut all = Vec::new();
        let receive = async { read.read_to_end(&mut all).await.unwrap() };
        tokio::join!(send, receive);
        assert_eq!(all.len(), 100_000 + 2 * "one ".len());
        echo.await.unwrap().unwrap();
    }
}
