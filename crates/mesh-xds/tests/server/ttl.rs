//! Resources that expire, and what keeps them alive.

use crate::support::{Cluster, Desk, Endpoints};
use mesh_xds::server::{Changes, Options, Scope, Variant};
use mesh_xds::{Encoded, Node};
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
