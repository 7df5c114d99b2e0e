//! Driven by a control plane.

use crate::plane::{
    Caller, Driven, Plane, all, bad_listener, bad_routes, cluster, endpoints, listener, routes,
};
use crate::support::{Http1, free_address, get, named, text};
use mesh_xds::TypeUrl;
use mesh_xds::client::Variant;
use mesh_xds::server::Changes;

const VARIANTS: [Variant; 2] = [Variant::Delta, Variant::Sotw];

#[tokio::test]
async fn an_update_shifts_traffic_without_a_failed_request() {
    for variant in VARIANTS {
        let (one, two) = (named("one").await, named("two").await);
        let plane = Plane::start().await;
        let address = free_address();
        plane.apply(all(address, "one", one));
        let driven = Driven::by(&plane, variant).await;
        driven.initialized().await;
        let caller = Caller::start(address, &["one", "two"]);
        caller.goes_on().await;
        for round in 0..5 {
            let (to, from, at) = match round % 2 {
                0 => ("two", "one", two),
                _ => ("one", "two", one),
            };
            // All at once: the server brings it into an order.
            plane.apply(
                Changes::new()
                    .set(TypeUrl::Cluster, cluster(to))
                    .set(TypeUrl::Endpoints, endpoints(to, &[at]))
                    .set(TypeUrl::Routes, routes(to))
                    .remove(TypeUrl::Cluster, from)
                    .remove(TypeUrl::Endpoints, from),
            );
            loop {
                let response = Http1::connect(address).await.send(get("/")).await;
                if text(response).await == to {
                    break;
                }
            }
        }
        caller.end().await;
    }
}

#[tokio::test]
async fn endpoints_that_change_move_traffic_at_once() {
    let (one, two) = (named("one").await, named("two").await);
    let plane = Plane::start().await;
    let address = free_address();
    plane.apply(all(address, "c", one));
    let driven = Driven::by(&plane, Variant::Delta).await;
    driven.initialized().await;
    let caller = Caller::start(address, &["one", "two"]);
    caller.goes_on().await;
    plane.acknowledged(TypeUrl::Endpoints).await;
    plane.apply(Changes::new().set(TypeUrl::Endpoints, endpoints("c", &[two])));
    plane.acknowledged(TypeUrl::Endpoints).await;
    // It was acknowledged, so it is in force.
    let response = Http1::connect(address).await.send(get("/")).await;
    assert_eq!(text(response).await, "two");
    caller.end().await;
}

#[tokio::test]
async fn a_listener_that_was_acknowledged_takes_connections() {
    let one = named("one").await;
    let plane = Plane::start().await;
    plane.apply(all(free_address(), "c", one));
    let driven = Driven::by(&plane, Variant::Delta).await;
    driven.initialized().await;
    plane.acknowledged(TypeUrl::Listener).await;
    for _ in 0..20 {
        let address = free_address();
        // The table is known already, so the listener waits for nothing.
        plane.apply(Changes::new().set(TypeUrl::Listener, listener("more", address)));
        plane.acknowledged(TypeUrl::Listener).await;
        let response = Http1::connect(address).await.send(get("/")).await;
        assert_eq!(text(response).await, "one");
    }
}

#[tokio::test]
async fn what_is_refused_is_said_and_the_last_good_stays_in_force() {
    for variant in VARIANTS {
        let (one, two) = (named("one").await, named("two").await);
        let plane = Plane::start().await;
        let address = free_address();
        plane.apply(all(address, "c", one));
        let driven = Driven::by(&plane, variant).await;
        driven.initialized().await;
        let caller = Caller::start(address, &["one", "two"]);
        caller.goes_on().await;

        // The bad one is refused alone: the good one beside it comes into force.
        let second = free_address();
        plane.apply(
            Changes::new()
                .set(TypeUrl::Listener, bad_listener("in"))
                .set(TypeUrl::Listener, listener("second", second))
                .set(TypeUrl::Routes, bad_routes()),
        );
        let said = plane.rejected(TypeUrl::Listener).await;
        assert!(said.contains("in: address"), "{said}");
        plane.rejected(TypeUrl::Routes).await;
        driven
            .shows("/listeners", |shown| shown.contains("second"))
            .await;
        for at in [address, second] {
            let response = Http1::connect(at).await.send(get("/")).await;
            assert_eq!(text(response).await, "one");
        }
        let stats = driven.admin("/stats").await;
        assert!(
            stats.contains("listener_manager.lds.update_rejected: 1\n"),
            "{stats}"
        );
        assert!(stats.contains("xds.rds.update_rejected: 1\n"), "{stats}");
        assert!(
            stats.contains("control_plane.connected_state: 1\n"),
            "{stats}"
        );

        // And it goes on from there.
        plane.apply(Changes::new().set(TypeUrl::Endpoints, endpoints("c", &[two])));
        loop {
            let response = Http1::connect(address).await.send(get("/")).await;
            if text(response).await == "two" {
                break;
            }
        }
        caller.end().await;
    }
}

#[tokio::test]
async fn traffic_goes_on_while_the_control_plane_is_killed_and_comes_back() {
    for variant in VARIANTS {
        let backends = [named("one").await, named("two").await];
        let mut plane = Plane::start().await;
        let address = free_address();
        plane.apply(all(address, "c", backends[0]));
        let driven = Driven::by(&plane, variant).await;
        driven.initialized().await;
        let caller = Caller::start(address, &["one", "two"]);
        caller.goes_on().await;
        for round in 1..=6 {
            let (set, at) = plane.kill().await;
            driven
                .shows("/stats", |stats| stats.contains("connected_state: 0\n"))
                .await;
            caller.goes_on().await;
            // What changes meanwhile is in force soon after it is back.
            let to = backends[round % 2];
            set.apply(Changes::new().set(TypeUrl::Endpoints, endpoints("c", &[to])));
            plane = Plane::restarted(set, at).await;
            let expected = ["one", "two"][round % 2];
            loop {
                let response = Http1::connect(address).await.send(get("/")).await;
                if text(response).await == expected {
                    break;
                }
            }
        }
        caller.end().await;
    }
}

#[tokio::test]
async fn a_listener_that_cannot_be_opened_is_reported_and_opened_when_it_can_be() {
    let one = named("one").await;
    let plane = Plane::start().await;
    let address = free_address();
    let other = std::net::TcpListener::bind(address).unwrap();
    plane.apply(all(address, "c", one));
    let driven = Driven::by(&plane, Variant::Delta).await;
    driven
        .shows("/listeners", |shown| {
            shown.contains("in::failed: cannot listen")
        })
        .await;
    drop(other);
    driven
        .shows("/listeners", |shown| {
            shown.contains(&format!("in::{address}"))
        })
        .await;
    let response = Http1::connect(address).await.send(get("/")).await;
    assert_eq!(text(response).await, "one");
}

#[tokio::test]
async fn a_listener_that_is_removed_is_closed_and_what_it_serves_is_finished() {
    let one = named("one").await;
    let plane = Plane::start().await;
    let address = free_address();
    plane.apply(all(address, "c", one));
    let driven = Driven::by(&plane, Variant::Delta).await;
    driven.initialized().await;
    let response = Http1::connect(address).await.send(get("/")).await;
    assert_eq!(text(response).await, "one");
    plane.apply(Changes::new().remove(TypeUrl::Listener, "in"));
    driven.shows("/listeners", str::is_empty).await;
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(driven.admin("/ready").await, "LIVE\n");
}

#[tokio::test]
async fn it_is_ready_when_the_control_plane_was_reached_and_nothing_waits() {
    let one = named("one").await;
    let (set, at) = Plane::start().await.kill().await;
    let address = free_address();
    set.apply(
        Changes::new()
            .set(TypeUrl::Listener, listener("in", address))
            .set(TypeUrl::Cluster, cluster("c"))
            .set(TypeUrl::Endpoints, endpoints("c", &[one])),
    );
    let driven = Driven::by_address(at, Variant::Sotw).await;
    assert_eq!(driven.admin("/ready").await, "INITIALIZING\n");
    let plane = Plane::restarted(set, at).await;
    plane.acknowledged(TypeUrl::Listener).await;
    // The listener waits for its routes.
    assert_eq!(driven.admin("/ready").await, "INITIALIZING\n");
    plane.apply(Changes::new().set(TypeUrl::Routes, routes("c")));
    driven.shows("/ready", |shown| shown == "LIVE\n").await;
    let response = Http1::connect(address).await.send(get("/")).await;
    assert_eq!(text(response).await, "one");
    // Once it was ready it stays so.
    plane.kill().await;
    driven
        .shows("/stats", |stats| stats.contains("connected_state: 0\n"))
        .await;
    assert_eq!(driven.admin("/ready").await, "LIVE\n");
}
