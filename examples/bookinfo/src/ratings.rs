//! The ratings service: how many stars each reviewer gave. It calls no one.

use std::collections::BTreeMap;

use axum::{Router, extract::Path, response::Response, routing::get};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{answer, healthy, product_id, signed};

const NAME: &str = "ratings-v1";

/// The stars of a product, by reviewer.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Ratings {
    pub(crate) id: u32,
    pub(crate) ratings: BTreeMap<String, u8>,
}

/// The ratings service: `GET /ratings/{id}` and `GET /health`.
pub fn ratings() -> Router {
    let router = Router::new()
        .route("/ratings/{id}", get(stars))
        .route("/health", get(async || healthy("Ratings")));
    signed(router, NAME)
}

async fn stars(Path(id): Path<String>) -> Response {
    let id = match product_id(&id) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    let stars = [("Reviewer1", 5), ("Reviewer2", 4)];
    let ratings = Ratings {
        id,
        ratings: stars.map(|(name, stars)| (name.to_owned(), stars)).into(),
    };
    answer(StatusCode::OK, &ratings)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = ratings().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn answers_in_the_shape_of_the_original() {
        let expected = r#"{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}"#;
        assert_eq!(
            ask("/ratings/0").await,
            (StatusCode::OK, expected.to_owned())
        );
    }

    #[tokio::test]
    async fn refuses_a_product_that_is_no_number() {
        assert_eq!(ask("/ratings/-1").await.0, StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn says_that_it_is_healthy() {
        assert_eq!(ask("/health").await.1, r#"{"status":"Ratings is healthy"}"#);
    }
}
