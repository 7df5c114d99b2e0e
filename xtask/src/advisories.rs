//! `cargo xtask advisories`: whether a dependency has a known weakness, by `cargo deny`.
//!
//! It needs the tool and the database of advisories, both from the network. Neither is fetched by a
//! run of the tests: the tool is installed only when asked (`--install`), and the step says what is
//! missing.

use crate::{cargo, report::Outcome, workspace::Workspace};
use anyhow::bail;
use std::path::Path;
use std::process::Command;

/// The version that `--install` takes.
const VERSION: &str = "0.20.2";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Install cargo-deny first, if it is not there
    #[arg(long)]
    install: bool,
}

/// Asks for all dependencies that are locked.
///
/// # Errors
///
/// If cargo-deny or its database cannot be had, or something has an advisory.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let root = workspace.root();
    if options.install && !cargo::has_subcommand(root, "deny") {
        let version = format!("cargo-deny@{VERSION}");
        let mut install = cargo::cargo(root);
        cargo::run(install.args(["install", "--locked", &version]))?;
    }
    match check(root)? {
        Outcome::Nothing(why) => bail!(why),
        _ => Ok(()),
    }
}

/// The step of a run. Where there is no tool or no database it says so and fails no run, in CI neither:
/// nothing else in a run needs more than the registry.
///
/// # Errors
///
/// If something has an advisory.
pub(crate) fn check(root: &Path) -> anyhow::Result<Outcome> {
    if !cargo::has_subcommand(root, "deny") {
        let how = "`cargo xtask advisories --install` installs it; docs/security.md says what to \
                   do where it cannot be";
        return Ok(Outcome::Nothing(format!(
            "cargo-deny is not installed: {how}"
        )));
    }
    if !fetched(root)? {
        let why = "the database of advisories cannot be fetched, and none is there";
        return Ok(Outcome::Nothing(why.into()));
    }
    // What was fetched is what is looked at: a network that is gone by now changes nothing.
    let mut deny = deny(root);
    cargo::run(deny.args(["check", "--disable-fetch", "advisories"]))?;
    Ok(Outcome::Passed)
}

/// Whether there is a database, a new one if it can be had.
fn fetched(root: &Path) -> anyhow::Result<bool> {
    if deny(root).args(["fetch", "db"]).output()?.status.success() {
        return Ok(true);
    }
    // An old one is better than none, and `check` says how old it is.
    let listed = deny(root)
        .args(["check", "--disable-fetch", "advisories"])
        .output()?;
    let said = String::from_utf8_lossy(&listed.stderr);
    Ok(!said.contains("failed to load advisory database") && !said.contains("unable to find"))
}

fn deny(root: &Path) -> Command {
    let mut command = cargo::cargo(root);
    command.arg("deny");
    command
}
