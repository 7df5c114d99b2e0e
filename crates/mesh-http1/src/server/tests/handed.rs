//! What a server hands to others: connections of HTTP/2, and heads that are none.

use super::*;
use proptest::prelude::*;
use std::pin::Pin;
use std::task::Poll;

const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Plain = tower::util::BoxCloneService<Request<Body>, Reply, Infallible>;

fn server() -> Server {
    Server::with_buffers(Buffers::default())
        .date(false)
        .gives_up_http2(true)
}

fn plain() -> Plain {
    Plain::new(service_fn(async |request: Request<Body>| {
        Ok::<_, Infallible>(told(request).await)
    }))
}

/// What a future is when it is polled once.
async fn once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_http2_comes_back_with_what_was_read_of_it() {
    let (mut stream, theirs) = tokio::io::duplex(1 << 10);
    let mut connection = server().serve::<_, _, Either<Full<Bytes>, Body>>(theirs, b"", plain());
    for byte in PREFACE.bytes().chain(*b"more") {
        stream.write_all(&[byte]).await.unwrap();
        let ended = once(&mut connection).await;
        if let Poll::Ready(result) = ended {
            assert!(matches!(result, Err(Error::Http2)));
            break;
        }
    }
    assert_eq!(connection.requests(), 0);
    let mut parts = connection.into_parts().unwrap();
    assert_eq!(parts.first, PREFACE);
    stream.write_all(b"after").await.unwrap();
    let mut after = [0; 5];
    parts.io.read_exact(&mut after).await.unwrap();
    assert_eq!(&after, b"after");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_first_bytes_holds_no_buffer() {
    let (mut stream, theirs) = tokio::io::duplex(1 << 10);
    let buffers = Buffers::keeping(1);
    let server = Server::with_buffers(buffers.clone()).gives_up_http2(true);
    let mut connection = server.serve::<_, _, Either<Full<Bytes>, Body>>(theirs, b"", plain());
    assert!(once(&mut connection).await.is_pending());
    assert_eq!(buffers.kept().0, 1, "what it looked with is free again");
    stream.write_all(b"PRI * HT").await.unwrap();
    assert!(once(&mut connection).await.is_pending());
    assert_eq!(buffers.kept().0, 0);
    drop(connection);
}

#[tokio::test(start_paused = true)]
async fn http2_is_refused_where_nobody_wants_it_and_behind_a_request() {
    let mut served = serve(told);
    served.send(PREFACE).await;
    served.expect("HTTP/1.1 426 Upgrade Required\r\n").await;

    let (mut stream, theirs) = tokio::io::duplex(1 << 10);
    let task = tokio::spawn(server().serve(theirs, b"", plain()));
    stream.write_all(GET.as_bytes()).await.unwrap();
    stream.write_all(PREFACE.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("HTTP/1.1 426"), "{answer}");
    drop(stream);
    let error = task.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Head(HeadError::Version)));
}

#[tokio::test(start_paused = true)]
async fn a_part_of_the_preface_is_a_part_of_a_head() {
    let (mut stream, theirs) = tokio::io::duplex(1 << 10);
    let limited = server().head_timeout(Some(Duration::from_secs(5)));
    let task = tokio::spawn(limited.serve(theirs, b"", plain()));
    stream.write_all(&PREFACE.as_bytes()[..20]).await.unwrap();
    let began = tokio::time::Instant::now();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(began.elapsed().as_secs(), 5);
    drop(stream);
    assert!(matches!(task.await.unwrap(), Err(Error::HeadTimeout)));
    // One that is no preface after all, and one whose caller leaves.
    for (text, expected) in [
        ("PRI * HTTP/2.0\r\n\r\nSX", "HTTP/1.1 426"),
        ("PRI /a HTTP/1.1\r\n\r\n", "HTTP/1.1 200"),
        ("PRI * HT", ""),
    ] {
        let (mut stream, theirs) = tokio::io::duplex(1 << 10);
        let task = tokio::spawn(server().serve(theirs, b"", plain()));
        for byte in text.bytes() {
            stream.write_all(&[byte]).await.unwrap();
            settle().await;
        }
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(expected), "{text:?}: {answer}");
        drop(stream);
        let _ = task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn old_requests_are_refused_where_they_are_not_taken() {
    let (mut stream, theirs) = tokio::io::duplex(1 << 10);
    let task = tokio::spawn(server().http10(false).serve(theirs, b"", plain()));
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 426"), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    drop(stream);
    assert!(task.await.unwrap().unwrap_err().is_protocol());
}

#[tokio::test(start_paused = true)]
async fn trailers_are_for_those_who_take_them_where_they_are_sent_at_all() {
    for (sent, te, told) in [
        (true, "trailers", true),
        (true, "gzip", false),
        (false, "trailers", false),
    ] {
        let (mut stream, theirs) = tokio::io::duplex(1 << 10);
        let service = service_fn(|_: Request<Body>| async {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-after", http::HeaderValue::from_static("1"));
            let frames = [Ok::<_, Infallible>(Frame::<Bytes>::trailers(trailers))];
            Ok::<_, Infallible>(Response::new(StreamBody::new(stream::iter(frames))))
        });
        let task = tokio::spawn(server().trailers(sent).serve(theirs, b"", service));
        let request = format!("GET / HTTP/1.1\r\nte: {te}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.contains("0\r\nx-after: 1\r\n\r\n"), told, "{answer}");
        assert!(told || answer.ends_with("\r\n\r\n0\r\n\r\n"), "{answer}");
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_answers_what_is_refused_if_it_is_to_be_told() {
    for (text, refused) in [
        ("GET / HT", Refused::Timeout),
        ("junk\r\n\r\n", Refused::Head(HeadError::Line)),
        (
            "GET / HTTP/1.1\r\na: \x01\r\n\r\n and more",
            Refused::Head(HeadError::Value),
        ),
    ] {
        let told = Arc::new(Mutex::new(None));
        let (mut stream, theirs) = tokio::io::duplex(1 << 10);
        let telling = told.clone();
        let service = service_fn(move |request: Request<Body>| {
            *telling.lock().unwrap() = request.extensions().get::<Refused>().copied();
            async { Ok::<_, Infallible>(self::text("no")) }
        });
        let server = server()
            .tells_refusals(true)
            .head_timeout(Some(Duration::from_secs(5)));
        let task = tokio::spawn(server.serve(theirs, b"", service));
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let expected = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
        assert_eq!(answer, expected);
        drop(stream);
        let error = task.await.unwrap().unwrap_err();
        assert_eq!(error.is_protocol(), refused != Refused::Timeout);
        assert_eq!(*told.lock().unwrap(), Some(refused));
    }
}

#[tokio::test(start_paused = true)]
async fn a_last_request_is_waited_for_and_answered_as_such() {
    let (mut stream, theirs) = tokio::io::duplex(1 << 10);
    let mut connection = server().serve::<_, _, Either<Full<Bytes>, Body>>(theirs, b"", plain());
    connection.last_request();
    assert!(once(&mut connection).await.is_pending());
    let task = tokio::spawn(connection);
    settle().await;
    stream.write_all(GET.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    task.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_malformed_body_is_what_the_connection_ends_with() {
    let mut served = serve(told);
    served
        .send("POST /p HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        .await;
    assert!(served.rest().await.contains("connection: close\r\n"));
    drop(served.stream);
    let error = served.task.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Body(BodyError::ChunkSize)));
    assert!(error.is_protocol());
}

proptest! {
    #[test]
    fn what_begins_a_connection_is_told_however_it_is_cut(
        cut in 0..PREFACE.len(),
        first in "[PRI* HTP/2.0\r\nSMa]{0,30}",
        is_preface in any::<bool>(),
    ) {
        let text = if is_preface { PREFACE.to_owned() + &first } else { first };
        let wanted = text.starts_with(PREFACE);
        let at = cut.min(text.len());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let given_up = runtime.block_on(async {
            let (mut stream, theirs) = tokio::io::duplex(1 << 10);
            let mut connection =
                server().serve::<_, _, Either<Full<Bytes>, Body>>(theirs, b"", plain());
            stream.write_all(&text.as_bytes()[..at]).await.unwrap();
            if once(&mut connection).await.is_ready() {
                return false;
            }
            // It may have been refused by now.
            let _ = stream.write_all(&text.as_bytes()[at..]).await;
            let ended = once(&mut connection).await;
            matches!(ended, Poll::Ready(Err(Error::Http2)))
        });
        prop_assert_eq!(given_up, wanted);
    }
}
