//! What is counted of a request, from its arrival to its end, exactly once.

use super::route;
use crate::access_log::Wanted;
use crate::introduce::is_outside;
use crate::istio::{Outcome, Reporter, Seen, Spoken, peer};
use crate::telemetry::RouteStats;
use crate::telemetry::{Own, Record};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use mesh_core::model::ClusterEntry;
use mesh_core::stats::{HttpStat, RouteStat};
use mesh_core::upgrade::{Leave, Tunnel};
use mesh_core::{BoxError, Caller, Error, Exchange, Failure, Flags, reply};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counts a request as under way, and at its end everything else. Dropped before the end it takes
/// the caller to have gone away, or to have reset its stream.
#[derive(Debug)]
pub(super) struct Tally {
    telemetry: Own,
    exchange: Exchange,
    /// None once everything is counted.
    record: Option<Box<Record>>,
}

/// The request whose connection goes on in another protocol ends with that.
struct Switched {
    tally: Tally,
    leave: Leave,
}

// === impl Switched ===

impl Drop for Switched {
    fn drop(&mut self) {
        if !self.leave.is_set() {
            return self.tally.complete();
        }
        if let Some(record) = self.tally.record.take() {
            let gone = self.tally.exchange.caller().departure();
            self.tally.departed(record, gone);
        }
    }
}

// === impl Tally ===

impl Tally {
    pub(super) fn begin<B>(telemetry: Own, exchange: Exchange, request: &mut Request<B>) -> Self {
        let caller = exchange.caller();
        caller.count(HttpStat::RqTotal);
        caller.count(HttpStat::RqActive);
        caller.count(if request.version() == Version::HTTP_2 {
            HttpStat::RqHttp2Total
        } else {
            HttpStat::RqHttp1Total
        });
        let (listener, mut record) = {
            let mut worker = telemetry.worker(caller.shard);
            let listener = worker.listener(caller.manager.as_ref(), &telemetry);
            (listener, worker.record())
        };
        if listener.reporter == Reporter::Destination {
            if telemetry.introduction().is_some() {
                let taken = peer::take(request.headers_mut());
                record.asked = taken.asked();
                record.peer = taken.metadata;
            } else {
                record.peer = request.headers().get(peer::METADATA).cloned();
            }
        }
        if listener.logs.is_empty() {
            record.entry.version = Some(request.version());
        } else {
            let wanted = listener.logs.wanted();
            let now = telemetry.clock.now();
            if telemetry.heads_are_noted() {
                record.entry.begin(now);
                record.entry.version = Some(request.version());
            } else {
                record.entry.request(request, now, wanted);
            }
            record.request_end = wanted.request_end().then(Arc::default);
            if let Some(watch) = &listener.watch {
                exchange.watch(watch.clone());
            }
        }
        record.grpc = reply::is_grpc(request.headers());
        record.bodyless = request.method() == Method::HEAD;
        record.listener = Some(listener);
        Self {
            telemetry,
            exchange,
            record: Some(record),
        }
    }

    /// Where the time of the request's end is to be noted, if anybody wants to know.
    pub(super) fn request_end(&self) -> Option<Arc<AtomicU64>> {
        self.record.as_ref()?.request_end.clone()
    }

    /// Notes a response's head. A response without a body ends with it: nobody may ever ask for
    /// the body.
    pub(super) fn head<R: Body>(&mut self, response: &mut Response<R>) {
        self.exchange_metadata(response.headers_mut());
        // Nobody gets an answer that was made because its caller is no longer there.
        if self.exchange.flags().has(Flags::DC.with(Flags::DR))
            && let Some(failure) = self.exchange.with_notes(|notes| notes.failure)
            && failure.is_departure()
        {
            return self.left(failure);
        }
        let Some(record) = &mut self.record else {
            return;
        };
        let wanted = record
            .listener
            .as_ref()
            .map(|listener| listener.logs.wanted());
        record
            .entry
            .response(response, wanted.unwrap_or(&Wanted::NOTHING));
        let grpc = record.grpc;
        let bodyless = record.bodyless || has_no_body(response.status());
        record.expected = response
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok())
            .or_else(|| response.body().size_hint().exact());
        if grpc {
            self.grpc_status(response.headers());
        }
        let status = response.status();
        let answered = self.with_route(|stats| route::answered(stats, &self.exchange, status));
        if let Some(record) = &mut self.record {
            record.answered = answered;
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let record = self.record.take();
            let tunnel = Tunnel::of(response.extensions_mut());
            tunnel.keep(Switched {
                tally: Self {
                    telemetry: self.telemetry.clone(),
                    exchange: self.exchange.clone(),
                    record,
                },
                leave: tunnel.leave().clone(),
            });
        } else if bodyless || response.body().is_end_stream() {
            self.complete();
        }
    }

    /// Says who we are to a caller that has said so itself; notes what an upstream says, which is
    /// not for its caller to see.
    fn exchange_metadata(&mut self, headers: &mut HeaderMap) {
        let (Some(record), Some(own)) = (&mut self.record, self.telemetry.introduction()) else {
            return;
        };
        let reporter = record.listener.as_ref().map(|listener| listener.reporter);
        match reporter {
            Some(Reporter::Destination) => own.answer(record.asked, headers),
            Some(Reporter::Source) => {
                let outside = |cluster: &Arc<ClusterEntry>| is_outside(cluster.config());
                let believed = !self.exchange.cluster().is_some_and(outside);
                record.peer = peer::take(headers).metadata.filter(|_| believed);
            }
            None => {}
        }
    }

    /// Counts bytes of the response's body.
    pub(super) fn sent(&self, bytes: usize) {
        self.exchange.count_sent(bytes as u64);
    }

    /// Notes a response's trailers.
    pub(super) fn trailers(&mut self, trailers: &HeaderMap) {
        let Some(record) = &mut self.record else {
            return;
        };
        if let Some(listener) = &record.listener {
            record.entry.trailers(trailers, listener.logs.wanted());
        }
        if record.grpc {
            self.grpc_status(trailers);
        }
    }

    fn grpc_status(&self, headers: &HeaderMap) {
        let status = headers
            .get("grpc-status")
            .and_then(|status| status.to_str().ok()?.parse().ok());
        if let Some(status) = status {
            self.exchange
                .with_notes_mut(|notes| notes.grpc_status = Some(status));
        }
    }

    /// The response ended as it should.
    pub(super) fn complete(&mut self) {
        if let Some(record) = self.record.take() {
            self.end(record);
        }
    }

    /// There is no response, and nobody below made one from the error.
    pub(super) fn fail<E: 'static>(&mut self, error: &E) {
        let Some(record) = self.record.take() else {
            return;
        };
        match ours(error) {
            Some(error) => self.exchange.note_error(error),
            None => self.exchange.note_error(&Failure::Internal.into()),
        }
        self.end(record);
    }

    /// The response's body failed after its head had gone out.
    pub(super) fn reset<E: 'static>(&mut self, error: &E) {
        let Some(record) = self.record.take() else {
            return;
        };
        let known = ours(error).map(Error::failure);
        let has_upstream = self.exchange.with_notes(|notes| notes.upstream.is_some());
        let failure = known.unwrap_or(if has_upstream {
            Failure::ConnectionTermination
        } else {
            Failure::Internal
        });
        let row = failure.row();
        self.exchange.flag(row.flags);
        self.exchange.with_notes_mut(|notes| {
            notes.failure = Some(failure);
            notes.details = Some(match row.reset {
                // Envoy's words, with spaces replaced as it does.
                Some(reason) => {
                    let reason = reason.replace(' ', "_");
                    format!("upstream_reset_after_response_started{{{reason}}}").into()
                }
                None => row.details.into(),
            });
        });
        self.count(HttpStat::RqTxReset);
        // Envoy does not tell its own from the caller's (`ActiveStream::onResetStream`).
        self.count(HttpStat::RqRxReset);
        if failure == Failure::RequestTimeout {
            let shard = self.exchange.shard();
            self.with_route(|stats| stats.block.inc(shard, RouteStat::RqTimeout));
        }
        // Envoy counts the calls that it has not yet taken for a success or a failure, and what a
        // limit of the request cut off is none of them (`Filter::chargeUpstreamAbort`).
        let is_open = record.grpc
            && record
                .entry
                .status()
                .is_some_and(|it| !it.is_server_error());
        let of_attempt = row.reset.is_some() || failure == Failure::TryIdleTimeout;
        if has_upstream && is_open && of_attempt {
            self.count(HttpStat::RqResetAfterStart);
        }
        self.end(record);
    }

    fn count(&self, stat: HttpStat) {
        self.exchange.caller().count(stat);
    }

    /// Counts for the rule, if it has statistics. Says whether it has.
    fn with_route(&self, count: impl FnOnce(&RouteStats)) -> bool {
        let matched = self.exchange.matched();
        let Some(matched) = matched.filter(|matched| !matched.rule().stat_prefix.is_empty()) else {
            return false;
        };
        let mut worker = self.telemetry.worker(self.exchange.shard());
        let stats = worker.routes.stats(matched, &self.telemetry.routes);
        stats.map(count).is_some()
    }

    /// The caller left while its request was still being sent.
    fn left(&mut self, failure: Failure) {
        let Some(record) = self.record.take() else {
            return;
        };
        // The reset, if it is noted, was of this request.
        let _ = self.exchange.caller().departure();
        self.departed(record, failure);
    }

    fn departed(&self, record: Box<Record>, failure: Failure) {
        let row = failure.row();
        self.exchange.flag(row.flags);
        self.exchange.with_notes_mut(|notes| {
            notes.failure = Some(failure);
            notes.details = Some(row.details.into());
        });
        self.count(HttpStat::RqRxReset);
        self.end(record);
    }

    fn end(&self, mut record: Box<Record>) {
        if !record.answered {
            self.with_route(|stats| route::unanswered(&stats.block, &self.exchange));
        }
        let now = tokio::time::Instant::now().into_std();
        let caller = self.exchange.caller();
        if let Some(stats) = &caller.stats {
            stats.dec(caller.shard, HttpStat::RqActive);
        }
        match self.exchange.with_notes(|notes| notes.failure) {
            Some(Failure::RequestOverall) => self.count(HttpStat::RqTimeout),
            Some(Failure::RequestHead) => self.count(HttpStat::RqHeaderTimeout),
            Some(Failure::StreamIdle) => self.count(HttpStat::RqIdleTimeout),
            _ => {}
        }
        let answer = record.entry.status();
        // What went on elsewhere was answered by nobody; Envoy's log has the status all the same.
        if let Some(status) = answer.filter(|_| !self.exchange.has_gone_on()) {
            self.count(HttpStat::RqCompleted);
            if let Some(class) = class(status) {
                self.count(class);
            }
        }
        record.entry.end(now);
        if let Some(head) = self.exchange.take_head() {
            record.entry.head(head);
        }
        let request_end = record
            .request_end
            .as_ref()
            .and_then(|end| end.load(Ordering::Acquire).checked_sub(1));
        if let Some(micros) = request_end {
            record.entry.request_end(Duration::from_micros(micros));
        }
        self.tell(record, now, caller);
    }

    /// Metrics and access logs.
    fn tell(&self, record: Box<Record>, now: Instant, caller: &Caller) {
        let Some(listener) = &record.listener else {
            return;
        };
        let telemetry = &*self.telemetry;
        let exchange = &self.exchange;
        let mut worker = telemetry.worker(caller.shard);
        let worker = &mut *worker;
        if let Some(matched) = exchange.matched() {
            worker.routes.see(matched.snapshot(), &telemetry.routes);
        }
        let from = record
            .peer
            .as_ref()
            .and_then(|header| worker.cache.peer(header));
        // What a certificate proved is not for its owner to say.
        let shown = caller.tls.as_ref().and_then(|tls| tls.peer.as_ref());
        let principal = shown.and_then(|peer| peer.uris.first());
        let from = match (listener.reporter, principal) {
            (Reporter::Destination, Some(principal)) => Some(worker.cache.proved(from, principal)),
            _ => from,
        };
        let outcome = |grpc_status| Outcome {
            code: record.entry.status().map_or(0, |status| status.as_u16()),
            flags: exchange.flags(),
            spoken: if record.grpc {
                Spoken::Grpc
            } else {
                Spoken::Http
            },
            grpc_status,
            tls: match listener.reporter {
                Reporter::Source => caller.is_secure(),
                Reporter::Destination => shown.is_some(),
            },
        };
        let duration = now.saturating_duration_since(exchange.started());
        exchange.with_notes(|notes| {
            let seen = Seen {
                reporter: listener.reporter,
                node: &telemetry.node,
                cluster: exchange.cluster().map(|cluster| cluster.config()),
                peer: from.as_ref(),
                endpoint: match listener.reporter {
                    Reporter::Source => notes
                        .upstream
                        .as_ref()
                        .map(|upstream| &upstream.endpoint.workload),
                    Reporter::Destination => None,
                },
                outcome: outcome(notes.grpc_status),
            };
            worker.cache.series(seen, &telemetry.registry).record(
                caller.shard,
                duration.as_secs_f64() * 1000.0,
                exchange.received(),
                exchange.sent(),
            );
        });
        let line = &mut worker.line;
        listener.logs.write(
            exchange,
            &record.entry,
            &telemetry.hostname,
            caller.shard,
            line,
        );
        worker.give_back(record);
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else {
            return;
        };
        // A server that has sent all bytes of a body whose length is known need not ask whether
        // there are more.
        if record
            .expected
            .is_some_and(|expected| self.exchange.sent() >= expected)
        {
            return self.end(record);
        }
        if self.exchange.has_gone_on() {
            return self.end(record);
        }
        let gone = self.exchange.caller().departure();
        self.departed(record, gone);
    }
}

/// Our error in an error of any type. The layer leaves error types alone, so that it fits where a
/// framework wants one type (axum wants none at all), and only looks.
fn ours<E: 'static>(error: &E) -> Option<&Error> {
    let error: &dyn Any = error;
    error
        .downcast_ref()
        .or_else(|| error.downcast_ref::<BoxError>()?.downcast_ref())
}

/// Whether responses with this status never have a body (RFC 9110 §6.4.1).
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}

fn class(status: StatusCode) -> Option<HttpStat> {
    match status.as_u16() / 100 {
        1 => Some(HttpStat::Rq1xx),
        2 => Some(HttpStat::Rq2xx),
        3 => Some(HttpStat::Rq3xx),
        4 => Some(HttpStat::Rq4xx),
        5 => Some(HttpStat::Rq5xx),
        _ => None,
    }
}
