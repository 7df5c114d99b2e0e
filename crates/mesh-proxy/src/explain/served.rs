//! A request that is explained while it is served: the answer goes on its response.

use super::bound::as_header;
use super::dry::{self, Asked, head_of};
use super::report;
use super::token::{NAME, Token};
use http::Request;
use mesh_core::model::Snapshot;
use mesh_core::{Exchange, Feed, Matched};
use std::sync::Arc;

/// Explains requests that bring a token.
#[derive(Debug)]
pub(crate) struct Explainer {
    token: Token,
    /// What is in force, for requests that met no rule of it.
    feed: Feed<Snapshot>,
}

/// A request that brought the token, on its way.
#[derive(Debug)]
pub(crate) struct Served {
    explainer: Arc<Explainer>,
    head: Request<()>,
    exchange: Exchange,
    admitted: bool,
}

// === impl Explainer ===

impl Explainer {
    pub(crate) fn new(token: Token, feed: Feed<Snapshot>) -> Self {
        Self { token, feed }
    }

    /// Takes the header out of a request, so that nobody below sees it and no log tells of it. Where
    /// it had the token, the request is to be explained.
    pub(crate) fn take<B>(
        self: &Arc<Self>,
        request: &mut Request<B>,
        exchange: &Exchange,
    ) -> Option<Box<Served>> {
        if !request.headers().contains_key(&NAME) {
            return None;
        }
        let is_asked = self.token.take(request.headers_mut());
        exchange.note_head(request);
        is_asked.then(|| {
            Box::new(Served {
                explainer: self.clone(),
                head: head_of(request),
                exchange: exchange.clone(),
                admitted: false,
            })
        })
    }
}

// === impl Served ===

impl Served {
    /// The request as admission left it.
    pub(crate) fn admitted<B>(&mut self, request: &Request<B>) {
        self.head = head_of(request);
        self.admitted = true;
    }

    /// Records the answer for the response, whoever makes that.
    pub(crate) fn answer(self) {
        let matched = self.exchange.matched();
        let snapshot = match matched.map(Matched::snapshot) {
            Some(pinned) => pinned.snapshot().clone(),
            None => self.explainer.feed.load(),
        };
        // Its own, so that nothing is counted twice and nothing is recorded for the response.
        let mut caller = self.exchange.caller().clone();
        caller.stats = None;
        let own = Exchange::new(self.exchange.started(), caller);
        if let Some(matched) = matched {
            own.set_matched(matched.clone());
        }
        // Admission said who calls, and does not run again.
        if let Some(remote) = self.exchange.remote().filter(|_| self.admitted) {
            own.set_remote(remote);
        }
        // And kept what routes and hashes go by.
        if let Some(state) = self.exchange.filter_state() {
            own.set_filter_state(state.clone());
        }
        let asked = Asked {
            request: head_of(&self.head),
            exchange: own,
            admitted: self.admitted,
        };
        let ran = dry::run(&snapshot, asked);
        let answer = as_header(|bound| {
            report::of_served(&snapshot, &self.head, &ran, &self.exchange, bound)
        });
        if let Some(answer) = answer {
            self.exchange.add_reply_header(NAME, answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{
        Cluster, FilterObject, FilterObjectMatch, FilterState, FilterStateMatch, HttpManager,
        RouteTable, Rule, SnapshotBuilder, StringMatch, VirtualHost,
    };
    use mesh_core::{Caller, Publisher};

    /// The index of the rule that an admitted request is told it matches, if this was kept of it.
    fn rule_of(kept: Option<&str>) -> serde_json::Value {
        let mut asks = Rule::prefix_to("/", "c");
        asks.condition.filter_state.push(FilterStateMatch {
            key: "k".into(),
            value: FilterObjectMatch::Text(StringMatch::Exact("one".into())),
        });
        let host = VirtualHost::new("all", ["*"]).rule(asks);
        let mut builder = SnapshotBuilder::new();
        builder
            .cluster(Cluster::new("c"))
            .routes(RouteTable::new("t").host(host.rule(Rule::prefix_to("/", "c"))));
        let feed = Publisher::from_arc(builder.build().unwrap().0).feed();
        let mut caller = Caller::default();
        caller.manager = Some(Arc::new(HttpManager::new("in", "t")));
        let exchange = Exchange::new(tokio::time::Instant::now().into_std(), caller);
        if let Some(kept) = kept {
            let mut state = FilterState::new(true);
            state.set("k".into(), FilterObject::Text(kept.into()));
            exchange.set_filter_state(state);
        }
        let served = Served {
            explainer: Arc::new(Explainer::new(
                Token::new("0123456789abcdef").unwrap(),
                feed,
            )),
            head: Request::get("http://a.test/").body(()).unwrap(),
            exchange: exchange.clone(),
            admitted: true,
        };
        served.answer();
        let (_, value) = exchange.take_reply_headers().remove(0);
        let answer: serde_json::Value = serde_json::from_slice(value.as_bytes()).unwrap();
        answer["route"]["index"].clone()
    }

    #[test]
    fn what_was_kept_of_a_request_is_looked_at_again() {
        assert_eq!(rule_of(Some("one")), 0);
        assert_eq!(rule_of(Some("two")), 1);
        assert_eq!(rule_of(None), 1);
    }
}
