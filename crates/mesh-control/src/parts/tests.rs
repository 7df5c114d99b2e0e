use super::*;
use crate::class::build;
use mesh_istio::{Files, Node, Workshop, World};

fn world(timeout: &str, services: usize) -> World {
    let mut text = format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: v}}, spec: \
         {{hosts: [s0], http: [{{timeout: {timeout}, route: [{{destination: {{host: s0}}}}]}}]}}}}\n"
    );
    for index in 0..services {
        text += &format!(
            "---\n{{apiVersion: v1, kind: Service, metadata: {{name: s{index}}}, spec: {{ports: \
             [{{name: http, port: 80}}]}}}}\n"
        );
    }
    let mut world = World::default();
    let findings = world.update(&Files::from_text("a.yaml", &text));
    assert!(findings.is_empty(), "{findings:?}");
    world
}

fn made(world: &World, node: &Node, before: &Parts, pool: &mut Pool) -> (Arc<Snapshot>, Made) {
    let snapshot = build(&mut Workshop::new(), world, node, &Arc::default())
        .unwrap()
        .snapshot;
    let made = Parts::of_proxy(&snapshot, &HashSet::new(), before, pool);
    (snapshot, made)
}

#[test]
fn part_by_part_is_the_same_as_all_at_once() {
    for node in [Node::sidecar("a", "default"), Node::gateway("g", "default")] {
        let mut pool = Pool::default();
        let mut parts = Parts::default();
        let set = mesh_xds::server::ResourceSet::new();
        for (timeout, services) in [("1s", 3), ("2s", 3), ("2s", 1), ("1s", 5)] {
            let world = world(timeout, services);
            let (snapshot, (next, changes, _)) = made(&world, &node, &parts, &mut pool);
            set.apply(changes);
            parts = next;
            let mut whole = write::snapshot(&snapshot);
            let kinds = [
                TypeUrl::Cluster,
                TypeUrl::Endpoints,
                TypeUrl::Listener,
                TypeUrl::Routes,
            ];
            for kind in kinds {
                let mut expected: Vec<_> = whole
                    .extract_if(.., |(one, _)| *one == kind)
                    .map(|(_, one)| one)
                    .collect();
                expected.sort_by(|one, other| one.name.cmp(&other.name));
                assert_eq!(
                    set.all(kind),
                    expected,
                    "{kind:?} with {timeout} and {services}"
                );
            }
            assert!(whole.is_empty(), "another type: {:?}", whole[0].0);
        }
    }
}

#[test]
fn a_new_timeout_changes_one_table_and_nothing_else() {
    let node = Node::sidecar("a", "default");
    let mut pool = Pool::default();
    let (_, (parts, ..)) = made(&world("1s", 9), &node, &Parts::default(), &mut pool);
    let (_, (parts, _, changed)) = made(&world("2s", 9), &node, &parts, &mut pool);
    assert_eq!(changed, BTreeMap::from([(TypeUrl::Routes, 1)]));
    let (_, (_, _, changed)) = made(&world("2s", 9), &node, &parts, &mut pool);
    assert!(changed.is_empty(), "{changed:?}");
}

#[test]
fn what_is_equal_for_two_classes_is_one_and_the_same_memory() {
    let world = world("1s", 2);
    let mut pool = Pool::default();
    let cluster = mesh_istio::names::outbound(80, "", "s1.default.svc.cluster.local");
    let mut bytes = |node: &Node| {
        let (_, (parts, ..)) = made(&world, node, &Parts::default(), &mut pool);
        parts.clusters[cluster.as_str()].1.bytes.as_ptr()
    };
    let first = bytes(&Node::sidecar("a", "default"));
    assert_eq!(bytes(&Node::sidecar("b", "other")), first);
    assert_eq!(bytes(&Node::gateway("g", "default")), first);
}
