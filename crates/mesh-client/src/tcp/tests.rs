//! Connections for bytes: in memory where time matters, over loopback where sockets do.

mod tunnels;

use super::*;
use crate::upstream::connect::Connector;
use crate::upstream::tests::pki::{Authority, validation};
use mesh_core::Shard;
use mesh_core::model::{
    Address, Balancing, ClientTls, Cluster, DiscoveryKind, EndpointSet, Outlier, ProxyProtocol,
    SecretRef, SnapshotBuilder, TcpKeepalive, UnixPath,
};
use mesh_lb::ClusterHosts;
use std::io;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream, UnixListener};

type Accepted = Arc<Mutex<Vec<DuplexStream>>>;

fn snapshot(cluster: Cluster, endpoints: Vec<Address>) -> Arc<Snapshot> {
    let mut builder = SnapshotBuilder::new();
    builder.endpoints(cluster.name.clone(), EndpointSet::of(endpoints));
    builder.cluster(cluster);
    builder.build().unwrap().0
}

fn entry(cluster: Cluster, endpoints: Vec<Address>) -> Arc<ClusterEntry> {
    snapshot(cluster, endpoints).clusters()[0].clone()
}

fn cluster() -> Cluster {
    Cluster::new("c")
}

fn over_tcp() -> TcpUpstreams {
    TcpUpstreams::new(Upstreams::new(Shard::default()))
}

/// Connections whose other ends the test has.
fn in_memory() -> (TcpUpstreams, Accepted) {
    let accepted = Accepted::default();
    let ends = accepted.clone();
    let connector = Connector::Memory(Arc::new(move |_| {
        let (ours, theirs) = tokio::io::duplex(1024);
        ends.lock().unwrap().push(theirs);
        Box::pin(std::future::ready(Ok(ours)))
    }));
    let upstreams = Upstreams::with_connector(connector);
    (TcpUpstreams::new(upstreams), accepted)
}

fn failing(error: fn() -> io::Error) -> TcpUpstreams {
    let connector = Connector::Memory(Arc::new(move |_| Box::pin(async move { Err(error()) })));
    TcpUpstreams::new(Upstreams::with_connector(connector))
}

fn loopback(port: u16) -> Address {
    Address::Socket(([127, 0, 0, 1], port).into())
}

fn stat(entry: &ClusterEntry, stat: ClusterStat) -> u64 {
    entry.live().stats().block().get(stat)
}

async fn connect(tcp: &TcpUpstreams, entry: &Arc<ClusterEntry>) -> Result<TcpUpstream, Error> {
    tcp.connect(entry, &Caller::default(), None, &mut Vec::new())
        .await
}

/// Nothing is counted as in use any more.
fn is_unused(entry: &ClusterEntry) {
    for resource in [
        Resource::Connections,
        Resource::Pending,
        Resource::Requests,
        Resource::Retries,
    ] {
        assert_eq!(entry.live().usage().get(resource), 0, "{resource:?}");
    }
    for gauge in [
        ClusterStat::CxActive,
        ClusterStat::RqActive,
        ClusterStat::RqPendingActive,
    ] {
        assert_eq!(stat(entry, gauge), 0, "{gauge:?}");
    }
}

/// Sends bytes both ways and closes one half after the other.
async fn exchange(
    ours: &mut (impl AsyncRead + AsyncWrite + Unpin),
    theirs: &mut (impl AsyncRead + AsyncWrite + Unpin),
) {
    ours.write_all(b"to the server").await.unwrap();
    ours.flush().await.unwrap();
    let mut seen = [0; 13];
    theirs.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"to the server");
    ours.shutdown().await.unwrap();
    assert_eq!(theirs.read(&mut seen).await.unwrap(), 0, "half closed");
    theirs.write_all(b"to the client").await.unwrap();
    theirs.shutdown().await.unwrap();
    let mut seen = String::new();
    ours.read_to_string(&mut seen).await.unwrap();
    assert_eq!(seen, "to the client");
}

#[tokio::test]
async fn bytes_go_both_ways_and_everything_is_counted_until_the_end() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let entry = entry(cluster(), vec![Address::Socket(address)]);
    let tcp = over_tcp();
    let mut upstream = connect(&tcp, &entry).await.unwrap();
    let (mut server, peer) = listener.accept().await.unwrap();
    assert_eq!(upstream.remote(), Some(address));
    assert_eq!(upstream.local(), Some(peer));
    assert_eq!(upstream.endpoint().address, Address::Socket(address));
    assert!(upstream.tcp().is_some() && upstream.tls().is_none());

    let usage = entry.live().usage();
    assert_eq!(usage.get(Resource::Connections), 1);
    assert_eq!(usage.get(Resource::Requests), 1);
    assert_eq!(usage.get(Resource::Pending), 0);
    assert_eq!(stat(&entry, ClusterStat::CxActive), 1);
    assert_eq!(stat(&entry, ClusterStat::RqActive), 1);
    let host = &ClusterHosts::of(&entry).view()[0];
    assert_eq!((host.active, host.counts.cx_active), (1, 1));

    exchange(&mut upstream, &mut server).await;
    upstream.note_received(7);
    drop(upstream);
    is_unused(&entry);
    assert_eq!(stat(&entry, ClusterStat::CxTxBytes), 13);
    assert_eq!(stat(&entry, ClusterStat::CxRxBytes), 13 + 7);
    assert_eq!(stat(&entry, ClusterStat::CxTotal), 1);
    assert_eq!(stat(&entry, ClusterStat::CxDestroyRemote), 1);
    assert_eq!(stat(&entry, ClusterStat::RqTotal), 1);
    let host = &ClusterHosts::of(&entry).view()[0];
    assert_eq!((host.active, host.counts.cx_active), (0, 0));
}

#[tokio::test]
async fn an_endpoint_can_be_a_unix_socket_whose_ends_have_no_names() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.sock");
    let path = UnixPath::new(file.to_str().unwrap()).unwrap();
    let name = UnixPath::new(&format!("@mesh-client-tcp-{}", std::process::id())).unwrap();
    let hidden = format!("\0{}", name.abstract_name().unwrap());
    for (path, listener) in [
        (path, UnixListener::bind(&file).unwrap()),
        (name, UnixListener::bind(hidden).unwrap()),
    ] {
        let mut told = cluster();
        // Who called over TCP is told; a caller without an address is nobody, and neither are the
        // ends of the connection itself.
        told.proxy_protocol = Some(ProxyProtocol::V1);
        // What only TCP has.
        told.bind_source = Some([127, 0, 0, 1].into());
        told.tcp_keepalive = Some(TcpKeepalive::default());
        let entry = entry(told, vec![Address::Unix(path)]);
        let tcp = over_tcp();
        let mut upstream = connect(&tcp, &entry).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let mut header = [0; 15];
        server.read_exact(&mut header).await.unwrap();
        assert_eq!(&header, b"PROXY UNKNOWN\r\n");
        assert_eq!((upstream.remote(), upstream.local()), (None, None));
        exchange(&mut upstream, &mut server).await;
        drop(upstream);
        is_unused(&entry);
        assert_eq!(stat(&entry, ClusterStat::CxTotal), 1);
    }
}

#[tokio::test]
async fn a_unix_socket_that_nobody_listens_on_is_a_failed_connection() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.sock");
    let path = UnixPath::new(file.to_str().unwrap()).unwrap();
    let entry = entry(cluster(), vec![Address::Unix(path)]);
    let error = connect(&over_tcp(), &entry).await.err().unwrap();
    assert_eq!(error.failure(), Failure::ConnectFailed);
    assert_eq!(stat(&entry, ClusterStat::CxConnectFail), 1);
}

#[tokio::test]
async fn a_reset_is_an_error_to_the_reader() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let entry = entry(cluster(), vec![Address::Socket(address)]);
    let mut upstream = connect(&over_tcp(), &entry).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    socket2::SockRef::from(&server)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(server);
    let error = upstream.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    drop(upstream);
    is_unused(&entry);
    assert_eq!(stat(&entry, ClusterStat::CxDestroyRemote), 1);
}

#[tokio::test(start_paused = true)]
async fn the_limit_on_connections_is_strict_because_none_is_shared() {
    let mut limited = cluster();
    limited.limits.max_connections = 1;
    let entry = entry(limited, vec![loopback(1)]);
    let (tcp, _accepted) = in_memory();
    let first = connect(&tcp, &entry).await.unwrap();
    let error = connect(&tcp, &entry).await.unwrap_err();
    assert_eq!(error.failure(), Failure::Overflow);
    assert_eq!(stat(&entry, ClusterStat::CxOverflow), 1);
    assert_eq!(ClusterHosts::of(&entry).view()[0].active, 1);
    drop(first);
    connect(&tcp, &entry).await.unwrap();
    is_unused(&entry);
}

#[tokio::test(start_paused = true)]
async fn the_limits_on_pending_requests_and_requests_hold_too() {
    for (pending, requests) in [(0, 10), (10, 0)] {
        let mut limited = cluster();
        limited.limits.max_pending = pending;
        limited.limits.max_requests = requests;
        let entry = entry(limited, vec![loopback(1)]);
        let error = connect(&in_memory().0, &entry).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Overflow);
        assert_eq!(stat(&entry, ClusterStat::RqPendingOverflow), 1);
        is_unused(&entry);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_fails_is_blamed_on_the_host_and_the_next_attempt_avoids_it() {
    let mut ejecting = cluster();
    ejecting.balancing = Balancing::RoundRobin;
    let mut outlier = Outlier::default();
    outlier.consecutive_5xx = 1;
    outlier.max_ejection_percent = 10;
    ejecting.outlier = Some(outlier);
    let entry = entry(ejecting, vec![loopback(1), loopback(2)]);
    let tcp = failing(|| io::Error::from_raw_os_error(111));
    let (caller, mut tried) = (Caller::default(), Vec::new());
    for attempt in 1..=2 {
        let connecting = tcp.connect(&entry, &caller, None, &mut tried);
        let error = connecting.await.unwrap_err();
        assert_eq!(error.failure(), Failure::ConnectFailed);
        let cause = error.cause();
        assert_eq!(
            cause.as_deref(),
            Some("delayed connect error: Connection refused")
        );
        assert_eq!(tried.len(), attempt);
    }
    assert_ne!(tried[0], tried[1]);
    assert_eq!(stat(&entry, ClusterStat::CxConnectFail), 2);
    assert_eq!(stat(&entry, ClusterStat::RqPendingFailureEject), 2);
    assert_eq!(stat(&entry, ClusterStat::OutlierDetected5xx), 2);
    assert_eq!(stat(&entry, ClusterStat::RqTotal), 0);
    for host in ClusterHosts::of(&entry).view() {
        assert_eq!(host.counts.cx_connect_fail, 1);
    }
    is_unused(&entry);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_does_not_answer_is_given_up_in_time_and_by_who_goes_away() {
    let mut slow = cluster();
    slow.connect_timeout = Duration::from_secs(2);
    let entry = entry(slow, vec![loopback(1)]);
    let connector = Connector::Memory(Arc::new(|_| Box::pin(std::future::pending())));
    let tcp = TcpUpstreams::new(Upstreams::with_connector(connector));
    let began = tokio::time::Instant::now();
    let error = connect(&tcp, &entry).await.unwrap_err();
    assert_eq!(error.failure(), Failure::ConnectTimeout);
    assert_eq!(began.elapsed().as_secs(), 2);
    assert_eq!(stat(&entry, ClusterStat::CxConnectTimeout), 1);

    let limit = Duration::from_secs(1);
    let given_up = tokio::time::timeout(limit, connect(&tcp, &entry)).await;
    assert!(given_up.is_err());
    assert_eq!(
        stat(&entry, ClusterStat::CxConnectFail),
        1,
        "nobody's fault"
    );
    is_unused(&entry);
}

#[tokio::test]
async fn an_intercepted_connection_goes_where_it_was_going() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut passthrough = cluster();
    passthrough.discovery = DiscoveryKind::OriginalDestination;
    let entry = entry(passthrough, vec![]);
    let tcp = over_tcp();
    let error = connect(&tcp, &entry).await.unwrap_err();
    assert_eq!(error.failure(), Failure::NoHealthyHost);
    assert_eq!(stat(&entry, ClusterStat::OriginalDestinationInvalid), 1);
    let mut caller = Caller::default();
    caller.original = Some(listener.local_addr().unwrap());
    let mut upstream = tcp
        .connect(&entry, &caller, None, &mut Vec::new())
        .await
        .unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    exchange(&mut upstream, &mut server).await;
}

#[tokio::test(start_paused = true)]
async fn the_endpoint_is_told_who_calls_before_tls_begins() {
    let authority = Authority::new();
    let server = authority.server(&["db.test"], &["mongodb"], false);
    let roots = SecretRef::local("roots");
    let mut tls = ClientTls::default();
    tls.validation = Some(validation(&roots));
    tls.sni = "db.test".into();
    tls.alpn = vec!["mongodb".into()];
    let mut telling = cluster();
    telling.tls = Some(Arc::new(tls));
    telling.proxy_protocol = Some(ProxyProtocol::V2);
    let entry = entry(telling, vec![loopback(1)]);
    entry
        .secret(&roots)
        .unwrap()
        .publish(Some(authority.roots()));

    let (tcp, accepted) = in_memory();
    let (source, destination) = ("10.0.0.9:1".parse().unwrap(), "10.0.0.1:2".parse().unwrap());
    let mut caller = Caller::default();
    caller.peer = Some(source);
    caller.local = Some(destination);
    let header = crate::proxy_protocol::encode(ProxyProtocol::V2, source, destination);
    let serving = async {
        while accepted.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let mut stream = accepted.lock().unwrap().pop().unwrap();
        let mut seen = vec![0; header.len()];
        stream.read_exact(&mut seen).await.unwrap();
        assert_eq!(seen, header);
        server.acceptor.accept(stream).await.unwrap().0
    };
    let mut tried = Vec::new();
    let connecting = tcp.connect(&entry, &caller, None, &mut tried);
    let (upstream, mut server) = tokio::join!(connecting, serving);
    let mut upstream = upstream.unwrap();
    assert_eq!(upstream.tls().unwrap().alpn, "mongodb");
    assert!(upstream.tcp().is_none(), "not what it would look like");
    exchange(&mut upstream, &mut server).await;
    drop(upstream);
    is_unused(&entry);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_gone_is_let_go_of() {
    let first = snapshot(cluster(), vec![loopback(1)]);
    let (tcp, _accepted) = in_memory();
    let open = connect(&tcp, &first.clusters()[0]).await.unwrap();
    let live = Arc::downgrade(first.clusters()[0].live());
    let second = SnapshotBuilder::from(&first).build().unwrap().0;
    tcp.adopt(&second);
    drop((first, second));
    assert!(live.upgrade().is_some(), "a connection is open");
    drop(open);
    assert!(live.upgrade().is_none());
}

#[tokio::test]
async fn the_socket_is_there_for_who_copies_without_us() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entry = entry(
        cluster(),
        vec![Address::Socket(listener.local_addr().unwrap())],
    );
    let upstream = connect(&over_tcp(), &entry).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let socket: &TcpStream = upstream.tcp().unwrap();
    socket.writable().await.unwrap();
    assert_eq!(socket.try_write(b"x").unwrap(), 1);
    assert_eq!(server.read_u8().await.unwrap(), b'x');
    assert_eq!(stat(&entry, ClusterStat::CxTxBytes), 0, "nobody said");
}

#[tokio::test(start_paused = true)]
async fn a_connection_hears_of_its_endpoints_failure_where_its_cluster_says_so() {
    for closes in [true, false] {
        let mut cluster = cluster();
        cluster.close_unhealthy = closes;
        cluster.balancing = Balancing::RoundRobin;
        let mut outlier = Outlier::default();
        (outlier.consecutive_5xx, outlier.max_ejection_percent) = (1, 100);
        cluster.outlier = Some(outlier);
        let entry = entry(cluster, vec![loopback(1), loopback(2)]);
        let (tcp, _accepted) = in_memory();
        let (first, second) = (connect(&tcp, &entry).await, connect(&tcp, &entry).await);
        let (first, second) = (first.unwrap(), second.unwrap());
        assert_ne!(first.endpoint().address, second.endpoint().address);
        let Some(fails) = first.endpoint_fails() else {
            assert!(!closes);
            continue;
        };
        assert!(closes);
        let told = tokio::spawn(fails);
        let other = tokio::spawn(second.endpoint_fails().unwrap());
        tokio::task::yield_now().await;
        assert!(!told.is_finished());
        let hosts = ClusterHosts::of(&entry);
        let set = hosts.current();
        let mut all = set.hosts().iter();
        let host = all.find(|host| host.address() == &first.endpoint().address);
        hosts.report(host.unwrap(), mesh_lb::Outcome::Answered(500), now());
        told.await.unwrap();
        assert!(!other.is_finished(), "the other endpoint is well");
        other.abort();
    }
}
