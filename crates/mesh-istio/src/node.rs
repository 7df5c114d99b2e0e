//! One proxy: who it is and which ports it has.
//!
//! Without interception every port of a proxy is known beforehand. A node is
//! described by a `WorkloadEntry` with annotations, or on the command line:
//!
//! | annotation | meaning |
//! |---|---|
//! | `mesh-rs.dev/base-port: "20100"` | 20100 is the admin port, 20101 the outbound proxy |
//! | `mesh-rs.dev/inbound: "20106=20180"` | accept on 20106, the application is on 20180 |
//! | `mesh-rs.dev/role: gateway` | a gateway instead of a sidecar |
//! | `mesh-rs.dev/map-port: "80=8080"` | a Gateway's port 80 is accepted on 8080 |

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use mesh_core::Name;
use mesh_core::model::Locality;

use crate::diagnostic::{Diagnostic, Severity};
use crate::registry::workload_name;
use crate::spec::{Meta, WorkloadEntry};
use crate::world::World;

/// One proxy of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The workload's name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its labels; a gateway without any serves every Gateway.
    pub labels: BTreeMap<String, String>,
    /// Where others reach it: sidecars accept there.
    pub address: IpAddr,
    /// Its first port: base is the admin port, base + 1 the outbound proxy.
    pub base_port: Option<u16>,
    /// Where it runs: endpoints nearby come first. Empty is not known.
    pub locality: Locality,
    /// What it does.
    pub role: Role,
    /// How connections come to it.
    pub capture: Capture,
    /// Its applications' questions for names are answered by the mesh's table (Istio's
    /// `DNS_CAPTURE`), so that services without an address of their own are called by the one that
    /// is allocated to them. Applies to sidecars whose connections are intercepted.
    pub dns_capture: bool,
    /// It has a certificate of the mesh and the mesh's roots, its own or its agent's: what Istio
    /// calls `default` and `ROOTCA`. Without, it speaks no mutual TLS of the mesh.
    pub identity: bool,
    /// It has a cluster of those that are like it, which tells the balancer how many callers each
    /// zone has (Istio's `ENABLE_SELF_DISCOVERY`; [`Alike`](crate::Alike)).
    pub self_discovery: bool,
    /// What the workload is called (Istio's `WORKLOAD_NAME`, e.g. that of a deployment). Empty
    /// follows from its labels, or else from its name.
    pub workload: String,
}

/// How connections come to a proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Capture {
    /// Applications call it, and others call the ports it was given (Istio's captureMode `NONE`).
    #[default]
    None,
    /// Connections are redirected to it whatever their destination (istiod's usual layout): one
    /// listener for all that go out, one for all that come in, and one behind the former for each
    /// port, or address and port, that is known.
    Redirect,
    /// The same with addresses as they were (Istio's interception mode `TPROXY`): what comes in and
    /// goes out is accepted whatever address it was going to.
    Tproxy,
}

/// What a proxy does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// Lets requests into the mesh.
    Gateway {
        /// The port that is listened on, by the port a Gateway names.
        ports: BTreeMap<u16, u16>,
    },
    /// Stands beside an application.
    Sidecar {
        /// What it accepts for the application.
        inbound: Vec<Inbound>,
    },
}

/// A port accepted on behalf of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The port others call.
    pub port: u16,
    /// The application's port on the loopback address.
    pub application: u16,
}

const PREFIX: &str = "mesh-rs.dev/";

// === impl Node ===

impl Node {
    /// A gateway that serves every Gateway of the configuration, on the ports they name.
    pub fn gateway(name: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            labels: BTreeMap::new(),
            address: Ipv4Addr::UNSPECIFIED.into(),
            base_port: None,
            locality: Locality::default(),
            role: Role::Gateway {
                ports: BTreeMap::new(),
            },
            capture: Capture::None,
            dns_capture: false,
            identity: false,
            self_discovery: false,
            workload: String::new(),
        }
    }

    /// A sidecar that accepts nothing yet.
    pub fn sidecar(name: impl Into<String>, namespace: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            labels: BTreeMap::new(),
            address: Ipv4Addr::LOCALHOST.into(),
            base_port: None,
            locality: Locality::default(),
            role: Role::Sidecar {
                inbound: Vec::new(),
            },
            capture: Capture::None,
            dns_capture: false,
            identity: false,
            self_discovery: false,
            workload: String::new(),
        }
    }

    /// The node that the `WorkloadEntry` of this name describes, if it has any of the annotations.
    ///
    /// # Errors
    /// With what is wrong with its annotations.
    pub fn find(
        world: &World,
        name: &str,
        namespace: &str,
    ) -> Result<Option<Self>, Box<Diagnostic>> {
        let mut entries = world.workload_entries();
        let found = entries.find(|(meta, _)| meta.name == name && meta.namespace == namespace);
        found.map_or(Ok(None), |(meta, entry)| Self::describe(meta, entry))
    }

    /// Every node that the world describes, and what is wrong with the rest.
    pub fn all(world: &World) -> (Vec<Self>, Vec<Diagnostic>) {
        let (mut nodes, mut findings) = (Vec::new(), Vec::new());
        for (meta, entry) in world.workload_entries() {
            match Self::describe(meta, entry) {
                Ok(node) => nodes.extend(node),
                Err(finding) => findings.push(*finding),
            }
        }
        (nodes, findings)
    }

    /// Whether it uses the addresses that are allocated to services without any: nobody else could
    /// know what they stand for.
    pub fn uses_allocated(&self) -> bool {
        let sidecar = matches!(self.role, Role::Sidecar { .. });
        self.dns_capture && sidecar && self.capture != Capture::None
    }

    /// What its workload is called: all that are alike have the same name.
    pub fn workload(&self) -> &str {
        match self.workload.is_empty() {
            true => workload_name(&self.name, &self.labels),
            false => &self.workload,
        }
    }

    /// Where the admin interface is.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.base_port
            .map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
    }

    /// Where applications reach their sidecar, given the mesh's default port.
    pub fn outbound(&self, usual: u16) -> SocketAddr {
        let port = self
            .base_port
            .and_then(|port| port.checked_add(1))
            .unwrap_or(usual);
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
    }

    fn describe(meta: &Meta, entry: &WorkloadEntry) -> Result<Option<Self>, Box<Diagnostic>> {
        let said = |key: &str| {
            meta.annotations
                .get(&format!("{PREFIX}{key}"))
                .map(String::as_str)
        };
        let refuse = |key: &str, message: String| {
            let path = format!("metadata.annotations[\"{PREFIX}{key}\"]");
            Box::new(meta.finding(Severity::Error, meta.at, message).path(path))
        };
        let keys = ["base-port", "inbound", "role", "map-port"];
        if keys.into_iter().all(|key| said(key).is_none()) {
            return Ok(None);
        }
        let base_port = match said("base-port").map(str::parse::<u16>) {
            None => None,
            // One port follows it.
            Some(Ok(port)) if (1..u16::MAX).contains(&port) => Some(port),
            Some(_) => return Err(refuse("base-port", "expected a port".to_owned())),
        };
        let pairs = |key: &str| match said(key) {
            None => Ok(Vec::new()),
            Some(text) => parse_ports(text)
                .ok_or_else(|| refuse(key, format!("{text:?} is not a list of PORT=PORT"))),
        };
        let role = match said("role") {
            None | Some("sidecar") => Role::Sidecar {
                inbound: pairs("inbound")?
                    .into_iter()
                    .map(|(port, application)| Inbound { port, application })
                    .collect(),
            },
            Some("gateway") => Role::Gateway {
                ports: pairs("map-port")?.into_iter().collect(),
            },
            Some(other) => {
                return Err(refuse(
                    "role",
                    format!("{other:?} is not sidecar or gateway"),
                ));
            }
        };
        let address = entry.address.parse().map_err(|_| {
            let message = "a node needs an IP address";
            Box::new(
                meta.finding(Severity::Error, entry.at, message)
                    .path("spec.address"),
            )
        })?;
        Ok(Some(Self {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            labels: entry.all_labels(meta),
            address,
            base_port,
            locality: parse_locality(&entry.locality),
            role,
            capture: Capture::None,
            dns_capture: false,
            identity: false,
            self_discovery: false,
            workload: String::new(),
        }))
    }
}

/// Reads `region/zone/subzone`, of which the end may be missing.
pub fn parse_locality(text: &str) -> Locality {
    let mut parts = text.splitn(3, '/').map(Name::from);
    Locality {
        region: parts.next().unwrap_or_default(),
        zone: parts.next().unwrap_or_default(),
        sub_zone: parts.next().unwrap_or_default(),
    }
}

/// Reads `20106=20180,20107=20181`.
pub fn parse_ports(text: &str) -> Option<Vec<(u16, u16)>> {
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    text.split(',')
        .map(|pair| {
            let (from, to) = pair.split_once('=')?;
            Some((port(from)?, port(to)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Files;

    fn all(annotations: &str) -> (Vec<Node>, Vec<Diagnostic>) {
        let mut world = World::default();
        let text = format!(
            "{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: a, \
             annotations: {{{annotations}}}}}, spec: {{address: 127.0.0.1, labels: {{app: a}}}}}}"
        );
        assert!(world.update(&Files::from_text("n.yaml", &text)).is_empty());
        Node::all(&world)
    }

    #[test]
    fn reads_a_sidecar_from_its_annotations() {
        let (nodes, findings) =
            all("mesh-rs.dev/base-port: '20100', mesh-rs.dev/inbound: '20106=20180, 20107=20181'");
        assert!(findings.is_empty());
        let node = &nodes[0];
        assert_eq!(node.admin().unwrap().to_string(), "127.0.0.1:20100");
        assert_eq!(node.outbound(15001).to_string(), "127.0.0.1:20101");
        let Role::Sidecar { inbound } = &node.role else {
            panic!("a sidecar")
        };
        assert_eq!(
            inbound[1],
            Inbound {
                port: 20107,
                application: 20181
            }
        );
    }

    #[test]
    fn reads_a_gateway_and_leaves_plain_workloads_alone() {
        let (nodes, _) = all("mesh-rs.dev/role: gateway, mesh-rs.dev/map-port: '80=8080'");
        assert_eq!(
            nodes[0].role,
            Role::Gateway {
                ports: [(80, 8080)].into()
            }
        );
        assert!(all("").0.is_empty());
    }

    #[test]
    fn says_which_annotation_is_wrong() {
        for (annotation, key) in [
            ("mesh-rs.dev/base-port: 'x'", "base-port"),
            ("mesh-rs.dev/inbound: '80'", "inbound"),
            ("mesh-rs.dev/role: 'proxy'", "role"),
        ] {
            let (nodes, findings) = all(annotation);
            assert!(nodes.is_empty());
            assert!(findings[0].path.contains(key), "{}", findings[0]);
        }
    }
}
