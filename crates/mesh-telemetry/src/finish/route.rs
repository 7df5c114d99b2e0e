//! What is counted for a rule with statistics of its own.
//!
//! What happened to a request on its way is read from its exchange, by the rules that Envoy's
//! router filter counts by: the answers of hosts, and those made here in place of one. Redirects,
//! fixed responses, faults and limits answer before the router filter and are not counted.
//!
//! An answer that the retry policy asks to try again, which is then not tried because the request's
//! body could not be kept after an earlier retry, is taken for a success of that retry.

use crate::telemetry::RouteStats;
use http::StatusCode;
use mesh_core::stats::{Block, RouteStat};
use mesh_core::{Exchange, Failure, Flags};

/// Counts a request whose answer is there.
pub(super) fn answered(stats: &RouteStats, exchange: &Exchange, status: StatusCode) {
    let block = &stats.block;
    unanswered(block, exchange);
    let count = |stat| block.inc(exchange.shard(), stat);
    let (failure, has_upstream) =
        exchange.with_notes(|notes| (notes.failure, notes.upstream.is_some()));
    let flags = exchange.flags();
    // The cluster's own limit sets this flag too, but a request that met it is not tried again.
    let refused = flags.has(Flags::UO) && failure != Some(Failure::Overflow);
    if refused {
        count(RouteStat::RqRetryOverflow);
    }
    let exceeded = flags.has(Flags::URX);
    if exceeded {
        count(RouteStat::RqRetryLimitExceeded);
    }
    let from_host = failure.is_none() && has_upstream;
    let of_an_attempt = failure.is_none_or(|failure| {
        failure.row().reset.is_some()
            || matches!(failure, Failure::TryTimeout | Failure::TryIdleTimeout)
    });
    if of_an_attempt && has_upstream && exchange.attempts() > 1 && !refused && !exceeded {
        count(RouteStat::RqRetrySuccess);
    }
    let replaced =
        failure.is_some_and(Failure::replaces_an_answer) && !exchange.is_between_attempts();
    if from_host || replaced {
        count(RouteStat::RqCompleted);
        // A gRPC caller is answered with 200, and whoever asks for it is told of timeouts by 204.
        let status = match failure {
            Some(failure) if status != StatusCode::NO_CONTENT => failure.row().status,
            _ => status,
        };
        stats.codes.inc(exchange.shard(), status.as_u16());
        if let Some(class) = class(status) {
            count(class);
        }
    }
}

/// Counts what is left to count of a request that ends without an answer: its attempts.
pub(super) fn unanswered(block: &Block<RouteStat>, exchange: &Exchange) {
    let shard = exchange.shard();
    let retries = u64::from(exchange.attempts() - 1);
    let (failure, has_upstream) =
        exchange.with_notes(|notes| (notes.failure, notes.upstream.is_some()));
    let hosts = if retries == 0 {
        u64::from(has_upstream)
    } else {
        block.add(shard, RouteStat::RqRetry, retries);
        exchange.tried().len() as u64
    };
    let hosts = hosts.saturating_sub(exchange.unreached().into());
    block.add(shard, RouteStat::RqTotal, hosts);
    if failure == Some(Failure::RequestTimeout) && !exchange.is_between_attempts() {
        block.inc(shard, RouteStat::RqTimeout);
    }
}

fn class(status: StatusCode) -> Option<RouteStat> {
    match status.as_u16() / 100 {
        1 => Some(RouteStat::Rq1xx),
        2 => Some(RouteStat::Rq2xx),
        3 => Some(RouteStat::Rq3xx),
        4 => Some(RouteStat::Rq4xx),
        5 => Some(RouteStat::Rq5xx),
        _ => None,
    }
}
