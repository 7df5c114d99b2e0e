//! A unary call and a stream of gRPC over h2c, whose messages and status are checked.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, runtime, time};

/// Bytes of a message of the stream, with its frame.
const MESSAGE: usize = 5 + 128;

/// # Errors
///
/// If an answer is not what the backend gives.
pub(crate) fn run(address: SocketAddr, messages: usize) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let calls = time::timeout(Duration::from_secs(5), calls(address, messages));
        calls.await.context("no answer")?
    })
}

async fn calls(address: SocketAddr, messages: usize) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address)
        .await
        .context("cannot connect")?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.context("HTTP/2")?;
    tokio::spawn(connection);
    let text = messages.to_string();
    let back = call(&mut sender, address, "Unary", &text)
        .await
        .context("Unary")?;
    ensure!(back == frame(&text), "Unary: another message came back");
    let back = call(&mut sender, address, "Stream", &text)
        .await
        .context("Stream")?;
    let length = back.len();
    ensure!(
        length == messages * MESSAGE,
        "Stream: {length} bytes came back"
    );
    println!("{{\"messages\":{messages}}}");
    Ok(())
}

async fn call(
    sender: &mut SendRequest<Full<Bytes>>,
    address: SocketAddr,
    method: &str,
    text: &str,
) -> anyhow::Result<Bytes> {
    let request = Request::post(format!("http://{address}/bench.Echo/{method}"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(frame(text)))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    ensure!(status == 200, "status {status}");
    let body = response.into_body().collect().await?;
    let status = body.trailers().and_then(|it| it.get("grpc-status"));
    ensure!(
        status.is_some_and(|status| status == "0"),
        "trailers with grpc-status {status:?}"
    );
    Ok(body.to_bytes())
}

/// A message in its frame: not compressed, the length in four bytes.
fn frame(text: &str) -> Bytes {
    let mut message = vec![0, 0, 0, 0, text.len() as u8];
    message.extend_from_slice(text.as_bytes());
    message.into()
}
