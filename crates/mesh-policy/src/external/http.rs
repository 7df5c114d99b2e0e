//! Asking over HTTP: the head of the request, in part, to the service's cluster; 200 lets it through.

use super::body::{AskBody, Sent};
use super::edits::{Edits, Part, Unusable};
use super::head::{About, is_of_connection};
use super::{Decision, absolute, internal};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, response};
use mesh_core::exchange::{PutReply, ReplyEdit};
use mesh_core::model::{AskHttp, External, StringMatch};
use mesh_core::reply::Answer;

/// Whether what is sent of a body is only its beginning (Envoy).
const PARTIAL: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");
/// Names what is to be taken out of the request (Envoy).
const TO_REMOVE: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");

/// The question.
pub(super) fn question(
    external: &External,
    ask: &AskHttp,
    about: &About<'_>,
    sent: Option<&Sent>,
) -> Request<AskBody> {
    let body = sent.map(|sent| sent.bytes.clone()).unwrap_or_default();
    let length = body.len();
    let mut request = Request::new(AskBody::new(body));
    *request.method_mut() =
        Method::from_bytes(about.request.method().as_bytes()).unwrap_or(Method::GET);
    let path = format!("{}{}", ask.path_prefix, about.path());
    absolute(&mut request, about.authority(), &path);
    let headers = request.headers_mut();
    for (name, value) in about.headers() {
        let wanted = name == AUTHORIZATION || any(&ask.headers, name);
        if wanted
            && name != CONTENT_LENGTH
            && let Ok(value) = HeaderValue::from_bytes(&value)
        {
            headers.insert(name, value);
        }
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if let Some(sent) = sent {
        let partial = if sent.partial { "true" } else { "false" };
        headers.insert(PARTIAL, HeaderValue::from_static(partial));
    }
    for (name, value) in &ask.add {
        headers.insert(name, value.clone());
    }
    internal(headers, external.timeout);
    request
}

/// What the service's answer says.
pub(super) fn decision(ask: &AskHttp, head: &response::Parts, body: Bytes) -> Decision {
    let headers = &head.headers;
    if head.status.is_server_error() {
        return Decision::Failed(None);
    }
    if head.status == StatusCode::OK {
        return allowed(ask, headers).map_or(Decision::Failed(None), Decision::Allowed);
    }
    let mut answer = Answer::new(head.status).body(body);
    let listed = |name: &HeaderName| match ask.deny.is_empty() {
        true => *name != HOST,
        false => *name == WWW_AUTHENTICATE || *name == LOCATION || any(&ask.deny, name),
    };
    for (name, value) in headers {
        // The length is that of what is sent in the end.
        if listed(name) && *name != CONTENT_LENGTH && *name != TO_REMOVE && !is_of_connection(name)
        {
            answer.headers.append(name, value.clone());
        }
    }
    Decision::Denied(answer)
}

fn allowed(ask: &AskHttp, headers: &HeaderMap) -> Result<Edits, Unusable> {
    let mut edits = Edits::default();
    for list in headers.get_all(TO_REMOVE) {
        let list = list.to_str().map_err(|_| Unusable)?;
        for name in list.split(',').map(str::trim).filter(|n| !n.is_empty()) {
            // A name that cannot be one of a header is none that there is.
            edits.remove.extend(HeaderName::try_from(name));
        }
    }
    for (name, value) in headers.iter().filter(|(name, _)| **name != TO_REMOVE) {
        if is_of_connection(name) {
            continue;
        }
        if any(&ask.upstream, name) {
            edits.set.push((Part::named(name.as_str())?, value.clone()));
        }
        if any(&ask.upstream_append, name) {
            edits.add.push((name.clone(), value.clone()));
        }
        if any(&ask.allow, name) {
            edits.reply.push(ReplyEdit {
                name: name.clone(),
                value: value.clone(),
                put: PutReply::Add,
            });
        }
    }
    Ok(edits)
}

fn any(list: &[StringMatch], name: &HeaderName) -> bool {
    list.iter().any(|one| one.matches(name.as_str().as_bytes()))
}
