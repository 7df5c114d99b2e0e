//! The one body type of the mesh client and the proxy.

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use mesh_core::usage::Taken;
use mesh_core::{BoxError, Error, Failure};
use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::upstream::{Pooled, find};

/// A request or response body. Bodies that come straight from a connection are held as they are;
/// any other body is boxed.
pub struct Body(Kind);

enum Kind {
    Empty,
    Whole(Bytes),
    /// From an upstream, whose connection is free already. It counts as a request under way until it
    /// was read or dropped, as those count whose response still comes.
    Received(
        Bytes,
        #[allow(dead_code, reason = "held while it is there")] Taken,
    ),
    /// From a caller's connection of HTTP/1.
    Http1(mesh_http1::Body),
    /// From a caller's connection on hyper.
    Incoming(Incoming),
    /// From an upstream's connection, which goes back to its pool at the end.
    Pooled(Box<Pooled>),
    Boxed(Pin<Box<dyn HttpBody<Data = Bytes, Error = Error> + Send>>),
}

/// Gives any body our error type.
#[pin_project::pin_project]
struct WithError<B>(#[pin] B);

// === impl Body ===

impl Body {
    /// A body without a byte.
    pub fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// Takes any body. Boxes it, unless it is empty, is one of these already, or comes straight
    /// from a caller's connection, on mesh-http1 (whose trailers are left out, as Envoy leaves them
    /// out) or on hyper: if that breaks off, its caller has gone ([`Failure::ClientGone`]) or reset
    /// the stream ([`Failure::ClientReset`], [`Failure::ClientRefused`]), or on mesh-http1 has sent
    /// what is no body ([`Failure::BadBody`]).
    pub fn new<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        let any: &mut dyn Any = &mut body;
        if let Some(ours) = any.downcast_mut::<Option<Self>>() {
            return ours.take().unwrap_or_default();
        }
        if let Some(received) = any.downcast_mut::<Option<mesh_http1::Body>>() {
            let received = received.take().filter(|received| !received.is_end_stream());
            return Self(received.map_or(Kind::Empty, Kind::Http1));
        }
        if let Some(incoming) = any.downcast_mut::<Option<Incoming>>() {
            let incoming = incoming.take().filter(|incoming| !incoming.is_end_stream());
            return Self(incoming.map_or(Kind::Empty, Kind::Incoming));
        }
        match body {
            Some(body) if !body.is_end_stream() => Self(Kind::Boxed(Box::pin(WithError(body)))),
            _ => Self::empty(),
        }
    }

    pub(crate) fn received(bytes: Bytes, unit: Option<Taken>) -> Self {
        match unit {
            Some(unit) => Self(Kind::Received(bytes, unit)),
            None => bytes.into(),
        }
    }

    pub(crate) fn pooled(body: Pooled) -> Self {
        Self(Kind::Pooled(Box::new(body)))
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(if bytes.is_empty() {
            Kind::Empty
        } else {
            Kind::Whole(bytes)
        })
    }
}

impl From<mesh_route::follow::Again> for Body {
    fn from(body: mesh_route::follow::Again) -> Self {
        Self::new(body)
    }
}

impl From<mesh_route::follow::KeepBody<Self>> for Body {
    fn from(body: mesh_route::follow::KeepBody<Self>) -> Self {
        match body.into_plain() {
            Ok(plain) => plain,
            Err(kept) => Self::new(kept),
        }
    }
}

impl From<mesh_telemetry::finish::Received<Self>> for Body {
    fn from(body: mesh_telemetry::finish::Received<Self>) -> Self {
        Self::new(body)
    }
}

impl From<mesh_route::mirror::TeeBody<Self>> for Body {
    fn from(body: mesh_route::mirror::TeeBody<Self>) -> Self {
        match body.into_plain() {
            Ok(plain) => plain,
            Err(copied) => Self::new(copied),
        }
    }
}

impl From<mesh_resilience::ReplayBody<Self>> for Body {
    fn from(body: mesh_resilience::ReplayBody<Self>) -> Self {
        match body.into_once() {
            Ok(once) => once,
            Err(kept) => Self::new(kept),
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.0 {
            Kind::Empty => Poll::Ready(None),
            Kind::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Received(bytes, _) => {
                let bytes = std::mem::take(bytes);
                self.0 = Kind::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Kind::Http1(received) => {
                let frame = ready!(Pin::new(received).poll_frame(cx));
                // HTTP/1 has none, as in Envoy without `enable_trailers`.
                let frame = frame.filter(|frame| !matches!(frame, Ok(it) if it.is_trailers()));
                Poll::Ready(frame.map(|frame| frame.map_err(from_caller)))
            }
            Kind::Incoming(incoming) => {
                let frame = ready!(Pin::new(incoming).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(from_stream)))
            }
            Kind::Pooled(pooled) => Pin::new(&mut **pooled).poll_frame(cx),
            Kind::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Whole(_) => false,
            Kind::Received(bytes, _) => bytes.is_empty(),
            Kind::Http1(received) => received.is_end_stream(),
            Kind::Incoming(incoming) => incoming.is_end_stream(),
            Kind::Pooled(pooled) => pooled.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Whole(bytes) | Kind::Received(bytes, _) => {
                SizeHint::with_exact(bytes.len() as u64)
            }
            Kind::Http1(received) => received.size_hint(),
            Kind::Incoming(incoming) => incoming.size_hint(),
            Kind::Pooled(pooled) => pooled.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Empty => "Body(empty)",
            Kind::Whole(_) => "Body(whole)",
            Kind::Received(..) => "Body(received)",
            Kind::Http1(_) => "Body(http1)",
            Kind::Incoming(_) => "Body(incoming)",
            Kind::Pooled(_) => "Body(pooled)",
            Kind::Boxed(_) => "Body(boxed)",
        })
    }
}

/// Why the body of a caller's request broke off.
fn from_caller(error: mesh_http1::Error) -> Error {
    let failure = if error.is_protocol() {
        Failure::BadBody
    } else {
        Failure::ClientGone
    };
    Error::with_source(failure, error)
}

/// The same of a body that came over HTTP/2.
fn from_stream(error: hyper::Error) -> Error {
    let reset = find::<h2::Error>(&error).filter(|it| it.is_reset() && it.is_remote());
    let failure = match reset.and_then(h2::Error::reason) {
        Some(h2::Reason::REFUSED_STREAM) => Failure::ClientRefused,
        Some(_) => Failure::ClientReset,
        None => Failure::ClientGone,
    };
    Error::with_source(failure, error)
}

// === impl WithError ===

impl<B> HttpBody for WithError<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = ready!(self.project().0.poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(Error::wrap)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_of_ours_is_not_wrapped_again() {
        let body = Body::new(Body::from(Bytes::from_static(b"x")));
        assert!(matches!(body.0, Kind::Whole(_)));
        assert!(Body::new(mesh_test::empty()).is_end_stream());
        assert_eq!(
            mesh_test::read(Body::new(mesh_test::text("boxed"))).await,
            "boxed"
        );
        assert_eq!(
            mesh_test::read(Body::from(Bytes::from_static(b"whole"))).await,
            "whole"
        );
    }

    #[tokio::test]
    async fn a_body_from_http1_is_held_as_it_is_and_fails_as_its_caller_does() {
        for (text, failure) in [
            ("content-length: 10\r\n\r\npart", Failure::ClientGone),
            ("transfer-encoding: chunked\r\n\r\nzz\r\n", Failure::BadBody),
        ] {
            let (mut theirs, ours) = tokio::io::duplex(1024);
            let server = mesh_http1::Server::with_buffers(mesh_http1::Buffers::default());
            let service =
                tower::service_fn(|request: http::Request<mesh_http1::Body>| async move {
                    let body = Body::new(request.into_body());
                    assert!(matches!(body.0, Kind::Http1(_)), "{body:?}");
                    let read = http_body_util::BodyExt::collect(body).await;
                    assert_eq!(read.unwrap_err().failure(), failure);
                    Ok::<_, BoxError>(http::Response::new(Body::empty()))
                });
            let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{text}");
            tokio::io::AsyncWriteExt::write_all(&mut theirs, head.as_bytes())
                .await
                .unwrap();
            drop(theirs);
            let _ = server.serve(ours, b"", service).await;
        }
    }

    #[test]
    fn an_exact_length_is_kept() {
        assert_eq!(
            Body::from(Bytes::from_static(b"abc")).size_hint().exact(),
            Some(3)
        );
        assert_eq!(
            Body::new(mesh_test::text("abc")).size_hint().exact(),
            Some(3)
        );
        assert_eq!(Body::empty().size_hint().exact(), Some(0));
    }
}
