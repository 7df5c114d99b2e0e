//! Calls to other services: HTTP/1.1 with keep-alive, through the sidecar where there is one.
//!
//! A call ends after its timeout, which covers connecting, the head and the body, and a body ends
//! at 1 MiB. There is no TLS (that is for the sidecar to do) and no retry: who wants one, asks again.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, Uri, uri::Authority};
use http_body_util::BodyExt as _;
use hyper_util::{
    client::legacy,
    rt::{TokioExecutor, TokioTimer},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout};
use tower::ServiceExt as _;

use self::connect::Connector;
use crate::Services;

mod connect;

/// The most a response body may hold.
const RESPONSE_LIMIT: usize = 1 << 20;
/// How long an idle connection is kept: below what servers and proxies commonly keep theirs, so
/// that one is seldom closed as it is being used.
const IDLE: Duration = Duration::from_secs(15);
const MOST_IDLE: usize = 32;

/// Makes calls; clones share their connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    network: legacy::Client<Connector, Body>,
    in_process: Arc<HashMap<Authority, Router>>,
}

/// A call that was made, and how it ended.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) authority: Authority,
    pub(crate) took: Duration,
    pub(crate) outcome: Result<Answer, Failure>,
}

/// A response, all of it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why a call had no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The timeout passed.
    Elapsed(Duration),
    /// No connection could be made, with the reason.
    Unreachable(String),
    /// The connection broke, or spoke something else, before the response was complete.
    Broken(String),
    /// The response held more than a client is ready to keep.
    TooLarge,
}

// === impl Client ===

impl Client {
    pub(crate) fn of(services: &Services) -> Self {
        let network = legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE)
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(MOST_IDLE)
            .build(Connector::through(services.outbound));
        Self {
            network,
            in_process: Arc::new(services.in_process.clone()),
        }
    }

    /// Asks `authority` for `path`, for at most `limit`.
    ///
    /// # Panics
    ///
    /// Where `path` does not begin with a slash or could not be part of a URI.
    pub(crate) async fn get(
        &self,
        authority: &Authority,
        path: &str,
        headers: &HeaderMap,
        limit: Duration,
    ) -> Call {
        let uri = Uri::builder()
            .scheme("http")
            .authority(authority.clone())
            .path_and_query(path)
            .build()
            .expect("an authority and a path with a slash make a URI");
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();

        let start = Instant::now();
        let outcome = timeout(limit, self.exchange(authority, request))
            .await
            .unwrap_or(Err(Failure::Elapsed(limit)));
        Call {
            authority: authority.clone(),
            took: start.elapsed(),
            outcome,
        }
    }

    async fn exchange(
        &self,
        authority: &Authority,
        request: Request<Body>,
    ) -> Result<Answer, Failure> {
        let response = self.send(authority, request).await?;
        let (head, mut body) = response.into_parts();
        let mut kept = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::Broken(with_causes(&error)))?;
            let data = frame.into_data().unwrap_or_default();
            if kept.len() + data.len() > RESPONSE_LIMIT {
                return Err(Failure::TooLarge);
            }
            kept.extend_from_slice(&data);
        }
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: kept.into(),
        })
    }

    async fn send(
        &self,
        authority: &Authority,
        request: Request<Body>,
    ) -> Result<Response<Body>, Failure> {
        if let Some(router) = self.in_process.get(authority) {
            let Ok(response) = router.clone().oneshot(request).await;
            return Ok(response);
        }
        match self.network.request(request).await {
            Ok(response) => Ok(response.map(Body::new)),
            Err(error) if error.is_connect() => Err(Failure::Unreachable(with_causes(&error))),
            Err(error) => Err(Failure::Broken(with_causes(&error))),
        }
    }
}

// === impl Call ===

impl Call {
    /// What a 200 held; none for any other end, and for what is not a `T`.
    pub(crate) fn value<T: DeserializeOwned>(&self) -> Option<T> {
        let answer = self.outcome.as_ref().ok()?;
        if answer.status != StatusCode::OK {
            return None;
        }
        serde_json::from_slice(&answer.body).ok()
    }

    /// The status code, if there was an answer.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        self.outcome.as_ref().ok().map(|answer| answer.status)
    }

    /// The first value of a response header, as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let answer = self.outcome.as_ref().ok()?;
        answer.headers.get(name)?.to_str().ok()
    }
}

// === impl Failure ===

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elapsed(limit) => write!(f, "no answer within {} s", limit.as_secs_f32()),
            Self::Unreachable(why) => write!(f, "no connection: {why}"),
            Self::Broken(why) => write!(f, "no complete answer: {why}"),
            Self::TooLarge => write!(f, "the answer holds more than {RESPONSE_LIMIT} bytes"),
        }
    }
}

/// An error and what caused it on one line: a page has no other place to show the chain.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
