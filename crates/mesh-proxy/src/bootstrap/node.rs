//! Who the node is, as flags say it.

use crate::config::NodeSpec;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use mesh_core::model::Locality;
use mesh_istio::{Capture, Inbound, Node, Role};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Who the node is.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The node, as xDS names it: sidecar~10.0.0.1~NAME.NAMESPACE~DOMAIN, or router~…
    #[arg(long, value_name = "ID", conflicts_with = "workload")]
    pub(super) node: Option<String>,
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
    /// Where the node runs: endpoints nearby come first, where a rule says so. Without it, where
    /// the objects say that its pod or WorkloadEntry is.
    #[arg(long, value_name = "REGION/ZONE/SUBZONE")]
    locality: Option<String>,
    /// The node finds those that are like it, by which it knows how much its own zone can take
    /// (Istio's ENABLE_SELF_DISCOVERY): the endpoints of the first service that selects it, of its
    /// region, workload and revision. For zoneAwareLbSetting.
    #[arg(long)]
    self_discovery: bool,
    /// How connections come to the node: applications and others call its ports; or the kernel
    /// redirects them to 15001 and 15006, wherever they go (`mesh intercept` sets it up).
    #[arg(long, value_enum, default_value_t)]
    interception: Interception,
}

/// How connections come to a node, in the words of Istio's `INTERCEPTION_MODE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Interception {
    #[default]
    None,
    Redirect,
    Tproxy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleArg {
    Gateway,
    Sidecar,
}

// === impl NodeArgs ===

impl NodeArgs {
    /// Whether anything is said but the id.
    pub(super) fn is_described(&self) -> bool {
        self.workload.is_some()
            || self.locality.is_some()
            || self.self_discovery
            || !self.is_plain()
    }

    /// Whether nothing is said beyond a name.
    fn is_plain(&self) -> bool {
        self.role.is_none()
            && self.inbound.is_empty()
            && self.map_port.is_empty()
            && self.base_port.is_none()
            && self.labels.is_empty()
            && self.interception == Interception::None
    }

    /// Where the node runs.
    pub(super) fn locality(&self) -> Option<Locality> {
        self.locality.as_deref().map(mesh_istio::parse_locality)
    }

    /// Whether the node finds those that are like it.
    pub(super) fn self_discovery(&self) -> bool {
        self.self_discovery
    }

    /// How connections come to the node.
    pub(super) fn interception(&self) -> Interception {
        self.interception
    }

    /// What is known of the node where its description may be in the YAML.
    pub(super) fn spec(&self) -> anyhow::Result<NodeSpec> {
        let role = self.role()?;
        if let (Some((name, namespace)), true, None) = (self.named()?, self.is_plain(), role) {
            return Ok(NodeSpec::Named { name, namespace });
        }
        Ok(NodeSpec::Exact(self.exact()?))
    }

    /// The node as far as flags say.
    pub(super) fn exact(&self) -> anyhow::Result<Node> {
        let named = self.named()?;
        let is_named = named.is_some();
        let usual = || ("gateway".to_owned(), "istio-system".to_owned());
        let (name, namespace) = named.unwrap_or_else(usual);
        let role = self
            .role()?
            .unwrap_or(match (is_named, self.inbound.is_empty()) {
                (false, true) => RoleArg::Gateway,
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
        if self.interception != Interception::None {
            let ports = [
                ("--base-port", self.base_port.is_some()),
                ("--inbound", !self.inbound.is_empty()),
                ("--map-port", !self.map_port.is_empty()),
            ];
            if let Some((flag, _)) = ports.iter().find(|(_, given)| *given) {
                bail!(
                    "{flag} is for nodes without interception: with --interception, ports are \
                     those of Istio and of the node's services"
                );
            }
            node.capture = match self.interception {
                Interception::Tproxy => Capture::Tproxy,
                _ => Capture::Redirect,
            };
            if let (RoleArg::Sidecar, Some(address)) = (role, self.address()?) {
                node.address = address;
            }
        }
        node.base_port = self.base_port;
        node.locality = self.locality().unwrap_or_default();
        node.self_discovery = self.self_discovery;
        node.labels = self.labels.iter().cloned().collect();
        Ok(node)
    }

    /// The address in the node's id.
    fn address(&self) -> anyhow::Result<Option<IpAddr>> {
        let id = self.node.as_ref().map(mesh_xds::Node::new);
        let text = id.as_ref().and_then(mesh_xds::Node::address);
        text.map(|text| {
            text.parse()
                .with_context(|| format!("--node: {text:?} is not an IP address"))
        })
        .transpose()
    }

    /// The workload's name and namespace.
    fn named(&self) -> anyhow::Result<Option<(String, String)>> {
        if let Some(id) = &self.node {
            let node = mesh_xds::Node::new(id);
            let (name, namespace) = node.workload().with_context(|| {
                format!("--node {id:?} is not of the form KIND~IP~NAME.NAMESPACE~DOMAIN")
            })?;
            return Ok(Some((name.to_owned(), namespace.to_owned())));
        }
        let Some(text) = &self.workload else {
            return Ok(None);
        };
        let (name, namespace) = text.rsplit_once('.').unwrap_or((text, "default"));
        if name.is_empty() || namespace.is_empty() {
            bail!("--workload {text:?} is not of the form NAME.NAMESPACE");
        }
        Ok(Some((name.to_owned(), namespace.to_owned())))
    }

    /// The role, as a flag says it or the node's id. Sidecars are what ids name in general.
    fn role(&self) -> anyhow::Result<Option<RoleArg>> {
        let Some(id) = &self.node else {
            return Ok(self.role);
        };
        let role = match mesh_xds::Node::new(id).kind() {
            Some("sidecar") => RoleArg::Sidecar,
            Some("router") => RoleArg::Gateway,
            Some(kind) => bail!("--node {id:?}: a proxy is no {kind}, but a sidecar or a router"),
            None => return Ok(self.role),
        };
        match self.role {
            Some(said) if said != role => bail!("--node {id:?} contradicts --role"),
            // The YAML may describe a sidecar of that name.
            said => Ok(said.or_else(|| (role == RoleArg::Gateway).then_some(role))),
        }
    }
}

// === impl Interception ===

impl Interception {
    /// As metadata has it.
    pub(super) fn mode(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Redirect => "REDIRECT",
            Self::Tproxy => "TPROXY",
        }
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
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        node: NodeArgs,
    }

    fn node(args: &[&str]) -> NodeSpec {
        let line = ["mesh-proxy"].iter().chain(args);
        Line::try_parse_from(line).unwrap().node.spec().unwrap()
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
        for flags in [
            ["--workload", "reviews-v1.shop"],
            [
                "--node",
                "sidecar~10.0.0.1~reviews-v1.shop~shop.svc.cluster.local",
            ],
        ] {
            let NodeSpec::Named { name, namespace } = node(&flags) else {
                panic!("a name to look up");
            };
            assert_eq!((name.as_str(), namespace.as_str()), ("reviews-v1", "shop"));
        }
    }

    #[test]
    fn an_id_says_whether_it_is_a_gateway() {
        let NodeSpec::Exact(node) = node(&["--node", "router~10.0.0.1~edge.istio-system~x"]) else {
            panic!("a whole node");
        };
        assert!(matches!(node.role, Role::Gateway { .. }));
        assert_eq!(node.name, "edge");
    }

    #[test]
    fn an_id_that_contradicts_other_flags_is_refused() {
        let line = ["x", "--node", "router~1.2.3.4~a.b~c", "--role", "sidecar"];
        let error = Line::try_parse_from(line).unwrap().node.spec().unwrap_err();
        assert!(error.to_string().contains("--role"), "{error}");
        let line = ["x", "--node", "edge"];
        assert!(Line::try_parse_from(line).unwrap().node.spec().is_err());
    }

    #[test]
    fn an_intercepted_node_has_the_address_of_its_id_and_no_ports_of_its_own() {
        let id = "sidecar~10.0.0.1~reviews-v1.shop~shop.svc.cluster.local";
        let NodeSpec::Exact(found) = node(&["--node", id, "--interception", "redirect"]) else {
            panic!("nothing to look up");
        };
        assert_eq!(found.capture, Capture::Redirect);
        assert_eq!(found.address.to_string(), "10.0.0.1");
        let NodeSpec::Exact(found) = node(&["--node", id, "--interception", "tproxy"]) else {
            panic!("nothing to look up");
        };
        assert_eq!(found.capture, Capture::Tproxy);
        for flags in [["--base-port", "20000"], ["--inbound", "80=81"]] {
            let line = ["x", "--workload", "a.b", "--interception", "tproxy"];
            let line = line.iter().chain(&flags);
            let error = Line::try_parse_from(line).unwrap().node.spec().unwrap_err();
            assert!(error.to_string().contains(flags[0]), "{error}");
        }
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
