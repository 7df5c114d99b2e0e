//! HTTP/1.1 as bytes: what was really sent, with nothing made nicer by a library.

use crate::backend::Log;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Longer than any timeout that a configuration sets.
pub(crate) const PATIENCE: Duration = Duration::from_secs(4);

/// How a connection ended on which nothing was said.
pub(crate) const CLOSED: &str = "closed without an answer";

/// No head and no body here is longer.
const LARGEST: usize = 4 << 20;

/// One message, as it was on the wire.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message {
    /// The request line or status line.
    pub(crate) line: String,
    /// Names and values, as written and in order.
    pub(crate) headers: Vec<(String, String)>,
    /// The body without its framing.
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
    /// How it ended: `whole`, `cut`, or why there is no message.
    pub(crate) end: &'static str,
    /// Status lines of interim responses.
    pub(crate) interim: Vec<String>,
    /// What came after it on the same connection.
    pub(crate) then: Vec<Self>,
    /// When a backend had the whole of it.
    pub(crate) at: Option<Instant>,
}

/// How the length of a message's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Request,
    Response,
    /// A response that has no body whatever its headers say.
    BodilessResponse,
}

/// A stream and what was read from it too early.
pub(crate) struct Wire<S = TcpStream> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
    /// Called with the head of each request that is read, before its body is.
    pub(crate) begun: Option<Begun>,
}

/// A connection, secured or not.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for S {}

/// Takes the head of a message.
pub(crate) type Begun = Box<dyn Fn(&Message) + Send>;

// === impl Message ===

impl Message {
    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut named = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.as_str())
    }

    /// No message, and why.
    pub(crate) fn ended(end: &'static str) -> Self {
        Self {
            end,
            ..Self::default()
        }
    }

    /// The status of a response; 0 for a request.
    pub(crate) fn status(&self) -> u16 {
        let code = self.line.strip_prefix("HTTP/");
        code.and_then(|rest| rest.split(' ').nth(1)?.parse().ok())
            .unwrap_or(0)
    }
}

// === impl Wire ===

impl<S: AsyncRead + Unpin> Wire<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            begun: None,
        }
    }

    /// Reads a message. None when the peer closed before a byte of it.
    pub(crate) async fn read(&mut self, kind: Kind) -> io::Result<Option<Message>> {
        let mut message = Message::ended("whole");
        loop {
            let Some(head) = self.head().await? else {
                return Ok(None);
            };
            let mut lines = head.split("\r\n");
            message.line = lines.next().unwrap_or_default().to_owned();
            message.headers = fields(lines);
            let status = message.status();
            if kind == Kind::Request
                && let Some(begun) = &self.begun
            {
                begun(&message);
            }
            if kind == Kind::Request || !(100..200).contains(&status) || status == 101 {
                break;
            }
            message.interim.push(message.line.clone());
        }
        let bodiless = matches!(message.status(), 101 | 204 | 304);
        if kind == Kind::BodilessResponse || (kind == Kind::Response && bodiless) {
            return Ok(Some(message));
        }
        let chunked = message
            .header("transfer-encoding")
            .is_some_and(|coding| coding.contains("chunked"));
        let length = message
            .header("content-length")
            .and_then(|n| n.parse().ok());
        let whole = match (chunked, length) {
            (true, _) => self.chunks(&mut message).await?,
            (false, Some(length)) => self.exactly(length, &mut message.body).await?,
            (false, None) if kind == Kind::Request => true,
            (false, None) => {
                while self.buffer.len() < LARGEST && self.more().await? {}
                message.body = std::mem::take(&mut self.buffer);
                true
            }
        };
        if !whole {
            message.end = "cut";
        }
        Ok(Some(message))
    }

    async fn more(&mut self) -> io::Result<bool> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(read) => Ok(read > 0),
            // A reset is an end like any other for whoever only reads.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn head(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 4);
                return Ok(Some(head));
            }
            if self.buffer.len() > LARGEST || !self.more().await? {
                return Ok(None);
            }
        }
    }

    async fn exactly(&mut self, length: usize, into: &mut Vec<u8>) -> io::Result<bool> {
        while self.buffer.len() < length {
            if self.buffer.len() > LARGEST || !self.more().await? {
                into.append(&mut self.buffer);
                return Ok(false);
            }
        }
        into.extend(self.buffer.drain(..length));
        Ok(true)
    }

    async fn chunks(&mut self, message: &mut Message) -> io::Result<bool> {
        loop {
            let Some(line) = self.line().await? else {
                return Ok(false);
            };
            let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16);
            let Ok(size) = size else { return Ok(false) };
            if size == 0 {
                loop {
                    match self.line().await? {
                        None => return Ok(false),
                        Some(line) if line.is_empty() => return Ok(true),
                        Some(line) => message.trailers.extend(fields([&*line].into_iter())),
                    }
                }
            }
            if !self.exactly(size, &mut message.body).await? {
                return Ok(false);
            }
            self.line().await?;
        }
    }

    async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = find(&self.buffer, b"\r\n") {
                let line = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + 2);
                return Ok(Some(line));
            }
            if self.buffer.len() > LARGEST || !self.more().await? {
                return Ok(None);
            }
        }
    }
}

/// Sends these bytes on a new connection and reads what comes back. The address of the caller is
/// given too.
pub(crate) async fn exchange(to: std::net::SocketAddr, request: &[u8]) -> (Message, String) {
    match open(to).await {
        Some((stream, caller)) => (exchange_all(stream, request, &[]).await, caller),
        None => (Message::ended("nobody listens"), String::new()),
    }
}

/// A new connection, and the address of the caller.
pub(crate) async fn open(to: std::net::SocketAddr) -> Option<(TcpStream, String)> {
    let stream = TcpStream::connect(to).await.ok()?;
    let caller = stream.local_addr();
    Some((
        stream,
        caller.map_or_else(|_| String::new(), |it| it.to_string()),
    ))
}

/// Sends a request whose body never ends, and closes the connection once a backend has its head.
pub(crate) async fn leave(
    to: std::net::SocketAddr,
    request: &[u8],
    log: &Log,
    case: &str,
) -> (Message, String) {
    let Ok(mut stream) = TcpStream::connect(to).await else {
        return (Message::ended("nobody listens"), String::new());
    };
    let caller = stream
        .local_addr()
        .map_or_else(|_| String::new(), |it| it.to_string());
    let written = stream.write_all(request).await;
    log.upload(case).await;
    drop(stream);
    let message = Message::ended(if written.is_ok() { "left" } else { "broken" });
    (message, caller)
}

/// The same of several requests at once, on this connection. Of those that follow the first it has to be known whether
/// their answers have no body.
pub(crate) async fn exchange_all<S: Io>(stream: S, request: &[u8], then: &[bool]) -> Message {
    let mut wire = Wire::new(stream);
    // A peer that refuses early may close while we write.
    let _ = wire.stream.write_all(request).await;
    let mut reply = answer(&mut wire, request.starts_with(b"HEAD ")).await;
    for bodiless in then {
        let next = answer(&mut wire, *bodiless).await;
        reply.then.push(next);
    }
    reply
}

async fn answer<S: Io>(wire: &mut Wire<S>, bodiless: bool) -> Message {
    let kind = if bodiless {
        Kind::BodilessResponse
    } else {
        Kind::Response
    };
    match timeout(PATIENCE, wire.read(kind)).await {
        Ok(Ok(Some(message))) => message,
        Ok(Ok(None)) => Message::ended(CLOSED),
        Ok(Err(_)) => Message::ended("broken"),
        Err(_) => Message::ended("no answer in time"),
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
