//! Made-up workspaces, each of which breaks one rule.

use serde_json::{Value, json};

use super::*;

/// A workspace of the crates that a test names.
#[derive(Default)]
struct World {
    packages: Vec<Value>,
    nodes: Vec<Value>,
    members: Vec<String>,
}

/// One dependency: name, kind and features.
type Dep<'a> = (&'a str, Option<&'a str>, &'a [&'a str]);

const NO_FEATURES: &[&str] = &[];

impl World {
    /// Adds a member under `crates/`.
    fn member(self, name: &str, dependencies: &[Dep<'_>]) -> Self {
        self.member_in("crates", name, dependencies)
    }

    fn member_in(mut self, folder: &str, name: &str, dependencies: &[Dep<'_>]) -> Self {
        self.members.push(name.into());
        self.package(
            &format!("/w/{folder}/{name}/Cargo.toml"),
            name,
            dependencies,
        )
    }

    /// Adds a crate of others.
    fn outside(self, name: &str, dependencies: &[&str]) -> Self {
        let dependencies: Vec<Dep<'_>> = dependencies
            .iter()
            .map(|name| (*name, None, NO_FEATURES))
            .collect();
        self.package(&format!("/registry/{name}/Cargo.toml"), name, &dependencies)
    }

    fn package(mut self, manifest: &str, name: &str, dependencies: &[Dep<'_>]) -> Self {
        let declared: Vec<Value> = dependencies
            .iter()
            .map(|(name, kind, features)| {
                json!({"name": name, "kind": kind, "optional": false, "features": features})
            })
            .collect();
        let resolved: Vec<Value> = dependencies
            .iter()
            .map(|(name, kind, _)| json!({"pkg": name, "dep_kinds": [{"kind": kind}]}))
            .collect();
        self.packages.push(json!({
            "id": name, "name": name, "manifest_path": manifest, "dependencies": declared,
            "targets": [], "features": {}, "publish": null,
        }));
        self.nodes.push(json!({"id": name, "deps": resolved}));
        self
    }

    fn check(self) -> Vec<String> {
        let metadata = json!({
            "packages": self.packages,
            "workspace_members": self.members,
            "workspace_root": "/w",
            "target_directory": "/w/target",
            "resolve": {"nodes": self.nodes},
        });
        check(&serde_json::from_value(metadata).unwrap())
    }
}

fn normal(name: &str) -> Dep<'_> {
    (name, None, NO_FEATURES)
}

fn dev(name: &str) -> Dep<'_> {
    (name, Some("dev"), NO_FEATURES)
}

/// The one violation of a world.
fn only(violations: Vec<String>) -> String {
    assert_eq!(violations.len(), 1, "{violations:#?}");
    violations.into_iter().next().unwrap()
}

#[test]
fn a_workspace_that_keeps_the_rules_is_left_alone() {
    let violations = World::default()
        .outside("hyper", &[])
        .outside("tower", &[])
        .member("mesh-core", &[("tokio", None, &["sync"]), normal("http")])
        .member("mesh-test", &[normal("mesh-core"), normal("tower")])
        .member(
            "mesh-lb",
            &[normal("mesh-core"), dev("mesh-test"), dev("hyper")],
        )
        .member("mesh-client", &[normal("mesh-lb"), normal("hyper")])
        .member("mesh-cli", &[normal("mesh-client"), normal("bookinfo")])
        .member_in(
            "examples",
            "bookinfo",
            &[normal("hyper"), normal("mesh-client")],
        )
        .member_in("benches", "stack", &[normal("mesh-client")])
        .check();
    assert_eq!(violations, Vec::<String>::new());
}

#[test]
fn the_vocabulary_imports_none_of_ours() {
    let violation = only(
        World::default()
            .member("mesh-lb", &[])
            .member("mesh-core", &[normal("mesh-lb")])
            .check(),
    );
    assert_eq!(
        violation,
        "mesh-core imports mesh-lb (allowed: none of ours)"
    );
}

#[test]
fn the_vocabulary_has_no_runtime() {
    let violation = only(
        World::default()
            .member("mesh-core", &[("tokio", None, &["sync", "rt"])])
            .check(),
    );
    assert_eq!(
        violation,
        "mesh-core switches on tokio's `rt` (allowed: sync)"
    );
}

#[test]
fn the_vocabulary_may_test_with_a_runtime() {
    let world = World::default().member("mesh-core", &[("tokio", Some("dev"), &["rt", "macros"])]);
    assert!(world.check().is_empty());
}

#[test]
fn policy_crates_do_not_import_each_other() {
    let names = ["mesh-route", "mesh-lb", "mesh-policy", "mesh-resilience"];
    for importer in names {
        for imported in names.into_iter().filter(|name| *name != importer) {
            let violation = only(
                World::default()
                    .member(imported, &[])
                    .member(importer, &[normal(imported)])
                    .check(),
            );
            let expected = format!("{importer} imports {imported} (allowed: mesh-core)");
            assert_eq!(violation, expected);
        }
    }
}

#[test]
fn policy_crates_do_not_import_each_other_for_tests_either() {
    let violation = only(
        World::default()
            .member("mesh-route", &[])
            .member("mesh-lb", &[dev("mesh-route")])
            .check(),
    );
    assert!(violation.contains("mesh-lb imports mesh-route"));
}

#[test]
fn what_is_for_tests_stays_in_tests() {
    let violation = only(
        World::default()
            .member("mesh-test", &[])
            .member("mesh-route", &[normal("mesh-test")])
            .check(),
    );
    assert!(violation.contains("mesh-route imports mesh-test"));
}

#[test]
fn a_forbidden_crate_is_found_behind_others_with_the_way_to_it() {
    for never in ["hyper", "prost", "serde-saphyr", "rustls"] {
        for importer in ["mesh-route", "mesh-lb", "mesh-policy", "mesh-resilience"] {
            let violation = only(
                World::default()
                    .outside(never, &[])
                    .outside("between", &[never])
                    .member(importer, &[normal("between")])
                    .check(),
            );
            let expected =
                format!("{importer} must never bring in {never}: {importer} → between → {never}");
            assert_eq!(violation, expected);
        }
    }
}

#[test]
fn the_vocabulary_brings_in_no_wire_format_and_no_tower() {
    for never in ["hyper", "prost", "serde-saphyr", "rustls", "tower"] {
        let violation = only(
            World::default()
                .outside(never, &[])
                .outside("between", &[never])
                .member("mesh-core", &[normal("between")])
                .check(),
        );
        assert!(violation.contains(never), "{violation}");
    }
}

#[test]
fn a_circle_of_dependencies_ends() {
    let world = World::default()
        .outside("one", &["other"])
        .outside("other", &["one"])
        .member("mesh-core", &[normal("one")]);
    assert!(world.check().is_empty());
}

#[test]
fn build_dependencies_count_and_optional_ones_are_declared_like_any_other() {
    let violation = only(
        World::default()
            .member("mesh-cli", &[("hyper", Some("build"), NO_FEATURES)])
            .check(),
    );
    assert_eq!(
        violation,
        "mesh-cli imports hyper, which is for mesh-client and mesh-proxy and mesh-xds only"
    );
}

#[test]
fn each_wire_format_has_its_users() {
    let cases = [
        (
            "mesh-cli",
            "hyper",
            "mesh-client and mesh-proxy and mesh-xds",
        ),
        (
            "mesh-telemetry",
            "hyper",
            "mesh-client and mesh-proxy and mesh-xds",
        ),
        ("mesh-proxy", "prost", "mesh-xds and mesh-control and xtask"),
        (
            "mesh-client",
            "prost",
            "mesh-xds and mesh-control and xtask",
        ),
        ("mesh-proxy", "serde-saphyr", "mesh-istio and mesh-xds"),
    ];
    for (importer, outside, users) in cases {
        let world = World::default().member(importer, &[normal(outside)]);
        let expected = format!("{importer} imports {outside}, which is for {users} only");
        assert_eq!(only(world.check()), expected);
    }
}

#[test]
fn the_users_of_a_wire_format_may_use_it() {
    for (importer, outside) in [
        ("mesh-client", "hyper"),
        ("mesh-proxy", "hyper"),
        ("mesh-xds", "prost"),
        ("mesh-istio", "serde-saphyr"),
        ("mesh-xds", "serde-saphyr"),
    ] {
        let world = World::default().member(importer, &[normal(outside)]);
        assert!(world.check().is_empty(), "{importer} may use {outside}");
    }
}

#[test]
fn istio_yaml_is_read_without_a_runtime() {
    let violation = only(
        World::default()
            .member("mesh-istio", &[("tokio", None, &["sync"])])
            .check(),
    );
    assert_eq!(violation, "mesh-istio imports tokio, which it must not");
    // mesh-core's own tokio, for `sync`, is no reason for a complaint.
    let world = World::default()
        .outside("tokio", &[])
        .member("mesh-core", &[("tokio", None, &["sync"])])
        .member("mesh-istio", &[normal("mesh-core")]);
    assert!(world.check().is_empty());
}

#[test]
fn sources_of_configuration_know_only_the_vocabulary() {
    for (importer, allowed) in [
        ("mesh-xds", "mesh-core, mesh-identity"),
        ("mesh-istio", "mesh-core"),
        ("mesh-discovery", "mesh-core"),
        ("mesh-telemetry", "mesh-core"),
    ] {
        for imported in ["mesh-lb", "mesh-proxy"] {
            let world = World::default()
                .member(imported, &[])
                .member(importer, &[normal(imported)]);
            let expected = format!("{importer} imports {imported} (allowed: {allowed})");
            assert_eq!(only(world.check()), expected);
        }
    }
}

#[test]
fn the_client_does_not_know_the_proxy_nor_where_its_configuration_is_from() {
    for imported in ["mesh-proxy", "mesh-istio", "mesh-xds"] {
        let world = World::default()
            .member(imported, &[])
            .member("mesh-client", &[normal(imported)]);
        let violation = only(world.check());
        assert!(violation.starts_with(&format!("mesh-client imports {imported}")));
    }
}

#[test]
fn a_library_does_not_import_an_example() {
    let violation = only(
        World::default()
            .member_in("examples", "bookinfo", &[])
            .member("mesh-proxy", &[normal("bookinfo")])
            .check(),
    );
    assert!(violation.starts_with("mesh-proxy imports bookinfo"));
}

#[test]
fn xtask_stands_alone() {
    let violation = only(
        World::default()
            .member("mesh-core", &[])
            .member_in("", "xtask", &[normal("mesh-core")])
            .check(),
    );
    assert_eq!(violation, "xtask imports mesh-core (allowed: none of ours)");
}

#[test]
fn a_new_crate_needs_a_rule() {
    let violation = only(World::default().member("mesh-new", &[]).check());
    assert_eq!(violation, "mesh-new has no rule: give it one");
}
