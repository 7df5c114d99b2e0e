//! What a line of the access log is made from, beyond the exchange itself.

use super::format::Wanted;
use super::operator::{Field, Operator, Port, Spelling};
use http::header::{HOST, HeaderMap, HeaderName};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use mesh_core::exchange::{AttemptNotes, Head, TlsInfo};
use mesh_core::model::{Address, UnixPath, UpstreamProtocol};
use mesh_core::{Exchange, Name};
use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is kept of a request, its response and its end. Only what the formats want is kept, and
/// an entry that is used again has the room of the last time.
#[derive(Debug)]
pub struct Entry {
    pub(crate) arrived: SystemTime,
    /// None for connections that are passed on as they are.
    pub(crate) version: Option<Version>,
    pub(crate) status: Option<StatusCode>,
    /// How long after its arrival the request was there whole.
    pub(crate) request_end: Option<Duration>,
    pub(crate) ended: Option<Instant>,
    target: Option<(Method, Uri, Option<HeaderValue>)>,
    request: Vec<(HeaderName, HeaderValue)>,
    response: Vec<(HeaderName, HeaderValue)>,
    trailers: Vec<(HeaderName, HeaderValue)>,
}

/// Everything that a line can tell.
pub(super) struct Line<'a> {
    pub(super) exchange: &'a Exchange,
    pub(super) notes: &'a AttemptNotes,
    pub(super) entry: &'a Entry,
    pub(super) hostname: &'a str,
}

// === impl Entry ===

impl Entry {
    /// An entry about nothing yet.
    pub fn new() -> Self {
        Self {
            arrived: UNIX_EPOCH,
            version: None,
            status: None,
            request_end: None,
            ended: None,
            target: None,
            request: Vec::new(),
            response: Vec::new(),
            trailers: Vec::new(),
        }
    }

    /// Forgets everything but keeps the room.
    pub fn clear(&mut self) {
        self.version = None;
        self.status = None;
        self.request_end = None;
        self.ended = None;
        self.target = None;
        self.request.clear();
        self.response.clear();
        self.trailers.clear();
    }

    /// Keeps what is wanted of a request that arrived `at` this time of day.
    pub fn request<B>(&mut self, request: &Request<B>, at: SystemTime, wanted: &Wanted) {
        self.arrived = at;
        self.version = Some(request.version());
        if wanted.target {
            let uri = request.uri().clone();
            let host = match uri.authority() {
                Some(_) => None,
                None => request.headers().get(HOST).cloned(),
            };
            self.target = Some((request.method().clone(), uri, host));
        }
        keep(&mut self.request, request.headers(), &wanted.request);
    }

    /// Takes a request's head as it left in place of the one that came.
    pub fn head(&mut self, head: Head) {
        self.target = head.target.or_else(|| self.target.take());
        self.request.clear();
        self.request.extend(head.headers);
    }

    /// Notes that a connection began `at` this time of day.
    pub fn begin(&mut self, at: SystemTime) {
        self.arrived = at;
    }

    /// Keeps what is wanted of a response's head.
    pub fn response<B>(&mut self, response: &Response<B>, wanted: &Wanted) {
        self.status = Some(response.status());
        keep(&mut self.response, response.headers(), &wanted.response);
    }

    /// Keeps what is wanted of a response's trailers.
    pub fn trailers(&mut self, trailers: &HeaderMap, wanted: &Wanted) {
        keep(&mut self.trailers, trailers, &wanted.trailers);
    }

    /// Notes how long after its arrival the request was there whole.
    pub fn request_end(&mut self, after: Duration) {
        self.request_end = Some(after);
    }

    /// Notes when the exchange ended.
    pub fn end(&mut self, now: Instant) {
        self.ended = Some(now);
    }

    /// The response's status, if there was a response.
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }
}

impl Default for Entry {
    fn default() -> Self {
        Self::new()
    }
}

/// The first value of each wanted header, as Envoy logs it.
fn keep(kept: &mut Vec<(HeaderName, HeaderValue)>, headers: &HeaderMap, wanted: &[HeaderName]) {
    for name in wanted {
        if let Some(value) = headers.get(name) {
            kept.push((name.clone(), value.clone()));
        }
    }
}

fn kept<'a>(values: &'a [(HeaderName, HeaderValue)], name: &HeaderName) -> Option<&'a HeaderValue> {
    let (_, value) = values.iter().find(|(kept, _)| kept == name)?;
    Some(value)
}

// === impl Line ===

impl Line<'_> {
    /// Writes the value of an operator. False when it is missing; a header that is there may be
    /// empty.
    pub(super) fn write(&self, operator: &Operator, out: &mut Vec<u8>) -> bool {
        match operator {
            Operator::Request(first, second) => either(first, second.as_ref(), |field| {
                self.request_field(field, out)
            }),
            Operator::Response(first, second) => either(first, second.as_ref(), |field| {
                self.response_field(field, out)
            }),
            Operator::Trailer(first, second) => either(first, second.as_ref(), |name| {
                value(kept(&self.entry.trailers, name), out)
            }),
            other => {
                let at = out.len();
                self.tell(other, out);
                out.len() > at
            }
        }
    }

    /// The same of what is no header; nothing when it is missing.
    fn tell(&self, operator: &Operator, out: &mut Vec<u8>) {
        let Self {
            exchange,
            notes,
            entry,
            ..
        } = *self;
        let upstream = notes.upstream.as_ref();
        match operator {
            Operator::StartTime(format) => format.write(entry.arrived, out),
            // Written above.
            Operator::Request(..) | Operator::Response(..) | Operator::Trailer(..) => {}
            Operator::Protocol => {
                if let Some(version) = entry.version {
                    out.extend_from_slice(protocol(version));
                }
            }
            Operator::UpstreamProtocol => self.upstream_protocol(out),
            // Envoy writes 0 where no response began.
            Operator::ResponseCode => {
                number(
                    entry.status.map_or(0, |status| u64::from(status.as_u16())),
                    out,
                );
            }
            Operator::ResponseCodeDetails => match &notes.details {
                Some(details) => clean(details, b'_', out),
                None if entry.status.is_some() => out.extend_from_slice(b"via_upstream"),
                None => {}
            },
            // Of what ends connections, only policies have something to say.
            Operator::ConnectionTerminationDetails => {
                if let Some(details) = &notes.termination {
                    clean(details, b'_', out);
                }
            }
            Operator::RequestedServerName => self.tls(out, |tls, out| {
                clean(&tls.server_name, b'_', out);
            }),
            Operator::FilterChainName => name(&exchange.caller().chain, out),
            Operator::Tls(field) => self.tls(out, |tls, out| field.write(tls, out)),
            Operator::ResponseFlags => match exchange.flags() {
                none if none.is_empty() => {}
                flags => show(flags, out),
            },
            Operator::BytesReceived => number(exchange.received(), out),
            Operator::BytesSent => number(exchange.sent(), out),
            Operator::Duration => self.since(Some(exchange.started()), entry.ended, out),
            Operator::RequestDuration => {
                if let Some(after) = entry.request_end {
                    millis(after, out);
                }
            }
            Operator::ResponseDuration => {
                self.since(Some(exchange.started()), notes.head_at, out);
            }
            Operator::ResponseTxDuration => self.since(notes.head_at, entry.ended, out),
            Operator::UpstreamHost => {
                if let Some(upstream) = upstream {
                    match upstream.remote {
                        Some(remote) => socket(remote, out),
                        None => match &upstream.endpoint.address {
                            Address::Socket(address) => socket(*address, out),
                            other => show(other.as_envoy(), out),
                        },
                    }
                }
            }
            Operator::UpstreamCluster => {
                if let Some(cluster) = exchange.cluster() {
                    let config = cluster.config();
                    name(config.stat_name.as_ref().unwrap_or(&config.name), out);
                }
            }
            Operator::UpstreamClusterRaw => {
                if let Some(cluster) = exchange.cluster() {
                    name(&cluster.config().name, out);
                }
            }
            Operator::UpstreamLocalAddress => {
                let local = upstream.and_then(|upstream| upstream.local);
                // Our end of a Unix domain socket has no name.
                address(local, None, Port::Written, out);
            }
            Operator::UpstreamRemoteAddress => {
                let remote = upstream.and_then(|upstream| upstream.remote);
                let unix = upstream.and_then(|upstream| upstream.endpoint.address.unix());
                address(remote, unix, Port::Written, out);
            }
            Operator::UpstreamTransportFailureReason => {
                // One word, as Envoy writes it.
                if let Some(reason) = &notes.transport_failure {
                    clean(&reason.replace(' ', "_"), b'_', out);
                }
            }
            Operator::UpstreamRequestAttemptCount => self.attempts(out),
            Operator::DownstreamRemoteAddress(port) => {
                let caller = exchange.caller();
                address(exchange.remote(), caller.unix.as_ref(), *port, out);
            }
            Operator::DownstreamDirectRemoteAddress(port) => {
                let caller = exchange.caller();
                // Whoever called there, the PROXY protocol cannot have said it of this connection.
                let seen = caller.direct.or(caller.peer);
                let seen = seen.filter(|_| caller.unix.is_none());
                address(seen, caller.unix.as_ref(), *port, out);
            }
            Operator::DownstreamLocalAddress(port) => {
                let caller = exchange.caller();
                address(caller.local, caller.unix.as_ref(), *port, out);
            }
            Operator::DownstreamLocalPort => {
                if let Some(local) = exchange.caller().local {
                    number(u64::from(local.port()), out);
                }
            }
            Operator::RouteName => {
                if let Some(rule) = exchange.rule() {
                    name(&rule.name, out);
                }
            }
            Operator::GrpcStatus(spelling) => {
                if let Some(status) = notes.grpc_status {
                    grpc(status, *spelling, out);
                }
            }
            Operator::Hostname => out.extend_from_slice(self.hostname.as_bytes()),
        }
    }

    fn tls(&self, out: &mut Vec<u8>, write: impl FnOnce(&TlsInfo, &mut Vec<u8>)) {
        if let Some(tls) = &self.exchange.caller().tls {
            write(tls, out);
        }
    }

    /// Whether it is there.
    fn request_field(&self, field: &Field, out: &mut Vec<u8>) -> bool {
        if let Field::Header(name) = field {
            return self.request_header(name, out);
        }
        let Some((method, uri, host)) = &self.entry.target else {
            return false;
        };
        match field {
            Field::Method => out.extend_from_slice(method.as_str().as_bytes()),
            Field::Path => match uri.path_and_query() {
                Some(path) => out.extend_from_slice(path.as_str().as_bytes()),
                None => return false,
            },
            Field::Authority => match uri.authority() {
                Some(authority) => out.extend_from_slice(authority.as_str().as_bytes()),
                None => return value(host.as_ref(), out),
            },
            Field::Scheme => {
                let spoken = if self.exchange.caller().is_secure() {
                    "https"
                } else {
                    "http"
                };
                out.extend_from_slice(uri.scheme_str().unwrap_or(spoken).as_bytes());
            }
            // Written above, and refused when the format was compiled.
            Field::Header(_) | Field::Status => return false,
        }
        true
    }

    fn request_header(&self, name: &HeaderName, out: &mut Vec<u8>) -> bool {
        // Made on the way in, below the layer that keeps headers.
        if name == "x-request-id"
            && let Some(id) = self.exchange.request_id()
        {
            return value(Some(&id), out);
        }
        value(kept(&self.entry.request, name), out)
    }

    fn response_field(&self, field: &Field, out: &mut Vec<u8>) -> bool {
        match (field, self.entry.status) {
            (Field::Header(name), _) => value(kept(&self.entry.response, name), out),
            (Field::Status, Some(status)) => {
                number(u64::from(status.as_u16()), out);
                true
            }
            // Others were refused when the format was compiled.
            _ => false,
        }
    }

    fn upstream_protocol(&self, out: &mut Vec<u8>) {
        let (Some(_), Some(cluster)) = (&self.notes.upstream, self.exchange.cluster()) else {
            return;
        };
        if self.entry.version.is_none() {
            return;
        }
        out.extend_from_slice(match cluster.config().protocol {
            UpstreamProtocol::Http1 => b"HTTP/1.1",
            UpstreamProtocol::Http2 => b"HTTP/2",
            // Nothing is spoken as far as anyone can tell.
            _ => match self.entry.version {
                Some(version) => protocol(version),
                None => b"",
            },
        });
    }

    fn attempts(&self, out: &mut Vec<u8>) {
        number(u64::from(self.exchange.attempts_told(self.notes)), out);
    }

    fn since(&self, from: Option<Instant>, to: Option<Instant>, out: &mut Vec<u8>) {
        if let (Some(from), Some(to)) = (from, to) {
            millis(to.saturating_duration_since(from), out);
        }
    }
}

/// Writes the first field, or the second where the first is missing. Whether either is there.
fn either<F>(first: &F, second: Option<&F>, mut write: impl FnMut(&F) -> bool) -> bool {
    write(first) || second.is_some_and(write)
}

fn protocol(version: Version) -> &'static [u8] {
    match version {
        Version::HTTP_09 => b"HTTP/0.9",
        Version::HTTP_10 => b"HTTP/1.0",
        Version::HTTP_2 => b"HTTP/2",
        Version::HTTP_3 => b"HTTP/3",
        _ => b"HTTP/1.1",
    }
}

fn value(value: Option<&HeaderValue>, out: &mut Vec<u8>) -> bool {
    if let Some(value) = value {
        out.extend_from_slice(value.as_bytes());
    }
    value.is_some()
}

fn name(name: &Name, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
}

fn number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn millis(duration: Duration, out: &mut Vec<u8>) {
    number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), out);
}

fn show(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{value}");
}

/// As [`Display`](std::fmt::Display) writes it. Each line has several addresses, mostly of this
/// family, and the general way takes five times as long.
fn socket(address: SocketAddr, out: &mut Vec<u8>) {
    let SocketAddr::V4(address) = address else {
        return show(address, out);
    };
    // `255.255.255.255:65535` fits; what is behind the text is cut off again.
    let mut text = [0; 24];
    let mut at = 0;
    for octet in address.ip().octets() {
        let (digits, length) = OCTETS[usize::from(octet)];
        text[at..at + 4].copy_from_slice(&digits);
        at += usize::from(length);
    }
    text[at - 1] = b':';
    let mut rest = address.port();
    let mut digits = [0; 5];
    let mut first = digits.len();
    while first > 0 && (rest > 0 || first == digits.len()) {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    for digit in &digits[first..] {
        text[at] = *digit;
        at += 1;
    }
    out.extend_from_slice(&text[..at]);
}

/// Every octet with the dot behind it, and how long that is.
static OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let (mut digits, mut length) = ([b'.'; 4], 0);
        if octet >= 100 {
            digits[length] = b'0' + (octet / 100) as u8;
            length += 1;
        }
        if octet >= 10 {
            digits[length] = b'0' + (octet / 10 % 10) as u8;
            length += 1;
        }
        digits[length] = b'0' + (octet % 10) as u8;
        octets[octet] = (digits, length as u8 + 2);
        octet += 1;
    }
    octets
};

/// Names in a list, as Envoy joins them.
pub(super) fn list(names: &[Name], out: &mut Vec<u8>) {
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        clean(name, b'_', out);
    }
}

/// Text that others had a hand in: a control character must not start a new line.
pub(super) fn clean(text: &str, instead: u8, out: &mut Vec<u8>) {
    out.extend(text.bytes().map(|byte| {
        if byte.is_ascii_control() {
            instead
        } else {
            byte
        }
    }));
}

/// Where there is no address, the path of the Unix domain socket, as in Envoy: its caller has no
/// other name.
fn address(address: Option<SocketAddr>, unix: Option<&UnixPath>, port: Port, out: &mut Vec<u8>) {
    match (address, port) {
        (Some(address), Port::Written) => socket(address, out),
        (Some(address), Port::LeftOut) => show(address.ip(), out),
        (None, _) => {
            if let Some(path) = unix {
                clean(path.as_str(), b'_', out);
            }
        }
    }
}

fn grpc(status: u32, spelling: Spelling, out: &mut Vec<u8>) {
    match spelling.name(status) {
        Some(name) => out.extend_from_slice(name.as_bytes()),
        None => number(u64::from(status), out),
    }
}
