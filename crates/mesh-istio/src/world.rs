//! The objects in force.
//!
//! [`World::update`] takes the files as they are now. An object whose new text
//! is refused keeps its last good version; so do all objects of a file that
//! cannot be read or parsed. Objects that are in no file any more are gone.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Position, Severity};
use crate::files::{File, Files};
use crate::spec::{
    Decoded, DestinationRule, Gateway, Kind, MeshConfig, Meta, Object, ServiceEntry, Sidecar, Spec,
    VirtualService, WorkloadEntry, decode, decode_mesh_config, kubernetes,
};
use crate::yaml::{Node, Value, compose};

/// What tells one object from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// The objects in force.
#[derive(Clone, Debug, Default)]
pub struct World {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    usual: MeshConfig,
}

/// One round of reading.
struct Round<'w> {
    previous: &'w BTreeMap<ObjectKey, Arc<Object>>,
    next: BTreeMap<ObjectKey, Arc<Object>>,
    /// Where each object of this round was first seen, refused or not.
    seen: BTreeMap<ObjectKey, (Arc<str>, Position)>,
    findings: Vec<Diagnostic>,
}

// === impl World ===

impl World {
    /// Takes over what the files say now, as far as it is good.
    pub fn update(&mut self, files: &Files) -> Vec<Diagnostic> {
        let mut round = Round {
            previous: &self.objects,
            next: BTreeMap::new(),
            seen: BTreeMap::new(),
            findings: Vec::new(),
        };
        let mut withheld = Vec::new();
        for file in files.iter() {
            if !round.read(file) {
                withheld.push(Arc::clone(&file.name));
            }
        }
        // After all files are read: an object may have moved out of a broken one.
        for file in withheld {
            round.keep(&file);
        }
        let Round { next, findings, .. } = round;
        self.objects = next;
        findings
    }

    /// All objects, by kind, namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// The object with this key.
    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The mesh's configuration, or Istio's defaults.
    pub fn mesh_config(&self) -> &MeshConfig {
        self.of_kind(Kind::MeshConfig)
            .find_map(|object| match &object.spec {
                Spec::MeshConfig(config) => Some(config),
                _ => None,
            })
            .unwrap_or(&self.usual)
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Object>> {
        let first = ObjectKey {
            kind,
            namespace: String::new(),
            name: String::new(),
        };
        self.objects
            .range(first..)
            .map(|(_, object)| object)
            .take_while(move |o| o.meta.kind == kind)
    }
}

/// One accessor per kind, by namespace and name.
macro_rules! accessors {
    ($($(#[$doc:meta])* $name:ident: $kind:ident($spec:ty);)*) => {
        impl World {
            $(
                $(#[$doc])*
                pub fn $name(&self) -> impl Iterator<Item = (&Meta, &$spec)> {
                    self.of_kind(Kind::$kind).filter_map(|object| match &object.spec {
                        Spec::$kind(spec) => Some((&object.meta, spec)),
                        _ => None,
                    })
                }
            )*
        }
    };
}

accessors! {
    /// The virtual services.
    virtual_services: VirtualService(VirtualService);
    /// The destination rules.
    destination_rules: DestinationRule(DestinationRule);
    /// The gateways.
    gateways: Gateway(Gateway);
    /// The service entries.
    service_entries: ServiceEntry(ServiceEntry);
    /// The workload entries.
    workload_entries: WorkloadEntry(WorkloadEntry);
    /// The sidecars.
    sidecars: Sidecar(Sidecar);
    /// The Kubernetes services.
    services: Service(kubernetes::Service);
    /// The Kubernetes endpoints.
    endpoints: Endpoints(kubernetes::Endpoints);
    /// The slices of Kubernetes endpoints.
    endpoint_slices: EndpointSlice(kubernetes::Endpoints);
    /// The pods.
    pods: Pod(kubernetes::Pod);
    /// The secrets.
    secrets: Secret(kubernetes::Secret);
}

// === impl Round ===

impl Round<'_> {
    /// Reads one file; `false` if objects may be hidden in what could not be read.
    fn read(&mut self, file: &File) -> bool {
        let Ok(text) = &file.text else {
            self.findings.extend(file.problem());
            return false;
        };
        let documents = match compose(text) {
            Ok(documents) => documents,
            Err(syntax) => {
                let message = format!("broken YAML: {}", syntax.message);
                let finding = Diagnostic::at(Severity::Error, &file.name, text, syntax.at, message);
                self.findings.push(finding);
                return false;
            }
        };
        let mut named = true;
        for document in &documents {
            named &= self.document(document, file, text);
        }
        named
    }

    fn document(&mut self, document: &Node, file: &File, text: &Arc<str>) -> bool {
        if file.mesh_config {
            let decoded = decode_mesh_config(document, &file.name, text, &mut self.findings);
            return self.accept(decoded, file, text);
        }
        // What `kubectl get -o yaml` prints for several objects.
        if document.get("kind").and_then(Node::text) == Some("List")
            && let Some(Node {
                value: Value::List(items),
                ..
            }) = document.get("items")
        {
            let mut named = true;
            for item in items {
                named &= self.document(item, file, text);
            }
            return named;
        }
        let decoded = decode(document, &file.name, text, &mut self.findings);
        self.accept(decoded, file, text)
    }

    fn accept(&mut self, decoded: Decoded, file: &File, text: &Arc<str>) -> bool {
        let (key, at, object) = match decoded {
            Decoded::Skipped => return true,
            Decoded::Nameless => return false,
            Decoded::Named {
                kind,
                namespace,
                name,
                at,
                object,
            } => (
                ObjectKey {
                    kind,
                    namespace,
                    name,
                },
                at,
                object,
            ),
        };
        if let Some((first, place)) = self.seen.get(&key) {
            let message = format!(
                "defined twice: first at {first}:{}:{}, which stays, and again at {}:{}:{}",
                place.line, place.column, file.name, at.line, at.column,
            );
            let finding = Diagnostic::at(Severity::Error, &file.name, text, at, message)
                .object(key.to_string());
            self.findings.push(finding);
            return true;
        }
        self.seen.insert(key.clone(), (Arc::clone(&file.name), at));
        match (object, self.previous.get(&key)) {
            (Some(object), _) => {
                self.next.insert(key, Arc::from(object));
            }
            (None, Some(last_good)) => {
                self.next.insert(key, Arc::clone(last_good));
            }
            (None, None) => {}
        }
        true
    }

    /// Keeps what `file` had, but for objects that were seen elsewhere.
    fn keep(&mut self, file: &Arc<str>) {
        for (key, object) in self.previous {
            if object.meta.file == *file && !self.seen.contains_key(key) {
                self.next.insert(key.clone(), Arc::clone(object));
            }
        }
    }
}

// === impl ObjectKey ===

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" if self.kind == Kind::MeshConfig => f.write_str("MeshConfig"),
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {}.{namespace}", self.kind, self.name),
        }
    }
}
