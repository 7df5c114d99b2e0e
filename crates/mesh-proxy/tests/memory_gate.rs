//! Budgets for what configuration takes in memory: for each route and for each cluster, once it is in
//! force.
//!
//! Bytes are counted as they are asked for, by all that goes from the text to what requests are
//! routed by. What an allocator adds, and what workers make of a cluster with its first request, is
//! not in them: `cargo xtask bench peers --only memory` has the whole.

// A global allocator cannot be written without it. It only counts, and passes everything on.
#![allow(unsafe_code)]

use mesh_core::model::{Snapshot, SnapshotBuilder};
use mesh_istio::{Files, Node, Resting, World, compile};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write;
use std::sync::Arc;

/// What a route may take that matches a prefix and sends to one service, its text included.
const ROUTE: usize = 1_450;
/// What a ServiceEntry with one port and one endpoint may take, its text included.
const CLUSTER: usize = 6_000;
/// What reading and compiling such a route may take at the most, while it lasts.
const READING: usize = 6_000;

// === the allocator ===

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    // A thread that is ending has nothing left to count in; and no layout is larger.
    let _ = LIVE.try_with(|live| {
        let now = live.get() + more as isize - less as isize;
        live.set(now);
        let _ = MOST.try_with(|most| most.set(most.get().max(now)));
    });
}

// SAFETY: everything is the system allocator's; counting does not touch the memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, layout.size());
        unsafe { System.dealloc(memory, layout) }
    }
}

// === what is held ===

/// As `cargo xtask bench peers` has it.
fn yaml(routes: usize, clusters: usize) -> String {
    let mut text = String::from(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: held}\nspec:\n  \
         servers:\n  - port: {number: 80, name: http, protocol: HTTP}\n    hosts: [\"*\"]\n",
    );
    for at in 0..=clusters {
        write!(
            text,
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: service-{at}}}\nspec:\n  hosts: [service-{at}.example.com]\n  \
             resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n  \
             endpoints: [{{address: 127.0.0.1, ports: {{http: 8080}}}}]\n"
        )
        .unwrap();
    }
    text += "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {name: held}\nspec:\n  hosts: [\"*\"]\n  gateways: [held]\n  http:\n";
    let to = "route: [{destination: {host: service-0.example.com}}]";
    for at in 0..routes {
        writeln!(
            text,
            "  - name: r{at}\n    match: [{{uri: {{prefix: /api/v1/service-{at}/}}}}]\n    {to}"
        )
        .unwrap();
    }
    writeln!(text, "  - name: last\n    {to}").unwrap();
    text
}

/// What is in memory between changes, as [`mesh_proxy::config::Configuration`] has it.
fn held(files: &Files) -> (Arc<Snapshot>, Resting) {
    let mut world = World::default();
    let findings = world.update(files);
    assert!(findings.is_empty(), "{findings:?}");
    let mut builder = SnapshotBuilder::new();
    let node = Node::gateway("gateway", "default");
    let findings = compile(&world, &node, &mut builder);
    assert!(findings.is_empty(), "{findings:?}");
    let (snapshot, _) = builder.build().unwrap();
    mesh_route::prepare(&snapshot);
    (snapshot, world.rest())
}

/// Bytes that stay, and the most that there were.
fn bytes(routes: usize, clusters: usize) -> (usize, usize) {
    let text = yaml(routes, clusters);
    let before = LIVE.get();
    MOST.set(before);
    let files = Files::from_text("held.yaml", &text);
    let held = held(&files);
    drop(files);
    let after = (LIVE.get() - before, MOST.get() - before);
    let rules = |snapshot: &Snapshot| -> usize {
        let hosts = snapshot.tables().iter().flat_map(|it| &it.virtual_hosts);
        hosts.map(|host| host.rules.len()).sum()
    };
    assert_eq!(rules(&held.0), routes + 1);
    assert!(held.0.clusters().len() > clusters);
    (after.0.unsigned_abs(), after.1.unsigned_abs())
}

/// Of a thousand more, where no table is about to grow.
fn each(of: impl Fn(usize) -> (usize, usize)) -> (usize, usize) {
    // What is made once is made before.
    of(1);
    let (few, many) = (of(1_000), of(2_000));
    ((many.0 - few.0) / 1_000, (many.1 - few.1) / 1_000)
}

#[test]
fn a_route_takes_little_once_it_is_in_force() {
    let (stays, most) = each(|routes| bytes(routes, 0));
    println!("a route: {stays} bytes stay, {most} at the most");
    assert!(stays <= ROUTE, "a route takes {stays} bytes");
    assert!(most <= READING, "reading a route takes {most} bytes");
}

#[test]
fn a_cluster_takes_little_before_it_is_used() {
    let (stays, most) = each(|clusters| bytes(0, clusters));
    println!("a cluster: {stays} bytes stay, {most} at the most");
    assert!(stays <= CLUSTER, "a cluster takes {stays} bytes");
}
