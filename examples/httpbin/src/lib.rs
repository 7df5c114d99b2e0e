//! A small HTTP service that answers with what it was sent, after the well-known `httpbin`.
//!
//! It is for trying a mesh out: what arrived (`/anything`, `/headers`), what goes wrong
//! (`/status/503`, `/delay/2`) and what is large or slow (`/bytes/1048576`, `/drip`). Bodies are
//! bounded in both directions; compression, digest authentication and images are not covered.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use axum::{body::Body, http::{Request, StatusCode}};
//! use tower::ServiceExt as _;
//!
//! let request = Request::get("/status/418").body(Body::empty()).unwrap();
//! let response = httpbin::router().oneshot(request).await.unwrap();
//! assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
//! # }
//! ```

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, atomic::AtomicUsize},
};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{any, delete, get, patch, post, put},
    serve::ListenerExt as _,
};
use tokio::net::TcpListener;

mod base64;
mod bodies;
mod cookies;
mod echo;
mod fixed;
mod outcomes;
mod redirects;

/// The most a request body may hold before it is refused with 413.
const REQUEST_LIMIT: usize = 10 << 20;

/// What the handlers of one router share.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    hostname: Arc<str>,
    /// Counts the answers of `/status/A,B`, which takes its codes in turn.
    turn: Arc<AtomicUsize>,
}

/// The service, whose `/hostname` says `$HOSTNAME`, or `httpbin` where that is not set.
pub fn router() -> Router {
    named(std::env::var("HOSTNAME").unwrap_or_else(|_| "httpbin".to_owned()))
}

/// The service under a name of its own, so that several in one process can be told apart.
pub fn named(hostname: impl Into<String>) -> Router {
    let shared = Shared {
        hostname: hostname.into().into(),
        turn: Arc::default(),
    };
    Router::new()
        .route("/", get(fixed::index))
        .route("/anything", any(echo::anything))
        .route("/anything/{*path}", any(echo::anything))
        .route("/get", get(echo::anything))
        .route("/post", post(echo::anything))
        .route("/put", put(echo::anything))
        .route("/delete", delete(echo::anything))
        .route("/patch", patch(echo::anything))
        .route("/headers", get(echo::headers))
        .route("/ip", get(echo::ip))
        .route("/user-agent", get(echo::user_agent))
        .route("/status/{codes}", any(outcomes::status))
        .route("/delay/{seconds}", any(outcomes::delay))
        .route("/basic-auth/{user}/{password}", get(outcomes::basic_auth))
        .route("/response-headers", any(outcomes::response_headers))
        .route("/bytes/{n}", get(bodies::bytes))
        .route("/stream/{n}", get(bodies::stream))
        .route("/stream-bytes/{n}", get(bodies::stream_bytes))
        .route("/drip", get(bodies::drip))
        .route("/redirect/{n}", get(redirects::redirect))
        .route("/redirect-to", any(redirects::redirect_to))
        .route("/cookies", get(cookies::list))
        .route("/cookies/set", get(cookies::set))
        .route("/uuid", get(fixed::uuid))
        .route("/hostname", get(fixed::hostname))
        .route("/json", get(fixed::json))
        .route("/html", get(fixed::html))
        .route("/robots.txt", get(fixed::robots))
        .layer(DefaultBodyLimit::max(REQUEST_LIMIT))
        .with_state(shared)
}

/// Serves `router` on `listener`, over HTTP/1.1 and HTTP/2 in clear text, until `shutdown`
/// resolves and the requests then in flight have been answered.
///
/// # Errors
///
/// None today: a failing `accept` is tried again. The type is that of [`axum::serve()`].
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // An answer is often one small write after another; waiting for the peer's ACK between
        // them would show up as 40 ms in every latency a mesh reports.
        let _ = stream.set_nodelay(true);
    });
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(shutdown)
        .await
}

#[cfg(test)]
mod tests;
