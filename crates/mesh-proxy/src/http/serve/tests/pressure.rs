//! What becomes of connections when the process runs out of something, or they are abused.

use super::*;
use mesh_core::stats::Http2Stat;
use std::future::pending;

fn well() -> Served {
    Served::new(|_| async { Response::new(Body::empty()) })
}

#[tokio::test(start_paused = true)]
async fn under_pressure_a_connection_of_http1_ends_with_its_next_response() {
    let served = well();
    let mut connection = served.connect();
    let get = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    connection.stream.write_all(get).await.unwrap();
    let mut answer = [0; 512];
    let read = connection.stream.read(&mut answer).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer[..read]).contains("connection: close"));
    served.guard.end_connections();
    connection.stream.write_all(get).await.unwrap();
    let mut rest = Vec::new();
    connection.stream.read_to_end(&mut rest).await.unwrap();
    let rest = String::from_utf8(rest).unwrap();
    assert!(
        rest.starts_with("HTTP/1.1 200") && rest.contains("connection: close\r\n"),
        "{rest}"
    );
    let stats = served.statistics.http.block(&"in".into());
    assert_eq!(stats.get(HttpStat::CxOverloadDisableKeepalive), 1);
}

#[tokio::test(start_paused = true)]
async fn under_pressure_a_connection_of_http2_ends_with_what_it_has() {
    let served = well();
    served.guard.end_connections();
    let Connection { task, stream } = served.connect();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    let request = || {
        let request = Request::get("http://a/").body(Full::<Bytes>::default());
        request.unwrap()
    };
    assert_eq!(sender.send_request(request()).await.unwrap().status(), 200);
    connection.await.unwrap().unwrap();
    task.await.unwrap();
    assert!(sender.send_request(request()).await.is_err());
    let stats = served.statistics.http.block(&"in".into());
    assert_eq!(stats.get(HttpStat::CxOverloadDisableKeepalive), 1);
}

#[tokio::test(start_paused = true)]
async fn who_resets_request_after_request_is_cut_off_and_who_waits_is_not() {
    for (wait, cut_off) in [(Duration::ZERO, true), (3 * SECOND, false)] {
        let served = Served::new(|_| pending());
        let Connection { task, stream } = served.connect();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        let connection = tokio::spawn(connection);
        for _ in 0..400 {
            let mut sender = sender.clone();
            if sender.ready().await.is_err() {
                break;
            }
            let request = Request::get("http://a/").body(Full::<Bytes>::default());
            let answer = tokio::spawn(sender.send_request(request.unwrap()));
            // The request gets there before it is reset, and the reset before the next.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(wait).await;
            answer.abort();
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        let stats = served.statistics.http.block(&"in".into());
        let count = stats.get(HttpStat::RqTooManyPrematureResets);
        assert_eq!(count, u64::from(cut_off), "after {wait:?}");
        assert_eq!(task.is_finished(), cut_off);
        drop(sender);
        connection.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_frames_cuts_the_connection_off_and_is_counted() {
    let served = well();
    let mut connection = served.connect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    connection.stream.write_all(preface).await.unwrap();
    let priority = b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x10";
    // It may be over before all of it is written.
    let _ = connection.stream.write_all(&priority.repeat(101)).await;
    connection.task.await.unwrap();
    let flood = Http2Stat::PriorityFramesFlood;
    assert_eq!(served.guard.http2().get(flood), 1);
    let stats = served.statistics.http.block(&"in".into());
    assert_eq!(stats.get(HttpStat::CxProtocolError), 1);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_ends_is_waited_for_no_longer_than_the_limits_say() {
    let served = well();
    assert_eq!(served.manager.request_head_timeout, None);
    let mut connection = served.connect();
    let start = Instant::now();
    connection.stream.write_all(b"GET / HT").await.unwrap();
    let mut answer = Vec::new();
    connection.stream.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 408"));
    let waited = start.elapsed();
    assert!((60 * SECOND..65 * SECOND).contains(&waited), "{waited:?}");
}
