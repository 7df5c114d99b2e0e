//! When pushes are made.

use crate::support::{Plane, cluster, files, sidecar, yaml};
use mesh_control::Control;
use mesh_xds::TypeUrl;
use serde_json::Value;
use std::time::Duration;

async fn pushes(control: &Control) -> u64 {
    let status: Value = crate::http::page(control, "/debug/push_status").await.1;
    status["pushes"].as_u64().unwrap()
}

#[tokio::test(start_paused = true)]
async fn changes_are_gathered_until_nothing_changes_for_a_moment() {
    let control = Control::builder().build();
    control.update(&files(&yaml(1, "1s", "10.0.0.1")));
    assert_eq!(pushes(&control).await, 1, "the first is in force at once");
    let own = control.clone();
    let running = tokio::spawn(async move { own.run().await });
    for step in 2..6 {
        control.update(&files(&yaml(1, &format!("{step}s"), "10.0.0.1")));
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(pushes(&control).await, 1, "step {step}");
    }
    tokio::time::sleep(Duration::from_millis(41)).await;
    assert_eq!(pushes(&control).await, 2);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn changes_that_never_end_are_pushed_after_ten_seconds() {
    let control = Control::builder().build();
    control.update(&files(&yaml(1, "1s", "10.0.0.1")));
    let own = control.clone();
    let running = tokio::spawn(async move { own.run().await });
    for step in 0..200 {
        control.update(&files(&yaml(1, &format!("{}s", step + 2), "10.0.0.1")));
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(pushes(&control).await, 2, "12 s have passed");
    running.abort();
}

#[tokio::test]
async fn what_nobody_uses_is_dropped_after_a_while_and_made_again_when_needed() {
    let builder = Control::builder().keep_idle(Duration::ZERO);
    let plane = Plane::start(builder, &yaml(1, "1s", "10.0.0.1")).await;
    let own = plane.control.clone();
    let running = tokio::spawn(async move { own.run().await });
    let classes = async || {
        let status = crate::http::page(&plane.control, "/debug/push_status")
            .await
            .1;
        status["last_push"]["classes"]
            .as_array()
            .map_or(0, Vec::len)
    };
    for _ in 0..2 {
        let mut client = plane.connect(&sidecar()).await;
        client.settle(&["http_proxy"]).await;
        plane.control.push();
        assert_eq!(classes().await, 1);
        drop(client);
        loop {
            plane.control.push();
            if classes().await == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    running.abort();
}

#[tokio::test]
async fn a_node_that_becomes_another_is_given_what_that_one_gets() {
    let described = |port: u16| {
        yaml(1, "1s", "10.0.0.1")
            + &format!(
                "---\n{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: \
                 client, annotations: {{mesh-rs.dev/base-port: '{port}'}}}}, spec: {{address: \
                 127.0.0.1}}}}\n"
            )
    };
    let plane = Plane::of(&described(20300)).await;
    let mut client = plane.connect(&sidecar()).await;
    client.settle(&["http_proxy"]).await;
    assert_eq!(client.names(TypeUrl::Listener), ["127.0.0.1_20301"]);
    plane.change(&described(20400));
    let news = client.until(TypeUrl::Listener).await;
    assert!(
        news.contains(&(TypeUrl::Listener, "127.0.0.1_20401".to_owned())),
        "{news:?}"
    );
    while client.names(TypeUrl::Listener).len() > 1 {
        client.take().await;
    }
}

/// Endpoints in two places, a rule that prefers the near one, and where the client is.
fn places(client: &str) -> String {
    let mut text = yaml(1, "1s", "10.0.0.1").replace("labels:", "locality: r1, labels:")
        + "---\n{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d}, spec: \
           {host: s0, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}}}\n";
    for (name, address, locality, labels) in [
        ("far", "10.0.0.2", "r2", "{app: s0}"),
        ("client", "10.1.1.1", client, "{}"),
    ] {
        text += &format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: \
             {name}}}, spec: {{address: {address}, locality: {locality}, labels: {labels}}}}}\n"
        );
    }
    text
}

#[tokio::test]
async fn a_node_whose_workload_is_elsewhere_now_prefers_what_is_near_there() {
    let plane = Plane::of(&places("r1")).await;
    let mut client = plane.connect(&sidecar()).await;
    // One that says itself where it is stays there.
    let placed = sidecar().with_locality(("r1", "", ""));
    let mut other = plane.connect(&placed).await;
    client.settle(&["http_proxy"]).await;
    other.settle(&["http_proxy"]).await;
    let key = (TypeUrl::Endpoints, cluster("s0"));
    let near = client.have[&key].clone();
    assert_eq!(other.have[&key], near);

    // Nothing but the locality of the client's own workload, which is no endpoint.
    plane.change(&places("r2"));
    client.until(TypeUrl::Endpoints).await;
    let far = client.have[&key].clone();
    assert_ne!(far, near);
    plane.change(&places("r1"));
    client.until(TypeUrl::Endpoints).await;
    assert_eq!(client.have[&key], near);
    assert_eq!(other.have[&key], near);
}
