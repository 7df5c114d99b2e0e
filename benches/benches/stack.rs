//! What the outbound stack costs a request, without a network.
//!
//! Compared are the bare endpoint, the stack for a rule that asks for nothing, and the stack for
//! a rule that asks for everything that is usual: retries, timeouts, limits, outlier detection.
//! Telemetry is measured apart: statistics and standard metrics, and an access log besides.

mod outbound;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use mesh_core::Publisher;
use outbound::{Endpoint, accounted, drive, outbound, request, snapshot};

fn bench(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let mut group = criterion.benchmark_group("stack");

    let mut bare = Endpoint;
    group.bench_function("an endpoint alone", |bencher| {
        let send = |request| drive(&runtime, &mut bare, request);
        bencher.iter_batched(request, send, BatchSize::SmallInput);
    });
    for (name, policies) in [("no policy", false), ("policies", true)] {
        let publisher = Publisher::from_arc(snapshot(policies));
        let mut stack = outbound(publisher.feed());
        group.bench_function(name, |bencher| {
            let send = |request| drive(&runtime, &mut stack, request);
            bencher.iter_batched(request, send, BatchSize::SmallInput);
        });
    }
    for (name, log) in [
        ("policies and metrics", false),
        ("policies, metrics and log", true),
    ] {
        let publisher = Publisher::from_arc(snapshot(true));
        let (telemetry, mut stack, begin) = accounted(publisher.feed(), log);
        let mut sent = 0_u32;
        let mut next = || {
            sent += 1;
            if sent.is_multiple_of(4096) {
                telemetry.flush().expect("a sink takes all");
            }
            begin()
        };
        group.bench_function(name, |bencher| {
            let send = |request| drive(&runtime, &mut stack, request);
            bencher.iter_batched(&mut next, send, BatchSize::SmallInput);
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
