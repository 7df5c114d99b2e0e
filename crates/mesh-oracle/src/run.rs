//! Batches of configurations, each with all its requests, at every subject.

use crate::backend::{self, Log};
use crate::callers::Certificates;
use crate::chance;
use crate::config::{Backends, Config};
use crate::difference::Difference;
use crate::embedded::layers;
use crate::facts::{self, Facts};
use crate::pace::{Clock, Mark};
use crate::request::{Call, Leave};
use crate::stage::{Peer, Placed, Refused, istio, raw};
use crate::wire::Message;
use crate::{counters, wire, wire2};
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// Requests that are under way at a subject at a time, one for each configuration.
const ABREAST: usize = 12;

/// The first port of listeners, and how many of them are used in turn.
const PORTS: (usize, usize) = (10_000, 20_000);

/// In which order the subjects are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// All at the same time: most of it is waiting.
    AtOnce,
    /// One after the other, so that none has to share the machine: what is doubted is tried again
    /// like this.
    InTurn,
}

/// What happened to one configuration.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) differences: Vec<Difference>,
    /// The facts of the judge, a set for each request; none if it refused the configuration.
    pub(crate) judged: Vec<Facts>,
    /// Who was compared with the judge, and in how many sets of facts.
    pub(crate) subjects: Vec<(&'static str, usize)>,
    /// Who refused the configuration, and why.
    pub(crate) refused: Vec<(&'static str, String)>,
    /// Somebody was asked too late, so that not everything was compared.
    pub(crate) late: bool,
}

/// Everything that is needed to try configurations.
pub(crate) struct Runner {
    stage: raw::Stage,
    istio: istio::Stage,
    backends: Backends,
    certificates: Certificates,
    log: Arc<Log>,
    /// Configurations so far.
    configs: usize,
    /// How far the access log of each subject was read.
    read: Mutex<HashMap<&'static str, usize>>,
    /// No subject is spared anything, as where a case is made smaller.
    pub(crate) thorough: bool,
}

// === impl Runner ===

impl Runner {
    pub(crate) async fn start(binary: &str, directory: &Path) -> anyhow::Result<Self> {
        let log = Arc::new(Log::default());
        let backends = backend::start(&log).await?;
        // Two runs at once keep to addresses of their own.
        let net = u8::try_from(std::process::id() % 250).unwrap_or(0);
        let certificates = Certificates::new(&directory.join("certificates"))?;
        Ok(Self {
            stage: raw::Stage::start(binary, directory, net, &certificates).await?,
            istio: istio::Stage::new(directory, net, &certificates),
            backends,
            certificates,
            log,
            configs: 0,
            read: Mutex::default(),
            thorough: false,
        })
    }

    /// Tries these configurations together.
    pub(crate) async fn batch(
        &mut self,
        configs: &[&Config],
        order: Order,
    ) -> anyhow::Result<Vec<Outcome>> {
        let mut outcomes: Vec<Outcome> = configs.iter().map(|_| Outcome::default()).collect();
        // Those that are written alike are tried together.
        let kind = |it: &Config| (it.source.role().is_some(), it.is_shared());
        for alike in [(false, false), (false, true), (true, false), (true, true)] {
            let is = |it: &(usize, &&Config)| kind(it.1) == alike;
            let (places, some): (Vec<usize>, Vec<&Config>) =
                configs.iter().enumerate().filter(is).unzip();
            if !some.is_empty() {
                let (istio, shared) = alike;
                let order = if shared { Order::InTurn } else { order };
                let outcome = self.alike(&some, istio, order).await?;
                for (at, outcome) in places.into_iter().zip(outcome) {
                    outcomes[at] = outcome;
                }
            }
        }
        Ok(outcomes)
    }

    async fn alike(
        &mut self,
        configs: &[&Config],
        istio: bool,
        order: Order,
    ) -> anyhow::Result<Vec<Outcome>> {
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
        let (peers, refused) = if istio {
            let Self { istio, stage, .. } = self;
            istio.deploy(stage, &placed, &self.backends).await?
        } else {
            let all = self.thorough;
            let refused = self.stage.deploy(&placed, &self.backends, all).await?;
            (self.stage.peers.clone(), refused)
        };
        self.log.clear();
        let asked = peers.iter().enumerate();
        let asked = asked.map(|(number, peer)| self.ask(number, peer, &placed, &refused));
        let facts: Vec<_> = futures_util::stream::iter(asked)
            .buffered(match order {
                Order::AtOnce => peers.len(),
                Order::InTurn => 1,
            })
            .collect()
            .await;
        let mut outcomes = Vec::new();
        let mut facts = facts.into_iter();
        let judged = facts.next().unwrap_or_default();
        let others: Vec<_> = facts.collect();
        for (at, (placed, judged)) in placed.iter().zip(judged).enumerate() {
            let mut outcome = Outcome::default();
            for (peer, of) in peers.iter().zip(&refused) {
                let why = of.get(&placed.id).cloned();
                outcome.refused.extend(why.map(|why| (peer.name, why)));
            }
            for (n, theirs) in others.iter().enumerate() {
                let peer = &peers[n + 1];
                if peer.absent.contains(&placed.id) {
                    continue;
                }
                if judged.iter().chain(&theirs[at]).any(|it| it.late) {
                    outcome.late = true;
                    continue;
                }
                outcome.subjects.push((peer.name, theirs[at].len()));
                let refusal = |of: &Refused| of.get(&placed.id).cloned();
                let (by_judge, by_peer) = (refusal(&refused[0]), refusal(&refused[n + 1]));
                let mut found = compare(peer.name, &judged, &theirs[at], by_judge, by_peer);
                found.retain(|it| !peer.leaves_out(&it.fact));
                outcome.differences.extend(found);
                let calls = &placed.config.calls;
                let found = chance::compare(peer.name, calls, &judged, &theirs[at]);
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
        &self,
        number: usize,
        peer: &Peer,
        placed: &[Placed<'_>],
        refused: &[Refused],
    ) -> Vec<Vec<Facts>> {
        let before = peer.statistics().await;
        let mut work = Vec::new();
        let backends = &self.backends;
        for (at, placed) in placed.iter().enumerate() {
            // What one of them refuses is compared no further.
            let of_any = refused.iter().any(|it| it.contains_key(&placed.id));
            if of_any || peer.absent.contains(&placed.id) {
                continue;
            }
            let calls = placed.config.calls.iter().enumerate().map(|(n, call)| {
                // Of the same length at every subject.
                let case = format!("k{number}{:05}x{n:03}", at + 1);
                (n, call.settled(&placed.id, &case, backends), case)
            });
            let to = SocketAddr::new(peer.address, placed.port);
            work.push((at, to, calls.collect::<Vec<_>>()));
        }
        let asked: usize = work.iter().map(|(.., calls)| calls.len()).sum();
        // Each request has a line of its own.
        let asked = asked
            + placed
                .iter()
                .flat_map(|it| &it.config.calls)
                .map(|call| call.then.len())
                .sum::<usize>();
        // One after another in each configuration: limits and retries must not depend on chance.
        let (log, by) = (&self.log, &self.certificates);
        let answers: Vec<(Vec<_>, usize)> = futures_util::stream::iter(work)
            .map(|(at, to, calls)| async move {
                let (mut answers, mut held) = (Vec::new(), Vec::new());
                let mut clock = Clock::default();
                for (n, mut call, case) in calls {
                    // Who has no codec downstream is asked in the simplest way.
                    if peer.log.is_none() && call.http2 {
                        call.http2 = false;
                        call.chunked = !call.body.is_empty();
                    }
                    if peer.log.is_none() {
                        // In plain text: who terminates connections says who calls.
                        call.headers.extend(layers::told(call.secured.take()));
                    }
                    clock.before(&call).await;
                    if call.header("x-script") == Some("hold") {
                        // The next begins when this one is under way, and none of them ends.
                        let asked = call.clone();
                        let by = by.clone();
                        let asked = tokio::spawn(async move { exchange(to, &asked, &by).await });
                        log.arrival(&case).await;
                        held.push((n, case, call, asked));
                        continue;
                    }
                    let began = Instant::now();
                    let (reply, caller) = match call.pace.mark {
                        Some(Mark::Interval) => clock.interval(to, &call, by).await,
                        _ if call.leaves.is_some() && !call.http2 => {
                            wire::leave(to, &call.bytes(), log, &case).await
                        }
                        _ if call.leaves.is_some() => {
                            let how = call.leaves.unwrap_or(Leave::Close);
                            wire2::leave(to, &call, how, (&**log, &case)).await
                        }
                        _ => exchange(to, &call, by).await,
                    };
                    clock.after(&call, began);
                    answers.push((at, n, case, call, to, reply, caller, clock.late));
                }
                if let Some((_, case, ..)) = held.first() {
                    // Cases of one configuration differ in what follows the last `x` only.
                    log.release(case.rsplit_once('x').map_or(case, |(cases, _)| cases));
                }
                for (n, case, call, asked) in held {
                    let lost = |_| (Message::ended("lost"), String::new());
                    let (reply, caller) = asked.await.unwrap_or_else(lost);
                    answers.push((at, n, case, call, to, reply, caller, clock.late));
                }
                (answers, clock.more)
            })
            .buffer_unordered(ABREAST)
            .collect()
            .await;
        let more: usize = answers.iter().map(|(_, more)| more).sum();
        let answers: Vec<_> = answers.into_iter().flat_map(|(all, _)| all).collect();
        // Who was refused in a handshake made no request.
        let refused = answers.iter().filter(|(_, _, _, call, _, reply, ..)| {
            call.secured.is_some() && reply.end == wire::CLOSED
        });
        let lines = (asked + more).saturating_sub(refused.count());
        let lines = self.lines(peer, lines).await;
        let after = peer.statistics().await;
        let mut facts: Vec<BTreeMap<usize, Facts>> =
            placed.iter().map(|_| BTreeMap::new()).collect();
        for (at, n, case, call, to, reply, caller, late) in answers {
            let seen = self.log.take(&case);
            let mut masks = vec![
                (case.clone(), "CASE"),
                (caller, "CALLER"),
                (to.to_string(), "LISTENER"),
                (to.ip().to_string(), "LISTENING-IP"),
            ];
            masks.extend(backend::twins(&seen, &self.backends));
            let mut of_call = Facts::with_masks(masks);
            of_call.late = late;
            if call.pace.mark != Some(Mark::Interval) {
                of_call.reply(&call, &reply);
                of_call.log(lines.get(&case).map_or(&[], Vec::as_slice));
                let pauses = chance::pauses(&call, &seen);
                of_call.upstream(&call, seen);
                chance::note(&call, &mut of_call);
                of_call.drawn = pauses.or(of_call.drawn);
            }
            facts[at].insert(n, of_call);
        }
        facts
            .into_iter()
            .zip(placed)
            .map(|(of_calls, placed)| {
                let mut facts: Vec<Facts> = of_calls.into_values().collect();
                facts.push(counters::facts(placed, peer, &before, &after));
                facts
            })
            .collect()
    }

    /// The lines of a subject's access log since the last time, by their numbers.
    async fn lines(&self, peer: &Peer, asked: usize) -> HashMap<String, Vec<String>> {
        let end = Instant::now() + Duration::from_millis(1500);
        let read = || self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let from = *read().get(peer.name).unwrap_or(&0);
        let Some(log) = &peer.log else {
            return HashMap::new();
        };
        loop {
            let text = std::fs::read(log).unwrap_or_default();
            let new = String::from_utf8_lossy(&text[from.min(text.len())..]).into_owned();
            let went_on = |line: &&str| line.contains(WENT_ON);
            if new.lines().filter(|it| !went_on(it)).count() >= asked || Instant::now() > end {
                read().insert(peer.name, text.len());
                let mut lines = HashMap::<String, Vec<String>>::new();
                for (n, line) in new.lines().filter_map(|line| line.split_once('\t')) {
                    let of_case = lines.entry(n.to_owned()).or_default();
                    // Of requests sent at once the last one tells.
                    of_case.retain(|it| went_on(&it.as_str()));
                    of_case.push(line.to_owned());
                }
                return lines;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// In the log of a request whose redirect was followed; the line of where it went comes later.
const WENT_ON: &str = "details=internal_redirect";

/// Sends a request on a new connection, and reads the answer. The address of the caller is given,
/// too.
pub(crate) async fn exchange(to: SocketAddr, call: &Call, by: &Certificates) -> (Message, String) {
    let Some((stream, caller)) = wire::open(to).await else {
        return (Message::ended("nobody listens"), String::new());
    };
    let Some(how) = call.secured else {
        return (exchange_on(stream, call).await, caller);
    };
    let secured = timeout(wire::PATIENCE, by.secure(stream, how, call.http2)).await;
    let mut reply = match secured {
        Ok(Some(stream)) => exchange_on(stream, call).await,
        _ => Message::ended(wire::CLOSED),
    };
    // Who is refused hears of it during the handshake or when it reads, as an alert or as an end.
    if reply.end == "broken" || reply.end.starts_with("no HTTP/2 conn") {
        reply.end = wire::CLOSED;
    }
    (reply, caller)
}

async fn exchange_on<S: wire::Io + 'static>(stream: S, call: &Call) -> Message {
    if call.http2 {
        wire2::exchange(stream, call).await
    } else {
        let then: Vec<_> = call.then.iter().map(|it| it.starts_with("HEAD ")).collect();
        wire::exchange_all(stream, &call.bytes(), &then).await
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
    let by_chance = chance::decides_answers(judged) || chance::decides_answers(theirs);
    judged
        .iter()
        .zip(theirs)
        .enumerate()
        .filter(|(n, _)| *n < last || !by_chance)
        .filter(|(_, (envoy, ours))| !chance::parts(envoy, ours))
        .filter(|(n, (envoy, ours))| {
            // Nobody calls whom a handshake refuses; what is no request is for whoever reads it.
            let refused = matches!(envoy.get("status"), "0" | "400");
            let is_no_call = refused || ours.get("status") == layers::NONE;
            !(peer == "layers" && *n < last && is_no_call)
        })
        .flat_map(|(n, (envoy, ours))| {
            let call = (n < last).then_some(n);
            let unlike = envoy.unlike(ours).into_iter();
            let unlike = unlike.filter(|(fact, envoy, ours)| {
                // Of a subject without a log nobody knows how many attempts were made before.
                let unknown = envoy == facts::LEFT || ours == facts::LEFT;
                !unknown && !chance::explains(fact, envoy, ours, &judged[..last])
            });
            unlike.map(move |(fact, envoy, ours)| of(call, &fact, envoy, ours))
        })
        .collect()
}
