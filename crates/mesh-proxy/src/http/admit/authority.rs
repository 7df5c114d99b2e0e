//! Whom a request is for.

use super::bad_request;
use http::header::{self, HeaderValue};
use http::{Request, Version};
use mesh_core::model::StripPort;
use mesh_core::{Caller, Error, Failure};

/// The target's authority wins over `host` (RFC 9112 §3.2.2), and one of them has to be there. What
/// a `host` may be was looked at where HTTP/1 is read.
pub(super) fn settle_authority<B>(request: &mut Request<B>) -> Result<(), Error> {
    if let Some(authority) = request.uri().authority() {
        let text = authority.as_str();
        let host = text.rsplit_once('@').map_or(text, |(_, host)| host);
        let value = HeaderValue::from_str(host)
            .map_err(|error| Error::with_source(Failure::BadRequest, error))?;
        request.headers_mut().insert(header::HOST, value);
        return Ok(());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let is_http1 = request.version() < Version::HTTP_2;
    match (hosts.next(), hosts.next()) {
        // In HTTP/1 an empty field says that there is no authority (RFC 9112 §3.2).
        (Some(host), None) if is_http1 || !host.is_empty() => {
            if is_http1 || host.as_bytes().iter().all(|byte| is_of_authority(*byte)) {
                Ok(())
            } else {
                Err(bad_request())
            }
        }
        (Some(_), Some(_)) => Err(bad_request()),
        _ => Err(Error::new(Failure::MissingHost)),
    }
}

/// RFC 3986 §3.2, without what separates user information: nobody should send any (RFC 9110 §4.2.4).
fn is_of_authority(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte)
}

/// Takes the port off the authority, wherever the request has it.
pub(super) fn strip_port<B>(request: &mut Request<B>, which: StripPort, caller: &Caller) {
    let host = request.headers().get(header::HOST);
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        return;
    };
    let Some((name, port)) = host.rsplit_once(':') else {
        return;
    };
    // What follows a colon within the brackets of an address is no number (Envoy
    // `HeaderUtility::stripPortFromHost`).
    let Ok(port) = port.parse::<u32>() else {
        return;
    };
    let ours = caller.local.map(|local| u32::from(local.port()));
    if which == StripPort::Matching && ours != Some(port) {
        return;
    }
    let name = name.to_owned();
    let mut uri = request.uri().clone();
    mesh_route::rewrite::set_authority(&mut uri, request.headers_mut(), &name);
    *request.uri_mut() = uri;
}
