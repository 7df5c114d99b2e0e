//! Hosts come and go, and the cluster with them, while requests go on: none is lost and none goes
//! where it should not.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use mesh_core::model::{
    Balancing, Cluster, ClusterEntry, EndpointSet, RouteTable, Rule, Snapshot, SnapshotBuilder,
    VirtualHost,
};
use mesh_core::stats::ClusterStat;
use mesh_core::{Caller, Exchange, Matched, Pinned, Publisher, Rng, Shard};
use mesh_lb::{ClusterHosts, Dispatch, Host};
use mesh_test::{empty, fixture, read};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use tower::ServiceExt;
use tower_service::Service;

const STEPS: usize = 400;
const WORKERS: usize = 4;

/// What is in force, and what was.
struct World {
    snapshots: Publisher<Snapshot>,
    /// The ports of each step, noted before they are published.
    history: Mutex<Vec<BTreeSet<u16>>>,
    /// The last step that is published for certain.
    step: AtomicUsize,
    done: AtomicBool,
    requests: AtomicUsize,
}

/// Answers with its port, after a while.
#[derive(Clone)]
struct Port {
    port: u16,
    _alive: Arc<()>,
}

impl<B> Service<Request<B>> for Port {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<B>) -> Self::Future {
        let port = self.port;
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(Response::new(Full::from(port.to_string())))
        })
    }
}

fn addresses(ports: &BTreeSet<u16>) -> EndpointSet {
    EndpointSet::of(
        ports
            .iter()
            .map(|port| fixture::address(&format!("10.0.0.1:{port}"))),
    )
}

fn build(
    mut builder: SnapshotBuilder,
    balancing: Balancing,
    ports: &BTreeSet<u16>,
) -> Arc<Snapshot> {
    let mut cluster = Cluster::new("c");
    cluster.balancing = balancing;
    builder.cluster(cluster).endpoints("c", addresses(ports));
    let host = VirtualHost::new("all", ["*"]).rule(Rule::prefix_to("/", "c"));
    builder.routes(RouteTable::new("t").host(host));
    builder.build().expect("consistent").0
}

fn without_clusters(previous: &Arc<Snapshot>) -> Arc<Snapshot> {
    SnapshotBuilder::from(previous).build().expect("empty").0
}

impl World {
    fn change(&self, step: usize, rng: &Rng) {
        let ports: BTreeSet<_> = (0..1 + rng.word() % 5)
            .map(|_| 1 + (rng.word() % 8) as u16)
            .collect();
        self.history.lock().unwrap().push(ports.clone());
        let current = self.snapshots.load();
        let balancing = match rng.word() % 3 {
            0 => Balancing::RoundRobin,
            1 => Balancing::LEAST_REQUEST,
            _ => Balancing::Random,
        };
        match step % 8 {
            // The cluster is configured anew.
            3 => self
                .snapshots
                .publish(build(SnapshotBuilder::from(&current), balancing, &ports)),
            // It goes and comes back as another one, in one swap.
            7 => {
                let empty = without_clusters(&current);
                self.snapshots
                    .publish(build(SnapshotBuilder::from(&empty), balancing, &ports));
            }
            // Only its endpoints change.
            _ => current.clusters()[0]
                .live()
                .publish_endpoints(Arc::new(addresses(&ports))),
        }
        self.step.store(step, SeqCst);
    }

    /// Sends requests until the changes are over.
    async fn work(self: Arc<Self>, shard: usize) {
        let living = Arc::new(());
        let alive = living.clone();
        let dispatch = Dispatch::new(move |host: &Arc<Host>, _: &Arc<ClusterEntry>| Port {
            port: host.address().port(),
            _alive: alive.clone(),
        });
        while !self.done.load(SeqCst) {
            let before = self.step.load(SeqCst);
            let snapshot = self.snapshots.load();
            let mut caller = Caller::default();
            caller.shard = Shard::of_worker(shard);
            let exchange = Exchange::new(tokio::time::Instant::now().into_std(), caller);
            let matched = Matched::new(Pinned::new(snapshot), 0, 0, 0).to(None, Some(0));
            exchange.set_matched(matched);
            let request = fixture::with(Request::new(empty()), &exchange);
            let response = dispatch
                .clone()
                .oneshot(request)
                .await
                .expect("no request is lost");
            let port: u16 = read(response.into_body()).await.parse().unwrap();
            let after = self.step.load(SeqCst);
            let history = self.history.lock().unwrap();
            // A change may have been published and not been counted yet.
            let last = (after + 2).min(history.len());
            let in_force = history[before..last]
                .iter()
                .any(|ports| ports.contains(&port));
            assert!(in_force, "{port} was not in force from {before} to {after}");
            self.requests.fetch_add(1, SeqCst);
        }
        let newest = self.snapshots.load();
        dispatch.adopt(&newest);
        let hosts = self.history.lock().unwrap().last().unwrap().len();
        // One handle here, one in the closure, one for each service.
        assert!(
            Arc::strong_count(&living) <= 2 + hosts,
            "services of hosts that left are dropped"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_request_is_lost_or_misrouted_while_hosts_come_and_go() {
    let rng = Rng::with_seed(11);
    let ports = BTreeSet::from([1]);
    let world = Arc::new(World {
        snapshots: Publisher::from_arc(build(
            SnapshotBuilder::new(),
            Balancing::RoundRobin,
            &ports,
        )),
        history: Mutex::new(vec![ports]),
        step: AtomicUsize::new(0),
        done: AtomicBool::new(false),
        requests: AtomicUsize::new(0),
    });
    let first = world.snapshots.load();
    let mut workers = tokio::task::JoinSet::new();
    for shard in 0..WORKERS {
        workers.spawn(world.clone().work(shard));
    }
    for step in 1..=STEPS {
        world.change(step, &rng);
        // Let every worker see some of what is in force.
        let seen = world.requests.load(SeqCst);
        while world.requests.load(SeqCst) < seen + 20 && workers.try_join_next().is_none() {
            tokio::task::yield_now().await;
        }
    }
    world.done.store(true, SeqCst);
    while let Some(worker) = workers.join_next().await {
        worker.expect("a worker that found nothing wrong");
    }
    assert!(world.requests.load(SeqCst) >= 20 * STEPS);
    for snapshot in [first, world.snapshots.load()] {
        let entry = &snapshot.clusters()[0];
        let stats = entry.live().stats().block();
        assert_eq!(stats.get(ClusterStat::RqActive), 0);
        assert_eq!(
            stats.get(ClusterStat::RqTotal),
            stats.get(ClusterStat::Rq2xx)
        );
        assert_eq!(stats.get(ClusterStat::NoHealthy), 0);
        for host in ClusterHosts::of(entry).view() {
            assert_eq!(host.active, 0);
        }
    }
}
