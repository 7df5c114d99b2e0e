//! The client's side of handshakes.

use crate::error::TlsError;
use crate::info;
use crate::params::{Params, check_client};
use crate::secret::Certificate;
use crate::source::{Generations, Moment, Sources};
use crate::stream::TlsStream;
use crate::verify::{Checker, NAMELESS, Peer};
use mesh_core::Invalid;
use mesh_core::exchange::TlsInfo;
use mesh_core::model::{
    ClientTls, Cluster, LiveSecret, Secret, SecretRef, Snapshot, SnapshotBuilder,
};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use rustls_pki_types::ServerName;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// Starts TLS with endpoints as a [`ClientTls`] says. A clone is the same connector: they share
/// sessions to resume.
///
/// A secret that changes is used for the next handshake, and sessions from before are not resumed.
/// While one that is needed is missing every handshake fails.
#[derive(Clone)]
pub struct Connector(Arc<Inner>);

struct Inner {
    tls: Arc<ClientTls>,
    params: Params,
    sources: Sources,
    generations: Generations<Generation>,
}

/// What is made of the secrets of one moment.
#[derive(Debug)]
struct Generation {
    config: Arc<ClientConfig>,
    checker: Arc<Checker>,
    certificate: Option<Arc<Certificate>>,
}

/// The certificate to show, whatever the server says it trusts (as Envoy).
#[derive(Debug)]
struct Single(Arc<CertifiedKey>);

/// How many names sessions are remembered for. Envoy remembers one session for a cluster.
const SESSIONS: usize = 32;

// === impl Connector ===

impl Connector {
    /// A connector. `secrets` looks a secret up, e.g. in
    /// [`Snapshot::secret`](mesh_core::model::Snapshot::secret); one that is not known is missing
    /// for ever.
    ///
    /// # Errors
    /// As [`check_client`].
    pub fn new(
        tls: Arc<ClientTls>,
        secrets: impl Fn(&SecretRef) -> Option<Arc<LiveSecret>>,
    ) -> Result<Self, Invalid> {
        check_client(&tls)?;
        Ok(Self(Arc::new(Inner {
            params: Params::new(&tls.params, &tls.alpn)?,
            sources: Sources::new(&tls.certificates, tls.validation.as_ref(), &secrets),
            generations: Generations::default(),
            tls,
        })))
    }

    /// A connector for a client that is part of no configuration, with the snapshot that holds its
    /// secrets: as [`Acceptor::alone`](crate::Acceptor::alone).
    ///
    /// # Errors
    /// As [`check_client`].
    pub fn alone(
        tls: Arc<ClientTls>,
        given: impl IntoIterator<Item = (SecretRef, Arc<Secret>)>,
    ) -> Result<(Self, Arc<Snapshot>), Invalid> {
        // A snapshot holds the secrets that something in it names. Nobody calls this cluster.
        let mut cluster = Cluster::new("alone");
        cluster.tls = Some(tls.clone());
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster);
        for (named, secret) in given {
            builder.secret(named, secret);
        }
        let (snapshot, _) = builder.build()?;
        let connector = Self::new(tls, |named| snapshot.secret(named).cloned())?;
        Ok((connector, snapshot))
    }

    /// What it was made of.
    pub fn config(&self) -> &Arc<ClientTls> {
        &self.0.tls
    }

    /// Does the handshake with an endpoint. `host` is the request's, with or without a port: the
    /// server name where the configuration has none and says `auto_sni`.
    ///
    /// # Errors
    /// [`TlsError`]. In TLS 1.3 a server that refuses our certificate says so only later: see
    /// [`TlsError::from_io`].
    ///
    /// # Cancel safety
    /// The connection is closed when the future is dropped. There is no limit in time here.
    pub async fn connect<IO>(
        &self,
        io: IO,
        host: Option<&str>,
    ) -> Result<(TlsStream<IO>, Arc<TlsInfo>), TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let name = self.name(host);
        let make = |moment: &Moment| Generation::new(&self.0.tls, &self.0.params, moment);
        let generation = self.0.generations.current(&self.0.sources, make)?;
        let connector = TlsConnector::from(generation.config.clone());
        let stream = connector.connect(name.clone(), io);
        let stream = stream.await.map_err(TlsError::from_io)?;
        let connection = stream.get_ref().1;
        let mut told = info::of(connection, &generation.checker, Some(&name), Peer::Server);
        if let ServerName::DnsName(name) = &name {
            told.server_name = name.as_ref().into();
        }
        if let Some(certificate) = &generation.certificate {
            told.local_names.clone_from(&certificate.local_names);
        }
        Ok((TlsStream::new(stream.into()), Arc::new(told)))
    }

    // An address is never sent as a server name (RFC 6066 §3), but may be asked of a certificate.
    fn name(&self, host: Option<&str>) -> ServerName<'static> {
        let nameless = ServerName::from(NAMELESS);
        if !self.0.tls.sni.is_empty() {
            return ServerName::try_from(self.0.tls.sni.to_string()).unwrap_or(nameless);
        }
        match host.map(without_port) {
            Some(host) if self.0.tls.auto_sni => {
                ServerName::try_from(host.to_owned()).unwrap_or(nameless)
            }
            _ => nameless,
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.0.tls).finish()
    }
}

fn without_port(host: &str) -> &str {
    if let Some(rest) = host.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    match host.rsplit_once(':') {
        // More than one colon is an address of IPv6 without brackets.
        Some((name, _)) if host.parse::<IpAddr>().is_err() => name,
        _ => host,
    }
}

// === impl Generation ===

impl Generation {
    fn new(tls: &ClientTls, params: &Params, moment: &Moment) -> Result<Self, TlsError> {
        let checker = moment.checker(&params.provider, tls.validation.as_ref());
        let checker = Arc::new(checker.for_name(tls.auto_san));
        let builder = ClientConfig::builder_with_provider(params.provider.clone())
            .with_protocol_versions(&params.protocols())
            .map_err(|error| TlsError::from_tls(&error))?
            .dangerous()
            .with_custom_certificate_verifier(checker.clone());
        let certificate = moment.certificates.first().cloned();
        let mut config = match &certificate {
            Some(shown) => builder.with_client_cert_resolver(Arc::new(Single(shown.key.clone()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&params.alpn);
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self {
            config: Arc::new(config),
            checker,
            certificate,
        })
    }
}

// === impl Single ===

impl ResolvesClientCert for Single {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.key.choose_scheme(schemes).map(|_| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
