//! Backends that write down what they see and do what the request tells them.
//!
//! The header `x-script` holds one word per attempt, the last for all that follow: a status,
//! or one of the words in [`act`].

use super::wire::{Kind, Message, Wire};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What all backends saw since the last [`Log::take`].
#[derive(Debug, Default)]
pub struct Log {
    seen: Mutex<Vec<(&'static str, Message)>>,
    /// The number of the case that is run.
    case: AtomicUsize,
    /// Lets go of what the word `hold` keeps waiting.
    pub release: Notify,
}

// === impl Log ===

impl Log {
    pub fn take(&self) -> Vec<(&'static str, Message)> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }

    /// From now on only requests of this case, and those without a number, are written down.
    pub fn begin(&self, case: usize) {
        self.case.store(case, Ordering::SeqCst);
        self.take();
    }

    pub fn len(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn note(&self, backend: &'static str, message: Message) -> usize {
        let mut seen = self.seen.lock().unwrap();
        let case = self.case.load(Ordering::SeqCst).to_string();
        if message.header("x-case").is_some_and(|of| of != case) {
            return 0;
        }
        seen.push((backend, message));
        seen.len() - 1
    }
}

/// Starts a backend with this name.
pub async fn start(name: &'static str, log: &Arc<Log>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = log.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(name, stream, log.clone()));
        }
    });
    address
}

async fn serve(name: &'static str, stream: TcpStream, log: Arc<Log>) {
    let mut wire = Wire::new(stream);
    while let Ok(Some(request)) = wire.read(Kind::Request).await {
        let script = request.header("x-script").unwrap_or("200").to_owned();
        let head = request.line.starts_with("HEAD ");
        let attempt = log.note(name, request);
        let words: Vec<&str> = script.split(',').collect();
        let word = words[attempt.min(words.len() - 1)];
        if !act(word, name, head, &mut wire, &log).await {
            return;
        }
    }
}

/// Answers. Whether the connection goes on.
async fn act(word: &str, name: &str, head: bool, wire: &mut Wire, log: &Log) -> bool {
    let plain = |status: &str| {
        let body = if head { "" } else { name };
        let length = name.len();
        let code: http::StatusCode = status.parse().unwrap();
        let reason = code.canonical_reason().unwrap_or("Unknown");
        format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-length: {length}\r\nx-backend: {name}\r\n\r\n{body}"
        )
    };
    let (bytes, goes_on) = match word {
        "close" => return false,
        "reset" => {
            reset(wire);
            return false;
        }
        "hang" => {
            // Until the proxy gives up.
            let mut rest = [0; 64];
            while wire.stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
            return false;
        }
        "hold" => {
            log.release.notified().await;
            (plain("200"), true)
        }
        "slow" => {
            tokio::time::sleep(Duration::from_millis(150)).await;
            (plain("200"), true)
        }
        "head-then-close" => (
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".into(),
            false,
        ),
        "head-then-reset" => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
            let _ = wire.stream.write_all(head).await;
            // Both proxies have to have read the head before the reset takes it away.
            tokio::time::sleep(Duration::from_millis(300)).await;
            reset(wire);
            return false;
        }
        "chunked-cut" => (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n".into(),
            false,
        ),
        "204" => ("HTTP/1.1 204 No Content\r\nx-backend: b\r\n\r\n".into(), true),
        "304" => ("HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n".into(), true),
        "304-length" => (
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n".into(),
            true,
        ),
        "chunked" => (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
                .into(),
            true,
        ),
        "until-close" => ("HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\nrest".into(), false),
        "http10" => ("HTTP/1.0 200 OK\r\nx-a: 1\r\n\r\nrest".into(), false),
        "hop-headers" => (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: x-hop\r\nx-hop: 1\r\nkeep-alive: \
             timeout=5\r\nproxy-connection: keep-alive\r\nupgrade: h2c\r\n\r\nok"
                .into(),
            true,
        ),
        "conn-close" => (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok".into(),
            false,
        ),
        "cookies" => (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Multi: \
             1\r\nX-Multi: 2\r\nServer: theirs\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\nok"
                .into(),
            true,
        ),
        "interim" => (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into(),
            true,
        ),
        "ratelimited" => (
            "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nx-envoy-ratelimited: true\r\n\r\n".into(),
            true,
        ),
        "grpc-unavailable" => (
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ncontent-type: application/grpc\r\ngrpc-status: \
             14\r\n\r\n"
                .into(),
            true,
        ),
        "garbage" => ("NOT HTTP AT ALL\r\n\r\n".into(), false),
        "two-lengths" => (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc".into(),
            false,
        ),
        "odd-reason" => (
            "HTTP/1.1 200 Odd\r\ncontent-length: 2\r\n\r\nok".into(),
            true,
        ),
        "switch" => {
            let head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            let _ = wire.stream.write_all(head).await;
            let mut rest = [0; 64];
            while wire.stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
            return false;
        }
        status => (plain(status), true),
    };
    wire.stream.write_all(bytes.as_bytes()).await.is_ok() && goes_on
}

fn reset(wire: &Wire) {
    let socket = socket2::SockRef::from(&wire.stream);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}
