//! Where a mirror's copies go.

use super::Executor;
use bytes::Buf;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use mesh_core::model::{self, ClusterEntry, DiscoveryKind, Fraction};
use mesh_core::{Exchange, Rng, upgrade};
use std::future::poll_fn;
use std::pin::pin;
use tower_service::Service;

/// Copies go through a clone of the inner service, to the clusters that the matched rule names.
#[derive(Clone, Copy, Debug)]
pub struct PerRoute;

/// Copies go to a service of their own.
#[derive(Clone, Debug)]
pub struct Fixed<T> {
    pub(super) service: T,
    pub(super) share: Fraction,
    pub(super) shadow_host: bool,
}

/// Where copies go: [`PerRoute`] or [`Fixed`]. Only this crate can implement it to any effect,
/// since nothing else can make a [`Planned`].
pub trait Shadow<S, O> {
    /// The copies of a request with these headers and this exchange.
    fn plan(&self, headers: &HeaderMap, exchange: Option<&Exchange>, rng: &Rng) -> Vec<Planned>;

    /// Sends a copy; whatever comes of it is thrown away. `inner` is what the request itself goes
    /// through.
    fn send<E: Executor>(&self, inner: &S, copy: Request<O>, executor: &E);
}

/// One copy that is to be made.
#[derive(Debug)]
pub struct Planned {
    pub(super) exchange: Option<Exchange>,
    pub(super) shadow_host: bool,
    /// It says that it comes from a proxy.
    pub(super) internal: bool,
    /// What changes it. None for most.
    pub(super) mirror: Option<Box<model::Mirror>>,
}

/// Whether a request may be copied at all: what it opens is a tunnel otherwise.
pub(super) fn can_be_copied<B>(request: &Request<B>, exchange: Option<&Exchange>) -> bool {
    request.method() != Method::CONNECT
        && upgrade::of(request.headers()).is_none()
        && !exchange.is_some_and(Exchange::is_shadow)
}

// === impl PerRoute ===

impl<S, O, R> Shadow<S, O> for PerRoute
where
    S: Service<Request<O>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    R: Body + Send + 'static,
    R::Data: Send,
    R::Error: Send,
    O: Send + 'static,
{
    fn plan(&self, headers: &HeaderMap, exchange: Option<&Exchange>, rng: &Rng) -> Vec<Planned> {
        let Some((exchange, matched)) = exchange.and_then(|of| Some((of, of.matched()?))) else {
            return Vec::new();
        };
        let mirrors = &matched.rule().mirrors;
        if mirrors.is_empty()
            || matched
                .cluster()
                .is_some_and(|cluster| has_no_host(cluster))
        {
            return Vec::new();
        }
        let drawn = mirrors
            .iter()
            .filter(|mirror| mirror.share.admits(rng.word()));
        drawn
            .filter_map(|mirror| {
                // A mirror to a cluster that does not exist changes nothing for the caller.
                let name = match &mirror.cluster_header {
                    Some(header) => headers.get(header)?.to_str().ok()?,
                    None => &mirror.cluster,
                };
                let cluster = matched.snapshot().cluster_index(name)?;
                let matched = matched.clone().to(None, Some(cluster));
                Some(Planned {
                    exchange: Some(exchange.for_shadow(matched)),
                    // A host of its own stays as it is (Envoy `host_rewrite_literal`).
                    shadow_host: mirror.shadow_host && mirror.authority.is_none(),
                    internal: true,
                    mirror: changes(mirror).then(|| Box::new(mirror.clone())),
                })
            })
            .collect()
    }

    fn send<E: Executor>(&self, inner: &S, copy: Request<O>, executor: &E) {
        executor.spawn(Box::pin(discard(inner.clone(), copy)));
    }
}

fn changes(mirror: &model::Mirror) -> bool {
    mirror.authority.is_some() || !mirror.edits.is_empty()
}

/// What has no host to go to is not copied either: Envoy's router fails before it copies.
fn has_no_host(cluster: &ClusterEntry) -> bool {
    let listed = matches!(
        cluster.config().discovery,
        DiscoveryKind::Endpoints | DiscoveryKind::StrictDns | DiscoveryKind::LogicalDns
    );
    listed && cluster.live().endpoints().load().is_empty()
}

// === impl Fixed ===

impl<S, O, T, R> Shadow<S, O> for Fixed<T>
where
    T: Service<Request<O>, Response = Response<R>> + Clone + Send + 'static,
    T::Future: Send,
    T::Error: Send,
    R: Body + Send + 'static,
    R::Data: Send,
    R::Error: Send,
    O: Send + 'static,
{
    fn plan(&self, _: &HeaderMap, exchange: Option<&Exchange>, rng: &Rng) -> Vec<Planned> {
        if !self.share.admits(rng.word()) {
            return Vec::new();
        }
        let matched = exchange.and_then(|of| Some((of, of.matched()?)));
        vec![Planned {
            exchange: matched.map(|(exchange, matched)| exchange.for_shadow(matched.clone())),
            shadow_host: self.shadow_host,
            internal: false,
            mirror: None,
        }]
    }

    fn send<E: Executor>(&self, _: &S, copy: Request<O>, executor: &E) {
        executor.spawn(Box::pin(discard(self.service.clone(), copy)));
    }
}

/// Makes the request and reads its response to the end, so that the connection can be used again.
async fn discard<S, O, R>(mut service: S, request: Request<O>)
where
    S: Service<Request<O>, Response = Response<R>>,
    R: Body,
    R::Data: Buf,
{
    if poll_fn(|cx| service.poll_ready(cx)).await.is_err() {
        return;
    }
    let Ok(response) = service.call(request).await else {
        return;
    };
    let mut body = pin!(response.into_body());
    while let Some(Ok(_)) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {}
}
