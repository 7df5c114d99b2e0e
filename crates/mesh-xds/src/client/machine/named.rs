//! What a resource that cannot be read is called.
//!
//! A refusal names each resource that was refused, also one of which only the beginning is a
//! message: every type has its name in field 1, which is nearly always in front.

use crate::TypeUrl;
use crate::pb::google::protobuf::Any;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The field with the name, in every type of resource.
const NAME: u32 = 1;

/// Fields of the wrapper (`envoy.service.discovery.v3.Resource`).
const WRAPPED: u32 = 2;
const WRAPPER_NAME: u32 = 3;

/// The field of `Any` with the message.
const VALUE: u32 = 2;

/// A name, or what is left of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The bytes are a message that says so. May be empty.
    Said(String),
    /// Only the beginning of the bytes can be read. Empty if that does not say it.
    Guessed(String),
}

/// Every resource type has its name in field 1.
#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

// === impl Found ===

impl Found {
    /// What a resource is called.
    pub(super) fn of(any: &Any) -> Self {
        if any.type_url == TypeUrl::NameTable.url() {
            // It has none in it, and there is only one.
            return Self::Guessed(crate::names::NAME.to_owned());
        }
        match Named::decode(any.value.as_slice()) {
            Ok(named) => Self::Said(named.name),
            Err(_) => Self::Guessed(text(&any.value, NAME)),
        }
    }

    pub(super) fn into_text(self) -> String {
        match self {
            Self::Said(name) | Self::Guessed(name) => name,
        }
    }
}

/// What the resource in a wrapper that cannot be read is called; empty if that cannot be told.
pub(super) fn in_wrapper(bytes: &[u8]) -> String {
    let own = text(bytes, WRAPPER_NAME);
    if !own.is_empty() {
        return own;
    }
    // The wrapper may be cut off anywhere in it.
    let any = field(bytes, WRAPPED).unwrap_or_default();
    text(field(any, VALUE).unwrap_or_default(), NAME)
}

/// The text of a field; empty if there is none that can be read.
fn text(bytes: &[u8], number: u32) -> String {
    let text = field_whole(bytes, number).and_then(|bytes| str::from_utf8(bytes).ok());
    text.unwrap_or_default().to_owned()
}

/// The last occurrence of a field, all of which is there.
fn field_whole(bytes: &[u8], number: u32) -> Option<&[u8]> {
    occurrences(bytes, number).last().and_then(Result::ok)
}

/// The last occurrence of a field, of which only the beginning may be there.
fn field(bytes: &[u8], number: u32) -> Option<&[u8]> {
    occurrences(bytes, number)
        .last()
        .map(|found| found.unwrap_or_else(|cut| cut))
}

/// The occurrences of a field with a length, up to where the bytes are no message. One that is cut
/// off is an error with what there is of it.
fn occurrences(bytes: &[u8], wanted: u32) -> impl Iterator<Item = Result<&[u8], &[u8]>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let (number, wire) = decode_key(&mut rest).ok()?;
            if number != wanted || wire != WireType::LengthDelimited {
                skip_field(wire, number, &mut rest, DecodeContext::default()).ok()?;
                continue;
            }
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            return Some(match rest.split_at_checked(length) {
                Some((found, after)) => {
                    rest = after;
                    Ok(found)
                }
                None => Err(std::mem::take(&mut rest)),
            });
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::envoy::service::discovery::v3 as discovery;
    use proptest::prelude::*;

    fn named(name: &str) -> Vec<u8> {
        Named {
            name: name.to_owned(),
        }
        .encode_to_vec()
    }

    fn packed(value: Vec<u8>) -> Any {
        Any {
            type_url: "t".to_owned(),
            value,
        }
    }

    #[test]
    fn a_name_in_front_of_garbage_is_found() {
        let mut bytes = named("a");
        assert_eq!(
            Found::of(&packed(bytes.clone())),
            Found::Said("a".to_owned())
        );
        // A field of 100 bytes of which there are two.
        bytes.extend([0x12, 100, 1, 2]);
        assert_eq!(Found::of(&packed(bytes)), Found::Guessed("a".to_owned()));
    }

    #[test]
    fn a_name_that_is_cut_off_or_no_text_is_no_name() {
        let cut = named("abc")[..4].to_vec();
        assert_eq!(Found::of(&packed(cut)), Found::Guessed(String::new()));
        let no_text = vec![0x0a, 1, 0xff];
        assert_eq!(Found::of(&packed(no_text)), Found::Guessed(String::new()));
    }

    #[test]
    fn a_wrapper_that_is_cut_off_is_called_like_what_is_in_it() {
        let wrapped = |name: &str| {
            let mut value = named("inner");
            value.extend([0x12, 3, 1, 2, 3]);
            discovery::Resource {
                name: name.to_owned(),
                resource: Some(packed(value)),
                ..Default::default()
            }
        };
        let bytes = wrapped("").encode_to_vec();
        assert_eq!(in_wrapper(&bytes[..bytes.len() - 1]), "inner");
        let mut bytes = wrapped("own").encode_to_vec();
        bytes.push(0xff);
        assert_eq!(in_wrapper(&bytes), "own");
        assert_eq!(in_wrapper(&[0xff]), "");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = Found::of(&packed(bytes.clone()));
            let _ = in_wrapper(&bytes);
        }

        #[test]
        fn a_message_that_is_cut_off_behind_its_name_is_called_so(
            name in "[a-z]{1,20}",
            rest in proptest::collection::vec(any::<u8>(), 2..50),
            keep in 0..50_usize,
        ) {
            let mut bytes = named(&name);
            bytes.extend([0x12, u8::try_from(rest.len()).unwrap()]);
            bytes.extend(&rest[..keep.min(rest.len() - 1)]);
            prop_assert_eq!(Found::of(&packed(bytes)), Found::Guessed(name));
        }
    }
}
