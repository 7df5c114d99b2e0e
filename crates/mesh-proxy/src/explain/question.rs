//! What is asked: a request line, headers, and which listener.

use http::header::{HOST, HeaderName, HeaderValue};
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, Uri};

/// A request to explain.
#[derive(Clone, Debug)]
pub struct Question {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) listener: Option<String>,
}

/// Why a text is no question: what is wrong, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadQuestion(pub(super) String);

/// Most headers of a question.
const MOST_HEADERS: usize = 100;

// === impl Question ===

impl Question {
    /// Reads `GET http://reviews:9080/x`, or only the URL, and headers as `name: value`.
    ///
    /// A path alone will do where a `host` header says the rest.
    ///
    /// # Errors
    /// If that is no request.
    pub fn parse<H: AsRef<str>>(
        request: &str,
        headers: impl IntoIterator<Item = H>,
    ) -> Result<Self, BadQuestion> {
        let headers = read_headers(headers)?;
        let mut words = request.split_whitespace();
        let (method, target) = match (words.next(), words.next(), words.next()) {
            (Some(target), None, None) => ("GET", target),
            (Some(method), Some(target), None) => (method, target),
            _ => return Err(bad(format!("{request:?} is no request"))),
        };
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| bad(format!("{method:?} is no method")))?;
        let uri: Uri = target
            .parse()
            .map_err(|error| bad(format!("{target:?} is no URL ({error})")))?;
        match uri.scheme() {
            None if headers.contains_key(HOST) && target.starts_with('/') => {}
            None => return Err(bad(format!("{target:?} has no scheme and no host"))),
            Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {}
            Some(scheme) => return Err(bad(format!("{scheme} is neither http nor https"))),
        }
        Ok(Self {
            method,
            uri,
            headers,
            listener: None,
        })
    }

    /// The listener by name, by address or by port, instead of the one that fits best.
    #[must_use]
    pub fn listener(mut self, listener: Option<String>) -> Self {
        self.listener = listener.filter(|name| !name.is_empty());
        self
    }

    /// Whether the caller's connection is secured.
    pub(super) fn is_secure(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    /// The host that is asked for, without its port.
    pub(super) fn host(&self) -> &str {
        match self.uri.authority() {
            Some(authority) => authority.host(),
            None => self.host_header().map_or("", |host| split(host).0),
        }
    }

    /// The port that a client would connect to.
    pub(super) fn port(&self) -> u16 {
        let said = match self.uri.authority() {
            Some(authority) => authority.port_u16(),
            None => self.host_header().and_then(|host| split(host).1),
        };
        said.unwrap_or_else(|| if self.is_secure() { 443 } else { 80 })
    }

    fn host_header(&self) -> Option<&str> {
        self.headers.get(HOST)?.to_str().ok()
    }

    /// The request as HTTP/1.1 has it: a path, and a `host`.
    pub(super) fn request(&self) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.headers_mut() = self.headers.clone();
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = self.uri.path_and_query().cloned();
        let path = Uri::from_parts(parts);
        *request.uri_mut() = path.unwrap_or_else(|_| self.uri.clone());
        if let Some(authority) = self.uri.authority()
            && !self.headers.contains_key(HOST)
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            request.headers_mut().insert(HOST, host);
        }
        request
    }
}

/// Host and port of a `host` header.
fn split(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().ok()),
        _ => (host, None),
    }
}

fn read_headers<H: AsRef<str>>(
    lines: impl IntoIterator<Item = H>,
) -> Result<HeaderMap, BadQuestion> {
    let mut headers = HeaderMap::new();
    for line in lines {
        let line = line.as_ref();
        let wrong =
            |what: &str| BadQuestion(format!("header {line:?} {what}; expected \"name: value\""));
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("has no value"))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| wrong("has a name that cannot be"))?;
        let value =
            HeaderValue::from_str(value.trim()).map_err(|_| wrong("has a value that cannot be"))?;
        if headers.len() >= MOST_HEADERS {
            return Err(BadQuestion(format!("more than {MOST_HEADERS} headers")));
        }
        headers.append(name, value);
    }
    Ok(headers)
}

fn bad(what: String) -> BadQuestion {
    BadQuestion(format!("{what}; expected \"METHOD http://HOST:PORT/PATH\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [&str; 0] = [];

    #[test]
    fn a_request_line_is_a_method_and_a_url_or_a_path_with_a_host() {
        let question = Question::parse("POST https://a.example/x?y", ["A-b:  c "]).unwrap();
        assert_eq!(question.method, Method::POST);
        assert_eq!((question.host(), question.port()), ("a.example", 443));
        assert!(question.is_secure());
        let request = question.request();
        assert_eq!(request.uri(), "/x?y");
        assert_eq!(request.headers()["host"], "a.example");
        assert_eq!(request.headers()["a-b"], "c");
        let question = Question::parse("/x", ["host: b:81"]).unwrap();
        assert_eq!((question.host(), question.port()), ("b", 81));
        let question = Question::parse("http://[::1]:9080", NONE).unwrap();
        assert_eq!(question.port(), 9080);
        assert_eq!(question.request().uri(), "/");
    }

    #[test]
    fn what_is_no_request_is_refused_with_what_was_expected() {
        for (text, header, what) in [
            ("", "a: b", "is no request"),
            ("GET", "a: b", "has no scheme"),
            ("GET reviews:9080/x", "a: b", "no"),
            ("GET /x", "a: b", "has no scheme and no host"),
            ("GET ftp://x/", "a: b", "neither http nor https"),
            ("G@T http://x/", "a: b", "is no method"),
            ("GET http://x/ HTTP/1.1", "a: b", "is no request"),
            ("GET http://x/", "a", "has no value"),
            ("GET http://x/", "a b: c", "name that cannot be"),
            ("GET http://x/", "a: \u{1}", "value that cannot be"),
        ] {
            let error = Question::parse(text, [header]).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
            assert!(error.contains("expected"), "{error}");
        }
    }
}
