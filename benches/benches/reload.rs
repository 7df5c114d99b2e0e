//! What a change of configuration costs: 10,000 routes of which one changed.
//!
//! Both halves are measured, linking the snapshot and compiling its routes ([`prepare`]), from
//! nothing and from the predecessor, and the same from the bytes of a RouteConfiguration on, which is all
//! that a proxy does with one that it receives before its workers have it.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use mesh_core::model::{Cluster, RouteTable, Rule, Snapshot, SnapshotBuilder, VirtualHost};
use mesh_route::prepare;
use mesh_xds::read::{Reader, Resource};
use mesh_xds::{TypeUrl, write};
use prost::Message as _;
use std::hint::black_box;
use std::sync::Arc;

const ROUTES: usize = 10_000;

/// A configuration of 10,000 routes in so many virtual hosts. The last route of the last host
/// begins with `last`.
fn table(hosts: usize, last: &str) -> RouteTable {
    let each = ROUTES / hosts;
    (0..hosts).fold(RouteTable::new("t"), |table, host| {
        let name = format!("service-{host}.default.svc.cluster.local");
        let rules = (0..each).map(|rule| {
            let prefix = match (host + 1 == hosts, rule + 1 == each) {
                (true, true) => last.to_owned(),
                _ => format!("/api/v1/things-{rule:05}/"),
            };
            Rule::prefix_to(&prefix, format!("outbound|9080||{host}"))
        });
        table.host(rules.fold(VirtualHost::new(name.clone(), [name]), VirtualHost::rule))
    })
}

fn build(mut builder: SnapshotBuilder, table: RouteTable) -> Arc<Snapshot> {
    for host in 0..table.virtual_hosts.len() {
        builder.cluster(Cluster::new(format!("outbound|9080||{host}")));
    }
    builder.routes(table);
    builder.build().expect("consistent").0
}

/// The table as it travels, and as it is read.
fn sent(hosts: usize, last: &str) -> Vec<u8> {
    write::route::table(&table(hosts, last)).encode_to_vec()
}

fn received(reader: &Reader, bytes: &[u8]) -> RouteTable {
    match reader.resource(TypeUrl::Routes, bytes) {
        Ok(Resource::Routes(table)) => *table,
        other => panic!("no routes: {other:?}"),
    }
}

/// How many virtual hosts have yet to be compiled.
fn uncompiled(snapshot: &Snapshot) -> usize {
    let hosts = snapshot
        .tables()
        .iter()
        .flat_map(|table| &table.virtual_hosts);
    // What is in a slot is mesh-route's own; that it is empty is all that can be seen.
    hosts
        .filter(|host| format!("{:?}", host.slot) == "Slot(empty)")
        .count()
}

fn bench(criterion: &mut Criterion) {
    for hosts in [1_000, 10, 1] {
        let first = build(SnapshotBuilder::new(), table(hosts, "/old"));
        println!(
            "{hosts} virtual hosts, the first snapshot: {} to compile",
            uncompiled(&first)
        );
        prepare(&first);
        let second = build(SnapshotBuilder::from(&first), table(hosts, "/new"));
        println!(
            "{hosts} virtual hosts, one route changed: {} to compile",
            uncompiled(&second)
        );
        drop(second);

        let mut group = criterion.benchmark_group(format!("reload/{hosts} virtual hosts"));
        group.sample_size(20);
        group.bench_function("from nothing", |bencher| {
            bencher.iter_batched(
                || table(hosts, "/old"),
                |table| {
                    let snapshot = build(SnapshotBuilder::new(), table);
                    prepare(black_box(&snapshot));
                    snapshot
                },
                BatchSize::PerIteration,
            );
        });
        group.bench_function("one route changed", |bencher| {
            bencher.iter_batched(
                || table(hosts, "/new"),
                |table| {
                    let snapshot = build(SnapshotBuilder::from(&first), table);
                    prepare(black_box(&snapshot));
                    snapshot
                },
                BatchSize::PerIteration,
            );
        });
        let reader = Reader::default();
        let of = |last| {
            build(
                SnapshotBuilder::new(),
                received(&reader, &sent(hosts, last)),
            )
        };
        let first = of("/old");
        prepare(&first);
        // As a new one each time: what was read of the last one is not there any more.
        let mut changes = (0..).map(|at| sent(hosts, &format!("/new-{at}")));
        group.bench_function("one route changed, from its bytes", |bencher| {
            bencher.iter_batched(
                || changes.next().expect("there is no last one"),
                |bytes| {
                    let table = received(&reader, black_box(&bytes));
                    let snapshot = build(SnapshotBuilder::from(&first), table);
                    prepare(&snapshot);
                    snapshot
                },
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, bench);
criterion_main!(benches);
