//! Cookies of a request, as Envoy's `forEachCookie` reads them.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

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
