//! A name server for the applications beside a proxy: what the mesh knows it answers itself, with
//! the addresses that the proxy's listeners know, and everything else it passes on to the name
//! servers of `resolv.conf`. What Istio's agent does at 15053.
//!
//! * [`Names`] is the mesh's table as the node's applications spell it: short names of Kubernetes
//!   services, wildcards, and names with the first search domain behind them, which are answered
//!   with a CNAME to save the resolver the rest of its search.
//! * [`answer`] decides, without a socket: an answer, or that somebody else is to be asked.
//! * [`Server`] is a socket for UDP and one for TCP. It works while [`Server::run`] is polled.
//!
//! A name that the table has is never asked for elsewhere: it has addresses of one family, and no
//! error and no addresses of the other. Other types of records are passed on, whatever the name.
//! Nothing is kept of what name servers said: their clients do that.

mod answer;
mod driver;
mod names;
mod resolv;
mod statistics;
mod upstream;
mod wire;

pub use answer::{Step, answer};
pub use driver::Server;
pub use names::{Names, Place};
pub use resolv::ResolvConf;
pub use statistics::{BUCKETS, Counts, Statistics};

#[cfg(test)]
mod tests;
