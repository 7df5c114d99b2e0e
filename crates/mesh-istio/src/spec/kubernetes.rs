//! The Kubernetes kinds that make up the registry. Only what matters to a mesh
//! is read; the dozens of other fields are none of our business.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::cursor::{Cursor, read};

mod endpoints;
mod secret;

pub use endpoints::{Endpoints, SliceEndpoint, SlicePort};
pub use secret::Secret;

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC.
    Grpc,
    /// Not said; it will be seen.
    Unknown,
    /// TLS that is not terminated here.
    Tls,
    /// Anything else over TCP.
    Tcp,
    /// Not TCP at all.
    Udp,
}

/// The spec of a `Service`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Labels of its pods; empty means that somebody else writes its endpoints.
    pub selector: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// Its virtual addresses.
    pub addresses: Vec<IpAddr>,
    /// It has no virtual address (`clusterIP: None`).
    pub headless: bool,
    /// It stands for this outside name (`type: ExternalName`).
    pub external_name: Option<String>,
    /// Its endpoints may be used before they are ready.
    pub publish_not_ready: bool,
    /// Which endpoints callers prefer (`trafficDistribution`), or empty.
    pub distribution: String,
}

/// A port of a [`Service`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, or empty.
    pub name: String,
    /// The number clients use.
    pub number: u16,
    /// The pods' port.
    pub target: TargetPort,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// The port of a pod that a service port leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// By number.
    Number(u16),
    /// By the name of a container port.
    Name(String),
}

/// What of a `Pod` matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Named container ports.
    pub ports: BTreeMap<String, u16>,
    /// Its service account, or empty.
    pub service_account: String,
    /// The machine that it runs on, or empty.
    pub node: String,
    /// Whether it is ready, as far as its status says.
    pub ready: bool,
    /// Whether it has run to its end.
    pub finished: bool,
    /// Its own name below that of the headless service `subdomain`, or empty.
    pub hostname: String,
    /// The headless service below whose name it has one, or empty.
    pub subdomain: String,
}

// === impl Protocol ===

impl Protocol {
    /// The protocol with this name, in any case: `HTTP`, `http2`, `kubernetes.io/h2c`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "http" | "grpc-web" | "kubernetes.io/ws" => Self::Http,
            "http2" | "kubernetes.io/h2c" => Self::Http2,
            "grpc" => Self::Grpc,
            "https" | "tls" | "kubernetes.io/wss" => Self::Tls,
            "tcp" | "mongo" | "redis" | "mysql" => Self::Tcp,
            "udp" => Self::Udp,
            _ => return None,
        })
    }

    /// The protocol of a service port: `appProtocol` first, then its name up to the first dash.
    pub fn of_port(name: &str, app_protocol: Option<&str>, transport: Option<&str>) -> Self {
        if matches!(transport, Some("UDP" | "SCTP")) {
            return Self::Udp;
        }
        if let Some(app) = app_protocol {
            return Self::named(app).unwrap_or(Self::Unknown);
        }
        if name.to_ascii_lowercase().starts_with("grpc-web") {
            return Self::Http;
        }
        let prefix = name.split_once('-').map_or(name, |(prefix, _)| prefix);
        match Self::named(prefix) {
            // A UDP name on a TCP port says nothing about the port.
            Some(Self::Udp) | None => Self::Unknown,
            Some(protocol) => protocol,
        }
    }

    /// Whether it can be routed as HTTP; a port that does not say is tried.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::Unknown)
    }

    /// Whether HTTP/2 is spoken from the first byte.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc)
    }
}

// === impl Service ===

impl Service {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let mut service = Self {
            selector: fields.get("selector", read::string_map).unwrap_or_default(),
            ports: fields.list("ports", ServicePort::read),
            publish_not_ready: fields
                .get("publishNotReadyAddresses", read::bool)
                .unwrap_or_default(),
            distribution: fields
                .get("trafficDistribution", read::string)
                .unwrap_or_default(),
            ..Self::default()
        };
        let kind = fields.get("type", read::string).unwrap_or_default();
        if kind == "ExternalName" {
            service.external_name = fields.need("externalName", read::filled);
        }
        let mut addresses = fields.list("clusterIPs", read::string);
        addresses.extend(fields.get("clusterIP", read::string));
        service.headless = addresses.iter().any(|address| address == "None");
        service.addresses = addresses
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect();
        service.addresses.dedup();
        for (index, port) in service.ports.iter().enumerate() {
            let earlier = &service.ports[..index];
            if earlier
                .iter()
                .any(|one| one.number == port.number && one.is_tcp() && port.is_tcp())
            {
                cursor.error(format!("port {} given twice", port.number));
            }
            if earlier.iter().any(|one| one.name == port.name) {
                cursor.error(match port.name.as_str() {
                    "" => "ports need names where there are several".to_owned(),
                    name => format!("port name {name:?} given twice"),
                });
            }
        }
        Some(service)
    }
}

impl ServicePort {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let number = fields.need("port", read::port)?;
        let name = fields.get("name", read::string).unwrap_or_default();
        let app = fields.get("appProtocol", read::string);
        let transport = fields.get("protocol", read::string);
        let target = fields.get("targetPort", |cursor| {
            let text = cursor.node().text()?;
            if text.bytes().all(|b| b.is_ascii_digit()) {
                // Kubernetes fills 0 in for "the same".
                return if text == "0" {
                    None
                } else {
                    cursor.port().map(TargetPort::Number)
                };
            }
            Some(TargetPort::Name(text.to_owned()))
        });
        let protocol = Protocol::of_port(&name, app.as_deref(), transport.as_deref());
        Some(Self {
            name,
            number,
            target: target.unwrap_or(TargetPort::Number(number)),
            protocol,
        })
    }

    fn is_tcp(&self) -> bool {
        self.protocol != Protocol::Udp
    }
}

// === impl Pod ===

impl Pod {
    /// Reads `spec` and `status` from the whole object.
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut pod = Self {
            ready: true,
            ..Self::default()
        };
        let mut fields = cursor.fields()?;
        fields.get("spec", |cursor| {
            let mut fields = cursor.fields()?;
            pod.service_account = fields
                .get("serviceAccountName", read::string)
                .unwrap_or_default();
            pod.hostname = fields.get("hostname", read::string).unwrap_or_default();
            pod.subdomain = fields.get("subdomain", read::string).unwrap_or_default();
            pod.node = fields.get("nodeName", read::string).unwrap_or_default();
            let ports = fields.list("containers", |container| {
                let mut fields = container.fields()?;
                Some(fields.list("ports", |port| {
                    let mut fields = port.fields()?;
                    let name = fields.get("name", read::string)?;
                    Some((name, fields.need("containerPort", read::port)?))
                }))
            });
            pod.ports = ports.into_iter().flatten().collect();
            Some(())
        });
        fields.get("status", |cursor| {
            let mut fields = cursor.fields()?;
            let addresses = fields.list("podIPs", |cursor| cursor.fields()?.get("ip", read::ip));
            pod.addresses = addresses;
            if let Some(address) = fields.get("podIP", read::ip)
                && !pod.addresses.contains(&address)
            {
                pod.addresses.insert(0, address);
            }
            let phase = fields.get("phase", read::string).unwrap_or_default();
            pod.finished = matches!(phase.as_str(), "Succeeded" | "Failed");
            let conditions = fields.list("conditions", |condition| {
                let mut fields = condition.fields()?;
                let name = fields.get("type", read::string)?;
                Some((name, fields.get("status", read::string)?))
            });
            let ready = conditions.iter().find(|(name, _)| name == "Ready");
            pod.ready = ready.is_none_or(|(_, status)| status == "True");
            Some(())
        });
        Some(pod)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_protocol_comes_from_app_protocol_or_the_name() {
        for (name, app, transport, expected) in [
            ("http", None, None, Protocol::Http),
            ("http-web", None, Some("TCP"), Protocol::Http),
            ("HTTP2-x", None, None, Protocol::Http2),
            ("grpc", None, None, Protocol::Grpc),
            ("grpc-web-x", None, None, Protocol::Http),
            ("web", None, None, Protocol::Unknown),
            ("", None, None, Protocol::Unknown),
            ("tcp-feed", None, None, Protocol::Tcp),
            ("https", None, None, Protocol::Tls),
            ("http", None, Some("UDP"), Protocol::Udp),
            ("tcp", Some("kubernetes.io/h2c"), None, Protocol::Http2),
            ("http", Some("example.com/odd"), None, Protocol::Unknown),
            ("udp-x", None, None, Protocol::Unknown),
        ] {
            assert_eq!(
                Protocol::of_port(name, app, transport),
                expected,
                "{name} {app:?}"
            );
        }
    }
}
