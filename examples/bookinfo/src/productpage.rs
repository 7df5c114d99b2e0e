//! The product page: the book, with what the other services know about it.
//!
//! The page itself is always a 200: a part that cannot be shown says why in its place, as readers
//! of a shop would want it. The API under `/api/v1` passes the failures on.

use std::time::Duration;

use axum::{
    Form, Router,
    extract::{Path, State},
    response::{AppendHeaders, Html, IntoResponse as _, Response},
    routing::{get, post},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, LOCATION, SET_COOKIE},
    uri::Authority,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::json;
use tokio::time::Instant;

use crate::{
    Services, answer,
    caller::caller,
    client::{Call, Client},
    details::Details,
    healthy,
    page::{self, Part, View},
    product_id,
    propagate::propagated,
    ratings::Ratings,
    reviews::Reviews,
    session::{self, User},
    signed,
};

const NAME: &str = "productpage-v1";
const END_USER: HeaderName = HeaderName::from_static("end-user");

/// How long any other service may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often reviews is asked before the page does without. Together with [`PATIENCE`] this is
/// the bug of the sample, see the crate: keep it.
const REVIEWS_ATTEMPTS: usize = 2;

/// The one style sheet and the one script are in the page; nothing else may be loaded or run from
/// elsewhere, should a service ever slip markup past the escaping.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Clone, Debug)]
struct Shared {
    details: Authority,
    reviews: Authority,
    ratings: Authority,
    client: Client,
}

#[derive(Debug, Deserialize)]
struct SignIn {
    #[serde(default)]
    username: String,
}

/// One book, as the API lists it.
#[derive(Debug, Serialize)]
struct Product {
    id: u32,
    title: &'static str,
    #[serde(rename = "descriptionHtml")]
    description_html: &'static str,
}

/// The product page: `/productpage`, `/login`, `/logout`, `/api/v1/products` and `/health`.
pub fn productpage(services: &Services) -> Router {
    let shared = Shared {
        details: services.details.clone(),
        reviews: services.reviews.clone(),
        ratings: services.ratings.clone(),
        client: Client::of(services),
    };
    let router = Router::new()
        .route("/", get(index))
        .route("/productpage", get(product_page))
        .route("/login", post(login))
        .route("/logout", get(logout))
        .route("/health", get(async || healthy("Product page")))
        .route("/api/v1/products", get(products))
        .route("/api/v1/products/{id}", get(product_details))
        .route("/api/v1/products/{id}/reviews", get(product_reviews))
        .route("/api/v1/products/{id}/ratings", get(product_ratings))
        .with_state(shared);
    signed(router, NAME)
}

async fn index() -> Response {
    html(page::index())
}

async fn product_page(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let user = User::of(&headers);
    let outgoing = outgoing(&headers);
    let start = Instant::now();
    let (details, reviews) =
        tokio::join!(shared.details(0, &outgoing), shared.reviews(0, &outgoing));
    let took = start.elapsed();
    html(page::product(&View {
        user: user.as_ref().map(User::name),
        request_id: headers.get("x-request-id").and_then(|id| id.to_str().ok()),
        caller: caller(&headers),
        details,
        reviews,
        took,
    }))
}

async fn login(Form(SignIn { username }): Form<SignIn>) -> Response {
    let cookie = User::named(&username).and_then(|user| user.cookie().ok());
    back_to_the_page(cookie.unwrap_or(session::SIGNED_OUT))
}

async fn logout() -> Response {
    back_to_the_page(session::SIGNED_OUT)
}

/// Always this page, never the referrer: that would let any site choose where a sign-in ends.
fn back_to_the_page(cookie: HeaderValue) -> Response {
    let headers = [
        (LOCATION, HeaderValue::from_static("/productpage")),
        (SET_COOKIE, cookie),
    ];
    (StatusCode::SEE_OTHER, AppendHeaders(headers)).into_response()
}

async fn products() -> Response {
    let products = [Product {
        id: 0,
        title: page::TITLE,
        description_html: page::SUMMARY,
    }];
    answer(StatusCode::OK, &products)
}

async fn product_details(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    match product_id(&id) {
        Ok(id) => shared.details(id, &outgoing(&headers)).await.into_json(),
        Err(refusal) => *refusal,
    }
}

async fn product_reviews(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    match product_id(&id) {
        Ok(id) => shared.reviews(id, &outgoing(&headers)).await.into_json(),
        Err(refusal) => *refusal,
    }
}

async fn product_ratings(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    match product_id(&id) {
        Ok(id) => shared.ratings(id, &outgoing(&headers)).await.into_json(),
        Err(refusal) => *refusal,
    }
}

/// The headers to call other services with: those of the request, and who is signed in.
fn outgoing(headers: &HeaderMap) -> HeaderMap {
    let mut outgoing = propagated(headers);
    if let Some(user) = User::of(headers).and_then(|user| user.header().ok()) {
        outgoing.insert(END_USER, user);
    }
    outgoing
}

fn html(page: String) -> Response {
    let headers = [
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, Html(page)).into_response()
}

// === impl Shared ===

impl Shared {
    async fn details(&self, id: u32, headers: &HeaderMap) -> Part<Details> {
        let path = format!("/details/{id}");
        let apology = "Sorry, product details are currently unavailable for this book.";
        self.ask(&self.details, &path, headers, 1, apology).await
    }

    async fn reviews(&self, id: u32, headers: &HeaderMap) -> Part<Reviews> {
        let path = format!("/reviews/{id}");
        let apology = "Sorry, product reviews are currently unavailable for this book.";
        self.ask(&self.reviews, &path, headers, REVIEWS_ATTEMPTS, apology)
            .await
    }

    async fn ratings(&self, id: u32, headers: &HeaderMap) -> Part<Ratings> {
        let path = format!("/ratings/{id}");
        let apology = "Sorry, product ratings are currently unavailable for this book.";
        self.ask(&self.ratings, &path, headers, 1, apology).await
    }

    /// Asks until there is a value, or `attempts` calls have been made.
    async fn ask<T: DeserializeOwned>(
        &self,
        authority: &Authority,
        path: &str,
        headers: &HeaderMap,
        attempts: usize,
        apology: &'static str,
    ) -> Part<T> {
        let mut calls = Vec::with_capacity(attempts);
        let mut value = None;
        while value.is_none() && calls.len() < attempts {
            let call = self.client.get(authority, path, headers, PATIENCE).await;
            value = call.value();
            calls.push(call);
        }
        Part {
            value: value.ok_or(apology),
            calls,
        }
    }
}

// === impl Part ===

impl<T: Serialize> Part<T> {
    /// The value, or the apology with the status of the last call; 500 if it had none, as in the
    /// sample.
    fn into_json(self) -> Response {
        let apology = match self.value {
            Ok(value) => return answer(StatusCode::OK, &value),
            Err(apology) => apology,
        };
        let status = self
            .calls
            .last()
            .and_then(Call::status)
            .filter(|status| *status != StatusCode::OK)
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        answer(status, &json!({ "error": apology }))
    }
}

#[cfg(test)]
mod tests;
