//! The client's machine and the server's on one line: whatever happened, when everything has
//! arrived and was decided, the client has what there is.

use crate::structured::steps;
use crate::{Input, Target};
use arbitrary::{Arbitrary, Unstructured};
use mesh_core::{Feed, Name};
use mesh_xds::client::{self, Config, Event, Request, Variant};
use mesh_xds::pb::envoy::config::cluster::v3::Cluster;
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::server::{self, Changes, Limits, Options, ResourceSet, Scope, View};
use mesh_xds::{Encoded, Node, TypeUrl};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const TARGET: Target = Target {
    name: "converge",
    run,
    input: Input::Steps,
};

/// Clusters are asked for as a whole, endpoints and routes by name.
const KINDS: [TypeUrl; 3] = [TypeUrl::Cluster, TypeUrl::Endpoints, TypeUrl::Routes];

/// Something that happens to either machine or between them.
#[derive(Arbitrary, Debug)]
enum Step {
    /// The set changes; what is new may be something that the client refuses.
    Set(u8, u8, bool),
    Remove(u8, u8),
    Subscribe(u8, u8),
    Unsubscribe(u8, u8),
    /// A message is sent, or one that is on the way arrives.
    Request,
    Hear,
    Respond,
    Receive,
    /// The caller looks at an event, or decides about what it has seen longest.
    Look,
    Settle,
    Cut(bool),
    Sleep(u8),
}

struct Run {
    variant: Variant,
    set: ResourceSet,
    options: Options,
    server: server::Machine,
    client: client::Machine<String>,
    now: Instant,
    up: VecDeque<Request>,
    down: VecDeque<client::Response>,
    wanted: BTreeSet<(TypeUrl, String)>,
    /// What is in force at the client.
    has: BTreeMap<(TypeUrl, String), String>,
    pending: VecDeque<(u64, TypeUrl, Name, String)>,
    count: u64,
}

fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let variant = match input.arbitrary() {
        Ok(true) => Variant::Delta,
        _ => Variant::Sotw,
    };
    let mut run = Run::new(variant, 1 + input.arbitrary::<u8>().unwrap_or_default() % 4);
    for step in steps(&mut input) {
        run.step(step);
    }
    run.quiet();
    run.compare();
}

fn name_of(at: u8) -> String {
    format!("r{}", at % 5)
}

fn bytes_of(name: &str, text: &str) -> Vec<u8> {
    let message = Cluster {
        name: name.to_owned(),
        alt_stat_name: text.to_owned(),
        ..Cluster::default()
    };
    message.encode_to_vec()
}

impl Run {
    fn new(variant: Variant, most: u8) -> Self {
        let set = ResourceSet::new();
        let now = Instant::now();
        let mut limits = Limits::default();
        limits.response_resources = usize::from(most);
        let mut options = Options::new(
            match variant {
                Variant::Delta => server::Variant::Delta,
                Variant::Sotw => server::Variant::StateOfTheWorld,
            },
            Scope::Aggregated,
        );
        options.limits = Arc::new(limits);
        let mut config = Config::new(Node::new("n"));
        config.variant = variant;
        config.missing_after = None;
        let mut client = client::Machine::new(config, |_, bytes| {
            let message = Cluster::decode(bytes).expect("the server passes on what it has");
            Ok(message.alt_stat_name)
        });
        client.subscribe_all(TypeUrl::Cluster);
        client.opened("http://a:1");
        Self {
            variant,
            server: Self::stream(&options, &set, now),
            set,
            options,
            client,
            now,
            up: VecDeque::new(),
            down: VecDeque::new(),
            wanted: BTreeSet::new(),
            has: BTreeMap::new(),
            pending: VecDeque::new(),
            count: 0,
        }
    }

    fn stream(options: &Options, set: &ResourceSet, now: Instant) -> server::Machine {
        let view = Feed::fixed(View::of([set.clone()]));
        server::Machine::new(options.clone(), &Node::new("n"), view, now)
    }

    fn step(&mut self, step: Step) {
        let kind_of = |at: u8| KINDS[usize::from(at) % KINDS.len()];
        match step {
            Step::Set(kind, name, good) => {
                self.count += 1;
                let text = format!("{}-{}", if good { "good" } else { "bad" }, self.count);
                let name = name_of(name);
                let resource = Encoded::new(name.as_str(), bytes_of(&name, &text));
                self.set.apply(Changes::new().set(kind_of(kind), resource));
                self.server.refresh(self.now);
            }
            Step::Remove(kind, name) => {
                self.set
                    .apply(Changes::new().remove(kind_of(kind), name_of(name)));
                self.server.refresh(self.now);
            }
            Step::Subscribe(kind, name) => {
                let (kind, name) = (KINDS[1 + usize::from(kind) % 2], name_of(name));
                self.client.subscribe(kind, &name.as_str().into());
                self.wanted.insert((kind, name));
            }
            Step::Unsubscribe(kind, name) => {
                let (kind, name) = (KINDS[1 + usize::from(kind) % 2], name_of(name));
                self.client.unsubscribe(kind, &name.as_str().into());
                self.forget(kind, &name);
                self.wanted.remove(&(kind, name));
            }
            Step::Request => self.up.extend(self.client.poll_request(self.now)),
            Step::Hear => drop(self.hear()),
            Step::Respond => self.respond(),
            Step::Receive => drop(self.receive()),
            Step::Look => drop(self.look()),
            Step::Settle => drop(self.settle()),
            Step::Cut(same) => {
                self.up.clear();
                self.down.clear();
                self.client.closed(self.now, 0);
                self.client
                    .opened(if same { "http://a:1" } else { "http://b:1" });
                self.server = Self::stream(&self.options, &self.set, self.now);
            }
            Step::Sleep(seconds) => self.sleep(Duration::from_secs(u64::from(seconds))),
        }
    }

    fn sleep(&mut self, time: Duration) {
        self.now += time;
        self.client.tick(self.now);
        self.server.refresh(self.now);
    }

    fn hear(&mut self) -> bool {
        let Some(request) = self.up.pop_front() else {
            return false;
        };
        let heard = match request {
            Request::Delta(request) => self.server.delta_request(*request, self.now),
            Request::Sotw(request) => self.server.request(*request, self.now),
        };
        heard.expect("our server refuses our client");
        true
    }

    fn respond(&mut self) {
        let Some(response) = self.server.poll_response(self.now) else {
            return;
        };
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        let bytes = bytes.as_slice();
        self.down.push_back(match self.variant {
            Variant::Delta => {
                let read = discovery::DeltaDiscoveryResponse::decode(bytes);
                client::Response::Delta(Box::new(read.expect("it is one")))
            }
            Variant::Sotw => {
                let read = discovery::DiscoveryResponse::decode(bytes);
                client::Response::Sotw(Box::new(read.expect("it is one")))
            }
        });
    }

    fn receive(&mut self) -> bool {
        if !self.client.may_receive() {
            return false;
        }
        let Some(response) = self.down.pop_front() else {
            return false;
        };
        self.client.receive(response, self.now);
        true
    }

    fn look(&mut self) -> bool {
        let Some(event) = self.client.poll_event() else {
            return false;
        };
        let Event::Update(update) = event else {
            panic!("our client refuses our server: {event:?}");
        };
        for name in &update.removed {
            self.forget(update.kind, name);
        }
        for (name, text) in update.resources {
            // What is newer takes the place of what still waits.
            self.drop_pending(update.kind, &name);
            let key = (update.kind, name.to_string());
            if update.kind == TypeUrl::Cluster || self.wanted.contains(&key) {
                self.pending
                    .push_back((update.ticket, update.kind, name, text));
            } else {
                self.client.settle(update.ticket, &name, Ok(()));
            }
        }
        self.client.handed_over(update.ticket);
        true
    }

    fn settle(&mut self) -> bool {
        let Some((ticket, kind, name, text)) = self.pending.pop_front() else {
            return false;
        };
        let result = match text.starts_with("bad") {
            true => Err("is bad".to_owned()),
            false => {
                self.has.insert((kind, name.to_string()), text);
                Ok(())
            }
        };
        self.client.settle(ticket, &name, result);
        true
    }

    fn forget(&mut self, kind: TypeUrl, name: &str) {
        self.has.remove(&(kind, name.to_owned()));
        self.drop_pending(kind, name);
    }

    fn drop_pending(&mut self, kind: TypeUrl, name: &str) {
        let all = std::mem::take(&mut self.pending).into_iter();
        let (same, others): (Vec<_>, Vec<_>) =
            all.partition(|(_, other, called, _)| *other == kind && **called == *name);
        self.pending = others.into();
        for (ticket, _, name, _) in same {
            self.client.settle(ticket, &name, Ok(()));
        }
    }

    /// Until nothing happens any more, also not after the time for which removals are held back.
    fn quiet(&mut self) {
        let mut rounds = 0;
        for wait in [0, 10, 700, 0] {
            self.sleep(Duration::from_secs(wait));
            loop {
                self.up.extend(self.client.poll_request(self.now));
                self.respond();
                let busy = [self.hear(), self.receive(), self.look(), self.settle()];
                if !busy.contains(&true) && self.up.is_empty() && self.down.is_empty() {
                    break;
                }
                rounds += 1;
                assert!(rounds < 5_000, "it never becomes quiet");
            }
        }
    }

    fn compare(&self) {
        for kind in KINDS {
            for at in 0..5 {
                let name = name_of(at);
                let key = (kind, name.clone());
                let has = self.has.get(&key);
                assert!(has.is_none_or(|text| text.starts_with("good")));
                if kind != TypeUrl::Cluster && !self.wanted.contains(&key) {
                    assert_eq!(has, None, "{kind} {name} is not wanted");
                    continue;
                }
                let there = self.set.get(kind, &name);
                let there = there.map(|one| {
                    let message = Cluster::decode(one.bytes).expect("it was encoded here");
                    message.alt_stat_name
                });
                match there {
                    Some(text) if text.starts_with("good") => {
                        assert_eq!(has, Some(&text), "{kind} {name}");
                    }
                    // The last good one may still be in force.
                    Some(_) => {}
                    // State of the world cannot say that these went.
                    None if self.variant == Variant::Sotw && !kind.absence_removes() => {}
                    None => assert_eq!(has, None, "{kind} {name} is gone"),
                }
            }
        }
    }
}
