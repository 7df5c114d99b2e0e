//! A certificate authority, and servers with its certificates.

use mesh_core::model::{
    Cluster, LiveSecret, Secret, SecretRef, ServerTls, Snapshot, SnapshotBuilder, Validation,
};
use mesh_identity::Acceptor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::sync::Arc;

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A server's secret, which may be replaced.
pub(crate) struct Server {
    pub(crate) acceptor: Acceptor,
    pub(crate) secret: Arc<LiveSecret>,
    _snapshot: Arc<Snapshot>,
}

// === impl Authority ===

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Trust in this authority.
    pub(crate) fn roots(&self) -> Arc<Secret> {
        Arc::new(Secret::roots(self.0.pem()))
    }

    /// A certificate for these names.
    pub(crate) fn certificate(&self, names: &[&str]) -> Arc<Secret> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Arc::new(Secret::certificate(certificate.pem(), key.serialize_pem()))
    }

    /// A server that shows a certificate for these names and agrees on one of these protocols,
    /// rather the first. With `mutual` it wants callers to have one of this authority.
    pub(crate) fn server(&self, names: &[&str], alpn: &[&str], mutual: bool) -> Server {
        let (own, roots) = (SecretRef::local("own"), SecretRef::local("roots"));
        let mut tls = ServerTls::default();
        tls.alpn = alpn.iter().map(|name| (*name).into()).collect();
        tls.certificates = vec![own.clone()];
        tls.require_client_certificate = mutual;
        tls.validation = mutual.then(|| validation(&roots));
        let snapshot = with_secrets([
            (own.clone(), self.certificate(names)),
            (roots, self.roots()),
        ]);
        let find = |named: &SecretRef| snapshot.secret(named).cloned();
        Server {
            acceptor: Acceptor::new(Arc::new(tls), find).unwrap(),
            secret: snapshot.secret(&own).unwrap().clone(),
            _snapshot: snapshot,
        }
    }
}

/// Asks for a certificate that leads to these roots.
pub(crate) fn validation(roots: &SecretRef) -> Validation {
    let mut validation = Validation::default();
    validation.roots = Some(roots.clone());
    validation
}

/// A snapshot that has these secrets, because a cluster names them.
fn with_secrets<const N: usize>(secrets: [(SecretRef, Arc<Secret>); N]) -> Arc<Snapshot> {
    let mut tls = mesh_core::model::ClientTls::default();
    let mut builder = SnapshotBuilder::new();
    for (named, secret) in secrets {
        tls.certificates.push(named.clone());
        builder.secret(named, secret);
    }
    let mut cluster = Cluster::new("holds secrets");
    cluster.tls = Some(Arc::new(tls));
    builder.cluster(cluster);
    builder.build().unwrap().0
}
