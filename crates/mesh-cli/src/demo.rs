//! `mesh demo`: Bookinfo in a mesh on loopback ports, in one process: applications, a control plane
//! that reads Istio YAML, and a proxy for each node that it drives by xDS; or, with `--source yaml`,
//! proxies that read the YAML themselves.

mod admin;
mod application;
mod certificates;
mod credentials;
mod edit;
mod envoy;
mod files;
mod identities;
mod judge;
mod outside;
mod plane;
mod proxy;
mod tasks;
mod town;

use crate::style::Style;
use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use proxy::DataPlane;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use town::Town;

/// What `mesh demo` is told.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Where the ingress gateway listens.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Start from this directory of YAML instead of the one built in.
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Where the fresh copy of the configuration goes, to be edited while the demo runs.
    #[arg(long, value_name = "DIR", default_value_os_t = files::usual_directory())]
    dir: PathBuf,
    /// Move all node ports: the first node gets this one instead of 20000.
    #[arg(long, value_name = "PORT", default_value_t = edit::FIRST_PORT)]
    base_port: u16,
    /// What the sidecars and the gateway are: our own proxies in this process, or real Envoys.
    #[arg(long, value_enum, value_name = "PROXY", default_value_t)]
    data_plane: DataPlaneArg,
    /// Where the proxies get their configuration from: the demo's control plane, or each by itself
    /// from the files, as `mesh-proxy run --config` does. An Envoy reads no Istio YAML.
    #[arg(long, value_enum, value_name = "SOURCE", default_value_t)]
    source: SourceArg,
    /// With `--data-plane envoy`: the binary. Default: `envoy` in PATH, else the one that
    /// `cargo xtask envoy` installed.
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// Stop as soon as the page has been served once. For scripts and tests.
    #[arg(long)]
    once: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum DataPlaneArg {
    #[default]
    MeshProxy,
    Envoy,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum SourceArg {
    #[default]
    Xds,
    Yaml,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the tasks that can be applied to a running demo.
    Tasks {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Copy a task's YAML into the configuration of a running demo, instead of the last one's.
    Apply {
        /// The task: its name, or the number it begins with.
        task: String,
        /// The configuration of the demo.
        #[arg(long, value_name = "DIR", default_value_os_t = files::usual_directory())]
        dir: PathBuf,
    },
    /// Replace the certificates of the last task's Secrets, as one does before they expire.
    Renew {
        /// The configuration of the demo.
        #[arg(long, value_name = "DIR", default_value_os_t = files::usual_directory())]
        dir: PathBuf,
    },
    /// Take the last task out again.
    Reset {
        /// The configuration of the demo.
        #[arg(long, value_name = "DIR", default_value_os_t = files::usual_directory())]
        dir: PathBuf,
    },
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Some(Command::Tasks { json }) => tasks::list(json),
        Some(Command::Apply { task, dir }) => tasks::apply(&task, &dir)?,
        Some(Command::Renew { dir }) => tasks::renew(&dir)?,
        Some(Command::Reset { dir }) => tasks::reset(&dir)?,
        None => return serve(&args),
    }
    Ok(ExitCode::SUCCESS)
}

fn serve(args: &Args) -> anyhow::Result<ExitCode> {
    let style = Style::of_stdout();
    let data_plane = args.data_plane()?;
    files::lay_out(
        &args.dir,
        args.config.as_deref(),
        args.base_port,
        args.listen,
    )?;
    println!("{}", style.bold("Bookinfo in a mesh, on this machine"));
    println!("configuration  {}", args.dir.display());
    let authority = files::certificates(&args.dir)?.join(certificates::AUTHORITY);
    println!("authority      {}", authority.display());
    let runtime = tokio::runtime::Runtime::new().context("cannot start a runtime")?;
    runtime.block_on(async {
        let mut interrupted = pin!(interrupted());
        let starting = async {
            let started = Town::start(args, &data_plane, style).await?;
            if let Some(town) = &started {
                town.check(args.listen).await?;
            }
            anyhow::Ok(started)
        };
        let started = tokio::select! {
            // What has started already ends with the future that starts it.
            biased;
            () = &mut interrupted => bail!("interrupted"),
            started = starting => started?,
        };
        let Some(town) = started else {
            return Ok(ExitCode::FAILURE);
        };
        if !args.once {
            println!("{}", what_to_try(args, style));
            interrupted.await;
            println!("\nfinishing requests …");
        }
        town.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// Until Ctrl-C, SIGTERM, or the end of the terminal.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut hangup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    ) else {
        // Without a handler the signal ends the process anyway.
        let _ = tokio::signal::ctrl_c().await;
        return;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

// === impl Args ===

impl Args {
    fn data_plane(&self) -> anyhow::Result<DataPlane> {
        match (self.data_plane, self.source, &self.envoy) {
            (DataPlaneArg::MeshProxy, _, Some(_)) => bail!("--envoy goes with --data-plane envoy"),
            (DataPlaneArg::MeshProxy, SourceArg::Xds, None) => Ok(DataPlane::MeshProxy),
            (DataPlaneArg::MeshProxy, SourceArg::Yaml, None) => Ok(DataPlane::ReadsYaml),
            (DataPlaneArg::Envoy, SourceArg::Xds, said) => {
                Ok(DataPlane::Envoy(envoy::find(said.as_deref())?))
            }
            (DataPlaneArg::Envoy, SourceArg::Yaml, _) => bail!(
                "--source yaml: an Envoy reads no Istio YAML; leave it out, or take --data-plane \
                 mesh-proxy"
            ),
        }
    }
}

fn what_to_try(args: &Args, style: Style) -> String {
    let page = style.bold(&format!("http://{}/productpage", args.listen));
    let usual = args.dir == files::usual_directory();
    let dir = if usual {
        String::new()
    } else {
        format!(" --dir {}", args.dir.display())
    };
    let planes = match args.source {
        SourceArg::Xds => format!(
            "How far each proxy is: cargo run --release -- proxy-status --control {}\n",
            plane::http(args.base_port)
        ),
        SourceArg::Yaml => String::new(),
    };
    format!(
        "\n{page}\n\n\
         Reload the page a few times: reviews come from v1 (no stars), v2 (black) and v3 (red).\n\
         Sign in as `jason`, then steer him with a task, from another terminal:\n\n  \
         cargo run --release -- demo tasks\n  \
         cargo run --release -- demo apply 01{dir}     jason sees v2, everyone else v1\n  \
         cargo run --release -- demo apply 03{dir}     half to v1, half to v3\n  \
         cargo run --release -- demo reset{dir}\n\n\
         Or edit the YAML in {}: changes take effect at once, and a mistake\n\
         is reported here with its line while the last good version stays in force.\n\
         {planes}Statistics of the gateway: http://127.0.0.1:{}/stats/prometheus\n\n\
         Ctrl-C ends the demo.",
        args.dir.display(),
        u32::from(args.base_port) + 900,
    )
}
