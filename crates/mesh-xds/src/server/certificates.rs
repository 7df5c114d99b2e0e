//! Istio's `IstioCertificateService` beside the discovery services.

use super::Refused;
use super::stream::{Peer, status};
use crate::certificates::{CreateRequest, CreateResponse};
use mesh_core::exchange::TlsInfo;
use mesh_core::model::SecretBytes;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tonic::body::Body;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// The largest request, in bytes.
const MAX_REQUEST: usize = 64 << 10;

/// Makes certificates, for whoever asks by Istio's protocol
/// ([`ServerBuilder::certify`](super::ServerBuilder::certify)).
pub trait Certify: Send + Sync + 'static {
    /// Answers one call: certificates as PEM, one each, the caller's first, roots last.
    ///
    /// Who the caller is has to follow from its certificate or its token, never from what it asks
    /// for.
    fn certify(&self, call: CertificateCall) -> Certified<'_>;
}

/// What becomes of a call.
pub type Certified<'a> = Pin<Box<dyn Future<Output = Result<Vec<String>, Refused>> + Send + 'a>>;

/// Somebody asks for a certificate.
#[derive(Clone)]
#[non_exhaustive]
pub struct CertificateCall {
    /// The request for it, as PEM (PKCS #10). Nothing in it was looked at.
    pub csr: String,
    /// For how long it is wanted; none is the default.
    pub ttl: Option<Duration>,
    /// The token that the caller has brought (`authorization: Bearer …`).
    pub token: Option<SecretBytes>,
    /// The connection's handshake, with the caller's certificate if it has shown one.
    pub tls: Arc<TlsInfo>,
    /// Where it comes from.
    pub address: Option<SocketAddr>,
}

/// The service as tonic calls it.
struct Create(Arc<dyn Certify>);

/// Answers one request.
pub(super) async fn serve<B>(
    certify: Arc<dyn Certify>,
    request: http::Request<B>,
) -> http::Response<Body>
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let codec = ProstCodec::<CreateResponse, CreateRequest>::default();
    let mut grpc = Grpc::new(codec).max_decoding_message_size(MAX_REQUEST);
    grpc.unary(Create(certify), request).await
}

// === impl Create ===

impl UnaryService<CreateRequest> for Create {
    type Response = CreateResponse;
    type Future =
        Pin<Box<dyn Future<Output = Result<Response<CreateResponse>, Status>> + Send + 'static>>;

    fn call(&mut self, request: Request<CreateRequest>) -> Self::Future {
        let certify = self.0.clone();
        Box::pin(async move {
            let call = CertificateCall::of(request)?;
            let made = certify.certify(call).await;
            let cert_chain = made.map_err(|refused| status(&refused))?;
            Ok(Response::new(CreateResponse { cert_chain }))
        })
    }
}

// === impl CertificateCall ===

impl CertificateCall {
    fn of(request: Request<CreateRequest>) -> Result<Self, Status> {
        let peer = request.extensions().get::<Peer>();
        let Some(tls) = peer.and_then(|peer| peer.tls.clone()) else {
            // A token would be for anybody who listens.
            let message = "certificates are made over TLS only: use the TLS address";
            return Err(Status::failed_precondition(message));
        };
        let address = peer.and_then(|peer| peer.address);
        let header = request.metadata().get("authorization");
        let token = header.and_then(|header| {
            let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
            let token = token.trim();
            scheme
                .eq_ignore_ascii_case("bearer")
                .then(|| SecretBytes::new(token))
        });
        let CreateRequest {
            csr,
            validity_duration,
            metadata,
        } = request.into_inner();
        let wishes = metadata.map(|metadata| metadata.fields).unwrap_or_default();
        for wish in ["ImpersonatedIdentity", "CertSigner"] {
            if wishes.contains_key(wish) {
                let message = format!("metadata.{wish} is not supported: leave it out");
                return Err(Status::unimplemented(message));
            }
        }
        let seconds = u64::try_from(validity_duration).unwrap_or_default();
        Ok(Self {
            csr,
            ttl: (seconds > 0).then(|| Duration::from_secs(seconds)),
            token,
            tls,
            address,
        })
    }
}

impl fmt::Debug for CertificateCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateCall")
            .field("ttl", &self.ttl)
            .field("token", &self.token.is_some())
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
