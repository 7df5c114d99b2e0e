//! Whole connections through a proxy on loopback: bytes, TLS, the PROXY protocol, interception.

#[path = "support/mod.rs"]
mod support;

use mesh_client::proxy_protocol::encode;
use mesh_core::Publisher;
use mesh_core::model::{
    AcceptProxyProtocol, Address, ClientTls, Cluster, EndpointSet, FilterChain, HttpManager,
    Inspector, Listener, ProxyProtocol, RouteTable, Rule, Secret, SecretRef, ServerTls, Snapshot,
    SnapshotBuilder, TcpProxy, TcpTarget, Tunnel, VirtualHost,
};
use mesh_proxy::{Proxy, Running};
use socket2::SockRef;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use support::{Http1, free_address, get, named, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A proxy with these listeners, and a cluster for each name.
struct Town {
    publisher: Publisher<Snapshot>,
    proxy: Running,
}

// === impl Town ===

impl Town {
    async fn start(listeners: Vec<Listener>, clusters: &[(&str, SocketAddr)]) -> Self {
        let publisher = Publisher::from_arc(snapshot(None, listeners, clusters));
        let proxy = Proxy::builder(publisher.feed())
            .concurrency(2)
            .admin(Some(SocketAddr::from(([127, 0, 0, 1], 0))))
            .drain_time(Duration::from_millis(200))
            .start()
            .await
            .unwrap();
        let listening = proxy.ready().await;
        assert!(listening.failed.is_empty(), "{listening:?}");
        Self { publisher, proxy }
    }

    async fn change(&self, listeners: Vec<Listener>, clusters: &[(&str, SocketAddr)]) {
        let previous = self.publisher.load();
        let next = snapshot(Some(&previous), listeners, clusters);
        let version = next.version();
        self.publisher.publish(next);
        let mut listening = self.proxy.listening();
        while listening.load().version < version {
            listening.changed().await.unwrap();
        }
    }

    /// The value of a statistic.
    async fn stat(&self, name: &str) -> u64 {
        let mut client = Http1::connect(self.proxy.admin().unwrap()).await;
        let stats = text(client.send(get("/stats")).await).await;
        let prefix = format!("{name}: ");
        let line = stats.lines().find_map(|line| line.strip_prefix(&*prefix));
        line.unwrap_or_else(|| panic!("no {name} in\n{stats}"))
            .parse()
            .unwrap()
    }

    /// Waits until a statistic has a value.
    async fn until(&self, name: &str, value: u64) {
        let look = async {
            while self.stat(name).await != value {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), look)
            .await
            .is_err()
        {
            panic!("{name} is {}, not {value}", self.stat(name).await);
        }
    }
}

fn snapshot(
    previous: Option<&Arc<Snapshot>>,
    listeners: Vec<Listener>,
    clusters: &[(&str, SocketAddr)],
) -> Arc<Snapshot> {
    let mut builder = previous.map_or_else(SnapshotBuilder::new, SnapshotBuilder::from);
    for listener in listeners {
        builder.listener(listener);
    }
    let host = VirtualHost::new("all", ["*"]).rule(Rule::prefix_to("/", "web"));
    builder.routes(RouteTable::new("t").host(host));
    for (name, backend) in clusters {
        builder.cluster(Cluster::new(*name));
        builder.endpoints(*name, EndpointSet::of([Address::from(*backend)]));
    }
    let made = rcgen::generate_simple_self_signed(["a.com".to_owned()]).unwrap();
    let secret = Secret::certificate(made.cert.pem(), made.signing_key.serialize_pem());
    builder.secret(SecretRef::local("cert"), Some(Arc::new(secret)));
    builder.build().unwrap().0
}

/// A backend that says its name, then sends back what it gets.
async fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                write.write_all(name.as_bytes()).await?;
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });
    address
}

/// Says something, then that that was all, and reads the whole answer.
async fn ask(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn stat_of(address: SocketAddr) -> String {
    format!("listener.{}", address.to_string().replace(':', "_"))
}

#[tokio::test]
async fn bytes_pass_both_ways_and_are_counted() {
    let address = free_address();
    let backend = echo("a:").await;
    let listener = Listener::tcp("in", address, TcpProxy::to("db", "a"));
    let town = Town::start(vec![listener], &[("a", backend)]).await;
    assert_eq!(ask(address, b"hello").await, "a:hello");
    town.until("tcp.db.downstream_cx_rx_bytes_total", 5).await;
    assert_eq!(town.stat("tcp.db.downstream_cx_tx_bytes_total").await, 7);
    assert_eq!(town.stat("tcp.db.downstream_cx_total").await, 1);
    let listener = stat_of(address);
    town.until(&format!("{listener}.downstream_cx_active"), 0)
        .await;
    assert_eq!(
        town.stat(&format!("{listener}.downstream_cx_total")).await,
        1
    );
    assert_eq!(town.stat("cluster.a.upstream_cx_active").await, 0);
    assert_eq!(town.stat("cluster.a.upstream_cx_total").await, 1);
}

#[tokio::test]
async fn a_large_stream_arrives_whole_while_the_other_side_sends_as_much() {
    let address = free_address();
    let backend = echo("").await;
    let listener = Listener::tcp("in", address, TcpProxy::to("db", "a"));
    let _town = Town::start(vec![listener], &[("a", backend)]).await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.into_split();
    let sent: Vec<u8> = (0..16_u32 << 20).map(|n| ((n * 31) >> 3) as u8).collect();
    let copy = sent.clone();
    let writing = tokio::spawn(async move {
        write.write_all(&copy).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut seen = Vec::with_capacity(sent.len());
    read.read_to_end(&mut seen).await.unwrap();
    writing.await.unwrap();
    assert!(seen == sent, "{} of {} bytes", seen.len(), sent.len());
}

#[tokio::test]
async fn a_reset_passes_through_in_both_directions() {
    let address = free_address();
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = Listener::tcp("in", address, TcpProxy::to("db", "a"));
    let town = Town::start(vec![listener], &[("a", backend.local_addr().unwrap())]).await;
    for caller_resets in [true, false] {
        let mut caller = TcpStream::connect(address).await.unwrap();
        let (mut server, _) = backend.accept().await.unwrap();
        caller.write_all(b"x").await.unwrap();
        server.read_exact(&mut [0]).await.unwrap();
        let (resets, mut other) = if caller_resets {
            (caller, server)
        } else {
            (server, caller)
        };
        SockRef::from(&resets)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(resets);
        let error = other.read(&mut [0; 8]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    town.until("cluster.a.upstream_cx_active", 0).await;
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_closes_the_connection() {
    let address = free_address();
    let mut proxy = TcpProxy::to("db", "a");
    proxy.max_connect_attempts = 3;
    let listener = Listener::tcp("in", address, proxy);
    let town = Town::start(vec![listener], &[("a", free_address())]).await;
    assert_eq!(ask(address, b"").await, "");
    town.until("cluster.a.upstream_cx_connect_fail", 3).await;
    town.until(&format!("{}.downstream_cx_active", stat_of(address)), 0)
        .await;
}

#[tokio::test]
async fn the_proxy_protocol_hands_a_connection_to_the_listener_it_was_meant_for() {
    let address = free_address();
    let (a, b, web) = (echo("a:").await, echo("b:").await, named("web").await);
    let mut first = Listener::tcp("first", address, TcpProxy::to("rest", "a"));
    first.inspect.proxy_protocol = Some(AcceptProxyProtocol::default());
    first.hand_off = true;
    // Addresses that are not ours (RFC 5737).
    let unbound = |name: &str, address: &str| {
        let mut listener = Listener::new(name, address.parse().unwrap());
        listener.bind = false;
        listener
    };
    let exact = unbound("exact", "203.0.113.1:80");
    let exact = exact.chain(FilterChain::tcp(TcpProxy::to("exact", "b")));
    let wildcard = unbound("wildcard", "0.0.0.0:8080");
    let wildcard = wildcard.chain(FilterChain::http(HttpManager::new("web", "t")));
    let town = Town::start(
        vec![first, exact, wildcard],
        &[("a", a), ("b", b), ("web", web)],
    )
    .await;
    let source = "198.51.100.1:1000".parse().unwrap();
    let to = |destination: &str, bytes: &str| {
        let header = encode(ProxyProtocol::V2, source, destination.parse().unwrap());
        [&header, bytes.as_bytes()].concat()
    };
    assert_eq!(ask(address, &to("203.0.113.1:80", "x")).await, "b:x");
    assert_eq!(ask(address, &to("203.0.113.1:81", "x")).await, "a:x");
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(&to("203.0.113.7:8080", request))
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("web"),
        "{answer}"
    );
    let exact = "listener.203.0.113.1_80.downstream_cx_total";
    assert_eq!(town.stat(exact).await, 1);
}

fn server_tls() -> Arc<ServerTls> {
    let mut tls = ServerTls::default();
    tls.certificates = vec![SecretRef::local("cert")];
    tls.alpn = vec!["http/1.1".into()];
    Arc::new(tls)
}

/// Speaks TLS and says something; the answer up to the end.
async fn ask_securely(address: SocketAddr, server_name: &str, bytes: &[u8]) -> String {
    let mut tls = ClientTls::default();
    tls.sni = server_name.into();
    let connector = mesh_identity::Connector::new(Arc::new(tls), |_| None).unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut stream, _) = connector.connect(stream, None).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_gateway_ends_tls_or_passes_it_on_by_server_name() {
    let (inner, outer) = (free_address(), free_address());
    let (backend, web) = (echo("db:").await, named("web").await);
    // The second listener stands for a backend that speaks TLS itself.
    let mut ends = FilterChain::tcp(TcpProxy::to("ends", "db"));
    ends.tls = Some(server_tls());
    let inner_listener = Listener::new("inner", inner).chain(ends);
    let mut passes = FilterChain::tcp(TcpProxy::new(
        "passes",
        TcpTarget::ServerName("none".into()),
    ));
    passes.matches.server_names = vec!["*.passed.com".into()];
    let mut https = FilterChain::http(HttpManager::new("web", "t"));
    https.matches.server_names = vec!["a.com".into()];
    https.tls = Some(server_tls());
    let mut listener = Listener::new("outer", outer).chain(passes).chain(https);
    listener.inspect.tls = Some(Inspector::default());
    let town = Town::start(
        vec![inner_listener, listener],
        &[("db", backend), ("x.passed.com", inner), ("web", web)],
    )
    .await;
    assert_eq!(ask_securely(outer, "x.passed.com", b"hi").await, "db:hi");
    let stat = |address, name: &str| format!("{}.ssl.{name}", stat_of(address));
    town.until(&stat(inner, "handshake"), 1).await;
    for agreed in ["versions.TLSv1.3", "curves.X25519MLKEM768"] {
        assert_eq!(town.stat(&stat(inner, agreed)).await, 1, "{agreed}");
    }
    assert_eq!(town.stat("tcp.passes.downstream_cx_total").await, 1);

    let mut tls = ClientTls::default();
    tls.sni = "a.com".into();
    let connector = mesh_identity::Connector::new(Arc::new(tls), |_| None).unwrap();
    let stream = TcpStream::connect(outer).await.unwrap();
    let (mut stream, _) = connector.connect(stream, None).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: a.com\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("web"), "{answer}");
    assert_eq!(town.stat(&stat(outer, "handshake")).await, 1);
    // Plain text, and a name that nobody has.
    assert_eq!(ask(outer, b"GET / HTTP/1.1\r\n\r\n").await, "");
    town.until(&format!("{}.no_filter_chain_match", stat_of(outer)), 1)
        .await;
}

#[tokio::test]
async fn a_changed_chain_drains_and_the_others_go_on() {
    let address = free_address();
    let (a, b) = (echo("a").await, echo("b").await);
    let listener = |to_80: &str| {
        let chain = |port: u16, cluster: &str| {
            let mut chain = FilterChain::tcp(TcpProxy::to("p", cluster));
            chain.matches.destination_port = Some(port);
            chain
        };
        let mut listener = Listener::new("in", address)
            .chain(chain(80, to_80))
            .chain(chain(81, "a"));
        listener.inspect.proxy_protocol = Some(AcceptProxyProtocol::default());
        listener
    };
    let clusters = [("a", a), ("b", b)];
    let town = Town::start(vec![listener("a")], &clusters).await;
    let open = async |port: u16| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let source = "198.51.100.1:1000".parse().unwrap();
        let destination = SocketAddr::from(([203, 0, 113, 1], port));
        let header = encode(ProxyProtocol::V1, source, destination);
        stream.write_all(&header).await.unwrap();
        let mut name = [0];
        stream.read_exact(&mut name).await.unwrap();
        (stream, name[0])
    };
    let ((mut changes, first), (mut stays, second)) = (open(80).await, open(81).await);
    assert_eq!((first, second), (b'a', b'a'));
    town.change(vec![listener("b")], &clusters).await;
    // New connections go by the new chain at once, old ones end after the drain time.
    while open(80).await.1 != b'b' {}
    assert_eq!(changes.read(&mut [0; 8]).await.unwrap(), 0);
    stays.write_all(b"x").await.unwrap();
    stays.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test]
async fn bytes_pass_through_a_tunnel() {
    let address = free_address();
    // An HTTP proxy that connects nobody but talks to itself.
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = proxy.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = proxy.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
        write.shutdown().await.unwrap();
        String::from_utf8(head).unwrap()
    });
    let mut settings = TcpProxy::to("db", "a");
    settings.tunnel = Some(Tunnel {
        target: "far.example.com:443".into(),
        post: false,
    });
    let listener = Listener::tcp("in", address, settings);
    let town = Town::start(vec![listener], &[("a", endpoint)]).await;
    assert_eq!(ask(address, b"hello").await, "hello");
    let head = asked.await.unwrap();
    assert!(
        head.starts_with("CONNECT far.example.com:443 HTTP/1.1\r\n"),
        "{head}"
    );
    town.until("cluster.a.upstream_cx_active", 0).await;
}

#[tokio::test]
async fn a_thousand_bad_connections_leave_nothing_behind() {
    let address = free_address();
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = backend.local_addr().unwrap();
    // Never reads, and keeps what it accepted.
    let accepting = tokio::spawn(async move {
        let mut accepted = Vec::new();
        loop {
            accepted.push(backend.accept().await.unwrap());
        }
    });
    let mut proxy = TcpProxy::to("db", "a");
    proxy.idle_timeout = Some(Duration::from_secs(2));
    let listener = Listener::tcp("in", address, proxy);
    let town = Town::start(vec![listener], &[("a", endpoint)]).await;
    let tasks = town.stat("server.tasks").await;
    assert!(tasks > 0, "of each listener there is one");
    let mut kept = Vec::new();
    for n in 0..1000 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        match n % 4 {
            // Half-open.
            0 => stream.shutdown().await.unwrap(),
            // Sends more than anybody reads.
            1 => {
                let _ = stream.try_write(&[7; 256 << 10]);
            }
            2 => {
                let _ = stream.try_write(b"lost");
                SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
                continue;
            }
            // Says nothing.
            _ => {}
        }
        kept.push(stream);
    }
    let listener = stat_of(address);
    town.until(&format!("{listener}.downstream_cx_active"), 0)
        .await;
    for gauge in [
        "cluster.a.upstream_cx_active",
        "cluster.a.upstream_rq_active",
        "cluster.a.upstream_rq_pending_active",
        "tcp.db.downstream_cx_rx_bytes_buffered",
        "tcp.db.downstream_cx_tx_bytes_buffered",
    ] {
        assert_eq!(town.stat(gauge).await, 0, "{gauge}");
    }
    let (total, destroyed) = (
        town.stat(&format!("{listener}.downstream_cx_total")).await,
        town.stat(&format!("{listener}.downstream_cx_destroy"))
            .await,
    );
    assert_eq!((total, destroyed), (1000, 1000));
    town.until("server.tasks", tasks).await;
    accepting.abort();
}
