//! The server's side of handshakes.

use crate::error::TlsError;
use crate::params::{Params, check_server};
use crate::secret::Certificate;
use crate::source::{Generations, Moment, Sources};
use crate::stream::TlsStream;
use crate::verify::{Checker, Peer};
use crate::{info, san};
use mesh_core::Invalid;
use mesh_core::exchange::TlsInfo;
use mesh_core::model::{
    FilterChain, Listener, LiveSecret, Secret, SecretRef, ServerTls, Snapshot, SnapshotBuilder,
    TcpProxy, TlsVersion,
};
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedCipherSuite};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;

/// Ends TLS for callers as a [`ServerTls`] says. A clone is the same acceptor: one for all workers
/// shares the keys of session tickets.
///
/// A secret that changes is used for the next handshake, and sessions from before are not resumed.
/// While one that is needed is missing every handshake is refused.
#[derive(Clone)]
pub struct Acceptor(Arc<Inner>);

struct Inner {
    tls: Arc<ServerTls>,
    params: Params,
    sources: Sources,
    generations: Generations<Generation>,
}

/// What is made of the secrets of one moment.
#[derive(Debug)]
struct Generation {
    chains: Vec<Chain>,
    checker: Arc<Checker>,
    versions: Vec<TlsVersion>,
}

/// A certificate with the configuration that shows it.
#[derive(Debug)]
struct Chain {
    certificate: Arc<Certificate>,
    config: Arc<ServerConfig>,
}

/// Always the same certificate: which one was decided before.
#[derive(Debug)]
struct Single(Arc<CertifiedKey>);

// === impl Acceptor ===

impl Acceptor {
    /// An acceptor. `secrets` looks a secret up, e.g. in
    /// [`Snapshot::secret`](mesh_core::model::Snapshot::secret); one that is not known is missing
    /// for ever.
    ///
    /// # Errors
    /// As [`check_server`].
    pub fn new(
        tls: Arc<ServerTls>,
        secrets: impl Fn(&SecretRef) -> Option<Arc<LiveSecret>>,
    ) -> Result<Self, Invalid> {
        check_server(&tls)?;
        Ok(Self(Arc::new(Inner {
            params: Params::new(&tls.params, &tls.alpn)?,
            sources: Sources::new(&tls.certificates, tls.validation.as_ref(), &secrets),
            generations: Generations::default(),
            tls,
        })))
    }

    /// An acceptor for a server that is part of no configuration, with the snapshot that holds its
    /// secrets: those that are `given`, and others that something fills later, as
    /// [`Files`](crate::Files) does that follow it.
    ///
    /// # Errors
    /// As [`check_server`].
    pub fn alone(
        tls: Arc<ServerTls>,
        given: impl IntoIterator<Item = (SecretRef, Arc<Secret>)>,
    ) -> Result<(Self, Arc<Snapshot>), Invalid> {
        // A snapshot holds the secrets that something in it names. Nobody opens this listener.
        let mut chain = FilterChain::tcp(TcpProxy::to("alone", "nowhere"));
        chain.tls = Some(tls.clone());
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut builder = SnapshotBuilder::new();
        builder.listener(Listener::new("alone", address).chain(chain));
        for (named, secret) in given {
            builder.secret(named, secret);
        }
        let (snapshot, _) = builder.build()?;
        let acceptor = Self::new(tls, |named| snapshot.secret(named).cloned())?;
        Ok((acceptor, snapshot))
    }

    /// What it was made of.
    pub fn config(&self) -> &Arc<ServerTls> {
        &self.0.tls
    }

    /// Does the handshake with a caller.
    ///
    /// # Errors
    /// [`TlsError`]. The caller was told by an alert where the protocol has one; where a secret is
    /// missing the connection is closed without a word.
    ///
    /// # Cancel safety
    /// The connection is closed when the future is dropped. There is no limit in time here.
    pub async fn accept<IO>(&self, io: IO) -> Result<(TlsStream<IO>, Arc<TlsInfo>), TlsError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        // Before anything is read: a caller need not send a word to be refused.
        self.generation()?;
        let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io);
        let hello = hello.await.map_err(TlsError::from_io)?;
        // Once more: the caller may have taken its time, and a certificate may have gone.
        let generation = self.generation()?;
        let (chain, config) = generation.choose(&hello.client_hello());
        let stream = hello.into_stream(config).await.map_err(TlsError::from_io)?;
        let connection = stream.get_ref().1;
        let mut told = info::of(connection, &generation.checker, None, Peer::Client);
        told.server_name = connection.server_name().unwrap_or_default().into();
        told.local_names = chain.certificate.local_names.clone();
        Ok((TlsStream::new(stream.into()), Arc::new(told)))
    }

    fn generation(&self) -> Result<Arc<Generation>, TlsError> {
        let make = |moment: &Moment| Generation::new(&self.0.tls, &self.0.params, moment);
        self.0.generations.current(&self.0.sources, make)
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acceptor").field(&self.0.tls).finish()
    }
}

// === impl Generation ===

impl Generation {
    fn new(tls: &ServerTls, params: &Params, moment: &Moment) -> Result<Self, TlsError> {
        let checker = moment.checker(&params.provider, tls.validation.as_ref());
        let required = tls.require_client_certificate && checker.asks_something();
        let required = required || checker.asks_for_one();
        let checker = Arc::new(checker.required(required));
        let ticketer = Ticketer::new().map_err(|error| TlsError::from_tls(&error))?;
        let mut chains = Vec::with_capacity(moment.certificates.len());
        for certificate in &moment.certificates {
            let builder = ServerConfig::builder_with_provider(params.provider.clone())
                .with_protocol_versions(&params.protocols())
                .map_err(|error| TlsError::from_tls(&error))?;
            let builder = if checker.wants_certificate() {
                builder.with_client_cert_verifier(checker.clone())
            } else {
                builder.with_client_cert_verifier(WebPkiClientVerifier::no_client_auth())
            };
            let single = Single(certificate.key.clone());
            let mut config = builder.with_cert_resolver(Arc::new(single));
            config.alpn_protocols.clone_from(&params.alpn);
            config.ticketer = ticketer.clone();
            config.session_storage = Arc::new(NoServerSessionStorage {});
            chains.push(Chain {
                certificate: certificate.clone(),
                config: Arc::new(config),
            });
        }
        Ok(Self {
            chains,
            checker,
            versions: params.versions.clone(),
        })
    }

    /// The certificate for a caller and the configuration with it.
    fn choose(&self, hello: &ClientHello<'_>) -> (&Chain, Arc<ServerConfig>) {
        let usable = |chain: &&Chain| chain.is_usable(hello, &self.versions);
        let named = self.named(hello.server_name());
        // Another kind than RSA where the caller knows it: smaller and faster.
        let modern = named
            .iter()
            .copied()
            .filter(usable)
            .find(|c| !c.certificate.is_rsa());
        let chosen = modern
            .or_else(|| named.iter().copied().find(usable))
            .or_else(|| self.chains.iter().find(usable))
            .unwrap_or(&self.chains[0]);
        let ours = &chosen.config.alpn_protocols;
        let agreed = hello.alpn().is_none_or(|mut theirs| {
            theirs.any(|protocol| ours.iter().any(|known| known == protocol))
        });
        if agreed || ours.is_empty() {
            return (chosen, chosen.config.clone());
        }
        // Nothing in common is no failure, as in Envoy: what is spoken inside is left open.
        let mut config = ServerConfig::clone(&chosen.config);
        config.alpn_protocols.clear();
        (chosen, Arc::new(config))
    }

    /// The certificates for a name: exact ones before those with a wildcard. Without a name all;
    /// with one that none is for, the first (Envoy `full_scan_certs_on_sni_mismatch` off).
    fn named(&self, name: Option<&str>) -> Vec<&Chain> {
        let Some(name) = name else {
            return self.chains.iter().collect();
        };
        let with = |test: &dyn Fn(&String) -> bool| -> Vec<&Chain> {
            let chains = self.chains.iter();
            chains
                .filter(|chain| chain.certificate.hosts.iter().any(test))
                .collect()
        };
        let exact = with(&|host| host.eq_ignore_ascii_case(name));
        if !exact.is_empty() {
            return exact;
        }
        let wild = with(&|host| san::dns_matches(name, host));
        if !wild.is_empty() {
            return wild;
        }
        self.chains.iter().take(1).collect()
    }
}

// === impl Chain ===

impl Chain {
    /// Whether a caller can check its signature, in a version and with a cipher that both know: in
    /// TLS 1.2 the cipher says what kind of key signs (RFC 5246 §7.4.1.4.1, §7.4.3).
    fn is_usable(&self, hello: &ClientHello<'_>, versions: &[TlsVersion]) -> bool {
        let key = &self.certificate.key.key;
        let mut ours = self.config.crypto_provider().cipher_suites.iter();
        key.choose_scheme(hello.signature_schemes()).is_some()
            && ours.any(|suite| {
                hello.cipher_suites().contains(&suite.suite())
                    && match suite {
                        SupportedCipherSuite::Tls13(_) => versions.contains(&TlsVersion::V1_3),
                        SupportedCipherSuite::Tls12(suite) => {
                            versions.contains(&TlsVersion::V1_2)
                                && key.choose_scheme(suite.sign).is_some()
                        }
                    }
            })
    }
}

// === impl Single ===

impl ResolvesServerCert for Single {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}
