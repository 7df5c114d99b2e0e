//! One encoding for one message.

use super::table::{Field, Kind, Label, Message};
use super::wire::{Entries, Entry, Malformed, Value};
use super::{MAX_DEPTH, name_in_url};

/// Where a map's entry goes among the others.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Number(i128),
    Text(&'a [u8]),
}

/// The bytes of a `message` (full name) with the entries of every map in the order of their keys.
///
/// Protobuf leaves the order open, and prost's maps are hash maps: without this, the same message
/// would give other bytes each time, and so another version. Maps below are put in order too,
/// through sub-messages and through each `Any` of a known type.
///
/// What decodes from the result is the same. Bytes of an unknown message, and parts that are not
/// protobuf, stay as they are.
#[must_use]
pub fn canonical(message: &str, bytes: Vec<u8>) -> Vec<u8> {
    let Some(message) = Message::named(message) else {
        return bytes;
    };
    ordered(message, &bytes, MAX_DEPTH).unwrap_or(bytes)
}

/// The same message in order; nothing if it already is for want of maps, or cannot be read.
fn ordered(message: Message, bytes: &[u8], depth: usize) -> Option<Vec<u8>> {
    if !message.has_maps() || depth == 0 {
        return None;
    }
    let entries: Vec<Entry<'_>> = Entries::of(bytes).collect::<Result<_, Malformed>>().ok()?;
    if message.is_any() {
        return any(&entries, depth - 1);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut maps: Vec<u32> = Vec::new();
    for entry in &entries {
        match message.field(entry.number) {
            Some(field) if field.label() == Label::Map => {
                // All of a map's entries go where its first one stands.
                if !maps.contains(&entry.number) {
                    maps.push(entry.number);
                    map(field, &entries, &mut out, depth - 1);
                }
            }
            Some(field) => one(field, entry, &mut out, depth - 1),
            None => out.extend(entry.whole),
        }
    }
    Some(out)
}

fn map(field: Field, entries: &[Entry<'_>], out: &mut Vec<u8>, depth: usize) {
    let mut own: Vec<&Entry<'_>> = entries
        .iter()
        .filter(|entry| entry.number == field.number())
        .collect();
    // Stable: of two entries with one key the last one still wins.
    own.sort_by_cached_key(|entry| key(field, entry));
    for entry in own {
        one(field, entry, out, depth);
    }
}

/// Writes one occurrence, with what is in it in order.
fn one(field: Field, entry: &Entry<'_>, out: &mut Vec<u8>, depth: usize) {
    let (Kind::Message(inner), Value::Bytes(contents)) = (field.kind(), entry.value) else {
        out.extend(entry.whole);
        return;
    };
    around(entry, contents, ordered(inner, contents, depth), out);
}

/// Writes an occurrence whose contents may have been put in order. Order takes no place, so the
/// length in front stays what it is.
fn around(entry: &Entry<'_>, contents: &[u8], ordered: Option<Vec<u8>>, out: &mut Vec<u8>) {
    match ordered {
        Some(ordered) => {
            debug_assert_eq!(ordered.len(), contents.len(), "only moved around");
            out.extend(&entry.whole[..entry.whole.len() - contents.len()]);
            out.extend(ordered);
        }
        None => out.extend(entry.whole),
    }
}

fn any(entries: &[Entry<'_>], depth: usize) -> Option<Vec<u8>> {
    let of = |number| {
        let mut own = entries
            .iter()
            .rev()
            .filter(move |entry| entry.number == number);
        own.find_map(|entry| entry.value.bytes())
    };
    let url = std::str::from_utf8(of(1)?).ok()?;
    let inner = Message::named(name_in_url(url))?;
    let mut out = Vec::new();
    for entry in entries {
        match entry.value {
            Value::Bytes(contents) if entry.number == 2 => {
                around(entry, contents, ordered(inner, contents, depth), &mut out);
            }
            _ => out.extend(entry.whole),
        }
    }
    Some(out)
}

/// The key of a map's entry; that of an entry which cannot be read is as if it were absent.
fn key<'a>(field: Field, entry: &Entry<'a>) -> Key<'a> {
    let entries = Entries::of(entry.value.bytes().unwrap_or_default());
    let value = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.number == 1)
        .last()
        .map(|entry| entry.value);
    let Kind::Message(pair) = field.kind() else {
        return Key::Number(0);
    };
    let kind = pair.field(1).map(Field::kind);
    match (value, kind) {
        (Some(Value::Bytes(text)), _) => Key::Text(text),
        (None, Some(Kind::String)) => Key::Text(b""),
        (Some(Value::Varint(number)), Some(Kind::Int32 | Kind::Int64)) => {
            Key::Number(number.cast_signed().into())
        }
        (Some(Value::Varint(number) | Value::Fixed64(number)), _) => Key::Number(number.into()),
        (Some(Value::Fixed32(number)), _) => Key::Number(number.into()),
        _ => Key::Number(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::core::v3::{Metadata, TypedExtensionConfig};
    use envoy_types::pb::google::protobuf::{Any, Struct, Value as PbValue, value};
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::{Strategy, any, prop_assert_eq, proptest};
    use prost::{Message as _, Name as _};

    const STRUCT: &str = "google.protobuf.Struct";

    fn text(text: &str) -> PbValue {
        let kind = value::Kind::StringValue(text.into());
        PbValue { kind: Some(kind) }
    }

    fn structure(names: &[&str]) -> Struct {
        let fields = names.iter().map(|name| ((*name).to_owned(), text(name)));
        Struct {
            fields: fields.collect(),
        }
    }

    /// Encoded map entries in the order in which they are given.
    fn in_this_order(names: &[&str]) -> Vec<u8> {
        names
            .iter()
            .flat_map(|name| structure(&[name]).encode_to_vec())
            .collect()
    }

    #[test]
    fn entries_are_put_in_the_order_of_their_keys() {
        let bytes = canonical(STRUCT, in_this_order(&["b", "", "aa", "a"]));
        assert_eq!(bytes, in_this_order(&["", "a", "aa", "b"]));
    }

    #[test]
    fn of_two_entries_with_one_key_the_last_one_stays_last() {
        let entry = |value: &str| {
            let fields = [("a".to_owned(), text(value))].into();
            Struct { fields }.encode_to_vec()
        };
        let bytes = [entry("2"), entry("1")].concat();
        assert_eq!(canonical(STRUCT, bytes.clone()), bytes);
    }

    #[test]
    fn maps_in_an_any_are_put_in_order_if_its_type_is_known() {
        let of = |url: &str, names: &[&str]| {
            let any = Any {
                type_url: url.into(),
                value: in_this_order(names),
            };
            TypedExtensionConfig {
                name: "a".into(),
                typed_config: Some(any),
            }
            .encode_to_vec()
        };
        let name = TypedExtensionConfig::full_name();
        let known = "type.googleapis.com/google.protobuf.Struct";
        assert_eq!(
            canonical(&name, of(known, &["b", "a"])),
            of(known, &["a", "b"])
        );
        let unknown = of("type.googleapis.com/orchard.Tree", &["b", "a"]);
        assert_eq!(canonical(&name, unknown.clone()), unknown);
    }

    #[test]
    fn bytes_that_cannot_be_read_stay_as_they_are() {
        let cut = in_this_order(&["b", "a"])[..9].to_vec();
        assert_eq!(canonical(STRUCT, cut.clone()), cut);
        assert_eq!(canonical("orchard.Tree", cut.clone()), cut);
    }

    fn values() -> impl Strategy<Value = PbValue> {
        let leaf = "[a-c]{0,3}".prop_map(|leaf| text(&leaf));
        leaf.prop_recursive(4, 32, 6, |inner| {
            btree_map("[a-f]{0,2}", inner, 0..6).prop_map(|fields| {
                let fields = fields.into_iter().collect();
                let kind = value::Kind::StructValue(Struct { fields });
                PbValue { kind: Some(kind) }
            })
        })
    }

    fn clusters() -> impl Strategy<Value = Cluster> {
        btree_map("[a-f]{0,2}", btree_map("[a-f]{0,2}", values(), 0..6), 0..6).prop_map(
            |metadata| {
                let structs = metadata.into_iter().map(|(name, fields)| {
                    let fields = fields.into_iter().collect();
                    (name, Struct { fields })
                });
                let filter_metadata: std::collections::HashMap<_, _> = structs.collect();
                let any = |name: &String, value: &Struct| {
                    let any = Any {
                        type_url: "type.googleapis.com/google.protobuf.Struct".into(),
                        value: value.encode_to_vec(),
                    };
                    (name.clone(), any)
                };
                Cluster {
                    name: "a".into(),
                    typed_extension_protocol_options: filter_metadata
                        .iter()
                        .map(|(name, value)| any(name, value))
                        .collect(),
                    metadata: Some(Metadata {
                        filter_metadata,
                        ..Metadata::default()
                    }),
                    ..Cluster::default()
                }
            },
        )
    }

    /// The same message built anew, so that its maps have another order.
    fn again(cluster: &Cluster) -> Cluster {
        let mut copy = Cluster::decode(cluster.encode_to_vec().as_slice()).unwrap();
        for any in copy.typed_extension_protocol_options.values_mut() {
            let value = Struct::decode(any.value.as_slice()).unwrap();
            any.value = value.encode_to_vec();
        }
        copy
    }

    proptest! {
        #[test]
        fn one_message_has_one_encoding(cluster in clusters()) {
            let name = Cluster::full_name();
            let bytes = canonical(&name, cluster.encode_to_vec());
            prop_assert_eq!(&canonical(&name, again(&cluster).encode_to_vec()), &bytes);
            prop_assert_eq!(&canonical(&name, bytes.clone()), &bytes);
            let decoded = Cluster::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(decoded.metadata, cluster.metadata);
        }

        #[test]
        fn any_bytes_keep_their_length(bytes in vec(any::<u8>(), 0..80)) {
            for name in [STRUCT, "envoy.config.cluster.v3.Cluster", "google.protobuf.Any"] {
                let once = canonical(name, bytes.clone());
                prop_assert_eq!(once.len(), bytes.len());
                prop_assert_eq!(canonical(name, once.clone()), once);
            }
        }
    }
}
