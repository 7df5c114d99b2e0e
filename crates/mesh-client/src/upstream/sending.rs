//! A request on its way over a connection of either codec.

use super::fault::Broken;
use super::outgoing::Outgoing;
use super::received::Received;
use crate::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use mesh_http1::client::NotAnswered;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// What either codec has for it. hyper's has no name.
#[pin_project::pin_project(project = Projected)]
pub(super) enum Sending<A, B> {
    Http1(#[pin] A),
    Http2(#[pin] B),
}

/// A request that got no response head; with the request if nothing of it was sent.
pub(super) struct NotSent {
    pub(super) error: Broken,
    pub(super) request: Option<Request<Body>>,
}

// === impl Sending ===

impl<A, B> Future for Sending<A, B>
where
    A: Future<Output = Result<Response<mesh_http1::Body>, NotAnswered<Body>>>,
    B: Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>>,
{
    type Output = Result<Response<Received>, NotSent>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.project() {
            Projected::Http1(sending) => {
                let response = ready!(sending.poll(cx))?;
                Ok(response.map(Received::Http1))
            }
            Projected::Http2(sending) => {
                let response = ready!(sending.poll(cx))?;
                Ok(response.map(Received::Http2))
            }
        })
    }
}

// === impl NotSent ===

impl From<NotAnswered<Body>> for NotSent {
    fn from(failed: NotAnswered<Body>) -> Self {
        Self {
            error: Broken::Http1(failed.error),
            request: failed.request.map(|request| *request),
        }
    }
}

impl From<TrySendError<Request<Outgoing>>> for NotSent {
    fn from(mut failed: TrySendError<Request<Outgoing>>) -> Self {
        let request = failed.take_message();
        Self {
            error: Broken::Http2(failed.into_error()),
            request: request.map(|request| request.map(Outgoing::into_inner)),
        }
    }
}
