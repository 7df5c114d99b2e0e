//! Attempts that overlap (Envoy `hedge_on_per_try_timeout`).
//!
//! An attempt that meets its limit is not reset: another is made beside it, whatever the conditions
//! of the policy, and the first good answer of either counts; the others are reset then. An answer
//! that calls for another attempt, and a failure, are passed on only where no other attempt is
//! under way or about to be made. As in Envoy (`Filter::onSoftPerTryTimeout`) the limit is not
//! counted, but outlier detection learns of it.

use super::ReplayBody;
use super::attempts::{Attempts, LateNotes, finish};
use crate::count::count;
use crate::time::{Deadline, Expiry};
use http::{Request, Response, StatusCode};
use http_body::Body;
use mesh_core::body::Held;
use mesh_core::stats::ClusterStat;
use mesh_core::{BoxError, Error, Exchange, Failure};
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tower_service::Service;

/// A request's attempts, those that overlap among them.
pub(super) struct Hedge<S, B, O>
where
    S: Service<Request<O>>,
{
    /// In the order in which they began.
    tries: Vec<Try<S::Future>>,
    next: Next,
    /// None once there is a result.
    attempts: Option<Attempts<S, B>>,
    limit: Duration,
}

struct Try<F> {
    future: Pin<Box<F>>,
    /// Its own record; none for the first, whose record is the request's.
    exchange: Option<Exchange>,
    /// None once it is over.
    expiry: Option<Expiry>,
    /// Another was made in its place.
    replaced: bool,
}

/// The attempt after those under way.
enum Next {
    /// There is none.
    None,
    /// It waits for its time.
    Waiting(Deadline),
    /// It waits for the service.
    Readying,
}

impl<S, B, O, R> Hedge<S, B, O>
where
    S: Service<Request<O>, Response = Response<R>>,
    S::Error: Into<BoxError>,
    B: Body,
    ReplayBody<B>: Into<O>,
    R: Body,
{
    /// Attempts of which the first has begun, each with this limit.
    pub(super) fn new(first: S::Future, attempts: Attempts<S, B>, limit: Duration) -> Self {
        attempts.overlap();
        let mut hedge = Self {
            tries: Vec::with_capacity(2),
            next: Next::None,
            attempts: Some(attempts),
            limit,
        };
        hedge.begun(first, None);
        hedge
    }

    fn begun(&mut self, future: S::Future, exchange: Option<Exchange>) {
        let request = self.attempts.as_ref().and_then(Attempts::exchange);
        let limit = Some((self.limit, Failure::TryTimeout));
        let expiry = request.and_then(|request| Expiry::of(request, limit, None));
        self.tries.push(Try {
            future: Box::pin(future),
            exchange,
            expiry,
            replaced: false,
        });
    }

    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<Held<R, LateNotes>>, Error>> {
        loop {
            if let Some(at) = self.poll_tries(cx) {
                let (at, result) = at;
                match result {
                    Some(result) => {
                        if let Some(result) = self.answered(at, result) {
                            return Poll::Ready(result);
                        }
                    }
                    None => self.late(at),
                }
                continue;
            }
            match &mut self.next {
                Next::None => return Poll::Pending,
                Next::Waiting(deadline) => {
                    if deadline.poll(cx).is_pending() {
                        if let Some(attempts) = &self.attempts {
                            attempts.rest(self.tries.is_empty());
                        }
                        return Poll::Pending;
                    }
                    self.next = Next::Readying;
                }
                Next::Readying => {
                    let attempts = self.attempts.as_mut().expect("there is no result yet");
                    match attempts.service.poll_ready(cx) {
                        Poll::Pending => return Poll::Pending,
                        Poll::Ready(Err(error)) => {
                            return Poll::Ready(self.end(None, Err(Error::wrap(error))));
                        }
                        Poll::Ready(Ok(())) => {
                            let request = attempts.next().map(Into::into);
                            let exchange = attempts.latest();
                            let future = attempts.service.call(request);
                            self.next = Next::None;
                            self.begun(future, exchange);
                        }
                    }
                }
            }
        }
    }

    /// The first attempt that has a result, or none but is late by now.
    #[expect(clippy::type_complexity, reason = "a place and what is there")]
    fn poll_tries(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Option<(usize, Option<Result<Response<R>, Error>>)> {
        for (at, one) in self.tries.iter_mut().enumerate() {
            if let Poll::Ready(result) = one.future.as_mut().poll(cx) {
                return Some((at, Some(result.map_err(Error::wrap))));
            }
            let expiry = one.expiry.as_mut();
            if expiry.is_some_and(|expiry| expiry.poll(cx).is_ready()) {
                one.expiry = None;
                return Some((at, None));
            }
        }
        None
    }

    /// An attempt is late: another is made beside it, if there may be one.
    fn late(&mut self, at: usize) {
        let Some(attempts) = &mut self.attempts else {
            return;
        };
        let own = self.tries[at].exchange.as_ref();
        if let Some(exchange) = own.or_else(|| attempts.exchange()) {
            // Whoever sends it sees that when it is polled next, which is at once.
            exchange.set_late();
        }
        if let Some(pause) = attempts.replace() {
            self.tries[at].replaced = true;
            self.next = waiting(pause);
        }
        attempts.tell();
    }

    /// What comes of a result: the request's, unless others may be better.
    fn answered(
        &mut self,
        at: usize,
        result: Result<Response<R>, Error>,
    ) -> Option<Result<Response<Held<R, LateNotes>>, Error>> {
        let one = self.tries.remove(at);
        let attempts = self.attempts.as_mut()?;
        let own = one.exchange.as_ref().or_else(|| attempts.exchange());
        if let (Err(error), Some(exchange)) = (&result, own) {
            // Envoy's log has it where this was the last attempt and a limit ends them all.
            exchange.with_notes_mut(|notes| notes.transport_failure = error.cause());
        }
        if !one.replaced
            && let Some(pause) = attempts.judge(&result)
        {
            self.next = waiting(pause);
            return None;
        }
        let is_bad = match &result {
            Ok(_) => attempts.would_judge(&result),
            // Envoy waits for nobody where there was no host to be had.
            Err(error) => error.failure() != Failure::NoHealthyHost,
        };
        let others = !self.tries.is_empty() || !matches!(self.next, Next::None);
        if is_bad && others {
            attempts.tell();
            if let (Err(error), Some(exchange)) = (&result, attempts.exchange()) {
                answered(one.exchange.as_ref().unwrap_or(exchange), error.status());
            }
            return None;
        }
        Some(self.end(one.exchange, result))
    }

    /// The result of all, which is that of the attempt with this record.
    fn end(
        &mut self,
        winner: Option<Exchange>,
        result: Result<Response<R>, Error>,
    ) -> Result<Response<Held<R, LateNotes>>, Error> {
        // The others are reset.
        self.tries.clear();
        self.next = Next::None;
        let attempts = self.attempts.take();
        finish(attempts.map(|attempts| attempts.won_by(winner)), result)
    }
}

/// Counts what one of several attempts came to, as Envoy does (`chargeUpstreamAbort`): what the
/// caller gets is counted by whoever sees that.
fn answered(exchange: &Exchange, status: StatusCode) {
    if let Some(cluster) = exchange.cluster() {
        let stats = cluster.live().stats();
        stats.answered(exchange.shard(), status);
        if exchange.went_to_canary() {
            stats.answered_by_canary(exchange.shard(), status);
        }
    }
}

fn waiting(pause: Duration) -> Next {
    match pause.is_zero() {
        true => Next::Readying,
        false => Next::Waiting(Deadline::after(pause)),
    }
}

impl<S, B, O> Drop for Hedge<S, B, O>
where
    S: Service<Request<O>>,
{
    /// A limit of the request that ends several attempts counts for each, as in Envoy; for one it
    /// was counted by whoever watches it.
    fn drop(&mut self) {
        let tries = mem::take(&mut self.tries);
        let exchange = self.attempts.as_ref().and_then(Attempts::exchange);
        if let Some(exchange) = exchange.filter(|exchange| exchange.timed_out()) {
            // Whoever watches the limit counts the last.
            let others = tries.len().saturating_sub(1);
            for one in tries.iter().take(others) {
                count(exchange, ClusterStat::RqTimeout);
                let exchange = one.exchange.as_ref().unwrap_or(exchange);
                answered(exchange, StatusCode::GATEWAY_TIMEOUT);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RetryLayer;
    use super::*;
    use mesh_core::model::{Cluster, HeaderKey, HeaderMatch, Hedge as Policy};
    use mesh_core::model::{Retry, RetryOn, Rule, StringMatch};
    use mesh_test::{Answers, Probe, empty, fixture};
    use std::sync::Arc;
    use tokio::time::Instant;
    use tower::ServiceExt;
    use tower_layer::Layer;

    const SECOND: Duration = Duration::from_secs(1);

    fn exchange(retries: u32) -> Exchange {
        about(retries, |_| ())
    }

    fn about(retries: u32, change: impl FnOnce(&mut Retry)) -> Exchange {
        let mut retry = Retry::default();
        retry.attempts = retries;
        retry.on = RetryOn::SERVER_ERROR;
        retry.per_try_timeout = Some(SECOND);
        change(&mut retry);
        let mut rule = Rule::prefix_to("/", "a");
        rule.retry = Some(Arc::new(retry));
        rule.hedge = Some(Policy {
            on_try_timeout: true,
        });
        let exchange = fixture::exchange(rule, Some(Cluster::new("a")));
        exchange.request_end().set();
        exchange
    }

    async fn status(
        exchange: &Exchange,
        answers: impl IntoIterator<Item = Answers>,
    ) -> (StatusCode, Duration) {
        let start = Instant::now();
        let layer = RetryLayer::<ReplayBody<_>>::per_route();
        let service = layer.layer(Probe::answering(answers));
        let request = fixture::with(Request::new(empty()), exchange);
        let response = service.oneshot(request).await.unwrap();
        assert!(response.body().size_hint().lower() < 10);
        (response.status(), start.elapsed())
    }

    fn late(millis: u64, status: StatusCode) -> Answers {
        Answers::After(Duration::from_millis(millis), status)
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_attempt_goes_on_and_may_still_win() {
        let exchange = exchange(1);
        let answers = [late(1500, StatusCode::OK), Answers::Never];
        let (status, took) = status(&exchange, answers).await;
        assert_eq!((status, took), (StatusCode::OK, SECOND * 3 / 2));
        assert_eq!(exchange.attempts(), 2);
        let stats = exchange.cluster().unwrap().live().stats();
        let count = |stat| stats.block().get(stat);
        assert_eq!(count(ClusterStat::RqRetry), 1);
        assert_eq!(count(ClusterStat::RqPerTryTimeout), 0);
        assert_eq!(count(ClusterStat::RqRetrySuccess), 0, "it was the first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_bad_answer_waits_for_a_better_one() {
        let exchange = exchange(1);
        let bad = late(1500, StatusCode::SERVICE_UNAVAILABLE);
        let answers = [bad, late(2000, StatusCode::OK)];
        assert_eq!(status(&exchange, answers).await.0, StatusCode::OK);

        // The last one is the answer, whatever it is.
        let exchange = self::exchange(1);
        let bad = |millis| late(millis, StatusCode::BAD_GATEWAY);
        let (status, _) = status(&exchange, [bad(1500), bad(2000)]).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY);
        assert!(exchange.flags().has(mesh_core::Flags::URX));
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_ends_all_leaves_why_the_last_attempt_failed() {
        let exchange = exchange(1);
        let failing = {
            let exchange = exchange.clone();
            tower::service_fn(move |request: Request<ReplayBody<mesh_test::BoxedBody>>| {
                let own = Exchange::of(&request).unwrap().clone();
                let endpoint = Arc::new(mesh_core::model::Endpoint::new(
                    mesh_core::model::Address::from(std::net::SocketAddr::from((
                        [127, 0, 0, 1],
                        1,
                    ))),
                ));
                own.set_upstream(mesh_core::exchange::Upstream::new(endpoint));
                let is_second = exchange.attempts() == 2;
                async move {
                    if is_second {
                        let refused = std::io::Error::other("refused");
                        return Err(Error::with_source(Failure::ConnectFailed, refused));
                    }
                    std::future::pending::<Result<Response<mesh_test::BoxedBody>, Error>>().await
                }
            })
        };
        let service = tower::ServiceBuilder::new()
            .layer(crate::DeadlineLayer::per_route())
            .layer(RetryLayer::<ReplayBody<_>>::per_route())
            .service(failing);
        let mut request = fixture::with(Request::new(empty()), &exchange);
        let asked = http::HeaderValue::from_static("5000");
        request
            .headers_mut()
            .insert("x-envoy-upstream-rq-timeout-ms", asked);
        let error = service.oneshot(request).await.err().unwrap();
        assert_eq!(error.failure(), Failure::RequestTimeout);
        exchange.note_error(&error);
        let reason = exchange.with_notes(|notes| notes.transport_failure.clone());
        assert_eq!(reason.as_deref(), Some("refused"));
    }

    /// As in Envoy, whose `retriable_request_headers` say what failures are retried for, and not
    /// what an attempt may be late for.
    #[tokio::test(start_paused = true)]
    async fn a_late_attempt_gets_another_whatever_requests_the_policy_is_for() {
        let exchange = about(1, |retry| {
            let method = StringMatch::Exact("PUT".to_owned());
            retry.request_headers = vec![HeaderMatch::text(HeaderKey::Method, method)];
        });
        let answers = [Answers::Never, late(500, StatusCode::OK)];
        assert_eq!(status(&exchange, answers).await.0, StatusCode::OK);
        assert_eq!(exchange.attempts(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn without_retries_left_a_late_attempt_has_all_the_time() {
        let exchange = exchange(0);
        let (status, took) = status(&exchange, [late(9000, StatusCode::OK)]).await;
        assert_eq!((status, took), (StatusCode::OK, 9 * SECOND));
        assert_eq!(exchange.attempts(), 1);
    }
}
