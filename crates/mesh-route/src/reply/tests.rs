use super::*;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use mesh_core::model::{
    Action, AddMode, Condition, HeaderAdd, HeaderTemplate, Piece, Redirect, Rule,
};
use mesh_core::{Failure, Flags};
use mesh_test::{Answers, BoxedBody, Probe, contract, fixture, read, text};
use tower::ServiceExt;

fn request() -> Request<BoxedBody> {
    Request::new(text("hello"))
}

async fn reply(probe: Probe, request: Request<BoxedBody>) -> Response<ReplyBody<BoxedBody>> {
    ReplyLayer::new()
        .layer(probe)
        .oneshot(request)
        .await
        .unwrap()
}

fn add(name: &'static str, pieces: Vec<Piece>, mode: AddMode) -> HeaderAdd {
    HeaderAdd {
        name: HeaderName::from_static(name),
        value: HeaderTemplate::Pieces(pieces),
        mode,
        keep_empty: false,
    }
}

#[tokio::test]
async fn keeps_the_contract_of_layers() {
    contract::check_infallible(ReplyLayer::new()).await;
}

#[tokio::test]
async fn an_error_is_answered_although_there_is_no_exchange() {
    let probe = Probe::answering([Answers::Fails(Failure::NoHealthyHost)]);
    let response = reply(probe, request()).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()[CONTENT_TYPE], "text/plain");
    assert_eq!(response.body().size_hint().exact(), Some(19));
    assert_eq!(read(response.into_body()).await, "no healthy upstream");
    let probe = Probe::answering([Answers::FailsForeign("broken")]);
    assert_eq!(reply(probe, request()).await.status(), 500);
}

#[tokio::test]
async fn head_over_http2_is_answered_with_a_length_and_no_body() {
    for (method, version, length, end) in [
        (Method::HEAD, Version::HTTP_2, Some("19"), true),
        (Method::GET, Version::HTTP_2, None, false),
        // The server of HTTP/1 takes the body away, and writes its length.
        (Method::HEAD, Version::HTTP_11, None, false),
    ] {
        let mut request = request();
        (*request.method_mut(), *request.version_mut()) = (method, version);
        let probe = Probe::answering([Answers::Fails(Failure::NoHealthyHost)]);
        let response = reply(probe, request).await;
        let told = response.headers().get("content-length");
        assert_eq!(told.map(|it| it.to_str().unwrap()), length);
        assert_eq!(response.body().is_end_stream(), end);
    }
}

#[tokio::test]
async fn connect_is_no_grpc_call() {
    let mut request = request();
    *request.method_mut() = Method::CONNECT;
    let value = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert(CONTENT_TYPE, value);
    let response = reply(
        Probe::answering([Answers::Fails(Failure::NoRoute)]),
        request,
    )
    .await;
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn a_grpc_caller_gets_a_grpc_answer() {
    let probe = Probe::answering([Answers::Fails(Failure::RequestTimeout)]);
    let mut request = request();
    let value = HeaderValue::from_static("application/grpc+proto");
    request.headers_mut().insert(CONTENT_TYPE, value);
    let response = reply(probe, request).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["grpc-status"], "14");
    assert!(response.body().is_end_stream());
}

#[tokio::test]
async fn flags_and_details_are_recorded_and_edits_apply_to_the_reply() {
    let mut rule = Rule::prefix_to("/", "a");
    let pieces = vec![
        Piece::ResponseFlags,
        Piece::Text("|".into()),
        Piece::ResponseCodeDetails,
    ];
    rule.response_edits.add = vec![
        add("x-why", pieces, AddMode::Append),
        add(
            "content-type",
            vec![Piece::Text("text/html".into())],
            AddMode::IfAbsent,
        ),
    ];
    let exchange = fixture::exchange(rule, None);
    let probe = Probe::answering([Answers::Fails(Failure::NoHealthyHost)]);
    let response = reply(probe, fixture::with(request(), &exchange)).await;
    assert_eq!(response.headers()["x-why"], "UH|no_healthy_upstream");
    assert_eq!(response.headers()[CONTENT_TYPE], "text/html");
    assert_eq!(exchange.flags(), Flags::UH);
}

#[tokio::test]
async fn a_reset_after_a_retry_says_so() {
    let exchange = fixture::exchange(Rule::default(), None);
    let _second = exchange.for_attempt();
    let probe = Probe::answering([Answers::Fails(Failure::ConnectionTermination)]);
    let response = reply(probe, fixture::with(request(), &exchange)).await;
    let body = read(response.into_body()).await;
    assert!(
        body.contains("retried and the latest reset reason"),
        "{body}"
    );
}

#[tokio::test]
async fn recorded_headers_go_on_every_response_and_replace_what_is_there() {
    for answer in [
        Answers::With(StatusCode::OK, "ok"),
        Answers::Fails(Failure::Denied),
    ] {
        let exchange = fixture::exchange(Rule::default(), None);
        let name = HeaderName::from_static("x-rec");
        for value in ["one", "two"] {
            exchange.add_reply_header(name.clone(), HeaderValue::from_static(value));
        }
        let probe = Probe::answering([answer]);
        let response = reply(probe, fixture::with(request(), &exchange)).await;
        let values: Vec<_> = response.headers().get_all(&name).iter().collect();
        assert_eq!(values, ["one", "two"]);
    }
}

#[tokio::test]
async fn a_preflight_is_answered_without_the_edits_of_the_rule() {
    let mut rule = Rule::prefix_to("/", "a");
    rule.response_edits.add = vec![add(
        "x-edit",
        vec![Piece::Text("yes".into())],
        AddMode::Append,
    )];
    for (failure, edited) in [(Failure::CorsPreflight, false), (Failure::Denied, true)] {
        let exchange = fixture::exchange(rule.clone(), None);
        let probe = Probe::answering([Answers::Fails(failure)]);
        let response = reply(probe, fixture::with(request(), &exchange)).await;
        assert_eq!(
            response.headers().contains_key("x-edit"),
            edited,
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn a_rule_that_answers_itself_edits_no_other_local_reply() {
    let redirect = Action::Redirect(Redirect::default());
    let mut rule = Rule::new(Condition::default(), redirect);
    rule.response_edits.add = vec![add(
        "x-edit",
        vec![Piece::Text("yes".into())],
        AddMode::Append,
    )];
    for (failure, edited) in [
        (Failure::Denied, false),
        (Failure::RateLimited(429), false),
        (Failure::Redirect, true),
    ] {
        let exchange = fixture::exchange(rule.clone(), None);
        let probe = Probe::answering([Answers::Fails(failure)]);
        let response = reply(probe, fixture::with(request(), &exchange)).await;
        let headers = response.headers();
        assert_eq!(headers.contains_key("x-edit"), edited, "{failure:?}");
    }
}

#[derive(Clone)]
struct NeverReady;

impl Service<Request<BoxedBody>> for NeverReady {
    type Response = Response<BoxedBody>;
    type Error = BoxError;
    type Future = std::future::Ready<Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Err(Error::new(Failure::Overloaded).into()))
    }

    fn call(&mut self, _: Request<BoxedBody>) -> Self::Future {
        panic!("called although it was not ready")
    }
}

#[tokio::test]
async fn a_service_that_fails_to_be_ready_is_answered_for_and_not_called() {
    let mut service = ReplyLayer::new().layer(NeverReady);
    let first = service
        .ready()
        .await
        .unwrap()
        .call(request())
        .await
        .unwrap();
    assert_eq!(first.status(), 503);
    let copy = service.clone().oneshot(request()).await.unwrap();
    assert_eq!(copy.status(), 503);
}
