//! Which method is served by what.

use super::body::Messages;
use super::certificates;
use super::csds::StatusService;
use super::handle::Shared;
use super::loads::LoadService;
use super::requests::Requests;
use super::stream::{Peer, Request, responses};
use super::{Scope, Variant};
use crate::TypeUrl;
use crate::certificates::{CREATE, SERVICE};
use crate::pb::envoy::service::discovery::v3 as discovery;
use crate::pb::envoy::service::load_stats::v3::load_reporting_service_server::LoadReportingServiceServer;
use crate::pb::envoy::service::status::v3::client_status_discovery_service_server::ClientStatusDiscoveryServiceServer;
use bytes::Bytes;
use futures_util::stream::StreamExt;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http_body::{Frame, SizeHint};
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::HealthService;
use tower_service::Service;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The services of discovery: their names, and their methods without `Stream`, `Delta`, `Fetch`.
const SERVICES: [(&str, &str, Scope); 10] = [
    (
        "discovery.v3.AggregatedDiscoveryService",
        "AggregatedResources",
        Scope::Aggregated,
    ),
    (
        "cluster.v3.ClusterDiscoveryService",
        "Clusters",
        Scope::Only(TypeUrl::Cluster),
    ),
    (
        "endpoint.v3.EndpointDiscoveryService",
        "Endpoints",
        Scope::Only(TypeUrl::Endpoints),
    ),
    (
        "listener.v3.ListenerDiscoveryService",
        "Listeners",
        Scope::Only(TypeUrl::Listener),
    ),
    (
        "route.v3.RouteDiscoveryService",
        "Routes",
        Scope::Only(TypeUrl::Routes),
    ),
    (
        "route.v3.ScopedRoutesDiscoveryService",
        "ScopedRoutes",
        Scope::Only(TypeUrl::ScopedRoutes),
    ),
    (
        "route.v3.VirtualHostDiscoveryService",
        "VirtualHosts",
        Scope::Only(TypeUrl::VirtualHost),
    ),
    (
        "secret.v3.SecretDiscoveryService",
        "Secrets",
        Scope::Only(TypeUrl::Secret),
    ),
    (
        "extension.v3.ExtensionConfigDiscoveryService",
        "ExtensionConfigs",
        Scope::Only(TypeUrl::Extension),
    ),
    (
        "runtime.v3.RuntimeDiscoveryService",
        "Runtime",
        Scope::Only(TypeUrl::Runtime),
    ),
];

/// All services of a [`super::Server`] as one Tower service, to be put into an HTTP/2 server of
/// the user's. What it does not know is answered with `UNIMPLEMENTED`.
#[derive(Clone)]
pub struct Routes {
    shared: Arc<Shared>,
}

/// The body of a reply.
pub struct Body(tonic::body::Body);

/// The future of a reply.
pub struct ResponseFuture(Pin<Box<dyn Future<Output = http::Response<Body>> + Send>>);

/// What a path asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Discover(Variant, Scope),
    /// A unary call of a discovery service.
    Fetch,
    Status,
    Loads,
    Health,
    Certify,
    Unknown,
}

// === impl Method ===

impl Method {
    fn of(path: &str) -> Self {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/'))
        else {
            return Self::Unknown;
        };
        match service {
            "grpc.health.v1.Health" => return Self::Health,
            "envoy.service.status.v3.ClientStatusDiscoveryService" => return Self::Status,
            "envoy.service.load_stats.v3.LoadReportingService" => return Self::Loads,
            SERVICE if path == CREATE => return Self::Certify,
            _ => {}
        }
        let Some(service) = service.strip_prefix("envoy.service.") else {
            return Self::Unknown;
        };
        let known = SERVICES.iter().find(|known| known.0 == service);
        let Some((_, what, scope)) = known else {
            return Self::Unknown;
        };
        let is = |verb: &str| method.strip_prefix(verb) == Some(what);
        // VHDS is on demand and has no state of the world.
        let whole = *scope != Scope::Only(TypeUrl::VirtualHost);
        if is("Delta") {
            Self::Discover(Variant::Delta, *scope)
        } else if is("Stream") && whole {
            Self::Discover(Variant::StateOfTheWorld, *scope)
        } else if is("Fetch") {
            Self::Fetch
        } else {
            Self::Unknown
        }
    }
}

// === impl Routes ===

impl Routes {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn discover<R, B>(
        &self,
        request: http::Request<B>,
        scope: Scope,
    ) -> http::Response<tonic::body::Body>
    where
        R: Request,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send,
    {
        let encoding = request.headers().get("grpc-encoding");
        if encoding.is_some_and(|encoding| encoding != "identity") {
            let mut refusal = tonic::Status::unimplemented(
                "compressed requests are not supported; leave grpc-encoding out",
            )
            .into_http();
            let identity = HeaderValue::from_static("identity");
            refusal
                .headers_mut()
                .insert("grpc-accept-encoding", identity);
            return refusal;
        }
        let shared = self.shared.clone();
        let peer = request.extensions().get::<Peer>().cloned();
        let requests = Requests::<R>::new(request.into_body(), shared.limits.request_bytes);
        let messages = Messages::new(responses(shared, scope, peer, requests).boxed());
        let mut response = http::Response::new(tonic::body::Body::new(messages));
        let grpc = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert(CONTENT_TYPE, grpc);
        response
    }
}

impl<B> Service<http::Request<B>> for Routes
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError> + Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> ResponseFuture {
        let most = self.shared.limits.request_bytes;
        match Method::of(request.uri().path()) {
            Method::Discover(Variant::Delta, scope) => ResponseFuture::of(ready(
                self.discover::<discovery::DeltaDiscoveryRequest, B>(request, scope),
            )),
            Method::Discover(Variant::StateOfTheWorld, scope) => ResponseFuture::of(ready(
                self.discover::<discovery::DiscoveryRequest, B>(request, scope),
            )),
            Method::Status => {
                let service = StatusService(self.shared.clone());
                let mut service = ClientStatusDiscoveryServiceServer::new(service)
                    .max_decoding_message_size(most);
                ResponseFuture::of(always(service.call(request)))
            }
            Method::Loads => {
                let service = LoadService(self.shared.clone());
                let mut service =
                    LoadReportingServiceServer::new(service).max_decoding_message_size(most);
                ResponseFuture::of(always(service.call(request)))
            }
            Method::Health => {
                let service = HealthService::from_health_reporter(self.shared.health.clone());
                let mut service = HealthServer::new(service);
                ResponseFuture::of(always(service.call(request)))
            }
            Method::Certify => match &self.shared.certify {
                Some(certify) => ResponseFuture::of(certificates::serve(certify.clone(), request)),
                None => refuse("this server makes no certificates"),
            },
            Method::Fetch => refuse(
                "unary discovery is not supported; use the streaming method of the same service",
            ),
            Method::Unknown => refuse("this server has no such method"),
        }
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

async fn always<T>(future: impl Future<Output = Result<T, Infallible>>) -> T {
    match future.await {
        Ok(done) => done,
        Err(never) => match never {},
    }
}

fn refuse(message: &str) -> ResponseFuture {
    ResponseFuture::of(ready(tonic::Status::unimplemented(message).into_http()))
}

// === impl ResponseFuture ===

impl ResponseFuture {
    fn of(
        future: impl Future<Output = http::Response<tonic::body::Body>> + Send + 'static,
    ) -> Self {
        Self(Box::pin(async { future.await.map(Body) }))
    }
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

// === impl Body ===

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_of_envoy_leads_to_its_type() {
        let cases = [
            (
                "discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
                Scope::Aggregated,
            ),
            (
                "route.v3.ScopedRoutesDiscoveryService/StreamScopedRoutes",
                Scope::Only(TypeUrl::ScopedRoutes),
            ),
            (
                "extension.v3.ExtensionConfigDiscoveryService/StreamExtensionConfigs",
                Scope::Only(TypeUrl::Extension),
            ),
            (
                "runtime.v3.RuntimeDiscoveryService/StreamRuntime",
                Scope::Only(TypeUrl::Runtime),
            ),
        ];
        for (path, scope) in cases {
            let stream = format!("/envoy.service.{path}");
            let want = Method::Discover(Variant::StateOfTheWorld, scope);
            assert_eq!(Method::of(&stream), want, "{path}");
            let delta = stream.replace("/Stream", "/Delta");
            assert_eq!(
                Method::of(&delta),
                Method::Discover(Variant::Delta, scope),
                "{path}"
            );
        }
    }

    #[test]
    fn unary_and_unknown_methods_lead_nowhere() {
        let of = |path: &str| Method::of(&format!("/envoy.service.{path}"));
        assert_eq!(
            of("cluster.v3.ClusterDiscoveryService/FetchClusters"),
            Method::Fetch
        );
        assert_eq!(
            of("cluster.v3.ClusterDiscoveryService/FetchListeners"),
            Method::Unknown
        );
        assert_eq!(
            of("route.v3.VirtualHostDiscoveryService/StreamVirtualHosts"),
            Method::Unknown
        );
        for path in ["", "/", "//", "/a", "/envoy.service./Stream"] {
            assert_eq!(Method::of(path), Method::Unknown, "{path}");
        }
    }
}
