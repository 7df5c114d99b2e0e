//! The control plane as its user sees it.

use crate::ca::Issuer;
use crate::change::{Difference, moved_addresses};
use crate::debounce::{Debounce, Quiet};
use crate::engine::{Cause, Desk, Engine, lock};
use crate::inputs::{Inputs, Known};
use crate::node::Generator;
use crate::observe::Watch;
use mesh_core::Publisher;
use mesh_core::discovery::{Event, Instance, Resolution};
use mesh_core::model::{Address, KeyBook, WantedKeys};
use mesh_istio::{Diagnostic, Files, Severity, World, is_headless, wanted_keys};
use mesh_xds::server::{Limits, Server, Timing};
use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::Instant;

mod keys;

/// A control plane. Clones are the same one.
///
/// Nothing runs behind its owner's back: [`Control::run`] pushes what changed,
/// [`Control::xds`] serves streams and [`Control::http_routes`] the debug pages.
///
/// ```
/// use mesh_control::Control;
/// use mesh_istio::Files;
///
/// let control = Control::builder().build();
/// let outcome = control.update(&Files::from_text("a.yaml", "
/// apiVersion: v1
/// kind: Service
/// metadata: {name: reviews}
/// spec: {ports: [{name: http, port: 9080}]}
/// "));
/// assert!(outcome.accepted && outcome.findings.is_empty());
/// ```
#[derive(Clone)]
pub struct Control {
    engine: Arc<Engine>,
    accepted: Arc<Mutex<Accepted>>,
    /// The sets of keys that the objects need from outside of the mesh.
    wanted: Arc<Publisher<WantedKeys>>,
    server: Server,
}

/// Makes a [`Control`].
#[derive(Clone, Debug, Default)]
pub struct Builder {
    settings: Settings,
    limits: Limits,
    timing: Timing,
    connection_age: Option<Duration>,
    certificates: Option<Arc<Issuer>>,
}

/// What became of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Whether it is taken over. Without `strict` it always is: objects with errors keep their
    /// last good version, alone.
    pub accepted: bool,
    /// What there is to say about the objects, each with its place.
    pub findings: Vec<Diagnostic>,
}

/// How pushes are made.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) quiet: Quiet,
    pub(crate) strict: bool,
    /// How long a class stays without nodes.
    pub(crate) idle: Duration,
}

/// What was accepted; it may still wait to be pushed.
#[derive(Debug, Default)]
struct Accepted {
    inputs: Option<Arc<Inputs>>,
    /// Those that came.
    keys: Arc<KeyBook>,
    debounce: Debounce,
    trigger: Option<&'static str>,
}

// === impl Control ===

impl Control {
    /// A control plane with nothing in force: nodes are told to come back later until the first
    /// update.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Takes over what the files say now. Objects with errors are refused alone and keep their
    /// last good version.
    ///
    /// Endpoints that changed are sent at once; everything else waits until nothing changed for a
    /// moment, see [`Builder::debounce`] and [`Control::run`]. The first update is in force when
    /// this returns.
    ///
    /// With [`Builder::strict`], a change that leaves references to clusters or subsets that do
    /// not exist is refused as a whole.
    pub fn update(&self, files: &Files) -> Outcome {
        self.accept(|world| world.update(files))
    }

    /// The same with objects that were read elsewhere.
    pub fn update_world(&self, world: World) -> Outcome {
        self.accept(|known| {
            *known = world;
            Vec::new()
        })
    }

    /// Takes over endpoints that another registry reports, and sends them at once: nothing is
    /// compiled, and it costs the same however many services and nodes there are.
    ///
    /// They hold until the objects say something else about that service's endpoints than they do
    /// now. Returns whether anything came of it: services come from objects, so that other events
    /// are left alone, and so are endpoints of services that nobody declared or that proxies
    /// resolve by DNS.
    pub fn endpoints_changed(&self, event: &Event) -> bool {
        let Event::EndpointsChanged(id, instances) = event else {
            return false;
        };
        let accepted = lock(&self.accepted);
        let Some(known) = accepted
            .inputs
            .as_ref()
            .and_then(|one| one.services.get(&id.host))
        else {
            return false;
        };
        if known.service.id != *id || known.service.resolution != Resolution::Static {
            return false;
        }
        if self.engine.book().opaque.contains(&id.host) {
            return false;
        }
        let generation = accepted.inputs.as_ref().map_or(0, |one| one.generation);
        self.move_endpoints(
            &id.host,
            instances,
            Some(known.instances.clone()),
            generation,
        );
        true
    }

    /// Pushes what waits, now.
    pub fn flush(&self) {
        let (inputs, cause) = {
            let mut accepted = lock(&self.accepted);
            let Some(waited) = accepted.debounce.take(Instant::now()) else {
                return;
            };
            let Some(inputs) = accepted.inputs.clone() else {
                return;
            };
            let trigger = accepted.trigger.take().unwrap_or("config");
            (inputs, Cause { trigger, waited })
        };
        if self.engine.push(&inputs, cause) {
            self.request("node");
        }
    }

    /// Compiles and compares everything again, though nothing changed.
    pub fn push(&self) {
        self.request("request");
        self.flush();
    }

    /// Pushes what changes when it is due, and drops what nobody uses any more. Runs until it is
    /// dropped. Compiling is done by this future itself: give it a task of its own.
    ///
    /// # Cancel safety
    /// Nothing is lost: what waits goes on waiting.
    pub async fn run(&self) {
        loop {
            let due = lock(&self.accepted)
                .debounce
                .due(self.engine.settings.quiet);
            let idle = self.engine.book().next_idle(self.engine.settings.idle);
            tokio::select! {
                () = self.engine.wake.notified() => self.answer_servers(),
                () = sleep_until(due) => self.flush(),
                () = sleep_until(idle) => self.engine.sweep(Instant::now()),
            }
        }
    }

    /// The server of xDS: its services for a server of the owner's, or
    /// [`serve`](Server::serve).
    pub fn xds(&self) -> &Server {
        &self.server
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn accept(&self, change: impl FnOnce(&mut World) -> Vec<Diagnostic>) -> Outcome {
        let mut accepted = lock(&self.accepted);
        let before = accepted.inputs.clone();
        let mut world = before
            .as_ref()
            .map_or_else(World::default, |one| one.world.clone());
        let mut findings = change(&mut world);
        world.set_keys(accepted.keys.clone());
        let now = Arc::new(Inputs::of(world, before.as_deref()));
        if self.engine.settings.strict {
            let dangling = self.engine.dangling(&now);
            if !dangling.is_empty() {
                let errors = dangling.into_iter().map(|mut finding| {
                    finding.severity = Severity::Error;
                    finding
                });
                findings.extend(errors);
                let help = "Changes refused as a whole.";
                self.engine
                    .metrics
                    .count("pilot_total_rejected_configs", help, "", 1);
                self.note(&findings);
                return Outcome {
                    accepted: false,
                    findings,
                };
            }
        }
        self.note(&findings);
        let outcome = Outcome {
            accepted: true,
            findings,
        };
        accepted.inputs = Some(now.clone());
        let wanted = wanted_keys(&now.world, None);
        if *self.wanted.load() != wanted {
            self.wanted.publish(Arc::new(wanted));
        }
        let Some(before) = before else {
            drop(accepted);
            let waited = Duration::ZERO;
            let cause = Cause {
                trigger: "start",
                waited,
            };
            if self.engine.push(&now, cause) {
                self.request("node");
            }
            return outcome;
        };
        let difference = Difference::of(&before.world, &now.world);
        self.count(&difference);
        // Who is told of endpoints at once is not told again.
        for known in now.moved(&before) {
            self.move_endpoints(
                &known.service.id.host,
                &known.instances,
                None,
                now.generation,
            );
        }
        let waiting = accepted.debounce.due(self.engine.settings.quiet).is_some();
        if difference.endpoints_only && self.endpoints_suffice(&difference, &before, &now) {
            if !waiting {
                self.engine.book().put(&now);
            }
        } else {
            accepted.debounce.note(Instant::now());
            accepted.trigger.get_or_insert("config");
            drop(accepted);
            self.engine.wake.notify_one();
        }
        outcome
    }

    /// Whether nothing but endpoints has to be sent although endpoints may say which services a
    /// node serves and what names stand for, and what says where they are may be about nodes too.
    fn endpoints_suffice(&self, difference: &Difference, before: &Inputs, now: &Inputs) -> bool {
        let Some(moved) = moved_addresses(before, now) else {
            return false;
        };
        let book = self.engine.book();
        if book.is_elsewhere(before, now) {
            return false;
        }
        let changed: Vec<_> = now.moved(before).collect();
        let named = |one: &Known| is_headless(&now.world, &one.service.id.host);
        if book.has_names() && (difference.renames_pods || changed.iter().any(|one| named(one))) {
            return false;
        }
        let grpc = |one: &crate::book::Entry| one.class.generator == Generator::Grpc;
        let has_grpc = book.classes.values().any(grpc);
        let plain = |one: &&Known| {
            !book.opaque.contains(&one.service.id.host) && (!has_grpc || is_plain(&one.instances))
        };
        let mut classes = book.classes.values();
        changed.iter().all(plain)
            && !classes.any(|entry| moved.contains(&entry.class.essence.address))
    }

    fn move_endpoints(
        &self,
        host: &str,
        instances: &Arc<Vec<Instance>>,
        instead_of: Option<Arc<Vec<Instance>>>,
        generation: u64,
    ) {
        let moves = {
            let mut table = self.engine.table();
            let moves = table.update(host, instances, instead_of, generation);
            let count = moves.count;
            moves.apply();
            count
        };
        if moves > 0 {
            let help = "What pushes were started by.";
            let label = crate::metrics::label("type", "endpoint");
            self.engine
                .metrics
                .count("pilot_push_triggers", help, &label, 1);
            self.engine.reports().endpoint_pushes += 1;
        }
    }

    pub(crate) fn request(&self, trigger: &'static str) {
        let mut accepted = lock(&self.accepted);
        accepted.debounce.note(Instant::now());
        accepted.trigger.get_or_insert(trigger);
        drop(accepted);
        self.engine.wake.notify_one();
    }

    fn note(&self, findings: &[Diagnostic]) {
        let bad = findings.iter().filter(|finding| finding.is_error()).count();
        let help = "Errors found while reading objects.";
        let name = "galley_validation_failed";
        self.engine.metrics.count(name, help, "", bad as u64);
        self.engine.reports().findings = findings.to_vec();
    }

    fn count(&self, difference: &Difference) {
        for ((kind, event), count) in &difference.counts {
            let kind = crate::metrics::label("type", &kind.to_string());
            let labels = format!("{kind},event=\"{event}\"");
            let help = "Objects that were added, changed and removed.";
            self.engine
                .metrics
                .count("pilot_k8s_cfg_events", help, &labels, *count);
        }
    }
}

/// Whether gRPC takes these endpoints as they are: addresses, and each of them once.
fn is_plain(instances: &[Instance]) -> bool {
    let mut seen = HashSet::new();
    instances.iter().all(|one| {
        let address = &one.endpoint.address;
        matches!(address, Address::Socket(_)) && seen.insert((one.port, address))
    })
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("settings", &self.engine.settings)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

// === impl Builder ===

impl Builder {
    /// How changes are gathered into one push. Default 100 ms of quiet, 10 s at most.
    #[must_use]
    pub fn debounce(mut self, quiet: Quiet) -> Self {
        self.settings.quiet = quiet;
        self
    }

    /// Whether a change that leaves dangling references is refused as a whole. Default no.
    #[must_use]
    pub fn strict(mut self, strict: bool) -> Self {
        self.settings.strict = strict;
        self
    }

    /// How long what was compiled for a kind of node is kept when the last of them is gone: they
    /// may only be reconnecting. Default one minute.
    #[must_use]
    pub fn keep_idle(mut self, time: Duration) -> Self {
        self.settings.idle = time;
        self
    }

    /// Bounds on what clients may ask for.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// How responses are ordered and delayed.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// How old a connection may become, so that clients spread over several control planes.
    /// Default no limit, as istiod's `--keepaliveMaxServerConnectionAge`.
    #[must_use]
    pub fn max_connection_age(mut self, age: Option<Duration>) -> Self {
        self.connection_age = age;
        self
    }

    /// Who makes certificates for those who connect with TLS. Default nobody.
    #[must_use]
    pub fn certificates(mut self, issuer: Arc<Issuer>) -> Self {
        self.certificates = Some(issuer);
        self
    }

    /// The control plane. It does nothing until it is asked.
    pub fn build(self) -> Control {
        let engine = Arc::new(Engine::new(self.settings));
        let mut server = Server::builder(Desk(engine.clone()))
            .observer(Watch(engine.clone()))
            .limits(self.limits)
            .timing(self.timing)
            .max_connection_age(self.connection_age, Duration::from_secs(10))
            .identifier(concat!("mesh-control/", env!("CARGO_PKG_VERSION")));
        if let Some(issuer) = self.certificates {
            server = server.certify(issuer);
        }
        Control {
            engine,
            accepted: Arc::default(),
            wanted: Arc::new(Publisher::new(WantedKeys::new())),
            server: server.build(),
        }
    }
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            quiet: Quiet::default(),
            strict: false,
            idle: Duration::from_secs(60),
        }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
