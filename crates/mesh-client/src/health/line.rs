//! A connection for questions over HTTP, of either codec.

use super::dial::Dialer;
use crate::upstream::secure::Offer;
use crate::upstream::transport::Stream;
use crate::upstream::{Received, http1};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_http1::Buffers;
use mesh_http1::client::SendRequest;
use std::future::poll_fn;
use tokio::task::JoinSet;

/// A connection. It is closed when this is dropped.
pub(super) struct Line {
    sender: Sender,
    /// What goes on on it beside questions.
    _driver: JoinSet<()>,
}

enum Sender {
    Http1(SendRequest<Stream, Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// A whole answer.
pub(super) struct Answered {
    pub(super) head: http::response::Parts,
    /// The first bytes of the body.
    pub(super) body: Bytes,
    /// There were more of them.
    pub(super) is_cut: bool,
    pub(super) trailers: HeaderMap,
}

// === impl Line ===

impl Line {
    /// None if there is none to be had.
    pub(super) async fn to(dialer: &Dialer, is_http2: bool) -> Option<Self> {
        let offer = if is_http2 { Offer::Http2 } else { Offer::Http1 };
        let io = dialer.dial(offer).await.ok()?;
        let mut driver = JoinSet::new();
        // How it ended, a question that is under way says.
        let sender = if is_http2 {
            let builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = builder.handshake(TokioIo::new(io)).await.ok()?;
            driver.spawn(async move { drop(connection.await) });
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1(Buffers::default()).handshake(io);
            driver.spawn(async move { drop(connection.await) });
            Sender::Http1(sender)
        };
        Some(Self {
            sender,
            _driver: driver,
        })
    }

    /// Whether another question can be sent.
    pub(super) fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_ready(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Asks, and reads all of the answer, of whose body so many bytes are kept. None if the
    /// connection failed.
    pub(super) async fn ask(
        &mut self,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Option<Answered> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                let response = sender.send_request(request).await.ok()?;
                response.map(Received::Http1)
            }
            Sender::Http2(sender) => {
                sender.ready().await.ok()?;
                let response = sender.send_request(request).await.ok()?;
                response.map(Received::Http2)
            }
        };
        read(response, limit).await
    }
}

async fn read(response: Response<Received>, limit: usize) -> Option<Answered> {
    let (head, mut body) = response.into_parts();
    let (mut kept, mut is_cut, mut trailers) = (BytesMut::new(), false, HeaderMap::new());
    while let Some(frame) = poll_fn(|cx| body.poll_frame(cx)).await {
        match frame.ok()?.into_data() {
            Ok(data) => {
                let room = limit.saturating_sub(kept.len());
                is_cut |= data.len() > room;
                kept.extend_from_slice(&data[..data.len().min(room)]);
            }
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    Some(Answered {
        head,
        body: kept.freeze(),
        is_cut,
        trailers,
    })
}
