//! Sends each request to a host of the cluster that its route chose.
//!
//! [`Dispatch`] is the end of the policy stack: below it there is one service per host, made by a
//! [`MakeEndpoint`]. It is always ready; a host's service is cloned for the request and driven to
//! readiness inside the response future, so a host that has to wait holds up nobody else. Give each
//! worker its own `Dispatch`: clones of one share a table of services behind a lock that is only
//! uncontended while one thread uses them.
//!
//! It counts requests for the cluster and the host, tells outlier detection what became of them,
//! and holds on to the host until the response body has ended. Failures of a response body after
//! its head are not reported to outlier detection, and hosts that requests name themselves
//! (`DiscoveryKind::Authority`, `DiscoveryKind::OriginalDestination`) are counted but never ejected;
//! one that nobody names any more is forgotten once its last connection is closed. The request needs an
//! [`Exchange`]; without one use [`Balance`](crate::Balance).
//!
//! ```
//! use http::{Request, Response};
//! use mesh_core::model::ClusterEntry;
//! use mesh_lb::{Dispatch, Host};
//! use mesh_test::{empty, fixture, text};
//! use std::sync::Arc;
//! use tower::{ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let dispatch = Dispatch::new(|host: &Arc<Host>, _: &Arc<ClusterEntry>| {
//!     let address = host.address().to_string();
//!     service_fn(move |_: Request<_>| {
//!         let mut response = Response::new(text("hello"));
//!         response.headers_mut().insert("x-from", address.parse().expect("an address"));
//!         async { Ok::<_, std::convert::Infallible>(response) }
//!     })
//! });
//! let rule = mesh_core::model::Rule::prefix_to("/", "reviews");
//! let exchange = fixture::exchange(rule, Some(mesh_core::model::Cluster::new("reviews")));
//! let request = fixture::with(Request::new(empty()), &exchange);
//! let response = dispatch.oneshot(request).await?;
//! assert_eq!(response.headers()["x-from"], "127.0.0.1:9080");
//! # Ok::<_, mesh_core::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod answer;
mod authority;
mod choose;
mod drops;
mod flight;
mod future;
mod override_host;
mod table;
mod wanted;
mod worker;
mod zone;

pub use answer::Answer;
pub use choose::{Chooser, Chosen, Engaged};
pub use flight::Active;
pub(crate) use flight::Owner;
pub use future::ResponseFuture;
pub(crate) use wanted::Wanted;
pub(crate) use worker::Worker;
pub use zone::Zone;

use crate::MakeEndpoint;
use http::{Request, Response};
use http_body::Body;
use mesh_core::model::Snapshot;
use mesh_core::{BoxError, Error, Exchange, Failure, Rng};
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_service::Service;

/// A service that sends each request to a host of its route's cluster.
pub struct Dispatch<M: MakeEndpoint> {
    worker: Worker<M>,
}

// === impl Dispatch ===

impl<M: MakeEndpoint> Dispatch<M> {
    /// A dispatch with an empty table, for one worker. Choices are seeded by the system.
    pub fn new(make: M) -> Self {
        Self {
            worker: Worker::new(make),
        }
    }

    /// Draws from `rng` instead.
    #[must_use]
    pub fn rng(mut self, rng: Arc<Rng>) -> Self {
        self.worker.rng = rng;
        self
    }

    /// Says where the node is, for clusters whose localities are told apart.
    #[must_use]
    pub fn zone(mut self, zone: Arc<Zone>) -> Self {
        self.worker.zone = Some(zone);
        self
    }

    /// Drops what belongs to clusters and hosts that are not in `snapshot` any more. Requests do
    /// the same as they come; a worker calls this on every change of configuration, so that a
    /// cluster without traffic lets go of its connections too.
    pub fn adopt(&self, snapshot: &Snapshot) {
        self.worker.adopt(snapshot);
    }
}

impl<M: MakeEndpoint> Clone for Dispatch<M> {
    fn clone(&self) -> Self {
        Self {
            worker: self.worker.clone(),
        }
    }
}

impl<M: MakeEndpoint> fmt::Debug for Dispatch<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dispatch").field(&self.worker).finish()
    }
}

impl<M, B, R> Service<Request<B>> for Dispatch<M>
where
    M: MakeEndpoint,
    M::Service: Service<Request<B>, Response = Response<R>>,
    <M::Service as Service<Request<B>>>::Error: Into<BoxError>,
    R: Body,
{
    type Response = Response<Answer<R>>;
    type Error = Error;
    type Future = ResponseFuture<M::Service, B>;

    /// Always ready: which host has to be ready is not known before there is a request.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    /// # Errors
    /// The future fails with [`Failure::NoCluster`] where the request has no cluster, with
    /// [`Failure::NoHealthyHost`] where no host may be used, with [`Failure::DropOverload`] or
    /// [`Failure::UnconditionalDrop`] where discovery wants it refused, with [`Failure::MissingHost`] or
    /// [`Failure::BadRequest`] where the cluster goes by the request's authority and there is
    /// none (a cluster that goes by the original destination has no healthy host then), and otherwise as the host's service does.
    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let exchange = Exchange::of(&request).filter(|exchange| exchange.cluster().is_some());
        match exchange.cloned() {
            Some(exchange) => self.worker.call(Owner::Route(exchange), request),
            None => ResponseFuture::refused(Failure::NoCluster.into()),
        }
    }
}

#[cfg(test)]
mod tests;
