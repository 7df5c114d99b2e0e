//! Opening a tunnel through an HTTP proxy.

use super::stream::{Ends, Held, Inner};
use crate::{Body, Upstreams};
use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::{Body as HttpBody, Frame};
use hyper_util::rt::TokioIo;
use mesh_core::model::{ClusterEntry, Tunnel};
use mesh_core::{BoxError, Caller, Error, Exchange, Failure, HostId};
use mesh_lb::Chooser;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, SimplexStream, WriteHalf, simplex};

/// How much is kept for a proxy that reads slowly; a read takes as much at most.
const BUFFER: usize = 64 << 10;

/// Marks the request that opens a tunnel. Its authority is where the tunnel leads, not who the
/// proxy is, and what is under way ends with the tunnel rather than with the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tunnelled;

/// The two bodies of a POST as one stream.
pub(super) struct Post {
    to: Uploading,
    from: Held,
    /// Of the last frame, what nobody has read yet.
    left: Bytes,
}

/// What is written to the POST. Its end is the end of the request.
struct Uploading {
    to: WriteHalf<SimplexStream>,
    /// It was shut down: without that, the end is a fault.
    ended: Arc<AtomicBool>,
}

/// The body of the POST.
struct Upload {
    from: ReadHalf<SimplexStream>,
    ended: Arc<AtomicBool>,
    buffer: BytesMut,
}

/// Opens a tunnel.
pub(super) async fn open(
    proxies: &Chooser<Upstreams>,
    cluster: &Arc<ClusterEntry>,
    (caller, hash): (&Caller, Option<u64>),
    tunnel: &Tunnel,
    tried: &mut Vec<HostId>,
) -> Result<(Inner, Ends), Error> {
    let exchange = Exchange::new(super::now(), caller.clone());
    if let Some(hash) = hash {
        exchange.set_hash(hash);
    }
    let (mut request, upload) = request(tunnel)?;
    request.extensions_mut().insert(Tunnelled);
    exchange.attach(&mut request);
    let answered = proxies.call(cluster, exchange.clone(), request).await;
    tried.extend(exchange.tried());
    let mut response = answered?;
    if !opens(&response, tunnel) {
        let reason = format!("the proxy answered {} to the tunnel", response.status());
        return Err(Error::with_source(Failure::ConnectFailed, reason));
    }
    let upstream = exchange.with_notes(|notes| notes.upstream.clone());
    let upstream = upstream.ok_or_else(|| Error::new(Failure::Internal))?;
    let ends = Ends {
        endpoint: upstream.endpoint,
        remote: upstream.remote,
        local: upstream.local,
        tls: None,
    };
    let inner = match upload {
        None => {
            let failed = |error: BoxError| Error::with_source(Failure::ConnectFailed, error);
            match mesh_http1::upgrade::on(response.extensions_mut()) {
                Some(upgrade) => {
                    let upgraded = upgrade.await.map_err(|error| failed(error.into()))?;
                    Inner::Http1(upgraded, response.into_body())
                }
                None => {
                    let upgraded = hyper::upgrade::on(&mut response).await;
                    let upgraded = upgraded.map_err(|error| failed(error.into()))?;
                    Inner::Http2(TokioIo::new(upgraded), response.into_body())
                }
            }
        }
        Some(to) => Inner::Post(Post {
            to,
            from: response.into_body(),
            left: Bytes::new(),
        }),
    };
    Ok((inner, ends))
}

/// Envoy `HttpUpstream::isValidResponse`.
fn opens<B>(response: &Response<B>, tunnel: &Tunnel) -> bool {
    if !tunnel.post && response.version() < Version::HTTP_2 {
        return response.status().is_success();
    }
    response.status() == StatusCode::OK
}

fn request(tunnel: &Tunnel) -> Result<(Request<Body>, Option<Uploading>), Error> {
    let invalid = |error: http::Error| {
        let reason = format!("tunnel target {:?}: {error}", tunnel.target);
        Error::with_source(Failure::ConnectFailed, reason)
    };
    if !tunnel.post {
        let uri: Uri = tunnel
            .target
            .parse()
            .map_err(|error| invalid(http::Error::from(error)))?;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(uri)
            .header(header::HOST, tunnel.target.as_str())
            .body(Body::empty());
        return Ok((request.map_err(invalid)?, None));
    }
    let (from, to) = simplex(BUFFER);
    let ended = Arc::new(AtomicBool::new(false));
    let upload = Upload {
        from,
        ended: ended.clone(),
        buffer: BytesMut::new(),
    };
    let request = Request::builder()
        .method(Method::POST)
        .uri("/")
        .header(header::HOST, tunnel.target.as_str())
        .body(Body::new(upload));
    Ok((request.map_err(invalid)?, Some(Uploading { to, ended })))
}

// === impl Uploading ===

impl Drop for Uploading {
    /// The body of the request ends now; whether well or not was said before.
    fn drop(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        // Closing a pipe in memory never waits.
        let _ = Pin::new(&mut self.to).poll_shutdown(&mut cx);
    }
}

// === impl Upload ===

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        this.buffer.resize(BUFFER, 0);
        let mut buf = ReadBuf::new(&mut this.buffer);
        let read = ready!(Pin::new(&mut this.from).poll_read(cx, &mut buf));
        let length = buf.filled().len();
        if let Err(error) = read {
            return Poll::Ready(Some(Err(error.into())));
        }
        if length == 0 {
            let ended = this.ended.load(Ordering::Acquire);
            return Poll::Ready((!ended).then(|| Err("the tunnel was dropped".into())));
        }
        Poll::Ready(Some(Ok(Frame::data(this.buffer.split_to(length).freeze()))))
    }
}

// === impl Post ===

impl AsyncRead for Post {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.left.is_empty() {
            let frame = match ready!(Pin::new(&mut this.from).poll_frame(cx)) {
                Some(frame) => frame.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            };
            // Trailers are the end.
            let Ok(data) = frame.into_data() else {
                return Poll::Ready(Ok(()));
            };
            this.left = data;
        }
        let length = this.left.len().min(buf.remaining());
        buf.put_slice(&this.left[..length]);
        this.left.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Post {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().to.to).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().to.to).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let upload = &mut self.get_mut().to;
        // The flag first: who reads the end must see why.
        upload.ended.store(true, Ordering::Release);
        Pin::new(&mut upload.to).poll_shutdown(cx)
    }
}
