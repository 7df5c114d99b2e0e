//! Snapshots from resources: what comes into force, when, and what never does.

#[path = "assemble/addresses.rs"]
mod addresses;
#[path = "assemble/filters.rs"]
mod filters;
#[path = "assemble/hosts.rs"]
mod hosts;
#[path = "assemble/order.rs"]
mod order;
#[path = "assemble/references.rs"]
mod references;
#[path = "assemble/reuse.rs"]
mod reuse;
#[path = "assemble/secrets.rs"]
mod secrets;
#[path = "assemble/support.rs"]
mod support;
#[path = "assemble/warming.rs"]
mod warming;
