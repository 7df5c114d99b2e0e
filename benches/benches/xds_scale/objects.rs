//! The mesh that is measured: services with ten endpoints each, and one virtual service.

use mesh_core::discovery::{Event, Instance, ServiceId};
use mesh_core::model::{Address, Endpoint};
use mesh_istio::Files;
use mesh_xds::Node;
use std::fmt::Write as _;
use std::sync::Arc;

pub(crate) const ENDPOINTS: usize = 10;

/// The service whose endpoints change.
const MOVING: usize = 7;

/// The objects; rounds that differ in parity differ in the timeout of the virtual service's route.
pub(crate) fn files(services: usize, round: usize) -> Files {
    let mut text = String::new();
    for service in 0..services {
        // A `String` takes whatever is written to it.
        let _ = write!(
            text,
            "---\n{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: s{service}}}, \
             spec: {{hosts: [s{service}.shop.mesh], resolution: STATIC, location: MESH_INTERNAL, \
             ports: [{{number: 80, name: http, protocol: HTTP}}], endpoints: ["
        );
        for endpoint in 0..ENDPOINTS {
            let _ = write!(text, "{{address: {}}},", address(service, endpoint));
        }
        text.push_str("]}}\n");
    }
    let timeout = 1 + round % 2;
    let route = format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: v}}, spec: \
         {{hosts: [s0.shop.mesh], http: [{{timeout: {timeout}s, route: [{{destination: {{host: \
         s0.shop.mesh}}}}]}}]}}}}\n"
    );
    Files::from_text("services.yaml", &text).and_text("routes.yaml", &route)
}

/// What another registry reports: the first endpoint of a service has another address each round.
pub(crate) fn endpoint_moves(round: usize) -> Event {
    let endpoints = (0..ENDPOINTS).map(|endpoint| {
        let ip = match endpoint {
            0 => format!("10.255.{}.{}", (round / 250) % 250, round % 250),
            other => address(MOVING, other),
        };
        let address: Address = format!("{ip}:80").parse().expect("an address and a port");
        Instance::new(80, Arc::new(Endpoint::new(address)))
    });
    let id = ServiceId {
        host: format!("s{MOVING}.shop.mesh").into(),
        namespace: "default".into(),
    };
    Event::EndpointsChanged(id, Arc::new(endpoints.collect()))
}

/// A sidecar. Those of different namespaces are compiled for separately.
pub(crate) fn node(number: usize, classes: usize) -> Node {
    let namespace = number % classes;
    let (high, low) = (number >> 8, number & 255);
    Node::new(format!(
        "sidecar~192.168.{high}.{low}~client-{number}.team-{namespace}~team-{namespace}.svc.cluster.local"
    ))
    .with_text("MESH_BASE_PORT", "20100")
}

fn address(service: usize, endpoint: usize) -> String {
    let number = service * ENDPOINTS + endpoint;
    let (a, b, c) = (number >> 16, (number >> 8) & 255, number & 255);
    format!("10.{a}.{b}.{c}")
}
