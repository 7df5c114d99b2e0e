//! The client's machine in the hands of a server that says anything: with aliases (VHDS), glob
//! collections, and names that requests ask for.

use crate::structured::steps;
use crate::{Input, Target};
use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{Invalid, Name};
use mesh_xds::client::{Config, Event, Machine, Request, Response, Variant};
use mesh_xds::pb::envoy::config::cluster::v3::Cluster;
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::pb::google::protobuf::{Any, Duration as ProtoDuration};
use mesh_xds::{Node, TypeUrl};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

pub(crate) const TARGET: Target = Target {
    name: "client_machine",
    run,
    input: Input::Steps,
};

/// What a server may make the machine keep of a type here.
const MOST: usize = 12;
/// How many responses may wait for their verdicts.
const UNANSWERED: usize = 4;

/// Something that happens to the machine.
#[derive(Arbitrary, Debug)]
enum Step {
    Open(bool),
    Close(u64),
    Ended,
    Subscribe(u8, u8),
    Unsubscribe(u8, u8),
    /// A request wants it.
    Ask(u8, u8),
    TakeBack(u8, u8),
    /// A table whose virtual hosts are taken in.
    Follow(u8),
    Unfollow(u8),
    SubscribeAll(u8),
    Receive(Said),
    /// Bytes that may be a response.
    Bytes(Vec<u8>),
    /// One request is sent.
    Send,
    /// The caller looks at an event.
    Look,
    /// The caller decides about what it has seen longest.
    Settle(bool),
    /// The caller talks nonsense.
    Nonsense(u8, u8),
    Sleep(u16),
}

/// A response, as far as it makes sense.
#[derive(Arbitrary, Debug)]
struct Said {
    kind: u8,
    nonce: Option<u8>,
    items: Vec<Item>,
    removed: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
struct Item {
    name: u8,
    version: u8,
    shape: Shape,
    ttl: Option<u16>,
    aliases: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
enum Shape {
    Good,
    /// The machine cannot read it.
    Bad,
    /// A sign of life.
    Empty,
    /// It is called otherwise inside.
    Misnamed(u8),
    Garbage(Vec<u8>),
    OtherType,
}

/// What the wire has carried of one type on this stream.
#[derive(Debug, Default)]
struct Line {
    /// A request was sent.
    asked: bool,
    wildcard: bool,
    names: BTreeSet<String>,
    /// Nonces of responses, and how often each was answered.
    nonces: BTreeMap<String, usize>,
    last_nonce: String,
}

struct Run {
    machine: Machine<u8>,
    variant: Variant,
    now: Instant,
    nonce: u64,
    introduced: bool,
    lines: BTreeMap<String, Line>,
    wanted: BTreeMap<TypeUrl, BTreeSet<String>>,
    /// What requests want.
    demanded: BTreeMap<TypeUrl, BTreeSet<String>>,
    followed: BTreeSet<String>,
    everything: BTreeSet<TypeUrl>,
    pending: VecDeque<(u64, Name)>,
}

fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let variant = match input.arbitrary() {
        Ok(true) => Variant::Delta,
        _ => Variant::Sotw,
    };
    let keep = input.arbitrary().unwrap_or_default();
    let mut run = Run::new(variant, keep);
    for step in steps(&mut input) {
        run.step(step);
    }
    run.drain();
}

fn decode(_: TypeUrl, bytes: &[u8]) -> Result<u8, Invalid> {
    let message = Cluster::decode(bytes).map_err(|_| Invalid::new("", "is garbage"))?;
    match message.alt_stat_name.as_str() {
        "bad" => Err(Invalid::new("lb_policy", "is bad")),
        _ => Ok(0),
    }
}

fn kind_of(at: u8) -> TypeUrl {
    match at % 5 {
        4 => TypeUrl::VirtualHost,
        other => TypeUrl::ALL[usize::from(other)],
    }
}

fn table_of(at: u8) -> String {
    format!("t{}", at % 2)
}

fn name_of(at: u8) -> String {
    match at % 16 {
        0 => String::new(),
        1 => "*".to_owned(),
        2 => "n".repeat(5_000),
        // Virtual hosts of two tables.
        host @ 3..=6 => format!("t{}/h{}", host % 2, host / 5),
        7 => "xdstp://a/x.Y/d/*".to_owned(),
        8 => "xdstp://a/x.Y/d/one".to_owned(),
        9 => "xdstp://a/x.Y/d/two".to_owned(),
        other => format!("r{other}"),
    }
}

impl Run {
    fn new(variant: Variant, keep: bool) -> Self {
        let mut config = Config::new(Node::new("me"));
        config.variant = variant;
        config.ignore_resource_deletion = keep;
        config.limits.resources = MOST;
        config.limits.unanswered = UNANSWERED;
        Self {
            machine: Machine::new(config, decode),
            variant,
            now: Instant::now(),
            nonce: 0,
            introduced: false,
            lines: BTreeMap::new(),
            wanted: BTreeMap::new(),
            demanded: BTreeMap::new(),
            followed: BTreeSet::new(),
            everything: BTreeSet::new(),
            pending: VecDeque::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Open(same) => {
                self.cut();
                self.machine
                    .opened(if same { "http://a:1" } else { "http://b:1" });
            }
            Step::Close(word) => {
                self.cut();
                let at = self.machine.closed(self.now, word);
                assert!(
                    at <= self.now + self.machine.config().backoff.1,
                    "waits too long"
                );
                assert_eq!(self.machine.retry_at(), Some(at));
            }
            Step::Ended => {
                self.cut();
                self.machine.stream_ended();
            }
            // Names that a caller would not come to: it has them from references that were read.
            Step::Subscribe(_, name)
            | Step::Unsubscribe(_, name)
            | Step::Ask(_, name)
            | Step::TakeBack(_, name)
                if name % 16 < 3 => {}
            // Nothing is asked for on demand in state of the world.
            Step::Ask(..) | Step::TakeBack(..) | Step::Follow(_) | Step::Unfollow(_)
                if self.variant == Variant::Sotw => {}
            Step::Ask(kind, name) => {
                let (kind, name) = (kind_of(kind), name_of(name));
                self.machine.ask(kind, &name.as_str().into());
                self.demanded.entry(kind).or_default().insert(name);
            }
            Step::TakeBack(kind, name) => {
                let (kind, name) = (kind_of(kind), name_of(name));
                self.machine.take_back(kind, &name.as_str().into());
                self.demanded.entry(kind).or_default().remove(&name);
            }
            Step::Follow(table) => {
                self.machine.follow(&table_of(table).into());
                self.followed.insert(table_of(table));
            }
            Step::Unfollow(table) => {
                let table = table_of(table);
                self.machine.unfollow(&table.as_str().into());
                self.followed.remove(&table);
                let of = |name: &String| name.rsplit_once('/').is_some_and(|it| it.0 == table);
                for names in [&mut self.wanted, &mut self.demanded] {
                    let hosts = names.entry(TypeUrl::VirtualHost).or_default();
                    hosts.retain(|name| !of(name));
                }
            }
            Step::Subscribe(kind, name) => {
                let (kind, name) = (kind_of(kind), name_of(name));
                self.machine.subscribe(kind, &name.as_str().into());
                self.wanted.entry(kind).or_default().insert(name);
            }
            Step::Unsubscribe(kind, name) => {
                let (kind, name) = (kind_of(kind), name_of(name));
                self.machine.unsubscribe(kind, &name.as_str().into());
                self.wanted.entry(kind).or_default().remove(&name);
            }
            Step::SubscribeAll(kind) => {
                self.machine.subscribe_all(kind_of(kind));
                self.everything.insert(kind_of(kind));
            }
            Step::Receive(said) => {
                let response = said.response(self.variant, &mut self.nonce);
                self.receive(response);
            }
            Step::Bytes(bytes) => {
                let bytes = bytes.as_slice();
                if let Ok(delta) = discovery::DeltaDiscoveryResponse::decode(bytes) {
                    self.receive(Response::Delta(Box::new(delta)));
                }
                if let Ok(whole) = discovery::DiscoveryResponse::decode(bytes) {
                    self.receive(Response::Sotw(Box::new(whole)));
                }
            }
            Step::Send => drop(self.send()),
            Step::Look => drop(self.look()),
            Step::Settle(good) => drop(self.settle(good)),
            Step::Nonsense(ticket, name) => {
                let name = Name::from(name_of(name));
                self.machine.settle(u64::from(ticket) << 32, &name, Ok(()));
                self.machine.handed_over(u64::from(ticket) << 32);
            }
            Step::Sleep(seconds) => {
                self.now += Duration::from_secs(u64::from(seconds));
                self.machine.tick(self.now);
                let next = self.machine.deadline();
                assert!(
                    next.is_none_or(|at| at > self.now),
                    "a deadline is left behind"
                );
            }
        }
        self.check();
    }

    /// Nothing of the stream is left.
    fn cut(&mut self) {
        self.introduced = false;
        self.lines.clear();
    }

    fn receive(&mut self, response: Response) {
        if !self.machine.may_receive() {
            return;
        }
        let (url, nonce) = match &response {
            Response::Delta(response) => (&response.type_url, &response.nonce),
            Response::Sotw(response) => (&response.type_url, &response.nonce),
        };
        if self.machine.is_open() {
            let line = self.lines.entry(url.clone()).or_default();
            // A server that gives one nonce twice cannot tell answers apart; nobody can.
            *line.nonces.entry(nonce.clone()).or_insert(0) += 1;
            // What was not asked for is refused, and its nonce is not taken up.
            if line.asked {
                line.last_nonce.clone_from(nonce);
            }
        }
        self.machine.receive(response, self.now);
    }

    /// Sends a request, and looks at it as a strict server would.
    fn send(&mut self) -> bool {
        let open = self.machine.is_open();
        let Some(request) = self.machine.poll_request(self.now) else {
            return false;
        };
        assert!(open, "a request without a stream");
        let (node, url, nonce) = match &request {
            Request::Delta(request) => (&request.node, &request.type_url, &request.response_nonce),
            Request::Sotw(request) => (&request.node, &request.type_url, &request.response_nonce),
        };
        assert_eq!(
            node.is_none(),
            self.introduced,
            "the node goes with the first request alone"
        );
        self.introduced = true;
        let known = TypeUrl::from_url(url).is_some_and(|kind| self.asks_for(kind));
        let line = self.lines.entry(url.clone()).or_default();
        // The refusal of what was never asked for asks for nothing.
        let asks = nonce.is_empty() || self.variant == Variant::Sotw;
        let first = asks && !std::mem::replace(&mut line.asked, true);
        match &request {
            Request::Delta(request) => {
                assert_eq!(self.variant, Variant::Delta);
                if !nonce.is_empty() {
                    let left = line.nonces.get_mut(nonce).expect("answers what never came");
                    *left = left.checked_sub(1).expect("answers one response twice");
                }
                let initial = &request.initial_resource_versions;
                assert!(
                    first || initial.is_empty(),
                    "says what it has in the middle of a stream"
                );
                let add: BTreeSet<_> = request.resource_names_subscribe.iter().collect();
                let gone: BTreeSet<_> = request.resource_names_unsubscribe.iter().collect();
                assert_eq!(
                    add.len(),
                    request.resource_names_subscribe.len(),
                    "a name twice"
                );
                assert!(add.is_disjoint(&gone), "comes and goes in one request");
                if first {
                    line.wildcard = add.is_empty();
                }
                for name in add {
                    match name.as_str() {
                        "*" => line.wildcard = true,
                        name => drop(line.names.insert(name.to_owned())),
                    }
                }
                // One that was wanted for a moment only may be left without having been asked for.
                line.names.retain(|name| !gone.contains(&name));
            }
            Request::Sotw(request) => {
                assert_eq!(self.variant, Variant::Sotw);
                if known {
                    assert_eq!(*nonce, line.last_nonce, "answers an old response");
                }
                let names: BTreeSet<_> = request.resource_names.iter().cloned().collect();
                assert_eq!(names.len(), request.resource_names.len(), "a name twice");
                line.wildcard |= names.is_empty() || names.contains("*");
                line.names = names;
                line.names.remove("*");
            }
        }
        true
    }

    fn asks_for(&self, kind: TypeUrl) -> bool {
        let named = self
            .wanted
            .get(&kind)
            .is_some_and(|names| !names.is_empty());
        let demanded = self.demanded.get(&kind);
        let demanded = demanded.is_some_and(|names| !names.is_empty());
        let follows = kind == TypeUrl::VirtualHost && !self.followed.is_empty();
        named || demanded || follows || self.everything.contains(&kind)
    }

    fn look(&mut self) -> bool {
        let Some(event) = self.machine.poll_event() else {
            return false;
        };
        if let Event::Absent(kind, name) = &event {
            assert_eq!(self.variant, Variant::Delta, "{kind} {name}");
        }
        if let Event::Update(update) = event {
            let mut names = BTreeSet::new();
            for (name, _) in update.resources {
                assert!(
                    !update.removed.contains(&name),
                    "{name} came and went at once"
                );
                assert!(names.insert(name.clone()), "{name} twice in an update");
                self.pending.push_back((update.ticket, name));
            }
            self.machine.handed_over(update.ticket);
        }
        true
    }

    fn settle(&mut self, good: bool) -> bool {
        let Some((ticket, name)) = self.pending.pop_front() else {
            return false;
        };
        let result = good.then_some(()).ok_or_else(|| "no ü".repeat(500));
        self.machine.settle(ticket, &name, result);
        true
    }

    /// What holds at any time.
    fn check(&mut self) {
        for kind in TypeUrl::ALL {
            let kept = self.machine.resources(kind).count();
            let wanted = self.wanted.get(&kind).map_or(0, BTreeSet::len);
            let demanded = self.demanded.get(&kind).map_or(0, BTreeSet::len);
            let most = MOST + wanted + demanded;
            assert!(kept <= most, "{kept} of {kind} are kept");
            let status = self.machine.status(kind);
            let told = status.update_success + status.update_rejected;
            assert!(told <= status.update_attempt, "{status:?}");
        }
        let _ = self.machine.has_everything();
    }

    /// Everything is looked at, decided and said; then the server knows what is wanted.
    fn drain(&mut self) {
        while self.look() {}
        while self.settle(true) {}
        let mut sent = 0;
        while self.send() {
            sent += 1;
            assert!(sent < 2_000, "requests without end");
        }
        self.check();
        if !self.machine.is_open() {
            return;
        }
        assert!(
            self.machine.may_receive(),
            "nothing waits, but nothing may come"
        );
        for kind in TypeUrl::ALL {
            let line = self.lines.remove(kind.url()).unwrap_or_default();
            if !self.asks_for(kind) && !line.asked {
                continue;
            }
            let mut wanted = self.wanted.remove(&kind).unwrap_or_default();
            wanted.extend(self.demanded.remove(&kind).unwrap_or_default());
            assert_eq!(
                line.names, wanted,
                "{kind}: the server hears something else"
            );
            assert!(
                line.wildcard || !self.everything.contains(&kind),
                "{kind}: not everything"
            );
            if self.variant == Variant::Delta {
                let open = line
                    .nonces
                    .iter()
                    .find(|(nonce, left)| **left > 0 && !nonce.is_empty());
                assert_eq!(open, None, "{kind}: a response was never answered");
            }
        }
    }
}

impl Said {
    fn response(self, variant: Variant, count: &mut u64) -> Response {
        *count += 1;
        let nonce = self
            .nonce
            .map_or_else(|| count.to_string(), |nonce| format!("again-{nonce}"));
        let kind = match self.kind % 7 {
            6 => TypeUrl::VirtualHost,
            other => TypeUrl::ALL[usize::from(other)],
        };
        let version = count.to_string();
        match variant {
            Variant::Delta => Response::Delta(Box::new(discovery::DeltaDiscoveryResponse {
                system_version_info: version,
                type_url: kind.url().to_owned(),
                nonce,
                resources: self
                    .items
                    .into_iter()
                    .map(|item| item.wrapped(kind))
                    .collect(),
                removed_resources: self.removed.into_iter().map(name_of).collect(),
                ..Default::default()
            })),
            Variant::Sotw => Response::Sotw(Box::new(discovery::DiscoveryResponse {
                version_info: version,
                type_url: kind.url().to_owned(),
                nonce,
                resources: self.items.into_iter().map(|item| item.any(kind)).collect(),
                ..Default::default()
            })),
        }
    }
}

impl Item {
    fn body(&self, kind: TypeUrl) -> Option<Any> {
        let message = |name: u8, text: &str| Cluster {
            name: name_of(name),
            alt_stat_name: text.to_owned(),
            ..Cluster::default()
        };
        let any = |message: Cluster| Any {
            type_url: kind.url().to_owned(),
            value: message.encode_to_vec(),
        };
        Some(match &self.shape {
            Shape::Empty => return None,
            Shape::Good => any(message(self.name, "good")),
            Shape::Bad => any(message(self.name, "bad")),
            Shape::Misnamed(name) => any(message(*name, "good")),
            Shape::Garbage(value) => Any {
                type_url: kind.url().to_owned(),
                value: value.clone(),
            },
            Shape::OtherType => Any {
                type_url: "type.googleapis.com/other".to_owned(),
                ..any(message(self.name, "good"))
            },
        })
    }

    fn wrapped(&self, kind: TypeUrl) -> discovery::Resource {
        discovery::Resource {
            name: name_of(self.name),
            version: self.version.to_string(),
            resource: self.body(kind),
            ttl: self.ttl.map(|seconds| ProtoDuration {
                seconds: i64::from(seconds) - 5,
                nanos: 0,
            }),
            aliases: self.aliases.iter().map(|alias| name_of(*alias)).collect(),
            ..Default::default()
        }
    }

    /// In state of the world a wrapper is there only for a time to live.
    fn any(&self, kind: TypeUrl) -> Any {
        match (self.body(kind), self.ttl) {
            (Some(body), None) => body,
            _ => Any {
                type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".to_owned(),
                value: self.wrapped(kind).encode_to_vec(),
            },
        }
    }
}
