//! From a failure to the response that the caller sees. Pure: no body type, no I/O.

use crate::{Error, Failure};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

/// A local response: head and whole body.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body; may be empty.
    pub body: Bytes,
}

/// What has to be known about a request to answer it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// It is a gRPC request: answer 200 with `grpc-status` in the head.
    pub grpc: bool,
    /// Further attempts were made before this failure.
    pub retried: bool,
}

// === impl Answer ===

impl Answer {
    /// An answer with a status and nothing else.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a header.
    #[must_use]
    pub fn header(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// Whether a content type is gRPC's: `application/grpc`, alone or followed by `+`, as in Envoy.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = crate::seldom::get(headers, &header::CONTENT_TYPE) else {
        return false;
    };
    let Some(rest) = value.as_bytes().strip_prefix(b"application/grpc") else {
        return false;
    };
    matches!(rest.first(), None | Some(b'+'))
}

/// The gRPC status that an HTTP status of a local answer stands for; 200 is none of ours, so it is
/// unknown like every other
/// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
pub fn grpc_status(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// The text that the access log has as response code details.
pub fn details(error: &Error) -> String {
    let row = error.failure().row();
    if let (Failure::Denied, Some(policy)) = (error.failure(), error.cause()) {
        return denied(&policy);
    }
    if let (Failure::Unauthenticated, Some(why)) = (error.failure(), error.cause()) {
        return format!("jwt_authn_access_denied{{{}}}", why.replace(BLANK, "_"));
    }
    let Some(reset) = row.reset else {
        return row.details.to_owned();
    };
    if error.failure() == Failure::Overflow {
        return "upstream_reset_before_response_started{overflow}".to_owned();
    }
    let cause = error
        .cause()
        .map(|cause| format!("|{cause}"))
        .unwrap_or_default();
    format!("{}{{{reset}{cause}}}", row.details).replace(' ', "_")
}

/// What stands for the end of a field in access logs.
const BLANK: [char; 6] = [' ', '\t', '\x0c', '\x0b', '\n', '\r'];

/// The details of a request or connection that a policy denies (Envoy `responseDetail`).
pub fn denied(policy: &str) -> String {
    let policy = policy.replace(BLANK, "_");
    format!("rbac_access_denied_matched_policy[{policy}]")
}

/// The response for an error.
pub fn answer(mut error: Error, asked: Asked) -> Answer {
    let failure = error.failure();
    let row = failure.row();
    let mut answer = error.take_answer().unwrap_or_else(|| {
        let body: Bytes = match row.reset {
            None => Bytes::from_static(row.body.as_bytes()),
            Some(reset) => {
                let before = if asked.retried {
                    "retried and the latest reset reason"
                } else {
                    "reset reason"
                };
                let text = format!(
                    "upstream connect error or disconnect/reset before headers. {before}: {reset}"
                );
                text.into()
            }
        };
        Answer::new(row.status).body(body)
    });
    if failure == Failure::Overflow {
        answer
            .headers
            .insert("x-envoy-overloaded", HeaderValue::from_static("true"));
    }
    let dropped = match failure {
        Failure::DropOverload => Some("x-envoy-drop-overload"),
        Failure::UnconditionalDrop => Some("x-envoy-unconditional-drop-overload"),
        _ => None,
    };
    if let Some(name) = dropped {
        let yes = HeaderValue::from_static("true");
        answer.headers.insert(name, yes);
    }
    let grpc_code = match failure {
        // Only a gRPC caller can read it; anyone else gets 200 and the text, as in Envoy.
        Failure::FaultAbortGrpc(code) if asked.grpc => Some(code),
        // A deadline that the caller set itself (Envoy `onStreamMaxDurationReached`).
        Failure::MaxStreamDuration if asked.grpc => Some(4),
        // A redirect or fixed response is what the rule asked for, but a gRPC caller can only
        // read it as a status, as in Envoy's local replies.
        _ if asked.grpc => Some(grpc_status(answer.status)),
        _ => None,
    };
    if let Some(code) = grpc_code {
        return as_grpc(answer, code);
    }
    if !answer.body.is_empty() && !answer.headers.contains_key(header::CONTENT_TYPE) {
        answer
            .headers
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    answer
}

/// A trailers-only gRPC response: everything in the head, no body.
fn as_grpc(mut answer: Answer, code: u32) -> Answer {
    let message = percent_encode(&answer.body);
    answer.status = StatusCode::OK;
    answer.body = Bytes::new();
    answer.headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    answer
        .headers
        .insert("grpc-status", HeaderValue::from(code));
    if let Ok(message) = HeaderValue::try_from(message)
        && !message.is_empty()
    {
        answer.headers.insert("grpc-message", message);
    }
    answer
}

/// gRPC's encoding of messages: printable ASCII but `%` as it is, the rest as `%XX`.
fn percent_encode(text: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for &byte in text {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_names_its_reason_and_only_the_details_its_cause() {
        let error = Error::with_source(Failure::ConnectFailed, "Connection refused");
        assert_eq!(
            details(&error),
            "upstream_reset_before_response_started{remote_connection_failure|Connection_refused}"
        );
        let answer = answer(
            error,
            Asked {
                retried: true,
                ..Asked::default()
            },
        );
        assert_eq!(answer.status, 503);
        assert_eq!(
            answer.body,
            "upstream connect error or disconnect/reset before headers. retried and the latest \
             reset reason: remote connection failure"
        );
    }

    #[test]
    fn an_overflow_says_that_we_are_overloaded() {
        let answer = answer(Error::new(Failure::Overflow), Asked::default());
        assert_eq!(answer.headers["x-envoy-overloaded"], "true");
        assert!(answer.body.ends_with(b"reset reason: overflow"));
    }

    #[test]
    fn a_request_that_discovery_wants_dropped_says_so() {
        let answer = answer(Error::new(Failure::DropOverload), Asked::default());
        assert_eq!(answer.status, 503);
        assert_eq!(answer.headers["x-envoy-drop-overload"], "true");
        assert_eq!(answer.body, "drop overload");
        let answer = super::answer(Error::new(Failure::UnconditionalDrop), Asked::default());
        assert_eq!(
            answer.headers["x-envoy-unconditional-drop-overload"],
            "true"
        );
        assert_eq!(answer.headers.get("x-envoy-drop-overload"), None);
        assert_eq!(answer.body, "unconditional drop overload");
    }

    #[test]
    fn a_grpc_caller_gets_its_status_in_the_head() {
        let asked = Asked {
            grpc: true,
            retried: false,
        };
        let reply = answer(Error::new(Failure::NoHealthyHost), asked);
        assert_eq!(reply.status, 200);
        assert_eq!(reply.headers["grpc-status"], "14");
        assert_eq!(reply.headers["grpc-message"], "no healthy upstream");
        assert!(reply.body.is_empty());
        let abort = answer(Error::new(Failure::FaultAbortGrpc(8)), asked);
        assert_eq!(abort.headers["grpc-status"], "8");
        let plain = answer(Error::new(Failure::FaultAbortGrpc(8)), Asked::default());
        assert_eq!(
            (plain.status.as_u16(), &plain.body[..]),
            (200, &b"fault filter abort"[..])
        );
    }

    #[test]
    fn grpc_is_told_by_the_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x", false),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_grpc(&headers), expected, "{value}");
        }
    }
}
