//! Istio's service that makes certificates (`istio.v1.auth`, `security/v1alpha1/ca.proto`).

use crate::pb::google::protobuf::Struct;

/// The service's name.
#[cfg(feature = "server")]
pub(crate) const SERVICE: &str = "istio.v1.auth.IstioCertificateService";

/// The path of its only method.
pub(crate) const CREATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// `IstioCertificateRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreateRequest {
    /// PKCS #10 as PEM.
    #[prost(string, tag = "1")]
    pub(crate) csr: String,
    /// For how long it is wanted, in seconds; nothing is the authority's default.
    #[prost(int64, tag = "3")]
    pub(crate) validity_duration: i64,
    /// Wishes beyond that: `ImpersonatedIdentity`, `CertSigner`.
    #[prost(message, optional, tag = "4")]
    pub(crate) metadata: Option<Struct>,
}

/// `IstioCertificateResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreateResponse {
    /// PEM, leaf first, roots last.
    #[prost(string, repeated, tag = "1")]
    pub(crate) cert_chain: Vec<String>,
}
