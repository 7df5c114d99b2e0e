//! A backend of HTTP/2 with prior knowledge.

use super::{Log, asked, is_upload};
use crate::wire::Message;
use crate::wire2::listed;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// Where gRPC's health checks go. They are answered with a `HealthCheckResponse`, whose field 1 is
/// UNKNOWN, SERVING, NOT_SERVING or SERVICE_UNKNOWN.
const CHECK_OF_GRPC: &str = "/grpc.health.v1.Health/Check";

pub(super) async fn serve(name: &'static str, stream: TcpStream, log: &Log) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    // All streams of a connection are served here, beside accepting more of them.
    let mut open = futures_util::stream::FuturesUnordered::new();
    // Streams that are never answered, as they are when their connection goes.
    let mut left = Vec::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => open.push(answer(name, request, respond, log)),
                _ => return,
            },
            answered = futures_util::StreamExt::next(&mut open), if !open.is_empty() => {
                match answered {
                    Some((Away::No, _)) | None => {}
                    Some((Away::Soon, _)) => connection.graceful_shutdown(),
                    Some((Away::Now(reason), stream)) => {
                        left.push(stream);
                        connection.abrupt_shutdown(reason);
                    }
                }
            }
        }
    }
}

/// Whether the connection goes away after an answer.
enum Away {
    No,
    /// When all answers are out.
    Soon,
    /// With everything on it.
    Now(Reason),
}

async fn answer(
    name: &'static str,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    log: &Log,
) -> (Away, SendResponse<Bytes>) {
    let (head, mut body) = request.into_parts();
    let mut message = Message::ended("whole");
    let path = head.uri.path_and_query().map_or("", |it| it.as_str());
    message.line = format!("{} {path} HTTP/2", head.method);
    if let Some(authority) = head.uri.authority() {
        message
            .headers
            .push((":authority".into(), authority.to_string()));
    }
    if let Some(scheme) = head.uri.scheme_str() {
        message.headers.push((":scheme".into(), scheme.into()));
    }
    message.headers.extend(listed(&head.headers));
    log.begin(&message);
    while let Some(data) = body.data().await {
        let Ok(data) = data else {
            message.end = "cut";
            break;
        };
        // The window of this size is given back at once.
        let _ = body.flow_control().release_capacity(data.len());
        message.body.extend_from_slice(&data);
    }
    if let Ok(Some(trailers)) = body.trailers().await {
        message.trailers = listed(&trailers);
    }
    if is_upload(&message) {
        return (Away::No, respond);
    }
    let asks = path == asked::CHECK;
    if asks {
        message = asked::told(message);
    }
    let checked = log.check(name, &message);
    let word = match &checked {
        Some(word) if path == CHECK_OF_GRPC => format!("health-{word}"),
        Some(word) => word.clone(),
        None => {
            log.script_health(&message);
            log.note(name, message)
        }
    };
    if asks && word != "hang" {
        let _ = said(&word, &mut respond);
        return (Away::No, respond);
    }
    let bodiless = head.method == http::Method::HEAD;
    match &*word {
        "goaway-cut" => return (Away::Now(Reason::NO_ERROR), respond),
        "goaway-error" => return (Away::Now(Reason::ENHANCE_YOUR_CALM), respond),
        "close" if checked.is_some() => return (Away::Now(Reason::NO_ERROR), respond),
        _ => {}
    }
    // Who reset the stream is not told of it.
    let _ = act(&word, name, bodiless, &mut respond).await;
    let away = if word == "goaway" {
        Away::Soon
    } else {
        Away::No
    };
    (away, respond)
}

/// Longer than any limit that ends a request which nobody answers: what is reset here was not reset
/// by time.
const HANG: Duration = Duration::from_secs(10);

/// What a service says that is asked over gRPC.
fn said(word: &str, respond: &mut SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    let Some(message) = asked::message(word) else {
        headers.insert("grpc-status", HeaderValue::from_static("14"));
        respond.send_response(response, true)?;
        return Ok(());
    };
    let mut body = respond.send_response(response, false)?;
    let mut framed = vec![0];
    framed.extend((message.len() as u32).to_be_bytes());
    framed.extend(message);
    body.send_data(framed.into(), false)?;
    let zero = HeaderValue::from_static("0");
    let name = http::HeaderName::from_static("grpc-status");
    body.send_trailers(HeaderMap::from_iter([(name, zero)]))
}

async fn act(
    word: &str,
    name: &str,
    bodiless: bool,
    respond: &mut SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let head = |status: u16| {
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
        let backend = HeaderValue::from_str(name).unwrap_or(HeaderValue::from_static("?"));
        response.headers_mut().insert("x-backend", backend);
        response
    };
    let grpc = || {
        let mut response = head(200);
        let kind = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", kind);
        response
    };
    let status = |code: &str| {
        let value = HeaderValue::from_str(code).unwrap_or(HeaderValue::from_static("2"));
        HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), value)])
    };
    let mut interim = |codes: &[u16]| {
        let mut send = |code: &u16| respond.send_informational(head(*code));
        codes.iter().try_for_each(&mut send)
    };
    match word {
        "interim" => interim(&[100])?,
        "early" => interim(&[103, 102])?,
        _ => {}
    }
    match word {
        "reset" => respond.send_reset(Reason::INTERNAL_ERROR),
        "refuse" => respond.send_reset(Reason::REFUSED_STREAM),
        "cancel" => respond.send_reset(Reason::CANCEL),
        "hang" => sleep(HANG).await,
        "head-then-reset" if !bodiless => {
            let mut body = respond.send_response(head(200), false)?;
            body.send_data(Bytes::from_static(b"abc"), false)?;
            sleep(Duration::from_millis(200)).await;
            body.send_reset(Reason::INTERNAL_ERROR);
        }
        "head-then-hang" if !bodiless => {
            let mut body = respond.send_response(head(200), false)?;
            body.send_data(Bytes::from_static(b"abc"), false)?;
            sleep(HANG).await;
        }
        "drip" if !bodiless => {
            let mut body = respond.send_response(head(200), false)?;
            for n in 1..=9 {
                sleep(Duration::from_millis(80)).await;
                body.send_data(Bytes::from_static(b"x"), n == 9)?;
            }
        }
        "degraded" | "fail" => {
            let (code, field) = match word {
                "fail" => (503, "x-envoy-immediate-health-check-fail"),
                _ => (200, "x-envoy-degraded"),
            };
            let mut response = head(code);
            let value = HeaderValue::from_static("true");
            response.headers_mut().insert(field, value);
            respond.send_response(response, true)?;
        }
        "health-close" => respond.send_reset(Reason::INTERNAL_ERROR),
        "health-hang" => sleep(HANG).await,
        "ratelimited" | "retriable" => {
            let (code, field) = match word {
                "retriable" => (404, "x-retriable"),
                _ => (429, "x-envoy-ratelimited"),
            };
            let mut response = head(code);
            let value = HeaderValue::from_static("true");
            response.headers_mut().insert(field, value);
            respond.send_response(response, true)?;
        }
        "trailers" if !bodiless => {
            let mut body = respond.send_response(grpc(), false)?;
            body.send_data(Bytes::from_static(b"abc"), false)?;
            body.send_trailers(status("0"))?;
        }
        _ if bodiless || matches!(word, "204" | "304") => {
            let status = word.parse().unwrap_or(200);
            respond.send_response(head(status), true)?;
        }
        _ => {
            if let Some(word) = word.strip_prefix("health-") {
                let (state, code) = match word {
                    "200" => (1, "0"),
                    "503" => (2, "0"),
                    "degraded" => (0, "0"),
                    "404" => (3, "0"),
                    _ => (1, "14"),
                };
                let mut body = respond.send_response(grpc(), false)?;
                body.send_data(Bytes::from(vec![0, 0, 0, 0, 2, 8, state]), false)?;
                body.send_trailers(status(code))?;
            } else if let Some(code) = word.strip_prefix("grpc-late-") {
                let mut body = respond.send_response(grpc(), false)?;
                body.send_data(Bytes::from_static(b"abc"), false)?;
                body.send_trailers(status(code))?;
            } else if let Some(code) = word.strip_prefix("grpc-") {
                let mut response = grpc();
                response.headers_mut().extend(status(code));
                respond.send_response(response, true)?;
            } else {
                let mut body = respond.send_response(head(word.parse().unwrap_or(200)), false)?;
                body.send_data(Bytes::copy_from_slice(name.as_bytes()), true)?;
            }
        }
    }
    Ok(())
}
