//! Tunnels through HTTP proxies.

use super::*;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::model::UpstreamProtocol;
use std::convert::Infallible;

type Answer = Either<
    Empty<Bytes>,
    StreamBody<futures_util::stream::BoxStream<'static, Result<Frame<Bytes>, hyper::Error>>>,
>;

/// What the proxy was asked for.
type Asked = Arc<Mutex<Vec<String>>>;

/// An echo behind a proxy: what is sent to the tunnel comes back.
async fn echo(request: Request<Incoming>, asked: Asked, status: StatusCode) -> Response<Answer> {
    let host = request.headers().get("host");
    let named = host.map(|host| host.to_str().unwrap().to_owned());
    let named = named.or_else(|| Some(request.uri().authority()?.to_string()));
    let line = format!(
        "{} {:?} {}",
        request.method(),
        request.version(),
        named.unwrap_or_default()
    );
    asked.lock().unwrap().push(line);
    let body = if request.method() == Method::CONNECT {
        if status.is_success() {
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(request).await.unwrap();
                let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
                let _ = tokio::io::copy(&mut from, &mut to).await;
                let _ = to.shutdown().await;
            });
        }
        Either::Left(Empty::new())
    } else {
        use futures_util::StreamExt;
        let frames = request.into_body().into_data_stream();
        let frames = frames.map(|data| data.map(Frame::data));
        Either::Right(StreamBody::new(frames.boxed()))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// A proxy that answers every tunnel so.
fn proxy(protocol: UpstreamProtocol, status: StatusCode) -> (TcpUpstreams, Asked) {
    let asked = Asked::default();
    let noted = asked.clone();
    let connector = Connector::Memory(Arc::new(move |_| {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let asked = noted.clone();
        let service = service_fn(move |request| {
            let answer = echo(request, asked.clone(), status);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        tokio::spawn(async move {
            let io = TokioIo::new(theirs);
            // How it ends is up to the client.
            if protocol == UpstreamProtocol::Http2 {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(io, service).await;
            } else {
                let server = hyper::server::conn::http1::Builder::new();
                let _ = server.serve_connection(io, service).with_upgrades().await;
            }
        });
        Box::pin(std::future::ready(Ok(ours)))
    }));
    let upstreams = Upstreams::with_connector(connector);
    (TcpUpstreams::new(upstreams), asked)
}

fn to(post: bool) -> Tunnel {
    Tunnel {
        target: "db.example:5432".into(),
        post,
    }
}

fn speaking(protocol: UpstreamProtocol) -> Arc<ClusterEntry> {
    let mut speaking = cluster();
    speaking.protocol = protocol;
    entry(speaking, vec![loopback(3128)])
}

async fn open(
    tcp: &TcpUpstreams,
    entry: &Arc<ClusterEntry>,
    to: Tunnel,
    tried: &mut Vec<HostId>,
) -> Result<TcpUpstream, Error> {
    tcp.tunnel(entry, &Caller::default(), None, &to, tried)
        .await
}

async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_go_through_a_tunnel_of_every_kind() {
    use UpstreamProtocol::{Http1, Http2};
    for (protocol, post, line) in [
        (Http1, false, "CONNECT HTTP/1.1 db.example:5432"),
        (Http2, false, "CONNECT HTTP/2.0 db.example:5432"),
        (Http1, true, "POST HTTP/1.1 db.example:5432"),
        (Http2, true, "POST HTTP/2.0 db.example:5432"),
    ] {
        let entry = speaking(protocol);
        let (tcp, asked) = proxy(protocol, StatusCode::OK);
        let mut tried = Vec::new();
        let opening = open(&tcp, &entry, to(post), &mut tried);
        let mut tunnel = opening.await.unwrap();
        assert_eq!(*asked.lock().unwrap(), [line]);
        assert_eq!(tunnel.endpoint().address, loopback(3128));
        assert_eq!(tried.len(), 1);
        settle().await;
        assert_eq!(ClusterHosts::of(&entry).view()[0].active, 1, "{line}");
        assert_eq!(entry.live().usage().get(Resource::Requests), 1);
        assert_eq!(entry.live().usage().get(Resource::Connections), 1);

        for _ in 0..3 {
            tunnel.write_all(b"over and ").await.unwrap();
            tunnel.flush().await.unwrap();
            let mut back = [0; 9];
            tunnel.read_exact(&mut back).await.unwrap();
            assert_eq!(&back, b"over and ", "{line}");
        }
        let large = vec![7; 200 << 10];
        let (mut from, mut into) = tokio::io::split(tunnel);
        let writing = async {
            into.write_all(&large).await.unwrap();
            into.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let reading = from.read_to_end(&mut back);
        let ((), read) = tokio::join!(writing, reading);
        assert_eq!(read.unwrap(), large.len(), "{line}");
        assert_eq!(back, large);
        drop((from, into));
        settle().await;
        assert_eq!(ClusterHosts::of(&entry).view()[0].active, 0, "{line}");
        assert_eq!(stat(&entry, ClusterStat::CxTxBytes), 27 + (200 << 10));
        assert_eq!(stat(&entry, ClusterStat::CxRxBytes), 27 + (200 << 10));
        drop(tcp);
        settle().await;
        is_unused(&entry);
    }
}

#[tokio::test(start_paused = true)]
async fn tunnels_share_a_connection_of_http2_within_its_streams() {
    let mut limited = cluster();
    limited.protocol = UpstreamProtocol::Http2;
    limited.max_concurrent_streams = 2;
    let entry = entry(limited, vec![loopback(1)]);
    let (tcp, _) = proxy(UpstreamProtocol::Http2, StatusCode::OK);
    let caller = Caller::default();
    let mut tried = Vec::new();
    let mut tunnels = Vec::new();
    for expected in [1, 1, 2, 2, 3] {
        let to = to(false);
        let opening = tcp.tunnel(&entry, &caller, None, &to, &mut tried);
        tunnels.push(opening.await.unwrap());
        settle().await;
        assert_eq!(stat(&entry, ClusterStat::CxActive), expected);
    }
    // A stream that is over makes room for another.
    drop(tunnels.pop());
    drop(tunnels.remove(0));
    settle().await;
    let again = tcp
        .tunnel(&entry, &caller, None, &to(false), &mut Vec::new())
        .await;
    settle().await;
    assert_eq!(stat(&entry, ClusterStat::CxTotal), 3);
    drop((again, tunnels, tcp));
    settle().await;
    is_unused(&entry);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_refuses_fails_the_connection() {
    use UpstreamProtocol::{Http1, Http2};
    for (protocol, post, status, opens) in [
        (Http1, false, StatusCode::FORBIDDEN, false),
        (Http2, false, StatusCode::FORBIDDEN, false),
        (Http1, true, StatusCode::BAD_GATEWAY, false),
        (Http1, false, StatusCode::CREATED, true),
        (Http2, false, StatusCode::CREATED, false),
        (Http2, true, StatusCode::CREATED, false),
    ] {
        let entry = speaking(protocol);
        let (tcp, _) = proxy(protocol, status);
        let mut tried = Vec::new();
        let opening = open(&tcp, &entry, to(post), &mut tried);
        let opened = opening.await;
        assert_eq!(opened.is_ok(), opens, "{protocol:?} {post} {status}");
        if let Err(error) = &opened {
            assert_eq!(error.failure(), Failure::ConnectFailed);
            let reason = error.cause().unwrap();
            assert!(reason.contains(status.as_str()), "{reason}");
        }
        drop(opened);
        drop(tcp);
        settle().await;
        is_unused(&entry);
    }
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_that_is_dropped_does_not_look_like_one_that_ended() {
    let entry = speaking(UpstreamProtocol::Http2);
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let ours = Mutex::new(Some(ours));
    let connector = Connector::Memory(Arc::new(move |_| {
        let stream = ours.lock().unwrap().take().expect("one connection");
        Box::pin(std::future::ready(Ok(stream)))
    }));
    let tcp = TcpUpstreams::new(Upstreams::with_connector(connector));
    let serving = tokio::spawn(async move {
        let mut server = h2::server::handshake(theirs).await.unwrap();
        let (mut request, mut respond) = server.accept().await.unwrap().unwrap();
        let _body = respond.send_response(Response::new(()), false).unwrap();
        tokio::spawn(async move { while server.accept().await.is_some() {} });
        let mut parts = Vec::new();
        while let Some(part) = request.body_mut().data().await {
            let failed = part.is_err();
            parts.push(part.map_err(|error| error.reason()));
            if failed {
                break;
            }
        }
        parts
    });
    let mut tried = Vec::new();
    let opening = open(&tcp, &entry, to(true), &mut tried);
    let mut tunnel = opening.await.unwrap();
    tunnel.write_all(b"half a word").await.unwrap();
    settle().await;
    drop(tunnel);
    let parts = serving.await.unwrap();
    assert_eq!(parts[0], Ok(Bytes::from_static(b"half a word")));
    assert!(parts[1].is_err(), "{parts:?}");
}

#[tokio::test]
async fn a_target_that_is_none_is_refused() {
    let entry = speaking(UpstreamProtocol::Http1);
    let (tcp, asked) = proxy(UpstreamProtocol::Http1, StatusCode::OK);
    for (target, post) in [("a b", false), ("", false), ("a\nb", true)] {
        let tunnel = Tunnel {
            target: target.into(),
            post,
        };
        let mut tried = Vec::new();
        let opening = open(&tcp, &entry, tunnel, &mut tried);
        let error = opening.await.unwrap_err();
        assert_eq!(error.failure(), Failure::ConnectFailed, "{target:?}");
    }
    assert!(asked.lock().unwrap().is_empty());
    is_unused(&entry);
}
