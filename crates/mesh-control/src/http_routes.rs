//! The debug pages and metrics, as istiod has them.
//!
//! | path | what |
//! |---|---|
//! | `/ready` | 200 when there is something in force, else 503 |
//! | `/metrics` | Prometheus |
//! | `/debug/syncz` | how far each stream is with each type, and what was rejected |
//! | `/debug/adsz` | streams and what they subscribe to; `?push=true` pushes everything again |
//! | `/debug/configz` | the objects in force |
//! | `/debug/endpointz` | services with their endpoints |
//! | `/debug/registryz` | services |
//! | `/debug/push_status` | the last push, findings and warnings |
//! | `/debug/config_dump?proxyID=` | what a connected node gets, in the shape of Envoy's `/config_dump` |
//! | `/debug/originz?proxyID=` | which YAML each of its resources and routes came from |
//!
//! `proxyID` is `NAME.NAMESPACE`, or the whole id of a node.

use crate::Control;
use crate::class::Class;
use crate::node::short_name;
use axum::Router;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpListener;
use tower_service::Service;

mod dump;
mod sync;
mod world;

/// The debug pages as one Tower service, or served by themselves.
#[derive(Clone)]
pub struct HttpRoutes {
    router: Router,
}

/// The body of a page.
pub struct Body(axum::body::Body);

/// The future of a page.
pub struct ResponseFuture(Pin<Box<dyn Future<Output = Response> + Send>>);

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "proxyID")]
    proxy: Option<String>,
    push: Option<String>,
}

// === impl Control ===

impl Control {
    /// The debug pages and metrics.
    pub fn http_routes(&self) -> HttpRoutes {
        let router = Router::new()
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/debug", get(index))
            .route("/debug/syncz", get(sync::syncz))
            .route("/debug/adsz", get(sync::adsz))
            .route("/debug/configz", get(world::configz))
            .route("/debug/endpointz", get(world::endpointz))
            .route("/debug/registryz", get(world::registryz))
            .route("/debug/push_status", get(push_status))
            .route("/debug/config_dump", get(config_dump))
            .route("/debug/originz", get(originz))
            .with_state(self.clone());
        HttpRoutes { router }
    }

    /// The class of the connected node that is called so.
    fn find(&self, asked: &Asked) -> Result<Arc<Class>, Box<Response>> {
        let book = self.engine().book();
        let known: BTreeSet<String> = book
            .seats
            .values()
            .map(|seat| short_name(&seat.node))
            .collect();
        let refuse = |status, message: String| {
            let about = json!({"error": message, "known": &known});
            Err(Box::new(answer(status, &about)))
        };
        let Some(wanted) = &asked.proxy else {
            let message = "say which proxy: ?proxyID=NAME.NAMESPACE".to_owned();
            return refuse(StatusCode::BAD_REQUEST, message);
        };
        let mut seats = book.seats.values();
        let found =
            seats.find(|seat| seat.node.id() == wanted || short_name(&seat.node) == *wanted);
        match found {
            Some(seat) => Ok(seat.class.clone()),
            None => {
                let message = format!("no proxy {wanted:?} is connected");
                refuse(StatusCode::NOT_FOUND, message)
            }
        }
    }
}

async fn ready(State(control): State<Control>) -> Response {
    match control.engine().inputs() {
        Some(_) => (StatusCode::OK, "ready\n").into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no configuration yet\n").into_response(),
    }
}

async fn metrics(State(control): State<Control>) -> Response {
    let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4");
    ([kind], control.engine().metrics.text()).into_response()
}

async fn index() -> Response {
    let pages = [
        "syncz",
        "adsz",
        "configz",
        "endpointz",
        "registryz",
        "push_status",
        "config_dump?proxyID=NAME.NAMESPACE",
        "originz?proxyID=NAME.NAMESPACE",
    ];
    let lines = pages.map(|page| format!("/debug/{page}\n"));
    lines.concat().into_response()
}

async fn push_status(State(control): State<Control>) -> Response {
    let about = control.engine().reports().json();
    answer(StatusCode::OK, &about)
}

async fn config_dump(State(control): State<Control>, Query(asked): Query<Asked>) -> Response {
    let dumped = control.find(&asked).map(|class| dump::of(&class));
    match dumped {
        Ok(Ok(value)) => answer(StatusCode::OK, &value),
        Ok(Err(error)) => {
            let about = json!({"error": error.to_string()});
            answer(StatusCode::INTERNAL_SERVER_ERROR, &about)
        }
        Err(response) => *response,
    }
}

async fn originz(State(control): State<Control>, Query(asked): Query<Asked>) -> Response {
    match control.find(&asked) {
        Ok(class) => {
            let about = crate::origin::all(&class.compiled().snapshot);
            answer(StatusCode::OK, &about)
        }
        Err(response) => *response,
    }
}

/// JSON over several lines, with keys in order.
fn answer(status: StatusCode, value: &Value) -> Response {
    let kind = (header::CONTENT_TYPE, "application/json");
    (status, [kind], format!("{value:#}\n")).into_response()
}

// === impl HttpRoutes ===

impl HttpRoutes {
    /// Serves them over HTTP/1.1 until `shutdown` completes and what was asked for is answered.
    ///
    /// # Errors
    /// The listener is broken.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let serving = axum::serve(listener, self.router);
        serving.with_graceful_shutdown(shutdown).await
    }
}

impl<B> Service<http::Request<B>> for HttpRoutes
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> ResponseFuture {
        // A router takes any request at any time.
        let mut router = self.router.clone();
        ResponseFuture(Box::pin(async move {
            let Ok(response) = router.call(request).await;
            response
        }))
    }
}

impl fmt::Debug for HttpRoutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRoutes").finish_non_exhaustive()
    }
}

// === impl ResponseFuture ===

impl Future for ResponseFuture {
    type Output = Result<http::Response<Body>, std::convert::Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0
            .as_mut()
            .poll(cx)
            .map(|response| Ok(response.map(Body)))
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
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.0).poll_frame(cx);
        frame.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Body").finish()
    }
}
