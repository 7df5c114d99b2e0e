//! Connections over in-memory pipes to a service at the other end.

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use mesh_core::BoxError;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use tokio::io::DuplexStream;
use tonic::transport::{Channel, Endpoint};
use tower::Service;

#[derive(Clone, Copy)]
pub(crate) enum Protocol {
    Http1,
    Http2,
}

/// Connects to `service`, whatever the address, after some failures.
#[derive(Clone)]
pub(crate) struct Connector<S> {
    service: S,
    protocol: Protocol,
    failures: u32,
    tried: Arc<AtomicU32>,
}

pub(crate) fn connector<S>(service: S, protocol: Protocol) -> Connector<S> {
    Connector {
        service,
        protocol,
        failures: 0,
        tried: Arc::default(),
    }
}

/// A connector whose first connections fail, and how many were tried.
pub(crate) fn failing_connector<S>(failures: u32, service: S) -> (Connector<S>, Arc<AtomicU32>) {
    let connector = Connector {
        failures,
        ..connector(service, Protocol::Http1)
    };
    let tried = connector.tried.clone();
    (connector, tried)
}

/// A tonic channel to `service`.
pub(crate) fn channel<S, R>(service: S) -> Channel
where
    S: Service<Request<Incoming>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    R: http_body::Body + Send + 'static,
    R::Data: Send,
    R::Error: Into<BoxError>,
{
    Endpoint::from_static("http://echo")
        .connect_with_connector_lazy(connector(service, Protocol::Http2))
}

impl<S, R> Service<Uri> for Connector<S>
where
    S: Service<Request<Incoming>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    R: http_body::Body + Send + 'static,
    R::Data: Send,
    R::Error: Into<BoxError>,
{
    type Response = Pipe;
    type Error = io::Error;
    type Future = Ready<Result<Pipe, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        if self.tried.fetch_add(1, Ordering::SeqCst) < self.failures {
            return ready(Err(io::ErrorKind::ConnectionRefused.into()));
        }
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let service = TowerToHyperService::new(self.service.clone());
        let protocol = self.protocol;
        tokio::spawn(async move {
            let io = TokioIo::new(theirs);
            // The pipe breaks when the client is dropped; that is how these tests end.
            let _ = match protocol {
                Protocol::Http1 => {
                    let builder = hyper::server::conn::http1::Builder::new();
                    builder.serve_connection(io, service).await
                }
                Protocol::Http2 => {
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    builder.serve_connection(io, service).await
                }
            };
        });
        ready(Ok(Pipe(TokioIo::new(ours))))
    }
}

/// One end of a connection.
pub(crate) struct Pipe(TokioIo<DuplexStream>);

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
