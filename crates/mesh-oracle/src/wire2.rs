//! HTTP/2, as the `h2` crate speaks it, in the shape of [`Message`].

use crate::backend::Log;
use crate::request::{Call, Leave};
use crate::wire::{CLOSED, Io, Message, PATIENCE};
use bytes::Bytes;
use h2::{Ping, Reason};
use http::HeaderMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long a connection may take to send what is left.
const ENOUGH: Duration = Duration::from_millis(300);

/// Sends a request on this connection, and reads the answer.
pub(crate) async fn exchange<S: Io + 'static>(stream: S, call: &Call) -> Message {
    let Some(head) = call.head() else {
        return Message::ended("no HTTP/2 request");
    };
    let reply = timeout(PATIENCE, ask(stream, head, call)).await;
    reply.unwrap_or_else(|_| Message::ended("no answer in time"))
}

async fn ask<S: Io + 'static>(stream: S, head: http::Request<()>, call: &Call) -> Message {
    let Ok((client, connection)) = h2::client::handshake(stream).await else {
        return Message::ended("no HTTP/2 connection");
    };
    // Ends with the connection, which ends with its last handle below.
    let driving = tokio::spawn(connection);
    let reply = async {
        let mut client = client.ready().await?;
        let bare = call.body.is_empty() && call.trailers.is_empty();
        let (response, mut sender) = client.send_request(head, bare)?;
        // A peer that answers early may reset the stream while we send: the answer counts.
        if !call.body.is_empty() {
            let body = Bytes::from(call.body.clone());
            let _ = sender.send_data(body, call.trailers.is_empty());
        }
        if !call.trailers.is_empty() {
            let _ = sender.send_trailers(call.trailers.iter().filter_map(field).collect());
        }
        let (head, mut body) = response.await?.into_parts();
        let mut message = Message::ended("whole");
        message.line = format!("HTTP/2 {}", head.status.as_u16());
        message.headers = listed(&head.headers);
        while let Some(data) = body.data().await {
            match data {
                Ok(data) => {
                    // The window of this size is given back at once.
                    let _ = body.flow_control().release_capacity(data.len());
                    message.body.extend_from_slice(&data);
                }
                Err(_) => {
                    message.end = "cut";
                    return Ok(message);
                }
            }
        }
        match body.trailers().await {
            Ok(trailers) => message.trailers = listed(&trailers.unwrap_or_default()),
            Err(_) => message.end = "cut",
        }
        Ok::<_, h2::Error>(message)
    };
    let reply = reply.await;
    driving.abort();
    reply.unwrap_or_else(|_| Message::ended(CLOSED))
}

/// Sends a request on a new connection and lets go of it once a backend has it, and once its answer
/// has begun if it is to begin. A body of it never ends. Where no backend is to have it the answer is waited for.
pub(crate) async fn leave(
    to: SocketAddr,
    call: &Call,
    how: Leave,
    (log, case): (&Log, &str),
) -> (Message, String) {
    let Ok(stream) = TcpStream::connect(to).await else {
        return (Message::ended("nobody listens"), String::new());
    };
    let caller = stream
        .local_addr()
        .map_or_else(|_| String::new(), |it| it.to_string());
    let left = timeout(PATIENCE, let_go(stream, call, how, (log, case))).await;
    let message = match left {
        Ok(Some(message)) => message,
        Ok(None) => Message::ended("no HTTP/2 connection"),
        Err(_) => Message::ended("not left in time"),
    };
    (message, caller)
}

async fn let_go(
    stream: TcpStream,
    call: &Call,
    how: Leave,
    (log, case): (&Log, &str),
) -> Option<Message> {
    let (client, mut connection) = h2::client::handshake(stream).await.ok()?;
    let mut pings = connection.ping_pong();
    let mut driving = tokio::spawn(connection);
    let mut client = client.ready().await.ok()?;
    let uploads = !call.body.is_empty();
    let (mut response, mut sender) = client.send_request(call.head()?, !uploads).ok()?;
    if uploads {
        let body = Bytes::from(call.body.clone());
        sender.send_data(body, false).ok()?;
    }
    let mut message = Message::ended("left");
    let early = tokio::select! {
        biased;
        () = log.upload(case), if uploads => None,
        () = log.arrival(case), if !uploads => None,
        answer = &mut response => Some(answer.ok()?),
    };
    let begins = call
        .header("x-script")
        .is_some_and(|it| it.starts_with("head"));
    let mut body = None;
    let is_early = early.is_some() && !log.has(case);
    let answer = match early {
        None if begins => Some(response.await.ok()?),
        early => early,
    };
    if let Some(answer) = answer {
        let (head, mut data) = answer.into_parts();
        message.line = format!("HTTP/2 {}", head.status.as_u16());
        message.headers = listed(&head.headers);
        // Of what no backend has, all of it; else the one piece that there is.
        while let Some(piece) = data.data().await {
            message.body.extend(piece.ok()?);
            if !is_early {
                break;
            }
        }
        if is_early {
            message.end = "whole";
            driving.abort();
            return Some(message);
        }
        body = Some(data);
    }
    match how {
        Leave::Cancel | Leave::Refuse => {
            let refused = how == Leave::Refuse;
            sender.send_reset(match refused {
                true => Reason::REFUSED_STREAM,
                false => Reason::CANCEL,
            });
            // Once this is answered the reset was read.
            if let Some(pings) = &mut pings {
                let _ = pings.ping(Ping::opaque()).await;
            }
        }
        Leave::CancelAndClose => {
            sender.send_reset(Reason::CANCEL);
            drop((client, sender, body, pings));
            // Mostly it ends by itself when everything is sent, which the reset is in any case.
            let _ = timeout(ENOUGH, &mut driving).await;
        }
        Leave::Close => {}
    }
    driving.abort();
    // What is let go of earlier is reset.
    if !driving.is_finished() {
        let _ = driving.await;
    }
    Some(message)
}

/// Names and values in order.
pub(crate) fn listed(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value)
        })
        .collect()
}

fn field((name, value): &(String, String)) -> Option<(http::HeaderName, http::HeaderValue)> {
    Some((name.parse().ok()?, value.parse().ok()?))
}
