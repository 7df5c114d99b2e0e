//! Configuration changes under load: what the configuration in force serves is served.

mod support;

use http::Request;
use mesh_core::model::{Cluster, Rule};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use support::{Http1, Mesh, Whole, get, http2_to, named, text};

/// Swaps of the configuration.
const SWAPS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_swaps_fail_and_misroute_nothing() {
    let (a, b) = (named("a").await, named("b").await);
    // `/a` is always served by backend a and `/b` by b; what changes is everything else.
    let variant = |n: usize| {
        let renamed = format!("subset-{n}");
        match n % 4 {
            // The usual: two clusters.
            0 => (
                vec![Rule::prefix_to("/a", "a"), Rule::prefix_to("/b", "b")],
                vec![(Cluster::new("a"), vec![a]), (Cluster::new("b"), vec![b])],
            ),
            // The cluster in use is gone, another takes its place.
            1 => (
                vec![Rule::prefix_to("/a", "other"), Rule::prefix_to("/b", "b")],
                vec![
                    (Cluster::new("other"), vec![a]),
                    (Cluster::new("b"), vec![b]),
                ],
            ),
            // A subset with a new name each time.
            2 => (
                vec![
                    Rule::prefix_to("/b", "b"),
                    Rule::prefix_to("/a", renamed.as_str()),
                ],
                vec![
                    (Cluster::new(renamed.as_str()), vec![a]),
                    (Cluster::new("b"), vec![b]),
                ],
            ),
            // The same clusters with other policies.
            _ => {
                let mut cluster = Cluster::new("a");
                cluster.max_requests_per_connection = 3;
                (
                    vec![Rule::prefix_to("/a", "a"), Rule::prefix_to("/b", "b")],
                    vec![(cluster, vec![a]), (Cluster::new("b"), vec![b])],
                )
            }
        }
    };
    let (rules, clusters) = variant(0);
    let mesh = Arc::new(Mesh::start(2, rules, clusters).await);
    let stop = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(AtomicUsize::new(0));

    let one = {
        let (stop, answers, address) = (stop.clone(), answers.clone(), mesh.address);
        tokio::spawn(async move {
            let mut client = Http1::connect(address).await;
            while !stop.load(Ordering::Relaxed) {
                for path in ["/a", "/b"] {
                    let response = client.send(get(path)).await;
                    assert_eq!(response.status(), 200, "{path}");
                    assert_eq!(text(response).await, path[1..]);
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    };
    let two = {
        let (stop, answers, address) = (stop.clone(), answers.clone(), mesh.address);
        tokio::spawn(async move {
            let client = http2_to::<Whole>(address).await;
            while !stop.load(Ordering::Relaxed) {
                let calls = (0..8).map(|n| {
                    let mut client = client.clone();
                    async move {
                        let name = if n % 2 == 0 { "a" } else { "b" };
                        let request = Request::get(format!("http://mesh/{name}"))
                            .body(Whole::default())
                            .unwrap();
                        let response = client.send_request(request).await.unwrap();
                        assert_eq!(response.status(), 200, "{name}");
                        assert_eq!(text(response).await, name);
                    }
                });
                futures_util::future::join_all(calls).await;
                answers.fetch_add(8, Ordering::Relaxed);
            }
        })
    };
    for swap in 1..=SWAPS {
        let (rules, clusters) = variant(swap);
        mesh.publish(rules, clusters);
        // Some requests under each configuration.
        let enough = answers.load(Ordering::Relaxed) + 10;
        while answers.load(Ordering::Relaxed) < enough && !one.is_finished() && !two.is_finished() {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    one.await.unwrap();
    two.await.unwrap();
    assert!(answers.load(Ordering::Relaxed) >= SWAPS * 10);
}

#[tokio::test]
async fn a_listener_that_comes_back_serves_again() {
    use mesh_core::model::{HttpManager, Listener, RouteTable, SnapshotBuilder, VirtualHost};
    let a = named("a").await;
    let rules = || vec![Rule::prefix_to("/", "a")];
    let mesh = Mesh::start(2, rules(), vec![(Cluster::new("a"), vec![a])]).await;
    for round in 0..20 {
        // The listener goes; a second one, which stays, serves on.
        let second = support::free_address();
        let mut builder = SnapshotBuilder::from(&mesh.publisher.load());
        builder.listener(Listener::http(
            "second",
            second,
            HttpManager::new("second", "t"),
        ));
        builder.routes(
            RouteTable::new("t")
                .host(VirtualHost::new("all", ["*"]).rule(Rule::prefix_to("/", "a"))),
        );
        builder.cluster(Cluster::new("a"));
        let version = mesh.publisher.load().version() + 1;
        mesh.publisher.publish(builder.build().unwrap().0);
        let mut listening = mesh.proxy.listening();
        while listening.load().version < version {
            listening.changed().await.unwrap();
        }
        assert_eq!(
            text(Http1::connect(second).await.send(get("/")).await).await,
            "a",
            "{round}"
        );

        mesh.publish(rules(), vec![(Cluster::new("a"), vec![a])]);
        while listening.load().version < version + 1 {
            listening.changed().await.unwrap();
        }
        assert!(listening.load().failed.is_empty(), "{:?}", listening.load());
        assert_eq!(
            text(Http1::connect(mesh.address).await.send(get("/")).await).await,
            "a"
        );
    }
}
