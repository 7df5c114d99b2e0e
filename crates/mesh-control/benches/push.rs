//! What a push costs, by the number of services: 10 endpoints each, one class of sidecars.
//!
//! * `first`: objects to encoded resources, for a node of a class that nobody had before;
//! * `endpoint`: one endpoint of one service changes, as another registry reports it;
//! * `virtual_service`: the timeout of one route changes, without the reading of YAML.
//!
//! `cargo bench -p mesh-control`

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use mesh_control::{Attached, Control};
use mesh_core::discovery::{Event, Instance, ServiceId};
use mesh_core::model::{Address, Endpoint};
use mesh_istio::{Files, World};
use mesh_xds::Node;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

const SIZES: [usize; 3] = [100, 1_000, 10_000];

const ENDPOINTS: usize = 10;

fn node() -> Node {
    Node::new("sidecar~192.168.0.1~client.default~default.svc.cluster.local")
        .with_text("MESH_BASE_PORT", "20100")
}

fn address(service: usize, endpoint: usize) -> String {
    let number = service * ENDPOINTS + endpoint;
    format!(
        "10.{}.{}.{}",
        number >> 16,
        (number >> 8) & 255,
        number & 255
    )
}

fn world(services: usize, timeout: &str) -> World {
    let mut text = String::new();
    for service in 0..services {
        let _ = writeln!(
            text,
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: s{service}}}, \
             spec: {{hosts: [s{service}.mesh], resolution: STATIC, location: MESH_INTERNAL, ports: \
             [{{number: 80, name: http, protocol: HTTP}}], endpoints: ["
        );
        for endpoint in 0..ENDPOINTS {
            let _ = write!(text, "{{address: {}}},", address(service, endpoint));
        }
        let _ = writeln!(text, "]}}}}\n---");
    }
    let _ = writeln!(
        text,
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: v}}, spec: \
         {{hosts: [s0.mesh], http: [{{timeout: {timeout}, route: [{{destination: {{host: s0.mesh}}}}]}}]}}}}"
    );
    let mut world = World::default();
    let findings = world.update(&Files::from_text("mesh.yaml", &text));
    assert!(findings.is_empty(), "{}", findings[0]);
    world
}

/// A control plane with one class of nodes in force.
fn plane(world: &World) -> (Control, Attached) {
    let control = Control::builder().build();
    control.update_world(world.clone());
    let attached = control.attach(&node()).expect("a sidecar");
    (control, attached)
}

fn pushes(criterion: &mut Criterion) {
    for size in SIZES {
        let worlds = [world(size, "1s"), world(size, "2s")];
        let mut group = criterion.benchmark_group("push");
        group
            .sample_size(10)
            .warm_up_time(Duration::from_millis(500));
        group.bench_with_input(BenchmarkId::new("first", size), &size, |bencher, _| {
            let fresh = || {
                let control = Control::builder().build();
                control.update_world(worlds[0].clone());
                control
            };
            bencher.iter_batched(
                fresh,
                |control| {
                    let attached = control.attach(&node());
                    (control, attached)
                },
                BatchSize::LargeInput,
            );
        });
        let (control, attached) = plane(&worlds[0]);
        let mut round = 0;
        group.bench_with_input(BenchmarkId::new("endpoint", size), &size, |bencher, _| {
            bencher.iter(|| {
                round += 1;
                let endpoints = (0..ENDPOINTS).map(|endpoint| {
                    let ip = match endpoint {
                        0 => format!("10.255.{}.{}", round % 250, round % 251),
                        other => address(7, other),
                    };
                    let address: Address = format!("{ip}:80").parse().expect("an address");
                    Instance::new(80, Arc::new(Endpoint::new(address)))
                });
                let id = ServiceId {
                    host: "s7.mesh".into(),
                    namespace: "default".into(),
                };
                let event = Event::EndpointsChanged(id, Arc::new(endpoints.collect()));
                assert!(control.endpoints_changed(black_box(&event)));
            });
        });
        drop(attached);
        let (control, _attached) = plane(&worlds[0]);
        let mut round = 0;
        group.bench_with_input(
            BenchmarkId::new("virtual_service", size),
            &size,
            |bencher, _| {
                bencher.iter(|| {
                    round += 1;
                    control.update_world(worlds[round % 2].clone());
                    control.flush();
                });
            },
        );
        group.finish();
    }
}

criterion_group!(benches, pushes);
criterion_main!(benches);
