//! Limits: ages, numbers, and what happens to those who wait.

use super::*;
use mesh_core::Failure;
use mesh_core::model::UpstreamProtocol;
use std::time::Duration;
use tokio::sync::Semaphore;

const SECOND: Duration = Duration::from_secs(1);

/// A cluster that may have this many connections.
fn with_connections(most: u32) -> Cluster {
    let mut cluster = cluster();
    cluster.limits.max_connections = most;
    cluster
}

/// A server that answers one request for each permit.
fn permitted(permits: &Arc<Semaphore>) -> impl Fn(usize, DuplexStream) + Send + Sync + 'static {
    let permits = permits.clone();
    move |number, stream| {
        let permits = permits.clone();
        serve(stream, move |_| {
            let permits = permits.clone();
            async move {
                permits.acquire().await.unwrap().forget();
                text(number.to_string())
            }
        });
    }
}

async fn read(request: JoinHandle<Result<Response<Body>, Error>>) -> String {
    mesh_test::read(request.await.unwrap().unwrap().into_body()).await
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_has_no_more_connections_than_one_may_have() {
    let mut cluster = cluster();
    cluster.limits.max_connections_per_host = 2;
    let permits = Arc::new(Semaphore::new(0));
    let net = Net::new(cluster, permitted(&permits));
    let requests: Vec<_> = (0..4).map(|_| net.spawn(get())).collect();
    settle().await;
    assert_eq!(net.made(), 2);
    // With each request beyond, and again with each connection that is made, as in Envoy 1.40.
    assert_eq!(net.stat(ClusterStat::CxOverflow), 4);
    assert_eq!(net.stat(ClusterStat::RqPendingActive), 2);
    permits.add_permits(4);
    for request in requests {
        read(request).await;
    }
    assert_eq!(net.made(), 2);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_may_have_none_gets_one_all_the_same() {
    let mut cluster = cluster();
    cluster.limits.max_connections_per_host = 0;
    let net = Net::new(cluster, numbered);
    assert_eq!(net.get().await.unwrap(), "0");
    assert_eq!(net.get().await.unwrap(), "0");
    assert_eq!(net.stat(ClusterStat::CxOverflow), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_ends_after_its_largest_number_of_requests() {
    let mut cluster = cluster();
    cluster.max_requests_per_connection = 2;
    let net = Net::new(cluster, numbered);
    for number in ["0", "0", "1", "1", "2"] {
        assert_eq!(net.get().await.unwrap(), number);
    }
    assert_eq!(net.stat(ClusterStat::CxMaxRequests), 2);
    settle().await;
    assert_eq!(net.stat(ClusterStat::CxActive), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_idle_for_too_long_is_not_used() {
    let mut cluster = cluster();
    cluster.idle_timeout = Some(10 * SECOND);
    let net = Net::new(cluster, numbered);
    assert_eq!(net.get().await.unwrap(), "0");
    tokio::time::advance(9 * SECOND).await;
    assert_eq!(net.get().await.unwrap(), "0");
    tokio::time::advance(10 * SECOND).await;
    assert_eq!(net.get().await.unwrap(), "1");
    assert_eq!(net.stat(ClusterStat::CxIdleTimeout), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_sweep_closes_what_is_idle_and_nothing_else() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let mut cluster = cluster();
        cluster.idle_timeout = Some(10 * SECOND);
        cluster.protocol = protocol;
        let net = Net::new(cluster, move |number, stream| match protocol {
            UpstreamProtocol::Http2 => http2::numbered(number, stream),
            _ => numbered(number, stream),
        });
        let sweep = || net.upstreams.sweep(tokio::time::Instant::now().into_std());
        assert_eq!(net.get().await.unwrap(), "0");
        tokio::time::advance(9 * SECOND).await;
        sweep();
        settle().await;
        assert_eq!(net.in_use(Resource::Connections), 1, "{protocol:?}");
        tokio::time::advance(SECOND).await;
        sweep();
        settle().await;
        assert_eq!(net.in_use(Resource::Connections), 0, "{protocol:?}");
        assert_eq!(net.stat(ClusterStat::CxIdleTimeout), 1);
        net.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_does_not_outlive_its_largest_age() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let mut cluster = cluster();
        cluster.max_connection_duration = Some(10 * SECOND);
        cluster.protocol = protocol;
        let net = Net::new(cluster, move |number, stream| match protocol {
            UpstreamProtocol::Http2 => http2::numbered(number, stream),
            _ => numbered(number, stream),
        });
        assert_eq!(net.get().await.unwrap(), "0");
        tokio::time::advance(9 * SECOND).await;
        assert_eq!(net.get().await.unwrap(), "0");
        tokio::time::advance(SECOND).await;
        assert_eq!(net.get().await.unwrap(), "1");
        tokio::time::advance(10 * SECOND).await;
        net.upstreams.sweep(tokio::time::Instant::now().into_std());
        settle().await;
        assert_eq!(net.in_use(Resource::Connections), 0, "{protocol:?}");
        assert_eq!(net.stat(ClusterStat::CxIdleTimeout), 0, "it was not idle");
        net.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_to_connect_fails_everyone_who_waits() {
    let net = Net::connecting(with_connections(2), |_| {
        Box::pin(async {
            tokio::time::sleep(SECOND).await;
            Err(refused())
        })
    });
    let waiting: Vec<_> = (0..5).map(|_| net.spawn(get())).collect();
    settle().await;
    assert_eq!(net.made(), 2);
    assert_eq!(net.in_use(Resource::Pending), 5);
    for request in waiting {
        let error = request.await.unwrap().unwrap_err();
        assert_eq!(error.failure(), Failure::ConnectFailed);
        let cause = error.cause();
        assert_eq!(
            cause.as_deref(),
            Some("delayed connect error: Connection refused")
        );
        assert!(error.is_unsent());
    }
    assert_eq!(net.stat(ClusterStat::CxConnectFail), 2);
    assert_eq!(net.stat(ClusterStat::RqPendingFailureEject), 5);
    assert_eq!(net.stat(ClusterStat::RqTotal), 0, "none of them was sent");
    assert_eq!(net.stat(ClusterStat::RqCancelled), 0);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_too_long_is_given_up() {
    let mut cluster = cluster();
    cluster.connect_timeout = 3 * SECOND;
    let net = Net::connecting(cluster, |_| Box::pin(std::future::pending()));
    let began = tokio::time::Instant::now();
    let error = net.get().await.unwrap_err();
    assert_eq!(error.failure(), Failure::ConnectTimeout);
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(net.stat(ClusterStat::CxConnectTimeout), 1);
    assert_eq!(net.in_use(Resource::Connections), 0);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn requests_above_the_limit_on_waiting_are_refused() {
    let mut cluster = cluster();
    cluster.limits.max_pending = 2;
    cluster.connect_timeout = 3 * SECOND;
    let net = Net::connecting(cluster, |_| Box::pin(std::future::pending()));
    let waiting: Vec<_> = (0..2).map(|_| net.spawn(get())).collect();
    settle().await;
    let error = net.get().await.unwrap_err();
    assert_eq!(error.failure(), Failure::Overflow);
    assert_eq!(net.stat(ClusterStat::RqPendingOverflow), 1);
    for request in waiting {
        assert!(request.await.unwrap().is_err());
    }
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_makes_room_for_another_to_wait() {
    let mut cluster = cluster();
    cluster.limits.max_pending = 1;
    let net = Net::connecting(cluster, |_| Box::pin(std::future::pending()));
    let given_up = net.spawn(get());
    settle().await;
    given_up.abort();
    settle().await;
    assert_eq!(net.in_use(Resource::Pending), 0);
    assert_eq!(net.stat(ClusterStat::RqPendingActive), 0);
    assert_eq!(net.stat(ClusterStat::RqCancelled), 1);
    let error = net.get().await.unwrap_err();
    assert_eq!(error.failure(), Failure::ConnectTimeout);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_once_it_has_a_connection_and_is_cancelled_only_before() {
    let permits = Arc::new(Semaphore::new(0));
    let net = Net::new(cluster(), permitted(&permits));
    let sent = net.spawn(get());
    settle().await;
    let host = net.host.lock().unwrap().clone().unwrap();
    assert_eq!(
        (net.stat(ClusterStat::RqTotal), host.counts().rq_total),
        (1, 1)
    );
    sent.abort();
    settle().await;
    assert_eq!(net.stat(ClusterStat::RqCancelled), 0);
    drop(host);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn above_the_limit_an_endpoint_gets_one_connection() {
    let permits = Arc::new(Semaphore::new(0));
    let net = Net::new(with_connections(0), permitted(&permits));
    let requests: Vec<_> = (0..3).map(|_| net.spawn(get())).collect();
    settle().await;
    assert_eq!(net.made(), 1);
    assert_eq!(net.in_use(Resource::Pending), 2);
    assert!(net.stat(ClusterStat::CxOverflow) > 0);
    permits.add_permits(3);
    for request in requests {
        assert_eq!(read(request).await, "0");
    }
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_at_the_limit_gets_a_new_connection_when_the_old_one_closes() {
    let permits = Arc::new(Semaphore::new(0));
    let net = Net::new(with_connections(1), permitted(&permits));
    let first = net.spawn(get());
    settle().await;
    let second = net.spawn(get());
    settle().await;
    assert_eq!(net.made(), 1);
    first.abort();
    settle().await;
    permits.add_permits(1);
    assert_eq!(read(second).await, "1");
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_dropped_while_it_waits_does_not_lose_the_connection() {
    let net = Net::connecting(cluster(), |number| {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        Box::pin(async move {
            tokio::time::sleep(SECOND).await;
            numbered(number, theirs);
            Ok(ours)
        })
    });
    let gone = net.spawn(get());
    settle().await;
    gone.abort();
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(net.get().await.unwrap(), "0");
    assert_eq!(net.made(), 1);

    // The other order: it has the connection already and was not polled since.
    let mut waiting = Box::pin(net.send(get()));
    let mut served = Box::pin(net.send(get()));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(served.as_mut().poll(&mut cx).is_pending());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    tokio::time::sleep(2 * SECOND).await;
    drop(waiting);
    drop(served);
    settle().await;
    assert_eq!(net.get().await.unwrap(), "1");
    assert_eq!(net.made(), 2);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_goes_away_takes_its_idle_connections_along() {
    let net = Net::new(cluster(), numbered);
    assert_eq!(net.get().await.unwrap(), "0");
    let entry = net.entry.clone();
    net.finish().await;
    assert_eq!(entry.live().usage().get(Resource::Connections), 0);
}

#[test]
fn a_runtime_that_is_shut_down_leaves_nobody_waiting_and_nothing_counted() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    };
    let (first, second) = (runtime(), runtime());
    let net = Net::connecting(with_connections(1), |number| {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        Box::pin(async move {
            if number == 0 {
                std::future::pending::<()>().await;
            }
            numbered(number, theirs);
            Ok(ours)
        })
    });
    let (begun, waiting) = (net.send(get()), net.send(get()));
    let mut waiting = Box::pin(waiting);
    first.block_on(async {
        let mut begun = Box::pin(begun);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(begun.as_mut().poll(&mut cx).is_pending());
        assert!(waiting.as_mut().poll(&mut cx).is_pending());
        settle().await;
    });
    drop(first);
    second.block_on(async {
        let error = waiting.await.unwrap_err();
        assert_eq!(error.failure(), Failure::ConnectFailed);
        assert_eq!(net.get().await.unwrap(), "1");
        net.finish().await;
    });
}

#[tokio::test(start_paused = true)]
async fn pools_of_endpoints_that_are_gone_are_forgotten_without_a_sweep() {
    let net = Net::new(cluster(), numbered);
    assert_eq!(net.get().await.unwrap(), "0");
    let host = net.host.lock().unwrap().clone().unwrap();
    for _ in 0..1000 {
        drop(net.upstreams.make(&host, &net.entry));
    }
    assert!(net.upstreams.pools().0 < 10);
    drop(host);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_from_before_its_host_fell_ill_takes_no_further_request() {
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let mut cluster = cluster();
        cluster.protocol = protocol;
        let mut outlier = mesh_core::model::Outlier::default();
        (outlier.consecutive_5xx, outlier.max_ejection_percent) = (1, 100);
        cluster.outlier = Some(outlier);
        let net = Net::new(cluster, move |number, stream| match protocol {
            UpstreamProtocol::Http2 => http2::numbered(number, stream),
            _ => numbered(number, stream),
        });
        assert_eq!(net.get().await.unwrap(), "0");
        let host = net.host.lock().unwrap().clone().unwrap();
        let now = tokio::time::Instant::now().into_std();
        let hosts = mesh_lb::ClusterHosts::of(&net.entry);
        hosts.report(&host, mesh_lb::Outcome::Answered(500), now);
        assert!(host.is_ejected());
        // In panic it is used all the same.
        for _ in 0..2 {
            assert_eq!(net.get().await.unwrap(), "1", "{protocol:?}");
        }
        settle().await;
        assert_eq!(net.in_use(Resource::Connections), 1, "{protocol:?}");
        drop(host);
        net.finish().await;
    }
}
