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
    let made = Parts::of_proxy(&snapshot, None, &HashSet::new(), before, pool);
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

#[test]
fn secrets_travel_to_who_may_have_them_and_are_taken_away_again() {
    const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: g}
spec:
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: ['*']
    tls: {mode: SIMPLE, credentialName: shop}
";
    let secret = |text: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: shop}}\nstringData:\n  tls.crt: |\n    \
             -----BEGIN CERTIFICATE-----\n    {text}\n    -----END CERTIFICATE-----\n  tls.key: |\n    \
             -----BEGIN PRIVATE KEY-----\n    {text}\n    -----END PRIVATE KEY-----\n"
        )
    };
    let set = mesh_xds::server::ResourceSet::new();
    let mut pool = Pool::default();
    let mut parts = Parts::default();
    let mut world = World::default();
    let mut previous = Arc::default();
    let node = Node::gateway("g", "default");
    let mut step = |secret: Option<String>| {
        let mut files = Files::from_text("g.yaml", GATEWAY);
        if let Some(text) = secret {
            files = files.and_text("s.yaml", &text);
        }
        world.update(&files);
        let built = build(&mut Workshop::new(), &world, &node, &previous).unwrap();
        previous = built.snapshot;
        let before = std::mem::take(&mut parts);
        let (now, changes, changed) =
            Parts::of_proxy(&previous, None, &HashSet::new(), &before, &mut pool);
        set.apply(changes);
        parts = now;
        (set.all(TypeUrl::Secret), changed)
    };
    let (none, _) = step(None);
    assert!(none.is_empty());
    let (first, changed) = step(Some(secret("YQ==")));
    assert_eq!(&*first[0].name, "kubernetes://shop");
    // The listener waits for its secret as usual now; before, it did not for long.
    let both = BTreeMap::from([(TypeUrl::Listener, 1), (TypeUrl::Secret, 1)]);
    assert_eq!(changed, both);
    let (second, changed) = step(Some(secret("Yg==")));
    assert_ne!(first[0].version, second[0].version);
    assert_eq!(changed, BTreeMap::from([(TypeUrl::Secret, 1)]));
    let (_, changed) = step(Some(secret("Yg==")));
    assert!(changed.is_empty(), "{changed:?}");
    let (none, changed) = step(None);
    assert!(none.is_empty());
    assert_eq!(changed, both);

    // One of another namespace is not for this proxy.
    let elsewhere = secret("YQ==").replace("{name: shop}", "{name: shop, namespace: other}");
    assert!(step(Some(elsewhere)).0.is_empty());
}
