//! `cargo xtask bench`: the criterion benches of the workspace, `bench peers`, `bench reload` and `bench
//! soak`.
//!
//! Only they are run: `cargo bench --workspace` would hand criterion's arguments to the test
//! harness of every library as well, which knows none of them.

use std::collections::BTreeSet;

use anyhow::bail;

use crate::{
    cargo, peers,
    workspace::{Packages, Workspace},
};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    other: Option<Other>,

    /// Only the benches whose target name contains this
    name: Option<String>,

    /// A few seconds for each, to see that it runs and its order of magnitude
    #[arg(long)]
    quick: bool,

    /// Print the names of the bench targets
    #[arg(long)]
    list: bool,

    #[command(flatten)]
    packages: Packages,

    /// For criterion, after `--`
    #[arg(last = true)]
    arguments: Vec<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Other {
    /// Compare mesh-proxy with Envoy, nginx and haproxy on this machine
    Peers(peers::Options),
    /// Change one route of ten thousand while mesh-proxy, and Envoy, serve
    Reload(peers::reload::Options),
    /// Serve with mesh-proxy for long, with faults and changes, and look at what is left behind
    Soak(peers::soak::Options),
}

/// Runs the benches.
///
/// # Errors
///
/// If there is none of that name, or one fails.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<()> {
    match &options.other {
        Some(Other::Peers(options)) => return peers::run(workspace, options),
        Some(Other::Reload(options)) => return peers::reload::run(workspace, options),
        Some(Other::Soak(options)) => return peers::soak::run(workspace, options),
        None => {}
    }
    let wanted = options.name.as_deref().unwrap_or_default();
    let selected = workspace.select(&options.packages)?;
    let benches: BTreeSet<&str> = selected
        .iter()
        .flat_map(|package| package.targets("bench"))
        .filter(|name| name.contains(wanted))
        .collect();
    if options.list {
        benches.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    if benches.is_empty() {
        bail!("there is no bench target with `{wanted}` in its name");
    }
    let mut command = cargo::cargo(workspace.root());
    command
        .args(["bench", "--all-features"])
        .args(options.packages.arguments());
    for name in benches {
        command.args(["--bench", name]);
    }
    command.arg("--");
    if options.quick {
        command.arg("--quick");
    }
    cargo::run(command.args(&options.arguments))
}
