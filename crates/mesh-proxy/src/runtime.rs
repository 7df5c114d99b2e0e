//! Threads: one per worker, each with a runtime of its own, and the tasks beside them.

use crate::admin::Admin;
use crate::connection::Site;
use crate::ejections::EjectionLog;
use crate::explain::{Explainer, Token};
use crate::guard::{Guard, watch_over};
use crate::http::stack;
use crate::listener::{Plans, Statistics};
use crate::reconcile::{Listening, RETRY, Reconciler};
use crate::tcp::{Buffers, Forwarder};
use crate::updates::Updates;
use crate::worker::{Listeners, Worker};
use crate::xds::Control;
use crate::{Builder, Identity};
use mesh_client::health::HealthChecks;
use mesh_client::tcp::TcpUpstreams;
use mesh_client::{Authorizers, Parts, Upstreams};
use mesh_core::model::{ListenerAddress, Snapshot, WorkloadRef};
use mesh_core::{Feed, InForce, Rng, Shard, WallClock};
use mesh_discovery::dns::{Resolver, System};
use mesh_identity::Files;
use mesh_resilience::Budgets;
use mesh_telemetry::Telemetry;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};
use std::{io, thread};
use tokio::runtime::RuntimeMetrics;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// How often access logs are written out and ejected hosts are looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(500);

/// How often it is looked whether the first clusters are ready.
const LOOK: Duration = Duration::from_millis(10);

/// What the parts of a running proxy share.
pub(crate) struct Shared {
    pub(crate) feed: Feed<Snapshot>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) statistics: Statistics,
    pub(crate) listening: Feed<Listening>,
    /// New connections are no longer wanted.
    pub(crate) draining: AtomicBool,
    pub(crate) started: tokio::time::Instant,
    /// What the admin interface is asked to do.
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) workers: usize,
    /// What the workers' runtimes count.
    pub(crate) runtimes: Vec<RuntimeMetrics>,
    /// Where the configuration comes from, unless it is the caller's own.
    pub(crate) control: Option<Arc<Control>>,
    /// What a name server for the applications counts, if there is one.
    pub(crate) names: Option<Arc<mesh_discovery::dns::server::Statistics>>,
    pub(crate) workload: WorkloadRef,
    pub(crate) guard: Guard,
    /// Where ejections are logged, if they are.
    pub(crate) ejections: Option<EjectionLog>,
    /// What the admin interface wants of who changes something.
    pub(crate) admin_token: Option<Token>,
    /// When the latest snapshot came into force, in milliseconds since 1970.
    pub(crate) updated: AtomicU64,
}

/// What an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Stop accepting and let connections finish.
    DrainListeners,
    /// Drain, then end.
    Quit,
}

/// A proxy that runs. Dropping it drains it in the background; [`Running::drain`] waits for that.
pub struct Running {
    shared: Arc<Shared>,
    admin: Option<ListenerAddress>,
    stop: watch::Sender<bool>,
    supervisor: JoinHandle<()>,
    /// Serves the admin interface; its socket goes with it.
    serving: Option<JoinHandle<()>>,
    ended: watch::Receiver<bool>,
}

// === impl Shared ===

impl Shared {
    fn note_update(&self) {
        let now = WallClock::system().now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis();
        // Good for some hundred million years.
        self.updated.store(now as u64, Ordering::Relaxed);
    }

    /// Whether the first configuration is in force, or was once.
    pub(crate) async fn is_initialized(&self) -> bool {
        let listening = self.listening.load();
        match &self.control {
            None => listening.version > 0,
            Some(control) => {
                let snapshot = self.feed.load();
                listening.version == snapshot.version()
                    && control.is_initialized(&snapshot, self.started).await
            }
        }
    }
}

// === impl Running ===

impl Running {
    /// Where the admin interface listens, if that is an IP address and a port.
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(ListenerAddress::socket)
    }

    /// Where the admin interface listens.
    pub fn admin_at(&self) -> Option<&ListenerAddress> {
        self.admin.as_ref()
    }

    /// What is known of the listeners, and news of it.
    pub fn listening(&self) -> Feed<Listening> {
        self.shared.listening.clone()
    }

    /// Statistics and metrics.
    pub fn telemetry(&self) -> &Arc<Telemetry> {
        &self.shared.telemetry
    }

    /// Waits until the first configuration is in force: every listener is open or has failed.
    pub async fn ready(&self) -> Arc<Listening> {
        let mut listening = self.shared.listening.clone();
        loop {
            let now = listening.load();
            if now.version > 0 {
                return now;
            }
            if listening.changed().await.is_err() {
                return now;
            }
        }
    }

    /// Waits until the proxy is as its control plane or its files want it, for the first time: all
    /// listeners and clusters that came are in force, or those that do not come were waited for
    /// long enough. Without a [`Driver`](crate::xds::Driver) it is [`Running::ready`].
    pub async fn initialized(&self) {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while !self.shared.is_initialized().await {
            look.tick().await;
        }
    }

    /// Waits until an operator asked the proxy to quit.
    pub async fn ended(&mut self) {
        // A lost sender means the same.
        let _ = self.ended.wait_for(|ended| *ended).await;
    }

    /// Stops accepting, lets requests finish within the drain time, and ends.
    pub async fn drain(self) {
        self.stop.send_replace(true);
        // The supervisor ends by itself; a panic in it has been printed.
        let _ = self.supervisor.await;
        // That was the sign for the admin interface to end, too.
        if let Some(serving) = self.serving {
            let _ = serving.await;
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

/// Starts the threads and tasks of a proxy.
pub(crate) async fn start(builder: Builder) -> io::Result<Running> {
    let Builder {
        feed,
        workload,
        concurrency,
        admin,
        seed,
        drain_time,
        most_requests,
        zone,
        slots,
        gate,
        control,
        names,
        demand,
        token,
        identity,
        limits,
        overload,
        ejection_log,
        admin_token,
    } = builder;
    let telemetry = Arc::new(Telemetry::new(workload.clone()));
    let statistics = Statistics::default();
    let plans = Plans::new(statistics.clone());
    let rng = seed.map_or_else(Rng::from_system, Rng::with_seed);
    let workers = concurrency.max(1);
    let mut commands = Vec::with_capacity(workers);
    let mut threads = Vec::with_capacity(workers);
    let mut runtimes = Vec::with_capacity(workers);
    let budgets = Budgets::default();
    let guard = Guard::new(limits, overload, rng.fork());
    let ejections = ejection_log.as_ref().map(EjectionLog::open).transpose()?;
    let explainer = token.map(|token| Arc::new(Explainer::new(token, feed.clone())));
    for number in 0..workers {
        let (sender, receiver) = mpsc::unbounded_channel();
        commands.push(sender);
        let buffers = mesh_http1::Buffers::default();
        let upstreams = Upstreams::new(Shard::of_worker(number)).buffers(buffers.clone());
        let in_force = InForce::new(feed.clone());
        let own_rng = Arc::new(rng.fork());
        let mut parts = Parts::new(in_force.clone(), upstreams.clone(), own_rng);
        parts.budgets = budgets.clone();
        parts.sessions = statistics.sessions.clone();
        parts.demand = demand.clone();
        parts.zone.clone_from(&zone);
        parts.before_route = slots.before_route.clone();
        parts.after_route = slots.after_route.clone();
        parts.per_attempt = slots.per_attempt.clone();
        let authorizers = Authorizers::new(feed.clone(), upstreams.clone());
        let tcp_rng = Arc::new(rng.fork());
        let mut tcp_upstreams = TcpUpstreams::new(upstreams.clone()).rng(tcp_rng.clone());
        if let Some(zone) = &zone {
            tcp_upstreams = tcp_upstreams.zone(zone.clone());
        }
        let tcp = Forwarder {
            feed: feed.clone(),
            demand: demand.clone(),
            upstreams: tcp_upstreams,
            telemetry: telemetry.clone(),
            rng: tcp_rng,
            buffers: Buffers::default(),
            drain_time,
        };
        let site = Site {
            shard: Shard::of_worker(number),
            listeners: Listeners::default(),
            stack: stack::build(
                parts,
                telemetry.clone(),
                (most_requests, guard.shedding()),
                explainer.clone(),
            ),
            guard: guard.clone(),
            buffers,
            tcp,
            authorizers,
            tasks: TaskTracker::new(),
        };
        let worker = Worker {
            site,
            upstreams,
            in_force,
            plans: plans.clone(),
            commands: receiver,
        };
        let (runtime, ended) = spawn_worker(number, worker, drain_time)?;
        runtimes.push(runtime);
        threads.push(ended);
    }
    let reconciler = Reconciler::new(commands, gate);
    let (orders, ordered) = mpsc::channel(8);
    let shared = Arc::new(Shared {
        feed,
        telemetry,
        statistics,
        listening: reconciler.status(),
        draining: AtomicBool::new(false),
        started: tokio::time::Instant::now(),
        orders,
        workers,
        runtimes,
        control,
        names,
        workload,
        guard: guard.clone(),
        ejections,
        admin_token,
        updated: AtomicU64::new(0),
    });
    let (stop, stopped) = watch::channel(false);
    let (end, ended) = watch::channel(false);
    let (mut bound, mut serving) = (None, None);
    if let Some((address, mode)) = admin {
        let admin = Admin::bind(&address, mode, shared.clone()).await?;
        bound = Some(admin.address().clone());
        serving = Some(tokio::spawn(admin.run(ended.clone())));
    }
    // Before the first listener opens: a handshake needs its certificate.
    let mut files = Files::new(shared.feed.clone());
    files.refresh().await;
    if let Some(identity) = &identity {
        identity.provide(&shared.feed.load());
    }
    let checks = HealthChecks::new(shared.feed.clone()).rng(rng.fork());
    let feed = shared.feed.clone();
    let watching = watch_over(guard);
    tokio::spawn(follow(
        files,
        identity,
        checks,
        watching,
        feed,
        ended.clone(),
    ));
    let supervisor = tokio::spawn(supervise(
        shared.clone(),
        reconciler,
        ordered,
        stopped,
        end,
        threads,
    ));
    Ok(Running {
        shared,
        admin: bound,
        stop,
        supervisor,
        serving,
        ended,
    })
}

fn spawn_worker(
    number: usize,
    worker: Worker,
    drain_time: Duration,
) -> io::Result<(RuntimeMetrics, oneshot::Receiver<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let metrics = runtime.metrics();
    let (done, ended) = oneshot::channel();
    thread::Builder::new()
        .name(format!("mesh-worker-{number}"))
        .spawn(move || {
            runtime.block_on(worker.run(drain_time));
            // Whoever waited may be gone.
            let _ = done.send(());
        })?;
    Ok((metrics, ended))
}

/// Keeps what lies outside of the configuration up to date until the proxy ends: secrets in files,
/// the proxy's own identity, the addresses behind names, the health of those, and what runs out.
async fn follow(
    files: Files,
    identity: Option<Identity>,
    checks: HealthChecks,
    watching: impl Future<Output = ()>,
    feed: Feed<Snapshot>,
    mut ended: watch::Receiver<bool>,
) {
    let resolver = Resolver::new(feed.clone(), System::new());
    let identity = async {
        if let Some(identity) = identity {
            identity.follow(feed).await;
        }
    };
    tokio::select! {
        // A lost sender means the same.
        _ = ended.wait_for(|ended| *ended) => {}
        _ = async { tokio::join!(files.run(), identity, resolver.run(), checks.run(), watching) } => {}
    }
}

/// Follows configuration and orders until the proxy ends.
async fn supervise(
    shared: Arc<Shared>,
    mut reconciler: Reconciler,
    mut orders: mpsc::Receiver<Order>,
    mut stopped: watch::Receiver<bool>,
    end: watch::Sender<bool>,
    threads: Vec<oneshot::Receiver<()>>,
) {
    let mut feed = shared.feed.clone();
    // No listener opens before the endpoints of its clusters were asked whether they are well, if
    // they are to be (Envoy's initial health checks). Clusters that come later wait for nobody.
    let mut warm = is_warm(&feed.load());
    let mut again = false;
    if warm {
        again = reconciler.apply(&feed.load());
        shared.note_update();
    }
    let mut look = tokio::time::interval(LOOK);
    let mut housekeeping = tokio::time::interval(HOUSEKEEPING);
    // One timer for all rounds: a sleep made anew in each round would never end, because
    // housekeeping comes first.
    let mut retry = tokio::time::interval(RETRY);
    retry.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut configured = true;
    let mut updates = Updates::default();
    loop {
        let draining = shared.draining.load(Ordering::Relaxed);
        tokio::select! {
            changed = feed.changed(), if configured && !draining => match changed {
                Ok(_) if !warm => {}
                Ok(snapshot) => {
                    again = reconciler.apply(&snapshot);
                    shared.note_update();
                }
                // The last configuration stays in force.
                Err(_) => configured = false,
            },
            _ = look.tick(), if !warm && !draining => {
                let snapshot = shared.feed.load();
                warm = is_warm(&snapshot);
                if warm {
                    again = reconciler.apply(&snapshot);
                    shared.note_update();
                }
            }
            _ = retry.tick(), if again && !draining => {
                again = reconciler.apply(&shared.feed.load());
            }
            _ = housekeeping.tick() => housekeep(&shared, &mut updates),
            order = orders.recv() => match order {
                Some(Order::DrainListeners) if !draining => {
                    shared.draining.store(true, Ordering::Relaxed);
                    reconciler.drain();
                }
                Some(Order::DrainListeners) => {}
                Some(Order::Quit) | None => break,
            },
            // A lost handle means the same as a call of `drain`.
            _ = stopped.wait_for(|stop| *stop) => break,
        }
    }
    shared.draining.store(true, Ordering::Relaxed);
    reconciler.drain();
    for thread in threads {
        // An error means that the thread is gone, which is what we wait for.
        let _ = thread.await;
    }
    housekeep(&shared, &mut updates);
    end.send_replace(true);
}

/// Whether every endpoint that is to be was asked once.
fn is_warm(snapshot: &Snapshot) -> bool {
    let mut clusters = snapshot.clusters().iter();
    clusters.all(|entry| {
        entry.config().health_checks.is_empty() || mesh_lb::ClusterHosts::of(entry).is_checked()
    })
}

fn housekeep(shared: &Shared, updates: &mut Updates) {
    let (snapshot, listening) = (shared.feed.load(), shared.listening.load());
    // The addresses of new listeners are known once they are open; while the proxy drains none is
    // opened any more.
    if listening.version == snapshot.version() || shared.draining.load(Ordering::Relaxed) {
        updates.note(&snapshot, &listening, &shared.statistics);
    }
    if let Err(error) = shared.telemetry.flush() {
        tracing::warn!(%error, "access log");
    }
    let now = tokio::time::Instant::now().into_std();
    for entry in snapshot.clusters() {
        // Only where something can be ejected: the rest needs no state of its own.
        if entry.config().outlier.is_some() {
            let hosts = mesh_lb::ClusterHosts::of(entry);
            hosts.sweep(now);
            match &shared.ejections {
                Some(log) => log.note(&entry.config().name, hosts, now),
                // What nobody wants to know takes no room.
                None => drop(hosts.take_ejections()),
            }
        }
    }
    if let Some(log) = &shared.ejections {
        log.flush();
    }
}
