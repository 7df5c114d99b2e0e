//! Connections over in-memory pipes and paused time.

mod on_demand;
mod tunnels;

use super::*;
use crate::listener::Statistics;
use crate::origin::pipe::{Fate, Pipe};
use mesh_core::model::{Cluster, SnapshotBuilder, TcpSplit, TcpTarget, Tunnel, WorkloadRef};
use mesh_core::stats::Block;
use mesh_core::{HostId, Name, Origin, Publisher};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const SECOND: Duration = Duration::from_secs(1);

/// What an attempt to connect comes to.
#[derive(Clone, Copy)]
enum Plan {
    Connects,
    Fails(Failure),
    Hangs,
}

/// Makes connections in memory, and hands out their other ends.
#[derive(Clone)]
struct Pipes {
    plan: Arc<Mutex<Vec<Plan>>>,
    attempts: Arc<AtomicUsize>,
    made: mpsc::UnboundedSender<Made>,
    size: usize,
}

/// A connection that was made: the endpoint's end.
struct Made {
    io: DuplexStream,
    cluster: Name,
    fate: Arc<Fate>,
}

struct World {
    proxy: TcpProxy,
    size: usize,
    statistics: Statistics,
    forwarder: Forwarder<Pipes>,
    made: mpsc::UnboundedReceiver<Made>,
    drain: watch::Sender<bool>,
}

/// A connection from a caller: the caller's end.
struct Call {
    io: DuplexStream,
    fate: Arc<Fate>,
    task: JoinHandle<()>,
}

// === impl Pipes ===

impl Connect for Pipes {
    type Upstream = Pipe;

    async fn connect(
        &self,
        cluster: &Arc<ClusterEntry>,
        _: &Caller,
        _: Option<u64>,
        tunnel: Option<&Tunnel>,
        _: &mut Vec<HostId>,
    ) -> Result<Pipe, Error> {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        let plan = self.plan.lock().unwrap().get(attempt).copied();
        match plan.unwrap_or(Plan::Connects) {
            Plan::Fails(failure) => Err(Error::new(failure)),
            Plan::Hangs => std::future::pending().await,
            Plan::Connects => {
                let (mut pipe, io) = Pipe::new(self.size);
                pipe.tunnel = tunnel.is_some();
                let made = Made {
                    io,
                    cluster: cluster.config().name.clone(),
                    fate: pipe.fate.clone(),
                };
                self.made.send(made).ok();
                Ok(pipe)
            }
        }
    }
}

// === impl World ===

impl World {
    fn new() -> Self {
        let mut builder = SnapshotBuilder::new();
        for name in ["a", "b"] {
            builder.cluster(Cluster::new(name));
        }
        let (snapshot, _) = builder.build().unwrap();
        let (sender, made) = mpsc::unbounded_channel();
        let size = 1 << 10;
        let forwarder = Forwarder {
            demand: None,
            feed: Publisher::from_arc(snapshot).feed(),
            upstreams: Pipes {
                plan: Arc::default(),
                attempts: Arc::default(),
                made: sender,
                size,
            },
            telemetry: Arc::new(Telemetry::new(WorkloadRef::default())),
            rng: Arc::new(Rng::with_seed(1)),
            buffers: Buffers::default(),
            drain_time: 10 * SECOND,
        };
        Self {
            proxy: TcpProxy::to("p", "a"),
            size,
            statistics: Statistics::default(),
            forwarder,
            made,
            drain: watch::Sender::new(false),
        }
    }

    fn plan(&self, plan: &[Plan]) {
        *self.forwarder.upstreams.plan.lock().unwrap() = plan.to_vec();
    }

    fn call(&self) -> Call {
        let (pipe, io) = Pipe::new(self.size);
        let fate = pipe.fate.clone();
        let chain = TcpChain {
            proxy: Arc::new(self.proxy.clone()),
            stats: self.block(),
        };
        let (forwarder, drain) = (self.forwarder.clone(), self.drain.subscribe());
        let task = tokio::spawn(async move {
            serve(pipe, &chain, Caller::default(), drain, &forwarder).await;
        });
        Call { io, fate, task }
    }

    async fn connected(&mut self) -> Made {
        self.made.recv().await.unwrap()
    }

    fn block(&self) -> Arc<Block<TcpStat>> {
        self.statistics.tcp.block(&"p".into())
    }

    fn stat(&self, stat: TcpStat) -> u64 {
        self.block().get(stat)
    }

    fn attempts(&self) -> usize {
        self.forwarder.upstreams.attempts.load(Ordering::Relaxed)
    }

    fn assert_quiet(&self) {
        assert_eq!(self.stat(TcpStat::CxRxBytesBuffered), 0);
        assert_eq!(self.stat(TcpStat::CxTxBytesBuffered), 0);
    }
}

async fn pass(from: &mut DuplexStream, to: &mut DuplexStream, text: &str) {
    from.write_all(text.as_bytes()).await.unwrap();
    let mut seen = vec![0; text.len()];
    to.read_exact(&mut seen).await.unwrap();
    assert_eq!(seen, text.as_bytes());
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn either_side_may_go_on_after_the_other_has_said_all() {
    for caller_first in [true, false] {
        let mut world = World::new();
        let Call { mut io, task, .. } = world.call();
        let mut made = world.connected().await;
        pass(&mut io, &mut made.io, "ping").await;
        pass(&mut made.io, &mut io, "pong!").await;
        let (first, second) = if caller_first {
            (&mut io, &mut made.io)
        } else {
            (&mut made.io, &mut io)
        };
        first.shutdown().await.unwrap();
        assert_eq!(second.read(&mut [0; 8]).await.unwrap(), 0);
        pass(second, first, "and more").await;
        second.shutdown().await.unwrap();
        assert_eq!(first.read(&mut [0; 8]).await.unwrap(), 0);
        task.await.unwrap();
        let (up, down) = if caller_first { (4, 13) } else { (12, 5) };
        assert_eq!(world.stat(TcpStat::CxRxBytes), up);
        assert_eq!(world.stat(TcpStat::CxTxBytes), down);
        assert_eq!(world.stat(TcpStat::CxTotal), 1);
        world.assert_quiet();
    }
}

#[tokio::test(start_paused = true)]
async fn both_sides_are_closed_when_the_endpoint_fails() {
    let mut world = World::new();
    let Call { mut io, task, .. } = world.call();
    let mut made = world.connected().await;
    pass(&mut io, &mut made.io, "ping").await;
    made.fate.fails.notify_one();
    assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(made.io.read(&mut [0; 8]).await.unwrap(), 0);
    task.await.unwrap();
    assert_eq!(world.stat(TcpStat::CxTotal), 1);
    world.assert_quiet();
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_byte_either_way_is_closed_on_time() {
    let mut world = World::new();
    world.proxy.idle_timeout = Some(10 * SECOND);
    let Call { mut io, task, .. } = world.call();
    let mut made = world.connected().await;
    for _ in 0..3 {
        tokio::time::sleep(9 * SECOND).await;
        pass(&mut io, &mut made.io, "up").await;
        tokio::time::sleep(9 * SECOND).await;
        pass(&mut made.io, &mut io, "down").await;
    }
    let began = Instant::now();
    assert_eq!(io.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert_eq!(made.io.read(&mut [0; 8]).await.unwrap(), 0);
    task.await.unwrap();
    assert_eq!(world.stat(TcpStat::IdleTimeout), 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_closed_for_its_age_however_busy_it_is() {
    let mut world = World::new();
    world.proxy.max_duration = Some(10 * SECOND);
    let Call { mut io, task, .. } = world.call();
    let mut made = world.connected().await;
    for _ in 0..9 {
        tokio::time::sleep(SECOND).await;
        pass(&mut io, &mut made.io, "x").await;
    }
    let began = Instant::now();
    task.await.unwrap();
    assert_eq!(began.elapsed(), SECOND);
    assert_eq!(world.stat(TcpStat::MaxDuration), 1);
    // The same while it is not even connected.
    world.plan(&[Plan::Connects, Plan::Hangs]);
    let call = world.call();
    let began = Instant::now();
    call.task.await.unwrap();
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert_eq!(world.stat(TcpStat::MaxDuration), 2);
}

#[tokio::test(start_paused = true)]
async fn as_many_endpoints_are_tried_as_may_be() {
    let mut world = World::new();
    world.proxy.max_connect_attempts = 3;
    world.plan(&[
        Plan::Fails(Failure::ConnectFailed),
        Plan::Fails(Failure::ConnectTimeout),
        Plan::Connects,
    ]);
    let mut call = world.call();
    let mut made = world.connected().await;
    pass(&mut call.io, &mut made.io, "x").await;
    assert_eq!(world.attempts(), 3);

    let world = World::new();
    world.plan(&[Plan::Fails(Failure::ConnectFailed)]);
    world.call().task.await.unwrap();
    assert_eq!(world.attempts(), 1, "one, unless more are asked for");
}

#[tokio::test(start_paused = true)]
async fn what_no_other_endpoint_would_change_is_not_tried_again() {
    for failure in [Failure::NoHealthyHost, Failure::Overflow] {
        let mut world = World::new();
        world.proxy.max_connect_attempts = 3;
        world.plan(&[Plan::Fails(failure)]);
        let mut call = world.call();
        assert_eq!(call.io.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(world.attempts(), 1, "{failure}");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_drawn_by_weight() {
    let mut world = World::new();
    let split = |cluster: &str, weight| TcpSplit {
        origin: Origin::NONE,
        cluster: cluster.into(),
        weight,
    };
    let target = TcpTarget::Clusters(vec![split("a", 80), split("b", 20)]);
    world.proxy = TcpProxy::new("p", target);
    let mut a = 0;
    for _ in 0..500 {
        let _call = world.call();
        a += usize::from(&*world.connected().await.cluster == "a");
    }
    assert!((360..440).contains(&a), "{a}");
}

#[tokio::test(start_paused = true)]
async fn a_side_that_breaks_resets_the_other() {
    let mut world = World::new();
    let call = world.call();
    let made = world.connected().await;
    call.fate.breaks();
    drop(call.io);
    call.task.await.unwrap();
    assert!(made.fate.is_reset());

    let call = world.call();
    let made = world.connected().await;
    made.fate.breaks();
    drop(made.io);
    call.task.await.unwrap();
    assert!(call.fate.is_reset());
}

/// As Envoy 1.40 has them, each tried.
#[tokio::test(start_paused = true)]
async fn the_access_log_says_how_a_connection_ended() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut world = World::new();
    world.proxy.access_log = vec![mesh_core::model::AccessLog {
        path: path.to_str().unwrap().into(),
        format: "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT%\n".into(),
    }];
    let line = |world: &World| {
        world.forwarder.telemetry.flush().unwrap();
        let lines = std::fs::read_to_string(&path).unwrap();
        lines.lines().last().unwrap().to_owned()
    };
    let mut call = world.call();
    let mut made = world.connected().await;
    pass(&mut call.io, &mut made.io, "123").await;
    pass(&mut made.io, &mut call.io, "12345").await;
    call.fate.breaks();
    drop(call.io);
    call.task.await.unwrap();
    assert_eq!(line(&world), "- 3 5");

    let call = world.call();
    let made = world.connected().await;
    made.fate.breaks();
    drop(made.io);
    call.task.await.unwrap();
    assert_eq!(line(&world), "UR 0 0");

    world.proxy.max_duration = Some(SECOND);
    world.call().task.await.unwrap();
    assert_eq!(line(&world), "DT 0 0");
    world.plan(&[Plan::Fails(Failure::ConnectFailed); 4]);
    world.call().task.await.unwrap();
    assert_eq!(line(&world), "UF,URX 0 0");
    world.proxy.target = TcpProxy::to("p", "nowhere").target;
    world.call().task.await.unwrap();
    assert_eq!(line(&world), "NC 0 0");
}

#[tokio::test(start_paused = true)]
async fn a_side_that_ends_well_is_not_reset() {
    let mut world = World::new();
    let mut call = world.call();
    let mut made = world.connected().await;
    call.io.shutdown().await.unwrap();
    made.io.shutdown().await.unwrap();
    call.task.await.unwrap();
    assert!(!made.fate.is_reset());
    assert!(!call.fate.is_reset());
}

#[tokio::test(start_paused = true)]
async fn no_more_is_read_than_one_buffer_while_the_other_side_does_not_read() {
    let mut world = World::new();
    let mut call = world.call();
    let made = world.connected().await;
    let flood = tokio::spawn(async move {
        let written = call.io.write_all(&[7; 1 << 20]).await;
        (call, written)
    });
    settle().await;
    // A pipe holds 1 KiB at each end.
    let held = world.stat(TcpStat::CxRxBytesBuffered);
    assert!((1..=buffers::SIZE as u64).contains(&held), "{held}");
    assert_eq!(world.stat(TcpStat::CxRxBytes), 1 << 10);
    assert!(!flood.is_finished());
    // Bytes the other way are not held up.
    drop(made);
    let (call, written) = flood.await.unwrap();
    assert!(written.is_err());
    call.task.await.unwrap();
    world.assert_quiet();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_holds_no_buffer() {
    let mut world = World::new();
    let calls: Vec<_> = (0..10).map(|_| world.call()).collect();
    let mut ends = Vec::new();
    for mut call in calls {
        let mut made = world.connected().await;
        pass(&mut call.io, &mut made.io, "x").await;
        pass(&mut made.io, &mut call.io, "y").await;
        ends.push((call, made));
    }
    settle().await;
    assert_eq!(
        world.forwarder.buffers.unused_buffers(),
        1,
        "all used the same"
    );
}

#[tokio::test(start_paused = true)]
async fn a_connection_goes_on_for_the_drain_time() {
    let mut world = World::new();
    let mut call = world.call();
    let mut made = world.connected().await;
    world.drain.send_replace(true);
    let began = Instant::now();
    tokio::time::sleep(9 * SECOND).await;
    pass(&mut call.io, &mut made.io, "still here").await;
    call.task.await.unwrap();
    assert_eq!(began.elapsed(), 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn metrics_have_the_bytes_of_a_connection_that_goes_on() {
    let mut world = World::new();
    let mut call = world.call();
    let mut made = world.connected().await;
    let metric = |name: &str| {
        let mut scrape = mesh_telemetry::expose::Scrape::new();
        scrape.telemetry(&world.forwarder.telemetry);
        let query = mesh_telemetry::expose::Query::parse("format=prometheus").unwrap();
        let text = scrape.write(&query);
        let line = text.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.map(|value| value.parse::<u64>().unwrap())
    };
    settle().await;
    assert_eq!(metric("istio_tcp_connections_opened_total{"), Some(1));
    pass(&mut call.io, &mut made.io, "12345").await;
    tokio::time::sleep(6 * SECOND).await;
    assert_eq!(metric("istio_tcp_received_bytes_total{"), Some(5));
    pass(&mut made.io, &mut call.io, "1234567").await;
    drop((call.io, made.io));
    call.task.await.unwrap();
    assert_eq!(metric("istio_tcp_sent_bytes_total{"), Some(7));
    assert_eq!(metric("istio_tcp_connections_closed_total{"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_bad_connections_leak_nothing() {
    let mut world = World::new();
    world.proxy.idle_timeout = Some(60 * SECOND);
    let mut tasks = Vec::new();
    let mut ends = Vec::new();
    for n in 0..1000 {
        let mut call = world.call();
        let mut made = world.connected().await;
        match n % 4 {
            // Says all and waits.
            0 => call.io.shutdown().await.unwrap(),
            // Sends what is never read.
            1 => {
                let _ = tokio::time::timeout(SECOND, call.io.write_all(&[7; 8 << 10])).await;
            }
            // Is reset with bytes on their way.
            2 => {
                call.io.write_all(b"lost").await.unwrap();
                call.fate.breaks();
            }
            _ => {
                let _ = tokio::time::timeout(SECOND, made.io.write_all(&[7; 8 << 10])).await;
                made.fate.breaks();
            }
        }
        tasks.push(call.task);
        if n % 4 < 2 {
            ends.push((call.io, made.io));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    drop(ends);
    world.assert_quiet();
    assert_eq!(world.stat(TcpStat::IdleTimeout), 500);
    assert!(world.forwarder.buffers.unused_buffers() <= 64);
    assert_eq!(Arc::strong_count(&world.forwarder.telemetry), 1);
}
