//! Fakes, probes and the contract that every layer of the toolkit keeps. For tests only.
//!
//! * [`Probe`] is an inner service that fails the test when it is called without having been
//!   ready, counts calls and futures that were dropped, and answers what it is told to.
//! * [`contract::check`] runs a layer against what Tower and this workspace expect of it.
//! * [`text`], [`empty`] and [`read`] make and read boxed bodies; [`fixture`] makes snapshots and
//!   requests that have met a route.

#![forbid(unsafe_code)]

mod body;
pub mod contract;
pub mod fixture;
mod probe;

pub use body::{BoxedBody, chunks, empty, read, read_all, text};
pub use probe::{Answers, Probe};
