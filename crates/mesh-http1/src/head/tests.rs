use super::*;
use http::{HeaderMap, Method, StatusCode, Version};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Option<RequestHead>, HeadError> {
    request(text.as_bytes(), &Limits::default(), HeaderMap::new())
}

fn whole(text: &str) -> RequestHead {
    parse(text).unwrap().unwrap()
}

fn answer(text: &str, method: &Method) -> Result<Option<ResponseHead>, HeadError> {
    response(
        text.as_bytes(),
        &Limits::default(),
        HeaderMap::new(),
        method,
    )
}

/// Requests with these fields besides `host`.
fn with(fields: &str) -> Result<Option<RequestHead>, HeadError> {
    parse(&format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"))
}

#[test]
fn a_head_is_read_as_it_is() {
    let text = "POST /a/b?c=d HTTP/1.1\r\nHost: example.com\r\nX-Two: 1\r\nx-two:2 \r\n\
                content-length: 12\r\nempty:\r\n\r\nbody";
    let head = whole(text);
    assert_eq!(head.len, text.len() - 4);
    assert_eq!(head.request.method(), Method::POST);
    assert_eq!(head.request.uri(), "/a/b?c=d");
    assert_eq!(head.request.version(), Version::HTTP_11);
    let headers = head.request.headers();
    assert_eq!(headers["host"], "example.com");
    assert_eq!(
        headers.get_all("x-two").iter().collect::<Vec<_>>(),
        ["1", "2"]
    );
    assert_eq!(headers["empty"], "");
    assert_eq!(headers.len(), 5);
    assert_eq!(head.length, Length::Exact(12));
    assert!(head.keep_alive && !head.wants_upgrade && !head.expects_continue);
}

#[test]
fn what_has_two_meanings_is_refused() {
    for (fields, error) in [
        (
            "content-length: 5\r\ncontent-length: 5\r\n",
            HeadError::ContentLength,
        ),
        (
            "content-length: 5\r\ncontent-length: 6\r\n",
            HeadError::ContentLength,
        ),
        ("content-length: 5, 5\r\n", HeadError::ContentLength),
        ("content-length: +5\r\n", HeadError::ContentLength),
        ("content-length: -5\r\n", HeadError::ContentLength),
        ("content-length: 0x5\r\n", HeadError::ContentLength),
        ("content-length:\r\n", HeadError::ContentLength),
        (
            "content-length: 18446744073709551616\r\n",
            HeadError::ContentLength,
        ),
        (
            "content-length: 5\r\ntransfer-encoding: chunked\r\n",
            HeadError::TwoLengths,
        ),
        (
            "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
            HeadError::TwoLengths,
        ),
        ("transfer-encoding: gzip\r\n", HeadError::TransferEncoding),
        (
            "transfer-encoding: gzip, chunked\r\n",
            HeadError::TransferEncoding,
        ),
        (
            "transfer-encoding: chunked, chunked\r\n",
            HeadError::TransferEncoding,
        ),
        (
            "transfer-encoding: chunked;a=b\r\n",
            HeadError::TransferEncoding,
        ),
        ("transfer-encoding:\r\n", HeadError::TransferEncoding),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            HeadError::TransferEncoding,
        ),
        ("a: b\r\n c\r\n", HeadError::Field),
        ("a : b\r\n", HeadError::Field),
        ("a: b\rc\r\n", HeadError::Value),
        ("a: b\0\r\n", HeadError::Value),
        (": b\r\n", HeadError::Field),
        ("a\r\n", HeadError::Field),
    ] {
        assert_eq!(with(fields).unwrap_err(), error, "{fields:?}");
    }
}

#[test]
fn a_first_line_that_is_none_of_http_1_is_refused() {
    for (line, error) in [
        ("GET /#a HTTP/1.1", HeadError::Target),
        ("GET /a#b?c HTTP/1.1", HeadError::Target),
        ("GET /?\" HTTP/1.1", HeadError::Target),
        ("GET  / HTTP/1.1", HeadError::Target),
        ("GET / HTTP/1.2", HeadError::Version),
        ("NOT HTTP AT ALL", HeadError::Line),
        ("GET /", HeadError::Version),
        ("GET a HTTP/1.1", HeadError::Target),
        ("GET a:80 HTTP/1.1", HeadError::Target),
        ("GET / HTTPS/1.1", HeadError::Line),
        ("GET / HTTP/2", HeadError::Line),
        ("GET / HTTP/0.9", HeadError::Version),
        ("GET / HTTP/3.0", HeadError::Version),
        ("PRI * HTTP/2.0", HeadError::Version),
        ("G\"T / HTTP/1.1", HeadError::Line),
        (" / HTTP/1.1", HeadError::Line),
    ] {
        let found = parse(&format!("{line}\r\nhost: a\r\n\r\n")).unwrap_err();
        assert_eq!(found, error, "{line:?}");
    }
    assert_eq!(HeadError::Version.status(), StatusCode::UPGRADE_REQUIRED);
    assert_eq!(
        HeadError::TransferEncoding.status(),
        StatusCode::NOT_IMPLEMENTED
    );
    assert_eq!(HeadError::TwoLengths.status(), StatusCode::BAD_REQUEST);
}

/// A fuzzer found the first of these: the last word of a line was taken for its version.
#[test]
fn a_first_line_that_is_wrong_stays_wrong() {
    for (wrong, more) in [
        ("GET /a HTT\u{1}ooooo", " "),
        ("GET /a HTTX", " HTTP/"),
        ("GET /a HTTPS/1.1", " HTTP/1"),
        ("GET /a HTTP/1 ", "HTTP/1"),
    ] {
        let front = parse(wrong).map(|head| head.map(|head| head.len));
        assert_eq!(front, Err(HeadError::Line), "{wrong:?}");
        let whole = parse(&format!("{wrong}{more}")).map(|head| head.map(|head| head.len));
        assert_eq!(whole, Err(HeadError::Line), "{wrong:?} and {more:?}");
    }
}

#[test]
fn limits_hold_to_the_byte_and_to_the_field() {
    let text = "GET / HTTP/1.1\r\na: b\r\nc: d\r\n\r\n";
    for (limits, fits) in [
        (Limits::of(text.len(), 2), Ok(())),
        (Limits::of(text.len() - 1, 2), Err(HeadError::TooLarge)),
        (Limits::of(text.len(), 1), Err(HeadError::TooManyFields)),
        (Limits::of(text.len(), 0), Err(HeadError::TooManyFields)),
        (Limits::of(text.len(), usize::MAX), Ok(())),
    ] {
        let found = request(text.as_bytes(), &limits, HeaderMap::new());
        assert_eq!(found.map(drop), fits, "{limits:?}");
    }
    let endless = [b'a'; 101];
    let found = request(&endless, &Limits::of(100, 10), HeaderMap::new());
    assert!(matches!(found, Err(HeadError::TooLarge)));
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 16));
    let found = request(long.as_bytes(), &Limits::of(1 << 20, 10), HeaderMap::new());
    assert_eq!(found.unwrap_err().status(), StatusCode::URI_TOO_LONG);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(40_000));
    let found = request(
        many.as_bytes(),
        &Limits::of(1 << 20, 1 << 20),
        HeaderMap::new(),
    );
    assert!(matches!(found, Err(HeadError::TooManyFields)));
}

#[test]
fn whether_a_connection_goes_on_is_for_both_to_say() {
    for (version, fields, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "connection: close\r\n", false),
        ("1.1", "connection: Keep-Alive, CLOSE\r\n", false),
        ("1.1", "connection: x\r\nconnection: close\r\n", false),
        ("1.0", "", false),
        ("1.0", "connection: keep-alive\r\n", true),
        ("1.0", "connection: keep-alive, close\r\n", false),
    ] {
        let head = whole(&format!("GET / HTTP/{version}\r\n{fields}\r\n"));
        assert_eq!(head.keep_alive, keep_alive, "{version} {fields:?}");
    }
    let old = "POST / HTTP/1.0\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n";
    let head = whole(old);
    assert!(head.length == Length::Chunked && !head.keep_alive);
}

#[test]
fn a_protocol_switch_takes_both_fields() {
    for (fields, wants) in [
        ("connection: upgrade\r\nupgrade: websocket\r\n", true),
        ("connection: x, Upgrade\r\nupgrade: websocket\r\n", true),
        ("upgrade: websocket\r\n", false),
        ("connection: upgrade\r\n", false),
    ] {
        let head = with(fields).unwrap().unwrap();
        assert_eq!(head.wants_upgrade, wants, "{fields:?}");
    }
    assert!(whole("CONNECT a:1 HTTP/1.1\r\n\r\n").wants_upgrade);
    for (fields, error) in [
        ("content-length: 1\r\n", Some(HeadError::ConnectBody)),
        (
            "transfer-encoding: chunked\r\n",
            Some(HeadError::TransferEncoding),
        ),
        ("content-length: 0\r\n", None),
    ] {
        let text = format!("CONNECT a:1 HTTP/1.1\r\n{fields}\r\n");
        let found = request(text.as_bytes(), &Limits::default(), HeaderMap::new());
        assert_eq!(found.err(), error, "{fields:?}");
    }
    let old = "GET / HTTP/1.0\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n";
    assert!(!whole(old).wants_upgrade);
}

#[test]
fn the_length_of_a_response_depends_on_the_request() {
    let get = Method::GET;
    for (method, text, length) in [
        (&get, "HTTP/1.1 200 OK\r\n\r\n", Length::UntilClose),
        (
            &get,
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
            Length::Exact(3),
        ),
        (
            &Method::HEAD,
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n",
            Length::NONE,
        ),
        (
            &get,
            "HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n",
            Length::NONE,
        ),
        (
            &get,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n",
            Length::NONE,
        ),
        (&get, "HTTP/1.1 100 Continue\r\n\r\n", Length::NONE),
        (&Method::CONNECT, "HTTP/1.1 200 OK\r\n\r\n", Length::NONE),
        (
            &Method::CONNECT,
            "HTTP/1.1 400 No\r\n\r\n",
            Length::UntilClose,
        ),
        (
            &get,
            "HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n",
            Length::Chunked,
        ),
    ] {
        let head = answer(text, method).unwrap().unwrap();
        assert_eq!(head.length, length, "{method} {text:?}");
        assert_eq!(
            head.keep_alive,
            length != Length::UntilClose,
            "{method} {text:?}"
        );
    }
    let tunnel = |method, text| answer(text, method).unwrap().unwrap().is_upgrade;
    assert!(tunnel(&Method::CONNECT, "HTTP/1.1 200 OK\r\n\r\n"));
    assert!(tunnel(&get, "HTTP/1.1 101 Switching Protocols\r\n\r\n"));
    assert!(!tunnel(&get, "HTTP/1.1 200 OK\r\n\r\n"));
    for (text, error) in [
        ("HTTP/1.1 20 OK\r\n\r\n", HeadError::Line),
        ("HTTP/1.1 099 OK\r\n\r\n", HeadError::Line),
        ("HTTP/2.0 200 OK\r\n\r\n", HeadError::Version),
        ("ICY 200 OK\r\n\r\n", HeadError::Version),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            HeadError::TransferEncoding,
        ),
    ] {
        assert_eq!(answer(text, &get).unwrap_err(), error, "{text:?}");
    }
}

/// Reads a head that comes in pieces, as a connection does.
fn in_pieces(bytes: &[u8], cuts: &[usize]) -> Result<Option<usize>, HeadError> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut scanned = 0;
    for cut in cuts {
        let input = &bytes[..cut];
        if input.is_empty() || !may_be_whole(input, scanned) {
            scanned = input.len();
            continue;
        }
        match request(input, &Limits::default(), HeaderMap::new())? {
            Some(head) => return Ok(Some(head.len)),
            None => scanned = input.len(),
        }
    }
    Ok(None)
}

/// Heads as they are and as they are not.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just("GET / HTTP/1.1\r\n"),
        Just("host: a\r\n"),
        Just("content-length: 3\r\n"),
        Just("transfer-encoding: chunked\r\n"),
        Just("\r\n"),
        Just("\n"),
        Just("\r"),
        Just(" "),
        Just("a:b\n"),
        Just("x"),
        Just(":"),
    ];
    let noise = proptest::collection::vec(any::<u8>(), 0..40);
    let parts = proptest::collection::vec(part, 0..12);
    prop_oneof![parts.prop_map(|parts| parts.concat().into_bytes()), noise]
}

proptest! {
    #[test]
    fn a_head_is_the_same_however_it_is_cut(
        bytes in heads(),
        cuts in proptest::collection::vec(any::<usize>(), 0..6),
    ) {
        // A connection skips empty lines before a head is looked at.
        let mut bytes = &bytes[..];
        while let [b'\n', rest @ ..] | [b'\r', b'\n', rest @ ..] = bytes {
            bytes = rest;
        }
        let whole = in_pieces(bytes, &[]);
        let cut = in_pieces(bytes, &cuts);
        // What is wrong with a head that is not whole may be seen later, never otherwise.
        match (&whole, &cut) {
            (Err(_), Ok(None)) => {
                let cuts = cuts.iter().map(|cut| cut % (bytes.len() + 1));
                let first = cuts.filter(|cut| *cut > 0).min().unwrap();
                prop_assert!(!may_be_whole(bytes, first));
            }
            _ => prop_assert_eq!(whole, cut),
        }
    }

    /// Behind a first line that cannot be one anything may come.
    #[test]
    fn a_mistake_stays_one(
        line in "[A-Z]{1,5} /[a-z?]{0,3} ?[HTP/1.0 2S]{0,9}",
        more in "[HTP/1.0 2S\r\n:]{0,20}",
    ) {
        if parse(&line).is_err() {
            let whole = format!("{line}{more}");
            prop_assert!(parse(&whole).is_err(), "{:?}", whole);
        }
    }

    #[test]
    fn a_target_and_a_field_come_back_as_they_were_written(
        path in "/[a-zA-Z0-9/._~%-]{0,20}",
        name in "[a-z][a-z0-9-]{0,20}",
        value in "[!-~]([ -~]{0,30}[!-~])?",
    ) {
        let framing = ["content-length", "transfer-encoding", "connection", "te", "upgrade"];
        prop_assume!(!framing.contains(&name.as_str()));
        let head = whole(&format!("GET {path} HTTP/1.1\r\n{name}: {value}\r\n\r\n"));
        prop_assert_eq!(head.request.uri().path(), path);
        prop_assert_eq!(&head.request.headers()[name.as_str()], &value);
        prop_assert_eq!(head.request.headers().len(), 1);
    }
}
