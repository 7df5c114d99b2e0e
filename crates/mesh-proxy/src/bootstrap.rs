//! The command line: the only place that reads flags and environment.

mod authority;
mod control_plane;
mod envoy;
mod guard;
mod identity;
mod keys;
mod log;
mod names;
mod node;
mod serve;

pub use log::log_to_stderr;
pub use node::NodeArgs;

use crate::config::{self, Configuration, Source};
use clap::{Args, Parser, Subcommand, ValueEnum};
use envoy::EnvoyArgs;
use mesh_xds::client::Variant;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

/// The data plane of the mesh: a gateway or a sidecar, configured by Istio YAML, by a control plane
/// (xDS), or by Envoy's own configuration.
///
/// Without a command it takes Envoy's flags, and can stand in for `envoy`.
#[derive(Debug, Parser)]
#[command(
    name = "mesh-proxy",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    envoy: EnvoyArgs,
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
    Run(Box<RunArgs>),
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
    #[command(flatten)]
    node: NodeArgs,
}

/// Where the configuration comes from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct FromArgs {
    /// Files and directories of YAML: Istio's networking objects, Kubernetes Services and their
    /// endpoints.
    #[arg(long, num_args = 1.., value_name = "DIR_OR_FILE")]
    config: Vec<PathBuf>,
    /// A control plane: `HOST:PORT`; `https://HOST:PORT` for TLS, which --xds-ca, -cert, -sni and
    /// -token ask for as well; or `unix://PATH`.
    #[arg(long, value_name = "ADDRESS")]
    xds: Option<String>,
    /// Envoy's bootstrap, in YAML or JSON (`.json`).
    #[arg(long, value_name = "FILE")]
    envoy_config: Option<PathBuf>,
}

/// How the proxy runs.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    from: FromArgs,
    /// With --config: a MeshConfig, if it is not the ConfigMap `istio` among the objects.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["xds", "envoy_config"])]
    mesh_config: Option<PathBuf>,
    /// With --xds: whether only changes are sent, or always the state of the world.
    #[arg(long, value_enum, default_value_t, conflicts_with_all = ["config", "envoy_config"])]
    xds_variant: VariantArg,
    #[command(flatten)]
    control_plane: control_plane::ControlPlaneArgs,
    /// With --xds: the address that the node says it has. Default: what INSTANCE_IP says, or the
    /// one that the control plane is called from. With --config and --interception: the address
    /// by which the node's own services are recognised. Default: the id's, or INSTANCE_IP.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "envoy_config")]
    ip: Option<IpAddr>,
    #[command(flatten)]
    node: NodeArgs,
    /// The proxy's identity in the mesh: a directory with `cert-chain.pem`, `key.pem` and
    /// `root-cert.pem`, as Istio's agent leaves them with `OUTPUT_CERTS`. They are followed as they
    /// change, and used where Istio's configuration names the secrets `default` and `ROOTCA`.
    /// Without an identity the proxy speaks no mutual TLS of the mesh.
    #[arg(long, value_name = "DIR")]
    identity_dir: Option<PathBuf>,
    #[command(flatten)]
    authority: authority::AuthorityArgs,
    #[command(flatten)]
    keys: keys::KeysArgs,
    /// Worker threads; 0 is one per core.
    #[arg(long, default_value_t = 0, env = "MESH_CONCURRENCY")]
    concurrency: usize,
    /// Address of the admin interface, `unix://PATH`, or `off`. Keep it on loopback.
    /// Default: the node's base port, the bootstrap's, else 127.0.0.1:15000.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    #[command(flatten)]
    guard: guard::GuardArgs,
    /// Answer applications' questions for names at these addresses, over UDP and TCP, with what the
    /// mesh knows; others are passed on to the name servers of --dns-resolv-conf. Istio's agent
    /// listens on 127.0.0.1:15053, where `mesh intercept --redirect-dns` sends them. Services
    /// without an address of their own are then called at one that is allocated to them.
    /// With --envoy-config what the mesh knows comes from the bootstrap's control plane.
    #[arg(long, value_name = "ADDRESS,…", value_delimiter = ',')]
    dns_proxy: Vec<SocketAddr>,
    /// With --dns-proxy: the name servers, and what resolvers here add to names.
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/resolv.conf",
        requires = "dns_proxy"
    )]
    dns_resolv_conf: PathBuf,
    /// Write an access log to this file; `-` is standard output. Replaces the configuration's.
    #[arg(long, value_name = "PATH|-")]
    access_log: Option<String>,
    /// Requests that bring the token in this file in a header `x-mesh-explain` get an explanation of
    /// what became of them in a response header of that name. 16 characters at least. Without the
    /// flag nobody looks for the header.
    #[arg(long, value_name = "FILE")]
    explain_token_file: Option<PathBuf>,
    /// Fix the random choices, so that a run with one worker can be repeated.
    #[arg(long)]
    seed: Option<u64>,
    /// Seconds that requests get to finish when the proxy drains.
    #[arg(long, default_value_t = 5, value_name = "SECONDS")]
    drain_time: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum VariantArg {
    #[default]
    Delta,
    Sotw,
}

// === impl Cli ===

impl Cli {
    /// Starts the log and does what the command line says.
    pub fn execute(self) -> ExitCode {
        match self.command {
            Some(command) => {
                log_to_stderr("info");
                command.execute()
            }
            None => ended(self.envoy.execute()),
        }
    }
}

// === impl Command ===

impl Command {
    /// Does it. Errors are printed.
    pub fn execute(self) -> ExitCode {
        ended(match self {
            Self::Validate(config) => validate(&config),
            Self::Run(run) => serve::run(*run),
        })
    }
}

fn ended(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn validate(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let source = Source {
        paths: args.config.clone(),
        mesh_config: args.mesh_config.clone(),
        node: args.node.spec()?,
        dns_capture: false,
        identity: false,
        self_discovery: args.node.self_discovery(),
        locality: args.node.locality(),
        access_log: None,
    };
    match Configuration::load(source) {
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

impl From<VariantArg> for Variant {
    fn from(variant: VariantArg) -> Self {
        match variant {
            VariantArg::Delta => Self::Delta,
            VariantArg::Sotw => Self::Sotw,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    fn refused(line: &[&str]) -> String {
        let line = ["mesh-proxy"].iter().chain(line);
        Cli::try_parse_from(line).unwrap_err().to_string()
    }

    #[test]
    fn a_run_has_one_source_of_configuration() {
        assert!(refused(&["run"]).contains("--xds"));
        let two = refused(&["run", "--xds", "a:1", "--config", "x"]);
        assert!(two.contains("cannot be used with"), "{two}");
        let other = refused(&["run", "--config", "x", "--xds-variant", "sotw"]);
        assert!(other.contains("--xds"), "{other}");
    }

    #[test]
    fn names_from_a_bootstrap_need_a_control_plane() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("b.yaml");
        std::fs::write(&file, "node: {id: a, cluster: b}").unwrap();
        let file = file.to_str().unwrap();
        let line = ["mesh-proxy", "run", "--envoy-config", file];
        let line = line.into_iter().chain(["--dns-proxy", "127.0.0.1:0"]);
        let Some(Command::Run(run)) = Cli::try_parse_from(line).unwrap().command else {
            panic!("a run")
        };
        let error = format!("{:#}", serve::run(*run).unwrap_err());
        assert!(error.contains("--dns-proxy"), "{error}");
        assert!(error.contains("dynamic_resources.ads_config"), "{error}");
    }

    #[test]
    fn where_names_are_answered_is_said_in_addresses() {
        let alone = refused(&["run", "--config", "x", "--dns-resolv-conf", "y"]);
        assert!(alone.contains("--dns-proxy"), "{alone}");
        let port = refused(&["run", "--config", "x", "--dns-proxy", "15053"]);
        assert!(port.contains("--dns-proxy"), "{port}");
        let line = ["mesh-proxy", "run", "--config", "x", "--dns-proxy"];
        let line = line.into_iter().chain(["127.0.0.1:53,[::1]:53"]);
        let Some(Command::Run(run)) = Cli::try_parse_from(line).unwrap().command else {
            panic!("a run")
        };
        assert_eq!(run.dns_proxy.len(), 2);
    }

    #[test]
    fn a_control_plane_of_another_kind_is_refused() {
        let line = ["mesh-proxy", "run", "--xds", "rest://a:1"];
        let Some(Command::Run(run)) = Cli::try_parse_from(line).unwrap().command else {
            panic!("a run")
        };
        let error = serve::run(*run).unwrap_err();
        assert!(format!("{error:#}").contains("expected http"), "{error:#}");
    }

    #[test]
    fn a_flag_that_envoy_does_not_have_either_is_refused() {
        assert!(refused(&["-c", "x", "--frobnicate"]).contains("--frobnicate"));
        assert!(refused(&["-c", "x", "run", "--xds", "a:1"]).contains("run"));
    }
}
