//! Asking for the addresses of a name.

use mesh_core::model::DnsFamily;
use std::future::Future;
use std::net::IpAddr;
use std::time::Duration;

/// Somebody who knows the addresses of names.
pub trait Lookup: Send + Sync {
    /// The addresses of a name.
    ///
    /// # Errors
    /// When nobody could say. That a name has none is an answer without addresses.
    ///
    /// # Cancel safety
    /// The future may be dropped at any time.
    fn lookup(
        &self,
        name: &str,
        family: DnsFamily,
    ) -> impl Future<Output = Result<Answer, LookupError>> + Send;
}

/// The addresses of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// In the order in which they came; empty if the name has none.
    pub addresses: Vec<IpAddr>,
    /// How long they hold, if that is known. Zero is unknown.
    pub ttl: Duration,
}

/// Nobody could say what addresses a name has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct LookupError {
    /// The name.
    pub name: String,
    /// Why not.
    pub reason: String,
}
