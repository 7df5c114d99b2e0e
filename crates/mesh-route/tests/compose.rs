//! Every layer on an axum router, alone and with tower-http's, as the documentation shows it.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::{get, post};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use mesh_core::model::{
    Action, AddMode, Cluster, Condition, Cors, DirectResponse, Fraction, HeaderAdd, HeaderEdits,
    HeaderTemplate, PathRewrite, Redirect, RouteTable, Rule, SnapshotBuilder, StringMatch,
    VirtualHost,
};
use mesh_core::{Feed, Publisher, model};
use mesh_route::mirror::{Executor, TeeBody};
use mesh_route::{
    CorsLayer, EditLayer, MapRequestBodyLayer, MirrorLayer, ReplyLayer, RespondLayer, RouteLayer,
};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tower::{ServiceBuilder, ServiceExt};
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::trace::TraceLayer;

#[derive(Clone)]
struct Tokio;

impl Executor for Tokio {
    fn spawn(&self, copy: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tokio::spawn(copy);
    }
}

fn app() -> Router {
    let path = |request: Request<Body>| async move { request.uri().path().to_owned() };
    Router::new()
        .route("/echo", post(|body: String| async { body }))
        .fallback(get(path))
}

fn boxing() -> MapRequestBodyLayer<TeeBody<Body>, Body> {
    MapRequestBodyLayer::new(Body::new::<TeeBody<Body>>)
}

async fn send(app: Router, request: http::request::Builder) -> (Response<()>, String) {
    send_with(app, request.body(Body::empty()).unwrap()).await
}

async fn send_with(app: Router, request: Request<Body>) -> (Response<()>, String) {
    let (head, body) = app.oneshot(request).await.unwrap().into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    (Response::from_parts(head, ()), body)
}

fn mark(name: &'static str) -> HeaderEdits {
    let mut edits = HeaderEdits::default();
    edits.add.push(HeaderAdd {
        name: HeaderName::from_static(name),
        value: HeaderTemplate::Fixed(HeaderValue::from_static("yes")),
        mode: AddMode::Append,
    });
    edits
}

fn cors() -> Cors {
    let mut cors = Cors::default();
    cors.allow_origins = vec![StringMatch::Exact("http://ok".into())];
    cors.allow_methods = "GET".into();
    cors
}

/// `/old` is rewritten to `/new`, `/teapot` is answered, `/moved` redirected, `/gone` has no
/// cluster; everything is marked on the way out.
fn feed() -> Feed<model::Snapshot> {
    let mut rewritten = Rule::prefix_to("/old", "app");
    let Action::Forward(forward) = &mut rewritten.action else {
        unreachable!("it forwards")
    };
    forward.path = PathRewrite::Prefix("/new".into());
    let mut teapot = DirectResponse::default();
    teapot.status = StatusCode::IM_A_TEAPOT;
    teapot.body = "short and stout".into();
    let at = |path: &str, action| {
        let mut condition = Condition::default();
        condition.path = model::PathMatch::Exact(path.into());
        Rule::new(condition, action)
    };
    let mut moved = Redirect::default();
    moved.scheme = Some("https".into());
    let mut gone = Rule::prefix_to("/gone", "nowhere");
    gone.cors = Some(Arc::new(cors()));
    let mut host = VirtualHost::new("app", ["app.example"])
        .rule(rewritten)
        .rule(at("/teapot", Action::Respond(teapot)))
        .rule(at("/moved", Action::Redirect(moved)))
        .rule(gone)
        .rule(Rule::prefix_to("/", "app"));
    host.response_edits = mark("x-marked");
    let mut builder = SnapshotBuilder::new();
    builder
        .routes(RouteTable::new("t").host(host))
        .cluster(Cluster::new("app"));
    Publisher::from_arc(builder.build().unwrap().0).feed()
}

fn stack() -> Router {
    app().layer(
        ServiceBuilder::new()
            .layer(TraceLayer::new_for_http())
            .layer(ReplyLayer::new())
            .layer(RouteLayer::new(feed()).table("t"))
            .layer(CorsLayer::per_route())
            .layer(EditLayer::per_route())
            .layer(RespondLayer::per_route())
            .layer(MirrorLayer::per_route().executor(Tokio))
            .layer(boxing())
            .layer(SetResponseHeaderLayer::overriding(
                HeaderName::from_static("x-theirs"),
                HeaderValue::from_static("yes"),
            )),
    )
}

#[tokio::test]
async fn a_router_takes_a_reply_layer_alone() {
    let (response, body) = send(app().layer(ReplyLayer::new()), Request::get("/x")).await;
    assert_eq!((response.status().as_u16(), &*body), (200, "/x"));
}

#[tokio::test]
async fn a_router_takes_an_edit_layer() {
    let layers = ServiceBuilder::new()
        .layer(ReplyLayer::new())
        .layer(EditLayer::fixed(HeaderEdits::default(), mark("x-marked")));
    let (response, _) = send(app().layer(layers), Request::get("/x")).await;
    assert_eq!(response.headers()["x-marked"], "yes");
}

#[tokio::test]
async fn a_router_takes_a_respond_layer() {
    let mut redirect = Redirect::default();
    redirect.scheme = Some("https".into());
    let layers = ServiceBuilder::new()
        .layer(ReplyLayer::new())
        .layer(RespondLayer::fixed(Action::Redirect(redirect)));
    let request = Request::get("/x").header(header::HOST, "app.example:80");
    let (response, _) = send(app().layer(layers), request).await;
    assert_eq!(
        response.headers()[header::LOCATION],
        "https://app.example/x"
    );
}

#[tokio::test]
async fn a_router_takes_a_cors_layer() {
    let layers = ServiceBuilder::new()
        .layer(ReplyLayer::new())
        .layer(CorsLayer::fixed(cors()));
    let request = Request::options("/x")
        .header(header::ORIGIN, "http://ok")
        .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET");
    let (response, body) = send(app().layer(layers), request).await;
    assert_eq!(
        response.headers()[header::ACCESS_CONTROL_ALLOW_METHODS],
        "GET"
    );
    assert_eq!((response.status().as_u16(), &*body), (200, ""));
}

#[tokio::test]
async fn a_router_takes_a_mirror_layer() {
    let (copies, seen) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(tokio::sync::Notify::new()),
    );
    let (theirs, notify) = (copies.clone(), seen.clone());
    let shadow = Router::new().route(
        "/echo",
        post(|body: String| async move {
            theirs.lock().unwrap().push(body);
            notify.notify_one();
        }),
    );
    let shadow = ServiceBuilder::new().layer(boxing()).service(shadow);
    let layers = ServiceBuilder::new()
        .layer(ReplyLayer::new())
        .layer(MirrorLayer::fixed(shadow, Fraction::ALL).executor(Tokio))
        .layer(boxing());
    let request = Request::post("/echo").body(Body::from("hello")).unwrap();
    let (_, body) = send_with(app().layer(layers), request).await;
    assert_eq!(body, "hello");
    seen.notified().await;
    assert_eq!(*copies.lock().unwrap(), ["hello"]);
}

#[tokio::test]
async fn all_layers_together_serve_a_router_next_to_those_of_tower_http() {
    // What is asked for, the status, the body, and whether the router itself answered.
    for (uri, status, body, by_router) in [
        ("http://app.example/x", 200, "/x", true),
        ("http://app.example/old/x", 200, "/new/x", true),
        ("http://app.example/teapot", 418, "short and stout", false),
        ("http://app.example/moved", 301, "", false),
        ("http://app.example/gone", 503, "", false),
    ] {
        let (response, text) = send(stack(), Request::get(uri)).await;
        assert_eq!(
            (response.status().as_u16(), &*text),
            (status, body),
            "{uri}"
        );
        assert_eq!(
            response.headers().contains_key("x-theirs"),
            by_router,
            "{uri}"
        );
        assert_eq!(response.headers()["x-marked"], "yes", "{uri}");
    }
    let (response, _) = send(stack(), Request::get("http://other.example/")).await;
    assert_eq!(response.status(), 404);
    assert!(
        !response.headers().contains_key("x-marked"),
        "no host, no edits"
    );
}

#[tokio::test]
async fn a_local_reply_to_a_known_origin_says_so_without_an_exchange_from_above() {
    let request = Request::get("http://app.example/gone").header(header::ORIGIN, "http://ok");
    let (response, _) = send(stack(), request).await;
    assert_eq!(response.status(), 503);
    assert_eq!(
        response.headers()[header::ACCESS_CONTROL_ALLOW_ORIGIN],
        "http://ok"
    );
}
