//! Opens the bytes that a connection consists of.

use http::Uri;
use hyper_util::rt::TokioIo;
use mesh_core::Name;
use mesh_core::model::UnixPath;
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{fmt, io};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tower_service::Service;

#[cfg(feature = "tls")]
use mesh_core::model::{ClientTls, LiveSecret, Snapshot};
#[cfg(feature = "tls")]
use std::sync::Arc;

type BoxError = Box<dyn Error + Send + Sync>;

/// Where a control plane is and how bytes get there.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) place: Place,
    pub(super) patience: Duration,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Tls>,
}

/// Where a control plane is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// A host and port.
    Tcp(Name, u16),
    Unix(UnixPath),
}

/// TLS with one control plane.
#[cfg(feature = "tls")]
#[derive(Clone, Debug)]
pub(super) struct Tls {
    connector: mesh_identity::Connector,
    /// What it needs.
    secrets: Vec<Arc<LiveSecret>>,
}

/// Bytes both ways.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A connection could not be opened, and the part that failed.
#[derive(Debug)]
struct Failed(String, Option<BoxError>);

// === impl Dial ===

impl Dial {
    async fn open(self) -> Result<TokioIo<Box<dyn Bytes>>, BoxError> {
        let place = self.place.to_string();
        let patience = self.patience;
        let open = self.steps(&place);
        match tokio::time::timeout(patience, open).await {
            Ok(opened) => opened.map(TokioIo::new),
            Err(_) => Err(Failed(format!("{place}: no connection in {patience:?}"), None).into()),
        }
    }

    async fn steps(self, place: &str) -> Result<Box<dyn Bytes>, BoxError> {
        let stream = self.place.connect().await.map_err(|error| {
            let what = format!("{place} cannot be reached");
            Failed(what, Some(error.into()))
        })?;
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls {
            return tls.start(stream, self.place.host(), place).await;
        }
        Ok(stream)
    }
}

// === impl Place ===

impl Place {
    async fn connect(&self) -> io::Result<Box<dyn Bytes>> {
        match self {
            Self::Tcp(host, port) => {
                let tcp = TcpStream::connect((host.as_str(), *port)).await?;
                // Messages are written whole; waiting to fill a segment only delays them.
                tcp.set_nodelay(true)?;
                Ok(Box::new(tcp))
            }
            Self::Unix(path) => Ok(Box::new(match path.abstract_name() {
                // As the system spells it.
                Some(name) => UnixStream::connect(format!("\0{name}")).await?,
                None => UnixStream::connect(path.as_str()).await?,
            })),
        }
    }

    /// The name that a certificate is for.
    #[cfg(feature = "tls")]
    fn host(&self) -> &str {
        match self {
            Self::Tcp(host, _) => host,
            Self::Unix(_) => "localhost",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix://{path}"),
        }
    }
}

impl Service<Uri> for Dial {
    type Response = TokioIo<Box<dyn Bytes>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().open())
    }
}

// === impl Tls ===

#[cfg(feature = "tls")]
impl Tls {
    pub(super) fn new(
        tls: Arc<ClientTls>,
        snapshot: &Snapshot,
    ) -> Result<Self, mesh_core::Invalid> {
        let secrets = tls.secrets().filter_map(|named| snapshot.secret(named));
        let secrets = secrets.cloned().collect();
        let connector =
            mesh_identity::Connector::new(tls, |named| snapshot.secret(named).cloned())?;
        Ok(Self { connector, secrets })
    }

    async fn start(
        &self,
        stream: Box<dyn Bytes>,
        host: &str,
        place: &str,
    ) -> Result<Box<dyn Bytes>, BoxError> {
        match self.connector.connect(stream, Some(host)).await {
            Ok((stream, _)) => Ok(Box::new(stream)),
            Err(error) => {
                let missing = self.secrets.iter();
                let missing = missing.filter(|secret| secret.value().load().is_none());
                let missing: Vec<&str> = missing.map(|secret| secret.name().as_str()).collect();
                let what = match missing.is_empty() {
                    true => format!("no TLS with {place}"),
                    false => format!("no TLS with {place} without {}", missing.join(" and ")),
                };
                Err(Failed(what, Some(error.into())).into())
            }
        }
    }
}

// === impl Failed ===

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Failed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_ref().map(|source| &**source as _)
    }
}
