//! The hot path in small cases, to be counted in instructions rather than timed.
//!
//! `cargo xtask instructions` runs each case under callgrind, which counts what happens inside of
//! [`measured`] and nothing else, and compares the counts with `benches/instructions.txt`. Unlike
//! time they are nearly the same on every machine.

mod outbound;

use http::{HeaderMap, Request};
use mesh_core::model::{
    Action, Balancing, Cluster, Condition, Endpoint, EndpointSet, Maglev, PathMatch, RouteTable,
    Rule, Snapshot, SnapshotBuilder, VirtualHost,
};
use mesh_core::{Publisher, Rng};
use mesh_http1::Limits;
use mesh_lb::{Ask, ClusterHosts, Picker};
use mesh_route::{Head, find};
use outbound::{accounted, drive, outbound, request, snapshot};
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

/// How often a case runs before it is counted: tables are built and buffers are there then.
const WARM: usize = 64;
/// How often it is counted. The same number is in xtask.
const TIMES: usize = 256;

/// Prepares so many turns of a case.
type Prepare = fn(usize) -> Box<dyn FnMut()>;

const CASES: [(&str, Prepare); 8] = [
    ("head", head),
    ("pick-least-request", |_| pick(Balancing::LEAST_REQUEST)),
    ("pick-maglev", |_| {
        pick(Balancing::Maglev(Maglev::default()))
    }),
    ("route-exact", |_| route(PathMatch::Exact)),
    ("route-prefix", |_| route(PathMatch::Prefix)),
    ("stack", |times| stack(times, false)),
    ("stack-policies", |times| stack(times, true)),
    ("stack-policies-metrics-log", everything),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|it| it == "--list") {
        CASES.iter().for_each(|(name, _)| println!("{name}"));
        return;
    }
    let asked = arguments.into_iter().find(|it| !it.starts_with("--"));
    for (name, prepare) in CASES {
        if asked.as_deref().is_some_and(|asked| asked != name) {
            continue;
        }
        let mut turn = prepare(WARM + TIMES);
        for _ in 0..WARM {
            turn();
        }
        measured(&mut *turn);
    }
}

/// All that is counted: callgrind knows it by this name.
#[inline(never)]
fn measured(turn: &mut dyn FnMut()) {
    for _ in 0..TIMES {
        turn();
    }
}

/// The head of a browser's request is read.
fn head(_: usize) -> Box<dyn FnMut()> {
    const HEAD: &[u8] = b"GET /reviews/1?page=2 HTTP/1.1\r\nhost: reviews:9080\r\n\
        user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0\r\n\
        accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
        accept-language: en-US,en;q=0.5\r\naccept-encoding: gzip, deflate, br\r\n\
        connection: keep-alive\r\ncookie: session=0123456789abcdef\r\n\r\n";
    let limits = Limits::default();
    Box::new(move || {
        let head = mesh_http1::request(black_box(HEAD), &limits, HeaderMap::new());
        assert!(matches!(black_box(head), Ok(Some(_))));
    })
}

/// One of 10,000 endpoints is chosen.
fn pick(balancing: Balancing) -> Box<dyn FnMut()> {
    let endpoints = (1..=10_000).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
    let endpoints = endpoints.map(|address| Arc::new(Endpoint::new(address)));
    let mut cluster = Cluster::new("c");
    cluster.balancing = balancing;
    let mut builder = SnapshotBuilder::new();
    let endpoints = EndpointSet::from_endpoints(endpoints.collect());
    builder.cluster(cluster).endpoints("c", endpoints);
    let (snapshot, _) = builder.build().expect("consistent");
    let set =
        ClusterHosts::of(&snapshot.clusters()[0]).refresh(&snapshot.clusters()[0], Instant::now());
    let (mut picker, rng) = (Picker::default(), Rng::with_seed(1));
    Box::new(move || {
        let ask = Ask::new(rng.word()).hash(Some(rng.word()));
        assert!(black_box(picker.choose(&set, &ask)).is_some());
    })
}

/// The last of 10,000 rules is found.
fn route(path: fn(String) -> PathMatch) -> Box<dyn FnMut()> {
    let rule = |number: usize| {
        let mut condition = Condition::default();
        condition.path = path(format!("/api/v1/service-{number:06}/items"));
        Rule::new(condition, Action::default())
    };
    let host = VirtualHost::new("all", ["*.mesh.example"]);
    let table = RouteTable::new("t").host((0..10_000).map(rule).fold(host, VirtualHost::rule));
    let uri = "http://reviews.mesh.example/api/v1/service-009999/items";
    let request = Request::get(uri).body(()).expect("a request");
    Box::new(move || {
        let found = find(black_box(&table), &Head::of(black_box(&request)), 0);
        assert_eq!(found, Some((0, 9_999)));
    })
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().build().expect("a runtime")
}

/// A request goes through the outbound stack.
fn stack(times: usize, policies: bool) -> Box<dyn FnMut()> {
    let publisher = Publisher::<Snapshot>::from_arc(snapshot(policies));
    let mut stack = outbound(publisher.feed());
    let runtime = runtime();
    let mut requests: Vec<_> = (0..times).map(|_| request()).collect();
    Box::new(move || {
        let request = requests.pop().expect("as many as turns");
        drive(&runtime, &mut stack, request);
    })
}

/// As above, and it is counted and logged.
fn everything(times: usize) -> Box<dyn FnMut()> {
    let publisher = Publisher::<Snapshot>::from_arc(snapshot(true));
    let runtime = runtime();
    let (_telemetry, mut stack, begin) = accounted(publisher.feed(), true);
    let mut requests: Vec<_> = (0..times).map(|_| begin()).collect();
    Box::new(move || {
        let request = requests.pop().expect("as many as turns");
        drive(&runtime, &mut stack, request);
    })
}
