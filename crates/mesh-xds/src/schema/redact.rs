//! Messages as dumps show them.

use super::table::{Field, Kind, Label, Message};
use super::wire::{Entries, Entry, Malformed, Value, url_and_value};
use super::{MAX_DEPTH, name_in_url};

/// What stands in place of what is not shown, in Envoy's dumps as here.
const REDACTED: &[u8] = b"[redacted]";

/// The bytes of a `message` (full name) without what dumps do not show.
///
/// That is what Envoy's definitions mark as sensitive (`udpa.annotations.sensitive`: keys,
/// passwords, tokens) and all that lies below it, through every `Any` and `TypedStruct` of a known
/// type. As in Envoy, texts and bytes become `[redacted]`, names of files too; numbers and the like
/// go; keys of maps stay.
///
/// What cannot be read is not shown: bytes that are not this message become none.
#[must_use]
pub fn redact(message: &str, bytes: &[u8]) -> Vec<u8> {
    match Message::named(message) {
        Some(message) => redacted(message, bytes).unwrap_or_default(),
        None => Vec::new(),
    }
}

/// The same for bytes that may not be this message.
pub(crate) fn redacted(message: Message, bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    shown(message, bytes, false, MAX_DEPTH)
}

/// What may be seen of a message, which may itself be what is not shown.
fn shown(message: Message, bytes: &[u8], hide: bool, depth: usize) -> Result<Vec<u8>, Malformed> {
    if !hide && !message.has_secrets() {
        return Ok(bytes.to_vec());
    }
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    if message.is_any() {
        return any(bytes, hide, depth);
    }
    if is_typed_struct(message) {
        return typed_struct(bytes, hide, depth);
    }
    let mut out = Vec::with_capacity(bytes.len());
    for entry in Entries::of(bytes) {
        let entry = entry?;
        match message.field(entry.number) {
            Some(field) => one(field, &entry, hide, &mut out, depth)?,
            // Nobody knows what it is.
            None if hide => {}
            None => out.extend(entry.whole),
        }
    }
    Ok(out)
}

/// Writes what may be seen of one occurrence.
fn one(
    field: Field,
    entry: &Entry<'_>,
    hide: bool,
    out: &mut Vec<u8>,
    depth: usize,
) -> Result<(), Malformed> {
    let hide = hide || field.is_sensitive();
    match (field.kind(), entry.value) {
        (Kind::Message(pair), Value::Bytes(contents)) if hide && field.label() == Label::Map => {
            let mut inner = Vec::with_capacity(contents.len());
            for part in Entries::of(contents) {
                let part = part?;
                match pair.field(part.number) {
                    Some(value) if part.number == 2 => one(value, &part, true, &mut inner, depth)?,
                    _ => inner.extend(part.whole),
                }
            }
            delimited(entry.number, &inner, out);
        }
        (Kind::Message(inner), Value::Bytes(contents)) => {
            delimited(entry.number, &shown(inner, contents, hide, depth)?, out);
        }
        (Kind::String | Kind::Bytes, Value::Bytes(_)) if hide => {
            delimited(entry.number, REDACTED, out);
        }
        _ if hide => {}
        _ => out.extend(entry.whole),
    }
    Ok(())
}

fn any(bytes: &[u8], hide: bool, depth: usize) -> Result<Vec<u8>, Malformed> {
    let (url, value) = url_and_value(bytes)?;
    let value = match Message::named(name_in_url(url)) {
        Some(inner) => shown(inner, value, hide, depth)?,
        // Without a name it may belong to one that stands elsewhere.
        None if hide || url.is_empty() => Vec::new(),
        None => value.to_vec(),
    };
    Ok(named(url, &value))
}

fn is_typed_struct(message: Message) -> bool {
    matches!(
        message.name(),
        "xds.type.v3.TypedStruct" | "udpa.type.v1.TypedStruct"
    )
}

/// Shows the message that a `Struct` stands for, as a `Struct`.
fn typed_struct(bytes: &[u8], hide: bool, depth: usize) -> Result<Vec<u8>, Malformed> {
    // Its fields have the numbers of an `Any`.
    let (url, value) = url_and_value(bytes)?;
    let inner = Message::named(name_in_url(url));
    let value = match inner {
        Some(inner) if hide || inner.has_secrets() => {
            meant(inner, value, hide, depth).unwrap_or_default()
        }
        None if hide || url.is_empty() => Vec::new(),
        _ => value.to_vec(),
    };
    Ok(named(url, &value))
}

/// A name of what it is, and that.
fn named(url: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(url.len() + value.len() + 12);
    for (number, contents) in [(1, url.as_bytes()), (2, value)] {
        if !contents.is_empty() {
            delimited(number, contents, &mut out);
        }
    }
    out
}

/// A `Struct` that stands for a message, without what is not shown. None if it does not fit.
#[cfg(feature = "json")]
fn meant(message: Message, value: &[u8], hide: bool, depth: usize) -> Option<Vec<u8>> {
    use crate::json::{Codec, unredacted};
    let structure = Message::named("google.protobuf.Struct")?;
    let codec = Codec::new();
    let text = unredacted(structure, value).ok()?;
    let bytes = codec.from_json(message.name(), &text).ok()?;
    let shown = shown(message, &bytes, hide, depth).ok()?;
    if shown == bytes {
        return Some(value.to_vec());
    }
    let text = unredacted(message, &shown).ok()?;
    codec.from_json(structure.name(), &text).ok()
}

/// Nobody here can tell what stands where in it.
#[cfg(not(feature = "json"))]
fn meant(_: Message, _: &[u8], _: bool, _: usize) -> Option<Vec<u8>> {
    None
}

/// Writes a field whose contents have a length.
fn delimited(number: u32, contents: &[u8], out: &mut Vec<u8>) {
    varint(u64::from(number) << 3 | 2, out);
    varint(contents.len() as u64, out);
    out.extend(contents);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests;
