//! Views that move, and many sets.

use crate::support::{Cluster, Desk, Listener, Routes, fixed, removed, sorted};
use mesh_xds::server::{Changes, Machine, Options, ResourceSet, Scope, Variant, View};
use mesh_xds::{Encoded, Node};
use std::sync::Arc;
use std::time::Instant;

fn set_of(entries: &[(mesh_xds::TypeUrl, &str, &'static str)]) -> ResourceSet {
    let set = ResourceSet::new();
    set.apply(
        entries
            .iter()
            .fold(Changes::new(), |changes, (kind, name, text)| {
                changes.set(*kind, Encoded::new(*name, text.as_bytes()))
            }),
    );
    set
}

#[test]
fn a_view_that_moves_to_other_sets_costs_the_client_the_difference() {
    let mut desk = Desk::delta();
    desk.set(&[
        (Listener, "same", "1"),
        (Listener, "gone", "1"),
        (Listener, "other", "1"),
    ]);
    desk.sync(Listener, &[]);
    let next = set_of(&[
        (Listener, "same", "1"),
        (Listener, "other", "2"),
        (Listener, "new", "1"),
    ]);
    desk.views.publish(Arc::new(View::of([next.clone()])));
    desk.machine.refresh(desk.now);
    let response = desk.next().unwrap();
    assert_eq!(
        (sorted(&response), removed(&response)),
        (vec!["new", "other"], vec!["gone"])
    );
    desk.ack(&response);
    // The new set is followed, the old one is not.
    desk.set(&[(Listener, "gone", "2")]);
    desk.expect_silence();
    next.apply(Changes::new().set(Listener, Encoded::new("new", &b"2"[..])));
    desk.machine.refresh(desk.now);
    desk.expect(Listener, &["new"]);
}

#[test]
fn removals_of_a_moved_view_wait_for_its_routes() {
    let mut desk = Desk::delta();
    desk.set(&[(Cluster, "old", "1"), (Routes, "r", "to old")]);
    desk.sync(Cluster, &[]);
    desk.sync(Routes, &["r"]);
    let next = set_of(&[(Cluster, "new", "1"), (Routes, "r", "to new")]);
    desk.views.publish(Arc::new(View::of([next])));
    desk.machine.refresh(desk.now);
    let clusters = desk.expect(Cluster, &["new"]);
    assert!(clusters.removed.is_empty());
    desk.ack(&clusters);
    let routes = desk.expect(Routes, &["r"]);
    desk.expect_silence();
    desk.ack(&routes);
    desk.expect_removed(Cluster, &["old"]);
}

#[test]
fn the_earlier_set_answers_and_what_it_loses_the_later_one_gives() {
    let (own, shared) = (
        set_of(&[(Routes, "r", "own")]),
        set_of(&[(Routes, "r", "shared")]),
    );
    let options = Options::new(Variant::Delta, Scope::Aggregated);
    let now = Instant::now();
    let view = fixed([own.clone(), shared]);
    let mut machine = Machine::new(options, &Node::new("n"), view, now);
    let request = mesh_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest {
        type_url: Routes.url().into(),
        resource_names_subscribe: vec!["*".into()],
        ..Default::default()
    };
    machine.delta_request(request.clone(), now).unwrap();
    let first = machine.poll_response(now).unwrap();
    assert_eq!(first.resources.len(), 1);
    assert_eq!(first.resources[0].resource.bytes, &b"own"[..]);
    let ack = mesh_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest {
        resource_names_subscribe: Vec::new(),
        response_nonce: first.nonce.to_string(),
        ..request
    };
    machine.delta_request(ack, now).unwrap();
    own.clear();
    machine.refresh(now);
    let second = machine.poll_response(now).unwrap();
    assert_eq!(second.resources[0].resource.bytes, &b"shared"[..]);
    assert!(second.removed.is_empty());
}

#[test]
fn a_reader_that_was_too_far_behind_compares_everything() {
    let mut desk = Desk::delta();
    desk.set(&[(Listener, "a", "1"), (Listener, "b", "1")]);
    desk.sync(Listener, &[]);
    for count in 0..5_000 {
        let text = format!("{count}").into_bytes();
        desk.set
            .apply(Changes::new().set(Listener, Encoded::new("c", text)));
    }
    desk.set.apply(Changes::new().remove(Listener, "a"));
    desk.machine.refresh(desk.now);
    let response = desk.next().unwrap();
    assert_eq!(
        (sorted(&response), removed(&response)),
        (vec!["c"], vec!["a"])
    );
}
