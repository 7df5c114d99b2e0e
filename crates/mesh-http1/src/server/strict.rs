//! What a proxy at the edge refuses of heads that can be read, as Envoy's codec does: methods that
//! nobody registered, targets that their method does not take, hosts that are none, and a
//! `connection` that takes away what others rely on.

use crate::HeadError;
use crate::head::tokens;
use http::header::{self, HeaderMap};
use http::{Method, Request, Uri};

/// Methods besides the usual ones, in order: those that Envoy's parser knows
/// (`Http1ProtocolOptions.allow_custom_methods`).
const REGISTERED: [&str; 26] = [
    "ACL",
    "BIND",
    "CHECKOUT",
    "COPY",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MOVE",
    "MSEARCH",
    "NOTIFY",
    "PROPFIND",
    "PROPPATCH",
    "PURGE",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "SOURCE",
    "SUBSCRIBE",
    "UNBIND",
    "UNLINK",
    "UNLOCK",
    "UNSUBSCRIBE",
];

/// What a caller may not have removed: it tells who is behind a proxy.
const RELIED_ON: [&[u8]; 3] = [
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-proto",
];

/// So many options of `connection` are too many.
const MANY_OPTIONS: usize = 10;

/// The longest `te` that `connection` may name, in bytes.
const LONGEST_TE: usize = 256;

/// Refuses a head that is right as far as its syntax goes. `names_options` says whether it has a
/// `connection`.
pub(super) fn check(request: &Request<()>, names_options: bool) -> Result<(), HeadError> {
    if !is_registered(request.method()) {
        return Err(HeadError::Method);
    }
    check_target(request.method(), request.uri())?;
    let headers = request.headers();
    if request.uri().authority().is_none() {
        check_host(headers)?;
    }
    if names_options && !switches(headers) {
        return check_options(headers);
    }
    Ok(())
}

fn is_registered(method: &Method) -> bool {
    match *method {
        Method::GET
        | Method::POST
        | Method::HEAD
        | Method::PUT
        | Method::DELETE
        | Method::OPTIONS
        | Method::PATCH
        | Method::CONNECT
        | Method::TRACE => true,
        _ => REGISTERED.binary_search(&method.as_str()).is_ok(),
    }
}

/// The forms that RFC 9112 §3.2 has for a method.
fn check_target(method: &Method, uri: &Uri) -> Result<(), HeadError> {
    let Some(path) = uri.path_and_query() else {
        // A tunnel's, which has to say its port (RFC 9110 §9.3.6).
        let is_whole = uri.port_u16().is_some() && uri.host().is_some_and(|host| !host.is_empty());
        return is_whole.then_some(()).ok_or(HeadError::TargetForm);
    };
    if *method == Method::CONNECT || (path == "*" && *method != Method::OPTIONS) {
        return Err(HeadError::TargetForm);
    }
    if uri
        .scheme_str()
        .is_some_and(|it| it != "http" && it != "https")
    {
        return Err(HeadError::Scheme);
    }
    // The type takes UTF-8, which no URI has (RFC 3986 §2).
    if !path.as_str().is_ascii() {
        return Err(HeadError::Target);
    }
    Ok(())
}

/// RFC 9112 §3.2: one, and of characters that a host may have. User information is none of them
/// (RFC 9110 §4.2.4). Whether there has to be one is for others to say.
fn check_host(headers: &HeaderMap) -> Result<(), HeadError> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map_or(&b""[..], |host| host.as_bytes());
    if hosts.next().is_some() || !host.iter().all(|byte| is_of_host(*byte)) {
        return Err(HeadError::Host);
    }
    Ok(())
}

/// RFC 3986 §3.2.
fn is_of_host(byte: u8) -> bool {
    OF_HOST[usize::from(byte)]
}

static OF_HOST: [bool; 256] = {
    let mut of_host = [false; 256];
    let others = b"-._~:[]%!$&'()*+,;=";
    let mut at = 0;
    while at < others.len() {
        of_host[others[at] as usize] = true;
        at += 1;
    }
    let mut byte = 0;
    while byte < 128 {
        of_host[byte as usize] |= (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    of_host
};

/// Whether that is asked for with a name that means anything: `h2c` does not (RFC 9113 §3.1).
fn switches(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE);
    upgrade.is_some_and(|to| !to.as_bytes().eq_ignore_ascii_case(b"h2c"))
        && options(headers).any(|it| it.eq_ignore_ascii_case(b"upgrade"))
}

fn check_options(headers: &HeaderMap) -> Result<(), HeadError> {
    if options(headers).count() >= MANY_OPTIONS {
        return Err(HeadError::Connection);
    }
    for option in options(headers) {
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        let te = headers.get(header::TE).map_or(0, |te| te.len());
        if option.starts_with(b":")
            || RELIED_ON.iter().any(|name| is(name))
            || (is(b"te") && te > LONGEST_TE)
        {
            return Err(HeadError::Connection);
        }
    }
    Ok(())
}

/// All that `connection` names.
fn options(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::CONNECTION).iter();
    let options = lines.flat_map(|line| tokens(line.as_bytes()));
    options.filter(|option| !option.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limits, head};

    /// As a real Envoy 1.40 answers each of them.
    fn refused(line: &str, fields: &str) -> Option<HeadError> {
        let text = format!("{line} HTTP/1.1\r\n{fields}\r\n");
        match head::request(text.as_bytes(), &Limits::default(), HeaderMap::new()) {
            Ok(Some(head)) => check(&head.request, head.names_options).err(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn methods_that_nobody_registered_are_refused() {
        assert!(REGISTERED.is_sorted());
        for method in [
            "GET",
            "TRACE",
            "PROPFIND",
            "QUERY",
            "MSEARCH",
            "UNSUBSCRIBE",
        ] {
            assert_eq!(refused(&format!("{method} /"), ""), None, "{method}");
        }
        for method in ["FOO", "get", "GETX", "PUT!", "M-SEARCH", "PRI", "UPDATE"] {
            let error = refused(&format!("{method} /"), "");
            assert_eq!(error, Some(HeadError::Method), "{method}");
        }
    }

    #[test]
    fn a_target_has_a_form_that_its_method_takes() {
        for line in [
            "OPTIONS *",
            "GET /",
            "GET http://a/b",
            "CONNECT a:1",
            "CONNECT [::1]:80",
            "GET //x",
        ] {
            assert_eq!(refused(line, ""), None, "{line}");
        }
        for line in [
            "GET *",
            "POST *",
            "HEAD *",
            "CONNECT /",
            "CONNECT *",
            "CONNECT a",
            "CONNECT a:",
            "CONNECT http://a/",
        ] {
            assert_eq!(refused(line, ""), Some(HeadError::TargetForm), "{line}");
        }
        assert_eq!(refused("GET ftp://a/b", ""), Some(HeadError::Scheme));
        for line in ["GET /\u{e9}", "GET /a?\u{e9}", "GET http://a/\u{e9}"] {
            assert_eq!(refused(line, ""), Some(HeadError::Target), "{line}");
        }
    }

    #[test]
    fn a_host_is_one_and_of_characters_that_a_host_has() {
        for host in ["a", "a_b:80", "[::1]", "a%zz", "a,b", ".", ""] {
            assert_eq!(refused("GET /", &format!("host: {host}\r\n")), None);
        }
        for host in ["a/b", "a b", "a\u{e9}", "a<b", "a\\b", "a|b", "a#b", "u@a"] {
            let error = refused("GET /", &format!("host: {host}\r\n"));
            assert_eq!(error, Some(HeadError::Host), "{host}");
        }
        let two = refused("GET /", "host: a\r\nhost: b\r\n");
        assert_eq!(two, Some(HeadError::Host));
        // Nobody looks at it.
        assert_eq!(refused("GET http://a/", "host: a/b\r\n"), None);
    }

    #[test]
    fn connection_may_not_name_what_others_rely_on_nor_too_much() {
        let refused = |options: &str| {
            let fields = format!("connection: {options}\r\nte: {}\r\n", "a".repeat(257));
            refused("GET /", &fields)
        };
        let nine = "x, ".repeat(9);
        for fine in ["x-a, ,x-b", "host", "a:b", "x-forwarded-port", &nine, ""] {
            assert_eq!(refused(fine), None, "{fine}");
        }
        let ten = format!("{nine}close");
        for bad in [
            "X-Forwarded-For",
            "x-a, x-forwarded-proto",
            "x-forwarded-host",
            ":path",
            ":",
            "te",
            &ten,
        ] {
            assert_eq!(refused(bad), Some(HeadError::Connection), "{bad}");
        }
    }

    #[test]
    fn what_a_switch_of_protocols_brings_along_is_for_the_other_protocol() {
        let switch = |to: &str| {
            let named = "connection: upgrade, x-forwarded-for\r\n";
            refused("GET /", &format!("{named}upgrade: {to}\r\n"))
        };
        assert_eq!(switch("websocket"), None);
        assert_eq!(switch("H2C"), Some(HeadError::Connection));
    }
}
