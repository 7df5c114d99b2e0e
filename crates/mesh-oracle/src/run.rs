//! Batches of configurations, each with all its requests, at every subject.

use crate::backend::{self, Log};
use crate::config::{Backends, Config};
use crate::difference::Difference;
use crate::envoy::statistics;
use crate::facts::Facts;
use crate::request::Call;
use crate::stage::{Peer, Placed, Refused, raw};
use crate::wire::Message;
use crate::{counters, wire, wire2};
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Requests that are under way at a subject at a time, one for each configuration.
const ABREAST: usize = 12;

/// The first port of listeners, and how many of them are used in turn.
const PORTS: (usize, usize) = (10_000, 20_000);

/// What happened to one configuration.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) differences: Vec<Difference>,
    /// The facts of the judge, a set for each request; none if it refused the configuration.
    pub(crate) judged: Vec<Facts>,
}

/// Everything that is needed to try configurations.
pub(crate) struct Runner {
    stage: raw::Stage,
    backends: Backends,
    log: Arc<Log>,
    /// Configurations so far.
    configs: usize,
    /// How far the access log of each subject was read.
    read: HashMap<&'static str, usize>,
}

// === impl Runner ===

impl Runner {
    pub(crate) async fn start(binary: &str, directory: &Path) -> anyhow::Result<Self> {
        let log = Arc::new(Log::default());
        let backends = backend::start(&log).await?;
        // Two runs at once keep to addresses of their own.
        let net = u8::try_from(std::process::id() % 250).unwrap_or(0);
        Ok(Self {
            stage: raw::Stage::start(binary, directory, net).await?,
            backends,
            log,
            configs: 0,
            read: HashMap::new(),
        })
    }

    /// Tries these configurations together.
    pub(crate) async fn batch(&mut self, configs: &[&Config]) -> anyhow::Result<Vec<Outcome>> {
        let first = self.configs;
        self.configs += configs.len();
        let placed: Vec<Placed<'_>> = configs
            .iter()
            .enumerate()
            .map(|(n, config)| Placed {
                id: format!("c{:06}", first + n),
                port: u16::try_from(PORTS.0 + (first + n) % PORTS.1).unwrap_or(u16::MAX),
                config,
            })
            .collect();
        let refused = self.stage.deploy(&placed, &self.backends).await?;
        let peers = self.stage.peers.clone();
        let mut facts = Vec::new();
        for (number, peer) in peers.iter().enumerate() {
            facts.push(self.ask(number, peer, &placed, &refused).await);
        }
        let mut outcomes = Vec::new();
        let mut facts = facts.into_iter();
        let judged = facts.next().unwrap_or_default();
        let others: Vec<_> = facts.collect();
        for (at, (placed, judged)) in placed.iter().zip(judged).enumerate() {
            let mut outcome = Outcome::default();
            for (n, theirs) in others.iter().enumerate() {
                let peer = &peers[n + 1];
                let refusal = |of: &Refused| of.get(&placed.id).cloned();
                let (by_judge, by_peer) = (refusal(&refused[0]), refusal(&refused[n + 1]));
                let found = compare(peer.name, &judged, &theirs[at], by_judge, by_peer);
                outcome.differences.extend(found);
            }
            outcome.judged = judged;
            outcomes.push(outcome);
        }
        Ok(outcomes)
    }

    /// Sends all requests to one subject. For each configuration the facts of its requests, and
    /// last those of its counters.
    async fn ask(
        &mut self,
        number: usize,
        peer: &Peer,
        placed: &[Placed<'_>],
        refused: &[Refused],
    ) -> Vec<Vec<Facts>> {
        self.log.clear();
        let before = statistics(peer.admin).await;
        let mut work = Vec::new();
        for (at, placed) in placed.iter().enumerate() {
            // What one of them refuses is compared no further.
            if refused.iter().any(|it| it.contains_key(&placed.id)) {
                continue;
            }
            let calls = placed.config.calls.iter().enumerate().map(|(n, call)| {
                // Of the same length at every subject.
                let case = format!("k{number}{:05}x{n:03}", at + 1);
                (n, call.settled(&placed.id, &case), case)
            });
            let to = SocketAddr::new(peer.address, placed.port);
            work.push((at, to, calls.collect::<Vec<_>>()));
        }
        let asked = work.iter().map(|(.., calls)| calls.len()).sum();
        // One after another in each configuration: limits and retries must not depend on chance.
        let answers: Vec<Vec<_>> = futures_util::stream::iter(work)
            .map(|(at, to, calls)| async move {
                let mut answers = Vec::new();
                for (n, call, case) in calls {
                    let (reply, caller) = exchange(to, &call).await;
                    answers.push((at, n, case, call, to, reply, caller));
                }
                answers
            })
            .buffer_unordered(ABREAST)
            .collect()
            .await;
        let answers = answers.into_iter().flatten();
        let lines = self.lines(peer, asked).await;
        let after = statistics(peer.admin).await;
        let mut facts: Vec<BTreeMap<usize, Facts>> =
            placed.iter().map(|_| BTreeMap::new()).collect();
        for (at, n, case, call, to, reply, caller) in answers {
            let mut of_call = Facts::with_masks(vec![
                (case.clone(), "CASE"),
                (caller, "CALLER"),
                (to.to_string(), "LISTENER"),
                (to.ip().to_string(), "LISTENING-IP"),
            ]);
            of_call.reply(&call, &reply);
            of_call.upstream(&call, self.log.take(&case));
            of_call.log(lines.get(&case).map(String::as_str));
            facts[at].insert(n, of_call);
        }
        facts
            .into_iter()
            .zip(placed)
            .map(|(of_calls, placed)| {
                let mut facts: Vec<Facts> = of_calls.into_values().collect();
                facts.push(counters::facts(&placed.id, &before, &after));
                facts
            })
            .collect()
    }

    /// The lines of a subject's access log since the last time, by their numbers.
    async fn lines(&mut self, peer: &Peer, asked: usize) -> HashMap<String, String> {
        let end = Instant::now() + Duration::from_millis(1500);
        let from = *self.read.get(peer.name).unwrap_or(&0);
        loop {
            let text = std::fs::read(&peer.log).unwrap_or_default();
            let new = String::from_utf8_lossy(&text[from.min(text.len())..]).into_owned();
            if new.lines().count() >= asked || Instant::now() > end {
                self.read.insert(peer.name, text.len());
                let pairs = new.lines().filter_map(|line| line.split_once('\t'));
                return pairs
                    .map(|(n, line)| (n.to_owned(), line.to_owned()))
                    .collect();
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn exchange(to: SocketAddr, call: &Call) -> (Message, String) {
    if call.http2 {
        wire2::exchange(to, call).await
    } else {
        wire::exchange(to, &call.bytes()).await
    }
}

fn compare(
    peer: &'static str,
    judged: &[Facts],
    theirs: &[Facts],
    by_judge: Option<String>,
    by_peer: Option<String>,
) -> Vec<Difference> {
    let of = |call, fact: &str, envoy: String, ours: String| Difference {
        peer,
        call,
        fact: fact.to_owned(),
        envoy,
        ours,
    };
    match (by_judge, by_peer) {
        (Some(_), Some(_)) => return Vec::new(),
        (None, None) => {}
        (envoy, ours) => {
            let said = |it: Option<String>| {
                it.map_or_else(|| "accepted".into(), |why| format!("refused: {why}"))
            };
            return vec![of(None, "configuration", said(envoy), said(ours))];
        }
    }
    // The last ones are the counters.
    let last = judged.len().saturating_sub(1);
    judged
        .iter()
        .zip(theirs)
        .enumerate()
        .flat_map(|(n, (envoy, ours))| {
            let call = (n < last).then_some(n);
            let unlike = envoy.unlike(ours).into_iter();
            unlike.map(move |(fact, envoy, ours)| of(call, &fact, envoy, ours))
        })
        .collect()
}
