//! The server's side of a connection.
//!
//! A [`Connection`] is a future that reads a request, calls a service, and writes what it answers,
//! all in its own task. While it waits for a request it holds no buffer and no service future.

mod connection;
mod exchange;
mod strict;

pub use self::connection::Connection;
pub(crate) use self::exchange::send;

use crate::{Body, BoxError, Buffers, HeadError, Limits, RequestHead};
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

/// Serves connections, each with the same settings.
#[derive(Clone, Debug)]
pub struct Server {
    buffers: Buffers,
    settings: Settings,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    limits: Limits,
    head_timeout: Option<Duration>,
    date: bool,
    http10: bool,
    trailers: bool,
    http2: bool,
    tells_refusals: bool,
    strict: bool,
}

/// What a service is called with where there is no request: an extension of an empty one. What the
/// service answers is sent, and the connection closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// The head cannot be one.
    Head(HeadError),
    /// The head did not come in time.
    Timeout,
}

/// What is left of a connection that is not HTTP/1.
#[derive(Debug)]
#[non_exhaustive]
pub struct Parts<Io, S> {
    /// The connection.
    pub io: Io,
    /// What was read of it.
    pub first: Bytes,
    /// The service, which was not called.
    pub service: S,
}

// === impl Server ===

impl Server {
    /// A server with these buffers, default limits, no limit on the time of a head, and a `date` in
    /// responses that have none.
    pub fn with_buffers(buffers: Buffers) -> Self {
        let settings = Settings {
            limits: Limits::default(),
            head_timeout: None,
            date: true,
            http10: true,
            trailers: true,
            http2: false,
            tells_refusals: false,
            strict: false,
        };
        Self { buffers, settings }
    }

    /// What a request head may be.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// How long a head may take from its first byte to its last; then the answer is 408. As Envoy's
    /// `request_headers_timeout`. How long a connection may idle is for the caller to decide.
    pub fn head_timeout(mut self, limit: Option<Duration>) -> Self {
        self.settings.head_timeout = limit;
        self
    }

    /// Whether responses without a `date` get one (RFC 9110 §6.6.1).
    pub fn date(mut self, date: bool) -> Self {
        self.settings.date = date;
        self
    }

    /// Whether requests of HTTP/1.0 are taken, as Envoy's `accept_http_10`. Default true; else they
    /// are answered 426.
    pub fn http10(mut self, taken: bool) -> Self {
        self.settings.http10 = taken;
        self
    }

    /// Whether callers that say `te: trailers` get those of a response, as Envoy's `enable_trailers`.
    /// Default true.
    pub fn trailers(mut self, sent: bool) -> Self {
        self.settings.trailers = sent;
        self
    }

    /// Whether a connection that begins as one of HTTP/2 ends with [`Error::Http2`](crate::Error::Http2) instead of a
    /// refusal, so that [`Connection::into_parts`] is to be served otherwise. Default false.
    pub fn gives_up_http2(mut self, gives_up: bool) -> Self {
        self.settings.http2 = gives_up;
        self
    }

    /// Whether the service is told, as [`Refused`], of heads that are no request, and answers them.
    /// Default false: they are answered without a body.
    pub fn tells_refusals(mut self, tells: bool) -> Self {
        self.settings.tells_refusals = tells;
        self
    }

    /// Whether heads are refused, too, that can be read but that Envoy's codec refuses: methods that
    /// are not registered, targets of a form that the method does not take or with bytes beyond
    /// ASCII, a `host` that is none or there twice, and a `connection` that names
    /// `x-forwarded-for`, `-host` or `-proto`, a pseudo-header, or more than nine options. Default
    /// false.
    pub fn strict(mut self, strict: bool) -> Self {
        self.settings.strict = strict;
        self
    }

    /// Serves a connection of which `first` was read already.
    pub fn serve<Io, S, B>(&self, io: Io, first: &[u8], service: S) -> Connection<Io, S, B>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Body>, Response = Response<B>>,
        S::Error: Into<BoxError>,
        B: http_body::Body,
        B::Error: Into<BoxError>,
    {
        Connection::new(io, first, service, self.buffers.clone(), self.settings)
    }
}

// === impl Refused ===

impl Refused {
    /// What it is answered, as by Envoy.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Head(error) => error.status(),
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
        }
    }
}

// === impl Settings ===

impl Settings {
    /// What was read has to be a request that is taken here.
    fn check(&self, head: &RequestHead) -> Result<(), HeadError> {
        if self.strict {
            strict::check(&head.request, head.names_options)?;
        }
        if !self.http10 && head.request.version() == Version::HTTP_10 {
            return Err(HeadError::Version);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
