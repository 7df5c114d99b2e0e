//! The request's authority: as the address of a host, and replaced by a host's name.

use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request};
use mesh_core::model::Address;
use mesh_core::{Failure, Name};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The address that the request names. The URI's authority goes before the `host` header
/// (RFC 9112 §3.2.2). Without a port it is 443 for `https`, or where there is no scheme and the
/// caller's connection is encrypted, and 80 otherwise.
///
/// # Errors
/// [`Failure::MissingHost`] when the request names nobody, [`Failure::BadRequest`] when the name
/// cannot be an address.
pub(super) fn of<B>(request: &Request<B>, tls: bool) -> Result<Address, Failure> {
    let from_header: Authority;
    let authority = match request.uri().authority() {
        Some(authority) => authority,
        None => {
            let value = request.headers().get(HOST).ok_or(Failure::MissingHost)?;
            if value.is_empty() {
                return Err(Failure::MissingHost);
            }
            from_header = value
                .as_bytes()
                .try_into()
                .map_err(|_| Failure::BadRequest)?;
            &from_header
        }
    };
    let host = authority.host();
    let port = match port_text(authority) {
        None | Some("") => {
            let secure = request
                .uri()
                .scheme()
                .map_or(tls, |scheme| *scheme == Scheme::HTTPS);
            if secure { 443 } else { 80 }
        }
        Some(text) => text.parse().map_err(|_| Failure::BadRequest)?,
    };
    if host.is_empty() || port == 0 {
        return Err(Failure::BadRequest);
    }
    if let Some(bracketed) = host.strip_prefix('[') {
        let ip = bracketed
            .strip_suffix(']')
            .and_then(|ip| ip.parse::<Ipv6Addr>().ok());
        let ip = ip.ok_or(Failure::BadRequest)?;
        return Ok(SocketAddr::from((ip, port)).into());
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(SocketAddr::from((ip, port)).into());
    }
    // One service per host, however its name is spelled (RFC 3986 §3.2.2).
    Ok(Address::Host(host.to_ascii_lowercase().into(), port))
}

/// The address that a TLS server name stands for, with this port (Envoy's dynamic forward proxy
/// by SNI).
///
/// # Errors
/// [`Failure::NoHealthyHost`] without a name, or with one that cannot be a host: nobody can be
/// told more, because no HTTP is spoken.
pub(super) fn of_server_name(name: &str, port: u16) -> Result<Address, Failure> {
    let authority = Authority::try_from(name).map_err(|_| Failure::NoHealthyHost)?;
    // A server name has no port and no user (RFC 6066 §3).
    if authority.host() != name || name.starts_with('[') || port == 0 {
        return Err(Failure::NoHealthyHost);
    }
    if let Ok(ip) = name.parse::<IpAddr>() {
        return Ok(SocketAddr::from((ip, port)).into());
    }
    Ok(Address::Host(name.to_ascii_lowercase().into(), port))
}

/// What stands after the host's colon, if there is one.
fn port_text(authority: &Authority) -> Option<&str> {
    let text = authority.as_str();
    let host_and_port = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
    host_and_port
        .strip_prefix(authority.host())?
        .strip_prefix(':')
}

/// Makes `name` the request's authority, in the URI and in the `host` header, whichever it has.
/// A name that cannot be an authority changes nothing.
pub(super) fn set<B>(request: &mut Request<B>, name: &Name) {
    let (Ok(authority), Ok(value)) = (
        Authority::try_from(name.as_str()),
        HeaderValue::from_str(name),
    ) else {
        return;
    };
    if request.uri().authority().is_some() {
        let mut parts = request.uri().clone().into_parts();
        parts.authority = Some(authority);
        if let Ok(uri) = parts.try_into() {
            *request.uri_mut() = uri;
        }
        if !request.headers().contains_key(HOST) {
            return;
        }
    }
    request.headers_mut().insert(HOST, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(uri: &str, host: Option<&str>) -> Request<()> {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        request.body(()).unwrap()
    }

    fn address(uri: &str, host: Option<&str>) -> Result<String, Failure> {
        of(&request(uri, host), false).map(|address| address.to_string())
    }

    #[test]
    fn the_uri_goes_before_the_header_and_the_scheme_gives_the_port() {
        let rows = [
            ("http://a.example/x", Some("b.example"), "a.example:80"),
            ("https://a.example/x", None, "a.example:443"),
            ("http://a.example:8080/x", None, "a.example:8080"),
            ("http://me:pw@A.Example:8080/x", None, "a.example:8080"),
            ("/x", Some("B.example"), "b.example:80"),
            ("/x", Some("b.example:"), "b.example:80"),
            ("/x", Some("10.0.0.1:8080"), "10.0.0.1:8080"),
            ("/x", Some("[::1]"), "[::1]:80"),
            ("http://[::1]:9/x", None, "[::1]:9"),
        ];
        for (uri, host, expected) in rows {
            assert_eq!(
                address(uri, host).as_deref(),
                Ok(expected),
                "{uri} {host:?}"
            );
        }
        let secure = of(&request("/x", Some("b.example")), true).unwrap();
        assert_eq!(secure.port(), 443);
    }

    #[test]
    fn a_request_that_names_nobody_or_nonsense_is_refused() {
        assert_eq!(address("/x", None), Err(Failure::MissingHost));
        assert_eq!(address("/x", Some("")), Err(Failure::MissingHost));
        for host in ["a b", "a:99999", "a:0", "a:x", ":80", "[::1", "[nonsense]"] {
            assert_eq!(
                address("/x", Some(host)),
                Err(Failure::BadRequest),
                "{host}"
            );
        }
    }

    #[test]
    fn a_server_name_is_a_host_and_nothing_else() {
        let address = |name, port| of_server_name(name, port).map(|address| address.to_string());
        assert_eq!(
            address("A.Example", 443).as_deref(),
            Ok("a.example:443"),
            "one host however it is spelled"
        );
        assert_eq!(address("10.0.0.1", 1).as_deref(), Ok("10.0.0.1:1"));
        for name in ["", "a:1", "me@a", "[::1]", "a b", "a/b"] {
            assert_eq!(address(name, 443), Err(Failure::NoHealthyHost), "{name}");
        }
        assert_eq!(address("a", 0), Err(Failure::NoHealthyHost));
    }

    #[test]
    fn the_authority_is_replaced_where_the_request_has_it() {
        let name = Name::from("new.example");
        let mut request = request("http://old:80/x?y", Some("old"));
        set(&mut request, &name);
        assert_eq!(request.uri(), "http://new.example/x?y");
        assert_eq!(request.headers()[HOST], "new.example");

        let mut request = self::request("/x", None);
        set(&mut request, &name);
        assert_eq!(
            (request.uri().to_string().as_str(), &request.headers()[HOST]),
            ("/x", &HeaderValue::from_static("new.example"))
        );

        let mut request = self::request("http://old/x", None);
        set(&mut request, &name);
        assert!(
            !request.headers().contains_key(HOST),
            "HTTP/2 has no host header"
        );

        let mut request = self::request("/x", Some("old"));
        set(&mut request, &Name::from("not a name"));
        assert_eq!(request.headers()[HOST], "old");
    }

    proptest! {
        #[test]
        fn no_host_header_makes_it_panic(host in "[ -~]{0,40}") {
            if let Ok(value) = HeaderValue::from_str(&host) {
                let mut request = request("/x", None);
                request.headers_mut().insert(HOST, value);
                if let Ok(address) = of(&request, false) {
                    prop_assert_ne!(address.port(), 0);
                }
            }
        }

        #[test]
        fn no_server_name_makes_it_panic(name in "\\PC{0,40}") {
            if let Ok(address) = of_server_name(&name, 443) {
                prop_assert_eq!(address.port(), 443);
            }
        }

        #[test]
        fn an_address_names_itself(name in "[a-z][a-z0-9.-]{0,20}", port in 1..=u16::MAX) {
            let text = format!("{name}:{port}");
            prop_assert_eq!(address("/x", Some(&text)), Ok(text));
        }
    }
}
