//! In-memory connections to a router, as tonic's channel and hyper-util's client make them.

use super::place::Layered;
use axum::Router;
use futures_util::{StreamExt, stream};
use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::DuplexStream;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};
use tower::{Layer, Service, service_fn};

/// How much a pipe holds, in bytes.
const CAPACITY: usize = 64 * 1024;

/// A channel to a tonic server that has this layer.
pub(crate) fn channel<L>(layer: L, router: Router) -> Channel
where
    L: Layer<Routes, Service: Layered<tonic::body::Body>> + Clone + Send + Sync + 'static,
{
    let connect = service_fn(move |_: Uri| {
        let (ours, theirs) = tokio::io::duplex(CAPACITY);
        // One connection and no other, but not the end of them either: with that the server stops.
        let incoming = stream::iter([Ok::<_, io::Error>(theirs)]).chain(stream::pending());
        let server = Server::builder()
            .layer(layer.clone())
            .add_routes(Routes::from(router.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        ready(Ok::<_, io::Error>(TokioIo::new(ours)))
    });
    Endpoint::from_static("http://app.example").connect_with_connector_lazy(connect)
}

/// Connects hyper-util's client to a router over HTTP/1.1, whatever the address.
#[derive(Clone)]
pub(crate) struct Connector(pub(crate) Router);

/// The client's end of a connection.
pub(crate) struct Pipe(TokioIo<DuplexStream>);

impl Service<Uri> for Connector {
    type Response = Pipe;
    type Error = io::Error;
    type Future = Ready<Result<Pipe, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (ours, theirs) = tokio::io::duplex(CAPACITY);
        let service = TowerToHyperService::new(self.0.clone());
        tokio::spawn(async move {
            let builder = auto::Builder::new(TokioExecutor::new()).http1_only();
            // The pipe breaks when the client is dropped, which is how these tests end.
            let _ = builder
                .serve_connection(TokioIo::new(theirs), service)
                .await;
        });
        ready(Ok(Pipe(TokioIo::new(ours))))
    }
}

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
