//! A server that answers every request with what it was sent, or with a greeting.
//!
//! ```text
//! cargo run -p mesh-http1 --example hello
//! curl -d 'some text' http://127.0.0.1:8080/
//! ```

use http::{Request, Response};
use http_body_util::{Either, Full};
use mesh_http1::{Body, Buffers, Error, Server};
use std::convert::Infallible;
use tokio::net::TcpListener;

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
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    println!("http://{}/", listener.local_addr()?);
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
