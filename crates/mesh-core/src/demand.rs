//! Asking for parts of the configuration that are not there yet: a virtual host or a cluster that a
//! request wants.
//!
//! The data path knows what is missing, whoever provides snapshots knows how to get it. A
//! [`Demand`] connects them; it says nothing of where parts come from. What was asked for and came
//! is in force when the answer comes: the next snapshot taken from the feed has it.

use crate::Name;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// A part of the configuration that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Missing {
    /// The virtual host for an authority, port included if it has one, in lower case.
    VirtualHost {
        /// The name by which the provider knows the table
        /// ([`HostsOnDemand::table`](crate::model::HostsOnDemand::table)).
        table: Name,
        /// The authority.
        host: Name,
    },
    /// A cluster.
    Cluster(Name),
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// It is in force.
    Came,
    /// It does not exist, or cannot be used.
    Absent,
    /// Nobody was asked: too many questions are open.
    Refused,
}

/// The answer to a question. Dropped, it is no longer waited for. It ends only when there is an
/// answer: who asks sets the limit.
pub type Answered = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Gets missing parts of the configuration.
pub trait Provide: fmt::Debug + Send + Sync {
    /// Asks for a part. Several that ask for the same part share one question.
    fn ask(&self, missing: Missing) -> Answered;
}

/// A handle on whoever gets missing parts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Demand(Arc<dyn Provide>);

// === impl Demand ===

impl Demand {
    /// A handle on this provider.
    pub fn new(provider: impl Provide + 'static) -> Self {
        Self(Arc::new(provider))
    }

    /// Asks for a part.
    pub fn ask(&self, missing: Missing) -> Answered {
        self.0.ask(missing)
    }
}
