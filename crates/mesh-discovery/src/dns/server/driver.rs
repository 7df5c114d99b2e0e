//! The sockets.

use super::answer::{Step, answer};
use super::names::{Names, Place};
use super::resolv::ResolvConf;
use super::statistics::Statistics;
use super::{upstream, wire};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mesh_core::discovery::NameTable;
use mesh_core::{Feed, Rng};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::Instant;

/// Answers over UDP and TCP at one address.
///
/// Until there is a table, every question is answered with an error, as Istio's agent does: an
/// application that starts before its proxy is configured must not be led past it.
#[derive(Debug)]
pub struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    tables: Feed<Option<NameTable>>,
    place: Place,
    servers: Vec<SocketAddr>,
    statistics: Arc<Statistics>,
    rng: Rng,
}

/// The newest table as it is looked up in.
#[derive(Debug)]
struct Current {
    tables: Feed<Option<NameTable>>,
    place: Place,
    made: Mutex<(u64, Option<Arc<Names>>)>,
}

/// Questions that are with name servers at one time; more are answered with an error.
const MOST_FORWARDS: usize = 1024;
/// Connections at one time; others wait until one is over.
const MOST_CONNECTIONS: usize = 128;
/// How long a connection may be silent, and how long it has to take an answer.
const IDLE: Duration = Duration::from_secs(10);
/// How many ports the system may choose until one is free for both sockets.
const CHOICES: u32 = 16;
/// Longer questions are cut, and so cannot be read.
const LARGEST_QUERY: usize = 4096;
/// How long to wait after an error of a socket that is not about one client.
const PAUSE: Duration = Duration::from_millis(100);

// === impl Server ===

impl Server {
    /// Opens both sockets. What is not in a table is passed on to the name servers of `resolv`,
    /// which must not lead here again.
    ///
    /// # Errors
    /// If one of the sockets cannot be opened.
    pub async fn bind(
        address: SocketAddr,
        tables: Feed<Option<NameTable>>,
        mut place: Place,
        resolv: &ResolvConf,
    ) -> io::Result<Self> {
        let (tcp, udp, own) = sockets(address).await?;
        if place.search.is_none() {
            place.search = resolv.search.first().cloned();
        }
        let servers = resolv.servers.iter().copied();
        Ok(Self {
            udp,
            tcp,
            tables,
            place,
            servers: servers.filter(|server| *server != own).collect(),
            statistics: Arc::default(),
            rng: Rng::default(),
        })
    }

    /// Counts there, together with other servers.
    #[must_use]
    pub fn statistics(mut self, statistics: Arc<Statistics>) -> Self {
        self.statistics = statistics;
        self
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers until the future is dropped.
    ///
    /// # Cancel safety
    /// Dropped, it closes the sockets; who waits for an answer gets none.
    pub async fn run(self) {
        let Self {
            udp,
            tcp,
            tables,
            place,
            servers,
            statistics,
            rng,
        } = self;
        let current = Current {
            tables,
            place,
            made: Mutex::new((0, None)),
        };
        let office = Office {
            current,
            servers,
            statistics,
            rng,
        };
        tokio::join!(office.datagrams(&udp), office.connections(&tcp));
    }
}

/// Both on one port, also where the system chooses it: for TCP, so that it may be one whose UDP is
/// somebody else's. Then it chooses again.
async fn sockets(address: SocketAddr) -> io::Result<(TcpListener, UdpSocket, SocketAddr)> {
    let mut attempts = if address.port() == 0 { CHOICES } else { 1 };
    loop {
        let tcp = TcpListener::bind(address).await?;
        let own = tcp.local_addr()?;
        attempts -= 1;
        match UdpSocket::bind(own).await {
            Ok(udp) => return Ok((tcp, udp, own)),
            Err(error) if attempts > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
}

/// What both sockets share.
#[derive(Debug)]
struct Office {
    current: Current,
    servers: Vec<SocketAddr>,
    statistics: Arc<Statistics>,
    rng: Rng,
}

// === impl Office ===

impl Office {
    async fn datagrams(&self, socket: &UdpSocket) {
        let mut forwards = FuturesUnordered::new();
        let mut buffer = vec![0; LARGEST_QUERY];
        loop {
            tokio::select! {
                received = socket.recv_from(&mut buffer) => {
                    let (length, client) = match received {
                        Ok(received) => received,
                        Err(error) => {
                            tracing::warn!(%error, "names over UDP");
                            tokio::time::sleep(PAUSE).await;
                            continue;
                        }
                    };
                    let query = &buffer[..length];
                    match self.step(query, true) {
                        Step::Forward { .. } if forwards.len() >= MOST_FORWARDS => {
                            send(socket, &wire::server_failure(query), client).await;
                        }
                        Step::Forward { limit } => {
                            let query = query.to_vec();
                            forwards.push(async move {
                                (self.forward(&query, limit, true).await, client)
                            });
                        }
                        Step::Answer(answer) => send(socket, &answer, client).await,
                        Step::Ignore => {}
                    }
                }
                Some((answer, client)) = forwards.next() => send(socket, &answer, client).await,
            }
        }
    }

    async fn connections(&self, listener: &TcpListener) {
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                accepted = listener.accept(), if open.len() < MOST_CONNECTIONS => {
                    match accepted {
                        Ok((stream, _)) => open.push(self.connection(stream)),
                        Err(error) => {
                            tracing::warn!(%error, "names over TCP");
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                }
                Some(()) = open.next() => {}
            }
        }
    }

    /// One question after the other, until the client goes or is silent.
    async fn connection(&self, mut stream: TcpStream) {
        loop {
            let query = tokio::time::timeout(IDLE, upstream::read(&mut stream)).await;
            let Ok(Ok(query)) = query else {
                return;
            };
            let answer = match self.step(&query, false) {
                Step::Answer(answer) => answer,
                Step::Forward { limit } => self.forward(&query, limit, false).await,
                Step::Ignore => return,
            };
            let written = tokio::time::timeout(IDLE, upstream::write(&mut stream, &answer)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
    }

    fn step(&self, query: &[u8], datagram: bool) -> Step {
        self.statistics.asked();
        let names = self.current.names();
        answer(query, names.as_deref(), datagram, self.rng.word())
    }

    async fn forward(&self, query: &[u8], limit: usize, datagram: bool) -> Vec<u8> {
        self.statistics.forwarded();
        let started = Instant::now();
        let [.., high, low] = self.rng.word().to_be_bytes();
        let said = upstream::ask(&self.servers, query, [high, low], limit, datagram).await;
        self.statistics.took(started.elapsed());
        said.unwrap_or_else(|| {
            self.statistics.failed();
            wire::server_failure(query)
        })
    }
}

/// Whoever does not take an answer asks again.
async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%error, %client, "names over UDP");
    }
}

// === impl Current ===

impl Current {
    /// The newest table, made when it is first asked for.
    fn names(&self) -> Option<Arc<Names>> {
        let version = self.tables.version();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if made.0 != version || made.1.is_none() {
            let table = self.tables.load();
            let names = (*table).as_ref();
            *made = (
                version,
                names.map(|table| Arc::new(Names::new(table, &self.place))),
            );
        }
        made.1.clone()
    }
}
