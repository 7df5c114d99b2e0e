//! HTTP routing as Tower layers.
//!
//! ```text
//!  FollowLayer   what an answer sent elsewhere goes through everything again
//!  ReplyLayer    errors become responses; edits and recorded headers go on local replies
//!  RouteLayer    which rule, which cluster: recorded in the Exchange
//!  CorsLayer     preflights are answered, origins allowed
//!    (faults, rate limits: mesh-resilience)
//!  SessionLayer  requests are kept at an endpoint
//!  EditLayer     header edits both ways, path and authority rewritten
//!  RespondLayer  redirects, fixed responses, clusters that do not exist
//!  HashLayer     what consistent hashing goes by; cookies for it
//!  MirrorLayer   copies
//!  KeepLayer     requests whose answers may send them elsewhere
//!    (timeouts, retries, breakers: mesh-resilience; endpoints: mesh-lb)
//! ```
//!
//! Each layer is an ordinary Tower layer over any `Service<http::Request<B>>` and works alone:
//! `fixed(..)` applies one policy to all requests, `per_route()` the one that
//! [`RouteLayer`] found. A request that met no route costs a `per_route` layer one look-up.
//!
//! Routing itself is pure: [`find`] takes a [`RouteTable`](mesh_core::model::RouteTable), a
//! [`Head`] and a random word, and gives the first rule that matches, as a scan in order would;
//! [`explain`](explain()) tells how. Tables are compiled into tries and maps once, virtual host by
//! virtual host; what did not change between two snapshots is not compiled again.
//!
//! # Example
//!
//! ```
//! use mesh_core::Publisher;
//! use mesh_core::model::{
//!     Action, Cluster, Condition, DirectResponse, RouteTable, Rule, SnapshotBuilder, VirtualHost,
//! };
//! use mesh_route::{CorsLayer, EditLayer, ReplyLayer, RespondLayer, RouteLayer};
//! use tower::{ServiceBuilder, ServiceExt};
//!
//! let mut teapot = DirectResponse::default();
//! teapot.status = http::StatusCode::IM_A_TEAPOT;
//! let host = VirtualHost::new("shop", ["shop.example"])
//!     .rule(Rule::prefix_to("/catalog", "catalog"))
//!     .rule(Rule::new(Condition::default(), Action::Respond(teapot)));
//! let mut builder = SnapshotBuilder::new();
//! builder.routes(RouteTable::new("http").host(host)).cluster(Cluster::new("catalog"));
//! let publisher = Publisher::from_arc(builder.build()?.0);
//!
//! let service = ServiceBuilder::new()
//!     .layer(ReplyLayer::new())
//!     .layer(RouteLayer::new(publisher.feed()).table("http"))
//!     .layer(CorsLayer::per_route())
//!     .layer(EditLayer::per_route())
//!     .layer(RespondLayer::per_route())
//!     .service(axum::Router::new().fallback(|| async { "from upstream" }));
//! # let test = async {
//! for (uri, status) in [
//!     ("http://shop.example/catalog/1", 200),
//!     ("http://shop.example/", 418),
//!     ("http://elsewhere.example/", 404),
//! ] {
//!     let request = http::Request::get(uri).body(axum::body::Body::empty()).unwrap();
//!     assert_eq!(service.clone().oneshot(request).await.unwrap().status(), status);
//! }
//! # };
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

#![forbid(unsafe_code)]

pub mod cors;
pub mod edit;
pub mod explain;
pub mod filter_state;
pub mod follow;
pub mod hash;
pub mod list;
pub mod map_body;
pub mod mirror;
pub mod on_demand;
pub mod reply;
pub mod respond;
pub mod rewrite;
pub mod route;
pub mod session;

mod candidates;
mod cookies;
mod domain;
mod head;
mod header;
mod local;
mod matches;
mod names;
mod path;
mod split;
mod table;
mod template;

pub use cors::CorsLayer;
pub use edit::EditLayer;
pub use explain::{Explanation, explain};
pub use follow::{FollowLayer, KeepLayer};
pub use hash::HashLayer;
pub use head::Head;
pub use map_body::MapRequestBodyLayer;
pub use mirror::MirrorLayer;
pub use on_demand::OnDemandLayer;
pub use reply::ReplyLayer;
pub use respond::RespondLayer;
pub use route::RouteLayer;
pub use session::{SessionBook, SessionLayer};
pub use split::draw;
pub use table::{find, find_host, find_rule, prepare};
