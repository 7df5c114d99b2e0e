//! As much of a `google.protobuf.Struct` as one of strings needs, over [`mesh_core::protobuf`].
//!
//! A `Struct` is a map from strings to `Value`s: field 1, repeated, each an entry with key 1 and
//! value 2. A `Value` is one of several; field 3 is a string and field 5 a `Struct`
//! (<https://protobuf.dev/programming-guides/encoding/>).

use mesh_core::protobuf::{self, put_bytes};

/// Fields of the messages concerned.
const STRUCT_FIELDS: u64 = 1;
const ENTRY_KEY: u64 = 1;
const ENTRY_VALUE: u64 = 2;
const VALUE_STRING: u64 = 3;
const VALUE_STRUCT: u64 = 5;

/// A value in a `Struct`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Text(&'a str),
    /// A nested `Struct`, not read yet. Whoever reads decides how deep to go.
    Struct(&'a [u8]),
    Other,
}

/// The fields of a `Struct`, in the order in which they are written. Once something is malformed
/// there is a `None` among them, and nothing after it.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    message: protobuf::Fields<'a>,
    broken: bool,
}

/// Adds a string to a `Struct`.
pub(super) fn put_string(key: &str, text: &str, out: &mut Vec<u8>) {
    put_field(key, VALUE_STRING, text.as_bytes(), out);
}

/// Adds a `Struct` to a `Struct`.
pub(super) fn put_struct(key: &str, fields: &[u8], out: &mut Vec<u8>) {
    put_field(key, VALUE_STRUCT, fields, out);
}

fn put_field(key: &str, kind: u64, content: &[u8], out: &mut Vec<u8>) {
    let mut value = Vec::with_capacity(content.len() + 4);
    put_bytes(kind, content, &mut value);
    let mut entry = Vec::with_capacity(key.len() + value.len() + 8);
    put_bytes(ENTRY_KEY, key.as_bytes(), &mut entry);
    put_bytes(ENTRY_VALUE, &value, &mut entry);
    put_bytes(STRUCT_FIELDS, &entry, out);
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            message: protobuf::Fields::new(bytes),
            broken: false,
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(&'a str, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        // Fields that a Struct does not have are passed over.
        while !self.broken {
            let read = match self.message.next()? {
                Some((STRUCT_FIELDS, protobuf::Value::Bytes(entry))) => read_entry(entry),
                Some(_) => continue,
                None => None,
            };
            self.broken = read.is_none();
            return Some(read);
        }
        None
    }
}

fn read_entry(entry: &[u8]) -> Option<(&str, Value<'_>)> {
    let (mut key, mut value) = ("", Value::Other);
    for field in protobuf::Fields::new(entry) {
        match field? {
            (ENTRY_KEY, protobuf::Value::Bytes(text)) => key = std::str::from_utf8(text).ok()?,
            (ENTRY_VALUE, protobuf::Value::Bytes(bytes)) => value = read_value(bytes)?,
            _ => {}
        }
    }
    Some((key, value))
}

fn read_value(bytes: &[u8]) -> Option<Value<'_>> {
    let mut value = Value::Other;
    for field in protobuf::Fields::new(bytes) {
        value = match field? {
            (VALUE_STRING, protobuf::Value::Bytes(text)) => {
                Value::Text(std::str::from_utf8(text).ok()?)
            }
            (VALUE_STRUCT, protobuf::Value::Bytes(fields)) => Value::Struct(fields),
            _ => Value::Other,
        };
    }
    Some(value)
}
