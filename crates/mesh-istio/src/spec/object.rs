//! From a YAML document to an object of a known kind.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::common::{is_dns_label, is_object_name};
use super::kubernetes::{Endpoints, Pod, Secret, Service};
use super::{
    AuthorizationPolicy, DestinationRule, Gateway, MeshConfig, Meta, PeerAuthentication,
    RequestAuthentication, ServiceEntry, Sidecar, VirtualService, WorkloadEntry,
};
use crate::cursor::{Cursor, Report, Shift, read};
use crate::diagnostic::{Diagnostic, Position, Severity};
use crate::yaml::{Node, Scalar, Value, compose};

/// The kinds that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `networking.istio.io`
    VirtualService,
    /// `networking.istio.io`
    DestinationRule,
    /// `networking.istio.io`
    Gateway,
    /// `networking.istio.io`
    ServiceEntry,
    /// `networking.istio.io`
    WorkloadEntry,
    /// `networking.istio.io`
    Sidecar,
    /// `security.istio.io`
    AuthorizationPolicy,
    /// `security.istio.io`
    PeerAuthentication,
    /// `security.istio.io`
    RequestAuthentication,
    /// The ConfigMap `istio`, or a file of its own.
    MeshConfig,
    /// `v1`
    Service,
    /// `v1`
    Endpoints,
    /// `discovery.k8s.io/v1`
    EndpointSlice,
    /// `v1`
    Pod,
    /// `v1`
    Namespace,
    /// `v1`
    Node,
    /// `v1`
    Secret,
}

/// An object that was accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Name, namespace, labels, place.
    pub meta: Meta,
    /// What it says.
    pub spec: Spec,
}

/// What an object says.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
// Objects live behind an `Arc`; a box per kind would only be another hop.
#[allow(clippy::large_enum_variant)]
pub enum Spec {
    /// A virtual service.
    VirtualService(VirtualService),
    /// A destination rule.
    DestinationRule(DestinationRule),
    /// A gateway.
    Gateway(Gateway),
    /// A service entry.
    ServiceEntry(ServiceEntry),
    /// A workload entry.
    WorkloadEntry(WorkloadEntry),
    /// A sidecar.
    Sidecar(Sidecar),
    /// An authorization policy.
    AuthorizationPolicy(AuthorizationPolicy),
    /// Which connections workloads accept.
    PeerAuthentication(PeerAuthentication),
    /// Which tokens callers of workloads may bring.
    RequestAuthentication(RequestAuthentication),
    /// The mesh's configuration.
    MeshConfig(MeshConfig),
    /// A Kubernetes service.
    Service(Service),
    /// Kubernetes endpoints.
    Endpoints(Endpoints),
    /// A slice of Kubernetes endpoints.
    EndpointSlice(Endpoints),
    /// A pod.
    Pod(Pod),
    /// A namespace.
    Namespace,
    /// A machine, of which the labels matter.
    Node,
    /// A secret.
    Secret(Secret),
}

/// What became of one document.
pub(crate) enum Decoded {
    /// It names an object; `object` is `None` if that was refused.
    Named {
        kind: Kind,
        namespace: String,
        name: String,
        at: Position,
        object: Option<Box<Object>>,
    },
    /// It is no business of ours.
    Skipped,
    /// It is so broken that it cannot even be said which object it is.
    Nameless,
}

const ISTIO: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";

// === impl Kind ===

impl Kind {
    fn of(group: &str, version: &str, kind: &str) -> Option<Self> {
        match (group, version) {
            (ISTIO, "v1" | "v1beta1" | "v1alpha3") => Some(match kind {
                "VirtualService" => Self::VirtualService,
                "DestinationRule" => Self::DestinationRule,
                "Gateway" => Self::Gateway,
                "ServiceEntry" => Self::ServiceEntry,
                "WorkloadEntry" => Self::WorkloadEntry,
                "Sidecar" => Self::Sidecar,
                _ => return None,
            }),
            (SECURITY, "v1" | "v1beta1") => Some(match kind {
                "AuthorizationPolicy" => Self::AuthorizationPolicy,
                "PeerAuthentication" => Self::PeerAuthentication,
                "RequestAuthentication" => Self::RequestAuthentication,
                _ => return None,
            }),
            ("", "v1") => Some(match kind {
                "Service" => Self::Service,
                "Endpoints" => Self::Endpoints,
                "Pod" => Self::Pod,
                "Namespace" => Self::Namespace,
                "Node" => Self::Node,
                "Secret" => Self::Secret,
                _ => return None,
            }),
            ("discovery.k8s.io", "v1") if kind == "EndpointSlice" => Some(Self::EndpointSlice),
            _ => None,
        }
    }

    /// The version of the API that has the kind; the mesh's configuration is Istio's own.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::VirtualService
            | Self::DestinationRule
            | Self::Gateway
            | Self::ServiceEntry
            | Self::WorkloadEntry
            | Self::Sidecar => "networking.istio.io/v1",
            Self::AuthorizationPolicy | Self::PeerAuthentication | Self::RequestAuthentication => {
                "security.istio.io/v1"
            }
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::Service
            | Self::Endpoints
            | Self::Pod
            | Self::Namespace
            | Self::Node
            | Self::Secret => "v1",
            Self::MeshConfig => "mesh.istio.io/v1alpha1",
        }
    }

    /// Whether its objects are in no namespace.
    fn is_global(self) -> bool {
        matches!(self, Self::Namespace | Self::Node)
    }

    /// The name of the kind.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::Gateway => "Gateway",
            Self::ServiceEntry => "ServiceEntry",
            Self::WorkloadEntry => "WorkloadEntry",
            Self::Sidecar => "Sidecar",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::RequestAuthentication => "RequestAuthentication",
            Self::MeshConfig => "MeshConfig",
            Self::Service => "Service",
            Self::Endpoints => "Endpoints",
            Self::EndpointSlice => "EndpointSlice",
            Self::Pod => "Pod",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Secret => "Secret",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === reading ===

/// Reads one document of `file`; lists are taken apart by the caller.
pub(crate) fn decode(
    node: &Node,
    file: &Arc<str>,
    text: &Arc<str>,
    findings: &mut Vec<Diagnostic>,
) -> Decoded {
    let word = |key: &str| node.get(key).and_then(Node::text);
    let mut refuse = |at: Position, message: String| {
        findings.push(Diagnostic::at(Severity::Error, file, text, at, message));
        Decoded::Nameless
    };
    let (Some(api), Some(kind_name)) = (word("apiVersion"), word("kind")) else {
        return refuse(
            node.at,
            "not an object: apiVersion and kind are missing".to_owned(),
        );
    };
    let kind_at = node.get("kind").map_or(node.at, |node| node.at);
    let meta = node.get("metadata");
    let said = |key: &str| {
        let text = meta.and_then(|meta| meta.get(key)).and_then(Node::text);
        text.filter(|text| !text.is_empty())
    };
    let (name, namespace) = (said("name"), said("namespace"));
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    let kind = match Kind::of(group, version, kind_name) {
        Some(kind) => kind,
        None if group.is_empty() && version == "v1" && kind_name == "ConfigMap" => {
            return config_map(node, file, text, findings);
        }
        None if group == "istio.io" || group.ends_with(".istio.io") => {
            let message = format!("not supported: kind {kind_name} of {api}");
            let (name, namespace) = (name.unwrap_or("?"), namespace.unwrap_or("default"));
            findings.push(
                Diagnostic::at(Severity::Error, file, text, kind_at, message)
                    .object(format!("{kind_name} {name}.{namespace}")),
            );
            return Decoded::Skipped;
        }
        None => {
            let message = format!("skipped: kind {kind_name} of {api} does not concern the mesh");
            findings.push(Diagnostic::at(Severity::Info, file, text, kind_at, message));
            return Decoded::Skipped;
        }
    };
    let Some(name) = name else {
        let at = meta.map_or(node.at, |meta| meta.at);
        return refuse(at, format!("{kind}: metadata.name is missing"));
    };
    let namespace = match kind {
        Kind::Namespace | Kind::Node => "",
        _ => namespace.unwrap_or("default"),
    };
    let title = if kind.is_global() {
        format!("{kind} {name}")
    } else {
        format!("{kind} {name}.{namespace}")
    };
    // A secret is quoted nowhere.
    let nothing = Arc::from("");
    let text = match kind {
        Kind::Secret => &nothing,
        _ => text,
    };
    let report = Report::new(title, file, text);
    let object = {
        let root = Cursor::root(node, &report);
        let meta = read_meta(&root, kind, name, namespace, (file, text));
        let spec = read_spec(&root, kind);
        match (meta, spec) {
            (Some(meta), Some(spec)) if !report.failed() => Some(Box::new(Object { meta, spec })),
            _ => None,
        }
    };
    findings.extend(report.into_findings());
    Decoded::Named {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        at: node.at,
        object,
    }
}

/// Reads a document that is a mesh configuration and nothing else.
pub(crate) fn decode_mesh_config(
    node: &Node,
    file: &Arc<str>,
    text: &Arc<str>,
    findings: &mut Vec<Diagnostic>,
) -> Decoded {
    let report = Report::new("MeshConfig".to_owned(), file, text);
    mesh_config(node, node.at, (file, text), report, findings)
}

fn mesh_config(
    node: &Node,
    at: Position,
    (file, text): (&Arc<str>, &Arc<str>),
    report: Report<'_>,
    findings: &mut Vec<Diagnostic>,
) -> Decoded {
    let config = MeshConfig::read(&Cursor::root(node, &report)).filter(|_| !report.failed());
    findings.extend(report.into_findings());
    let object = config.map(|config| {
        Box::new(Object {
            meta: Meta {
                kind: Kind::MeshConfig,
                name: "istio".to_owned(),
                namespace: String::new(),
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
                created: String::new(),
                file: Arc::clone(file),
                at,
                source: Arc::clone(text),
                print: 0,
                stamp: 0,
            },
            spec: Spec::MeshConfig(config),
        })
    });
    let (namespace, name) = (String::new(), "istio".to_owned());
    Decoded::Named {
        kind: Kind::MeshConfig,
        namespace,
        name,
        at,
        object,
    }
}

/// The ConfigMap `istio` holds the mesh's configuration under `mesh`; others are skipped.
fn config_map(
    node: &Node,
    file: &Arc<str>,
    text: &Arc<str>,
    findings: &mut Vec<Diagnostic>,
) -> Decoded {
    let name = node
        .get("metadata")
        .and_then(|meta| meta.get("name"))
        .and_then(Node::text);
    let mesh = node.get("data").and_then(|data| data.get("mesh"));
    let (Some("istio"), Some(mesh)) = (name, mesh) else {
        let message = "skipped: only the ConfigMap \"istio\" with the key \"mesh\" is read";
        findings.push(Diagnostic::at(Severity::Info, file, text, node.at, message));
        return Decoded::Skipped;
    };
    let Value::Scalar(Scalar {
        text: inner, block, ..
    }) = &mesh.value
    else {
        let message = "expected the mesh configuration as text";
        findings.push(Diagnostic::at(
            Severity::Error,
            file,
            text,
            mesh.at,
            message,
        ));
        return Decoded::Nameless;
    };
    let shift = match block {
        Some(block) => Shift::By {
            lines: block.line.saturating_sub(1),
            columns: block.indent,
        },
        None => Shift::To(mesh.at),
    };
    let report = Report::new("MeshConfig".to_owned(), file, text).shifted(shift);
    let syntax = match compose(inner) {
        Ok(documents) => match documents.as_slice() {
            [] => (mesh.at, "the mesh configuration is empty".to_owned()),
            [config] => return mesh_config(config, mesh.at, (file, text), report, findings),
            [_, second, ..] => (
                report.place(second.at),
                "one mesh configuration is enough".to_owned(),
            ),
        },
        Err(syntax) => (report.place(syntax.at), syntax.message),
    };
    findings
        .push(Diagnostic::at(Severity::Error, file, text, syntax.0, syntax.1).object("MeshConfig"));
    let (namespace, name) = (String::new(), "istio".to_owned());
    Decoded::Named {
        kind: Kind::MeshConfig,
        namespace,
        name,
        at: mesh.at,
        object: None,
    }
}

fn read_meta(
    root: &Cursor<'_>,
    kind: Kind,
    name: &str,
    namespace: &str,
    (file, text): (&Arc<str>, &Arc<str>),
) -> Option<Meta> {
    let mut fields = root.fields()?;
    fields.get("metadata", |cursor| {
        let mut fields = cursor.fields()?;
        fields.get("name", |cursor| {
            cursor.filled()?;
            // What a Kubernetes API server takes. A service's name ends up in host names,
            // where a dot or a wildcard would speak for other hosts.
            let label = matches!(kind, Kind::Service | Kind::Namespace);
            if label && !is_dns_label(name) {
                cursor.error(format!("{name:?} is not a DNS label"));
            } else if !label && !is_object_name(name) {
                cursor.error(format!("{name:?} is not a name"));
            }
            Some(())
        })?;
        if !kind.is_global() && !is_dns_label(namespace) {
            cursor.error(format!("{namespace:?} is not a namespace"));
        }
        let annotations = fields.get("annotations", read::string_map);
        Some(Meta {
            kind,
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            labels: fields.get("labels", read::string_map).unwrap_or_default(),
            // `kubectl apply` writes the whole object into one.
            annotations: annotations
                .filter(|_| kind != Kind::Secret)
                .unwrap_or_default(),
            created: fields
                .get("creationTimestamp", read::string)
                .unwrap_or_default(),
            file: Arc::clone(file),
            at: root.at(),
            source: Arc::clone(text),
            print: 0,
            stamp: 0,
        })
    })
}

pub(super) fn read_spec(root: &Cursor<'_>, kind: Kind) -> Option<Spec> {
    match kind {
        Kind::EndpointSlice => return Endpoints::read_slice(root).map(Spec::EndpointSlice),
        Kind::Endpoints => return Endpoints::read(root).map(Spec::Endpoints),
        Kind::Pod => return Pod::read(root).map(Spec::Pod),
        Kind::Namespace => return Some(Spec::Namespace),
        Kind::Node => return Some(Spec::Node),
        Kind::Secret => return Secret::read(root).map(Spec::Secret),
        _ => {}
    }
    let mut fields = root.fields()?;
    let spec = fields.need("spec", |cursor| {
        Some(match kind {
            Kind::VirtualService => Spec::VirtualService(VirtualService::read(cursor)?),
            Kind::DestinationRule => Spec::DestinationRule(DestinationRule::read(cursor)?),
            Kind::Gateway => Spec::Gateway(Gateway::read(cursor)?),
            Kind::ServiceEntry => Spec::ServiceEntry(ServiceEntry::read(cursor)?),
            Kind::WorkloadEntry => Spec::WorkloadEntry(WorkloadEntry::read(cursor)?),
            Kind::Sidecar => Spec::Sidecar(Sidecar::read(cursor)?),
            Kind::AuthorizationPolicy => {
                Spec::AuthorizationPolicy(AuthorizationPolicy::read(cursor)?)
            }
            Kind::PeerAuthentication => Spec::PeerAuthentication(PeerAuthentication::read(cursor)?),
            Kind::RequestAuthentication => {
                Spec::RequestAuthentication(RequestAuthentication::read(cursor)?)
            }
            _ => Spec::Service(Service::read(cursor)?),
        })
    });
    let mut spec = spec;
    if let Some(Spec::ServiceEntry(entry)) = &mut spec {
        let allocated = fields.get("status", ServiceEntry::read_status);
        entry.allocated = allocated.unwrap_or_default();
    }
    if kind != Kind::Service {
        for name in ["apiVersion", "kind", "metadata", "status"] {
            fields.ignore(name);
        }
        fields.done();
    }
    spec
}
