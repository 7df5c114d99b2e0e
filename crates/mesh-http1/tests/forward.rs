//! A proxy of both sides on several threads: bodies are read in other tasks than their connection's.

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Either, Full, StreamBody};
use mesh_http1::{Body, Buffers, Client, Error, Server};
use std::convert::Infallible;
use tokio::io::DuplexStream;

/// What the backend does: reads all of it, and says it again, in pieces where that was asked for.
async fn echo(request: Request<Body>) -> Result<Response<Sent>, Error> {
    let in_pieces = request.uri().path() == "/pieces";
    let body = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(sent(&body, in_pieces)))
}

type Pieces = stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;
type Sent = Either<Full<Bytes>, StreamBody<Pieces>>;

/// A body of a known length, or one in pieces of many sizes.
fn sent(data: &[u8], in_pieces: bool) -> Sent {
    if !in_pieces {
        return Either::Left(Full::from(data.to_vec()));
    }
    let mut rest = data;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((1 + rest.len() / 3).min(20_000));
        pieces.push(Ok(Frame::data(Bytes::copy_from_slice(piece))));
        rest = behind;
    }
    Either::Right(StreamBody::new(stream::iter(pieces)))
}

/// A connection through a proxy of its own to a backend of its own.
fn connect(buffers: &Buffers) -> mesh_http1::client::SendRequest<DuplexStream, Sent> {
    let (to_backend, backend) = tokio::io::duplex(3000);
    let (to_proxy, proxy) = tokio::io::duplex(5000);
    let (server, client) = (
        Server::with_buffers(buffers.clone()),
        Client::with_buffers(buffers.clone()),
    );
    tokio::spawn(server.serve(backend, b"", tower::service_fn(echo)));
    let (sender, connection) = client.handshake::<_, Body>(to_backend);
    tokio::spawn(connection);
    let sender = std::sync::Arc::new(std::sync::Mutex::new(sender));
    let pass = tower::service_fn(move |request: Request<Body>| {
        let sender = sender.clone();
        async move {
            let sending = sender.lock().unwrap().send_request(request);
            // In a task of its own, as a pool may have it.
            let response = tokio::spawn(sending).await.unwrap();
            response.map_err(|failed| failed.error)
        }
    });
    tokio::spawn(server.serve(proxy, b"", pass));
    let (sender, connection) = client.handshake(to_proxy);
    tokio::spawn(connection);
    sender
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bodies_of_all_sizes_come_back_through_a_proxy() {
    let buffers = Buffers::default();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8usize {
        let buffers = buffers.clone();
        callers.spawn(async move {
            let mut sender = connect(&buffers);
            for round in 0..40usize {
                let size = [0, 1, 10, 4095, 4096, 5000, 20_000, 100_000][(caller + round) % 8];
                let data: Vec<u8> = (0..size + round)
                    .map(|at| (at * 7 + caller) as u8)
                    .collect();
                for path in ["/whole", "/pieces"] {
                    let in_pieces = round % 2 == 0;
                    let request = Request::post(path).body(sent(&data, in_pieces)).unwrap();
                    let response = sender.send_request(request).await.unwrap();
                    assert_eq!(response.status(), StatusCode::OK);
                    let seen = response.into_body().collect().await.unwrap().to_bytes();
                    assert!(seen == data, "{path} with {} bytes", data.len());
                    assert!(sender.is_ready(), "{path} with {} bytes", data.len());
                }
            }
        });
    }
    callers.join_all().await;
}
