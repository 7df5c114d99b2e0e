use super::*;
use std::task::Waker;
use tokio::io::{AsyncWriteExt, DuplexStream};

/// A client's wire on which a response of this length has begun, and the server's end.
fn receiving(input: &[u8], length: Length) -> (Shared<DuplexStream>, DuplexStream) {
    let (ours, server) = tokio::io::duplex(1 << 20);
    let mut wire = Wire::new(ours, input, Buffers::default());
    wire.client = Some(Client {
        busy: true,
        sending: false,
        keep_alive: true,
        unasked: false,
    });
    assert!(wire.begin(length, &Limits::default()).is_none());
    (Mutex::new(wire), server)
}

fn next(shared: &Shared<DuplexStream>) -> Piece {
    let mut cx = Context::from_waker(Waker::noop());
    let message = lock(shared).message;
    match shared.poll_piece(message, &mut cx) {
        Poll::Ready(Some(Ok(piece))) => piece,
        _ => panic!("no piece is there"),
    }
}

#[tokio::test]
async fn a_body_that_is_over_has_no_say_in_the_next_exchange() {
    let (shared, _server) = receiving(b"1\r\na\r\n0\r\n\r\n", Length::Chunked);
    let message = lock(&shared).message;
    assert!(next(&shared).last);
    assert!(lock(&shared).is_idle());
    // Somebody's request is sent before the body is dropped.
    if let Some(client) = &mut lock(&shared).client {
        client.busy = true;
        client.sending = true;
    }
    shared.let_go(message);
    let wire = lock(&shared);
    assert!(wire.io.is_some() && wire.client.is_some_and(|client| client.busy));
}

#[tokio::test]
async fn a_small_piece_does_not_hold_a_large_buffer() {
    for (sent, holds) in [(4 << 10, false), (64 << 10, true)] {
        let (shared, mut server) = receiving(b"", Length::Exact(1 << 20));
        server.write_all(&vec![b'a'; sent]).await.unwrap();
        let piece = next(&shared);
        assert_eq!(piece.frame.data_ref().map(Bytes::len), Some(sent));
        let free = lock(&shared).input.try_reclaim(64 << 10);
        assert_eq!(free, !holds, "{sent} bytes");
    }
}

/// How many reads the last of several long answers takes, each of which comes at once.
async fn reads(client: Option<Client>) -> usize {
    const LONG: usize = 65 << 10;
    let (ours, mut peer) = tokio::io::duplex(1 << 20);
    let mut wire = Wire::new(ours, b"", Buffers::default());
    wire.client = client;
    let mut reads = 0;
    for _ in 0..6 {
        peer.write_all(&[b'a'; LONG]).await.unwrap();
        let (mut left, mut cx) = (LONG, Context::from_waker(Waker::noop()));
        reads = 0;
        while left > 0 {
            let Poll::Ready(Ok(count)) = wire.poll_head(&mut cx) else {
                panic!("{left} bytes are there");
            };
            wire.consume(count);
            wire.release();
            left -= count;
            reads += 1;
        }
    }
    reads
}

#[tokio::test]
async fn long_answers_are_read_at_once_and_what_callers_send_holds_small_buffers() {
    assert_eq!(reads(Some(Client::default())).await, 1);
    assert_eq!(reads(None).await, 5);
}
