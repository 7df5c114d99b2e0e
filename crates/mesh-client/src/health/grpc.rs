//! Asks `grpc.health.v1.Health/Check` (Envoy `grpc_health_check`), whose messages are small enough to
//! be written and read by hand.

use super::dial::{AGENT, Dialer};
use super::line::Answered;
use super::question::{Question, absolute, edit};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use mesh_core::model::GrpcProbe;
use mesh_lb::health::Answer;

/// What is read of an answer at most: two bytes of message would do.
const MOST: usize = 4 << 10;

/// `HealthCheckResponse.SERVING`.
const SERVING: u64 = 1;

const UNWELL: Answer = Answer::Unwell {
    retriable: false,
    excluded: false,
};

// === impl GrpcProbe ===

impl Question for GrpcProbe {
    fn is_http2(&self) -> bool {
        true
    }

    fn host(&self) -> &str {
        &self.authority
    }

    fn limit(&self) -> usize {
        MOST
    }

    fn request(&self, authority: &str, secured: bool) -> Request<Full<Bytes>> {
        request(self, authority, secured)
    }

    fn judge(&self, answered: &Answered, _: &Dialer) -> Answer {
        let Answered {
            head,
            body,
            is_cut,
            trailers,
        } = answered;
        // Without a message the status may be in the head.
        let status = trailers.get("grpc-status");
        let status = status.or_else(|| head.headers.get("grpc-status"));
        let is_ok = head.status == StatusCode::OK && status.is_some_and(|status| status == "0");
        match is_ok && !is_cut && serves(body) {
            true => Answer::Well,
            false => UNWELL,
        }
    }
}

fn request(probe: &GrpcProbe, authority: &str, secured: bool) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(question(&probe.service)));
    *request.method_mut() = Method::POST;
    let path = Uri::from_static("/grpc.health.v1.Health/Check");
    *request.uri_mut() = absolute(authority, &path, secured);
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    edit(&probe.metadata, headers);
    request
}

/// `HealthCheckRequest` with its frame: `service` is the first field.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(1 << 3 | 2);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    framed.put(message);
    framed.freeze()
}

/// Whether this is one `HealthCheckResponse` that says so: `status` is the first field.
fn serves(framed: &[u8]) -> bool {
    let Some(([0, length @ ..], message)) = framed.split_first_chunk::<5>() else {
        return false;
    };
    if usize::try_from(u32::from_be_bytes(*length)) != Ok(message.len()) {
        return false;
    }
    status(message) == Some(SERVING)
}

/// The last value of field 1. None where it is no message.
fn status(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let key = varint(&mut message)?;
        let length = match (key >> 3, key & 7) {
            (0, _) => return None,
            (1, 0) => {
                status = varint(&mut message)?;
                0
            }
            (1, _) => return None,
            (_, 0) => {
                varint(&mut message)?;
                0
            }
            (_, 1) => 8,
            (_, 2) => usize::try_from(varint(&mut message)?).ok()?,
            (_, 5) => 4,
            _ => return None,
        };
        message = message.get(length..)?;
    }
    Some(status)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..10 {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << (7 * at);
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn a_question_names_the_service() {
        assert_eq!(question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(question("ab")[..], [0, 0, 0, 0, 4, 10, 2, b'a', b'b']);
        let long = question(&"a".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 10, 0xac, 2]);
    }

    #[test]
    fn only_serving_is_well() {
        assert!(serves(&[0, 0, 0, 0, 2, 8, 1]));
        // Fields that are not known are passed over.
        assert!(serves(&[0, 0, 0, 0, 6, 0x12, 2, 9, 9, 8, 1]));
        for other in [
            &[][..],
            &[0, 0, 0, 0, 0],
            &[0, 0, 0, 0, 2, 8, 2],
            &[0, 0, 0, 0, 2, 8, 3],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 0, 0, 0, 3, 8, 1],
            &[0, 0, 0, 0, 2, 10, 1],
            &[0, 0, 0, 0, 1, 8],
        ] {
            assert!(!serves(other), "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in vec(any::<u8>(), 0..40)) {
            serves(&bytes);
            let mut framed = Vec::from([0, 0, 0, 0, bytes.len() as u8]);
            framed.extend(bytes);
            serves(&framed);
        }
    }
}
