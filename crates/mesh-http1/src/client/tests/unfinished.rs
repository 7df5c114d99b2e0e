//! Exchanges that end before they are over, and those who come between.

use super::*;
use std::time::Duration;
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_response_that_is_waited_for_fails_when_its_connection_is_dropped() {
    let mut connected = connect();
    let response = connected.ask(get()).await;
    connected.task.abort();
    let response = timeout(LONG, response).await.expect("it was woken");
    let failed = response.unwrap_err();
    assert!(matches!(failed.error, Error::Closed) && failed.request.is_none());
}

#[tokio::test]
async fn a_body_until_the_end_is_not_whole_when_we_end_it() {
    let mut connected = connect();
    let response = connected.ask(get()).await;
    connected.answers("HTTP/1.1 200 OK\r\n\r\nthe fir").await;
    let mut body = response.await.unwrap().into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "the fir");
    connected.task.abort();
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Body(BodyError::Incomplete)));
}

#[tokio::test]
async fn an_early_answer_is_read_though_nobody_takes_the_request() {
    let mut connected = connect();
    let (give, request) = streamed();
    let response = connected.ask(request).await;
    connected.sees("POST /s HTTP/1.1\r\n").await;
    connected.answers(OK).await;
    let response = response.await.unwrap();
    connected.answers("no").await;
    drop(connected.server);
    // The connection's task cannot send it.
    give.send("abc").unwrap();
    settle().await;
    let read = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(read, "no");
    assert!(connected.sender.is_closed());
    connected.task.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_comes_too_early_harms_nobody() {
    let mut connected = connect();
    let response = connected.ask(get()).await;
    connected.answers(&format!("{OK}o")).await;
    let response = response.await.unwrap();
    // A part of the body was read, and is nobody's yet.
    let failed = connected.sender.send_request(get()).await.unwrap_err();
    assert!(failed.request.is_some());
    connected.answers("k").await;
    let read = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(read, "ok");
    assert!(connected.sender.is_ready());
}

#[tokio::test]
async fn no_protocol_begins_in_the_middle_of_a_request() {
    let mut connected = connect();
    let (_give, mut request) = streamed();
    for (name, value) in [("upgrade", "echo"), ("connection", "upgrade")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let response = connected.ask(request).await;
    connected
        .answers("HTTP/1.1 101 Switching Protocols\r\n\r\n")
        .await;
    let failed = response.await.unwrap_err();
    assert!(matches!(failed.error, Error::Head(HeadError::Unasked)));
    assert!(connected.sender.is_closed());
}
