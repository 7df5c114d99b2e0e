//! The mesh's own mutual TLS: certificates that say which service account a workload has.
//!
//! Its own certificate and the roots of the mesh are secrets of Istio's agent, `default` and
//! `ROOTCA`; our proxy answers for them itself where it has an identity.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_core::model::{
    ClientTls, SecretRef, SecretSource, ServerTls, StreamOpening, StringMatch, TlsMatch,
    TlsVersion, Validation,
};
use mesh_core::{Name, Origin};

use super::{Compiler, tls};
use crate::names::server_name;
use crate::registry::{Entry, TLS_MODE, speaks_mutual};
use crate::spec::MutualTls;
use crate::spec::mesh_config::MeshConfig;
use crate::spec::traffic_policy::MeshTls;

/// The protocols by which sidecars call one another over mutual TLS.
pub(super) const PROTOCOLS: [&str; 5] = [
    "istio",
    "istio-peer-exchange",
    "istio-http/1.0",
    "istio-http/1.1",
    "istio-h2",
];

/// Those of them that stand for HTTP.
pub(super) const HTTP_PROTOCOLS: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];

/// Those of them that do not say what is inside.
pub(super) const OTHER_PROTOCOLS: [&str; 2] = ["istio-peer-exchange", "istio"];

/// istiod's list for the way in.
const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// The workload's own certificate.
fn certificate() -> SecretRef {
    of_agent("default")
}

/// The roots of the mesh.
fn roots() -> SecretRef {
    of_agent("ROOTCA")
}

fn of_agent(name: &str) -> SecretRef {
    SecretRef {
        name: Name::from(name),
        source: SecretSource::Service {
            cluster: Name::from(tls::AGENT),
            delta: false,
            opening: StreamOpening::default(),
            initial_fetch_timeout: Duration::ZERO,
        },
    }
}

/// What is asked of callers on the way in: that they are of the mesh.
pub(super) fn inbound(mesh: &MeshConfig) -> Arc<ServerTls> {
    let mut tls = ServerTls::default();
    tls.params.min = Some(TlsVersion::V1_2);
    tls.params.max = Some(TlsVersion::V1_3);
    tls.params.ciphers = CIPHERS.map(Name::from).to_vec();
    let domains = std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    let prefix = |domain: &String| StringMatch::Prefix(format!("spiffe://{domain}/"));
    server(&mut tls, domains.map(prefix).collect());
    Arc::new(tls)
}

/// The same for a gateway's server, of which the names may be asked besides.
pub(super) fn server(tls: &mut ServerTls, names: Vec<StringMatch>) {
    tls.alpn = vec![Name::from("h2"), Name::from("http/1.1")];
    tls.certificates = vec![certificate()];
    let mut validation = Validation::default();
    validation.roots = Some(roots());
    validation.subject_alt_names = names;
    tls.validation = Some(validation);
    tls.require_client_certificate = true;
}

/// Towards the endpoints of a service: as a rule asks for it, or by itself.
pub(super) fn client(
    compiler: &Compiler<'_>,
    (entry, subset, port): (&Entry, &str, u16),
    asked: Option<&MeshTls>,
    origin: Origin,
    h2: bool,
) -> Arc<ClientTls> {
    let mut tls = ClientTls::default();
    tls.origin = origin;
    tls.params.min = Some(TlsVersion::V1_2);
    tls.params.max = Some(TlsVersion::V1_3);
    tls.alpn = vec![Name::from("istio")];
    if h2 {
        tls.alpn.push(Name::from("h2"));
    }
    tls.certificates = vec![certificate()];
    let names: Vec<String> = match asked.map(|asked| asked.subject_alt_names.as_slice()) {
        None | Some([]) => accounts(compiler.mesh, entry).into_iter().collect(),
        Some(own) => own.to_vec(),
    };
    let mut validation = Validation::default();
    validation.roots = Some(roots());
    validation.subject_alt_names = names.into_iter().map(StringMatch::Exact).collect();
    tls.validation = Some(validation);
    let said = asked.map_or("", |asked| asked.sni.as_str());
    tls.sni = match said {
        "" => Name::from(server_name(port, subset, entry.host())),
        said => Name::from(said),
    };
    Arc::new(tls)
}

/// Who the endpoints of a service may be: what its entry says, and the service accounts of all of
/// them, by every name that their trust domain has.
fn accounts(mesh: &MeshConfig, entry: &Entry) -> BTreeSet<String> {
    let principals = entry.instances.iter();
    let principals = principals.map(|one| one.endpoint.workload.principal.to_string());
    let said = entry.subject_alt_names.iter().cloned();
    let mut all = BTreeSet::new();
    for name in said.chain(principals).filter(|name| !name.is_empty()) {
        let rest = name
            .strip_prefix("spiffe://")
            .and_then(|id| id.split_once('/'));
        if let Some((domain, rest)) = rest {
            let domains = || std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
            if domains().any(|known| known == domain) {
                all.extend(domains().map(|domain| format!("spiffe://{domain}/{rest}")));
            }
        }
        all.insert(name);
    }
    all
}

/// Whether mutual TLS is spoken to a service by itself, as far as that can be said of all of its
/// endpoints (istiod's `BestEffortInferServiceMTLSMode`). `called` says that callers choose the
/// endpoint.
pub(super) fn is_automatic(compiler: &Compiler<'_>, entry: &Entry, called: bool) -> bool {
    if !compiler.viewer.has_identity() || !compiler.mesh.auto_mtls || entry.service.external {
        return false;
    }
    if called {
        let mut all = entry.instances.iter().peekable();
        if all.peek().is_none() || !all.all(|one| speaks_mutual(&one.endpoint)) {
            return false;
        }
    }
    compiler.memory.peers.namespace(entry.namespace()) != MutualTls::Disable
}

/// Mutual TLS to endpoints that say that they take it, and plain text to others.
pub(super) fn matches(tls: Arc<ClientTls>) -> Vec<TlsMatch> {
    let (key, value) = TLS_MODE;
    let labels = [(Name::from(key), Name::from(value))];
    vec![
        TlsMatch {
            name: Name::from("tlsMode-istio"),
            labels: labels.into_iter().collect(),
            tls: Some(tls),
        },
        TlsMatch {
            name: Name::from("tlsMode-disabled"),
            labels: Default::default(),
            tls: None,
        },
    ]
}
