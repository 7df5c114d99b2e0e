use super::*;
use crate::RouteLayer;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use mesh_core::model::{
    Cluster, FollowRedirects, RedirectTarget, RouteTable, Rule, SnapshotBuilder, VirtualHost,
};
use mesh_core::stats::{Block, ClusterStat, HttpStat};
use mesh_core::{Caller, Error, Publisher};
use std::sync::Mutex as Lock;
use tower::util::BoxCloneSyncService;
use tower::{ServiceBuilder, ServiceExt, service_fn};

type Body = UnsyncBoxBody<Bytes, Error>;
type Sent = Arc<Lock<Vec<(Method, String, HeaderMap, Bytes)>>>;

/// A route that follows as `policy` says, and an upstream that sends everything under `/old` on to
/// `location` with this status.
struct World {
    sent: Sent,
    stats: Arc<Block<HttpStat>>,
    publisher: Publisher<mesh_core::model::Snapshot>,
    service: BoxCloneSyncService<Request<Body>, Response<Body>, Error>,
}

fn body(text: &'static str) -> Body {
    let body = Full::new(Bytes::from_static(text.as_bytes()));
    Body::new(body.map_err(|never| match never {}))
}

fn world(policy: FollowRedirects, status: u16, location: &'static str) -> World {
    let mut old = Rule::prefix_to("/old", "shop");
    old.name = "old".into();
    old.follow = Some(Arc::new(policy));
    let mut new = Rule::prefix_to("/new", "shop");
    new.name = "new".into();
    let mut builder = SnapshotBuilder::new();
    builder.cluster(Cluster::new("shop"));
    let host = VirtualHost::new("shop", ["shop"]).rule(old).rule(new);
    builder.routes(RouteTable::new("t").host(host));
    let publisher = Publisher::from_arc(builder.build().unwrap().0);
    let sent = Sent::default();
    let seen = sent.clone();
    let upstream = service_fn(move |request: Request<Body>| {
        let seen = seen.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            if let Some(exchange) = head.extensions.get::<Exchange>() {
                exchange.set_request_is_whole();
            }
            let moved = head.uri.path().starts_with("/old");
            seen.lock()
                .unwrap()
                .push((head.method, head.uri.to_string(), head.headers, body));
            let mut response = Response::new(self::body("answer"));
            if moved {
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                response
                    .headers_mut()
                    .insert("location", location.parse().unwrap());
                response
                    .headers_mut()
                    .insert("x-told", "yes".parse().unwrap());
            }
            Ok::<_, Error>(response)
        }
    });
    let route = RouteLayer::new(publisher.feed()).table("t");
    let keep = KeepLayer::per_route(route.notes());
    let service = ServiceBuilder::new()
        .layer(FollowLayer::new(|again: Again| Body::new(again)))
        .layer(route)
        .layer(keep)
        .map_request(|request: Request<KeepBody<Body>>| request.map(Body::new))
        .service(upstream);
    World {
        sent,
        stats: Arc::default(),
        publisher,
        service: BoxCloneSyncService::new(service),
    }
}

impl World {
    async fn ask(&self, method: Method, text: &'static str) -> StatusCode {
        let mut request = Request::builder()
            .method(method)
            .uri("http://shop/old?q")
            .header("x-told", "no")
            .header("content-length", text.len())
            .body(body(text))
            .unwrap();
        let mut caller = Caller::default();
        caller.stats = Some(self.stats.clone());
        let exchange = Exchange::new(now(), caller);
        exchange.attach(&mut request);
        let response = self.service.clone().oneshot(request).await.unwrap();
        response.status()
    }

    fn of_cluster(&self, stat: ClusterStat) -> u64 {
        let snapshot = self.publisher.feed().load();
        snapshot.clusters()[0].live().stats().block().get(stat)
    }
}

fn policy(statuses: &[u16]) -> FollowRedirects {
    let mut policy = FollowRedirects::default();
    let status = |code: &u16| StatusCode::from_u16(*code).unwrap();
    policy.statuses = statuses.iter().map(status).collect();
    policy
}

#[tokio::test]
async fn a_request_goes_on_with_its_body_and_says_where_it_was() {
    let mut policy = policy(&[302]);
    policy.copy_headers = vec!["x-told".parse().unwrap()];
    let world = world(policy, 302, "http://shop/new/x?r#part");
    assert_eq!(world.ask(Method::POST, "text").await, StatusCode::OK);
    let sent = world.sent.lock().unwrap();
    let (method, uri, headers, body) = &sent[1];
    assert_eq!(
        (method, uri.as_str()),
        (&Method::POST, "http://shop/new/x?r")
    );
    assert_eq!(headers["x-envoy-original-url"], "http://shop/old?q");
    assert_eq!(
        (&headers["x-told"], &body[..]),
        (&"yes".parse().unwrap(), &b"text"[..])
    );
    assert_eq!(world.of_cluster(ClusterStat::RedirectSucceeded), 1);
    assert_eq!(world.of_cluster(ClusterStat::RedirectFailed), 0);
}

#[tokio::test]
async fn see_other_is_a_get_without_a_body() {
    let world = world(policy(&[303]), 303, "http://shop/new");
    assert_eq!(world.ask(Method::POST, "text").await, StatusCode::OK);
    let sent = world.sent.lock().unwrap();
    let (method, _, headers, body) = &sent[1];
    assert_eq!((method, &body[..]), (&Method::GET, &b""[..]));
    assert!(!headers.contains_key("content-length"));
}

#[tokio::test]
async fn what_cannot_be_followed_is_passed_on_and_counted() {
    let named = |name: &str| {
        let mut policy = policy(&[302]);
        policy.targets = vec![RedirectTarget::Named(vec![name.into()])];
        policy
    };
    let mut never = policy(&[302]);
    never.most = 0;
    for (policy, location, stat) in [
        (policy(&[302]), "/new", HttpStat::RedirectBadLocation),
        (
            policy(&[302]),
            "https://shop/new",
            HttpStat::RedirectUnsafeScheme,
        ),
        (never, "http://shop/new", HttpStat::RedirectTooMany),
        (
            policy(&[302]),
            "http://elsewhere/new",
            HttpStat::RedirectNoRoute,
        ),
        (
            named("other"),
            "http://shop/new",
            HttpStat::RedirectPredicate,
        ),
    ] {
        let world = world(policy, 302, location);
        assert_eq!(world.ask(Method::GET, "").await, StatusCode::FOUND);
        assert_eq!(world.stats.get(stat), 1, "{location}");
        assert_eq!(world.of_cluster(ClusterStat::RedirectFailed), 1);
        assert_eq!(world.sent.lock().unwrap().len(), 1);
    }
    let world = world(named("new"), 302, "http://shop/new");
    assert_eq!(world.ask(Method::GET, "").await, StatusCode::OK);
}

#[tokio::test]
async fn a_circle_ends_at_the_limit_or_at_a_route_that_was_taken() {
    let mut often = policy(&[302]);
    often.most = 3;
    let mut once = often.clone();
    once.targets = vec![RedirectTarget::NotPrevious];
    for (policy, times) in [(often, 4), (once, 2)] {
        let world = world(policy, 302, "http://shop/old");
        assert_eq!(world.ask(Method::GET, "").await, StatusCode::FOUND);
        assert_eq!(world.sent.lock().unwrap().len(), times);
    }
}

#[tokio::test]
async fn other_statuses_are_nobodys_redirects() {
    let world = world(policy(&[301]), 302, "http://shop/new");
    assert_eq!(world.ask(Method::GET, "").await, StatusCode::FOUND);
    assert_eq!(world.of_cluster(ClusterStat::RedirectFailed), 0);
}

#[tokio::test]
async fn a_body_too_large_to_keep_stays_where_it_is() {
    let world = world(policy(&[302]), 302, "http://shop/new");
    let large: &'static str = Box::leak("x".repeat(1024 * 1024 + 1).into_boxed_str());
    assert_eq!(world.ask(Method::POST, large).await, StatusCode::FOUND);
    assert_eq!(world.of_cluster(ClusterStat::RedirectFailed), 1);
}
