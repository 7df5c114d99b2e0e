//! Virtual services that hand rules to others.

#[path = "support/lib.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::{PathMatch, PathRewrite, Rule, Snapshot};
use mesh_istio::{Node, Severity};
use support::{client, good, host, lines, service, snapshot, to, world};

const A: &str = "a.default.svc.cluster.local:80";

/// A virtual service for host `a` with this under `http`, as rules in flow style.
fn root(http: &str) -> String {
    service("a", "default", 80) + &object("root", "default", &format!("hosts: [a], http: [{http}]"))
}

fn object(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn leaf(http: &str) -> String {
    object("leaf", "default", &format!("http: [{http}]"))
}

fn rules(snapshot: &Snapshot) -> &[Arc<Rule>] {
    &host(snapshot, "http_proxy", A).rules
}

fn paths(rules: &[Arc<Rule>]) -> Vec<String> {
    let path = |rule: &Arc<Rule>| match &rule.condition.path {
        PathMatch::Prefix(text) => format!("{text}*"),
        PathMatch::Exact(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    rules.iter().map(path).collect()
}

#[test]
fn the_rules_of_a_delegate_stand_in_place_of_the_rule_that_names_it() {
    let text = root(
        "{name: r, match: [{uri: {prefix: /in}}], delegate: {name: leaf}}, \
         {route: [{destination: {host: a}}]}",
    ) + &leaf(
        "{name: deep, match: [{uri: {prefix: /in/deep}}], route: [{destination: {host: a}}]}, \
         {route: [{destination: {host: a}}]}",
    );
    let (snapshot, findings) = client(&text);
    assert!(findings.is_empty(), "{}", lines(&findings).join("\n"));
    let rules = rules(&snapshot);
    assert_eq!(paths(rules), ["/in/deep*", "/in*", "/*"]);
    let names: Vec<&str> = rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["r-deep", "r", ""]);
}

#[test]
fn a_delegate_inherits_what_it_does_not_say() {
    let text = root(
        "{timeout: 7s, retries: {attempts: 5}, rewrite: {uri: /r}, \
         headers: {request: {set: {x: root}}, response: {remove: [y]}}, delegate: {name: leaf}}",
    ) + &leaf(
        "{match: [{uri: {prefix: /own}}], timeout: 1s, headers: {request: {set: {x: leaf}}}, \
         route: [{destination: {host: a}}]}, \
         {route: [{destination: {host: a}}]}",
    );
    let (snapshot, _) = client(&text);
    let [own, plain] = rules(&snapshot) else {
        panic!("two rules")
    };
    assert_eq!(own.timeout, Some(Duration::from_secs(1)));
    assert_eq!(plain.timeout, Some(Duration::from_secs(7)));
    for rule in [own, plain] {
        assert_eq!(rule.retry.as_ref().unwrap().attempts, 5);
        let mesh_core::model::Action::Forward(forward) = &rule.action else {
            panic!("forwards")
        };
        assert_eq!(forward.path, PathRewrite::Prefix("/r".to_owned()));
    }
    // Headers come from one of the two, whole.
    assert_eq!(
        (own.request_edits.add.len(), own.response_edits.remove.len()),
        (1, 0)
    );
    assert_eq!(
        (
            plain.request_edits.add.len(),
            plain.response_edits.remove.len()
        ),
        (1, 1)
    );
}

#[test]
fn every_part_of_a_rule_keeps_its_origin() {
    let text = root("{timeout: 7s, delegate: {name: leaf}}")
        + &leaf("{route: [{destination: {host: a}}]}");
    let (snapshot, _) = client(&text);
    let rule = &rules(&snapshot)[0];
    let object = |origin| &*snapshot.origins().place(origin).unwrap().object;
    assert_eq!(object(rule.origin), "VirtualService leaf.default");
    assert_eq!(object(rule.timeout_origin), "VirtualService root.default");
}

#[test]
fn short_names_in_a_delegate_are_those_of_its_own_namespace() {
    let text = root("{mirror: {host: a}, delegate: {name: leaf, namespace: pay}}")
        + &service("b", "pay", 80)
        + &object("leaf", "pay", "http: [{route: [{destination: {host: b}}]}]");
    let (snapshot, findings) = client(&text);
    assert!(findings.is_empty(), "{}", lines(&findings).join("\n"));
    let rule = &rules(&snapshot)[0];
    assert_eq!(to(rule), "outbound|80||b.pay.svc.cluster.local");
    assert_eq!(
        rule.mirrors[0].cluster,
        "outbound|80||a.default.svc.cluster.local"
    );
}

#[test]
fn a_delegate_cannot_take_more_than_it_was_given() {
    for (given, taken, fits) in [
        ("uri: {prefix: /a}", "uri: {exact: /a/b}", true),
        ("uri: {prefix: /a}", "uri: {prefix: /}", false),
        ("uri: {prefix: /a}", "uri: {regex: /a/b}", false),
        ("uri: {exact: /a}", "uri: {exact: /a}", true),
        ("uri: {exact: /a}", "uri: {prefix: /a}", false),
        ("headers: {x: {}}", "headers: {x: {exact: v}}", true),
        ("headers: {x: {exact: v}}", "headers: {x: {}}", false),
        (
            "withoutHeaders: {x: {}}",
            "withoutHeaders: {x: {exact: v}}",
            false,
        ),
        (
            "withoutHeaders: {x: {exact: v}}",
            "withoutHeaders: {x: {}}",
            true,
        ),
        (
            "queryParams: {q: {prefix: a}}",
            "queryParams: {q: {exact: ab}}",
            true,
        ),
        ("method: {exact: GET}", "method: {exact: PUT}", false),
        ("port: 80", "port: 81", false),
        ("sourceNamespace: default", "sourceNamespace: other", false),
        ("gateways: [mesh]", "gateways: [other]", false),
    ] {
        let text = root(&format!(
            "{{match: [{{{given}}}], delegate: {{name: leaf}}}}"
        )) + &leaf(&format!(
            "{{match: [{{{taken}}}], route: [{{destination: {{host: a}}}}]}}"
        ));
        let (_, findings) = client(&text);
        let left_out = lines(&findings).join("\n").contains("left out");
        assert_eq!(left_out, !fits, "{given} / {taken}: {findings:?}");
    }
}

#[test]
fn blocks_of_root_and_delegate_are_combined_pair_by_pair() {
    let text = root(
        "{match: [{name: g, uri: {prefix: /a}}, {uri: {prefix: /b}, headers: {x: {exact: v}}}], \
         delegate: {name: leaf}}",
    ) + &leaf(
        "{match: [{name: l, uri: {prefix: /a/1}}, {method: {exact: PUT}}], \
         route: [{destination: {host: a}}]}",
    );
    let (snapshot, _) = client(&text);
    let rules = rules(&snapshot);
    assert_eq!(paths(rules), ["/a/1*", "/a*", "/b*"]);
    assert_eq!(rules[0].name, ".g-l");
    let conditions: Vec<usize> = rules.iter().map(|r| r.condition.headers.len()).collect();
    assert_eq!(conditions, [0, 1, 2]);
}

#[test]
fn a_delegate_that_is_not_there_or_not_shown_is_a_warning_and_no_rule() {
    let kept = "{name: rest, route: [{destination: {host: a}}]}";
    for (leaf, words) in [
        (String::new(), "no VirtualService leaf.pay"),
        (
            object(
                "leaf",
                "pay",
                "hosts: [x.example], http: [{route: [{destination: {host: a}}]}]",
            ),
            "has hosts",
        ),
        (
            object(
                "leaf",
                "pay",
                "exportTo: ['.'], http: [{route: [{destination: {host: a}}]}]",
            ),
            "not exported to \"default\"",
        ),
    ] {
        let rule = "{match: [{uri: {prefix: /x}}], delegate: {name: leaf, namespace: pay}}";
        let world = good(&(root(&format!("{rule}, {kept}")) + &leaf));
        let (snapshot, findings) = snapshot(&world, &Node::sidecar("client", "default"));
        assert!(
            findings
                .iter()
                .all(|finding| finding.severity == Severity::Warning)
        );
        assert!(lines(&findings).join("\n").contains(words), "{findings:?}");
        assert_eq!(paths(rules(&snapshot)), ["/*"]);
    }
}

#[test]
fn delegates_have_no_gateways_and_do_not_delegate() {
    for (spec, words) in [
        (
            "gateways: [g], http: [{route: [{destination: {host: a}}]}]",
            "hosts is missing",
        ),
        (
            "http: [{delegate: {name: other}}]",
            "cannot delegate further",
        ),
    ] {
        let (world, findings) = world(&object("leaf", "default", spec));
        assert!(world.is_empty(), "{spec}");
        assert!(lines(&findings).join("\n").contains(words), "{findings:?}");
    }
}
