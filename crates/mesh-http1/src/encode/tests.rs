use super::*;
use crate::{Decoded, Decoder, Length, Limits};
use http::{Request, Response, Version};
use proptest::prelude::*;

fn written(
    response: Response<()>,
    exact: Option<u64>,
    change: impl Fn(&mut Answered<'_>),
) -> (String, Written) {
    let mut to = Answered {
        method: &Method::GET,
        is_http10: false,
        takes_trailers: false,
        keep_alive: true,
        date: false,
    };
    change(&mut to);
    let mut out = Vec::new();
    let head = response.into_parts().0;
    let written = super::response(&mut out, &head, exact, &to, &Buffers::default());
    (String::from_utf8(out).unwrap(), written)
}

#[test]
fn a_response_says_how_long_it_is() {
    let ok = || Response::new(());
    let (head, _) = written(ok(), Some(5), |_| {});
    assert_eq!(head, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n");
    let (head, _) = written(ok(), None, |_| {});
    assert_eq!(
        head,
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let (head, sent) = written(ok(), None, |to| to.is_http10 = true);
    assert_eq!(head, "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\n");
    assert!(!sent.keep_alive);
    let (head, sent) = written(ok(), Some(0), |to| to.is_http10 = true);
    assert_eq!(
        head,
        "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n"
    );
    assert!(sent.keep_alive);
}

#[test]
fn a_response_without_a_body_does_not_promise_one() {
    let with = |status: u16| {
        let builder = Response::builder().status(status);
        builder.header("content-length", "7").body(()).unwrap()
    };
    let (head, sent) = written(with(204), Some(7), |_| {});
    assert_eq!(head, "HTTP/1.1 204 No Content\r\n\r\n");
    assert!(sent.encoder.is_full() && sent.keep_alive);
    let (head, _) = written(with(304), Some(0), |_| {});
    assert_eq!(
        head,
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n"
    );
    let (head, sent) = written(with(200), Some(0), |to| to.method = &Method::HEAD);
    assert_eq!(head, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n");
    assert!(sent.encoder.is_full());
    for (status, line) in [(204, "204 No Content"), (101, "101 Switching Protocols")] {
        let (head, _) = written(with(status), Some(0), |to| to.method = &Method::HEAD);
        assert_eq!(head, format!("HTTP/1.1 {line}\r\n\r\n"));
    }
    let (head, _) = written(with(200), Some(7), |to| to.method = &Method::CONNECT);
    assert_eq!(head, "HTTP/1.1 200 OK\r\n\r\n");
}

#[test]
fn a_service_can_end_a_connection_and_cannot_frame_it() {
    let response = Response::builder()
        .header("connection", "close")
        .header("transfer-encoding", "gzip, chunked")
        .header("content-length", "99")
        .body(())
        .unwrap();
    let (head, sent) = written(response, Some(1), |_| {});
    assert_eq!(
        head,
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\n"
    );
    assert!(!sent.keep_alive);
    let (head, _) = written(Response::new(()), Some(1), |to| to.date = true);
    assert!(head.contains("\r\ndate: "), "{head}");
    let dated = Response::builder().header("date", "x").body(()).unwrap();
    let (head, _) = written(dated, Some(1), |to| to.date = true);
    assert_eq!(head.matches("date").count(), 1, "{head}");
}

#[test]
fn a_request_has_the_target_of_its_method() {
    for (method, uri, line) in [
        (Method::GET, "/a?b", "GET /a?b HTTP/1.1\r\n"),
        (Method::GET, "http://a/b?c", "GET http://a/b?c HTTP/1.1\r\n"),
        (Method::OPTIONS, "*", "OPTIONS * HTTP/1.1\r\n"),
        (Method::CONNECT, "a:1", "CONNECT a:1 HTTP/1.1\r\n"),
    ] {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let mut out = Vec::new();
        super::request(&mut out, &request.into_parts().0, Some(0), true);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{line}\r\n"));
    }
}

#[test]
fn a_request_has_our_version_and_not_its_callers() {
    let builder = Request::post("/").version(Version::HTTP_10);
    let mut out = Vec::new();
    request(
        &mut out,
        &builder.body(()).unwrap().into_parts().0,
        None,
        true,
    );
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    );
}

#[test]
fn less_than_was_promised_is_an_error_and_more_is_cut() {
    let buffers = Buffers::default();
    let mut output = Output::default();
    let mut encoder = Encoder::Exact(3);
    encoder.data(&mut output, &buffers, Bytes::from_static(b"ab"), true);
    assert!(matches!(
        encoder.end(&mut output, &buffers, None),
        Err(Error::TooShort)
    ));
    encoder.data(&mut output, &buffers, Bytes::from_static(b"cd"), true);
    assert!(encoder.is_full());
    assert_eq!(output.buffer(&buffers), b"abc");
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_itself(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
        ends_with_data in any::<bool>(),
        chunked in any::<bool>(),
    ) {
        let buffers = Buffers::default();
        let mut output = Output::default();
        let all = pieces.concat();
        let (mut encoder, length) = match chunked {
            true => (Encoder::Chunked { trailers: true }, Length::Chunked),
            false => (Encoder::Exact(all.len() as u64), Length::Exact(all.len() as u64)),
        };
        let count = pieces.len();
        let mut over = false;
        for (at, piece) in pieces.into_iter().enumerate() {
            let last = ends_with_data && at + 1 == count && !piece.is_empty();
            over |= last;
            encoder.data(&mut output, &buffers, piece.into(), last);
        }
        if !(over && encoder.is_full()) {
            encoder.end(&mut output, &buffers, None).unwrap();
        }
        let bytes = std::mem::take(output.buffer(&buffers));
        let mut decoder = Decoder::new(length, &Limits::default());
        let (mut at, mut data) = (0, Vec::new());
        loop {
            match decoder.decode(&bytes[at..]).unwrap() {
                Decoded::Data { skip, len } => {
                    data.extend_from_slice(&bytes[at + skip..at + skip + len]);
                    at += skip + len;
                }
                Decoded::End { skip, .. } => {
                    at += skip;
                    break;
                }
                Decoded::More { .. } => panic!("it has no end"),
            }
        }
        prop_assert_eq!(data, all);
        prop_assert_eq!(at, bytes.len());
    }
}
