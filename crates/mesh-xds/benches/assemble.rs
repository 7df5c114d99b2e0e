//! What one change costs beside many resources that do not change.

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use mesh_core::Name;
use mesh_core::model::{
    Address, Cluster, EndpointSet, HttpManager, Listener, RouteTable, Rule, VirtualHost,
};
use mesh_xds::assemble::{Assemble, Change, Options, To};
use mesh_xds::read::{
    ClusterResource, EndpointsResource, ListenerResource, Reference, Resource, RouteSource, Source,
};
use std::hint::black_box;
use std::time::Instant;

fn reference(name: &str) -> Reference {
    Reference {
        name: name.into(),
        from: Source::Ads,
        initial_fetch_timeout: None,
        watched_directory: None,
    }
}

fn cluster(at: usize, setting: u32) -> Resource {
    let mut cluster = Cluster::new(format!("c{at}"));
    cluster.panic_threshold = setting;
    Resource::Cluster(Box::new(ClusterResource {
        eds: Some(reference(&cluster.name)),
        secrets: Vec::new(),
        cluster,
        endpoints: None,
    }))
}

fn endpoints(at: usize, port: u16) -> Resource {
    let address = |last: u16| {
        format!("10.0.0.{last}:{port}")
            .parse::<Address>()
            .expect("valid")
    };
    Resource::Endpoints(EndpointsResource {
        name: format!("c{at}").into(),
        endpoints: EndpointSet::of((1..=10).map(address)),
    })
}

/// A table with one virtual host and ten rules.
fn routes(at: usize, path: u32) -> Resource {
    let to: Name = format!("c{at}").into();
    let host = (0..10).fold(VirtualHost::new("all", ["*"]), |host, rule| {
        host.rule(Rule::prefix_to(&format!("/{rule}/{path}"), to.clone()))
    });
    Resource::Routes(Box::new(RouteTable::new(format!("t{at}")).host(host)))
}

fn listener(at: usize) -> Resource {
    let [_, _, high, low] = u32::try_from(at).expect("small").to_be_bytes();
    let name = format!("l{at}");
    let manager = HttpManager::new(name.as_str(), format!("t{at}"));
    Resource::Listener(Box::new(ListenerResource {
        listener: Listener::http(name, ([127, 1, high, low], 80).into(), manager),
        routes: vec![RouteSource::Named(reference(&format!("t{at}")))],
        secrets: Vec::new(),
    }))
}

/// One table with `count` rules in hosts of ten rules each; one of them has another path.
fn one_table(count: usize, path: u32) -> Resource {
    let hosts = (0..count / 10).map(|at| {
        let domain = format!("host-{at}.example.com");
        let host = VirtualHost::new(domain.as_str(), [domain.as_str()]);
        (0..10_u32).fold(host, |host, rule| {
            let path = if at == 0 { path } else { 0 };
            host.rule(Rule::prefix_to(&format!("/{rule}/{path}"), "c0"))
        })
    });
    let table = hosts.fold(RouteTable::new("t0"), RouteTable::host);
    Resource::Routes(Box::new(table))
}

fn apply(assemble: &mut Assemble, resources: Vec<Resource>) {
    let change = |resource| Change {
        from: Source::Ads,
        ticket: 1,
        to: To::Is(resource),
    };
    let changes = resources.into_iter().map(change).collect();
    black_box(assemble.apply(changes, Instant::now()));
}

fn world(count: usize) -> Assemble {
    let mut assemble = Assemble::new(Options::default());
    let all = (0..count).flat_map(|at| {
        [
            cluster(at, 0),
            endpoints(at, 80),
            routes(at, 0),
            listener(at),
        ]
    });
    apply(&mut assemble, all.collect());
    assert_eq!(assemble.snapshot().listeners().len(), count);
    assemble
}

fn changes(criterion: &mut Criterion) {
    type Make = fn(u16) -> Resource;
    let cases: [(&str, Make); 3] = [
        ("eds", |round| endpoints(0, 80 + round % 2)),
        ("rds", |round| routes(0, u32::from(round % 2))),
        ("cds", |round| cluster(0, u32::from(round % 2))),
    ];
    for (name, make) in cases {
        let mut group = criterion.benchmark_group(format!("one_change/{name}"));
        for count in [100, 1_000, 10_000] {
            let mut assemble = world(count);
            let mut round = 0;
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter_batched(
                    || {
                        round += 1;
                        vec![make(round)]
                    },
                    |change| apply(&mut assemble, change),
                    BatchSize::PerIteration,
                );
            });
        }
    }
}

fn one_host(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("one_virtual_host_of_a_table");
    for count in [1_000, 10_000] {
        let mut assemble = world(1);
        let mut round = 0;
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter_batched(
                || {
                    round += 1;
                    vec![one_table(count, round % 2)]
                },
                |change| apply(&mut assemble, change),
                BatchSize::PerIteration,
            );
        });
    }
}

fn first_sync(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("everything_at_once");
    group.sample_size(10);
    for count in [1_000, 10_000] {
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| world(count));
        });
    }
}

criterion_group!(benches, changes, one_host, first_sync);
criterion_main!(benches);
