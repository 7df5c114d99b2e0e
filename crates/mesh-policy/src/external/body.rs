//! Bodies: what a service is asked with, and a request's that was held back meanwhile.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use mesh_core::model::AskedBody;
use mesh_core::{BoxError, Error, Failure};
use pin_project::pin_project;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// The body of a question; whole.
#[derive(Clone, Debug, Default)]
pub struct AskBody(Bytes);

/// The body of a request, some of which was read before it went on.
#[pin_project]
#[derive(Debug)]
pub struct Checked<B> {
    first: Bytes,
    trailers: Option<Box<HeaderMap>>,
    /// None: it was read to its end.
    #[pin]
    rest: Option<B>,
    /// Its length was told.
    sized: bool,
}

/// What was read of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) bytes: Bytes,
    /// There is more of it.
    pub(super) partial: bool,
    /// As much was read, in bytes.
    pub(super) read: usize,
}

/// The largest answer that is read of a service, in bytes: Envoy's default limit of buffers.
const MOST: usize = 1 << 20;

// === impl AskBody ===

impl AskBody {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// All of it.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Body for AskBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = std::mem::take(&mut self.0);
        Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.len() as u64)
    }
}

// === impl Checked ===

impl<B: Body<Data = Bytes>> Checked<B> {
    /// A body of which nothing was read.
    pub fn whole(body: B) -> Self {
        Self {
            first: Bytes::new(),
            trailers: None,
            sized: body.size_hint().exact().is_some(),
            rest: Some(body),
        }
    }

    /// The body itself, where nothing of it was read.
    ///
    /// # Errors
    /// Gives it back where something was.
    pub fn into_whole(self) -> Result<B, Self> {
        match self {
            Self {
                first,
                trailers: None,
                rest: Some(rest),
                ..
            } if first.is_empty() => Ok(rest),
            other => Err(other),
        }
    }

    /// Reads as much as is to be sent along.
    pub(super) async fn hold(body: B, limit: AskedBody) -> Result<(Self, Sent), Error>
    where
        B: Unpin,
        B::Error: Into<BoxError>,
    {
        let sized = body.size_hint().exact().is_some();
        let mut body = body;
        let most = usize::try_from(limit.limit).unwrap_or(usize::MAX);
        let mut first = BytesMut::new();
        let mut trailers = None;
        let mut ended = false;
        while !(limit.partial && first.len() >= most) {
            let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await else {
                ended = true;
                break;
            };
            match frame.map_err(Error::wrap)?.into_data() {
                Ok(data) => first.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().ok().map(Box::new),
            }
            if !limit.partial && first.len() > most {
                return Err(Error::new(Failure::PayloadTooLarge));
            }
        }
        let first = first.freeze();
        let sent = Sent {
            bytes: first.slice(..first.len().min(most)),
            partial: first.len() > most,
            read: first.len(),
        };
        let rest = (!ended).then_some(body);
        let checked = Self {
            first,
            trailers,
            rest,
            sized,
        };
        Ok((checked, sent))
    }
}

impl<B: Body<Data = Bytes>> Body for Checked<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if !this.first.is_empty() {
            let first = std::mem::take(this.first);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        if let Some(rest) = this.rest.as_pin_mut()
            && let Some(frame) = ready!(rest.poll_frame(cx))
        {
            return Poll::Ready(Some(frame));
        }
        Poll::Ready(
            this.trailers
                .take()
                .map(|trailers| Ok(Frame::trailers(*trailers))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty()
            && self.trailers.is_none()
            && self.rest.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self
            .rest
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let first = self.first.len() as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(first));
        // Where it was not told the request goes on without one, as it came.
        if self.sized
            && let Some(upper) = rest.upper()
        {
            hint.set_upper(upper.saturating_add(first));
        }
        hint
    }
}

/// Reads the whole answer of a service, with its trailers. None where it breaks off or is too long.
pub(super) async fn read<R>(body: R) -> Option<(Bytes, HeaderMap)>
where
    R: Body,
{
    let mut body = std::pin::pin!(body);
    let mut all = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        match frame.ok()?.into_data() {
            Ok(mut data) => {
                if all.len() + data.remaining() > MOST {
                    return None;
                }
                all.extend_from_slice(&data.copy_to_bytes(data.remaining()));
            }
            Err(frame) => trailers = frame.into_trailers().ok()?,
        }
    }
    Some((all.freeze(), trailers))
}
