//! What routing looks at: method, authority, scheme, path, query and headers of a request.

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use mesh_core::exchange::TlsInfo;
use mesh_core::model::FilterState;
use mesh_core::{Claim, Claims, Exchange};

/// The head of a request as routing sees it. Cheap to copy; borrows everything.
///
/// The authority is the URI's where it has one (HTTP/2, absolute form), else the `host` header's.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    scheme: &'a str,
    secure: bool,
    tls: Option<&'a TlsInfo>,
    claims: Option<&'a Claim>,
    filter_state: Option<&'a FilterState>,
}

/// What a trusted proxy in front says about the caller's connection.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

// === impl Head ===

impl<'a> Head<'a> {
    /// A head that came over a plain-text connection.
    pub fn new(method: &'a Method, uri: &'a Uri, headers: &'a HeaderMap) -> Self {
        Self {
            method,
            uri,
            headers,
            scheme: uri.scheme_str().unwrap_or("http"),
            secure: false,
            tls: None,
            claims: None,
            filter_state: None,
        }
    }

    /// The head of a request. Whether the caller's connection is encrypted is taken from
    /// `x-forwarded-proto` where the listener trusts the proxy in front of it (Envoy: where it
    /// does not `use_remote_address`), else from the [`Caller`](mesh_core::Caller) of the
    /// request's [`Exchange`]; the scheme follows from it unless the URI has one.
    pub fn of<B>(request: &'a Request<B>) -> Self {
        let exchange = Exchange::of(request);
        Self::with(exchange, request.method(), request.uri(), request.headers())
    }

    /// The same of its parts.
    pub(crate) fn with(
        exchange: Option<&'a Exchange>,
        method: &'a Method,
        uri: &'a Uri,
        headers: &'a HeaderMap,
    ) -> Self {
        let caller = exchange.map(Exchange::caller);
        let believes = caller
            .and_then(|caller| caller.manager.as_ref())
            .is_none_or(|manager| !manager.use_remote_address || manager.trusted_hops > 0);
        let said = || headers.get(FORWARDED_PROTO).and_then(is_https);
        let secure = believes
            .then(said)
            .flatten()
            .unwrap_or_else(|| caller.is_some_and(|caller| caller.is_secure()));
        Self {
            secure,
            tls: caller.and_then(|caller| caller.tls.as_deref()),
            claims: exchange.and_then(Exchange::claims).map(Claims::payload),
            filter_state: exchange
                .and_then(Exchange::filter_state)
                .filter(|state| state.is_for_routes()),
            scheme: uri
                .scheme_str()
                .unwrap_or(if secure { "https" } else { "http" }),
            ..Self::new(method, uri, headers)
        }
    }

    /// The method.
    pub fn method(&self) -> &'a Method {
        self.method
    }

    /// The headers.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// `http` or `https` (or whatever scheme the URI has).
    pub fn scheme(&self) -> &'a str {
        self.scheme
    }

    /// What the caller's token says, where one was found valid.
    pub fn claims(&self) -> Option<&'a Claim> {
        self.claims
    }

    /// What the listener kept of the request for routes.
    pub fn filter_state(&self) -> Option<&'a FilterState> {
        self.filter_state
    }

    /// What was agreed on in the TLS handshake of the caller's connection.
    pub fn tls(&self) -> Option<&'a TlsInfo> {
        self.tls
    }

    /// Whether the caller's own connection is encrypted, as far as is known.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// Host and port, as the caller wrote them.
    pub fn authority(&self) -> Option<&'a str> {
        match self.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => self.headers.get(HOST)?.to_str().ok(),
        }
    }

    /// The path without the query. A plain `CONNECT` has none.
    pub fn path(&self) -> Option<&'a str> {
        self.uri.path_and_query().map(|both| both.path())
    }

    /// Path and query.
    pub fn path_and_query(&self) -> Option<&'a str> {
        self.uri.path_and_query().map(|both| both.as_str())
    }

    /// What follows the first `?`.
    pub fn query(&self) -> Option<&'a str> {
        self.uri.query()
    }
}

fn is_https(value: &HeaderValue) -> Option<bool> {
    match value.as_bytes() {
        secure if secure.eq_ignore_ascii_case(b"https") => Some(true),
        plain if plain.eq_ignore_ascii_case(b"http") => Some(false),
        _ => None,
    }
}

/// Where the port begins in an authority: at the last colon that is not inside brackets. What
/// follows it need not be a number (Envoy `HeaderUtility::getPortStart`).
pub(crate) fn port_start(authority: &str) -> Option<usize> {
    let colon = authority.rfind(':')?;
    match authority.rfind(']') {
        Some(bracket) if bracket > colon => None,
        _ => Some(colon),
    }
}

/// Longest list of header values that is joined without allocating.
const JOINED: usize = 512;

/// Calls `look` with the value of a header, several values joined with `,`.
///
/// Allocates only where there are several values of more than 512 bytes together.
pub(crate) fn with_header<T>(
    headers: &HeaderMap,
    name: &HeaderName,
    look: impl FnOnce(Option<&[u8]>) -> T,
) -> T {
    let mut values = headers.get_all(name).iter();
    let first = values.next().map(HeaderValue::as_bytes);
    if values.next().is_none() {
        return look(first);
    }
    let values = || headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let length = values().map(|value| value.len() + 1).sum::<usize>() - 1;
    if length > JOINED {
        return look(Some(&values().collect::<Vec<_>>().join(&b',')));
    }
    let mut joined = [b','; JOINED];
    let mut at = 0;
    for value in values() {
        joined[at..at + value.len()].copy_from_slice(value);
        at += value.len() + 1;
    }
    look(Some(&joined[..length]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::Caller;
    use mesh_core::model::HttpManager;
    use std::sync::Arc;

    #[test]
    fn the_authority_of_the_uri_wins_over_the_host_header() {
        let request = Request::get("http://b.example/x")
            .header(HOST, "a.example")
            .body(())
            .unwrap();
        assert_eq!(Head::of(&request).authority(), Some("b.example"));
        let request = Request::get("/x")
            .header(HOST, "a.example")
            .body(())
            .unwrap();
        assert_eq!(Head::of(&request).authority(), Some("a.example"));
    }

    #[test]
    fn a_plain_connect_has_no_path() {
        let request = Request::connect("a.example:80").body(()).unwrap();
        let head = Head::of(&request);
        assert_eq!(
            (head.path(), head.authority()),
            (None, Some("a.example:80"))
        );
        let request = Request::options("*").body(()).unwrap();
        assert_eq!(Head::of(&request).path(), Some("*"));
    }

    #[test]
    fn an_edge_listener_does_not_believe_what_the_caller_says_of_its_connection() {
        let request = |trusting: bool| {
            let mut manager = HttpManager::new("in", "t");
            manager.use_remote_address = !trusting;
            let mut caller = Caller::default();
            caller.manager = Some(Arc::new(manager));
            let mut request = Request::get("/")
                .header(FORWARDED_PROTO, "HTTPS")
                .body(())
                .unwrap();
            Exchange::new(tokio::time::Instant::now().into_std(), caller).attach(&mut request);
            request
        };
        let (trusting, edge) = (request(true), request(false));
        assert_eq!(Head::of(&trusting).scheme(), "https");
        assert_eq!(Head::of(&edge).scheme(), "http");
        assert!(!Head::of(&edge).is_secure());
    }

    #[test]
    fn what_was_kept_is_seen_by_routes_only_if_it_is_for_them() {
        let seen = |for_routes| {
            let exchange = Exchange::new(tokio::time::Instant::now().into_std(), Caller::default());
            exchange.set_filter_state(FilterState::new(for_routes));
            let mut request = Request::get("/").body(()).unwrap();
            exchange.attach(&mut request);
            Head::of(&request).filter_state().is_some()
        };
        assert!(seen(true));
        assert!(!seen(false));
    }

    #[test]
    fn a_port_begins_at_the_last_colon_outside_of_brackets() {
        let hosts = ["a:1", "a:", "a", "[::1]", "[::1]:80", ":80"];
        let starts = hosts.map(port_start);
        assert_eq!(starts, [Some(1), Some(1), None, None, Some(5), Some(0)]);
    }

    #[test]
    fn several_values_are_joined_with_a_comma_however_long_they_are() {
        let name = HeaderName::from_static("x-a");
        for size in [0, 1, 200, 400] {
            let mut headers = HeaderMap::new();
            let value = "v".repeat(size);
            for _ in 0..2 {
                headers.append(&name, HeaderValue::try_from(&value).unwrap());
            }
            let joined = with_header(&headers, &name, |value| value.map(<[u8]>::to_vec));
            assert_eq!(joined.unwrap(), format!("{value},{value}").into_bytes());
        }
        assert!(with_header(&HeaderMap::new(), &name, |value| value.is_none()));
    }
}
