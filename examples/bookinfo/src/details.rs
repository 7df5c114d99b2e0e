//! The details service: who wrote the book, when, and how it is bound. It calls no one.

use axum::{Router, extract::Path, response::Response, routing::get};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::{answer, healthy, product_id, signed};

const NAME: &str = "details-v1";

/// What is known about a book.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Details {
    pub(crate) id: u32,
    pub(crate) author: String,
    pub(crate) year: i32,
    #[serde(rename = "type")]
    pub(crate) binding: String,
    pub(crate) pages: u32,
    pub(crate) publisher: String,
    pub(crate) language: String,
    #[serde(rename = "ISBN-10")]
    pub(crate) isbn_10: String,
    #[serde(rename = "ISBN-13")]
    pub(crate) isbn_13: String,
}

/// The details service: `GET /details/{id}` and `GET /health`.
pub fn details() -> Router {
    let router = Router::new()
        .route("/details/{id}", get(book))
        .route("/health", get(async || healthy("Details")));
    signed(router, NAME)
}

async fn book(Path(id): Path<String>) -> Response {
    let id = match product_id(&id) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    // The years and numbers of Istio's sample, which scripts written for it look for.
    let details = Details {
        id,
        author: "William Shakespeare".to_owned(),
        year: 1595,
        binding: "paperback".to_owned(),
        pages: 200,
        publisher: "PublisherA".to_owned(),
        language: "English".to_owned(),
        isbn_10: "1234567890".to_owned(),
        isbn_13: "123-1234567890".to_owned(),
    };
    answer(StatusCode::OK, &details)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::Request};
    use http_body_util::BodyExt as _;
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = details().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["x-served-by"], "details-v1");
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn answers_with_the_book_of_the_number_asked_for() {
        let (status, book) = ask("/details/7").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(book["id"], 7);
        assert_eq!(book["type"], "paperback");
        assert_eq!(book["ISBN-13"], "123-1234567890");
    }

    #[tokio::test]
    async fn refuses_a_product_that_is_no_number() {
        let (status, body) = ask("/details/hamlet").await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(body["error"], "please provide numeric product ID");
    }

    #[tokio::test]
    async fn an_unknown_path_is_refused_under_the_name_of_the_service() {
        let request = Request::get("/nowhere").body(Body::empty()).unwrap();
        let response = details().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(response.headers()["x-served-by"], "details-v1");
    }

    #[tokio::test]
    async fn says_that_it_is_healthy() {
        let (status, body) = ask("/health").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["status"], "Details is healthy");
    }
}
