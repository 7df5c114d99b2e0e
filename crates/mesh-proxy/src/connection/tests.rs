//! Connections over in-memory pipes and paused time, with a stack that tells who called.

use super::*;
use crate::http::stack;
use crate::listener::{Plans, Statistics};
use crate::origin::pipe::Pipe;
use crate::tcp::{Buffers, Forwarder};
use http::{Request, Response};
use mesh_client::tcp::TcpUpstreams;
use mesh_client::{Body, Boxed, Parts, Slot, Upstreams};
use mesh_core::model::{
    AcceptProxyProtocol, FilterChain, HttpManager, Inspector, Listener, PortRange, RouteTable,
    Secret, SecretRef, ServerTls, Snapshot, SnapshotBuilder, TcpProxy, TransportProtocol,
    WorkloadRef,
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
        let site = Site {
            shard: Shard::default(),
            listeners: Listeners::default(),
            stack: stack::build(parts, telemetry.clone(), u32::MAX, None),
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
                self.site.clone(),
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
    let any = size_of_val(&serve(pipe, peer, local, state, world.site));
    assert!(plain <= 4608, "a plain connection is {plain} bytes");
    assert!(any <= 3328, "another connection is {any} bytes");
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

#[tokio::test(start_paused = true)]
async fn what_is_spoken_in_plain_text_chooses_the_chain() {
    let mut listener = listener()
        .chain(speaking(http("one"), &["http/1.0", "http/1.1"]))
        .chain(speaking(bytes("two"), &["h2c"]))
        .chain(bytes("other"));
    listener.inspect.http = Some(Inspector::default());
    let world = World::new();
    let state = world.listen(listener);
    let said = world.call(&state).says(GET).await;
    assert!(said.starts_with("one "), "{said}");
    world
        .call(&state)
        .says("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await;
    assert_eq!(world.passed_on("two"), 1);
    world.call(&state).says("\x16\x03hello").await;
    assert_eq!(world.passed_on("other"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_line_without_an_end_is_none() {
    let mut listener = listener()
        .chain(speaking(http("http"), &["http/1.1"]))
        .chain(bytes("other"));
    listener.inspect.http = Some(Inspector::default());
    let world = World::new();
    let state = world.listen(listener);
    world.call(&state).says("x".repeat(64 << 10)).await;
    assert_eq!(world.passed_on("other"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_server_name_chooses_the_chain() {
    let named = |name: &str| {
        let mut chain = bytes(name);
        chain.matches.server_names = vec![name.into()];
        chain
    };
    let mut plain = http("plain");
    plain.matches.transport = Some(TransportProtocol::Plain);
    let mut listener = listener()
        .chain(named("a.com"))
        .chain(named("*.b.com"))
        .chain(plain);
    listener.inspect.tls = Some(Inspector::default());
    let world = World::new();
    let state = world.listen(listener);
    for (server_name, chain) in [("a.com", "a.com"), ("x.b.com", "*.b.com")] {
        let hello = hello(server_name).await;
        // However it arrives.
        let mut call = world.call(&state);
        for byte in &hello {
            call.io.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        call.rest().await;
        assert_eq!(world.passed_on(chain), 1, "{server_name}");
    }
    world.call(&state).says(hello("c.com").await).await;
    assert_eq!(world.stat(ListenerStat::NoFilterChainMatch), 1);
    let said = world.call(&state).says(GET).await;
    assert!(said.starts_with("plain "), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_excepted_is_not_looked_at() {
    let mut listener = listener()
        .chain(speaking(bytes("http"), &["http/1.1"]))
        .chain(bytes("other"));
    listener.inspect.original_destination = true;
    listener.inspect.http = Some(Inspector {
        except: vec![PortRange::single(7000)],
    });
    let world = World::new();
    let state = world.listen(listener);
    // A caller that waits for the server to speak first would wait for ever otherwise.
    world
        .intercepted(&state, Some("10.1.1.1:7000"))
        .rest()
        .await;
    assert_eq!(world.passed_on("other"), 1);
    world
        .intercepted(&state, Some("10.1.1.1:7001"))
        .says(GET)
        .await;
    assert_eq!(world.passed_on("http"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_says_too_little_is_closed_in_time() {
    let mut listener = listener().chain(bytes("all"));
    listener.inspect.tls = Some(Inspector::default());
    listener.inspect.timeout = Some(3 * SECOND);
    let world = World::new();
    let state = world.listen(listener);
    let began = Instant::now();
    let call = world.call(&state);
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.stat(ListenerStat::PreCxActive), 1);
    call.rest().await;
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(world.stat(ListenerStat::PreCxTimeout), 1);
    assert_eq!(world.stat(ListenerStat::PreCxActive), 0);
    assert_eq!(world.passed_on("all"), 0);
}

#[tokio::test(start_paused = true)]
async fn after_the_timeout_a_connection_goes_on_with_what_is_known() {
    let mut listener = listener()
        .chain(http("all"))
        .chain(speaking(bytes("h1"), &["http/1.1"]));
    listener.inspect.http = Some(Inspector::default());
    listener.inspect.timeout = Some(3 * SECOND);
    listener.inspect.continue_on_timeout = true;
    let world = World::new();
    let state = world.listen(listener);
    let (first, rest) = GET.split_at(10);
    let mut call = world.call(&state);
    call.io.write_all(first.as_bytes()).await.unwrap();
    tokio::time::sleep(4 * SECOND).await;
    // The first bytes are not lost.
    let said = call.says(rest).await;
    assert!(said.starts_with("all "), "{said}");
    assert_eq!(world.stat(ListenerStat::PreCxTimeout), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_while_it_is_looked_at_is_gone() {
    let mut listener = listener().chain(bytes("all"));
    listener.inspect.tls = Some(Inspector::default());
    listener.inspect.timeout = None;
    let world = World::new();
    let state = world.listen(listener);
    let Call { io, task } = world.call(&state);
    drop(io);
    task.await.unwrap();
    assert_eq!(world.passed_on("all"), 0);
    assert_eq!(world.stat(ListenerStat::PreCxActive), 0);
}

/// A world with one certificate, and a chain that shows it.
fn secured(mut chain: FilterChain) -> (World, Arc<ListenerState>) {
    let made = rcgen::generate_simple_self_signed(["a.com".to_owned()]).unwrap();
    let secret = Secret::certificate(made.cert.pem(), made.signing_key.serialize_pem());
    let mut tls = ServerTls::default();
    tls.certificates = vec![SecretRef::local("cert")];
    tls.alpn = vec!["h2".into(), "http/1.1".into()];
    chain.tls = Some(Arc::new(tls));
    chain.handshake_timeout = Some(3 * SECOND);
    let listener = listener().chain(chain);
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("t"));
    builder.listener(listener.clone());
    builder.secret(SecretRef::local("cert"), Some(Arc::new(secret)));
    let world = World::with(builder.build().unwrap().0);
    let state = world.listen(listener);
    (world, state)
}

async fn tls_to(
    call: Call,
    alpn: &str,
) -> (mesh_identity::TlsStream<DuplexStream>, JoinHandle<()>) {
    let mut tls = mesh_core::model::ClientTls::default();
    tls.sni = "a.com".into();
    tls.alpn = vec![alpn.into()];
    let connector = mesh_identity::Connector::new(Arc::new(tls), |_| None).unwrap();
    let (stream, told) = connector.connect(call.io, None).await.unwrap();
    assert_eq!(&*told.alpn, alpn);
    (stream, call.task)
}

#[tokio::test]
async fn tls_ends_here_and_http_is_spoken_inside() {
    let (world, state) = secured(http("tls"));
    let (mut stream, task) = tls_to(world.call(&state), "http/1.1").await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("\r\n\r\ntls 10.0.0.1:1000 to"), "{answer}");
    task.await.unwrap();
    assert_eq!(world.stat(ListenerStat::SslHandshake), 1);
    assert_eq!(world.stat(ListenerStat::SslNoCertificate), 1);

    let (stream, task) = tls_to(world.call(&state), "h2").await;
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io)
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let request = Request::get("https://a.com/").body(String::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    drop((response, sender));
    driver.await.unwrap().unwrap();
    task.await.unwrap();
    assert_eq!(world.stat(ListenerStat::CxActive), 0);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_fails_or_takes_too_long_is_counted() {
    let (world, state) = secured(bytes("tls"));
    world.call(&state).says(GET).await;
    assert_eq!(world.stat(ListenerStat::SslConnectionError), 1);
    let began = Instant::now();
    world.call(&state).rest().await;
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(world.stat(ListenerStat::CxTransportConnectTimeout), 1);
    assert_eq!(world.stat(ListenerStat::SslHandshake), 0);
    assert_eq!(world.stat(ListenerStat::CxActive), 0);
    assert_eq!(world.passed_on("tls"), 0);
}
