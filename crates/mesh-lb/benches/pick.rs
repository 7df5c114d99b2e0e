//! What a pick costs with few and with many endpoints, and what a new set costs.

use criterion::{Criterion, criterion_group, criterion_main};
use mesh_core::model::{
    Balancing, Cluster, Endpoint, EndpointSet, Maglev, RingHash, Snapshot, SnapshotBuilder,
};
use mesh_core::{HostId, Rng};
use mesh_lb::{Ask, Avoid, ClusterHosts, Outcome, Picker};
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

fn endpoints(count: u16, weight: impl Fn(u16) -> u32) -> EndpointSet {
    let endpoints = (1..=count).map(|port| {
        let mut endpoint = Endpoint::new(SocketAddr::from(([10, 0, 0, 1], port)));
        endpoint.weight = weight(port);
        Arc::new(endpoint)
    });
    EndpointSet::from_endpoints(endpoints.collect())
}

fn snapshot(balancing: Balancing, endpoints: EndpointSet) -> Arc<Snapshot> {
    let mut cluster = Cluster::new("c");
    cluster.balancing = balancing;
    cluster.outlier = Some(mesh_core::model::Outlier::default());
    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster).endpoints("c", endpoints);
    builder.build().expect("consistent").0
}

const BALANCING: [(&str, Balancing); 3] = [
    ("round_robin", Balancing::RoundRobin),
    ("least_request", Balancing::LEAST_REQUEST),
    ("random", Balancing::Random),
];

fn picks(criterion: &mut Criterion) {
    for count in [10, 10_000] {
        let mut group = criterion.benchmark_group(format!("pick/{count}"));
        for (name, balancing) in BALANCING {
            for (weights, spread) in [("equal", 1), ("weighted", 7)] {
                let endpoints = endpoints(count, |port| 1 + u32::from(port) % spread);
                let snapshot = snapshot(balancing, endpoints);
                let entry = &snapshot.clusters()[0];
                let hosts = ClusterHosts::of(entry);
                let (mut picker, rng, now) = (Picker::default(), Rng::with_seed(1), Instant::now());
                group.bench_function(format!("{name}/{weights}"), |bench| {
                    bench.iter(|| {
                        let set = hosts.refresh(entry, now);
                        black_box(picker.pick(&set, rng.word(), Avoid::NONE))
                    });
                });
            }
        }
        group.finish();
    }
}

fn hashes(criterion: &mut Criterion) {
    for count in [10, 10_000] {
        let mut group = criterion.benchmark_group(format!("hash/{count}"));
        for (name, balancing) in [
            ("ring", Balancing::RingHash(RingHash::default())),
            ("maglev", Balancing::Maglev(Maglev::default())),
        ] {
            let snapshot = snapshot(balancing, endpoints(count, |_| 1));
            let set = ClusterHosts::of(&snapshot.clusters()[0]).current();
            let (mut picker, rng) = (Picker::default(), Rng::with_seed(1));
            group.bench_function(name, |bench| {
                bench.iter(|| {
                    let ask = Ask::new(0).hash(Some(rng.word()));
                    black_box(picker.choose(&set, &ask))
                });
            });
        }
        group.finish();
    }
}

fn changes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    for count in [10, 10_000] {
        let sets = [1, 2].map(|weight| Arc::new(endpoints(count, |_| weight)));
        let snapshot = snapshot(Balancing::RoundRobin, EndpointSet::clone(&sets[0]));
        let entry = &snapshot.clusters()[0];
        let (hosts, now) = (ClusterHosts::of(entry), Instant::now());
        let mut turn = 0;
        group.bench_function(format!("endpoints/{count}"), |bench| {
            bench.iter(|| {
                turn += 1;
                entry.live().publish_endpoints(sets[turn % 2].clone());
                black_box(hosts.refresh(entry, now))
            });
        });
    }
    group.finish();
}

fn reports(criterion: &mut Criterion) {
    let snapshot = snapshot(Balancing::RoundRobin, endpoints(10, |_| 1));
    let entry = &snapshot.clusters()[0];
    let (hosts, now) = (ClusterHosts::of(entry), Instant::now());
    let host = hosts.refresh(entry, now).hosts()[0].clone();
    criterion.bench_function("report/success", |bench| {
        bench.iter(|| hosts.report(&host, Outcome::Answered(200), now));
    });
    let set = hosts.current();
    let tried: Vec<HostId> = set.hosts().iter().take(2).map(|host| host.id()).collect();
    let (mut picker, rng) = (Picker::default(), Rng::with_seed(1));
    criterion.bench_function("pick/retry", |bench| {
        bench.iter(|| picker.pick(&set, rng.word(), Avoid::hosts(&tried, 5)));
    });
}

criterion_group!(benches, picks, hashes, changes, reports);
criterion_main!(benches);
