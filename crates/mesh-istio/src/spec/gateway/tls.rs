//! `ServerTLSSettings`: how a server of a Gateway is secured.

use mesh_core::model::TlsVersion;

use crate::cursor::{Cursor, Fields, read};
use crate::diagnostic::Position;
use crate::spec::Spanned;
use crate::spec::strings;
use crate::spec::tls::{self, Credential, Roots};

/// How connections to a server are secured.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Security {
    /// Not at all.
    #[default]
    Plain,
    /// TLS ends here.
    Terminate(Box<Termination>),
    /// TLS goes on as it is, by server name to where `tls` routes say.
    Passthrough,
    /// TLS goes on as it is, by server name to the cluster that it names.
    AutoPassthrough,
}

/// How TLS ends at a server.
#[derive(Clone, Debug, PartialEq)]
pub struct Termination {
    /// Where it starts.
    pub at: Position,
    /// With the mesh's own certificates (`ISTIO_MUTUAL`): those below are none.
    pub mesh: bool,
    /// What the server shows: one certificate, or one with an RSA key and one with an ECDSA key.
    pub certificates: Vec<Credential>,
    /// Whether callers show one.
    pub callers: Callers,
    /// What callers' certificates are checked against; there unless they are not asked for one.
    pub roots: Option<Roots>,
    /// Names of which a caller's certificate must have one; empty is any.
    pub subject_alt_names: Vec<String>,
    /// SHA-256 of the public keys accepted; empty is any.
    pub spki: Vec<[u8; 32]>,
    /// SHA-256 of the certificates accepted; empty is any.
    pub hashes: Vec<[u8; 32]>,
    /// The lowest version.
    pub min: Option<TlsVersion>,
    /// The highest version.
    pub max: Option<TlsVersion>,
    /// Cipher suites of TLS 1.2; empty is the usual ones.
    pub ciphers: Vec<String>,
}

/// Whether callers show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// They are not asked for one (`SIMPLE`).
    Anonymous,
    /// They may (`OPTIONAL_MUTUAL`).
    MayShow,
    /// They must (`MUTUAL`).
    MustShow,
}

/// The modes, besides what is refused.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Passthrough,
    AutoPassthrough,
    Terminate(Callers),
    Mesh,
}

/// Fields that say something about a certificate of ours.
const OWN: [&str; 5] = [
    "serverCertificate",
    "privateKey",
    "credentialName",
    "credentialNames",
    "tlsCertificates",
];

/// Fields that only matter where TLS ends.
const ENDING: [&str; 9] = [
    "caCertificates",
    "caCrl",
    "caCertCredentialName",
    "subjectAltNames",
    "verifyCertificateSpki",
    "verifyCertificateHash",
    "minProtocolVersion",
    "maxProtocolVersion",
    "cipherSuites",
];

/// The settings, and whether everything is redirected to https.
pub(in crate::spec) fn read(cursor: &Cursor<'_>) -> Option<(Security, bool)> {
    let mut fields = cursor.fields()?;
    let redirect = fields.get("httpsRedirect", read::bool).unwrap_or_default();
    // PASSTHROUGH is the first value of the enum, hence what proto-JSON makes of nothing.
    let asked = fields.has("mode");
    let mode = fields.get("mode", mode);
    let mode = if asked { mode } else { Some(Mode::Passthrough) };
    fields.refuse(
        "insecureSkipVerify",
        "write mode SIMPLE to take callers without a certificate",
    );
    let security = match mode {
        Some(Mode::Terminate(callers)) => {
            let termination = Termination::read(cursor, &mut fields, callers);
            termination.map(|one| Security::Terminate(Box::new(one)))
        }
        Some(Mode::Mesh) => {
            let termination = Termination::read_mesh(cursor, &mut fields);
            Some(Security::Terminate(Box::new(termination)))
        }
        Some(passed_on) => {
            for name in OWN.into_iter().chain(ENDING) {
                if fields.has(name) {
                    cursor.error(format!(
                        "{name} needs a mode in which TLS ends here: SIMPLE, MUTUAL or \
                         OPTIONAL_MUTUAL"
                    ));
                }
                fields.ignore(name);
            }
            Some(match passed_on {
                Mode::AutoPassthrough => Security::AutoPassthrough,
                // Nothing but the redirect was said: there is no TLS at all.
                _ if redirect && !asked => Security::Plain,
                _ => Security::Passthrough,
            })
        }
        None => {
            for name in OWN.into_iter().chain(ENDING) {
                fields.ignore(name);
            }
            None
        }
    };
    fields.done();
    Some((security?, redirect))
}

fn mode(cursor: &Cursor<'_>) -> Option<Mode> {
    cursor.choice(&[
        ("PASSTHROUGH", Mode::Passthrough),
        ("SIMPLE", Mode::Terminate(Callers::Anonymous)),
        ("MUTUAL", Mode::Terminate(Callers::MustShow)),
        ("AUTO_PASSTHROUGH", Mode::AutoPassthrough),
        ("OPTIONAL_MUTUAL", Mode::Terminate(Callers::MayShow)),
        ("ISTIO_MUTUAL", Mode::Mesh),
    ])
}

impl Termination {
    /// Mode `ISTIO_MUTUAL`: everything but names, versions and ciphers is the mesh's.
    fn read_mesh(cursor: &Cursor<'_>, fields: &mut Fields<'_>) -> Self {
        let given = ["caCertificates", "caCrl", "caCertCredentialName"];
        let pins = ["verifyCertificateSpki", "verifyCertificateHash"];
        for name in OWN.into_iter().chain(given).chain(pins) {
            if fields.has(name) {
                cursor.error(format!(
                    "{name} is not allowed with mode ISTIO_MUTUAL, which has certificates of its own"
                ));
            }
            fields.ignore(name);
        }
        Self {
            at: cursor.at(),
            mesh: true,
            certificates: Vec::new(),
            callers: Callers::MustShow,
            roots: None,
            subject_alt_names: fields.get("subjectAltNames", strings).unwrap_or_default(),
            spki: Vec::new(),
            hashes: Vec::new(),
            min: fields.get("minProtocolVersion", tls::version),
            max: fields.get("maxProtocolVersion", tls::version),
            ciphers: fields.get("cipherSuites", tls::ciphers).unwrap_or_default(),
        }
    }

    fn read(cursor: &Cursor<'_>, fields: &mut Fields<'_>, callers: Callers) -> Option<Self> {
        let certificates = certificates(cursor, fields);
        let files = fields.get("caCertificates", tls::path);
        let revoked = fields.get("caCrl", tls::path);
        let named = fields.get("caCertCredentialName", tls::credential_name);
        let checks = [
            "caCertificates",
            "caCrl",
            "caCertCredentialName",
            "subjectAltNames",
            "verifyCertificateSpki",
            "verifyCertificateHash",
        ];
        if callers == Callers::Anonymous {
            for name in checks.into_iter().filter(|name| fields.has(name)) {
                cursor.error(format!(
                    "{name} needs mode MUTUAL or OPTIONAL_MUTUAL: callers show no certificate"
                ));
            }
        }
        let roots = match (files, named) {
            (Some(roots), None) => Some(Roots::Files { roots, revoked }),
            (None, Some(named)) => Some(Roots::Named(named)),
            (Some(_), Some(_)) => {
                cursor.error("caCertificates and caCertCredentialName exclude one another");
                None
            }
            // The Secret of the certificate has the roots too.
            (None, None) => match certificates.first() {
                Some(Credential::Named(name)) if callers != Callers::Anonymous => {
                    Some(Roots::Named(name.clone()))
                }
                _ => None,
            },
        };
        if fields.has("caCrl") && !matches!(roots, Some(Roots::Files { .. })) {
            cursor.error("caCrl goes with caCertificates; a Secret has its own list, ca.crl");
        }
        let told = fields.has("caCertificates") || fields.has("caCertCredentialName");
        if callers != Callers::Anonymous && roots.is_none() && !told {
            cursor.error("caCertificates is missing: what callers' certificates are checked with");
        }
        let found = Self {
            at: cursor.at(),
            mesh: false,
            certificates,
            callers,
            roots,
            subject_alt_names: fields.get("subjectAltNames", strings).unwrap_or_default(),
            spki: fields.list("verifyCertificateSpki", tls::spki),
            hashes: fields.list("verifyCertificateHash", tls::hash),
            min: fields.get("minProtocolVersion", tls::version),
            max: fields.get("maxProtocolVersion", tls::version),
            ciphers: fields.get("cipherSuites", tls::ciphers).unwrap_or_default(),
        };
        if let (Some(min), Some(max)) = (found.min, found.max)
            && min > max
        {
            cursor.error("minProtocolVersion is above maxProtocolVersion");
        }
        Some(found)
    }
}

/// What the server shows, said in one of four ways.
fn certificates(cursor: &Cursor<'_>, fields: &mut Fields<'_>) -> Vec<Credential> {
    let ways = [
        "serverCertificate",
        "credentialName",
        "credentialNames",
        "tlsCertificates",
    ];
    let said: Vec<&str> = ways.into_iter().filter(|name| fields.has(name)).collect();
    if let [first, second, ..] = said.as_slice() {
        cursor.error(format!("{first} and {second} exclude one another"));
    }
    let file = (
        fields.get("serverCertificate", tls::path),
        fields.get("privateKey", tls::path),
    );
    let named = fields.get("credentialName", tls::credential_name);
    let several = fields.list("credentialNames", tls::credential_name);
    let files = fields.list("tlsCertificates", |cursor| {
        let mut fields = cursor.fields()?;
        let certificate = fields.need("serverCertificate", tls::path);
        let key = fields.need("privateKey", tls::path);
        fields.refuse("caCertificates", "it goes beside tlsCertificates");
        fields.done();
        Some(Credential::Files {
            certificate: certificate?,
            key: key?,
        })
    });
    match (fields.has("serverCertificate"), fields.has("privateKey")) {
        (true, false) => cursor.error("privateKey is missing: serverCertificate needs it"),
        (false, true) => cursor.error("serverCertificate is missing: privateKey is for it"),
        _ => {}
    }
    if said.is_empty() && !fields.has("privateKey") {
        cursor
            .error("a certificate is missing: credentialName, or serverCertificate and privateKey");
    }
    for name in ["credentialNames", "tlsCertificates"] {
        let length = match fields.peek(name).map(|node| &node.value) {
            Some(crate::yaml::Value::List(items)) => items.len(),
            _ => continue,
        };
        if !(1..=2).contains(&length) {
            cursor.error(format!("{name} has one or two entries, not {length}"));
        }
    }
    let mut found: Vec<Credential> = Vec::new();
    if let (Some(certificate), Some(key)) = file {
        found.push(Credential::Files { certificate, key });
    }
    found.extend(named.into_iter().map(Credential::Named));
    found.extend(several.into_iter().map(Credential::Named));
    found.extend(files);
    found
}

impl Termination {
    /// The Secrets it names: those of certificates, then that of roots.
    pub fn credentials(&self) -> impl Iterator<Item = &Spanned<String>> {
        let own = self.certificates.iter().filter_map(|one| match one {
            Credential::Named(name) => Some(name),
            Credential::Files { .. } => None,
        });
        let roots = match &self.roots {
            Some(Roots::Named(name)) => Some(name),
            _ => None,
        };
        own.chain(roots)
    }
}
