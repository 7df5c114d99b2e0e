//! Limits and connections of the HIGH priority, and limits on pools.

use super::*;
use mesh_core::model::{Action, Condition, Forward, Priority, Rule, UpstreamProtocol};
use mesh_core::{Exchange, Failure};
use mesh_test::fixture;

/// A request of a rule with this priority.
fn of(priority: Priority) -> Request<Body> {
    let mut forward = Forward::to("c");
    forward.priority = priority;
    let rule = Rule::new(Condition::default(), Action::Forward(forward));
    let exchange: Exchange = fixture::exchange(rule, None);
    fixture::with(get(), &exchange)
}

async fn read(answer: Result<Response<Body>, Error>) -> Result<String, Failure> {
    match answer {
        Ok(response) => Ok(mesh_test::read(response.into_body()).await),
        Err(error) => Err(error.failure()),
    }
}

#[tokio::test(start_paused = true)]
async fn each_priority_has_limits_and_connections_of_its_own() {
    let mut cluster = cluster();
    cluster.limits.max_pending = 0;
    let net = Net::new(cluster, numbered);
    let high = || net.send(of(Priority::High));
    let default = || net.send(of(Priority::Default));
    assert_eq!(read(high().await).await.unwrap(), "0");
    settle().await;
    // The idle connection is another priority's, and a new one has to be waited for.
    assert_eq!(read(default().await).await, Err(Failure::Overflow));
    assert_eq!(read(high().await).await.unwrap(), "0");
    assert_eq!(net.in_use(Resource::Connections), 0);
    let usage = net.entry.live().usage_of(Priority::High);
    assert_eq!(usage.get(Resource::Connections), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn requests_of_high_priority_count_among_themselves() {
    let mut cluster = cluster();
    cluster.high.max_requests = 1;
    let net = Net::new(cluster, numbered);
    let held = net.send(of(Priority::High)).await.unwrap();
    let usage = net.entry.live().usage_of(Priority::High).clone();
    drop(held);
    let mut sending = Box::pin(net.send(upload().0));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(sending.as_mut().poll(&mut cx).is_pending());
    settle().await;
    assert!(sending.as_mut().poll(&mut cx).is_pending());
    assert_eq!(
        (
            net.in_use(Resource::Requests),
            usage.get(Resource::Requests)
        ),
        (1, 0)
    );
    let unit = usage.take_anyway(Resource::Requests);
    assert_eq!(
        read(net.send(of(Priority::High)).await).await,
        Err(Failure::Overflow)
    );
    drop((unit, sending));
    assert!(net.send(of(Priority::High)).await.is_ok());
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_counts_while_it_has_connections() {
    let mut cluster = cluster();
    cluster.limits.max_pools = 1;
    cluster.idle_timeout = Some(std::time::Duration::from_secs(10));
    let net = Net::new(cluster, numbered);
    let taken = net.entry.live().usage().take_anyway(Resource::Pools);
    assert_eq!(
        read(net.send(get()).await).await,
        Err(Failure::NoHealthyHost)
    );
    assert_eq!(net.stat(ClusterStat::CxPoolOverflow), 1);
    assert_eq!((net.made(), net.in_use(Resource::Pending)), (0, 0));
    drop(taken);
    for _ in 0..2 {
        assert_eq!(read(net.send(get()).await).await.unwrap(), "0");
        assert_eq!(net.in_use(Resource::Pools), 1);
    }
    tokio::time::advance(std::time::Duration::from_secs(11)).await;
    net.upstreams.sweep(tokio::time::Instant::now().into_std());
    settle().await;
    assert_eq!(net.in_use(Resource::Pools), 0);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_without_a_connection_counts_no_more() {
    let mut cluster = cluster();
    cluster.limits.max_pools = 1;
    let net = Net::connecting(cluster, |_| Box::pin(async { Err(refused()) }));
    for _ in 0..2 {
        assert_eq!(
            read(net.send(get()).await).await,
            Err(Failure::ConnectFailed)
        );
    }
    assert_eq!(net.stat(ClusterStat::CxPoolOverflow), 0);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_pool_to_the_same_endpoint_makes_room_and_a_busy_one_does_not() {
    let mut cluster = cluster();
    cluster.protocol = UpstreamProtocol::AsDownstream;
    cluster.limits.max_pools = 1;
    let net = Net::new(cluster, |number, stream| match number {
        1 => http2::numbered(number, stream),
        _ => numbered(number, stream),
    });
    let framed = || {
        let mut request = get();
        *request.version_mut() = http::Version::HTTP_2;
        request
    };
    let first = net.send(get()).await.unwrap();
    let mut waiting = Box::pin(net.send(upload().0));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert_eq!(read(Ok(first)).await.unwrap(), "0");
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    assert_eq!(
        read(net.send(framed()).await).await,
        Err(Failure::NoHealthyHost)
    );
    drop(waiting);
    settle().await;
    assert_eq!(read(net.send(framed()).await).await.unwrap(), "1");
    assert_eq!(read(net.send(get()).await).await.unwrap(), "2");
    settle().await;
    assert_eq!(net.in_use(Resource::Pools), 1);
    assert_eq!(
        net.in_use(Resource::Connections),
        1,
        "the others were closed"
    );
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_counts_though_nobody_may_wait_for_its_first_connection() {
    let mut cluster = cluster();
    (cluster.limits.max_pending, cluster.limits.max_pools) = (0, 1);
    let net = Net::new(cluster, numbered);
    for _ in 0..2 {
        assert_eq!(read(net.send(get()).await).await, Err(Failure::Overflow));
        assert_eq!((net.in_use(Resource::Pools), net.made()), (1, 0));
    }
    assert_eq!(net.stat(ClusterStat::CxPoolOverflow), 0);
    net.finish().await;
}
