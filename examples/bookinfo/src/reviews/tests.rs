use std::sync::{Arc, Mutex};

use axum::{body::Body, http::Request};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

use super::*;

const UNAVAILABLE: &str = "Ratings service is currently unavailable";

fn with_ratings(ratings: Router) -> Services {
    let mut services = Services::direct();
    let authority = services.ratings.clone();
    services.in_process.insert(authority, ratings);
    services
}

async fn ask(version: ReviewsVersion, services: &Services) -> Value {
    let request = Request::get("/reviews/0").body(Body::empty()).unwrap();
    let response = reviews(version, services).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// Ratings that answers after a delay.
fn late(delay: Duration) -> Router {
    let late = async move || {
        sleep(delay).await;
        axum::Json(json!({ "id": 0, "ratings": { "Reviewer1": 5, "Reviewer2": 4 } }))
    };
    Router::new().route("/ratings/0", get(late))
}

#[tokio::test]
async fn version_one_has_no_stars_and_does_not_ask_for_them() {
    let nobody_asks = get(async || -> StatusCode { panic!("ratings was called") });
    let services = with_ratings(Router::new().route("/ratings/0", nobody_asks));
    let answer = ask(ReviewsVersion::V1, &services).await;
    assert_eq!(answer["id"], "0");
    assert_eq!(answer["podname"], "reviews-v1");
    assert_eq!(answer["clustername"], "mesh");
    for review in answer["reviews"].as_array().unwrap() {
        let keys = review.as_object().unwrap().keys().collect::<Vec<_>>();
        assert_eq!(keys, ["reviewer", "text"]);
    }
}

#[tokio::test]
async fn version_two_has_black_stars_and_version_three_red_ones() {
    let services = with_ratings(crate::ratings());
    for (version, name, color) in [
        (ReviewsVersion::V2, "reviews-v2", "black"),
        (ReviewsVersion::V3, "reviews-v3", "red"),
    ] {
        let answer = ask(version, &services).await;
        assert_eq!(answer["podname"], name);
        let ratings = [0, 1].map(|i| answer["reviews"][i]["rating"].clone());
        let stars = |n: u8| json!({ "stars": n, "color": color });
        assert_eq!(ratings, [stars(5), stars(4)]);
    }
}

#[tokio::test]
async fn failing_ratings_are_named_in_place_of_the_stars() {
    let broken = [
        get(async || StatusCode::SERVICE_UNAVAILABLE),
        get(async || "no JSON"),
        get(async || r#"{"id":0,"ratings":{}}"#),
    ];
    for ratings in broken {
        let services = with_ratings(Router::new().route("/ratings/0", ratings));
        let answer = ask(ReviewsVersion::V3, &services).await;
        for review in answer["reviews"].as_array().unwrap() {
            assert_eq!(review["rating"], json!({ "error": UNAVAILABLE }));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn version_two_waits_ten_seconds_for_ratings_and_version_three_two_and_a_half() {
    for (version, delay, waits, has_stars) in [
        (ReviewsVersion::V2, 7000, 7000, true),
        (ReviewsVersion::V2, 60_000, 10_000, false),
        (ReviewsVersion::V3, 2000, 2000, true),
        (ReviewsVersion::V3, 7000, 2500, false),
    ] {
        let services = with_ratings(late(Duration::from_millis(delay)));
        let start = Instant::now();
        let answer = ask(version, &services).await;
        let took = start.elapsed().as_millis() as u64;
        assert!((waits..waits + 5).contains(&took), "{version:?}: {took}");
        assert_eq!(answer["reviews"][0]["rating"]["stars"].is_u64(), has_stars);
    }
}

#[tokio::test]
async fn hands_the_headers_of_traces_and_users_on_to_ratings() {
    let seen = Arc::new(Mutex::new(HeaderMap::new()));
    let record = {
        let seen = seen.clone();
        async move |headers: HeaderMap| {
            *seen.lock().unwrap() = headers;
            StatusCode::OK
        }
    };
    let services = with_ratings(Router::new().route("/ratings/3", get(record)));
    let request = Request::get("/reviews/3")
        .header("x-request-id", "r-1")
        .header("x-b3-traceid", "t-1")
        .header("end-user", "jason")
        .header("x-secret", "mine")
        .body(Body::empty());
    let router = reviews(ReviewsVersion::V2, &services);
    router.oneshot(request.unwrap()).await.unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen["x-request-id"], "r-1");
    assert_eq!(seen["x-b3-traceid"], "t-1");
    assert_eq!(seen["end-user"], "jason");
    assert!(!seen.contains_key("x-secret"));
}

#[tokio::test]
async fn refuses_a_product_that_is_no_number() {
    let request = Request::get("/reviews/hamlet").body(Body::empty());
    let router = reviews(ReviewsVersion::V1, &Services::direct());
    let response = router.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}
