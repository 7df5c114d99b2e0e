//! `cargo xtask oracle`: generated configurations and requests, with a real Envoy as the judge.

use std::{path::Path, process::Command};

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

/// What the full tests try: so many configurations and requests over all areas, which is as many as
/// everything takes that has to come up often enough.
const SEED: u64 = 7;
const CONFIGS: usize = 560;
const REQUESTS: usize = 19_600;

/// The step of the full tests: every area and subject, with a seed that does not change. Not
/// optimized, as the quick tests are not: most of its time it waits.
///
/// # Errors
///
/// If anything differs, or not enough was exercised.
pub(crate) fn fixed(workspace: &Workspace, envoy: &Path) -> anyhow::Result<()> {
    let options = Options {
        seed: Some(SEED),
        configs: Some(CONFIGS),
        requests: Some(REQUESTS),
        only: Vec::new(),
        arguments: Vec::new(),
    };
    // With a test of the quick ones cargo takes the same features of everything as for those, and
    // does not build it all again.
    let build = ["build", "--quiet", "--workspace", "--all-features"];
    let mut command = cargo::cargo(workspace.root());
    cargo::run(
        command
            .args(build)
            .args(["--bin=mesh-oracle", "--test=limits"]),
    )?;
    let mut command = Command::new(workspace.target().join("debug/mesh-oracle"));
    command.current_dir(workspace.root());
    cargo::run(options.tell(command.env("MESH_ENVOY", envoy)))
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
        .args(["run", "--quiet", "--all-features", "--release"])
        .args(["--package=mesh-oracle", "--"]);
    cargo::run(options.tell(&mut command))
}

// === impl Options ===

impl Options {
    /// Passes them on.
    fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let numbers = [
            ("--seed", self.seed.map(|it| it.to_string())),
            ("--configs", self.configs.map(|it| it.to_string())),
            ("--requests", self.requests.map(|it| it.to_string())),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                command.args([name, &value]);
            }
        }
        for area in &self.only {
            command.args(["--only", area]);
        }
        command.args(&self.arguments)
    }
}
