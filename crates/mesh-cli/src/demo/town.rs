//! Everything that runs: the control plane, if there is one, the applications, a sidecar for each, and the gateway.

use super::Args;
use super::admin::ask;
use super::application::Applications;
use super::files;
use super::identities::Identities;
use super::judge::Judge;
use super::outside::{self, Outside};
use super::plane::Plane;
use super::proxy::{DataPlane, Proxy};
use crate::style::Style;
use anyhow::{Context, bail};
use mesh_istio::{Diagnostic, Files, Node, Role, World};
use mesh_proxy::config::{self, LoadError};
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Where a sidecar's outbound proxy is when the node has no base port.
const USUAL_OUTBOUND: u16 = 15001;

/// The first page has to come within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// What runs.
pub(crate) struct Town {
    /// None where the proxies read the files.
    plane: Option<Plane>,
    proxies: Vec<Proxy>,
    applications: Applications,
    /// Ends when it is dropped, after everything that may lead there.
    outside: Outside,
}

// === impl Town ===

impl Town {
    /// Starts everything that the configuration describes. `None` if the configuration was
    /// refused, which has been printed.
    pub(crate) async fn start(
        args: &Args,
        data_plane: &DataPlane,
        style: Style,
    ) -> anyhow::Result<Option<Self>> {
        let dir = args.dir.as_path();
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
        if !nodes.iter().any(|node| listens(node, args.listen)) {
            bail!(
                "no WorkloadEntry in {} describes a gateway for --listen {}: it needs the \
                 annotations mesh-rs.dev/role: gateway and mesh-rs.dev/map-port: \"80=8080\", each \
                 on a line of its own",
                dir.display(),
                args.listen
            );
        }
        let judge = match Judge::new(dir, &nodes) {
            Ok(judge) => Arc::new(judge),
            Err(LoadError::Refused(findings)) => {
                eprint!("{}", config::render(&findings));
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let plane = async {
            let plane = Plane::start(dir, args.base_port).await?;
            let what = format!("xDS on {}, pages on http://{}/", plane.xds, plane.http);
            Ok((plane, what))
        };
        let plane = match data_plane.is_controlled() {
            true => Some(announced("control plane", style, plane).await?),
            false => None,
        };
        let mut town = Self {
            plane,
            proxies: Vec::new(),
            applications: Applications::none(),
            outside: Outside::default(),
        };
        let identities = Identities::new(&world)?;
        let certificates = files::certificates(dir)?;
        for server in outside::SERVERS {
            let starting = town.outside.start(server, args.base_port, &certificates);
            let starting = async { Ok(((), starting.await?)) };
            announced(server.0, style, starting).await?;
        }
        for node in &nodes {
            let starting = town.start_node(node, data_plane, &judge, &identities);
            announced(&node.name, style, starting).await?;
        }
        if let Some(plane) = &mut town.plane {
            plane.follow(judge);
        }
        Ok(Some(town))
    }

    async fn start_node(
        &mut self,
        node: &Node,
        data_plane: &DataPlane,
        judge: &Arc<Judge>,
        identities: &Identities,
    ) -> anyhow::Result<((), String)> {
        let mut what = Vec::new();
        match &node.role {
            Role::Sidecar { inbound } => {
                let outbound = node.outbound(USUAL_OUTBOUND);
                for port in inbound {
                    let application = self.applications.start(node, port.application, outbound);
                    let address = application.await?;
                    what.push(format!(
                        "application on {address}, sidecar on {}",
                        port.port
                    ));
                }
            }
            Role::Gateway { ports } => {
                let told = |(port, own): (&u16, &u16)| format!("{own} for {port}");
                let open = ports.get(&80).into_iter();
                let open = open.map(|port| SocketAddr::from((node.address, *port)).to_string());
                what.push(format!("gateway on {}", open.collect::<String>()));
                let more = ports.iter().filter(|(port, _)| **port != 80).map(told);
                let more: Vec<_> = more.collect();
                if !more.is_empty() {
                    what.push(format!("tasks open {}", more.join(", ")));
                }
            }
        }
        let plane = self.plane.as_ref();
        let proxy = data_plane.start(node, plane, judge, identities).await?;
        self.proxies.push(proxy);
        Ok(((), what.join(", ")))
    }

    /// Fetches the page once through the gateway, so that what is printed next is true.
    pub(crate) async fn check(&self, listen: SocketAddr) -> anyhow::Result<()> {
        let answer = tokio::time::timeout(PATIENCE, ask(listen, "GET", "/productpage")).await;
        match answer {
            Ok(Ok(answer)) if answer.status == 200 => Ok(()),
            Ok(Ok(answer)) => bail!("the gateway answered {} for /productpage", answer.status),
            Ok(Err(error)) => Err(error).context("the gateway cannot be reached"),
            Err(_) => bail!("no page after {PATIENCE:?}"),
        }
    }

    /// Drains the proxies from the outside in, then ends the applications.
    pub(crate) async fn stop(mut self) {
        while let Some(proxy) = self.proxies.pop() {
            proxy.drain().await;
        }
        drop(self.plane);
        self.applications.stop().await;
        drop(self.outside);
    }
}

/// Says that something starts, and how that went.
async fn announced<T>(
    name: &str,
    style: Style,
    starting: impl Future<Output = anyhow::Result<(T, String)>>,
) -> anyhow::Result<T> {
    print!("starting       {name:16}");
    std::io::stdout().flush()?;
    match starting.await {
        Ok((started, what)) => {
            println!("{} {what}", style.good("ok"));
            Ok(started)
        }
        Err(error) => {
            println!("{}", style.bad("failed"));
            Err(error)
        }
    }
}

/// Whether a node is a gateway that serves a Gateway's port 80 on this address.
fn listens(node: &Node, address: SocketAddr) -> bool {
    let Role::Gateway { ports } = &node.role else {
        return false;
    };
    node.address == address.ip() && ports.get(&80) == Some(&address.port())
}
