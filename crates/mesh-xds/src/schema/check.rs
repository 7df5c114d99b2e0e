//! Walks an encoded message and finds the first rule that it breaks.

use std::borrow::Cow;

use envoy_types::pb::validate::FieldRules;
use mesh_core::Invalid;
use prost::Message as _;

use super::occurrences::{default, entries, items, merged, occurrences};
use super::rules::{self, Present};
use super::table::{Field, Kind, Label, Message};
use super::wire::{self, Malformed, Value};
use super::{MAX_DEPTH, name_in_url};

/// The map of `envoy.config.core.v3.Metadata` whose messages are for whoever asks for them: Envoy
/// checks no rule there.
const FREE_FORM: &str = "typed_filter_metadata";

/// Checks the encoded `message` (full name) against the rules of Envoy's protobuf definitions:
/// what Envoy calls proto constraint validation.
///
/// Sub-messages are checked too, and what an `Any` holds if its type is known; an unknown type is
/// left to the reader, and typed metadata to whoever asks for it. As in Envoy, values that no rule mentions may be anything, unknown fields
/// and enum values included. The work grows with the number of bytes and with nothing else.
///
/// # Errors
///
/// The first rule that is broken, with the field's path in protobuf names, e.g.
/// `virtual_hosts[0].routes[2].match`. Also if the message is not known or the bytes are not
/// protobuf.
pub fn check(message: &str, bytes: &[u8]) -> Result<(), Invalid> {
    match Message::named(message) {
        Some(message) => self::message(message, bytes, MAX_DEPTH),
        None => Err(Invalid::new("", format!("there is no message `{message}`"))),
    }
}

fn message(message: Message, bytes: &[u8], depth: usize) -> Result<(), Invalid> {
    if !message.has_rules() {
        return Ok(());
    }
    let Some(depth) = depth.checked_sub(1) else {
        let limit = format!("is nested more than {MAX_DEPTH} levels deep");
        return Err(Invalid::new("", limit));
    };
    if message.is_any() {
        return any(bytes, depth);
    }
    let present = occurrences(message, bytes).map_err(malformed)?;
    let mut rest = present.as_slice();
    for field in message.fields() {
        // Both are in the order of numbers.
        let count = rest.iter().take_while(|(of, _)| *of == field).count();
        let own;
        (own, rest) = rest.split_at(count);
        self::field(field, own, depth).map_err(|error| error.within(field.name()))?;
    }
    for (index, oneof) in message.oneofs().enumerate() {
        let is_set = || {
            present
                .iter()
                .any(|(field, _)| field.oneof() == Some(index))
        };
        if oneof.is_required() && !is_set() {
            return Err(Invalid::new(oneof.name(), one_of(message, index)));
        }
    }
    Ok(())
}

/// What an `Any` holds.
fn any(bytes: &[u8], depth: usize) -> Result<(), Invalid> {
    let (url, value) = wire::url_and_value(bytes).map_err(malformed)?;
    match Message::named(name_in_url(url)) {
        Some(inner) => message(inner, value, depth),
        None => Ok(()),
    }
}

fn field(field: Field, own: &[(Field, Value<'_>)], depth: usize) -> Result<(), Invalid> {
    let rules = rules_of(field)?;
    let rules = rules.as_ref();
    match field.label() {
        Label::Implicit | Label::Explicit => singular(field, own, rules, depth),
        Label::Repeated => repeated(field, own, rules, depth),
        Label::Map => map(field, own, rules, depth),
    }
}

fn rules_of(field: Field) -> Result<Option<FieldRules>, Invalid> {
    let rules = field.rules().map(FieldRules::decode).transpose();
    rules.map_err(|error| Invalid::new("", format!("has rules that cannot be read: {error}")))
}

fn singular(
    field: Field,
    own: &[(Field, Value<'_>)],
    rules: Option<&FieldRules>,
    depth: usize,
) -> Result<(), Invalid> {
    // A member of a oneof that is not there is not looked at, even if it says `required`.
    if field.oneof().is_some() && own.is_empty() {
        return Ok(());
    }
    if let Kind::Message(_) = field.kind() {
        let joined = merged(own);
        let value = joined.as_deref().map(Value::Bytes);
        return self::value(field.kind(), value, rules, depth);
    }
    let value = match (own.last(), field.label()) {
        (Some((_, value)), _) => Some(*value),
        (None, Label::Implicit) => Some(default(field.kind())),
        (None, _) => None,
    };
    self::value(field.kind(), value, rules, depth)
}

fn repeated(
    field: Field,
    own: &[(Field, Value<'_>)],
    rules: Option<&FieldRules>,
    depth: usize,
) -> Result<(), Invalid> {
    let items = items(field, own).map_err(malformed)?;
    let of_items = rules::repeated(rules, &items).map_err(refused)?;
    for (index, item) in items.iter().enumerate() {
        value(field.kind(), Some(*item), of_items, depth)
            .map_err(|error| error.within(format_args!("[{index}]")))?;
    }
    Ok(())
}

fn map(
    field: Field,
    own: &[(Field, Value<'_>)],
    rules: Option<&FieldRules>,
    depth: usize,
) -> Result<(), Invalid> {
    let Kind::Message(pair) = field.kind() else {
        return Ok(());
    };
    let (Some(key), Some(contents)) = (pair.field(1), pair.field(2)) else {
        return Ok(());
    };
    let entries = entries(pair, own).map_err(malformed)?;
    let (of_keys, of_values) = rules::map(rules, entries.len()).map_err(refused)?;
    for (name, parts) in entries {
        let within = |error: Invalid| error.within(format_args!("[{}]", shown(name)));
        value(key.kind(), Some(name), of_keys, depth).map_err(within)?;
        if field.name() == FREE_FORM {
            continue;
        }
        singular(contents, &parts, of_values, depth).map_err(within)?;
    }
    Ok(())
}

/// One value, or the absence of one, and what is below it.
fn value(
    kind: Kind,
    value: Option<Value<'_>>,
    rules: Option<&FieldRules>,
    depth: usize,
) -> Result<(), Invalid> {
    if let (Kind::String, Some(Value::Bytes(text))) = (kind, value)
        && std::str::from_utf8(text).is_err()
    {
        return Err(Invalid::new("", "has to be UTF-8"));
    }
    let present = Present { kind, value };
    let descend = rules::value(rules, present).map_err(refused)?;
    match (kind, value) {
        (Kind::Message(inner), Some(Value::Bytes(bytes))) if descend => {
            message(inner, bytes, depth)
        }
        _ => Ok(()),
    }
}

/// A map's key in a path.
fn shown(key: Value<'_>) -> Cow<'_, str> {
    match key {
        Value::Bytes(text) => String::from_utf8_lossy(text),
        Value::Varint(number) | Value::Fixed64(number) => number.to_string().into(),
        Value::Fixed32(number) => number.to_string().into(),
        Value::Group => "".into(),
    }
}

fn one_of(message: Message, oneof: usize) -> String {
    let members: Vec<_> = message
        .fields()
        .filter(|field| field.oneof() == Some(oneof))
        .map(Field::name)
        .collect();
    format!("is required: one of {}", members.join(", "))
}

fn malformed(_: Malformed) -> Invalid {
    Invalid::new("", "is not protobuf: cut short or damaged")
}

fn refused(message: String) -> Invalid {
    Invalid::new("", message)
}

#[cfg(test)]
mod tests;
