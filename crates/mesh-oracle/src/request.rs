//! Requests as data: what is sent, exactly.

mod endpoints;

use crate::callers::Secured;
use crate::config::{Backends, named};
use crate::pace::Pace;
use std::fmt;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) http2: bool,
    pub(crate) method: String,
    /// The request target, as written.
    pub(crate) target: String,
    /// None for a request without `host`.
    pub(crate) host: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) trailers: Vec<(String, String)>,
    /// Sent in chunks instead of with a length.
    pub(crate) chunked: bool,
    /// Sent instead of all of the above, a byte for each character, with the number that its log
    /// line has in place of `{case}`.
    pub(crate) raw: Option<String>,
    /// Written as `raw` right behind it, before there is an answer.
    pub(crate) then: Vec<String>,
    /// How long to wait before it, in milliseconds.
    pub(crate) wait: u64,
    /// How it and others are timed by one another.
    pub(crate) pace: Pace,
    /// Its caller no longer wants the answer once a backend has it; one with a body does not end it.
    pub(crate) leaves: Option<Leave>,
    /// Who calls, over TLS; none is in plain text.
    pub(crate) secured: Option<Secured>,
}

/// How a caller lets go of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// It resets the stream and keeps the connection.
    Cancel,
    /// The same, with the error `REFUSED_STREAM`.
    Refuse,
    /// It resets the stream and closes the connection at once.
    CancelAndClose,
    /// It closes the connection.
    Close,
}

// === impl Call ===

impl Call {
    pub(crate) fn get(target: &str) -> Self {
        Self {
            http2: false,
            method: "GET".into(),
            target: target.into(),
            host: Some("mesh.test".into()),
            headers: Vec::new(),
            body: String::new(),
            trailers: Vec::new(),
            chunked: false,
            raw: None,
            then: Vec::new(),
            wait: 0,
            pace: Pace::default(),
            leaves: None,
            secured: None,
        }
    }

    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(it, _)| it == name);
        named.next().map(|(_, value)| value.as_str())
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// What the backends do, attempt by attempt.
    pub(crate) fn script(self, words: &str) -> Self {
        self.with("x-script", words)
    }

    /// A gRPC request: POST with its two headers.
    pub(crate) fn grpc(mut self) -> Self {
        self.method = "POST".into();
        self.with("content-type", "application/grpc")
            .with("te", "trailers")
    }

    /// The same with names of this configuration, and with the number that its log line has.
    pub(crate) fn settled(&self, id: &str, number: &str, backends: &Backends) -> Self {
        let mut call = self.clone();
        for (_, value) in &mut call.headers {
            *value = endpoints::put_in(&named(value, id), backends);
        }
        call.host = call.host.as_deref().map(|host| named(host, id));
        call.headers.insert(0, ("x-case".into(), number.into()));
        call.raw = call.raw.map(|raw| raw.replace("{case}", number));
        for then in &mut call.then {
            *then = then.replace("{case}", number);
        }
        call
    }

    /// The bytes of HTTP/1.1.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        if let Some(raw) = &self.raw {
            let all = raw
                .chars()
                .chain(self.then.iter().flat_map(|it| it.chars()));
            return all.map(|c| u8::try_from(c).unwrap_or(b'?')).collect();
        }
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if let Some(host) = &self.host {
            text += &format!("host: {host}\r\n");
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        if self.chunked {
            text += "transfer-encoding: chunked\r\n\r\n";
            if !self.body.is_empty() {
                text += &format!("{:x}\r\n{}\r\n", self.body.len(), self.body);
            }
            text += "0\r\n";
            for (name, value) in &self.trailers {
                text += &format!("{name}: {value}\r\n");
            }
            text += "\r\n";
        } else {
            let bodiless = matches!(&*self.method, "GET" | "HEAD" | "DELETE" | "OPTIONS");
            if !(self.body.is_empty() && bodiless) && self.method != "CONNECT" {
                // Who leaves does not send all of it.
                let missing = usize::from(self.leaves.is_some());
                text += &format!("content-length: {}\r\n", self.body.len() + missing);
            }
            text += "\r\n";
            text += &self.body;
        }
        text.into_bytes()
    }

    /// As the head of an HTTP/2 request, where it can be one.
    pub(crate) fn head(&self) -> Option<http::Request<()>> {
        let host = self.host.as_deref()?;
        if !self.target.starts_with('/') {
            return None;
        }
        let mut builder = http::Request::builder()
            .method(&*self.method)
            .uri(format!("http://{host}{}", self.target))
            .version(http::Version::HTTP_2);
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        let request = builder.body(()).ok()?;
        // The type must not have made it nicer.
        let same = request.uri().path_and_query().map(|it| it.as_str()) == Some(&*self.target)
            && request.uri().authority().map(|it| it.as_str()) == Some(host);
        same.then_some(request)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Secured {
            as_whom,
            server_name,
        }) = self.secured
        {
            write!(f, "(over TLS to {server_name:?} as {as_whom}) ")?;
        }
        let version = if self.http2 { "HTTP/2" } else { "HTTP/1.1" };
        if self.wait > 0 {
            write!(f, "after {} ms ", self.wait)?;
        }
        if let Some(mark) = self.pace.mark {
            write!(f, "(mark: {mark:?}) ")?;
        }
        if self.pace.after > 0 {
            write!(f, "{} ms after the mark ", self.pace.after)?;
        }
        if let Some(leaves) = self.leaves {
            write!(f, "(and leaves: {leaves:?}) ")?;
        }
        write!(f, "{version} {:?}", String::from_utf8_lossy(&self.bytes()))?;
        self.then
            .iter()
            .try_for_each(|it| write!(f, " and at once {it:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_1_is_written_as_it_is() {
        let call = Call::get("//a/../%2f?q").with("X-A", "1").with("x-a", "2");
        let text = "GET //a/../%2f?q HTTP/1.1\r\nhost: mesh.test\r\nX-A: 1\r\nx-a: 2\r\n\r\n";
        assert_eq!(call.bytes(), text.as_bytes());
    }

    #[test]
    fn http_2_is_refused_where_it_would_not_be_the_same() {
        assert!(Call::get("/a?b").head().is_some());
        assert!(Call::get("*").head().is_none());
        assert!(Call::get("/a#b").head().is_none());
        assert!(Call::get("http://x/").head().is_none());
    }
}
