//! What a change costs the server: per stream without input and output, and from the change until
//! a thousand clients over sockets have it.
//!
//! `cargo bench -p mesh-xds --features server --bench server [-- FILTER]`. The clients run in the
//! same process, on the same two workers.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mesh_core::Feed;
use mesh_xds::pb::envoy::config::endpoint::v3 as endpoint;
use mesh_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use mesh_xds::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_xds::server::{
    Changes, Machine, Options, Refused, ResourceSet, Response, Scope, Server, Variant, View,
};
use mesh_xds::{Encoded, Node, TypeUrl};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

const SIZES: [usize; 3] = [100, 1_000, 10_000];
const CLIENTS: usize = 1_000;

/// The endpoints of a service: ten of them.
fn endpoints(service: usize, generation: u64) -> Encoded {
    let name = format!("outbound|9080||service-{service}.shop.svc.cluster.local");
    let one = |index: u64| endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::EndpointName(
            format!("10.0.{}.{index}:9080", generation % 256),
        )),
        ..endpoint::LbEndpoint::default()
    };
    let message = endpoint::ClusterLoadAssignment {
        cluster_name: name.clone(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: (0..10).map(one).collect(),
            ..endpoint::LocalityLbEndpoints::default()
        }],
        ..endpoint::ClusterLoadAssignment::default()
    };
    Encoded::of(name, &message)
}

/// A mesh of this many services.
fn mesh(services: usize) -> ResourceSet {
    let set = ResourceSet::new();
    let mut changes = Changes::new();
    for service in 0..services {
        let endpoints = endpoints(service, 0);
        let cluster = Encoded::new(endpoints.name.clone(), vec![0x42; 300]);
        changes = changes
            .set(TypeUrl::Endpoints, endpoints)
            .set(TypeUrl::Cluster, cluster);
    }
    let routes = Encoded::new("9080", vec![0x42; services * 200]);
    set.apply(changes.set(TypeUrl::Routes, routes));
    set
}

fn asking(kind: TypeUrl, names: &[&str]) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.url().into(),
        resource_names_subscribe: names.iter().map(|name| name.to_string()).collect(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn answer(url: &str, nonce: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: url.into(),
        response_nonce: nonce.into(),
        ..DeltaDiscoveryRequest::default()
    }
}

/// A machine whose client has everything. It names its endpoints, as Envoy does.
fn synced(set: &ResourceSet, now: Instant) -> Machine {
    let options = Options::new(Variant::Delta, Scope::Aggregated);
    let view = Feed::fixed(View::of([set.clone()]));
    let mut machine = Machine::new(options, &Node::new("n"), view, now);
    machine
        .delta_request(asking(TypeUrl::Cluster, &["*"]), now)
        .unwrap();
    let names = set.all(TypeUrl::Endpoints);
    let names: Vec<&str> = names.iter().map(|one| one.name.as_str()).collect();
    machine
        .delta_request(asking(TypeUrl::Endpoints, &names), now)
        .unwrap();
    machine
        .delta_request(asking(TypeUrl::Routes, &["9080"]), now)
        .unwrap();
    settle(&mut machine, now);
    machine
}

fn settle(machine: &mut Machine, now: Instant) -> usize {
    let mut bytes = 0;
    while let Some(response) = machine.poll_response(now) {
        bytes += response.encoded_len();
        machine
            .delta_request(answer(&response.url, &response.nonce), now)
            .unwrap();
    }
    bytes
}

/// One endpoint changes: what that costs one stream, from the news to the acknowledgement.
fn one_stream(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("server/one_endpoint/one_stream");
    for services in SIZES {
        // The closure is called for each sample, but not at all if a filter leaves it out.
        let mut ready = None;
        let (mut generation, now) = (0, Instant::now());
        group.bench_function(BenchmarkId::from_parameter(services), |bench| {
            let (set, machine) = ready.get_or_insert_with(|| {
                let set = mesh(services);
                let machine = synced(&set, now);
                (set, machine)
            });
            bench.iter(|| {
                generation += 1;
                let changes = Changes::new();
                set.apply(changes.set(TypeUrl::Endpoints, endpoints(services / 2, generation)));
                machine.refresh(now);
                black_box(settle(machine, now))
            });
        });
    }
    group.finish();
}

/// The first sync of one stream.
fn first_sync(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("server/first_sync/one_stream");
    group.sample_size(10);
    for services in SIZES {
        let (mut set, now) = (None, Instant::now());
        group.bench_function(BenchmarkId::from_parameter(services), |bench| {
            let set = set.get_or_insert_with(|| mesh(services));
            bench.iter(|| black_box(synced(set, now)));
        });
    }
    group.finish();
}

/// Writing a response of many resources.
fn encode(criterion: &mut Criterion) {
    let set = mesh(1_000);
    let options = Options::new(Variant::Delta, Scope::Aggregated);
    let now = Instant::now();
    let view = Feed::fixed(View::of([set]));
    let mut machine = Machine::new(options, &Node::new("n"), view, now);
    machine
        .delta_request(asking(TypeUrl::Endpoints, &["*"]), now)
        .unwrap();
    let response: Response = machine.poll_response(now).unwrap();
    criterion.bench_function("server/encode/1000_resources", |bench| {
        let mut buffer = Vec::with_capacity(response.encoded_len());
        bench.iter(|| {
            buffer.clear();
            response.encode(&mut buffer);
            black_box(buffer.len())
        });
    });
}

/// How many responses all clients together have handled.
#[derive(Default)]
struct Reached {
    count: AtomicUsize,
    more: Notify,
}

impl Reached {
    async fn wait(&self, count: usize) {
        loop {
            let more = self.more.notified();
            if self.count.load(Ordering::Acquire) >= count {
                return;
            }
            more.await;
        }
    }
}

async fn client(channel: Channel, number: usize, reached: Arc<Reached>) {
    let mut client =
        AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let (to, requests) = mpsc::channel(8);
    let first = DeltaDiscoveryRequest {
        node: Some(Node::new(format!("client-{number}")).to_proto()),
        ..asking(TypeUrl::Cluster, &["*"])
    };
    to.send(first).await.unwrap();
    to.send(asking(TypeUrl::Endpoints, &["*"])).await.unwrap();
    to.send(asking(TypeUrl::Routes, &["9080"])).await.unwrap();
    let requests = ReceiverStream::new(requests);
    let mut from = client
        .delta_aggregated_resources(requests)
        .await
        .unwrap()
        .into_inner();
    while let Ok(Some(response)) = from.message().await {
        to.send(answer(&response.type_url, &response.nonce))
            .await
            .unwrap();
        if reached.count.fetch_add(1, Ordering::AcqRel) % CLIENTS == CLIENTS - 1 {
            reached.more.notify_waiters();
        }
    }
}

/// From a change until a thousand delta clients have it.
fn thousand_clients(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("server/thousand_clients");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(8));
    for services in SIZES {
        for change in ["one_endpoint", "routes"] {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let mut ready = None;
            let (mut generation, mut count) = (0, 3 * CLIENTS);
            group.bench_function(BenchmarkId::new(change, services), |bench| {
                let (set, reached) = ready.get_or_insert_with(|| sync_all(&runtime, services));
                bench.iter_custom(|times| {
                    let mut took = Duration::ZERO;
                    for _ in 0..times {
                        generation += 1;
                        count += CLIENTS;
                        let changes = match change {
                            "one_endpoint" => Changes::new()
                                .set(TypeUrl::Endpoints, endpoints(services / 2, generation)),
                            _ => {
                                let mut bytes = vec![0x42; services * 200];
                                bytes[..8].copy_from_slice(&generation.to_le_bytes());
                                Changes::new().set(TypeUrl::Routes, Encoded::new("9080", bytes))
                            }
                        };
                        let started = Instant::now();
                        set.apply(changes);
                        runtime.block_on(reached.wait(count));
                        took += started.elapsed();
                        // The acknowledgements are no part of it, but they must not pile up.
                        runtime.block_on(async {
                            tokio::time::sleep(Duration::from_millis(20)).await
                        });
                    }
                    took
                });
            });
            runtime.shutdown_background();
        }
    }
    group.finish();
}

/// A server and a thousand clients that have everything.
fn sync_all(runtime: &Runtime, services: usize) -> (ResourceSet, Arc<Reached>) {
    let set = mesh(services);
    let before = resident();
    let reached = Arc::new(Reached::default());
    let started = Instant::now();
    runtime.block_on(connect(&set, &reached, 3 * CLIENTS));
    let (took, memory) = (started.elapsed(), resident().saturating_sub(before) >> 20);
    eprintln!(
        "{services} services: first sync of {CLIENTS} clients took {took:?}; {memory} MiB more for \
         the server and the clients"
    );
    (set, reached)
}

async fn connect(set: &ResourceSet, reached: &Arc<Reached>, count: usize) {
    let shared = set.clone();
    let view = move |_: &Node| Ok::<_, Refused>(Feed::fixed(View::of([shared.clone()])));
    let server = Server::builder(view).build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { server.serve(listener, std::future::pending()).await });
    for number in 0..CLIENTS {
        // One after the other: a thousand at once are more than a listener's queue holds.
        let channel = Channel::from_shared(address.clone())
            .unwrap()
            .connect()
            .await
            .unwrap();
        tokio::spawn(client(channel, number, reached.clone()));
    }
    reached.wait(count).await;
}

/// The memory of the process, in bytes; 0 where the system does not tell.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

criterion_group!(benches, one_stream, first_sync, encode, thousand_clients);
criterion_main!(benches);
