//! `ClientTLSSettings`, `TunnelSettings` and `ProxyProtocol`: how connections to endpoints begin.

use mesh_core::model::ProxyProtocol;

use crate::cursor::{Cursor, Fields, read};
use crate::diagnostic::Position;
use crate::spec::common::is_host;
use crate::spec::tls::{self, Credential, Roots};
use crate::spec::{Spanned, strings};

/// How connections to endpoints are secured.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientTls {
    /// Not at all.
    Disable,
    /// With TLS.
    Originate(Box<Origination>),
    /// The mesh's own mutual TLS (`ISTIO_MUTUAL`).
    Mesh(Box<MeshTls>),
}

/// TLS that begins here.
#[derive(Clone, Debug, PartialEq)]
pub struct Origination {
    /// Where it starts.
    pub at: Position,
    /// What is shown to endpoints; `None` is nothing (`SIMPLE`).
    pub certificate: Option<Credential>,
    /// What endpoints' certificates are checked against; `None` is what the machine trusts.
    pub roots: Option<Roots>,
    /// Names of which an endpoint's certificate must have one; empty asks the service.
    pub subject_alt_names: Vec<String>,
    /// The server name to ask for; empty is the request's host.
    pub sni: String,
    /// Endpoints' certificates are not checked at all.
    pub skip_verify: bool,
}

/// The mesh's own mutual TLS towards a destination.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshTls {
    /// Where it starts.
    pub at: Position,
    /// Names of which an endpoint's certificate must have one; empty is the service accounts of
    /// the endpoints.
    pub subject_alt_names: Vec<String>,
    /// The server name to ask for; empty is the one that istiod gives the cluster.
    pub sni: String,
}

/// A tunnel through the destination (`tunnel`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Where it starts.
    pub at: Position,
    /// Ask with POST rather than CONNECT.
    pub post: bool,
    /// The host to connect to behind it.
    pub host: String,
    /// The port there.
    pub port: u16,
}

/// The modes, besides what is refused.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Disable,
    Simple,
    Mutual,
    Mesh,
}

/// Fields that only matter with TLS.
const FIELDS: [&str; 8] = [
    "clientCertificate",
    "privateKey",
    "caCertificates",
    "caCrl",
    "credentialName",
    "subjectAltNames",
    "sni",
    "insecureSkipVerify",
];

// === impl ClientTls ===

impl ClientTls {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let asked = fields.has("mode");
        let mode = fields.get("mode", mode);
        // DISABLE is the first value of the enum, hence what proto-JSON makes of nothing.
        let mode = if asked { mode } else { Some(Mode::Disable) };
        let found = match mode {
            Some(Mode::Disable) => {
                idle(cursor, &fields, &FIELDS, "mode DISABLE");
                for name in FIELDS {
                    fields.ignore(name);
                }
                Some(Self::Disable)
            }
            Some(Mode::Mesh) => Some(Self::Mesh(Box::new(MeshTls::read(cursor, &mut fields)))),
            Some(mode) => {
                let origination = Origination::read(cursor, &mut fields, mode);
                Some(Self::Originate(Box::new(origination)))
            }
            None => {
                for name in FIELDS {
                    fields.ignore(name);
                }
                None
            }
        };
        fields.done();
        found
    }

    /// What TLS is begun, if any.
    pub fn origination(&self) -> Option<&Origination> {
        match self {
            Self::Disable | Self::Mesh(_) => None,
            Self::Originate(origination) => Some(origination),
        }
    }
}

fn mode(cursor: &Cursor<'_>) -> Option<Mode> {
    cursor.choice(&[
        ("DISABLE", Mode::Disable),
        ("SIMPLE", Mode::Simple),
        ("MUTUAL", Mode::Mutual),
        ("ISTIO_MUTUAL", Mode::Mesh),
    ])
}

/// Istio takes these, and nothing comes of them (`ValidateTLS`).
fn idle(cursor: &Cursor<'_>, fields: &Fields<'_>, names: &[&str], with: &str) {
    for name in names {
        if fields.has(name) {
            cursor.warn(format!("{name} has no effect with {with}"));
        }
    }
}

// === impl Origination ===

impl Origination {
    fn read(cursor: &Cursor<'_>, fields: &mut Fields<'_>, mode: Mode) -> Self {
        let named = fields.get("credentialName", tls::credential_name);
        let certificate = fields.get("clientCertificate", tls::path);
        let key = fields.get("privateKey", tls::path);
        let roots = fields.get("caCertificates", tls::path);
        let revoked = fields.get("caCrl", tls::path);
        let by_name = fields.has("credentialName");
        if by_name {
            let files = ["clientCertificate", "privateKey", "caCertificates", "caCrl"];
            tls::exclude(cursor, fields, &files, "credentialName");
        } else if mode == Mode::Mutual {
            for name in ["clientCertificate", "privateKey"] {
                if !fields.has(name) {
                    cursor.error(format!(
                        "{name} is missing: mode MUTUAL shows a certificate"
                    ));
                }
            }
        } else {
            let own = ["clientCertificate", "privateKey"];
            idle(cursor, fields, &own, "mode SIMPLE");
        }
        let skip_verify = fields
            .get("insecureSkipVerify", read::bool)
            .unwrap_or_default();
        if skip_verify {
            let checks = ["caCertificates", "subjectAltNames"];
            tls::exclude(cursor, fields, &checks, "insecureSkipVerify");
            if mode == Mode::Simple {
                // With MUTUAL it may be there for the certificate that is shown.
                tls::exclude(cursor, fields, &["credentialName"], "insecureSkipVerify");
            }
        }
        if !fields.has("caCertificates") && !by_name {
            idle(cursor, fields, &["caCrl"], "no caCertificates");
        }
        let certificate = match (mode, &named, certificate, key) {
            (Mode::Mutual, Some(name), ..) => Some(Credential::Named(name.clone())),
            (Mode::Mutual, None, Some(certificate), Some(key)) => {
                Some(Credential::Files { certificate, key })
            }
            _ => None,
        };
        let roots = match (named, roots) {
            _ if skip_verify => None,
            (Some(name), _) => Some(Roots::Named(name)),
            (None, Some(roots)) => Some(Roots::Files { roots, revoked }),
            (None, None) => None,
        };
        let sni = fields.get("sni", server_name);
        Self {
            at: cursor.at(),
            certificate,
            roots,
            subject_alt_names: fields.get("subjectAltNames", strings).unwrap_or_default(),
            sni: sni.unwrap_or_default(),
            skip_verify,
        }
    }

    /// The Secret it names; certificate and roots are in one.
    pub fn credential(&self) -> Option<&Spanned<String>> {
        match (&self.certificate, &self.roots) {
            (Some(Credential::Named(name)), _) | (_, Some(Roots::Named(name))) => Some(name),
            _ => None,
        }
    }
}

// === impl MeshTls ===

impl MeshTls {
    fn read(cursor: &Cursor<'_>, fields: &mut Fields<'_>) -> Self {
        for name in FIELDS {
            if matches!(name, "subjectAltNames" | "sni") {
                continue;
            }
            if fields.has(name) {
                cursor.error(format!(
                    "{name} is not allowed with mode ISTIO_MUTUAL, which has certificates of its own"
                ));
            }
            fields.ignore(name);
        }
        Self {
            at: cursor.at(),
            subject_alt_names: fields.get("subjectAltNames", strings).unwrap_or_default(),
            sni: fields.get("sni", server_name).unwrap_or_default(),
        }
    }
}

fn server_name(cursor: &Cursor<'_>) -> Option<String> {
    let name = cursor.string()?;
    if !name.is_empty() && (!is_host(&name) || name.contains('*')) {
        cursor.error(format!("{name:?} is not a host name"));
        return None;
    }
    Some(name)
}

// === impl Tunnel ===

impl Tunnel {
    pub(super) fn read(cursor: &Cursor<'_>) -> Option<Self> {
        let mut fields = cursor.fields()?;
        let post = fields.get("protocol", |cursor| {
            let name = cursor.string()?.to_ascii_uppercase();
            match name.as_str() {
                "" | "CONNECT" => Some(false),
                "POST" => Some(true),
                _ => {
                    cursor.error(format!("{name:?} is not one of CONNECT and POST"));
                    None
                }
            }
        });
        let host = fields.need("targetHost", |cursor| {
            let host = cursor.filled()?;
            let address = host.parse::<std::net::IpAddr>().is_ok();
            if !address && (!is_host(&host) || host.contains('*')) {
                cursor.error(format!("{host:?} is neither a host name nor an IP address"));
                return None;
            }
            Some(host)
        });
        let port = fields.need("targetPort", read::port);
        fields.done();
        Some(Self {
            at: cursor.at(),
            post: post.unwrap_or_default(),
            host: host?,
            port: port?,
        })
    }

    /// `host:port`, as a CONNECT request names it.
    pub fn target(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// `{version: V1}`.
pub(super) fn proxy_protocol(cursor: &Cursor<'_>) -> Option<ProxyProtocol> {
    let mut fields = cursor.fields()?;
    let version = fields.get("version", |cursor| {
        cursor.choice(&[("V1", ProxyProtocol::V1), ("V2", ProxyProtocol::V2)])
    });
    let said = fields.has("version");
    fields.done();
    if said {
        version
    } else {
        Some(ProxyProtocol::V1)
    }
}
