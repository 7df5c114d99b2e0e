//! One test for each demand on a client of xDS (the project's checklist for clients). Warming and
//! consistency are looked at closely in the tests of `assemble`.

use super::server::{Server, builder, status};
use super::support::*;
use mesh_xds::client::{ResourceState, Variant};
use std::time::Duration;

#[test]
fn delta_is_the_default_and_state_of_the_world_is_there_on_request() {
    let mut client = Client::with(Variant::default(), |_| {});
    client.machine.subscribe_all(CDS);
    one_delta(client.open());
    let mut client = Client::sotw();
    client.machine.subscribe_all(CDS);
    one_sotw(client.open());
}

#[tokio::test]
async fn a_bad_resource_is_refused_with_its_reason_and_its_last_good_version_stays() {
    let mut server = Server::start().await;
    let client = builder(&[&server]).build().unwrap();
    let (snapshots, handle) = (client.snapshots(), client.handle());
    let running = tokio::spawn(client.run(std::future::pending()));
    let mut stream = server.stream().await;
    stream.asked_for(LDS).await;
    stream.send(LDS, "1", &[("l", "80 t")]).await;
    stream.asked_for(RDS).await;
    stream.send(RDS, "1", &[("t", "a")]).await;
    // Routes wait for the first answer about clusters.
    stream.send(CDS, "1", &[]).await;
    stream.asked_for(RDS).await;
    // One cannot be read, one wants an address that is taken, one is good.
    let items = [("l", "bad"), ("m", "80 t"), ("n", "82 t")];
    stream.send(LDS, "2", &items).await;
    let refused = loop {
        let answer = stream.asked_for(LDS).await;
        if answer.nonce == "4" {
            break answer.error.unwrap();
        }
    };
    let lines: Vec<&str> = refused.lines().collect();
    assert_eq!(lines[0], "l: lb_policy: is bad");
    assert!(lines[1].starts_with("m: address: 127.0.0.1:80 is the address"));
    assert_eq!(lines.len(), 2);
    let ports: Vec<u16> = snapshots
        .load()
        .listeners()
        .iter()
        .map(|listener| listener.address.port())
        .collect();
    assert_eq!(ports, [80, 82], "the bad ones took nothing with them");
    let states = handle.resources(LDS).await.unwrap();
    assert_eq!(states[0].version.as_deref(), Some("1"));
    assert!(matches!(states[0].state, ResourceState::Refused { .. }));
    running.abort();
}

#[test]
fn reconnection_backs_off_with_jitter_and_starts_over_once_a_server_answers() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    let mut last = Duration::ZERO;
    for attempt in 0..10 {
        let at = client.machine.closed(client.now, u64::MAX);
        let wait = at - client.now;
        assert_eq!(client.machine.retry_at(), Some(at));
        assert!(wait >= last, "attempt {attempt}");
        last = wait;
        let early = client.machine.closed(client.now, 0) - client.now;
        assert_eq!(early, Duration::ZERO, "anywhere in the window");
    }
    assert_eq!(last, Duration::from_secs(30));
    // Open alone is not enough; an answer is.
    client.machine.opened("http://a:1");
    let at = client.machine.closed(client.now, u64::MAX);
    assert_eq!(at - client.now, Duration::from_secs(30));
    client.open();
    client.receive(CDS, "1", vec![]);
    let at = client.machine.closed(client.now, u64::MAX);
    assert_eq!(at - client.now, Duration::from_millis(500));
}

#[test]
fn a_new_stream_restores_subscriptions_and_tells_what_is_known() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.machine.subscribe(EDS, &name("a"));
    client.open();
    client.have(CDS, "c1", &["a"]);
    client.have(EDS, "e1", &["a"]);
    let requests = deltas(client.reconnect("http://a:1"));
    assert_eq!(requests[0].initial_resource_versions["a"], "c1");
    assert_eq!(requests[1].initial_resource_versions["a"], "e1");
    assert_eq!(requests[1].resource_names_subscribe, ["a"]);

    let mut client = Client::sotw();
    client.machine.subscribe(EDS, &name("a"));
    client.open();
    client.have(EDS, "e1", &["a"]);
    let request = one_sotw(client.reconnect("http://a:1"));
    assert_eq!(request.version_info, "e1");
    assert_eq!(
        (
            request.response_nonce.as_str(),
            request.resource_names.len()
        ),
        ("", 1)
    );
}

#[tokio::test]
async fn listeners_routes_clusters_and_endpoints_come_into_force_as_one() {
    let mut server = Server::start().await;
    let client = builder(&[&server]).build().unwrap();
    let mut snapshots = client.snapshots();
    let running = tokio::spawn(client.run(std::future::pending()));
    let mut stream = server.stream().await;
    // The wrong way round: whoever watches sees no listener before all is there.
    stream.asked_for(LDS).await;
    stream.send(LDS, "1", &[("l", "80 t")]).await;
    stream.asked_for(RDS).await;
    stream.send(RDS, "1", &[("t", "a")]).await;
    stream.send(CDS, "1", &[("a", "")]).await;
    stream.asked_for(EDS).await;
    assert!(snapshots.load().listeners().is_empty());
    stream.send(EDS, "1", &[("a", "9")]).await;
    let snapshot = snapshots.changed().await.unwrap();
    assert_eq!(snapshot.listeners().len(), 1);
    let live = snapshot.cluster("a").unwrap().live().clone();
    assert_eq!(live.endpoints().load().len(), 1);
    running.abort();
}

#[test]
fn listeners_and_clusters_may_be_named_by_proxyless_clients() {
    let mut client = Client::delta();
    client.machine.subscribe(LDS, &name("echo.example.com"));
    let request = one_delta(client.open());
    assert_eq!(request.resource_names_subscribe, ["echo.example.com"]);
}

#[tokio::test]
async fn versions_counts_and_the_last_refusal_are_reported() {
    let mut server = Server::start().await;
    let client = builder(&[&server]).build().unwrap();
    let mut feed = client.status();
    assert!(!feed.load().connected);
    let running = tokio::spawn(client.run(std::future::pending()));
    let mut stream = server.stream().await;
    stream.asked_for(CDS).await;
    stream.send(CDS, "v1", &[("a", "")]).await;
    stream.send(CDS, "v2", &[("a", "bad")]).await;
    let seen = status(&mut feed, |status| {
        status
            .kinds
            .get(&CDS)
            .is_some_and(|kind| kind.update_rejected == 1)
    })
    .await;
    let kind = &seen.kinds[&CDS];
    assert!(seen.connected);
    assert_eq!(kind.version, "v1");
    assert_eq!((kind.update_attempt, kind.update_success), (2, 1));
    assert_eq!(kind.last_refusal.as_deref(), Some("a: lb_policy: is bad"));
    running.abort();
}
