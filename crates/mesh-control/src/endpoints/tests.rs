use super::*;
use mesh_core::model::{Address, Endpoint};
use mesh_istio::{Files, World};
use proptest::prelude::*;
use std::collections::BTreeSet;

const HOST: &str = "a.default.svc.cluster.local";

fn inputs(addresses: &[&str], previous: Option<&Inputs>) -> Inputs {
    let mut text = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: \
                    a}, ports: [{name: http, port: 80}]}}\n"
        .to_owned();
    for (index, address) in addresses.iter().enumerate() {
        text += &format!(
            "---\n{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: \
             w{index}}}, spec: {{address: {address}, labels: {{app: a, version: v{index}}}}}}}\n"
        );
    }
    let mut world = World::default();
    let findings = world.update(&Files::from_text("a.yaml", &text));
    assert!(findings.is_empty(), "{findings:?}");
    Inputs::of(world, previous)
}

fn want(subset: &str, label: Option<&str>) -> Want {
    let labels = label.map(|label| ("version".into(), label.into()));
    Want {
        cluster: mesh_istio::names::outbound(80, subset, HOST).into(),
        host: HOST.into(),
        port: 80,
        labels: labels.into_iter().collect(),
        spread: None,
        alike: None,
    }
}

fn told(addresses: &[&str]) -> Arc<Vec<Instance>> {
    let each = addresses.iter().map(|address| {
        let address: Address = format!("{address}:80").parse().unwrap();
        Instance::new(80, Arc::new(Endpoint::new(address)))
    });
    Arc::new(each.collect())
}

/// The addresses that a set has for a cluster.
fn addresses(set: &ResourceSet, want: &Want) -> Option<BTreeSet<String>> {
    let encoded = set.get(TypeUrl::Endpoints, &want.cluster)?;
    let read = mesh_xds::read::resource(TypeUrl::Endpoints, &encoded.bytes).unwrap();
    let mesh_xds::read::Resource::Endpoints(read) = read else {
        panic!("endpoints")
    };
    let each = read.endpoints.iter();
    Some(each.map(|one| one.address.to_string()).collect())
}

fn set_of<const N: usize>(addresses: [&str; N]) -> Option<BTreeSet<String>> {
    Some(addresses.map(|one| format!("{one}:80")).into())
}

#[test]
fn two_meanings_of_one_subset_do_not_meet() {
    let first = inputs(&["10.0.0.1", "10.0.0.2"], None);
    let (mut table, shared) = (Table::default(), ResourceSet::new());
    table.shared = shared.clone();
    let sets = [ResourceSet::new(), ResourceSet::new()];
    let wants = [[want("s", Some("v0"))], [want("s", Some("v1"))]];
    let classes = |count: usize| {
        let each = sets.iter().zip(&wants).enumerate().take(count);
        each.map(|(number, (set, wants))| (number, set, &wants[..]))
    };
    let (setting, removing) = table.rebuild(&first, classes(2));
    setting.apply();
    removing.apply();
    assert_eq!(addresses(&shared, &wants[0][0]), set_of(["10.0.0.1"]));
    assert_eq!(addresses(&sets[1], &wants[1][0]), set_of(["10.0.0.2"]));
    assert!(sets[0].is_empty(TypeUrl::Endpoints));

    // Both follow a change, and the second's own one goes with it.
    let now = inputs(&["10.0.0.3", "10.0.0.4"], Some(&first));
    let known = &now.services[HOST].instances;
    table.update(HOST, known, None, now.generation).apply();
    assert_eq!(addresses(&shared, &wants[0][0]), set_of(["10.0.0.3"]));
    assert_eq!(addresses(&sets[1], &wants[1][0]), set_of(["10.0.0.4"]));
    let (setting, removing) = table.rebuild(&now, classes(1));
    assert_eq!((setting.count, removing.count), (0, 1));
    removing.apply();
    assert!(sets[1].is_empty(TypeUrl::Endpoints));
}

#[test]
fn what_was_told_holds_until_the_objects_say_something_else() {
    let first = inputs(&["10.0.0.1"], None);
    let mut table = Table::default();
    let (shared, set) = (table.shared().clone(), ResourceSet::new());
    let wants = [want("", None)];
    let rebuild = |table: &mut Table, inputs: &Inputs| {
        let (setting, removing) = table.rebuild(inputs, [(1, &set, &wants[..])]);
        setting.apply();
        removing.apply();
    };
    rebuild(&mut table, &first);
    let base = first.services[HOST].instances.clone();
    table
        .update(HOST, &told(&["10.9.9.9"]), Some(base), 1)
        .apply();
    assert_eq!(addresses(&shared, &wants[0]), set_of(["10.9.9.9"]));

    let same = inputs(&["10.0.0.1"], Some(&first));
    rebuild(&mut table, &same);
    assert_eq!(addresses(&shared, &wants[0]), set_of(["10.9.9.9"]));
    rebuild(&mut table, &inputs(&["10.0.0.2"], Some(&same)));
    assert_eq!(addresses(&shared, &wants[0]), set_of(["10.0.0.2"]));
}

#[test]
fn a_push_of_older_objects_does_not_bring_older_endpoints_back() {
    let first = inputs(&["10.0.0.1"], None);
    let second = inputs(&["10.0.0.2"], Some(&first));
    let mut table = Table::default();
    let (shared, set) = (table.shared().clone(), ResourceSet::new());
    let wants = [want("", None)];
    table.rebuild(&first, [(1, &set, &wants[..])]).0.apply();
    let known = &second.services[HOST].instances;
    table.update(HOST, known, None, second.generation).apply();
    table.rebuild(&first, [(1, &set, &wants[..])]).0.apply();
    assert_eq!(addresses(&shared, &wants[0]), set_of(["10.0.0.2"]));
}

proptest! {
    #[test]
    fn any_order_of_changes_ends_at_what_is_true_now(
        steps in prop::collection::vec((any::<bool>(), prop::collection::vec(1_u8..5, 0..4)), 1..12),
    ) {
        let mut table = Table::default();
        let (shared, set) = (table.shared().clone(), ResourceSet::new());
        let wants = [want("", None)];
        let mut now = inputs(&[], None);
        table.rebuild(&now, [(1, &set, &wants[..])]).0.apply();
        for (whole, parts) in steps {
            let list: Vec<String> = parts.iter().map(|part| format!("10.0.0.{part}")).collect();
            let list: Vec<&str> = list.iter().map(String::as_str).collect();
            now = inputs(&list, Some(&now));
            if whole {
                let (setting, removing) = table.rebuild(&now, [(1, &set, &wants[..])]);
                setting.apply();
                removing.apply();
            } else {
                let known = &now.services[HOST].instances;
                table.update(HOST, known, None, now.generation).apply();
            }
            let expected: BTreeSet<String> = list.iter().map(|one| format!("{one}:80")).collect();
            prop_assert_eq!(addresses(&shared, &wants[0]), Some(expected));
        }
    }
}

#[test]
fn an_address_that_is_told_twice_is_sent_once() {
    let inputs = inputs(&["10.0.0.1"], None);
    let (want, mut table) = (want("", None), Table::default());
    let set = ResourceSet::new();
    table
        .rebuild(&inputs, [(0, &set, &[want.clone()][..])])
        .0
        .apply();
    let elsewhere = |address: &str, region: &str| {
        let address: Address = format!("{address}:80").parse().unwrap();
        let mut instance = Instance::new(80, Arc::new(Endpoint::new(address)));
        instance.locality.region = region.into();
        instance
    };
    let instances = [
        elsewhere("10.0.0.2", "b"),
        elsewhere("10.0.0.3", "b"),
        elsewhere("10.0.0.2", "b"),
        elsewhere("10.0.0.2", "a"),
    ];
    table
        .update(HOST, &Arc::new(instances.into()), None, 1)
        .apply();
    let encoded = table
        .shared()
        .get(TypeUrl::Endpoints, &want.cluster)
        .unwrap();
    let read = mesh_xds::read::resource(TypeUrl::Endpoints, &encoded.bytes).unwrap();
    let mesh_xds::read::Resource::Endpoints(read) = read else {
        panic!("endpoints")
    };
    let all: Vec<String> = read
        .endpoints
        .iter()
        .map(|one| one.address.to_string())
        .collect();
    assert_eq!(all, ["10.0.0.2:80", "10.0.0.3:80"]);
    // What its locality weighs is what is left of it.
    assert_eq!(read.endpoints.localities[0].weight, 2);
}

#[test]
fn a_place_that_sees_endpoints_in_another_order_has_a_set_of_its_own() {
    let text = "
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}, ports: [{name: http, port: 80}]}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: w1}, spec: {address: 10.0.0.1, locality: r1, labels: {app: a}}}
---
{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: w2}, spec: {address: 10.0.0.2, locality: r2, labels: {app: a}}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, spec: {host: a, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}}}}
";
    let mut world = World::default();
    assert!(world.update(&Files::from_text("a.yaml", text)).is_empty());
    let inputs = Inputs::of(world, None);
    let mut workshop = mesh_istio::Workshop::new();
    let mut from = |place: &str| {
        let mut node = mesh_istio::Node::sidecar("c", "default");
        node.locality = mesh_istio::parse_locality(place);
        let mut builder = mesh_core::model::SnapshotBuilder::new();
        workshop.compile(&inputs.world, &node, &mut builder);
        let mut want = want("", None);
        want.spread = workshop.spread(&want.cluster).cloned();
        [want]
    };
    let wants = [from("r1"), from("r2"), from("r1/z")];
    assert_eq!(wants[0][0].spread, from("r1")[0].spread);
    let sets = [ResourceSet::new(), ResourceSet::new(), ResourceSet::new()];
    let mut table = Table::default();
    let classes = sets.iter().zip(&wants).enumerate();
    let classes = classes.map(|(number, (set, wants))| (number, set, wants.as_slice()));
    let (setting, _) = table.rebuild(&inputs, classes);
    assert_eq!(setting.count, 3, "once for each place");
    // One endpoint more costs one encoding for each place, and no more.
    let instances = told(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    let moves = table.update(HOST, &instances, None, 9);
    assert_eq!(moves.count, 3);
    assert_eq!(table.update(HOST, &instances, None, 9).count, 0);
}
