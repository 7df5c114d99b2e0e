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
    if deny(root).args(["fetch", "db"]).output()?.status.success() {
        cargo::run(deny(root).args(["check", "advisories"]))?;
        return Ok(Outcome::Passed);
    }
    // An old database is better than none.
    let output = deny(root)
        .args(["--offline", "check", "advisories"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if is_absent(&said) {
        let why = "the database of advisories cannot be fetched, and none is there";
        return Ok(Outcome::Nothing(why.into()));
    }
    eprint!("{said}");
    if !output.status.success() {
        bail!("a dependency has an advisory, or the database cannot be read");
    }
    println!("the database could not be fetched anew: this is what is known from before");
    Ok(Outcome::Passed)
}

/// Whether cargo-deny found no database, by what it says.
fn is_absent(said: &str) -> bool {
    ["'FETCH_HEAD'", "failed to load advisory database"]
        .iter()
        .any(|words| said.contains(words))
}

fn deny(root: &Path) -> Command {
    let mut command = cargo::cargo(root);
    command.arg("deny");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_database_is_told_from_a_finding() {
        assert!(is_absent(
            "[ERROR] failed to get 'FETCH_HEAD' metadata: failed to get HEAD timestamp"
        ));
        assert!(!is_absent(
            "error[vulnerability]: unbounded empty DATA frames"
        ));
        assert!(!is_absent("advisories ok: 0 errors, 0 warnings, 0 notes"));
    }
}
