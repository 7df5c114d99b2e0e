//! Endpoints that say the same to everyone, and `/uuid`.

use std::hash::{BuildHasher as _, RandomState};

use axum::{Json, extract::State, response::Html};
use serde_json::{Value, json};

use crate::Shared;

pub(crate) async fn index() -> Html<&'static str> {
    Html(include_str!("fixed/index.html"))
}

pub(crate) async fn html() -> Html<&'static str> {
    Html(include_str!("fixed/page.html"))
}

pub(crate) async fn robots() -> &'static str {
    "User-agent: *\nDisallow: /\n"
}

pub(crate) async fn json() -> Json<Value> {
    Json(json!({
        "voyage": {
            "ship": "Argo",
            "from": "Iolcus",
            "to": "Colchis",
            "crew": 50,
            "calls": [
                { "port": "Lemnos", "nights": 3 },
                { "port": "Cyzicus", "nights": 1 },
            ],
        },
    }))
}

pub(crate) async fn hostname(State(shared): State<Shared>) -> Json<Value> {
    Json(json!({ "hostname": &*shared.hostname }))
}

/// A version 4 UUID (RFC 9562 §5.4).
///
/// The randomness is that of the standard library's hash keys: different each time, which is what
/// an example needs, and no secret.
pub(crate) async fn uuid() -> Json<Value> {
    let random = || RandomState::new().hash_one(0_u8);
    let bits = u128::from(random()) << 64 | u128::from(random());
    let bits = bits & !(0xf << 76) | 0x4 << 76;
    let bits = bits & !(0b11 << 62) | 0b10 << 62;
    let hex = format!("{bits:032x}");
    let (a, b, c, d, e) = (
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    );
    Json(json!({ "uuid": format!("{a}-{b}-{c}-{d}-{e}") }))
}
