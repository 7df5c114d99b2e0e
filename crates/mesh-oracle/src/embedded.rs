//! The mesh client inside of a process, with just enough of a server around it that the same
//! requests can be sent to it.

pub(crate) mod layers;

use crate::wire::{Kind, Message, Wire};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body::Body as HttpBody;
use http_body_util::{BodyExt, StreamBody};
use mesh_client::{Body, MeshClient};
use mesh_core::model::Snapshot;
use mesh_core::{Feed, Publisher};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower_service::Service;

/// What is not compared of it, with the reason. A star stands for anything.
pub(crate) const LEFT_OUT: &[(&str, &str)] = &[
    ("version", "the server around it is the oracle's"),
    ("reason", "the server around it is the oracle's"),
    ("interim", "the server around it is the oracle's"),
    (
        "trailers",
        "HTTP/1.1 has none in Envoy, and the server speaks nothing else",
    ),
    ("header connection", "the server around it is the oracle's"),
    ("header content-length", "framing is the server's"),
    ("header transfer-encoding", "framing is the server's"),
    ("header date", "a server's"),
    ("header server", "a server's"),
    ("header vary", "a server's"),
    ("log*", "an application has no access log of a listener"),
    (
        "counter *",
        "they are compared where there is an admin interface",
    ),
    (
        "upstream * header x-forwarded-proto",
        "who terminates connections says it",
    ),
    (
        "upstream * header x-request-id",
        "who terminates connections makes it up",
    ),
    (
        "upstream * header x-forwarded-for",
        "who terminates connections knows the caller",
    ),
];

/// Clients, each behind a server of its own. They end with this.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    tasks: JoinSet<()>,
    // Without them the feeds would end.
    publishers: Vec<Publisher<Snapshot>>,
}

// === impl Servers ===

impl Servers {
    /// Serves a route table of a configuration at this address.
    pub(crate) async fn add(
        &mut self,
        at: SocketAddr,
        snapshot: Arc<Snapshot>,
        table: &str,
    ) -> std::io::Result<()> {
        let publisher = Publisher::from_arc(snapshot);
        let feed: Feed<Snapshot> = publisher.feed();
        self.publishers.push(publisher);
        let client = MeshClient::builder(feed, table).build();
        self.listen(at, client, |_, _, _| true).await
    }

    /// Serves with a service, after a look at each request and at how it came: whether it is one.
    async fn listen<S, R>(
        &mut self,
        at: SocketAddr,
        service: S,
        look: impl Fn(&mut Request<Body>, &Message, SocketAddr) -> bool + Clone + Send + Sync + 'static,
    ) -> std::io::Result<()>
    where
        S: Service<Request<Body>, Response = Response<R>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
        R: HttpBody<Data = Bytes> + Send + 'static,
    {
        let listener = TcpListener::bind(at).await?;
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, peer)) = listener.accept().await else {
                    continue;
                };
                // Small answers must not wait for acknowledgements.
                let _ = stream.set_nodelay(true);
                let look = look.clone();
                let look = move |request: &mut Request<Body>, message: &Message| {
                    look(request, message, peer)
                };
                connections.spawn(serve(Wire::new(stream), service.clone(), look));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(())
    }
}

/// Serves one request: nobody sends more on a connection.
async fn serve<S, R>(
    mut wire: Wire,
    mut service: S,
    look: impl Fn(&mut Request<Body>, &Message) -> bool + Send,
) where
    S: Service<Request<Body>, Response = Response<R>, Error = Infallible>,
    R: HttpBody<Data = Bytes>,
{
    let Ok(Some(message)) = wire.read(Kind::Request).await else {
        return;
    };
    let mut request = request(&message);
    let looked = request.as_mut().is_some_and(|it| look(it, &message));
    let Some(request) = request.filter(|_| looked) else {
        let answer = format!(
            "HTTP/1.1 {} no request\r\ncontent-length: 0\r\n\r\n",
            layers::NONE
        );
        let _ = wire.stream.write_all(answer.as_bytes()).await;
        return;
    };
    let Ok(()) = poll_fn(|cx| service.poll_ready(cx)).await;
    let Ok(response) = service.call(request).await;
    let head = message.line.starts_with("HEAD ");
    let (bytes, whole) = written(response, head).await;
    // Who asked may be gone.
    let _ = wire.stream.write_all(&bytes).await;
    if !whole {
        let _ = wire.stream.set_zero_linger();
    }
}

/// A request as an application makes it.
fn request(message: &Message) -> Option<Request<Body>> {
    let mut words = message.line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let host = message.header("host")?;
    let mut builder = Request::builder()
        .method(method)
        .uri(format!("http://{host}{target}"))
        .version(Version::HTTP_11);
    for (name, value) in &message.headers {
        if !matches!(&*name.to_ascii_lowercase(), "host" | "transfer-encoding") {
            builder = builder.header(name, value);
        }
    }
    let whole = Bytes::from(message.body.clone());
    // Of what comes in chunks nobody knows how long it is.
    let body = if message.header("transfer-encoding").is_some() {
        let mut frames = vec![Ok::<_, Infallible>(http_body::Frame::data(whole))];
        if !message.trailers.is_empty() {
            frames.push(Ok(http_body::Frame::trailers(fields(&message.trailers))));
        }
        Body::new(StreamBody::new(stream::iter(frames)))
    } else {
        Body::new(http_body_util::Full::new(whole))
    };
    builder.body(body).ok()
}

fn fields(listed: &[(String, String)]) -> HeaderMap {
    let each = listed.iter().filter_map(|(name, value)| {
        let value = HeaderValue::from_str(value).ok()?;
        Some((name.parse::<HeaderName>().ok()?, value))
    });
    each.collect()
}

/// The answer in HTTP/1.1, and whether it is whole.
async fn written<R>(response: Response<R>, head: bool) -> (Vec<u8>, bool)
where
    R: HttpBody<Data = Bytes>,
{
    let (parts, body) = response.into_parts();
    let mut body = std::pin::pin!(body);
    let mut bytes = format!("HTTP/1.1 {}\r\n", parts.status.as_u16()).into_bytes();
    let put = |bytes: &mut Vec<u8>, headers: &HeaderMap| {
        for (name, value) in headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
    };
    let bodiless = head || matches!(parts.status.as_u16(), 204 | 304);
    let mut headers = parts.headers;
    headers.remove("content-length");
    headers.remove("transfer-encoding");
    put(&mut bytes, &headers);
    if !bodiless {
        bytes.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return (bytes, false);
        };
        match frame.into_data() {
            Ok(data) if bodiless || data.is_empty() => {}
            Ok(data) => {
                bytes.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
                bytes.extend_from_slice(&data);
                bytes.extend_from_slice(b"\r\n");
            }
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    if !bodiless {
        bytes.extend_from_slice(b"0\r\n");
        put(&mut bytes, &trailers);
        bytes.extend_from_slice(b"\r\n");
    }
    (bytes, true)
}
