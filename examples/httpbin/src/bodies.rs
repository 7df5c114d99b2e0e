//! Endpoints whose answer is large, chunked or slow: `/bytes`, `/stream`, `/stream-bytes`, `/drip`.
//!
//! Bodies are made while they are read, so 100 MiB cost one block of memory. The byte at offset
//! `i` is always the letter `i % 26`, whatever the size of the chunks.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Path, Query},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{StatusCode, header::CONTENT_TYPE};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, Sleep};

use crate::{echo::Head, outcomes::seconds};

/// The most `/bytes` and `/stream-bytes` send.
const MOST_BYTES: u64 = 100 << 20;
/// The most lines `/stream` sends, as in the original.
const MOST_LINES: u32 = 100;
/// The most `/drip` sends, in how many steps, and the longest it waits or takes.
const MOST_DRIPPED: u64 = 10 << 20;
const MOST_DROPS: u64 = 100;
/// The size of one chunk, a whole number of alphabets.
const BLOCK: usize = 26 * 2520;

#[derive(Debug, Deserialize)]
pub(crate) struct Chunking {
    chunk_size: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Drip {
    duration: f64,
    numbytes: u64,
    code: u16,
    delay: f64,
}

pub(crate) async fn bytes(Path(n): Path<u64>) -> Response {
    if n > MOST_BYTES {
        return refused("at most 104857600 bytes");
    }
    let letters = Letters::in_chunks_of(BLOCK, n);
    binary(StatusCode::OK, Made::of_length(letters, n))
}

pub(crate) async fn stream_bytes(
    Path(n): Path<u64>,
    Query(Chunking { chunk_size }): Query<Chunking>,
) -> Response {
    if n > MOST_BYTES {
        return refused("at most 104857600 bytes");
    }
    let chunk_size = chunk_size.unwrap_or(10 << 10).clamp(1, BLOCK);
    let letters = Letters::in_chunks_of(chunk_size, n);
    binary(StatusCode::OK, Made::of_unknown_length(letters))
}

pub(crate) async fn stream(Path(n): Path<u32>, head: Head) -> Response {
    let lines = (0..n.min(MOST_LINES)).map(move |id| {
        let line = json!({
            "id": id,
            "args": head.args,
            "headers": head.headers,
            "origin": head.origin,
            "url": head.url,
        });
        Bytes::from(format!("{line}\n"))
    });
    let body = Body::new(Made::of_unknown_length(lines));
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

pub(crate) async fn drip(Query(drip): Query<Drip>) -> Response {
    let (Some(delay), Some(duration)) = (seconds(drip.delay), seconds(drip.duration)) else {
        return refused("`delay` and `duration` are seconds, not below 0");
    };
    let Ok(code) = StatusCode::from_u16(drip.code) else {
        return refused("`code` is a status code");
    };
    if drip.numbytes > MOST_DRIPPED || code.as_u16() < 200 {
        return refused("at most 10485760 bytes, with a final status code");
    }
    tokio::time::sleep(delay).await;
    let drops = drip.numbytes.clamp(1, MOST_DROPS);
    let drop_size = drip.numbytes.div_ceil(drops).max(1) as usize;
    let letters = Letters::in_chunks_of(drop_size, drip.numbytes);
    let interval = duration.div_f64(drops as f64);
    binary(
        code,
        Made::of_length(letters, drip.numbytes).every(interval),
    )
}

fn binary<I>(code: StatusCode, body: Made<I>) -> Response
where
    I: Iterator<Item = Bytes> + Send + Unpin + 'static,
{
    let media = [(CONTENT_TYPE, "application/octet-stream")];
    (code, media, Body::new(body)).into_response()
}

fn refused(expected: &'static str) -> Response {
    (StatusCode::BAD_REQUEST, format!("{expected}\n")).into_response()
}

/// Chunks of the alphabet, over and over.
struct Letters {
    /// One chunk and an alphabet more, so that a chunk may begin at any letter.
    block: Bytes,
    chunk_size: usize,
    sent: u64,
    length: u64,
}

/// A body of the chunks of an iterator, all at once or one every so often.
struct Made<I> {
    chunks: I,
    left: Option<u64>,
    pace: Option<(Duration, Pin<Box<Sleep>>)>,
}

// === impl Drip ===

impl Default for Drip {
    fn default() -> Self {
        Self {
            duration: 2.0,
            numbytes: 10,
            code: 200,
            delay: 2.0,
        }
    }
}

// === impl Letters ===

impl Letters {
    fn in_chunks_of(chunk_size: usize, length: u64) -> Self {
        let longest = usize::try_from(length).map_or(chunk_size, |length| length.min(chunk_size));
        let block = (b'a'..=b'z').cycle().take(longest + 26).collect();
        Self {
            block,
            chunk_size,
            sent: 0,
            length,
        }
    }
}

impl Iterator for Letters {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let size = (self.length - self.sent).min(self.chunk_size as u64);
        if size == 0 {
            return None;
        }
        let start = (self.sent % 26) as usize;
        self.sent += size;
        Some(self.block.slice(start..start + size as usize))
    }
}

// === impl Made ===

impl<I> Made<I> {
    fn of_length(chunks: I, length: u64) -> Self {
        Self {
            chunks,
            left: Some(length),
            pace: None,
        }
    }

    fn of_unknown_length(chunks: I) -> Self {
        Self {
            chunks,
            left: None,
            pace: None,
        }
    }

    fn every(self, interval: Duration) -> Self {
        Self {
            pace: Some((interval, Box::pin(tokio::time::sleep(interval)))),
            ..self
        }
    }
}

impl<I> HttpBody for Made<I>
where
    I: Iterator<Item = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        // A body that has sent all it promised must not wait another interval to say so.
        if self.left == Some(0) {
            return Poll::Ready(None);
        }
        if let Some((interval, sleep)) = &mut self.pace {
            ready!(sleep.as_mut().poll(cx));
            let next = Instant::now() + *interval;
            sleep.as_mut().reset(next);
        }
        let chunk = self.chunks.next();
        if let (Some(left), Some(chunk)) = (&mut self.left, &chunk) {
            *left -= chunk.len() as u64;
        }
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}
