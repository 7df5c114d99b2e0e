//! How much is looked at for what is sent.

use crate::pb::envoy::service::discovery::v3 as discovery;
use crate::server::{Changes, Machine, Options, ResourceSet, Response, Scope, Variant, View};
use crate::{Encoded, Node, TypeUrl};
use mesh_core::Feed;
use std::sync::Arc;
use std::time::Instant;

const ALL: usize = 1_000;
const PIECE: usize = 10;

struct Counted {
    set: ResourceSet,
    machine: Machine,
    now: Instant,
}

impl Counted {
    fn new() -> Self {
        let (set, now) = (ResourceSet::new(), Instant::now());
        let mut options = Options::new(Variant::Delta, Scope::Aggregated);
        Arc::make_mut(&mut options.limits).response_resources = PIECE;
        let view = Feed::fixed(View::of([set.clone()]));
        let machine = Machine::new(options, &Node::new("n"), view, now);
        let mut counted = Self { set, machine, now };
        counted.change("1");
        counted
    }

    fn change(&mut self, text: &str) {
        let changes = (0..ALL).fold(Changes::new(), |changes, number| {
            let name = format!("{number:04}");
            let one = Encoded::new(name, text.as_bytes().to_vec());
            changes.set(TypeUrl::Endpoints, one)
        });
        self.set.apply(changes);
        self.machine.refresh(self.now);
    }

    fn say(&mut self, names: Vec<String>, nonce: &str) {
        let request = discovery::DeltaDiscoveryRequest {
            type_url: TypeUrl::Endpoints.url().into(),
            resource_names_subscribe: names,
            response_nonce: nonce.into(),
            ..discovery::DeltaDiscoveryRequest::default()
        };
        self.machine.delta_request(request, self.now).unwrap();
    }

    /// Acknowledges everything. Returns the responses and how much was read for each.
    fn drain(&mut self) -> Vec<(Response, usize)> {
        let mut all = Vec::new();
        let mut before = self.set.count_reads(0);
        while let Some(response) = self.machine.poll_response(self.now) {
            let reads = self.set.count_reads(0);
            self.say(Vec::new(), &response.nonce);
            all.push((response, reads - before));
            before = reads;
        }
        all
    }
}

fn names() -> Vec<String> {
    (0..ALL).map(|number| format!("{number:04}")).collect()
}

#[track_caller]
fn assert_in_pieces(all: &[(Response, usize)], first: usize) {
    assert_eq!(all.len(), ALL / PIECE);
    for (index, (response, reads)) in all.iter().enumerate() {
        assert_eq!(response.resources.len(), PIECE);
        let most = if index == 0 { first } else { PIECE + 1 };
        assert!(*reads <= most, "{reads} reads for response {index}");
    }
}

#[test]
fn each_piece_of_what_was_asked_for_reads_what_it_sends() {
    let mut counted = Counted::new();
    counted.say(names(), "");
    assert_in_pieces(&counted.drain(), PIECE + 1);
}

#[test]
fn each_piece_of_a_change_reads_what_it_sends() {
    let mut counted = Counted::new();
    counted.say(names(), "");
    counted.drain();
    counted.change("2");
    assert_in_pieces(&counted.drain(), PIECE + 1);
}

#[test]
fn everything_is_compared_once() {
    let mut counted = Counted::new();
    counted.say(vec!["*".into()], "");
    assert_in_pieces(&counted.drain(), ALL);
}

#[test]
fn what_is_not_needed_is_looked_at_once() {
    let mut counted = Counted::new();
    counted.say(names(), "");
    let held = counted.drain().len();
    counted.change("2");
    counted.change("1");
    let before = counted.set.count_reads(0);
    assert!(counted.drain().is_empty());
    counted.machine.refresh(counted.now);
    assert!(counted.drain().is_empty());
    assert_eq!(
        (held, counted.set.count_reads(0) - before),
        (ALL / PIECE, ALL)
    );
}

#[test]
fn a_collection_looks_at_its_own_directory_and_at_nothing_else() {
    const KIND: &str = "envoy.config.endpoint.v3.ClusterLoadAssignment";
    let mut counted = Counted::new();
    let name = |directory: usize, one: usize| format!("xdstp://a/{KIND}/d{directory:02}/{one}");
    let changes = (0..ALL).fold(Changes::new(), |changes, at| {
        let one = Encoded::new(name(at / PIECE, at), "1".as_bytes().to_vec());
        changes.set(TypeUrl::Endpoints, one)
    });
    counted.set.apply(changes);
    counted.machine.refresh(counted.now);
    let before = counted.set.count_reads(0);
    let globs = (0..ALL / PIECE).map(|directory| format!("xdstp://a/{KIND}/d{directory:02}/*"));
    counted.say(globs.collect(), "");
    let sent: usize = counted
        .drain()
        .iter()
        .map(|(all, _)| all.resources.len())
        .sum();
    assert_eq!(sent, ALL);
    // Each is found once and read once to be sent; of each directory one look says whether it is
    // empty. All that there is, for each collection, would be a hundred times as much.
    let reads = counted.set.count_reads(0) - before;
    assert!(reads <= 4 * ALL, "{reads}");
    // The same when nothing of what changed is remembered.
    let before = counted.set.count_reads(0);
    for round in 0..5 {
        counted.change(&round.to_string());
    }
    counted.drain();
    let reads = counted.set.count_reads(0) - before;
    assert!(reads <= 4 * ALL, "{reads}");
}
