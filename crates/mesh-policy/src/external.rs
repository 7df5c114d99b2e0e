//! Asking a service elsewhere (Envoy's `ext_authz`, Istio's action CUSTOM).
//!
//! ```text
//!  head, body ──question──► Request<AskBody> ──your Service──► Response
//!  request' ◄──edits── Decision: allowed, denied, failed ◄──decision──┘
//! ```
//!
//! Questions and what becomes of answers are pure functions; [`consult`] and [`ExtAuthzLayer`] put a
//! call between them, which goes through a `Service` that the user gives. What could not be asked is
//! answered with [`Failure::CheckFailed`] unless it is to go on.
//!
//! What a service says for other filters (dynamic metadata) is not kept: nothing here reads it.

mod body;
mod edits;
mod grpc;
mod head;
mod http;
pub mod layer;
mod wire;

#[cfg(test)]
mod tests;

pub use body::{AskBody, Checked};
pub use edits::{Edits, Part};
pub use layer::ExtAuthzLayer;

use crate::OnRoute;
use crate::facts::Facts;
use ::http::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use ::http::uri::{Authority, PathAndQuery, Scheme};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use body::Sent;
use bytes::Bytes;
use head::{About, Peers};
use http_body::Body;
use mesh_core::exchange::ReplyEdit;
use mesh_core::model::{Ask, AskedBody, External};
use mesh_core::reply::Answer;
use mesh_core::stats::{Block, ExternalStat};
use mesh_core::{BoxError, Caller, Error, Exchange, Failure, Name, Shard};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::time::{Duration, Instant, SystemTime};
use tower_service::Service;

/// What is told beside the head.
#[derive(Clone, Copy)]
struct Telling<'a> {
    /// What was read of the body.
    sent: Option<&'a Sent>,
    /// As bytes rather than as text, over gRPC.
    raw: bool,
    /// What the route says, over gRPC.
    context: &'a BTreeMap<Name, Name>,
}

/// What a service says.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Decision {
    /// It may go on, changed so.
    Allowed(Edits),
    /// It may not; this is the answer.
    Denied(Answer),
    /// It could not be asked, or said so itself: then with a status and an answer of its own.
    Failed(Option<(Option<StatusCode>, Answer)>),
}

/// A request that may go on.
#[derive(Debug)]
#[non_exhaustive]
pub struct Consulted<B> {
    /// The request, changed as the service wants it.
    pub request: Request<Checked<B>>,
    /// Changes of the response. Where the request has an [`Exchange`] they are recorded there, and
    /// none are here.
    pub reply: Vec<ReplyEdit>,
}

/// When whoever asks gives up; none is never. An extension of questions, for who sends them: a
/// question that is dropped then timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until(pub Option<Instant>);

/// How long the upstream took, in milliseconds (Envoy's router).
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");

/// Asks a service about a request, and does to the request what it says.
///
/// # Errors
/// * [`Failure::CheckDenied`], with the answer, if it says no;
/// * [`Failure::CheckFailed`], if it could not be asked in time or at all and that does not let the
///   request through ([`External::fail_open`]);
/// * [`Failure::PayloadTooLarge`], if the body is longer than what may be held back;
/// * whatever the request's body fails with.
///
/// # Cancel safety
/// A future that is dropped drops the call and the request.
pub async fn consult<A, B, R>(
    external: &External,
    stats: &Block<ExternalStat>,
    authorizer: A,
    request: Request<B>,
) -> Result<Consulted<B>, Error>
where
    A: Service<Request<AskBody>, Response = Response<R>>,
    R: Body,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    consult_on(OnRoute::default(), external, stats, authorizer, request).await
}

/// As [`consult`], about a request whose route may say something of how.
///
/// # Errors
/// As [`consult`].
///
/// # Cancel safety
/// As [`consult`].
pub async fn consult_on<A, B, R>(
    route: OnRoute<'_>,
    external: &External,
    stats: &Block<ExternalStat>,
    authorizer: A,
    request: Request<B>,
) -> Result<Consulted<B>, Error>
where
    A: Service<Request<AskBody>, Response = Response<R>>,
    R: Body,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let told = route.told(external);
    let wanted = told.body.unwrap_or(external.body);
    let exchange = Exchange::of(&request).cloned();
    let shard = exchange
        .as_ref()
        .map_or_else(Shard::default, Exchange::shard);
    let (mut request, sent) = hold(wanted, request).await?;
    let telling = Telling {
        sent: sent.as_ref(),
        // Seen of Envoy: the route has no say in that.
        raw: external.body.is_some_and(|body| body.raw),
        context: &told.context,
    };
    let question = question(external, exchange.as_ref(), &request, telling);
    let mut decision = ask(external, authorizer, question).await;
    if let Decision::Allowed(edits) = &decision
        && edits.apply(&mut request).is_err()
    {
        // What it wants cannot be done: better not at all than in part.
        decision = Decision::Failed(None);
    }
    match decision {
        Decision::Allowed(edits) => {
            stats.inc(shard, ExternalStat::Ok);
            let mut reply = edits.reply;
            if let Some(exchange) = exchange {
                for edit in reply.drain(..) {
                    exchange.edit_reply(edit);
                }
            }
            Ok(Consulted { request, reply })
        }
        Decision::Denied(mut answer) => {
            stats.inc(shard, ExternalStat::Denied);
            // Seen of Envoy: what has no body has no type.
            if answer.body.is_empty() {
                answer.headers.remove(CONTENT_TYPE);
            }
            let failure = Failure::CheckDenied(answer.status.as_u16());
            Err(Error::answer(failure, answer))
        }
        Decision::Failed(said) => {
            failed(external, stats, shard, said)?;
            let reply = Vec::new();
            Ok(Consulted { request, reply })
        }
    }
}

/// Asks a service about a connection, over gRPC.
///
/// # Errors
/// As [`consult`]. A service that is asked over HTTP cannot be asked about connections: that fails.
pub async fn consult_about<A, R>(
    external: &External,
    stats: &Block<ExternalStat>,
    authorizer: A,
    caller: &Caller,
) -> Result<(), Error>
where
    A: Service<Request<AskBody>, Response = Response<R>>,
    R: Body,
{
    let decision = match &external.ask {
        Ask::Grpc(how) => {
            let question = grpc::about_connection(external, how, Peers::of(caller));
            ask(external, authorizer, question).await
        }
        Ask::Http(_) => Decision::Failed(None),
    };
    match decision {
        Decision::Allowed(_) => {
            stats.inc(caller.shard, ExternalStat::Ok);
            Ok(())
        }
        Decision::Denied(answer) => {
            stats.inc(caller.shard, ExternalStat::Denied);
            Err(Failure::CheckDenied(answer.status.as_u16()).into())
        }
        Decision::Failed(said) => failed(external, stats, caller.shard, said),
    }
}

fn failed(
    external: &External,
    stats: &Block<ExternalStat>,
    shard: Shard,
    said: Option<(Option<StatusCode>, Answer)>,
) -> Result<(), Error> {
    stats.inc(shard, ExternalStat::Error);
    if external.fail_open {
        stats.inc(shard, ExternalStat::FailureModeAllowed);
        return Ok(());
    }
    let status = external.status_on_error;
    let Some((own, mut answer)) = said else {
        return Err(Failure::CheckFailed(status).into());
    };
    let status = own.map_or(status, |own| own.as_u16());
    let failure = Failure::CheckFailed(status);
    answer.status = failure.row().status;
    Err(Error::answer(failure, answer))
}

/// Reads what of the body is to be sent along.
async fn hold<B>(
    wanted: Option<AskedBody>,
    request: Request<B>,
) -> Result<(Request<Checked<B>>, Option<Sent>), Error>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let wanted = wanted.filter(|_| {
        // Streams of their own have no end to wait for.
        !request.body().is_end_stream()
            && request.method() != Method::CONNECT
            && !request.headers().contains_key(UPGRADE)
    });
    let Some(limit) = wanted else {
        return Ok((request.map(Checked::whole), None));
    };
    let (parts, body) = request.into_parts();
    let (checked, sent) = Checked::hold(body, limit).await?;
    Ok((Request::from_parts(parts, checked), Some(sent)))
}

fn question<B>(
    external: &External,
    exchange: Option<&Exchange>,
    request: &Request<B>,
    telling: Telling<'_>,
) -> Request<AskBody> {
    let facts = match exchange {
        Some(exchange) => Facts::of_exchange(exchange, request),
        None => Facts::of_request(request),
    };
    let peers = exchange.map(|exchange| Peers::of(exchange.caller()));
    let facts = facts
        .request
        .unwrap_or_else(|| crate::RequestFacts::of(request));
    let about = About::of(request, facts, peers.unwrap_or_default());
    match &external.ask {
        Ask::Grpc(ask) => grpc::question(external, ask, &about, telling, SystemTime::now()),
        Ask::Http(ask) => http::question(external, ask, &about, telling.sent),
    }
}

/// Sends a question and understands the answer.
async fn ask<A, R>(
    external: &External,
    mut authorizer: A,
    mut question: Request<AskBody>,
) -> Decision
where
    A: Service<Request<AskBody>, Response = Response<R>>,
    R: Body,
{
    let began = tokio::time::Instant::now();
    let started: Instant = began.into_std();
    let end = external.timeout.map(|limit| began + limit);
    question.extensions_mut().insert(Until(end.map(Into::into)));
    let asking = async {
        poll_fn(|cx| authorizer.poll_ready(cx)).await.ok()?;
        let response = authorizer.call(question).await.ok()?;
        let (mut head, body) = response.into_parts();
        let (body, trailers) = body::read(body).await?;
        let now: Instant = tokio::time::Instant::now().into_std();
        let took = now.saturating_duration_since(started).as_millis();
        let took = HeaderValue::from(u64::try_from(took).unwrap_or(u64::MAX));
        head.headers.insert(SERVICE_TIME, took);
        Some(match &external.ask {
            Ask::Grpc(_) => grpc::decision(head.status, &head.headers, &body, &trailers),
            Ask::Http(ask) => http::decision(ask, &head, body),
        })
    };
    let decided = match end {
        None => asking.await,
        Some(end) => tokio::time::timeout_at(end, asking).await.ok().flatten(),
    };
    decided.unwrap_or(Decision::Failed(None))
}

/// Gives a question its target.
fn absolute(request: &mut Request<AskBody>, authority: &[u8], path: &str) {
    let mut parts = Uri::default().into_parts();
    parts.path_and_query =
        Some(PathAndQuery::try_from(path).unwrap_or(PathAndQuery::from_static("/")));
    match Authority::try_from(authority) {
        Ok(authority) => {
            parts.scheme = Some(Scheme::HTTP);
            parts.authority = Some(authority);
        }
        Err(_) => {
            let host = HeaderValue::from_bytes(authority);
            request.headers_mut().extend(host.map(|host| (HOST, host)));
        }
    }
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

/// What Envoy puts on what it asks by itself.
fn internal(headers: &mut HeaderMap, timeout: Option<Duration>) {
    headers.remove(CONNECTION);
    headers.insert(INTERNAL, HeaderValue::from_static("true"));
    if let Some(timeout) = timeout {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        headers.insert(EXPECTED, HeaderValue::from(millis));
    }
}
