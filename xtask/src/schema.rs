//! `cargo xtask schema`: the table of Envoy's messages that mesh-xds carries.
//!
//! envoy-types ships the descriptors that it was generated from, but its code cannot reach them.
//! This command turns the ones that matter here into one small file, `schema.bin`, which mesh-xds
//! reads in place: names, numbers and kinds of fields, names of enum values, and the rules
//! (`validate.rules`) that Envoy checks. The file is committed, so building needs nothing of this.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail};
use prost_reflect::DescriptorPool;

use crate::workspace::Workspace;

mod extra;
mod select;
mod table;
#[cfg(test)]
mod tests;

/// Where the table is committed, relative to the root.
const COMMITTED: &str = "crates/mesh-xds/data/schema.bin";

/// The package that has the descriptors, and where.
const SOURCE: (&str, &str) = ("envoy-types", "src/generated/types.bin");

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Write nothing; fail if the committed table is not what would be written
    #[arg(long)]
    check: bool,
}

/// Writes the table, or checks that it is current.
///
/// # Errors
///
/// If the descriptors say something that the table cannot hold, or with `--check` if it differs.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let made = make(workspace)?;
    let path = workspace.root().join(COMMITTED);
    if options.check {
        let committed = fs::read(&path).with_context(|| format!("cannot read {COMMITTED}"))?;
        if committed != made {
            bail!("{COMMITTED} is not what envoy-types gives: run `cargo xtask schema`");
        }
        println!("{COMMITTED} is current");
        return Ok(());
    }
    fs::write(&path, &made).with_context(|| format!("cannot write {COMMITTED}"))?;
    println!("{COMMITTED}: {} bytes", made.len());
    Ok(())
}

/// The table for the version of envoy-types that is locked.
fn make(workspace: &Workspace) -> anyhow::Result<Vec<u8>> {
    let path = source(workspace)?;
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut pool =
        DescriptorPool::decode(bytes.as_slice()).context("cannot decode the descriptors")?;
    extra::add(&mut pool)?;
    table::write(&select::needed(&pool)?)
}

fn source(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let (name, file) = SOURCE;
    let found: Vec<_> = workspace
        .metadata
        .packages
        .iter()
        .filter(|package| package.name == name)
        .collect();
    let [package] = found[..] else {
        bail!("{} packages are called {name}, expected one", found.len());
    };
    let folder = package.manifest_path.parent();
    Ok(folder.context("a manifest lies in a folder")?.join(file))
}
