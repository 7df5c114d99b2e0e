//! Cookies of a request, as Envoy's `forEachCookie` reads them, and those of an answer.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use mesh_core::model::HashCookie;

/// The first cookie with this name, without quotes around its value.
pub(crate) fn find<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let lines = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes);
    let pairs = lines.flat_map(|line| line.split(|byte| *byte == b';'));
    let value = pairs.into_iter().find_map(|pair| {
        let start = pair.iter().position(|byte| *byte != b' ')?;
        let pair = &pair[start..];
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        (&pair[..equals] == name.as_bytes()).then(|| &pair[equals + 1..])
    })?;
    match value {
        [b'"', inner @ .., b'"'] => Some(inner),
        plain => Some(plain),
    }
}

/// `name="value"; Max-Age=…; Path=…; …; HttpOnly`, as Envoy's `makeSetCookieValue` writes it.
pub(crate) fn line(wanted: &HashCookie, value: &str, seconds: u64) -> String {
    let mut line = format!("{}=\"{value}\"", wanted.name);
    if seconds > 0 {
        line += &format!("; Max-Age={seconds}");
    }
    if !wanted.path.is_empty() {
        line += &format!("; Path={}", wanted.path);
    }
    for (name, value) in &wanted.attributes {
        line += "; ";
        line += name;
        if !value.is_empty() {
            line += "=";
            line += value;
        }
    }
    line + "; HttpOnly"
}
