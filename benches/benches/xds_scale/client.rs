//! Clients that ask for everything as a sidecar does, acknowledge it, and keep only counts.

use crate::wire::{Reader, acknowledge, subscribe};
use anyhow::{Context as _, bail};
use bytes::Bytes;
use h2::{RecvStream, SendStream};
use mesh_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use mesh_xds::{Node, TypeUrl};
use prost::Message;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;

/// The types, in the order in which a sidecar asks for them: each once it has the one before.
pub(crate) const KINDS: [TypeUrl; 4] = [
    TypeUrl::Cluster,
    TypeUrl::Endpoints,
    TypeUrl::Listener,
    TypeUrl::Routes,
];

/// HTTP/2's windows; a client that is slow holds up the server at this much.
const WINDOW: u32 = 1 << 20;

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// What there is to get, and the requests for it. The same for every client.
#[derive(Debug)]
pub(crate) struct Plan {
    /// How many resources of each type there are.
    pub(crate) count: [usize; 4],
    requests: [Bytes; 4],
}

/// What all clients together have.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// Resources that came, by type.
    resources: [AtomicUsize; 4],
    /// Bytes of responses.
    bytes: AtomicU64,
    /// Clients that have everything.
    synced: AtomicUsize,
    failure: Mutex<Option<String>>,
    moved: Notify,
}

struct Client {
    board: Arc<Board>,
    plan: Arc<Plan>,
    clients: usize,
    count: [usize; 4],
    /// How many types were asked for.
    asked: usize,
    requests: SendStream<Bytes>,
}

// === impl Plan ===

impl Plan {
    /// Asks for everything once, and keeps the names.
    pub(crate) async fn of(address: SocketAddr, node: &Node) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        let first = subscribe(KINDS[0], &[], Some(node));
        let (mut requests, mut responses) = open(address, first, &mut tasks).await?;
        let mut names: [Vec<String>; 4] = Default::default();
        let mut answered = Reader::default();
        for (index, kind) in KINDS.into_iter().enumerate() {
            if index > 0 {
                requests.send_data(subscribe(kind, &[], None), false)?;
            }
            let mut message = Vec::new();
            // Everything of one type, be it in several responses: a clock tells that it is all.
            loop {
                let data = tokio::time::timeout(Duration::from_secs(2), responses.data());
                let Ok(data) = data.await else { break };
                let data = data.context("the server ended the stream")??;
                responses.flow_control().release_capacity(data.len())?;
                let mut rest = &data[..];
                while !rest.is_empty() {
                    let (response, read) = answered.read(rest).map_err(anyhow::Error::msg)?;
                    message.extend_from_slice(&rest[..read]);
                    rest = &rest[read..];
                    if let Some(response) = response {
                        requests.send_data(acknowledge(&response), false)?;
                        let whole = DeltaDiscoveryResponse::decode(&message[5..])?;
                        anyhow::ensure!(whole.resources.len() == response.resources);
                        let at = index_of(&response.url)?;
                        names[at].extend(whole.resources.into_iter().map(|one| one.name));
                        message.clear();
                    }
                }
            }
        }
        let ask = |index: usize| match KINDS[index] {
            TypeUrl::Cluster | TypeUrl::Listener => subscribe(KINDS[index], &[], None),
            kind => subscribe(kind, &names[index], None),
        };
        Ok(Self {
            count: names.each_ref().map(Vec::len),
            requests: std::array::from_fn(ask),
        })
    }
}

// === impl Board ===

impl Board {
    pub(crate) fn resources(&self, kind: TypeUrl) -> usize {
        let at = KINDS.iter().position(|one| *one == kind);
        at.map_or(0, |at| self.resources[at].load(Ordering::Acquire))
    }

    pub(crate) fn total(&self) -> usize {
        KINDS.iter().map(|kind| self.resources(*kind)).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub(crate) fn synced(&self) -> usize {
        self.synced.load(Ordering::Acquire)
    }

    /// Waits for something to be true.
    pub(crate) async fn until(&self, what: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let wait = async {
            loop {
                let moved = self.moved.notified();
                if let Some(failure) = self.failure().clone() {
                    bail!("a client failed: {failure}");
                }
                if what(self) {
                    return Ok(());
                }
                moved.await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.with_context(|| format!("nothing more came: {self:?}"))?
    }

    fn failure(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the clients, of which so many get their first resources at a time.
pub(crate) fn start(
    address: SocketAddr,
    plan: &Arc<Plan>,
    nodes: Vec<Node>,
    at_once: usize,
) -> (Arc<Board>, JoinSet<()>) {
    let board = Arc::<Board>::default();
    let places = Arc::new(Semaphore::new(at_once));
    let mut tasks = JoinSet::new();
    let clients = nodes.len();
    for node in nodes {
        let (board, plan, places) = (board.clone(), plan.clone(), places.clone());
        tasks.spawn(async move {
            let run = run(address, &node, clients, board.clone(), plan, places);
            if let Err(error) = run.await {
                board.failure().get_or_insert_with(|| format!("{error:#}"));
                board.moved.notify_waiters();
            }
        });
    }
    (board, tasks)
}

async fn run(
    address: SocketAddr,
    node: &Node,
    clients: usize,
    board: Arc<Board>,
    plan: Arc<Plan>,
    places: Arc<Semaphore>,
) -> anyhow::Result<()> {
    let mut place = Some(places.acquire().await?);
    let mut tasks = JoinSet::new();
    let first = subscribe(KINDS[0], &[], Some(node));
    let (requests, mut responses) = open(address, first, &mut tasks).await?;
    let mut client = Client {
        board,
        plan,
        clients,
        count: [0; 4],
        asked: 1,
        requests,
    };
    let mut reader = Reader::default();
    loop {
        let data = responses
            .data()
            .await
            .context("the server ended the stream")??;
        responses.flow_control().release_capacity(data.len())?;
        client
            .board
            .bytes
            .fetch_add(data.len() as u64, Ordering::AcqRel);
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (response, read) = reader.read(rest).map_err(anyhow::Error::msg)?;
            rest = &rest[read..];
            let Some(response) = response else { continue };
            if client.take(&response)? {
                // The next client's turn.
                drop(place.take());
            }
        }
    }
}

async fn open(
    address: SocketAddr,
    first: Bytes,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<(SendStream<Bytes>, RecvStream)> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake::<_, Bytes>(stream)
        .await?;
    tasks.spawn(async move {
        // Its end is seen by whoever reads from it.
        let _ = connection.await;
    });
    let request = http::Request::post(format!(
        "http://{address}/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .body(())?;
    let (response, mut requests) = sender.send_request(request, false)?;
    requests.send_data(first, false)?;
    let response = response.await?;
    if let Some(message) = response.headers().get("grpc-message") {
        bail!("refused: {message:?}");
    }
    Ok((requests, response.into_body()))
}

fn index_of(url: &[u8]) -> anyhow::Result<usize> {
    let known = KINDS.iter().position(|kind| kind.url().as_bytes() == url);
    known.with_context(|| format!("a response of type {}", String::from_utf8_lossy(url)))
}

// === impl Client ===

impl Client {
    /// Counts a response and answers it. Returns whether the client has everything now.
    fn take(&mut self, response: &crate::wire::Response) -> anyhow::Result<bool> {
        let at = index_of(&response.url)?;
        anyhow::ensure!(response.removed == 0, "something was removed");
        let was_synced = self.is_synced();
        self.count[at] += response.resources;
        let before = self.board.resources[at].fetch_add(response.resources, Ordering::AcqRel);
        let after = before + response.resources;
        self.requests.send_data(acknowledge(response), false)?;
        if self.asked < KINDS.len() && self.count[self.asked - 1] >= self.plan.count[self.asked - 1]
        {
            let next = self.plan.requests[self.asked].clone();
            self.requests.send_data(next, false)?;
            self.asked += 1;
        }
        let synced = self.is_synced() && !was_synced;
        if synced {
            self.board.synced.fetch_add(1, Ordering::AcqRel);
        }
        // Only who counts all clients has to look, so not at each response.
        if synced || before / self.clients != after / self.clients {
            self.board.moved.notify_waiters();
        }
        Ok(synced)
    }

    fn is_synced(&self) -> bool {
        let mut each = self.count.iter().zip(&self.plan.count);
        each.all(|(have, want)| have >= want)
    }
}
