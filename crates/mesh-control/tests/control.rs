//! The control plane over sockets: what is sent when what changes.
#![forbid(unsafe_code)]

#[path = "control/again.rs"]
mod again;
#[path = "control/delta.rs"]
mod delta;
#[path = "control/http.rs"]
mod http;
#[path = "control/nack.rs"]
mod nack;
#[path = "control/names.rs"]
mod names;
#[path = "control/proxy.rs"]
mod proxy;
#[path = "control/push.rs"]
mod push;
#[path = "control/secrets.rs"]
mod secrets;
#[path = "control/servers.rs"]
mod servers;
#[path = "control/support.rs"]
mod support;
#[path = "control/zones.rs"]
mod zones;
