//! What a drain waits for.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drain_closes_a_kept_connection_at_once() {
    let served = ok();
    let mut connection = served.connect();
    connection.send(GET).await;
    connection.head().await;
    served.drain.send_replace(true);
    let began = Instant::now();
    assert_eq!(connection.rest().await, "");
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(served.stat(HttpStat::CxDrainClose), 1);
    served.assert_quiet();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_was_on_its_way_when_the_drain_began_is_answered() {
    let served = ok();
    let mut connection = served.connect();
    settle().await;
    served.drain.send_replace(true);
    settle().await;
    connection.send(GET).await;
    let answer = connection.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    // The same for a connection that was accepted last.
    let mut late = served.connect();
    late.send(GET).await;
    assert!(late.rest().await.starts_with("HTTP/1.1 200 OK\r\n"));
    // One that sends nothing is not waited for.
    let began = Instant::now();
    assert_eq!(served.connect().rest().await, "");
    assert_eq!(began.elapsed(), FIRST_REQUEST);
    served.assert_quiet();
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_requests_finish() {
    let served = Served::new(|_| async {
        tokio::time::sleep(100 * SECOND).await;
        Response::new(Body::from(Bytes::from_static(b"done")))
    });
    let mut http1 = served.connect();
    http1.send(GET).await;
    let (mut sender, http2) = served.connect_http2().await;
    let request = Request::get("http://a/").body(Full::default()).unwrap();
    let response = tokio::spawn(sender.send_request(request));
    settle().await;
    served.drain.send_replace(true);
    assert!(http1.rest().await.ends_with("done"));
    let response = response.await.unwrap().unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        "done"
    );
    http2.await.unwrap();
    served.assert_quiet();
}
