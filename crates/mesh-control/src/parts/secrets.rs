//! The secrets of a class: those that its snapshot names and that a control plane provides.
//!
//! Envoy ignores it when a secret that it asked for by name is removed, and goes on with what it
//! has. So whoever names a secret that is not there is written as waiting for it for another time:
//! to Envoy that is another secret, which it does not have, and new handshakes fail. It is a short
//! time because there is nothing to wait for; when the secret comes back, so does the usual one.

use mesh_core::Name;
use mesh_core::model::{Cluster, Listener, Secret, SecretRef, SecretSource, Snapshot, Validation};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long Envoy waits for a secret that is not there.
const ABSENT: Duration = Duration::from_secs(1);

/// The secrets that a control plane provides, by name; `None` is one that is not there.
pub(crate) struct Named(BTreeMap<Name, Option<Arc<Secret>>>);

// === impl Named ===

impl Named {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let secrets = snapshot.secrets().iter();
        let ours = secrets.filter(|(named, _)| is_ours(named));
        let each = ours.map(|(named, live)| (named.name.clone(), (*live.value().load()).clone()));
        Self(each.collect())
    }

    /// Those that are there.
    pub(crate) fn present(&self) -> impl Iterator<Item = (&Name, &Arc<Secret>)> {
        let each = self.0.iter();
        each.filter_map(|(name, secret)| Some((name, secret.as_ref()?)))
    }

    /// The listener as it is written.
    pub(crate) fn listener(&self, listener: &Arc<Listener>) -> Arc<Listener> {
        let chains = listener.all_chains().filter_map(|chain| chain.tls.as_ref());
        if !self.any_absent(chains.flat_map(|tls| tls.secrets())) {
            return listener.clone();
        }
        let mut changed = Listener::clone(listener);
        changed.for_each_chain(|chain| {
            if let Some(tls) = &mut chain.tls {
                let tls = Arc::make_mut(tls);
                self.shorten(&mut tls.certificates, &mut tls.validation);
            }
        });
        Arc::new(changed)
    }

    /// The cluster as it is written.
    pub(crate) fn cluster(&self, cluster: &Arc<Cluster>) -> Arc<Cluster> {
        if !self.any_absent(cluster.tls.iter().flat_map(|tls| tls.secrets())) {
            return cluster.clone();
        }
        let mut changed = Cluster::clone(cluster);
        if let Some(tls) = &mut changed.tls {
            let tls = Arc::make_mut(tls);
            self.shorten(&mut tls.certificates, &mut tls.validation);
        }
        Arc::new(changed)
    }

    fn any_absent<'a>(&self, mut named: impl Iterator<Item = &'a SecretRef>) -> bool {
        named.any(|named| self.is_absent(named))
    }

    fn is_absent(&self, named: &SecretRef) -> bool {
        is_ours(named) && matches!(self.0.get(&named.name), Some(None))
    }

    fn shorten(&self, certificates: &mut [SecretRef], validation: &mut Option<Validation>) {
        let validation = validation.iter_mut();
        let others = validation.flat_map(|one| [&mut one.roots, &mut one.revoked]);
        for named in certificates.iter_mut().chain(others.flatten()) {
            if self.is_absent(named) {
                named.source = SecretSource::ControlPlane {
                    initial_fetch_timeout: ABSENT,
                };
            }
        }
    }
}

fn is_ours(named: &SecretRef) -> bool {
    matches!(named.source, SecretSource::ControlPlane { .. })
}
