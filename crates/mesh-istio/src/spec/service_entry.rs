//! `ServiceEntry` and `WorkloadEntry`: services and workloads that Kubernetes does not know.

use std::collections::BTreeMap;
use std::net::IpAddr;

use mesh_core::model::Cidr;

use super::common::{
    Selector, Visibility, export_to, host_name, is_host, is_server_name, selector,
};
use super::kubernetes::Protocol;
use super::virtual_service::subnet;
use super::{Meta, Spanned, strings};
use crate::cursor::{Cursor, read};
use crate::diagnostic::Position;

/// The spec of a `ServiceEntry`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceEntry {
    /// Its host names.
    pub hosts: Vec<Spanned<String>>,
    /// Its virtual addresses, which also serve as domains, and blocks of such.
    pub addresses: Vec<Cidr>,
    /// Its ports.
    pub ports: Vec<EntryPort>,
    /// How its endpoints become known.
    pub resolution: Resolution,
    /// Whether it is outside the mesh.
    pub external: bool,
    /// Endpoints written into it.
    pub endpoints: Vec<WorkloadEntry>,
    /// Workloads that are its endpoints.
    pub selector: Option<Selector>,
    /// Who sees it; `None` is the mesh's default.
    pub export_to: Option<Visibility>,
    /// Names of which its endpoints' certificates must have one, where a destination rule does
    /// not say.
    pub subject_alt_names: Vec<String>,
    /// Addresses that a controller allocated to its hosts (`status.addresses`).
    pub allocated: Vec<(String, IpAddr)>,
}

/// A port of a service entry.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryPort {
    /// Where it starts.
    pub at: Position,
    /// Its number.
    pub number: u16,
    /// Its name.
    pub name: String,
    /// What is spoken there.
    pub protocol: Protocol,
    /// The endpoints' port, where it differs.
    pub target: Option<u16>,
}

/// How the endpoints of a service entry become known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// They are written down.
    Static,
    /// By resolving names: every address is an endpoint.
    Dns,
    /// By resolving one name: connections go to one of its addresses.
    DnsRoundRobin,
    /// They are wherever connections were going to.
    None,
    /// By resolving the name that the caller asks for.
    DynamicDns,
}

/// The spec of a `WorkloadEntry`, also as it stands inside a service entry.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadEntry {
    /// Where it starts.
    pub at: Position,
    /// An IP address or a host name.
    pub address: String,
    /// Port by service port name.
    pub ports: BTreeMap<String, u16>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// `region/zone/subzone`, or empty.
    pub locality: String,
    /// Its share relative to others; 0 where not said.
    pub weight: u32,
    /// Its service account, or empty.
    pub service_account: String,
}

// Istio's own limit.
const MOST_HOSTS: usize = 256;

impl ServiceEntry {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let hosts = fields.list("hosts", |host| host.spanned(entry_host));
        if !fields.has("hosts") {
            cursor.error("hosts is missing");
        } else if hosts.len() > MOST_HOSTS {
            cursor.error(format!("more than {MOST_HOSTS} hosts"));
        }
        let addresses = fields.list("addresses", subnet);
        let ports = fields.list("ports", EntryPort::read);
        if !fields.has("ports") {
            cursor.error("ports is missing");
        }
        let external = fields.get("location", |cursor| {
            cursor.choice(&[("MESH_EXTERNAL", true), ("MESH_INTERNAL", false)])
        });
        let resolution = fields.get("resolution", resolution);
        // The first value of the enum, hence what proto-JSON makes of nothing.
        let resolution = match fields.has("resolution") {
            true => resolution,
            false => Some(Resolution::None),
        };
        let endpoints = fields.list("endpoints", WorkloadEntry::read);
        let selected = fields.get("workloadSelector", selector("labels"));
        let export_to = fields.get("exportTo", export_to);
        let subject_alt_names = fields.get("subjectAltNames", strings).unwrap_or_default();
        if fields.has("endpoints") && fields.has("workloadSelector") {
            cursor.error("endpoints and workloadSelector exclude one another");
        }
        fields.done();
        let resolution = resolution?;
        check_unique(cursor, &ports);
        check_addresses(cursor, resolution, &addresses);
        check_endpoints(cursor, resolution, &hosts, &endpoints);
        check_ports(cursor, &ports, &endpoints);
        let secured = ports.iter().any(|port| port.protocol == Protocol::Tls);
        if let Some(host) = hosts.iter().find(|host| !is_server_name(host))
            && secured
        {
            cursor.error(format!(
                "{:?} is not a TLS server name: \"*\" stands for whole labels",
                host.value
            ));
        }
        if selected.is_some() && matches!(resolution, Resolution::None | Resolution::DynamicDns) {
            cursor.error("workloadSelector needs resolution STATIC, DNS or DNS_ROUND_ROBIN");
        }
        Some(Self {
            hosts,
            addresses,
            ports,
            resolution,
            external: external.unwrap_or(true),
            endpoints,
            selector: selected,
            export_to,
            subject_alt_names,
            allocated: Vec::new(),
        })
    }

    /// Reads `status`: whatever is not an address for a host is as good as not there, since no
    /// user wrote it.
    pub(super) fn read_status(cursor: &Cursor<'_>) -> Option<Vec<(String, IpAddr)>> {
        Some(cursor.fields()?.list("addresses", |cursor| {
            let mut fields = cursor.fields()?;
            let address = fields.get("value", read::string)?.parse().ok()?;
            Some((fields.get("host", read::string)?, address))
        }))
    }

    /// Whether its hosts get addresses of their own, as Istio's controller has it: they have none,
    /// connections need not go where their address says, and nobody objects by the label
    /// `networking.istio.io/enable-autoallocate-ip: "false"`.
    pub fn wants_addresses(&self, meta: &Meta) -> bool {
        let said = meta
            .labels
            .get("networking.istio.io/enable-autoallocate-ip");
        self.addresses.is_empty()
            && self.resolution != Resolution::None
            && said.is_none_or(|said| !said.eq_ignore_ascii_case("false"))
    }

    /// The same for one of its hosts: a wildcard needs an address only where the name that is
    /// called decides.
    pub fn host_wants_addresses(&self, meta: &Meta, host: &str) -> bool {
        let fits = !host.starts_with('*') || self.resolution == Resolution::DynamicDns;
        fits && self.wants_addresses(meta)
    }
}

fn check_unique(cursor: &Cursor<'_>, ports: &[EntryPort]) {
    for (index, port) in ports.iter().enumerate() {
        let earlier = &ports[..index];
        if earlier.iter().any(|one| one.number == port.number) {
            cursor.error(format!("port {} given twice", port.number));
        }
        if earlier.iter().any(|one| one.name == port.name) {
            cursor.error(format!("port name {:?} given twice", port.name));
        }
    }
}

/// Blocks of addresses tell connections apart; nothing can be looked up in them.
fn check_addresses(cursor: &Cursor<'_>, resolution: Resolution, addresses: &[Cidr]) {
    let block = addresses.iter().find(|address| !address.is_single());
    let plain = matches!(resolution, Resolution::None | Resolution::Static);
    if let (Some(block), false) = (block, plain) {
        cursor.error(format!(
            "addresses: the block {block} needs resolution NONE or STATIC"
        ));
    }
    if resolution == Resolution::DynamicDns && !addresses.is_empty() {
        cursor.error("addresses and resolution DYNAMIC_DNS exclude one another");
    }
}

/// The ports of endpoints are named after those of the service.
fn check_ports(cursor: &Cursor<'_>, ports: &[EntryPort], endpoints: &[WorkloadEntry]) {
    for name in endpoints.iter().flat_map(|one| one.ports.keys()) {
        if ports.iter().all(|port| port.name != *name) {
            cursor.error(format!(
                "an endpoint has a port {name:?}, which is none of the ports"
            ));
        }
    }
}

fn check_endpoints(
    cursor: &Cursor<'_>,
    resolution: Resolution,
    hosts: &[Spanned<String>],
    endpoints: &[WorkloadEntry],
) {
    match resolution {
        Resolution::Static => {
            if let Some(named) = endpoints
                .iter()
                .find(|one| one.address.parse::<IpAddr>().is_err())
            {
                cursor.error(format!(
                    "endpoint {:?} is not an IP address, which resolution STATIC needs",
                    named.address,
                ));
            }
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            let wild = hosts.iter().any(|host| host.starts_with('*'));
            if wild && endpoints.is_empty() {
                cursor.error("a wildcard host cannot be resolved: endpoints are missing");
            }
            if resolution == Resolution::DnsRoundRobin && endpoints.len() > 1 {
                cursor.error("resolution DNS_ROUND_ROBIN takes one endpoint at most");
            }
        }
        Resolution::None if !endpoints.is_empty() => {
            cursor.error("endpoints and resolution NONE exclude one another");
        }
        Resolution::DynamicDns => {
            if !endpoints.is_empty() {
                cursor.error("endpoints and resolution DYNAMIC_DNS exclude one another");
            }
            if let Some(exact) = hosts.iter().find(|host| !host.starts_with('*')) {
                cursor.error(format!(
                    "resolution DYNAMIC_DNS is for wildcard hosts; {:?} is none: write DNS",
                    exact.value
                ));
            }
        }
        Resolution::None => {}
    }
}

fn entry_host(cursor: &Cursor<'_>) -> Option<String> {
    let host = host_name(cursor)?;
    if host == "*" {
        cursor.error("\"*\" would take every host there is");
        return None;
    }
    Some(host)
}

fn resolution(cursor: &Cursor<'_>) -> Option<Resolution> {
    cursor.choice(&[
        ("NONE", Resolution::None),
        ("STATIC", Resolution::Static),
        ("DNS", Resolution::Dns),
        ("DNS_ROUND_ROBIN", Resolution::DnsRoundRobin),
        ("DYNAMIC_DNS", Resolution::DynamicDns),
    ])
}

impl EntryPort {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let number = fields.need("number", read::port);
        let name = fields.need("name", read::filled);
        let protocol = fields.need("protocol", |cursor| {
            let name = cursor.filled()?;
            let known = Protocol::named(&name).filter(|known| *known != Protocol::Udp);
            if known.is_none() {
                cursor.error(format!(
                    "{name:?} is not one of HTTP, HTTP2, GRPC, HTTPS, TLS, TCP and MONGO"
                ));
            }
            known
        });
        let target = fields.get("targetPort", read::port);
        fields.done();
        Some(Self {
            at: cursor.at(),
            number: number?,
            name: name?,
            protocol: protocol?,
            target,
        })
    }
}

impl WorkloadEntry {
    /// The labels of a `WorkloadEntry` of its own: those of its metadata count too, and win.
    pub fn all_labels(&self, meta: &Meta) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        labels.extend(meta.labels.clone());
        labels
    }

    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let address = fields.need("address", |cursor| {
            let address = cursor.filled()?;
            if address.starts_with("unix:") {
                cursor.error("not supported: unix sockets");
                return None;
            }
            if address.parse::<IpAddr>().is_err() && (!is_host(&address) || address.contains('*')) {
                cursor.error(format!(
                    "{address:?} is neither an IP address nor a host name"
                ));
                return None;
            }
            Some(address)
        });
        let ports = fields.entries("ports", |name, port| Some((name.to_owned(), port.port()?)));
        let labels = fields.get("labels", read::string_map).unwrap_or_default();
        let locality = fields.get("locality", read::string).unwrap_or_default();
        let weight = fields.get("weight", read::u32).unwrap_or_default();
        let service_account = fields
            .get("serviceAccount", read::string)
            .unwrap_or_default();
        fields.get("network", |cursor| {
            let name = cursor.string()?;
            if !name.is_empty() {
                cursor.error("not supported: meshes of several networks");
            }
            Some(())
        });
        fields.done();
        Some(Self {
            at: cursor.at(),
            address: address?,
            ports: ports.into_iter().collect(),
            labels,
            locality,
            weight,
            service_account,
        })
    }
}
