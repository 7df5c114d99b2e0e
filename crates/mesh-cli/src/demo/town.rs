//! Everything that runs: the applications, a sidecar for each, and the gateway.

use crate::style::Style;
use anyhow::{Context, bail};
use axum::Router;
use bookinfo::{ReviewsVersion, Services};
use mesh_istio::{Diagnostic, Files, Node, Role, Severity, World};
use mesh_proxy::config::{self, Configuration, LoadError, NodeSpec, Source};
use mesh_proxy::{Proxy, Running};
use std::collections::HashMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Where a sidecar's outbound proxy is when the node has no base port.
const USUAL_OUTBOUND: u16 = 15001;

/// The first page has to come within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// What runs.
pub(crate) struct Town {
    proxies: Vec<Running>,
    applications: JoinSet<()>,
    watchers: JoinSet<()>,
    said: Arc<Said>,
    stop: watch::Sender<bool>,
}

// === impl Town ===

impl Town {
    /// Starts everything that the configuration describes. `None` if the configuration was
    /// refused, which has been printed.
    pub(crate) async fn start(
        dir: &Path,
        listen: SocketAddr,
        style: Style,
    ) -> anyhow::Result<Option<Self>> {
        let mut world = World::default();
        let mut findings = world.update(&Files::read(&[dir]));
        let (nodes, more) = Node::all(&world);
        findings.extend(more);
        if findings.iter().any(Diagnostic::is_error) {
            eprint!("{}", config::render(&findings));
            return Ok(None);
        }
        if nodes.is_empty() {
            bail!("no WorkloadEntry in {} describes a node", dir.display());
        }
        let (stop, stopped) = watch::channel(false);
        let mut town = Self {
            proxies: Vec::new(),
            applications: JoinSet::new(),
            watchers: JoinSet::new(),
            said: Arc::default(),
            stop,
        };
        for node in nodes {
            let node = at(node, listen);
            print!("starting       {:16}", node.name);
            std::io::stdout().flush()?;
            let started = town.start_node(dir, node, stopped.clone()).await;
            match started {
                Ok(what) => println!("{} {what}", style.good("ok")),
                Err(error) => {
                    println!("{}", style.bad("failed"));
                    if let Some(LoadError::Refused(findings)) = error.downcast_ref() {
                        eprint!("{}", config::render(findings));
                        return Ok(None);
                    }
                    return Err(error);
                }
            }
        }
        Ok(Some(town))
    }

    async fn start_node(
        &mut self,
        dir: &Path,
        node: Node,
        stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<String> {
        let mut what = String::new();
        if let Role::Sidecar { inbound } = &node.role {
            let outbound = node.outbound(USUAL_OUTBOUND);
            for port in inbound {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.application));
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("the application cannot listen on {address}"))?;
                let router = application(&node, outbound)?;
                let mut stopped = stopped.clone();
                self.applications.spawn(async move {
                    let stop = async move {
                        // A lost sender means the same.
                        let _ = stopped.wait_for(|stop| *stop).await;
                    };
                    if let Err(error) = httpbin::serve(listener, router, stop).await {
                        tracing::error!(%error, "application");
                    }
                });
                what = format!("application on {address}, sidecar on {}", port.port);
            }
        }
        let source = Source {
            paths: vec![dir.to_owned()],
            mesh_config: None,
            node: NodeSpec::Exact(node.clone()),
            access_log: None,
        };
        let (configuration, _) = Configuration::load(source)?;
        let proxy = Proxy::builder(configuration.feed())
            .workload(configuration.workload())
            .concurrency(1)
            .admin(node.admin())
            .start()
            .await?;
        let listening = proxy.ready().await;
        if let Some(reason) = listening.failed.values().next() {
            bail!("{reason}; another demo may be running (--listen and --base-port choose ports)");
        }
        if matches!(node.role, Role::Gateway { .. }) {
            let open: Vec<_> = listening.open.values().map(ToString::to_string).collect();
            what = format!("gateway on {}", open.join(", "));
        }
        // Every proxy reads the same files and finds much the same; each finding is said once.
        let said = self.said.clone();
        self.watchers
            .spawn(configuration.watch(move |findings| said.say(findings)));
        self.proxies.push(proxy);
        Ok(what)
    }

    /// Fetches the page once through the gateway, so that what is printed next is true.
    pub(crate) async fn check(&self, listen: SocketAddr) -> anyhow::Result<()> {
        let status = tokio::time::timeout(PATIENCE, fetch_page(listen)).await;
        match status {
            Ok(Ok(status)) if status.contains(" 200 ") => Ok(()),
            Ok(Ok(status)) => bail!("the gateway answered {status:?} for /productpage"),
            Ok(Err(error)) => Err(error).context("the gateway cannot be reached"),
            Err(_) => bail!("no page after {PATIENCE:?}"),
        }
    }

    pub(crate) async fn run_until_interrupted(&self) {
        use tokio::signal::unix::{SignalKind, signal};
        let Ok(mut terminate) = signal(SignalKind::terminate()) else {
            // Without a handler the signal ends the process anyway.
            let _ = tokio::signal::ctrl_c().await;
            return;
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
    }

    /// Drains the proxies from the outside in, then ends the applications.
    pub(crate) async fn stop(mut self) {
        self.watchers.abort_all();
        while let Some(proxy) = self.proxies.pop() {
            proxy.drain().await;
        }
        self.stop.send_replace(true);
        while self.applications.join_next().await.is_some() {}
    }
}

/// The node as the command line wants it: the gateway listens where the user said.
fn at(mut node: Node, listen: SocketAddr) -> Node {
    if let Role::Gateway { ports } = &mut node.role {
        node.address = listen.ip();
        ports.insert(80, listen.port());
    }
    node
}

fn application(node: &Node, outbound: SocketAddr) -> anyhow::Result<Router> {
    let services = Services::through(outbound);
    let label = |key: &str| node.labels.get(key).map(String::as_str).unwrap_or_default();
    Ok(match (label("app"), label("version")) {
        ("productpage", _) => bookinfo::productpage(&services),
        ("details", _) => bookinfo::details(),
        ("ratings", _) => bookinfo::ratings(),
        ("reviews", "v1") => bookinfo::reviews(ReviewsVersion::V1, &services),
        ("reviews", "v2") => bookinfo::reviews(ReviewsVersion::V2, &services),
        ("reviews", "v3") => bookinfo::reviews(ReviewsVersion::V3, &services),
        ("httpbin", _) => httpbin::named(node.name.clone()),
        (app, version) => bail!(
            "the demo has no application {app:?} version {version:?} (labels of WorkloadEntry {})",
            node.name
        ),
    })
}

/// What was said about the configuration, so that eight proxies do not say it eight times.
#[derive(Debug, Default)]
struct Said(Mutex<HashMap<String, Instant>>);

/// One change reaches all proxies within this time.
const ONE_CHANGE: Duration = Duration::from_secs(2);

impl Said {
    fn say(&self, findings: &[Diagnostic]) {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        said.retain(|_, when| now.duration_since(*when) < ONE_CHANGE);
        let news: Vec<Diagnostic> = findings
            .iter()
            .filter(|finding| finding.severity != Severity::Info)
            .filter(|finding| said.insert(finding.to_string(), now).is_none())
            .cloned()
            .collect();
        if said
            .insert("configuration changed".to_owned(), now)
            .is_none()
        {
            println!("configuration changed");
        }
        eprint!("{}", config::render(&news));
    }
}

/// The status line that the gateway answers for the page.
async fn fetch_page(listen: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(listen).await?;
    let request =
        format!("GET /productpage HTTP/1.1\r\nhost: {listen}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
