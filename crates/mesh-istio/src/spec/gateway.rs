//! `Gateway`: ports and hosts that a gateway proxy serves.

use std::net::IpAddr;

use super::Spanned;
use super::common::{Selector, is_host};
use crate::cursor::{Cursor, read};
use crate::diagnostic::Position;

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
    pub bind: Option<IpAddr>,
    /// The hosts served.
    pub hosts: Vec<Spanned<ServerHost>>,
    /// Answer everything with a redirect to https.
    pub https_redirect: bool,
    /// The server's name, or empty.
    pub name: String,
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
        let port = fields.need("port", |cursor| {
            let mut fields = cursor.fields()?;
            let number = fields.need("number", read::port);
            let name = fields.get("name", read::string).unwrap_or_default();
            fields.need("protocol", protocol);
            fields.refuse(
                "targetPort",
                "the gateway's Service or --map-port says this",
            );
            fields.done();
            Some((number?, name))
        });
        let bind = fields.get("bind", |cursor| {
            if cursor
                .node()
                .text()
                .is_some_and(|text| text.starts_with("unix:"))
            {
                cursor.error("not supported: unix sockets");
                return None;
            }
            cursor.ip()
        });
        let hosts = fields.list("hosts", |host| host.spanned(ServerHost::read));
        if !fields.has("hosts") {
            cursor.error("hosts is missing");
        }
        let https_redirect = fields.get("tls", |cursor| {
            let mut fields = cursor.fields()?;
            let redirect = fields.get("httpsRedirect", read::bool);
            for name in TLS {
                fields.later(name, "gateways serve plain HTTP so far");
            }
            fields.done();
            redirect
        });
        fields.refuse("defaultEndpoint", "route to a service instead");
        let name = fields.get("name", read::string).unwrap_or_default();
        fields.done();
        let (port, port_name) = port?;
        Some(Self {
            at: cursor.at(),
            port,
            port_name,
            bind,
            hosts,
            https_redirect: https_redirect.unwrap_or_default(),
            name,
        })
    }
}

const TLS: [&str; 16] = [
    "mode",
    "serverCertificate",
    "privateKey",
    "caCertificates",
    "caCrl",
    "credentialName",
    "credentialNames",
    "caCertCredentialName",
    "tlsCertificates",
    "subjectAltNames",
    "verifyCertificateSpki",
    "verifyCertificateHash",
    "minProtocolVersion",
    "maxProtocolVersion",
    "cipherSuites",
    "insecureSkipVerify",
];

fn protocol(cursor: &Cursor<'_>) -> Option<()> {
    let name = cursor.filled()?.to_ascii_uppercase();
    match name.as_str() {
        "HTTP" | "HTTP2" | "GRPC" => Some(()),
        "HTTPS" | "TLS" | "TCP" | "MONGO" | "GRPC-WEB" => {
            cursor.error(format!(
                "not supported yet: protocol {name}; HTTP, HTTP2 and GRPC are"
            ));
            None
        }
        _ => {
            cursor.error(format!("{name:?} is not one of HTTP, HTTP2 and GRPC"));
            None
        }
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
