//! `ServiceEntry` and `WorkloadEntry`: services and workloads that Kubernetes does not know.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::common::{Selector, Visibility, export_to, host_name, is_host, selector};
use super::kubernetes::Protocol;
use super::{Meta, Spanned};
use crate::cursor::{Cursor, read};
use crate::diagnostic::Position;

/// The spec of a `ServiceEntry`.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceEntry {
    /// Its host names.
    pub hosts: Vec<Spanned<String>>,
    /// Its virtual addresses, which also serve as domains.
    pub addresses: Vec<IpAddr>,
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
    /// By resolving names.
    Dns,
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
        let addresses = fields.list("addresses", |cursor| {
            if cursor.node().text().is_some_and(|text| text.contains('/')) {
                cursor.error("not supported: address ranges need intercepted connections");
                return None;
            }
            cursor.ip()
        });
        let ports = fields.list("ports", EntryPort::read);
        if !fields.has("ports") {
            cursor.error("ports is missing");
        }
        let external = fields.get("location", |cursor| {
            cursor.choice(&[("MESH_EXTERNAL", true), ("MESH_INTERNAL", false)])
        });
        let resolution = fields.get("resolution", resolution);
        if !fields.has("resolution") {
            cursor.error("resolution is missing, which means NONE, and that is not supported yet");
        }
        let endpoints = fields.list("endpoints", WorkloadEntry::read);
        let selected = fields.get("workloadSelector", selector("labels"));
        let export_to = fields.get("exportTo", export_to);
        fields.later("subjectAltNames", "they come with mutual TLS");
        if fields.has("endpoints") && fields.has("workloadSelector") {
            cursor.error("endpoints and workloadSelector exclude one another");
        }
        fields.done();
        let resolution = resolution?;
        check_unique(cursor, &ports);
        check_endpoints(cursor, resolution, &hosts, &endpoints);
        Some(Self {
            hosts,
            addresses,
            ports,
            resolution,
            external: external.unwrap_or(true),
            endpoints,
            selector: selected,
            export_to,
        })
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
        Resolution::Dns => {
            let wild = hosts.iter().any(|host| host.starts_with('*'));
            if wild && endpoints.is_empty() {
                cursor.error("a wildcard host cannot be resolved: endpoints are missing");
            }
        }
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
    let name = cursor.string()?;
    if matches!(name.as_str(), "NONE" | "DNS_ROUND_ROBIN" | "DYNAMIC_DNS") {
        cursor.error(format!(
            "not supported yet: resolution {name}; STATIC and DNS are"
        ));
        return None;
    }
    cursor.choice(&[("STATIC", Resolution::Static), ("DNS", Resolution::Dns)])
}

impl EntryPort {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let number = fields.need("number", read::port);
        let name = fields.need("name", read::filled);
        let protocol = fields.need("protocol", |cursor| {
            let name = cursor.filled()?;
            match Protocol::named(&name) {
                Some(protocol) if protocol.is_http() => Some(protocol),
                Some(_) => {
                    cursor.error(format!(
                        "not supported yet: protocol {name}; HTTP, HTTP2 and GRPC are"
                    ));
                    None
                }
                None => {
                    cursor.error(format!("{name:?} is not one of HTTP, HTTP2 and GRPC"));
                    None
                }
            }
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
