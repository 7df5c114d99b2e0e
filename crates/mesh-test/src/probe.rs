//! An inner service that watches how it is used.

use crate::{BoxedBody, text};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::Body;
use http_body_util::BodyExt;
use mesh_core::{BoxError, Exchange};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;

/// An inner service for tests. Clones share their record; readiness belongs to each clone.
///
/// A call on a clone that was not ready itself panics: that is the mistake which every service
/// behind a `Buffer` or a `ConcurrencyLimit` punishes in production.
#[derive(Debug)]
pub struct Probe {
    record: Arc<Record>,
    ready: bool,
}

#[derive(Debug, Default)]
struct Record {
    calls: AtomicUsize,
    dropped: AtomicUsize,
    answers: Mutex<VecDeque<Answers>>,
    requests: Mutex<Vec<Request<Bytes>>>,
}

/// What a [`Probe`] does with one request.
#[derive(Clone, Debug)]
pub enum Answers {
    /// Reads the request's body, then answers with this status and text.
    With(StatusCode, &'static str),
    /// As `With`, with headers.
    WithHeaders(StatusCode, HeaderMap, &'static str),
    /// As `With`, but only after this long.
    After(Duration, StatusCode),
    /// Fails with our error.
    Fails(mesh_core::Failure),
    /// Fails with an error that is not ours.
    FailsForeign(&'static str),
    /// Never answers.
    Never,
}

/// Counts a response future that is dropped before it was done.
struct Unfinished(Arc<Record>, bool);

// === impl Probe ===

impl Probe {
    /// A probe that answers 200 `ok` to everything.
    pub fn new() -> Self {
        Self {
            record: Arc::default(),
            ready: false,
        }
    }

    /// A probe that gives these answers in turn, and after them 200 `ok`.
    pub fn answering(answers: impl IntoIterator<Item = Answers>) -> Self {
        let probe = Self::new();
        probe
            .record
            .answers
            .lock()
            .expect("no test panicked here")
            .extend(answers);
        probe
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.record.calls.load(Ordering::SeqCst)
    }

    /// How many response futures were dropped before they were done.
    pub fn dropped(&self) -> usize {
        self.record.dropped.load(Ordering::SeqCst)
    }

    /// The requests whose bodies were read whole, in the order in which they were.
    pub fn requests(&self) -> Vec<Request<Bytes>> {
        self.record
            .requests
            .lock()
            .expect("no test panicked here")
            .clone()
    }

    /// Method and URI of the requests, for short assertions.
    pub fn seen(&self) -> Vec<(Method, Uri)> {
        self.requests()
            .iter()
            .map(|r| (r.method().clone(), r.uri().clone()))
            .collect()
    }
}

impl Default for Probe {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        Self {
            record: self.record.clone(),
            ready: false,
        }
    }
}

impl<B> Service<Request<B>> for Probe
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<BoxedBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(
            std::mem::take(&mut self.ready),
            "a service was called without its own poll_ready having said that it is ready"
        );
        let record = self.record.clone();
        record.calls.fetch_add(1, Ordering::SeqCst);
        let answer = record
            .answers
            .lock()
            .expect("no test panicked here")
            .pop_front();
        Box::pin(async move {
            let mut unfinished = Unfinished(record, false);
            let (head, body) = request.into_parts();
            let result = answer_one(answer, &unfinished.0, head, body).await;
            unfinished.1 = true;
            result
        })
    }
}

async fn answer_one<B>(
    answer: Option<Answers>,
    record: &Record,
    head: http::request::Parts,
    body: B,
) -> Result<Response<BoxedBody>, BoxError>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let answer = answer.unwrap_or(Answers::With(StatusCode::OK, "ok"));
    match &answer {
        Answers::Never => std::future::pending().await,
        Answers::Fails(failure) => return Err(mesh_core::Error::new(*failure).into()),
        Answers::FailsForeign(text) => return Err((*text).into()),
        Answers::After(delay, _) => tokio::time::sleep(*delay).await,
        Answers::With(..) | Answers::WithHeaders(..) => {}
    }
    let bytes = body.collect().await.map_err(Into::into)?.to_bytes();
    let exchange = head.extensions.get::<Exchange>().cloned();
    let mut copy = Request::builder()
        .method(head.method)
        .uri(head.uri)
        .body(bytes)?;
    *copy.headers_mut() = head.headers;
    if let Some(exchange) = exchange {
        exchange.attach(&mut copy);
    }
    record
        .requests
        .lock()
        .expect("no test panicked here")
        .push(copy);
    let (status, headers, body) = match answer {
        Answers::With(status, body) => (status, HeaderMap::new(), body),
        Answers::WithHeaders(status, headers, body) => (status, headers, body),
        Answers::After(_, status) => (status, HeaderMap::new(), "late"),
        _ => unreachable!("answered above"),
    };
    let mut response = Response::new(text(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.1 {
            self.0.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}
