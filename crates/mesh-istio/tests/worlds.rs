//! Which objects are in force after the files changed.

#[path = "support/lib.rs"]
mod support;

use mesh_istio::{Files, World, spec::Kind};
use support::{BOOKINFO, lines, service};

fn names(world: &World) -> Vec<String> {
    world
        .objects()
        .map(|object| object.meta.to_string())
        .collect()
}

fn virtual_service(name: &str, host: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: {name}}}\nspec:\n  hosts: [{host}]\n  http:\n  \
         - route: [{{destination: {{host: a}}}}]\n"
    )
}

fn host(world: &World, name: &str) -> String {
    let mut all = world.virtual_services();
    let (_, spec) = all.find(|(meta, _)| meta.name == name).expect("in force");
    spec.hosts[0].value.clone()
}

#[test]
fn one_bad_object_is_refused_alone_and_keeps_its_last_good_version() {
    let mut world = World::default();
    let two = virtual_service("a", "a.example") + &virtual_service("b", "b.example");
    assert!(world.update(&Files::from_text("v.yaml", &two)).is_empty());

    let bad = virtual_service("a", "a.example").replace("host: a}", "hots: a}")
        + &virtual_service("b", "new.example");
    let findings = world.update(&Files::from_text("v.yaml", &bad));
    assert_eq!(
        lines(&findings),
        [
            "v.yaml:8:27: VirtualService a.default: spec.http[0].route[0].destination: host is \
             missing",
            "v.yaml:8:28: VirtualService a.default: spec.http[0].route[0].destination.hots: \
             unknown field",
        ],
    );
    assert_eq!(host(&world, "a"), "a.example");
    assert_eq!(host(&world, "b"), "new.example");

    // Gone from the file is gone for good.
    assert!(
        world
            .update(&Files::from_text("v.yaml", &virtual_service("b", "b")))
            .is_empty()
    );
    assert_eq!(names(&world), ["VirtualService b.default"]);
}

#[test]
fn broken_yaml_refuses_the_file_and_keeps_all_that_it_had() {
    let mut world = World::default();
    let files = |first: &str| {
        Files::from_text("a.yaml", first).and_text("b.yaml", &virtual_service("b", "b"))
    };
    let good = service("s", "default", 80) + &virtual_service("a", "a");
    assert!(world.update(&files(&good)).is_empty());
    assert_eq!(world.len(), 4);

    let findings = world.update(&files(&good.replace("hosts: [a]", "hosts: [a")));
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(
        findings[0].message.starts_with("broken YAML"),
        "{}",
        findings[0]
    );
    assert!(
        findings[0].render().contains("| "),
        "{}",
        findings[0].render()
    );
    assert_eq!(world.len(), 4);

    // An object that moved out of the broken file is taken from where it is now.
    let moved = Files::from_text("a.yaml", "a: [")
        .and_text("b.yaml", &virtual_service("a", "moved.example"));
    world.update(&moved);
    assert_eq!(host(&world, "a"), "moved.example");
    assert_eq!(world.services().count(), 1);
    assert!(world.virtual_services().all(|(meta, _)| meta.name != "b"));
}

#[test]
fn the_second_of_two_definitions_is_refused_with_both_places() {
    let mut world = World::default();
    let files = Files::from_text("1.yaml", &virtual_service("a", "first.example"))
        .and_text("2.yaml", &virtual_service("a", "second.example"));
    let findings = world.update(&files);
    assert_eq!(
        lines(&findings),
        [
            "2.yaml:2:1: VirtualService a.default: defined twice: first at 1.yaml:2:1, which stays, \
          and again at 2.yaml:2:1"
        ],
    );
    assert_eq!(host(&world, "a"), "first.example");
}

#[test]
fn a_document_that_says_nothing_of_itself_withholds_what_its_file_had() {
    let mut world = World::default();
    world.update(&Files::from_text("v.yaml", &virtual_service("a", "a")));
    let nameless = virtual_service("a", "a").replace("name: a", "nmae: a");
    let findings = world.update(&Files::from_text("v.yaml", &nameless));
    assert!(findings[0].message.contains("metadata.name is missing"));
    assert_eq!(names(&world), ["VirtualService a.default"]);
}

#[test]
fn objects_of_one_name_and_different_namespaces_live_side_by_side() {
    let mut world = World::default();
    let other = virtual_service("a", "a").replace("name: a}", "name: a, namespace: pay}");
    let findings = world.update(&Files::from_text(
        "v.yaml",
        &(virtual_service("a", "a") + &other),
    ));
    assert!(findings.is_empty(), "{findings:?}");
    assert_eq!(
        names(&world),
        ["VirtualService a.default", "VirtualService a.pay"]
    );
}

#[test]
fn lists_and_json_are_read() {
    let mut world = World::default();
    let list = "{\"apiVersion\": \"v1\", \"kind\": \"List\", \"items\": [\n\
                {\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"a\"}},\n\
                {\"apiVersion\": \"v1\", \"kind\": \"Namespace\", \"metadata\": {\"name\": \"b\"}}]}";
    assert!(world.update(&Files::from_text("l.json", list)).is_empty());
    assert_eq!(names(&world), ["Namespace a", "Namespace b"]);
}

#[test]
fn a_mesh_config_may_be_given_once() {
    let mut world = World::default();
    let files = Files::from_text("b.yaml", BOOKINFO)
        .and_mesh_config_text("mesh.yaml", "rootNamespace: root");
    let findings = world.update(&files);
    assert!(lines(&findings)[0].contains("MeshConfig: defined twice: first at mesh.yaml:1:1"));
    assert_eq!(world.mesh_config().root_namespace, "root");
    assert_eq!(
        world
            .objects()
            .filter(|o| o.meta.kind == Kind::MeshConfig)
            .count(),
        1
    );
}

#[test]
fn every_unknown_field_is_found_where_it_stands() {
    // A line of nonsense before every line of an Istio object, one at a time.
    let all: Vec<&str> = BOOKINFO.lines().collect();
    let mut kind = "";
    let mut tried = 0;
    for (index, line) in all.iter().enumerate() {
        if let Some(name) = line.strip_prefix("kind: ") {
            kind = name;
        }
        let text = line.trim_start();
        let strict = !matches!(kind, "Service" | "ConfigMap") && !text.starts_with("kind:");
        let free = [
            "labels",
            "annotations",
            "set",
            "headers",
            "withoutHeaders",
            "queryParams",
        ];
        let inside = all[..index].iter().rev().find(|above| {
            let key = above.trim_start_matches([' ', '-']);
            above.len() - key.len() < line.len() - text.len()
        });
        let parent = inside.map_or("", |above| above.trim_matches([' ', '-', ':']));
        let top = line.len() == text.len();
        if !strict
            || text.starts_with('-')
            || text.starts_with('#')
            || free.contains(&parent)
            || matches!(parent, "ports" | "selector" | "metadata")
            || top
        {
            continue;
        }
        let indent = &line[..line.len() - text.len()];
        let mut changed = all.clone();
        let nonsense = format!("{indent}zzUnknown: 1");
        changed.insert(index, &nonsense);
        let mut world = World::default();
        let findings = world.update(&Files::from_text("b.yaml", &changed.join("\n")));
        let place = format!("b.yaml:{}:{}:", index + 1, indent.len() + 1);
        assert!(
            lines(&findings)
                .iter()
                .any(|l| l.starts_with(&place) && l.contains("zzUnknown")),
            "{place} before {line:?} below {parent:?}: {:?}",
            lines(&findings),
        );
        tried += 1;
    }
    assert!(tried > 100, "{tried}");
}
