//! A real Envoy is the judge: the same configuration, requests and backends for it and for us,
//! and everything that can be seen from outside compared.
//!
//! Needs `MESH_ENVOY` (`cargo xtask envoy` prints a path); without it the test says so and passes,
//! but fails where `CI=true`. `MESH_ENVOY_GROUP=name` runs one group.

// The modules of a test are for nobody else.
#![allow(unreachable_pub)]

#[path = "envoy_full/backend.rs"]
mod backend;
#[path = "envoy_full/cases.rs"]
mod cases;
#[allow(dead_code)]
#[path = "support/child.rs"]
mod child;
#[path = "envoy_full/compare.rs"]
mod compare;
#[path = "envoy_full/known.rs"]
mod known;
#[path = "envoy_full/policy.rs"]
mod policy;
mod support;
#[path = "envoy_full/translate.rs"]
mod translate;
#[path = "envoy_full/wire.rs"]
mod wire;

use cases::{Call, Group};
use compare::{Difference, Facts};
use mesh_core::Publisher;
use mesh_core::model::{AccessLog, Address, Cluster, EndpointSet, Listener, SnapshotBuilder};
use mesh_proxy::Proxy;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// One of the two proxies.
struct Side {
    admin: SocketAddr,
    listeners: BTreeMap<String, SocketAddr>,
}

/// Everything but addresses and times that both log.
const LOG: &str = "%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
    [%UPSTREAM_TRANSPORT_FAILURE_REASON%] %PROTOCOL% %BYTES_RECEIVED% %BYTES_SENT% \
    attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT% route=%ROUTE_NAME% cluster=%UPSTREAM_CLUSTER% \
    %REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %REQ(:AUTHORITY)%\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_and_we_answer_alike() {
    let Ok(binary) = std::env::var("MESH_ENVOY") else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "MESH_ENVOY is not set"
        );
        println!("skipped: MESH_ENVOY is not set; `cargo xtask envoy` prints a path for it");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let only = std::env::var("MESH_ENVOY_GROUP").ok();
    let mut groups = cases::groups();
    groups.retain(|group| only.as_deref().is_none_or(|only| group.name == only));

    let log = Arc::new(backend::Log::default());
    // Nobody has port 1.
    let mut backends = BTreeMap::from([("nobody", SocketAddr::from(([127, 0, 0, 1], 1)))]);
    for name in ["a", "b", "c"] {
        backends.insert(name, backend::start(name, &log).await);
    }
    let mut clusters = cases::clusters();
    for group in &mut groups {
        clusters.append(&mut group.clusters);
    }
    let clusters: Vec<(Cluster, Vec<SocketAddr>)> = clusters
        .into_iter()
        .map(|(cluster, names)| (cluster, names.iter().map(|name| backends[name]).collect()))
        .collect();

    let logged = |side: &str, group: &str| directory.path().join(format!("{side}.{group}.log"));
    let managed = |side: &str, group: &Group| {
        let mut manager = group.manager.clone();
        manager.access_log = vec![AccessLog {
            path: logged(side, group.name).to_str().unwrap().into(),
            format: LOG.into(),
        }];
        manager
    };

    let listeners: Vec<_> = groups
        .iter()
        .map(|group| translate::listener(group.name, &managed("envoy", group), &group.table))
        .collect();
    let theirs: Vec<_> = clusters
        .iter()
        .map(|(cluster, endpoints)| translate::cluster(cluster, endpoints))
        .collect();
    let config = json!({"static_resources": {"listeners": listeners, "clusters": theirs}});
    let envoy = child::Proxy::start(&binary, config, directory.path()).await;
    let theirs = Side {
        admin: envoy.admin,
        listeners: envoy.listeners().await,
    };

    let mut builder = SnapshotBuilder::new();
    let mut listeners = BTreeMap::new();
    let addresses: Vec<SocketAddr> = groups.iter().map(|_| support::free_address()).collect();
    for (group, address) in groups.iter().zip(addresses) {
        listeners.insert(group.name.to_owned(), address);
        builder.listener(Listener::http(group.name, address, managed("ours", group)));
        builder.routes(group.table.clone());
    }
    for (cluster, endpoints) in clusters {
        let endpoints = EndpointSet::of(endpoints.into_iter().map(Address::from));
        builder.endpoints(cluster.name.clone(), endpoints);
        builder.cluster(cluster);
    }
    let publisher = Publisher::from_arc(builder.build().unwrap().0);
    let proxy = Proxy::builder(publisher.feed())
        .concurrency(1)
        .admin(Some(SocketAddr::from(([127, 0, 0, 1], 0))))
        .start()
        .await
        .unwrap();
    let listening = proxy.ready().await;
    assert!(listening.failed.is_empty(), "{listening:?}");
    let ours = Side {
        admin: proxy.admin().unwrap(),
        listeners,
    };

    let mut seen = Vec::new();
    for group in &groups {
        for call in &group.calls {
            let number = seen.len();
            let bytes = call.numbered(number);
            let (theirs, ours) = (
                run(&theirs, group, call, number, &bytes, &log).await,
                run(&ours, group, call, number, &bytes, &log).await,
            );
            seen.push((group, call, theirs, ours));
        }
    }
    let lines = |side: &str| -> BTreeMap<String, String> {
        let files = groups.iter().map(|group| logged(side, group.name));
        let texts: Vec<_> = files
            .map(|file| std::fs::read_to_string(file).unwrap_or_default())
            .collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        let pairs = lines.filter_map(|line| line.split_once(' '));
        pairs
            .map(|(number, line)| (number.to_owned(), line.to_owned()))
            .collect()
    };
    // Both write their logs with some delay; ours is complete when it has drained.
    proxy.drain().await;
    let our_lines = lines("ours");
    let their_lines = complete(&our_lines, || lines("envoy")).await;
    let mut differences = Vec::new();
    let cases = seen.len();
    for (number, (group, call, mut theirs, mut ours)) in seen.into_iter().enumerate() {
        // A head that cannot be read has no number in either log, and a crowd has three lines.
        if !call.crowded {
            let number = number.to_string();
            match (their_lines.get(&number), our_lines.get(&number)) {
                (Some(their_line), Some(our_line)) => {
                    theirs.log(their_line);
                    ours.log(our_line);
                }
                (their_line, our_line) => {
                    let line = |line: Option<&String>| line.cloned().unwrap_or_default();
                    theirs.put("logged at all", line(their_line));
                    ours.put("logged at all", line(our_line));
                }
            }
        }
        differences.extend(Difference::between(group, call, &theirs, &ours, &backends));
    }
    if std::env::var_os("MESH_ENVOY_ALL").is_some() {
        differences
            .iter()
            .for_each(|difference| println!("{difference}"));
    }
    let unexplained = known::judge(&differences, only.is_none());
    for difference in &unexplained {
        println!("{difference}");
    }
    println!(
        "{cases} cases, {} differences, {} of them not explained",
        differences.len(),
        unexplained.len()
    );
    assert!(unexplained.is_empty());
}

/// Reads a log until it has all the cases of another one, or has not grown for some time: what is
/// missing then will not come.
async fn complete(
    other: &BTreeMap<String, String>,
    read: impl Fn() -> BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let (mut lines, mut grown) = (read(), Instant::now());
    while !other.keys().all(|number| lines.contains_key(number))
        && grown.elapsed() < Duration::from_secs(10)
    {
        sleep(Duration::from_millis(50)).await;
        let now = read();
        if now.len() > lines.len() {
            grown = Instant::now();
        }
        lines = now;
    }
    lines
}

/// Sends a request through one proxy.
async fn run(
    side: &Side,
    group: &Group,
    call: &Call,
    number: usize,
    bytes: &[u8],
    log: &Arc<backend::Log>,
) -> Facts {
    log.begin(number);
    let to = side.listeners[group.name];
    if !call.crowded {
        let (reply, caller) = wire::exchange(to, bytes).await;
        if call.cut {
            until(async || log.len() == 1).await;
        }
        // A backend notes a request before it answers, so what else there was is there.
        return Facts::new(bytes, reply, log.take(), &caller, to);
    }
    let first = tokio::spawn(exchange(to, bytes.to_vec()));
    until(async || log.len() == 1).await;
    let second = tokio::spawn(exchange(to, bytes.to_vec()));
    let pending = "cluster.tight.upstream_rq_pending_active";
    until(async || child::stat(side.admin, pending).await == 1).await;
    let (reply, caller) = wire::exchange(to, bytes).await;
    log.release.notify_one();
    let first = first.await.unwrap();
    until(async || log.len() == 2).await;
    log.release.notify_one();
    let second = second.await.unwrap();
    let mut facts = Facts::new(bytes, reply, log.take(), &caller, to);
    facts.put("first", format!("{} {:?}", first.line, first.body));
    facts.put("second", format!("{} {:?}", second.line, second.body));
    facts
}

async fn exchange(to: SocketAddr, bytes: Vec<u8>) -> wire::Message {
    wire::exchange(to, &bytes).await.0
}

/// Looks again and again, for a minute at most.
async fn until(done: impl AsyncFn() -> bool) {
    let wait = async {
        while !done().await {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = timeout(Duration::from_secs(60), wait).await;
    assert!(waited.is_ok(), "it did not come to pass");
}
