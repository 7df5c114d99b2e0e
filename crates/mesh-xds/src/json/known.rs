//! The messages that have a JSON of their own: google's well-known types.

mod time;

use envoy_types::pb::google::protobuf::{Any, Duration, ListValue, Struct, Timestamp, value};
use prost::Message as _;
use serde_json::Value as Json;

use super::encode::{expected, float, single_field, text};
use super::tree::{Node, Value};
use super::{JsonError, print};
use crate::schema::occurrences::occurrences;
use crate::schema::table::{Kind, Message};
use crate::schema::wire::Malformed;

type PbValue = envoy_types::pb::google::protobuf::Value;

/// Whether it is one of them; inside an `Any` such a message stands in a `value`. `Any` itself is
/// not meant.
pub(super) fn is_special(message: Message) -> bool {
    let special = matches!(
        message.name(),
        "google.protobuf.Duration"
            | "google.protobuf.Timestamp"
            | "google.protobuf.Struct"
            | "google.protobuf.Value"
            | "google.protobuf.ListValue"
    );
    special || message.wrapped().is_some()
}

/// Whether null is one of its values.
pub(super) fn is_value(message: Message) -> bool {
    message.name() == "google.protobuf.Value"
}

/// An encoded `Any`.
pub(super) fn any(url: &str, contents: Vec<u8>) -> Vec<u8> {
    let any = Any {
        type_url: url.into(),
        value: contents,
    };
    any.encode_to_vec()
}

/// The contents of one of them; nothing if it is another message.
pub(super) fn encode(
    message: Message,
    node: &Node,
    depth: usize,
) -> Option<Result<Vec<u8>, JsonError>> {
    if message.wrapped().is_some() {
        // Written as what it wraps: its one field.
        let field = message.field(1)?;
        return Some(single_field(field, node, depth));
    }
    let bytes = match message.name() {
        "google.protobuf.Duration" => {
            let read = text(node).ok().and_then(time::duration);
            let read = read.ok_or_else(|| expected("a duration such as `1.5s`", node));
            read.map(|read| read.encode_to_vec())
        }
        "google.protobuf.Timestamp" => {
            let read = text(node).ok().and_then(time::timestamp);
            let what = "a time such as `2006-01-02T15:04:05Z`";
            read.map(|read| read.encode_to_vec())
                .ok_or_else(|| expected(what, node))
        }
        "google.protobuf.Struct" => structure(node, depth).map(|read| read.encode_to_vec()),
        "google.protobuf.Value" => any_value(node, depth).map(|read| read.encode_to_vec()),
        "google.protobuf.ListValue" => list(node, depth).map(|read| read.encode_to_vec()),
        _ => return None,
    };
    Some(bytes)
}

fn structure(node: &Node, depth: usize) -> Result<Struct, JsonError> {
    let Value::Map(entries) = &node.value else {
        return Err(expected("a map", node));
    };
    let mut fields = std::collections::HashMap::new();
    for (key, node) in entries {
        let value = any_value(node, depth).map_err(|error| error.within(&key.text))?;
        if fields.insert(key.text.clone(), value).is_some() {
            let error = JsonError::new("is there twice").at(key.place);
            return Err(error.within(&key.text));
        }
    }
    Ok(Struct { fields })
}

fn list(node: &Node, depth: usize) -> Result<ListValue, JsonError> {
    let Value::List(items) = &node.value else {
        return Err(expected("a list", node));
    };
    let value = |(index, item): (usize, &Node)| {
        any_value(item, depth).map_err(|error| error.within(format_args!("[{index}]")))
    };
    let values = items
        .iter()
        .enumerate()
        .map(value)
        .collect::<Result<_, _>>()?;
    Ok(ListValue { values })
}

fn any_value(node: &Node, depth: usize) -> Result<PbValue, JsonError> {
    // A level here is two messages.
    let Some(depth) = depth.checked_sub(2) else {
        return Err(JsonError::new("is nested too deep").at(node.place));
    };
    let kind = match &node.value {
        Value::Null => value::Kind::NullValue(0),
        Value::Bool(value) => value::Kind::BoolValue(*value),
        Value::Integer(_) | Value::Float(_) => value::Kind::NumberValue(float(node)?),
        Value::Text(text) => value::Kind::StringValue(text.clone()),
        Value::List(_) => value::Kind::ListValue(list(node, depth)?),
        Value::Map(_) => value::Kind::StructValue(structure(node, depth)?),
    };
    Ok(PbValue { kind: Some(kind) })
}

/// One of them as JSON; nothing if it is another message.
pub(super) fn print(message: Message, bytes: &[u8]) -> Option<Result<Json, JsonError>> {
    if let Some(kind) = message.wrapped() {
        return Some(unwrapped(message, kind, bytes));
    }
    let damaged = |_| print::damaged(Malformed);
    let printed = match message.name() {
        "google.protobuf.Duration" => Duration::decode(bytes)
            .map_err(damaged)
            .map(|read| time::print_duration(&read).into()),
        "google.protobuf.Timestamp" => Timestamp::decode(bytes)
            .map_err(damaged)
            .map(|read| time::print_timestamp(&read).into()),
        "google.protobuf.Struct" => Struct::decode(bytes).map_err(damaged).map(print_struct),
        "google.protobuf.Value" => PbValue::decode(bytes).map_err(damaged).map(print_value),
        "google.protobuf.ListValue" => ListValue::decode(bytes).map_err(damaged).map(print_list),
        _ => return None,
    };
    Some(printed)
}

fn unwrapped(message: Message, kind: Kind, bytes: &[u8]) -> Result<Json, JsonError> {
    let found = occurrences(message, bytes).map_err(print::damaged)?;
    let value = found.last().map(|(_, value)| *value);
    print::scalar(kind, value)
}

fn print_struct(read: Struct) -> Json {
    let fields = read.fields.into_iter();
    Json::Object(
        fields
            .map(|(name, value)| (name, print_value(value)))
            .collect(),
    )
}

fn print_list(read: ListValue) -> Json {
    read.values.into_iter().map(print_value).collect()
}

fn print_value(read: PbValue) -> Json {
    match read.kind {
        None | Some(value::Kind::NullValue(_)) => Json::Null,
        Some(value::Kind::BoolValue(value)) => value.into(),
        Some(value::Kind::NumberValue(number)) => print::number(number),
        Some(value::Kind::StringValue(text)) => text.into(),
        Some(value::Kind::ListValue(list)) => print_list(list),
        Some(value::Kind::StructValue(fields)) => print_struct(fields),
    }
}
