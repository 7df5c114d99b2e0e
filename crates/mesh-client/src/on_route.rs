//! What a request's route says of the filters that judge it, before it is routed.

use http::Request;
use mesh_core::model::HttpManager;
use mesh_core::{Exchange, Matched};
use mesh_policy::OnRoute;
use mesh_route::route::{Notes, record};

/// The routes of a request, where any route says something of such filters.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    first: Option<Matched>,
    now: Option<Matched>,
}

// === impl Routes ===

impl Routes {
    /// Looks for the route of a request, once for all who judge it.
    #[cold]
    pub(crate) fn of<B>(notes: &Notes, request: &Request<B>) -> Self {
        let now = notes.foresee(request);
        Self {
            first: Exchange::of(request).and_then(Exchange::first_foreseen),
            now,
        }
    }

    /// As those who judge take it.
    pub(crate) fn on(&self) -> OnRoute<'_> {
        OnRoute::of(self.first.as_ref(), self.now.as_ref())
    }

    /// Nobody changes the route any more: the request goes on by the one that it was judged by, and
    /// not by another that chance draws. What is missing is still waited for.
    pub(crate) fn keep<B>(self, manager: &HttpManager, request: &Request<B>) {
        let Some((exchange, now)) = Exchange::of(request).zip(self.now) else {
            return;
        };
        let is_there = manager.on_demand.is_none() || now.cluster().is_some();
        if is_there && exchange.matched().is_none() {
            record(exchange, now, request);
        }
    }
}
