//! What an encoded message says, by protobuf's rules for fields that occur several times.

use std::borrow::Cow;
use std::collections::HashMap;

use super::table::{Field, Kind, Label, Message};
use super::wire::{Entries, Entry, Malformed, Value};

/// One occurrence of a known field.
pub(crate) type Occurrence<'a> = (Field, Value<'a>);

/// The known fields that are in force, in the order of their numbers. Of the members of a oneof the
/// last one counts, and what came before it is gone.
pub(crate) fn occurrences(
    message: Message,
    bytes: &[u8],
) -> Result<Vec<Occurrence<'_>>, Malformed> {
    let mut found: Vec<Occurrence<'_>> = Vec::new();
    // For each oneof its member and since which occurrence it is that one.
    let mut members: Vec<Option<(Field, usize)>> = vec![None; message.oneofs().len()];
    for entry in Entries::of(bytes) {
        let Entry { number, value, .. } = entry?;
        let Some(field) = message.field(number) else {
            continue;
        };
        // Elsewhere that is an unknown field. Here prost decodes afterwards: it refuses such a
        // field too, but not if it is a map; there it takes what follows for an entry, and nobody
        // would have checked that.
        if !fits(field, value) {
            return Err(Malformed);
        }
        if let Some(member) = field.oneof().and_then(|oneof| members.get_mut(oneof))
            && member.is_none_or(|(current, _)| current != field)
        {
            *member = Some((field, found.len()));
        }
        found.push((field, value));
    }
    let mut index = 0;
    found.retain(|(field, _)| {
        let member = field.oneof().and_then(|oneof| members[oneof]);
        let in_force = member.is_none_or(|(current, since)| current == *field && since <= index);
        index += 1;
        in_force
    });
    found.sort_by_key(|(field, _)| field.number());
    Ok(found)
}

/// Whether the wire type can be this field's.
fn fits(field: Field, value: Value<'_>) -> bool {
    let packed = field.label() == Label::Repeated && matches!(value, Value::Bytes(_));
    match field.kind() {
        Kind::String | Kind::Bytes | Kind::Message(_) => matches!(value, Value::Bytes(_)),
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => {
            packed || matches!(value, Value::Fixed64(_))
        }
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => {
            packed || matches!(value, Value::Fixed32(_))
        }
        _ => packed || matches!(value, Value::Varint(_)),
    }
}

/// The bytes of a singular message: several occurrences are merged, as their bytes joined would be.
pub(crate) fn merged<'a>(own: &[Occurrence<'a>]) -> Option<Cow<'a, [u8]>> {
    match own {
        [] => None,
        [(_, value)] => Some(value.bytes().unwrap_or_default().into()),
        several => {
            let parts = several.iter().filter_map(|(_, value)| value.bytes());
            Some(parts.collect::<Vec<_>>().concat().into())
        }
    }
}

/// The items of a list, packed or not.
pub(crate) fn items<'a>(field: Field, own: &[Occurrence<'a>]) -> Result<Vec<Value<'a>>, Malformed> {
    let mut items = Vec::with_capacity(own.len());
    for (_, value) in own {
        match (field.kind(), *value) {
            (Kind::String | Kind::Bytes | Kind::Message(_), value) => items.push(value),
            (kind, Value::Bytes(packed)) => unpack(kind, packed, &mut items)?,
            (_, value) => items.push(value),
        }
    }
    Ok(items)
}

fn unpack<'a>(kind: Kind, packed: &'a [u8], items: &mut Vec<Value<'a>>) -> Result<(), Malformed> {
    let wire = match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => 1,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => 5,
        _ => 0,
    };
    let mut rest = Entries::of(packed);
    while !rest.is_empty() {
        items.push(rest.value(wire)?);
    }
    Ok(())
}

/// The entries of a map, in the order in which their keys first occur: the key, and the
/// occurrences of the value. Of several entries with one key the last one counts.
///
/// An entry without a value has the default one, so a message there is never missing.
pub(crate) fn entries<'a>(
    pair: Message,
    own: &[Occurrence<'a>],
) -> Result<Vec<(Value<'a>, Vec<Occurrence<'a>>)>, Malformed> {
    let (Some(key), Some(contents)) = (pair.field(1), pair.field(2)) else {
        return Ok(Vec::new());
    };
    let mut entries: Vec<(Value<'a>, Vec<Occurrence<'a>>)> = Vec::with_capacity(own.len());
    let mut places: HashMap<Value<'a>, usize> = HashMap::new();
    for (_, entry) in own {
        let mut parts = occurrences(pair, entry.bytes().unwrap_or_default())?;
        let values = parts.split_off(parts.partition_point(|(field, _)| *field == key));
        let name = parts
            .last()
            .map_or_else(|| default(key.kind()), |(_, value)| *value);
        let values = match values.is_empty() {
            true => vec![(contents, default(contents.kind()))],
            false => values,
        };
        match places.get(&name) {
            Some(place) => entries[*place].1 = values,
            None => {
                places.insert(name, entries.len());
                entries.push((name, values));
            }
        }
    }
    Ok(entries)
}

/// What an absent field is read as.
pub(crate) fn default(kind: Kind) -> Value<'static> {
    match kind {
        Kind::String | Kind::Bytes | Kind::Message(_) => Value::Bytes(&[]),
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Value::Fixed64(0),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Value::Fixed32(0),
        _ => Value::Varint(0),
    }
}
