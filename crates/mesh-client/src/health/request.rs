//! Asks by a request (Envoy `http_health_check`).

use super::dial::{AGENT, Dialer};
use super::line::Answered;
use super::question::{Question, absolute, edit};
use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use mesh_core::model::HttpProbe;
use mesh_core::stats::ClusterStat;
use mesh_lb::health::Answer;

/// All of a body that a limit allows: nothing that anybody has to say about its health is longer.
const MOST: usize = 1 << 20;

const IMMEDIATE_FAIL: &str = "x-envoy-immediate-health-check-fail";
const DEGRADED: &str = "x-envoy-degraded";
const CLUSTER: &str = "x-envoy-upstream-healthchecked-cluster";

// === impl HttpProbe ===

impl Question for HttpProbe {
    fn is_http2(&self) -> bool {
        self.http2
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn limit(&self) -> usize {
        match usize::try_from(self.body_limit) {
            Ok(limit) if limit > 0 => limit.min(MOST),
            _ => MOST,
        }
    }

    fn request(&self, authority: &str, secured: bool) -> Request<Full<Bytes>> {
        request(self, authority, secured)
    }

    fn judge(&self, answered: &Answered, dialer: &Dialer) -> Answer {
        let head = &answered.head;
        if self.service.is_some() && is_one_of(head.status, &self.expected) {
            dialer.count(ClusterStat::CheckVerifyCluster);
        }
        judge(self, head.status, &head.headers, &answered.body)
    }
}

fn request(probe: &HttpProbe, authority: &str, secured: bool) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = probe.method.clone();
    // Checked where it was read; what was made by hand may be no path.
    let path = probe.path.parse().unwrap_or_else(|_| Uri::from_static("/"));
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    edit(&probe.edits, headers);
    *request.uri_mut() = match probe.http2 {
        true => absolute(authority, &path, secured),
        false => {
            if let Ok(host) = HeaderValue::from_str(authority) {
                request.headers_mut().insert(HOST, host);
            }
            path
        }
    };
    request
}

/// What an answer says (Envoy's `HttpHealthCheckerImpl`).
fn judge(probe: &HttpProbe, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Answer {
    if !is_one_of(status, &probe.expected) {
        return Answer::Unwell {
            retriable: is_one_of(status, &probe.retriable),
            excluded: headers.contains_key(IMMEDIATE_FAIL),
        };
    }
    let unwell = Answer::Unwell {
        retriable: false,
        excluded: false,
    };
    if !has_all(body, &probe.receive) {
        return unwell;
    }
    if let Some(service) = &probe.service {
        let name = headers.get(CLUSTER).map_or(&b""[..], HeaderValue::as_bytes);
        if !service.matches(name) {
            return unwell;
        }
    }
    match headers.contains_key(DEGRADED) {
        true => Answer::Degraded,
        false => Answer::Well,
    }
}

fn is_one_of(status: StatusCode, ranges: &[std::ops::Range<u16>]) -> bool {
    ranges.iter().any(|range| range.contains(&status.as_u16()))
}

/// Whether these pieces are there in their order, with anything in between (Envoy's
/// `PayloadMatcher`).
pub(super) fn has_all(mut bytes: &[u8], pieces: &[Bytes]) -> bool {
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let mut places = bytes.windows(piece.len());
        let Some(at) = places.position(|place| place == &piece[..]) else {
            return false;
        };
        bytes = &bytes[at + piece.len()..];
    }
    true
}

#[cfg(test)]
mod tests;
