//! What a proxy or a client says about its traffic.
//!
//! ```text
//!              ┌► HttpStat ──────────────► Scrape ─► /stats, JSON, Prometheus
//! FinishLayer ─┼► Istio's metrics ───────►   ▲
//!              └► Format ─► AccessLogWriter  └── ClusterStat, Usage (written elsewhere)
//! ```
//!
//! * [`FinishLayer`] is the outermost layer: it tells of every request how it ended, exactly once.
//! * [`tcp`] does the same for connections that are passed on as they are.
//! * [`AccountLayer`] counts for clusters how requests to them were answered.
//! * [`IntroduceLayer`] tells upstreams inside the mesh who we are, so that their metrics can.
//! * [`Telemetry`] is what it tells: who we are, access logs, Istio's standard metrics.
//! * [`access_log`] compiles Envoy's format strings and writes lines without making anyone wait.
//! * [`istio`] has the standard metrics and the metadata that sidecars exchange.
//! * [`expose`] writes all statistics as Envoy's admin interface does.
//!
//! Nothing runs by itself: somebody has to run [`Telemetry::run`] or call [`Telemetry::flush`], and
//! somebody has to serve what [`expose::Scrape`] writes. Traces are not covered.

#![forbid(unsafe_code)]

pub mod access_log;
pub mod account;
pub mod expose;
pub mod finish;
pub mod introduce;
pub mod istio;
mod shard;
pub mod tcp;
mod telemetry;

pub use account::{Account, AccountLayer};
pub use finish::{Finish, FinishLayer};
pub use introduce::{Introduce, IntroduceLayer};
pub use telemetry::{MOST_SERIES, Telemetry};
