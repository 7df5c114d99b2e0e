//! The reviews service, in three versions that differ in their stars.
//!
//! | version | calls ratings | stars | waits for ratings |
//! |---------|---------------|-------|-------------------|
//! | v1      | no            | none  | -                 |
//! | v2      | yes           | black | 10 s              |
//! | v3      | yes           | red   | 2.5 s             |
//!
//! The times are those of Istio's sample: with v2, a delay of seven seconds in ratings outlasts
//! `productpage`, which is the bug to find; v3 has it mended and answers without stars in time.

use std::time::Duration;

use axum::{
    Router,
    extract::{Path, State},
    response::Response,
    routing::get,
};
use http::{HeaderMap, StatusCode, uri::Authority};
use serde::{Deserialize, Serialize};

use crate::{
    Services, answer, client::Client, healthy, product_id, propagate::propagated, ratings::Ratings,
    signed,
};

/// The reviewers, and what each wrote.
const TEXTS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "Two sets of twins, one town, and not a soul who stops to ask. I laughed until the abbess \
         had to sort me out as well.",
    ),
    (
        "Reviewer2",
        "Quick, loud and over before supper. Nobody learns much, but the doors slam beautifully.",
    ),
];

/// A version of the reviews service.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ReviewsVersion {
    /// Without stars: ratings is not called.
    V1,
    /// With black stars.
    V2,
    /// With red stars.
    V3,
}

/// What the service answers.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Reviews {
    pub(crate) id: String,
    pub(crate) podname: String,
    pub(crate) clustername: String,
    pub(crate) reviews: Vec<Review>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Review {
    pub(crate) reviewer: String,
    pub(crate) text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rating: Option<Rating>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum Rating {
    Stars { stars: u8, color: Color },
    Unavailable { error: String },
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Color {
    Black,
    Red,
}

#[derive(Clone, Debug)]
struct Shared {
    version: ReviewsVersion,
    ratings: Authority,
    client: Client,
}

/// One version of the reviews service: `GET /reviews/{id}` and `GET /health`.
pub fn reviews(version: ReviewsVersion, services: &Services) -> Router {
    let shared = Shared {
        version,
        ratings: services.ratings.clone(),
        client: Client::of(services),
    };
    let router = Router::new()
        .route("/reviews/{id}", get(of_product))
        .route("/health", get(async || healthy("Reviews")))
        // Says which path came in: a rewrite in the mesh can be seen from outside.
        .fallback(async |uri: http::Uri| {
            (
                StatusCode::NOT_FOUND,
                format!("reviews has nothing at {}\n", uri.path()),
            )
        })
        .with_state(shared);
    signed(router, version.name())
}

async fn of_product(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let id = match product_id(&id) {
        Ok(id) => id,
        Err(refusal) => return *refusal,
    };
    let stars = match shared.version.stars() {
        None => None,
        Some((color, limit)) => {
            let path = format!("/ratings/{id}");
            let headers = propagated(&headers);
            let call = shared.client.get(&shared.ratings, &path, &headers, limit);
            Some((color, call.await.value::<Ratings>()))
        }
    };
    let review = |(reviewer, text): (&str, &str)| Review {
        reviewer: reviewer.to_owned(),
        text: text.to_owned(),
        rating: stars
            .as_ref()
            .map(|(color, ratings)| Rating::of(reviewer, *color, ratings.as_ref())),
    };
    let reviews = Reviews {
        id: id.to_string(),
        podname: shared.version.name().to_owned(),
        clustername: "mesh".to_owned(),
        reviews: TEXTS.map(review).into(),
    };
    answer(StatusCode::OK, &reviews)
}

// === impl ReviewsVersion ===

impl ReviewsVersion {
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "reviews-v1",
            Self::V2 => "reviews-v2",
            Self::V3 => "reviews-v3",
        }
    }

    /// The color of the stars, and how long to wait for them.
    fn stars(self) -> Option<(Color, Duration)> {
        match self {
            Self::V1 => None,
            Self::V2 => Some((Color::Black, Duration::from_secs(10))),
            Self::V3 => Some((Color::Red, Duration::from_millis(2500))),
        }
    }
}

// === impl Rating ===

impl Rating {
    fn of(reviewer: &str, color: Color, ratings: Option<&Ratings>) -> Self {
        match ratings.and_then(|ratings| ratings.ratings.get(reviewer)) {
            Some(&stars) => Self::Stars { stars, color },
            None => Self::Unavailable {
                error: "Ratings service is currently unavailable".to_owned(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
