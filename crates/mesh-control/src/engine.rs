//! From objects to the sets that streams read: what is compiled when, and what is replaced.
//!
//! Three locks, taken in this order and never across an await: the pool (one push at a time), the
//! table of endpoints, the book of nodes. A node of a class that exists takes only the last, so a
//! push does not hold up who connects; endpoints that change take the last two, so compiling does
//! not hold them up either.

use crate::book::Book;
use crate::class::{Class, Key, Step, build};
use crate::control::Settings;
use crate::endpoints::Table;
use crate::inputs::Inputs;
use crate::metrics::Metrics;
use crate::node::{self, Described, describe};
use crate::parts::Pool;
use crate::report::{ClassReport, Push, Reports};
use crate::servers::Servers;
use mesh_core::Feed;
use mesh_istio::{Diagnostic, Node};
use mesh_xds::TypeUrl;
use mesh_xds::server::{Assign, Refused, ResourceSet, View};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// What all parts of a control plane share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) settings: Settings,
    pub(crate) metrics: Metrics,
    pub(crate) wake: tokio::sync::Notify,
    shared: ResourceSet,
    pool: Mutex<Pool>,
    table: Mutex<Table>,
    book: Mutex<Book>,
    reports: Mutex<Reports>,
    servers: Mutex<Servers>,
}

/// Why something is pushed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cause {
    pub(crate) trigger: &'static str,
    /// How long the first change waited.
    pub(crate) waited: Duration,
}

// === impl Engine ===

impl Engine {
    pub(crate) fn new(settings: Settings) -> Self {
        let table = Table::default();
        Self {
            settings,
            metrics: Metrics::default(),
            wake: tokio::sync::Notify::new(),
            shared: table.shared().clone(),
            pool: Mutex::default(),
            table: Mutex::new(table),
            book: Mutex::default(),
            reports: Mutex::default(),
            servers: Mutex::default(),
        }
    }

    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    pub(crate) fn reports(&self) -> MutexGuard<'_, Reports> {
        lock(&self.reports)
    }

    /// What a push holds; see the module's documentation for the order.
    pub(crate) fn pool(&self) -> MutexGuard<'_, Pool> {
        lock(&self.pool)
    }

    pub(crate) fn servers(&self) -> MutexGuard<'_, Servers> {
        lock(&self.servers)
    }

    /// What is in force.
    pub(crate) fn inputs(&self) -> Option<Arc<Inputs>> {
        self.book().inputs.clone()
    }

    /// Compiles everything from these inputs and puts it in force. Returns whether somebody came
    /// meanwhile whose class is not there yet.
    pub(crate) fn push(&self, inputs: &Arc<Inputs>, cause: Cause) -> bool {
        let mut pool = lock(&self.pool);
        let started = Instant::now();
        let (classes, targets) = self.seating(inputs);
        let mut steps: Vec<Step> = Vec::new();
        let mut reports = Vec::new();
        for class in &classes {
            let compiled = class.compile(inputs, &mut pool, std::time::Instant::now());
            let error = match &compiled {
                Ok(_) => None,
                Err(error) => {
                    tracing::error!(%error, class = class.key, "what it has stays in force");
                    Some(error.to_string())
                }
            };
            let changed = compiled.as_ref().map(|step| step.changed.clone());
            reports.push(ClassReport {
                class: class.clone(),
                nodes: 0,
                changed: changed.unwrap_or_default(),
                error,
            });
            steps.extend(compiled);
        }
        let now = Instant::now();
        let mut table = self.table();
        // Make before break: endpoints, what refers to them, and only then what goes.
        let by_class: HashMap<usize, &Step> =
            steps.iter().map(|step| (step.class.number, step)).collect();
        let compiled: Vec<_> = classes
            .iter()
            .map(|class| {
                let step = by_class.get(&class.number);
                step.map_or_else(|| class.compiled(), |step| step.compiled.clone())
            })
            .collect();
        let wanted = classes.iter().zip(&compiled);
        let wanted = wanted.map(|(class, all)| (class.number, &class.set, all.wants.as_slice()));
        let (setting, removing) = table.rebuild(inputs, wanted);
        let endpoints = setting.count + removing.count;
        setting.apply();
        for step in steps {
            step.class.replace(step.compiled);
            step.class.set.apply(step.changes);
        }
        let again = {
            let mut book = self.book();
            book.put(inputs);
            for class in &classes {
                book.add(class, now);
            }
            let again = self.reseat(&mut book, inputs, &targets, now);
            for report in &mut reports {
                let entry = book.classes.get(&report.class.key);
                report.nodes = entry.map_or(0, |entry| entry.users);
            }
            book.note_opaque();
            again
        };
        removing.apply();
        drop(table);
        pool.retain(compiled.iter().map(|one| &one.parts));
        drop(pool);
        self.note_findings();
        if self.servers().look_again() {
            self.wake.notify_one();
        }
        self.report(inputs, cause, started, endpoints, reports);
        again
    }

    /// The classes that are needed, and which of them each node belongs to.
    fn seating(&self, inputs: &Inputs) -> (Vec<Arc<Class>>, HashMap<String, Arc<Class>>) {
        let mut book = self.book();
        let mut fresh: BTreeMap<Key, Arc<Class>> = BTreeMap::new();
        let mut targets = HashMap::new();
        let mut needed = Vec::new();
        for (identity, seat) in &book.seats {
            match describe(inputs, &seat.node) {
                Ok(described) => {
                    let key = Class::key(inputs, &described);
                    match book.classes.get(&key.0) {
                        Some(entry) => {
                            targets.insert(identity.clone(), entry.class.clone());
                        }
                        None => needed.push((identity.clone(), key, described)),
                    }
                }
                Err(error) => tracing::error!(%error, "what it has stays in force"),
            }
        }
        for (identity, key, described) in needed {
            let known = fresh.get(&key.0).cloned();
            let class = known.unwrap_or_else(|| {
                let number = book.number();
                let name = key.0.clone();
                let class = Class::new(number, key, described.generator, &self.shared);
                let class = Arc::new(class);
                fresh.insert(name, class.clone());
                class
            });
            targets.insert(identity, class);
        }
        let mut classes = book.all();
        classes.extend(fresh.into_values());
        (classes, targets)
    }

    fn reseat(
        &self,
        book: &mut Book,
        inputs: &Inputs,
        targets: &HashMap<String, Arc<Class>>,
        now: Instant,
    ) -> bool {
        let mut again = false;
        let seats: Vec<String> = book.seats.keys().cloned().collect();
        for identity in seats {
            let target = targets.get(&identity).cloned().or_else(|| {
                // It came while we compiled, and was seated by what was in force then.
                let seat = book.seats.get(&identity)?;
                let described = describe(inputs, &seat.node).ok()?;
                let (key, _) = Class::key(inputs, &described);
                let known = book.classes.get(&key).map(|entry| entry.class.clone());
                again |= known.is_none();
                known
            });
            if let Some(class) = target {
                book.transfer(&identity, &class, now);
            }
        }
        again
    }

    fn report(
        &self,
        inputs: &Inputs,
        cause: Cause,
        started: Instant,
        endpoints: usize,
        classes: Vec<ClassReport>,
    ) {
        let took = started.elapsed();
        let metrics = &self.metrics;
        let (services, rules) = ("pilot_services", "pilot_virt_services");
        metrics.set(services, "Services known.", "", inputs.services.len());
        let virtual_services = inputs.world.virtual_services().count();
        metrics.set(rules, "Virtual services known.", "", virtual_services);
        let help = "Time from the first change to its push.";
        metrics.took("pilot_debounce_time", help, "", cause.waited);
        let help = "Time to compile and encode a push.";
        metrics.took("pilot_xds_push_time", help, "type=\"full\"", took);
        let help = "What pushes were started by.";
        let label = crate::metrics::label("type", cause.trigger);
        metrics.count("pilot_push_triggers", help, &label, 1);
        let mut reports = self.reports();
        reports.pushes += 1;
        let number = reports.pushes;
        let changed: usize = classes.iter().flat_map(|one| one.changed.values()).sum();
        tracing::info!(
            number,
            trigger = cause.trigger,
            classes = classes.len(),
            resources = changed + endpoints,
            ?took,
            "pushed"
        );
        reports.last = Some(Push {
            number,
            at: SystemTime::now(),
            trigger: cause.trigger,
            waited: cause.waited,
            took,
            endpoints,
            classes,
        });
    }

    /// Drops classes that nobody has used for a while.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut pool = lock(&self.pool);
        let mut table = self.table();
        let (classes, inputs) = {
            let mut book = self.book();
            if book.sweep(now, self.settings.idle) == 0 {
                return;
            }
            book.note_opaque();
            (book.all(), book.inputs.clone())
        };
        let compiled: Vec<_> = classes.iter().map(|class| class.compiled()).collect();
        if let Some(inputs) = inputs {
            let wanted = classes.iter().zip(&compiled);
            let wanted = wanted.map(|(one, all)| (one.number, &one.set, all.wants.as_slice()));
            let (setting, removing) = table.rebuild(&inputs, wanted);
            setting.apply();
            removing.apply();
        }
        pool.retain(compiled.iter().map(|one| &one.parts));
        self.note_findings();
    }

    /// References to what does not exist, as those who are connected would have them, a gateway
    /// that serves every Gateway, and a sidecar in every namespace with virtual services.
    pub(crate) fn dangling(&self, inputs: &Inputs) -> Vec<Diagnostic> {
        let mut nodes: BTreeMap<String, Node> = BTreeMap::new();
        for seat in self.book().seats.values() {
            if let Ok(described) = describe(inputs, &seat.node) {
                let (key, essence) = Class::key(inputs, &described);
                nodes.insert(key, essence);
            }
        }
        let root = inputs.world.mesh_config().root_namespace.clone();
        let gateways = inputs
            .world
            .gateways()
            .map(|(meta, _)| meta.namespace.clone());
        for namespace in gateways.chain([root]) {
            let node = Node::gateway("", namespace);
            nodes.insert(format!("{node:?}"), node);
        }
        let rules = inputs.world.virtual_services();
        let rules = rules.map(|(meta, _)| meta.namespace.clone());
        for namespace in rules {
            let node = Node::sidecar("", namespace);
            nodes.insert(format!("{node:?}"), node);
        }
        let mut found: Vec<Diagnostic> = Vec::new();
        let mut pool = lock(&self.pool);
        for node in nodes.values() {
            // What does not fit together at all is said when it is pushed.
            let built = build(&mut pool.workshop, &inputs.world, node, &Arc::default());
            let Ok(built) = built else {
                continue;
            };
            for finding in built.dangling {
                if !found.contains(&finding) {
                    found.push(finding);
                }
            }
        }
        found
    }

    /// The class of a node: known, or compiled now.
    fn admit(&self, node: &mesh_xds::Node) -> Result<Feed<View>, Refused> {
        let identity = node::identity(node);
        {
            let mut book = self.book();
            if let Some(feed) = book.join(&identity) {
                return Ok(feed);
            }
            let (inputs, described) = self.described(&book, node)?;
            let (key, _) = Class::key(&inputs, &described);
            if let Some(class) = book.classes.get(&key).map(|entry| entry.class.clone()) {
                return Ok(book.sit(identity, node, &class));
            }
        }
        // A node of a new kind waits for its configuration: an empty one would make it drop what
        // it has.
        let mut pool = lock(&self.pool);
        let (inputs, class) = {
            let mut book = self.book();
            let (inputs, described) = self.described(&book, node)?;
            let key = Class::key(&inputs, &described);
            match book.classes.get(&key.0).map(|entry| entry.class.clone()) {
                Some(class) => (inputs, Ok(class)),
                None => {
                    let number = book.number();
                    let class = Class::new(number, key, described.generator, &self.shared);
                    (inputs, Err(Arc::new(class)))
                }
            }
        };
        let class = match class {
            Ok(class) => class,
            Err(class) => {
                self.compile_one(&inputs, &class, &mut pool)?;
                class
            }
        };
        let mut book = self.book();
        Ok(match book.join(&identity) {
            Some(feed) => feed,
            None => book.sit(identity, node, &class),
        })
    }

    pub(crate) fn compile_one(
        &self,
        inputs: &Inputs,
        class: &Arc<Class>,
        pool: &mut Pool,
    ) -> Result<(), Refused> {
        let started = std::time::Instant::now();
        let step = class.compile(inputs, pool, started);
        let step = step.map_err(|error| Refused::unavailable(error.to_string()))?;
        let mut table = self.table();
        let wants = step.compiled.wants.as_slice();
        table.extend((class.number, &class.set, wants)).apply();
        class.replace(step.compiled.clone());
        class.set.apply(step.changes);
        let help = "Time to compile and encode a push.";
        let metrics = &self.metrics;
        metrics.took(
            "pilot_xds_push_time",
            help,
            "type=\"class\"",
            started.elapsed(),
        );
        self.book().add(class, Instant::now());
        self.note_findings();
        tracing::debug!(class = class.key, took = ?started.elapsed(), "a new class of nodes");
        Ok(())
    }

    fn described(
        &self,
        book: &Book,
        node: &mesh_xds::Node,
    ) -> Result<(Arc<Inputs>, Described), Refused> {
        let inputs = book.inputs.clone();
        let inputs = inputs.ok_or_else(|| {
            Refused::unavailable("there is no configuration yet; come back later")
        })?;
        let described = describe(&*inputs, node);
        let described = described.map_err(|error| Refused::invalid(error.to_string()))?;
        Ok((inputs, described))
    }

    /// The class of a connected node.
    pub(crate) fn class_of(&self, node: &mesh_xds::Node) -> Option<Arc<Class>> {
        let book = self.book();
        let seat = book.seats.get(&node::identity(node))?;
        Some(seat.class.clone())
    }
}

/// Who asks.
#[derive(Debug)]
pub(crate) struct Desk(pub(crate) Arc<Engine>);

impl Assign for Desk {
    fn assign(&self, node: &mesh_xds::Node) -> Result<Feed<View>, Refused> {
        let admitted = self.0.admit(node);
        if let Err(refused) = &admitted {
            tracing::warn!(node = node.id(), %refused, "a node is refused");
        }
        admitted
    }

    fn released(&self, node: &mesh_xds::Node) {
        self.0.book().leave(&node::identity(node), Instant::now());
        // Somebody has to look whether a class is idle.
        self.0.wake.notify_one();
    }
}

/// How many resources of each type a view has.
pub(crate) fn sizes(view: &View) -> BTreeMap<&'static str, usize> {
    let kinds = [TypeUrl::Cluster, TypeUrl::Listener, TypeUrl::Routes];
    let each = kinds.map(|kind| (kind.short(), view.all(kind).len()));
    each.into_iter().collect()
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each step replaces whole values; a panic leaves none half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
