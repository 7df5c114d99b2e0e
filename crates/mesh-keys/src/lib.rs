//! Keys of those who issue tokens, got from where they are and kept fresh.
//!
//! A [`Fetcher`] asks for the sets that its [`Keys`] were told to want, again and again, and
//! publishes what came as a [`KeyBook`](mesh_core::model::KeyBook). A set that cannot be got, or in
//! which there is no key that could be used, changes nothing: the last good one stays. Where there
//! never was one there is none, and whoever compiles has every token of that issuer refused.
//!
//! It is what istiod does for Envoys (its `jwks_resolver`): every 20 minutes, and soon again after
//! a failure. A set is at a URI, or where the OpenID configuration of an issuer says
//! (`ISSUER/.well-known/openid-configuration`, OpenID Connect Discovery 1.0 §4); that the
//! configuration names the same issuer is not asked, as by istiod.
//!
//! Limits: [`MOST_SOURCES`] sets, [`MOST_AT_ONCE`] of them asked for at a time, each of
//! [`MAX_JWKS`](mesh_policy::jwt::MAX_JWKS) bytes and [`MOST_REDIRECTS`] redirects at most and within
//! the time that it is wanted in. HTTP/1.1 only. How long an answer may be kept (`cache-control`) is
//! not looked at.
//!
//! ```
//! use mesh_core::model::{KeySource, WantedKeys};
//! use mesh_keys::Fetcher;
//! use std::time::Duration;
//!
//! let (keys, fetcher) = Fetcher::builder().build();
//! let source = KeySource::Uri("https://keys.example/jwks".into());
//! keys.want(WantedKeys::from([(source.clone(), Duration::from_secs(5))]));
//! // Nothing is asked before somebody runs it: `tokio::spawn(fetcher.run())`.
//! drop(fetcher);
//! assert!(keys.load().get(&source).is_none());
//! ```

#![forbid(unsafe_code)]

mod answer;
mod fetcher;
mod plan;
mod web;

pub use fetcher::{Builder, Fetcher, Fetches, Keys};
pub use plan::{MOST_AT_ONCE, MOST_SOURCES};
pub use web::MOST_REDIRECTS;

// Its examples are compiled and run as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
