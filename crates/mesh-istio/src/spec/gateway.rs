//! `Gateway`: ports and hosts that a gateway proxy serves.

use super::Spanned;
use super::common::{Bind, Selector, bind, is_host, is_server_name, no_port};
use crate::cursor::{Cursor, read};
use crate::diagnostic::Position;

mod tls;

pub use tls::{Callers, Security, Termination};

pub(super) use tls::read as read_tls;

/// The spec of a `Gateway`.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Labels of the proxies that serve it; empty is every gateway.
    pub selector: Selector,
    /// What they serve.
    pub servers: Vec<Server>,
}

/// One port and the hosts served there.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Where it starts.
    pub at: Position,
    /// Its port, as the outside sees it.
    pub port: u16,
    /// The port's name, or empty.
    pub port_name: String,
    /// The address to bind instead of all.
    pub bind: Option<Bind>,
    /// The hosts served.
    pub hosts: Vec<Spanned<ServerHost>>,
    /// What is spoken there.
    pub protocol: Protocol,
    /// How connections are secured.
    pub security: Security,
    /// Answer everything with a redirect to https.
    pub https_redirect: bool,
    /// The server's name, or empty.
    pub name: String,
}

/// What is spoken at a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2 in plain text.
    Http,
    /// The same inside TLS, which ends here unless it is passed on.
    Https,
    /// Anything inside TLS.
    Tls,
    /// Anything.
    Tcp,
}

/// `namespace/host` of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHost {
    /// Whose virtual services are taken: a namespace, `.` for the gateway's own, or `*`.
    pub namespace: String,
    /// A host name, a wildcard, or `*`.
    pub host: String,
}

impl Gateway {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let selector = fields.get("selector", read::string_map).unwrap_or_default();
        let servers = fields.list("servers", Server::read);
        if !fields.has("servers") {
            cursor.error("servers is missing");
        }
        fields.done();
        Some(Self { selector, servers })
    }
}

impl Server {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let bind = fields.get("bind", bind);
        let port = fields.need("port", |cursor| {
            let mut fields = cursor.fields()?;
            let number = match bind.as_ref() {
                // It may be left out where it has to be 0.
                Some(Bind::Unix(_)) => fields.get("number", no_port).or(Some(0)),
                _ => fields.need("number", read::port),
            };
            let name = fields.get("name", read::string).unwrap_or_default();
            let protocol = fields.need("protocol", protocol);
            fields.refuse(
                "targetPort",
                "the gateway's Service or --map-port says this",
            );
            fields.done();
            Some((number?, name, protocol?))
        });
        let hosts = fields.list("hosts", |host| host.spanned(ServerHost::read));
        if !fields.has("hosts") {
            cursor.error("hosts is missing");
        }
        let said = fields.has("tls");
        let tls = fields.get("tls", tls::read);
        fields.refuse("defaultEndpoint", "route to a service instead");
        let name = fields.get("name", read::string).unwrap_or_default();
        fields.done();
        let (port, port_name, protocol) = port?;
        // What was refused already is not judged again.
        let tls = if said { tls? } else { (Security::Plain, false) };
        check_security(cursor, protocol, said, &tls);
        let (security, https_redirect) = tls;
        let secured = matches!(protocol, Protocol::Https | Protocol::Tls);
        if let Some(host) = hosts.iter().find(|host| !is_server_name(&host.host))
            && secured
        {
            cursor.error(format!(
                "{:?} is not a TLS server name: \"*\" stands for whole labels",
                host.host
            ));
        }
        if protocol == Protocol::Https && port_name.is_empty() {
            cursor.error("port.name is missing: routes of HTTPS servers are called after it");
        }
        Some(Self {
            at: cursor.at(),
            port,
            port_name,
            bind,
            hosts,
            protocol,
            // `tls: {}` on an HTTP port says nothing.
            security: match protocol {
                Protocol::Http | Protocol::Tcp => Security::Plain,
                Protocol::Https | Protocol::Tls => security,
            },
            https_redirect,
            name,
        })
    }
}

fn protocol(cursor: &Cursor<'_>) -> Option<Protocol> {
    let name = cursor.filled()?.to_ascii_uppercase();
    Some(match name.as_str() {
        "HTTP" | "HTTP2" | "GRPC" => Protocol::Http,
        "HTTPS" => Protocol::Https,
        "TLS" => Protocol::Tls,
        "TCP" | "MONGO" => Protocol::Tcp,
        "GRPC-WEB" => {
            cursor.error("not supported: protocol GRPC-WEB is not translated to gRPC; write HTTP");
            return None;
        }
        _ => {
            cursor.error(format!(
                "{name:?} is not one of HTTP, HTTPS, HTTP2, GRPC, TLS, TCP and MONGO"
            ));
            return None;
        }
    })
}

/// What a port's protocol demands of the TLS settings.
fn check_security(
    cursor: &Cursor<'_>,
    protocol: Protocol,
    said: bool,
    (security, redirect): &(Security, bool),
) {
    let terminates = matches!(security, Security::Terminate(_));
    match protocol {
        Protocol::Https | Protocol::Tls if !said => {
            cursor.error("tls is missing: HTTPS and TLS need to know what to do with it");
        }
        Protocol::Https | Protocol::Tls if *redirect => {
            cursor.error("tls.httpsRedirect is for HTTP servers: this one is at https already");
        }
        Protocol::Http if said && (terminates || *security == Security::AutoPassthrough) => {
            cursor.error("HTTP servers have no TLS but httpsRedirect: write protocol HTTPS");
        }
        Protocol::Tcp if said => {
            cursor.error("TCP servers have no TLS: write protocol TLS");
        }
        _ => {}
    }
}

impl ServerHost {
    fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let text = cursor.filled()?.to_ascii_lowercase();
        let (namespace, host) = text.split_once('/').unwrap_or(("*", &text));
        if !is_host(host) || namespace.is_empty() {
            cursor.error(format!(
                "{text:?} is not a host name, with or without a namespace before it"
            ));
            return None;
        }
        Some(Self {
            namespace: namespace.to_owned(),
            host: host.to_owned(),
        })
    }
}
