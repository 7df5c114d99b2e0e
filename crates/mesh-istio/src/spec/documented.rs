//! `docs/compatibility.md` shows every field that the readers know, with its state and its test.
//!
//! The readers tell which fields they ask for ([`Report::asked`]) while they read a sample that has
//! every part; that it has every part is checked against the names in their source.

use super::object::read_spec;
use super::*;
use crate::cursor::Report;
use crate::yaml::compose;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Objects with every part that has parts of its own. What excludes what does not matter here.
const SAMPLES: &[(Kind, &str)] = &[
    (
        Kind::VirtualService,
        include_str!("documented/virtual_service.yaml"),
    ),
    (
        Kind::DestinationRule,
        include_str!("documented/destination_rule.yaml"),
    ),
    (Kind::Gateway, include_str!("documented/gateway.yaml")),
    (
        Kind::ServiceEntry,
        include_str!("documented/service_entry.yaml"),
    ),
    (Kind::WorkloadEntry, "spec: {address: 1.2.3.4}"),
    (Kind::Sidecar, include_str!("documented/sidecar.yaml")),
];

/// Parts that are shown elsewhere: whatever begins like the first is looked for as the second.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "DestinationRule.subsets.trafficPolicy.",
        "DestinationRule.trafficPolicy.",
    ),
    (
        "Sidecar.ingress.connectionPool.",
        "DestinationRule.trafficPolicy.connectionPool.",
    ),
    (
        "Sidecar.inboundConnectionPool.",
        "DestinationRule.trafficPolicy.connectionPool.",
    ),
    ("Sidecar.ingress.tls.", "Gateway.servers.tls."),
    ("ServiceEntry.endpoints.", "WorkloadEntry."),
];

/// A row of a table of the page.
struct Row {
    kind: String,
    /// What the heading above says that its fields are in.
    within: String,
    fields: Vec<String>,
    state: String,
    test: String,
    line: usize,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A path without positions and keys: `http[0].match[0].headers["a"].exact` is
/// `http.match.headers.exact`.
fn plain(path: &str) -> String {
    let mut plain = String::new();
    let mut rest = path;
    while let Some((before, inside)) = rest.split_once('[') {
        plain += before;
        rest = inside.split_once(']').map_or("", |(_, after)| after);
    }
    plain + rest
}

/// Every field that readers ask for, as `Kind.path`. Of what has parts, the parts.
fn fields() -> BTreeSet<String> {
    let mut asked = BTreeSet::new();
    for (kind, text) in SAMPLES {
        let document = compose(text).expect("valid YAML").remove(0);
        let report = Report::new("Sample".to_owned(), &"f.yaml".into(), text);
        read_spec(&Cursor::root(&document, &report), *kind);
        for path in report.asked() {
            let path = plain(&path);
            let Some(path) = path.strip_prefix("spec.") else {
                continue;
            };
            let mut path = format!("{kind}.{path}");
            for (from, to) in ELSEWHERE {
                if let Some(rest) = path.strip_prefix(from) {
                    path = format!("{to}{rest}");
                }
            }
            asked.insert(path);
        }
    }
    let is_part = |path: &String| {
        let parts = format!("{path}.");
        !asked.iter().any(|other| other.starts_with(&parts))
    };
    asked.iter().filter(|path| is_part(path)).cloned().collect()
}

/// What stands between backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn rows() -> Vec<Row> {
    let page = fs::read_to_string(root().join("docs/compatibility.md")).unwrap();
    let (mut kind, mut within) = (String::new(), String::new());
    let mut rows = Vec::new();
    for (at, line) in page.lines().enumerate() {
        if let Some(title) = line.strip_prefix("## ") {
            (kind, within) = (title.to_owned(), String::new());
        } else if let Some(title) = line.strip_prefix("### ") {
            let name = plain(title.split([' ', ',']).next().unwrap_or(title));
            // Of several it is what they are all in.
            within = match title.contains(',') {
                true => name
                    .rsplit_once('.')
                    .map_or(String::new(), |(all, _)| all.to_owned()),
                false => name,
            };
        }
        let line = line.replace("\\|", "/");
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, field, state, test, _] = cells[..] else {
            continue;
        };
        if field == "field" || field.starts_with('-') {
            continue;
        }
        let name = |text: &str| {
            plain(text)
                .replace(".*", "")
                .replace('*', "")
                .trim_matches('.')
                .to_owned()
        };
        rows.push(Row {
            kind: kind.clone(),
            within: within.clone(),
            fields: code(field).map(name).collect(),
            state: state.to_owned(),
            test: test.to_owned(),
            line: at + 1,
        });
    }
    let kinds: Vec<String> = SAMPLES.iter().map(|(kind, _)| kind.to_string()).collect();
    rows.retain(|row| kinds.contains(&row.kind));
    rows
}

/// Whether one path ends with all of another.
fn ends(path: &str, with: &str) -> bool {
    path.strip_suffix(with)
        .is_some_and(|rest| !with.is_empty() && (rest.is_empty() || rest.ends_with('.')))
}

#[test]
fn every_field_is_in_the_page() {
    let rows = rows();
    let shown = |path: &String| {
        let (kind, path) = path.split_once('.').unwrap_or((path, ""));
        rows.iter().any(|row| {
            let within = format!(".{path}").contains(&format!(".{}.", row.within));
            row.kind == kind
                && (row.within.is_empty() || within)
                && row.fields.iter().any(|field| ends(path, field))
        })
    };
    let missing: Vec<String> = fields().into_iter().filter(|path| !shown(path)).collect();
    assert!(
        missing.is_empty(),
        "not in the page:\n{}",
        missing.join("\n")
    );
}

#[test]
fn every_row_has_a_state_and_a_test_that_exists() {
    let mut sources = Vec::new();
    for krate in fs::read_dir(root().join("crates")).unwrap() {
        for part in ["src", "tests"] {
            rust_files(&krate.as_ref().unwrap().path().join(part), &mut sources);
        }
    }
    let has = |path: &str, text: &str, module: &str, test: &str| {
        let of_module =
            path.contains(&format!("/{module}.rs")) || path.contains(&format!("/{module}/"));
        of_module && text.contains(&format!("fn {test}("))
    };
    let mut faults = Vec::new();
    for row in rows() {
        let states = ["works", "work", "refused", "ignored"];
        let mut words = row.state.split(|c: char| !c.is_alphanumeric());
        if !words.any(|word| states.contains(&word)) {
            faults.push(format!("line {}: no state", row.line));
        }
        let mut module = String::new();
        let mut named = false;
        for test in code(&row.test) {
            named = true;
            let exists = if test.ends_with(".rs") {
                module = test
                    .trim_end_matches(".rs")
                    .rsplit('/')
                    .next()
                    .unwrap_or("")
                    .to_owned();
                sources
                    .iter()
                    .any(|(path, _)| path.ends_with(&format!("/{test}")))
            } else {
                if let Some((first, _)) = test.split_once("::") {
                    first.clone_into(&mut module);
                }
                let test = test.rsplit("::").next().unwrap_or(test);
                sources
                    .iter()
                    .any(|(path, text)| has(path, text, &module, test))
            };
            if !exists {
                faults.push(format!("line {}: no test {test}", row.line));
            }
        }
        let of_istiod = row.test.contains("case");
        if !named && !of_istiod && !row.state.starts_with("ignored") {
            faults.push(format!("line {}: no test", row.line));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_samples_reach_every_reader() {
    let mut asked = BTreeSet::new();
    for (kind, text) in SAMPLES {
        let document = compose(text).expect("valid YAML").remove(0);
        let report = Report::new("Sample".to_owned(), &"f.yaml".into(), text);
        read_spec(&Cursor::root(&document, &report), *kind);
        asked.extend(report.asked().iter().filter_map(|path| {
            let path = plain(path);
            path.rsplit('.').next().map(str::to_owned)
        }));
    }
    let mut sources = Vec::new();
    rust_files(&root().join("crates/mesh-istio/src/spec"), &mut sources);
    let others = [
        "authorization",
        "authentication",
        "extension",
        "kubernetes",
        "mesh_config",
        "object",
        "documented",
    ];
    let mut missed = BTreeSet::new();
    for (path, text) in &sources {
        let name = path.split("/spec/").nth(1).unwrap_or("");
        if others.iter().any(|other| name.contains(other)) {
            continue;
        }
        let code = text.split("#[cfg(test)]").next().unwrap_or(text);
        let calls = [
            "get", "need", "list", "entries", "cursor", "refuse", "later", "ignore",
        ];
        let calls = calls.map(|call| format!(".{call}("));
        let starts = calls.iter().map(String::as_str).chain(["(&mut fields, "]);
        for start in starts {
            for call in code.split(start).skip(1) {
                let Some(text) = call.trim_start().strip_prefix('"') else {
                    continue;
                };
                let Some((name, after)) = text.split_once('"') else {
                    continue;
                };
                // Of a node one asks with a name alone.
                let of_node = start == ".get(" && after.starts_with(')');
                if !of_node && !asked.contains(name) {
                    missed.insert(format!("{path}: {name}"));
                }
            }
        }
    }
    let missed: Vec<String> = missed.into_iter().collect();
    assert!(missed.is_empty(), "no sample has:\n{}", missed.join("\n"));
}

/// All Rust files in a directory, with what is in them.
fn rust_files(directory: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let text = fs::read_to_string(&path).unwrap_or_default();
            into.push((path.to_string_lossy().into_owned(), text));
        }
    }
}
