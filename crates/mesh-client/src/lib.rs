//! The mesh inside your process: routing, balancing, retries, timeouts, limits and ejection
//! around pooled HTTP/1.1 and HTTP/2 connections, configured by a mesh snapshot.
//!
//! [`MeshClient`] is an ordinary `tower::Service<http::Request<_>>`: give it a
//! [`Feed`](mesh_core::Feed) of snapshots (hand-built, from Istio YAML, later from xDS) and send it
//! requests. The same stack, without the client around it, is what mesh-proxy serves.
//!
//! # TLS to endpoints
//!
//! A cluster with [`tls`](mesh_core::model::Cluster::tls) is spoken to in TLS, within its connect
//! timeout; HTTP/2 or HTTP/1.1 is what its protocol says, or what ALPN agrees on
//! ([`UpstreamProtocol::Alpn`](mesh_core::model::UpstreamProtocol)). Keys, certificates and roots
//! are not in the configuration but named by it. Give them with the snapshot, publish them later,
//! or let `mesh_identity::Files` read those whose names say where they lie. Until a secret that is
//! needed is there, connections fail; when it changes, new connections use the new one.
//!
//! ```
//! use mesh_core::model::*;
//! use mesh_core::Publisher;
//! use std::sync::Arc;
//!
//! let given = SecretRef::local("our-roots");
//! let mut validation = Validation::default();
//! validation.roots = Some(given.clone());
//! let mut tls = ClientTls::default();
//! tls.validation = Some(validation);
//! tls.auto_sni = true;
//! tls.auto_san = true;
//! // Our own certificate, if we are asked for one.
//! let files = SecretRef::local("file-cert:/etc/certs/cert.pem~/etc/certs/key.pem");
//! tls.certificates = vec![files];
//! let mut reviews = Cluster::new("reviews");
//! reviews.tls = Some(Arc::new(tls));
//!
//! let mut builder = SnapshotBuilder::new();
//! builder.cluster(reviews);
//! builder.routes(RouteTable::new("http"));
//! # let pem = "";
//! builder.secret(given.clone(), Arc::new(Secret::roots(pem)));
//! let (snapshot, _) = builder.build()?;
//! let publisher = Publisher::from_arc(snapshot.clone());
//! let client = mesh_client::MeshClient::builder(publisher.feed(), "http").build();
//!
//! // Those in files: run it on a task of your own.
//! let files = mesh_identity::Files::new(publisher.feed());
//! let _watching = files.run();
//!
//! // Another authority from now on.
//! let live = snapshot.secret(&given).expect("the cluster names it");
//! live.publish(Some(Arc::new(Secret::roots("…"))));
//! # drop(client);
//! # Ok::<(), mesh_core::Invalid>(())
//! ```
//!
//! # Active health checks
//!
//! Clusters may want their endpoints asked whether they are well. That is what
//! [`health::HealthChecks`] does; it runs once in a process, whoever else has a client in it.
//!
//! # Tasks
//!
//! Connections are driven by tasks on the tokio runtime that requests are made on; dropping the
//! client ends them. Futures are `Send`; for the best locality use one client per worker thread.

#![forbid(unsafe_code)]

pub mod authn;
mod body;
mod client;
pub mod guard;
pub mod health;
mod jwks;
mod on_route;
mod placed;
pub mod proxy_protocol;
mod slot;
mod stack;
pub mod tcp;
mod upstream;

pub use body::Body;
pub use client::{Builder, MeshClient, ResponseFuture};
pub use guard::{Authorizer, Authorizers};
pub use placed::{Placed, PlacedBody, PlacedFuture, PlacedLayer};
pub use slot::{Boxed, BoxedFuture, Slot, SlotBody, SlotFuture, Slotted};
pub use stack::{Outbound, Parts, Spawn};
pub use upstream::{Endpoint, Upstreams};
