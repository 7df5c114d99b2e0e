//! Addresses of endpoints in requests, which nobody knows before backends were started.

use crate::config::Backends;
use mesh_core::{base64, protobuf};

/// Puts what they stand for in place of `{at:HOST@BACKEND}`, an address and a port;
/// `{base64:HOST@BACKEND}`, the same in base64; and `{cookie:HOST@BACKEND}` and
/// `{cookie:HOST@BACKEND:END}`, what Envoy writes into a session's cookie.
pub(super) fn put_in(text: &str, backends: &Backends) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, (inside, behind))) = rest
        .split_once('{')
        .and_then(|(before, from)| Some((before, from.split_once('}')?)))
    {
        out += before;
        match meant(inside, backends) {
            Some(value) => out += &value,
            None => out += &format!("{{{inside}}}"),
        }
        rest = behind;
    }
    out + rest
}

fn meant(inside: &str, backends: &Backends) -> Option<String> {
    let (kind, endpoint) = inside.split_once(':')?;
    let (host, backend) = endpoint.split_once('@')?;
    let (backend, end) = match backend.split_once(':') {
        Some((backend, end)) => (backend, end.parse::<u64>().ok()),
        None => (backend, None),
    };
    let address = format!("{host}:{}", backends.get(backend)?.port());
    match kind {
        "at" => Some(address),
        "base64" => Some(base64::encode(address.as_bytes())),
        "cookie" => {
            let mut message = Vec::new();
            protobuf::put_bytes(1, address.as_bytes(), &mut message);
            if let Some(end) = end {
                protobuf::put_number(2, end, &mut message);
            }
            Some(base64::encode(&message))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn addresses_are_put_in_wherever_they_stand() {
        let backends = Backends::from([("w", SocketAddr::from(([0, 0, 0, 0], 81)))]);
        for (text, expected) in [
            ("{at:10.0.0.1@w},{at:b@w}", "10.0.0.1:81,b:81"),
            ("a={base64:x@w}; b", "a=eDo4MQ==; b"),
            ("{cookie:x@w:1}", "CgR4OjgxEAE="),
            ("{case} {at:x@nobody} {", "{case} {at:x@nobody} {"),
        ] {
            assert_eq!(put_in(text, &backends), expected);
        }
    }
}
