//! What is compiled with the help of what was compiled before is what is compiled from nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use mesh_core::Origin;
use mesh_core::model::{Snapshot, SnapshotBuilder};
use mesh_istio::{Capture, Diagnostic, Files, Inbound, Node, Role, Workshop, World, compile};
use proptest::prelude::*;

/// One document of the configuration: its slot, and what stands there.
type Change = (usize, Option<String>);

const NAMESPACES: [&str; 3] = ["default", "shop", "istio-system"];

fn object(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: \
         {namespace}}}\nspec: {spec}\n"
    )
}

fn pick<T: Clone + std::fmt::Debug + 'static>(of: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(of.to_vec())
}

fn namespace() -> impl Strategy<Value = &'static str> {
    pick(&NAMESPACES)
}

fn host() -> impl Strategy<Value = &'static str> {
    pick(&[
        "a",
        "b.shop",
        "b.shop.svc.cluster.local",
        "x.mesh",
        "*.mesh",
        "nobody.example",
    ])
}

fn export() -> impl Strategy<Value = &'static str> {
    pick(&["", "", ", exportTo: [\".\"]", ", exportTo: [shop]"])
}

fn service() -> impl Strategy<Value = String> {
    let ports = pick(&["http", "grpc", "tcp", "unnamed"]);
    let number = pick(&[80_u16, 9080]);
    (pick(&["a", "b"]), namespace(), ports, number, any::<bool>()).prop_map(
        |(name, namespace, port, number, headless)| {
            let port = match port {
                "unnamed" => format!("{{port: {number}}}"),
                named => format!("{{name: {named}, port: {number}}}"),
            };
            let ip = if headless { ", clusterIP: None" } else { "" };
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: \
                 {namespace}}}\nspec: {{selector: {{app: {name}}}, ports: [{port}]{ip}}}\n"
            )
        },
    )
}

fn entry() -> impl Strategy<Value = String> {
    let hosts = pick(&["x.mesh", "y.mesh", "*.mesh", "a.default.svc.cluster.local"]);
    let resolution = pick(&[
        "STATIC, endpoints: [{address: 10.0.0.1}]",
        "STATIC, endpoints: [{address: 10.0.0.2}, {address: 10.0.0.3, labels: {v: '1'}}]",
        "STATIC, workloadSelector: {labels: {app: a}}",
    ]);
    (pick(&["e", "f"]), namespace(), hosts, resolution, export()).prop_map(
        |(name, namespace, host, resolution, export)| {
            let spec = format!(
                "{{hosts: ['{host}'], ports: [{{number: 80, name: http, protocol: HTTP}}], \
                 resolution: {resolution}{export}}}"
            );
            object("ServiceEntry", name, namespace, &spec)
        },
    )
}

fn workload() -> impl Strategy<Value = String> {
    (pick(&["w", "v"]), namespace(), pick(&["a", "b"]), 1..4_u8).prop_map(
        |(name, namespace, app, address)| {
            let spec = format!("{{address: 10.1.0.{address}, labels: {{app: {app}, v: '1'}}}}");
            object("WorkloadEntry", name, namespace, &spec)
        },
    )
}

fn rule() -> impl Strategy<Value = String> {
    let selector = pick(&["", "", ", workloadSelector: {matchLabels: {app: a}}"]);
    let subsets = pick(&["", ", subsets: [{name: v1, labels: {v: '1'}}]"]);
    let pools = 1..4_u32;
    (
        pick(&["d", "e"]),
        namespace(),
        host(),
        subsets,
        pools,
        selector,
        export(),
    )
        .prop_map(|(name, namespace, host, subsets, pool, selector, export)| {
            let spec = format!(
                "{{host: '{host}', trafficPolicy: {{connectionPool: {{http: {{http2MaxRequests: \
                 {pool}}}}}}}{subsets}{selector}{export}}}"
            );
            object("DestinationRule", name, namespace, &spec)
        })
}

fn routes() -> impl Strategy<Value = String> {
    let matches = pick(&[
        "",
        "match: [{uri: {prefix: /a}}], ",
        "match: [{sourceLabels: {app: a}}], ",
        "match: [{sourceNamespace: shop}], ",
        "match: [{port: 80}], ",
        "match: [{gateways: [g], uri: {exact: /g}}], ",
    ]);
    let subset = pick(&["", ", subset: v1"]);
    let target = pick(&["a", "b.shop.svc.cluster.local", "x.mesh", "gone"]);
    let one = (matches, target, subset, 1..3_u8).prop_map(|(matches, target, subset, timeout)| {
        format!(
            "{{{matches}timeout: {timeout}s, route: [{{destination: {{host: {target}{subset}}}}}]}}"
        )
    });
    let delegate =
        Just("{match: [{uri: {prefix: /d}}], delegate: {name: leaf, namespace: shop}}".to_owned());
    let one = prop_oneof![4 => one, 1 => delegate];
    prop::collection::vec(one, 1..3).prop_map(|all| all.join(", "))
}

fn virtual_service() -> impl Strategy<Value = String> {
    let gateways = pick(&["", ", gateways: [mesh, g]", ", gateways: [g]"]);
    let usual = (
        pick(&["u", "v", "w"]),
        namespace(),
        host(),
        gateways,
        routes(),
        export(),
    )
        .prop_map(|(name, namespace, host, gateways, routes, export)| {
            let spec = format!("{{hosts: ['{host}'], http: [{routes}]{gateways}{export}}}");
            object("VirtualService", name, namespace, &spec)
        });
    let leaf = (1..3_u8, pick(&["a", "x.mesh"])).prop_map(|(timeout, host)| {
        let spec = format!(
            "{{http: [{{timeout: {timeout}s, route: [{{destination: {{host: {host}}}}}]}}]}}"
        );
        object("VirtualService", "leaf", "shop", &spec)
    });
    prop_oneof![4 => usual, 1 => leaf]
}

fn scope() -> impl Strategy<Value = String> {
    let selector = pick(&["", "workloadSelector: {labels: {app: a}}, "]);
    let egress = pick(&["*/*", "./*", "shop/*", "*/x.mesh"]);
    let policy = pick(&["", ", outboundTrafficPolicy: {mode: REGISTRY_ONLY}"]);
    (pick(&["s", "t"]), namespace(), selector, egress, policy).prop_map(
        |(name, namespace, selector, egress, policy)| {
            let spec = format!("{{{selector}egress: [{{hosts: ['{egress}']}}]{policy}}}");
            object("Sidecar", name, namespace, &spec)
        },
    )
}

fn other() -> impl Strategy<Value = String> {
    let gateway = pick(&["'*'", "a.example"]).prop_map(|host| {
        let spec = format!(
            "{{servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{host}]}}]}}"
        );
        object("Gateway", "g", "default", &spec)
    });
    let config = pick(&["1s", "2s"]).prop_map(|timeout| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n\
             data:\n  mesh: |\n    connectTimeout: {timeout}\n"
        )
    });
    prop_oneof![gateway, config]
}

/// What may stand at a slot: each has a kind, so that changes meet what is there.
fn at(slot: usize) -> BoxedStrategy<String> {
    match slot % 7 {
        0 => service().boxed(),
        1 => entry().boxed(),
        2 => workload().boxed(),
        3 => rule().boxed(),
        6 => prop_oneof![scope(), other(), virtual_service()].boxed(),
        _ => virtual_service().boxed(),
    }
}

const SLOTS: usize = 28;

fn change() -> impl Strategy<Value = Change> {
    (0..SLOTS).prop_flat_map(|slot| {
        let line = pick(&["# moved\n", ""]);
        let set = (at(slot), line).prop_map(|(object, line)| Some(format!("{line}{object}")));
        (Just(slot), prop_oneof![5 => set, 1 => Just(None)])
    })
}

/// The slots as they are at first: most are full.
fn beginning() -> impl Strategy<Value = Vec<Option<String>>> {
    let each: Vec<_> = (0..SLOTS)
        .map(|slot| prop::option::weighted(0.8, at(slot)))
        .collect();
    each
}

fn nodes() -> Vec<Node> {
    let labelled = |mut node: Node| {
        node.labels = BTreeMap::from([("app".to_owned(), "a".to_owned())]);
        node
    };
    let accepting = |mut node: Node| {
        node.role = Role::Sidecar {
            inbound: vec![Inbound {
                port: 9180,
                application: 9080,
            }],
        };
        node
    };
    let redirected = |mut node: Node| {
        node.capture = Capture::Redirect;
        node
    };
    let plain = Node::sidecar("client", "default");
    vec![
        plain.clone(),
        accepting(plain.clone()),
        labelled(plain.clone()),
        Node::sidecar("client", "shop"),
        redirected(labelled(Node::sidecar("client", "shop"))),
        redirected(plain),
        Node::gateway("in", "default"),
    ]
}

/// Everything that a snapshot says, with the places that its origins stand for.
fn written(snapshot: &Snapshot, findings: &[Diagnostic]) -> String {
    let mut out = String::new();
    for finding in findings {
        let _ = writeln!(out, "{finding}");
    }
    for entry in snapshot.clusters() {
        let (config, endpoints) = (entry.config(), entry.live().endpoints().load());
        let _ = writeln!(out, "{config:#?} {endpoints:?}");
    }
    for listener in snapshot.listeners() {
        let _ = writeln!(out, "{listener:#?}");
    }
    for table in snapshot.tables() {
        let _ = writeln!(out, "{table:#?}");
    }
    let mut text = String::new();
    let mut rest = out.as_str();
    while let Some((before, after)) = rest.split_once("Origin(") {
        let (number, after) = after.split_once(')').unwrap_or((after, ""));
        let place = place(snapshot, number);
        let _ = write!(text, "{before}<{place}>");
        rest = after;
    }
    // What is behind an origin that is not compared, like what was compiled from it, differs.
    text + rest
}

fn place(snapshot: &Snapshot, number: &str) -> String {
    let wanted: u32 = number.trim().trim_end_matches(',').parse().unwrap_or(0);
    let origin = origins(snapshot).find(|origin| origin.index() == wanted);
    let found = origin.and_then(|origin| snapshot.origins().place(origin));
    found.map_or_else(String::new, ToString::to_string)
}

/// Every origin of the table, made by filling another one as far.
fn origins(snapshot: &Snapshot) -> impl Iterator<Item = Origin> {
    let mut table = mesh_core::Origins::default();
    (0..snapshot.origins().len()).map(move |_| table.add(mesh_core::Place::new("", "", 0, 0)))
}

fn files(slots: &[Option<String>]) -> Files {
    // Some objects in a file of their own, the others in one, where they move one another.
    let whole: Vec<&str> = slots[..SLOTS / 2]
        .iter()
        .flatten()
        .map(String::as_str)
        .collect();
    let mut files = Files::from_text("many.yaml", &whole.join("---\n"));
    for (index, text) in slots.iter().enumerate().skip(SLOTS / 2) {
        if let Some(text) = text {
            files = files.and_text(&format!("{index}.yaml"), text);
        }
    }
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_workshop_makes_what_is_made_from_nothing(
        mut slots in beginning(),
        changes in prop::collection::vec(prop::collection::vec(change(), 0..4), 1..6),
    ) {
        let mut world = World::default();
        let mut workshop = Workshop::new();
        let nodes = nodes();
        let mut before: Vec<Arc<Snapshot>> = vec![Arc::default(); nodes.len()];
        for step in changes {
            for (slot, text) in step {
                slots[slot] = text;
            }
            let files = files(&slots);
            world.update(&files);
            // What an update refuses stays as it was, so the objects are what is compared with,
            // but read on their own.
            let mut fresh = World::default();
            fresh.update(&files);
            let same = fresh.objects().eq(world.objects());
            for (node, previous) in nodes.iter().zip(&mut before) {
                let mut builder = SnapshotBuilder::from(previous);
                let findings = workshop.compile(&world, node, &mut builder);
                let built = builder.build();
                let mut builder = SnapshotBuilder::new();
                let expected_findings = compile(&world, node, &mut builder);
                let expected = builder.build();
                prop_assert_eq!(built.is_ok(), expected.is_ok());
                let (Ok((built, _)), Ok((expected, _))) = (built, expected) else { continue };
                let expected = written(&expected, &expected_findings);
                prop_assert_eq!(written(&built, &findings), expected.clone());
                if same {
                    let mut builder = SnapshotBuilder::new();
                    let findings = compile(&fresh, node, &mut builder);
                    let fresh = builder.build().expect("as before").0;
                    prop_assert_eq!(written(&fresh, &findings), expected, "services taken over");
                }
                *previous = built;
            }
        }
    }
}

fn mesh(timeout: &str) -> Files {
    let mut text = String::new();
    for service in 0..50 {
        let spec = format!(
            "{{hosts: [s{service}.mesh], ports: [{{number: 80, name: http, protocol: HTTP}}], \
             resolution: STATIC, endpoints: [{{address: 10.0.0.1}}]}}"
        );
        text += &object("ServiceEntry", &format!("s{service}"), "default", &spec);
        text += "---\n";
    }
    let route = format!(
        "{{hosts: [s0.mesh], http: [{{timeout: {timeout}, route: [{{destination: {{host: \
         s0.mesh}}}}]}}]}}"
    );
    Files::from_text(
        "mesh.yaml",
        &(text + &object("VirtualService", "v", "default", &route)),
    )
}

/// The previous snapshot and the next, and how many clusters and virtual hosts are not the very
/// same.
fn made_anew(before: &Snapshot, now: &Snapshot) -> (usize, usize) {
    let clusters = now.clusters().iter().filter(|entry| {
        let was = before.cluster(&entry.config().name);
        was.is_none_or(|was| !Arc::ptr_eq(was.config(), entry.config()))
    });
    let hosts = |snapshot: &Snapshot| -> Vec<_> {
        let each = snapshot.tables().iter();
        each.filter(|table| !table.name.starts_with("inbound"))
            .flat_map(|table| table.virtual_hosts.clone())
            .collect()
    };
    let known = hosts(before);
    let fresh = hosts(now);
    let fresh = fresh
        .iter()
        .filter(|host| !known.iter().any(|was| Arc::ptr_eq(was, host)));
    let inbound = |entry: &&Arc<mesh_core::model::ClusterEntry>| {
        !entry.config().name.starts_with("inbound") && !entry.config().name.ends_with("Cluster")
    };
    (clusters.filter(inbound).count(), fresh.count())
}

#[test]
fn of_a_change_only_what_it_concerns_is_made_anew() {
    let mut workshop = Workshop::new();
    let mut make = |world: &World, node: &Node, previous: &Arc<Snapshot>| {
        let mut builder = SnapshotBuilder::from(previous);
        workshop.compile(world, node, &mut builder);
        builder.build().unwrap().0
    };
    let [plain, accepting, labelled, shop, ..] = &nodes()[..] else {
        unreachable!()
    };
    let mut world = World::default();
    world.update(&mesh("1s"));
    let first = make(&world, plain, &Arc::default());
    let nothing = Arc::default();
    for other in [accepting, labelled] {
        let snapshot = make(&world, other, &nothing);
        assert_eq!(made_anew(&first, &snapshot), (0, 0), "another way in");
        let table = |snapshot: &Snapshot| snapshot.table("http_proxy").unwrap().clone();
        assert!(Arc::ptr_eq(&table(&first), &table(&snapshot)));
    }
    let other = make(&world, shop, &nothing);
    assert_eq!(made_anew(&first, &other), (0, 0), "another namespace");

    world.update(&mesh("2s"));
    let second = make(&world, plain, &first);
    assert_eq!(made_anew(&first, &second), (0, 1), "one virtual service");

    // The same, read by somebody else.
    let mut apart = World::default();
    apart.update(&mesh("3s"));
    apart.settle(&world);
    let third = make(&apart, plain, &second);
    assert_eq!(made_anew(&second, &third), (0, 1), "one virtual service");
}

#[test]
fn rules_follow_what_their_destination_becomes() {
    let service = |port: u16| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: b}}\nspec: {{ports: [{{name: http, \
             port: {port}}}]}}\n---\n"
        )
    };
    let subset = object(
        "DestinationRule",
        "d",
        "default",
        "{host: b, subsets: [{name: v1, labels: {v: '1'}}]}",
    );
    let hidden = service(80).replace(
        "name: b}",
        "name: b, annotations: {networking.istio.io/exportTo: shop}}",
    );
    let route = object(
        "VirtualService",
        "v",
        "default",
        "{hosts: [c.example], http: [{route: [{destination: {host: b, subset: v1}}]}]}",
    );
    let mut workshop = Workshop::new();
    let mut world = World::default();
    let mut results = Vec::new();
    for destination in [
        service(80),
        service(80) + &subset,
        service(80),
        service(9080) + &subset,
        String::new(),
        hidden + &subset,
    ] {
        world.update(&Files::from_text("v.yaml", &route).and_text("b.yaml", &destination));
        let mut builder = SnapshotBuilder::new();
        let node = Node::sidecar("client", "default");
        let findings = workshop.compile(&world, &node, &mut builder);
        let again = written(&builder.build().unwrap().0, &findings);
        let mut builder = SnapshotBuilder::new();
        let findings = compile(&world, &node, &mut builder);
        let fresh = written(&builder.build().unwrap().0, &findings);
        assert_eq!(again, fresh);
        results.push(fresh);
    }
    assert_eq!(results[0], results[2]);
    results.sort();
    results.dedup();
    assert_eq!(results.len(), 5, "each is another");
}
