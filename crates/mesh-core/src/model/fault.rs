//! Delays, aborts and slow answers put in on purpose.

use super::{Fraction, HeaderMatch};
use crate::{Name, Origin};
use http::StatusCode;
use std::num::NonZeroU64;
use std::time::Duration;

/// A delay, an abort or a slow answer put in on purpose (Envoy `HTTPFault`, Istio `HTTPFaultInjection`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// Where this was configured.
    pub origin: Origin,
    /// Wait before going on.
    pub delay: Option<FaultDelay>,
    /// Answer instead of going on. Drawn independently of the delay, and after it.
    pub abort: Option<FaultAbort>,
    /// Pass the answer on slowly. Drawn independently of both.
    pub slow: Option<FaultSlow>,
    /// So many requests of a listener may have a fault at a time; for others there is none. A delay
    /// counts until it is over, a slow answer until the request is. Default no limit.
    pub max_active: Option<u32>,
    /// Only for requests to this cluster. Default any: empty.
    pub upstream: Name,
    /// Only for requests like this; all of it has to hold.
    pub headers: Vec<HeaderMatch>,
    /// Only for callers that say in `x-envoy-downstream-service-node` that they are one of these.
    /// Default any: empty.
    pub nodes: Vec<Name>,
}

/// A delay for a share of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FaultDelay {
    /// How long to wait.
    pub by: DelayBy,
    /// For which share.
    pub share: Fraction,
}

/// What says how long a delay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DelayBy {
    /// It is known.
    Fixed(Duration),
    /// The request, in `x-envoy-fault-delay-request`, in milliseconds; without it there is no delay.
    /// `x-envoy-fault-delay-request-percentage` makes the share smaller: one of it is this much.
    Header(Fraction),
}

/// An abort for a share of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FaultAbort {
    /// What to answer.
    pub with: AbortWith,
    /// For which share.
    pub share: Fraction,
}

/// A slow answer for a share of requests (Envoy `FaultRateLimit`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FaultSlow {
    /// How slow.
    pub by: SlowBy,
    /// For which share.
    pub share: Fraction,
}

/// What says how slow an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SlowBy {
    /// So many KiB (1,024 bytes) a second.
    Fixed(NonZeroU64),
    /// The request, in `x-envoy-fault-throughput-response`, in KiB a second; without it, and with 0, the
    /// answer is not slow. `x-envoy-fault-throughput-response-percentage` makes the share smaller: one
    /// of it is this much.
    Header(Fraction),
}

/// What an aborted request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AbortWith {
    /// An HTTP status.
    Http(StatusCode),
    /// A gRPC status code.
    Grpc(u32),
    /// What the request asks for: an HTTP status from 200 to 599 in `x-envoy-fault-abort-request`, or
    /// a gRPC status code in `x-envoy-fault-abort-grpc-request`; without them there is no abort.
    /// `x-envoy-fault-abort-request-percentage` makes the share smaller: one of it is this much.
    Header(Fraction),
}
