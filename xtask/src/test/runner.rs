//! Runs tests: with nextest where it is installed, else one binary after the other.

use std::{collections::BTreeSet, process::Command};

use super::{Context, marks};
use crate::{cargo, report::Outcome, workspace::Package};

mod alone;

/// Which of the tests in the chosen targets.
#[derive(Clone, Copy)]
enum Ignored {
    Left,
    Only,
    Too,
}

/// All tests but those for the full run.
pub(super) fn quick(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let arguments = targets(&context.selected, |name| !is_full(name));
    run(context.cargo(), context, &arguments, false, Ignored::Left)
}

/// The tests that are marked for the full run.
pub(super) fn marked(context: &Context<'_>) -> anyhow::Result<Outcome> {
    if marks::find(context)?.is_empty() {
        return Ok(Outcome::Nothing("no test is ignored".into()));
    }
    // What a gate ignores it ignores because it holds only when optimized.
    let arguments = targets(&context.selected, |name| !is_full(name) && !is_gate(name));
    with_peers(context, &arguments, false, Ignored::Only)
}

/// The integration tests that are only for the full run.
pub(super) fn full(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let arguments = integration_targets(&context.selected, is_full);
    if arguments.is_empty() {
        return Ok(Outcome::Nothing("no tests/*_full.rs".into()));
    }
    with_peers(context, &arguments, true, Ignored::Too)
}

/// The budgets (allocations, sizes), as optimized binaries keep them.
pub(super) fn gates(context: &Context<'_>) -> anyhow::Result<Outcome> {
    let arguments = integration_targets(&context.selected, is_gate);
    if arguments.is_empty() {
        return Ok(Outcome::Nothing("no tests/*_gate.rs".into()));
    }
    run(context.cargo(), context, &arguments, true, Ignored::Too)
}

fn is_full(name: &str) -> bool {
    name.ends_with("_full")
}

fn is_gate(name: &str) -> bool {
    name.ends_with("_gate")
}

/// Selects the unit tests, and the integration tests whose name is right.
fn targets(packages: &[&Package], is_right: fn(&str) -> bool) -> Vec<String> {
    let mut arguments = integration_targets(packages, is_right);
    if packages.iter().any(|package| package.library().is_some()) {
        arguments.push("--lib".into());
    }
    if packages
        .iter()
        .any(|package| package.targets("bin").next().is_some())
    {
        arguments.push("--bins".into());
    }
    arguments
}

/// Selects the integration tests whose name is right.
fn integration_targets(packages: &[&Package], is_right: fn(&str) -> bool) -> Vec<String> {
    let names: BTreeSet<&str> = packages
        .iter()
        .flat_map(|package| package.targets("test"))
        .filter(|name| is_right(name))
        .collect();
    names
        .into_iter()
        .map(|name| format!("--test={name}"))
        .collect()
}

/// Runs tests that find real peers through `MESH_ENVOY` and `MESH_PYTHON`.
fn with_peers(
    context: &Context<'_>,
    targets: &[String],
    release: bool,
    ignored: Ignored,
) -> anyhow::Result<Outcome> {
    let peers = match context.peers() {
        Ok(peers) => peers,
        Err(why) => return Ok(Outcome::Skipped(why.to_owned())),
    };
    let mut cargo = context.cargo();
    cargo
        .env("MESH_ENVOY", &peers.envoy)
        .env("MESH_PYTHON", &peers.python);
    run(cargo, context, targets, release, ignored)
}

fn run(
    mut command: Command,
    context: &Context<'_>,
    targets: &[String],
    release: bool,
    ignored: Ignored,
) -> anyhow::Result<Outcome> {
    let nextest = cargo::has_subcommand(context.workspace.root(), "nextest");
    if nextest {
        command.args(["nextest", "run", "--no-tests=pass"]);
        command.args(["--config-file", "xtask/nextest.toml"]);
    } else {
        command.arg("test");
    }
    command
        .args(["--all-features", "--no-fail-fast"])
        .args(context.packages.arguments())
        .args(targets);
    if release {
        command.arg("--release");
        // Many binaries are linked here, and optimizing each as a whole takes minutes a piece.
        command.env("CARGO_PROFILE_RELEASE_LTO", "off");
        command.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    }
    if !nextest {
        let arguments: &[&str] = match ignored {
            Ignored::Left => &[],
            Ignored::Only => &["--ignored"],
            Ignored::Too => &["--include-ignored"],
        };
        alone::run(command, &context.selected, arguments)?;
        return Ok(Outcome::Passed);
    }
    match ignored {
        Ignored::Left => {}
        Ignored::Only => drop(command.args(["--run-ignored", "only"])),
        Ignored::Too => drop(command.args(["--run-ignored", "all"])),
    }
    cargo::run(&mut command)?;
    Ok(Outcome::Passed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn package(targets: &[(&str, &str)]) -> Package {
        let targets: Vec<_> = targets
            .iter()
            .map(|(kind, name)| json!({"kind": [kind], "name": name}))
            .collect();
        serde_json::from_value(json!({
            "id": "p", "name": "p", "manifest_path": "/p/Cargo.toml", "dependencies": [],
            "targets": targets, "features": {}, "publish": null,
        }))
        .unwrap()
    }

    #[test]
    fn what_is_for_the_full_run_is_not_built_in_the_quick_one() {
        let package = package(&[("lib", "p"), ("test", "churn"), ("test", "envoy_full")]);
        assert_eq!(
            targets(&[&package], |name| !is_full(name)),
            ["--test=churn", "--lib"]
        );
        assert_eq!(
            integration_targets(&[&package], is_full),
            ["--test=envoy_full"]
        );
    }

    #[test]
    fn a_target_that_no_package_has_is_not_asked_for() {
        // Cargo ends with an error on `--lib` where there is no library.
        let package = package(&[("bin", "p")]);
        assert_eq!(targets(&[&package], |name| !is_full(name)), ["--bins"]);
    }
}
