//! The command line: the only place that reads flags and environment.

use crate::{Control, Quiet, Source};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use mesh_core::model::WantedKeys;
use mesh_istio::{Diagnostic, Severity};
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

mod ca;
mod keys;
mod tls;

/// How many connections may wait to be accepted: after a restart all proxies come at once. The
/// system may allow fewer (Linux: `net.core.somaxconn`, 4,096).
const BACKLOG: u32 = 4096;

/// The control plane of the mesh: Istio YAML in, xDS out, for mesh-proxy, Envoy and gRPC.
#[derive(Debug, Parser)]
#[command(name = "mesh-control", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What the control plane can be told to do.
#[derive(Debug, Subcommand)]
#[command(max_term_width = 100)]
pub enum Command {
    /// Serve xDS until SIGTERM or Ctrl-C, and follow the files.
    ///
    /// Objects with errors are refused alone and keep their last good version.
    Run(Box<RunArgs>),
    /// Check a configuration: exit code 0 if it can be used, 1 with errors as FILE:LINE:COLUMN.
    Validate(ConfigArgs),
}

/// Which configuration.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// Files and directories of YAML: Istio's networking objects, Kubernetes Services and their
    /// endpoints.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR_OR_FILE")]
    config: Vec<PathBuf>,
    /// A MeshConfig, if it is not the ConfigMap `istio` among the objects.
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// Refuse a change that leaves references to clusters or subsets that do not exist, as a
    /// whole.
    #[arg(long)]
    strict: bool,
}

/// How the control plane runs.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Address of the xDS server in plain text. It has no authentication: keep it where only proxies
    /// reach it.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15010")]
    xds: SocketAddr,
    #[command(flatten)]
    tls: tls::TlsArgs,
    #[command(flatten)]
    ca: ca::CaArgs,
    #[command(flatten)]
    keys: keys::KeysArgs,
    /// Address of the debug pages and metrics. They have no authentication: keep it on loopback.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:15014")]
    http: SocketAddr,
    /// Push when nothing changed for this long. Endpoints do not wait.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = time, env = "PILOT_DEBOUNCE_AFTER")]
    debounce_after: Duration,
    /// Push this long after the first change at the latest.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time, env = "PILOT_DEBOUNCE_MAX")]
    debounce_max: Duration,
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
    /// Does what the command line says. Errors are printed.
    pub fn execute(self) -> ExitCode {
        self.command.execute()
    }
}

// === impl Command ===

impl Command {
    /// Does it. Errors are printed.
    pub fn execute(self) -> ExitCode {
        let result = match self {
            Self::Validate(config) => Ok(validate(&config)),
            Self::Run(run) => serve(&run),
        };
        result.unwrap_or_else(|error| {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        })
    }
}

fn validate(args: &ConfigArgs) -> ExitCode {
    let control = Control::builder().strict(args.strict).build();
    let outcome = control.update(&args.source().read());
    eprint!("{}", render(&outcome.findings));
    if !outcome.accepted || outcome.findings.iter().any(Diagnostic::is_error) {
        return ExitCode::FAILURE;
    }
    if let Some(inputs) = control.engine().inputs() {
        let (objects, services) = (inputs.world.len(), inputs.services.len());
        println!("ok: {objects} objects, {services} services");
    }
    ExitCode::SUCCESS
}

fn serve(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let quiet = Quiet {
        after: args.debounce_after,
        max: args.debounce_max,
    };
    let mut keeper = args.ca.open()?;
    let mut control = Control::builder()
        .strict(args.config.strict)
        .debounce(quiet);
    if let Some(keeper) = &keeper {
        control = control.certificates(keeper.issuer().clone());
    }
    let control = control.build();
    let source = args.config.source();
    let outcome = control.update(&source.read());
    log(&outcome.findings);
    if !outcome.accepted {
        anyhow::bail!("the configuration is refused as a whole (--strict)");
    }
    let (keys, mut fetcher) = args.keys.fetcher()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        let bind = |flag: &str, address: SocketAddr| {
            let bound = listen(address);
            bound.with_context(|| format!("--{flag} {address} cannot be listened on"))
        };
        let xds = bind("xds", args.xds)?;
        let http = bind("http", args.http)?;
        let tls = args.tls.read(keeper.as_mut()).await?;
        let secure = tls.as_ref().map(|tls| bind("xds-tls", tls.address));
        let secure = secure.transpose()?;
        // Proxies that come back must not be told for a moment that no token is valid.
        keys.want(WantedKeys::clone(&control.wanted_keys().load()));
        fetcher.begin(keys::FIRST).await;
        control.set_keys(keys.load());
        control.flush();
        println!("xDS on {}", xds.local_addr()?);
        if let Some(secure) = &secure {
            println!("xDS with TLS on {}", secure.local_addr()?);
        }
        println!("http on http://{}/", http.local_addr()?);
        let (stop, stopped) = watch::channel(false);
        let stopping = || {
            let mut stopped = stopped.clone();
            async move {
                let _ = stopped.wait_for(|stop| *stop).await;
            }
        };
        let own = control.clone();
        let running = tokio::spawn(async move { own.run().await });
        let watching = tokio::spawn(source.watch(control.clone(), log));
        let own = control.clone();
        let fetching = tokio::spawn(async move {
            tokio::join!(own.follow_keys(keys), fetcher.run());
        });
        let (own, until) = (control.xds().clone(), stopping());
        let mut streams = tokio::spawn(async move { own.serve(xds, until).await });
        let keeping = keeper.map(|keeper| tokio::spawn(keeper.run()));
        let mut secured = None;
        let mut following = None;
        if let (Some(listener), Some(tls)) = (secure, tls) {
            following = Some(tokio::spawn(tls.files.run()));
            let (own, until) = (control.xds().clone(), stopping());
            secured = Some(tokio::spawn(async move {
                own.serve_tls(listener, tls.acceptor, until).await
            }));
        }
        let (pages, until) = (control.http_routes(), stopping());
        let mut pages = tokio::spawn(async move { pages.serve(http, until).await });
        let ended = tokio::select! {
            () = terminated() => None,
            ended = &mut streams => Some(ended),
            ended = either(&mut secured) => Some(ended),
            ended = &mut pages => Some(ended),
        };
        running.abort();
        watching.abort();
        fetching.abort();
        if let Some(ended) = ended {
            ended
                .context("a server panicked")?
                .context("a server ended")?;
            anyhow::bail!("a server ended");
        }
        tracing::info!("closing all streams");
        stop.send_replace(true);
        streams.await.context("the xDS server panicked")??;
        if let Some(secured) = secured {
            secured.await.context("the xDS server panicked")??;
        }
        for following in [following, keeping].into_iter().flatten() {
            following.abort();
        }
        // A page that is still being read does not hold anything up.
        pages.abort();
        Ok(ExitCode::SUCCESS)
    })
}

/// A task that may not be there; then it never ends.
async fn either<T>(
    task: &mut Option<tokio::task::JoinHandle<T>>,
) -> Result<T, tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// Listens with a queue for [`BACKLOG`] connections.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Connections of a process that has just ended do not keep the next one from starting.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
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

/// Prints findings as the log has them, one line each.
fn log(findings: &[Diagnostic]) {
    for finding in findings {
        match finding.severity {
            Severity::Error => tracing::error!("{finding}"),
            Severity::Warning => tracing::warn!("{finding}"),
            Severity::Info => tracing::debug!("{finding}"),
        }
    }
}

/// Findings with their source lines, for a person.
fn render(findings: &[Diagnostic]) -> String {
    let each = findings.iter().map(|finding| finding.render() + "\n");
    each.collect()
}

/// Reads `100ms`, `10s`, `1.5s`, `2m` or `1h`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 100ms, 10s, 2m or 1h");
    let split = text
        .find(|c: char| c.is_ascii_alphabetic())
        .ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

// === impl ConfigArgs ===

impl ConfigArgs {
    fn source(&self) -> Source {
        Source {
            paths: self.config.clone(),
            mesh_config: self.mesh_config.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[tokio::test]
    async fn hundreds_of_proxies_may_come_at_once() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let most = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
        let most = most.map_or(128, |most| most.trim().parse().unwrap());
        // Nobody accepts: what does not fit into the queue waits for longer than this.
        let patience = Duration::from_millis(500);
        let waiting: Result<Vec<_>, _> = (0..most.min(600))
            .map(|_| std::net::TcpStream::connect_timeout(&address, patience))
            .collect();
        assert!(waiting.is_ok(), "{waiting:?}");
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(time("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(time("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(time("1h"), Ok(Duration::from_secs(3600)));
        for wrong in ["", "10", "ms", "-1s", "1d", "NaNs", "1e400s"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_time_or_is_not(text in ".{0,12}") {
            let _ = time(&text);
        }
    }
}
