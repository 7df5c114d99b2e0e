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
    let shown = shown(message, bytes, false, MAX_DEPTH)?;
    Ok(shown.unwrap_or_else(|| bytes.to_vec()))
}

/// What may be seen of a message, which may itself be what is not shown. None if that is all of it, as
/// mostly it is.
fn shown(
    message: Message,
    bytes: &[u8],
    hide: bool,
    depth: usize,
) -> Result<Option<Vec<u8>>, Malformed> {
    if !hide && !message.has_secrets() {
        return Ok(None);
    }
    let depth = depth.checked_sub(1).ok_or(Malformed)?;
    if message.is_any() {
        return any(bytes, hide, depth);
    }
    if message.is_typed_struct() {
        return typed_struct(bytes, hide, depth);
    }
    entries(bytes, |entry| match message.field(entry.number) {
        Some(field) => one(field, entry, hide, depth),
        // Nobody knows what it is.
        None => Ok(hide.then(Vec::new)),
    })
}

/// Puts what `shown` makes of entries in their places. None if it leaves them all as they are.
fn entries<'a>(
    bytes: &'a [u8],
    shown: impl Fn(&Entry<'a>) -> Result<Option<Vec<u8>>, Malformed>,
) -> Result<Option<Vec<u8>>, Malformed> {
    let mut out = None;
    let mut end = 0;
    for entry in Entries::of(bytes) {
        let entry = entry?;
        let begin = end;
        end += entry.whole.len();
        let changed = shown(&entry)?;
        if changed.is_some() || out.is_some() {
            let out = out.get_or_insert_with(|| bytes[..begin].to_vec());
            out.extend_from_slice(changed.as_deref().unwrap_or(entry.whole));
        }
    }
    Ok(out)
}

/// What may be seen of one occurrence. None if that is all of it.
fn one(
    field: Field,
    entry: &Entry<'_>,
    hide: bool,
    depth: usize,
) -> Result<Option<Vec<u8>>, Malformed> {
    let hide = hide || field.is_sensitive();
    let contents = match (field.kind(), entry.value) {
        (Kind::Message(pair), Value::Bytes(contents)) if hide && field.label() == Label::Map => {
            entries(contents, |part| match pair.field(part.number) {
                Some(value) if part.number == 2 => one(value, part, true, depth),
                _ => Ok(None),
            })?
        }
        (Kind::Message(inner), Value::Bytes(contents)) => shown(inner, contents, hide, depth)?,
        (Kind::String | Kind::Bytes, Value::Bytes(_)) if hide => Some(REDACTED.to_vec()),
        _ => return Ok(hide.then(Vec::new)),
    };
    Ok(contents.map(|contents| {
        let mut out = Vec::with_capacity(contents.len() + 8);
        delimited(entry.number, &contents, &mut out);
        out
    }))
}

fn any(bytes: &[u8], hide: bool, depth: usize) -> Result<Option<Vec<u8>>, Malformed> {
    let (url, value) = url_and_value(bytes)?;
    let shown = match Message::named(name_in_url(url)) {
        Some(inner) => shown(inner, value, hide, depth)?,
        // Without a name it may belong to one that stands elsewhere.
        None => (hide || url.is_empty()).then(Vec::new),
    };
    Ok(named(url, shown.as_deref().unwrap_or(value), bytes))
}

/// Shows the message that a `Struct` stands for, as a `Struct`.
fn typed_struct(bytes: &[u8], hide: bool, depth: usize) -> Result<Option<Vec<u8>>, Malformed> {
    // Its fields have the numbers of an `Any`.
    let (url, value) = url_and_value(bytes)?;
    let shown = match Message::named(name_in_url(url)) {
        Some(inner) if hide || inner.has_secrets() => {
            Some(meant(inner, value, hide, depth).unwrap_or_default())
        }
        Some(_) => None,
        None => (hide || url.is_empty()).then(Vec::new),
    };
    Ok(named(url, shown.as_deref().unwrap_or(value), bytes))
}

/// A name of what it is, and that. None if `before` says it in these words: what a reader would pass
/// over there is not shown.
fn named(url: &str, value: &[u8], before: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(url.len() + value.len() + 12);
    for (number, contents) in [(1, url.as_bytes()), (2, value)] {
        if !contents.is_empty() {
            delimited(number, contents, &mut out);
        }
    }
    (out != before).then_some(out)
}

/// A `Struct` that stands for a message, without what is not shown. None if it does not fit.
#[cfg(feature = "json")]
fn meant(message: Message, value: &[u8], hide: bool, depth: usize) -> Option<Vec<u8>> {
    use crate::json::{Codec, unredacted};
    let structure = Message::named("google.protobuf.Struct")?;
    let codec = Codec::new();
    let text = unredacted(structure, value).ok()?;
    let bytes = codec.from_json(message.name(), &text).ok()?;
    let Some(shown) = shown(message, &bytes, hide, depth).ok()? else {
        return Some(value.to_vec());
    };
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
