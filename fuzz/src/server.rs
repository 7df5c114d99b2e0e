//! The server's machine in the hands of a client that says anything.

use crate::structured::steps;
use crate::{Input, Target};
use arbitrary::{Arbitrary, Unstructured};
use mesh_core::Publisher;
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::pb::google::rpc;
use mesh_xds::server::{
    Changes, Limits, Machine, Options, Refused, ResourceSet, Response, Scope, Variant, View,
};
use mesh_xds::{Encoded, Node, TypeUrl};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const TARGET: Target = Target {
    name: "server_machine",
    run,
    input: Input::Steps,
};

/// Names that a client may subscribe to here.
const MOST: usize = 10;

/// Something that happens to the machine.
#[derive(Arbitrary, Debug)]
enum Step {
    /// A set changes.
    Change(bool, Vec<(u8, u8, Option<u8>)>),
    /// All resources of a type are others.
    Replace(bool, u8, Vec<(u8, u8)>),
    Clear(bool),
    /// The client is given another view: the first set, or both.
    View(bool),
    /// The machine is told that something has changed. It may also find out later.
    Refresh,
    Ask(Asked),
    /// Bytes that may be a request.
    Bytes(Vec<u8>),
    Poll,
    /// The client answers the response of this type that it has not answered.
    Answer(u8, bool),
    Sleep(u16),
}

#[derive(Arbitrary, Debug)]
struct Asked {
    kind: u8,
    add: Vec<u8>,
    drop: Vec<u8>,
    initial: Vec<(u8, u8)>,
    version: u8,
    nonce: Nonce,
    error: Option<String>,
}

#[derive(Arbitrary, Debug)]
enum Nonce {
    None,
    Open,
    Stale,
    Made(u8),
}

struct Run {
    machine: Machine,
    variant: Variant,
    sets: [ResourceSet; 2],
    views: Publisher<View>,
    now: Instant,
    /// Nonces of responses that are not answered.
    open: BTreeMap<TypeUrl, String>,
    stale: BTreeMap<TypeUrl, String>,
    /// In each type's last request, as state of the world has to repeat it.
    names: BTreeMap<TypeUrl, Vec<String>>,
    /// The stream was ended.
    over: bool,
    most: usize,
}

fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let variant = match input.arbitrary() {
        Ok(true) => Variant::Delta,
        _ => Variant::StateOfTheWorld,
    };
    let scope = match input.arbitrary::<u8>().unwrap_or_default() {
        at @ 0..4 => Scope::Only(TypeUrl::ALL[usize::from(at)]),
        _ => Scope::Aggregated,
    };
    let most = 1 + usize::from(input.arbitrary::<u8>().unwrap_or_default() % 4);
    let mut run = Run::new(variant, scope, most);
    for step in steps(&mut input) {
        run.step(step);
        if run.over {
            return;
        }
    }
    run.quiet();
}

fn kind_of(at: u8) -> TypeUrl {
    TypeUrl::ALL[usize::from(at) % 5]
}

fn name_of(at: u8) -> String {
    match at % 20 {
        0 => String::new(),
        1 => "*".to_owned(),
        2 => "n".repeat(5_000),
        3 => "xdstp://a/b/*".to_owned(),
        other => format!("r{other}"),
    }
}

fn resource(name: u8, text: u8) -> Encoded {
    let one = Encoded::new(name_of(name), vec![text; usize::from(text % 8)]);
    match text % 7 {
        0 => one.with_ttl(Duration::from_secs(u64::from(text))),
        _ => one,
    }
}

impl Run {
    fn new(variant: Variant, scope: Scope, most: usize) -> Self {
        let sets = [ResourceSet::new(), ResourceSet::new()];
        let views = Publisher::new(View::of(sets.clone()));
        let mut limits = Limits::default();
        limits.subscriptions = MOST;
        limits.response_resources = most;
        let mut options = Options::new(variant, scope);
        options.limits = Arc::new(limits);
        let mut node = Node::new("n").to_proto();
        node.client_features = vec!["xds.config.supports-resource-ttl".to_owned()];
        let now = Instant::now();
        Self {
            machine: Machine::new(options, &Node::from_proto(node), views.feed(), now),
            variant,
            sets,
            views,
            now,
            open: BTreeMap::new(),
            stale: BTreeMap::new(),
            names: BTreeMap::new(),
            over: false,
            most,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Change(second, changes) => {
                let set = &self.sets[usize::from(second)];
                let each = changes.into_iter();
                set.apply(
                    each.fold(Changes::new(), |all, (kind, name, text)| match text {
                        Some(text) => all.set(kind_of(kind), resource(name, text)),
                        None => all.remove(kind_of(kind), name_of(name)),
                    }),
                );
            }
            Step::Replace(second, kind, resources) => {
                let set = &self.sets[usize::from(second)];
                let resources = resources.into_iter();
                let resources = resources.map(|(name, text)| resource(name, text));
                set.replace(kind_of(kind), resources.collect());
            }
            Step::Clear(second) => drop(self.sets[usize::from(second)].clear()),
            Step::View(both) => {
                let sets = self.sets.iter().take(1 + usize::from(both)).cloned();
                self.views.publish(Arc::new(View::of(sets)));
            }
            Step::Refresh => self.machine.refresh(self.now),
            Step::Ask(asked) => {
                let heard = self.ask(asked);
                self.over |= heard.is_err();
            }
            Step::Bytes(bytes) => self.over |= self.hear_bytes(&bytes).is_err(),
            Step::Poll => drop(self.poll()),
            Step::Answer(kind, reject) => {
                let heard = self.answer(kind_of(kind), reject);
                self.over |= heard.is_err();
            }
            Step::Sleep(seconds) => {
                self.now += Duration::from_secs(u64::from(seconds));
                self.machine.refresh(self.now);
            }
        }
        self.check();
    }

    fn ask(&mut self, asked: Asked) -> Result<(), Refused> {
        let kind = kind_of(asked.kind);
        let nonce = match asked.nonce {
            Nonce::None => String::new(),
            Nonce::Open => self.open.get(&kind).cloned().unwrap_or_default(),
            Nonce::Stale => self.stale.get(&kind).cloned().unwrap_or_default(),
            Nonce::Made(at) => format!("0-{at:x}"),
        };
        let names = |all: Vec<u8>| all.into_iter().map(name_of).collect::<Vec<_>>();
        let add = names(asked.add);
        self.forget(kind, &nonce);
        let error_detail = asked.error.map(|message| rpc::Status {
            message,
            ..Default::default()
        });
        match self.variant {
            Variant::StateOfTheWorld => {
                self.names.insert(kind, add.clone());
                let request = discovery::DiscoveryRequest {
                    type_url: kind.url().to_owned(),
                    version_info: asked.version.to_string(),
                    resource_names: add,
                    response_nonce: nonce,
                    error_detail,
                    ..Default::default()
                };
                self.machine.request(request, self.now)
            }
            Variant::Delta => {
                let initial = asked.initial.into_iter();
                let request = discovery::DeltaDiscoveryRequest {
                    type_url: kind.url().to_owned(),
                    resource_names_subscribe: add,
                    resource_names_unsubscribe: names(asked.drop),
                    initial_resource_versions: initial
                        .map(|(name, text)| {
                            (name_of(name), resource(name, text).version.to_string())
                        })
                        .collect(),
                    response_nonce: nonce,
                    error_detail,
                    ..Default::default()
                };
                self.machine.delta_request(request, self.now)
            }
        }
    }

    fn hear_bytes(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        match self.variant {
            Variant::StateOfTheWorld => {
                let Ok(request) = discovery::DiscoveryRequest::decode(bytes) else {
                    return Ok(());
                };
                if let Some(kind) = TypeUrl::from_url(&request.type_url) {
                    self.forget(kind, &request.response_nonce);
                }
                self.machine.request(request, self.now)
            }
            Variant::Delta => {
                let Ok(request) = discovery::DeltaDiscoveryRequest::decode(bytes) else {
                    return Ok(());
                };
                if let Some(kind) = TypeUrl::from_url(&request.type_url) {
                    self.forget(kind, &request.response_nonce);
                }
                self.machine.delta_request(request, self.now)
            }
        }
    }

    fn forget(&mut self, kind: TypeUrl, nonce: &str) {
        if self.open.get(&kind).is_some_and(|open| open == nonce) {
            self.open.remove(&kind);
        }
    }

    /// Takes a response off the machine, and looks at it as a strict client would.
    fn poll(&mut self) -> bool {
        let Some(response) = self.machine.poll_response(self.now) else {
            return false;
        };
        self.as_it_travels(&response);
        let Some(kind) = response.kind() else {
            return true;
        };
        let nonce = response.nonce.to_string();
        assert!(!nonce.is_empty());
        let before = self.open.insert(kind, nonce.clone());
        assert_eq!(before, None, "two unanswered responses of {kind}");
        self.stale.insert(kind, nonce);
        let mut names = BTreeSet::new();
        for item in &response.resources {
            assert!(names.insert(&item.resource.name), "{kind}: a name twice");
        }
        for name in &response.removed {
            assert!(
                names.insert(name),
                "{kind}: came and went at once, or went twice"
            );
        }
        if self.variant == Variant::Delta {
            // Signs of life are not counted: they have no contents.
            let full = response.resources.iter().filter(|item| !item.heartbeat);
            assert!(full.count() <= self.most, "more than fits in a response");
        } else {
            assert!(response.removed.is_empty());
        }
        true
    }

    /// What is written by hand is the message that it should be.
    fn as_it_travels(&self, response: &Response) {
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        assert_eq!(bytes.len(), response.encoded_len());
        let bytes = bytes.as_slice();
        let (nonce, count) = match self.variant {
            Variant::Delta => {
                let read = discovery::DeltaDiscoveryResponse::decode(bytes).expect("it is one");
                let removed = read.removed_resources.iter().map(String::as_str);
                assert!(removed.eq(response.removed.iter().map(|name| name.as_str())));
                (read.nonce, read.resources.len())
            }
            Variant::StateOfTheWorld => {
                let read = discovery::DiscoveryResponse::decode(bytes).expect("it is one");
                (read.nonce, read.resources.len())
            }
        };
        assert_eq!(
            (nonce.as_str(), count),
            (&*response.nonce, response.resources.len())
        );
    }

    fn answer(&mut self, kind: TypeUrl, reject: bool) -> Result<(), Refused> {
        let Some(response_nonce) = self.open.remove(&kind) else {
            return Ok(());
        };
        let type_url = kind.url().to_owned();
        let error_detail = reject.then(|| rpc::Status {
            message: "r5: no".to_owned(),
            ..Default::default()
        });
        match self.variant {
            Variant::StateOfTheWorld => {
                let request = discovery::DiscoveryRequest {
                    type_url,
                    resource_names: self.names.get(&kind).cloned().unwrap_or_default(),
                    response_nonce,
                    error_detail,
                    ..Default::default()
                };
                self.machine.request(request, self.now)
            }
            Variant::Delta => {
                let request = discovery::DeltaDiscoveryRequest {
                    type_url,
                    response_nonce,
                    error_detail,
                    ..Default::default()
                };
                self.machine.delta_request(request, self.now)
            }
        }
    }

    fn check(&mut self) {
        let mut named = 0;
        for status in self.machine.status(self.now) {
            named += status.named;
            let _ = self.machine.resources(status.kind);
        }
        assert!(
            self.over || named <= MOST,
            "{named} names are subscribed to"
        );
        let mut events = 0;
        while self.machine.poll_event().is_some() {
            events += 1;
        }
        assert!(events <= 64, "{events} events wait");
    }

    /// Everything is answered, time passes, and then there is nothing more to say.
    fn quiet(&mut self) {
        self.machine.refresh(self.now);
        let mut rounds = 0;
        for _ in 0..3 {
            while self.poll() || !self.open.is_empty() {
                for kind in TypeUrl::ALL {
                    if self.answer(kind, false).is_err() {
                        return;
                    }
                }
                rounds += 1;
                assert!(rounds < 5_000, "it never becomes quiet");
            }
            // Long enough for all that is held back, too short for signs of life.
            self.now += Duration::from_millis(1);
            self.machine.refresh(self.now);
        }
    }
}
