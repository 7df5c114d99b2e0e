//! HTTP/1.1: when a connection is used again and when it is not.

use super::*;
use http::{StatusCode, header};
use mesh_core::Failure;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

/// Reads a request head.
pub(super) async fn head(stream: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Plays the upstream by hand on every connection.
pub(super) fn by_hand<F, R>(script: F) -> impl Fn(usize, DuplexStream) + Send + Sync
where
    F: Fn(usize, DuplexStream) -> R + Send + Sync,
    R: Future<Output = ()> + Send + 'static,
{
    move |number, stream| drop(tokio::spawn(script(number, stream)))
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again() {
    let net = Net::new(cluster(), numbered);
    for _ in 0..3 {
        assert_eq!(net.get().await.unwrap(), "0");
    }
    assert_eq!(net.made(), 1);
    assert_eq!(net.stat(ClusterStat::CxActive), 1);
    assert_eq!(net.stat(ClusterStat::RqPendingTotal), 1);
    assert_eq!(net.in_use(Resource::Connections), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_interim_response_counts_once_whatever_becomes_of_the_request() {
    let net = Net::new(
        cluster(),
        by_hand(|number, mut stream| async move {
            head(&mut stream).await;
            let mut text = "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n".to_owned();
            if number == 0 {
                text += "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            }
            stream.write_all(text.as_bytes()).await.unwrap();
        }),
    );
    net.get().await.unwrap();
    assert!(net.get().await.is_err());
    // Envoy 1.40 for each: upstream_rq_103: 1, upstream_rq_1xx: 1, upstream_rq_completed: 2.
    assert_eq!(net.stat(ClusterStat::Rq1xx), 2);
    assert_eq!(net.stat(ClusterStat::RqCompleted), 4);
    let counted = [(103, 2), (200, 1), (503, 1)];
    assert_eq!(net.entry.live().stats().codes().counts(), counted);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_closed_while_idle_is_replaced_without_a_failure() {
    let close = Arc::new(Notify::new());
    let closing = close.clone();
    let net = Net::new(cluster(), move |number, stream| {
        let server = serve(stream, move |_| async move { text(number.to_string()) });
        let closing = closing.clone();
        tokio::spawn(async move {
            closing.notified().await;
            server.abort();
        });
    });
    assert_eq!(net.get().await.unwrap(), "0");
    close.notify_one();
    settle().await;
    assert_eq!(net.get().await.unwrap(), "1");
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_not_sent_moves_to_another_connection() {
    let served = Arc::new(Mutex::new(None));
    let slot = served.clone();
    let net = Net::new(
        cluster(),
        by_hand(move |number, mut stream| {
            let slot = slot.clone();
            async move {
                head(&mut stream).await;
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                *slot.lock().unwrap() = Some(stream);
            }
        }),
    );
    assert_eq!(net.get().await.unwrap(), "0");
    settle().await;
    // Closed, and the connection's task has no turn to notice before the next request is given to it.
    drop(served.lock().unwrap().take().unwrap());
    assert_eq!(net.get().await.unwrap(), "1");
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_a_request_and_closes_is_not_asked_again() {
    let net = Net::new(
        cluster(),
        by_hand(|_, mut stream| async move {
            head(&mut stream).await;
        }),
    );
    let error = net.get().await.unwrap_err();
    assert_eq!(error.failure(), Failure::ConnectionTermination);
    assert!(!error.is_unsent());
    assert_eq!(net.made(), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_before_the_response_closes_the_connection() {
    let net = Net::new(cluster(), |_, stream| {
        serve(stream, |_| std::future::pending());
    });
    let request = net.spawn(get());
    settle().await;
    assert_eq!(net.in_use(Resource::Connections), 1);
    request.abort();
    settle().await;
    assert_eq!(net.in_use(Resource::Connections), 0);
    assert_eq!(net.stat(ClusterStat::CxDestroy), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_within_the_response_closes_the_connection() {
    let net = Net::new(
        cluster(),
        by_hand(|_, mut stream| async move {
            head(&mut stream).await;
            let part = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart";
            stream.write_all(part).await.unwrap();
            head(&mut stream).await;
        }),
    );
    let response = net.send(get()).await.unwrap();
    assert_eq!(net.in_use(Resource::Connections), 1);
    drop(response);
    settle().await;
    assert_eq!(net.in_use(Resource::Connections), 0);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_response_that_breaks_off_fails_the_body_and_closes_the_connection() {
    let net = Net::new(
        cluster(),
        by_hand(|_, mut stream| async move {
            head(&mut stream).await;
            let part = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart";
            stream.write_all(part).await.unwrap();
        }),
    );
    let response = net.send(get()).await.unwrap();
    let error = http_body_util::BodyExt::collect(response.into_body()).await;
    // It is not as long as it says, as in Envoy.
    let failure = error.unwrap_err().failure();
    assert_eq!(failure, Failure::UpstreamProtocol);
    assert_eq!(net.stat(ClusterStat::CxProtocolError), 1);
    settle().await;
    assert_eq!(net.in_use(Resource::Connections), 0);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_http_is_a_protocol_error_without_a_reason() {
    let net = Net::new(
        cluster(),
        by_hand(|_, mut stream| async move {
            head(&mut stream).await;
            stream.write_all(b"NOT HTTP AT ALL\r\n\r\n").await.unwrap();
        }),
    );
    let error = net.get().await.unwrap_err();
    assert_eq!(error.failure(), Failure::UpstreamProtocol);
    assert_eq!(error.cause(), None, "Envoy tells no details of its parser");
    assert_eq!(net.stat(ClusterStat::CxProtocolError), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn bytes_that_belong_to_no_response_are_a_protocol_error() {
    let net = Net::new(
        cluster(),
        by_hand(|_, mut stream| async move {
            head(&mut stream).await;
            // A body after an answer to HEAD.
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc";
            stream.write_all(answer).await.unwrap();
            head(&mut stream).await;
        }),
    );
    let mut request = get();
    *request.method_mut() = http::Method::HEAD;
    assert!(net.send(request).await.is_ok());
    settle().await;
    assert_eq!(net.stat(ClusterStat::CxProtocolError), 1);
    assert_eq!(net.in_use(Resource::Connections), 0);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_on_which_the_request_is_still_being_sent_is_not_used_again() {
    // A refusal in the middle of an upload.
    let net = Net::new(
        cluster(),
        by_hand(|number, mut stream| async move {
            loop {
                if head(&mut stream).await.is_empty() {
                    return;
                }
                let answer = format!("HTTP/1.1 413 No\r\ncontent-length: 1\r\n\r\n{number}");
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        }),
    );
    let (request, more) = upload();
    more.send("first").unwrap();
    let response = net.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(mesh_test::read(response.into_body()).await, "0");
    let next = tokio::time::timeout(Duration::from_secs(1), net.get()).await;
    assert_eq!(next.expect("not stuck behind the upload").unwrap(), "1");
    drop(more);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_upload_was_read_whole_is_used_again() {
    let net = Net::new(cluster(), |number, stream| {
        serve(stream, move |request| async move {
            let body = mesh_test::read(request.into_body()).await;
            text(format!("{number}{body}"))
        });
    });
    for _ in 0..2 {
        let (request, more) = upload();
        more.send("x").unwrap();
        drop(more);
        let response = net.send(request).await.unwrap();
        assert_eq!(mesh_test::read(response.into_body()).await, "0x");
    }
    // Of these as many are sent as were declared, and no more are asked for.
    let (mut request, more) = upload();
    request
        .headers_mut()
        .insert(header::CONTENT_LENGTH, 1.into());
    more.send("y").unwrap();
    let response = net.send(request).await.unwrap();
    assert_eq!(mesh_test::read(response.into_body()).await, "0y");
    assert_eq!(net.get().await.unwrap(), "0");
    drop(more);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn responses_without_a_body_bring_their_connection_back() {
    let net = Net::new(
        cluster(),
        by_hand(|_, mut stream| async move {
            loop {
                let head = head(&mut stream).await;
                let answer = match head.split(' ').next() {
                    Some("HEAD") => "HTTP/1.1 200 OK\r\ncontent-length: 1000",
                    Some("PUT") => "HTTP/1.1 204 No Content",
                    Some("GET") => "HTTP/1.1 304 Not Modified\r\ncontent-length: 1000",
                    _ => return,
                };
                let answer = format!("{answer}\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }),
    );
    for method in ["HEAD", "PUT", "GET"] {
        let mut request = get();
        *request.method_mut() = method.parse().unwrap();
        let response = net.send(request).await.unwrap();
        assert_eq!(mesh_test::read(response.into_body()).await, "", "{method}");
    }
    assert_eq!(net.made(), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn trailers_end_a_response_and_are_left_out() {
    let net = Net::new(
        cluster(),
        by_hand(|_, mut stream| async move {
            while !head(&mut stream).await.is_empty() {
                let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n\
                    2\r\nok\r\n0\r\nx: 1\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        }),
    );
    for _ in 0..2 {
        let mut request = get();
        request
            .headers_mut()
            .insert("te", "trailers".parse().unwrap());
        let body = net.send(request).await.unwrap().into_body();
        let body = http_body_util::BodyExt::collect(body).await.unwrap();
        assert!(body.trailers().is_none());
        assert_eq!(body.to_bytes(), "ok");
    }
    assert_eq!(net.made(), 1);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_response_with_connection_close_ends_its_connection() {
    let net = Net::new(cluster(), |number, stream| {
        serve(stream, move |_| async move {
            let mut response = text(number.to_string());
            let close = "close".parse().unwrap();
            response.headers_mut().insert(header::CONNECTION, close);
            response
        });
    });
    for number in ["0", "1", "2", "3", "4", "5"] {
        let response = net.send(get()).await.unwrap();
        assert!(!response.headers().contains_key(header::CONNECTION));
        assert_eq!(mesh_test::read(response.into_body()).await, number);
    }
    settle().await;
    assert_eq!(net.in_use(Resource::Connections), 0);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_connection_counts_until_it_is_closed_and_is_not_used_again() {
    let net = Net::new(
        cluster(),
        by_hand(|number, mut stream| async move {
            if head(&mut stream).await.contains("upgrade: echo") {
                let answer = b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
                stream.write_all(answer).await.unwrap();
                let (mut from, mut to) = tokio::io::split(stream);
                tokio::io::copy(&mut from, &mut to).await.unwrap();
            } else {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{number}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }),
    );
    let request = Request::get("/")
        .header("host", "c")
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(Body::empty())
        .unwrap();
    let mut response = net.send(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgrade = mesh_http1::upgrade::on(response.extensions_mut()).unwrap();
    let mut upgraded = upgrade.await.unwrap();
    drop(response);
    upgraded.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    upgraded.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"hello");
    assert_eq!(net.in_use(Resource::Connections), 1);
    assert_eq!(net.stat(ClusterStat::CxActive), 1);
    assert_eq!(net.get().await.unwrap(), "1");
    drop(upgraded);
    settle().await;
    assert_eq!(net.stat(ClusterStat::CxDestroy), 2);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn of_an_answer_that_opens_no_websocket_only_the_head_is_passed_on() {
    for (protocol, status, whole) in [
        ("WebSocket", 200, false),
        ("websocket", 302, false),
        ("websocket", 404, true),
        ("other", 200, true),
    ] {
        let script = move |_, mut stream: DuplexStream| async move {
            assert!(!head(&mut stream).await.contains("content-length"));
            let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\nx-a: 1\r\n\r\nok");
            stream.write_all(text.as_bytes()).await.unwrap();
        };
        let net = Net::new(cluster(), by_hand(script));
        let request = Request::post("/")
            .header("connection", "upgrade")
            .header("upgrade", protocol);
        let response = net.send(request.body(Body::empty()).unwrap()).await;
        let response = response.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["x-a"], "1");
        let length = response.headers().get(header::CONTENT_LENGTH);
        assert_eq!(length.is_some(), whole, "{protocol} {status}");
        let body = mesh_test::read(response.into_body()).await;
        assert_eq!(body, if whole { "ok" } else { "" });
        net.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_that_nobody_asked_for_is_a_protocol_error() {
    let net = Net::new(
        cluster(),
        by_hand(|_, mut stream| async move {
            head(&mut stream).await;
            let answer = b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }),
    );
    let error = net.get().await.unwrap_err();
    assert_eq!(error.failure(), Failure::UpstreamProtocol);
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_server_does_not_make_the_answer_old() {
    let net = Net::new(
        cluster(),
        by_hand(|_, mut stream| async move {
            head(&mut stream).await;
            stream
                .write_all(b"HTTP/1.0 200 OK\r\n\r\nold")
                .await
                .unwrap();
        }),
    );
    let response = net.send(get()).await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_11);
    assert_eq!(mesh_test::read(response.into_body()).await, "old");
    net.finish().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_http_is_a_protocol_error() {
    let net = Net::new(
        cluster(),
        by_hand(|_, mut stream| async move {
            head(&mut stream).await;
            stream
                .write_all(b"220 mail.example ESMTP\r\n")
                .await
                .unwrap();
        }),
    );
    let error = net.get().await.unwrap_err();
    assert_eq!(error.failure(), Failure::UpstreamProtocol);
    net.finish().await;
}
