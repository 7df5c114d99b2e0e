//! What is done to message heads at the edge to an upstream (RFC 9110 §7.6.1, RFC 9113 §8).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version, uri};
use http_body::Body;
use mesh_core::{Caller, Exchange};
use mesh_route::Head;

/// Headers that concern one connection only, besides those that `Connection` names.
static HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Headers that `Connection` cannot name: without them the message would mean something else
/// (RFC 9110 §7.6.1 lets a sender name only fields that are meant for the next hop).
static END_TO_END: [HeaderName; 3] = [header::HOST, header::TE, header::CONTENT_LENGTH];

/// Removes what must not be forwarded, but for a wish to upgrade if `upgrades`. Says whether there is
/// an `expect`, which is left.
pub(crate) fn strip(headers: &mut HeaderMap, upgrades: bool) -> bool {
    // One look at the names: few messages have more than one of them.
    let mut there = [false; HOP_BY_HOP.len()];
    let (mut te, mut expects) = (false, false);
    for name in headers.keys() {
        match *name {
            header::CONNECTION => there[0] = true,
            header::TRANSFER_ENCODING => there[1] = true,
            header::UPGRADE => there[2] = true,
            header::TE => te = true,
            header::EXPECT => expects = true,
            _ => match name.as_str() {
                "keep-alive" => there[3] = true,
                "proxy-connection" => there[4] = true,
                _ => {}
            },
        }
    }
    let keep = match upgrades && there[0] && there[2] {
        true => mesh_core::upgrade::of(headers).cloned(),
        false => None,
    };
    if there[0] {
        remove_named(headers);
    }
    for (name, there) in HOP_BY_HOP.iter().zip(there) {
        if there {
            headers.remove(name);
        }
    }
    if te {
        settle_te(headers);
    }
    if let Some(protocol) = keep {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    expects
}

/// Removes what `Connection` names.
fn remove_named(headers: &mut HeaderMap) {
    // Usually that is nothing, or what goes anyway.
    let goes = |token: &&[u8]| {
        let names = [&b"keep-alive"[..], b"upgrade"];
        names.iter().any(|name| name.eq_ignore_ascii_case(token))
    };
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !goes(token))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| !END_TO_END.contains(name))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// `te: trailers` is the one value that may pass (RFC 9113 §8.2.2; gRPC servers ask for it).
fn settle_te(headers: &mut HeaderMap) {
    const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");
    if headers.get(header::TE).is_none_or(|te| te == TRAILERS) {
        return;
    }
    let wants_trailers = headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"));
    headers.remove(header::TE);
    if wants_trailers {
        headers.insert(header::TE, TRAILERS);
    }
}

/// Makes a request fit for HTTP/1.1: origin form, `host`, no connection headers.
pub(crate) fn for_http1<B: Body>(request: &mut Request<B>) {
    if strip(request.headers_mut(), true) {
        request.headers_mut().remove(header::EXPECT);
    }
    *request.version_mut() = Version::HTTP_11;
    settle_length(request);
    if let Some(authority) = request.uri().authority() {
        if !request.headers().contains_key(header::HOST)
            && let Ok(host) = HeaderValue::from_str(without_userinfo(authority))
        {
            request.headers_mut().insert(header::HOST, host);
        }
        if request.method() != Method::CONNECT {
            let path = std::mem::take(request.uri_mut())
                .into_parts()
                .path_and_query;
            let path = path.unwrap_or_else(|| uri::PathAndQuery::from_static("/"));
            *request.uri_mut() = Uri::from(path);
        }
    }
}

/// Says that there is no body where a server would else wait for one, or refuse (RFC 9110 §8.6).
/// For these methods Envoy does not say it either.
fn settle_length<B: Body>(request: &mut Request<B>) {
    // What comes behind an upgrade is no body.
    let needless = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::DELETE | Method::TRACE | Method::CONNECT
    ) || request.headers().contains_key(header::UPGRADE);
    if !needless
        && request.body().is_end_stream()
        && !request.headers().contains_key(header::CONTENT_LENGTH)
    {
        let none = HeaderValue::from_static("0");
        request.headers_mut().insert(header::CONTENT_LENGTH, none);
    }
}

/// Makes a request fit for HTTP/2: absolute form with the authority from `host`. Without a scheme
/// of its own it gets `https` if `secure`, else `http`.
pub(crate) fn for_http2<B: Body>(request: &mut Request<B>, secure: bool) {
    if strip(request.headers_mut(), false) {
        request.headers_mut().remove(header::EXPECT);
    }
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(header::HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    // The header wins: it is what a rewrite of the authority set.
    if let Some(authority) = host.and_then(|host| uri::Authority::try_from(host.as_bytes()).ok()) {
        parts.authority = Some(authority);
    }
    if parts.authority.is_some() && parts.scheme.is_none() {
        parts.scheme = Some(if secure {
            uri::Scheme::HTTPS
        } else {
            uri::Scheme::HTTP
        });
    }
    if parts.path_and_query.is_none() {
        parts.path_and_query = Some(uri::PathAndQuery::from_static("/"));
    }
    if parts.authority.is_none() {
        parts.scheme = None;
    }
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

/// What HTTP/2 says of a request that has no scheme of its own: how its caller came, or what a proxy
/// in front that is believed says of that in `x-forwarded-proto` (as Envoy's `mutateRequestHeaders`);
/// where nobody called, how it goes on, which is `secured`.
pub(crate) fn is_secure<B>(request: &Request<B>, secured: bool) -> bool {
    let caller = Exchange::of(request).map(Exchange::caller);
    match caller.is_some_and(Caller::is_connected) {
        true => Head::of(request).is_secure(),
        false => secured,
    }
}

fn without_userinfo(authority: &uri::Authority) -> &str {
    let text = authority.as_str();
    text.rsplit_once('@').map_or(text, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body as OurBody;
    use mesh_core::model::HttpManager;
    use std::sync::Arc;

    fn request(builder: http::request::Builder) -> Request<OurBody> {
        builder.body(OurBody::empty()).unwrap()
    }

    #[test]
    fn a_request_that_could_have_a_body_says_that_it_has_none() {
        for (method, length) in [
            ("GET", None),
            ("DELETE", None),
            ("OPTIONS", Some("0")),
            ("POST", Some("0")),
            ("PUT", Some("0")),
        ] {
            let mut request = request(Request::builder().method(method).uri("http://a/"));
            for_http1(&mut request);
            let told = request.headers().get("content-length");
            assert_eq!(told.map(|it| it.to_str().unwrap()), length, "{method}");
        }
        let mut request = Request::post("http://a/")
            .body(OurBody::new(http_body_util::Full::from("x")))
            .unwrap();
        for_http1(&mut request);
        assert!(
            !request.headers().contains_key("content-length"),
            "there is a body"
        );
    }

    #[test]
    fn headers_that_connection_names_stay_behind() {
        let mut request = request(
            Request::get("http://u:p@a:1/x?y")
                .header("connection", "keep-alive, x-mine")
                .header("keep-alive", "timeout=5")
                .header("x-mine", "1")
                .header("te", "trailers")
                .header("x-kept", "1"),
        );
        for_http1(&mut request);
        assert_eq!(request.uri(), "/x?y");
        assert_eq!(request.headers()["host"], "a:1");
        let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["host", "te", "x-kept"]);
    }

    #[test]
    fn every_connection_header_is_read_and_none_may_name_what_frames_the_message() {
        let mut request = request(
            Request::get("/")
                .header("host", "h")
                .header("content-length", "0")
                .header("connection", "close")
                .header("connection", "X-Second , content-length,host, \"")
                .header("x-second", "1"),
        );
        for_http1(&mut request);
        let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-length", "host"]);
    }

    #[test]
    fn of_te_only_trailers_passes() {
        for (sent, passed) in [
            (&["trailers"][..], Some("trailers")),
            (&["gzip, Trailers"], Some("trailers")),
            (&["gzip", "trailers"], Some("trailers")),
            (&["gzip;q=0.5"], None),
            (&[], None),
        ] {
            let mut request = request(Request::get("/").header("host", "h"));
            for value in sent {
                request
                    .headers_mut()
                    .append("te", HeaderValue::from_static(value));
            }
            for_http2(&mut request, false);
            let te = request.headers().get_all("te").iter();
            let te: Vec<_> = te.map(|te| te.to_str().unwrap()).collect();
            assert_eq!(te, Vec::from_iter(passed), "{sent:?}");
        }
    }

    #[test]
    fn an_upgrade_passes_and_nothing_else_of_the_connection() {
        let mut request = request(
            Request::get("/chat")
                .header("connection", "Upgrade, x")
                .header("upgrade", "websocket")
                .header("x", "1"),
        );
        for_http1(&mut request);
        assert_eq!(request.headers()["upgrade"], "websocket");
        assert_eq!(request.headers()["connection"], "upgrade");
        assert!(!request.headers().contains_key("x"));
    }

    #[test]
    fn who_is_believed_says_whether_the_caller_came_secured() {
        let told = |hops: Option<u32>, secured: bool| {
            let mut manager = HttpManager::new("in", "t");
            manager.use_remote_address = hops.is_some();
            manager.trusted_hops = hops.unwrap_or(0);
            let mut caller = Caller::default();
            caller.peer = Some(([127, 0, 0, 1], 1).into());
            caller.manager = Some(Arc::new(manager));
            let mut request = request(Request::get("/x").header("x-forwarded-proto", "https"));
            Exchange::new(tokio::time::Instant::now().into_std(), caller).attach(&mut request);
            is_secure(&request, secured)
        };
        // How it goes on has nothing to do with it.
        for secured in [false, true] {
            assert!(told(None, secured), "a sidecar believes what it is told");
            assert!(told(Some(1), secured), "so does who stands behind a proxy");
            assert!(!told(Some(0), secured), "an edge knows better");
        }
        let alone = request(Request::get("/x").header("x-forwarded-proto", "https"));
        assert!(!is_secure(&alone, false), "nobody called");
        assert!(is_secure(&alone, true));
    }

    #[test]
    fn http2_gets_its_authority_from_the_host_header() {
        let mut plain = request(Request::get("/x").header("host", "b:2"));
        for_http2(&mut plain, false);
        assert_eq!(plain.uri(), "http://b:2/x");
        let mut rewritten = request(Request::get("http://a/x").header("host", "b"));
        for_http2(&mut rewritten, true);
        assert_eq!(rewritten.uri(), "http://b/x", "it has a scheme");
        let mut secure = request(Request::get("/x").header("host", "b:2"));
        for_http2(&mut secure, true);
        assert_eq!(secure.uri(), "https://b:2/x");
        assert!(rewritten.headers().is_empty());
    }
}
