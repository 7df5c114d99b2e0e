//! Who calls: certificates of an authority of the run, for the subjects, for callers of the mesh, and
//! for some who are not of it.

use anyhow::Context;
use mesh_core::Name;
use mesh_core::exchange::{PeerCertificate, TlsInfo};
use mesh_core::model::{ClientTls, Cluster, Secret, SecretRef, SnapshotBuilder, TlsVersion};
use mesh_identity::{Connector, TlsStream};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpStream;

/// Stands for the directory of the certificates in a configuration.
pub(crate) const PLACE: &str = "{certificates}";

/// How a caller secures its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Secured {
    /// The name of one of [`ALL`].
    pub(crate) as_whom: &'static str,
    /// The server name that it asks for; empty is none.
    pub(crate) server_name: &'static str,
}

/// Somebody who calls.
#[derive(Debug)]
pub(crate) struct Who {
    pub(crate) name: &'static str,
    pub(crate) uris: &'static [&'static str],
    pub(crate) dns: &'static [&'static str],
    pub(crate) from: From,
}

/// Where a certificate is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// The authority that the subjects trust.
    Mesh,
    /// One that nobody trusts.
    Elsewhere,
    /// There is none.
    Nowhere,
}

/// The servers that are asked for.
pub(crate) const SERVER_NAMES: [&str; 3] = ["", "mesh.test", "other.test"];

/// Everybody who calls.
pub(crate) const ALL: &[Who] = &[
    of_mesh("b of a", &["spiffe://cluster.local/ns/a/sa/b"]),
    of_mesh("c of a", &["spiffe://cluster.local/ns/a/sa/c"]),
    of_mesh("b of x", &["spiffe://cluster.local/ns/x/sa/b"]),
    of_mesh("b of a, by an alias", &["spiffe://alias.test/ns/a/sa/b"]),
    // The authority signs it, but the mesh is another one.
    of_mesh("b of a elsewhere", &["spiffe://else.test/ns/a/sa/b"]),
    of_mesh("no workload", &["spiffe://cluster.local/a/b"]),
    of_mesh(
        "two names",
        &[
            "spiffe://cluster.local/ns/a/sa/b",
            "spiffe://cluster.local/ns/x/sa/y",
        ],
    ),
    Who {
        name: "a name only",
        uris: &[],
        dns: &["a.test"],
        from: From::Mesh,
    },
    Who {
        name: "no name",
        uris: &[],
        dns: &[],
        from: From::Mesh,
    },
    Who {
        name: "a stranger",
        uris: &["spiffe://cluster.local/ns/a/sa/b"],
        dns: &["a.test"],
        from: From::Elsewhere,
    },
    Who {
        name: "nobody",
        uris: &[],
        dns: &[],
        from: From::Nowhere,
    },
];

const fn of_mesh(name: &'static str, uris: &'static [&'static str]) -> Who {
    Who {
        name,
        uris,
        dns: &[],
        from: From::Mesh,
    }
}

/// As whom the subjects answer.
const SERVER: Who = of_mesh(
    "server",
    &["spiffe://cluster.local/ns/istio-system/sa/server"],
);

/// The certificates of a run.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    /// With the server's `cert-chain.pem` and `key.pem`, and `root-cert.pem`.
    pub(crate) directory: PathBuf,
    own: Arc<BTreeMap<&'static str, Secret>>,
}

// === impl Who ===

impl Who {
    /// The one of this name.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|it| it.name == name)
    }
}

// === impl Secured ===

impl Secured {
    /// A caller by these names.
    pub(crate) fn known(as_whom: &str, server_name: &str) -> Option<Self> {
        let mut names = SERVER_NAMES.into_iter();
        Some(Self {
            as_whom: Who::named(as_whom)?.name,
            server_name: names.find(|it| *it == server_name)?,
        })
    }

    /// What who terminates a connection of this caller knows of it.
    pub(crate) fn told(self) -> TlsInfo {
        let mut told = TlsInfo::default();
        told.server_name = Name::from(self.server_name);
        told.version = Some(TlsVersion::V1_3);
        let who = Who::named(self.as_whom).filter(|who| who.from != From::Nowhere);
        told.peer = who.map(|who| {
            let mut peer = PeerCertificate::default();
            peer.validated = who.from == From::Mesh;
            peer.uris = who.uris.iter().copied().map(Name::from).collect();
            peer.dns_names = who.dns.iter().copied().map(Name::from).collect();
            peer
        });
        told
    }
}

// === impl Certificates ===

impl Certificates {
    /// Makes them, with a directory for those of the subjects.
    pub(crate) fn new(directory: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let (mesh, elsewhere) = (authority("mesh")?, authority("elsewhere")?);
        let (chain, key) = signed(&SERVER, &mesh)?;
        let files = [
            ("cert-chain.pem", &chain),
            ("key.pem", &key),
            ("root-cert.pem", &mesh.pem()),
        ];
        for (name, text) in files {
            std::fs::write(directory.join(name), text)?;
        }
        let mut own = BTreeMap::new();
        for who in ALL.iter().chain([&SERVER]) {
            let by = match who.from {
                From::Mesh => &mesh,
                From::Elsewhere => &elsewhere,
                From::Nowhere => continue,
            };
            let (chain, key) = signed(who, by)?;
            own.insert(who.name, Secret::certificate(chain, key));
        }
        Ok(Self {
            directory: directory.to_owned(),
            own: Arc::new(own),
        })
    }

    /// The secrets of the subjects by the names that Istio gives them.
    pub(crate) fn of_agent(&self) -> anyhow::Result<[(&'static str, Secret); 2]> {
        let own = self.own.get(SERVER.name).context("made above")?.clone();
        let roots = std::fs::read(self.directory.join("root-cert.pem"))?;
        Ok([("default", own), ("ROOTCA", Secret::roots(roots))])
    }

    /// A text with their directory put in.
    pub(crate) fn placed(&self, text: &str) -> String {
        text.replace(PLACE, &self.directory.to_string_lossy())
    }

    /// Does a handshake as a caller: each its own, without what was agreed on before.
    pub(crate) async fn secure(
        &self,
        stream: TcpStream,
        how: Secured,
        http2: bool,
    ) -> Option<TlsStream<TcpStream>> {
        let mut tls = ClientTls::default();
        let alpn: &[&str] = match http2 {
            true => &["istio-h2", "istio", "h2"],
            false => &["istio-http/1.1", "istio", "http/1.1"],
        };
        tls.alpn = alpn.iter().copied().map(Name::from).collect();
        tls.sni = Name::from(how.server_name);
        let own = SecretRef::local("own");
        let secret = self.own.get(how.as_whom);
        tls.certificates.extend(secret.map(|_| own.clone()));
        let tls = Arc::new(tls);
        let mut cluster = Cluster::new("listener");
        cluster.tls = Some(tls.clone());
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster);
        let (snapshot, _) = builder.build().ok()?;
        if let (Some(live), Some(secret)) = (snapshot.secret(&own), secret) {
            live.publish(Some(Arc::new(secret.clone())));
        }
        let connector = Connector::new(tls, |named| snapshot.secret(named).cloned()).ok()?;
        let (stream, _) = connector.connect(stream, None).await.ok()?;
        Some(stream)
    }
}

fn authority(name: &str) -> anyhow::Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// The chain of somebody, and the key.
fn signed(who: &Who, by: &CertifiedIssuer<'_, KeyPair>) -> anyhow::Result<(String, String)> {
    let mut params = CertificateParams::default();
    let uris = who
        .uris
        .iter()
        .map(|uri| (*uri).try_into().map(SanType::URI));
    let dns = who
        .dns
        .iter()
        .map(|name| (*name).try_into().map(SanType::DnsName));
    params.subject_alt_names = uris.chain(dns).collect::<Result<_, _>>()?;
    params.distinguished_name.push(DnType::CommonName, who.name);
    params
        .distinguished_name
        .push(DnType::OrganizationName, "a mesh+more");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
    ];
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, by)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
