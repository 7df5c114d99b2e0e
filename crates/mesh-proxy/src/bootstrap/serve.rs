//! Serving until told to stop.

use super::identity::{address_towards, identity};
use super::node::Interception;
use super::{RunArgs, envoy};
use crate::config::{self, Configuration, NodeSpec, Source};
use crate::xds::Driver;
use crate::{Builder, Running};
use anyhow::{Context, bail};
use mesh_core::Name;
use mesh_core::model::{AccessLog, WorkloadRef};
use mesh_istio::{Capture, Role};
use mesh_xds::client::{self, Client};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

/// Where the admin interface is when nothing is said.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15000);

pub(super) fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    if let Some(server) = &args.from.xds {
        return from_control_plane(&args, server);
    }
    if let Some(file) = &args.from.envoy_config {
        if args.node.is_described() {
            bail!(
                "with --envoy-config, the bootstrap says who the node is; leave out the flags for it"
            );
        }
        let mut bootstrap = envoy::load(Some(file), None)?;
        if let Some(id) = &args.node.node {
            bootstrap.node = envoy::renamed(&bootstrap.node, |node| node.id.clone_from(id));
        }
        let admin = args.admin(bootstrap.admin)?;
        let driver = Driver::from_bootstrap(&bootstrap, |client| args.adjusted(client))
            .with_context(|| file.display().to_string())?;
        let builder = args.settings(driver.proxy(), admin, envoy::workload(&bootstrap.node));
        let wants = bootstrap
            .listeners
            .iter()
            .map(|one| one.listener.name.clone())
            .collect();
        return on_runtime(driven(driver, builder, wants));
    }
    from_yaml(&args)
}

fn from_yaml(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let mut node = args.node.spec()?;
    match &mut node {
        NodeSpec::Exact(node) if node.capture == Capture::Redirect => {
            let own = args.ip.or_else(|| match node.address.is_loopback() {
                true => instance_ip(),
                false => None,
            });
            if let (Role::Sidecar { .. }, Some(own)) = (&node.role, own) {
                node.address = own;
            }
        }
        _ if args.ip.is_some() => bail!("with --config, --ip is for --interception"),
        _ => {}
    }
    let source = Source {
        paths: args.from.config.clone(),
        mesh_config: args.mesh_config.clone(),
        node,
        locality: args.node.locality(),
        transparent: args.node.interception() == Interception::Tproxy,
        access_log: args.access_log.clone(),
    };
    let (configuration, findings) = match Configuration::load(source) {
        Ok(loaded) => loaded,
        Err(config::LoadError::Refused(findings)) => {
            eprint!("{}", config::render(&findings));
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
    config::log(&findings);
    on_runtime(async move {
        let admin = args.admin(Some(configuration.node().admin().unwrap_or(ADMIN)))?;
        let builder = crate::Proxy::builder(configuration.feed());
        let builder = args.settings(builder, admin, configuration.workload());
        let proxy = builder.start().await.context("cannot start")?;
        let watching = tokio::spawn(configuration.watch(config::log));
        announce(&proxy).await;
        until_told(proxy, watching).await
    })
}

fn from_control_plane(args: &RunArgs, server: &str) -> anyhow::Result<ExitCode> {
    let (uri, place) = match server.strip_prefix("http://") {
        Some(place) => (server.to_owned(), place),
        None if server.contains("://") => (server.to_owned(), server),
        None => (format!("http://{server}"), server),
    };
    let node = args.node.exact()?;
    let said = args.ip.or_else(instance_ip);
    let ip = said.unwrap_or_else(|| address_towards(place));
    let id = args.node.node.as_deref();
    let identity = identity(&node, id, ip, args.node.interception());
    tracing::info!(
        node = identity.id(),
        control_plane = uri,
        "asks for its configuration"
    );
    let admin = args.admin(Some(node.admin().unwrap_or(ADMIN)))?;
    let workload = config::workload(&node.name, &node.namespace, &node.labels);
    let client = Client::builder([uri]).variant(args.xds_variant.into());
    let driver = Driver::new(identity, args.adjusted(client)).context("--xds")?;
    let builder = args.settings(driver.proxy(), admin, workload);
    on_runtime(driven(driver, builder, Vec::new()))
}

/// The node's address, as Istio's injection sets it.
fn instance_ip() -> Option<IpAddr> {
    std::env::var("INSTANCE_IP").ok()?.parse().ok()
}

/// Serves what a driver has. Listeners in `wanted` have to open at once.
pub(super) async fn driven(
    driver: Driver,
    builder: Builder,
    wanted: Vec<Name>,
) -> anyhow::Result<ExitCode> {
    let proxy = builder.start().await.context("cannot start")?;
    let driving = tokio::spawn(driver.run());
    if let Some(admin) = proxy.admin() {
        println!("admin on http://{admin}/");
    }
    opened(&proxy, &wanted).await?;
    until_told(proxy, driving).await
}

/// Fails if a listener that has to be there from the start cannot be opened, as Envoy does.
pub(super) async fn opened(proxy: &Running, wanted: &[Name]) -> anyhow::Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    // One of them may wait for its routes, but others are there.
    let listening = proxy.listening().load();
    let listening = if listening.version > 0 {
        listening
    } else {
        proxy.ready().await
    };
    for (name, error) in &listening.failed {
        if wanted.contains(name) {
            bail!("listener {name}: {error}");
        }
    }
    Ok(())
}

/// Runs it beside the workers, which have threads of their own: the admin interface, and what
/// follows the configuration.
pub(super) fn on_runtime<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}

/// Says where the proxy listens.
async fn announce(proxy: &Running) {
    let listening = proxy.ready().await;
    for (name, address) in &listening.open {
        println!("listening on {address} ({name})");
    }
    if let Some(admin) = proxy.admin() {
        println!("admin on http://{admin}/");
    }
}

/// Serves until it is told to stop, drains, and ends `beside`.
pub(super) async fn until_told(
    mut proxy: Running,
    beside: tokio::task::JoinHandle<()>,
) -> anyhow::Result<ExitCode> {
    tokio::select! {
        () = terminated() => tracing::info!("draining"),
        () = proxy.ended() => {}
    }
    beside.abort();
    proxy.drain().await;
    Ok(ExitCode::SUCCESS)
}

// === impl RunArgs ===

impl RunArgs {
    /// The admin interface's address, as the flag or else `usual` has it.
    fn admin(&self, usual: Option<SocketAddr>) -> anyhow::Result<Option<SocketAddr>> {
        match self.admin.as_deref() {
            Some("off") => Ok(None),
            Some(address) => {
                Ok(Some(address.parse().with_context(|| {
                    format!("--admin {address:?} is not an address")
                })?))
            }
            None => Ok(usual),
        }
    }

    /// What flags change about every snapshot.
    fn adjusted(&self, client: client::Builder) -> client::Builder {
        let log = self.access_log.as_ref().map(|path| AccessLog {
            path: path.as_str().into(),
            format: Name::default(),
        });
        let transparent = self.node.interception() == Interception::Tproxy;
        if log.is_none() && !transparent {
            return client;
        }
        client.configure(move |builder| {
            if let Some(log) = &log {
                builder.replace_access_logs(log);
            }
            if transparent {
                builder.make_transparent(&config::INTERCEPTING);
            }
        })
    }

    fn settings(
        &self,
        builder: Builder,
        admin: Option<SocketAddr>,
        workload: WorkloadRef,
    ) -> Builder {
        let builder = builder
            .workload(workload)
            .admin(admin)
            .seed(self.seed)
            .drain_time(Duration::from_secs(self.drain_time));
        match self.concurrency {
            0 => builder,
            workers => builder.concurrency(workers),
        }
    }
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
