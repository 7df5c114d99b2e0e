//! Make before break, and one response of a type at a time.

use crate::support::{Cluster, Desk, Endpoints, Listener, Routes, limited, sorted};
use mesh_xds::pb::envoy::config::cluster::v3 as cluster;
use mesh_xds::server::{Changes, Event, Variant};
use mesh_xds::{Encoded, Node, TypeUrl};
use std::time::Duration;

const ALL: [(TypeUrl, &str, &str); 4] = [
    (Routes, "r", "1"),
    (Listener, "l", "1"),
    (Endpoints, "c", "1"),
    (Cluster, "c", "1"),
];

fn synced(mut desk: Desk) -> Desk {
    desk.set(&ALL);
    desk.sync(Cluster, &[]);
    desk.sync(Endpoints, &["c"]);
    desk.sync(Listener, &[]);
    desk.sync(Routes, &["r"]);
    desk.events();
    desk
}

#[test]
fn clusters_go_first_then_endpoints_then_listeners_then_routes() {
    for desk in [Desk::sotw(), Desk::delta()] {
        let mut desk = synced(desk);
        let changed = ALL.map(|(kind, name, _)| (kind, name, "2"));
        desk.set(&changed);
        let kinds: Vec<_> = desk
            .ack_all()
            .iter()
            .map(|response| response.kind().unwrap())
            .collect();
        assert_eq!(kinds, [Cluster, Endpoints, Listener, Routes]);
    }
}

#[test]
fn routes_wait_until_the_clusters_before_them_are_answered() {
    for desk in [Desk::sotw(), Desk::delta()] {
        let mut desk = synced(desk);
        desk.set(&[(Cluster, "d", "1"), (Routes, "r", "to d")]);
        let clusters = desk.next().unwrap();
        assert_eq!(clusters.kind(), Some(Cluster));
        desk.expect_silence();
        desk.ack(&clusters);
        desk.expect(Routes, &["r"]);
    }
}

#[test]
fn routes_wait_for_clusters_that_came_while_others_were_unanswered() {
    let mut desk = synced(Desk::delta());
    desk.set(&[(Cluster, "d", "1")]);
    let first = desk.expect(Cluster, &["d"]);
    desk.set(&[(Cluster, "e", "1"), (Routes, "r", "to e")]);
    desk.expect_silence();
    desk.ack(&first);
    let second = desk.expect(Cluster, &["e"]);
    desk.expect_silence();
    desk.ack(&second);
    desk.expect(Routes, &["r"]);
}

#[test]
fn endpoints_asked_for_with_new_clusters_go_before_the_routes_to_them() {
    let mut desk = synced(Desk::delta());
    desk.set(&[
        (Cluster, "d", "1"),
        (Endpoints, "d", "1"),
        (Routes, "r", "to d"),
    ]);
    let clusters = desk.expect(Cluster, &["d"]);
    // As Envoy does: it asks for the endpoints, then acknowledges.
    desk.change(Endpoints, &["d"], &[]).unwrap();
    desk.ack(&clusters);
    desk.expect(Endpoints, &["d"]);
    desk.expect(Routes, &["r"]);
}

#[test]
fn routes_do_not_wait_for_a_client_that_does_not_answer_for_ever() {
    let mut desk = synced(Desk::delta());
    desk.set(&[(Cluster, "d", "1"), (Routes, "r", "to d")]);
    desk.expect(Cluster, &["d"]);
    desk.expect_silence();
    assert_eq!(
        desk.machine.deadline(),
        Some(desk.now + Duration::from_secs(5))
    );
    desk.wait(Duration::from_secs(5));
    desk.expect(Routes, &["r"]);
}

#[test]
fn routes_do_not_wait_for_endpoints_that_change_all_the_time() {
    let mut desk = synced(Desk::delta());
    desk.set(&[(Endpoints, "c", "2")]);
    let mut endpoints = desk.expect(Endpoints, &["c"]);
    desk.set(&[(Endpoints, "c", "3"), (Routes, "r", "2")]);
    desk.expect_silence();
    desk.ack(&endpoints);
    endpoints = desk.expect(Endpoints, &["c"]);
    desk.set(&[(Endpoints, "c", "4")]);
    desk.ack(&endpoints);
    desk.expect(Endpoints, &["c"]);
    desk.expect(Routes, &["r"]);
}

#[test]
fn of_a_type_nothing_newer_is_sent_until_the_last_is_answered_and_changes_merge() {
    for desk in [Desk::sotw(), Desk::delta()] {
        let mut desk = synced(desk);
        desk.set(&[(Endpoints, "c", "2")]);
        let response = desk.expect(Endpoints, &["c"]);
        for text in ["3", "4", "5"] {
            desk.set(&[(Endpoints, "c", text)]);
            desk.expect_silence();
        }
        desk.ack(&response);
        let last = desk.expect(Endpoints, &["c"]);
        assert_eq!(last.resources[0].resource.bytes, &b"5"[..]);
        desk.nack(&last, "no");
        desk.expect_silence();
    }
}

#[test]
fn endpoints_do_not_wait_for_unanswered_clusters() {
    let mut desk = synced(Desk::delta());
    desk.set(&[(Cluster, "d", "1")]);
    desk.expect(Cluster, &["d"]);
    desk.set(&[(Endpoints, "c", "2")]);
    desk.expect(Endpoints, &["c"]);
}

fn eds(name: &str, service: &str, stat: &str) -> Encoded {
    use cluster::cluster::{ClusterDiscoveryType, EdsClusterConfig};
    let message = cluster::Cluster {
        name: name.into(),
        alt_stat_name: stat.into(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(3)),
        eds_cluster_config: Some(EdsClusterConfig {
            service_name: service.into(),
            ..EdsClusterConfig::default()
        }),
        ..cluster::Cluster::default()
    };
    Encoded::of(name, &message)
}

#[test]
fn endpoints_are_sent_again_after_a_cluster_that_uses_them_changed() {
    // envoy#13009
    for mut desk in [Desk::sotw(), Desk::delta()] {
        desk.set(&[
            (Endpoints, "a", "1"),
            (Endpoints, "svc", "1"),
            (Endpoints, "other", "1"),
        ]);
        let changes = Changes::new()
            .set(Cluster, eds("a", "", "1"))
            .set(Cluster, eds("b", "svc", "1"));
        desk.apply(changes.set(Cluster, eds("c", "other", "1")));
        desk.sync(Cluster, &[]);
        desk.sync(Endpoints, &["a", "svc", "other"]);
        desk.apply(
            Changes::new()
                .set(Cluster, eds("a", "", "2"))
                .set(Cluster, eds("b", "svc", "2")),
        );
        assert_eq!(desk.next().unwrap().kind(), Some(Cluster));
        desk.expect(Endpoints, &["a", "svc"]);
    }
}

#[test]
fn clusters_and_endpoints_are_removed_last() {
    let mut desk = synced(Desk::delta());
    desk.set.apply(
        Changes::new()
            .remove(Cluster, "c")
            .remove(Endpoints, "c")
            .set(Cluster, Encoded::new("d", &b"1"[..]))
            .set(Routes, Encoded::new("r", &b"to d"[..])),
    );
    desk.machine.refresh(desk.now);
    let said: Vec<_> = desk
        .ack_all()
        .iter()
        .map(|one| (one.kind().unwrap(), sorted(one).len(), one.removed.len()))
        .collect();
    assert_eq!(
        said,
        [
            (Cluster, 1, 0),
            (Routes, 1, 0),
            (Cluster, 0, 1),
            (Endpoints, 0, 1)
        ]
    );
}

#[test]
fn the_time_from_a_change_to_its_acknowledgement_is_told() {
    let mut desk = synced(Desk::delta());
    desk.set(&[(Cluster, "d", "1"), (Routes, "r", "2")]);
    desk.now += Duration::from_millis(30);
    let clusters = desk.expect(Cluster, &["d"]);
    desk.now += Duration::from_millis(20);
    desk.ack(&clusters);
    let routes = desk.expect(Routes, &["r"]);
    desk.now += Duration::from_millis(5);
    desk.ack(&routes);
    let times: Vec<_> = desk
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Acked {
                kind,
                took,
                converged,
                ..
            } => Some((
                kind,
                took.as_millis(),
                converged.map(|time| time.as_millis()),
            )),
            _ => None,
        })
        .collect();
    assert_eq!(times, [(Cluster, 20, Some(50)), (Routes, 5, Some(55))]);
}

#[test]
fn routes_wait_for_all_pieces_of_the_clusters_before_them() {
    let options = limited(Variant::Delta, |limits| limits.response_resources = 1);
    let mut desk = synced(Desk::with(options, &Node::new("n")));
    desk.set(&[
        (Cluster, "d", "1"),
        (Cluster, "e", "1"),
        (Cluster, "f", "1"),
        (Routes, "r", "to f"),
    ]);
    for name in ["d", "e", "f"] {
        let piece = desk.expect(Cluster, &[name]);
        desk.wait(Duration::from_secs(4));
        desk.expect_silence();
        let until = desk.now + Duration::from_secs(1);
        assert_eq!(desk.machine.deadline(), Some(until));
        desk.ack(&piece);
    }
    desk.expect(Routes, &["r"]);
}

#[test]
fn routes_do_not_wait_for_pieces_without_an_end() {
    let options = limited(Variant::Delta, |limits| limits.response_resources = 1);
    let mut desk = synced(Desk::with(options, &Node::new("n")));
    desk.set(&[(Cluster, "d", "1"), (Cluster, "e", "1"), (Routes, "r", "2")]);
    let mut waited = Duration::ZERO;
    for round in 0.. {
        let piece = desk.next().unwrap();
        if piece.kind() == Some(Routes) {
            break;
        }
        let (d, e) = (format!("d{round}"), format!("e{round}"));
        desk.set(&[(Cluster, "d", &d), (Cluster, "e", &e)]);
        desk.wait(Duration::from_secs(4));
        waited += Duration::from_secs(4);
        if let Some(routes) = desk.next() {
            assert_eq!(routes.kind(), Some(Routes));
            break;
        }
        desk.ack(&piece);
    }
    assert_eq!(waited, Duration::from_secs(60));
}

#[test]
fn what_was_given_up_does_not_shorten_the_wait_of_what_comes_later() {
    let mut desk = synced(Desk::delta());
    desk.sync(Routes, &["s", "t"]);
    // Given up while it waits, and long after that the next change.
    desk.set(&[(Cluster, "e", "1"), (Routes, "t", "to e")]);
    let clusters = desk.expect(Cluster, &["e"]);
    desk.expect_silence();
    desk.change(Routes, &[], &["t"]).unwrap();
    desk.ack(&clusters);
    desk.expect_silence();
    desk.wait(Duration::from_secs(60));
    desk.set(&[(Cluster, "f", "1"), (Routes, "s", "to f")]);
    let clusters = desk.expect(Cluster, &["f"]);
    desk.expect_silence();
    desk.ack(&clusters);
    desk.expect(Routes, &["s"]);
}
