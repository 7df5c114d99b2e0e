use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    body::Body,
    http::{Request, header::COOKIE},
};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::time::sleep;
use tower::ServiceExt as _;

use super::*;
use crate::{ReviewsVersion, details, ratings, reviews};

const SORRY: &str = "Sorry, product reviews are currently unavailable for this book.";

/// All services in one process, with a ratings of the test's.
fn bookinfo_with(version: ReviewsVersion, ratings: Router) -> Services {
    let mut services = Services::direct();
    let at = Authority::from_static;
    services.in_process.insert(at("ratings:9080"), ratings);
    let reviews = reviews(version, &services);
    services.in_process.insert(at("details:9080"), details());
    services.in_process.insert(at("reviews:9080"), reviews);
    services
}

fn bookinfo(version: ReviewsVersion) -> Services {
    bookinfo_with(version, ratings())
}

/// All services in one process, with a reviews of the test's.
fn with_reviews(answer: axum::routing::MethodRouter) -> Services {
    let mut services = bookinfo(ReviewsVersion::V1);
    let authority = services.reviews.clone();
    let router = Router::new().route("/reviews/0", answer);
    services.in_process.insert(authority, router);
    services
}

async fn send(services: &Services, request: Request<Body>) -> Response {
    productpage(services).oneshot(request).await.unwrap()
}

async fn get_path(services: &Services, path: &str) -> Response {
    send(services, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn page(services: &Services) -> String {
    let response = get_path(services, "/productpage").await;
    assert_eq!(response.status(), StatusCode::OK);
    text(response).await
}

async fn page_for(services: &Services, cookie: &str) -> String {
    let request = Request::get("/productpage").header(COOKIE, cookie);
    let request = request.body(Body::empty()).unwrap();
    text(send(services, request).await).await
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

/// The part of the page that readers see, without the style sheet and its class names.
fn main_of(page: &str) -> &str {
    page.split_once("<main>").unwrap().1
}

#[tokio::test]
async fn the_stars_are_those_of_the_version_that_answered() {
    let stars = r#"<svg class="star""#;
    for (version, name, full, color) in [
        (ReviewsVersion::V1, "reviews-v1", 0, None),
        (ReviewsVersion::V2, "reviews-v2", 9, Some("stars-black")),
        (ReviewsVersion::V3, "reviews-v3", 9, Some("stars-red")),
    ] {
        let page = page(&bookinfo(version)).await;
        let main = main_of(&page);
        assert!(main.contains(name));
        assert_eq!(count(main, stars), full, "{name}");
        for class in ["stars-black", "stars-red"] {
            let expected = if color == Some(class) { 2 } else { 0 };
            assert_eq!(count(main, class), expected, "{name} {class}");
        }
    }
}

#[tokio::test]
async fn the_page_shows_the_book_its_details_and_every_call() {
    let page = page(&bookinfo(ReviewsVersion::V1)).await;
    for part in [
        "<h1>The Comedy of Errors</h1>",
        "<dd>PublisherA</dd>",
        "<code>details:9080</code>",
        "<code>reviews:9080</code>",
        "<td>details-v1</td>",
        "<td>reviews-v1</td>",
        "200 OK",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("{{"));
}

#[tokio::test]
async fn what_a_proxy_adds_to_an_answer_is_in_the_table() {
    let answer = get(async || {
        let headers = [
            ("server", "mesh<1>"),
            ("x-envoy-upstream-service-time", "12"),
        ];
        (
            StatusCode::SERVICE_UNAVAILABLE,
            headers,
            "fault <filter> abort",
        )
    });
    let page = page(&with_reviews(answer)).await;
    let main = main_of(&page);
    assert!(main.contains(SORRY));
    assert!(main.contains("503 Service Unavailable"));
    assert!(main.contains("<pre>fault &lt;filter&gt; abort</pre>"));
    assert!(main.contains("mesh&lt;1&gt;"));
    assert!(main.contains("12 ms"));
    assert!(main.contains("the mesh itself"));
}

#[tokio::test]
async fn the_page_tells_who_was_seen_at_either_end_of_mutual_tls() {
    let answer = get(async || {
        let seen = [("x-called-by", "spiffe://d/ns/a/sa/<page>")];
        (StatusCode::SERVICE_UNAVAILABLE, seen, "")
    });
    let services = with_reviews(answer);
    let plain = page(&services).await;
    assert!(plain.contains("without mutual TLS"));
    assert!(main_of(&plain).contains("spiffe://d/ns/a/sa/&lt;page&gt;"));
    let request = Request::get("/productpage");
    let request = request.header("x-forwarded-client-cert", "URI=spiffe://d/ns/a/sa/gateway");
    let response = send(&services, request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        response.headers()["x-called-by"],
        "spiffe://d/ns/a/sa/gateway"
    );
    let page = text(response).await;
    assert!(page.contains("over mutual TLS, by <code>spiffe://d/ns/a/sa/gateway</code>"));
}

#[tokio::test]
async fn a_hostile_user_name_stays_text() {
    let services = bookinfo(ReviewsVersion::V1);
    let form = Request::post("/login")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Body::from(
            "username=%3Cscript%3Ealert(%22x%22)%3C/script%3E",
        ));
    let response = send(&services, form.unwrap()).await;
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    let page = page_for(&services, cookie.split(';').next().unwrap()).await;
    assert!(page.contains("Signed in as <b>&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;</b>"));
    assert!(!page.contains("<script>alert"));
}

#[tokio::test]
async fn hostile_answers_and_request_ids_stay_text() {
    let answer = get(async || {
        r#"{"id":"0","podname":"<i>pod","clustername":"\"<i>","reviews":[
            {"reviewer":"<i>Eve","text":"</blockquote><i>","rating":{"error":"<i>"}}]}"#
    });
    let request = Request::get("/productpage").header("x-request-id", "<i>");
    let request = request.body(Body::empty()).unwrap();
    let page = text(send(&with_reviews(answer), request).await).await;
    assert!(page.contains("&lt;i&gt;Eve"));
    assert!(!page.contains("<i>"));
}

#[tokio::test]
async fn signing_in_sets_the_session_and_signing_out_forgets_it() {
    let services = bookinfo(ReviewsVersion::V1);
    let form = Request::post("/login")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("referer", "http://elsewhere/")
        .body(Body::from("username=jason"));
    let response = send(&services, form.unwrap()).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()["location"], "/productpage");
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("session=jason; "));

    let page = page_for(&services, "session=jason").await;
    assert!(page.contains("Signed in as <b>jason</b>"));
    let response = get_path(&services, "/logout").await;
    let cookie = response.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("session=; ") && cookie.contains("Max-Age=0"));
}

#[tokio::test]
async fn both_calls_carry_the_signed_in_user_and_the_trace() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = {
        let seen = seen.clone();
        get(async move |headers: HeaderMap| {
            seen.lock().unwrap().push(headers);
            StatusCode::NOT_FOUND
        })
    };
    let mut services = with_reviews(record.clone());
    let authority = services.details.clone();
    let router = Router::new().route("/details/0", record);
    services.in_process.insert(authority, router);

    let request = Request::get("/productpage")
        .header(COOKIE, "session=jason")
        .header("end-user", "somebody-else")
        .header("x-request-id", "r-1")
        .header("traceparent", "t-1")
        .header("accept-language", "en");
    send(&services, request.body(Body::empty()).unwrap()).await;
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3, "details once, reviews twice");
    for headers in &*seen {
        let users = headers.get_all("end-user").iter().collect::<Vec<_>>();
        assert_eq!(users, ["jason"]);
        assert_eq!(headers["x-request-id"], "r-1");
        assert_eq!(headers["traceparent"], "t-1");
        assert_eq!(headers["cookie"], "session=jason");
        assert!(!headers.contains_key("accept-language"));
    }
}

#[tokio::test(start_paused = true)]
async fn seven_seconds_in_ratings_take_the_reviews_off_the_page_of_version_two() {
    let late = get(async || {
        sleep(Duration::from_secs(7)).await;
        r#"{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}"#
    });
    let late = Router::new().route("/ratings/0", late);
    let services = bookinfo_with(ReviewsVersion::V2, late.clone());
    let start = Instant::now();
    let page = page(&services).await;
    assert_eq!(start.elapsed().as_secs(), 6, "twice three seconds");
    let main = main_of(&page);
    assert!(main.contains(SORRY));
    assert!(main.contains("no answer within 3 s"));
    assert!(main.contains("(attempt 2)"));
    assert!(main.contains("<dd>PublisherA</dd>"));

    // The version with the mended timeout answers in time, without stars.
    let page = self::page(&bookinfo_with(ReviewsVersion::V3, late)).await;
    assert!(page.contains("Ratings service is currently unavailable"));
    assert!(!main_of(&page).contains(SORRY));
}

#[tokio::test]
async fn reviews_is_asked_again_once_and_the_second_answer_counts() {
    for (failures, asked, shown) in [(0, 1, true), (1, 2, true), (2, 2, false)] {
        let calls = Arc::new(AtomicUsize::new(0));
        let answer = {
            let calls = calls.clone();
            get(async move || {
                if calls.fetch_add(1, Ordering::Relaxed) < failures {
                    return Err(StatusCode::BAD_GATEWAY);
                }
                Ok(r#"{"id":"0","podname":"p","clustername":"c","reviews":[]}"#)
            })
        };
        let page = page(&with_reviews(answer)).await;
        assert_eq!(calls.load(Ordering::Relaxed), asked);
        assert_eq!(!page.contains(SORRY), shown);
    }
}

#[tokio::test(start_paused = true)]
async fn details_and_reviews_are_asked_at_the_same_time() {
    let slow = get(async || {
        sleep(Duration::from_secs(2)).await;
        StatusCode::OK
    });
    let mut services = with_reviews(get(async || {
        sleep(Duration::from_secs(2)).await;
        r#"{"id":"0","podname":"p","clustername":"c","reviews":[]}"#
    }));
    let authority = services.details.clone();
    let router = Router::new().route("/details/0", slow);
    services.in_process.insert(authority, router);
    let start = Instant::now();
    page(&services).await;
    assert_eq!(start.elapsed().as_secs(), 2);
}

#[tokio::test]
async fn the_api_answers_what_the_services_answer() {
    let services = bookinfo(ReviewsVersion::V3);
    for (path, pointer, expected) in [
        ("/api/v1/products", "/0/title", "\"The Comedy of Errors\""),
        ("/api/v1/products/0", "/ISBN-10", "\"1234567890\""),
        ("/api/v1/products/0/reviews", "/podname", "\"reviews-v3\""),
        ("/api/v1/products/5/reviews", "/id", "\"5\""),
        ("/api/v1/products/0/ratings", "/ratings/Reviewer2", "4"),
        ("/health", "/status", "\"Product page is healthy\""),
    ] {
        let response = get_path(&services, path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = serde_json::from_str::<Value>(&text(response).await).unwrap();
        assert_eq!(body.pointer(pointer).unwrap().to_string(), expected);
    }
    let refused = get_path(&services, "/api/v1/products/x").await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_api_passes_failures_on_and_calls_silence_a_500() {
    let busy = with_reviews(get(async || StatusCode::SERVICE_UNAVAILABLE));
    let nonsense = with_reviews(get(async || "no JSON"));
    for (services, expected) in [(busy, 503), (nonsense, 500)] {
        let response = get_path(&services, "/api/v1/products/0/reviews").await;
        assert_eq!(response.status().as_u16(), expected);
        let body = serde_json::from_str::<Value>(&text(response).await).unwrap();
        assert_eq!(body, json!({ "error": SORRY }));
    }
}

#[tokio::test]
async fn pages_load_nothing_from_elsewhere() {
    let services = bookinfo(ReviewsVersion::V2);
    for path in ["/", "/productpage"] {
        let response = get_path(&services, path).await;
        let policy = response.headers()["content-security-policy"].clone();
        assert!(policy.to_str().unwrap().starts_with("default-src 'none'"));
        let page = text(response).await;
        for loads in [" src=", "url(//", "@import", "<iframe"] {
            assert!(!page.contains(loads), "{path}: {loads}");
        }
        assert!(!page.contains("href=\"http"), "{path}");
    }
}
