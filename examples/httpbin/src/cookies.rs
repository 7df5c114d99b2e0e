//! `/cookies` and `/cookies/set`.

use axum::{
    Json,
    extract::Query,
    response::{AppendHeaders, IntoResponse as _, Response},
};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{COOKIE, LOCATION, SET_COOKIE},
};
use serde_json::{Map, Value, json};

pub(crate) async fn list(headers: HeaderMap) -> Json<Value> {
    // HTTP/2 may send each pair in a header of its own (RFC 9113 §8.2.3).
    let cookies = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect::<Map<_, _>>();
    Json(json!({ "cookies": cookies }))
}

pub(crate) async fn set(Query(pairs): Query<Vec<(String, String)>>) -> Response {
    let cookies = pairs
        .iter()
        .map(|(name, value)| {
            // A separator would let the value set attributes of its own.
            if name.is_empty() || name.contains(['=', ';', ',', ' ']) || value.contains([';', ','])
            {
                return None;
            }
            let cookie = HeaderValue::from_str(&format!("{name}={value}; Path=/")).ok()?;
            Some((SET_COOKIE, cookie))
        })
        .collect::<Option<Vec<_>>>();
    match cookies {
        Some(cookies) => {
            let location = [(LOCATION, "/cookies")];
            (StatusCode::FOUND, location, AppendHeaders(cookies)).into_response()
        }
        None => (
            StatusCode::BAD_REQUEST,
            "expected cookie names and values\n",
        )
            .into_response(),
    }
}
