//! Connections over in-memory pipes and paused time, with a stack that tells who called.

mod inspected;
mod tls;

use super::*;
use crate::Limits;
use crate::guard::Guard;
use crate::http::stack;
use crate::listener::{Plans, Statistics};
use crate::origin::pipe::Pipe;
use crate::tcp::{Buffers, Forwarder};
use http::{Request, Response};
use mesh_client::tcp::TcpUpstreams;
use mesh_client::{Authorizers, Body, Boxed, Parts, Slot, Upstreams};
use mesh_core::model::{
    AcceptProxyProtocol, FilterChain, HttpManager, Inspector, Listener, Overload, PortRange,
    RouteTable, Secret, SecretRef, ServerTls, Snapshot, SnapshotBuilder, TcpProxy,
    TransportProtocol, WorkloadRef,
};
use mesh_core::stats::{Block, TcpStat};
use mesh_core::{Error, Exchange, Publisher, Rng};
use mesh_telemetry::Telemetry;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;

const SECOND: Duration = Duration::from_secs(1);
const PEER: &str = "10.0.0.1:1000";
const HERE: &str = "10.0.0.9:15006";
const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

struct World {
    statistics: Statistics,
    plans: Plans,
    snapshot: Arc<Snapshot>,
    site: Site,
}

struct Call {
    io: DuplexStream,
    task: JoinHandle<()>,
}

// === impl World ===

impl World {
    fn new() -> Self {
        let mut builder = SnapshotBuilder::new();
        builder.routes(RouteTable::new("t"));
        Self::with(builder.build().unwrap().0)
    }

    fn with(snapshot: Arc<Snapshot>) -> Self {
        let feed = Publisher::from_arc(snapshot.clone()).feed();
        let upstreams = Upstreams::new(Shard::default());
        let rng = Arc::new(Rng::with_seed(1));
        let mut parts = Parts::new(feed.clone(), upstreams.clone(), rng.clone());
        parts.before_route = Slot::new(tower_layer::layer_fn(|_: Boxed| {
            tower::service_fn(|request: Request<Body>| async move {
                let exchange = Exchange::of(&request).unwrap();
                let answer = Response::new(Body::from(bytes::Bytes::from(told(exchange.caller()))));
                Ok::<_, Error>(answer)
            })
        }));
        let telemetry = Arc::new(Telemetry::new(WorkloadRef::default()));
        let statistics = Statistics::default();
        let guard = Guard::new(Limits::default(), Overload::default(), Rng::with_seed(1));
        let site = Site {
            shard: Shard::default(),
            listeners: Listeners::default(),
            stack: stack::build(parts, telemetry.clone(), (u32::MAX, guard.shedding()), None),
            guard,
            buffers: mesh_http1::Buffers::default(),
            authorizers: Authorizers::new(feed.clone(), upstreams.clone()),
            tcp: Forwarder {
                demand: None,
                feed,
                upstreams: TcpUpstreams::new(upstreams),
                telemetry,
                rng,
                buffers: Buffers::default(),
                drain_time: SECOND,
            },
            tasks: TaskTracker::new(),
        };
        Self {
            plans: Plans::new(statistics.clone()),
            statistics,
            snapshot,
            site,
        }
    }

    /// Puts a listener in service.
    fn listen(&self, listener: Listener) -> Arc<ListenerState> {
        let (listener, address) = (Arc::new(listener.clone()), listener.address);
        let plan = self.plans.of(&listener, &address, &self.snapshot);
        let state = Arc::new(ListenerState::new(plan, address));
        self.site.listeners.add(state.clone());
        state
    }

    fn call(&self, listener: &Arc<ListenerState>) -> Call {
        self.intercepted(listener, None)
    }

    /// A connection that was going elsewhere.
    fn intercepted(&self, listener: &Arc<ListenerState>, original: Option<&str>) -> Call {
        let original = original.map(|original| original.parse().unwrap());
        let (pipe, io) = Pipe::intercepted(64 << 10, original);
        let (peer, local) = (PEER.parse().unwrap(), HERE.parse().unwrap());
        let task = match serve_plain(pipe, peer, local, listener, &self.site) {
            Ok(serving) => tokio::spawn(serving),
            Err(pipe) => tokio::spawn(serve(
                pipe,
                peer,
                local,
                listener.clone(),
                Arc::new(self.site.clone()),
            )),
        };
        Call { io, task }
    }

    /// What is counted for the listener at an address.
    fn stats(&self, address: &str) -> Arc<Block<ListenerStat>> {
        let address: SocketAddr = address.parse().unwrap();
        self.statistics.listener(&address.into())
    }

    fn stat(&self, stat: ListenerStat) -> u64 {
        self.stats(HERE).get(stat)
    }

    /// How many connections a TCP chain got. Its cluster does not exist.
    fn passed_on(&self, prefix: &str) -> u64 {
        self.statistics
            .tcp
            .block(&prefix.into())
            .get(TcpStat::CxNoRoute)
    }
}

// === impl Call ===

impl Call {
    /// Sends bytes and reads until the end. Empty where there was no answer.
    async fn says(mut self, bytes: impl AsRef<[u8]>) -> String {
        self.io.write_all(bytes.as_ref()).await.unwrap();
        self.rest().await
    }

    async fn rest(mut self) -> String {
        let mut answer = String::new();
        // A connection that is closed in the middle has no answer either.
        let _ = self.io.read_to_string(&mut answer).await;
        self.task.await.unwrap();
        answer
            .split("\r\n\r\n")
            .nth(1)
            .unwrap_or_default()
            .to_owned()
    }
}

/// Who called, in one line.
fn told(caller: &Caller) -> String {
    let show = |address: Option<SocketAddr>| address.map_or_else(|| "-".into(), |a| a.to_string());
    format!(
        "{} {} to {} original {} direct {}",
        caller.chain,
        show(caller.peer),
        show(caller.local),
        show(caller.original),
        show(caller.direct),
    )
}

fn listener() -> Listener {
    Listener::new("in", HERE.parse().unwrap())
}

/// A chain for HTTP that has a name.
fn http(name: &str) -> FilterChain {
    let mut chain = FilterChain::http(HttpManager::new("in", "t"));
    chain.name = name.into();
    chain
}

/// A chain for bytes that leads nowhere.
fn bytes(name: &str) -> FilterChain {
    let mut chain = FilterChain::tcp(TcpProxy::to(name, "nowhere"));
    chain.name = name.into();
    chain
}

fn speaking(mut chain: FilterChain, protocols: &[&str]) -> FilterChain {
    chain.matches.protocols = protocols.iter().map(|name| Name::from(*name)).collect();
    chain
}

/// A `ClientHello` for a server name.
async fn hello(server_name: &str) -> Vec<u8> {
    let mut tls = mesh_core::model::ClientTls::default();
    tls.sni = server_name.into();
    let connector = mesh_identity::Connector::new(Arc::new(tls), |_| None).unwrap();
    let (ours, mut theirs) = tokio::io::duplex(64 << 10);
    let connecting = tokio::spawn(async move { connector.connect(ours, None).await.map(drop) });
    let mut hello = vec![0; 5];
    theirs.read_exact(&mut hello).await.unwrap();
    let length = u16::from_be_bytes([hello[3], hello[4]]);
    let mut body = vec![0; length.into()];
    theirs.read_exact(&mut body).await.unwrap();
    connecting.abort();
    [hello, body].concat()
}

#[tokio::test]
async fn the_futures_of_connections_are_small() {
    let world = World::new();
    let state = world.listen(listener().chain(http("only")));
    let (peer, local) = (PEER.parse().unwrap(), HERE.parse().unwrap());
    let (pipe, _io) = Pipe::new(1);
    let plain = size_of_val(&serve_plain(pipe, peer, local, &state, &world.site).ok());
    let (pipe, _io) = Pipe::new(1);
    let any = size_of_val(&serve(pipe, peer, local, state, Arc::new(world.site)));
    assert!(plain <= 2304, "a plain connection is {plain} bytes");
    assert!(any <= 320, "another connection is {any} bytes");
}

#[tokio::test(start_paused = true)]
async fn the_one_chain_of_a_plain_listener_gets_everything() {
    let world = World::new();
    let state = world.listen(listener().chain(http("only")));
    let said = world.call(&state).says(GET).await;
    assert_eq!(said, format!("only {PEER} to {HERE} original - direct -"));
    assert_eq!(world.stat(ListenerStat::CxTotal), 1);
    assert_eq!(world.stat(ListenerStat::CxDestroy), 1);
    assert_eq!(world.stat(ListenerStat::CxActive), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_chain_is_closed_counted_and_logged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let mut listener = listener();
    listener.access_log = vec![mesh_core::model::AccessLog {
        path: path.to_str().unwrap().into(),
        format: "%RESPONSE_FLAGS% %DOWNSTREAM_REMOTE_ADDRESS%\n".into(),
    }];
    let world = World::new();
    let state = world.listen(listener);
    assert_eq!(world.call(&state).rest().await, "");
    assert_eq!(world.stat(ListenerStat::NoFilterChainMatch), 1);
    assert_eq!(world.stat(ListenerStat::CxTotal), 0);
    world.site.tcp.telemetry.flush().unwrap();
    assert_eq!(
        std::fs::read_to_string(path).unwrap(),
        format!("NR {PEER}\n")
    );
}

#[tokio::test(start_paused = true)]
async fn an_open_connection_does_not_keep_a_plan_that_was_replaced() {
    for plain in [true, false] {
        let mut listener = listener().chain(http("only"));
        listener.inspect.original_destination = !plain;
        let world = World::new();
        let state = world.listen(listener.clone());
        let plan = Arc::downgrade(state.current().plan());
        let mut call = world.call(&state);
        call.io.write_all(b"GET").await.unwrap();
        tokio::time::sleep(SECOND).await;
        listener.access_log = vec![mesh_core::model::AccessLog {
            path: "-".into(),
            format: "".into(),
        }];
        let new = world
            .plans
            .of(&Arc::new(listener), state.address(), &world.snapshot);
        state.update(new);
        assert!(plan.upgrade().is_none());
        // The chain is the same, so it goes on.
        assert!(!call.says(&GET[3..]).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn the_proxy_protocol_says_who_calls_and_where_to() {
    let mut listener = listener().chain(http("all"));
    let mut to_80 = http("to-80");
    to_80.matches.destination_port = Some(80);
    to_80.matches.sources = vec!["1.2.3.0/24".parse().unwrap()];
    listener = listener.chain(to_80);
    listener.inspect.proxy_protocol = Some(AcceptProxyProtocol::default());
    let world = World::new();
    let state = world.listen(listener);
    let header = "PROXY TCP4 1.2.3.4 5.6.7.8 5 80\r\n";
    let said = world.call(&state).says(format!("{header}{GET}")).await;
    let expected = format!("to-80 1.2.3.4:5 to 5.6.7.8:80 original 5.6.7.8:80 direct {PEER}");
    assert_eq!(said, expected);
    // Nobody in particular: the connection's own addresses hold.
    let said = world
        .call(&state)
        .says(format!("PROXY UNKNOWN\r\n{GET}"))
        .await;
    assert_eq!(said, format!("all {PEER} to {HERE} original - direct -"));
}

#[tokio::test(start_paused = true)]
async fn what_the_proxy_protocol_does_not_allow_is_closed() {
    let mut listener = listener().chain(http("all"));
    listener.inspect.proxy_protocol = Some(AcceptProxyProtocol { optional: false });
    let world = World::new();
    let strict = world.listen(listener.clone());
    listener.inspect.proxy_protocol = Some(AcceptProxyProtocol { optional: true });
    let optional = world.listen(listener);
    for (header, strict_answers, optional_answers) in [
        ("", false, true),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 5 80\r\n", true, true),
        ("PROXY TCP4 1.2.3.4 5.6.7.8 5\r\n", false, false),
        // Nobody's address, as in Envoy.
        ("PROXY TCP4 224.0.0.1 5.6.7.8 5 80\r\n", false, false),
        ("PROXY TCP4 1.2.3.4 0.0.0.0 5 80\r\n", false, false),
    ] {
        let text = format!("{header}{GET}");
        let answers = !world.call(&strict).says(&text).await.is_empty();
        assert_eq!(answers, strict_answers, "{header:?}");
        let answers = !world.call(&optional).says(&text).await.is_empty();
        assert_eq!(answers, optional_answers, "{header:?}");
    }
    assert_eq!(world.stat(ListenerStat::PreCxActive), 0);
}

#[tokio::test(start_paused = true)]
async fn an_intercepted_connection_goes_to_the_listener_of_its_destination() {
    let mut first = listener().chain(bytes("passthrough"));
    first.hand_off = true;
    first.inspect.original_destination = true;
    let at = |name: &str, address: &str| {
        let mut listener = Listener::new(name, address.parse().unwrap()).chain(http(name));
        listener.bind = false;
        // Not a second time.
        listener.hand_off = true;
        listener
    };
    let world = World::new();
    let state = world.listen(first);
    world.listen(at("exact", "10.1.1.1:80"));
    world.listen(at("wildcard", "0.0.0.0:80"));
    world.listen(at("v6", "[::]:80"));
    for (original, expected) in [
        ("10.1.1.1:80", "exact"),
        ("10.2.2.2:80", "wildcard"),
        ("[2001:db8::1]:80", "v6"),
    ] {
        let said = world.intercepted(&state, Some(original)).says(GET).await;
        assert_eq!(
            said,
            format!("{expected} {PEER} to {original} original {original} direct -")
        );
    }
    // What is not told to stand for an address is left to the first.
    world.intercepted(&state, Some("10.1.1.1:81")).rest().await;
    assert_eq!(world.passed_on("passthrough"), 1);
    // So is what was not intercepted.
    world.call(&state).rest().await;
    assert_eq!(world.passed_on("passthrough"), 2);
    // A connection is counted where it ended up.
    assert_eq!(world.stat(ListenerStat::CxTotal), 2);
    let exact = world.stats("10.1.1.1:80");
    assert_eq!(exact.get(ListenerStat::CxTotal), 1);
}

#[tokio::test(start_paused = true)]
async fn the_listener_that_gets_a_connection_finds_out_for_itself() {
    let mut first = listener();
    first.hand_off = true;
    first.inspect.original_destination = true;
    first.inspect.tls = Some(Inspector::default());
    let mut second = Listener::new("second", "0.0.0.0:80".parse().unwrap());
    second.inspect.http = Some(Inspector::default());
    second = second.chain(speaking(http("http"), &["http/1.1"]));
    let world = World::new();
    let state = world.listen(first);
    world.listen(second);
    // What the first has read is still there for the second.
    let said = world
        .intercepted(&state, Some("10.1.1.1:80"))
        .says(GET)
        .await;
    assert!(said.starts_with("http "), "{said}");
}
