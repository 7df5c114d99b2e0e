//! State of the world: versions, nonces, whole and partial responses.

use crate::support::{Cluster, Desk, Endpoints, Listener, Routes, sorted};
use mesh_xds::server::Event;

#[test]
fn an_acknowledged_version_is_not_sent_again() {
    let mut desk = Desk::sotw();
    desk.set(&[(Cluster, "a", "1")]);
    desk.ask(Cluster, &[]);
    let response = desk.expect(Cluster, &["a"]);
    assert!(!response.version.is_empty() && !response.nonce.is_empty());
    desk.ack(&response);
    desk.expect_silence();
    let acked = desk.events().into_iter().any(|event| {
        matches!(event, Event::Acked { kind: Cluster, nonce, .. } if nonce == response.nonce)
    });
    assert!(acked);
}

#[test]
fn a_rejected_version_is_not_sent_again_and_a_later_one_is() {
    let mut desk = Desk::sotw();
    desk.set(&[(Routes, "r", "bad")]);
    desk.ask(Routes, &["r"]);
    let response = desk.expect(Routes, &["r"]);
    desk.nack(&response, "r: no such cluster");
    desk.expect_silence();
    assert!(desk.events().iter().any(|event| matches!(event,
        Event::Nacked { kind: Routes, message, resources, .. }
            if *message == "r: no such cluster" && *resources == ["r"])));
    desk.set(&[(Routes, "r", "good")]);
    let later = desk.expect(Routes, &["r"]);
    assert_ne!(later.version, response.version);
}

#[test]
fn a_request_with_a_stale_nonce_is_ignored() {
    let mut desk = Desk::sotw();
    desk.set(&[(Endpoints, "a", "1"), (Endpoints, "b", "1")]);
    desk.ask(Endpoints, &["a"]);
    let first = desk.expect(Endpoints, &["a"]);
    desk.ack(&first);
    desk.set(&[(Endpoints, "a", "2")]);
    let second = desk.expect(Endpoints, &["a"]);
    // The client changed its mind before it saw the second response.
    desk.say(Endpoints, first.nonce.to_string(), None).unwrap();
    desk.expect_silence();
    desk.set(&[(Endpoints, "a", "3")]);
    desk.expect_silence();
    desk.ack(&second);
    desk.expect(Endpoints, &["a"]);
}

#[test]
fn nonces_and_versions_of_types_are_apart() {
    let mut desk = Desk::sotw();
    desk.set(&[(Cluster, "a", "1"), (Endpoints, "a", "1")]);
    desk.ask(Cluster, &[]);
    desk.ask(Endpoints, &["a"]);
    let clusters = desk.expect(Cluster, &["a"]);
    let endpoints = desk.expect(Endpoints, &["a"]);
    assert_ne!(clusters.nonce, endpoints.nonce);
    // The nonce of the one does not answer the other.
    desk.say(Cluster, endpoints.nonce.to_string(), None)
        .unwrap();
    desk.set(&[(Cluster, "a", "2")]);
    desk.expect_silence();
}

#[test]
fn clusters_and_listeners_are_sent_as_a_whole_and_without_duplicates() {
    for kind in [Cluster, Listener] {
        let mut desk = Desk::sotw();
        desk.set(&[(kind, "a", "1"), (kind, "b", "1"), (kind, "c", "1")]);
        desk.sync(kind, &["a", "b"]);
        desk.set(&[(kind, "b", "2")]);
        let response = desk.expect(kind, &["a", "b"]);
        desk.ack(&response);
        desk.sync(kind, &["*", "a"]);
        desk.set(&[(kind, "a", "2")]);
        desk.expect(kind, &["a", "b", "c"]);
    }
}

#[test]
fn of_routes_and_endpoints_only_what_changed_is_sent() {
    for kind in [Routes, Endpoints] {
        let mut desk = Desk::sotw();
        desk.set(&[(kind, "a", "1"), (kind, "b", "1"), (kind, "c", "1")]);
        desk.sync(kind, &["a", "b"]);
        desk.set(&[(kind, "b", "2"), (kind, "c", "2")]);
        desk.expect(kind, &["b"]);
    }
}

#[test]
fn absence_from_the_whole_removes_a_listener() {
    let mut desk = Desk::sotw();
    desk.set(&[(Listener, "a", "1"), (Listener, "b", "1")]);
    desk.sync(Listener, &[]);
    desk.remove(&[(Listener, "a"), (Listener, "b")]);
    let response = desk.expect(Listener, &[]);
    assert!(response.removed.is_empty());
}

#[test]
fn what_does_not_exist_is_met_with_silence_until_it_does() {
    for kind in [Cluster, Listener, Routes, Endpoints] {
        let mut desk = Desk::sotw();
        desk.ask(kind, &["later"]);
        desk.expect_silence();
        desk.set(&[(kind, "other", "1")]);
        desk.expect_silence();
        desk.set(&[(kind, "later", "1")]);
        desk.expect(kind, &["later"]);
    }
}

#[test]
fn a_name_that_is_subscribed_to_again_is_sent_again() {
    for kind in [Cluster, Routes] {
        let mut desk = Desk::sotw();
        desk.set(&[(kind, "a", "1"), (kind, "b", "1")]);
        desk.sync(kind, &["a", "b"]);
        desk.ask(kind, &["a"]);
        desk.expect_silence();
        desk.ask(kind, &["a", "b"]);
        let response = desk.next().unwrap();
        assert!(sorted(&response).contains(&"b"));
    }
}

#[test]
fn a_new_name_is_sent_with_the_acknowledgement_of_another() {
    let mut desk = Desk::sotw();
    desk.set(&[(Endpoints, "a", "1"), (Endpoints, "b", "1")]);
    desk.ask(Endpoints, &["a"]);
    let response = desk.expect(Endpoints, &["a"]);
    // One request that acknowledges and asks for more.
    desk.bring(Endpoints, &response.version);
    desk.ask(Endpoints, &["a", "b"]);
    desk.expect(Endpoints, &["b"]);
}

#[test]
fn a_client_that_returns_with_the_present_version_of_everything_is_sent_nothing() {
    let mut desk = Desk::sotw();
    desk.set(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    desk.ask(Cluster, &[]);
    let version = desk.expect(Cluster, &["a", "b"]).version;

    let options = mesh_xds::server::Options::new(
        mesh_xds::server::Variant::StateOfTheWorld,
        mesh_xds::server::Scope::Aggregated,
    );
    let node = mesh_xds::Node::new("n");
    let mut again = Desk::over(desk.set.clone(), options.clone(), &node);
    again.bring(Cluster, &version);
    again.ask(Cluster, &[]);
    again.expect_silence();
    again.set(&[(Cluster, "a", "2")]);
    again.expect(Cluster, &["a", "b"]);

    let mut late = Desk::over(desk.set.clone(), options.clone(), &node);
    late.bring(Cluster, &version);
    late.ask(Cluster, &[]);
    late.expect(Cluster, &["a", "b"]);

    // With names it may have asked for others before.
    let mut named = Desk::over(desk.set.clone(), options, &node);
    named.bring(
        Cluster,
        &late.machine.status(late.now)[0]
            .sent
            .as_ref()
            .unwrap()
            .version,
    );
    named.ask(Cluster, &["a", "b"]);
    named.expect(Cluster, &["a", "b"]);
}

#[test]
fn the_same_contents_have_the_same_version_on_every_stream() {
    let mut one = Desk::sotw();
    one.set(&[(Cluster, "a", "1")]);
    one.ask(Cluster, &[]);
    let first = one.expect(Cluster, &["a"]);
    one.ack(&first);
    one.set(&[(Cluster, "b", "1")]);
    let second = one.expect(Cluster, &["a", "b"]);
    let mut other = Desk::sotw();
    other.set(&[(Cluster, "b", "1"), (Cluster, "a", "1")]);
    other.ask(Cluster, &[]);
    assert_eq!(other.expect(Cluster, &["a", "b"]).version, second.version);
    assert_ne!(first.version, second.version);
}

#[test]
fn identical_bytes_are_no_push() {
    let mut desk = Desk::sotw();
    desk.set(&[(Cluster, "a", "1")]);
    desk.sync(Cluster, &[]);
    desk.set(&[(Cluster, "a", "1")]);
    desk.expect_silence();
    // There and back before anybody looked.
    desk.set
        .apply(mesh_xds::server::Changes::new().remove(Cluster, "a"));
    desk.set(&[(Cluster, "a", "1")]);
    desk.expect_silence();
}
