//! The client of a control plane.
//!
//! * [`Client`] speaks to a control plane over gRPC, puts snapshots together
//!   ([`crate::assemble`]) and publishes them.
//! * [`Machine`] is the protocol alone, without I/O: both variants, acknowledgement in two phases.
//!
//! While no server can be reached, the last snapshot stays; it is never taken down.
//!
//! ```no_run
//! use mesh_xds::Node;
//! use mesh_xds::client::Client;
//!
//! # async fn example() -> Result<(), mesh_core::Invalid> {
//! let client = Client::builder(["http://127.0.0.1:15010"])
//!     .node(Node::new("sidecar~10.0.0.1~reviews-v1.shop~shop.svc.cluster.local"))
//!     .build()?;
//! let mut snapshots = client.snapshots();
//! let watch = async move {
//!     while let Ok(snapshot) = snapshots.changed().await {
//!         println!("{} clusters", snapshot.clusters().len());
//!     }
//! };
//! // Nothing happens unless this future is polled, and all of it ends with it.
//! tokio::join!(watch, client.run(std::future::pending()));
//! # Ok(())
//! # }
//! ```
//!
//! Only `http://` servers are reached; TLS to control planes is refused by name.

mod backoff;
mod demand;
mod driver;
mod handle;
mod machine;
mod secrets;
mod status;

pub use demand::DemandLimits;
pub use driver::{Builder, Client, Prepare, Wanted};
pub use handle::{FileReference, Gone, Handle, ServiceReference};
pub use machine::{
    Config, Decode, Event, KindStatus, Limits, Machine, Request, ResourceState, ResourceStatus,
    Response, Update, Variant,
};
pub use secrets::SecretClient;
pub use status::Status;
