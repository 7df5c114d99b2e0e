//! A backend of HTTP/1.1.

use super::{Log, asked, is_upload, load};
use crate::wire::{Kind, Wire};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

/// As what a backend that is many endpoints was reached; no name that a header could have.
pub(crate) const REACHED: &str = "(reached)";

pub(super) async fn serve(name: &'static str, stream: TcpStream, log: &Arc<Log>) {
    let mut wire = Wire::new(stream);
    let of_heads = log.clone();
    wire.begun = Some(Box::new(move |head| of_heads.begin(head)));
    let at = wire.stream.local_addr().map(|at| at.ip());
    let at = at.ok().filter(|at| *at != Ipv4Addr::LOCALHOST);
    while let Ok(Some(mut request)) = wire.read(Kind::Request).await {
        if is_upload(&request) {
            return;
        }
        // One backend may be many endpoints.
        request
            .headers
            .extend(at.map(|at| (REACHED.to_owned(), at.to_string())));
        let head = request.line.starts_with("HEAD ");
        let load = request.header("x-load").zip(at);
        let load = load.and_then(|(told, at)| load::line(told, at));
        let location = request.header("x-location").map(str::to_owned);
        let case = request.header("x-case").unwrap_or_default().to_owned();
        let mut word = log.check(name, &request).unwrap_or_else(|| {
            log.script_health(&request);
            log.note(name, request)
        });
        if word == "hold" {
            log.hold(&case).await;
            "200".clone_into(&mut word);
        }
        if let Some(load) = load {
            let length = name.len();
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nx-backend: {name}\r\n{load}\r\n{name}"
            );
            if wire.stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        if let Some(status) = word.strip_prefix("to-") {
            let location = location.as_deref();
            let answer = redirect(status, name, head, location);
            if wire.stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
            continue;
        }
        if !act(&word, name, head, &mut wire).await {
            return;
        }
    }
}

/// Sends the request elsewhere, to where it asks for: to the first of several places, and from
/// there to the others.
fn redirect(status: &str, name: &str, head: bool, location: Option<&str>) -> String {
    let location = location.map_or(String::new(), |it| format!("location: {it}\r\n"));
    let body = if head { "" } else { name };
    format!(
        "HTTP/1.1 {status} Moved\r\ncontent-length: {}\r\nx-backend: {name}\r\nx-a: moved\r\nx-multi: \
         one\r\nx-multi: two\r\n{location}\r\n{body}",
        name.len()
    )
}

/// Answers. Whether the connection goes on.
async fn act(word: &str, name: &str, head: bool, wire: &mut Wire) -> bool {
    let plain = |status: &str| {
        let body = if head { "" } else { name };
        let length = name.len();
        let code = status.parse().unwrap_or(http::StatusCode::OK);
        let reason = code.canonical_reason().unwrap_or("Unknown");
        format!(
            "HTTP/1.1 {} {reason}\r\ncontent-length: {length}\r\nx-backend: {name}\r\n\r\n{body}",
            code.as_u16()
        )
    };
    let ok = |rest: &str| (format!("HTTP/1.1 200 OK\r\n{rest}"), true);
    let is_asked = asked::ASKED.contains(&name) && word != "hang";
    let (bytes, goes_on) = match word {
        _ if is_asked => match asked::answer(word) {
            Some(answer) => (answer, true),
            None => return false,
        },
        "close" => return false,
        "reset" => {
            reset(wire);
            return false;
        }
        "hang" => {
            // Until the proxy gives up.
            let mut rest = [0; 64];
            while wire.stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
            return false;
        }
        "slow" => {
            sleep(Duration::from_millis(150)).await;
            (plain("200"), true)
        }
        "head-then-close" => (
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc".into(),
            false,
        ),
        "head-then-reset" => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
            let _ = wire.stream.write_all(head).await;
            // Both proxies have to have read the head before the reset takes it away.
            sleep(Duration::from_millis(200)).await;
            reset(wire);
            return false;
        }
        "head-then-hang" => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
            let _ = wire.stream.write_all(head).await;
            let mut rest = [0; 64];
            while wire.stream.read(&mut rest).await.is_ok_and(|n| n > 0) {}
            return false;
        }
        "drip" => {
            let head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
            let _ = wire.stream.write_all(head).await;
            for _ in 0..9 {
                sleep(Duration::from_millis(80)).await;
                if wire.stream.write_all(b"x").await.is_err() {
                    return false;
                }
            }
            return true;
        }
        "chunked-cut" => (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n".into(),
            false,
        ),
        "204" => (
            format!("HTTP/1.1 204 No Content\r\nx-backend: {name}\r\n\r\n"),
            true,
        ),
        "304" => (
            "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n".into(),
            true,
        ),
        "chunked" => ok("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
        "trailers" => ok("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-after: 1\r\n\r\n"),
        // Without a body there is nothing that the end of the connection would end.
        "until-close" if head => (
            "HTTP/1.1 200 OK\r\nconnection: close\r\nx-a: 1\r\n\r\n".into(),
            false,
        ),
        "until-close" => ("HTTP/1.1 200 OK\r\nx-a: 1\r\n\r\nrest".into(), false),
        "cookies" => ok(
            "Content-Length: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Multi: 1\r\nX-Multi: \
             2\r\nServer: theirs\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nx-r: of-backend\r\n\r\nok",
        ),
        "cors" => ok(
            "content-length: 2\r\naccess-control-allow-origin: http://b\r\n\
             access-control-expose-headers: x-b\r\n\r\nok",
        ),
        "interim" => (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into(),
            true,
        ),
        "early" => (
            "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
             HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
                .into(),
            true,
        ),
        "ratelimited" => (
            "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nx-envoy-ratelimited: \
             true\r\n\r\n"
                .into(),
            true,
        ),
        "ratelimited-503" => (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nx-envoy-ratelimited: \
             true\r\n\r\n"
                .into(),
            true,
        ),
        "later" | "much-later" => {
            let seconds = if word == "later" { 1 } else { 900 };
            let head = format!(
                "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nretry-after: {seconds}\r\n\r\n"
            );
            (head, true)
        }
        "retriable" => (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nx-retriable: yes\r\n\r\n".into(),
            true,
        ),
        "degraded" => ok("content-length: 0\r\nx-envoy-degraded: true\r\n\r\n"),
        "fail" => (
            "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\
             x-envoy-immediate-health-check-fail: true\r\n\r\n"
                .into(),
            true,
        ),
        "garbage" => ("NOT HTTP AT ALL\r\n\r\n".into(), false),
        _ => match word.strip_prefix("grpc-") {
            Some(status) => ok(&format!(
                "content-length: 0\r\ncontent-type: application/grpc\r\ngrpc-status: {status}\r\n\r\n"
            )),
            None => (plain(word), true),
        },
    };
    let mut bytes = bytes.as_bytes();
    let interim = heads_before(bytes);
    if head && let Some(at) = bytes[interim..].windows(4).position(|it| it == b"\r\n\r\n") {
        bytes = &bytes[..interim + at + 4];
    }
    wire.stream.write_all(bytes).await.is_ok() && goes_on
}

/// Where the head of the final response begins.
fn heads_before(bytes: &[u8]) -> usize {
    let starts = |it: &[u8]| it == b"\r\nHTTP/1.1 ";
    bytes.windows(11).rposition(starts).map_or(0, |at| at + 2)
}

fn reset(wire: &Wire) {
    // Closing with this on sends a reset instead of an end.
    let _ = wire.stream.set_zero_linger();
}
