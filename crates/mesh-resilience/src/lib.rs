//! Time limits, retries and limits on load, as Tower layers for http services.
//!
//! Each layer works alone on any `Service<http::Request<B>, Response = http::Response<R>>`, with a
//! policy that is fixed when it is built; or, behind a router that put an
//! [`Exchange`](mesh_core::Exchange) on the request, with the policy of the matched rule. A layer
//! that finds no policy steps aside at the price of a look into the request's extensions.
//!
//! # The order
//!
//! Outermost first, and why:
//!
//! | Layer | |
//! |---|---|
//! | [`PaceLayer`] | slows answers down on purpose, those of our own too |
//! | [`ArrivalLayer`] | right below what makes responses of errors: one limit for the arrival of a request |
//! | [`OverloadLayer`] | refuses before any work is done |
//! | [`RateLayer`] | as the first filter of the listeners that we write for Envoys |
//! | [`FaultLayer`] | what is put in on purpose is neither timed nor repaired by what is below |
//! | [`IdleLayer`] | sees the stream that the caller sees |
//! | [`DeadlineLayer`] | one limit for all attempts and the whole response |
//! | [`RetryLayer`] | each attempt passes through everything below anew |
//! | [`BreakerLayer`] | counts attempts, which are what burdens an upstream |
//! | [`TimeoutLayer`] | one limit for each attempt |
//! | [`TryIdleLayer`] | another, without progress |
//!
//! All of them fail with [`mesh_core::Error`]; whoever makes responses turns its
//! [`Failure`](mesh_core::Failure) into one. None of them reserves anything in `poll_ready`, none
//! spawns, and all of their decisions are functions of data, the time and a random word.
//!
//! Timers are tokio's: a layer that has something to wait for panics outside a tokio runtime with
//! time enabled.

#![forbid(unsafe_code)]

mod count;
mod like;
mod limits;
mod time;
mod watched;

pub mod arrival;
pub mod breaker;
pub mod deadline;
pub mod fault;
pub mod idle;
pub mod map;
pub mod overload;
pub mod pace;
pub mod rate;
pub mod retry;
pub mod timeout;

pub use arrival::{Arrival, ArrivalLayer};
pub use breaker::{Breaker, BreakerLayer};
pub use deadline::{Deadline, DeadlineBody, DeadlineLayer};
pub use fault::{Fault, FaultLayer};
pub use idle::{Idle, IdleBody, IdleLayer, TryIdle, TryIdleBody, TryIdleLayer};
pub use map::{MapRequestBody, MapRequestBodyLayer};
pub use overload::{Overload, OverloadLayer, Shedding};
pub use pace::{Pace, PaceLayer, PacedBody};
pub use rate::{Rate, RateLayer};
pub use retry::{Budgets, ReplayBody, Retry, RetryLayer};
pub use timeout::{Timeout, TimeoutLayer};
