//! From the node of a client of xDS to the proxy that the compiler knows.
//!
//! | what | where from |
//! |---|---|
//! | kind, address, name, namespace | the id, `type~ip~name.namespace~domain` as istiod has it; `sidecar` or `router` |
//! | namespace | metadata `NAMESPACE`, which wins over the id |
//! | labels | metadata `LABELS` |
//! | locality | the node's `locality`; else where the objects say that its pod or `WorkloadEntry` is |
//! | interception | metadata `INTERCEPTION_MODE`: `NONE`, `REDIRECT` or `TPROXY`; `REDIRECT` where nothing is said |
//! | capture of names | metadata `DNS_CAPTURE`: `true` where the node's own name server answers its applications, so that services without an address are called at the one that is allocated to them. `DNS_AUTO_ALLOCATE`, which Istio asked for besides once, changes nothing, as in Istio since 1.25 |
//! | self-discovery | metadata `ENABLE_SELF_DISCOVERY`: `true` where the node's bootstrap has the EDS cluster `local_cluster`, whose endpoints are those that are like the node ([`Alike`](mesh_istio::Alike)); by metadata `WORKLOAD_NAME`, else labels and name, it is told what is of its workload |
//! | identity | metadata `MESH_IDENTITY`: `true` where the node has a certificate of the mesh, so that mutual TLS can be spoken; where nothing is said, Istio's agent is known by its `PROXY_CONFIG` and provides one (the cluster `sds-grpc` of its bootstrap) |
//! | generator | metadata `GENERATOR`: `grpc`, which is never intercepted, or nothing |
//!
//! A node whose `WorkloadEntry` has annotations of ours is what these say, whatever its metadata
//! says ([`Node`]). Without one, the same can be said in metadata; any of these means that
//! nothing is intercepted:
//!
//! | metadata | meaning |
//! |---|---|
//! | `MESH_BASE_PORT: "20100"` | 20100 is the admin port, 20101 the outbound proxy |
//! | `MESH_INBOUND: "9080=9180,9081=9181"` | a sidecar accepts on 9080, its application is on 9180 |
//! | `MESH_MAP_PORT: "80=8080"` | a Gateway's port 80 is accepted on 8080 |
//!
//! An id that is just `name.namespace` has no kind: it is a gateway if its labels match the
//! selector of a Gateway, and otherwise has to be described by a `WorkloadEntry`.

use mesh_core::model::Locality;
use mesh_istio::{Capture, Inbound, Node, Role, World, locality_of, parse_ports};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Which resources a node gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Generator {
    /// Those of a proxy.
    #[default]
    Proxy,
    /// Those of a gRPC client or server without a proxy.
    Grpc,
}

/// What a client of xDS is to us.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Described {
    /// The proxy as the compiler knows it.
    pub node: Node,
    /// Which resources it gets.
    pub generator: Generator,
}

/// Why a node is refused: what is wrong, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("node {id:?}: {message}")]
pub struct BadNode {
    id: String,
    message: String,
}

/// What is known of workloads.
pub(crate) trait Directory {
    /// The node that a `WorkloadEntry` describes, if it has annotations of ours.
    fn workload(&self, name: &str, namespace: &str) -> Option<Result<Node, String>>;

    /// Where the objects say that a workload runs.
    fn locality(&self, name: &str, namespace: &str) -> Locality;

    /// Whether a Gateway selects these labels.
    fn is_selected(&self, labels: &BTreeMap<String, String>) -> bool;
}

/// The metadata that counts; nodes that agree in it are the same to us.
const KEYS: [&str; 10] = [
    "DNS_CAPTURE",
    "ENABLE_SELF_DISCOVERY",
    "WORKLOAD_NAME",
    "MESH_IDENTITY",
    "NAMESPACE",
    "INTERCEPTION_MODE",
    "GENERATOR",
    "MESH_BASE_PORT",
    "MESH_INBOUND",
    "MESH_MAP_PORT",
];

/// What a client of xDS is, given the objects in force.
///
/// ```
/// use mesh_control::describe_node;
/// use mesh_istio::{Role, World};
/// use mesh_xds::Node;
///
/// let id = "router~10.0.0.1~ingress.istio-system~istio-system.svc.cluster.local";
/// let described = describe_node(&World::default(), &Node::new(id))?;
/// assert!(matches!(described.node.role, Role::Gateway { .. }));
/// # Ok::<(), mesh_control::BadNode>(())
/// ```
///
/// # Errors
/// If the node says something that cannot be, or not enough.
pub fn describe_node(world: &World, node: &mesh_xds::Node) -> Result<Described, BadNode> {
    describe(world, node)
}

/// A node from the command line: a whole id, or `NAME.NAMESPACE` for a workload that the objects
/// describe.
///
/// # Errors
/// If it is neither.
pub fn node_of(text: &str) -> Result<mesh_xds::Node, BadNode> {
    let node = mesh_xds::Node::new(text);
    names(&node)?;
    Ok(node)
}

/// A text that is the same for nodes that say the same, and different otherwise.
pub(crate) fn identity(node: &mesh_xds::Node) -> String {
    let said = KEYS.map(|key| node.text(key));
    let (at, labels) = (node.locality(), node.map("LABELS"));
    let agent = has_agent(node);
    format!("{}\n{said:?}\n{labels:?}\n{at:?}\n{agent}", node.id())
}

/// `name.namespace` of a node, or its id if it has none.
pub(crate) fn short_name(node: &mesh_xds::Node) -> String {
    match names(node) {
        Ok((name, namespace)) => format!("{name}.{namespace}"),
        Err(_) => node.id().to_owned(),
    }
}

pub(crate) fn describe(
    directory: &impl Directory,
    node: &mesh_xds::Node,
) -> Result<Described, BadNode> {
    let bad = |message: String| BadNode::new(node, message);
    let (name, namespace) = names(node)?;
    let generator = match node.text("GENERATOR") {
        None | Some("") => Generator::Proxy,
        Some("grpc") => Generator::Grpc,
        Some(other) => {
            return Err(bad(format!(
                "metadata GENERATOR: {other:?} is not supported; expected \"grpc\" or nothing"
            )));
        }
    };
    let says = |key: &str, usual: bool| match node.text(key) {
        None | Some("") => Ok(usual),
        Some(said) => truth(said).ok_or_else(|| {
            bad(format!(
                "metadata {key}: {said:?} is neither \"true\" nor \"false\""
            ))
        }),
    };
    let dns_capture = says("DNS_CAPTURE", false)?;
    let self_discovery = says("ENABLE_SELF_DISCOVERY", false)?;
    let identity = says("MESH_IDENTITY", has_agent(node))?;
    let workload = node.text("WORKLOAD_NAME").unwrap_or_default();
    let complete = |described: &mut Node| {
        let proxy = generator == Generator::Proxy;
        described.dns_capture = dns_capture && proxy;
        described.identity = identity && proxy;
        described.self_discovery = self_discovery && proxy;
        workload.clone_into(&mut described.workload);
    };
    let said = own_locality(node);
    if let Some(found) = directory.workload(&name, &namespace) {
        let mut node = found.map_err(bad)?;
        complete(&mut node);
        node.locality = said.unwrap_or(node.locality);
        return Ok(Described { node, generator });
    }
    let locality = said.unwrap_or_else(|| directory.locality(&name, &namespace));
    let labels = owned(&node.map("LABELS"));
    let gateway = match node.kind() {
        Some("sidecar") => false,
        Some("router") => true,
        Some(other) => {
            return Err(bad(format!(
                "nodes of type {other:?} are not supported; expected sidecar or router"
            )));
        }
        None if generator == Generator::Grpc => false,
        None if !labels.is_empty() && directory.is_selected(&labels) => true,
        None => {
            return Err(bad(format!(
                "no WorkloadEntry {name:?} in namespace {namespace:?} describes it (annotations \
                 mesh-rs.dev/base-port, mesh-rs.dev/inbound, mesh-rs.dev/role), and the id has no \
                 type; expected sidecar~IP~NAME.NAMESPACE~DOMAIN or router~…"
            )));
        }
    };
    let mut described = match gateway {
        true => Node::gateway(name, namespace),
        false => Node::sidecar(name, namespace),
    };
    described.labels = labels;
    complete(&mut described);
    described.locality = locality;
    if let (false, Some(text)) = (gateway, node.address()) {
        let address: Result<IpAddr, _> = text.parse();
        described.address =
            address.map_err(|_| bad(format!("{text:?} in the id is not an IP address")))?;
    }
    let own = ports(&mut described, node).map_err(bad)?;
    described.capture = match (node.text("INTERCEPTION_MODE"), own) {
        // Who has no proxy has nobody to intercept anything.
        _ if generator == Generator::Grpc => Capture::None,
        (Some("NONE"), _) | (None | Some(""), true) => Capture::None,
        (None | Some("" | "REDIRECT"), false) => Capture::Redirect,
        (Some("TPROXY"), false) => Capture::Tproxy,
        (Some(mode @ ("REDIRECT" | "TPROXY")), true) => {
            return Err(bad(format!(
                "metadata INTERCEPTION_MODE: {mode} does not go together with MESH_BASE_PORT, \
                 MESH_INBOUND and MESH_MAP_PORT, which are for nodes without interception"
            )));
        }
        (Some(other), _) => {
            return Err(bad(format!(
                "metadata INTERCEPTION_MODE: {other:?} is not NONE, REDIRECT or TPROXY"
            )));
        }
    };
    Ok(Described {
        node: described,
        generator,
    })
}

/// Whether Istio's agent started the node: it says with which settings.
fn has_agent(node: &mesh_xds::Node) -> bool {
    !node.map("PROXY_CONFIG").is_empty()
}

/// Where a node says itself that it is.
fn own_locality(node: &mesh_xds::Node) -> Option<Locality> {
    let said = node.locality().map(|(region, zone, sub_zone)| Locality {
        region: region.into(),
        zone: zone.into(),
        sub_zone: sub_zone.into(),
    });
    said.filter(|said| *said != Locality::default())
}

/// The namespace and name of the workload that says where a node is, if the node does not say it
/// itself.
pub(crate) fn workload_that_places(node: &mesh_xds::Node) -> Option<(String, String)> {
    if own_locality(node).is_some() {
        return None;
    }
    let (name, namespace) = names(node).ok()?;
    Some((namespace, name))
}

/// Reads the ports that metadata gives; whether it gives any.
fn ports(described: &mut Node, node: &mesh_xds::Node) -> Result<bool, String> {
    let mut any = false;
    if let Some(text) = node.text("MESH_BASE_PORT") {
        // One port follows it.
        let port = text
            .parse()
            .ok()
            .filter(|port| (1..u16::MAX).contains(port));
        let wrong = || format!("metadata MESH_BASE_PORT: {text:?} is not a port below 65535");
        described.base_port = Some(port.ok_or_else(wrong)?);
        any = true;
    }
    let pairs = |key: &str| {
        node.text(key).map(|text| {
            let wrong = || format!("metadata {key}: {text:?} is not a list of PORT=PORT");
            parse_ports(text).ok_or_else(wrong)
        })
    };
    let inbound_said = pairs("MESH_INBOUND").transpose()?;
    let map_said = pairs("MESH_MAP_PORT").transpose()?;
    any |= inbound_said.is_some() || map_said.is_some();
    match (&mut described.role, inbound_said, map_said) {
        (Role::Gateway { ports }, None, said) => ports.extend(said.unwrap_or_default()),
        (Role::Sidecar { inbound }, said, None) => {
            let each = said.unwrap_or_default().into_iter();
            inbound.extend(each.map(|(port, application)| Inbound { port, application }));
        }
        (Role::Gateway { .. }, Some(_), _) => {
            return Err("metadata MESH_INBOUND is for sidecars".to_owned());
        }
        (Role::Sidecar { .. }, _, Some(_)) => {
            return Err("metadata MESH_MAP_PORT is for gateways".to_owned());
        }
    }
    Ok(any)
}

/// A text that is a truth value, as Istio's agent writes them (Go's `strconv.ParseBool`).
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Name and namespace.
fn names(node: &mesh_xds::Node) -> Result<(String, String), BadNode> {
    let id = node.id();
    let plain = || {
        let (name, namespace) = id.rsplit_once('.')?;
        let ok = !name.is_empty() && !namespace.is_empty() && !id.contains('~');
        ok.then_some((name, namespace))
    };
    let Some((name, namespace)) = node.workload().or_else(plain) else {
        return Err(BadNode::new(
            node,
            "the id is not of the form TYPE~IP~NAME.NAMESPACE~DOMAIN, nor NAME.NAMESPACE"
                .to_owned(),
        ));
    };
    let said = node.text("NAMESPACE").filter(|text| !text.is_empty());
    Ok((name.to_owned(), said.unwrap_or(namespace).to_owned()))
}

fn owned(map: &BTreeMap<&str, &str>) -> BTreeMap<String, String> {
    map.iter()
        .map(|(&key, &value)| (key.to_owned(), value.to_owned()))
        .collect()
}

// === impl BadNode ===

impl BadNode {
    fn new(node: &mesh_xds::Node, message: String) -> Self {
        // It goes back to the client and into logs.
        let id = node.id().chars().take(256).collect();
        Self { id, message }
    }
}

// === impl Generator ===

impl fmt::Display for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proxy => "proxy",
            Self::Grpc => "grpc",
        })
    }
}

// === impl Directory ===

impl Directory for World {
    fn workload(&self, name: &str, namespace: &str) -> Option<Result<Node, String>> {
        Node::find(self, name, namespace)
            .map_err(|finding| finding.to_string())
            .transpose()
    }

    fn locality(&self, name: &str, namespace: &str) -> Locality {
        locality_of(self, namespace, name).unwrap_or_default()
    }

    fn is_selected(&self, labels: &BTreeMap<String, String>) -> bool {
        self.gateways().any(|(_, gateway)| {
            let mut selector = gateway.selector.iter();
            !gateway.selector.is_empty()
                && selector.all(|(key, value)| labels.get(key) == Some(value))
        })
    }
}

#[cfg(test)]
mod tests;
