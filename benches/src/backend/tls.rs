//! TLS 1.3 for callers that show a certificate of the right authority, and whose it is.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use rustls::{
    RootCertStore, ServerConfig, ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use tokio_rustls::TlsAcceptor;
use webpki::EndEntityCert;

/// HTTP/2, as ALPN calls it (RFC 9113, section 3.1).
pub(crate) const H2: &[u8] = b"h2";

/// What `backend.pem`, `backend.key` and `ca.pem` of a folder say.
///
/// One group and one cipher, so that all who call do the same: X25519 and AES-128-GCM. Nothing can be
/// resumed.
///
/// # Errors
///
/// If one of them is not there or is something else.
pub(crate) fn acceptor(folder: &Path) -> anyhow::Result<TlsAcceptor> {
    let certificate = |name: &str| {
        let file = folder.join(name);
        CertificateDer::from_pem_file(&file).with_context(|| format!("no certificate in {file:?}"))
    };
    let provider = Arc::new(CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        ..aws_lc_rs::default_provider()
    });
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.pem")?)?;
    let callers = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let key = folder.join("backend.key");
    let key = PrivateKeyDer::from_pem_file(&key).with_context(|| format!("no key in {key:?}"))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .context("TLS 1.3")?
        .with_client_cert_verifier(callers.build()?)
        .with_single_cert(vec![certificate("backend.pem")?], key)?;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config).into())
}

/// The URI that the caller's certificate is for.
///
/// # Errors
///
/// If there is no certificate, or it is for none.
pub(crate) fn caller(session: &ServerConnection) -> anyhow::Result<Arc<str>> {
    let certificates = session.peer_certificates().unwrap_or_default();
    let leaf = certificates.first().context("no certificate was shown")?;
    let leaf = EndEntityCert::try_from(leaf).context("a certificate cannot be read")?;
    let uri = leaf.valid_uri_names().next();
    Ok(uri.context("a certificate without a URI")?.into())
}
