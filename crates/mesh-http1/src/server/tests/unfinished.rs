//! Bodies that are read elsewhere, or not to their end.

use super::*;
use futures_util::{FutureExt, future};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

const LONG: Duration = Duration::from_secs(60);

/// A place that a service puts its request's body into.
fn place() -> (
    Mutex<Option<oneshot::Sender<Body>>>,
    oneshot::Receiver<Body>,
) {
    let (give, take) = oneshot::channel();
    (Mutex::new(Some(give)), take)
}

fn put(place: &Mutex<Option<oneshot::Sender<Body>>>, request: Request<Body>) {
    let give = place.lock().unwrap().take().unwrap();
    give.send(request.into_body()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_read_beside_its_connection_wakes_it() {
    let (mut stream, theirs) = tokio::io::duplex(1 << 10);
    let (place, take) = place();
    let service = service_fn(move |request| {
        put(&place, request);
        future::pending::<Result<Reply, Infallible>>()
    });
    let head = b"POST / HTTP/1.1\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\n";
    let server = Server::with_buffers(Buffers::default());
    let connection = server.serve(theirs, head, service);
    let reading = async { take.await.unwrap().collect().await.unwrap().to_bytes() };
    // One task has both, and polls the connection first.
    let task = tokio::spawn(future::join(connection, reading));
    let mut seen = [0; 25];
    let read = timeout(LONG, stream.read_exact(&mut seen)).await;
    read.expect("the caller is told to go on").unwrap();
    assert_eq!(&seen, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").await.unwrap();
    settle().await;
    drop(stream);
    let ended = timeout(LONG, task).await.expect("it sees the caller leave");
    let (ended, body) = ended.unwrap();
    assert!(matches!(ended, Err(Error::Closed)));
    assert_eq!(body, "abc");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_still_read_after_the_answer_fails_and_loses_nothing_unseen() {
    for waits in [false, true] {
        let (place, take) = place();
        let mut served = serve(move |request| {
            put(&place, request);
            async { text("no") }
        });
        served
            .send("POST / HTTP/1.1\r\ncontent-length: 6\r\n\r\n")
            .await;
        let mut body = take.await.unwrap();
        served
            .expect("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")
            .await;
        let began = Instant::now();
        let error = if waits {
            let reading = tokio::spawn(body.collect());
            settle().await;
            reading.await.unwrap().unwrap_err()
        } else {
            settle().await;
            // Read by who waits for the caller to leave.
            served.send("abc").await;
            settle().await;
            let frame = body.frame().now_or_never().expect("it is over");
            frame.unwrap().unwrap_err()
        };
        assert!(matches!(error, Error::Body(BodyError::Incomplete)));
        assert_eq!(began.elapsed(), Duration::ZERO);
        drop(served.stream);
        served.task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn no_protocol_begins_in_the_middle_of_a_request() {
    let mut served = serve(|_| async {
        let mut response = text("");
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response
    });
    let head = "GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: a\r\n";
    served
        .send(&format!("{head}content-length: 3\r\n\r\nab"))
        .await;
    assert_eq!(served.rest().await, "");
    assert!(matches!(served.task.await.unwrap(), Err(Error::Service(_))));
    for (field, status) in [
        ("content-length: 3", 400),
        ("transfer-encoding: chunked", 501),
    ] {
        let mut served = serve(told);
        served
            .send(&format!("CONNECT a:1 HTTP/1.1\r\n{field}\r\n\r\n"))
            .await;
        served.expect(&format!("HTTP/1.1 {status} ")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_body_that_broke_holds_no_memory() {
    let mut served = serve(|request: Request<Body>| async {
        assert!(request.into_body().collect().await.is_err());
        future::pending().await
    });
    served
        .send("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        .await;
    settle().await;
    served.send(&"x".repeat(10_000)).await;
    settle().await;
    assert_eq!(served.buffers.kept().0, 1, "one was enough, and is free");
    drop(served.stream);
    assert!(matches!(served.task.await.unwrap(), Err(Error::Closed)));
}

#[tokio::test(start_paused = true)]
async fn empty_lines_before_a_head_are_nothing_and_a_lone_cr_is_no_line() {
    let mut served = serve(told);
    for piece in ["\r\n", "\n\r\n\n", "\r", "\n"] {
        served.send(piece).await;
        settle().await;
    }
    assert_eq!(served.buffers.kept().0, 1, "nothing has begun");
    tokio::time::sleep(LONG).await;
    served.send("\r").await;
    settle().await;
    served.send("\nGET / HTTP/1.1\r\n\r\n").await;
    served.expect("HTTP/1.1 200 OK\r\n").await;
    for lines in ["\r", "\r\r", "\r\n\r", "\r\r\n"] {
        let mut served = serve(told);
        served.send(&format!("{lines}GET / HTTP/1.1\r\n\r\n")).await;
        served.expect("HTTP/1.1 400 Bad Request\r\n").await;
    }
}
