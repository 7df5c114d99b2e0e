use super::*;
use mesh_istio::Files;
use proptest::prelude::*;

const SIDECAR: &str = "sidecar~10.0.0.7~reviews-1.shop~shop.svc.cluster.local";
const ROUTER: &str = "router~10.0.0.8~ingress.istio-system~istio-system.svc.cluster.local";

fn world(text: &str) -> World {
    let mut world = World::default();
    let findings = world.update(&Files::from_text("a.yaml", text));
    assert!(findings.is_empty(), "{findings:?}");
    world
}

fn described(node: &mesh_xds::Node) -> Result<Described, BadNode> {
    describe_node(&World::default(), node)
}

#[test]
fn a_sidecar_of_istio_is_read_from_its_id_and_metadata() {
    let node = mesh_xds::Node::new(SIDECAR).with_map("LABELS", [("app", "reviews")]);
    let one = described(&node).unwrap();
    assert_eq!(one.generator, Generator::Proxy);
    let node = one.node;
    assert_eq!(
        (node.name.as_str(), node.namespace.as_str()),
        ("reviews-1", "shop")
    );
    assert_eq!(node.address.to_string(), "10.0.0.7");
    assert_eq!(node.labels["app"], "reviews");
    assert_eq!(
        node.capture,
        Capture::Redirect,
        "as istiod takes for granted"
    );
}

#[test]
fn a_node_says_how_it_is_intercepted() {
    for (mode, capture) in [
        ("", Capture::Redirect),
        ("REDIRECT", Capture::Redirect),
        ("TPROXY", Capture::Tproxy),
        ("NONE", Capture::None),
    ] {
        let node = mesh_xds::Node::new(SIDECAR).with_text("INTERCEPTION_MODE", mode);
        assert_eq!(described(&node).unwrap().node.capture, capture, "{mode}");
    }
}

#[test]
fn the_namespace_in_the_metadata_wins_over_that_in_the_id() {
    let node = mesh_xds::Node::new(SIDECAR).with_text("NAMESPACE", "pay");
    assert_eq!(described(&node).unwrap().node.namespace, "pay");
}

#[test]
fn ports_in_the_metadata_mean_that_nothing_is_intercepted() {
    let node = mesh_xds::Node::new(SIDECAR)
        .with_text("MESH_BASE_PORT", "20100")
        .with_text("MESH_INBOUND", "9080=9180,9081=9181");
    let node = described(&node).unwrap().node;
    assert_eq!((node.base_port, node.capture), (Some(20100), Capture::None));
    let Role::Sidecar { inbound } = node.role else {
        panic!("a sidecar")
    };
    assert_eq!((inbound[1].port, inbound[1].application), (9081, 9181));

    let node = mesh_xds::Node::new(ROUTER).with_text("MESH_MAP_PORT", "80=8080");
    let ports = [(80, 8080)].into();
    assert_eq!(described(&node).unwrap().node.role, Role::Gateway { ports });
}

#[test]
fn a_workload_entry_with_annotations_wins_over_metadata() {
    let world = world(
        "{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: reviews-1, \
         namespace: shop, annotations: {mesh-rs.dev/base-port: '20500'}}, spec: {address: \
         127.0.0.1}}",
    );
    let node = mesh_xds::Node::new(SIDECAR).with_text("MESH_BASE_PORT", "1");
    let found = describe_node(&world, &node).unwrap().node;
    assert_eq!(
        (found.base_port, found.capture),
        (Some(20500), Capture::None)
    );
    let short = node_of("reviews-1.shop").unwrap();
    assert_eq!(describe_node(&world, &short).unwrap().node, found);
}

#[test]
fn a_node_without_a_type_is_a_gateway_if_a_gateway_selects_it() {
    let world = world(
        "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: g}, spec: \
         {selector: {istio: ingress}, servers: [{port: {number: 80, name: http, protocol: HTTP}, \
         hosts: ['*']}]}}",
    );
    let node = mesh_xds::Node::new("edge-1.default");
    let selected = node
        .clone()
        .with_map("LABELS", [("istio", "ingress"), ("x", "y")]);
    let found = describe_node(&world, &selected).unwrap();
    assert!(matches!(found.node.role, Role::Gateway { .. }));
    let error = describe_node(&world, &node).unwrap_err().to_string();
    assert!(error.contains("no WorkloadEntry \"edge-1\""), "{error}");
}

#[test]
fn what_is_wrong_with_a_node_is_said_by_name() {
    let node = || mesh_xds::Node::new(SIDECAR);
    for (node, what) in [
        (
            mesh_xds::Node::new("envoy"),
            "TYPE~IP~NAME.NAMESPACE~DOMAIN",
        ),
        (
            mesh_xds::Node::new(SIDECAR.replace("sidecar", "ztunnel")),
            "\"ztunnel\"",
        ),
        (
            mesh_xds::Node::new(SIDECAR.replace("10.0.0.7", "ten")),
            "\"ten\"",
        ),
        (node().with_text("GENERATOR", "api"), "GENERATOR"),
        (
            node().with_text("INTERCEPTION_MODE", "MAYBE"),
            "INTERCEPTION_MODE",
        ),
        (
            node().with_text("MESH_BASE_PORT", "65535"),
            "MESH_BASE_PORT",
        ),
        (node().with_text("MESH_INBOUND", "9080"), "MESH_INBOUND"),
        (
            node().with_text("MESH_MAP_PORT", "80=8080"),
            "is for gateways",
        ),
    ] {
        let error = described(&node).unwrap_err().to_string();
        assert!(error.contains(what), "{error} does not say {what}");
    }
}

proptest! {
    #[test]
    fn any_node_is_described_or_refused(id in ".{0,80}", key in 0..KEYS.len(), value in ".{0,20}") {
        let node = mesh_xds::Node::new(id).with_text(KEYS[key], value.clone());
        if let Err(error) = described(&node) {
            prop_assert!(error.to_string().starts_with("node "));
        }
        let _ = described(&mesh_xds::Node::new(SIDECAR).with_text(KEYS[key], value));
    }
}

#[test]
fn a_node_is_where_it_says_or_where_the_objects_say() {
    let text = "
apiVersion: v1
kind: Node
metadata: {name: m, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}
---
apiVersion: v1
kind: Pod
metadata: {name: reviews-1, namespace: shop}
spec: {nodeName: m}
";
    let world = world(text);
    let node = mesh_xds::Node::new(SIDECAR);
    let of = |node: &mesh_xds::Node| {
        let described = describe_node(&world, node).unwrap();
        described.node.locality.to_string()
    };
    assert_eq!(of(&node), "r/z/");
    let said = node.clone().with_locality(("a", "b", "c"));
    assert_eq!(of(&said), "a/b/c");
    assert_eq!(of(&node.clone().with_locality(("", "", ""))), "r/z/");
    assert_ne!(identity(&node), identity(&said));
}
