//! `trafficPolicy.connectionPool`: limits of connections and requests.

use crate::town::{
    Backend, Reply, Town, ask, free_port, object, patiently, policy, refused, routes, service,
    service_at,
};
use http::Version;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn town(pool: &str) -> (Town, Backend) {
    let one = Backend::start("v1").await;
    let yaml = service("a", &[&one]) + &policy(&format!("{{connectionPool: {pool}}}"));
    (Town::client(&yaml).await, one)
}

#[tokio::test]
async fn max_connections_lets_requests_wait_for_one_another() {
    let (town, one) = town("{tcp: {maxConnections: 1}}").await;
    one.plan([Reply::Hold]);
    let first = town.start_get("a", "/1");
    one.arrived(1).await;
    let second = town.start_get("a", "/2");
    town.until("upstream_rq_pending_active", 1).await;
    assert_eq!(one.count(), 1);
    one.release();
    assert_eq!(first.await.unwrap().line(), "200 v1");
    assert_eq!(second.await.unwrap().line(), "200 v1");
    assert_eq!(town.stat("", "upstream_cx_total").await, 1);
    assert!(town.stat("", "upstream_cx_overflow").await >= 1);
}

#[tokio::test]
async fn http1_max_pending_requests_refuses_those_who_would_wait() {
    let pool = "{tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}}";
    let (town, one) = town(pool).await;
    one.plan([Reply::Hold]);
    let first = town.start_get("a", "/");
    one.arrived(1).await;
    let second = town.start_get("a", "/");
    town.until("upstream_rq_pending_active", 1).await;
    let third = town.get("a", "/").await;
    assert_eq!(third.status, 503);
    assert_eq!(third.header("x-envoy-overloaded"), "true");
    assert_eq!(town.stat("", "upstream_rq_pending_overflow").await, 1);
    one.release();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200);
}

#[tokio::test]
async fn http2_max_requests_limits_requests_of_either_version() {
    let (town, one) = town("{http: {http2MaxRequests: 1}}").await;
    one.plan([Reply::Hold]);
    let first = town.start_get("a", "/");
    one.arrived(1).await;
    let second = town.get("a", "/").await;
    assert_eq!(
        (
            second.status.as_u16(),
            second.header("x-envoy-overloaded").as_str()
        ),
        (503, "true")
    );
    one.release();
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(town.get("a", "/").await.status, 200);
}

#[tokio::test]
async fn max_requests_per_connection_closes_it_afterwards_and_0_never() {
    for (most, connections) in [(1, 4), (2, 2), (0, 1)] {
        let (town, _) = town(&format!("{{http: {{maxRequestsPerConnection: {most}}}}}")).await;
        town.bodies("a", "/", 4).await;
        assert_eq!(
            town.stat("", "upstream_cx_total").await,
            connections,
            "{most}"
        );
    }
}

#[tokio::test]
async fn max_retries_limits_retries_under_way() {
    let one = Backend::start("v1").await;
    let yaml = service("a", &[&one])
        + &policy("{connectionPool: {http: {maxRetries: 1}}}")
        + &routes(
            "{retries: {attempts: 1, retryOn: 5xx, backoff: 1ms}, \
             route: [{destination: {host: a}}]}",
        );
    let town = Town::client(&yaml).await;
    one.plan([
        Reply::With(500, vec![]),
        Reply::Hold,
        Reply::With(500, vec![]),
    ]);
    let first = town.start_get("a", "/");
    one.arrived(2).await;
    assert_eq!(town.get("a", "/").await.status, 500);
    assert_eq!(town.stat("", "upstream_rq_retry_overflow").await, 1);
    one.release();
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn connect_timeout_ends_a_connection_attempt() {
    let full = full_queue().await;
    let yaml = service_at("a", "default", "{name: http, port: 80}", &[("v1", full.0)])
        + &policy("{connectionPool: {tcp: {connectTimeout: 0.1s}}}")
        + &routes("{retries: {attempts: 0}, route: [{destination: {host: a}}]}");
    let town = Town::client(&yaml).await;
    let answer = town.get("a", "/").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("connection timeout"),
        "{}",
        answer.body
    );
    assert_eq!(town.stat("", "upstream_cx_connect_timeout").await, 1);
}

/// An address where connections are never completed, and what keeps it so.
pub(crate) async fn full_queue() -> (SocketAddr, Vec<std::net::TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut kept = vec![std::net::TcpStream::from(socket)];
    // The queue takes one more than it was asked to.
    while let Ok(stream) =
        std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200))
    {
        kept.push(stream);
    }
    (address, kept)
}

#[tokio::test]
async fn max_connection_duration_retires_connections() {
    let (town, _) = town("{tcp: {maxConnectionDuration: 0.05s}}").await;
    patiently("a second connection".to_owned(), async {
        while town.stat("", "upstream_cx_total").await < 2 {
            assert_eq!(town.get("a", "/").await.status, 200);
        }
    })
    .await;
    // Four requests in a row share one otherwise, as other tests show.
}

#[tokio::test]
async fn idle_timeout_of_http_and_else_of_tcp_closes_unused_connections() {
    // Unused connections are looked through every few seconds: all at once, then.
    let towns = [
        "{http: {idleTimeout: 0.1s}}",
        "{tcp: {idleTimeout: 0.1s}}",
        "{tcp: {idleTimeout: 1h}, http: {idleTimeout: 0.1s}}",
    ]
    .map(|pool| async move {
        let (town, _backend) = town(pool).await;
        town.get("a", "/").await;
        assert_eq!(town.stat("", "upstream_cx_total").await, 1);
        town.until("upstream_cx_idle_timeout", 1).await;
        town.until("upstream_cx_active", 0).await;
    });
    futures_util::future::join_all(towns).await;
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn tcp_keepalive_sets_the_timer_of_the_socket() {
    let keepalive = "{probes: 3, time: 100s, interval: 10s}";
    for (pool, timer) in [
        (format!("{{tcp: {{tcpKeepalive: {keepalive}}}}}"), "02"),
        ("{tcp: {maxConnections: 5}}".to_owned(), "00"),
    ] {
        let (town, one) = town(&pool).await;
        town.get("a", "/").await;
        // The kernel's table: the remote port in hexadecimal, and which timer runs.
        let remote = format!("0100007F:{:04X}", one.address.port());
        let found = async {
            loop {
                let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
                let mut timers = table.lines().filter_map(|line| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    (words[2] == remote).then(|| words[5][..2].to_owned())
                });
                // A retransmission timer may run for a moment after the request.
                if timers.any(|found| found == timer) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        patiently(format!("timer {timer}"), found).await;
    }
}

/// The HTTP version that a backend is spoken to in, by the caller's: 1.1 and 2.
async fn versions(port: &str, pool: &str) -> [Version; 2] {
    let one = Backend::start("v1").await;
    let mut yaml = service_at("a", "default", port, &[("v1", one.address)]);
    if !pool.is_empty() {
        yaml += &policy(&format!("{{connectionPool: {{http: {pool}}}}}"));
    }
    let town = Town::client(&yaml.replace("ports: {http: ", "ports: {web: ")).await;
    assert_eq!(town.get("a", "/").await.line(), "200 v1");
    assert_eq!(town.get_http2("a", "/").await.line(), "200 v1");
    let seen = one.seen();
    [seen[0].version, seen[1].version]
}

#[tokio::test]
async fn h2_upgrade_policy_and_use_client_protocol_choose_the_version() {
    let (one, two) = (Version::HTTP_11, Version::HTTP_2);
    let http = "{name: web, port: 80, appProtocol: http}";
    let sniffed = "{name: web, port: 80}";
    for (port, pool, expected) in [
        (http, "", [one, one]),
        (
            http,
            "{h2UpgradePolicy: DEFAULT, maxRetries: 9}",
            [one, one],
        ),
        (http, "{h2UpgradePolicy: DO_NOT_UPGRADE}", [one, one]),
        (http, "{h2UpgradePolicy: UPGRADE}", [two, two]),
        (http, "{useClientProtocol: true}", [one, two]),
        (sniffed, "", [one, two]),
        (sniffed, "{h2UpgradePolicy: DO_NOT_UPGRADE}", [one, one]),
        (
            "{name: web, port: 80, appProtocol: kubernetes.io/h2c}",
            "",
            [two, two],
        ),
    ] {
        assert_eq!(versions(port, pool).await, expected, "{port} {pool}");
    }
    let errors = refused(&policy(
        "{connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}}",
    ));
    assert!(errors.contains("exclude"), "{errors}");
}

#[tokio::test]
async fn max_concurrent_streams_opens_another_connection() {
    for (most, connections) in [(1, 2), (2, 1)] {
        let pool = format!("{{http: {{h2UpgradePolicy: UPGRADE, maxConcurrentStreams: {most}}}}}");
        let (town, one) = town(&pool).await;
        one.plan([Reply::Hold, Reply::Hold]);
        let first = town.start_get("a", "/");
        one.arrived(1).await;
        let second = town.start_get("a", "/");
        one.arrived(2).await;
        assert_eq!(
            town.stat("", "upstream_cx_total").await,
            connections,
            "{most}"
        );
        one.release();
        assert_eq!(first.await.unwrap().status, 200);
        assert_eq!(second.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn http2_keep_alive_gives_up_a_connection_that_answers_no_ping() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                // An empty SETTINGS frame, and not a word more.
                stream
                    .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
                    .await
                    .unwrap();
                while stream.read(&mut [0; 1024]).await.is_ok_and(|read| read > 0) {}
            });
        }
    });
    let yaml = service_at("a", "default", "{name: http2, port: 80}", &[("v1", silent)])
        .replace("ports: {http: ", "ports: {http2: ")
        + &policy("{connectionPool: {http: {http2KeepAlive: {interval: 0.1s, timeout: 0.1s}}}}")
        + &routes("{retries: {attempts: 0}, route: [{destination: {host: a}}]}");
    let town = Town::client(&yaml).await;
    assert_eq!(town.get("a", "/").await.status, 503);
    assert_eq!(town.stat("", "upstream_cx_total").await, 1);
    town.until("upstream_cx_active", 0).await;
}

#[tokio::test]
async fn the_pool_of_a_rule_reaches_the_services_own_side() {
    let one = Backend::start("v1").await;
    let port = free_port();
    let yaml = object(
        "WorkloadEntry",
        "a-v1",
        &format!("{{address: 127.0.0.1, labels: {{app: a}}, ports: {{http: {port}}}}}"),
    ) + &service("a", &[])
        + &policy("{connectionPool: {http: {maxRequestsPerConnection: 1}}}");
    let mut node = mesh_istio::Node::sidecar("a-v1", "default");
    node.labels.insert("app".to_owned(), "a".to_owned());
    node.role = mesh_istio::Role::Sidecar {
        inbound: vec![mesh_istio::Inbound {
            port,
            application: one.address.port(),
        }],
    };
    let town = Town::of(&yaml, node).await;
    let at = ([127, 0, 0, 1], port).into();
    for _ in 0..3 {
        assert_eq!(
            crate::town::send_to(at, ask("a", "/")).await.line(),
            "200 v1"
        );
    }
    let name = format!("cluster.inbound|{port}||.upstream_cx_total");
    assert_eq!(town.whole_stat(&name).await, 3);
}
