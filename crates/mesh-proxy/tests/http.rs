//! HTTP through the proxy: both versions, trailers, upgrades, large bodies, limits.

mod support;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use mesh_core::model::{Cluster, Limits, Rule, UpstreamProtocol};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::{Http1, Mesh, Whole, backend, get, http2_to, named, text};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn to(cluster: &str) -> Vec<Rule> {
    vec![Rule::prefix_to("/", cluster)]
}

fn over_http2(name: &str) -> Cluster {
    let mut cluster = Cluster::new(name);
    cluster.protocol = UpstreamProtocol::Http2;
    cluster
}

#[tokio::test]
async fn http1_is_forwarded_with_its_connection_kept() {
    let seen = Arc::new(std::sync::Mutex::new(HeaderMap::new()));
    let theirs = seen.clone();
    let echo = backend(move |request: Request<_>| {
        *theirs.lock().unwrap() = request.headers().clone();
        async move { Response::new(Full::from("hello")) }
    })
    .await;
    let mesh = Mesh::start(1, to("a"), vec![(Cluster::new("a"), vec![echo])]).await;
    let mut client = Http1::connect(mesh.address).await;
    for _ in 0..3 {
        let mut request = get("/x?y=1");
        request
            .headers_mut()
            .insert("x-hop", HeaderValue::from_static("1"));
        request
            .headers_mut()
            .insert("connection", HeaderValue::from_static("x-hop"));
        let response = client.send(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert!(
            response
                .headers()
                .contains_key("x-envoy-upstream-service-time")
        );
        assert_eq!(text(response).await, "hello");
    }
    let seen = seen.lock().unwrap().clone();
    assert!(seen.contains_key("x-request-id"));
    assert_eq!(seen["x-forwarded-proto"], "http");
    assert!(
        !seen.contains_key("x-hop"),
        "a header of the connection stays behind"
    );
    assert_eq!(mesh.stat("cluster.a.upstream_cx_total").await, 1);
    assert_eq!(mesh.stat("cluster.a.upstream_rq_2xx").await, 3);
    assert_eq!(mesh.stat("http.in.downstream_cx_total").await, 1);
}

#[tokio::test]
async fn http2_in_goes_out_as_http1_and_as_http2() {
    let version = backend(|request: Request<_>| async move {
        let host = request
            .headers()
            .get("host")
            .map(|h| h.to_str().unwrap().to_owned());
        let authority = request.uri().authority().map(ToString::to_string);
        let text = format!("{:?} {}", request.version(), authority.or(host).unwrap());
        Response::new(Full::from(text))
    })
    .await;
    let rules = vec![
        Rule::prefix_to("/one", "one"),
        Rule::prefix_to("/two", "two"),
    ];
    let clusters = vec![
        (Cluster::new("one"), vec![version]),
        (over_http2("two"), vec![version]),
    ];
    let mesh = Mesh::start(1, rules, clusters).await;
    let client = http2_to::<Whole>(mesh.address).await;
    for (path, expected) in [("one", "HTTP/1.1 mesh:80"), ("two", "HTTP/2.0 mesh:80")] {
        let request = Request::get(format!("http://mesh:80/{path}"))
            .body(Whole::default())
            .unwrap();
        let response = client.clone().send_request(request).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        assert_eq!(text(response).await, expected);
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    // As a gRPC call: trailers from the server, and from the client too.
    let grpc = backend(|request: Request<hyper::body::Incoming>| async move {
        let sent = request.into_body().collect().await.unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let theirs = sent.trailers().and_then(|t| t.get("x-checksum")).cloned();
        trailers.insert("x-got", theirs.unwrap_or(HeaderValue::from_static("none")));
        let frames = [
            Ok::<_, Infallible>(Frame::data(sent.to_bytes())),
            Ok(Frame::trailers(trailers)),
        ];
        let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
        response
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        response
    })
    .await;
    let mesh = Mesh::start(1, to("g"), vec![(over_http2("g"), vec![grpc])]).await;
    let client = http2_to(mesh.address).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("42"));
    let frames = [
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"abc"))),
        Ok(Frame::trailers(trailers)),
    ];
    let request = Request::post("http://mesh/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap();
    let response = client.clone().send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-got"], "42");
    assert_eq!(body.to_bytes(), "abc");
}

#[tokio::test]
async fn a_grpc_caller_is_told_of_a_missing_cluster_in_its_own_words() {
    let mesh = Mesh::start(1, to("gone"), vec![]).await;
    let client = http2_to::<Whole>(mesh.address).await;
    let request = Request::post("http://mesh/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .body(Whole::default())
        .unwrap();
    let response = client.clone().send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "14");
    let plain = Http1::connect(mesh.address).await.send(get("/")).await;
    assert_eq!(plain.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(mesh.stat("http.in.no_cluster").await, 2);
}

#[tokio::test]
async fn an_answer_of_ours_that_took_its_time_keeps_the_connection() {
    let nobody = "127.0.0.1:1".parse().unwrap();
    let mesh = Mesh::start(1, to("a"), vec![(Cluster::new("a"), vec![nobody])]).await;
    let mut stream = TcpStream::connect(mesh.address).await.unwrap();
    let post = "POST / HTTP/1.1\r\nhost: mesh\r\ncontent-length: 4\r\n\r\nbody";
    let last = "GET / HTTP/1.1\r\nhost: mesh\r\nconnection: close\r\n\r\n";
    let both = format!("{post}{last}");
    stream.write_all(both.as_bytes()).await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(answers.matches("HTTP/1.1 503").count(), 2, "{answers}");
    assert_eq!(mesh.stat("cluster.a.upstream_rq_503").await, 2);
    assert_eq!(mesh.stat("cluster.a.upstream_rq_completed").await, 2);
    assert_eq!(mesh.stat("cluster.a.upstream_rq_total").await, 0);
}

#[tokio::test]
async fn a_request_over_the_limit_is_told_of_as_envoy_tells_of_it() {
    let busy = backend(|_| std::future::pending::<Response<Whole>>()).await;
    let mut limited = Cluster::new("a");
    limited.limits.max_requests = 1;
    let mesh = Mesh::start(1, to("a"), vec![(limited, vec![busy])]).await;
    let mut first = Http1::connect(mesh.address).await;
    let held = tokio::spawn(async move { first.send(get("/")).await });
    while mesh.stat("cluster.a.upstream_rq_total").await == 0 {
        tokio::task::yield_now().await;
    }
    let refused = Http1::connect(mesh.address).await.send(get("/")).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["x-envoy-overloaded"], "true");
    assert_eq!(mesh.stat("cluster.a.upstream_rq_active_overflow").await, 1);
    assert_eq!(mesh.stat("cluster.a.upstream_rq_503").await, 1);
    assert_eq!(mesh.stat("cluster.a.upstream_rq_total").await, 1);
    held.abort();
}

#[tokio::test]
async fn a_websocket_is_tunnelled_once_both_sides_have_switched() {
    let echo = backend(|mut request: Request<hyper::body::Incoming>| async move {
        assert_eq!(request.headers()["upgrade"], "websocket");
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut buffer = [0; 5];
            io.read_exact(&mut buffer).await.unwrap();
            buffer.reverse();
            io.write_all(&buffer).await.unwrap();
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .body(Empty::<Bytes>::new())
            .unwrap()
    })
    .await;
    let mesh = Mesh::start(1, to("ws"), vec![(Cluster::new("ws"), vec![echo])]).await;
    let mut request = get("/chat");
    request
        .headers_mut()
        .insert("connection", HeaderValue::from_static("Upgrade"));
    request
        .headers_mut()
        .insert("upgrade", HeaderValue::from_static("websocket"));
    let mut response = Http1::connect(mesh.address).await.send(request).await;
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(response.headers()["upgrade"], "websocket");
    let mut io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    io.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    io.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"olleh");
}

#[tokio::test]
async fn a_client_that_expects_100_continue_is_told_to_go_on() {
    let echo = backend(|request: Request<hyper::body::Incoming>| async move {
        Response::new(Full::new(
            request.into_body().collect().await.unwrap().to_bytes(),
        ))
    })
    .await;
    let mesh = Mesh::start(1, to("a"), vec![(Cluster::new("a"), vec![echo])]).await;
    let mut stream = TcpStream::connect(mesh.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: mesh\r\ncontent-length: 4\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0; 25];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"data").await.unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    assert!(
        rest.starts_with("HTTP/1.1 200 OK") && rest.ends_with("data"),
        "{rest}"
    );
}

#[tokio::test]
async fn a_malformed_body_is_answered_400_and_is_the_callers_fault() {
    let reading = backend(|request: Request<hyper::body::Incoming>| async move {
        let _ = request.into_body().collect().await;
        Response::new(Full::from("too late"))
    })
    .await;
    let mesh = Mesh::start(1, to("a"), vec![(Cluster::new("a"), vec![reading])]).await;
    let mut stream = TcpStream::connect(mesh.address).await.unwrap();
    let head = "POST / HTTP/1.1\r\nhost: mesh\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"3\r\nabc\r\nzz\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{answer}"
    );
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nBad Request"), "{answer}");
    drop(stream);
    // It is counted when the connection is over.
    let counted = async {
        while mesh.stat("http.in.downstream_cx_protocol_error").await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), counted)
        .await
        .unwrap();
    assert_eq!(mesh.stat("cluster.a.upstream_rq_5xx").await, 0);
}

#[tokio::test]
async fn no_request_is_stranded_on_a_worker_when_one_connection_is_all_there_may_be() {
    let slow = backend(|_| async {
        tokio::task::yield_now().await;
        Response::new(Full::from("ok"))
    })
    .await;
    let mut cluster = Cluster::new("tight");
    cluster.limits = Limits::unlimited();
    cluster.limits.max_connections = 1;
    let mesh = Mesh::start(4, to("tight"), vec![(cluster, vec![slow])]).await;
    // Many connections, so that every worker has some; each has to be answered.
    let calls = (0..64).map(|_| async {
        let mut client = Http1::connect(mesh.address).await;
        for _ in 0..5 {
            assert_eq!(text(client.send(get("/")).await).await, "ok");
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn a_pending_request_over_the_limit_is_refused_and_counted() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let arrived = Arc::new(AtomicUsize::new(0));
    let (theirs, counted) = (gate.clone(), arrived.clone());
    let held = backend(move |_| {
        let (gate, counted) = (theirs.clone(), counted.clone());
        async move {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(gate.acquire().await.unwrap());
            Response::new(Full::from("ok"))
        }
    })
    .await;
    let mut cluster = Cluster::new("c");
    cluster.limits.max_connections = 1;
    cluster.limits.max_pending = 1;
    cluster.max_requests_per_connection = 1;
    let mesh = Mesh::start(1, to("c"), vec![(cluster, vec![held])]).await;
    let call = async || {
        let response = Http1::connect(mesh.address).await.send(get("/")).await;
        let overloaded = response.headers().contains_key("x-envoy-overloaded");
        (response.status().as_u16(), overloaded)
    };
    let (first, second, third) = tokio::join!(
        call(),
        async {
            while arrived.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            call().await
        },
        async {
            // In this order: until the first request has arrived it is itself the pending one.
            while arrived.load(Ordering::SeqCst) == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            while mesh.stat("cluster.c.upstream_rq_pending_active").await == 0 {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            let answer = call().await;
            gate.add_permits(8);
            answer
        },
    );
    assert_eq!(first, (200, false));
    assert_eq!(second, (200, false));
    assert_eq!(third, (503, true));
    assert_eq!(mesh.stat("cluster.c.upstream_rq_pending_overflow").await, 1);
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_told_as_envoy_tells_it() {
    let nobody = support::free_address();
    let mesh = Mesh::start(1, to("a"), vec![(Cluster::new("a"), vec![nobody])]).await;
    let response = Http1::connect(mesh.address).await.send(get("/")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        text(response).await,
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection \
         failure"
    );
    assert_eq!(mesh.stat("cluster.a.upstream_cx_connect_fail").await, 1);
}

#[tokio::test]
async fn a_request_under_way_is_finished_when_the_proxy_drains() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let theirs = gate.clone();
    let held = backend(move |_| {
        let gate = theirs.clone();
        async move {
            drop(gate.acquire().await.unwrap());
            Response::new(Full::from("late"))
        }
    })
    .await;
    let mesh = Mesh::start(1, to("a"), vec![(Cluster::new("a"), vec![held])]).await;
    let Mesh {
        address,
        proxy,
        publisher,
    } = mesh;
    let mut client = Http1::connect(address).await;
    let request = tokio::spawn(async move { text(client.send(get("/")).await).await });
    let active = publisher.load();
    let active = active.cluster("a").unwrap().live().stats().clone();
    while active.block().get(mesh_core::stats::ClusterStat::RqActive) == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let draining = tokio::spawn(proxy.drain());
    // Nobody accepts any more, and the request is still answered.
    while TcpStream::connect(address).await.is_ok() {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    gate.add_permits(1);
    assert_eq!(request.await.unwrap(), "late");
    draining.await.unwrap();
}

#[tokio::test]
async fn two_backends_share_the_requests() {
    let (a, b) = (named("a").await, named("b").await);
    let mut cluster = Cluster::new("ab");
    cluster.balancing = mesh_core::model::Balancing::RoundRobin;
    let mesh = Mesh::start(1, to("ab"), vec![(cluster, vec![a, b])]).await;
    let mut client = Http1::connect(mesh.address).await;
    let mut answers = Vec::new();
    for _ in 0..10 {
        answers.push(text(client.send(get("/")).await).await);
    }
    assert_eq!(answers.iter().filter(|answer| *answer == "a").count(), 5);
}

#[tokio::test]
async fn a_worker_that_idles_has_no_configuration_from_before() {
    let only = backend(|_| async { Response::new(Full::from("a")) }).await;
    let clusters = || vec![(Cluster::new("a"), vec![only])];
    let mesh = Mesh::start(2, to("a"), clusters()).await;
    for _ in 0..8 {
        let mut client = Http1::connect(mesh.address).await;
        assert_eq!(text(client.send(get("/")).await).await, "a");
    }
    let old = Arc::downgrade(&mesh.publisher.load());
    mesh.publish(to("a"), clusters());
    let gone = async {
        while old.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(30), gone).await;
    assert!(waited.is_ok(), "without a request nobody lets go of it");
}
