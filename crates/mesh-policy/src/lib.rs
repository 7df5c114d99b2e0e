//! Who may do what: rules that judge requests and connections.
//!
//! ```text
//!  Authz ──compile──► Compiled ──┐
//!  Exchange, Caller ──► Facts ───┴─ decide ──► Verdict: allowed? by which policy?
//! ```
//!
//! [`decide`] is a pure function. [`Judges`] are several sets of rules in order, with what they
//! count; [`AuthzLayer`] puts them before a service. Rules, and what a match of each kind means, are
//! those of Envoy's filters `envoy.filters.http.rbac` and `envoy.filters.network.rbac`
//! (`mesh_core::model::Authz`).
//!
//! Tokens of callers are validated with the feature `jwt`; without claims no condition on claims
//! holds.

#![forbid(unsafe_code)]

mod decide;
mod facts;
mod holds;
mod index;
mod judges;
mod on_route;

pub mod external;
#[cfg(feature = "jwt")]
pub mod jwt;
pub mod layer;
pub mod path;

pub use decide::{Compiled, Verdict, compile, decide};
pub use external::ExtAuthzLayer;
pub use facts::{Facts, RequestFacts};
pub use judges::{Denied, Judged, Judges, Step, explain};
pub use layer::{Authorize, AuthzLayer, admit, judges, step, step_on};
pub use on_route::OnRoute;
