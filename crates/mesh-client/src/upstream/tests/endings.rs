//! HTTP/1.1: how exchanges end, and what becomes of their connection.

use super::http1::{by_hand, head};
use super::*;
use mesh_core::Failure;
use tokio::io::AsyncWriteExt;

#[tokio::test(start_paused = true)]
async fn a_408_on_an_idle_connection_is_no_error() {
    let late = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n";
    for (said, errors) in [(&late[..], 0), (b"HTTP/1.1 200 OK\r\n\r\n", 1)] {
        let served = Arc::new(Mutex::new(None));
        let slot = served.clone();
        let net = Net::new(
            cluster(),
            by_hand(move |_, mut stream| {
                let slot = slot.clone();
                async move {
                    head(&mut stream).await;
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                    *slot.lock().unwrap() = Some(stream);
                }
            }),
        );
        assert_eq!(net.get().await.unwrap(), "");
        settle().await;
        assert_eq!(net.in_use(Resource::Connections), 1);
        let mut stream = served.lock().unwrap().take().unwrap();
        stream.write_all(said).await.unwrap();
        settle().await;
        assert_eq!(net.in_use(Resource::Connections), 0);
        assert_eq!(net.stat(ClusterStat::CxProtocolError), errors);
        net.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_free_before_a_body_that_is_there_was_read() {
    let net = Net::new(cluster(), numbered);
    let first = net.send(get()).await.unwrap();
    let second = net.send(get()).await.unwrap();
    assert_eq!(net.made(), 1);
    assert_eq!(net.in_use(Resource::Requests), 2, "until they were read");
    for response in [first, second] {
        assert_eq!(mesh_test::read(response.into_body()).await, "0");
    }
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_wants_and_that_is_there_gives_its_connection_back() {
    let net = Net::new(
        cluster(),
        by_hand(|number, mut stream| async move {
            while !head(&mut stream).await.is_empty() {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{number}\r\n0\r\n\r\n"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }),
    );
    drop(net.send(get()).await.unwrap());
    assert_eq!(net.get().await.unwrap(), "0");
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_breaks_off_is_its_callers_failure() {
    for (body, failure) in [
        (broken(Error::new(Failure::ClientGone)), Failure::ClientGone),
        (broken(io::Error::other("ours")), Failure::Internal),
    ] {
        let net = Net::new(
            cluster(),
            by_hand(|_, mut stream| async move {
                head(&mut stream).await;
                head(&mut stream).await;
            }),
        );
        let request = Request::post("/").header("host", "c").body(body).unwrap();
        let error = net.send(request).await.unwrap_err();
        assert_eq!(error.failure(), failure);
        assert!(!error.is_unsent());
        settle().await;
        assert_eq!(net.in_use(Resource::Connections), 0);
        assert_eq!(net.stat(ClusterStat::CxDestroyLocal), 1);
        net.finish().await;
    }
}

/// A body that fails at once.
fn broken(error: impl Into<mesh_core::BoxError>) -> Body {
    let frames = futures_util::stream::iter([Err::<Frame<Bytes>, _>(error.into())]);
    Body::new(StreamBody::new(frames))
}

#[tokio::test(start_paused = true)]
async fn a_head_that_breaks_off_is_malformed_and_none_at_all_is_not() {
    for (said, failure, errors) in [
        ("", Failure::ConnectionTermination, 0),
        (
            "HTTP/1.1 200 OK\r\ncontent-le",
            Failure::UpstreamProtocol,
            1,
        ),
    ] {
        let net = Net::new(
            cluster(),
            by_hand(move |_, mut stream| async move {
                head(&mut stream).await;
                stream.write_all(said.as_bytes()).await.unwrap();
            }),
        );
        let error = net.get().await.unwrap_err();
        assert_eq!(error.failure(), failure, "{said:?}");
        assert_eq!(net.stat(ClusterStat::CxProtocolError), errors, "{said:?}");
        net.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_head_may_be_as_large_as_in_envoy() {
    for (size, fits) in [(79 << 10, true), (81 << 10, false)] {
        let net = Net::new(
            cluster(),
            by_hand(move |_, mut stream| async move {
                head(&mut stream).await;
                let large = "x".repeat(size);
                let answer = format!("HTTP/1.1 200 OK\r\nx: {large}\r\ncontent-length: 0\r\n\r\n");
                // Who is refused may not read all of it.
                let _ = stream.write_all(answer.as_bytes()).await;
            }),
        );
        let response = net.send(get()).await;
        assert_eq!(response.is_ok(), fits, "{size}");
        drop(response);
        net.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_body_broke_off_can_be_passed_on_first() {
    let net = Net::new(
        cluster(),
        by_hand(|_, mut stream| async move {
            head(&mut stream).await;
            let part = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc";
            stream.write_all(part).await.unwrap();
        }),
    );
    let mut body = net.send(get()).await.unwrap().into_body();
    settle().await;
    let poll = |body: &mut Body| {
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        http_body::Body::poll_frame(std::pin::Pin::new(body), &mut cx)
    };
    let data = poll(&mut body).map(|frame| frame.unwrap().unwrap().into_data().unwrap());
    assert_eq!(data, std::task::Poll::Ready(Bytes::from("abc")));
    assert!(poll(&mut body).is_pending(), "a turn to write it");
    assert!(!http_body::Body::is_end_stream(&body), "it is not whole");
    let std::task::Poll::Ready(Some(Err(error))) = poll(&mut body) else {
        panic!("it broke off");
    };
    assert_eq!(error.failure(), Failure::UpstreamProtocol);
    assert_eq!(net.stat(ClusterStat::CxProtocolError), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn trailers_of_a_request_are_left_out_even_if_they_were_announced() {
    for announced in [false, true] {
        let (to, seen) = tokio::sync::oneshot::channel();
        let to = Mutex::new(Some(to));
        let net = Net::new(
            cluster(),
            by_hand(move |_, mut stream| {
                let to = to.lock().unwrap().take().unwrap();
                async move {
                    head(&mut stream).await;
                    to.send(head(&mut stream).await).unwrap();
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer).await.unwrap();
                }
            }),
        );
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-t", 1.into());
        let frames = [
            Ok::<_, Infallible>(Frame::data(Bytes::from("abc"))),
            Ok(Frame::trailers(trailers)),
        ];
        let body = StreamBody::new(futures_util::stream::iter(frames));
        let mut request = Request::post("/").header("host", "c");
        if announced {
            request = request.header("trailer", "x-t");
        }
        net.send(request.body(Body::new(body)).unwrap())
            .await
            .unwrap();
        assert_eq!(seen.await.unwrap(), "3\r\nabc\r\n0\r\n\r\n");
        net.finish().await;
    }
}
