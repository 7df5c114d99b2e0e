//! What came of a request.

use crate::place::{ANSWER, Layered};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use mesh_core::{BoxError, Error, reply};
use mesh_test::Probe;
use tower::ServiceExt;

/// Says which failure came out of the layer, on the answer that was made of it.
const FAILURE: &str = "x-failure";

/// What came of one request.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The caller speaks gRPC.
    pub(crate) grpc: bool,
    status: StatusCode,
    trailers: HeaderMap,
    upstream: Probe,
}

impl Outcome {
    /// What the upstream received, until now.
    pub(crate) fn received(&self) -> Vec<Request<Bytes>> {
        self.upstream.requests()
    }

    /// The failure that came out of the layer.
    pub(crate) fn failure(&self) -> Option<&str> {
        let failure = self.headers.get(FAILURE)?;
        Some(failure.to_str().unwrap())
    }

    /// The status as the caller reads it: gRPC's, if it speaks gRPC and there is one.
    pub(crate) fn status(&self) -> u16 {
        let name = "grpc-status";
        let status = self.headers.get(name).or_else(|| self.trailers.get(name));
        match status.filter(|_| self.grpc) {
            Some(status) => status.to_str().unwrap().parse().unwrap(),
            None => self.status.as_u16(),
        }
    }

    /// Checks that the upstream's answer came through whole.
    pub(crate) fn is_from_upstream(&self) {
        assert_eq!(self.failure(), None);
        assert_eq!(self.status, 200);
        assert_eq!(self.body, ANSWER);
        assert_eq!(self.trailers.contains_key("grpc-status"), self.grpc);
    }

    /// Checks that the upstream never saw the request.
    pub(crate) fn never_left(&self) {
        assert_eq!(self.upstream.calls(), 0);
    }
}

/// The answer for an error that came out of a layer: in plain HTTP, so that what the layer decided
/// can be seen.
pub(crate) async fn answer<E: Into<BoxError>>(error: E) -> Response<Body> {
    let error = Error::wrap(error);
    let failure = HeaderValue::try_from(format!("{:?}", error.failure())).unwrap();
    let answer = reply::answer(error, reply::Asked::default());
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response.headers_mut().insert(FAILURE, failure);
    response
}

/// Sends the request and reads the answer to its end.
pub(crate) async fn outcome<S, B>(service: S, request: Request<B>, upstream: Probe) -> Outcome
where
    S: Layered<B>,
{
    let grpc = reply::is_grpc(request.headers());
    let response = match service.oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => answer(error).await,
    };
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("the body ends well");
    Outcome {
        headers: head.headers,
        grpc,
        status: head.status,
        trailers: body.trailers().cloned().unwrap_or_default(),
        body: body.to_bytes(),
        upstream,
    }
}
