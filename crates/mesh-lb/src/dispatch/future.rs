//! The response future: make the host's service ready, call it, count what comes of it.

use super::answer::Answer;
use super::flight::Flight;
use http::{Request, Response, StatusCode};
use http_body::Body;
use mesh_core::upgrade::Tunnel;
use mesh_core::{BoxError, Error};
use pin_project::pin_project;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tower_service::Service;

/// The response future of [`Dispatch`](crate::Dispatch) and [`Balance`](crate::Balance).
#[pin_project]
pub struct ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    #[pin]
    state: State<S, B>,
    /// None when the request was refused. Dropped after the state, so a request that is given up
    /// leaves its host before it is counted as over.
    flight: Option<Flight>,
}

#[pin_project(project = StateProjection)]
// `Sent` is usually as large as `Waiting`, and a box would cost every request an allocation.
#[allow(clippy::large_enum_variant)]
enum State<S, B>
where
    S: Service<Request<B>>,
{
    /// There was nowhere to send it.
    Refused(Option<Error>),
    /// The service is not ready yet.
    Waiting(S, Option<Request<B>>),
    /// The request is under way.
    Sent(#[pin] S::Future),
}

// === impl ResponseFuture ===

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(crate) fn refused(error: Error) -> Self {
        Self {
            state: State::Refused(Some(error)),
            flight: None,
        }
    }

    pub(super) fn new(service: S, request: Request<B>, flight: Flight) -> Self {
        Self {
            state: State::Waiting(service, Some(request)),
            flight: Some(flight),
        }
    }
}

impl<S, B, R> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    R: Body,
{
    type Output = Result<Response<Answer<R>>, Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let result = loop {
            match this.state.as_mut().project() {
                StateProjection::Refused(error) => {
                    let error = error.take().expect("a future is not polled after its end");
                    return Poll::Ready(Err(error));
                }
                // Waiting -> Sent: the clone that became ready is the one that is called.
                StateProjection::Waiting(service, request) => {
                    match ready!(service.poll_ready(cx)) {
                        Ok(()) => {
                            let request = request.take().expect("a service is called once");
                            let response = service.call(request);
                            this.state.set(State::Sent(response));
                        }
                        Err(error) => break Err(error),
                    }
                }
                StateProjection::Sent(response) => match response.poll(cx) {
                    Poll::Ready(result) => break result,
                    Poll::Pending => {
                        if let Some(flight) = this.flight {
                            flight.goes_on();
                        }
                        return Poll::Pending;
                    }
                },
            }
        };
        Poll::Ready(match result {
            Ok(mut response) => {
                let mut active = this
                    .flight
                    .as_mut()
                    .and_then(|flight| flight.answered(&response));
                // It is under way for as long as both sides go on in what they switched to.
                if response.status() == StatusCode::SWITCHING_PROTOCOLS
                    && let Some(active) = active.take()
                {
                    Tunnel::of(response.extensions_mut()).keep(active);
                }
                Ok(response.map(|body| Answer::new(body, active)))
            }
            Err(error) => {
                let error = Error::wrap(error);
                if let Some(flight) = this.flight {
                    flight.failed(&error);
                }
                Err(error)
            }
        })
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Refused(_) => "ResponseFuture(refused)",
            State::Waiting(..) => "ResponseFuture(waiting)",
            State::Sent(_) => "ResponseFuture(sent)",
        })
    }
}
