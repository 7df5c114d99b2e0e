//! The objects in force.
//!
//! [`World::update`] takes the files as they are now. An object whose new text
//! is refused keeps its last good version; so do all objects of a file that
//! cannot be read or parsed. Objects that are in no file any more are gone.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use mesh_core::model::KeyBook;

use crate::diagnostic::{Diagnostic, Position, Severity};
use crate::files::{File, Files};
use crate::registry::Services;
use crate::spec::{
    AuthorizationPolicy, Decoded, DestinationRule, Gateway, Kind, MeshConfig, Meta, Object,
    PeerAuthentication, RequestAuthentication, ServiceEntry, Sidecar, Spec, VirtualService,
    WorkloadEntry, decode, decode_mesh_config, kubernetes,
};
use crate::yaml::{Node, Value, compose};

mod rest;

pub use rest::Resting;

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
    state: Arc<State>,
    usual: MeshConfig,
    keys: Arc<KeyBook>,
}

/// Objects, and the services that they make. Never changed, but for what is found out late.
#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    services: OnceLock<Arc<Services>>,
    /// The services of the world before, until those of this one are made.
    before: Mutex<Option<Arc<Services>>>,
}

/// One round of reading.
struct Round<'w> {
    previous: &'w BTreeMap<ObjectKey, Arc<Object>>,
    next: BTreeMap<ObjectKey, Arc<Object>>,
    /// Where each object of this round was first seen, refused or not.
    seen: BTreeMap<ObjectKey, (Arc<str>, Position)>,
    findings: Vec<Diagnostic>,
}

/// A document with the text that it was read from, to the start of the next.
#[derive(Clone, Copy, Debug)]
struct Document<'t> {
    node: &'t Node,
    text: &'t str,
}

// === impl World ===

impl World {
    /// Takes over what the files say now, as far as it is good.
    pub fn update(&mut self, files: &Files) -> Vec<Diagnostic> {
        let mut round = Round::after(&self.state.objects);
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
        self.replace(next);
        findings
    }

    /// Takes over from `previous` every object that is the same there to a letter, place and all.
    /// [`World::update`] does so by itself; this is for a world that was read on its own. What was
    /// made of such an object need not be made again.
    ///
    /// ```
    /// use mesh_istio::{Files, World};
    /// use std::sync::Arc;
    ///
    /// let text = "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}";
    /// let (mut one, mut other) = (World::default(), World::default());
    /// one.update(&Files::from_text("a.yaml", text));
    /// other.update(&Files::from_text("a.yaml", text));
    /// other.settle(&one);
    /// assert!(one.objects().zip(other.objects()).all(|(a, b)| Arc::ptr_eq(a, b)));
    /// ```
    pub fn settle(&mut self, previous: &Self) {
        if Arc::ptr_eq(&self.state, &previous.state) {
            return;
        }
        let known = &previous.state.objects;
        let next: BTreeMap<_, _> = self
            .state
            .objects
            .iter()
            .map(|(key, object)| match known.get(key) {
                Some(was) if is_same(was, object) => (key.clone(), Arc::clone(was)),
                _ => (key.clone(), Arc::clone(object)),
            })
            .collect();
        self.state = Arc::clone(&previous.state);
        self.replace(next);
    }

    /// Takes over sets of keys that were got from outside of the mesh: see
    /// [`wanted_keys`](crate::wanted_keys). Objects that are read later leave them alone. What is
    /// compiled has no others, so that tokens of an issuer whose keys are not here are refused.
    ///
    /// ```
    /// use mesh_core::model::KeyBook;
    /// use mesh_istio::World;
    /// use std::sync::Arc;
    ///
    /// let mut world = World::default();
    /// world.set_keys(Arc::new(KeyBook::default()));
    /// assert!(world.keys().is_empty());
    /// ```
    pub fn set_keys(&mut self, keys: Arc<KeyBook>) {
        self.keys = keys;
    }

    /// Sets of keys that were got from outside of the mesh.
    pub fn keys(&self) -> &Arc<KeyBook> {
        &self.keys
    }

    /// The services that the objects describe; made once.
    pub(crate) fn catalog(&self) -> &Arc<Services> {
        self.state.services.get_or_init(|| {
            let mut before = lock(&self.state.before);
            Arc::new(Services::of(self, before.take().as_deref()))
        })
    }

    /// Whether this is the very same world.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// The object that has the mesh's configuration.
    pub(crate) fn mesh_object(&self) -> Option<&Arc<Object>> {
        self.of_kind(Kind::MeshConfig).next()
    }

    fn replace(&mut self, objects: BTreeMap<ObjectKey, Arc<Object>>) {
        let made = self.state.services.get().cloned();
        let before = made.or_else(|| lock(&self.state.before).clone());
        self.state = Arc::new(State {
            objects,
            services: OnceLock::new(),
            before: Mutex::new(before),
        });
    }

    /// All objects, by kind, namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.state.objects.values()
    }

    /// The object with this key.
    pub fn object(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.state.objects.get(key)
    }

    /// The secret with this name in a namespace.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&kubernetes::Secret> {
        let key = ObjectKey {
            kind: Kind::Secret,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        match &self.object(&key)?.spec {
            Spec::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.state.objects.is_empty()
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
        self.state
            .objects
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
    /// The authorization policies.
    authorization_policies: AuthorizationPolicy(AuthorizationPolicy);
    /// Which connections workloads accept.
    peer_authentications: PeerAuthentication(PeerAuthentication);
    /// Which tokens callers of workloads may bring.
    request_authentications: RequestAuthentication(RequestAuthentication);
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

impl World {
    /// The machines of the cluster.
    pub(crate) fn machines(&self) -> impl Iterator<Item = &Meta> {
        self.of_kind(Kind::Node).map(|object| &object.meta)
    }
}

// === impl Round ===

impl<'w> Round<'w> {
    fn after(previous: &'w BTreeMap<ObjectKey, Arc<Object>>) -> Self {
        Self {
            previous,
            next: BTreeMap::new(),
            seen: BTreeMap::new(),
            findings: Vec::new(),
        }
    }

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
        for document in apart(&documents, text) {
            named &= self.document(document, document.node, file, text);
        }
        named
    }

    /// Reads a node of a document: itself, or one of its list.
    fn document(
        &mut self,
        whole: Document<'_>,
        document: &Node,
        file: &File,
        text: &Arc<str>,
    ) -> bool {
        if file.mesh_config {
            let decoded = decode_mesh_config(document, &file.name, text, &mut self.findings);
            return self.accept(whole, decoded, file, text);
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
                named &= self.document(whole, item, file, text);
            }
            return named;
        }
        let decoded = decode(document, &file.name, text, &mut self.findings);
        self.accept(whole, decoded, file, text)
    }

    fn accept(
        &mut self,
        whole: Document<'_>,
        decoded: Decoded,
        file: &File,
        text: &Arc<str>,
    ) -> bool {
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
            (Some(mut object), last) => {
                object.meta.print = whole.print(at);
                let object = match last.filter(|last| is_same(last, &object)) {
                    Some(last) => Arc::clone(last),
                    None => {
                        object.meta.stamp = stamp();
                        Arc::from(object)
                    }
                };
                self.next.insert(key, object);
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

// === impl Document ===

impl Document<'_> {
    /// A hash of the text and of where in it an object stands.
    fn print(self, at: Position) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.node.at, at).hash(&mut hasher);
        self.text.hash(&mut hasher);
        hasher.finish()
    }
}

/// Documents with their texts.
fn apart<'t>(documents: &'t [Node], text: &'t str) -> impl Iterator<Item = Document<'t>> {
    // Where each line starts, from the first. Where lines may end otherwise, who knows.
    let starts: Vec<usize> = match text.contains('\r') {
        true => Vec::new(),
        false => std::iter::once(0)
            .chain(text.match_indices('\n').map(|(end, _)| end + 1))
            .collect(),
    };
    let start = move |node: &Node| {
        let line = usize::try_from(node.at.line).unwrap_or(usize::MAX);
        starts.get(line.saturating_sub(1)).copied()
    };
    documents.iter().enumerate().map(move |(index, node)| {
        let end = documents.get(index + 1).map_or(Some(text.len()), &start);
        let own = start(node)
            .zip(end)
            .and_then(|(start, end)| text.get(start..end));
        Document {
            node,
            // Two documents on one line are told apart from nothing.
            text: own.filter(|own| !own.is_empty()).unwrap_or(text),
        }
    })
}

/// Whether two readings of an object are the same to a letter.
fn is_same(one: &Object, other: &Object) -> bool {
    one.meta.stamp == other.meta.stamp
        || (one.meta.print == other.meta.print
            && one.meta.file == other.meta.file
            && one.meta.at == other.meta.at
            && one == other)
}

/// A number that no object had before.
fn stamp() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // It is only ever replaced.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
