//! TLS 1.3 as a client that trusts anybody, with one group for the key exchange, and with a certificate
//! where one is asked for.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
    version::TLS13,
};

use crate::authority;

/// The groups that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    X25519,
    /// The hybrid with ML-KEM (draft-ietf-tls-ecdhe-mlkem).
    X25519mlkem768,
}

/// What a caller shows of itself.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Whoever answers is believed: neither chain nor signature takes time that the proxies need.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

/// A client of HTTP/1.1 that offers only this group and resumes nothing.
///
/// With an identity it offers one cipher, too: AES-128-GCM, which all have to have (RFC 8446, section
/// 9.1). What is chosen among several is up to the server, and they do not all choose alike.
///
/// # Errors
///
/// If TLS 1.3 cannot be had, or the key is not that of the certificate.
pub(crate) fn client(
    group: Group,
    identity: Option<Identity>,
) -> anyhow::Result<Arc<ClientConfig>> {
    let group: &'static dyn SupportedKxGroup = match group {
        Group::X25519 => aws_lc_rs::kx_group::X25519,
        Group::X25519mlkem768 => aws_lc_rs::kx_group::X25519MLKEM768,
    };
    let mut provider = CryptoProvider {
        kx_groups: vec![group],
        ..aws_lc_rs::default_provider()
    };
    if identity.is_some() {
        provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256];
    }
    let provider = Arc::new(provider);
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .context("TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match identity {
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The name that is asked for.
pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("localhost is a name")
}

// === impl Identity ===

impl Identity {
    /// The caller's, from a folder that [`authority::write`] filled.
    ///
    /// # Errors
    ///
    /// If it is not there.
    pub(crate) fn caller(folder: &Path) -> anyhow::Result<Self> {
        let [certificate, key] = ["caller.pem", "caller.key"].map(|name| folder.join(name));
        let certificate = CertificateDer::from_pem_file(&certificate);
        let certificate = certificate.with_context(|| format!("no certificate in {folder:?}"))?;
        let key = PrivateKeyDer::from_pem_file(key);
        Ok(Self {
            chain: vec![certificate],
            key: key.with_context(|| format!("no key in {folder:?}"))?,
        })
    }

    /// Somebody's whom nobody knows.
    ///
    /// # Errors
    ///
    /// If it cannot be made.
    pub(crate) fn stranger() -> anyhow::Result<Self> {
        let (certificate, key) = authority::stranger()?;
        Ok(Self {
            chain: vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
            key: PrivateKeyDer::from_pem_slice(key.as_bytes())?,
        })
    }
}

// === impl Anybody ===

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("only TLS 1.3 is offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
