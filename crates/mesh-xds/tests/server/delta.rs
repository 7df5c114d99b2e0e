//! The delta protocol: versions of resources, removals, reconnection.

use crate::support::{Cluster, Desk, Endpoints, Listener, Routes, removed, sorted, version};
use mesh_xds::TypeUrl;
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::server::{Event, ResourceState, Sync};
use std::time::Duration;

#[test]
fn only_the_difference_is_sent() {
    let mut desk = Desk::delta();
    desk.set(&[(Cluster, "a", "1"), (Cluster, "b", "1")]);
    desk.sync(Cluster, &[]);
    desk.set(&[(Cluster, "b", "2"), (Cluster, "c", "1")]);
    let response = desk.expect(Cluster, &["b", "c"]);
    let versions: Vec<_> = response
        .resources
        .iter()
        .map(|item| &item.resource)
        .collect();
    assert!(versions.iter().all(|one| !one.version.is_empty()));
    assert_ne!(versions[0].version, versions[1].version);
}

#[test]
fn subscription_changes_count_even_if_the_nonce_is_stale() {
    let mut desk = Desk::delta();
    desk.set(&[(Routes, "a", "1"), (Routes, "b", "1")]);
    desk.ask(Routes, &["a"]);
    let response = desk.expect(Routes, &["a"]);
    let stale = mesh_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest {
        type_url: Routes.url().into(),
        response_nonce: "of another time".into(),
        resource_names_subscribe: vec!["b".into()],
        resource_names_unsubscribe: vec!["a".into()],
        ..Default::default()
    };
    desk.machine.delta_request(stale, desk.now).unwrap();
    // It answered nothing, so nothing more is sent yet.
    desk.expect_silence();
    desk.ack(&response);
    desk.expect(Routes, &["b"]);
}

#[test]
fn what_does_not_exist_is_said_to_be_removed_and_sent_when_it_does_exist() {
    for kind in [Cluster, Endpoints, Listener, Routes] {
        let mut desk = Desk::delta();
        desk.ask(kind, &["none"]);
        let response = desk.expect_removed(kind, &["none"]);
        desk.ack(&response);
        assert_eq!(
            desk.machine.resources(kind)[0].state,
            ResourceState::DoesNotExist
        );
        desk.set(&[(kind, "none", "1")]);
        desk.expect(kind, &["none"]);
    }
}

#[test]
fn a_name_that_is_subscribed_to_again_is_sent_again() {
    let mut desk = Desk::delta();
    desk.set(&[(Routes, "a", "1"), (Routes, "b", "1")]);
    desk.sync(Routes, &["a", "b"]);
    desk.change(Routes, &["a"], &[]).unwrap();
    desk.expect(Routes, &["a"]);
}

#[test]
fn a_resource_that_goes_is_removed() {
    let mut desk = Desk::delta();
    desk.set(&[(Listener, "a", "1"), (Listener, "b", "1")]);
    desk.sync(Listener, &[]);
    desk.remove(&[(Listener, "a")]);
    let response = desk.expect_removed(Listener, &["a"]);
    desk.ack(&response);
    assert_eq!(desk.machine.resources(Listener).len(), 1);
}

#[test]
fn a_client_that_returns_is_sent_the_difference_and_what_vanished() {
    let mut desk = Desk::delta();
    desk.set(&[
        (Listener, "same", "1"),
        (Listener, "new", "1"),
        (Listener, "other", "2"),
    ]);
    let has = [
        ("same", &*version("1")),
        ("other", &*version("1")),
        ("gone", "x"),
    ];
    desk.resume(Listener, &[], &has);
    let response = desk.next().unwrap();
    assert_eq!(sorted(&response), ["new", "other"]);
    assert_eq!(response.removed, ["gone"]);
}

#[test]
fn a_client_that_returns_with_names_is_sent_the_difference_of_these() {
    let mut desk = Desk::delta();
    desk.set(&[
        (Routes, "same", "1"),
        (Routes, "other", "2"),
        (Routes, "new", "1"),
    ]);
    let has = [
        ("same", &*version("1")),
        ("other", &*version("1")),
        ("gone", "x"),
        ("unwanted", "x"),
    ];
    desk.resume(Routes, &["same", "other", "gone", "new", "none"], &has);
    let response = desk.next().unwrap();
    assert_eq!(sorted(&response), ["new", "other"]);
    assert_eq!(removed(&response), ["gone", "none"]);
}

#[test]
fn a_client_that_returns_with_everything_is_in_sync_at_once() {
    let mut desk = Desk::delta();
    desk.set(&[(Cluster, "a", "1")]);
    desk.resume(Cluster, &[], &[("a", &version("1"))]);
    desk.expect_silence();
    assert_eq!(desk.machine.status(desk.now)[0].sync, Sync::Synced);
    desk.set(&[(Cluster, "a", "2")]);
    desk.expect(Cluster, &["a"]);
}

#[test]
fn the_versions_of_a_later_request_are_not_those_of_a_return() {
    let mut desk = Desk::delta();
    desk.set(&[(Routes, "a", "1"), (Routes, "b", "1")]);
    desk.sync(Routes, &["a"]);
    desk.resume(Routes, &["b"], &[("b", &version("1"))]);
    desk.expect(Routes, &["b"]);
}

#[test]
fn a_cluster_that_vanished_while_a_client_was_away_leaves_when_it_has_the_routes() {
    let mut desk = Desk::delta();
    desk.set(&[(Routes, "r", "without")]);
    desk.resume(Cluster, &[], &[("gone", "x")]);
    desk.expect_silence();
    desk.ask(Routes, &["r"]);
    let routes = desk.expect(Routes, &["r"]);
    desk.wait(Duration::from_secs(60));
    desk.expect_silence();
    desk.ack(&routes);
    desk.expect_removed(Cluster, &["gone"]);
}

#[test]
fn a_rejected_resource_is_not_sent_again_and_the_others_go_on() {
    let mut desk = Desk::delta();
    desk.set(&[(Routes, "bad", "1"), (Routes, "good", "1")]);
    desk.ask(Routes, &["bad", "good"]);
    let response = desk.expect(Routes, &["bad", "good"]);
    desk.nack(&response, "bad: regex does not compile");
    desk.expect_silence();
    let status = &desk.machine.status(desk.now)[0];
    assert_eq!(status.sync, Sync::Nacked);
    assert_eq!(
        status.nacked.as_ref().unwrap().message,
        "bad: regex does not compile"
    );
    assert!(desk.events().iter().any(|event| {
        matches!(event, Event::Nacked { resources, .. } if *resources == ["bad"])
    }));
    desk.set(&[(Routes, "good", "2")]);
    let response = desk.expect(Routes, &["good"]);
    desk.ack(&response);
    let states = desk.machine.resources(Routes);
    assert!(
        matches!(states[0].state, ResourceState::Nacked { .. }),
        "{states:?}"
    );
    assert_eq!(states[1].state, ResourceState::Acked);
    desk.set(&[(Routes, "bad", "2")]);
    let response = desk.expect(Routes, &["bad"]);
    desk.ack(&response);
    assert_eq!(desk.machine.status(desk.now)[0].sync, Sync::Synced);
}

#[test]
fn an_unknown_type_does_not_exist() {
    let mut desk = Desk::delta();
    let request = mesh_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/no.such.Type".into(),
        resource_names_subscribe: vec!["a".into(), "*".into()],
        ..Default::default()
    };
    desk.machine
        .delta_request(request.clone(), desk.now)
        .unwrap();
    let response = desk.next().unwrap();
    assert_eq!(&*response.url, "type.googleapis.com/no.such.Type");
    assert_eq!(response.removed, ["a"]);
    let ack = mesh_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest {
        resource_names_subscribe: Vec::new(),
        response_nonce: response.nonce.to_string(),
        ..request
    };
    desk.machine.delta_request(ack, desk.now).unwrap();
    desk.expect_silence();
    assert!(
        desk.events()
            .iter()
            .any(|event| matches!(event, Event::UnknownType { .. }))
    );
}

#[test]
fn structured_names_are_found_whatever_the_order_of_their_context_parameters() {
    for mut desk in [Desk::delta(), Desk::sotw()] {
        let (form, other) = (
            "xdstp://a/envoy.config.route.v3.RouteConfiguration/x?b=2&zone=1",
            "xdstp://a/envoy.config.route.v3.RouteConfiguration/x?zone=1&b=2",
        );
        desk.set(&[(Routes, other, "1")]);
        desk.ask(Routes, &[other]);
        let response = desk.next().unwrap();
        assert_eq!(sorted(&response), [form]);
        desk.ack(&response);
        desk.set(&[(Routes, form, "2")]);
        let response = desk.next().unwrap();
        assert_eq!(sorted(&response), [form]);
        desk.ack(&response);
        desk.remove(&[(Routes, other)]);
        assert!(desk.set.is_empty(Routes));
    }
}

fn member(rest: &str) -> String {
    format!("xdstp://a/envoy.config.route.v3.RouteConfiguration/{rest}")
}

#[test]
fn a_glob_collection_is_all_that_is_in_it_now_and_later() {
    let mut desk = Desk::delta();
    let [one, two, three, deep, other, glob] = [
        "x/1?z=1",
        "x/2?z=1",
        "x/3?z=1",
        "x/y/4?z=1",
        "x/5?z=2",
        "x/*?z=1",
    ]
    .map(member);
    desk.set(&[
        (Routes, &one, "1"),
        (Routes, &two, "1"),
        (Routes, &deep, "1"),
        (Routes, &other, "1"),
    ]);
    desk.ask(Routes, &[&glob]);
    let response = desk.next().unwrap();
    assert_eq!(sorted(&response), [one.as_str(), &two]);
    assert!(response.removed.is_empty(), "{:?}", response.removed);
    desk.ack(&response);
    desk.set(&[(Routes, &three, "1"), (Routes, &other, "2")]);
    let response = desk.next().unwrap();
    assert_eq!(sorted(&response), [three.as_str()]);
    desk.ack(&response);
    desk.remove(&[(Routes, &one)]);
    let response = desk.next().unwrap();
    assert_eq!(response.removed, [one.as_str()]);
    desk.ack(&response);

    // One of them by its name as well: the rest goes with the collection.
    desk.ask(Routes, &[&two]);
    let response = desk.next().unwrap();
    assert_eq!(sorted(&response), [two.as_str()]);
    desk.ack(&response);
    desk.change(Routes, &[], &[&glob]).unwrap();
    desk.set(&[(Routes, &two, "2"), (Routes, &three, "2")]);
    let response = desk.next().unwrap();
    assert_eq!(sorted(&response), [two.as_str()]);
}

#[test]
fn a_glob_collection_that_is_empty_is_said_not_to_exist_and_may_come() {
    let mut desk = Desk::delta();
    let [one, glob] = ["x/1", "x/*"].map(member);
    desk.ask(Routes, &[&glob]);
    let response = desk.next().unwrap();
    assert_eq!(response.removed, [glob.as_str()]);
    desk.ack(&response);
    desk.set(&[(Routes, &one, "1")]);
    let response = desk.next().unwrap();
    assert_eq!(sorted(&response), [one.as_str()]);
}

#[test]
fn what_is_called_like_a_collection_is_none_of_its_members() {
    let mut desk = Desk::delta();
    let glob = member("x/*");
    desk.set(&[(Routes, &glob, "1")]);
    desk.ask(Routes, &[&glob]);
    assert_eq!(desk.next().unwrap().removed, [glob.as_str()]);
}

#[test]
fn a_client_that_comes_back_is_sent_the_difference_of_a_collection() {
    let mut desk = Desk::delta();
    let [one, two, three, glob] = ["x/1", "x/2", "x/3", "x/*"].map(member);
    desk.set(&[(Routes, &one, "1"), (Routes, &two, "1")]);
    let version = desk.set.get(Routes, &one).unwrap().version;
    let request = discovery::DeltaDiscoveryRequest {
        type_url: Routes.url().to_owned(),
        resource_names_subscribe: vec![glob],
        initial_resource_versions: [
            (one, version.to_string()),
            (two.clone(), "old".to_owned()),
            (three.clone(), "gone".to_owned()),
        ]
        .into(),
        ..Default::default()
    };
    desk.machine.delta_request(request, desk.now).unwrap();
    let response = desk.next().unwrap();
    assert_eq!(sorted(&response), [two.as_str()]);
    assert_eq!(response.removed, [three.as_str()]);
}

#[test]
fn every_type_is_served_to_a_client_that_names_it() {
    for kind in TypeUrl::ALL {
        let mut desk = Desk::delta();
        desk.set(&[(kind, "a", "1")]);
        desk.ask(kind, &["a"]);
        desk.expect(kind, &["a"]);
    }
}

#[test]
fn what_was_rejected_and_asked_for_again_may_be_accepted() {
    let mut desk = Desk::delta();
    desk.set(&[(Routes, "r", "1")]);
    desk.ask(Routes, &["r"]);
    let response = desk.expect(Routes, &["r"]);
    desk.nack(&response, "no");
    desk.change(Routes, &["r"], &[]).unwrap();
    let response = desk.expect(Routes, &["r"]);
    desk.ack(&response);
    assert_eq!(
        desk.machine.resources(Routes)[0].state,
        ResourceState::Acked
    );
}
