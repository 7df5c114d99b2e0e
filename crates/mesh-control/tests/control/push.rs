//! When pushes are made.

use crate::support::{Plane, files, sidecar, yaml};
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
