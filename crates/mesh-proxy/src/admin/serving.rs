//! Connections to the admin interface: who says nothing does not keep others out.

use http::{Request, Response};
use mesh_http1::server::Connection;
use mesh_http1::{Body, BoxError, Buffers, Error, Server};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tower_service::Service;

/// A request head has to arrive within this time. Without any request a connection is closed after
/// once or twice as long.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn server() -> Server {
    Server::with_buffers(Buffers::default()).head_timeout(Some(PATIENCE))
}

/// Serves a connection to its end.
pub(super) async fn attend<Io, S, B>(mut connection: Connection<Io, S, B>) -> Result<(), Error>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<B>>,
    S::Error: Into<BoxError>,
    B: http_body::Body,
    B::Error: Into<BoxError>,
{
    let mut seen = None;
    loop {
        if let Ok(ended) = timeout(PATIENCE, &mut connection).await {
            return ended;
        }
        let requests = connection.is_idle().then(|| connection.requests());
        if requests.is_some() && requests == seen {
            connection.graceful_shutdown();
        }
        seen = requests;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use http_body_util::Full;
    use std::convert::Infallible;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;
    use tower::service_fn;

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_requests_is_closed_and_one_with_them_is_not() {
        let (mut ours, theirs) = tokio::io::duplex(1 << 10);
        let service = service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        });
        let served = tokio::spawn(attend(server().serve(theirs, b"", service)));
        let start = Instant::now();
        // Each within its time, all of them together beyond it.
        for _ in 0..4 {
            tokio::time::advance(PATIENCE * 9 / 10).await;
            ours.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(ours.read_u8().await.unwrap());
            }
        }
        assert!(start.elapsed() > 3 * PATIENCE);
        let last = Instant::now();
        assert_eq!(ours.read(&mut [0]).await.unwrap(), 0);
        let waited = last.elapsed();
        assert!(waited >= PATIENCE && waited <= 2 * PATIENCE, "{waited:?}");
        served.await.unwrap().unwrap();
    }
}
