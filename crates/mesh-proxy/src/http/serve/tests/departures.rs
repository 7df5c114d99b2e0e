//! What a request is taken to have ended of when its caller no longer wants the answer.

use super::*;
use mesh_core::{Exchange, Failure};
use std::future::pending;

/// What a connection of HTTP/2 begins with, and a GET on a stream.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const CANCEL: u8 = 8;
const REFUSED_STREAM: u8 = 7;

fn get(stream: u8) -> Vec<u8> {
    let head = b"\x82\x86\x84\x41\x01a";
    [&[0, 0, 6, 1, 5, 0, 0, 0, stream], &head[..]].concat()
}

fn reset(stream: u8, error: u8) -> Vec<u8> {
    vec![0, 0, 4, 3, 0, 0, 0, 0, stream, 0, 0, 0, error]
}

/// A listener that never answers, or begins to, and the records of its requests.
fn hanging(begins: bool) -> (Served, mpsc::UnboundedReceiver<Exchange>) {
    let (sender, exchanges) = mpsc::unbounded_channel();
    let served = Served::new(move |request| {
        let exchange = Exchange::of(&request).cloned();
        sender.send(exchange.unwrap()).unwrap();
        async move {
            if !begins {
                pending::<()>().await;
            }
            let frames = futures_util::stream::pending::<Result<Frame<Bytes>, Error>>();
            Response::new(Body::new(StreamBody::new(frames)))
        }
    });
    (served, exchanges)
}

/// Everybody has a turn, and some more.
async fn turns() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn told(exchange: &Exchange) -> (Option<Failure>, String, String) {
    exchange.with_notes(|notes| {
        let details = notes.details.clone().unwrap_or_default();
        (notes.failure, exchange.flags().to_string(), details.into())
    })
}

#[tokio::test(start_paused = true)]
async fn who_resets_a_stream_is_told_from_who_goes_away() {
    let all = [
        (
            reset(1, CANCEL),
            Failure::ClientReset,
            "DR",
            "http2.remote_reset",
        ),
        (
            reset(1, REFUSED_STREAM),
            Failure::ClientRefused,
            "DR",
            "http2.remote_refuse",
        ),
        (
            Vec::new(),
            Failure::ClientGone,
            "DC",
            "downstream_remote_disconnect",
        ),
    ];
    for begins in [false, true] {
        for leaves in [false, true] {
            for (frames, failure, flags, details) in &all {
                let (served, mut exchanges) = hanging(begins);
                let mut connection = served.connect();
                let hello = [PREFACE, &get(1)].concat();
                connection.stream.write_all(&hello).await.unwrap();
                let exchange = exchanges.recv().await.unwrap();
                turns().await;
                connection.stream.write_all(frames).await.unwrap();
                if leaves || frames.is_empty() {
                    drop(connection.stream);
                    connection.task.await.unwrap();
                    served.assert_quiet();
                }
                turns().await;
                let expected = (Some(*failure), (*flags).to_owned(), (*details).to_owned());
                assert_eq!(
                    told(&exchange),
                    expected,
                    "begins {begins}, leaves {leaves}"
                );
                assert_eq!(served.stat(HttpStat::RqRxReset), 1);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_of_its_own_stream() {
    let (served, mut exchanges) = hanging(false);
    let mut connection = served.connect();
    let hello = [PREFACE, &get(1), &get(3)].concat();
    connection.stream.write_all(&hello).await.unwrap();
    let [first, second] = [
        exchanges.recv().await.unwrap(),
        exchanges.recv().await.unwrap(),
    ];
    connection
        .stream
        .write_all(&reset(3, CANCEL))
        .await
        .unwrap();
    turns().await;
    assert_eq!(told(&first).0, None);
    assert_eq!(told(&second).0, Some(Failure::ClientReset));
    // What is over cannot be reset.
    connection
        .stream
        .write_all(&reset(3, CANCEL))
        .await
        .unwrap();
    turns().await;
    for _ in 0..2 {
        connection
            .stream
            .write_all(b"\0\0\x05\x02\0\0\0\0\x01\0\0\0\0\x10")
            .await
            .unwrap();
        turns().await;
    }
    drop(connection.stream);
    connection.task.await.unwrap();
    assert_eq!(told(&first).0, Some(Failure::ClientGone));
    assert_eq!(served.stat(HttpStat::RqRxReset), 2);
}
