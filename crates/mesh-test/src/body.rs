//! Boxed bodies, as an application that we know nothing about would send.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use mesh_core::BoxError;
use std::convert::Infallible;

/// A body of a type that no layer of ours knows.
pub type BoxedBody = BoxBody<Bytes, BoxError>;

/// An empty body.
pub fn empty() -> BoxedBody {
    text("")
}

/// A body with this text.
pub fn text(text: &'static str) -> BoxedBody {
    Full::new(Bytes::from_static(text.as_bytes()))
        .map_err(|never: Infallible| match never {})
        .boxed()
}

/// A body in several chunks, optionally with trailers, whose length is not known beforehand.
pub fn chunks(
    parts: impl IntoIterator<Item = &'static str, IntoIter: Send + Sync + Unpin + 'static>,
    trailers: Option<HeaderMap>,
) -> BoxedBody {
    let frames = parts
        .into_iter()
        .map(|part| Frame::data(Bytes::from_static(part.as_bytes())))
        .chain(trailers.map(Frame::trailers))
        .map(Ok::<_, BoxError>);
    BodyExt::boxed(StreamBody::new(Iter(frames)))
}

/// A stream over an iterator.
struct Iter<I>(I);

impl<I: Iterator + Unpin> futures_core::Stream for Iter<I> {
    type Item = I::Item;
    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

/// Reads a body to its end as text.
///
/// # Panics
/// If the body fails or is not UTF-8.
pub async fn read<B>(body: B) -> String
where
    B: Body,
    B::Error: std::fmt::Debug,
{
    read_all(body).await.0
}

/// Reads a body to its end: text and trailers.
///
/// # Panics
/// If the body fails or is not UTF-8.
pub async fn read_all<B>(body: B) -> (String, Option<HeaderMap>)
where
    B: Body,
    B::Error: std::fmt::Debug,
{
    let collected = body.collect().await.expect("the body ends well");
    let trailers = collected.trailers().cloned();
    let bytes = collected.to_bytes();
    (
        String::from_utf8(bytes.to_vec()).expect("the body is text"),
        trailers,
    )
}
