//! TLS as the mesh's model describes it: handshakes for servers and clients, with certificates and
//! roots that change while they are in use.
//!
//! An [`Acceptor`] is made of a [`ServerTls`](mesh_core::model::ServerTls), a [`Connector`] of a
//! [`ClientTls`](mesh_core::model::ClientTls); both find their keys, certificates and roots in
//! [`LiveSecret`](mesh_core::model::LiveSecret)s, which whoever provides them publishes into:
//! [`Files`], a secret discovery service, your own code. What is published is used by the next
//! handshake; connections go on, sessions from before are not resumed. A session that is resumed is
//! not checked again, as by Envoy.
//!
//! Outcomes, what is counted and the texts of failures are those of Envoy. TLS 1.2 and 1.3 with
//! forward secrecy are spoken, nothing older. Neither OCSP nor session tickets with keys of your
//! own nor early data are covered, and handshakes have no limit in time: put them in a
//! `tokio::time::timeout`.
//!
//! ```
//! use mesh_core::model::*;
//! use mesh_identity::Connector;
//! use std::sync::Arc;
//!
//! // Whatever the endpoint shows is accepted, as by Envoy without a validation.
//! let mut tls = ClientTls::default();
//! tls.sni = "reviews.default.svc.cluster.local".into();
//! let connector = Connector::new(Arc::new(tls), |_| None)?;
//! # let _ = async move {
//! let tcp = tokio::io::duplex(1024).0;
//! let (stream, told) = connector.connect(tcp, None).await?;
//! println!("{} {:?}", told.cipher, stream);
//! # Ok::<(), mesh_identity::TlsError>(())
//! # };
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

#![forbid(unsafe_code)]

mod acceptor;
#[cfg(feature = "authority")]
pub mod authority;
mod connector;
mod error;
mod facts;
mod files;
mod info;
mod names;
mod params;
mod pem;
#[cfg(feature = "request")]
mod request;
mod san;
mod secret;
mod source;
mod spiffe;
mod stream;
mod verify;

pub mod fuzz;

pub use acceptor::Acceptor;
pub use connector::Connector;
pub use error::{TlsError, TlsFailure};
pub use facts::{CertificateFacts, CertificateName, certificate_facts};
pub use files::{Files, system_roots};
pub use params::{check_client, check_server};
pub use pem::{MAX_CERTIFICATE_BYTES, MAX_CHAIN, MAX_REVOKED, MAX_ROOTS, MAX_TRUST_BYTES, to_pem};
#[cfg(feature = "request")]
pub use request::{CertificateRequest, Credentials, KeyKind, renew_after};
pub use secret::check_secret;
pub use spiffe::{
    MAX_SPIFFE_ID, MAX_TRUST_DOMAIN, SpiffeId, check_trust_domain, trust_domain_names,
};
pub use stream::TlsStream;
