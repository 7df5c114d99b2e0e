//! Who the proxy is in the mesh: its own certificate with its key, and the roots that it trusts.
//!
//! Istio's configuration names both as secrets of the agent beside each proxy (`sds-grpc`):
//! `default` and `ROOTCA`. A proxy that has an identity of its own answers for these two itself,
//! whether its configuration comes from files or from a control plane; without one they are asked
//! for like any other secret. Whoever renews a certificate publishes it, and the next handshake
//! uses it.

use mesh_core::model::{
    ClientTls, Cluster, LiveSecret, Secret, SecretName, SecretRef, SecretSource, Snapshot,
    SnapshotBuilder, Validation,
};
use mesh_core::{Feed, Invalid, Publisher};
use mesh_identity::Files;
use std::path::Path;
use std::sync::Arc;

/// The proxy's own certificate and the roots that it trusts, as they change.
#[derive(Clone, Debug)]
pub struct Identity {
    certificate: Feed<Option<Arc<Secret>>>,
    roots: Feed<Option<Arc<Secret>>>,
}

/// Follows an identity that lies in files; see [`Identity::in_directory`].
#[derive(Debug)]
pub struct IdentityFiles {
    files: Files,
    /// While it lives, the files are named.
    _named: Publisher<Snapshot>,
}

/// The cluster of Istio's agent.
pub(crate) const AGENT: &str = "sds-grpc";

/// What Istio calls a proxy's own certificate.
pub(crate) const CERTIFICATE: &str = "default";

/// What Istio calls the roots of the mesh.
pub(crate) const ROOTS: &str = "ROOTCA";

// === impl Identity ===

impl Identity {
    /// An identity that somebody keeps: a [`Secret::Certificate`] and a [`Secret::Trust`]. None is
    /// none as yet; handshakes that need it fail until it comes.
    pub fn new(certificate: Feed<Option<Arc<Secret>>>, roots: Feed<Option<Arc<Secret>>>) -> Self {
        Self { certificate, roots }
    }

    /// An identity in the files `cert-chain.pem`, `key.pem` and `root-cert.pem` of a directory, as
    /// Istio's agent leaves them with `OUTPUT_CERTS`. They are read and followed as
    /// [`IdentityFiles`] says.
    ///
    /// # Errors
    /// If the directory is not one, or its path is not UTF-8.
    pub fn in_directory(directory: &Path) -> Result<(Self, IdentityFiles), Invalid> {
        let refused = |why| Invalid::new(directory.display().to_string(), why);
        let Some(place) = directory.to_str() else {
            return Err(refused("expected a path in UTF-8"));
        };
        if !directory.is_dir() {
            let why = "expected a directory with cert-chain.pem, key.pem and root-cert.pem";
            return Err(refused(why));
        }
        let (certificate, key) = (
            format!("{place}/cert-chain.pem"),
            format!("{place}/key.pem"),
        );
        let certificate = SecretName::CertificateFiles {
            certificate: &certificate,
            key: &key,
        };
        let certificate = SecretRef::local(certificate.to_name());
        let roots = format!("{place}/root-cert.pem");
        let roots = SecretRef::local(SecretName::RootFile(&roots).to_name());
        // `Files` follows what a snapshot names; this one names nothing else.
        let mut validation = Validation::default();
        validation.roots = Some(roots.clone());
        let mut tls = ClientTls::default();
        tls.certificates = vec![certificate.clone()];
        tls.validation = Some(validation);
        let mut cluster = Cluster::new("identity");
        cluster.tls = Some(Arc::new(tls));
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster);
        let (snapshot, _) = builder.build()?;
        let value = |named| snapshot.secret(named).map(|live| live.value());
        let (Some(certificate), Some(roots)) = (value(&certificate), value(&roots)) else {
            return Err(refused("its files cannot be followed"));
        };
        let named = Publisher::from_arc(snapshot.clone());
        let files = IdentityFiles {
            files: Files::new(named.feed()),
            _named: named,
        };
        Ok((Self { certificate, roots }, files))
    }

    /// The secret that goes by this name, if it is one of the identity's.
    pub(crate) fn secret(&self, name: &str) -> Option<Option<Arc<Secret>>> {
        match name {
            CERTIFICATE => Some((*self.certificate.load()).clone()),
            ROOTS => Some((*self.roots.load()).clone()),
            _ => None,
        }
    }

    /// Provides what a snapshot names of the identity.
    pub(crate) fn provide(&self, snapshot: &Snapshot) {
        for (named, live) in own(snapshot) {
            if let Some(Some(secret)) = self.secret(&named.name) {
                live.publish(Some(secret));
            }
        }
    }

    /// Waits until the identity changes; for ever, if nobody keeps it any more.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn changed(&mut self) {
        let (certificate, roots) = (&mut self.certificate, &mut self.roots);
        let certificate = async {
            if certificate.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let roots = async {
            if roots.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = certificate => {}
            () = roots => {}
        }
    }

    /// Provides what the snapshots of a feed name of the identity, for ever.
    pub(crate) async fn follow(mut self, mut feed: Feed<Snapshot>) {
        let mut followed = true;
        loop {
            self.provide(&feed.load());
            tokio::select! {
                changed = feed.changed(), if followed => followed = changed.is_ok(),
                () = self.changed() => {}
            }
        }
    }
}

// === impl IdentityFiles ===

impl IdentityFiles {
    /// Looks at the files now: before the proxy starts, so that the first handshakes find their
    /// certificate. What cannot be used is said in the log, and the last that could stays.
    pub async fn refresh(&mut self) {
        self.files.refresh().await;
    }

    /// Follows the files for ever: the user runs it, and drops it to stop.
    ///
    /// # Panics
    /// Outside a tokio runtime with time enabled.
    pub async fn run(self) {
        let Self { files, _named } = self;
        files.run().await;
    }
}

/// What a snapshot names of the proxy's identity.
fn own(snapshot: &Snapshot) -> impl Iterator<Item = (&SecretRef, &Arc<LiveSecret>)> {
    let secrets = snapshot.secrets().iter();
    secrets.filter(|(named, _)| {
        let ours = matches!(&*named.name, CERTIFICATE | ROOTS);
        ours && matches!(&named.source, SecretSource::Service { cluster, .. } if *cluster == AGENT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::StreamOpening;
    use rcgen::generate_simple_self_signed;

    fn of_agent(name: &str, cluster: &str) -> SecretRef {
        SecretRef {
            name: name.into(),
            source: SecretSource::Service {
                cluster: cluster.into(),
                delta: false,
                opening: StreamOpening::default(),
                initial_fetch_timeout: std::time::Duration::ZERO,
            },
        }
    }

    fn naming(named: &[SecretRef]) -> Arc<Snapshot> {
        let mut tls = ClientTls::default();
        tls.certificates = named.to_vec();
        let mut cluster = Cluster::new("c");
        cluster.tls = Some(Arc::new(tls));
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster);
        builder.build().unwrap().0
    }

    fn value(snapshot: &Snapshot, named: &SecretRef) -> Option<Arc<Secret>> {
        (*snapshot.secret(named).unwrap().value().load()).clone()
    }

    #[tokio::test]
    async fn files_of_a_directory_are_the_agents_two_secrets_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let made = generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let write = |name: &str, text: String| {
            std::fs::write(directory.path().join(name), text).unwrap();
        };
        write("cert-chain.pem", made.cert.pem());
        write("key.pem", made.signing_key.serialize_pem());
        write("root-cert.pem", made.cert.pem());
        let (identity, mut files) = Identity::in_directory(directory.path()).unwrap();
        let (own, roots) = (of_agent(CERTIFICATE, AGENT), of_agent(ROOTS, AGENT));
        let others = [of_agent("other", AGENT), of_agent(CERTIFICATE, "spire")];
        let all = [
            own.clone(),
            roots.clone(),
            others[0].clone(),
            others[1].clone(),
        ];
        let snapshot = naming(&all);

        identity.provide(&snapshot);
        assert!(value(&snapshot, &own).is_none(), "nothing was read as yet");
        files.refresh().await;
        identity.provide(&snapshot);
        let certificate = value(&snapshot, &own).unwrap();
        assert!(matches!(*certificate, Secret::Certificate { .. }));
        assert!(matches!(
            *value(&snapshot, &roots).unwrap(),
            Secret::Trust { .. }
        ));
        for other in &others {
            assert!(value(&snapshot, other).is_none(), "{other:?}");
        }
    }

    #[tokio::test]
    async fn what_is_renewed_and_what_is_newly_named_is_provided() {
        let certificate = Publisher::new(None);
        let roots = Publisher::new(None);
        let identity = Identity::new(certificate.feed(), roots.feed());
        let own = of_agent(CERTIFICATE, AGENT);
        let first = naming(&[]);
        let snapshots = Publisher::from_arc(first);
        let following = tokio::spawn(identity.follow(snapshots.feed()));
        let one = Arc::new(Secret::certificate("chain", "key"));
        certificate.publish(Arc::new(Some(one.clone())));
        let second = naming(std::slice::from_ref(&own));
        let mut live = second.secret(&own).unwrap().value();
        snapshots.publish(second.clone());
        live.changed().await.unwrap();
        assert_eq!(value(&second, &own), Some(one));
        let two = Arc::new(Secret::certificate("chain 2", "key 2"));
        certificate.publish(Arc::new(Some(two.clone())));
        live.changed().await.unwrap();
        assert_eq!(value(&second, &own), Some(two));
        following.abort();
    }

    #[test]
    fn a_place_that_is_no_directory_is_refused_with_what_was_expected() {
        let error = Identity::in_directory(Path::new("no/such/place")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("no/such/place") && text.contains("root-cert.pem"),
            "{text}"
        );
    }
}
