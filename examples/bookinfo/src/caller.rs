//! Who calls, as the mesh has verified it.
//!
//! A sidecar tells its application who opened the connection in `x-forwarded-client-cert`, and takes
//! away what anybody else wrote there. Its last element is of the caller next to it; `URI=` in it is
//! the caller's SPIFFE identity. Without mutual TLS there is no such header.

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Tells whoever asked as whom the mesh has seen him.
pub(crate) const CALLED_BY: HeaderName = HeaderName::from_static("x-called-by");

const CERTIFICATE: &str = "x-forwarded-client-cert";

/// The caller's identity, `spiffe://…`; none without mutual TLS.
pub(crate) fn caller(headers: &HeaderMap) -> Option<&str> {
    let elements = headers.get_all(CERTIFICATE).iter().next_back()?;
    let last = parts(elements.to_str().ok()?, ',').pop()?;
    let of_uri = |pair: &&str| {
        let key = pair.split_once('=').map(|(key, _)| key.trim());
        key.is_some_and(|key| key.eq_ignore_ascii_case("uri"))
    };
    let pair = parts(last, ';').into_iter().find(of_uri)?;
    let (_, value) = pair.split_once('=')?;
    let value = value.trim().trim_matches('"');
    (!value.is_empty()).then_some(value)
}

/// Makes every answer of a service say who asked for it.
pub(crate) async fn told(request: Request, next: Next) -> Response {
    let caller = caller(request.headers()).and_then(|it| HeaderValue::from_str(it).ok());
    let mut response = next.run(request).await;
    if let Some(caller) = caller {
        response.headers_mut().insert(CALLED_BY, caller);
    }
    response
}

/// What lies between separators that are not in quotes.
fn parts(text: &str, separator: char) -> Vec<&str> {
    let mut quoted = false;
    let split = |c: char| {
        quoted ^= c == '"';
        c == separator && !quoted
    };
    text.split(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_static(value));
        values
            .map(|value| (HeaderName::from_static(CERTIFICATE), value))
            .collect()
    }

    #[test]
    fn the_caller_is_the_uri_of_the_last_element() {
        let one =
            "By=spiffe://d/ns/a/sa/me;Hash=ab;Subject=\"O=x,URI=no;\";URI=spiffe://d/ns/a/sa/b";
        assert_eq!(caller(&of(&[one])), Some("spiffe://d/ns/a/sa/b"));
        let two = "URI=spiffe://d/far;Hash=1,Hash=2;uri=\"spiffe://d/near\"";
        assert_eq!(caller(&of(&[two])), Some("spiffe://d/near"));
        assert_eq!(caller(&of(&["URI=a", "URI=b"])), Some("b"));
    }

    #[test]
    fn without_a_certificate_nobody_is_known() {
        for none in [&[][..], &[""], &["Hash=ab"], &["URI=a,Hash=b"], &["URI="]] {
            assert_eq!(caller(&of(none)), None, "{none:?}");
        }
    }
}
