//! The cases and what was recorded for them.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::normal::normal;

/// One folder.
#[derive(Debug)]
pub(crate) struct Case {
    /// Its two digits.
    pub(crate) number: String,
    folder: PathBuf,
}

/// The two nodes that everything was recorded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Node {
    Sidecar,
    Gateway,
}

/// What a resource is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Cluster,
    Endpoints,
    Listener,
    Routes,
}

pub(crate) type Resources = BTreeMap<(Kind, String), Value>;

/// All cases, in order.
pub(crate) fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/istiod/cases");
    let mut folders: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    let number = |folder: &Path| folder.file_name().unwrap().to_str().unwrap()[..2].to_owned();
    folders
        .into_iter()
        .map(|folder| Case {
            number: number(&folder),
            folder,
        })
        .collect()
}

impl Case {
    pub(crate) fn nodes(&self) -> impl Iterator<Item = Node> {
        [Node::Sidecar, Node::Gateway]
            .into_iter()
            .filter(|node| self.folder.join(format!("{node}.json")).exists())
    }

    pub(crate) fn input(&self) -> String {
        fs::read_to_string(self.folder.join("input.yaml")).unwrap()
    }

    pub(crate) fn mesh_config(&self) -> Option<String> {
        fs::read_to_string(self.folder.join("meshconfig.yaml")).ok()
    }

    /// What was recorded, in the form that is compared.
    ///
    /// The way in has its tables inside one listener; they are taken out as tables, as ours are.
    pub(crate) fn resources(&self, node: Node) -> Resources {
        let text = fs::read_to_string(self.folder.join(format!("{node}.json"))).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let mut found = Resources::new();
        for kind in Kind::ALL {
            for resource in file[kind.list()].as_array().unwrap() {
                let name = resource[kind.name()].as_str().unwrap().to_owned();
                found.insert((kind, name), normal(kind, resource.clone()));
            }
        }
        for listener in file["listeners"].as_array().unwrap() {
            let chains = listener["filter_chains"].as_array().into_iter().flatten();
            for filter in chains.flat_map(|chain| chain["filters"].as_array().unwrap()) {
                let table = &filter["typed_config"]["route_config"];
                if let Some(name) = table["name"].as_str() {
                    let table = normal(Kind::Routes, table.clone());
                    let earlier = found.insert((Kind::Routes, name.to_owned()), table.clone());
                    assert!(earlier.is_none_or(|earlier| earlier == table), "{name}");
                }
            }
        }
        found
    }
}

impl Kind {
    pub(crate) const ALL: [Self; 4] =
        [Self::Cluster, Self::Endpoints, Self::Listener, Self::Routes];

    fn list(self) -> &'static str {
        match self {
            Self::Cluster => "clusters",
            Self::Endpoints => "endpoints",
            Self::Listener => "listeners",
            Self::Routes => "routes",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Endpoints => "cluster_name",
            _ => "name",
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sidecar => "sidecar",
            Self::Gateway => "gateway",
        })
    }
}
