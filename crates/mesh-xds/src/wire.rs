//! Small conversions that every reader and writer shares: fields, wrappers, times, `Any`.
//!
//! A reader takes a message apart by destructuring it without `..`, so a field that a new version
//! of Envoy brings does not compile until somebody decides about it. Each field is then read,
//! refused with [`refuse!`] where the model cannot say what it says, or passed over with
//! [`pass_over!`], which compiles only for fields on the documented list
//! [`read::ignored::FIELDS`](crate::read::ignored::FIELDS).

use crate::pb::google::protobuf::{Any, BoolValue, Duration as Wire, UInt32Value};
use mesh_core::Invalid;
use prost::{Message, Name};
use std::fmt;
use std::time::Duration;

pub(crate) mod base64;
pub(crate) mod json;
pub(crate) mod limit;
pub(crate) mod names;
pub(crate) mod on_demand;
pub(crate) mod share;
pub(crate) mod template;
pub(crate) mod text;
pub(crate) mod tls;
mod wipe;

pub(crate) use wipe::{Wiped, decode_secret};

/// The longest time that `google.protobuf.Duration` can hold: 10,000 years.
const MAX_SECONDS: u64 = 315_576_000_000;

/// Says where an error happened.
pub(crate) trait At {
    /// The same error, seen from the message that holds `field`.
    fn at(self, field: impl fmt::Display) -> Self;
}

impl<T> At for Result<T, Invalid> {
    fn at(self, field: impl fmt::Display) -> Self {
        self.map_err(|error| error.within(field))
    }
}

/// Refuses each of these fields, if it is set, under its own name.
///
/// The arguments are variables that hold references to the fields and have their names.
macro_rules! refuse {
    ($($field:ident),+ $(,)?) => {
        $($crate::wire::unset(stringify!($field), $field)?;)+
    };
}
pub(crate) use refuse;

/// Passes over these fields of a message. Compiles only if `read::ignored::FIELDS` lists them.
macro_rules! pass_over {
    ($message:literal: $($field:ident),+ $(,)?) => {
        $(
            const {
                assert!(
                    $crate::read::ignored::lists(
                        $crate::read::ignored::FIELDS,
                        $message,
                        stringify!($field),
                    ),
                    "this field is not on the list read::ignored::FIELDS"
                );
            }
            let _ = $field;
        )+
    };
}
pub(crate) use pass_over;

/// The refusal of a field that the model cannot express.
pub(crate) fn unsupported(field: impl Into<String>) -> Invalid {
    Invalid::new(field, "not supported")
}

/// Refuses a field that has any value but its default.
pub(crate) fn unset<T: Default + PartialEq>(field: &str, value: &T) -> Result<(), Invalid> {
    if *value == T::default() {
        return Ok(());
    }
    Err(unsupported(field.trim_start_matches("r#")))
}

/// A field that has to be there.
pub(crate) fn required<'a, T>(field: &str, value: &'a Option<T>) -> Result<&'a T, Invalid> {
    value
        .as_ref()
        .ok_or_else(|| Invalid::new(field, "required, but missing"))
}

/// Reads every item of a repeated field; an error says which one it is in.
pub(crate) fn each<T, U>(
    field: &str,
    items: &[T],
    mut read: impl FnMut(&T) -> Result<U, Invalid>,
) -> Result<Vec<U>, Invalid> {
    items
        .iter()
        .enumerate()
        .map(|(at, item)| read(item).at(format_args!("{field}[{at}]")))
        .collect()
}

/// The value of an enumeration, if it is one that we know.
pub(crate) fn enumeration<E: TryFrom<i32>>(field: &str, value: i32) -> Result<E, Invalid> {
    E::try_from(value).map_err(|_| Invalid::new(field, format!("{value} is not a known value")))
}

/// A wrapped boolean, or what holds without it.
pub(crate) fn boolean(value: Option<&BoolValue>, default: bool) -> bool {
    value.map_or(default, |wrapped| wrapped.value)
}

/// A boolean in its wrapper.
pub(crate) fn to_boolean(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

/// A wrapped number, if it is set.
pub(crate) fn number(value: Option<&UInt32Value>) -> Option<u32> {
    value.map(|wrapped| wrapped.value)
}

/// A number in its wrapper.
pub(crate) fn to_number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// A time. Negative ones and those that protobuf calls invalid are refused.
pub(crate) fn duration(field: &str, value: &Wire) -> Result<Duration, Invalid> {
    let seconds = u64::try_from(value.seconds).ok();
    let nanos = u32::try_from(value.nanos).ok();
    match (seconds, nanos) {
        (Some(seconds @ ..=MAX_SECONDS), Some(nanos @ ..=999_999_999)) => {
            Ok(Duration::new(seconds, nanos))
        }
        _ => {
            let Wire { seconds, nanos } = value;
            let message = format!(
                "{seconds} s and {nanos} ns is not a time between 0 and {MAX_SECONDS} seconds"
            );
            Err(Invalid::new(field, message))
        }
    }
}

/// A time, if it is set.
pub(crate) fn maybe_duration(
    field: &str,
    value: Option<&Wire>,
) -> Result<Option<Duration>, Invalid> {
    value.map(|value| duration(field, value)).transpose()
}

/// A time as protobuf has it. What is too long for it becomes the longest that there is.
pub(crate) fn to_duration(value: Duration) -> Wire {
    let longest = Duration::from_secs(MAX_SECONDS);
    let value = value.min(longest);
    Wire {
        // Capped above, and nanoseconds are below a thousand million.
        seconds: value.as_secs() as i64,
        nanos: value.subsec_nanos() as i32,
    }
}

/// The name of the message in an `Any`: what stands behind the last `/` of its URL.
pub(crate) fn type_name(any: &Any) -> &str {
    let url = any.type_url.as_str();
    url.rsplit_once('/').map_or(url, |(_, name)| name)
}

/// Unpacks an `Any` that has to hold an `M`.
pub(crate) fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, Invalid> {
    let name = type_name(any);
    if name != M::full_name() {
        let message = format!("{name:?} where {:?} was expected", M::full_name());
        return Err(Invalid::new("", message));
    }
    M::decode(any.value.as_slice())
        .map_err(|error| Invalid::new("", format!("cannot be decoded: {error}")))
}

/// Packs a message into an `Any`.
pub(crate) fn pack<M: Message + Name>(message: &M) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{}", M::full_name()),
        value: message.encode_to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_that_protobuf_calls_invalid_is_refused_by_its_field() {
        for (seconds, nanos) in [(-1, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
            let error = duration("timeout", &Wire { seconds, nanos }).unwrap_err();
            assert_eq!(error.path(), "timeout");
        }
    }

    #[test]
    fn an_endless_time_becomes_the_longest_one_and_can_be_read_back() {
        let longest = to_duration(Duration::MAX);
        assert_eq!(
            duration("", &longest).unwrap(),
            Duration::from_secs(MAX_SECONDS)
        );
    }

    #[test]
    fn an_any_is_unpacked_as_what_it_says_it_is_and_as_nothing_else() {
        let packed = pack(&UInt32Value { value: 7 });
        assert_eq!(unpack::<UInt32Value>(&packed).unwrap().value, 7);
        let error = unpack::<BoolValue>(&packed).unwrap_err();
        assert!(error.message().contains("google.protobuf.UInt32Value"));
        let broken = Any {
            value: vec![0xff],
            ..packed
        };
        assert!(unpack::<UInt32Value>(&broken).is_err());
    }

    #[test]
    fn a_field_at_its_default_is_not_refused() {
        assert!(unset("a", &None::<u32>).is_ok());
        assert_eq!(unset("r#match", &Some(0)).unwrap_err().path(), "match");
    }

    proptest! {
        #[test]
        fn every_time_that_protobuf_holds_survives(
            seconds in 0..=MAX_SECONDS, nanos in 0_u32..1_000_000_000,
        ) {
            let time = Duration::new(seconds, nanos).min(Duration::from_secs(MAX_SECONDS));
            prop_assert_eq!(duration("", &to_duration(time)).unwrap(), time);
        }
    }
}
