//! What streams to a gRPC service begin with: parts of `GrpcService`.

use crate::pb::envoy::config::core::v3::HeaderValue as HeaderProto;
use http::uri::Authority;
use http::{HeaderName, HeaderValue};
use mesh_core::{Invalid, Name};

/// What requests call the service; empty is by its address.
pub(crate) fn authority(value: &str) -> Result<Name, Invalid> {
    if !value.is_empty() && value.parse::<Authority>().is_err() {
        let message = format!("{value:?} is no host and port");
        return Err(Invalid::new("authority", message));
    }
    Ok(value.into())
}

/// A header that a stream begins with.
pub(crate) fn metadata(value: &HeaderProto) -> Result<(HeaderName, HeaderValue), Invalid> {
    let HeaderProto {
        key,
        value,
        raw_value,
    } = value;
    let name = HeaderName::from_bytes(key.as_bytes())
        .map_err(|_| Invalid::new("key", format!("{key:?} is no name of a header")))?;
    check_name(&name).map_err(|message| Invalid::new("key", message))?;
    // Nothing of what may be a credential is said.
    let text = match value.is_empty() {
        true => raw_value.as_slice(),
        false => value.as_bytes(),
    };
    let plain = literal(text).ok_or_else(|| {
        let message = "operators (%…%) are not supported here; write %% for %";
        Invalid::new("value", message)
    })?;
    let mut value = HeaderValue::from_bytes(&plain)
        .map_err(|_| Invalid::new("value", "has characters that no header has"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Refuses gRPC's own names, and those of what is not text.
pub(crate) fn check_name(name: &HeaderName) -> Result<(), String> {
    let own = ["te", "content-type", "user-agent", "host"].contains(&name.as_str());
    if own || name.as_str().starts_with("grpc-") {
        return Err(format!("{name:?} is gRPC's own"));
    }
    if name.as_str().ends_with("-bin") {
        return Err(format!("{name:?}: binary metadata is not supported"));
    }
    Ok(())
}

/// A text with `%%` for `%`; none if there is anything to be filled in.
fn literal(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        if byte == b'%' && rest.next() != Some(b'%') {
            return None;
        }
        out.push(byte);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(key: &str, value: &str) -> Result<(HeaderName, HeaderValue), Invalid> {
        metadata(&HeaderProto {
            key: key.to_owned(),
            value: value.to_owned(),
            raw_value: Vec::new(),
        })
    }

    #[test]
    fn metadata_is_taken_as_it_is_and_never_shown() {
        let (name, value) = of("X-Key", "50%% hush").unwrap();
        assert_eq!(
            (name.as_str(), value.as_bytes()),
            ("x-key", &b"50% hush"[..])
        );
        assert!(!format!("{value:?}").contains("hush"));
        let raw = HeaderProto {
            key: "a".to_owned(),
            raw_value: b"raw".to_vec(),
            ..HeaderProto::default()
        };
        assert_eq!(metadata(&raw).unwrap().1, "raw");
    }

    #[test]
    fn what_no_header_can_be_is_refused_without_being_shown() {
        for (key, value, path) in [
            ("a b", "x", "key"),
            ("a", "hush\n", "value"),
            ("a", "hush %REQ(x)%", "value"),
            ("a", "hush %", "value"),
        ] {
            let error = of(key, value).unwrap_err();
            assert_eq!(error.path(), path);
            assert!(!error.to_string().contains("hush"), "{error}");
        }
    }
}
