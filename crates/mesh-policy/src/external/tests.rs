use super::wire::{Fields, Value, Writer};
use super::*;
use ::http::header::CONTENT_LENGTH;
use ::http::request::Builder;
use bytes::BytesMut;
use http_body_util::{BodyExt, Full};
use mesh_core::exchange::PutReply;
use mesh_core::model::{AskGrpc, AskHttp, AskedBody, StringMatch};
use proptest::prelude::*;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tower::service_fn;

type Seen = Arc<Mutex<Vec<Request<AskBody>>>>;

fn exact(names: &[&str]) -> Vec<StringMatch> {
    let exact = |name: &&str| StringMatch::Exact((*name).to_owned());
    names.iter().map(exact).collect()
}

fn http() -> External {
    let mut ask = AskHttp::default();
    ask.path_prefix = "/pre".into();
    ask.headers = vec![StringMatch::PrefixIgnoreCase("X-In".to_owned())];
    ask.add = vec![(
        HeaderName::from_static("x-in-add"),
        HeaderValue::from_static("fixed"),
    )];
    ask.upstream = exact(&["x-up"]);
    ask.upstream_append = exact(&["x-app"]);
    ask.deny = exact(&["x-why"]);
    ask.allow = exact(&["x-down"]);
    External::new("authz", Ask::Http(ask))
}

fn grpc() -> External {
    External::new("outbound|1||a", Ask::Grpc(AskGrpc::default()))
}

async fn consulted(
    external: &External,
    request: Request<Full<Bytes>>,
    answer: Response<Full<Bytes>>,
) -> (Result<Consulted<Full<Bytes>>, Error>, Vec<Request<AskBody>>) {
    let seen = Seen::default();
    let authorizer = service_fn(|asked: Request<AskBody>| {
        seen.lock().unwrap().push(asked);
        let answer = answer.clone();
        async { Ok::<_, Infallible>(answer) }
    });
    let stats = Block::default();
    let done = consult(external, &stats, authorizer, request).await;
    (done, std::mem::take(&mut *seen.lock().unwrap()))
}

fn ask(builder: Builder) -> Request<Full<Bytes>> {
    builder.body(Full::default()).unwrap()
}

fn answer(status: u16, headers: &[(&str, &str)], body: &'static str) -> Response<Full<Bytes>> {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Full::from(body)).unwrap()
}

fn texts(headers: &HeaderMap, name: &str) -> Vec<String> {
    let all = headers.get_all(name).iter();
    all.map(|value| value.to_str().unwrap().to_owned())
        .collect()
}

/// As Envoy 1.40 does it.
#[tokio::test]
async fn over_http_a_service_is_told_little_and_edits_what_it_may() {
    let request = Request::get("http://orig/a?q=1")
        .header("x-in-a", "1")
        .header("x-in-a", "2")
        .header("x-other", "z")
        .header("authorization", "tok")
        .header("x-up", "mine")
        .header("x-app", "0")
        .header("x-rm", "r");
    let answer = answer(
        200,
        &[
            ("x-up", "u1"),
            ("x-up", "u2"),
            ("x-app", "1"),
            ("x-down", "d"),
            ("x-envoy-auth-headers-to-remove", "x-rm, host"),
        ],
        "",
    );
    let (done, seen) = consulted(&http(), ask(request), answer).await;
    let [asked] = &seen[..] else { panic!("once") };
    assert_eq!(asked.uri(), "http://orig/pre/a?q=1");
    let mut names: Vec<_> = asked.headers().keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "authorization",
            "content-length",
            "x-envoy-internal",
            "x-in-a",
            "x-in-add"
        ]
    );
    assert_eq!(texts(asked.headers(), "x-in-a"), ["1,2"]);
    let Consulted { request, reply } = done.unwrap();
    assert_eq!(texts(request.headers(), "x-up"), ["u2"]);
    assert_eq!(texts(request.headers(), "x-app"), ["0", "1"]);
    assert!(!request.headers().contains_key("x-rm"));
    assert_eq!(reply.len(), 1);
    assert_eq!(
        (reply[0].name.as_str(), reply[0].put),
        ("x-down", PutReply::Add)
    );
}

#[tokio::test]
async fn over_http_anything_but_200_denies_and_5xx_fails() {
    for (status, failure) in [
        (401, Failure::CheckDenied(401)),
        (201, Failure::CheckDenied(201)),
        (302, Failure::CheckDenied(302)),
        (500, Failure::CheckFailed(403)),
        (503, Failure::CheckFailed(403)),
    ] {
        let headers = [
            ("x-why", "a"),
            ("x-why", "b"),
            ("x-no", "c"),
            ("location", "/l"),
        ];
        let answer = answer(status, &headers, "no");
        let (done, _) = consulted(&http(), ask(Request::get("/a")), answer).await;
        let mut error = done.unwrap_err();
        assert_eq!(error.failure(), failure);
        let own = error.take_answer();
        assert_eq!(own.is_some(), status < 500);
        if let Some(own) = own {
            assert_eq!(own.body, "no");
            assert_eq!(texts(&own.headers, "x-why"), ["a", "b"]);
            assert_eq!(texts(&own.headers, "location"), ["/l"]);
            assert!(!own.headers.contains_key("x-no"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_does_not_answer_in_time_fails_or_is_let_through() {
    for (open, status) in [(false, Some(429)), (true, None)] {
        let mut external = http();
        external.timeout = Some(Duration::from_millis(500));
        external.status_on_error = 429;
        external.fail_open = open;
        let started = tokio::time::Instant::now();
        let authorizer = service_fn(|asked: Request<AskBody>| {
            let until = asked.extensions().get::<Until>().and_then(|it| it.0);
            assert_eq!(until, Some((started + Duration::from_millis(500)).into()));
            std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
        });
        let stats = Block::default();
        let done = consult(&external, &stats, authorizer, ask(Request::get("/"))).await;
        assert_eq!(started.elapsed(), Duration::from_millis(500));
        let failed = done.err().map(|error| error.failure());
        assert_eq!(failed, status.map(Failure::CheckFailed));
        assert_eq!(stats.get(ExternalStat::Error), 1);
        assert_eq!(stats.get(ExternalStat::FailureModeAllowed), u64::from(open));
    }
}

#[tokio::test]
async fn a_body_is_held_back_within_its_limit() {
    for (limit, partial, said, told) in [
        (5, false, "abcde", Some(("abcde", "false"))),
        (5, false, "abcdef", None),
        (5, true, "abcdef", Some(("abcde", "true"))),
        (5, true, "abc", Some(("abc", "false"))),
    ] {
        let mut external = http();
        external.body = Some(AskedBody {
            limit,
            partial,
            raw: false,
        });
        let request = Request::post("/a").body(Full::from(said)).unwrap();
        let (done, mut seen) = consulted(&external, request, answer(200, &[], "")).await;
        let Some((bytes, flag)) = told else {
            assert_eq!(done.unwrap_err().failure(), Failure::PayloadTooLarge);
            assert!(seen.is_empty());
            continue;
        };
        let asked = seen.remove(0);
        let partial = asked.headers()["x-envoy-auth-partial-body"].clone();
        assert_eq!(partial, flag);
        assert_eq!(asked.headers()[CONTENT_LENGTH], bytes.len().to_string());
        assert_eq!(asked.into_body().into_bytes(), bytes);
        // All of it goes on.
        let body = done.unwrap().request.into_body();
        assert_eq!(body.size_hint().exact(), Some(said.len() as u64));
        assert_eq!(body.collect().await.unwrap().to_bytes(), said);
    }
}

fn said(write: impl FnOnce(&mut Writer)) -> Response<Full<Bytes>> {
    let mut message = Writer::default();
    write(&mut message);
    Response::builder()
        .header("grpc-status", "0")
        .body(Full::from(message.framed()))
        .unwrap()
}

fn option(
    message: &mut Writer,
    at: u32,
    name: &str,
    value: &str,
    append: Option<bool>,
    action: u64,
) {
    message.message(at, |option| {
        option.message(1, |header| {
            header.bytes(1, name.as_bytes());
            header.bytes(2, value.as_bytes());
        });
        if let Some(append) = append {
            option.message(2, |wrapped| wrapped.number(1, append.into()));
        }
        option.number(3, action);
    });
}

/// As Envoy 1.40 does it.
#[tokio::test]
async fn over_grpc_a_service_edits_all_of_the_head() {
    let request = Request::get("http://orig/allow?k=2&gone=1&q=0")
        .header("x-old", "o")
        .header("x-def", "o")
        .header("x-rm", "r");
    let answer = said(|response| {
        response.message(1, |_| {});
        response.message(3, |ok| {
            option(ok, 2, "x-def", "default", None, 0);
            option(ok, 2, "x-old", "more", Some(true), 0);
            option(ok, 2, "x-new", "more", Some(true), 0);
            option(ok, 2, "x-if", "absent", None, 1);
            option(ok, 2, ":method", "PUT", Some(false), 0);
            option(ok, 2, "host", "newhost", Some(false), 0);
            ok.bytes(5, b"x-rm");
            ok.bytes(5, b"host");
            option(ok, 6, "x-a", "1", None, 0);
            option(ok, 6, "x-b", "1", Some(false), 0);
            option(ok, 6, "x-c", "1", None, 1);
            ok.message(7, |pair| {
                pair.bytes(1, b"q");
                pair.bytes(2, b"v");
            });
            ok.bytes(8, b"gone");
        });
    });
    let (done, seen) = consulted(&grpc(), ask(request), answer).await;
    assert_eq!(
        seen[0].uri(),
        "http://outbound_.1_._.a/envoy.service.auth.v3.Authorization/Check"
    );
    let Consulted { request, reply } = done.unwrap();
    assert_eq!(request.uri(), "http://newhost/allow?k=2&q=v");
    assert_eq!(request.method(), "PUT");
    for (name, value) in [
        ("x-def", "default"),
        ("x-old", "o,more"),
        ("x-if", "absent"),
    ] {
        assert_eq!(texts(request.headers(), name), [value]);
    }
    assert!(!request.headers().contains_key("x-new"));
    assert!(!request.headers().contains_key("x-rm"));
    let puts: Vec<_> = reply.iter().map(|edit| edit.put).collect();
    assert_eq!(puts, [PutReply::Add, PutReply::Set, PutReply::IfAbsent]);
}

#[tokio::test]
async fn over_grpc_what_is_no_answer_fails_and_what_is_no_ok_denies() {
    let denied = said(|response| {
        response.message(1, |status| status.number(1, 7));
        response.message(2, |denied| {
            denied.message(1, |status| status.number(1, 429));
            option(denied, 2, "x-why", "a", None, 0);
            option(denied, 2, "x-why", "b", None, 0);
            option(denied, 2, "x-late", "c", Some(true), 0);
            denied.bytes(3, b"body");
        });
    });
    let plain = said(|response| response.message(1, |status| status.number(1, 16)));
    let own = said(|response| {
        response.message(1, |status| status.number(1, 16));
        response.message(5, |error| error.message(1, |status| status.number(1, 502)));
    });
    let broken = answer(200, &[("grpc-status", "0")], "\0\0\0\0\u{2}\u{7f}\u{7f}");
    let failed = answer(200, &[("grpc-status", "14")], "");
    let empty = answer(200, &[("grpc-status", "0")], "\0\0\0\0\0");
    for (answer, failure) in [
        (denied, Some(Failure::CheckDenied(429))),
        (plain, Some(Failure::CheckDenied(403))),
        (own, Some(Failure::CheckFailed(502))),
        (broken, Some(Failure::CheckFailed(403))),
        (failed, Some(Failure::CheckFailed(403))),
        // Nothing said is OK, which is 0.
        (empty, None),
    ] {
        let (done, _) = consulted(&grpc(), ask(Request::get("/a")), answer).await;
        let error = done.err();
        assert_eq!(error.as_ref().map(Error::failure), failure);
        if let Some(mut error) = error
            && failure == Some(Failure::CheckDenied(429))
        {
            let own = error.take_answer().unwrap();
            assert_eq!(texts(&own.headers, "x-why"), ["a", "b"]);
            assert!(!own.headers.contains_key("x-late"));
            assert_eq!(own.body, "body");
        }
    }
}

#[tokio::test]
async fn an_edit_that_cannot_be_made_fails_closed() {
    let answer = said(|response| {
        response.message(3, |ok| option(ok, 2, ":method", "no method", None, 0));
    });
    let (done, _) = consulted(&grpc(), ask(Request::get("/a")), answer).await;
    assert_eq!(done.unwrap_err().failure(), Failure::CheckFailed(403));
}

proptest! {
    #[test]
    fn what_is_written_is_read(number in any::<u64>(), bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut message = Writer::default();
        message.number(3, number);
        message.message(4, |inner| inner.bytes(1, &bytes));
        let framed = message.framed();
        let mut fields = Fields::framed(&framed).unwrap();
        if number != 0 {
            prop_assert_eq!(fields.next(), Some(Ok((3, Value::Number(number)))));
        }
        let (at, inner) = fields.next().unwrap().unwrap();
        prop_assert_eq!(at, 4);
        let inner: Vec<_> = inner.fields().unwrap().map(Result::unwrap).collect();
        match bytes.is_empty() {
            true => prop_assert!(inner.is_empty()),
            false => prop_assert_eq!(inner, vec![(1, Value::Bytes(&bytes))]),
        }
        prop_assert!(fields.next().is_none());
    }

    #[test]
    fn no_answer_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut framed = BytesMut::from(&[0, 0, 0, 0, bytes.len() as u8][..]);
        framed.extend_from_slice(&bytes);
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]);
        let _ = grpc::decision(StatusCode::OK, &headers, &framed.freeze(), &HeaderMap::new());
    }
}
