//! Istio's standard metrics: `istio_requests_total`, `istio_request_duration_milliseconds`,
//! `istio_request_bytes` and `istio_response_bytes`, with Istio's 25 labels.
//!
//! The source's side of a call (outbound listeners and gateways) knows its own workload, the
//! cluster's service and the endpoint's workload. The destination's side (inbound listeners) knows
//! its own workload and service, and its caller from the [metadata header](peer) where there is
//! one. Whatever is not known is `unknown`.
//!
//! The byte histograms hold the bytes of bodies; Istio's own proxies add the heads as they were on
//! the wire. `connection_security_policy` is `mutual_tls` where the caller showed a
//! certificate, and `source_principal` is then its first URI.
//!
//! How many series there are is limited: whoever can make up labels (a caller with a metadata
//! header of its own) could otherwise fill the memory. What finds no room is counted in a series
//! whose labels are all `overflow`, so sums over everything stay right.
//!
//! The series are made and recorded by [`FinishLayer`](crate::FinishLayer) and written by
//! [`Scrape`](crate::expose::Scrape).

mod cache;
mod labels;
pub mod peer;
mod registry;

pub(crate) use cache::{Cache, Seen};
pub(crate) use labels::{Labels, Outcome, Reporter, Spoken};
pub(crate) use registry::{Registry, Series, TcpCount, TcpSeries};
