//! The tables here were read off a running Envoy 1.40.

use super::*;
use http::{HeaderName, HeaderValue, Request};
use mesh_core::model::{Fraction, Pattern, StringMatch};

const NAME: HeaderName = HeaderName::from_static("x-h");

fn request(values: &[&'static str]) -> Request<()> {
    let mut request = Request::get("/").body(()).unwrap();
    for value in values {
        request
            .headers_mut()
            .append(NAME, HeaderValue::from_static(value));
    }
    request
}

fn want(value: ValueMatch, invert: bool, missing_is_empty: bool) -> HeaderMatch {
    HeaderMatch {
        key: HeaderKey::Header(NAME),
        value,
        invert,
        missing_is_empty,
    }
}

fn exact(text: &str) -> ValueMatch {
    ValueMatch::Text(StringMatch::Exact(text.into()))
}

#[test]
fn header_matches_decide_as_envoy_does_for_missing_inverted_and_repeated_headers() {
    use ValueMatch::{Present, Range};
    let requests = [
        request(&[]),
        request(&["v"]),
        request(&[""]),
        request(&["7"]),
        request(&["+7"]),
        request(&["v", "v"]),
    ];
    // Columns: missing, "v", "", "7", "+7", "v" twice.
    let table = [
        (want(exact("v"), false, false), [0, 1, 0, 0, 0, 1]),
        (want(exact("v"), true, false), [0, 0, 1, 1, 1, 0]),
        (want(exact("v"), true, true), [1, 0, 1, 1, 1, 0]),
        (want(Present(true), false, false), [0, 1, 1, 1, 1, 1]),
        (want(Present(false), false, false), [1, 0, 0, 0, 0, 0]),
        (want(Present(true), true, false), [1, 0, 0, 0, 0, 0]),
        (want(Present(false), true, false), [0, 1, 1, 1, 1, 1]),
        (want(Present(true), false, true), [1, 1, 1, 1, 1, 1]),
        (want(Present(false), false, true), [0, 0, 0, 0, 0, 0]),
        (want(Present(true), true, true), [0, 0, 0, 0, 0, 0]),
        (want(Range(-5, 10), false, false), [0, 0, 0, 1, 1, 0]),
        (want(Range(-5, 10), true, false), [0, 1, 1, 0, 0, 1]),
        (want(Range(-5, 10), true, true), [1, 1, 1, 0, 0, 1]),
        (want(exact(""), false, true), [1, 0, 1, 0, 0, 0]),
        (want(exact("v,v"), false, false), [0, 0, 0, 0, 0, 0]),
    ];
    for (want, expected) in table {
        let met = requests
            .each_ref()
            .map(|request| u8::from(header(&want, &Head::of(request))));
        assert_eq!(met, expected, "{want:?}");
    }
}

#[test]
fn a_range_is_half_open_and_refuses_what_is_no_integer() {
    let range = ValueMatch::Range(-5, 10);
    let met = ["-6", "-5", "9", "10", "9.5", "x", "99999999999999999999"]
        .map(|value| range.holds(value.as_bytes()));
    assert_eq!(met, [false, true, true, false, false, false, false]);
}

#[test]
fn of_several_lines_one_in_the_range_is_enough() {
    let range = |invert| want(ValueMatch::Range(-8, -2), invert, false);
    for (lines, met) in [
        (&["-3", "-1"][..], true),
        (&["-1", "-3"], true),
        (&["x", "-3"], true),
        (&["-1", "-9"], false),
        // One line is one number.
        (&["-3,-1"], false),
    ] {
        let request = request(lines);
        let head = Head::of(&request);
        assert_eq!(header(&range(false), &head), met, "{lines:?}");
        assert_eq!(header(&range(true), &head), !met, "{lines:?}, inverted");
    }
}

#[test]
fn pseudo_headers_are_what_they_are_for_envoy() {
    let request = Request::put("http://H.ex:80/a?q=1").body(()).unwrap();
    let head = Head::of(&request);
    for (key, value) in [
        (HeaderKey::Method, "PUT"),
        (HeaderKey::Authority, "H.ex:80"),
        (HeaderKey::Header(HOST), "H.ex:80"),
        (HeaderKey::Scheme, "http"),
        (HeaderKey::Path, "/a?q=1"),
    ] {
        let found = with_value(&key, &head, |value| value.map(<[u8]>::to_vec));
        assert_eq!(found.as_deref(), Some(value.as_bytes()), "{key:?}");
    }
}

#[test]
fn query_matches_take_the_first_value_and_decode_nothing() {
    let queries = [
        "",
        "?",
        "?k",
        "?k=",
        "?k=v",
        "?k=w&k=v",
        "?k=v&k=w",
        "?a&k=v",
        "?%6b=v",
        "?k=%76",
        "?&k=v",
        "?K=v",
        "?a?k=v&k=v",
    ];
    let table = [
        (exact("v"), [0, 0, 0, 0, 1, 0, 1, 1, 0, 0, 1, 0, 1]),
        (
            ValueMatch::Present(true),
            [0, 0, 1, 1, 1, 1, 1, 1, 0, 1, 1, 0, 1],
        ),
        (
            ValueMatch::Present(false),
            [1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0],
        ),
        (exact(""), [0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (value, expected) in table {
        let want = QueryMatch {
            name: "k".into(),
            value,
        };
        let met = queries.map(|text| {
            let request = Request::get(format!("/m{text}")).body(()).unwrap();
            u8::from(query(&want, &Head::of(&request)))
        });
        assert_eq!(met, expected, "{want:?}");
    }
}

#[test]
fn paths_are_compared_without_query_and_fragment() {
    let met = |want: PathMatch, target: &str| {
        let request = Request::get(target).body(()).unwrap();
        path(&want, &Head::of(&request))
    };
    assert!(met(PathMatch::Exact("/a".into()), "/a?b#c"));
    assert!(!met(PathMatch::Prefix("/a?".into()), "/a?b"));
    assert!(met(PathMatch::Prefix("/foo".into()), "/foobar"));
    let sep = || PathMatch::SeparatedPrefix("/sep".into());
    let targets = [
        "/sep", "/sep/", "/sepa", "/sep/a", "/sep?x", "/sep;a", "/SEP",
    ];
    assert_eq!(
        targets.map(|target| met(sep(), target)),
        [true, true, false, true, true, false, false]
    );
    assert!(met(
        PathMatch::SeparatedPrefixIgnoreCase("/Sep".into()),
        "/sEP/x"
    ));
    assert!(!met(
        PathMatch::SeparatedPrefixIgnoreCase("/Sep".into()),
        "/sEPx"
    ));
    assert!(met(PathMatch::PrefixIgnoreCase("/A".into()), "/ab"));
    assert!(!met(PathMatch::PrefixIgnoreCase("/AB".into()), "/a"));
    assert!(met(PathMatch::ExactIgnoreCase("/A".into()), "/a"));
    let pattern = || PathMatch::Regex(Pattern::new("/r/[0-9]+").unwrap());
    assert!(met(pattern(), "/r/12?x=y"));
    assert!(!met(pattern(), "/r/12/"));
}

#[test]
fn only_a_connect_rule_meets_a_connect_without_path() {
    let request = Request::connect("a.example:443").body(()).unwrap();
    let head = Head::of(&request);
    assert!(path(&PathMatch::Connect, &head));
    assert!(!path(&PathMatch::Prefix(String::new()), &head));
    let get = Request::get("/").body(()).unwrap();
    assert!(!path(&PathMatch::Connect, &Head::of(&get)));
}

#[test]
fn the_first_part_that_fails_is_named() {
    let mut condition = Condition::default();
    condition.path = PathMatch::Prefix("/a".into());
    condition.headers = vec![
        want(ValueMatch::Present(false), false, false),
        want(exact("v"), false, false),
    ];
    condition.grpc = true;
    condition.share = Some(Fraction::NONE);
    let unmet_by = |target: &str, value: Option<&'static str>, grpc: bool| {
        let mut request = Request::get(target).body(()).unwrap();
        if let Some(value) = value {
            request
                .headers_mut()
                .insert(NAME, HeaderValue::from_static(value));
        }
        if grpc {
            let value = HeaderValue::from_static("application/grpc");
            request.headers_mut().insert("content-type", value);
        }
        unmet(&condition, &Head::of(&request), 0)
    };
    assert_eq!(unmet_by("/b", None, false), Some(Predicate::Path));
    assert_eq!(unmet_by("/a", Some("v"), true), Some(Predicate::Header(0)));
    assert_eq!(unmet_by("/a", None, true), Some(Predicate::Header(1)));
    condition.headers.clear();
    let met = |grpc: bool| {
        let mut request = Request::get("/a").body(()).unwrap();
        if grpc {
            let value = HeaderValue::from_static("application/grpc+proto");
            request.headers_mut().insert("content-type", value);
        }
        unmet(&condition, &Head::of(&request), 0)
    };
    assert_eq!(met(false), Some(Predicate::Grpc));
    assert_eq!(met(true), Some(Predicate::Share));
}

#[test]
fn cookies_are_matched_by_the_first_of_a_name_and_inverted_ones_by_none_too() {
    let cookies = |lines: &[&'static str]| {
        let mut request = Request::get("/").body(()).unwrap();
        for line in lines {
            let value = HeaderValue::from_static(line);
            request.headers_mut().append(http::header::COOKIE, value);
        }
        request
    };
    let requests = [
        cookies(&[]),
        cookies(&["a=1"]),
        cookies(&["b=1;  a=\"1\"; a=2"]),
        cookies(&["b=1", "a=2; a=1"]),
        cookies(&["A=1; a; aa=1"]),
    ];
    for (invert, expected) in [(false, [0, 1, 1, 0, 0]), (true, [1, 0, 0, 1, 1])] {
        let mut condition = Condition::default();
        condition.cookies = vec![CookieMatch {
            name: "a".into(),
            value: StringMatch::Exact("1".into()),
            invert,
        }];
        for (request, expected) in requests.iter().zip(expected) {
            let unmet = unmet(&condition, &Head::of(request), 0);
            let held = (expected == 0).then_some(Predicate::Cookie(0));
            assert_eq!(unmet, held, "{request:?}, inverted: {invert}");
        }
    }
}

#[test]
fn certificates_are_matched_by_whether_they_were_shown_and_found_valid() {
    use mesh_core::exchange::{PeerCertificate, TlsInfo};
    use mesh_core::model::TlsCondition;
    let connection = |validated: Option<bool>| {
        let mut tls = TlsInfo::default();
        tls.peer = validated.map(|validated| {
            let mut peer = PeerCertificate::default();
            peer.validated = validated;
            peer
        });
        let mut caller = mesh_core::Caller::default();
        caller.tls = Some(std::sync::Arc::new(tls));
        let mut request = Request::get("/").body(()).unwrap();
        let now = tokio::time::Instant::now().into_std();
        mesh_core::Exchange::new(now, caller).attach(&mut request);
        request
    };
    // Columns: without TLS, without a certificate, with one that is not valid, with a valid one.
    let requests = [
        request(&[]),
        connection(None),
        connection(Some(false)),
        connection(Some(true)),
    ];
    let (no, yes) = (Some(false), Some(true));
    for (presented, validated, expected) in [
        (None, None, [1, 1, 1, 1]),
        (yes, None, [0, 0, 1, 1]),
        (no, None, [1, 1, 0, 0]),
        (None, yes, [0, 0, 0, 1]),
        (None, no, [1, 1, 1, 0]),
        (yes, no, [0, 0, 1, 0]),
        (no, yes, [0, 0, 0, 0]),
    ] {
        let mut condition = Condition::default();
        condition.tls = Some(TlsCondition {
            presented,
            validated,
        });
        for (request, expected) in requests.iter().zip(expected) {
            let unmet = unmet(&condition, &Head::of(request), 0);
            let held = (expected == 0).then_some(Predicate::Tls);
            assert_eq!(unmet, held, "{condition:?} {request:?}");
        }
    }
}
