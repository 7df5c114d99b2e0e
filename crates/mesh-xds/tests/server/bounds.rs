//! What a client may not do.

use crate::support::{Cluster, Desk, Endpoints, Routes, limited, sorted, version};
use mesh_xds::Node;
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::server::{Options, Scope, Variant};

#[test]
fn too_many_names_are_refused_over_all_types() {
    for variant in [Variant::Delta, Variant::StateOfTheWorld] {
        let options = limited(variant, |limits| limits.subscriptions = 3);
        let mut desk = Desk::with(options, &Node::new("n"));
        desk.ask(Endpoints, &["a", "b"]);
        desk.ask(Routes, &["a"]);
        let refused = desk.try_ask(Cluster, &["a"]).unwrap_err();
        assert_eq!((refused.code(), refused.message().contains('3')), (8, true));
    }
}

#[test]
fn names_that_are_given_back_make_room() {
    let options = limited(Variant::Delta, |limits| limits.subscriptions = 1);
    let mut desk = Desk::with(options, &Node::new("n"));
    for _ in 0..3 {
        desk.change(Routes, &["a"], &[]).unwrap();
        desk.change(Routes, &[], &["a"]).unwrap();
    }
}

#[test]
fn long_names_are_refused() {
    let options = limited(Variant::Delta, |limits| limits.name_bytes = 3);
    let mut desk = Desk::with(options, &Node::new("n"));
    desk.ask(Routes, &["abc"]);
    assert_eq!(desk.try_ask(Routes, &["abcd"]).unwrap_err().code(), 8);
}

#[test]
fn more_versions_than_names_are_refused_on_return() {
    let options = limited(Variant::Delta, |limits| limits.subscriptions = 1);
    let mut desk = Desk::with(options, &Node::new("n"));
    let request = discovery::DeltaDiscoveryRequest {
        type_url: Cluster.url().into(),
        initial_resource_versions: [("a", "1"), ("b", "1")]
            .map(|(name, version)| (name.to_owned(), version.to_owned()))
            .into(),
        ..Default::default()
    };
    assert_eq!(
        desk.machine
            .delta_request(request, desk.now)
            .unwrap_err()
            .code(),
        8
    );
}

#[test]
fn long_delta_responses_are_cut_into_pieces() {
    let options = limited(Variant::Delta, |limits| limits.response_resources = 2);
    let mut desk = Desk::with(options, &Node::new("n"));
    let names = ["a", "b", "c", "d", "e"];
    desk.set(&names.map(|name| (Cluster, name, "1")));
    desk.ask(Cluster, &[]);
    let all = desk.ack_all();
    assert_eq!(
        all.iter()
            .map(|one| one.resources.len())
            .collect::<Vec<_>>(),
        [2, 2, 1]
    );
    let mut seen: Vec<&str> = all.iter().flat_map(sorted).collect();
    seen.sort_unstable();
    assert_eq!(seen, names);
}

#[test]
fn a_stream_of_one_type_has_no_other() {
    let options = Options::new(Variant::Delta, Scope::Only(Cluster));
    let mut desk = Desk::with(options, &Node::new("n"));
    desk.set(&[(Cluster, "a", "1")]);
    let refused = desk.try_ask(Endpoints, &["a"]).unwrap_err();
    assert_eq!(refused.code(), 3);
    // The type may be left out: the method says it.
    desk.machine
        .delta_request(discovery::DeltaDiscoveryRequest::default(), desk.now)
        .unwrap();
    desk.expect(Cluster, &["a"]);
}

#[test]
fn an_aggregated_stream_needs_the_type() {
    let mut desk = Desk::sotw();
    let request = discovery::DiscoveryRequest::default();
    assert_eq!(
        desk.machine.request(request, desk.now).unwrap_err().code(),
        3
    );
}

#[test]
fn an_unknown_type_does_not_disturb_the_others() {
    let mut desk = Desk::sotw();
    desk.set(&[(Cluster, "a", "1")]);
    let request = discovery::DiscoveryRequest {
        type_url: "type.googleapis.com/no.such.Type".into(),
        ..Default::default()
    };
    desk.machine.request(request, desk.now).unwrap();
    desk.expect_silence();
    desk.ask(Cluster, &[]);
    desk.expect(Cluster, &["a"]);
}

#[test]
fn resource_locators_are_refused_by_name() {
    let mut desk = Desk::sotw();
    let request = discovery::DiscoveryRequest {
        type_url: Cluster.url().into(),
        resource_locators: vec![discovery::ResourceLocator::default()],
        ..Default::default()
    };
    let refused = desk.machine.request(request, desk.now).unwrap_err();
    assert!(refused.message().starts_with("resource_locators"));
}

#[test]
fn delta_responses_are_cut_by_their_length() {
    let options = limited(Variant::Delta, |limits| limits.piece_bytes = 2_000);
    let mut desk = Desk::with(options, &Node::new("n"));
    let long = "x".repeat(700);
    let huge = "x".repeat(5_000);
    desk.set(&[
        (Cluster, "a", &long),
        (Cluster, "b", &long),
        (Cluster, "c", &long),
        (Cluster, "d", &huge),
        (Cluster, "e", "short"),
    ]);
    desk.ask(Cluster, &[]);
    let all = desk.ack_all();
    let names: Vec<Vec<&str>> = all.iter().map(sorted).collect();
    // What is too long for any response goes alone.
    assert_eq!(names, [vec!["a", "b"], vec!["c"], vec!["d"], vec!["e"]]);
}

#[test]
fn removals_count_as_resources_do() {
    let options = limited(Variant::Delta, |limits| limits.response_resources = 2);
    let mut desk = Desk::with(options, &Node::new("n"));
    let names = ["a", "b", "c", "d", "e"];
    desk.set(&names.map(|name| (Cluster, name, "1")));
    desk.ask(Cluster, &[]);
    desk.ack_all();
    desk.remove(&names.map(|name| (Cluster, name)));
    let all = desk.ack_all();
    let counts: Vec<usize> = all.iter().map(|one| one.removed.len()).collect();
    assert_eq!(counts, [2, 2, 1]);
}

#[test]
fn a_name_that_was_given_up_is_not_in_a_later_piece() {
    let options = limited(Variant::Delta, |limits| limits.response_resources = 1);
    let mut desk = Desk::with(options, &Node::new("n"));
    desk.set(&["a", "b", "c"].map(|name| (Endpoints, name, "1")));
    desk.change(Endpoints, &["a", "b", "c"], &[]).unwrap();
    let first = desk.expect(Endpoints, &["a"]);
    desk.change(Endpoints, &[], &["b"]).unwrap();
    desk.ack(&first);
    let last = desk.expect(Endpoints, &["c"]);
    desk.ack(&last);
    desk.expect_silence();
}

#[test]
fn a_later_piece_has_what_is_there_by_then() {
    let options = limited(Variant::Delta, |limits| limits.response_resources = 1);
    let mut desk = Desk::with(options, &Node::new("n"));
    desk.set(&["a", "b"].map(|name| (Endpoints, name, "1")));
    desk.change(Endpoints, &["a", "b"], &[]).unwrap();
    let first = desk.expect(Endpoints, &["a"]);
    desk.set(&[(Endpoints, "b", "2")]);
    desk.expect_silence();
    desk.ack(&first);
    let second = desk.expect(Endpoints, &["b"]);
    assert_eq!(*second.resources[0].resource.version, version("2"));
    desk.ack(&second);
    desk.expect_silence();
}

#[test]
fn what_changes_all_the_time_does_not_hold_up_the_rest() {
    let options = limited(Variant::Delta, |limits| limits.response_resources = 1);
    let mut desk = Desk::with(options, &Node::new("n"));
    desk.set(&["a", "b"].map(|name| (Endpoints, name, "0")));
    desk.change(Endpoints, &["a", "b"], &[]).unwrap();
    let mut seen = Vec::new();
    for round in ["1", "2"] {
        let response = desk.next().unwrap();
        seen.extend(sorted(&response).into_iter().map(str::to_owned));
        desk.set(&[(Endpoints, "a", round)]);
        desk.ack(&response);
    }
    assert_eq!(seen, ["a", "b"]);
}
