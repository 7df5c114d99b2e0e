use axum::{
    body::Body,
    http::{HeaderMap, Method, Request, Response, StatusCode},
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Body as _;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use tower::ServiceExt as _;

use crate::{named, router};

async fn ask(request: Request<Body>) -> Response<Body> {
    router().oneshot(request).await.unwrap()
}

async fn get(path: &str) -> Response<Body> {
    ask(Request::get(path).body(Body::empty()).unwrap()).await
}

async fn status(path: &str) -> StatusCode {
    get(path).await.status()
}

async fn body(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

async fn json_of(response: Response<Body>) -> Value {
    serde_json::from_slice(&body(response).await).unwrap()
}

fn location(headers: &HeaderMap) -> &str {
    headers["location"].to_str().unwrap()
}

#[tokio::test]
async fn anything_answers_with_the_whole_request() {
    let request = Request::builder()
        .method(Method::PUT)
        .uri("/anything/below?a=1&b=2&a=3")
        .header("host", "httpbin:8000")
        .header("x-request-id", "r-1")
        .header("x-forwarded-for", "10.0.0.9")
        .body(Body::from(r#"{"k":[1,2]}"#))
        .unwrap();
    let echo = json_of(ask(request).await).await;
    assert_eq!(echo["method"], "PUT");
    assert_eq!(echo["args"], json!({ "a": ["1", "3"], "b": "2" }));
    assert_eq!(echo["headers"]["X-Request-Id"], "r-1");
    assert_eq!(echo["data"], r#"{"k":[1,2]}"#);
    assert_eq!(echo["json"], json!({ "k": [1, 2] }));
    assert_eq!(echo["origin"], "10.0.0.9");
    assert_eq!(
        echo["url"],
        "http://httpbin:8000/anything/below?a=1&b=2&a=3"
    );
}

#[tokio::test]
async fn a_form_is_shown_as_fields_and_bytes_as_a_data_url() {
    let form = Request::post("/post")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from("name=Ada+L.&name=Grace"))
        .unwrap();
    let echo = json_of(ask(form).await).await;
    assert_eq!(echo["form"], json!({ "name": ["Ada L.", "Grace"] }));
    assert_eq!(echo["data"], "");

    let binary = Request::post("/post")
        .body(Body::from(vec![0xff, 0x00]))
        .unwrap();
    let echo = json_of(ask(binary).await).await;
    assert_eq!(echo["data"], "data:application/octet-stream;base64,/wA=");
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused() {
    let large = Body::from(vec![0; crate::REQUEST_LIMIT + 1]);
    let response = ask(Request::post("/anything").body(large).unwrap()).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn method_endpoints_refuse_other_methods() {
    assert_eq!(status("/get").await, StatusCode::OK);
    for path in ["/post", "/put", "/patch", "/delete"] {
        assert_eq!(status(path).await, StatusCode::METHOD_NOT_ALLOWED);
    }
}

#[tokio::test]
async fn headers_that_came_twice_are_joined() {
    let request = Request::get("/headers")
        .header("x-hop", "one")
        .header("x-hop", "two")
        .body(Body::empty())
        .unwrap();
    let headers = json_of(ask(request).await).await;
    assert_eq!(headers, json!({ "headers": { "X-Hop": "one, two" } }));
}

#[tokio::test]
async fn status_answers_any_final_code_and_refuses_the_rest() {
    for code in 200..=599 {
        assert_eq!(status(&format!("/status/{code}")).await.as_u16(), code);
    }
    for wrong in ["100", "600", "99", "abc", "200,,503"] {
        let refused = status(&format!("/status/{wrong}")).await;
        assert_eq!(refused, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn a_list_of_status_codes_is_taken_in_turn() {
    let router = router();
    let mut codes = Vec::new();
    for _ in 0..4 {
        let request = Request::get("/status/200,503").body(Body::empty());
        let response = router.clone().oneshot(request.unwrap()).await.unwrap();
        codes.push(response.status().as_u16());
    }
    assert_eq!(codes, [200, 503, 200, 503]);
}

#[tokio::test(start_paused = true)]
async fn delays_by_fractions_and_never_above_ten_seconds() {
    for (asked, expected) in [("0.25", 250), ("2", 2000), ("3600", 10_000)] {
        let start = Instant::now();
        assert_eq!(status(&format!("/delay/{asked}")).await, StatusCode::OK);
        let took = start.elapsed();
        let expected = Duration::from_millis(expected);
        assert!(took >= expected && took < expected + Duration::from_millis(5));
    }
    for wrong in ["-1", "NaN", "soon"] {
        let refused = status(&format!("/delay/{wrong}")).await;
        assert_eq!(refused, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn bytes_are_counted_announced_and_always_the_same() {
    let response = get("/bytes/200000").await;
    assert_eq!(response.body().size_hint().exact(), Some(200_000));
    let body = body(response).await;
    assert_eq!(body.len(), 200_000);
    assert!((0..body.len()).all(|i| body[i] == b'a' + (i % 26) as u8));
    assert!(super::tests::body(get("/bytes/0").await).await.is_empty());
    assert_eq!(status("/bytes/104857601").await, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn stream_bytes_sends_chunks_of_the_size_asked_for() {
    let mut chunks = get("/stream-bytes/70?chunk_size=30").await.into_body();
    let mut sizes = Vec::new();
    let mut text = Vec::new();
    assert_eq!(chunks.size_hint().exact(), None);
    while let Some(frame) = chunks.frame().await {
        let data = frame.unwrap().into_data().unwrap();
        sizes.push(data.len());
        text.extend_from_slice(&data);
    }
    assert_eq!(sizes, [30, 30, 10]);
    assert!((0..text.len()).all(|i| text[i] == b'a' + (i % 26) as u8));
}

#[tokio::test]
async fn stream_sends_one_json_object_per_line() {
    let body = body(get("/stream/3?a=1").await).await;
    let lines = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice::<Value>(line).unwrap())
        .collect::<Vec<_>>();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2]["id"], 2);
    assert_eq!(lines[2]["args"]["a"], "1");
}

#[tokio::test(start_paused = true)]
async fn drip_takes_its_time() {
    let start = Instant::now();
    let response = get("/drip?numbytes=5&duration=2&delay=1&code=206").await;
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(start.elapsed().as_secs(), 1);
    assert_eq!(body(response).await, "abcde");
    let took = start.elapsed().as_millis();
    assert!((3000..3020).contains(&took), "{took} ms");

    let start = Instant::now();
    assert_eq!(body(get("/drip?numbytes=0&delay=0").await).await, "");
    assert_eq!(start.elapsed().as_millis(), 0);
}

#[tokio::test]
async fn response_headers_are_set_and_may_replace_ours() {
    let response = get("/response-headers?x-a=1&x-a=2&content-type=text/plain").await;
    let values = response.headers().get_all("x-a").iter().collect::<Vec<_>>();
    assert_eq!(values, ["1", "2"]);
    let types = response.headers().get_all("content-type").iter();
    assert_eq!(types.collect::<Vec<_>>(), ["text/plain"]);
    assert_eq!(json_of(response).await["x-a"], json!(["1", "2"]));

    for wrong in ["a%20b=1", "x=%0d%0ay:1", "content-length=5"] {
        let refused = status(&format!("/response-headers?{wrong}")).await;
        assert_eq!(refused, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[tokio::test]
async fn redirects_count_down_to_get() {
    assert_eq!(location(get("/redirect/3").await.headers()), "/redirect/2");
    assert_eq!(location(get("/redirect/1").await.headers()), "/get");
    assert_eq!(status("/redirect/0").await, StatusCode::BAD_REQUEST);

    let response = get("/redirect-to?url=http://a/b&status_code=307").await;
    assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(location(response.headers()), "http://a/b");
    let refused = status("/redirect-to?url=/&status_code=200").await;
    assert_eq!(refused, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn cookies_are_set_and_listed() {
    let response = get("/cookies/set?a=1&b=2").await;
    assert_eq!(location(response.headers()), "/cookies");
    let set = response.headers().get_all("set-cookie").iter();
    assert_eq!(set.collect::<Vec<_>>(), ["a=1; Path=/", "b=2; Path=/"]);
    let refused = status("/cookies/set?a=1;Secure").await;
    assert_eq!(refused, StatusCode::BAD_REQUEST);

    let request = Request::get("/cookies")
        .header("cookie", "a=1; b=2")
        .header("cookie", "c=x=y")
        .body(Body::empty())
        .unwrap();
    let cookies = json_of(ask(request).await).await;
    let expected = json!({ "cookies": { "a": "1", "b": "2", "c": "x=y" } });
    assert_eq!(cookies, expected);
}

#[tokio::test]
async fn basic_auth_wants_the_credentials_of_its_path() {
    let response = get("/basic-auth/ada/secret").await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.headers().contains_key("www-authenticate"));

    let request = Request::get("/basic-auth/ada/secret")
        .header("authorization", "Basic YWRhOnNlY3JldA==")
        .body(Body::empty())
        .unwrap();
    let answer = json_of(ask(request).await).await;
    assert_eq!(answer, json!({ "authenticated": true, "user": "ada" }));
}

#[tokio::test]
async fn uuids_are_of_version_four_and_differ() {
    let first = json_of(get("/uuid").await).await["uuid"].clone();
    let second = json_of(get("/uuid").await).await["uuid"].clone();
    assert_ne!(first, second);
    let text = first.as_str().unwrap();
    assert_eq!(text.len(), 36);
    assert_eq!(text.as_bytes()[14], b'4');
    assert!(b"89ab".contains(&text.as_bytes()[19]));
}

#[tokio::test]
async fn each_router_says_the_name_it_was_given() {
    let request = Request::get("/hostname").body(Body::empty()).unwrap();
    let answer = named("bin-2").oneshot(request).await.unwrap();
    assert_eq!(json_of(answer).await, json!({ "hostname": "bin-2" }));
}

#[tokio::test(start_paused = true)]
async fn every_link_of_the_index_page_leads_somewhere() {
    let page = body(get("/").await).await;
    let page = std::str::from_utf8(&page).unwrap();
    let links = page.split("href=\"").skip(1);
    let mut count = 0;
    for link in links.map(|rest| rest.split('"').next().unwrap()) {
        let status = status(&link.replace("&amp;", "&")).await;
        assert_ne!(status, StatusCode::NOT_FOUND, "{link}");
        assert_ne!(status, StatusCode::BAD_REQUEST, "{link}");
        count += 1;
    }
    assert!(count > 15);
}
