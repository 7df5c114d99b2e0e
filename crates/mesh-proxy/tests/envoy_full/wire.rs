//! HTTP/1.1 as bytes: what was really sent, with nothing made nicer by a library.

use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any timeout that a case sets.
const PATIENCE: Duration = Duration::from_secs(10);

/// One message, as it was on the wire.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The request line or status line.
    pub line: String,
    /// Names and values, as written and in order.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// How it ended: `whole`, `cut`, or why there is no message.
    pub end: &'static str,
    /// Status lines of interim responses.
    pub interim: Vec<String>,
}

/// How the length of a message's body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    /// A response that has no body whatever its headers say.
    BodilessResponse,
}

/// A stream and what was read from it too early.
pub struct Wire {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

// === impl Message ===

impl Message {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name));
        named.next().map(|(_, value)| value.as_str())
    }

    fn ended(end: &'static str) -> Self {
        Self {
            end,
            ..Self::default()
        }
    }
}

// === impl Wire ===

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Reads a message. None when the peer closed before a byte of it.
    pub async fn read(&mut self, kind: Kind) -> io::Result<Option<Message>> {
        let mut message = Message::ended("whole");
        loop {
            let Some(head) = self.head().await? else {
                return Ok(None);
            };
            let mut lines = head.split("\r\n");
            message.line = lines.next().unwrap_or_default().to_owned();
            message.headers = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
                .collect();
            let status = message.status();
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
            (true, _) => self.chunks(&mut message.body).await?,
            (false, Some(length)) => self.exactly(length, &mut message.body).await?,
            (false, None) if kind == Kind::Request => true,
            (false, None) => {
                while self.more().await? {}
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
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    async fn exactly(&mut self, length: usize, into: &mut Vec<u8>) -> io::Result<bool> {
        while self.buffer.len() < length {
            if !self.more().await? {
                into.append(&mut self.buffer);
                return Ok(false);
            }
        }
        into.extend(self.buffer.drain(..length));
        Ok(true)
    }

    async fn chunks(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        loop {
            let Some(line) = self.line().await? else {
                return Ok(false);
            };
            let size = usize::from_str_radix(line.split(';').next().unwrap_or("").trim(), 16);
            let Ok(size) = size else { return Ok(false) };
            if size == 0 {
                // Trailers are part of what is compared.
                loop {
                    match self.line().await? {
                        None => return Ok(false),
                        Some(line) if line.is_empty() => return Ok(true),
                        Some(line) => into.extend(format!("[trailer {line}]").bytes()),
                    }
                }
            }
            if !self.exactly(size, into).await? {
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
            if !self.more().await? {
                return Ok(None);
            }
        }
    }
}

impl Message {
    /// The status of a response; 0 for a request.
    pub fn status(&self) -> u16 {
        let code = self.line.strip_prefix("HTTP/1.");
        code.and_then(|rest| rest.get(2..5)?.parse().ok())
            .unwrap_or(0)
    }
}

/// Sends these bytes on a new connection and reads what comes back. The address of the caller is
/// given too.
pub async fn exchange(to: std::net::SocketAddr, request: &[u8]) -> (Message, String) {
    let stream = TcpStream::connect(to).await.unwrap();
    let caller = stream.local_addr().unwrap().to_string();
    let mut wire = Wire::new(stream);
    // A peer that refuses early may close while we write.
    let _ = wire.stream.write_all(request).await;
    let kind = if request.starts_with(b"HEAD ") {
        Kind::BodilessResponse
    } else {
        Kind::Response
    };
    let reply = match timeout(PATIENCE, wire.read(kind)).await {
        Ok(Ok(Some(message))) => message,
        Ok(Ok(None)) => Message::ended("closed without an answer"),
        Ok(Err(_)) => Message::ended("broken"),
        Err(_) => Message::ended("no answer in time"),
    };
    (reply, caller)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}
