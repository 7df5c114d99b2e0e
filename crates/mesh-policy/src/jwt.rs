//! Tokens that callers bring (RFC 7519): which are valid, and what they say.
//!
//! ```text
//!  Authn ──ready──► Plan, keys ──┐
//!  head, time ───────────────────┴─ decide ──► JwtStatus, claims, headers
//! ```
//!
//! What is asked is a [`mesh_core::model::Authn`]; rules, texts and the order of everything are those
//! of Envoy's filter `envoy.filters.http.jwt_authn`. [`step`] does to a request what follows,
//! [`JwtLayer`] stands before a service. Keys are used for algorithms of their own kind only, RSA
//! keys have 2048 bits at least, sets have [`MAX_JWKS`] bytes and [`MAX_KEYS`] keys at most, and
//! X.509 certificates in place of keys are not read.

mod admit;
mod base64;
mod decide;
mod head;
mod json;
mod keys;
mod layer;
mod locate;
mod query;
mod remote;
mod status;
mod token;

pub use admit::{Keys, Now, Passed, Step, explain, step, step_on};
pub use decide::Look;
pub use keys::{KeySet, MAX_JWKS, MAX_KEYS};
pub use layer::{Authenticate, JwtLayer, ResponseFuture};
pub use remote::{Fetch, Fetched};
pub use status::{JwtStatus, TextClaim, TimeClaim};
pub use token::{Algorithm, Token};

#[cfg(test)]
mod tests;
