//! The `mesh` command.

mod demo;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A service mesh from Istio YAML: try it, run it, look into it.
#[derive(Debug, Parser)]
#[command(name = "mesh", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run Bookinfo in a mesh on this machine: applications, sidecars and an ingress gateway in
    /// one process, driven by Istio YAML that you can edit while it runs.
    Demo(demo::Args),
    /// Run one proxy, or check its configuration (the mesh-proxy command).
    #[command(subcommand)]
    Proxy(mesh_proxy::bootstrap::Command),
    /// Print a completion script for a shell: `mesh completions bash > /etc/bash_completion.d/mesh`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let quiet = matches!(cli.command, Command::Demo(_));
    let usual = if quiet {
        "error,mesh_proxy=error"
    } else {
        "info"
    };
    mesh_proxy::bootstrap::log_to_stderr(usual);
    match cli.command {
        Command::Demo(args) => demo::run(args).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }),
        Command::Proxy(command) => command.execute(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "mesh", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
