//! Clusters and endpoints leave when nobody needs them any more.

use crate::support::{Cluster, Desk, Endpoints, Listener, Routes, limited};
use mesh_xds::server::{Changes, Event, Sync, Variant};
use mesh_xds::{Encoded, Node};
use std::time::Duration;

fn serving(mut desk: Desk) -> Desk {
    desk.set(&[
        (Cluster, "c", "1"),
        (Cluster, "d", "1"),
        (Endpoints, "c", "1"),
    ]);
    desk.set(&[(Listener, "l", "1"), (Routes, "r", "to c")]);
    desk.sync(Cluster, &[]);
    desk.sync(Endpoints, &["c"]);
    desk.sync(Listener, &[]);
    desk.sync(Routes, &["r"]);
    desk.events();
    desk
}

/// The routes turn from c to d, and c goes.
fn turn(desk: &mut Desk) {
    let changes = Changes::new().set(Routes, Encoded::new("r", &b"to d"[..]));
    desk.apply(changes.remove(Cluster, "c").remove(Endpoints, "c"));
}

#[test]
fn a_cluster_and_its_endpoints_are_removed_after_the_routes_are_acknowledged() {
    let mut desk = serving(Desk::delta());
    turn(&mut desk);
    let routes = desk.expect(Routes, &["r"]);
    desk.expect_silence();
    assert_eq!(desk.machine.status(desk.now)[0].sync, Sync::Stale);
    desk.ack(&routes);
    desk.expect_removed(Cluster, &["c"]);
    desk.expect_removed(Endpoints, &["c"]);
}

#[test]
fn the_whole_holds_a_cluster_until_the_routes_are_acknowledged() {
    let mut desk = serving(Desk::sotw());
    turn(&mut desk);
    let routes = desk.expect(Routes, &["r"]);
    desk.expect_silence();
    // A whole that is sent meanwhile still has it.
    desk.set(&[(Cluster, "e", "1")]);
    let clusters = desk.expect(Cluster, &["c", "d", "e"]);
    desk.ack(&clusters);
    desk.ack(&routes);
    desk.expect(Cluster, &["d", "e"]);
}

#[test]
fn rejected_routes_hold_a_cluster_until_later_ones_are_acknowledged() {
    let mut desk = serving(Desk::delta());
    turn(&mut desk);
    let routes = desk.expect(Routes, &["r"]);
    desk.nack(&routes, "no");
    desk.expect_silence();
    desk.set(&[(Routes, "r", "to d, better")]);
    let routes = desk.expect(Routes, &["r"]);
    desk.expect_silence();
    desk.ack(&routes);
    desk.expect_removed(Cluster, &["c"]);
}

#[test]
fn routes_of_later_are_not_waited_for() {
    let mut desk = serving(Desk::delta());
    turn(&mut desk);
    let routes = desk.expect(Routes, &["r"]);
    desk.set(&[(Routes, "r", "later")]);
    desk.ack(&routes);
    desk.expect(Routes, &["r"]);
    desk.expect_removed(Cluster, &["c"]);
}

#[test]
fn a_cluster_that_nothing_else_changed_with_leaves_at_once() {
    for desk in [Desk::sotw(), Desk::delta()] {
        let mut desk = serving(desk);
        desk.remove(&[(Cluster, "d")]);
        let response = desk.next().unwrap();
        assert_eq!(response.kind(), Some(Cluster));
    }
}

#[test]
fn after_ten_minutes_it_leaves_with_a_warning() {
    let mut desk = serving(Desk::delta());
    turn(&mut desk);
    desk.expect(Routes, &["r"]);
    desk.wait(Duration::from_secs(599));
    desk.expect_silence();
    assert_eq!(
        desk.machine.deadline(),
        Some(desk.now + Duration::from_secs(1))
    );
    desk.wait(Duration::from_secs(1));
    desk.expect_removed(Cluster, &["c"]);
    desk.expect_removed(Endpoints, &["c"]);
    let warned = desk.events().into_iter().filter_map(|event| match event {
        Event::RemovedUnacknowledged { kind, names, .. } => Some((kind, names)),
        _ => None,
    });
    let warned: Vec<_> = warned.collect();
    assert_eq!(
        warned,
        [(Cluster, vec!["c".into()]), (Endpoints, vec!["c".into()])]
    );
}

#[test]
fn a_cluster_that_comes_back_meanwhile_is_not_removed() {
    for (desk, delta) in [(Desk::sotw(), false), (Desk::delta(), true)] {
        let mut desk = serving(desk);
        turn(&mut desk);
        let routes = desk.expect(Routes, &["r"]);
        desk.set(&[(Cluster, "c", "2")]);
        let clusters = desk.expect(Cluster, if delta { &["c"] } else { &["c", "d"] });
        desk.ack(&clusters);
        desk.ack(&routes);
        assert!(desk.ack_all().iter().all(|one| one.kind() != Some(Cluster)));
        desk.set(&[(Cluster, "c", "2")]);
        desk.expect_silence();
    }
}

#[test]
fn a_client_that_asks_for_what_is_going_is_told_that_it_is_gone() {
    let mut desk = serving(Desk::delta());
    turn(&mut desk);
    desk.expect(Routes, &["r"]);
    desk.change(Cluster, &["c"], &[]).unwrap();
    let response = desk.expect_removed(Cluster, &["c"]);
    desk.ack(&response);
    desk.wait(Duration::from_secs(600));
    assert!(desk.ack_all().iter().all(|one| one.kind() != Some(Cluster)));
}

#[test]
fn a_client_without_routes_or_listeners_is_not_waited_for() {
    let mut desk = Desk::delta();
    desk.set(&[(Cluster, "c", "1")]);
    desk.sync(Cluster, &["c"]);
    desk.remove(&[(Cluster, "c")]);
    desk.expect_removed(Cluster, &["c"]);
}

#[test]
fn routes_that_turn_out_to_be_the_same_hold_nothing_back() {
    let mut desk = serving(Desk::delta());
    let other = Changes::new().set(Routes, Encoded::new("r", &b"other"[..]));
    desk.set.apply(other);
    let same = Changes::new().set(Routes, Encoded::new("r", &b"to c"[..]));
    desk.set.apply(same.remove(Cluster, "d"));
    desk.machine.refresh(desk.now);
    desk.expect_removed(Cluster, &["d"]);
}

#[test]
fn a_route_dropped_and_asked_for_again_while_it_was_on_its_way_holds_its_cluster() {
    let mut desk = serving(Desk::delta());
    desk.set(&[(Routes, "r", "to c, better")]);
    let on_its_way = desk.expect(Routes, &["r"]);
    desk.change(Routes, &[], &["r"]).unwrap();
    turn(&mut desk);
    desk.expect_silence();
    desk.change(Routes, &["r"], &[]).unwrap();
    // The client got it after it had asked again, and uses it.
    desk.ack(&on_its_way);
    let routes = desk.expect(Routes, &["r"]);
    desk.expect_silence();
    desk.ack(&routes);
    desk.expect_removed(Cluster, &["c"]);
}

#[test]
fn what_is_back_is_not_removed_though_its_turn_has_not_come() {
    let options = limited(Variant::Delta, |limits| limits.response_resources = 1);
    let mut desk = serving(Desk::with(options, &Node::new("n")));
    turn(&mut desk);
    let routes = desk.expect(Routes, &["r"]);
    desk.expect_silence();
    // Behind another one that changed first.
    desk.set(&[(Cluster, "d", "2")]);
    desk.set(&[(Cluster, "c", "1")]);
    desk.ack(&routes);
    let all = desk.ack_all();
    let removed = all.iter().filter(|one| one.kind() == Some(Cluster));
    assert!(removed.flat_map(|one| &one.removed).next().is_none());
}
