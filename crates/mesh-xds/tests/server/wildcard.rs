//! Asking for everything, by name, and for both.

use crate::support::{Cluster, Desk, Endpoints, Listener, sorted};

#[test]
fn an_empty_first_request_asks_for_all_clusters_or_listeners() {
    for mut desk in [Desk::sotw(), Desk::delta()] {
        desk.set(&[(Cluster, "a", "1"), (Listener, "l", "1")]);
        desk.ask(Cluster, &[]);
        let response = desk.expect(Cluster, &["a"]);
        desk.ack(&response);
        desk.ask(Listener, &[]);
        desk.expect(Listener, &["l"]);
    }
}

#[test]
fn an_empty_first_request_asks_for_no_endpoints() {
    for mut desk in [Desk::sotw(), Desk::delta()] {
        desk.set(&[(Endpoints, "a", "1")]);
        desk.ask(Endpoints, &[]);
        desk.expect_silence();
        desk.ask(Endpoints, &["*"]);
        desk.expect(Endpoints, &["a"]);
    }
}

#[test]
fn a_star_asks_for_everything() {
    for mut desk in [Desk::sotw(), Desk::delta()] {
        desk.set(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
        desk.ask(Cluster, &["*"]);
        desk.expect(Cluster, &["a", "b"]);
    }
}

#[test]
fn after_a_name_an_empty_list_unsubscribes_from_all() {
    for first in [&["a"][..], &["*"], &["*", "a"]] {
        let mut desk = Desk::sotw();
        desk.set(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
        desk.sync(Cluster, first);
        desk.ask(Cluster, &[]);
        desk.set(&[(Cluster, "a", "2"), (Cluster, "b", "2")]);
        desk.expect_silence();
    }
}

#[test]
fn the_protocols_example_of_a_changing_list_in_the_state_of_the_world() {
    let mut desk = Desk::sotw();
    desk.set(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    desk.sync(Cluster, &[]);
    desk.ask(Cluster, &["*", "a"]);
    let response = desk.expect(Cluster, &["a", "b"]);
    desk.ack(&response);
    desk.ask(Cluster, &["a"]);
    desk.set(&[(Cluster, "b", "2")]);
    desk.expect_silence();
    desk.set(&[(Cluster, "a", "2")]);
    let response = desk.expect(Cluster, &["a"]);
    desk.ack(&response);
    desk.ask(Cluster, &[]);
    desk.set(&[(Cluster, "a", "3")]);
    desk.expect_silence();
}

#[test]
fn the_protocols_example_of_a_changing_list_in_the_delta_protocol() {
    let mut desk = Desk::delta();
    desk.set(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    desk.sync(Cluster, &[]);
    desk.change(Cluster, &["a"], &[]).unwrap();
    let response = desk.expect(Cluster, &["a"]);
    desk.ack(&response);
    desk.set(&[(Cluster, "b", "2")]);
    let response = desk.expect(Cluster, &["b"]);
    desk.ack(&response);
    desk.change(Cluster, &[], &["*"]).unwrap();
    desk.set(&[(Cluster, "b", "3")]);
    desk.expect_silence();
    desk.set(&[(Cluster, "a", "3")]);
    let response = desk.expect(Cluster, &["a"]);
    desk.ack(&response);
    desk.change(Cluster, &[], &["a"]).unwrap();
    desk.set(&[(Cluster, "a", "4"), (Cluster, "b", "4")]);
    desk.expect_silence();
}

#[test]
fn a_delta_client_that_drops_a_name_under_a_wildcard_is_told_of_the_resource() {
    let mut desk = Desk::delta();
    desk.set(&[(Cluster, "a", "1")]);
    desk.sync(Cluster, &["*", "a", "none"]);
    desk.change(Cluster, &[], &["a", "none"]).unwrap();
    let response = desk.next().unwrap();
    assert_eq!(sorted(&response), ["a"]);
    assert_eq!(response.removed, ["none"]);
    desk.ack(&response);
    // It is still part of everything.
    desk.set(&[(Cluster, "a", "2")]);
    desk.expect(Cluster, &["a"]);
}

#[test]
fn a_client_of_the_whole_that_drops_a_name_under_a_wildcard_is_sent_the_whole() {
    let mut desk = Desk::sotw();
    desk.set(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    desk.sync(Cluster, &["*", "a"]);
    desk.ask(Cluster, &["*"]);
    desk.expect(Cluster, &["a", "b"]);
}

#[test]
fn dropping_a_name_without_a_wildcard_needs_no_answer() {
    let mut desk = Desk::delta();
    desk.set(&[(Cluster, "a", "1")]);
    desk.sync(Cluster, &["a", "b"]);
    desk.change(Cluster, &[], &["a", "b", "never"]).unwrap();
    desk.expect_silence();
    desk.set(&[(Cluster, "a", "2")]);
    desk.expect_silence();
}

#[test]
fn dropping_a_name_that_was_never_asked_for_is_ignored() {
    let mut desk = Desk::delta();
    desk.set(&[(Cluster, "a", "1")]);
    desk.sync(Cluster, &["*"]);
    desk.change(Cluster, &[], &["a", "never"]).unwrap();
    desk.expect_silence();
}

#[test]
fn an_empty_everything_is_answered_so_that_nobody_waits() {
    for mut desk in [Desk::sotw(), Desk::delta()] {
        desk.ask(Cluster, &[]);
        let response = desk.expect(Cluster, &[]);
        assert!(response.removed.is_empty());
        desk.ack(&response);
        desk.expect_silence();
    }
}
