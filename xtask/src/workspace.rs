//! What `cargo metadata` says of the workspace, as far as the commands here need it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::cargo;

/// The workspace that the current directory lies in.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) metadata: Metadata,
}

/// Selects packages of the workspace.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Packages {
    /// Only this package; may be repeated
    #[arg(short, long, value_name = "NAME")]
    pub(crate) package: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) workspace_root: PathBuf,
    pub(crate) target_directory: PathBuf,
    pub(crate) resolve: Resolve,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
    pub(crate) features: BTreeMap<String, Vec<String>>,
    /// The registries it may be published to: absent means any, an empty list none.
    pub(crate) publish: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    /// The package's own name, also when it is renamed.
    pub(crate) name: String,
    pub(crate) kind: Option<DependencyKind>,
    pub(crate) optional: bool,
    pub(crate) features: Vec<String>,
}

/// The kind of a dependency; a normal one has none.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DependencyKind {
    Dev,
    Build,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

/// The graph as cargo resolved it.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Edge {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<EdgeKind>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct EdgeKind {
    pub(crate) kind: Option<DependencyKind>,
}

// === impl Workspace ===

impl Workspace {
    /// Asks cargo about the workspace around the current directory.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let metadata = cargo::output_of(cargo::cargo(Path::new(".")).args([
            "metadata",
            "--format-version=1",
            "--all-features",
        ]))?;
        let metadata = serde_json::from_str(&metadata).context("cannot read cargo metadata")?;
        Ok(Self { metadata })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.metadata.workspace_root
    }

    /// Where cargo puts what it builds; honours `CARGO_TARGET_DIR`.
    pub(crate) fn target(&self) -> &Path {
        &self.metadata.target_directory
    }

    /// The members that are selected: all of them when none is named.
    ///
    /// # Errors
    ///
    /// If a name is not that of a member.
    pub(crate) fn select(&self, packages: &Packages) -> anyhow::Result<Vec<&Package>> {
        let members: Vec<&Package> = self.metadata.members().collect();
        for name in &packages.package {
            if !members.iter().any(|member| member.name == *name) {
                bail!("there is no package `{name}` in this workspace");
            }
        }
        Ok(members
            .into_iter()
            .filter(|member| packages.package.is_empty() || packages.package.contains(&member.name))
            .collect())
    }

    /// The member's folder, relative to the root.
    pub(crate) fn folder<'a>(&self, package: &'a Package) -> &'a Path {
        self.metadata.folder(package)
    }
}

// === impl Packages ===

impl Packages {
    /// The arguments that select them for cargo.
    ///
    /// Never left out: the workspace's `default-members` is mesh-cli alone.
    pub(crate) fn arguments(&self) -> Vec<String> {
        if self.package.is_empty() {
            return vec!["--workspace".into()];
        }
        self.package
            .iter()
            .map(|name| format!("--package={name}"))
            .collect()
    }
}

// === impl Metadata ===

impl Metadata {
    /// The packages of this workspace.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| self.workspace_members.contains(&package.id))
    }

    /// The package's folder, relative to the root; whole if it lies elsewhere.
    pub(crate) fn folder<'a>(&self, package: &'a Package) -> &'a Path {
        let folder = package
            .manifest_path
            .parent()
            .unwrap_or(&package.manifest_path);
        folder.strip_prefix(&self.workspace_root).unwrap_or(folder)
    }
}

// === impl Package ===

impl Package {
    /// Whether users may depend on it: published, and with a library.
    pub(crate) fn is_public_library(&self) -> bool {
        self.publish.is_none() && self.library().is_some()
    }

    /// The library target, if it has one.
    pub(crate) fn library(&self) -> Option<&Target> {
        self.targets.iter().find(|target| target.is("lib"))
    }

    /// The names of its targets of one kind: `bin`, `test`, `bench`, `example`.
    pub(crate) fn targets<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a str> {
        self.targets
            .iter()
            .filter(move |target| target.is(kind))
            .map(|target| target.name.as_str())
    }
}

// === impl Target ===

impl Target {
    fn is(&self, kind: &str) -> bool {
        self.kind.iter().any(|own| own == kind)
    }
}

// === impl Edge ===

impl Edge {
    /// Whether it is part of what a user of the package gets.
    pub(crate) fn is_normal(&self) -> bool {
        self.dep_kinds.iter().any(|dep| dep.kind.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_the_whole_workspace_is_meant() {
        assert_eq!(Packages::default().arguments(), ["--workspace"]);
    }

    #[test]
    fn names_take_the_place_of_the_workspace() {
        let packages = Packages {
            package: vec!["mesh-core".into(), "xtask".into()],
        };
        assert_eq!(
            packages.arguments(),
            ["--package=mesh-core", "--package=xtask"]
        );
    }

    #[test]
    fn this_workspace_is_read() {
        let workspace = Workspace::load().unwrap();
        let own = Packages {
            package: vec!["xtask".into()],
        };
        let selected = workspace.select(&own).unwrap();
        assert_eq!(selected.len(), 1);
        assert_eq!(workspace.folder(selected[0]), Path::new("xtask"));
        assert!(!selected[0].is_public_library());
        assert!(selected[0].targets("bin").eq(["xtask"]));
    }

    #[test]
    fn a_name_that_no_package_has_is_refused() {
        let workspace = Workspace::load().unwrap();
        let packages = Packages {
            package: vec!["mesh-cor".into()],
        };
        let error = workspace.select(&packages).unwrap_err();
        assert!(error.to_string().contains("`mesh-cor`"));
    }
}
