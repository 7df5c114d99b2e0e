//! `cargo xtask oracle`: generated configurations and requests, with a real Envoy as the judge.

use crate::{cargo, venv, workspace::Workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// What everything that is generated depends on
    #[arg(long)]
    seed: Option<u64>,

    /// Configurations over all areas
    #[arg(long)]
    configs: Option<usize>,

    /// Requests over all configurations
    #[arg(long)]
    requests: Option<usize>,

    /// Only this area; may be repeated
    #[arg(long, value_name = "AREA")]
    only: Vec<String>,

    /// More for mesh-oracle itself, after `--`: see `-- --help`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Builds mesh-oracle, optimized, and runs it with the Envoy of target/venv.
///
/// # Errors
///
/// If anything differs, or not enough was exercised.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    let mut command = cargo::cargo(workspace.root());
    command
        .env("MESH_ENVOY", venv::envoy_of(workspace)?)
        .args(["run", "--quiet", "--release", "--all-features"])
        .args(["--package=mesh-oracle", "--"]);
    let numbers = [
        ("--seed", options.seed.map(|it| it.to_string())),
        ("--configs", options.configs.map(|it| it.to_string())),
        ("--requests", options.requests.map(|it| it.to_string())),
    ];
    for (name, value) in numbers {
        if let Some(value) = value {
            command.args([name, &value]);
        }
    }
    for area in &options.only {
        command.args(["--only", area]);
    }
    cargo::run(command.args(&options.arguments))
}
