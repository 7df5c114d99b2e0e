//! HTTP/2: several requests on one connection, several connections for many requests.

use super::*;
use mesh_core::Failure;
use mesh_core::model::UpstreamProtocol;
use std::future::poll_fn;
use std::time::Duration;
use tokio::sync::Semaphore;

const SECOND: Duration = Duration::from_secs(1);

fn http2() -> Cluster {
    let mut cluster = cluster();
    cluster.protocol = UpstreamProtocol::Http2;
    cluster
}

/// Answers HTTP/2 on a connection, so many requests at once.
pub(super) fn answer<F, R, IO>(stream: IO, streams: u32, answer: F) -> JoinHandle<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Whole>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    tokio::spawn(async move {
        // How it ends is up to the client.
        let _ = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .max_concurrent_streams(streams)
            .serve_connection(TokioIo::new(stream), service)
            .await;
    })
}

pub(super) fn numbered(number: usize, stream: DuplexStream) {
    answer(
        stream,
        100,
        move |_| async move { text(number.to_string()) },
    );
}

/// A server that answers one request for each permit.
fn permitted(
    streams: u32,
    permits: &Arc<Semaphore>,
) -> impl Fn(usize, DuplexStream) + Send + Sync + 'static {
    let permits = permits.clone();
    move |number, stream| {
        let permits = permits.clone();
        answer(stream, streams, move |_| {
            let permits = permits.clone();
            async move {
                permits.acquire().await.unwrap().forget();
                text(number.to_string())
            }
        });
    }
}

async fn read(request: JoinHandle<Result<Response<Body>, Error>>) -> String {
    mesh_test::read(request.await.unwrap().unwrap().into_body()).await
}

/// Plays the server by hand with h2 itself.
fn by_hand<F, R>(script: F) -> impl Fn(usize, DuplexStream) + Send + Sync
where
    F: Fn(usize, h2::server::Connection<DuplexStream, Bytes>) -> R + Send + Sync + Clone + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    move |number, stream| {
        let script = script.clone();
        tokio::spawn(async move {
            script(number, h2::server::handshake(stream).await.unwrap()).await;
        });
    }
}

#[tokio::test(start_paused = true)]
async fn requests_share_a_connection() {
    let permits = Arc::new(Semaphore::new(0));
    let net = Net::new(http2(), permitted(100, &permits));
    let requests: Vec<_> = (0..20).map(|_| net.spawn(get())).collect();
    settle().await;
    assert_eq!(net.made(), 1);
    assert_eq!(net.in_use(Resource::Pending), 0);
    permits.add_permits(20);
    for request in requests {
        assert_eq!(read(request).await, "0");
    }
    assert_eq!(net.get_with(&permits).await, "0");
    assert_eq!(net.stat(ClusterStat::CxHttp2Total), 1);
    net.finish().await;
}

impl Net {
    async fn get_with(&self, permits: &Semaphore) -> String {
        permits.add_permits(1);
        self.get().await.unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn another_connection_is_made_when_streams_run_out() {
    let permits = Arc::new(Semaphore::new(0));
    let net = Net::new(http2(), permitted(2, &permits));
    // The first request learns what the peer allows.
    assert_eq!(net.get_with(&permits).await, "0");
    let requests: Vec<_> = (0..6).map(|_| net.spawn(get())).collect();
    settle().await;
    assert_eq!(net.made(), 3);
    assert_eq!(net.in_use(Resource::Pending), 0);
    permits.add_permits(6);
    let mut seen = Vec::new();
    for request in requests {
        seen.push(read(request).await);
    }
    seen.sort();
    assert_eq!(seen, ["0", "0", "1", "1", "2", "2"]);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn as_many_connections_are_opened_as_their_streams_ask_for() {
    for (own, peer) in [(100, 1000), (1000, 100)] {
        let permits = Arc::new(Semaphore::new(0));
        let mut cluster = http2();
        cluster.max_concurrent_streams = own;
        let net = Net::new(cluster, permitted(peer, &permits));
        let requests: Vec<_> = (0..300).map(|_| net.spawn(get())).collect();
        settle().await;
        settle().await;
        assert_eq!((net.made(), net.in_use(Resource::Pending)), (3, 0));
        permits.add_permits(300);
        let mut served = [0; 3];
        for request in requests {
            served[read(request).await.parse::<usize>().unwrap()] += 1;
        }
        assert_eq!(served, [100; 3]);
        net.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn connections_for_more_streams_stay_within_the_limit_of_connections() {
    let permits = Arc::new(Semaphore::new(0));
    let mut cluster = http2();
    cluster.max_concurrent_streams = 100;
    cluster.limits.max_connections = 2;
    let net = Net::new(cluster, permitted(1000, &permits));
    let requests: Vec<_> = (0..300).map(|_| net.spawn(get())).collect();
    settle().await;
    settle().await;
    assert_eq!((net.made(), net.in_use(Resource::Pending)), (2, 100));
    assert!(net.stat(ClusterStat::CxOverflow) > 0);
    permits.add_permits(300);
    for request in requests {
        read(request).await;
    }
    assert_eq!(net.made(), 2);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_of_connections_a_request_waits_for_a_stream() {
    let permits = Arc::new(Semaphore::new(0));
    let mut cluster = http2();
    cluster.limits.max_connections = 1;
    cluster.max_concurrent_streams = 2;
    let net = Net::new(cluster, permitted(100, &permits));
    let requests: Vec<_> = (0..5).map(|_| net.spawn(get())).collect();
    settle().await;
    assert_eq!((net.made(), net.in_use(Resource::Pending)), (1, 3));
    permits.add_permits(5);
    for request in requests {
        assert_eq!(read(request).await, "0");
    }
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn many_at_once_stay_within_the_requests_of_a_connection() {
    let mut cluster = http2();
    cluster.max_requests_per_connection = 2;
    let net = Net::new(cluster, numbered);
    let requests: Vec<_> = (0..6).map(|_| net.spawn(get())).collect();
    let mut seen = Vec::new();
    for request in requests {
        seen.push(read(request).await);
    }
    seen.sort();
    assert_eq!(seen, ["0", "0", "1", "1", "2", "2"]);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_given_up_resets_its_stream_and_nothing_else() {
    let permits = Arc::new(Semaphore::new(0));
    let mut cluster = http2();
    cluster.limits.max_connections = 1;
    cluster.max_concurrent_streams = 1;
    let net = Net::new(cluster, permitted(100, &permits));
    let given_up = net.spawn(get());
    settle().await;
    let waits = net.spawn(get());
    settle().await;
    given_up.abort();
    settle().await;
    assert_eq!(
        net.in_use(Resource::Pending),
        0,
        "its stream is another's now"
    );
    permits.add_permits(1);
    assert_eq!(read(waits).await, "0");
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn after_goaway_requests_go_to_a_new_connection_and_streams_finish_on_the_old() {
    let permits = Arc::new(Semaphore::new(0));
    let permit = permits.clone();
    let net = Net::new(
        http2(),
        by_hand(move |number, mut connection| {
            let permits = permit.clone();
            async move {
                let mut first = true;
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    if std::mem::take(&mut first) && number == 0 {
                        connection.graceful_shutdown();
                    }
                    let permits = permits.clone();
                    tokio::spawn(async move {
                        permits.acquire().await.unwrap().forget();
                        let mut body = respond.send_response(Response::new(()), false).unwrap();
                        body.send_data(number.to_string().into(), true).unwrap();
                    });
                }
            }
        }),
    );
    let old = net.spawn(get());
    settle().await;
    let new = net.spawn(get());
    settle().await;
    assert_eq!(net.made(), 2);
    permits.add_permits(2);
    assert_eq!(read(old).await, "0");
    assert_eq!(read(new).await, "1");
    settle().await;
    assert_eq!(net.in_use(Resource::Connections), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn streams_above_the_last_one_of_a_goaway_were_not_looked_at() {
    for reason in [h2::Reason::NO_ERROR, h2::Reason::ENHANCE_YOUR_CALM] {
        let net = Net::new(http2(), move |_, mut stream| {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            tokio::spawn(async move {
                let mut seen = vec![0; 1024];
                // Preface and SETTINGS, then HEADERS.
                let _ = stream.read(&mut seen).await;
                stream
                    .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
                    .await
                    .unwrap();
                settle().await;
                let mut goaway = vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                goaway.extend(u32::from(reason).to_be_bytes());
                stream.write_all(&goaway).await.unwrap();
                let _ = stream.read_to_end(&mut seen).await;
            });
        });
        let error = net.get().await.unwrap_err();
        assert_eq!(error.failure(), Failure::RemoteRefused, "{reason:?}");
        assert!(error.is_unsent());
        net.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_given_up_counts_as_reset_by_us() {
    let net = Net::new(
        http2(),
        by_hand(move |_, mut connection| async move {
            let mut number = 0;
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                number += 1;
                // The first has no answer, the second half of one, the third a whole one.
                tokio::spawn(async move {
                    if number == 1 {
                        let _ = poll_fn(|cx| respond.poll_reset(cx)).await;
                        return;
                    }
                    let mut body = respond.send_response(Response::new(()), false).unwrap();
                    body.send_data("half".into(), number == 3).unwrap();
                    if number == 2 {
                        let _ = poll_fn(|cx| body.poll_reset(cx)).await;
                    }
                });
            }
        }),
    );
    let waiting = net.spawn(get());
    settle().await;
    assert_eq!(net.stat(ClusterStat::RqTxReset), 0);
    waiting.abort();
    settle().await;
    assert_eq!(net.stat(ClusterStat::RqTxReset), 1);
    let half = net.send(get()).await.unwrap();
    drop(half);
    settle().await;
    assert_eq!(net.stat(ClusterStat::RqTxReset), 2);
    assert_eq!(read(net.spawn(get())).await, "half");
    settle().await;
    assert_eq!(net.stat(ClusterStat::RqTxReset), 2);
    assert_eq!(net.stat(ClusterStat::RqRxReset), 0);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn resets_say_why() {
    for (reason, failure) in [
        (h2::Reason::REFUSED_STREAM, Failure::RemoteRefused),
        (h2::Reason::CANCEL, Failure::RemoteReset),
        (h2::Reason::PROTOCOL_ERROR, Failure::RemoteReset),
    ] {
        let net = Net::new(
            http2(),
            by_hand(move |_, mut connection| async move {
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    respond.send_reset(reason);
                }
            }),
        );
        let error = net.get().await.unwrap_err();
        assert_eq!(error.failure(), failure, "{reason:?}");
        assert_eq!(error.is_unsent(), failure == Failure::RemoteRefused);
        // As in Envoy, one that is refused is not counted.
        let counted = u64::from(failure == Failure::RemoteReset);
        assert_eq!(net.stat(ClusterStat::RqRxReset), counted);
        assert_eq!(net.stat(ClusterStat::RqTxReset), 0);
        assert_eq!(net.in_use(Resource::Connections), 1, "the connection stays");
        net.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_counts_after_the_head_of_the_response_too() {
    let net = Net::new(
        http2(),
        by_hand(|_, mut connection| async move {
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let head = Response::new(());
                let mut body = respond.send_response(head, false).unwrap();
                body.send_data(Bytes::from_static(b"part"), false).unwrap();
                body.send_reset(h2::Reason::INTERNAL_ERROR);
            }
        }),
    );
    let failure = match net.send(get()).await {
        // h2 may tell of the reset before it tells of the head.
        Err(error) => error.failure(),
        Ok(response) => {
            let read = http_body_util::BodyExt::collect(response.into_body()).await;
            read.unwrap_err().failure()
        }
    };
    assert_eq!(failure, Failure::RemoteReset);
    assert_eq!(net.stat(ClusterStat::RqRxReset), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_length_is_not_given_one() {
    let net = Net::new(
        http2(),
        by_hand(|_, mut connection| async move {
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let mut head = Response::new(());
                let length = request.headers().get("content-length").is_some();
                let status = if length { 400 } else { 200 };
                *head.status_mut() = http::StatusCode::from_u16(status).unwrap();
                respond.send_response(head, true).unwrap();
            }
        }),
    );
    for body in [Body::empty(), Body::from(Bytes::from_static(b"x"))] {
        let request = Request::post("/").header("host", "c").body(body).unwrap();
        assert_eq!(net.send(request).await.unwrap().status(), 200);
    }
    let request = Request::post("/")
        .header("host", "c")
        .header("content-length", "0");
    let request = request.body(Body::empty()).unwrap();
    assert_eq!(
        net.send(request).await.unwrap().status(),
        400,
        "it is passed on"
    );
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_speak_http2_loses_its_connection() {
    let net = Net::new(http2(), |_, mut stream| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        tokio::spawn(async move {
            let answer = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
    });
    let error = net.get().await.unwrap_err();
    // hyper keeps what h2 said to itself.
    assert_eq!(error.failure(), Failure::ConnectionTermination);
    settle().await;
    assert_eq!(net.in_use(Resource::Connections), 0);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_pings_loses_its_connection() {
    let mut cluster = http2();
    cluster.http2_keepalive = Some((10 * SECOND, 5 * SECOND));
    let net = Net::new(cluster, |_, mut stream| {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        tokio::spawn(async move {
            stream
                .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
                .await
                .unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
    });
    let began = tokio::time::Instant::now();
    let error = net.get().await.unwrap_err();
    assert_eq!(error.failure(), Failure::ConnectionTermination);
    assert_eq!(began.elapsed().as_secs(), 15);
    settle().await;
    assert_eq!(net.in_use(Resource::Connections), 0);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_breaks_off_resets_its_stream() {
    let net = Net::new(http2(), |_, stream| {
        answer(stream, 10, |request| async move {
            let _ = http_body_util::BodyExt::collect(request.into_body()).await;
            std::future::pending().await
        });
    });
    let broken =
        futures_util::stream::iter([Ok(Frame::data(Bytes::from_static(b"x"))), Err("broken")]);
    let body = Body::new(StreamBody::new(broken));
    let request = Request::post("/").header("host", "c").body(body).unwrap();
    let error = net.send(request).await.unwrap_err();
    assert_eq!(error.failure(), Failure::LocalReset);
    net.finish().await;
}
