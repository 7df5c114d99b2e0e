//! Checks over pipes in memory, with paused time.

use super::*;
use bytes::Bytes;
use http_body_util::{Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::Publisher;
use mesh_core::model::{
    Address, Cluster as Config, EndpointSet, GrpcProbe, HealthCheck, HttpProbe, Probe,
    SnapshotBuilder, TcpProbe,
};
use mesh_core::stats::ClusterStat;
use mesh_test::fixture::address;
use std::convert::Infallible;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A mesh of one cluster whose endpoints answer as the test says.
struct Net {
    publisher: Publisher<Snapshot>,
    entry: Arc<ClusterEntry>,
    made: Arc<AtomicUsize>,
    checking: tokio::task::JoinHandle<()>,
}

impl Net {
    /// `serve` gets the other end of each connection, and to where it was made; none is refused.
    fn new(
        check: HealthCheck,
        endpoints: &[&str],
        serve: impl Fn(&Address) -> Option<DuplexStream> + Send + Sync + 'static,
    ) -> Self {
        let mut cluster = Config::new("c");
        cluster.health_checks = [check].into();
        cluster.panic_threshold = 0;
        let mut builder = SnapshotBuilder::new();
        builder.cluster(cluster);
        let addresses = endpoints.iter().map(|endpoint| address(endpoint));
        builder.endpoints("c", EndpointSet::of(addresses));
        let publisher = Publisher::from_arc(builder.build().unwrap().0);
        let entry = publisher.load().clusters()[0].clone();
        // Somebody used the cluster already: the usual interval holds.
        let block = entry.live().stats().block();
        block.inc(mesh_core::Shard::default(), ClusterStat::CxTotal);
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let connector = Connector::Memory(Arc::new(move |address| {
            count.fetch_add(1, Ordering::Relaxed);
            let made = serve(address).ok_or_else(|| io::ErrorKind::ConnectionRefused.into());
            Box::pin(std::future::ready(made))
        }));
        let checks = HealthChecks::new(publisher.feed()).connector(connector);
        let checking = tokio::spawn(checks.run());
        Self {
            publisher,
            entry,
            made,
            checking,
        }
    }

    fn stat(&self, stat: ClusterStat) -> u64 {
        self.entry.live().stats().block().get(stat)
    }

    /// Whether each endpoint is healthy, after so many checks.
    async fn after(&self, attempts: u64) -> Vec<bool> {
        let done = || self.stat(ClusterStat::CheckSuccess) + self.stat(ClusterStat::CheckFailure);
        while done() < attempts {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let hosts = ClusterHosts::of(&self.entry).view();
        hosts.iter().map(|host| !host.checked.failed).collect()
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }
}

fn check(probe: Probe) -> HealthCheck {
    HealthCheck::new(probe, Duration::from_secs(1), Duration::from_secs(5))
}

fn get(path: &str) -> HttpProbe {
    HttpProbe::new(path)
}

type Answer = http::Response<Full<Bytes>>;

/// Answers requests with what `answer` makes of each.
fn http_server(
    is_http2: bool,
    answer: impl Fn(&http::Request<Incoming>) -> Answer + Send + Sync + Clone + 'static,
) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let service = service_fn(move |request| {
        let answered = answer(&request);
        async move { Ok::<_, Infallible>(answered) }
    });
    tokio::spawn(async move {
        let io = TokioIo::new(theirs);
        // It ends when the checks hang up.
        if is_http2 {
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(io, service).await;
        } else {
            let server = hyper::server::conn::http1::Builder::new();
            let _ = server.serve_connection(io, service).await;
        }
    });
    ours
}

fn status(status: u16) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = http::StatusCode::from_u16(status).unwrap();
    answer
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_asked_again_over_the_same_connection() {
    for (is_http2, reuse) in [(false, true), (true, true), (false, false)] {
        let well = Arc::new(AtomicBool::new(true));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut probe = get("/healthz");
        probe.http2 = is_http2;
        let mut check = check(Probe::Http(Box::new(probe)));
        check.reuse_connection = reuse;
        let (is_well, sees) = (well.clone(), seen.clone());
        let net = Net::new(check, &["10.0.0.1:80"], move |to| {
            assert_eq!(to.to_string(), "10.0.0.1:80");
            let (is_well, sees) = (is_well.clone(), sees.clone());
            Some(http_server(is_http2, move |request| {
                let host = request.headers().get("host").cloned();
                let host = host.map(|host| host.to_str().unwrap().to_owned());
                let host = host.or_else(|| request.uri().host().map(str::to_owned));
                let agent = request.headers()["user-agent"].clone();
                sees.lock()
                    .unwrap()
                    .push((request.uri().path().to_owned(), host, agent));
                status(if is_well.load(Ordering::Relaxed) {
                    200
                } else {
                    503
                })
            }))
        });
        assert_eq!(net.after(2).await, [true]);
        well.store(false, Ordering::Relaxed);
        assert_eq!(net.after(3).await, [false]);
        well.store(true, Ordering::Relaxed);
        assert_eq!(net.after(4).await, [true]);
        assert_eq!(net.made(), if reuse { 1 } else { 4 });
        assert_eq!(net.stat(ClusterStat::CheckNetworkFailure), 0);
        let expected = (
            "/healthz".to_owned(),
            Some("c".to_owned()),
            "Envoy/HC".parse().unwrap(),
        );
        assert!(seen.lock().unwrap().iter().all(|one| *one == expected));
    }
}

#[tokio::test(start_paused = true)]
async fn questions_come_at_their_pace() {
    let mut check = check(Probe::Http(Box::new(get("/"))));
    check.unhealthy_threshold = 2;
    check.healthy_threshold = 2;
    check.pace.unhealthy = Some(Duration::from_secs(20));
    check.pace.unhealthy_edge = Some(Duration::from_secs(2));
    check.pace.healthy_edge = Some(Duration::from_secs(1));
    let times = Arc::new(Mutex::new(Vec::new()));
    let (start, at) = (tokio::time::Instant::now(), times.clone());
    let net = Net::new(check, &["10.0.0.1:80"], move |_| {
        let mut times = at.lock().unwrap();
        times.push(start.elapsed().as_secs());
        // Refused the second and third time.
        let number = times.len();
        (number != 2 && number != 3).then(|| {
            http_server(false, |_| {
                let mut answer = status(200);
                answer
                    .headers_mut()
                    .insert("connection", "close".parse().unwrap());
                answer
            })
        })
    });
    assert_eq!(net.after(6).await, [true]);
    // Well; one failure, one more: unhealthy; one success, one more: healthy; as usual.
    assert_eq!(*times.lock().unwrap(), [0, 5, 7, 27, 28, 33]);
}

#[tokio::test(start_paused = true)]
async fn silence_is_a_failure_and_so_is_an_answer_that_does_not_end() {
    let net = Net::new(
        check(Probe::Http(Box::new(get("/")))),
        &["10.0.0.1:80"],
        |_| {
            let (ours, mut theirs) = tokio::io::duplex(1 << 10);
            tokio::spawn(async move {
                let mut asked = [0; 4];
                theirs.read_exact(&mut asked).await.unwrap();
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nxx";
                theirs.write_all(head).await.unwrap();
                // Until the checks hang up.
                let mut asked = Vec::new();
                let _ = theirs.read_to_end(&mut asked).await;
            });
            Some(ours)
        },
    );
    assert_eq!(net.after(2).await, [false]);
    let view = &ClusterHosts::of(&net.entry).view()[0];
    assert!(view.checked.late);
    assert_eq!(net.stat(ClusterStat::CheckNetworkFailure), 2);
    assert_eq!(
        net.made(),
        2,
        "a late answer must not be taken for the next"
    );
}

#[tokio::test(start_paused = true)]
async fn bytes_have_to_come_back_or_a_connection_is_enough() {
    let echo = |well: bool| {
        move |_: &Address| {
            let (ours, mut theirs) = tokio::io::duplex(1 << 10);
            tokio::spawn(async move {
                let mut asked = [0; 4];
                while theirs.read_exact(&mut asked).await.is_ok() {
                    assert_eq!(&asked, b"ping");
                    let answer: &[u8] = if well { b"..po..ng" } else { b"nope" };
                    // Slowly, so that pieces come one by one.
                    for byte in answer {
                        theirs.write_all(&[*byte]).await.unwrap();
                    }
                }
            });
            Some(ours)
        }
    };
    let probe = TcpProbe {
        send: "ping".into(),
        receive: vec!["po".into(), "ng".into()],
    };
    let net = Net::new(
        check(Probe::Tcp(probe.clone())),
        &["10.0.0.1:80"],
        echo(true),
    );
    assert_eq!((net.after(3).await, net.made()), (vec![true], 1));
    let net = Net::new(check(Probe::Tcp(probe)), &["10.0.0.1:80"], echo(false));
    assert_eq!(net.after(1).await, [false]);

    let connects = check(Probe::Tcp(TcpProbe::default()));
    let net = Net::new(connects, &["10.0.0.1:80", "10.0.0.2:80"], |to| {
        (to.to_string() == "10.0.0.2:80").then(|| tokio::io::duplex(1).0)
    });
    assert_eq!(net.after(2).await, [false, true]);
    assert_eq!(net.stat(ClusterStat::CheckNetworkFailure), 1);
}

/// Answers calls of the health service with this status of serving, or of the call.
fn grpc_server(serving: u8, code: &'static str) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let service = service_fn(move |request: http::Request<Incoming>| async move {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["te"], "trailers");
        let question = http_body_util::BodyExt::collect(request)
            .await
            .unwrap()
            .to_bytes();
        assert_eq!(question[..], [0, 0, 0, 0, 3, 10, 1, b's']);
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", code.parse().unwrap());
        let message = Bytes::from(Vec::from([0, 0, 0, 0, 2, 8, serving]));
        let frames = [Frame::data(message), Frame::trailers(trailers)];
        let body = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
        Ok::<_, Infallible>(http::Response::new(body))
    });
    tokio::spawn(async move {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(theirs), service).await;
    });
    ours
}

#[tokio::test(start_paused = true)]
async fn a_health_service_is_asked_for_its_service() {
    for (serving, code, well) in [(1, "0", true), (2, "0", false), (1, "5", false)] {
        let probe = GrpcProbe {
            service: "s".into(),
            ..GrpcProbe::default()
        };
        let mut check = check(Probe::Grpc(probe));
        check.unhealthy_threshold = 3;
        let net = Net::new(check, &["10.0.0.1:80"], move |_| {
            Some(grpc_server(serving, code))
        });
        assert_eq!((net.after(2).await, net.made()), (vec![well], 1));
        assert_eq!(net.stat(ClusterStat::CheckNetworkFailure), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_come_are_asked_and_those_that_go_are_not() {
    let well = |_: &Address| Some(http_server(false, |_| status(200)));
    let net = Net::new(
        check(Probe::Http(Box::new(get("/")))),
        &["10.0.0.1:80"],
        well,
    );
    assert_eq!(net.after(1).await, [true]);
    let more = EndpointSet::of([address("10.0.0.1:80"), address("10.0.0.2:80")]);
    net.entry.live().publish_endpoints(Arc::new(more));
    assert_eq!(net.after(2).await, [true, true]);
    net.entry.live().publish_endpoints(Arc::default());
    let attempts = net.stat(ClusterStat::CheckAttempt);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(net.stat(ClusterStat::CheckAttempt), attempts);

    // So with the cluster, and with everything.
    let one = EndpointSet::of([address("10.0.0.3:80")]);
    net.entry.live().publish_endpoints(Arc::new(one));
    assert_eq!(net.after(3).await, [true]);
    net.publisher
        .publish(SnapshotBuilder::new().build().unwrap().0);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let attempts = net.stat(ClusterStat::CheckAttempt);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(net.stat(ClusterStat::CheckAttempt), attempts);
    drop(net.publisher);
    net.checking.await.unwrap();
}
