//! `Sidecar`: what a sidecar accepts and what it can see.

use std::net::{IpAddr, SocketAddr};

use mesh_core::model::Address;

use super::Spanned;
use super::common::{Bind, Selector, bind, no_port, selector, unix};
use super::gateway::{self, Callers, Security, Termination};
use super::kubernetes::Protocol;
use super::traffic_policy::ConnectionPool;
use crate::cursor::{Cursor, read};
use crate::diagnostic::Position;
use crate::yaml::Node;

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
    /// What is spoken there.
    pub protocol: Protocol,
    /// The address to bind instead of the workload's.
    pub bind: Option<IpAddr>,
    /// How connections come to it.
    pub capture: CaptureMode,
    /// Where the application listens.
    pub endpoint: Option<Address>,
    /// Limits towards the application.
    pub pool: Option<ConnectionPool>,
    /// TLS of callers outside of the mesh; needs a `PeerAuthentication` that takes no mutual TLS
    /// there. The protocol is then what is inside.
    pub tls: Option<Box<Termination>>,
}

/// What a sidecar can reach, for all ports or for one.
#[derive(Clone, Debug, PartialEq)]
pub struct Egress {
    /// Where it starts.
    pub at: Position,
    /// The port to listen on; `None` covers every other port.
    pub port: Option<EgressPort>,
    /// The address to bind.
    pub bind: Option<Bind>,
    /// How connections come to it.
    pub capture: CaptureMode,
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
    /// What is spoken there.
    pub protocol: Protocol,
}

/// How connections come to a listener of a `Sidecar`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CaptureMode {
    /// As to the proxy as a whole.
    #[default]
    Default,
    /// They are intercepted.
    Iptables,
    /// Callers call it.
    None,
}

/// What is spoken on a port of a `Sidecar`.
#[derive(Clone, Copy, PartialEq)]
enum Spoken {
    Protocol(Protocol),
    Proxy,
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
        for (index, one) in egress.iter().enumerate() {
            let same = |earlier: &Egress| earlier.bind == one.bind;
            if matches!(one.bind, Some(Bind::Unix(_))) && egress[..index].iter().any(same) {
                cursor.error("each egress listener needs a Unix domain socket of its own");
            }
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
fn sidecar_port(cursor: &Cursor<'_>, bind: Option<&Bind>) -> Option<(u16, Spoken)> {
    let mut fields = cursor.fields()?;
    let number = match bind {
        // It may be left out where it has to be 0.
        Some(Bind::Unix(_)) => fields.get("number", no_port).or(Some(0)),
        _ => fields.need("number", read::port),
    };
    let spoken = fields.need("protocol", |cursor| {
        let name = cursor.filled()?.to_ascii_uppercase();
        if name == "HTTP_PROXY" {
            return Some(Spoken::Proxy);
        }
        let known = Protocol::named(&name).filter(|known| *known != Protocol::Udp);
        if known.is_none() {
            cursor.error(format!(
                "{name:?} is not one of HTTP, HTTP2, GRPC, HTTPS, TLS, TCP, MONGO and HTTP_PROXY"
            ));
        }
        known.map(Spoken::Protocol)
    });
    fields.ignore("name");
    fields.refuse("targetPort", "defaultEndpoint says this");
    fields.done();
    Some((number?, spoken?))
}

/// How connections come to a listener: as to the proxy as a whole, or as it says.
fn capture_mode(cursor: &Cursor<'_>) -> Option<CaptureMode> {
    cursor.choice(&[
        ("DEFAULT", CaptureMode::Default),
        ("IPTABLES", CaptureMode::Iptables),
        ("NONE", CaptureMode::None),
    ])
}

/// Where the application listens: an address, or a Unix domain socket.
fn default_endpoint(cursor: &Cursor<'_>) -> Option<Address> {
    let text = cursor.filled()?;
    match (unix(&text), text.parse::<SocketAddr>()) {
        (Some(Ok(path)), _) => Some(Address::Unix(path)),
        (Some(Err(message)), _) => {
            cursor.error(message);
            None
        }
        (None, Ok(address)) => Some(Address::Socket(address)),
        (None, Err(_)) => {
            cursor.error(format!("{text:?} is not an address such as 127.0.0.1:8080"));
            None
        }
    }
}

impl Ingress {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let port = fields.need("port", |cursor| match sidecar_port(cursor, None)? {
            (number, Spoken::Protocol(protocol)) => Some((number, protocol)),
            (_, Spoken::Proxy) => {
                cursor.error("HTTP_PROXY is for egress listeners");
                None
            }
        });
        let bind = fields.get("bind", |cursor| cursor.ip());
        let capture = fields.get("captureMode", capture_mode).unwrap_or_default();
        let endpoint = fields.get("defaultEndpoint", default_endpoint);
        let spoken = fields.peek("port").and_then(|port| port.get("protocol"));
        let https = spoken
            .and_then(Node::text)
            .is_some_and(|name| name.eq_ignore_ascii_case("HTTPS"));
        let tls = fields.get("tls", ingress_tls);
        let pool = fields.get("connectionPool", ConnectionPool::read);
        fields.done();
        let (port, mut protocol) = port?;
        if tls.is_some() && protocol == Protocol::Tls {
            protocol = match https {
                true => Protocol::Http,
                false => Protocol::Tcp,
            };
        }
        Some(Self {
            at: cursor.at(),
            port,
            protocol,
            bind,
            capture,
            endpoint,
            pool,
            tls,
        })
    }
}

/// TLS of callers outside of the mesh: `SIMPLE` or `MUTUAL`.
fn ingress_tls(cursor: &Cursor<'_>) -> Option<Box<Termination>> {
    let (security, redirect) = gateway::read_tls(cursor)?;
    if redirect {
        cursor.error("httpsRedirect is for gateways");
    }
    match security {
        Security::Terminate(asked) if !asked.mesh && asked.callers != Callers::MayShow => {
            Some(asked)
        }
        _ => {
            cursor.error("mode has to be SIMPLE or MUTUAL");
            None
        }
    }
}

impl Egress {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let bind = fields.get("bind", bind);
        let port = fields.get("port", |cursor| sidecar_port(cursor, bind.as_ref()));
        let capture = fields.get("captureMode", capture_mode).unwrap_or_default();
        if let Some(Bind::Unix(_)) = bind {
            if capture == CaptureMode::Iptables {
                cursor.error("captureMode has to be DEFAULT or NONE for a Unix domain socket");
            }
            let bytes = |(_, spoken): (u16, Spoken)| match spoken {
                Spoken::Protocol(protocol) => !protocol.is_http(),
                Spoken::Proxy => false,
            };
            if port.is_some_and(bytes) {
                cursor.error(
                    "bind: not supported: a Unix domain socket for anything but HTTP, HTTP2, GRPC \
                     and HTTP_PROXY",
                );
            }
        }
        let hosts = fields.list("hosts", |host| host.spanned(EgressHost::read));
        if !fields.has("hosts") {
            cursor.error("hosts is missing");
        }
        if bind.is_some() && !fields.has("port") {
            cursor.error("bind needs a port");
        }
        fields.done();
        let port = port.map(|(number, spoken)| EgressPort {
            number,
            proxy: spoken == Spoken::Proxy,
            protocol: match spoken {
                Spoken::Proxy => Protocol::Http,
                Spoken::Protocol(protocol) => protocol,
            },
        });
        Some(Self {
            at: cursor.at(),
            port,
            bind,
            capture,
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
