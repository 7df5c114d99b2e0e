//! Asks Istio's `IstioCertificateService` for a certificate.

use super::remote::{Patience, remotes, said};
use super::server::Server;
use crate::certificates::{CREATE, CreateRequest, CreateResponse};
use http::uri::PathAndQuery;
use mesh_core::Invalid;
use std::fmt;
use std::time::Duration;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

/// The largest answer, in bytes: a bundle of roots may be large.
const MAX_ANSWER: usize = 1 << 20;

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateError {
    /// The authority cannot be asked like this.
    Server(Invalid),
    /// It cannot be reached, or no token can be read. Trying again may help.
    Unreachable(String),
    /// It refused: its gRPC status, as text.
    Refused(String),
}

/// Asks an authority for a certificate: for how long it is wanted is up to it where `ttl` is none.
/// Returns certificates as PEM, one each: the own one first, roots last.
///
/// `server` has to be spoken to with TLS. Who asks is known by the certificate that `server` shows
/// ([`Server::tls`]) or by its token ([`Server::token_file`]). A connection is made for this and
/// closed again; it may take 5 s to open and as long again to answer.
///
/// # Errors
/// See [`CertificateError`].
///
/// # Cancel safety
/// The authority may have made a certificate that nobody gets.
pub async fn request_certificate(
    server: Server,
    csr: &str,
    ttl: Option<Duration>,
) -> Result<Vec<String>, CertificateError> {
    let limit = Duration::from_secs(5);
    let patience = Patience {
        connect: limit,
        keep_alive: None,
    };
    if !server.is_secure() {
        let message = "a certificate is asked for over TLS only: https:// is expected";
        return Err(CertificateError::Server(Invalid::new("", message)));
    }
    let (mut remotes, mut keys) =
        remotes(vec![server], patience).map_err(CertificateError::Server)?;
    let remote = remotes.swap_remove(0);
    keys.refresh().await;
    let asked = CreateRequest {
        csr: csr.to_owned(),
        validity_duration: ttl.map_or(0, |ttl| i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)),
        metadata: None,
    };
    let request = remote.request(asked);
    let request = request.map_err(CertificateError::Unreachable)?;
    let channel = remote.connect().await;
    let channel = channel.map_err(CertificateError::Unreachable)?;
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
    let call = async {
        grpc.ready()
            .await
            .map_err(|error| CertificateError::Unreachable(super::remote::with_sources(&error)))?;
        let codec = ProstCodec::<CreateRequest, CreateResponse>::default();
        let answer = grpc.unary(request, PathAndQuery::from_static(CREATE), codec);
        let answer = answer.await;
        answer.map_err(|status| match status.code() {
            tonic::Code::Unavailable => CertificateError::Unreachable(said(&status)),
            _ => CertificateError::Refused(said(&status)),
        })
    };
    let answer = tokio::time::timeout(limit, call).await;
    let late = |_| CertificateError::Unreachable(format!("no answer in {limit:?}"));
    Ok(answer.map_err(late)??.into_inner().cert_chain)
}

// === impl CertificateError ===

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(error) => error.fmt(f),
            Self::Unreachable(why) => write!(f, "the authority cannot be asked: {why}"),
            Self::Refused(why) => write!(f, "the authority refused: {why}"),
        }
    }
}

impl std::error::Error for CertificateError {}
