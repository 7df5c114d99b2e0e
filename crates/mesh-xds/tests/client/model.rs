//! The machine against a small server that does as the protocol says, with messages delayed,
//! verdicts late, resources refused and streams cut at random: in the end the client has what the
//! server has.

use super::support::{CDS, Client, EDS, any, name};
use mesh_xds::TypeUrl;
use mesh_xds::client::{Event, Request, Response, Variant};
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::pb::google::protobuf::Any;
use proptest::prelude::{Just, Strategy, prop, prop_oneof, proptest};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Op {
    /// The server has a new version; some cannot be read, some are refused by the caller.
    Set(bool, u8, u8),
    Remove(bool, u8),
    Push,
    Subscribe(u8),
    Unsubscribe(u8),
    ToServer,
    ToClient,
    Hand,
    Settle,
    Cut(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (proptest::bool::ANY, 0..4_u8, 0..6_u8).prop_map(|(cds, at, how)| Op::Set(cds, at, how)),
        1 => (proptest::bool::ANY, 0..4_u8).prop_map(|(cds, at)| Op::Remove(cds, at)),
        3 => Just(Op::Push),
        2 => (0..4_u8).prop_map(Op::Subscribe),
        2 => (0..4_u8).prop_map(Op::Unsubscribe),
        6 => Just(Op::ToServer),
        6 => Just(Op::ToClient),
        6 => Just(Op::Hand),
        6 => Just(Op::Settle),
        1 => proptest::bool::ANY.prop_map(Op::Cut),
    ]
}

type Have = BTreeMap<String, String>;

/// A server and the state of its stream.
#[derive(Default)]
struct Server {
    has: BTreeMap<TypeUrl, Have>,
    version: u64,
    nonce: u64,
    streams: BTreeMap<TypeUrl, Stream>,
}

#[derive(Default)]
struct Stream {
    wildcard: bool,
    names: BTreeSet<String>,
    /// What the client has, as far as the server knows (delta).
    known: Have,
    nonce: String,
    /// The version that was sent last (state of the world).
    sent: Option<u64>,
}

impl Server {
    fn delta(
        &mut self,
        request: discovery::DeltaDiscoveryRequest,
    ) -> Option<discovery::DeltaDiscoveryResponse> {
        let kind = TypeUrl::from_url(&request.type_url).unwrap();
        let first = !self.streams.contains_key(&kind);
        let stream = self.streams.entry(kind).or_default();
        let asked = request.resource_names_subscribe;
        let mut force = BTreeSet::new();
        if first {
            stream.known = request.initial_resource_versions.into_iter().collect();
            stream.wildcard = asked.is_empty();
        }
        for name in request.resource_names_unsubscribe {
            stream.known.remove(&name);
            stream.names.remove(&name);
        }
        for name in asked {
            if !first {
                stream.known.remove(&name);
            }
            force.insert(name.clone());
            stream.names.insert(name);
        }
        self.push_delta(kind, &force, first)
    }

    fn push_delta(
        &mut self,
        kind: TypeUrl,
        force: &BTreeSet<String>,
        first: bool,
    ) -> Option<discovery::DeltaDiscoveryResponse> {
        let has = self.has.entry(kind).or_default();
        let stream = self.streams.get_mut(&kind)?;
        let wants = |name: &String| stream.wildcard || stream.names.contains(name);
        let news: Have = has
            .iter()
            .filter(|(name, text)| wants(name) && stream.known.get(*name) != Some(text))
            .map(|(name, text)| (name.clone(), text.clone()))
            .collect();
        let gone: BTreeSet<String> = stream
            .known
            .keys()
            .chain(force)
            .filter(|name| wants(name) && !has.contains_key(*name))
            .cloned()
            .collect();
        if news.is_empty() && gone.is_empty() && !first {
            return None;
        }
        for name in &gone {
            stream.known.remove(name);
        }
        stream.known.extend(news.clone());
        self.nonce += 1;
        let resource = |(name, text): (String, String)| discovery::Resource {
            resource: Some(any(kind, &name, said(&text))),
            name,
            version: text,
            ..Default::default()
        };
        Some(discovery::DeltaDiscoveryResponse {
            type_url: kind.url().to_owned(),
            nonce: self.nonce.to_string(),
            resources: news.into_iter().map(resource).collect(),
            removed_resources: gone.into_iter().collect(),
            ..Default::default()
        })
    }

    fn sotw(
        &mut self,
        request: discovery::DiscoveryRequest,
    ) -> Option<discovery::DiscoveryResponse> {
        let kind = TypeUrl::from_url(&request.type_url).unwrap();
        let first = !self.streams.contains_key(&kind);
        let stream = self.streams.entry(kind).or_default();
        if !first && request.response_nonce != stream.nonce {
            return None;
        }
        let names: BTreeSet<String> = request.resource_names.into_iter().collect();
        stream.wildcard |= first && names.is_empty();
        let changed = first || names != stream.names;
        stream.names = names;
        if changed {
            stream.sent = None;
        }
        self.push_sotw(kind)
    }

    fn push_sotw(&mut self, kind: TypeUrl) -> Option<discovery::DiscoveryResponse> {
        let stream = self.streams.get_mut(&kind)?;
        if stream.sent.replace(self.version) == Some(self.version) {
            return None;
        }
        self.nonce += 1;
        stream.nonce = self.nonce.to_string();
        let has = self.has.entry(kind).or_default().iter();
        let resources: Vec<Any> = has
            .filter(|(name, _)| stream.wildcard || stream.names.contains(*name))
            .map(|(name, text)| any(kind, name, said(text)))
            .collect();
        Some(discovery::DiscoveryResponse {
            version_info: self.version.to_string(),
            type_url: kind.url().to_owned(),
            nonce: stream.nonce.clone(),
            resources,
            ..Default::default()
        })
    }
}

/// Versions begin with what becomes of them: `good`, `bad` (unreadable), `clash` (refused later).
fn said(text: &str) -> &str {
    if text.starts_with("bad") { "bad" } else { text }
}

struct Run {
    client: Client,
    server: Server,
    variant: Variant,
    to_server: VecDeque<Request>,
    to_client: VecDeque<Response>,
    applied: BTreeMap<(TypeUrl, String), String>,
    pending: VecDeque<(u64, TypeUrl, mesh_core::Name, String)>,
    wanted: BTreeSet<String>,
    count: u64,
    answers: usize,
    responses: usize,
}

impl Run {
    fn new(variant: Variant) -> Self {
        let mut client = Client::with(variant, |config| config.missing_after = None);
        client.machine.subscribe_all(CDS);
        client.machine.opened("http://a:1");
        Self {
            client,
            server: Server::default(),
            variant,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            applied: BTreeMap::new(),
            pending: VecDeque::new(),
            wanted: BTreeSet::new(),
            count: 0,
            answers: 0,
            responses: 0,
        }
    }

    fn act(&mut self, op: Op) {
        let kind = |cds: bool| if cds { CDS } else { EDS };
        let called = |at: u8| NAMES[usize::from(at)].to_owned();
        match op {
            Op::Set(cds, at, how) => {
                self.count += 1;
                let how = ["bad", "clash"].get(usize::from(how)).unwrap_or(&"good");
                let text = format!("{how}-{}", self.count);
                let has = self.server.has.entry(kind(cds)).or_default();
                has.insert(called(at), text);
                self.server.version += 1;
            }
            Op::Remove(cds, at) => {
                self.server
                    .has
                    .entry(kind(cds))
                    .or_default()
                    .remove(&called(at));
                self.server.version += 1;
            }
            Op::Push => self.push(),
            Op::Subscribe(at) => {
                self.wanted.insert(called(at));
                self.client.machine.subscribe(EDS, &name(&called(at)));
            }
            Op::Unsubscribe(at) => {
                let called = called(at);
                self.wanted.remove(&called);
                self.client.machine.unsubscribe(EDS, &name(&called));
                self.drop(EDS, &called);
            }
            Op::ToServer => self.deliver(),
            Op::ToClient => {
                if let Some(response) = self.to_client.pop_front() {
                    let now = self.client.now;
                    self.client.machine.receive(response, now);
                }
            }
            Op::Hand => self.hand(),
            Op::Settle => self.settle(),
            Op::Cut(same) => {
                self.to_server.clear();
                self.to_client.clear();
                self.server.streams.clear();
                let now = self.client.now;
                self.client.machine.closed(now, 0);
                let server = if same { "http://a:1" } else { "http://b:1" };
                self.client.machine.opened(server);
            }
        }
    }

    fn push(&mut self) {
        for kind in [CDS, EDS] {
            let response = match self.variant {
                Variant::Delta => self
                    .server
                    .push_delta(kind, &BTreeSet::new(), false)
                    .map(|response| Response::Delta(Box::new(response))),
                Variant::Sotw => self
                    .server
                    .push_sotw(kind)
                    .map(|response| Response::Sotw(Box::new(response))),
            };
            self.responses += usize::from(response.is_some());
            self.to_client.extend(response);
        }
    }

    fn deliver(&mut self) {
        self.to_server.extend(self.client.requests());
        let response = match self.to_server.pop_front() {
            Some(Request::Delta(request)) => {
                self.answers += usize::from(!request.response_nonce.is_empty());
                let response = self.server.delta(*request);
                response.map(|response| Response::Delta(Box::new(response)))
            }
            Some(Request::Sotw(request)) => {
                let response = self.server.sotw(*request);
                response.map(|response| Response::Sotw(Box::new(response)))
            }
            None => None,
        };
        self.responses += usize::from(response.is_some());
        self.to_client.extend(response);
    }

    /// The caller looks at one update. A newer version of what still waits takes its place.
    fn hand(&mut self) {
        let Some(event) = self.client.machine.poll_event() else {
            return;
        };
        let Event::Update(update) = event else {
            panic!("{event:?}")
        };
        for name in &update.removed {
            self.drop(update.kind, name);
        }
        for (name, text) in update.resources {
            self.forget_pending(update.kind, &name);
            if update.kind == CDS || self.wanted.contains(name.as_str()) {
                self.pending
                    .push_back((update.ticket, update.kind, name, text));
            } else {
                // Let go since; that is no reason to refuse it.
                self.client.machine.settle(update.ticket, &name, Ok(()));
            }
        }
        self.client.machine.handed_over(update.ticket);
    }

    fn settle(&mut self) {
        let Some((ticket, kind, name, text)) = self.pending.pop_front() else {
            return;
        };
        let result = if text.starts_with("clash") {
            Err("clash".to_owned())
        } else {
            self.applied.insert((kind, name.to_string()), text);
            Ok(())
        };
        self.client.machine.settle(ticket, &name, result);
    }

    fn drop(&mut self, kind: TypeUrl, name: &str) {
        self.applied.remove(&(kind, name.to_owned()));
        self.forget_pending(kind, name);
    }

    fn forget_pending(&mut self, kind: TypeUrl, name: &str) {
        let (same, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.pending)
            .into_iter()
            .partition(|(_, k, n, _)| *k == kind && *n == *name);
        self.pending = others.into();
        for (ticket, _, name, _) in same {
            self.client.machine.settle(ticket, &name, Ok(()));
        }
    }

    /// Until nothing happens any more.
    fn calm(&mut self) {
        for _ in 0..200 {
            self.push();
            for op in [Op::ToServer, Op::ToClient, Op::Hand, Op::Settle] {
                self.act(op);
            }
        }
        assert!(self.to_client.is_empty() && self.to_server.is_empty());
        assert!(self.pending.is_empty());
    }

    fn check(&self) {
        for kind in [CDS, EDS] {
            let empty = Have::new();
            let has = self.server.has.get(&kind).unwrap_or(&empty);
            for name in NAMES {
                let applied = self.applied.get(&(kind, name.to_owned()));
                if kind == EDS && !self.wanted.contains(name) {
                    assert_eq!(applied, None, "nobody wants {name}");
                    continue;
                }
                match has.get(name) {
                    Some(text) if text.starts_with("good") => {
                        assert_eq!(applied, Some(text), "{kind:?} {name}");
                    }
                    // The last good one may be there.
                    Some(_) => {}
                    None if kind == CDS || self.variant == Variant::Delta => {
                        assert_eq!(applied, None, "{kind:?} {name} is gone");
                    }
                    None => {}
                }
                assert!(applied.is_none_or(|text| text.starts_with("good")));
            }
        }
    }
}

fn run(variant: Variant, ops: Vec<Op>) {
    let mut run = Run::new(variant);
    let cut = ops.iter().any(|op| matches!(op, Op::Cut(_)));
    for op in ops {
        run.act(op);
    }
    run.calm();
    run.check();
    if variant == Variant::Delta && !cut {
        assert_eq!(
            run.answers, run.responses,
            "every response is answered once"
        );
    }
}

proptest! {
    #[test]
    fn a_delta_client_ends_with_what_the_server_has(ops in prop::collection::vec(op(), 0..120)) {
        run(Variant::Delta, ops);
    }

    #[test]
    fn a_state_of_the_world_client_ends_with_what_the_server_has(
        ops in prop::collection::vec(op(), 0..120),
    ) {
        run(Variant::Sotw, ops);
    }
}
