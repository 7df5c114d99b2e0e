use super::*;
use crate::access_log::Entry;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use mesh_core::exchange::Upstream;
use mesh_core::model::{Cluster, Endpoint, Rule};
use mesh_core::{Error, Failure, Flags};
use mesh_test::fixture;
use proptest::prelude::*;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// 2024-02-29T12:34:56.007Z
const ARRIVED: Duration = Duration::from_millis(1_709_210_096_007);

fn arrived() -> SystemTime {
    UNIX_EPOCH + ARRIVED
}

fn write(format: &Format, exchange: &Exchange, entry: &Entry) -> String {
    let mut out = Vec::new();
    format.write(exchange, entry, "node-1", &mut out);
    String::from_utf8(out).unwrap()
}

fn plain() -> Exchange {
    Exchange::new(Instant::now(), mesh_core::Caller::default())
}

/// The line for a request with these headers, nothing else being known.
fn of_request(format: &str, request: Request<()>) -> String {
    let format = Format::parse(format).unwrap();
    let mut entry = Entry::new();
    entry.request(&request, arrived(), format.wanted());
    write(&format, &plain(), &entry)
}

#[test]
fn istios_line_is_written_as_istio_writes_it() {
    let mut rule = Rule::prefix_to("/", "outbound|9080||reviews");
    rule.name = "canary".into();
    let exchange = fixture::exchange(rule, Some(Cluster::new("outbound|9080||reviews")));
    let mut upstream = Upstream::new(Arc::new(Endpoint::new(fixture::address("10.0.0.7:9080"))));
    upstream.local = Some("10.0.0.1:40000".parse().unwrap());
    exchange.set_upstream(upstream);
    exchange.set_request_id(HeaderValue::from_static("id-1"));
    exchange.count_received(5);
    exchange.count_sent(1234);

    let format = Format::istio_default();
    let mut entry = Entry::new();
    let mut request = Request::post("/reviews/0?x=y")
        .header("host", "reviews:9080")
        .header("user-agent", "curl/8")
        .header("x-forwarded-for", "1.2.3.4")
        .body(())
        .unwrap();
    *request.version_mut() = Version::HTTP_2;
    entry.request(&request, arrived(), format.wanted());
    let response = Response::builder().header("x-envoy-upstream-service-time", "17");
    entry.response(&response.body(()).unwrap(), format.wanted());
    entry.end(exchange.started() + Duration::from_micros(18_900));
    assert_eq!(
        write(&format, &exchange, &entry),
        "[2024-02-29T12:34:56.007Z] \"POST /reviews/0?x=y HTTP/2\" 200 - via_upstream - \"-\" 5 1234 18 17 \
         \"1.2.3.4\" \"curl/8\" \"id-1\" \"reviews:9080\" \"10.0.0.7:9080\" outbound|9080||reviews \
         10.0.0.1:40000 - - - canary\n"
    );
}

#[test]
fn istios_line_for_a_failure_has_flag_details_and_cause() {
    let exchange = plain();
    let cause = "Connection refused\nforged line";
    exchange.note_error(&Error::with_source(Failure::ConnectFailed, cause));
    exchange.flag(Flags::URX);
    let line = write(&Format::istio_default(), &exchange, &Entry::new());
    let expected = "0 UF,URX upstream_reset_before_response_started\
                    {remote_connection_failure|Connection_refused_forged_line} - \
                    \"Connection_refused_forged_line\" 0 0 - -";
    assert!(line.contains(expected), "{line}");
    assert_eq!(line.matches('\n').count(), 1);
}

#[test]
fn istios_format_is_what_istiod_sends() {
    // Recorded from istiod 1.30.3.
    let recorded = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";
    assert_eq!(Format::istio_default().source(), recorded);
}

#[test]
fn the_alternative_is_used_where_the_first_header_is_missing() {
    let request = || {
        Request::get("http://a/path")
            .header("x-one", "1")
            .header("x-two", "2")
    };
    let format = "%REQ(X-ONE?X-TWO)% %REQ(X-NONE?X-TWO)% %REQ(X-NONE?:PATH)% %REQ(X-NONE?X-NO)%";
    assert_eq!(
        of_request(format, request().body(()).unwrap()),
        "1 2 /path -"
    );
}

#[test]
fn a_length_cuts_values_but_never_through_a_character() {
    let path = HeaderValue::from_bytes("abcé".as_bytes()).unwrap();
    let request = |text: &HeaderValue| Request::get("/").header("x", text).body(()).unwrap();
    for (length, expected) in [
        (0, ""),
        (2, "ab"),
        (3, "abc"),
        (4, "abc"),
        (5, "abcé"),
        (99, "abcé"),
    ] {
        assert_eq!(
            of_request(&format!("%REQ(X):{length}%"), request(&path)),
            expected
        );
    }
}

#[test]
fn pseudo_headers_come_from_the_uri_or_the_host_header() {
    let all = "%REQ(:METHOD)% %REQ(:SCHEME)% %REQ(:AUTHORITY)% %REQ(:path)%";
    let absolute = Request::get("https://reviews:9080/a?b=c").body(()).unwrap();
    assert_eq!(of_request(all, absolute), "GET https reviews:9080 /a?b=c");
    let origin = Request::put("/a")
        .header("host", "ratings")
        .body(())
        .unwrap();
    assert_eq!(of_request(all, origin), "PUT http ratings /a");
}

#[test]
fn times_are_those_of_the_exchange() {
    let exchange = plain();
    let at = |millis| exchange.started() + Duration::from_millis(millis);
    exchange.with_notes_mut(|notes| notes.head_at = Some(at(30)));
    let mut entry = Entry::new();
    entry.request_end(Duration::from_millis(20));
    entry.end(at(100));
    let format = "%DURATION% %REQUEST_DURATION% %RESPONSE_DURATION% %RESPONSE_TX_DURATION%";
    let format = Format::parse(format).unwrap();
    assert_eq!(write(&format, &exchange, &entry), "100 20 30 70");
    assert_eq!(write(&format, &plain(), &Entry::new()), "- - - -");
}

#[test]
fn the_callers_and_the_upstreams_addresses_are_written_with_and_without_port() {
    let mut caller = mesh_core::Caller::default();
    caller.peer = Some("[::1]:5000".parse().unwrap());
    caller.local = Some("10.0.0.1:80".parse().unwrap());
    let exchange = Exchange::new(Instant::now(), caller);
    let format = "%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT% \
                  %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT% \
                  %DOWNSTREAM_LOCAL_PORT% %UPSTREAM_REMOTE_ADDRESS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%";
    let format = Format::parse(format).unwrap();
    assert_eq!(
        write(&format, &exchange, &Entry::new()),
        "[::1]:5000 ::1 10.0.0.1:80 10.0.0.1 80 - 0"
    );
    let mut upstream = Upstream::new(Arc::new(Endpoint::new(fixture::address("reviews:9080"))));
    upstream.remote = Some("10.0.0.9:9080".parse().unwrap());
    exchange.set_upstream(upstream);
    let _second = exchange.for_attempt();
    assert!(write(&format, &exchange, &Entry::new()).ends_with(" 80 10.0.0.9:9080 2"));
}

#[test]
fn a_grpc_status_has_three_spellings() {
    let exchange = plain();
    let format =
        "%GRPC_STATUS% %GRPC_STATUS(SNAKE_STRING)% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%";
    let format = Format::parse(format).unwrap();
    assert_eq!(write(&format, &exchange, &Entry::new()), "- - - -");
    exchange.with_notes_mut(|notes| notes.grpc_status = Some(4));
    assert_eq!(
        write(&format, &exchange, &Entry::new()),
        "DeadlineExceeded DEADLINE_EXCEEDED 4 4"
    );
    exchange.with_notes_mut(|notes| notes.grpc_status = Some(99));
    assert_eq!(write(&format, &exchange, &Entry::new()), "99 99 99 99");
}

#[test]
fn only_what_a_format_asks_for_is_kept() {
    let format = Format::parse("%REQ(A?B)% %RESP(C)% %TRAILER(D)% %RESP(:STATUS)%").unwrap();
    let mut entry = Entry::new();
    let request = Request::get("/")
        .header("b", "2")
        .header("z", "9")
        .body(())
        .unwrap();
    entry.request(&request, arrived(), format.wanted());
    entry.response(
        &Response::builder()
            .status(204)
            .header("c", "3")
            .body(())
            .unwrap(),
        format.wanted(),
    );
    let mut trailers = HeaderMap::new();
    trailers.insert("d", HeaderValue::from_static("4"));
    entry.trailers(&trailers, format.wanted());
    assert_eq!(write(&format, &plain(), &entry), "2 3 4 204");
    assert!(!format!("{entry:?}").contains("\"z\""));
    entry.clear();
    assert_eq!(write(&format, &plain(), &entry), "- - - -");
}

#[test]
fn the_upstreams_protocol_and_names_come_from_the_cluster() {
    let mut cluster = Cluster::new("raw");
    cluster.stat_name = Some("short".into());
    cluster.protocol = mesh_core::model::UpstreamProtocol::Http2;
    let exchange = fixture::exchange(Rule::prefix_to("/", "raw"), Some(cluster));
    let format = "%UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW% %UPSTREAM_PROTOCOL% %HOSTNAME%";
    let format = Format::parse(format).unwrap();
    assert_eq!(
        write(&format, &exchange, &Entry::new()),
        "short raw - node-1"
    );
    exchange.set_upstream(Upstream::new(Arc::new(Endpoint::new(fixture::address(
        "1.1.1.1:1",
    )))));
    let mut entry = Entry::new();
    let request = Request::get("/").body(()).unwrap();
    entry.request(&request, SystemTime::UNIX_EPOCH, format.wanted());
    assert_eq!(write(&format, &exchange, &entry), "short raw HTTP/2 node-1");
}

#[test]
fn what_is_malformed_is_refused_with_its_place() {
    for (format, expected) in [
        ("%FOO%", "at byte 0: unknown operator FOO"),
        (
            "ab %DURATION",
            "at byte 3: operator \"DURATION\" is not closed with %",
        ),
        ("100% of", "at byte 3: operator \"\" is not closed with %"),
        ("%REQ(%", "at byte 0: the argument of REQ is not closed"),
        ("%REQ()%", "at byte 0: REQ needs the name of a header"),
        ("%REQ%", "at byte 0: REQ needs the name of a header"),
        (
            "%REQ(A?B?C)%",
            "at byte 0: REQ takes at most one alternative",
        ),
        (
            "%REQ(a b)%",
            "at byte 0: \"a b\" is not the name of a header",
        ),
        (
            "%REQ(:STATUS)%",
            "at byte 0: :STATUS is not a pseudo-header here, expected :METHOD, :PATH, :AUTHORITY or :SCHEME",
        ),
        ("%REQ(A):x%", "at byte 0: the length of REQ is not a number"),
        ("é%DURATION(1)%", "at byte 2: DURATION takes no argument"),
        (
            "%START_TIME(%Q)%",
            "at byte 0: time conversion %Q is not known",
        ),
        (
            "%GRPC_STATUS(x)%",
            "at byte 0: GRPC_STATUS takes CAMEL_STRING, SNAKE_STRING or NUMBER, not \"x\"",
        ),
    ] {
        assert_eq!(
            Format::parse(format).unwrap_err().message(),
            expected,
            "{format}"
        );
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(source in "[%():?A-Z_a-z0-9 é-]{0,40}") {
        let _ = Format::parse(&source);
    }

    #[test]
    fn text_without_operators_is_written_as_it_is(source in "[^%]{0,40}") {
        let format = Format::parse(&source).unwrap();
        prop_assert_eq!(write(&format, &plain(), &Entry::new()), source);
    }

    #[test]
    fn a_doubled_percent_sign_is_one(before in "[^%]{0,9}", after in "[^%]{0,9}") {
        let format = Format::parse(&format!("{before}%%{after}")).unwrap();
        prop_assert_eq!(write(&format, &plain(), &Entry::new()), format!("{before}%{after}"));
    }

    #[test]
    fn a_length_is_never_exceeded(value in "\\PC{0,20}", length in 0_usize..25) {
        let Ok(header) = HeaderValue::from_bytes(value.as_bytes()) else { return Ok(()) };
        let request = Request::get("/").header("x", header).body(()).unwrap();
        let written = of_request(&format!("%REQ(X):{length}%"), request);
        prop_assert!(written.len() <= length);
        prop_assert!(value.starts_with(&written) || written == "-");
    }
}
