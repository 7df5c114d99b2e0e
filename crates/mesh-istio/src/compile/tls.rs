//! Transport security: what gateways show and what clusters ask for.
//!
//! Certificates in Kubernetes Secrets are called as istiod calls them, `kubernetes://NAME`, and
//! roots `kubernetes://NAME-cacert`. Those in files are named after the files; where istiod's
//! agent is at hand, it is asked for them.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::{
    ClientTls, Secret, SecretName, SecretRef, SecretSource, ServerTls, SnapshotBuilder,
    StreamOpening, StringMatch, TlsParams, TlsVersion, Validation,
};
use mesh_core::{Name, Origin};

use super::{Compiler, Half, mutual};
use crate::spec::Meta;
use crate::spec::gateway::{Callers, Termination};
use crate::spec::tls::{Credential, Roots};
use crate::spec::traffic_policy::Origination;
use crate::world::World;

/// How long a handshake may take, as istiod has it.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(15);

/// Envoy's `initial_fetch_timeout` where nothing is said.
const FETCH: Duration = Duration::from_secs(15);

/// The cluster of istiod's agent.
pub(super) const AGENT: &str = "sds-grpc";

const KUBERNETES: &str = "kubernetes://";
const ROOTS: &str = "-cacert";

/// How TLS ends at a gateway's server.
pub(super) fn server(
    compiler: &mut Compiler<'_>,
    meta: &Meta,
    asked: &Termination,
) -> Arc<ServerTls> {
    let namespace = compiler.viewer.namespace();
    let certificates = asked.certificates.iter().filter_map(|one| match one {
        Credential::Named(name) => Some((name, certificate_name(name))),
        Credential::Files { .. } => None,
    });
    let roots = match &asked.roots {
        Some(Roots::Named(name)) => Some((name, roots_name(name))),
        _ => None,
    };
    for (name, secret) in certificates.chain(roots) {
        if find(compiler.world, namespace, &secret).is_none() {
            let message = format!(
                "no Secret {:?} in namespace {namespace:?} has {}: until one has, handshakes fail",
                name.value,
                match secret.ends_with(ROOTS) {
                    true => "ca.crt",
                    false => "tls.crt and tls.key",
                },
            );
            compiler.warn(meta, name.at, "spec.servers", message);
        }
    }
    let mut tls = ServerTls::default();
    tls.origin = compiler.origin(meta, asked.at);
    tls.params = params(asked);
    if asked.mesh {
        mutual::server(&mut tls, exact(&asked.subject_alt_names));
        if !compiler.viewer.has_identity() {
            let message = "ISTIO_MUTUAL needs a certificate of the mesh, and this proxy has none: \
                           handshakes fail";
            compiler.fail(meta, asked.at, "spec.servers.tls.mode", message.to_owned());
        }
        return Arc::new(tls);
    }
    tls.alpn = vec![Name::from("h2"), Name::from("http/1.1")];
    let agent = compiler.intercepts();
    tls.certificates = asked
        .certificates
        .iter()
        .map(|one| certificate(one, agent))
        .collect();
    if asked.callers != Callers::Anonymous {
        let mut validation = Validation::default();
        (validation.roots, validation.revoked) = trust(asked.roots.as_ref(), agent);
        validation.subject_alt_names = exact(&asked.subject_alt_names);
        validation.hashes.clone_from(&asked.hashes);
        validation.spki.clone_from(&asked.spki);
        tls.validation = Some(validation);
    }
    tls.require_client_certificate = asked.callers == Callers::MustShow;
    Arc::new(tls)
}

fn params(asked: &Termination) -> TlsParams {
    let mut params = TlsParams::default();
    params.min = asked.min;
    params.max = asked.max;
    params.ciphers = asked.ciphers.iter().map(Name::from).collect();
    params
}

/// How TLS begins towards a cluster. `named` are the names that its service says its endpoints
/// have; `h2` says that HTTP/2 is spoken from the first byte; `agent` that istiod's is at hand;
/// `secrets` that those of Kubernetes may be used.
pub(super) fn client(
    asked: &Origination,
    origin: Origin,
    named: &[String],
    h2: bool,
    agent: bool,
    secrets: bool,
) -> Arc<ClientTls> {
    let mut tls = ClientTls::default();
    tls.origin = origin;
    tls.params.min = Some(TlsVersion::V1_2);
    tls.params.max = Some(TlsVersion::V1_3);
    if h2 {
        tls.alpn = vec![Name::from("h2")];
    }
    let usable = |credential: &&Credential| secrets || !matches!(credential, Credential::Named(_));
    let own = asked.certificate.as_ref().filter(usable);
    tls.certificates = own.map(|one| certificate(one, agent)).into_iter().collect();
    let names = match asked.subject_alt_names.as_slice() {
        [] => named,
        own => own,
    };
    let mut validation = Validation::default();
    if !asked.skip_verify {
        let roots = asked.roots.as_ref();
        let roots = roots.filter(|roots| secrets || !matches!(roots, Roots::Named(_)));
        (validation.roots, validation.revoked) = trust(roots, agent);
        if validation.roots.is_none() {
            validation.roots = Some(file(SecretName::SystemRoots, agent));
        }
        validation.subject_alt_names = exact(names);
    }
    tls.validation = Some(validation);
    tls.sni = Name::from(asked.sni.as_str());
    tls.auto_sni = asked.sni.is_empty();
    tls.auto_san = tls.auto_sni && names.is_empty() && !asked.skip_verify;
    Arc::new(tls)
}

fn exact(names: &[String]) -> Vec<StringMatch> {
    names.iter().cloned().map(StringMatch::Exact).collect()
}

fn certificate(credential: &Credential, agent: bool) -> SecretRef {
    match credential {
        Credential::Named(name) => kubernetes(certificate_name(name)),
        Credential::Files { certificate, key } => {
            file(SecretName::CertificateFiles { certificate, key }, agent)
        }
    }
}

/// Roots, and lists of revoked certificates beside them.
fn trust(roots: Option<&Roots>, agent: bool) -> (Option<SecretRef>, Option<SecretRef>) {
    match roots {
        None => (None, None),
        Some(Roots::Named(name)) => (Some(kubernetes(roots_name(name))), None),
        Some(Roots::Files { roots, revoked }) => {
            // The agent has no word for lists of revoked certificates: the proxy reads the file.
            let revoked = revoked.as_deref().map(SecretName::RevokedFile);
            let revoked = revoked.map(|name| SecretRef::local(name.to_name()));
            (Some(file(SecretName::RootFile(roots), agent)), revoked)
        }
    }
}

fn certificate_name(name: &str) -> String {
    format!("{KUBERNETES}{name}")
}

fn roots_name(name: &str) -> String {
    match name.ends_with(ROOTS) {
        true => format!("{KUBERNETES}{name}"),
        false => format!("{KUBERNETES}{name}{ROOTS}"),
    }
}

fn kubernetes(name: String) -> SecretRef {
    SecretRef {
        name: Name::from(name),
        source: SecretSource::ControlPlane {
            initial_fetch_timeout: FETCH,
        },
    }
}

fn file(name: SecretName<'_>, agent: bool) -> SecretRef {
    let name = name.to_name();
    match agent {
        false => SecretRef::local(name),
        true => SecretRef {
            name,
            source: SecretSource::Service {
                cluster: Name::from(AGENT),
                delta: false,
                opening: StreamOpening::default(),
                initial_fetch_timeout: FETCH,
            },
        },
    }
}

/// The secret of this name that proxies of a namespace may have: one of that namespace. Roots are
/// in a Secret of their own, or else beside the certificate.
fn find(world: &World, namespace: &str, name: &str) -> Option<Arc<Secret>> {
    let name = name.strip_prefix(KUBERNETES)?;
    let Some(plain) = name.strip_suffix(ROOTS) else {
        return world.secret(namespace, name)?.certificate.clone();
    };
    let trust = |name: &str| world.secret(namespace, name)?.trust.clone();
    trust(name).or_else(|| trust(plain))
}

/// The secrets of Kubernetes that are named by what was made.
pub(super) fn named(half: &Half) -> Vec<SecretRef> {
    let chains = half.listeners.iter().flat_map(|one| one.all_chains());
    let servers = chains.filter_map(|chain| chain.tls.as_ref());
    let servers = servers.flat_map(|tls| tls.secrets());
    let clients = half.clusters.iter().filter_map(|one| one.tls.as_ref());
    let named = servers.chain(clients.flat_map(|tls| tls.secrets()));
    let named: HashSet<&SecretRef> = named
        .filter(|one| one.name.starts_with(KUBERNETES))
        .collect();
    named.into_iter().cloned().collect()
}

/// Provides the secrets that something made for a node of this namespace names, and says of others
/// that there are none.
pub(super) fn provide(half: &Half, world: &World, namespace: &str, builder: &mut SnapshotBuilder) {
    for one in &half.secrets {
        builder.secret(one.clone(), find(world, namespace, &one.name));
    }
}

/// Whether there is all that a client's TLS settings take from a Secret.
pub(super) fn has(world: &World, namespace: &str, asked: &Origination) -> bool {
    let found = |name: String| find(world, namespace, &name).is_some();
    let certificate = match &asked.certificate {
        Some(Credential::Named(name)) => found(certificate_name(name)),
        _ => true,
    };
    let roots = match &asked.roots {
        Some(Roots::Named(name)) => found(roots_name(name)),
        _ => true,
    };
    certificate && roots
}
