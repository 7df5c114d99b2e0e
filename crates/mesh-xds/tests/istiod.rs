//! What a real istiod sends a sidecar and a gateway is taken as it is.
//!
//! The cases are those of mesh-control, which says how they came about. Every resource is read;
//! what is refused stands in a table with its reason, and an entry that nothing needs fails.

#![cfg(feature = "json")]

use mesh_xds::json::Codec;
use mesh_xds::read::{self, Resource};
use mesh_xds::{TypeUrl, write};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What is not read yet: the number of the issue that brings it, and what the refusal says.
const REFUSED: &[(u32, &str)] = &[];

const KINDS: [(&str, TypeUrl); 4] = [
    ("clusters", TypeUrl::Cluster),
    ("endpoints", TypeUrl::Endpoints),
    ("listeners", TypeUrl::Listener),
    ("routes", TypeUrl::Routes),
];

/// Every recorded resource: where it is from, its type and its bytes.
fn recorded() -> Vec<(String, TypeUrl, Vec<u8>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mesh-control/tests/istiod/cases");
    let codec = Codec::new();
    let mut all = Vec::new();
    for folder in fs::read_dir(root).unwrap() {
        let folder = folder.unwrap().path();
        for node in ["sidecar", "gateway"] {
            let Ok(text) = fs::read_to_string(folder.join(format!("{node}.json"))) else {
                continue;
            };
            let file: Value = serde_json::from_str(&text).unwrap();
            for (list, kind) in KINDS {
                for one in file[list].as_array().unwrap() {
                    let (_, message) = kind.url().split_once('/').unwrap();
                    let bytes = codec.from_json(message, &one.to_string()).unwrap();
                    let name = read::name(&bytes).unwrap();
                    let case = folder.file_name().unwrap().to_str().unwrap();
                    all.push((format!("{case}, {node}, {list} {name}"), kind, bytes));
                }
            }
        }
    }
    all
}

#[test]
fn everything_that_istiod_sends_is_read() {
    let all = recorded();
    assert!(all.len() > 600, "{}", all.len());
    let mut needed = BTreeSet::new();
    let mut surprises = Vec::new();
    for (place, kind, bytes) in all {
        let Err(error) = read::resource(kind, &bytes) else {
            continue;
        };
        let error = error.to_string();
        match REFUSED.iter().find(|(_, known)| error.contains(known)) {
            Some(known) => {
                needed.insert(known);
            }
            None => surprises.push(format!("{place}: {error}")),
        }
    }
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
    assert_eq!(
        needed.len(),
        REFUSED.len(),
        "some are read by now: {needed:?}"
    );
}

#[test]
fn what_was_read_is_written_so_that_it_is_read_again() {
    for (place, kind, bytes) in recorded() {
        match read::resource(kind, &bytes) {
            Ok(Resource::Listener(read)) => {
                let tables = read.routes.iter().filter_map(|routes| match routes {
                    read::RouteSource::Inline(table) => Some(&**table),
                    read::RouteSource::Named(_) => None,
                });
                let proto = write::listener(&read.listener, tables);
                let again = read::listener(&proto).unwrap();
                assert_eq!(again.listener, read.listener, "{place}");
            }
            Ok(Resource::Cluster(read)) => {
                let proto = write::cluster(&read.cluster, read.endpoints.as_ref());
                let again = read::cluster(&proto).unwrap();
                assert_eq!(again.cluster, read.cluster, "{place}");
            }
            _ => {}
        }
    }
}
