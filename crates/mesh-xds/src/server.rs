//! The server's side of xDS.
//!
//! ```text
//!  ResourceSet ─┐                     Machine (one stream: what to say next)
//!  ResourceSet ─┼─► View ─► Feed ─►      │
//!  ResourceSet ─┘   what one             ▼
//!                   client may see    Server (gRPC: streams, status, load reports, health)
//! ```
//!
//! * A [`ResourceSet`] holds encoded resources and a log of what changed. Clients that see the
//!   same thing share the same set, so a change costs one entry however many read it; each stream
//!   looks only at what changed since it last looked. [`ResourceSet::apply`],
//!   [`ResourceSet::replace`] and [`ResourceSet::clear`] with [`crate::Encoded::new`] are also all
//!   that a conformance harness needs.
//! * A [`Machine`] is one stream without its input and output, in either protocol and for all types
//!   or one; the rules that it keeps are listed there.
//! * A [`Server`] is the gRPC services over it. [`Assign`] says what each client sees, an
//!   [`Observer`] is told what happens, [`Server::connections`] tells how far everybody is.
//!
//! Not covered: unary (`Fetch`) and REST discovery, which are refused; list collections of `xdstp://`
//! names (`resource_locators`), which are refused, too; debouncing,
//! which is up to whoever fills the sets. TLS needs the feature `tls` (`Server::serve_tls`).
//!
//! ```no_run
//! use mesh_core::Feed;
//! use mesh_xds::server::{Changes, Refused, ResourceSet, Server, View};
//! use mesh_xds::{Encoded, Node, TypeUrl};
//!
//! # async fn serve() -> std::io::Result<()> {
//! let set = ResourceSet::new();
//! let everybody = set.clone();
//! let view = move |_: &Node| Ok::<_, Refused>(Feed::fixed(View::of([everybody.clone()])));
//! let server = Server::builder(view).build();
//! set.apply(Changes::new().set(TypeUrl::Cluster, Encoded::new("a", &b"its bytes"[..])));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:15010").await?;
//! server.serve(listener, std::future::pending()).await
//! # }
//! ```

mod assign;
mod body;
mod certificates;
mod csds;
mod event;
mod handle;
mod limits;
mod loads;
mod machine;
mod mark;
mod registry;
mod requests;
mod resources;
mod response;
mod routes;
mod serve;
mod status;
mod stream;

pub use assign::{Assign, Refused};
pub use certificates::{CertificateCall, Certified, Certify};
pub use event::{Event, Observer};
pub use handle::{Server, ServerBuilder};
pub use limits::{Limits, Timing};
pub use loads::{ClusterLoad, LoadReport, LocalityLoad};
pub use machine::{Machine, Options};
pub use resources::{Changes, Position, ResourceSet, Since, View};
pub use response::{Item, Response};
pub use routes::{Body, ResponseFuture, Routes};
pub use status::{
    Client, ConnectionStatus, Nacked, ResourceState, ResourceStatus, Scope, Sent, StreamId, Sync,
    TypeStatus, Variant,
};
