//! Resources that expire, and what keeps them alive.

use crate::support::{Cluster, Desk, Endpoints, Listener, Routes, sorted};
use mesh_xds::server::{Changes, Options, Response, Scope, Variant};
use mesh_xds::{Encoded, Node};
use std::sync::Arc;
use std::time::Duration;

const TTL: Duration = Duration::from_secs(4);

fn node(features: &[&str]) -> Node {
    let mut proto = Node::new("n").to_proto();
    proto.client_features = features.iter().map(|name| name.to_string()).collect();
    Node::from_proto(proto)
}

fn desk(variant: Variant, features: &[&str]) -> Desk {
    Desk::with(Options::new(variant, Scope::Aggregated), &node(features))
}

fn expiring(text: &'static str) -> Changes {
    let one = Encoded::new("a", text.as_bytes()).with_ttl(TTL);
    Changes::new().set(Endpoints, one.clone()).set(Cluster, one)
}

#[test]
fn a_delta_client_that_knows_of_it_is_told_and_kept_alive() {
    let mut desk = desk(Variant::Delta, &["xds.config.supports-resource-ttl"]);
    desk.apply(expiring("1"));
    desk.ask(Endpoints, &["a"]);
    let response = desk.expect(Endpoints, &["a"]);
    assert!(response.resources[0].with_ttl && !response.resources[0].heartbeat);
    desk.ack(&response);
    assert_eq!(desk.machine.deadline(), Some(desk.now + TTL / 2));
    desk.wait(TTL / 2);
    let beat = desk.expect(Endpoints, &["a"]);
    assert!(beat.resources[0].heartbeat);
    assert_eq!(
        beat.resources[0].resource.version,
        response.resources[0].resource.version
    );
    desk.ack(&beat);
    desk.expect_silence();
    assert_eq!(desk.machine.deadline(), Some(desk.now + TTL / 2));
}

#[test]
fn a_change_is_a_heartbeat_too() {
    let mut desk = desk(Variant::Delta, &["xds.config.supports-resource-ttl"]);
    desk.apply(expiring("1"));
    desk.sync(Endpoints, &["a"]);
    desk.wait(TTL / 4);
    desk.apply(expiring("2"));
    let response = desk.expect(Endpoints, &["a"]);
    assert!(!response.resources[0].heartbeat);
    desk.ack(&response);
    assert_eq!(desk.machine.deadline(), Some(desk.now + TTL / 2));
}

#[test]
fn what_no_longer_expires_or_is_gone_needs_no_heartbeat() {
    let mut desk = desk(Variant::Delta, &["xds.config.supports-resource-ttl"]);
    desk.apply(expiring("1"));
    desk.sync(Endpoints, &["a"]);
    desk.set(&[(Endpoints, "a", "1")]);
    let response = desk.expect(Endpoints, &["a"]);
    assert!(!response.resources[0].with_ttl);
    desk.ack(&response);
    assert_eq!(desk.machine.deadline(), None);
    desk.apply(expiring("1"));
    desk.ack_all();
    desk.change(Endpoints, &[], &["a"]).unwrap();
    assert_eq!(desk.machine.deadline(), None);
}

#[test]
fn other_clients_are_not_told() {
    let sotw_without_ttl = ["xds.config.resource-in-sotw"];
    let cases = [
        (Variant::Delta, &[][..]),
        (
            Variant::Delta,
            &["xds.config.supports-resource-ttl-in-sotw"],
        ),
        (
            Variant::StateOfTheWorld,
            &["xds.config.supports-resource-ttl"],
        ),
        (Variant::StateOfTheWorld, &sotw_without_ttl),
    ];
    for (variant, features) in cases {
        let mut desk = desk(variant, features);
        desk.apply(expiring("1"));
        desk.ask(Endpoints, &["a"]);
        let response = desk.expect(Endpoints, &["a"]);
        assert!(!response.resources[0].with_ttl, "{variant:?} {features:?}");
        desk.ack(&response);
        assert_eq!(desk.machine.deadline(), None);
    }
}

#[test]
fn a_client_of_the_whole_that_knows_of_it_is_told_and_kept_alive() {
    for features in [
        &["xds.config.supports-resource-ttl-in-sotw"][..],
        &[
            "xds.config.supports-resource-ttl",
            "xds.config.supports-resource-in-sotw",
        ],
    ] {
        let mut desk = desk(Variant::StateOfTheWorld, features);
        desk.apply(expiring("1"));
        desk.set(&[(Cluster, "b", "1")]);
        desk.sync(Endpoints, &["a"]);
        desk.sync(Cluster, &[]);
        desk.wait(TTL / 2);
        // Clusters are a whole even now: what were left out would be removed.
        let clusters = desk.expect(Cluster, &["a", "b"]);
        assert!(clusters.resources[0].with_ttl && !clusters.resources[0].heartbeat);
        assert!(!clusters.resources[1].with_ttl);
        assert!(desk.expect(Endpoints, &["a"]).resources[0].heartbeat);
    }
}

fn limited_desk(most: usize) -> Desk {
    let mut options = Options::new(Variant::Delta, Scope::Aggregated);
    Arc::make_mut(&mut options.limits).response_resources = most;
    Desk::with(options, &node(&["xds.config.supports-resource-ttl"]))
}

fn all_expiring(names: &[&'static str], text: &'static str) -> Changes {
    names.iter().fold(Changes::new(), |changes, name| {
        changes.set(
            Endpoints,
            Encoded::new(*name, text.as_bytes()).with_ttl(TTL),
        )
    })
}

#[test]
fn heartbeats_count_as_resources_do() {
    let mut desk = limited_desk(2);
    let names = ["a", "b", "c", "d", "e"];
    desk.apply(all_expiring(&names, "1"));
    desk.sync(Endpoints, &names);
    desk.wait(TTL / 2);
    let beats = desk.ack_all();
    let counts: Vec<usize> = beats.iter().map(|one| one.resources.len()).collect();
    assert_eq!(counts, [2, 2, 1]);
    let mut seen: Vec<&str> = beats.iter().flat_map(sorted).collect();
    seen.sort_unstable();
    assert_eq!(seen, names);
}

#[test]
fn changes_and_heartbeats_do_not_hold_up_each_other() {
    let mut desk = limited_desk(2);
    desk.apply(all_expiring(&["a", "b"], "1"));
    desk.set(&["c", "d", "e"].map(|name| (Endpoints, name, "1")));
    desk.sync(Endpoints, &["a", "b", "c", "d", "e"]);
    desk.now += TTL / 2;
    desk.set(&["c", "d", "e"].map(|name| (Endpoints, name, "2")));
    let all = desk.ack_all();
    let beats = |one: &Response| one.resources.iter().filter(|item| item.heartbeat).count();
    assert_eq!(all.iter().map(beats).collect::<Vec<_>>(), [1, 1, 0]);
    assert!(all.iter().all(|one| one.resources.len() <= 2));
}

#[test]
fn a_held_back_removal_is_kept_alive() {
    let mut desk = desk(Variant::Delta, &["xds.config.supports-resource-ttl"]);
    desk.apply(expiring("1"));
    desk.set(&[(Routes, "r", "to a")]);
    desk.sync(Cluster, &[]);
    desk.sync(Routes, &["r"]);
    desk.apply(
        Changes::new()
            .set(Routes, Encoded::new("r", &b"elsewhere"[..]))
            .remove(Cluster, "a"),
    );
    let routes = desk.expect(Routes, &["r"]);
    desk.wait(TTL / 2);
    let beat = desk.expect(Cluster, &["a"]);
    assert!(beat.resources[0].heartbeat && beat.resources[0].with_ttl);
    desk.ack(&beat);
    desk.ack(&routes);
    desk.expect_removed(Cluster, &["a"]);
    assert_eq!(desk.machine.deadline(), None);
}

#[test]
fn a_client_that_comes_back_is_kept_alive() {
    let mut desk = desk(Variant::Delta, &["xds.config.supports-resource-ttl"]);
    desk.apply(expiring("1"));
    let there = Encoded::new("a", &b"1"[..]).with_ttl(TTL);
    desk.resume(Endpoints, &["a"], &[("a", &there.version)]);
    // How long it was away is not known: at once.
    let beat = desk.expect(Endpoints, &["a"]);
    assert!(beat.resources[0].heartbeat);
    desk.ack(&beat);
    assert_eq!(desk.machine.deadline(), Some(desk.now + TTL / 2));
}

#[test]
fn a_rejected_version_is_not_kept_alive_but_the_one_before() {
    let mut desk = desk(Variant::Delta, &["xds.config.supports-resource-ttl"]);
    desk.apply(expiring("1"));
    desk.sync(Endpoints, &["a"]);
    let accepted = Encoded::new("a", &b"1"[..]).with_ttl(TTL).version;
    desk.apply(expiring("2"));
    let response = desk.expect(Endpoints, &["a"]);
    desk.nack(&response, "no");
    desk.wait(TTL / 2);
    let beat = desk.expect(Endpoints, &["a"]);
    assert!(beat.resources[0].heartbeat);
    assert_eq!(beat.resources[0].resource.version, accepted);
}

#[test]
fn what_was_never_accepted_is_not_kept_alive() {
    let mut desk = desk(Variant::Delta, &["xds.config.supports-resource-ttl"]);
    desk.apply(expiring("1"));
    desk.ask(Endpoints, &["a"]);
    let response = desk.expect(Endpoints, &["a"]);
    desk.nack(&response, "no");
    desk.wait(TTL / 2);
    desk.expect_silence();
    assert_eq!(desk.machine.deadline(), None);
}

#[test]
fn a_heartbeat_of_listeners_brings_none_that_wait_for_clusters() {
    for (variant, feature) in [
        (Variant::Delta, "xds.config.supports-resource-ttl"),
        (
            Variant::StateOfTheWorld,
            "xds.config.supports-resource-ttl-in-sotw",
        ),
    ] {
        let mut desk = desk(variant, &[feature]);
        let first = Encoded::new("l", &b"1"[..]).with_ttl(TTL);
        desk.apply(Changes::new().set(Listener, first));
        desk.sync(Cluster, &[]);
        desk.sync(Listener, &[]);
        desk.now += TTL / 2;
        desk.set(&[(Cluster, "c", "1"), (Listener, "m", "to c")]);
        let clusters = desk.expect(Cluster, &["c"]);
        let beat = desk.expect(Listener, &["l"]);
        desk.ack(&beat);
        desk.expect_silence();
        desk.ack(&clusters);
        match variant {
            Variant::Delta => desk.expect(Listener, &["m"]),
            Variant::StateOfTheWorld => desk.expect(Listener, &["l", "m"]),
        };
    }
}

#[test]
fn a_time_to_live_beyond_the_end_of_time_never_ends() {
    let mut desk = desk(Variant::Delta, &["xds.config.supports-resource-ttl"]);
    let forever = Encoded::new("a", &b"1"[..]).with_ttl(Duration::MAX);
    desk.apply(Changes::new().set(Endpoints, forever));
    desk.sync(Endpoints, &["a"]);
    assert_eq!(desk.machine.deadline(), None);
}
