//! Who a node is, as flags say it: the words are those of `mesh-proxy run --xds`.

use clap::{Args, ValueEnum};
use mesh_xds::Node;
use std::fmt;

/// Which node.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// The node, as xDS names it: sidecar~10.0.0.1~NAME.NAMESPACE~DOMAIN, or router~…
    /// NAME.NAMESPACE is the node that a WorkloadEntry of that name describes.
    #[arg(long, value_name = "ID", conflicts_with = "workload")]
    node: Option<String>,
    /// The workload that the node stands for.
    #[arg(long, value_name = "NAME.NAMESPACE")]
    workload: Option<String>,
    /// What the node does, where no WorkloadEntry describes it.
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// Labels of the workload, for selectors.
    #[arg(long, value_name = "K=V,...", value_delimiter = ',', value_parser = pair)]
    labels: Vec<(String, String)>,
    /// Sidecar: accept on PORT for the application that listens on 127.0.0.1:APPPORT.
    #[arg(long, value_name = "PORT=APPPORT", value_parser = ports)]
    inbound: Vec<Ports>,
    /// Gateway: accept what a Gateway has on the first port on the second one.
    #[arg(long, value_name = "80=8080", value_parser = ports)]
    map_port: Vec<Ports>,
    /// First port of the node: PORT is its admin port, PORT+1 its outbound proxy.
    #[arg(long, value_name = "PORT")]
    base_port: Option<u16>,
    /// Where the node runs: endpoints nearby come first, where a rule says so. Without it, where
    /// the objects say that its pod or WorkloadEntry is.
    #[arg(long, value_name = "REGION/ZONE/SUBZONE")]
    locality: Option<String>,
    /// Further metadata of the node, for example GENERATOR=grpc for a client without a proxy, or
    /// INTERCEPTION_MODE=REDIRECT for an intercepted one. Default: INTERCEPTION_MODE=NONE, which
    /// is what mesh-proxy says.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Gateway,
    Sidecar,
}

/// Two ports: the one that others see, and the one in its place here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ports(u16, u16);

// === impl NodeArgs ===

impl NodeArgs {
    /// The node as it would introduce itself to a control plane.
    ///
    /// # Errors
    /// If the flags contradict each other, or do not say which node.
    pub(crate) fn identity(&self) -> anyhow::Result<Node> {
        if self.node.is_none() && self.workload.is_none() {
            anyhow::bail!("which node? expected --node or --workload");
        }
        self.introduced(&self.id()?)
    }

    /// As [`NodeArgs::identity`]; where nothing says which node, any sidecar (or gateway, with
    /// `--role`) of the namespace `default`.
    ///
    /// # Errors
    /// If the flags contradict each other.
    pub(crate) fn identity_or_sidecar(&self) -> anyhow::Result<Node> {
        self.named_or_sidecar(None, &[])
    }

    /// As [`NodeArgs::identity_or_sidecar`], for a node that somebody else names, with its labels;
    /// flags win over both, and say the rest. A node of the flags has no labels but theirs.
    ///
    /// # Errors
    /// If the flags contradict each other.
    pub(crate) fn named_or_sidecar(
        &self,
        id: Option<&str>,
        labels: &[(String, String)],
    ) -> anyhow::Result<Node> {
        let said = |node: Node| match self.labels.is_empty() && !labels.is_empty() {
            true => node.with_map("LABELS", labels.iter().map(|(key, value)| (key, value))),
            false => node,
        };
        if self.node.is_some() || self.workload.is_some() {
            return self.identity();
        }
        if let Some(id) = id {
            return self.introduced(id).map(said);
        }
        let id = id_of(self.usual_role(), "any", "default");
        self.introduced(&id).map(said)
    }

    /// Whether any flag says something of a node.
    pub(crate) fn is_given(&self) -> bool {
        let Self {
            node,
            workload,
            role,
            labels,
            inbound,
            map_port,
            base_port,
            locality,
            metadata,
        } = self;
        let one = node.is_some() || workload.is_some() || role.is_some() || base_port.is_some();
        let list = labels.is_empty() && inbound.is_empty() && map_port.is_empty();
        one || locality.is_some() || !list || !metadata.is_empty()
    }

    fn introduced(&self, id: &str) -> anyhow::Result<Node> {
        let node = Node::new(id);
        if self.role.is_some() && node.kind() != self.role.map(Role::kind) {
            anyhow::bail!("--node {id:?} contradicts --role");
        }
        if node.kind() == Some("router") && !self.inbound.is_empty() {
            anyhow::bail!("--inbound is for sidecars");
        }
        if node.kind() == Some("sidecar") && !self.map_port.is_empty() {
            anyhow::bail!("--map-port is for gateways");
        }
        let mut node = node.with_text("INTERCEPTION_MODE", "NONE");
        if !self.labels.is_empty() {
            let labels = self.labels.iter().map(|(key, value)| (key, value));
            node = node.with_map("LABELS", labels);
        }
        if let Some(text) = &self.locality {
            let at = mesh_istio::parse_locality(text);
            node = node.with_locality((&at.region, &at.zone, &at.sub_zone));
        }
        if let Some(port) = self.base_port {
            node = node.with_text("MESH_BASE_PORT", port.to_string());
        }
        for (key, ports) in [
            ("MESH_INBOUND", &self.inbound),
            ("MESH_MAP_PORT", &self.map_port),
        ] {
            let ports: Vec<String> = ports.iter().map(Ports::to_string).collect();
            if !ports.is_empty() {
                node = node.with_text(key, ports.join(","));
            }
        }
        for (key, value) in &self.metadata {
            node = node.with_text(key, value);
        }
        Ok(node)
    }

    /// A whole id; or only a name, if nothing is said that an id could.
    fn id(&self) -> anyhow::Result<String> {
        let said = self.node.as_deref().or(self.workload.as_deref());
        let said = said.unwrap_or_default();
        if said.contains('~') {
            if self.workload.is_some() {
                anyhow::bail!(
                    "--workload {said:?} is not of the form NAME.NAMESPACE; an id is --node"
                );
            }
            return Ok(said.to_owned());
        }
        let (name, namespace) = match said.rsplit_once('.') {
            Some((name, namespace)) if !name.is_empty() && !namespace.is_empty() => {
                (name, namespace)
            }
            None if !said.is_empty() && self.workload.is_some() => (said, "default"),
            _ => anyhow::bail!("{said:?} is not of the form NAME.NAMESPACE"),
        };
        let is_plain = self.role.is_none() && self.inbound.is_empty() && self.map_port.is_empty();
        if is_plain && self.base_port.is_none() {
            return Ok(format!("{name}.{namespace}"));
        }
        Ok(id_of(self.usual_role(), name, namespace))
    }

    /// The role that is said, or that the other flags are for.
    fn usual_role(&self) -> Role {
        let usual = match self.map_port.is_empty() {
            true => Role::Sidecar,
            false => Role::Gateway,
        };
        self.role.unwrap_or(usual)
    }
}

/// A whole id.
fn id_of(role: Role, name: &str, namespace: &str) -> String {
    let kind = role.kind();
    format!("{kind}~127.0.0.1~{name}.{namespace}~{namespace}.svc.cluster.local")
}

// === impl Role ===

impl Role {
    /// Istio's word for it.
    fn kind(self) -> &'static str {
        match self {
            Self::Gateway => "router",
            Self::Sidecar => "sidecar",
        }
    }
}

// === impl Ports ===

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.0, self.1)
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn ports(text: &str) -> Result<Ports, String> {
    let pairs = mesh_istio::parse_ports(text).unwrap_or_default();
    match pairs[..] {
        [(from, to)] => Ok(Ports(from, to)),
        _ => Err("expected PORT=PORT".to_owned()),
    }
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

    fn identity(line: &str) -> anyhow::Result<Node> {
        let words = std::iter::once("x").chain(line.split(' '));
        Line::try_parse_from(words)?.node.identity()
    }

    #[test]
    fn a_name_is_left_to_the_configuration_unless_more_is_said() {
        for (line, id) in [
            ("--node a.shop", "a.shop"),
            ("--workload a.shop", "a.shop"),
            ("--workload a", "a.default"),
            ("--workload a.b.shop --metadata X=y", "a.b.shop"),
            ("--node router~1.2.3.4~a.b~c", "router~1.2.3.4~a.b~c"),
            (
                "--workload a.b --role gateway",
                "router~127.0.0.1~a.b~b.svc.cluster.local",
            ),
            (
                "--workload a.b --inbound 80=8080",
                "sidecar~127.0.0.1~a.b~b.svc.cluster.local",
            ),
            (
                "--workload a.b --map-port 80=8080",
                "router~127.0.0.1~a.b~b.svc.cluster.local",
            ),
        ] {
            assert_eq!(identity(line).unwrap().id(), id, "{line}");
        }
    }

    #[test]
    fn without_a_name_it_is_any_sidecar_where_that_will_do() {
        let words = |line: &str| {
            let words = std::iter::once("x").chain(line.split(' ').filter(|it| !it.is_empty()));
            Line::try_parse_from(words).unwrap().node
        };
        let any = words("").identity_or_sidecar().unwrap();
        assert_eq!(
            any.id(),
            "sidecar~127.0.0.1~any.default~default.svc.cluster.local"
        );
        assert_eq!(any.text("INTERCEPTION_MODE"), Some("NONE"));
        let gateway = words("--role gateway --labels a=b")
            .identity_or_sidecar()
            .unwrap();
        assert_eq!(gateway.kind(), Some("router"));
        assert_eq!(
            words("--node a.b").identity_or_sidecar().unwrap().id(),
            "a.b"
        );
        let error = words("").identity().unwrap_err().to_string();
        assert!(error.contains("--workload"), "{error}");
        assert!(!words("").is_given() && words("--labels a=b").is_given());
    }

    #[test]
    fn flags_are_said_in_metadata() {
        let line = "--workload a.b --inbound 80=8080 --inbound 81=8081 --base-port 20100 \
                    --labels app=x,version=v1 --locality r1/z1 --metadata GENERATOR=grpc";
        let node = identity(line).unwrap();
        for (key, value) in [
            ("MESH_INBOUND", "80=8080,81=8081"),
            ("MESH_BASE_PORT", "20100"),
            ("GENERATOR", "grpc"),
            ("INTERCEPTION_MODE", "NONE"),
        ] {
            assert_eq!(node.text(key), Some(value), "{key}");
        }
        assert_eq!(node.map("LABELS")["version"], "v1");
        assert_eq!(node.locality(), Some(("r1", "z1", "")));
        let redirected = "--node a.b --metadata INTERCEPTION_MODE=REDIRECT";
        let node = identity(redirected).unwrap();
        assert_eq!(node.text("INTERCEPTION_MODE"), Some("REDIRECT"));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for line in [
            "--role sidecar",
            "--node a.b --workload a.b",
            "--node a",
            "--workload .b",
            "--workload sidecar~1.2.3.4~a.b~c",
            "--node router~1.2.3.4~a.b~c --role sidecar",
            "--node router~1.2.3.4~a.b~c --inbound 80=8080",
            "--workload a.b --role sidecar --map-port 80=8080",
            "--workload a.b --inbound 80",
            "--workload a.b --inbound 0=1",
        ] {
            assert!(identity(line).is_err(), "{line}");
        }
    }
}
