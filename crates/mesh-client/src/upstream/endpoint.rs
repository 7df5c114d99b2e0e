//! One endpoint as a service.

use super::connect::Connector;
use super::lane::Protocol;
use super::pool::{Checkout, Pool};
use super::sending::NotSent;
use super::variant::Variant;
use super::{fault, head};
use crate::Body;
use crate::tcp::Tunnelled;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use mesh_core::model::{ClusterEntry, UpstreamProtocol};
use mesh_core::stats::ClusterStat;
use mesh_core::upgrade::{self, UNSUCCESSFUL};
use mesh_core::{Error, Exchange, Failure, Shard};
use mesh_http1::{Buffers, Limits};
use mesh_lb::{Host, MakeEndpoint};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Instant;
use tower_service::Service;

/// How often a request that was never sent is moved to another connection, when the one that it
/// was given turns out to be closed.
const MOST_STALE: u32 = 3;

/// Makes one worker's [`Endpoint`] services. Clones share their pools.
#[derive(Clone)]
pub struct Upstreams {
    connector: Connector,
    http1: mesh_http1::Client,
    shard: Shard,
    pools: Arc<Mutex<Vec<Weak<Pool>>>>,
}

/// Sends requests to one endpoint over pooled connections.
#[derive(Clone)]
pub struct Endpoint {
    pool: Arc<Pool>,
    entry: Arc<ClusterEntry>,
}

// === impl Upstreams ===

impl Upstreams {
    /// Endpoints reached over TCP, by the worker with this shard.
    ///
    /// Connections are driven by tasks on the tokio runtime that the requests are made on. Each
    /// ends when its endpoint's services are dropped, or when the connection is closed.
    pub fn new(shard: Shard) -> Self {
        Self::connecting(Connector::System, shard)
    }

    fn connecting(connector: Connector, shard: Shard) -> Self {
        Self {
            connector,
            http1: http1(Buffers::default()),
            shard,
            pools: Arc::default(),
        }
    }

    /// Reads and writes HTTP/1 with these buffers rather than with some of its own: those that the
    /// worker has for the connections of callers, too. To be said before any endpoint is made.
    #[must_use]
    pub fn buffers(mut self, buffers: Buffers) -> Self {
        self.http1 = http1(buffers);
        self
    }

    #[cfg(test)]
    pub(crate) fn with_connector(connector: Connector) -> Self {
        Self::connecting(connector, Shard::default())
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    pub(crate) fn shard(&self) -> Shard {
        self.shard
    }

    #[cfg(test)]
    pub(crate) fn pools(&self) -> (usize, usize) {
        let pools = self.pools.lock().unwrap();
        let alive = pools.iter().filter(|pool| pool.strong_count() > 0);
        (pools.len(), alive.count())
    }

    /// How many pools there are for connections that are special.
    #[cfg(test)]
    pub(crate) fn kinds(&self) -> usize {
        let pools = self.pools.lock().unwrap();
        let live = pools.iter().filter_map(Weak::upgrade);
        live.map(|pool| pool.kinds()).sum()
    }

    /// Closes connections that were unused for longer than their cluster's idle timeout. To be
    /// called now and then, by whoever owns the worker; a request never waits for it.
    pub fn sweep(&self, now: Instant) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|pool| pool.strong_count() > 0);
        let live: Vec<_> = pools.iter().filter_map(Weak::upgrade).collect();
        drop(pools);
        for pool in live {
            pool.sweep(now);
        }
    }
}

impl MakeEndpoint for Upstreams {
    type Service = Endpoint;

    const COUNTS_REQUESTS: bool = true;

    fn make(&self, host: &Arc<Host>, cluster: &Arc<ClusterEntry>) -> Endpoint {
        let codec = (self.connector.clone(), self.http1.clone());
        let pool = Pool::new(codec, host.clone(), self.shard, cluster);
        let pool = Arc::new(pool);
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if pools.len() == pools.capacity() {
            // Before it grows: nobody has to call `sweep`.
            pools.retain(|pool| pool.strong_count() > 0);
        }
        pools.push(Arc::downgrade(&pool));
        Endpoint {
            pool,
            entry: cluster.clone(),
        }
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams")
            .field("shard", &self.shard)
            .finish_non_exhaustive()
    }
}

// === impl Endpoint ===

impl Service<Request<Body>> for Endpoint {
    type Response = Response<Body>;
    type Error = Error;
    // hyper's own future has no name, so this one is boxed.
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let exchange = Exchange::of(&request).cloned();
        // The configuration in force for this request, not the one that the pool was made with.
        let cluster = exchange.as_ref().and_then(Exchange::cluster);
        let entry = cluster
            .filter(|entry| entry.key() == self.entry.key())
            .unwrap_or(&self.entry);
        Box::pin(send(self.pool.clone(), entry.clone(), exchange, request))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("cluster", self.entry.live().name())
            .finish_non_exhaustive()
    }
}

/// As Envoy's codec for upstreams (`Http1::ClientConnectionImpl`, `MAX_RESPONSE_HEADERS_KB`).
pub(crate) fn http1(buffers: Buffers) -> mesh_http1::Client {
    mesh_http1::Client::with_buffers(buffers)
        .limits(Limits::of(80 << 10, 100))
        // As Envoy without `enable_trailers`.
        .trailers(false)
}

#[expect(
    clippy::manual_async_fn,
    reason = "an async fn has a place for its arguments and another one for what they become"
)]
fn send(
    pool: Arc<Pool>,
    entry: Arc<ClusterEntry>,
    exchange: Option<Exchange>,
    mut request: Request<Body>,
) -> impl Future<Output = Result<Response<Body>, Error>> + Send {
    async move {
        let config = entry.config();
        let caller = exchange.as_ref().map(Exchange::caller);
        let upgrades = upgrade::of(request.headers()).is_some();
        let websocket = upgrades && upgrade::is_websocket(request.headers());
        let opens_tunnel = request.method() == Method::CONNECT
            && request.extensions().get::<Tunnelled>().is_some();
        let tls = config.tls_to(pool.host.endpoint());
        let protocol = match config.protocol {
            UpstreamProtocol::Http2 if !upgrades => Protocol::Http2,
            UpstreamProtocol::Alpn if !upgrades && tls.is_some() => Protocol::Alpn,
            UpstreamProtocol::AsDownstream if request.version() == Version::HTTP_2 => {
                Protocol::Http2
            }
            _ => Protocol::Http1,
        };
        let priority = exchange.as_ref().map(Exchange::priority);
        let variant = Variant::of_request(config, tls, caller, &request)
            .of_priority(priority.unwrap_or_default());
        let secured = tls.is_some();
        let pool = if variant.is_default() {
            pool
        } else {
            pool.variant(variant, &entry)
        };
        let (mut stale, mut unit) = (0, None);
        loop {
            let mut sent_at = pool.now();
            let mut lease = match pool.checkout(protocol, &entry, sent_at) {
                Ok(Checkout::Ready(lease)) => lease,
                Ok(Checkout::Wait(place)) => {
                    let lease = place.served().await?;
                    sent_at = pool.now();
                    lease
                }
                Err(error) => {
                    // It met a limit before it was on its way to the host (as in Envoy's log).
                    if let Some(exchange) = &exchange {
                        exchange.with_notes_mut(|notes| notes.upstream = None);
                    }
                    return Err(error);
                }
            };
            if unit.is_none() {
                unit = Some(pool.admit(&entry)?);
                pool.host.sending();
                pool.count(ClusterStat::RqTotal);
            }
            if lease.speaks_http2() {
                let secure = head::is_secure(&request, secured);
                head::for_http2(&mut request, secure);
            } else {
                head::for_http1(&mut request);
            }
            if let Some(exchange) = &exchange {
                exchange.with_notes_mut(|notes| {
                    notes.sent_at = Some(sent_at);
                    if let Some(upstream) = &mut notes.upstream {
                        upstream.remote = lease.meta().remote;
                        upstream.local = lease.meta().local;
                    }
                });
            }
            let error = match lease.send(request).await {
                Ok(response) => {
                    lease.hold(unit);
                    let head_at = pool.now();
                    let (mut head, body) = response.into_parts();
                    if head.status != StatusCode::SWITCHING_PROTOCOLS {
                        head::strip(&mut head.headers, false);
                    } else if !upgrades {
                        // Nobody asked for it, so nobody would take the connection over.
                        return Err(Error::new(Failure::UpstreamProtocol));
                    }
                    // What an HTTP/1.0 server says of its version is not what we say of ours.
                    head.version = head.version.max(Version::HTTP_11);
                    // Of an answer that comes early nobody knows how long it took (Envoy
                    // `Filter::onUpstreamHeaders`), and whoever upgrades never ends its request.
                    if exchange.as_ref().is_none_or(Exchange::request_is_whole) {
                        let taken = head_at.saturating_duration_since(sent_at);
                        stamp(&mut head.headers, taken);
                    }
                    if let Some(exchange) = &exchange {
                        exchange.with_notes_mut(|notes| notes.head_at = Some(head_at));
                    }
                    if websocket && is_unsuccessful(head.status) {
                        head.headers.remove(header::CONTENT_LENGTH);
                        if let Some(exchange) = &exchange {
                            exchange.set_details(UNSUCCESSFUL);
                        }
                        drop(lease.into_body(body));
                        return Ok(Response::from_parts(head, Body::empty()));
                    }
                    let body = if opens_tunnel && head.status.is_success() {
                        lease.into_tunnel(body)
                    } else {
                        lease.into_body(body)
                    };
                    return Ok(Response::from_parts(head, body));
                }
                Err(error) => error,
            };
            lease.failed();
            match error {
                NotSent {
                    request: Some(back),
                    ..
                } if lease.reused && stale < MOST_STALE => {
                    // The peer closed the connection while it was idle. Nothing was sent.
                    request = back;
                    stale += 1;
                }
                NotSent { error, request } => {
                    let reason = lease.meta().broken.get().map(String::as_str);
                    let error = fault::sending(error, request.is_some(), reason);
                    lease.count(error.failure());
                    return Err(error);
                }
            }
        }
    }
}

/// Whether an answer to a WebSocket opens none, and is no error either.
fn is_unsuccessful(status: StatusCode) -> bool {
    status != StatusCode::SWITCHING_PROTOCOLS && status.as_u16() < 400
}

/// Envoy's `x-envoy-upstream-service-time`: milliseconds until the response head.
fn stamp(headers: &mut http::HeaderMap, taken: std::time::Duration) {
    const NAME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
    let millis = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
    // Most answers take less than that, and their times cost no allocation.
    const BELOW_100: &str = "00010203040506070809101112131415161718192021222324252627282930313233343536373839\
        40414243444546474849505152535455565758596061626364656667686970717273747576777879\
        8081828384858687888990919293949596979899";
    let value = match usize::try_from(millis) {
        Ok(one @ 0..10) => HeaderValue::from_static(&BELOW_100[2 * one + 1..2 * one + 2]),
        Ok(two @ 10..100) => HeaderValue::from_static(&BELOW_100[2 * two..2 * two + 2]),
        _ => HeaderValue::from(millis),
    };
    headers.insert(NAME, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_it_took_is_told_in_milliseconds() {
        for millis in (0..205).chain([999, 1000, 86_400_000]) {
            let mut headers = http::HeaderMap::new();
            let taken = std::time::Duration::from_micros(millis * 1000 + 999);
            stamp(&mut headers, taken);
            assert_eq!(headers["x-envoy-upstream-service-time"], millis.to_string());
        }
    }
}
