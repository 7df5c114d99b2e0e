//! Chooses an endpoint for each request.
//!
//! ```text
//!  endpoints ──► ClusterHosts ──► HostSet ──► Picker ──► Host ──► its service
//!  (a feed)      one per cluster  immutable,  one per     │       made by MakeEndpoint,
//!                in the process   tiers and   worker      │       one per worker
//!                     ▲           weights                 │
//!                     └───── Ejector ◄──── outcome ◄──────┘
//! ```
//!
//! * [`Dispatch`] sends a request to the cluster that its route chose; [`Balance`] is one cluster
//!   as a service, for any HTTP client.
//! * [`Chooser`] does the same for connections that are passed on as they are.
//! * [`ClusterHosts`] is what the process knows of one cluster's [`Host`]s. It follows the
//!   cluster's endpoints and survives changes of configuration; [`ClusterHosts::view`] shows it, and
//!   [`ClusterHosts::standings`] says who may be chosen and why the others may not.
//! * A [`Picker`] chooses from a [`HostSet`]: round robin, least request, random, or by the
//!   request's hash, within the priority that [`tier`] gives the request to; within a subset, and by
//!   locality, where the cluster has those.
//! * Where a cluster says so, what endpoints report of their load is what they weigh, and requests go to
//!   an endpoint that they name, or that their session is kept at.
//! * Where a cluster says so, hosts weigh what follows from the load that they report, and requests go
//!   to a host that they name, or that their session is kept at, past balancing.
//! * An [`Ejector`] takes hosts that fail out of balancing for a time.
//!
//! * [`health`] is what active health checks make of a host; whoever asks it reports to
//!   [`ClusterHosts::checked`].

#![forbid(unsafe_code)]

pub mod balance;
pub mod cluster;
pub mod dispatch;
pub mod explain;
mod hash;
pub mod health;
pub mod host;
pub mod hosts;
mod labels;
pub mod make;
pub mod outlier;
pub mod pick;
mod report;
mod slow;
pub mod tier;
pub mod view;
mod words;

pub use balance::Balance;
pub use cluster::ClusterHosts;
pub use dispatch::{Active, Answer, Chooser, Chosen, Dispatch, Engaged, ResponseFuture, Zone};
pub use explain::{PriorityView, Standing, Standings, Verdict};
pub use host::{Host, HostConnection, HostCounts, HostSeat, Lapse};
pub use hosts::HostSet;
pub use make::MakeEndpoint;
pub use outlier::{Cause, Ejected, EjectionRates, EjectionRecord, Ejector, Event, Outcome};
pub use pick::{Ask, Avoid, Near, Pick, Picker};
pub use view::HostView;
