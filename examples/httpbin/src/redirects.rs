//! Endpoints that send the client elsewhere: `/redirect/{n}` and `/redirect-to`.

use axum::{
    extract::{Path, Query},
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode, header::LOCATION};
use serde::Deserialize;

/// The longest chain of redirects.
const LONGEST_CHAIN: u32 = 100;

#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    url: String,
    status_code: Option<u16>,
}

/// Redirects `n` times, and then to `/get`.
pub(crate) async fn redirect(Path(n): Path<u32>) -> Response {
    let location = match n {
        1 => "/get".to_owned(),
        2..=LONGEST_CHAIN => format!("/redirect/{}", n - 1),
        _ => return (StatusCode::BAD_REQUEST, "expected 1 to 100\n").into_response(),
    };
    (StatusCode::FOUND, [(LOCATION, location)]).into_response()
}

/// Redirects wherever it is told to, which is the point: never put this on the open internet.
pub(crate) async fn redirect_to(Query(target): Query<Target>) -> Response {
    let code = StatusCode::from_u16(target.status_code.unwrap_or(302))
        .ok()
        .filter(StatusCode::is_redirection);
    let location = HeaderValue::from_str(&target.url);
    match (code, location) {
        (Some(code), Ok(location)) => (code, [(LOCATION, location)]).into_response(),
        _ => (StatusCode::BAD_REQUEST, "expected a URL and a 3xx code\n").into_response(),
    }
}
