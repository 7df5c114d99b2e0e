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
//! Servers in plain text (`http://`) and with TLS (`https://`, with the feature `tls`) are reached:
//! [`Server`]. Several servers stand in for each other as gRFC A71 has it ([`Fallback`]), and
//! structured names (`xdstp://AUTHORITY/…`) are asked for from the servers of their authority
//! ([`Builder::authority`], gRFC A47).

mod backoff;
mod certificates;
mod demand;
mod driver;
mod fallback;
#[cfg(feature = "json")]
mod grpc;
mod handle;
mod health;
mod incoming;
mod machine;
mod remote;
mod secrets;
mod server;
mod status;

pub use certificates::{CertificateError, request_certificate};
pub use demand::DemandLimits;
pub use driver::{Builder, Client, Prepare, Wanted};
pub use fallback::{Fallback, Next};
#[cfg(feature = "json")]
pub use grpc::{FileWatcher, GrpcAuthority, GrpcBootstrap};
pub use handle::{FileReference, Gone, Handle, ServiceReference};
pub use health::{HealthClient, Reported};
pub use machine::{
    Config, Event, KindStatus, Limits, Machine, Request, ResourceState, ResourceStatus, Response,
    Update, Variant,
};
pub use secrets::SecretClient;
pub use server::Server;
pub use status::{AuthorityStatus, Status};
