//! The server of xDS, line by line of what the protocol demands.
#![cfg(feature = "server")]
#![forbid(unsafe_code)]

#[path = "server/bounds.rs"]
mod bounds;
#[path = "server/delta.rs"]
mod delta;
#[path = "server/gate.rs"]
mod gate;
#[path = "server/hosts.rs"]
mod hosts;
#[path = "server/order.rs"]
mod order;
#[path = "server/property.rs"]
mod property;
#[path = "server/report.rs"]
mod report;
#[path = "server/service.rs"]
mod service;
#[path = "server/sotw.rs"]
mod sotw;
#[path = "server/support.rs"]
mod support;
#[path = "server/ttl.rs"]
mod ttl;
#[path = "server/view.rs"]
mod view;
#[path = "server/wildcard.rs"]
mod wildcard;
