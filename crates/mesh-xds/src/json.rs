//! Envoy's YAML and JSON to protobuf bytes, and protobuf bytes to JSON.
//!
//! The mapping is proto3's: either spelling of a field's name is read, names as Envoy's
//! documentation has them are written, and an `Any` stands with its `@type` among its fields.
//! Names and kinds come from the table of [`schema`](crate::schema); no descriptors are needed, so
//! nothing stays in memory.
//!
//! Not covered: an `Any` of a type that the table does not know is refused by name when read, and
//! written as `{"@type": …, "value": base64}`. What dumps do not show is read and never written:
//! see [`redact`](crate::schema::redact).
//!
//! ```
//! use mesh_xds::json::Codec;
//!
//! let codec = Codec::new();
//! let cluster = "envoy.config.cluster.v3.Cluster";
//! let bytes = codec.from_yaml(cluster, "name: reviews\nconnectTimeout: 0.25s\n")?;
//! let text = codec.to_json(cluster, &bytes)?;
//! assert_eq!(text, r#"{"connect_timeout":"0.250s","name":"reviews"}"#);
//!
//! let error = codec.from_yaml(cluster, "name: reviews\nlb_policies: MAGLEV\n").unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "2:1: lb_policies: envoy.config.cluster.v3.Cluster has no such field"
//! );
//! # Ok::<(), mesh_xds::json::JsonError>(())
//! ```

mod encode;
mod known;
mod print;
mod tree;
mod yaml;

use std::fmt;

use mesh_core::Invalid;
use serde_json::Value;

use crate::schema::table::Message;
use crate::schema::wire::Malformed;
use crate::schema::{canonical, redacted};

/// Turns text into encoded messages, and encoded messages into text.
///
/// A message is meant by its full name, e.g. `envoy.config.bootstrap.v3.Bootstrap`.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Codec;

/// Why a text is not the message that it should be, or bytes are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    invalid: Invalid,
    place: Option<(u32, u32)>,
}

/// The bytes that JSON has as this text: base64 in either alphabet, with padding or without
/// (proto3's JSON mapping).
pub fn decode_bytes(text: &str) -> Option<Vec<u8>> {
    crate::wire::base64::decode(text)
}

// === impl Codec ===

impl Codec {
    /// A codec. It costs nothing to make and holds nothing.
    pub fn new() -> Self {
        Self
    }

    /// The bytes of a `message` that is written as YAML, in one document.
    ///
    /// Fields are in the order of their numbers and maps in that of their keys, so the same
    /// message always gives the same bytes.
    ///
    /// # Errors
    ///
    /// If the text is not YAML, or not this message: unknown fields, names of enum values and
    /// types are refused. Values are only checked for what protobuf can hold; for Envoy's rules
    /// there is [`schema::check`](crate::schema::check).
    pub fn from_yaml(&self, message: &str, text: &str) -> Result<Vec<u8>, JsonError> {
        self.encode(message, &yaml::read(text)?)
    }

    /// The same for JSON. Errors of syntax have line and column, others the field's path.
    ///
    /// # Errors
    ///
    /// If the text is not JSON, or not this message.
    pub fn from_json(&self, message: &str, text: &str) -> Result<Vec<u8>, JsonError> {
        self.encode(message, &tree::json(text)?)
    }

    /// An encoded `message` as JSON in one line: original field names, keys in order, without
    /// fields that have their default value.
    ///
    /// # Errors
    ///
    /// If the bytes are not this message.
    pub fn to_json(&self, message: &str, bytes: &[u8]) -> Result<String, JsonError> {
        Ok(self.print(message, bytes)?.to_string())
    }

    /// The same over several lines, indented by two.
    ///
    /// # Errors
    ///
    /// If the bytes are not this message.
    pub fn to_json_pretty(&self, message: &str, bytes: &[u8]) -> Result<String, JsonError> {
        Ok(format!("{:#}", self.print(message, bytes)?))
    }

    fn encode(&self, name: &str, node: &tree::Node) -> Result<Vec<u8>, JsonError> {
        let bytes = encode::message(known(name)?, node)?;
        Ok(canonical(name, bytes))
    }

    fn print(&self, name: &str, bytes: &[u8]) -> Result<Value, JsonError> {
        let message = known(name)?;
        let Ok(shown) = redacted(message, bytes) else {
            // Printing says better where it is damaged.
            print::message(message, bytes)?;
            return Err(print::damaged(Malformed));
        };
        let mut value = print::message(message, &shown)?;
        // Whether serde_json's maps are in order is a feature that anyone may switch off.
        value.sort_all_objects();
        Ok(value)
    }
}

// === impl JsonError ===

impl JsonError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            invalid: Invalid::new("", message),
            place: None,
        }
    }

    /// In the field or item `outer`.
    fn within(self, outer: impl fmt::Display) -> Self {
        Self {
            invalid: self.invalid.within(outer),
            place: self.place,
        }
    }

    /// At this place, unless a closer one is known.
    fn at(self, place: Option<(u32, u32)>) -> Self {
        Self {
            place: self.place.or(place),
            ..self
        }
    }

    /// The path of the field in names as the text has them; empty if the text could not be read.
    pub fn path(&self) -> &str {
        self.invalid.path()
    }

    /// What is wrong and what was expected.
    pub fn message(&self) -> &str {
        self.invalid.message()
    }

    /// Line and column, from one; only YAML has them beyond its syntax.
    pub fn place(&self) -> Option<(u32, u32)> {
        self.place
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}: ")?;
        }
        self.invalid.fmt(f)
    }
}

impl std::error::Error for JsonError {}

/// An encoded message as JSON, with all that it holds: for nobody to see.
pub(crate) fn unredacted(message: Message, bytes: &[u8]) -> Result<String, JsonError> {
    Ok(print::message(message, bytes)?.to_string())
}

fn known(message: &str) -> Result<Message, JsonError> {
    Message::named(message)
        .ok_or_else(|| JsonError::new(format!("there is no message `{message}`")))
}
