//! The bytes of a message to JSON, by proto3's JSON mapping.

use serde_json::{Map, Number, Value as Json};

use super::{JsonError, known};
use crate::schema::occurrences::{Occurrence, default, entries, items, merged, occurrences};
use crate::schema::table::{Field, Kind, Label, Message};
use crate::schema::wire::{self, Malformed, Value};
use crate::schema::{MAX_DEPTH, name_in_url};
use crate::wire::base64;

/// A whole message.
pub(super) fn message(message: Message, bytes: &[u8]) -> Result<Json, JsonError> {
    contents(message, bytes, MAX_DEPTH)
}

fn contents(message: Message, bytes: &[u8], depth: usize) -> Result<Json, JsonError> {
    let Some(depth) = depth.checked_sub(1) else {
        let error = format!("is nested more than {MAX_DEPTH} levels deep");
        return Err(JsonError::new(error));
    };
    if let Some(json) = known::print(message, bytes) {
        return json;
    }
    if message.is_any() {
        return any(bytes, depth);
    }
    Ok(Json::Object(fields(message, bytes, depth)?))
}

fn fields(message: Message, bytes: &[u8], depth: usize) -> Result<Map<String, Json>, JsonError> {
    let found = occurrences(message, bytes).map_err(damaged)?;
    let mut object = Map::new();
    for own in found.chunk_by(|(one, _), (other, _)| one == other) {
        let Some((field, last)) = own.last() else {
            continue;
        };
        let within = |error: JsonError| error.within(field.name());
        let value = match field.label() {
            Label::Repeated => match list(*field, own, depth).map_err(within)? {
                // A packed list may be there and have nothing in it.
                Json::Array(items) if items.is_empty() => continue,
                items => items,
            },
            Label::Map => map(*field, own, depth).map_err(within)?,
            Label::Implicit if is_default(field.kind(), *last) => continue,
            Label::Implicit | Label::Explicit => {
                singular(field.kind(), own, depth).map_err(within)?
            }
        };
        object.insert(field.name().into(), value);
    }
    Ok(object)
}

fn singular(kind: Kind, own: &[Occurrence<'_>], depth: usize) -> Result<Json, JsonError> {
    match (kind, merged(own)) {
        (Kind::Message(message), Some(bytes)) => contents(message, &bytes, depth),
        _ => scalar(kind, own.last().map(|(_, value)| *value)),
    }
}

fn list(field: Field, own: &[Occurrence<'_>], depth: usize) -> Result<Json, JsonError> {
    let items = items(field, own).map_err(damaged)?;
    let item = |(index, value): (usize, &Value<'_>)| {
        let json = match (field.kind(), value) {
            (Kind::Message(message), Value::Bytes(bytes)) => contents(message, bytes, depth),
            (kind, value) => scalar(kind, Some(*value)),
        };
        json.map_err(|error| error.within(format_args!("[{index}]")))
    };
    items.iter().enumerate().map(item).collect()
}

fn map(field: Field, own: &[Occurrence<'_>], depth: usize) -> Result<Json, JsonError> {
    let Kind::Message(pair) = field.kind() else {
        return Ok(Json::Null);
    };
    let (Some(key), Some(value)) = (pair.field(1), pair.field(2)) else {
        return Ok(Json::Null);
    };
    let mut object = Map::new();
    for (name, own) in entries(pair, own).map_err(damaged)? {
        let name = match scalar(key.kind(), Some(name))? {
            Json::String(name) => name,
            other => other.to_string(),
        };
        let printed = singular(value.kind(), &own, depth)
            .map_err(|error| error.within(format_args!("[{name}]")))?;
        object.insert(name, printed);
    }
    Ok(Json::Object(object))
}

/// Whether it is its type's default once it is read. The bytes may say more than the type holds: of
/// a varint for 32 bits the upper half is dropped, as every reader of protobuf does.
fn is_default(kind: Kind, value: Value<'_>) -> bool {
    value == default(kind) || scalar(kind, Some(value)).ok() == scalar(kind, None).ok()
}

/// A value that is not a message; absent, its default.
pub(super) fn scalar(kind: Kind, value: Option<Value<'_>>) -> Result<Json, JsonError> {
    let value = value.unwrap_or_else(|| default(kind));
    let number = match value {
        Value::Varint(number) | Value::Fixed64(number) => number,
        Value::Fixed32(number) => number.into(),
        Value::Bytes(_) | Value::Group => 0,
    };
    let bytes = value.bytes().unwrap_or_default();
    Ok(match kind {
        Kind::Double => self::number(f64::from_bits(number)),
        Kind::Float => single(f32::from_bits(number as u32)),
        Kind::Int32 | Kind::Sfixed32 => (number as i32).into(),
        Kind::Uint32 | Kind::Fixed32 => (number as u32).into(),
        Kind::Sint32 => (wire::zigzag(number) as i32).into(),
        // 64 bits are strings: many readers of JSON have doubles only.
        Kind::Int64 | Kind::Sfixed64 => number.cast_signed().to_string().into(),
        Kind::Uint64 | Kind::Fixed64 => number.to_string().into(),
        Kind::Sint64 => wire::zigzag(number).to_string().into(),
        Kind::Bool => (number != 0).into(),
        Kind::String => {
            let text = std::str::from_utf8(bytes);
            text.map_err(|_| JsonError::new("is not UTF-8"))?.into()
        }
        Kind::Bytes => base64::encode(bytes).into(),
        Kind::Enum(definition) => {
            let number = number as i32;
            let mut values = definition.values();
            match values.find(|(defined, _)| *defined == number) {
                Some((_, name)) => name.into(),
                None => number.into(),
            }
        }
        Kind::Message(_) => Json::Null,
    })
}

/// A double; what JSON has no number for is a string.
pub(super) fn number(number: f64) -> Json {
    let whole = number as i64;
    if whole as f64 == number && whole.unsigned_abs() < 1 << 53 && !is_negative_zero(number) {
        return whole.into();
    }
    match Number::from_f64(number) {
        Some(number) => Json::Number(number),
        None if number.is_nan() => "NaN".into(),
        None if number > 0.0 => "Infinity".into(),
        None => "-Infinity".into(),
    }
}

fn is_negative_zero(number: f64) -> bool {
    number == 0.0 && number.is_sign_negative()
}

/// With the digits that tell it from other floats, not those of the double next to it.
fn single(number: f32) -> Json {
    let shortest: Option<f64> = number.to_string().parse().ok();
    self::number(shortest.unwrap_or_else(|| number.into()))
}

fn any(bytes: &[u8], depth: usize) -> Result<Json, JsonError> {
    let (url, value) = wire::url_and_value(bytes).map_err(damaged)?;
    let mut object = Map::new();
    if !url.is_empty() || !value.is_empty() {
        object.insert("@type".into(), url.into());
    }
    match Message::named(name_in_url(url)) {
        Some(inner) if known::is_special(inner) || inner.is_any() => {
            object.insert("value".into(), contents(inner, value, depth)?);
        }
        Some(inner) => object.extend(match depth.checked_sub(1) {
            Some(depth) => fields(inner, value, depth)?,
            None => return contents(inner, value, depth),
        }),
        None if value.is_empty() => {}
        None => {
            object.insert("value".into(), base64::encode(value).into());
        }
    }
    Ok(Json::Object(object))
}

pub(super) fn damaged(_: Malformed) -> JsonError {
    JsonError::new("is not protobuf: cut short or damaged")
}
