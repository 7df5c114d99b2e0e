//! Pages of an admin or debug interface: one HTTP/1.1 request per connection, without TLS.
//!
//! These interfaces are on loopback and answer at once, so there is no runtime and no pool here.

use anyhow::{Context, bail};
use http::Uri;
use http::uri::Scheme;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the whole answer may take, unless the caller has less time.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest answer that is read, in bytes. The dump of a proxy with 10,000 clusters has a tenth.
const LARGEST: u64 = 512 << 20;

/// The largest head of an answer.
const LARGEST_HEAD: usize = 64 << 10;

/// Where an interface is: `http://HOST:PORT`, or `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    host: String,
    port: u16,
    /// What stands before each path.
    prefix: String,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

// === impl Server ===

impl Server {
    /// The JSON at a path.
    ///
    /// # Errors
    /// If there is no answer, another status than 200, or no JSON.
    pub(crate) fn json(&self, path: &str) -> anyhow::Result<serde_json::Value> {
        self.json_within(path, PATIENCE)
    }

    /// The same in less time than usual.
    pub(crate) fn json_within(
        &self,
        path: &str,
        time: Duration,
    ) -> anyhow::Result<serde_json::Value> {
        let body = self.get(path, time.min(PATIENCE))?;
        serde_json::from_slice(&body).with_context(|| format!("{self}{path} does not answer JSON"))
    }

    fn get(&self, path: &str, time: Duration) -> anyhow::Result<Vec<u8>> {
        let raw = self
            .exchange(path, Instant::now() + time)
            .with_context(|| format!("cannot ask {self}"))?;
        let answer = parse(&raw).with_context(|| format!("the answer of {self}{path}"))?;
        if answer.status != 200 {
            let said = String::from_utf8_lossy(&answer.body);
            let said = said.lines().next().unwrap_or_default();
            let said: String = crate::table::printable(said).chars().take(200).collect();
            bail!("{self}{path} answers {}: {said}", answer.status);
        }
        Ok(answer.body)
    }

    fn exchange(&self, path: &str, until: Instant) -> io::Result<Vec<u8>> {
        let mut stream = self.connect(until)?;
        let request = format!(
            "GET {}{path} HTTP/1.1\r\nhost: {}\r\nuser-agent: mesh/{}\r\naccept: application/json\r\nconnection: close\r\n\r\n",
            self.prefix,
            self.authority(),
            env!("CARGO_PKG_VERSION"),
        );
        stream.set_write_timeout(Some(left(until)?))?;
        stream.write_all(request.as_bytes())?;
        let mut raw = Vec::new();
        let mut piece = vec![0; 64 << 10];
        loop {
            stream.set_read_timeout(Some(left(until)?))?;
            let count = match stream.read(&mut piece) {
                Ok(0) => return Ok(raw),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // What a socket's own timeout says differs between systems.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            };
            raw.extend_from_slice(&piece[..count]);
            if raw.len() as u64 > LARGEST {
                return Err(io::Error::other(format!("more than {LARGEST} bytes")));
            }
        }
    }

    fn connect(&self, until: Instant) -> io::Result<TcpStream> {
        let mut failed = None;
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(until)?.min(CONNECT)) {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::other("the name has no address")))
    }

    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected http://HOST:PORT";
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("{error}; {expected}"))?;
        match uri.scheme() {
            None => {}
            Some(scheme) if *scheme == Scheme::HTTP => {}
            Some(scheme) => return Err(format!("{scheme} is not supported; {expected}")),
        }
        let authority = uri.authority().ok_or(expected)?;
        if authority.as_str().contains('@') {
            return Err(format!("a user name is not supported; {expected}"));
        }
        if uri.query().is_some() {
            return Err(format!("a query does not belong here; {expected}"));
        }
        let host = authority.host();
        let has_port = authority.as_str().len() > host.len();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if host.is_empty() {
            return Err(expected.to_owned());
        }
        let port = match authority.port_u16() {
            Some(0) => return Err(format!("0 is not a port; {expected}")),
            Some(port) => port,
            None if uri.scheme().is_some() && !has_port => 80,
            None => return Err(expected.to_owned()),
        };
        let prefix = match uri.scheme() {
            Some(_) => uri.path().trim_end_matches('/').to_owned(),
            None => String::new(),
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            prefix,
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.prefix)
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    // A timeout of zero would mean none.
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

/// Takes an answer apart that ends with its connection.
fn parse(raw: &[u8]) -> anyhow::Result<Answer> {
    let end = raw.windows(4).take(LARGEST_HEAD);
    let Some(end) = end.into_iter().position(|four| four == b"\r\n\r\n") else {
        bail!("it is not HTTP, or was cut off");
    };
    let head = std::str::from_utf8(&raw[..end]).context("its head is not text")?;
    let rest = &raw[end + 4..];
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .context("it is not HTTP/1.1")?;
    let (mut chunked, mut length) = (false, None);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                bail!("transfer-encoding {value:?} is not supported");
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case("content-length") {
            let value: u64 = value.parse().context("its content-length")?;
            length = Some(value);
        } else if name.eq_ignore_ascii_case("content-encoding") {
            bail!("content-encoding {value:?} was not asked for");
        }
    }
    // RFC 9112 §6.3: chunks count more than a length, and a length more than the end.
    let body = if chunked {
        unchunk(rest)?
    } else {
        if length.is_some_and(|length| length != rest.len() as u64) {
            bail!("it was cut off");
        }
        rest.to_vec()
    };
    Ok(Answer { status, body })
}

/// RFC 9112 §7.1; extensions and trailers are skipped.
fn unchunk(mut rest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n");
        let line = line.context("it was cut off")?;
        let size = std::str::from_utf8(&rest[..line]).context("the size of a chunk")?;
        let size = size.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).context("the size of a chunk")?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Ok(body);
        }
        let chunk = rest.get(..size).context("it was cut off")?;
        body.extend_from_slice(chunk);
        rest = rest[size..]
            .strip_prefix(b"\r\n")
            .context("a chunk is longer than it says")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server(text: &str) -> Server {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_read_with_and_without_its_scheme() {
        for (text, shown) in [
            ("http://127.0.0.1:15000", "http://127.0.0.1:15000"),
            ("127.0.0.1:15000", "http://127.0.0.1:15000"),
            ("localhost:15000", "http://localhost:15000"),
            ("http://[::1]:15000/", "http://[::1]:15000"),
            ("http://control/mesh/", "http://control:80/mesh"),
        ] {
            assert_eq!(server(text).to_string(), shown);
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused_with_what_was_expected() {
        for text in [
            "https://127.0.0.1:15000",
            "127.0.0.1",
            "",
            "http://",
            "http://u:p@127.0.0.1:1",
            "http://127.0.0.1:0",
            "http://127.0.0.1:99999",
            "http://127.0.0.1:1?a",
            "/path",
        ] {
            let error = text.parse::<Server>().unwrap_err();
            assert!(error.contains("http://HOST:PORT"), "{text}: {error}");
        }
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        let body = |raw: &str| parse(raw.as_bytes()).map(|answer| answer.body);
        let ok = "HTTP/1.1 200 OK\r\n";
        assert_eq!(
            body(&format!("{ok}Content-Length: 2\r\n\r\nab")).unwrap(),
            b"ab"
        );
        assert_eq!(body(&format!("{ok}\r\nabc")).unwrap(), b"abc");
        let chunks = "2;x=y\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(
            body(&format!("{ok}transfer-encoding: Chunked\r\n\r\n{chunks}")).unwrap(),
            b"abc"
        );
        for cut in [
            "content-length: 3\r\n\r\nab",
            "transfer-encoding: chunked\r\n\r\n2\r\nab",
            "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n",
            "transfer-encoding: chunked\r\n\r\n9\r\nab\r\n0\r\n\r\n",
            "transfer-encoding: gzip\r\n\r\nab",
        ] {
            assert!(body(&format!("{ok}{cut}")).is_err(), "{cut:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(
            head in "(HTTP/1\\.1 [0-9]{0,5} ?[a-z]{0,3}\r\n)?([a-z-]{0,20}:? ?[a-z0-9]{0,12}\r\n){0,4}",
            chunked in any::<bool>(),
            body in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let coding = if chunked { "transfer-encoding: chunked\r\n" } else { "" };
            let mut raw = format!("{head}{coding}\r\n").into_bytes();
            raw.extend(&body);
            let _ = parse(&raw);
            let _ = unchunk(&body);
        }

        #[test]
        fn chunks_of_any_size_join_to_the_body(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..5)
        ) {
            let mut raw = b"HTTP/1.1 503 no\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            for chunk in &chunks {
                raw.extend(format!("{:x}\r\n", chunk.len()).bytes());
                raw.extend(chunk);
                raw.extend(b"\r\n");
            }
            raw.extend(b"0\r\n\r\n");
            let answer = parse(&raw).unwrap();
            prop_assert_eq!(answer, Answer { status: 503, body: chunks.concat() });
        }
    }
}
