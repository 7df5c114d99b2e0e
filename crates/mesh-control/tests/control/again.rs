//! What is in force after any changes is what a control plane has that saw only the last.

use crate::support::{files, gateway, sidecar};
use mesh_control::{Attached, Control};
use mesh_xds::{Node, TypeUrl};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// What there is of one service.
#[derive(Clone, Debug)]
struct Part {
    port: u16,
    address: u8,
    /// The timeout of its virtual service, and whether that leads to a subset.
    route: Option<(u8, bool)>,
    subset: Option<u8>,
    /// A traffic policy.
    policy: Option<&'static str>,
    moved: bool,
}

const POLICIES: [&str; 4] = [
    "loadBalancer: {consistentHash: {httpHeaderName: x-user}}",
    "outlierDetection: {consecutive5xxErrors: 3}",
    "loadBalancer: {localityLbSetting: {distribute: [{from: r1, to: {r1: 90, r2: 10}}]}}",
    "loadBalancer: {warmup: {duration: 1s}}",
];

fn part() -> impl Strategy<Value = Option<Part>> {
    let route = prop::option::of((1..4_u8, any::<bool>()));
    let subset = prop::option::of(1..3_u8);
    let port = prop::sample::select(vec![80_u16, 9080]);
    let policy = prop::option::of(prop::sample::select(POLICIES.to_vec()));
    let part = (port, 1..4_u8, route, subset, policy, any::<bool>()).prop_map(
        |(port, address, route, subset, policy, moved)| Part {
            port,
            address,
            route,
            subset,
            policy,
            moved,
        },
    );
    prop::option::weighted(0.8, part)
}

fn text(parts: &[Option<Part>]) -> String {
    const ISTIO: &str = "apiVersion: networking.istio.io/v1";
    let mut text = format!(
        "{{{ISTIO}, kind: Gateway, metadata: {{name: g}}, spec: {{servers: [{{port: {{number: 80, \
         name: http, protocol: HTTP}}, hosts: ['*']}}]}}}}\n---\n"
    );
    for (index, part) in parts.iter().enumerate() {
        let Some(part) = part else { continue };
        if part.moved {
            text += "# a line\n";
        }
        let Part { port, address, .. } = part;
        text += &format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: s{index}}}, spec: {{selector: {{app: \
             s{index}}}, ports: [{{name: http, port: {port}}}]}}}}\n---\n{{{ISTIO}, kind: \
             WorkloadEntry, metadata: {{name: w{index}}}, spec: {{address: 10.0.0.{address}, \
             locality: r{address}, labels: {{app: s{index}, v: '{address}'}}}}}}\n---\n"
        );
        if let Some((timeout, subset)) = part.route {
            let subset = if subset { ", subset: v" } else { "" };
            text += &format!(
                "{{{ISTIO}, kind: VirtualService, metadata: {{name: v{index}}}, spec: {{hosts: \
                 [s{index}, h{index}.example], gateways: [mesh, g], http: [{{timeout: {timeout}s, \
                 route: [{{destination: {{host: s{index}{subset}}}}}]}}]}}}}\n---\n"
            );
        }
        if part.subset.is_some() || part.policy.is_some() {
            let policy = part.policy.unwrap_or_default();
            let subset = part
                .subset
                .map(|label| format!("{{name: v, labels: {{v: '{label}'}}}}"));
            let subset = subset.unwrap_or_default();
            text += &format!(
                "{{{ISTIO}, kind: DestinationRule, metadata: {{name: d{index}}}, spec: {{host: \
                 s{index}, trafficPolicy: {{{policy}}}, subsets: [{subset}]}}}}\n---\n"
            );
        }
    }
    text
}

fn nodes() -> [Node; 6] {
    let id = "sidecar~10.1.1.1~other.shop~shop.svc.cluster.local";
    [
        sidecar(),
        sidecar().with_text("MESH_INBOUND", "9080=9180"),
        gateway(),
        Node::new(id).with_text("GENERATOR", "grpc"),
        sidecar().with_locality(("r1", "", "")),
        sidecar().with_locality(("r2", "z", "")),
    ]
}

fn attach(control: &Control) -> [Attached; 6] {
    nodes().map(|node| control.attach(&node).unwrap())
}

fn resources(attached: &Attached) -> BTreeMap<(TypeUrl, String), Vec<u8>> {
    let view = attached.view().load();
    let each = TypeUrl::ALL.into_iter();
    each.flat_map(|kind| view.all(kind).into_iter().map(move |one| (kind, one)))
        // Other nodes' clusters may have endpoints there.
        .filter(|(kind, one)| {
            *kind != TypeUrl::Endpoints || view.get(TypeUrl::Cluster, &one.name).is_some()
        })
        .map(|(kind, one)| ((kind, one.name.to_string()), one.bytes.to_vec()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_control_plane_ends_where_one_begins_that_saw_only_the_last_change(
        mut parts in prop::collection::vec(part(), 4),
        changes in prop::collection::vec((0_usize..4, part()), 1..8),
    ) {
        let control = Control::builder().build();
        control.update(&files(&text(&parts)));
        let attached = attach(&control);
        for (at, part) in changes {
            parts[at] = part;
            control.update(&files(&text(&parts)));
            control.flush();
            let fresh = Control::builder().build();
            fresh.update(&files(&text(&parts)));
            for (one, other) in attached.iter().zip(&attach(&fresh)) {
                prop_assert_eq!(resources(one), resources(other));
            }
        }
    }
}
