//! Asking servers: one connection for one answer.

use crate::answer::{self, GetError};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use mesh_core::Name;
use mesh_core::model::{ClientTls, KeySource, Secret, SecretRef, Validation};
use mesh_http1::{Buffers, Client};
use mesh_identity::Connector;
use mesh_policy::jwt::MAX_JWKS;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How often one request is redirected, at most. Never from https to http.
pub const MOST_REDIRECTS: usize = 5;

/// A set on its way.
pub(crate) type Getting = Pin<Box<dyn Future<Output = Result<Name, GetError>> + Send>>;

/// Gets sets: from servers, or from memory in tests.
pub(crate) type Get = Arc<dyn Fn(KeySource, Duration) -> Getting + Send + Sync>;

/// Asks servers. Those of https have to show a certificate for their name that leads to a root of
/// this machine, or to one of `roots`.
pub(crate) fn servers(roots: Option<Vec<u8>>) -> Get {
    let roots = Arc::new(roots.unwrap_or_default());
    Arc::new(move |source, limit| {
        let web = Web {
            roots: roots.clone(),
        };
        Box::pin(async move {
            match timeout(limit, web.set(&source)).await {
                Ok(got) => got,
                Err(_) => Err(GetError::Elapsed(limit)),
            }
        })
    })
}

struct Web {
    /// Besides those of the machine, as PEM.
    roots: Arc<Vec<u8>>,
}

/// What one request comes to.
enum Answer {
    Body(Bytes),
    Moved(String),
}

// === impl Web ===

impl Web {
    async fn set(&self, source: &KeySource) -> Result<Name, GetError> {
        let uri = match source {
            KeySource::Uri(uri) => answer::uri(uri)?,
            KeySource::Issuer(issuer) => {
                let at = answer::configuration_uri(issuer)?;
                let found = answer::keys_uri(&self.get(at.clone()).await?)?;
                // As little as by a redirect.
                answer::redirected(&at, &found.to_string())?
            }
            other => return Err(GetError::BadUri(other.to_string())),
        };
        answer::keys(&self.get(uri).await?)
    }

    async fn get(&self, mut uri: Uri) -> Result<Bytes, GetError> {
        for _ in 0..=MOST_REDIRECTS {
            match self.once(&uri).await? {
                Answer::Body(body) => return Ok(body),
                Answer::Moved(to) => uri = answer::redirected(&uri, &to)?,
            }
        }
        Err(GetError::Redirected(format!("{uri}, once too often")))
    }

    async fn once(&self, uri: &Uri) -> Result<Answer, GetError> {
        let host = uri.host().unwrap_or_default();
        let secured = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secured { 443 } else { 80 });
        // An address of IPv6 is in brackets.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let place = || format!("{host}:{port}");
        let io = TcpStream::connect((bare, port)).await;
        let io = io.map_err(|error| GetError::Unreachable(place(), error))?;
        if !secured {
            return exchange(io, uri).await;
        }
        let connector = self.connector().await?;
        let io = connector.connect(io, Some(host)).await;
        let (io, _) = io.map_err(|error| GetError::Tls(place(), error))?;
        exchange(io, uri).await
    }

    /// Made anew each time, which is seldom: roots of the machine change.
    async fn connector(&self) -> Result<Connector, GetError> {
        let read = tokio::task::spawn_blocking(mesh_identity::system_roots).await;
        let read = read.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let mut all = self.roots.to_vec();
        match read {
            Ok(Secret::Trust { roots, .. }) => {
                all.push(b'\n');
                all.extend_from_slice(&roots);
            }
            Ok(_) => {}
            // Those that were given may be all that there is.
            Err(error) if all.is_empty() => return Err(GetError::NoRoots(error)),
            Err(_) => {}
        }
        let named = SecretRef::local("roots");
        let mut tls = ClientTls::default();
        let mut validation = Validation::default();
        validation.roots = Some(named.clone());
        tls.validation = Some(validation);
        tls.alpn = vec!["http/1.1".into()];
        tls.auto_sni = true;
        tls.auto_san = true;
        let given = [(named, Arc::new(Secret::roots(all)))];
        Ok(Connector::alone(Arc::new(tls), given)?.0)
    }
}

async fn exchange<Io>(io: Io, uri: &Uri) -> Result<Answer, GetError>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = Client::with_buffers(Buffers::keeping(0));
    let (mut sender, connection) = client.handshake(io);
    let path = uri.path_and_query().map_or("/", |both| both.as_str());
    let authority = uri.authority().map_or("", http::uri::Authority::as_str);
    let request = Request::get(path)
        .header(HOST, authority)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("mesh-keys/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| GetError::BadUri(uri.to_string()))?;
    let mut answered = pin!(async {
        let response = sender.send_request(request).await;
        let response = response.map_err(|not| GetError::Http(not.error))?;
        let status = response.status();
        let location = response.headers().get(LOCATION);
        if let (301 | 302 | 303 | 307 | 308, Some(to)) = (status.as_u16(), location) {
            let to = String::from_utf8_lossy(to.as_bytes()).into_owned();
            return Ok(Answer::Moved(to));
        }
        if status != StatusCode::OK {
            return Err(GetError::Status(status));
        }
        let mut body = response.into_body();
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame?.into_data() {
                if all.len() + data.len() > MAX_JWKS {
                    return Err(GetError::TooLarge(MAX_JWKS));
                }
                all.extend_from_slice(&data);
            }
        }
        Ok(Answer::Body(all.freeze()))
    });
    tokio::select! {
        biased;
        answer = &mut answered => answer,
        // It says nothing that the answer does not, which may be whole all the same.
        _ = connection => answered.await,
    }
}
