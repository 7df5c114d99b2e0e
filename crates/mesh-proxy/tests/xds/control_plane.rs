//! Driven by a control plane.

use crate::plane::{
    Caller, Driven, Plane, all, bad_listener, bad_routes, cluster, endpoints, listener, routes,
};
use crate::support::{Http1, free_address, get, named, text};
use http::StatusCode;
use mesh_core::model::{
    AbortWith, Fault, FaultAbort, Fraction, HttpManager, Listener, RouteTable, Rule, VirtualHost,
};
use mesh_xds::client::Variant;
use mesh_xds::server::Changes;
use mesh_xds::{TypeUrl, write};
use std::collections::BTreeSet;
use std::sync::Arc;

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
async fn a_listener_that_cannot_be_bound_is_refused_and_its_last_good_version_stays() {
    for variant in VARIANTS {
        let one = named("one").await;
        let plane = Plane::start().await;
        let address = free_address();
        plane.apply(all(address, "c", one));
        let driven = Driven::by(&plane, variant).await;
        driven.initialized().await;
        plane.acknowledged(TypeUrl::Listener).await;

        // One cannot move, one is new, and the one beside them is good.
        let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = stranger.local_addr().unwrap();
        let third = free_address();
        plane.apply(
            Changes::new()
                .set(TypeUrl::Listener, listener("in", taken))
                .set(
                    TypeUrl::Listener,
                    listener("second", "192.0.2.1:80".parse().unwrap()),
                )
                .set(TypeUrl::Listener, listener("third", third)),
        );
        let said = plane.rejected(TypeUrl::Listener).await;
        let expected = [
            format!("in: address: cannot bind '{taken}': Address already in use"),
            "second: address: cannot bind '192.0.2.1:80': Cannot assign requested address"
                .to_owned(),
        ];
        let lines: BTreeSet<&str> = said.lines().collect();
        assert_eq!(lines, expected.iter().map(String::as_str).collect());
        for at in [address, third] {
            let response = Http1::connect(at).await.send(get("/")).await;
            assert_eq!(text(response).await, "one");
        }
        let dump = driven.admin("/config_dump").await;
        for line in &expected {
            let (_, reason) = line.split_once(": ").unwrap();
            assert!(dump.contains(reason), "{dump}");
        }
        assert_eq!(driven.admin("/ready").await, "LIVE\n");

        // The next version is tried again, and the old address is let go.
        drop(stranger);
        plane.forget();
        let mut manager = HttpManager::new("in", "t");
        manager.max_headers = 99;
        let next = write::listener(&Listener::http("in", taken, manager), None);
        plane.apply(
            Changes::new()
                .set(TypeUrl::Listener, write::encode("in", &next))
                .remove(TypeUrl::Listener, "second"),
        );
        plane.acknowledged(TypeUrl::Listener).await;
        let response = Http1::connect(taken).await.send(get("/")).await;
        assert_eq!(text(response).await, "one");
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn a_listener_that_was_refused_comes_with_the_next_version_or_stream() {
    let one = named("one").await;
    for variant in VARIANTS {
        let mut plane = Plane::start().await;
        let address = free_address();
        let stranger = std::net::TcpListener::bind(address).unwrap();
        plane.apply(all(address, "c", one));
        let driven = Driven::by(&plane, variant).await;
        plane.rejected(TypeUrl::Listener).await;
        driven.initialized().await;
        drop(stranger);
        // Nothing is tried by itself: a free address is found on the next occasion.
        match variant {
            Variant::Sotw => {
                let more = listener("more", free_address());
                plane.apply(Changes::new().set(TypeUrl::Listener, more));
            }
            _ => {
                let (set, at) = plane.kill().await;
                plane = Plane::restarted(set, at).await;
            }
        }
        let open = format!("in::{address}\n");
        driven
            .shows("/listeners", |shown| shown.contains(&open))
            .await;
        plane.acknowledged(TypeUrl::Listener).await;
        let response = Http1::connect(address).await.send(get("/")).await;
        assert_eq!(text(response).await, "one");
    }
}

#[tokio::test]
async fn a_fault_for_a_listener_without_the_filter_does_nothing() {
    let one = named("one").await;
    let plane = Plane::start().await;
    let (with, without) = (free_address(), free_address());
    let mut fault = Fault::default();
    fault.abort = Some(FaultAbort {
        with: AbortWith::Http(StatusCode::IM_A_TEAPOT),
        share: Fraction::ALL,
    });
    let mut rule = Rule::prefix_to("/", "c");
    rule.fault = Some(Arc::new(fault));
    let table = RouteTable::new("t").host(VirtualHost::new("all", ["*"]).rule(rule));
    let mut manager = HttpManager::new("without", "t");
    manager.missing_filters = vec!["envoy.filters.http.fault".into()];
    let lacking = write::listener(&Listener::http("without", without, manager), None);
    plane.apply(
        all(with, "c", one)
            .set(TypeUrl::Listener, write::encode("without", &lacking))
            .set(
                TypeUrl::Routes,
                write::encode("t", &write::route::table(&table)),
            ),
    );
    let driven = Driven::by(&plane, Variant::Delta).await;
    driven.initialized().await;
    let status = async |address| Http1::connect(address).await.send(get("/")).await.status();
    assert_eq!(status(with).await, StatusCode::IM_A_TEAPOT);
    assert_eq!(status(without).await, StatusCode::OK);
    // The table is shown once, as it came.
    let tables = driven
        .admin("/config_dump?resource=dynamic_route_configs")
        .await;
    assert_eq!(tables.matches("\"route_config\"").count(), 1, "{tables}");
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
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
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
