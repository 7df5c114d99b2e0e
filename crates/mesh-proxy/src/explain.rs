//! Why a request goes where it goes, as JSON: for a configuration that nobody serves yet, and for
//! the one that a proxy has in force.
//!
//! Nothing here decides anything. The listener's chain is chosen by the code that chooses it for
//! connections, and the request runs through the layers that serve traffic, from admission to
//! header edits, with a recorder in place of the network (`dry.rs`); which hosts may be chosen is
//! read off the lists that balancers choose from. What depends on chance or on the moment (faults,
//! rate limits, weights, mirrors) is not drawn but listed.
//!
//! `docs/guide/explain.md` describes the answer, field by field.
//!
//! ```
//! use mesh_core::model::{Cluster, HttpManager, Listener, RouteTable, Rule, SnapshotBuilder};
//! use mesh_core::model::VirtualHost;
//! use mesh_proxy::explain::{Question, explain};
//!
//! let mut builder = SnapshotBuilder::new();
//! let address = ([127, 0, 0, 1], 15001).into();
//! builder.listener(Listener::http("out", address, HttpManager::new("out", "http")));
//! builder.cluster(Cluster::new("reviews-v1"));
//! builder.routes(RouteTable::new("http").host(
//!     VirtualHost::new("reviews", ["reviews:9080"]).rule(Rule::prefix_to("/", "reviews-v1")),
//! ));
//! let (snapshot, _) = builder.build()?;
//!
//! let question = Question::parse("GET http://reviews:9080/x", ["end-user: jason"])?;
//! let answer = explain(&snapshot, &question)?;
//! assert!(answer.contains(r#""cluster":"reviews-v1""#), "{answer}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod authn;
mod authz;
mod bound;
mod clusters;
mod dry;
mod listener;
mod place;
mod policies;
mod question;
mod report;
mod served;
mod token;

pub(crate) use served::{Explainer, Served};

pub use policies::POLICIES;
pub use question::{BadQuestion, Question};
pub use token::{BadToken, Token};

use mesh_core::model::Snapshot;
use std::sync::Arc;

/// What becomes of a request, with every decision on the way, as JSON on one line.
///
/// Nothing is counted and nothing is sent. Hosts are judged as they are known in this process: of
/// a snapshot that nobody serves none is ejected.
///
/// # Errors
/// If the question names a listener that does not exist.
pub fn explain(snapshot: &Arc<Snapshot>, question: &Question) -> Result<String, BadQuestion> {
    report::of_question(snapshot, question, bound::FULL).map(|answer| answer.to_string())
}
