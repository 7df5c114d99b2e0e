//! How long it takes to find a rule, by kind and number of rules; the last rule matches. And what
//! compiling a table costs, in time and (on Linux) in memory.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::Request;
use mesh_core::model::{Action, Condition, PathMatch, Pattern, RouteTable, Rule, VirtualHost};
use mesh_route::{Head, find};
use std::hint::black_box;

fn table(rules: usize, path: impl Fn(String) -> PathMatch) -> RouteTable {
    let rule = |number: usize| {
        let mut condition = Condition::default();
        condition.path = path(format!("/api/v1/service-{number:06}/items"));
        Rule::new(condition, Action::default())
    };
    let hosts = (0..100)
        .map(|number| VirtualHost::new(format!("h{number}"), [format!("h{number}.example")]));
    let table = hosts.fold(RouteTable::new("t"), RouteTable::host);
    table.host((0..rules).map(rule).fold(
        VirtualHost::new("all", ["*.mesh.example"]),
        VirtualHost::rule,
    ))
}

/// What the process has resident, in KiB.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Prints what rules and what is compiled of them take.
fn memory(rules: usize) -> Option<()> {
    let request = Request::get("http://reviews.mesh.example/none")
        .body(())
        .ok()?;
    let before = resident()?;
    let table = table(rules, PathMatch::Prefix);
    let built = resident()?;
    find(&table, &Head::of(&request), 0);
    let compiled = resident()?;
    let each = |from: u64, to: u64| to.saturating_sub(from) * 1024 / rules as u64;
    println!(
        "memory: {rules} prefixes take {} bytes each, and {} more once they are compiled",
        each(before, built),
        each(built, compiled)
    );
    drop(table);
    Some(())
}

fn bench(criterion: &mut Criterion) {
    memory(100_000);
    for (kind, path) in [
        (
            "exact",
            (|path| PathMatch::Exact(path)) as fn(String) -> PathMatch,
        ),
        ("prefix", |path| PathMatch::Prefix(path)),
        ("separated prefix", |path| PathMatch::SeparatedPrefix(path)),
    ] {
        let mut group = criterion.benchmark_group(format!("find/{kind}"));
        for rules in [10, 1_000, 10_000] {
            let table = table(rules, path);
            let last = rules - 1;
            let uri = format!("http://reviews.mesh.example/api/v1/service-{last:06}/items");
            let request = Request::get(uri).body(()).expect("a request");
            let head = Head::of(&request);
            assert_eq!(find(&table, &head, 0), Some((100, last)));
            group.bench_function(BenchmarkId::from_parameter(rules), |bencher| {
                bencher.iter(|| find(black_box(&table), black_box(&head), 0));
            });
        }
        group.finish();
    }

    for (kind, path, expected) in [
        (
            // They differ in how they begin.
            "regex",
            (|path| format!("{path}/[0-9]+")) as fn(String) -> String,
            "items/12",
        ),
        (
            // They begin alike.
            "regex that begin alike",
            |path| path.replace("/api/v1", "/[^/]+/v1"),
            "items",
        ),
    ] {
        let mut group = criterion.benchmark_group(format!("find/{kind}"));
        for rules in [1, 2, 4, 8, 16, 100, 1_000] {
            let table = table(rules, |name| {
                PathMatch::Regex(Pattern::new(&path(name)).expect("a pattern"))
            });
            let last = rules - 1;
            let uri = format!("http://reviews.mesh.example/api/v1/service-{last:06}/{expected}");
            let request = Request::get(uri).body(()).expect("a request");
            let head = Head::of(&request);
            assert_eq!(find(&table, &head, 0), Some((100, last)));
            group.bench_function(BenchmarkId::from_parameter(rules), |bencher| {
                bencher.iter(|| find(black_box(&table), black_box(&head), 0));
            });
        }
        group.finish();
    }

    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    for rules in [10_000, 100_000] {
        group.bench_function(format!("{rules} prefixes"), |bencher| {
            bencher.iter_with_setup(
                // A clone of a table has not been compiled.
                || {
                    let fresh = table(rules, PathMatch::Prefix);
                    let uri = "http://reviews.mesh.example/none";
                    (fresh, Request::get(uri).body(()).expect("a request"))
                },
                |(table, request)| {
                    find(&table, &Head::of(&request), 0);
                    table
                },
            );
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
