use super::*;
use http::StatusCode;
use mesh_core::model::{
    Action, AddMode, Cluster, Condition, HeaderAdd, HeaderChanges, HeaderTemplate, PathRewrite,
    Pattern, Piece, Rule,
};
use mesh_test::{Answers, BoxedBody, Probe, contract, fixture, text};
use tower::ServiceExt;

fn add(name: &'static str, pieces: Vec<Piece>, mode: AddMode) -> HeaderAdd {
    HeaderAdd {
        name: HeaderName::from_static(name),
        value: HeaderTemplate::Pieces(pieces),
        mode,
        keep_empty: false,
    }
}

fn plain(name: &'static str, value: &str) -> HeaderAdd {
    add(name, vec![Piece::Text(value.into())], AddMode::Overwrite)
}

fn edits(add: Vec<HeaderAdd>) -> HeaderEdits {
    HeaderChanges {
        add,
        ..HeaderChanges::default()
    }
    .into()
}

fn request(uri: &str) -> Request<BoxedBody> {
    let request = Request::get(uri).header("x-id", "42");
    request.body(text("")).unwrap()
}

/// Sends a request through the layer; gives back what the probe saw and answered.
async fn through(
    layer: EditLayer,
    request: Request<BoxedBody>,
) -> (Request<bytes::Bytes>, Response<BoxedBody>) {
    let mut headers = http::HeaderMap::new();
    headers.insert("x-up", HeaderValue::from_static("up"));
    let probe = Probe::answering([Answers::WithHeaders(StatusCode::CREATED, headers, "")]);
    let response = layer.layer(probe.clone()).oneshot(request).await.unwrap();
    (probe.requests().remove(0), response)
}

async fn forwarded(
    change: impl FnOnce(&mut Forward, &mut Rule),
    request: Request<BoxedBody>,
) -> Request<bytes::Bytes> {
    let mut rule = Rule::prefix_to("/", "a");
    let mut forward = Forward::to("a");
    change(&mut forward, &mut rule);
    rule.action = Action::Forward(forward);
    let exchange = fixture::exchange(rule, Some(Cluster::new("a")));
    through(EditLayer::per_route(), fixture::with(request, &exchange))
        .await
        .0
}

#[tokio::test]
async fn keeps_the_contract_of_layers() {
    contract::check(EditLayer::per_route()).await;
    contract::check(EditLayer::fixed(
        HeaderEdits::default(),
        HeaderEdits::default(),
    ))
    .await;
}

#[tokio::test]
async fn fixed_edits_need_no_exchange_and_see_both_messages() {
    let request_edits = edits(vec![add(
        "x-in",
        vec![
            Piece::RequestHeader(HeaderName::from_static("x-id")),
            Piece::ResponseCode,
        ],
        AddMode::Append,
    )]);
    let response_edits = edits(vec![add(
        "x-out",
        vec![
            Piece::RequestHeader(HeaderName::from_static("x-in")),
            Piece::ResponseHeader(HeaderName::from_static("x-up")),
            Piece::ResponseCode,
            Piece::Protocol,
        ],
        AddMode::Append,
    )]);
    let layer = EditLayer::fixed(request_edits, response_edits);
    let (seen, response) = through(layer, request("/")).await;
    assert_eq!(seen.headers()["x-in"], "420");
    assert_eq!(response.headers()["x-out"], "420up201HTTP/1.1");
}

#[tokio::test]
async fn per_route_edits_are_those_of_the_rule_both_ways() {
    let mut rule = Rule::prefix_to("/", "a");
    rule.request_edits = edits(vec![plain("x-in", "rule")]);
    rule.request_edits
        .remove
        .push(HeaderName::from_static("x-id"));
    rule.response_edits = edits(vec![plain("x-up", "edited")]);
    let exchange = fixture::exchange(rule, Some(Cluster::new("a")));
    let request = fixture::with(request("/"), &exchange);
    let (seen, response) = through(EditLayer::per_route(), request).await;
    assert_eq!(seen.headers()["x-in"], "rule");
    assert!(!seen.headers().contains_key("x-id"));
    assert_eq!(response.headers()["x-up"], "edited");
}

#[tokio::test]
async fn an_error_is_not_edited_here() {
    let mut rule = Rule::prefix_to("/", "a");
    rule.response_edits = edits(vec![plain("x", "y")]);
    let exchange = fixture::exchange(rule, None);
    let probe = Probe::answering([Answers::Fails(Failure::Denied)]);
    let service = EditLayer::per_route().layer(probe);
    let error = service
        .oneshot(fixture::with(request("/"), &exchange))
        .await;
    assert_eq!(error.unwrap_err().failure(), Failure::Denied);
}

#[tokio::test]
async fn path_and_authority_are_rewritten_after_the_edits() {
    let seen = forwarded(
        |forward, rule| {
            rule.condition.path = PathMatch::Prefix("/old".into());
            let host = vec![Piece::RequestHeader(HOST)];
            rule.request_edits = edits(vec![add("x-host", host, AddMode::Append)]);
            forward.path = PathRewrite::Prefix("/new".into());
            forward.authority = Some(AuthorityRewrite::Literal("new.example".into()).into());
        },
        {
            let mut request = request("http://old.example/old/x?q=1");
            let host = HeaderValue::from_static("old.example");
            request.headers_mut().insert(HOST, host);
            request
        },
    )
    .await;
    assert_eq!(seen.uri(), "http://new.example/new/x?q=1");
    assert_eq!(seen.headers()[HOST], "new.example");
    assert_eq!(seen.headers()["x-host"], "old.example");
    assert_eq!(seen.headers()[ORIGINAL_HOST], "old.example");
    assert_eq!(seen.headers()[ORIGINAL_PATH], "/old/x?q=1");
}

#[tokio::test]
async fn a_request_that_is_not_rewritten_says_nothing_of_an_original() {
    let seen = forwarded(|_, _| {}, request("http://a/b")).await;
    assert_eq!(seen.uri(), "http://a/b");
    assert!(!seen.headers().contains_key(ORIGINAL_HOST));
    assert!(!seen.headers().contains_key(ORIGINAL_PATH));
}

#[tokio::test]
async fn an_authority_from_a_header_is_taken_if_it_is_one() {
    let from = |forward: &mut Forward, _: &mut Rule| {
        let name = HeaderName::from_static("x-new");
        forward.authority = Some(AuthorityRewrite::FromHeader(name).into());
    };
    for (value, expected) in [
        (Some("zz.top:1"), "zz.top:1"),
        (Some("no host"), "old"),
        (Some(""), "old"),
        (None, "old"),
    ] {
        let mut request = request("/");
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("old"));
        if let Some(value) = value {
            headers.insert("x-new", HeaderValue::from_static(value));
        }
        let seen = forwarded(from, request).await;
        assert_eq!(seen.headers()[HOST], expected);
        assert_eq!(
            seen.headers().contains_key(ORIGINAL_HOST),
            expected != "old"
        );
    }
}

#[tokio::test]
async fn an_edit_of_the_host_changes_the_authority_and_removes_none() {
    let seen = forwarded(
        |_, rule| rule.request_edits = edits(vec![plain("host", "new.example")]),
        request("http://old.example/"),
    )
    .await;
    assert_eq!(seen.uri(), "http://new.example/");
    let mut with_host = request("/");
    let host = HeaderValue::from_static("old.example");
    with_host.headers_mut().insert(HOST, host);
    let seen = forwarded(|_, rule| rule.request_edits.remove.push(HOST), with_host).await;
    assert_eq!(seen.headers()[HOST], "old.example");
}

#[tokio::test]
async fn a_path_that_grows_beyond_what_a_uri_can_be_is_refused() {
    let mut rule = Rule::new(Condition::default(), Action::default());
    let mut forward = Forward::to("a");
    let pattern = Pattern::new("a").unwrap();
    forward.path = PathRewrite::Regex(pattern, "b".repeat(1_000));
    rule.action = Action::Forward(forward);
    let exchange = fixture::exchange(rule, Some(Cluster::new("a")));
    let probe = Probe::new();
    let service = EditLayer::per_route().layer(probe.clone());
    let request = fixture::with(request(&format!("/{}", "a".repeat(100))), &exchange);
    let error = service.oneshot(request).await.unwrap_err();
    assert_eq!(error.failure(), Failure::InvalidPath);
    assert_eq!(probe.calls(), 0);
}

#[tokio::test]
async fn the_authority_that_is_replaced_joins_the_list_of_those() {
    let appended = async |before: &[&'static str]| {
        let mut request = request("/");
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::from_static("old"));
        for line in before {
            headers.append("x-forwarded-host", HeaderValue::from_static(line));
        }
        let change = |forward: &mut Forward, _: &mut Rule| {
            forward.authority = Some(AuthorityRewrite::Literal("new".into()).into());
            forward.append_forwarded_host = true;
        };
        let seen = forwarded(change, request).await;
        let lines = seen.headers().get_all("x-forwarded-host").iter();
        let lines: Vec<_> = lines.map(|it| it.to_str().unwrap().to_owned()).collect();
        lines.join(" | ")
    };
    assert_eq!(appended(&[]).await, "old");
    assert_eq!(appended(&["a"]).await, "a,old");
    assert_eq!(appended(&["a", "b"]).await, "a,b,old");
    assert_eq!(appended(&["a,old"]).await, "a,old");
    let kept = forwarded(
        |forward, _| forward.append_forwarded_host = true,
        request("http://a/"),
    );
    assert!(!kept.await.headers().contains_key("x-forwarded-host"));
}

#[tokio::test]
async fn an_authority_is_made_from_the_path_without_its_query() {
    let seen = forwarded(
        |forward, _| {
            let pattern = Pattern::new("^/([a-z.]+)/.*$").unwrap();
            forward.authority = Some(AuthorityRewrite::FromPath(pattern, "\\1:1".into()).into());
        },
        request("http://old/a.test/x?q=/b.test/"),
    )
    .await;
    assert_eq!(seen.uri(), "http://a.test:1/a.test/x?q=/b.test/");
    assert_eq!(seen.headers()[ORIGINAL_HOST], "old");
}

fn counting(mut rule: Rule) -> Exchange {
    rule.request_edits = edits(vec![plain("x-id", "edited")]);
    let id = Piece::RequestHeader(HeaderName::from_static("x-id"));
    let path = Piece::RequestPart(mesh_core::model::HeaderKey::Path);
    rule.response_edits = edits(vec![add("x-told", vec![id, path], AddMode::Append)]);
    let mut builder = mesh_core::model::SnapshotBuilder::new();
    let mut host = mesh_core::model::VirtualHost::new("all", ["*"]).rule(rule);
    host.count_attempts_in_response = true;
    builder.routes(mesh_core::model::RouteTable::new("t").host(host));
    builder.cluster(Cluster::new("a"));
    fixture::matched(&builder.build().unwrap().0)
}

#[tokio::test]
async fn a_response_tells_of_the_edited_request_and_of_its_attempts_whoever_makes_it() {
    for answer in [
        Answers::With(StatusCode::OK, ""),
        Answers::Fails(Failure::NoHealthyHost),
    ] {
        let mut forward = Forward::to("a");
        forward.path = PathRewrite::Prefix("/new/".into());
        let exchange = counting(Rule::new(Condition::default(), Action::Forward(forward)));
        let request = fixture::with(request("http://a/x"), &exchange);
        let routed = exchange.matched().unwrap();
        local::keep(&exchange, routed, &request);
        let retried = exchange.for_attempt();
        assert_eq!(retried.attempts(), 2);
        let service = EditLayer::per_route().layer(Probe::answering([answer]));
        let service = crate::ReplyLayer::new().layer(service);
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.headers()[ATTEMPT_COUNT], "2");
        assert_eq!(response.headers()["x-told"], "edited/new/x");
    }
}

#[tokio::test]
async fn what_an_edit_removes_is_in_no_answer_either() {
    for answer in [
        Answers::With(StatusCode::OK, ""),
        Answers::Fails(Failure::NoHealthyHost),
    ] {
        let mut rule = Rule::prefix_to("/", "a");
        rule.request_edits.remove = vec![HeaderName::from_static("x-id")];
        let id = Piece::RequestHeader(HeaderName::from_static("x-id"));
        rule.response_edits = edits(vec![add("x-told", vec![id], AddMode::Append)]);
        let exchange = fixture::exchange(rule, Some(Cluster::new("a")));
        let request = fixture::with(request("http://a/x"), &exchange);
        local::keep(&exchange, exchange.matched().unwrap(), &request);
        let service = EditLayer::per_route().layer(Probe::answering([answer]));
        let service = crate::ReplyLayer::new().layer(service);
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.headers().get("x-told"), None);
    }
}

#[tokio::test]
async fn an_edited_or_rewritten_head_is_noted_for_who_wants_it() {
    let exchange = counting(Rule::prefix_to("/", "a"));
    exchange.watch(Arc::new(mesh_core::exchange::Watch {
        target: false,
        headers: vec![HeaderName::from_static("x-id")],
    }));
    let request = fixture::with(request("http://a/x"), &exchange);
    through(EditLayer::per_route(), request).await;
    let head = exchange.take_head().unwrap();
    assert_eq!(head.headers[0].1, "edited");
}
