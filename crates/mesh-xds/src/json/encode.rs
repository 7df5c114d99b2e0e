//! A tree to the bytes of a message, by proto3's JSON mapping.

use super::tree::{Key, Node, Value};
use super::{JsonError, known};
use crate::schema::table::{Enum, Field, Kind, Label, Message};
use crate::schema::{MAX_DEPTH, name_in_url};
use crate::wire::base64;

use prost::encoding::{WireType, encode_key, encode_varint};

/// The bytes of a whole message. Nothing at all is a message without fields.
pub(super) fn message(message: Message, node: &Node) -> Result<Vec<u8>, JsonError> {
    match node.value {
        Value::Null => Ok(Vec::new()),
        _ => contents(message, node, MAX_DEPTH),
    }
}

/// The contents of a message in a field, in a list or in an `Any`.
pub(super) fn contents(message: Message, node: &Node, depth: usize) -> Result<Vec<u8>, JsonError> {
    let Some(depth) = depth.checked_sub(1) else {
        let error = format!("is nested more than {MAX_DEPTH} levels deep");
        return Err(JsonError::new(error).at(node.place));
    };
    if let Some(bytes) = known::encode(message, node, depth) {
        return bytes;
    }
    let Value::Map(entries) = &node.value else {
        return Err(expected(
            &format!("a map, which {} is", message.name()),
            node,
        ));
    };
    if message.is_any() {
        return any(entries, node, depth);
    }
    fields(message, entries.iter(), depth)
}

/// The contents of a message given as its fields.
fn fields<'a>(
    message: Message,
    entries: impl Iterator<Item = &'a (Key, Node)>,
    depth: usize,
) -> Result<Vec<u8>, JsonError> {
    let mut parts: Vec<(Field, Vec<u8>)> = Vec::new();
    let mut members: Vec<Option<Field>> = vec![None; message.oneofs().len()];
    for (key, node) in entries {
        let field = named(message, &key.text)
            .ok_or_else(|| {
                JsonError::new(format!("{} has no such field", message.name())).at(key.place)
            })
            .map_err(|error| error.within(&key.text))?;
        let twice = |error: String| JsonError::new(error).at(key.place).within(&key.text);
        if parts.iter().any(|(other, _)| *other == field) {
            return Err(twice("is there twice".into()));
        }
        if node.value == Value::Null && !takes_null(field) {
            continue;
        }
        if let Some(member) = field.oneof().and_then(|oneof| members.get_mut(oneof))
            && let Some(other) = member.replace(field)
        {
            let other = other.name();
            return Err(twice(format!("cannot be there together with {other}")));
        }
        let mut bytes = Vec::new();
        self::field(field, node, depth, &mut bytes).map_err(|error| error.within(&key.text))?;
        parts.push((field, bytes));
    }
    parts.sort_by_key(|(field, _)| field.number());
    Ok(parts.into_iter().flat_map(|(_, bytes)| bytes).collect())
}

/// The field with this name, in either spelling.
fn named(message: Message, name: &str) -> Option<Field> {
    message
        .fields()
        .find(|field| field.name() == name || is_json_name(name, field.name()))
}

/// Whether `json` is what the mapping makes of a field's name: without underscores, and the letter
/// after each in upper case.
fn is_json_name(json: &str, name: &str) -> bool {
    let mut after_underscore = false;
    let mut json = json.chars();
    for character in name.chars() {
        if character == '_' {
            after_underscore = true;
            continue;
        }
        let expected = match after_underscore {
            true => character.to_ascii_uppercase(),
            false => character,
        };
        after_underscore = false;
        if json.next() != Some(expected) {
            return false;
        }
    }
    json.next().is_none()
}

/// Null is a value for `google.protobuf.Value` and an absent field for everything else.
fn takes_null(field: Field) -> bool {
    field.label() == Label::Explicit
        && matches!(field.kind(), Kind::Message(message) if known::is_value(message))
}

fn field(field: Field, node: &Node, depth: usize, out: &mut Vec<u8>) -> Result<(), JsonError> {
    match (field.label(), &node.value) {
        (Label::Repeated, Value::List(items)) => list(field, items, depth, out),
        (Label::Repeated, _) => Err(expected("a list", node)),
        (Label::Map, Value::Map(entries)) => map(field, entries, depth, out),
        (Label::Map, _) => Err(expected("a map", node)),
        (label, _) => {
            let value = value(field.kind(), node, depth)?;
            if label == Label::Explicit || !is_default(&value) {
                put(field, &value, out);
            }
            Ok(())
        }
    }
}

/// The contents of a message that stands as its one field.
pub(super) fn single_field(field: Field, node: &Node, depth: usize) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    self::field(field, node, depth, &mut out)?;
    Ok(out)
}

fn list(field: Field, items: &[Node], depth: usize, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let mut packed = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let value = value(field.kind(), item, depth)
            .map_err(|error| error.within(format_args!("[{index}]")))?;
        match value {
            Encoded::Bytes(_) => put(field, &value, out),
            scalar => scalar.put(&mut packed),
        }
    }
    if !packed.is_empty() {
        put(field, &Encoded::Bytes(packed), out);
    }
    Ok(())
}

fn map(
    field: Field,
    entries: &[(Key, Node)],
    depth: usize,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    let Kind::Message(pair) = field.kind() else {
        return Ok(());
    };
    let (Some(key_field), Some(value_field)) = (pair.field(1), pair.field(2)) else {
        return Ok(());
    };
    let mut seen = std::collections::HashSet::new();
    for (key, node) in entries {
        let within = |error: JsonError| error.within(format_args!("[{}]", key.text));
        if !seen.insert(&key.text) {
            return Err(within(JsonError::new("is there twice").at(key.place)));
        }
        let name = self::key(key_field.kind(), key).map_err(within)?;
        let value = value(value_field.kind(), node, depth).map_err(within)?;
        let mut bytes = Vec::new();
        for (field, part) in [(key_field, name), (value_field, value)] {
            if !is_default(&part) {
                put(field, &part, &mut bytes);
            }
        }
        put(field, &Encoded::Bytes(bytes), out);
    }
    Ok(())
}

fn key(kind: Kind, key: &Key) -> Result<Encoded, JsonError> {
    let text = key.text.clone();
    let value = match (kind, text.as_str()) {
        (Kind::Bool, "true") => Value::Bool(true),
        (Kind::Bool, "false") => Value::Bool(false),
        _ => Value::Text(text),
    };
    let place = key.place;
    self::value(kind, &Node { value, place }, MAX_DEPTH)
}

/// A value as it stands after the field's key.
enum Encoded {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Vec<u8>),
}

fn value(kind: Kind, node: &Node, depth: usize) -> Result<Encoded, JsonError> {
    Ok(match kind {
        Kind::Double => Encoded::Fixed64(float(node)?.to_bits()),
        Kind::Float => Encoded::Fixed32(single(node)?.to_bits()),
        Kind::Int32 | Kind::Int64 => Encoded::Varint(signed(kind, node)?.cast_unsigned()),
        Kind::Uint32 => Encoded::Varint(integer(node, 0, u32::MAX.into())? as u64),
        Kind::Uint64 => Encoded::Varint(integer(node, 0, u64::MAX.into())? as u64),
        Kind::Sint32 | Kind::Sint64 => {
            let number = signed(kind, node)?;
            Encoded::Varint((number << 1 ^ number >> 63).cast_unsigned())
        }
        Kind::Fixed32 => Encoded::Fixed32(integer(node, 0, u32::MAX.into())? as u32),
        Kind::Fixed64 => Encoded::Fixed64(integer(node, 0, u64::MAX.into())? as u64),
        Kind::Sfixed32 => Encoded::Fixed32((signed(kind, node)? as i32).cast_unsigned()),
        Kind::Sfixed64 => Encoded::Fixed64(signed(kind, node)?.cast_unsigned()),
        Kind::Bool => match node.value {
            Value::Bool(value) => Encoded::Varint(value.into()),
            _ => return Err(expected("true or false", node)),
        },
        Kind::String => Encoded::Bytes(text(node)?.as_bytes().to_vec()),
        Kind::Bytes => {
            let bytes = base64::decode(text(node)?);
            Encoded::Bytes(bytes.ok_or_else(|| expected("base64", node))?)
        }
        Kind::Enum(definition) => {
            // A negative number is extended to 64 bits, as every int32 is.
            Encoded::Varint(i64::from(enumeration(definition, node)?).cast_unsigned())
        }
        Kind::Message(message) => Encoded::Bytes(contents(message, node, depth)?),
    })
}

fn any(entries: &[(Key, Node)], node: &Node, depth: usize) -> Result<Vec<u8>, JsonError> {
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let Some((key, url)) = entries.iter().find(|(key, _)| key.text == "@type") else {
        return Err(JsonError::new("has to have an @type").at(node.place));
    };
    let at_type = |error: JsonError| error.at(key.place).within("@type");
    let url = text(url).map_err(at_type)?;
    let inner = Message::named(name_in_url(url))
        .ok_or_else(|| at_type(JsonError::new(format!("there is no message `{url}`"))))?;
    let mut others = entries.iter().filter(|(key, _)| key.text != "@type");
    let contents = if known::is_special(inner) || inner.is_any() {
        let (key, value) = match (others.next(), others.next()) {
            (Some((key, value)), None) if key.text == "value" => (key, value),
            _ => {
                let error = format!("has to have a `value` and nothing else, for {url}");
                return Err(JsonError::new(error).at(node.place));
            }
        };
        contents(inner, value, depth).map_err(|error| error.within(&key.text))?
    } else {
        fields(inner, others, depth)?
    };
    Ok(known::any(url, contents))
}

pub(super) fn text(node: &Node) -> Result<&str, JsonError> {
    match &node.value {
        Value::Text(text) => Ok(text),
        _ => Err(expected("a string", node)),
    }
}

fn enumeration(definition: Enum, node: &Node) -> Result<i32, JsonError> {
    let Value::Text(name) = &node.value else {
        return Ok(integer(node, i32::MIN.into(), i32::MAX.into())? as i32);
    };
    let mut values = definition.values();
    if let Some((number, _)) = values.find(|(_, defined)| defined == name) {
        return Ok(number);
    }
    let names: Vec<_> = definition.values().map(|(_, name)| name).collect();
    let error = format!("`{name}` is none of {}", names.join(", "));
    Err(JsonError::new(error).at(node.place))
}

fn signed(kind: Kind, node: &Node) -> Result<i64, JsonError> {
    let (least, most) = match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => (i32::MIN.into(), i32::MAX.into()),
        _ => (i64::MIN.into(), i64::MAX.into()),
    };
    Ok(integer(node, least, most)? as i64)
}

/// A whole number: as such, as a decimal fraction of nothing (`1.0`, `1e3`), or as a string.
fn integer(node: &Node, least: i128, most: i128) -> Result<i128, JsonError> {
    let whole = |number: f64| (number.fract() == 0.0).then_some(number as i128);
    let number = match &node.value {
        Value::Integer(number) => Some(*number),
        Value::Float(number) => whole(*number),
        Value::Text(text) => text.parse().ok().or_else(|| {
            // Rust reads more than JSON: names, and a sign in front.
            let plain = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
            text.parse().ok().filter(|_| plain).and_then(whole)
        }),
        _ => None,
    };
    let number = number.ok_or_else(|| expected("a whole number", node))?;
    if (least..=most).contains(&number) {
        return Ok(number);
    }
    let error = format!("has to be from {least} to {most}, not {number}");
    Err(JsonError::new(error).at(node.place))
}

fn single(node: &Node) -> Result<f32, JsonError> {
    let number = float(node)?;
    let single = number as f32;
    if single.is_finite() == number.is_finite() {
        return Ok(single);
    }
    Err(JsonError::new(format!("{number} is too large for 32 bits")).at(node.place))
}

pub(super) fn float(node: &Node) -> Result<f64, JsonError> {
    match &node.value {
        Value::Integer(number) => Ok(*number as f64),
        Value::Float(number) => Ok(*number),
        Value::Text(text) => match text.as_str() {
            "NaN" => Ok(f64::NAN),
            "Infinity" => Ok(f64::INFINITY),
            "-Infinity" => Ok(f64::NEG_INFINITY),
            number => {
                let read = number.parse().ok().filter(|read: &f64| read.is_finite());
                read.ok_or_else(|| expected("a number", node))
            }
        },
        _ => Err(expected("a number", node)),
    }
}

/// It is something else than it should be.
pub(super) fn expected(what: &str, node: &Node) -> JsonError {
    let found = match &node.value {
        Value::Text(text) if text.len() <= 40 => format!("the string `{text}`"),
        value => value.what().to_owned(),
    };
    JsonError::new(format!("has to be {what}, not {found}")).at(node.place)
}

// === impl Encoded ===

impl Encoded {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Varint(number) => encode_varint(*number, out),
            Self::Fixed64(bits) => out.extend(bits.to_le_bytes()),
            Self::Fixed32(bits) => out.extend(bits.to_le_bytes()),
            Self::Bytes(bytes) => {
                encode_varint(bytes.len() as u64, out);
                out.extend(bytes);
            }
        }
    }
}

fn put(field: Field, value: &Encoded, out: &mut Vec<u8>) {
    let wire = match value {
        Encoded::Varint(_) => WireType::Varint,
        Encoded::Fixed64(_) => WireType::SixtyFourBit,
        Encoded::Fixed32(_) => WireType::ThirtyTwoBit,
        Encoded::Bytes(_) => WireType::LengthDelimited,
    };
    encode_key(field.number(), wire, out);
    value.put(out);
}

/// Whether an absent field says the same.
fn is_default(value: &Encoded) -> bool {
    match value {
        // Not for -0.0, whose bits are not zero.
        Encoded::Varint(bits) | Encoded::Fixed64(bits) => *bits == 0,
        Encoded::Fixed32(bits) => *bits == 0,
        Encoded::Bytes(bytes) => bytes.is_empty(),
    }
}
