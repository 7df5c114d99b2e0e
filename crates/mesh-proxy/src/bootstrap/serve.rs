//! Serving until told to stop.

use super::authority::Keeping;
use super::identity::{address_towards, identity};
use super::names::Names;
use super::{RunArgs, envoy, keys};
use crate::config::{self, Configuration, NodeSpec, Source};
use crate::explain::Token;
use crate::xds::Driver;
use crate::{Builder, Identity, Running, tidy};
use anyhow::{Context, bail};
use mesh_core::Name;
use mesh_core::model::{AccessLog, ListenerAddress, UnixPath, WorkloadRef};
use mesh_istio::{Capture, Role};
use mesh_xds::client::{self, Client};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Where the admin interface is when nothing is said.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 15000);

/// Where the admin interface is, and the file mode of a Unix domain socket.
type AdminAt = (Option<ListenerAddress>, u32);

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
        let usual = (bootstrap.admin.clone(), bootstrap.admin_mode);
        let admin = args.admin(usual)?;
        let workload = envoy::workload(&bootstrap.node);
        let names = args.names(&workload.namespace, bootstrap.node.domain())?;
        if names.is_some() {
            if bootstrap.ads.is_none() {
                bail!(
                    "--dns-proxy: {} has no dynamic_resources.ads_config, and names come from a \
                     control plane",
                    file.display()
                );
            }
            bootstrap.node = bootstrap.node.with_text("DNS_CAPTURE", "true");
        }
        let wants_names = names.is_some();
        let change = |client| args.adjusted(client).names(wants_names);
        let mut driver = Driver::from_bootstrap(&bootstrap, change)
            .with_context(|| file.display().to_string())?;
        let own = args.own()?;
        if let Some(own) = &own {
            driver = driver.identity(own.identity.clone());
        }
        let mut builder = args.settings(driver.proxy(), admin, workload)?;
        if let Some(names) = &names {
            builder = builder.names(names.statistics());
        }
        let wants = bootstrap
            .listeners
            .iter()
            .map(|one| one.listener.name.clone())
            .collect();
        return on_runtime(driven(driver, builder, wants, names, own));
    }
    from_yaml(&args)
}

/// Who the proxy is, and what keeps that up to date.
pub(super) struct Own {
    identity: Identity,
    keeping: Keeping,
}

fn from_yaml(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let mut node = args.node.spec()?;
    match &mut node {
        NodeSpec::Exact(node) if node.capture != Capture::None => {
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
    let own = args.own()?;
    let source = Source {
        paths: args.from.config.clone(),
        mesh_config: args.mesh_config.clone(),
        node,
        dns_capture: !args.dns_proxy.is_empty(),
        identity: own.is_some(),
        self_discovery: args.node.self_discovery(),
        locality: args.node.locality(),
        access_log: args.access_log.clone(),
    };
    let (mut configuration, findings) = match tidy::apart(|| Configuration::load(source)) {
        Ok(loaded) => loaded,
        Err(config::LoadError::Refused(findings)) => {
            eprint!("{}", config::render(&findings));
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    };
    config::log(&findings);
    let (keys, mut fetcher) = args.keys.fetcher()?;
    on_runtime(async move {
        let usual = configuration.node().admin().unwrap_or(ADMIN);
        let admin = args.admin((Some(usual.into()), 0))?;
        let builder = crate::Proxy::builder(configuration.feed()).zone(configuration.zone());
        let mut builder = args.settings(builder, admin, configuration.workload())?;
        let namespace = configuration.node().namespace.clone();
        let answering = match args.names(&namespace, None)? {
            Some(names) => {
                builder = builder.names(names.statistics());
                Some(names.open(configuration.names()).await?)
            }
            None => None,
        };
        if let Some(own) = &own {
            builder = builder.identity(own.identity.clone());
        }
        let keeping = kept(own).await;
        configuration.fetch_keys(keys);
        fetcher.begin(keys::FIRST).await;
        config::log(&configuration.renew_keys());
        let proxy = builder.start().await.context("cannot start")?;
        let watching = tokio::spawn(async move {
            tokio::join!(configuration.watch(config::log), fetcher.run());
        });
        let answering = answering.map(|answering| tokio::spawn(answering.run()));
        announce(&proxy).await;
        until_told(proxy, [Some(watching), answering, keeping]).await
    })
}

fn from_control_plane(args: &RunArgs, server: &str) -> anyhow::Result<ExitCode> {
    let (server, place) = args.control_plane.server(server)?;
    let mut node = args.node.exact()?;
    node.dns_capture = !args.dns_proxy.is_empty();
    let own = args.own()?;
    node.identity = own.is_some();
    let said = args.ip.or_else(instance_ip);
    let ip = said.unwrap_or_else(|| address_towards(place));
    let id = args.node.node.as_deref();
    let identity = identity(&node, id, ip, args.node.interception());
    tracing::info!(
        node = identity.id(),
        control_plane = server.uri(),
        "asks for its configuration"
    );
    let usual = node.admin().unwrap_or(ADMIN);
    let admin = args.admin((Some(usual.into()), 0))?;
    let workload = config::workload(&node.name, &node.namespace, &node.labels);
    let client = Client::builder([server]).variant(args.xds_variant.into());
    let client = args.adjusted(client).names(node.dns_capture);
    let names = args.names(&node.namespace, identity.domain())?;
    let mut driver = Driver::new(identity, client).context("--xds")?;
    if let Some(own) = &own {
        driver = driver.identity(own.identity.clone());
    }
    let mut builder = args.settings(driver.proxy(), admin, workload)?;
    if let Some(names) = &names {
        builder = builder.names(names.statistics());
    }
    on_runtime(driven(driver, builder, Vec::new(), names, own))
}

/// The node's address, as Istio's injection sets it.
fn instance_ip() -> Option<IpAddr> {
    std::env::var("INSTANCE_IP").ok()?.parse().ok()
}

/// Serves what a driver has, and answers questions for names. Listeners in `wanted` have to open
/// at once.
pub(super) async fn driven(
    driver: Driver,
    builder: Builder,
    wanted: Vec<Name>,
    names: Option<Names>,
    own: Option<Own>,
) -> anyhow::Result<ExitCode> {
    let answering = match names {
        Some(names) => Some(names.open(driver.names()).await?),
        None => None,
    };
    let keeping = kept(own).await;
    let proxy = builder.start().await.context("cannot start")?;
    let driving = tokio::spawn(driver.run());
    let answering = answering.map(|answering| tokio::spawn(answering.run()));
    say_admin(&proxy);
    opened(&proxy, &wanted).await?;
    until_told(proxy, [Some(driving), answering, keeping]).await
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
    say_admin(proxy);
}

fn say_admin(proxy: &Running) {
    match proxy.admin_at() {
        Some(ListenerAddress::Socket(address)) => println!("admin on http://{address}/"),
        Some(ListenerAddress::Unix(path)) => println!("admin on unix://{path}"),
        None => {}
    }
}

/// Keeps the proxy's identity up to date, beginning now.
async fn kept(own: Option<Own>) -> Option<JoinHandle<()>> {
    let mut keeping = own?.keeping;
    keeping.begin().await;
    Some(tokio::spawn(keeping.run()))
}

/// Serves until it is told to stop, drains, and ends `beside`.
pub(super) async fn until_told(
    mut proxy: Running,
    beside: [Option<JoinHandle<()>>; 3],
) -> anyhow::Result<ExitCode> {
    let tidying = tidy::up(proxy.listening());
    tokio::select! {
        () = terminated() => tracing::info!("draining"),
        () = proxy.ended() => {}
        () = tidying => {}
    }
    let [configuration, names, identity] = beside;
    if let Some(configuration) = configuration {
        configuration.abort();
    }
    proxy.drain().await;
    // Until the last: requests that finish may need names and certificates.
    for needed in [names, identity].into_iter().flatten() {
        needed.abort();
    }
    Ok(ExitCode::SUCCESS)
}

// === impl RunArgs ===

impl RunArgs {
    /// The admin interface's address and the mode of its file, as the flag or else `usual` has it.
    fn admin(&self, usual: AdminAt) -> anyhow::Result<AdminAt> {
        let Some(said) = self.admin.as_deref() else {
            return Ok(usual);
        };
        if said == "off" {
            return Ok((None, 0));
        }
        let address = match UnixPath::from_url(said) {
            Some(path) => path.map(ListenerAddress::Unix).map_err(Into::into),
            None => said
                .parse::<SocketAddr>()
                .map(ListenerAddress::Socket)
                .map_err(anyhow::Error::from),
        };
        let address = address.with_context(|| format!("--admin {said:?} is not an address"))?;
        Ok((Some(address), 0))
    }

    /// Who the proxy is in the mesh, if the flags say so.
    fn own(&self) -> anyhow::Result<Option<Own>> {
        let given = match &self.identity_dir {
            None => self.authority.identity()?,
            Some(directory) => {
                let read = Identity::in_directory(directory).context("--identity-dir")?;
                Some((read.0, Keeping::Files(read.1)))
            }
        };
        Ok(given.map(|(identity, keeping)| Own { identity, keeping }))
    }

    /// Who answers questions for names, if anybody.
    fn names(&self, namespace: &str, domain: Option<&str>) -> anyhow::Result<Option<Names>> {
        match self.dns_proxy.as_slice() {
            [] => Ok(None),
            places => Names::new(places, &self.dns_resolv_conf, namespace, domain).map(Some),
        }
    }

    /// What flags change about every snapshot. Interception is none of it: a control plane makes
    /// listeners transparent for nodes that tell it so.
    fn adjusted(&self, client: client::Builder) -> client::Builder {
        let Some(path) = &self.access_log else {
            return client;
        };
        let log = AccessLog {
            path: path.as_str().into(),
            format: Name::default(),
        };
        client.configure(move |builder| {
            builder.replace_access_logs(&log);
        })
    }

    fn settings(
        &self,
        builder: Builder,
        (admin, mode): AdminAt,
        workload: WorkloadRef,
    ) -> anyhow::Result<Builder> {
        let builder = builder
            .explain_token(self.explain_token()?)
            .workload(workload)
            .admin_at(admin, mode)
            .seed(self.seed)
            .drain_time(Duration::from_secs(self.drain_time));
        let builder = self.guard.apply(builder)?;
        Ok(match self.concurrency {
            0 => builder,
            workers => builder.concurrency(workers),
        })
    }

    fn explain_token(&self) -> anyhow::Result<Option<Token>> {
        let Some(file) = &self.explain_token_file else {
            return Ok(None);
        };
        token_in(file, "--explain-token-file").map(Some)
    }
}

/// The token in a file that a flag names.
pub(super) fn token_in(file: &Path, flag: &str) -> anyhow::Result<Token> {
    let read = std::fs::read_to_string(file).map_err(anyhow::Error::from);
    let token = read.and_then(|text| Token::new(&text).map_err(Into::into));
    token.with_context(|| format!("{flag} {}", file.display()))
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
