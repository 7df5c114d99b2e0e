//! What is known about a request or connection when it is judged.

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use mesh_core::exchange::TlsInfo;
use mesh_core::{Caller, Claim, Claims, Exchange};
use std::net::{IpAddr, SocketAddr};

/// What is known about a request or connection. Borrows everything; nothing is worked out before a
/// rule asks for it.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Facts<'a> {
    /// The request. None: it is a connection of bytes.
    pub request: Option<RequestFacts<'a>>,
    /// The address on the connection itself.
    pub direct: Option<IpAddr>,
    /// The peer, the PROXY protocol's header believed.
    pub source: Option<IpAddr>,
    /// The caller, `x-forwarded-for` believed as far as it is trusted.
    pub remote: Option<IpAddr>,
    /// Where the connection was going to.
    pub destination: Option<SocketAddr>,
    /// What was agreed on with TLS, or seen of it.
    pub tls: Option<&'a TlsInfo>,
    /// What the caller's token says, where one was found valid.
    pub claims: Option<&'a Claim>,
}

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts<'a> {
    method: &'a Method,
    uri: &'a Uri,
    headers: &'a HeaderMap,
    /// What the connection is, or what a trusted proxy in front says of it.
    secure: bool,
}

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

// === impl Facts ===

impl<'a> Facts<'a> {
    /// What is known of a connection.
    pub fn of_connection(caller: &'a Caller) -> Self {
        let source = caller.peer.map(|peer| peer.ip());
        Self {
            request: None,
            direct: caller.direct.map_or(source, |direct| Some(direct.ip())),
            source,
            remote: source,
            destination: caller.original.or(caller.local),
            tls: caller.tls.as_deref(),
            claims: None,
        }
    }

    /// What is known of a request, by its exchange.
    pub fn of_exchange<B>(exchange: &'a Exchange, request: &'a Request<B>) -> Self {
        let caller = exchange.caller();
        let manager = caller.manager.as_ref();
        let believes =
            manager.is_none_or(|manager| !manager.use_remote_address || manager.trusted_hops > 0);
        let said = request.headers().get(FORWARDED_PROTO);
        let said = said.filter(|_| believes).and_then(is_https);
        let mut facts = Self::of_connection(caller);
        let claims = exchange.claims().or_else(|| request.extensions().get());
        facts.claims = claims.map(Claims::payload);
        facts.remote = exchange.remote().map(|remote| remote.ip());
        facts.request = Some(RequestFacts {
            secure: said.unwrap_or_else(|| caller.is_secure()),
            ..RequestFacts::of(request)
        });
        facts
    }

    /// What is known of a request of which nothing but itself is.
    pub fn of_request<B>(request: &'a Request<B>) -> Self {
        Self {
            request: Some(RequestFacts::of(request)),
            claims: request.extensions().get().map(Claims::payload),
            ..Self::default()
        }
    }

    /// The server name asked for; empty where none was, and where it was not looked at in time
    /// (`TlsInfo::late_server_name`).
    pub fn server_name(&self) -> &'a str {
        let tls = self.tls.filter(|tls| !tls.late_server_name);
        tls.map_or("", |tls| &tls.server_name)
    }
}

// === impl RequestFacts ===

impl<'a> RequestFacts<'a> {
    /// The head of a request that came in plain text.
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            secure: false,
        }
    }

    /// `:method`
    pub fn method(&self) -> &'a str {
        self.method.as_str()
    }

    /// The headers.
    pub fn headers(&self) -> &'a HeaderMap {
        self.headers
    }

    /// `:scheme`
    pub fn scheme(&self) -> &'a str {
        let otherwise = if self.secure { "https" } else { "http" };
        self.uri.scheme_str().unwrap_or(otherwise)
    }

    /// `:authority`: the URI's, else the `host` header.
    pub fn authority(&self) -> Option<&'a [u8]> {
        match self.uri.authority() {
            Some(authority) => Some(authority.as_str().as_bytes()),
            None => self.headers.get(HOST).map(HeaderValue::as_bytes),
        }
    }

    /// `:path`, with the query. A plain `CONNECT` has none.
    pub fn path_and_query(&self) -> Option<&'a str> {
        self.uri.path_and_query().map(|both| both.as_str())
    }

    /// The path alone.
    pub fn path(&self) -> Option<&'a str> {
        self.uri.path_and_query().map(|both| both.path())
    }
}

fn is_https(value: &HeaderValue) -> Option<bool> {
    match value.as_bytes() {
        secure if secure.eq_ignore_ascii_case(b"https") => Some(true),
        plain if plain.eq_ignore_ascii_case(b"http") => Some(false),
        _ => None,
    }
}
