//! The command line: the only place that reads flags and environment.

use crate::config::{self, Configuration, NodeSpec, Source};
use crate::{Builder, Proxy};
use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use mesh_istio::{Inbound, Node, Role};
use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// The data plane of the mesh: a gateway or a sidecar, configured by Istio YAML.
#[derive(Debug, Parser)]
#[command(name = "mesh-proxy", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What the proxy can be told to do.
#[derive(Debug, Subcommand)]
#[command(max_term_width = 100)]
pub enum Command {
    /// Serve traffic until SIGTERM or Ctrl-C, then drain.
    ///
    /// Without a role this is a gateway that serves every Gateway in the configuration. With
    /// --workload it is the node that a WorkloadEntry of that name describes, or a sidecar with
    /// the ports given here.
    Run(RunArgs),
    /// Check a configuration: exit code 0 if it can be used, 1 with errors as FILE:LINE:COLUMN.
    Validate(ConfigArgs),
}

/// Which configuration, and for which node.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Files and directories of YAML: Istio's networking objects, Kubernetes Services and their
    /// endpoints.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR_OR_FILE")]
    config: Vec<PathBuf>,
    /// A MeshConfig, if it is not the ConfigMap `istio` among the objects.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// What the node does.
    #[arg(long, value_enum)]
    role: Option<RoleArg>,
    /// The workload that the node stands for.
    #[arg(long, value_name = "NAME.NAMESPACE")]
    workload: Option<String>,
    /// Labels of the workload, for selectors and metrics.
    #[arg(long, value_name = "K=V,...", value_delimiter = ',', value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Sidecar: accept on PORT for the application that listens on 127.0.0.1:APPPORT.
    #[arg(long, value_name = "PORT=APPPORT", value_parser = ports)]
    inbound: Vec<(u16, u16)>,
    /// Gateway: accept what a Gateway has on the first port on the second one.
    #[arg(long, value_name = "80=8080", value_parser = ports)]
    map_port: Vec<(u16, u16)>,
    /// First port of the node: PORT is its admin port, PORT+1 its outbound proxy.
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
}

/// How the proxy runs.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Worker threads; 0 is one per core.
    #[arg(long, default_value_t = 0, env = "MESH_CONCURRENCY")]
    concurrency: usize,
    /// Address of the admin interface, or `off`. It has no authentication: keep it on loopback.
    /// Default: the node's base port, else 127.0.0.1:15000.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Write an access log to this file; `-` is standard output. Replaces the MeshConfig's.
    #[arg(long, value_name = "PATH|-")]
    access_log: Option<String>,
    /// Fix the random choices, so that a run with one worker can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds that requests get to finish when the proxy drains.
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    drain_time: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    Gateway,
    Sidecar,
}

/// Logs to standard error as `MESH_LOG` says (`tracing` directives), or else as `usual` does. In
/// colour only on a terminal.
pub fn log_to_stderr(usual: &str) {
    let filter = EnvFilter::try_from_env("MESH_LOG").unwrap_or_else(|_| EnvFilter::new(usual));
    let colour = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(std::io::stderr)
        .init();
}

// === impl Cli ===

impl Cli {
    /// Does what the command line says.
    pub fn execute(self) -> ExitCode {
        self.command.execute()
    }
}

// === impl Command ===

impl Command {
    /// Does it. Errors are printed.
    pub fn execute(self) -> ExitCode {
        let result = match self {
            Self::Validate(config) => validate(&config),
            Self::Run(run) => serve(run),
        };
        result.unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        })
    }
}

fn validate(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    match Configuration::load(args.source()?) {
        Ok((configuration, findings)) => {
            eprint!("{}", config::render(&findings));
            let snapshot = configuration.feed().load();
            println!(
                "ok: {} {}.{} with {} listeners, {} route tables, {} clusters",
                config::describe(configuration.node()),
                configuration.node().name,
                configuration.node().namespace,
                snapshot.listeners().len(),
                snapshot.tables().len(),
                snapshot.clusters().len(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(config::LoadError::Refused(findings)) => {
            eprint!("{}", config::render(&findings));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

fn serve(args: RunArgs) -> anyhow::Result<ExitCode> {
    let mut source = args.config.source()?;
    source.access_log.clone_from(&args.access_log);
    let (configuration, findings) = match Configuration::load(source) {
        Ok(loaded) => loaded,
        Err(config::LoadError::Refused(findings)) => {
            eprint!("{}", config::render(&findings));
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
    config::log(&findings);
    // The workers have threads of their own; this runtime only carries the admin interface and
    // the files.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let builder = builder(&args, &configuration)?;
        let mut proxy = builder.start().await.context("cannot start")?;
        let watching = tokio::spawn(configuration.watch(config::log));
        let listening = proxy.ready().await;
        for (name, address) in &listening.open {
            println!("listening on {address} ({name})");
        }
        if let Some(admin) = proxy.admin() {
            println!("admin on http://{admin}/");
        }
        tokio::select! {
            () = terminated() => tracing::info!("draining"),
            () = proxy.ended() => {}
        }
        watching.abort();
        proxy.drain().await;
        Ok(ExitCode::SUCCESS)
    })
}

fn builder(args: &RunArgs, configuration: &Configuration) -> anyhow::Result<Builder> {
    let admin = match args.admin.as_deref() {
        Some("off") => None,
        Some(address) => Some(
            address
                .parse()
                .with_context(|| format!("--admin {address:?} is not an address"))?,
        ),
        None => {
            let usual = SocketAddr::from(([127, 0, 0, 1], 15000));
            Some(configuration.node().admin().unwrap_or(usual))
        }
    };
    let mut builder = Proxy::builder(configuration.feed())
        .workload(configuration.workload())
        .admin(admin)
        .seed(args.seed)
        .drain_time(Duration::from_secs(args.drain_time));
    if args.concurrency > 0 {
        builder = builder.concurrency(args.concurrency);
    }
    Ok(builder)
}

/// SIGTERM or Ctrl-C.
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let interrupted = tokio::signal::ctrl_c();
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = interrupted => {}
                _ = terminate.recv() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be watched");
            // Without a handler Ctrl-C ends the process anyway.
            let _ = interrupted.await;
        }
    }
}

// === impl ConfigArgs ===

impl ConfigArgs {
    fn source(&self) -> anyhow::Result<Source> {
        Ok(Source {
            paths: self.config.clone(),
            mesh_config: self.mesh_config.clone(),
            node: self.node()?,
            access_log: None,
        })
    }

    fn node(&self) -> anyhow::Result<NodeSpec> {
        let described = self.role.is_none()
            && self.inbound.is_empty()
            && self.map_port.is_empty()
            && self.base_port.is_none()
            && self.labels.is_empty();
        let named = match &self.workload {
            None => None,
            Some(text) => {
                let (name, namespace) = text.split_once('.').unwrap_or((text, "default"));
                if name.is_empty() || namespace.is_empty() {
                    bail!("--workload {text:?} is not of the form NAME.NAMESPACE");
                }
                Some((name.to_owned(), namespace.to_owned()))
            }
        };
        if let (Some((name, namespace)), true) = (&named, described) {
            return Ok(NodeSpec::Named {
                name: name.clone(),
                namespace: namespace.clone(),
            });
        }
        let usual = || ("gateway".to_owned(), "istio-system".to_owned());
        let (name, namespace) = named.clone().unwrap_or_else(usual);
        let role = self
            .role
            .unwrap_or(match (&named, self.inbound.is_empty()) {
                (None, true) => RoleArg::Gateway,
                _ => RoleArg::Sidecar,
            });
        let mut node = match role {
            RoleArg::Gateway => Node::gateway(name, namespace),
            RoleArg::Sidecar => Node::sidecar(name, namespace),
        };
        match (
            &mut node.role,
            self.inbound.is_empty(),
            self.map_port.is_empty(),
        ) {
            (Role::Gateway { ports }, true, _) => {
                *ports = self.map_port.iter().copied().collect::<BTreeMap<_, _>>();
            }
            (Role::Sidecar { inbound }, _, true) => {
                inbound.extend(
                    self.inbound
                        .iter()
                        .map(|&(port, application)| Inbound { port, application }),
                );
            }
            (Role::Gateway { .. }, false, _) => bail!("--inbound is for sidecars"),
            (Role::Sidecar { .. }, _, false) => bail!("--map-port is for gateways"),
        }
        node.base_port = self.base_port;
        node.labels = self.labels.iter().cloned().collect();
        Ok(NodeSpec::Exact(node))
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn ports(text: &str) -> Result<(u16, u16), String> {
    let (from, to) = text.split_once('=').ok_or("expected PORT=PORT")?;
    let port = |text: &str| match text.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("{text:?} is not a port")),
    };
    Ok((port(from)?, port(to)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(args: &[&str]) -> NodeSpec {
        let line = ["mesh-proxy", "validate", "--config", "x"]
            .iter()
            .chain(args);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Validate(config) => config.node().unwrap(),
            Command::Run(_) => unreachable!("the line says validate"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn without_flags_it_is_a_gateway_and_a_workload_is_looked_up() {
        assert!(matches!(
            node(&[]),
            NodeSpec::Exact(Node {
                role: Role::Gateway { .. },
                ..
            })
        ));
        let NodeSpec::Named { name, namespace } = node(&["--workload", "reviews-v1.shop"]) else {
            panic!("a name to look up");
        };
        assert_eq!((name.as_str(), namespace.as_str()), ("reviews-v1", "shop"));
    }

    #[test]
    fn an_inbound_port_makes_a_sidecar() {
        let NodeSpec::Exact(node) = node(&["--inbound", "9080=8000", "--labels", "app=a,b=c"])
        else {
            panic!("a whole node");
        };
        let Role::Sidecar { inbound } = node.role else {
            panic!("a sidecar")
        };
        assert_eq!(
            inbound,
            [Inbound {
                port: 9080,
                application: 8000
            }]
        );
        assert_eq!(node.labels["b"], "c");
    }
}
