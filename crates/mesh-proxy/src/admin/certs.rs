//! `/certs` in Envoy's shape (`envoy.admin.v3.Certificates`): for each side of TLS that has its
//! secrets, the certificates that it shows and the first root that it trusts.

use super::dump::time;
use crate::runtime::Shared;
use mesh_core::WallClock;
use mesh_core::model::{Secret, SecretName, SecretRef, Snapshot, Validation};
use mesh_identity::{CertificateFacts, CertificateName, certificate_facts};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::UNIX_EPOCH;

/// What is shown of secrets, each read once: most clusters have the same.
struct Shown<'a> {
    snapshot: &'a Snapshot,
    /// Seconds since 1970.
    now: i64,
    known: HashMap<SecretRef, Option<Value>>,
}

pub(super) fn json(shared: &Shared) -> Value {
    let snapshot = shared.feed.load();
    let now = WallClock::system().now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    let listeners = snapshot.listeners().iter();
    let chains = listeners.flat_map(|listener| listener.all_chains());
    let servers = chains
        .filter_map(|chain| chain.tls.as_ref())
        .map(|tls| (&tls.certificates, &tls.validation));
    let clusters = snapshot.clusters().iter();
    let clients: Vec<_> = clusters.map(|entry| entry.config().clone()).collect();
    let clients = clients
        .iter()
        .filter_map(|cluster| cluster.tls.as_ref())
        .map(|tls| (&tls.certificates, &tls.validation));
    let sides = servers.chain(clients);
    let mut shown = Shown {
        snapshot: &snapshot,
        now,
        known: HashMap::new(),
    };
    let all: Vec<Value> = sides
        .filter_map(|(certificates, validation)| shown.side(certificates, validation.as_ref()))
        .collect();
    json!({ "certificates": all })
}

// === impl Shown ===

impl Shown<'_> {
    /// One side of TLS. None as long as it lacks a secret, or a certificate cannot be read.
    fn side(
        &mut self,
        certificates: &[SecretRef],
        validation: Option<&Validation>,
    ) -> Option<Value> {
        let roots = validation.and_then(|validation| validation.roots.as_ref());
        let roots: Option<Vec<Value>> = roots.into_iter().map(|named| self.first(named)).collect();
        let certificates = certificates.iter().map(|named| self.first(named));
        let certificates: Option<Vec<Value>> = certificates.collect();
        Some(json!({"ca_cert": roots?, "cert_chain": certificates?}))
    }

    fn first(&mut self, named: &SecretRef) -> Option<Value> {
        if let Some(known) = self.known.get(named) {
            return known.clone();
        }
        let found = first(self.snapshot, named, self.now);
        self.known.insert(named.clone(), found.clone());
        found
    }
}

/// The first certificate of a secret: of a chain the leaf, of roots the one that Envoy shows.
fn first(snapshot: &Snapshot, named: &SecretRef, now: i64) -> Option<Value> {
    let value = snapshot.secret(named)?.value().load();
    let text = match value.as_deref()? {
        Secret::Certificate { chain, .. } => chain,
        Secret::Trust { roots, .. } => roots,
        _ => return None,
    };
    let facts = certificate_facts(text).ok()?;
    Some(details(&path(named), facts.first()?, now))
}

fn path(named: &SecretRef) -> String {
    match SecretName::of(&named.name) {
        SecretName::CertificateFiles { certificate, .. } => certificate.to_owned(),
        SecretName::RootFile(file) => file.to_owned(),
        SecretName::SystemRoots => "<system>".to_owned(),
        _ => "<inline>".to_owned(),
    }
}

fn details(path: &str, facts: &CertificateFacts, now: i64) -> Value {
    let names = facts.names.iter().filter_map(|name| match name {
        CertificateName::Dns(name) => Some(json!({ "dns": name })),
        CertificateName::Uri(uri) => Some(json!({ "uri": uri })),
        CertificateName::Ip(address) => Some(json!({"ip_address": address.to_string()})),
        _ => None,
    });
    json!({
        "path": path,
        "serial_number": facts.serial,
        "subject_alt_names": names.collect::<Vec<_>>(),
        "days_until_expiration": facts.days_left(now).to_string(),
        "valid_from": time(facts.not_before, 0),
        "expiration_time": time(facts.not_after, 0),
    })
}
