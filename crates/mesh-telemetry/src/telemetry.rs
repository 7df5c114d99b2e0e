//! What a proxy or client needs to tell of its traffic.

mod logs;
mod routes;
mod worker;

use crate::istio::peer::Introduction;
use crate::istio::{Registry, Series, TcpSeries};
use crate::shard::Sharded;
use logs::LogBook;
use mesh_core::model::{AccessLog, Direction, HttpManager, TcpProxy, WorkloadRef};
use mesh_core::{Invalid, Name, WallClock};
use std::io::{self, Write};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use logs::Logs;
use routes::RouteBook;
pub(crate) use routes::RouteStats;
pub(crate) use worker::{Listener, Record, Worker};

/// What a proxy or client has of telemetry: who it is, its access logs and its standard metrics.
///
/// One for the whole process, shared by every [`FinishLayer`](crate::FinishLayer). Formats are
/// compiled and files opened when a listener's settings are first seen; each worker then finds them
/// by address.
///
/// ```
/// use mesh_core::model::WorkloadRef;
/// use mesh_telemetry::Telemetry;
/// use std::sync::Arc;
///
/// let mut node = WorkloadRef::default();
/// node.name = "productpage-v1".into();
/// let telemetry = Arc::new(Telemetry::new(node).hostname("node-1"));
/// assert_eq!(telemetry.dropped_lines(), 0);
/// ```
#[derive(Debug)]
pub struct Telemetry {
    pub(crate) node: Arc<WorkloadRef>,
    pub(crate) clock: WallClock,
    pub(crate) hostname: Name,
    pub(crate) registry: Registry<Series>,
    /// Series of connections that are passed on as they are.
    pub(crate) connections: Registry<TcpSeries>,
    /// Statistics of rules that have a prefix for them.
    pub(crate) routes: RouteBook,
    direction: Direction,
    bare: Arc<Logs>,
    book: LogBook,
    workers: Sharded<Worker>,
}

/// A handle of one stack's own, which means of one worker's where each worker makes its stack:
/// requests count references here rather than on what all workers share.
#[derive(Clone, Debug)]
pub(crate) struct Own(Arc<Mine>);

#[derive(Debug)]
struct Mine {
    telemetry: Arc<Telemetry>,
    /// Encoded once for each worker: every request counts references on the values.
    introduction: Option<Introduction>,
    /// A layer below notes the head of every request.
    noted: bool,
}

/// How many series of standard metrics there are at most, unless
/// [`Telemetry::most_series`] says otherwise.
pub const MOST_SERIES: usize = 10_000;

// === impl Telemetry ===

impl Telemetry {
    /// Telemetry of the workload `node`, with the machine's clock, no host name, and no access log
    /// but those of listeners.
    pub fn new(node: WorkloadRef) -> Self {
        Self {
            node: Arc::new(node),
            clock: WallClock::system(),
            hostname: Name::default(),
            registry: Registry::new(MOST_SERIES),
            connections: Registry::new(MOST_SERIES),
            routes: RouteBook::default(),
            direction: Direction::Outbound,
            bare: Arc::default(),
            book: LogBook::default(),
            workers: Sharded::default(),
        }
    }

    /// Uses this clock for `%START_TIME%`.
    #[must_use]
    pub fn clock(mut self, clock: WallClock) -> Self {
        self.clock = clock;
        self
    }

    /// Sets what `%HOSTNAME%` writes. Default `-`.
    #[must_use]
    pub fn hostname(mut self, hostname: impl Into<Name>) -> Self {
        self.hostname = hostname.into();
        self
    }

    /// Which side of a call requests without a listener are on: for layers used without a proxy.
    /// Default outbound.
    #[must_use]
    pub fn direction(mut self, direction: Direction) -> Self {
        self.direction = direction;
        self
    }

    /// Adds an access log for requests without a listener: for layers used without a proxy.
    ///
    /// # Errors
    /// If the format is invalid or the file cannot be opened.
    pub fn log(mut self, log: AccessLog) -> Result<Self, Invalid> {
        let mut logs = self.bare.configs().to_vec();
        logs.push(log);
        self.bare = self.book.check(&logs)?;
        Ok(self)
    }

    /// Writes the lines of access logs with this path to `target`, instead of a file.
    #[must_use]
    pub fn output(self, path: impl Into<Name>, target: impl Write + Send + 'static) -> Self {
        self.book.output(path.into(), Box::new(target));
        self
    }

    /// Limits how many series of standard metrics there are. Default [`MOST_SERIES`].
    #[must_use]
    pub fn most_series(mut self, most: usize) -> Self {
        self.registry = Registry::new(most);
        self.connections = Registry::new(most);
        self
    }

    /// Who this is.
    pub fn node(&self) -> &Arc<WorkloadRef> {
        &self.node
    }

    /// The headers that tell others who this is, with values of their own at each call. None if
    /// this is no workload with a name.
    pub fn introduction(&self) -> Option<Introduction> {
        Introduction::of(&self.node)
    }

    /// Which side of a call requests without a listener are on.
    pub(crate) fn side(&self) -> Direction {
        self.direction
    }

    /// Compiles the formats of a listener and opens its files, before its first request does.
    ///
    /// # Errors
    /// If a format is invalid or a file cannot be opened. Requests that come all the same are
    /// logged where it is possible.
    pub fn prepare(&self, manager: &HttpManager) -> Result<(), Invalid> {
        self.prepare_logs(&manager.access_log)
    }

    /// As [`Telemetry::prepare`], of the access logs of anything else.
    ///
    /// # Errors
    /// As there.
    pub fn prepare_logs(&self, logs: &[AccessLog]) -> Result<(), Invalid> {
        self.book.check(logs).map(drop)
    }

    /// What was wrong with access logs of listeners that were not [prepared](Self::prepare). The
    /// oldest hundred.
    pub fn problems(&self) -> Vec<Invalid> {
        self.book.problems()
    }

    /// Writes out the buffered lines of every access log. Blocks for as long as the files do.
    ///
    /// # Errors
    /// The first error of a file. Its lines are lost and counted as dropped.
    pub fn flush(&self) -> io::Result<()> {
        self.book.each(|writer| writer.flush())
    }

    /// Opens every access log's file again, for log rotation.
    ///
    /// # Errors
    /// The first error. Files that cannot be opened again stay as they are.
    pub fn reopen(&self) -> io::Result<()> {
        self.book.each(|writer| writer.reopen())
    }

    /// Flushes the access logs `every` so often, and whenever a buffer is half full, for as long
    /// as the future is polled. One task of the process should run this, not on a worker: files
    /// block. Errors are counted in [`Telemetry::dropped_lines`].
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: what is buffered stays so until the next flush, or until
    /// the telemetry itself is dropped.
    pub async fn run(&self, every: Duration) {
        let flush = || {
            let _ = self.flush();
        };
        self.book.bell().attend(every, flush).await;
    }

    /// Lines dropped by access logs that are in use: for want of room, or because a file failed.
    pub fn dropped_lines(&self) -> u64 {
        self.book.dropped()
    }

    /// How often a new series of standard metrics was refused because there are too many.
    pub fn refused_series(&self) -> u64 {
        self.registry.refused() + self.connections.refused()
    }

    pub(crate) fn worker(&self, shard: mesh_core::Shard) -> std::sync::MutexGuard<'_, Worker> {
        self.workers.lock(shard)
    }

    /// What connections that are passed on by these settings want.
    fn proxy(&self, proxy: &TcpProxy) -> Arc<Listener> {
        let logs = self.book.get(&proxy.access_log);
        Arc::new(Listener::new(logs, proxy.direction))
    }

    /// The compiled form of access logs.
    pub(crate) fn logs(&self, logs: &[AccessLog]) -> Arc<Logs> {
        self.book.get(logs)
    }

    /// A worker's own record of what a listener wants; none for requests without a listener.
    fn listener(&self, manager: Option<&HttpManager>) -> Arc<Listener> {
        let (logs, direction) = match manager {
            Some(manager) => (self.book.get(&manager.access_log), manager.direction),
            None => (self.bare.clone(), self.direction),
        };
        Arc::new(Listener::new(logs, direction))
    }
}

// === impl Own ===

impl Own {
    pub(crate) fn new(telemetry: Arc<Telemetry>, noted: bool) -> Self {
        Self(Arc::new(Mine {
            introduction: telemetry.introduction(),
            telemetry,
            noted,
        }))
    }

    /// Whether a layer below notes the head of every request, so that nothing has to be kept of it.
    pub(crate) fn heads_are_noted(&self) -> bool {
        self.0.noted
    }

    /// What this worker says of itself.
    pub(crate) fn introduction(&self) -> Option<&Introduction> {
        self.0.introduction.as_ref()
    }
}

impl Deref for Own {
    type Target = Telemetry;
    fn deref(&self) -> &Telemetry {
        &self.0.telemetry
    }
}
