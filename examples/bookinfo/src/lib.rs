//! Bookinfo, the application Istio's guides are told with, as four small services in Rust.
//!
//! `productpage` shows a book with what `details` and `reviews` answer; `reviews` asks `ratings`,
//! unless it is version 1. Every service forwards the headers that tracing and routing by user
//! live on. There is one book, nothing is stored, and signing in asks for no password.
//!
//! The famous bug is kept: `reviews` waits ten seconds for `ratings` while `productpage` waits
//! three for `reviews`, twice, so that a delay of seven takes the reviews off the page.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! use axum::{body::Body, http::{Request, StatusCode, uri::Authority}};
//! use bookinfo::{ReviewsVersion, Services, details, productpage, ratings, reviews};
//! use tower::ServiceExt as _;
//!
//! let mut services = Services::direct();
//! let at = Authority::from_static;
//! services.in_process.insert(at("ratings:9080"), ratings());
//! let v3 = reviews(ReviewsVersion::V3, &services);
//! services.in_process.insert(at("details:9080"), details());
//! services.in_process.insert(at("reviews:9080"), v3);
//!
//! let request = Request::get("/productpage").body(Body::empty()).unwrap();
//! let response = productpage(&services).oneshot(request).await.unwrap();
//! assert_eq!(response.status(), StatusCode::OK);
//! # }
//! ```

use std::{collections::HashMap, future::ready, io, net::SocketAddr};

use axum::{
    Json, Router,
    middleware::{from_fn, map_response},
    response::{IntoResponse, Response},
    serve::ListenerExt as _,
};
use http::{HeaderName, HeaderValue, StatusCode, uri::Authority};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpListener;

mod caller;
mod client;
mod details;
mod page;
mod productpage;
mod propagate;
mod ratings;
mod reviews;
mod session;

pub use self::{
    details::details,
    productpage::productpage,
    ratings::ratings,
    reviews::{ReviewsVersion, reviews},
};

/// Names the service and version that answered; what the mesh answers itself lacks it.
pub(crate) const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// Where the other services are, and the way there.
#[derive(Clone, Debug)]
pub struct Services {
    /// The HTTP proxy (the sidecar) that all calls go through; none to connect to each authority.
    pub outbound: Option<SocketAddr>,
    /// The authority of `details`.
    pub details: Authority,
    /// The authority of `reviews`.
    pub reviews: Authority,
    /// The authority of `ratings`.
    pub ratings: Authority,
    /// Authorities answered by a router in this process instead of over the network.
    pub in_process: HashMap<Authority, Router>,
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
        // Without it, Nagle and delayed ACKs can add 40 ms to what the page says a call took.
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
}

// === impl Services ===

impl Services {
    /// The usual authorities (`details:9080` and so on), each connected to directly.
    pub fn direct() -> Self {
        Self {
            outbound: None,
            details: Authority::from_static("details:9080"),
            reviews: Authority::from_static("reviews:9080"),
            ratings: Authority::from_static("ratings:9080"),
            in_process: HashMap::new(),
        }
    }

    /// The usual authorities, all called through the HTTP proxy at `outbound`.
    pub fn through(outbound: SocketAddr) -> Self {
        Self {
            outbound: Some(outbound),
            ..Self::direct()
        }
    }
}

impl Default for Services {
    fn default() -> Self {
        Self::direct()
    }
}

/// Makes every answer of a service say who gave it, and to whom, a 404 for an unknown path included.
pub(crate) fn signed(router: Router, name: &'static str) -> Router {
    let name = HeaderValue::from_static(name);
    let named = router.layer(map_response(move |mut response: Response| {
        response.headers_mut().insert(SERVED_BY, name.clone());
        ready(response)
    }));
    named.layer(from_fn(caller::told))
}

/// An answer in JSON.
pub(crate) fn answer(status: StatusCode, value: &impl Serialize) -> Response {
    (status, Json(value)).into_response()
}

/// The answer of `/health`, for a service by its name in a sentence.
pub(crate) fn healthy(service: &str) -> Response {
    let status = json!({ "status": format!("{service} is healthy") });
    answer(StatusCode::OK, &status)
}

/// The number of a product, from its place in a path.
pub(crate) fn product_id(id: &str) -> Result<u32, Box<Response>> {
    id.parse().map_err(|_| {
        let error = json!({ "error": "please provide numeric product ID" });
        Box::new(answer(StatusCode::BAD_REQUEST, &error))
    })
}
