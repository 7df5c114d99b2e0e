//! Where callers are told of their endpoint, and how it is written there. Pure.

use crate::cookies;
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use mesh_core::base64;
use mesh_core::model::SessionState;
use mesh_core::protobuf::{self, Fields, Value};

/// What a request says of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is no session for requests like this.
    Nowhere,
    /// The endpoint that it is kept at, if it names one: an address, or whatever else the caller says.
    Asked(Option<String>),
}

/// A header that tells the caller of its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) name: HeaderName,
    pub(super) value: HeaderValue,
}

/// What stands before the endpoint's own value in an envelope.
const OWN: &str = "UV:";

/// What a request says at this time, in seconds since 1970. An envelope is taken off.
pub(super) fn read<B>(state: &SessionState, request: &mut Request<B>, now: u64) -> Found {
    match state {
        SessionState::Cookie(cookie) if !is_for(&cookie.path, request.uri()) => Found::Nowhere,
        SessionState::Cookie(cookie) => {
            let value = cookies::find(request.headers(), &cookie.name);
            Found::Asked(value.and_then(|value| of_cookie(value, now)))
        }
        SessionState::Header(name) => {
            let value = request.headers().get(name);
            let decoded = value.and_then(|value| base64::decode(value.as_bytes()));
            Found::Asked(decoded.and_then(text))
        }
        SessionState::Envelope(name) => Found::Asked(unwrap(name, request.headers_mut())),
        _ => Found::Nowhere,
    }
}

/// What the caller is told where `endpoint` answered, with these headers; nothing where it knows,
/// or where the answer has no session to be told in.
pub(super) fn write(
    state: &SessionState,
    endpoint: &str,
    is_other: bool,
    headers: &HeaderMap,
    now: impl FnOnce() -> u64,
) -> Option<Told> {
    let (name, value) = match state {
        SessionState::Cookie(cookie) => {
            let seconds = cookie.ttl.map_or(0, |ttl| ttl.as_secs());
            let ends = (seconds > 0).then(|| now().saturating_add(seconds));
            let value = is_other.then(|| to_cookie(endpoint, ends))?;
            (SET_COOKIE, cookies::line(cookie, &value, seconds))
        }
        SessionState::Header(name) => {
            let value = is_other.then(|| base64::encode(endpoint.as_bytes()))?;
            (name.clone(), value)
        }
        // Every time, for the endpoint's own value has to be in one.
        SessionState::Envelope(name) => {
            let mut all = headers.get_all(name).iter();
            let own = all.next().filter(|_| all.next().is_none())?;
            let endpoint = base64::encode(endpoint.as_bytes());
            let own = base64::encode(own.as_bytes());
            (name.clone(), format!("{endpoint};{OWN}{own}"))
        }
        _ => return None,
    };
    // What cannot stand in a header is not told.
    let value = HeaderValue::try_from(value).ok()?;
    Some(Told { name, value })
}

/// Whether a cookie with this path is sent along (RFC 6265 §5.1.4). As in Envoy the query is looked
/// at with the path, and one that ends in a slash is not for the path without it.
fn is_for(path: &str, uri: &Uri) -> bool {
    if path.is_empty() || path == "/" {
        return true;
    }
    let asked = uri.path_and_query().map_or("/", |asked| asked.as_str());
    let Some(rest) = asked.strip_prefix(path) else {
        return false;
    };
    path.ends_with('/') || rest.is_empty() || rest.starts_with(['/', '?', '#'])
}

/// The endpoint in a cookie: in base64, a message with the address (1) and the end (2) in seconds
/// since 1970, where it has one; or, as once, the address alone.
fn of_cookie(value: &[u8], now: u64) -> Option<String> {
    let decoded = base64::decode(value)?;
    let Some((address, ends)) = message(&decoded) else {
        return text(decoded);
    };
    let is_over = ends != 0 && now > ends;
    (!address.is_empty() && !is_over).then(|| address.to_owned())
}

fn message(bytes: &[u8]) -> Option<(&str, u64)> {
    let (mut address, mut ends) = ("", 0);
    for field in Fields::new(bytes) {
        match field? {
            (1, Value::Bytes(text)) => address = std::str::from_utf8(text).ok()?,
            (2, Value::Number(seconds)) => ends = seconds,
            _ => {}
        }
    }
    Some((address, ends))
}

fn to_cookie(endpoint: &str, ends: Option<u64>) -> String {
    let mut message = Vec::with_capacity(endpoint.len() + 10);
    protobuf::put_bytes(1, endpoint.as_bytes(), &mut message);
    if let Some(ends) = ends {
        protobuf::put_number(2, ends, &mut message);
    }
    base64::encode(&message)
}

/// What is no text names nobody, and still names.
fn text(bytes: Vec<u8>) -> Option<String> {
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (!text.is_empty()).then_some(text)
}

/// The endpoint in an envelope, whose inner value takes its place: both in base64, with `;UV:` between
/// them. One without an inner value stays as it is and names nobody.
fn unwrap(name: &HeaderName, headers: &mut HeaderMap) -> Option<String> {
    let value = headers.get(name)?.as_bytes();
    let mut parts = value
        .split(|byte| *byte == b';')
        .filter(|part| !part.is_empty());
    let endpoint = base64::decode(parts.next()?).and_then(text);
    let own = parts.find_map(|part| part.strip_prefix(OWN.as_bytes()))?;
    let own = base64::decode(own).filter(|own| !own.is_empty())?;
    // What cannot stand in a header is no value of the endpoint's.
    let own = HeaderValue::try_from(own).ok()?;
    headers.insert(name, own);
    endpoint
}
