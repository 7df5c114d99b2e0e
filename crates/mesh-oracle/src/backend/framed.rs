//! A backend of HTTP/2 with prior knowledge.

use super::Log;
use crate::wire::Message;
use crate::wire2::listed;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::sleep;

pub(super) async fn serve(name: &'static str, stream: TcpStream, log: &Log) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    // All streams of a connection are served here, beside accepting more of them.
    let mut open = futures_util::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok((request, respond))) => open.push(answer(name, request, respond, log)),
                _ => return,
            },
            _ = futures_util::StreamExt::next(&mut open), if !open.is_empty() => {}
        }
    }
}

async fn answer(
    name: &'static str,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    log: &Log,
) {
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
    let word = log.note(name, message);
    let bodiless = head.method == http::Method::HEAD;
    // Who reset the stream is not told of it.
    let _ = act(&word, name, bodiless, &mut respond).await;
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
    match word {
        "reset" => respond.send_reset(Reason::INTERNAL_ERROR),
        "refuse" => respond.send_reset(Reason::REFUSED_STREAM),
        "cancel" => respond.send_reset(Reason::CANCEL),
        "hang" => sleep(Duration::from_secs(3)).await,
        "head-then-reset" if !bodiless => {
            let mut body = respond.send_response(head(200), false)?;
            body.send_data(Bytes::from_static(b"abc"), false)?;
            sleep(Duration::from_millis(80)).await;
            body.send_reset(Reason::INTERNAL_ERROR);
        }
        "trailers" if !bodiless => {
            let mut body = respond.send_response(grpc(), false)?;
            body.send_data(Bytes::from_static(b"abc"), false)?;
            body.send_trailers(status("0"))?;
        }
        _ if bodiless => {
            let status = word.parse().unwrap_or(200);
            respond.send_response(head(status), true)?;
        }
        _ => {
            if let Some(code) = word.strip_prefix("grpc-late-") {
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
