//! A server with a parser of its own, stricter than any rule asks for: whatever it cannot read in one
//! way only is noted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What came.
#[derive(Default)]
pub struct Log(Mutex<Seen>);

#[derive(Default)]
pub struct Seen {
    /// Whole requests by the number of their case: `METHOD PATH`.
    pub requests: BTreeMap<usize, Vec<String>>,
    /// What was no request, with its reason.
    pub malformed: Vec<String>,
}

/// Why reading ended.
enum End {
    /// The connection is over. What was there of a request is none.
    Closed,
    Malformed(String),
}

/// One connection.
struct Reader {
    stream: TcpStream,
    bytes: Vec<u8>,
}

// === impl Log ===

impl Log {
    pub fn take(&self) -> Seen {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    fn request(&self, line: &str) {
        let mut seen = self.0.lock().unwrap();
        match number(line) {
            Some(case) => seen.requests.entry(case).or_default().push(line.to_owned()),
            None => seen.malformed.push(format!("nobody sent {line:?}")),
        }
    }
}

/// Three digits behind `/a` or `/s`.
fn number(line: &str) -> Option<usize> {
    let at = line.find("/a").or_else(|| line.find("/s"))?;
    line.get(at + 2..at + 5)?.parse().ok()
}

/// Starts a server that answers with what it read: `x-saw: METHOD PATH`.
pub async fn start() -> (SocketAddr, Arc<Log>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = Arc::new(Log::default());
    let shared = log.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let log = shared.clone();
            tokio::spawn(async move {
                let mut reader = Reader {
                    stream,
                    bytes: Vec::new(),
                };
                loop {
                    match reader.request().await {
                        Ok(line) => {
                            log.request(&line);
                            let answer = format!(
                                "HTTP/1.1 200 OK\r\nx-saw: {line}\r\ncontent-length: 0\r\n\r\n"
                            );
                            if reader.stream.write_all(answer.as_bytes()).await.is_err() {
                                return;
                            }
                        }
                        Err(End::Closed) => return,
                        Err(End::Malformed(why)) => {
                            log.0.lock().unwrap().malformed.push(why);
                            return;
                        }
                    }
                }
            });
        }
    });
    (address, log)
}

// === impl Reader ===

impl Reader {
    /// Reads a request to its end. Returns its method and path.
    async fn request(&mut self) -> Result<String, End> {
        let head = self.until(b"\r\n\r\n").await?;
        let malformed = |why: &str| {
            let head = String::from_utf8_lossy(&head);
            End::Malformed(format!("{why}: {head:?}"))
        };
        // Bytes beyond ASCII have one meaning in a value: none (RFC 9110 §5.5, obs-text).
        let text: String = head.iter().map(|byte| char::from(*byte)).collect();
        let mut lines = text.strip_suffix("\r\n\r\n").unwrap_or(&text).split("\r\n");
        let first = lines.next().unwrap_or_default();
        let parts: Vec<_> = first.split(' ').collect();
        let [method, path, "HTTP/1.1"] = parts[..] else {
            return Err(malformed("the first line"));
        };
        if !is_token(method) || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed("the first line"));
        }
        let line = format!("{method} {path}");
        let (mut hosts, mut length, mut chunked) = (0, None, false);
        for field in lines {
            let Some((name, value)) = field.split_once(':') else {
                return Err(malformed("a field without a colon"));
            };
            let value = value.trim_matches([' ', '\t']);
            let fits = |char: char| matches!(char, '\t' | ' '..='~' | '\u{80}'..);
            if !is_token(name) || !value.chars().all(fits) {
                return Err(malformed("a field"));
            }
            match name.to_ascii_lowercase().as_str() {
                "host" => hosts += 1,
                "content-length" => {
                    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                    let number = value.parse::<usize>().ok().filter(|_| digits);
                    if number.is_none() || length.is_some() {
                        return Err(malformed("the length"));
                    }
                    length = number;
                }
                "transfer-encoding" if chunked || value != "chunked" => {
                    return Err(malformed("the coding"));
                }
                "transfer-encoding" => chunked = true,
                _ => {}
            }
        }
        if hosts != 1 || (chunked && length.is_some()) {
            return Err(malformed("hosts or lengths"));
        }
        match (chunked, length) {
            (true, _) => self.chunks().await?,
            (false, Some(length)) => drop(self.exactly(length).await?),
            (false, None) => {}
        }
        Ok(line)
    }

    async fn chunks(&mut self) -> Result<(), End> {
        loop {
            let line = self.until(b"\r\n").await?;
            let line = String::from_utf8_lossy(&line).into_owned();
            let digits = line.strip_suffix("\r\n").unwrap_or(&line);
            let malformed = || End::Malformed(format!("a chunk: {line:?}"));
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(malformed());
            }
            let size = usize::from_str_radix(digits, 16).map_err(|_| malformed())?;
            if size == 0 {
                // Trailers are fields, of which only their end matters here.
                while self.until(b"\r\n").await? != b"\r\n" {}
                return Ok(());
            }
            if !self.exactly(size + 2).await?.ends_with(b"\r\n") {
                return Err(malformed());
            }
        }
    }

    /// Everything up to and with `end`.
    async fn until(&mut self, end: &[u8]) -> Result<Vec<u8>, End> {
        loop {
            let found = self
                .bytes
                .windows(end.len())
                .position(|window| window == end);
            if let Some(at) = found {
                return self.exactly(at + end.len()).await;
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, count: usize) -> Result<Vec<u8>, End> {
        while self.bytes.len() < count {
            self.more().await?;
        }
        Ok(self.bytes.drain(..count).collect())
    }

    async fn more(&mut self) -> Result<(), End> {
        match self.stream.read_buf(&mut self.bytes).await {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(End::Closed),
        }
    }
}

fn is_token(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}
