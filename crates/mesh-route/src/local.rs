//! What is done to answers that we make ourselves before they go out.
//!
//! Envoy runs its route's response edits and its encoder filters on local replies too: on a
//! timeout, a fault, a redirect. A CORS preflight is the exception: its filter answers without the
//! router.

use crate::head::Head;
use crate::header::{Direction, apply, levels};
use crate::template::{Asked, Facts, Kept, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};
use mesh_core::exchange::ReplyEdit;
use mesh_core::reply::{self, Answer};
use mesh_core::{Error, Exchange, Failure, Matched, WallClock};

/// Headers for the response that were recorded in an exchange.
#[derive(Debug, Default)]
pub(crate) struct Recorded {
    headers: Vec<(HeaderName, HeaderValue)>,
    edits: Vec<ReplyEdit>,
    kept: Kept,
}

/// Under this name the router records a part of the request that templates of the response need, as
/// `name: value`. It never reaches a response: the exchange has no other place for it that the
/// reply layer, far above the router, can see.
const KEPT: HeaderName = HeaderName::from_static("x-mesh-route-kept");

/// Records what the rule's response edits need of the request.
pub(crate) fn keep<B>(exchange: &Exchange, matched: &Matched, request: &Request<B>) {
    let levels = || levels(matched, Direction::Response);
    // Most rules edit nothing, and then nothing is looked at.
    if levels().next().is_some() {
        record(exchange, &Kept::of(levels(), &Head::of(request)));
    }
}

/// Records it of a request that was changed.
pub(crate) fn keep_again<B>(exchange: &Exchange, matched: &Matched, request: &Request<B>) {
    let levels = || levels(matched, Direction::Response);
    if levels().next().is_some() {
        keep_instead(exchange, &Kept::of(levels(), &Head::of(request)));
    }
}

/// Records it in place of what was recorded before: the request was edited.
pub(crate) fn keep_instead(exchange: &Exchange, kept: &Kept) {
    let mut recorded = exchange.take_reply_headers();
    recorded.retain(|(name, _)| *name != KEPT);
    for (name, value) in recorded {
        exchange.add_reply_header(name, value);
    }
    record(exchange, kept);
}

fn record(exchange: &Exchange, kept: &Kept) {
    for line in kept.lines() {
        exchange.add_reply_header(KEPT, line);
    }
}

/// The answer for an error, before it is put into gRPC's form. Headers that the exchange has
/// recorded are taken from it and go on the answer.
pub(crate) fn dress(
    error: Error,
    exchange: &Exchange,
    version: Version,
    clock: &WallClock,
) -> Answer {
    let failure = error.failure();
    let mut answer = plain(error, exchange.attempts() > 1);
    let recorded = Recorded::take(exchange);
    if let Some(matched) = exchange
        .matched()
        .filter(|_| failure != Failure::CorsPreflight)
        .filter(|matched| {
            // Seen of Envoy: a rule that answers itself edits its own answers only.
            let own = matches!(failure, Failure::Redirect | Failure::DirectResponse);
            own || matched.forward().is_some()
        })
    {
        let facts = Facts {
            exchange: Some(exchange),
            version,
            clock,
            response: Response::Local,
        };
        for level in levels(matched, Direction::Response) {
            apply(level, &mut answer.headers, |edit, response| {
                facts.value(edit, Asked::Kept(&recorded.kept), Some(response))
            });
        }
    }
    recorded.put(&mut answer.headers);
    answer
}

/// The answer for an error as its caller asked for it.
pub(crate) fn settle(
    error: Error,
    exchange: Option<&Exchange>,
    asked: reply::Asked,
    version: Version,
    clock: &WallClock,
) -> Answer {
    let Some(exchange) = exchange else {
        return reply::answer(error, asked);
    };
    let failure = error.failure();
    // Edits first, gRPC's form and the default content type last, as in Envoy.
    let answer = dress(error, exchange, version, clock);
    reply::answer(Error::answer(failure, answer), asked)
}

/// Whether [`dress`] would change an answer.
pub(crate) fn dresses(exchange: &Exchange) -> bool {
    let edited = |matched| levels(matched, Direction::Response).next().is_some();
    if exchange.matched().is_some_and(edited) || exchange.edits_reply() {
        return true;
    }
    let recorded = exchange.take_reply_headers();
    let any = !recorded.is_empty();
    for (name, value) in recorded {
        exchange.add_reply_header(name, value);
    }
    any
}

fn plain(mut error: Error, retried: bool) -> Answer {
    if let Some(answer) = error.take_answer() {
        return answer;
    }
    let asked = reply::Asked {
        grpc: false,
        retried,
    };
    let mut answer = reply::answer(error, asked);
    // The default; an edit of the content type must not find it there.
    answer.headers.remove(CONTENT_TYPE);
    answer
}

// === impl Recorded ===

impl Recorded {
    /// What was recorded in an exchange, which forgets it.
    pub(crate) fn take(exchange: &Exchange) -> Self {
        let mut recorded = Self {
            edits: exchange.take_reply_edits(),
            ..Self::default()
        };
        for (name, value) in exchange.take_reply_headers() {
            if name == KEPT {
                recorded.kept.read(&value);
            } else {
                recorded.headers.push((name, value));
            }
        }
        recorded
    }

    /// Puts the recorded headers on a response, in place of any that have their names, and edits it.
    pub(crate) fn put(self, headers: &mut HeaderMap) {
        for (name, _) in &self.headers {
            headers.remove(name);
        }
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        for edit in self.edits {
            edit.apply(headers);
        }
    }
}
