//! What is known of Envoy's messages without decoding them: their fields and their rules.
//!
//! Envoy's protobuf definitions say what each field may hold (`validate.rules`), and Envoy refuses
//! what breaks them before it looks any further. [`check`] does the same over encoded bytes;
//! [`canonical`] puts the entries of maps in order, which protobuf leaves open; [`redact`] takes out
//! what dumps do not show.
//!
//! All of them walk the bytes by a table that is compiled in as one block of read-only data, made from
//! envoy-types by `cargo xtask schema`. Nothing is built or allocated for it at run time.
//!
//! Not covered: what Envoy's code checks beyond these rules, and extensions that the table does not
//! know; the readers refuse those.
//!
//! ```
//! use mesh_xds::schema;
//!
//! // An empty message: a cluster without a name.
//! let error = schema::check("envoy.config.cluster.v3.Cluster", &[]).unwrap_err();
//! assert_eq!(error.to_string(), "name: has to have at least 1 character");
//! ```

mod canonical;
mod check;
pub(crate) mod occurrences;
mod pattern;
mod redact;
mod rules;
pub(crate) mod table;
pub(crate) mod wire;

pub use canonical::canonical;
pub use check::check;
pub use redact::redact;
#[cfg(feature = "json")]
pub(crate) use redact::redacted;

/// How deep messages may be nested, as in prost and in Envoy's protobuf library.
pub(crate) const MAX_DEPTH: usize = 100;

/// What a type's URL names: the part after the last slash.
pub(crate) fn name_in_url(url: &str) -> &str {
    url.rsplit_once('/').map_or(url, |(_, name)| name)
}
