//! TLS 1.3 as a client that trusts anybody, with one group for the key exchange.

use std::sync::Arc;

use anyhow::Context as _;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};

/// The groups that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Group {
    X25519,
    /// The hybrid with ML-KEM (draft-ietf-tls-ecdhe-mlkem).
    X25519mlkem768,
}

/// Whoever answers is believed: neither chain nor signature takes time that the proxies need.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

/// A client of HTTP/1.1 that offers only this group and resumes nothing.
///
/// # Errors
///
/// If TLS 1.3 cannot be had.
pub(crate) fn client(group: Group) -> anyhow::Result<Arc<ClientConfig>> {
    let group: &'static dyn SupportedKxGroup = match group {
        Group::X25519 => aws_lc_rs::kx_group::X25519,
        Group::X25519mlkem768 => aws_lc_rs::kx_group::X25519MLKEM768,
    };
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![group],
        ..aws_lc_rs::default_provider()
    });
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&TLS13])
        .context("TLS 1.3")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The name that is asked for.
pub(crate) fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("localhost is a name")
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
