//! What the YAML says, kind by kind: checked, typed, and still in Istio's words.
//!
//! Reading is strict where Istio's own API is concerned: a field that is
//! unknown or not supported refuses its object, with file, line, column and
//! path. Kubernetes kinds are read leniently, since most of their fields are
//! none of a mesh's business.
//!
//! Values are checked here and only here: whoever holds one of these types
//! need not ask whether the regular expression compiles or the status exists.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::cursor::{Cursor, read};
use crate::diagnostic::{Diagnostic, Position, Severity};

pub mod authorization_policy;
mod common;
pub mod destination_rule;
#[cfg(test)]
mod documented;
pub mod extension_provider;
pub mod gateway;
pub mod kubernetes;
pub mod mesh_config;
mod object;
pub mod peer_authentication;
pub mod request_authentication;
pub mod service_entry;
pub mod sidecar;
pub mod tls;
pub mod traffic_policy;
pub mod virtual_service;

pub use authorization_policy::AuthorizationPolicy;
pub use common::{Bind, Selector, Visibility, parse_visibility};
pub use destination_rule::DestinationRule;
pub use gateway::Gateway;
pub use mesh_config::MeshConfig;
pub use object::{Kind, Object, Spec};
pub use peer_authentication::{MutualTls, PeerAuthentication};
pub use request_authentication::RequestAuthentication;
pub use service_entry::{ServiceEntry, WorkloadEntry};
pub use sidecar::Sidecar;
pub use virtual_service::VirtualService;

pub(crate) use object::{Decoded, decode, decode_mesh_config};

/// A value and the place it was read from.
#[derive(Clone, Copy, Debug)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands in its object's file.
    pub at: Position,
}

/// What every object says about itself.
#[derive(Clone)]
pub struct Meta {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its namespace; `default` where the file does not say.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// `creationTimestamp` as written; decides between objects that compete.
    pub created: String,
    /// The file it was read from.
    pub file: Arc<str>,
    /// Where it starts in that file.
    pub at: Position,
    /// The text of that file as it was then: findings quote it.
    pub(crate) source: Arc<str>,
    /// A hash of its document and place: objects that differ in it are not the same to a letter.
    pub(crate) print: u64,
    /// Tells this object from every other that was ever read. One that is read again, the same to
    /// a letter, goes on with what it has.
    pub(crate) stamp: u64,
}

// === impl Spanned ===

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    /// Places do not count: a comment line above changes nothing.
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Spanned<T> {}

// === impl Meta ===

impl Meta {
    /// A finding about a place in this object.
    pub(crate) fn finding(
        &self,
        severity: Severity,
        at: Position,
        message: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::at(severity, &self.file, &self.source, at, message).object(self.to_string())
    }

    /// The order in which istiod lets competing objects win: oldest, then by name.
    pub fn seniority(&self) -> (&str, &str, &str) {
        (&self.created, &self.name, &self.namespace)
    }
}

impl PartialEq for Meta {
    /// Places do not count: a comment line above changes nothing.
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.name == other.name
            && self.namespace == other.namespace
            && self.labels == other.labels
            && self.annotations == other.annotations
            && self.created == other.created
    }
}

impl Eq for Meta {}

impl fmt::Debug for Meta {
    /// Leaves the text of the file out: a secret may stand beside the object.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Meta")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("namespace", &self.namespace)
            .field("labels", &self.labels)
            .field("annotations", &self.annotations)
            .field("created", &self.created)
            .field("file", &self.file)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Meta {
    /// Writes `VirtualService reviews.default`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Namespace => write!(f, "{} {}", self.kind, self.name),
            _ => write!(f, "{} {}.{}", self.kind, self.name, self.namespace),
        }
    }
}

/// A list of strings that must not be empty ones.
pub(crate) fn strings(cursor: &Cursor<'_>) -> Option<Vec<String>> {
    cursor.list(read::filled)
}
