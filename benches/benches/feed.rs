//! Whether an update makes a feed slower for those who clone it for each request.
//!
//! A reader that keeps a copy of the value in each clone and refreshes it there is fast until the
//! first update and slow ever after, when every request brings a fresh, stale clone. Here each
//! thread loads from fresh clones, before any update and after one; the printed ratio is to stay
//! within 1.2×. The rounds of both take turns, so that a noisy machine is noisy for both.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use mesh_core::{Feed, Publisher};
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

const THREADS: [usize; 2] = [1, 8];
/// Loads from one clone: as many as one request makes, or a few.
const EACH_CLONE: u64 = 4;
const ROUNDS: usize = 41;
const LOADS: u64 = 50_000;

type Value = [u64; 8];

/// A publisher, of whose values `updates` have come after the first.
fn publisher(updates: u64) -> Publisher<Value> {
    let publisher = Publisher::new([0; 8]);
    for update in 1..=updates {
        publisher.publish(Arc::new([update; 8]));
    }
    publisher
}

/// The mean time that each of `threads` threads takes for `loads` loads. Cloning is not timed.
fn time(feed: &Feed<Value>, threads: usize, loads: u64) -> Duration {
    let start = Barrier::new(threads);
    let one = || {
        let mine = feed.clone();
        start.wait();
        let mut spent = Duration::ZERO;
        for _ in 0..loads.div_ceil(EACH_CLONE * 64) {
            let clones: [Feed<Value>; 64] = std::array::from_fn(|_| mine.clone());
            let begin = Instant::now();
            for fresh in &clones {
                for _ in 0..EACH_CLONE {
                    black_box(fresh.load());
                }
            }
            spent += begin.elapsed();
        }
        spent
    };
    let spent = thread::scope(|scope| {
        // All have to run before the first is waited for.
        #[allow(clippy::needless_collect)]
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        let spent = running.into_iter().map(|thread| thread.join());
        spent
            .map(|spent| spent.expect("a load does not panic"))
            .sum::<Duration>()
    });
    spent / u32::try_from(threads).expect("few threads")
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

fn ratio(threads: usize) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        before.push(time(&publisher(0).feed(), threads, LOADS));
        let publisher = publisher(0);
        let feed = publisher.feed();
        publisher.publish(Arc::new([1; 8]));
        after.push(time(&feed, threads, LOADS));
    }
    let nanos = |all| median(all).as_secs_f64() * 1e9 / LOADS as f64;
    let (before, after) = (nanos(before), nanos(after));
    let ratio = after / before;
    let verdict = if ratio <= 1.2 { "within" } else { "OVER" };
    println!(
        "Feed::load() from {threads} threads: {before:.1} ns before an update, {after:.1} ns after: \
         {ratio:.2}×, {verdict} 1.2×"
    );
}

fn bench(criterion: &mut Criterion) {
    for threads in THREADS {
        let mut group = criterion.benchmark_group(format!("feed/load/{threads} threads"));
        for (name, updates) in [("before", 0), ("after an update", 1)] {
            let feed = publisher(updates).feed();
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
                bencher.iter_custom(|loads| time(&feed, threads, loads));
            });
        }
        group.finish();
    }
    THREADS.into_iter().for_each(ratio);
}

criterion_group!(benches, bench);
criterion_main!(benches);
