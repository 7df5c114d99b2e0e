//! A request that is explained while it is served: the answer goes on its response.

use super::bound::as_header;
use super::report;
use super::token::{NAME, Token};
use http::Request;
use mesh_core::Exchange;

/// A request that asked for it with the right token, on its way.
#[derive(Debug)]
pub(crate) struct Served {
    head: Request<()>,
    exchange: Exchange,
}

// === impl Served ===

impl Served {
    /// Takes the header out of a request, so that nobody below sees it, and says whether it had the
    /// token.
    pub(crate) fn is_asked<B>(token: &Token, request: &mut Request<B>) -> bool {
        token.take(request.headers_mut())
    }

    /// Keeps the head of a request as admission left it.
    pub(crate) fn new<B>(request: &Request<B>, exchange: Exchange) -> Self {
        let mut head = Request::new(());
        *head.method_mut() = request.method().clone();
        *head.uri_mut() = request.uri().clone();
        *head.headers_mut() = request.headers().clone();
        Self { head, exchange }
    }

    /// Records the answer for the response, whoever makes that.
    pub(crate) fn answer(self) {
        let report = |bound| report::of_served(&self.head, &self.exchange, bound);
        let answer = as_header(|bound| report(bound).unwrap_or_default());
        if let Some(answer) = answer {
            self.exchange.add_reply_header(NAME, answer);
        }
    }
}
