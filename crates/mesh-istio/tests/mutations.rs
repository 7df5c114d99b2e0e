//! Mutated documents: nothing panics, and what is accepted can be built.

#[path = "support/lib.rs"]
mod support;

use mesh_core::model::SnapshotBuilder;
use mesh_istio::{Files, Node, World, compile};
use proptest::prelude::*;
use support::BOOKINFO;

/// One change to a text.
#[derive(Clone, Debug)]
enum Change {
    DropLine(usize),
    SwapLines(usize, usize),
    CopyLine(usize, usize),
    Value(usize, &'static str),
    Key(usize, &'static str),
    Indent(usize, bool),
    Insert(usize, char),
    Cut(usize, usize),
}

const VALUES: &[&str] = &[
    "",
    "~",
    "0",
    "-1",
    "65536",
    "99999999999999999999",
    "true",
    "\"\"",
    "\"*\"",
    "[]",
    "{}",
    "[[]]",
    "{a: b}",
    "'%'",
    "'%REQ(x)%'",
    "1.5s",
    "1e400",
    "*x",
    "&x 1",
    "!!str 1",
    "a|b",
    "A.B",
    "'('",
    "\"\\u0000\"",
    "0.0.0.0",
    "::1",
    "127.0.0.1",
    "default",
    "reviews",
    "mesh",
    "20101",
    "20106",
    "HTTP_PROXY",
    "STATIC",
    "NONE",
    "gateway",
    "20106=20180",
    "*.default.svc.cluster.local",
];

const KEYS: &[&str] = &[
    "spec",
    "name",
    "namespace",
    "hosts",
    "http",
    "match",
    "route",
    "port",
    "subset",
    "<<",
    "",
    "selector",
    "egress",
    "ingress",
    "bind",
    "weight",
    "exportTo",
    "gateways",
    "redirect",
];

fn change() -> impl Strategy<Value = Change> {
    let line = 0..BOOKINFO.lines().count();
    let byte = 0..BOOKINFO.len();
    prop_oneof![
        line.clone().prop_map(Change::DropLine),
        (line.clone(), line.clone()).prop_map(|(a, b)| Change::SwapLines(a, b)),
        (line.clone(), line.clone()).prop_map(|(a, b)| Change::CopyLine(a, b)),
        (line.clone(), prop::sample::select(VALUES)).prop_map(|(l, v)| Change::Value(l, v)),
        (line.clone(), prop::sample::select(VALUES)).prop_map(|(l, v)| Change::Value(l, v)),
        (line.clone(), prop::sample::select(KEYS)).prop_map(|(l, k)| Change::Key(l, k)),
        (line, any::<bool>()).prop_map(|(l, deeper)| Change::Indent(l, deeper)),
        (byte.clone(), any::<char>()).prop_map(|(at, c)| Change::Insert(at, c)),
        (byte, 1..40_usize).prop_map(|(at, length)| Change::Cut(at, length)),
    ]
}

fn apply(text: &str, change: &Change) -> String {
    let boundary = |at: usize| {
        (0..=at.min(text.len()))
            .rev()
            .find(|at| text.is_char_boundary(*at))
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let last = lines.len().saturating_sub(1);
    match change {
        _ if lines.is_empty() => {}
        Change::DropLine(at) => drop(lines.remove((*at).min(last))),
        Change::SwapLines(a, b) => lines.swap((*a).min(last), (*b).min(last)),
        Change::CopyLine(a, b) => {
            let copy = lines[(*a).min(last)].clone();
            lines.insert((*b).min(last), copy);
        }
        Change::Value(at, value) => {
            let line = &mut lines[(*at).min(last)];
            if let Some(colon) = line.find(": ") {
                line.truncate(colon);
                *line += ": ";
                *line += value;
            } else if let Some(dash) = line.find("- ") {
                line.truncate(dash + 2);
                *line += value;
            }
        }
        Change::Key(at, key) => {
            let line = &mut lines[(*at).min(last)];
            if let Some(colon) = line.find(':') {
                let start = line.len() - line.trim_start_matches([' ', '-']).len();
                line.replace_range(start.min(colon)..colon, key);
            }
        }
        Change::Indent(at, deeper) => {
            let line = &mut lines[(*at).min(last)];
            if *deeper {
                line.insert_str(0, "  ");
            } else if line.starts_with("  ") {
                line.drain(..2);
            }
        }
        Change::Insert(at, c) => {
            let mut text = text.to_owned();
            text.insert(boundary(*at).unwrap_or(0), *c);
            return text;
        }
        Change::Cut(at, length) => {
            let mut text = text.to_owned();
            let (from, to) = (
                boundary(*at).unwrap_or(0),
                boundary(at + length).unwrap_or(0),
            );
            text.replace_range(from..to, "");
            return text;
        }
    }
    lines.join("\n")
}

/// Compiles every node that there is and two that there always are.
fn compile_all(world: &World) -> Result<(), TestCaseError> {
    let (mut nodes, _) = Node::all(world);
    nodes.push(Node::gateway("gateway", "istio-system"));
    nodes.push(Node::sidecar("client", "default"));
    for node in &nodes {
        let mut builder = SnapshotBuilder::new();
        for finding in compile(world, node, &mut builder) {
            prop_assert!(!finding.is_error(), "compiling refuses nothing: {finding}");
        }
        if let Err(invalid) = builder.build() {
            return Err(TestCaseError::fail(format!("{}: {invalid}", node.name)));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn mutated_documents_never_panic_and_compile_to_what_can_be_built(
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let text = changes.iter().fold(BOOKINFO.to_owned(), |text, change| apply(&text, change));
        let mut world = World::default();
        let findings = world.update(&Files::from_text("m.yaml", &text));
        for finding in &findings {
            prop_assert!(!finding.render().is_empty());
            prop_assert!(!finding.to_string().contains('\n'), "{finding}");
            let lines = u32::try_from(text.lines().count()).unwrap();
            prop_assert!(finding.line <= lines + 1, "{finding} of {lines}");
        }
        compile_all(&world)?;

        // On top of a good world: what was refused keeps its last good version.
        let mut world = World::default();
        world.update(&Files::from_text("m.yaml", BOOKINFO));
        world.update(&Files::from_text("m.yaml", &text));
        compile_all(&world)?;
    }

    #[test]
    fn any_text_at_all_is_read_without_panicking(text in "(?s).{0,200}") {
        let mut world = World::default();
        for finding in world.update(&Files::from_text("m.yaml", &text)) {
            let _ = finding.render();
        }
        prop_assert!(world.is_empty());
    }
}

#[test]
fn an_unchanged_world_compiles_to_the_same_whatever_its_lines() {
    let build = |text: &str| {
        let mut world = World::default();
        world.update(&Files::from_text("m.yaml", text));
        let mut builder = SnapshotBuilder::new();
        compile(&world, &Node::sidecar("client", "default"), &mut builder);
        builder.build().expect("good").0
    };
    let (before, after) = (
        build(BOOKINFO),
        build(&format!("# a comment\n\n{BOOKINFO}")),
    );
    let hosts =
        |s: &mesh_core::model::Snapshot| s.table("http_proxy").unwrap().virtual_hosts.clone();
    assert_eq!(hosts(&before), hosts(&after));
    for (one, other) in before.clusters().iter().zip(after.clusters()) {
        assert_eq!(one.config(), other.config());
    }
}
