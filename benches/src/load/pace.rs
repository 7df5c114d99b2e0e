//! A fixed rate of HTTP/1.1 requests, whose latency counts from when each was due.
//!
//! One thread that never sleeps sends a request every so many microseconds, on whichever connection
//! has been free for longest. One that has to wait for a connection is as late as its caller would
//! find it (Tene, "How NOT to Measure Latency": coordinated omission).

use std::{
    collections::VecDeque,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

use crate::{
    quantile::quantile,
    reply::{Done, Reply},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    address: SocketAddr,

    #[arg(long, default_value = "/")]
    path: String,

    /// Bytes that each body has to have
    #[arg(long, default_value_t = 1024)]
    length: usize,

    /// Requests a second
    #[arg(long, default_value_t = 10_000)]
    rate: u32,

    #[arg(long, default_value_t = 64)]
    connections: usize,

    #[arg(long, default_value_t = 5)]
    seconds: u32,

    /// Seconds before that, which do not count
    #[arg(long, default_value_t = 1)]
    warm: u32,
}

#[derive(Debug, serde::Serialize)]
pub(crate) struct Found {
    /// That were answered in the time that counts.
    requests: u64,
    /// With another status or length, or an error.
    wrong: u64,
    /// Requests a second.
    rate: f64,
    /// Microseconds, from when a request was due to the end of its response.
    p50: f64,
    p99: f64,
    p999: f64,
    /// Microseconds by which a request was sent late, which is the generator's or for want of a
    /// connection: p99.
    lag: f64,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    reply: Reply,
    /// When its request was due, and its number.
    due: Instant,
    number: u64,
}

/// # Errors
///
/// If a connection cannot be made or breaks.
pub(crate) fn run(options: &Options) -> anyhow::Result<Found> {
    if options.rate == 0 || options.connections == 0 {
        bail!("a rate and connections are needed");
    }
    let Options { address, path, .. } = options;
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nuser-agent: peers-load\r\n\r\n");
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll")?;
    let mut connections = Vec::with_capacity(options.connections);
    for at in 0..options.connections {
        let stream = TcpStream::connect(address).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let data = epoll::EventData::new_u64(at as u64);
        epoll::add(&poll, &stream, data, epoll::EventFlags::IN).context("epoll")?;
        connections.push(Connection {
            stream,
            reply: Reply::default(),
            due: Instant::now(),
            number: 0,
        });
    }
    let rate = u64::from(options.rate);
    let warm = rate * u64::from(options.warm);
    let total = warm + rate * u64::from(options.seconds);
    let right = Done {
        status: 200,
        length: options.length,
    };
    let mut free: VecDeque<usize> = (0..connections.len()).collect();
    let mut latencies = Vec::with_capacity((total - warm) as usize);
    let mut lags = Vec::with_capacity((total - warm) as usize);
    let (mut sent, mut over, mut wrong) = (0, 0, 0);
    let mut events = Vec::with_capacity(options.connections);
    let mut piece = vec![0; 64 * 1024];
    let start = Instant::now();
    // What hangs is not waited for.
    let limit = Duration::from_secs(u64::from(options.warm + options.seconds) + 5);
    let due_of = |number: u64| start + Duration::from_nanos(number * 1_000_000_000 / rate);
    while over < total && start.elapsed() < limit {
        let now = Instant::now();
        let due = due_of(sent);
        if sent < total
            && now >= due
            && let Some(at) = free.pop_front()
        {
            let connection = &mut connections[at];
            connection.due = due;
            connection.number = sent;
            // 70 bytes fit into the buffer of a connection that has nothing under way.
            let written = connection.stream.write_all(request.as_bytes());
            written.context("cannot send")?;
            if sent >= warm {
                lags.push(tenths(now - due));
            }
            sent += 1;
        }
        epoll::wait(&poll, spare_capacity(&mut events), Some(&NOT_AT_ALL)).context("epoll")?;
        for event in events.drain(..) {
            let at = event.data.u64() as usize;
            let connection = &mut connections[at];
            let Some(done) = connection.read(&mut piece)? else {
                continue;
            };
            over += 1;
            free.push_back(at);
            if connection.number >= warm {
                latencies.push(tenths(connection.due.elapsed()));
                wrong += u64::from(done != right);
            }
        }
    }
    let requests = latencies.len() as u64;
    let mut micros = |share| f64::from(quantile(&mut latencies, share)) / 10.0;
    Ok(Found {
        requests,
        // Those of the time that counts which were not answered, or not even sent.
        wrong: wrong + (total - warm - requests),
        rate: requests as f64 / f64::from(options.seconds.max(1)),
        p50: micros(0.5),
        p99: micros(0.99),
        p999: micros(0.999),
        lag: f64::from(quantile(&mut lags, 0.99)) / 10.0,
    })
}

const NOT_AT_ALL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// Tenths of a microsecond.
fn tenths(time: Duration) -> u32 {
    u32::try_from(time.as_nanos() / 100).unwrap_or(u32::MAX)
}

// === impl Connection ===

impl Connection {
    /// Reads what is there; says what the response was when it is complete.
    fn read(&mut self, piece: &mut [u8]) -> anyhow::Result<Option<Done>> {
        match self.stream.read(piece) {
            Ok(0) => bail!("a connection was closed"),
            Ok(length) => self.reply.take(&piece[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("cannot read"),
        }
    }
}
