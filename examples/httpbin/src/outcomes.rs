//! Endpoints that end as asked: `/status`, `/delay`, `/basic-auth`, `/response-headers`.

use std::{sync::atomic::Ordering, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse as _, Response},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{AUTHORIZATION, LOCATION, WWW_AUTHENTICATE},
};
use serde_json::json;

use crate::{
    Shared, base64,
    echo::{self, Echo},
};

/// The longest any endpoint waits before it answers, or takes to.
const LONGEST: Duration = Duration::from_secs(10);

/// Answers with the code, or with the next one of a list such as `200,200,503`.
///
/// The original picks at random; in turn, a test can say what it expects.
pub(crate) async fn status(State(shared): State<Shared>, Path(codes): Path<String>) -> Response {
    let codes = codes
        .split(',')
        .map(|code| StatusCode::from_bytes(code.trim().as_bytes()).ok())
        .map(|code| code.filter(|code| (200..=599).contains(&code.as_u16())))
        .collect::<Option<Vec<_>>>();
    let Some(codes) = codes else {
        let expected = "expected status codes from 200 to 599, separated by commas\n";
        return (StatusCode::BAD_REQUEST, expected).into_response();
    };
    let code = match *codes {
        [only] => only,
        _ => codes[shared.turn.fetch_add(1, Ordering::Relaxed) % codes.len()],
    };
    match code.as_u16() {
        301..=303 | 307 | 308 => (code, [(LOCATION, "/redirect/1")]).into_response(),
        401 => (code, [(WWW_AUTHENTICATE, "Basic realm=\"httpbin\"")]).into_response(),
        _ => code.into_response(),
    }
}

/// Answers like `/anything`, after so many seconds and at most ten.
pub(crate) async fn delay(Path(asked): Path<f64>, echo: Echo) -> Response {
    let Some(delay) = seconds(asked) else {
        let expected = "expected seconds, not below 0\n";
        return (StatusCode::BAD_REQUEST, expected).into_response();
    };
    tokio::time::sleep(delay).await;
    Json(echo).into_response()
}

/// Seconds as a duration of at most [`LONGEST`]; none for what is negative or no number.
pub(crate) fn seconds(asked: f64) -> Option<Duration> {
    if asked.is_nan() || asked < 0.0 {
        return None;
    }
    Some(Duration::from_secs_f64(asked.min(LONGEST.as_secs_f64())))
}

pub(crate) async fn basic_auth(
    Path((user, password)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let expected = format!(
        "Basic {}",
        base64::encode(format!("{user}:{password}").as_bytes())
    );
    // Comparing in constant time would protect a password that stands in the URL.
    if headers
        .get(AUTHORIZATION)
        .is_some_and(|sent| *sent == expected)
    {
        return Json(json!({ "authenticated": true, "user": user })).into_response();
    }
    let challenge = [(WWW_AUTHENTICATE, "Basic realm=\"httpbin\"")];
    (StatusCode::UNAUTHORIZED, challenge).into_response()
}

/// Answers with the headers of the query, and lists them.
pub(crate) async fn response_headers(Query(pairs): Query<Vec<(String, String)>>) -> Response {
    let mut headers = HeaderMap::new();
    for (name, value) in &pairs {
        let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value))
        else {
            let expected = "expected names and values that can be headers\n";
            return (StatusCode::BAD_REQUEST, expected).into_response();
        };
        // These two decide where the body ends; a wrong one breaks the connection, not the test.
        if name == http::header::CONTENT_LENGTH || name == http::header::TRANSFER_ENCODING {
            let expected = "content-length and transfer-encoding are not yours to set\n";
            return (StatusCode::BAD_REQUEST, expected).into_response();
        }
        headers.append(name, value);
    }
    let mut response = Json(echo::fields(pairs)).into_response();
    // Not `extend`: that appends, and a `content-type` asked for is to replace ours.
    let ours = std::mem::replace(response.headers_mut(), headers);
    for (name, value) in &ours {
        response
            .headers_mut()
            .entry(name)
            .or_insert_with(|| value.clone());
    }
    response
}
