//! `Sidecar`: what a sidecar accepts and what it can see.

use std::net::{IpAddr, SocketAddr};

use super::Spanned;
use super::common::{Selector, selector};
use super::traffic_policy::ConnectionPool;
use crate::cursor::{Cursor, read};
use crate::diagnostic::Position;

/// The spec of a `Sidecar`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sidecar {
    /// The workloads it is for; `None` is all of its namespace.
    pub selector: Option<Selector>,
    /// What they accept, instead of what their services say.
    pub ingress: Vec<Ingress>,
    /// What they can reach; empty is everything.
    pub egress: Vec<Egress>,
    /// Limits towards the application.
    pub inbound_pool: Option<ConnectionPool>,
    /// What happens to unknown hosts; `None` is the mesh's default.
    pub outbound: Option<OutboundPolicy>,
}

/// A port that a sidecar accepts on.
#[derive(Clone, Debug, PartialEq)]
pub struct Ingress {
    /// Where it starts.
    pub at: Position,
    /// The port.
    pub port: u16,
    /// The address to bind instead of the workload's.
    pub bind: Option<IpAddr>,
    /// Where the application listens.
    pub endpoint: Option<SocketAddr>,
    /// Limits towards the application.
    pub pool: Option<ConnectionPool>,
}

/// What a sidecar can reach, for all ports or for one.
#[derive(Clone, Debug, PartialEq)]
pub struct Egress {
    /// Where it starts.
    pub at: Position,
    /// The port to listen on; `None` covers every other port.
    pub port: Option<EgressPort>,
    /// The address to bind.
    pub bind: Option<IpAddr>,
    /// The services that can be reached.
    pub hosts: Vec<Spanned<EgressHost>>,
}

/// The port of an egress listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EgressPort {
    /// Its number.
    pub number: u16,
    /// Serves every service by authority, instead of those with this port.
    pub proxy: bool,
}

/// `namespace/host` of an egress listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressHost {
    /// A namespace, `.` for the sidecar's own, `*` for any, `~` for none.
    pub namespace: String,
    /// A host name, a wildcard, or `*`.
    pub host: String,
    /// Taken away from what the other entries allow (`~namespace/host`).
    pub exclude: bool,
}

/// What happens to requests for hosts that no service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundPolicy {
    /// They are forwarded.
    AllowAny,
    /// They are answered 502.
    RegistryOnly,
}

impl Sidecar {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let selected = fields.get("workloadSelector", selector("labels"));
        let ingress = fields.list("ingress", Ingress::read);
        let egress = fields.list("egress", Egress::read);
        let inbound_pool = fields.get("inboundConnectionPool", ConnectionPool::read);
        let outbound = fields.get("outboundTrafficPolicy", outbound_policy);
        fields.done();
        let portless = egress.iter().position(|listener| listener.port.is_none());
        if portless.is_some_and(|index| index + 1 < egress.len()) {
            cursor.error("an egress listener without a port covers the rest, so it comes last");
        }
        Some(Self {
            selector: selected.filter(|labels| !labels.is_empty()),
            ingress,
            egress,
            inbound_pool,
            outbound,
        })
    }
}

/// `{mode: ALLOW_ANY}`, of a Sidecar or of the mesh.
pub(super) fn outbound_policy(cursor: &Cursor<'_>) -> Option<OutboundPolicy> {
    let mut fields = cursor.fields()?;
    let mode = fields.get("mode", |cursor| {
        if cursor.node().text() == Some("ALLOW_ANY_DYNAMIC_DNS") {
            cursor.error("not supported: write ALLOW_ANY, which forwards by authority here");
            return None;
        }
        cursor.choice(&[
            ("ALLOW_ANY", OutboundPolicy::AllowAny),
            ("REGISTRY_ONLY", OutboundPolicy::RegistryOnly),
        ])
    });
    fields.later("egressProxy", "an egress proxy comes with the gateways");
    let said = fields.has("mode");
    fields.done();
    // The first value of the enum, hence what proto-JSON makes of `{}`.
    if said {
        mode
    } else {
        Some(OutboundPolicy::RegistryOnly)
    }
}

/// A port's number and protocol; the other fields have no effect here.
fn sidecar_port(cursor: &Cursor<'_>) -> Option<(u16, bool)> {
    let mut fields = cursor.fields()?;
    let number = fields.need("number", read::port);
    let proxy = fields.need("protocol", |cursor| {
        let name = cursor.filled()?.to_ascii_uppercase();
        match name.as_str() {
            "HTTP" | "HTTP2" | "GRPC" => Some(false),
            "HTTP_PROXY" => Some(true),
            _ => {
                cursor.error(format!(
                    "not supported yet: protocol {name}; HTTP, HTTP2, GRPC and HTTP_PROXY are"
                ));
                None
            }
        }
    });
    fields.ignore("name");
    fields.refuse("targetPort", "defaultEndpoint says this");
    fields.done();
    Some((number?, proxy?))
}

/// Connections are not intercepted, so `DEFAULT` means `NONE` here.
fn capture_mode(cursor: &Cursor<'_>) -> Option<()> {
    match cursor.string()?.as_str() {
        "NONE" | "DEFAULT" => Some(()),
        "IPTABLES" => {
            cursor.error("not supported yet: captureMode IPTABLES; NONE is");
            None
        }
        other => {
            cursor.error(format!("{other:?} is not one of NONE and DEFAULT"));
            None
        }
    }
}

fn bind(cursor: &Cursor<'_>) -> Option<IpAddr> {
    if cursor
        .node()
        .text()
        .is_some_and(|text| text.starts_with("unix:"))
    {
        cursor.error("not supported: unix sockets");
        return None;
    }
    cursor.ip()
}

impl Ingress {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let port = fields.need("port", |cursor| {
            let (number, proxy) = sidecar_port(cursor)?;
            if proxy {
                cursor.error("HTTP_PROXY is for egress listeners");
                return None;
            }
            Some(number)
        });
        let bind = fields.get("bind", bind);
        fields.get("captureMode", capture_mode);
        let endpoint = fields.get("defaultEndpoint", |cursor| {
            let text = cursor.filled()?;
            let parsed = text.parse::<SocketAddr>().ok();
            if parsed.is_none() {
                cursor.error(format!("{text:?} is not an address such as 127.0.0.1:8080"));
            }
            parsed
        });
        fields.later("tls", "sidecars serve plain HTTP so far");
        let pool = fields.get("connectionPool", ConnectionPool::read);
        fields.done();
        Some(Self {
            at: cursor.at(),
            port: port?,
            bind,
            endpoint,
            pool,
        })
    }
}

impl Egress {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let port = fields.get("port", sidecar_port);
        let bind = fields.get("bind", bind);
        fields.get("captureMode", capture_mode);
        let hosts = fields.list("hosts", |host| host.spanned(EgressHost::read));
        if !fields.has("hosts") {
            cursor.error("hosts is missing");
        }
        if bind.is_some() && !fields.has("port") {
            cursor.error("bind needs a port");
        }
        fields.done();
        let port = port.map(|(number, proxy)| EgressPort { number, proxy });
        Some(Self {
            at: cursor.at(),
            port,
            bind,
            hosts,
        })
    }
}

impl EgressHost {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let text = cursor.filled()?.to_ascii_lowercase();
        let Some((namespace, host)) = text.split_once('/') else {
            cursor.error(format!(
                "{text:?} needs a namespace: namespace/host, ./host or */host"
            ));
            return None;
        };
        let (namespace, exclude) = match namespace.strip_prefix('~') {
            Some("") | None => (namespace, false),
            Some(rest) => (rest, true),
        };
        if namespace.is_empty() || !super::common::is_host(host) {
            cursor.error(format!("{text:?} is not namespace/host"));
            return None;
        }
        Some(Self {
            namespace: namespace.to_owned(),
            host: host.to_owned(),
            exclude,
        })
    }
}
