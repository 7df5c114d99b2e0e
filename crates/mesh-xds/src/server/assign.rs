//! Who decides what a client sees.

use super::View;
use crate::Node;
use mesh_core::Feed;
use mesh_core::Name;

/// Decides what each client sees.
///
/// A closure is one:
///
/// ```
/// use mesh_core::Feed;
/// use mesh_xds::Node;
/// use mesh_xds::server::{Refused, ResourceSet, Server, View};
///
/// let set = ResourceSet::new();
/// let shared = set.clone();
/// let server = Server::builder(move |node: &Node| match node.id() {
///     "" => Err(Refused::unauthenticated("say who you are: node.id is empty")),
///     _ => Ok(Feed::fixed(View::of([shared.clone()]))),
/// })
/// .build();
/// # drop(server);
/// ```
pub trait Assign: Send + Sync + 'static {
    /// The view of a client that opens a stream. Called once for each stream, with the node of its
    /// first request; it must not block.
    ///
    /// The view may be replaced while the stream lives, by publishing another one into the feed:
    /// the client is sent the difference. [`Feed::fixed`] is a view that stays. Where a node has
    /// several streams (no ADS), give all of them feeds of the same publisher, or fixed views of
    /// the same sets.
    ///
    /// # Errors
    /// The stream is closed with what is returned.
    fn assign(&self, node: &Node) -> Result<Feed<View>, Refused>;

    /// A stream for which [`Assign::assign`] returned a view has ended.
    fn released(&self, node: &Node) {
        let _ = node;
    }
}

/// Why a stream was closed: a gRPC status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    code: i32,
    message: Name,
}

// === impl Assign ===

impl<F> Assign for F
where
    F: Fn(&Node) -> Result<Feed<View>, Refused> + Send + Sync + 'static,
{
    fn assign(&self, node: &Node) -> Result<Feed<View>, Refused> {
        self(node)
    }
}

// === impl Refused ===

impl Refused {
    /// The request itself is wrong (`INVALID_ARGUMENT`).
    pub fn invalid(message: impl Into<Name>) -> Self {
        Self::with_code(3, message)
    }

    /// The client is unknown here (`NOT_FOUND`).
    pub fn not_found(message: impl Into<Name>) -> Self {
        Self::with_code(5, message)
    }

    /// The client may not have this (`PERMISSION_DENIED`).
    pub fn denied(message: impl Into<Name>) -> Self {
        Self::with_code(7, message)
    }

    /// A bound is reached (`RESOURCE_EXHAUSTED`).
    pub fn exhausted(message: impl Into<Name>) -> Self {
        Self::with_code(8, message)
    }

    /// The client should come back later (`UNAVAILABLE`).
    pub fn unavailable(message: impl Into<Name>) -> Self {
        Self::with_code(14, message)
    }

    /// The client does not say who it is (`UNAUTHENTICATED`).
    pub fn unauthenticated(message: impl Into<Name>) -> Self {
        Self::with_code(16, message)
    }

    /// The gRPC status code.
    pub fn code(&self) -> i32 {
        self.code
    }

    /// What is wrong and what to do.
    pub fn message(&self) -> &str {
        &self.message
    }

    fn with_code(code: i32, message: impl Into<Name>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
