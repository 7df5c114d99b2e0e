//! A server that answers every request with what it was sent, or with a greeting.
//!
//! ```text
//! cargo run -p mesh-http1 --example hello
//! curl -d 'some text' http://127.0.0.1:8080/
//! ```
//!
//! With `--once` it takes any port, asks itself once and ends.

use http::{Request, Response};
use http_body_util::{Either, Full};
use mesh_http1::{Body, Buffers, Error, Server};
use std::convert::Infallible;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn answer(
    request: Request<Body>,
) -> Result<Response<Either<Body, Full<bytes::Bytes>>>, Infallible> {
    let body = request.into_body();
    Ok(Response::new(if http_body::Body::is_end_stream(&body) {
        Either::Right(Full::from("hello\n"))
    } else {
        Either::Left(body)
    }))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let server = Server::with_buffers(Buffers::default());
    let once = std::env::args().any(|argument| argument == "--once");
    let port = if once { 0 } else { 8080 };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    println!("http://{address}/");
    if once {
        let mut caller = TcpStream::connect(address).await?;
        let (io, _) = listener.accept().await?;
        tokio::spawn(server.serve(io, b"", tower::service_fn(answer)));
        let request = b"GET / HTTP/1.1\r\nhost: example\r\nconnection: close\r\n\r\n";
        caller.write_all(request).await?;
        let mut text = String::new();
        caller.read_to_string(&mut text).await?;
        println!("{text}");
        return Ok(());
    }
    loop {
        let (io, _) = listener.accept().await?;
        let connection = server.serve(io, b"", tower::service_fn(answer));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("{error}");
            }
        });
    }
}
