//! Asking over gRPC: `envoy.service.auth.v3.Authorization/Check`.

use super::body::{AskBody, Sent};
use super::edits::{Edits, Part};
use super::head::{About, Peers};
use super::wire::{Broken, Fields, Value, Writer};
use super::{Decision, Telling, absolute, internal};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version};
use mesh_core::exchange::{PutReply, ReplyEdit};
use mesh_core::model::{AskGrpc, External};
use mesh_core::reply::Answer;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";

/// A question about a request.
pub(super) fn question(
    external: &External,
    ask: &AskGrpc,
    about: &About<'_>,
    telling: Telling<'_>,
    now: SystemTime,
) -> Request<AskBody> {
    let message = message(about.peers, service(about), |attributes| {
        attributes.message(4, |request| {
            let since = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            request.message(1, |time| {
                time.number(1, since.as_secs());
                time.number(2, u64::from(since.subsec_nanos()));
            });
            let Telling { sent, raw, .. } = telling;
            request.message(2, |http| of_http(http, ask, about, sent, raw));
        });
        for (name, value) in telling.context {
            attributes.entry(10, name.as_bytes(), value.as_bytes());
        }
    });
    framed(external, ask, message)
}

/// A question about a connection.
pub(super) fn about_connection(
    external: &External,
    ask: &AskGrpc,
    peers: Peers<'_>,
) -> Request<AskBody> {
    framed(external, ask, message(peers, b"", |_| {}))
}

fn framed(external: &External, ask: &AskGrpc, message: Writer) -> Request<AskBody> {
    let mut request = Request::new(AskBody::new(message.framed()));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    let cluster;
    let authority = match ask.authority.is_empty() {
        false => ask.authority.as_str(),
        true => {
            // What istiod makes of names that cannot be one of a host.
            cluster = external.cluster.replace('|', "_.");
            &cluster
        }
    };
    absolute(&mut request, authority.as_bytes(), PATH);
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    if let Some(timeout) = external.timeout {
        // No more than eight digits (gRPC over HTTP/2).
        let text = match timeout.as_millis() {
            millis @ ..=99_999_999 => format!("{millis}m"),
            _ => format!("{}S", timeout.as_secs().min(99_999_999)),
        };
        headers.extend(HeaderValue::try_from(text).map(|value| (GRPC_TIMEOUT, value)));
    }
    internal(headers, external.timeout);
    request
}

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Who a caller says it is (`x-envoy-downstream-service-cluster`).
fn service<'a>(about: &About<'a>) -> &'a [u8] {
    let headers = about.request.headers();
    let said = headers.get("x-envoy-downstream-service-cluster");
    said.map_or(&[], HeaderValue::as_bytes)
}

/// `CheckRequest`.
fn message(peers: Peers<'_>, service: &[u8], write: impl FnOnce(&mut Writer)) -> Writer {
    let mut message = Writer::default();
    message.message(1, |attributes| {
        attributes.message(1, |source| {
            address(source, peers.source);
            source.bytes(2, &text(service));
            source.bytes(4, peers.principal().as_bytes());
        });
        attributes.message(2, |destination| {
            address(destination, peers.destination);
            destination.bytes(4, peers.local().as_bytes());
        });
        write(attributes);
        // Nothing is in it, but it is there, as from Envoy.
        attributes.message(11, |_| {});
    });
    message
}

/// `Address.socket_address`.
fn address(peer: &mut Writer, address: Option<SocketAddr>) {
    let Some(address) = address else { return };
    peer.message(1, |of| {
        of.message(1, |socket| {
            socket.bytes(2, address.ip().to_string().as_bytes());
            socket.number(3, u64::from(address.port()));
        });
    });
}

/// `AttributeContext.HttpRequest`.
fn of_http(http: &mut Writer, ask: &AskGrpc, about: &About<'_>, sent: Option<&Sent>, raw: bool) {
    let request = &about.request;
    let id = request.headers().get("x-request-id");
    http.bytes(1, &text(id.map_or(&[], HeaderValue::as_bytes)));
    http.bytes(2, request.method().as_bytes());
    let told = |name: &str| {
        let any = |one: &mesh_core::model::StringMatch| one.matches(name.as_bytes());
        ask.headers.is_empty() || ask.headers.iter().any(any)
    };
    let mut header = |name: &str, value: &[u8]| {
        if told(name) {
            http.entry(3, name.as_bytes(), &text(value));
        }
    };
    header(":method", request.method().as_bytes());
    header(":path", about.path().as_bytes());
    header(":authority", about.authority());
    header(":scheme", request.scheme().as_bytes());
    for (name, value) in about.headers() {
        header(name.as_str(), &value);
    }
    if let Some(sent) = sent {
        let partial = if sent.partial { "true" } else { "false" };
        http.entry(3, b"x-envoy-auth-partial-body", partial.as_bytes());
    }
    http.bytes(4, about.path().as_bytes());
    http.bytes(5, &text(about.authority()));
    http.bytes(6, request.scheme().as_bytes());
    http.number(9, sent.map_or(0, |sent| sent.read as u64));
    let version = match about.version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    };
    http.bytes(10, version.as_bytes());
    match sent {
        Some(sent) if raw => http.bytes(12, &sent.bytes),
        Some(sent) => http.bytes(11, &text(&sent.bytes)),
        None => {}
    }
}

/// Bytes as text: what is none becomes `!` (Envoy `sanitizeUtf8String`).
fn text(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        out.extend(chunk.invalid().iter().map(|_| b'!'));
    }
    out
}

/// What the service's answer says.
pub(super) fn decision(
    status: StatusCode,
    headers: &HeaderMap,
    body: &Bytes,
    trailers: &HeaderMap,
) -> Decision {
    // Without a message the status may be in the head.
    let code = trailers.get("grpc-status");
    let code = code.or_else(|| headers.get("grpc-status"));
    if status != StatusCode::OK || code.is_none_or(|code| code != "0") {
        return Decision::Failed(None);
    }
    let read = || response(Fields::framed(body)?);
    read().unwrap_or(Decision::Failed(None))
}

/// `CheckResponse`.
fn response(fields: Fields<'_>) -> Result<Decision, Broken> {
    let (mut code, mut answer) = (0, None);
    for field in fields {
        match field? {
            (1, status) => code = number(status.fields()?, 1)?,
            (at @ (2 | 3 | 5), one) => answer = Some((at, one.fields()?)),
            _ => {}
        }
    }
    Ok(match (code, answer) {
        (0, Some((3, ok))) => Decision::Allowed(edits(ok)?),
        (0, _) => Decision::Allowed(Edits::default()),
        (_, Some((5, error))) => Decision::Failed(Some(local(error)?)),
        (_, Some((2, denied))) => {
            let (status, mut answer) = local(denied)?;
            answer.status = status.unwrap_or(StatusCode::FORBIDDEN);
            Decision::Denied(answer)
        }
        _ => Decision::Denied(Answer::new(StatusCode::FORBIDDEN)),
    })
}

/// `OkHttpResponse`.
fn edits(fields: Fields<'_>) -> Result<Edits, Broken> {
    let mut edits = Edits::default();
    for field in fields {
        match field? {
            (2, option) => {
                let option = Put::read(option.fields()?)?;
                let part = Part::named(option.key).map_err(|_| Broken)?;
                match (option.append, part) {
                    (Some(true), Part::Header(name)) => edits.append.push((name, option.value)),
                    (Some(true), _) => {}
                    (_, part) => edits.set.push((part, option.value)),
                }
            }
            // A name that cannot be one of a header is none that there is.
            (5, name) => edits.remove.extend(HeaderName::try_from(name.text()?)),
            (6, option) => {
                let option = Put::read(option.fields()?)?;
                let put = match (option.append, option.action) {
                    (Some(true), _) | (None, 0) => PutReply::Add,
                    (None, 1) => PutReply::IfAbsent,
                    (None, 3) => PutReply::IfPresent,
                    _ => PutReply::Set,
                };
                let name = HeaderName::try_from(option.key).map_err(|_| Broken)?;
                let value = option.value;
                edits.reply.push(ReplyEdit { name, value, put });
            }
            (7, pair) => {
                let pair = pair.fields()?;
                let (key, value) = (last(pair, 1)?, last(pair, 2)?);
                edits.query_set.push((key.to_owned(), value.to_owned()));
            }
            (8, key) => edits.query_remove.push(key.text()?.to_owned()),
            _ => {}
        }
    }
    Ok(edits)
}

/// `DeniedHttpResponse`.
fn local(fields: Fields<'_>) -> Result<(Option<StatusCode>, Answer), Broken> {
    let mut answer = Answer::default();
    let mut status = None;
    for field in fields {
        match field? {
            (1, code) => {
                let code = number(code.fields()?, 1)?;
                let code = (code != 0).then(|| u16::try_from(code).map_err(|_| Broken));
                let code = code.transpose()?.map(StatusCode::from_u16);
                status = code.transpose().map_err(|_| Broken)?;
            }
            (2, option) => {
                let option = Put::read(option.fields()?)?;
                // Seen of Envoy: what is to be appended is left out of an answer of its own.
                if option.append != Some(true) && !option.key.starts_with(':') {
                    let name = HeaderName::try_from(option.key).map_err(|_| Broken)?;
                    answer.headers.append(name, option.value);
                }
            }
            (3, body) => answer.body = Bytes::copy_from_slice(body.bytes()?),
            _ => {}
        }
    }
    Ok((status, answer))
}

/// `HeaderValueOption`.
struct Put<'a> {
    key: &'a str,
    value: HeaderValue,
    /// The older way to say it.
    append: Option<bool>,
    action: u64,
}

impl<'a> Put<'a> {
    fn read(fields: Fields<'a>) -> Result<Self, Broken> {
        let mut put = Self {
            key: "",
            value: HeaderValue::from_static(""),
            append: None,
            action: 0,
        };
        for field in fields {
            match field? {
                (1, header) => {
                    let header = header.fields()?;
                    put.key = last(header, 1)?;
                    // Seen of Envoy: `raw_value` is not read.
                    let value = last(header, 2)?;
                    put.value = HeaderValue::try_from(value).map_err(|_| Broken)?;
                }
                (2, append) => put.append = Some(number(append.fields()?, 1)? != 0),
                (3, action) => put.action = action.number()?,
                _ => {}
            }
        }
        Ok(put)
    }
}

/// A text field; empty where it is not there.
fn last<'a>(fields: Fields<'a>, at: u32) -> Result<&'a str, Broken> {
    find(fields, at)?.map_or(Ok(""), Value::text)
}

/// A number field; 0 where it is not there.
fn number(fields: Fields<'_>, at: u32) -> Result<u64, Broken> {
    find(fields, at)?.map_or(Ok(0), Value::number)
}

fn find(fields: Fields<'_>, at: u32) -> Result<Option<Value<'_>>, Broken> {
    let mut found = None;
    for field in fields {
        let (field, value) = field?;
        if field == at {
            found = Some(value);
        }
    }
    Ok(found)
}
