//! Endpoints that answer with the request: `/anything` and its relatives, `/headers`, `/ip`.

use std::{collections::BTreeMap, net::SocketAddr};

use axum::{
    Form, Json, RequestExt as _,
    body::Body,
    extract::{ConnectInfo, FromRequest, FromRequestParts, Query, Request},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
    request::Parts,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::base64;

/// Names with their values: a string, or a list where a name came more than once.
pub(crate) type Fields = Map<String, Value>;

/// What the head of a request said.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Head {
    pub(crate) args: Fields,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) method: String,
    pub(crate) origin: String,
    pub(crate) url: String,
}

/// A whole request, as `/anything` shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Echo {
    #[serde(flatten)]
    head: Head,
    /// The body as text, or as a `data:` URL where it is not UTF-8. Empty for a form.
    data: String,
    form: Fields,
    json: Option<Value>,
}

pub(crate) async fn anything(echo: Echo) -> Json<Echo> {
    Json(echo)
}

pub(crate) async fn headers(head: Head) -> Json<Value> {
    Json(json!({ "headers": head.headers }))
}

pub(crate) async fn ip(head: Head) -> Json<Value> {
    Json(json!({ "origin": head.origin }))
}

pub(crate) async fn user_agent(headers: HeaderMap) -> Json<Value> {
    let agent = headers
        .get(USER_AGENT)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    Json(json!({ "user-agent": agent }))
}

// === impl Head ===

impl<S: Sync> FromRequestParts<S> for Head {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let Query(args) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|rejection| rejection.into_response())?;
        Ok(Self {
            args: fields(args),
            headers: title_cased(&parts.headers),
            method: parts.method.to_string(),
            origin: origin(parts),
            url: url(parts),
        })
    }
}

// === impl Echo ===

impl<S: Sync> FromRequest<S> for Echo {
    type Rejection = Response;

    async fn from_request(mut request: Request, _: &S) -> Result<Self, Response> {
        let head = request.extract_parts::<Head>().await?;
        let (parts, body) = request.into_parts();
        let media = parts.headers.get(CONTENT_TYPE).cloned();
        let body = Request::from_parts(parts.clone(), body)
            .extract::<Bytes, _>()
            .await
            .map_err(|rejection| rejection.into_response())?;

        let is_form = media.is_some_and(|media| {
            media
                .as_bytes()
                .starts_with(b"application/x-www-form-urlencoded")
        });
        if is_form {
            let again = Request::from_parts(parts, Body::from(body.clone()));
            // What calls itself a form and is none is shown as data, as it came.
            if let Ok(Form(form)) = again.extract::<Form<Vec<(String, String)>>, _>().await {
                return Ok(Self {
                    head,
                    data: String::new(),
                    form: fields(form),
                    json: None,
                });
            }
        }
        Ok(Self {
            head,
            json: serde_json::from_slice(&body).ok(),
            data: text_or_data_url(&body),
            form: Fields::new(),
        })
    }
}

/// Collects pairs, making a list of the values of a name that is there more than once.
pub(crate) fn fields(pairs: Vec<(String, String)>) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in pairs {
        let value = Value::String(value);
        match fields.get_mut(&name) {
            None => drop(fields.insert(name, value)),
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    fields
}

/// Header names have no case on the wire of HTTP/2 and hyper keeps none for HTTP/1 either; this
/// is the spelling people expect to read. Values of one name are joined (RFC 9110 §5.3).
fn title_cased(headers: &HeaderMap) -> BTreeMap<String, String> {
    let mut out = BTreeMap::<String, String>::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        out.entry(title_case(name.as_str()))
            .and_modify(|values| {
                values.push_str(", ");
                values.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    out
}

fn title_case(name: &str) -> String {
    let mut start = true;
    let title = |c: char| {
        let out = if start { c.to_ascii_uppercase() } else { c };
        start = c == '-';
        out
    };
    name.chars().map(title).collect()
}

/// The client as the nearest proxy saw it, else the peer of the connection.
fn origin(parts: &Parts) -> String {
    if let Some(forwarded) = parts.headers.get("x-forwarded-for") {
        return String::from_utf8_lossy(forwarded.as_bytes()).into_owned();
    }
    parts
        .extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or_else(|| "unknown".to_owned(), |peer| peer.0.ip().to_string())
}

fn url(parts: &Parts) -> String {
    let scheme = parts
        .headers
        .get("x-forwarded-proto")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("http");
    // HTTP/2 and absolute-form requests name the authority in the URI (RFC 9112 §3.2.2).
    let authority = parts.uri.authority().map(|authority| authority.as_str());
    let host = parts
        .headers
        .get(HOST)
        .and_then(|value| value.to_str().ok());
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = authority.or(host).unwrap_or("localhost");
    format!("{scheme}://{authority}{path}")
}

fn text_or_data_url(body: &[u8]) -> String {
    match std::str::from_utf8(body) {
        Ok(text) => text.to_owned(),
        Err(_) => format!(
            "data:application/octet-stream;base64,{}",
            base64::encode(body)
        ),
    }
}
