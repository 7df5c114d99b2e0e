//! The `mesh` command.

mod ca;
mod compile;
mod demo;
mod explain;
mod fetch;
mod intercept;
mod node;
mod output;
mod proxy_config;
mod proxy_status;
mod status;
mod style;
mod table;
mod test;
mod wait;
mod yaml;

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
    /// Run a control plane, or check its configuration (the mesh-control command).
    #[command(subcommand)]
    Control(mesh_control::cli::Command),
    /// Print the xDS that a node would get for a configuration: {clusters, endpoints, listeners,
    /// routes}, each sorted by name.
    ///
    /// The messages are Envoy's, as JSON with the field names of its documentation. What there is
    /// to say about the configuration goes to standard error. Exit code 0, 1 if the configuration
    /// is refused, 2 if the node cannot be what it is said to be.
    Compile(compile::Args),
    /// Show how far each proxy is: SYNCED, STALE (yet to acknowledge), NOT SENT, or NACKED with
    /// the reason and the line of YAML.
    ///
    /// Asks the control plane; `-` stands for what a proxy did not ask for. Exit code 0 if all is
    /// SYNCED, 1 if something is not, 2 if the control plane cannot be asked.
    #[command(visible_alias = "ps")]
    ProxyStatus(proxy_status::Args),
    /// Wait until all connected proxies have acknowledged everything.
    ///
    /// At least one has to be connected, and nothing new may be sent between two looks. Exit code
    /// 0 then, 1 with what is missing if it took too long, 2 if the control plane cannot be asked.
    Wait(wait::Args),
    /// Show what a proxy has: clusters, listeners, routes, endpoints, bootstrap.
    ///
    /// Asks the admin interface of mesh-proxy or Envoy. Exit code 0, or 2 if it cannot be asked.
    #[command(visible_alias = "pc")]
    ProxyConfig(proxy_config::Args),
    /// Say why a request goes where it goes: the listener and virtual host, each route with what the
    /// request lacks, the destination, the policies with the line of YAML that set them, and the
    /// endpoints.
    ///
    /// For files (--config) or for a running mesh-proxy (--admin). The code that decides is the one
    /// that serves traffic. Example: mesh explain --config mesh/ --workload productpage
    /// 'GET http://reviews:9080/reviews/0' -H 'end-user: jason'. Exit code 0, 1 if the configuration
    /// is refused, 2 if there is no such node or listener, or nobody answers.
    Explain(Box<explain::Args>),
    /// Check a configuration against expectations: which request goes where, is answered how, and is
    /// sent on as what.
    ///
    /// A failure comes with the explanation. Exit code 0 if all expectations are met, 1 if one is
    /// not, 2 if they or the configuration cannot be read. The guide's page on explanations has the
    /// format of the files.
    Test(Box<test::Args>),
    /// Send an application's connections through a proxy that it knows nothing of, as Istio's
    /// sidecars do: set up iptables, or take that back.
    #[command(subcommand)]
    Intercept(intercept::Command),
    /// The files of a certificate authority: make a root, look at it, revoke a certificate, replace
    /// the root. `mesh control run --ca DIR` makes certificates with them.
    #[command(subcommand)]
    Ca(ca::Command),
    /// Print a completion script for a shell: `mesh completions bash > /etc/bash_completion.d/mesh`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let usual = match cli.command {
        Command::Demo(_) => "error,mesh_proxy=error",
        Command::Proxy(_) | Command::Control(_) => "info",
        // What these have to say they print themselves.
        _ => "warn",
    };
    mesh_proxy::bootstrap::log_to_stderr(usual);
    match cli.command {
        Command::Demo(args) => demo::run(args).unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }),
        Command::Proxy(command) => command.execute(),
        Command::Control(command) => command.execute(),
        Command::Compile(args) => compile::run(&args),
        Command::ProxyStatus(args) => proxy_status::run(&args),
        Command::Wait(args) => wait::run(&args),
        Command::ProxyConfig(args) => proxy_config::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Intercept(command) => intercept::run(command),
        Command::Ca(command) => ca::run(command),
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
