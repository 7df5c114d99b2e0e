//! The table of messages, read in place.
//!
//! All numbers are little-endian. After [`MAGIC`] come seven `u32`: the numbers of messages, fields,
//! oneofs, enums and enum values, and the sizes of the rules and of the strings. Then the sections:
//!
//! | section | one record |
//! |---|---|
//! | messages, by name | name `u32` + `u16`; flags `u8`, 0; first field `u32`, first oneof `u32`; number of fields `u16`, of oneofs `u16` |
//! | fields, by number | number `u32`; name `u32` + `u8`; kind `u8`, label `u8`, oneof in its message `u8`; message or enum `u16`; sensitive `u8`, 0 `u8`; place of its rules plus one `u32` |
//! | oneofs | name `u32` + `u8`; required `u8`, 0 `u16` |
//! | enums | first value `u32`, number of values `u16`, 0 `u16` |
//! | enum values | number `i32`; name `u32` + `u16`, 0 `u16` |
//! | rules | length `u16`, then a `validate.FieldRules` |
//! | strings | |
//!
//! `xtask/src/schema/table.rs` writes it.

use std::cmp::Ordering;

const TABLE: &[u8] = include_bytes!("../../data/schema.bin");

const MAGIC: [u8; 4] = *b"MXS2";
const _: () = assert!(
    TABLE[0] == MAGIC[0] && TABLE[1] == MAGIC[1] && TABLE[2] == MAGIC[2] && TABLE[3] == MAGIC[3],
    "data/schema.bin has another format: run `cargo xtask schema`"
);

const MESSAGES: usize = 4 + 7 * 4;
const FIELDS: usize = MESSAGES + u32_at(4) * MESSAGE;
const ONEOFS: usize = FIELDS + u32_at(8) * FIELD;
const ENUMS: usize = ONEOFS + u32_at(12) * ONEOF;
const VALUES: usize = ENUMS + u32_at(16) * ENUM;
const RULES: usize = VALUES + u32_at(20) * VALUE;
const STRINGS: usize = RULES + u32_at(24);

const MESSAGE: usize = 20;
const FIELD: usize = 20;
const ONEOF: usize = 8;
const ENUM: usize = 8;
const VALUE: usize = 12;

/// A message that the table knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message(u16);

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field(usize);

/// A oneof of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Oneof(usize);

/// An enum that a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Enum(u16);

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(Enum),
    Message(Message),
}

/// How often a field can be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Label {
    /// Absent is the default value.
    Implicit,
    /// Absent is not the default value: messages, members of oneofs, `optional`.
    Explicit,
    Repeated,
    /// Repeated messages of a key (1) and a value (2).
    Map,
}

// === impl Message ===

impl Message {
    /// The message with this full name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (mut low, mut high) = (0, u32_at(4));
        while low < high {
            let middle = low.midpoint(high);
            let candidate = Self(u16::try_from(middle).ok()?);
            match candidate.name().cmp(name) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(candidate),
            }
        }
        None
    }

    /// Every message, in the order of their names.
    #[cfg(test)]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..u32_at(4)).map_while(|index| u16::try_from(index).ok().map(Self))
    }

    /// Its full name.
    pub(crate) fn name(self) -> &'static str {
        string(self.at(), u16_at(self.at() + 4))
    }

    pub(crate) fn is_any(self) -> bool {
        self.is(&["google.protobuf.Any"])
    }

    /// Whether it is a `Struct` with the name of the message that it stands for.
    pub(crate) fn is_typed_struct(self) -> bool {
        self.is(&["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"])
    }

    /// Whether it has one of these names: asked of every message in another, so no name is read.
    fn is(self, names: &[&str]) -> bool {
        let own = bytes(self.at(), u16_at(self.at() + 4));
        names.iter().any(|name| own == name.as_bytes())
    }

    /// The kind of the one field of a wrapper such as `google.protobuf.UInt32Value`.
    pub(crate) fn wrapped(self) -> Option<Kind> {
        let name = self.name().strip_prefix("google.protobuf.")?;
        let wrapper = name.ends_with("Value") && !matches!(name, "Value" | "ListValue");
        wrapper.then(|| self.field(1).map(Field::kind)).flatten()
    }

    /// Whether anything in it or below it can break a rule.
    pub(crate) fn has_rules(self) -> bool {
        TABLE[self.at() + 6] & 2 != 0
    }

    /// Whether it or anything below it can be a map.
    pub(crate) fn has_maps(self) -> bool {
        TABLE[self.at() + 6] & 4 != 0
    }

    /// Whether it or anything below it can be something that dumps do not show.
    pub(crate) fn has_secrets(self) -> bool {
        TABLE[self.at() + 6] & 8 != 0
    }

    /// Its fields, in the order of their numbers.
    pub(crate) fn fields(self) -> impl ExactSizeIterator<Item = Field> {
        let first = u32_at(self.at() + 8);
        (first..first + u16_at(self.at() + 16)).map(Field)
    }

    /// The field with this number.
    pub(crate) fn field(self, number: u32) -> Option<Field> {
        let first = u32_at(self.at() + 8);
        let (mut low, mut high) = (first, first + u16_at(self.at() + 16));
        while low < high {
            let middle = low.midpoint(high);
            match Field(middle).number().cmp(&number) {
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
                Ordering::Equal => return Some(Field(middle)),
            }
        }
        None
    }

    /// Its oneofs; [`Field::oneof`] counts in this order.
    pub(crate) fn oneofs(self) -> impl ExactSizeIterator<Item = Oneof> {
        let first = u32_at(self.at() + 12);
        (first..first + u16_at(self.at() + 18)).map(Oneof)
    }

    fn at(self) -> usize {
        MESSAGES + usize::from(self.0) * MESSAGE
    }
}

// === impl Field ===

impl Field {
    pub(crate) fn number(self) -> u32 {
        raw_u32_at(self.at())
    }

    /// Its name as the definition has it, e.g. `typed_config`.
    pub(crate) fn name(self) -> &'static str {
        string(self.at() + 4, TABLE[self.at() + 8].into())
    }

    pub(crate) fn kind(self) -> Kind {
        let refers_to = raw_u16_at(self.at() + 12);
        match TABLE[self.at() + 9] {
            1 => Kind::Double,
            2 => Kind::Float,
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            6 => Kind::Fixed64,
            7 => Kind::Fixed32,
            8 => Kind::Bool,
            9 => Kind::String,
            12 => Kind::Bytes,
            13 => Kind::Uint32,
            14 => Kind::Enum(Enum(refers_to)),
            15 => Kind::Sfixed32,
            16 => Kind::Sfixed64,
            17 => Kind::Sint32,
            18 => Kind::Sint64,
            _ => Kind::Message(Message(refers_to)),
        }
    }

    pub(crate) fn label(self) -> Label {
        match TABLE[self.at() + 10] {
            0 => Label::Implicit,
            1 => Label::Explicit,
            2 => Label::Repeated,
            _ => Label::Map,
        }
    }

    /// Whether dumps do not show what it holds (`udpa.annotations.sensitive`).
    pub(crate) fn is_sensitive(self) -> bool {
        TABLE[self.at() + 14] & 1 != 0
    }

    /// Which of its message's oneofs it is a member of.
    pub(crate) fn oneof(self) -> Option<usize> {
        let index = TABLE[self.at() + 11];
        (index != u8::MAX).then_some(index.into())
    }

    /// Its rules: an encoded `validate.FieldRules`.
    pub(crate) fn rules(self) -> Option<&'static [u8]> {
        let place = RULES + u32_at(self.at() + 16).checked_sub(1)?;
        Some(&TABLE[place + 2..][..u16_at(place)])
    }

    fn at(self) -> usize {
        FIELDS + self.0 * FIELD
    }
}

// === impl Oneof ===

impl Oneof {
    pub(crate) fn name(self) -> &'static str {
        string(self.at(), TABLE[self.at() + 4].into())
    }

    /// Whether one of its members has to be there.
    pub(crate) fn is_required(self) -> bool {
        TABLE[self.at() + 5] != 0
    }

    fn at(self) -> usize {
        ONEOFS + self.0 * ONEOF
    }
}

// === impl Enum ===

impl Enum {
    /// The values with their names, in the order of the definition.
    pub(crate) fn values(self) -> impl Iterator<Item = (i32, &'static str)> {
        let at = ENUMS + usize::from(self.0) * ENUM;
        let first = u32_at(at);
        (first..first + u16_at(at + 4)).map(|index| {
            let at = VALUES + index * VALUE;
            let number = raw_u32_at(at).cast_signed();
            (number, string(at + 4, u16_at(at + 8)))
        })
    }

    /// Whether a value has this number.
    pub(crate) fn defines(self, number: i32) -> bool {
        self.values().any(|(defined, _)| defined == number)
    }
}

/// The string whose place is at `at`.
fn string(at: usize, length: usize) -> &'static str {
    std::str::from_utf8(bytes(at, length)).expect("the table's strings are names")
}

fn bytes(at: usize, length: usize) -> &'static [u8] {
    &TABLE[STRINGS + u32_at(at)..][..length]
}

/// A place or a number of records.
const fn u32_at(at: usize) -> usize {
    raw_u32_at(at) as usize
}

fn u16_at(at: usize) -> usize {
    raw_u16_at(at).into()
}

const fn raw_u32_at(at: usize) -> u32 {
    u32::from_le_bytes([TABLE[at], TABLE[at + 1], TABLE[at + 2], TABLE[at + 3]])
}

fn raw_u16_at(at: usize) -> u16 {
    u16::from_le_bytes([TABLE[at], TABLE[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_found_by_its_name_and_every_field_by_its_number() {
        let mut count = 0;
        for message in Message::all() {
            assert_eq!(Message::named(message.name()), Some(message));
            for field in message.fields() {
                assert_eq!(message.field(field.number()), Some(field));
                assert!(
                    field
                        .oneof()
                        .is_none_or(|index| index < message.oneofs().len())
                );
                count += 1;
            }
        }
        assert!(count > 4000, "{count} fields");
        assert_eq!(Message::named("envoy.config.cluster.v3.Cluste"), None);
        assert_eq!(Message::named(""), None);
        assert_eq!(Message::named("~"), None);
    }

    #[test]
    fn a_field_says_what_it_holds() {
        let cluster = Message::named("envoy.config.cluster.v3.Cluster").unwrap();
        let field = |name| cluster.fields().find(|field| field.name() == name).unwrap();
        assert_eq!(field("name").number(), 1);
        assert_eq!(field("name").kind(), Kind::String);
        assert_eq!(field("name").label(), Label::Implicit);
        assert_eq!(field("filters").label(), Label::Repeated);
        assert_eq!(
            field("typed_extension_protocol_options").label(),
            Label::Map
        );
        assert_eq!(field("load_assignment").label(), Label::Explicit);
        let kind = field("type").oneof().unwrap();
        assert_eq!(
            cluster.oneofs().nth(kind).unwrap().name(),
            "cluster_discovery_type"
        );
        let Kind::Enum(policies) = field("lb_policy").kind() else {
            panic!("lb_policy is an enum");
        };
        assert!(policies.values().any(|value| value == (2, "RING_HASH")));
        assert!(!policies.defines(4), "4 is reserved");
    }

    #[test]
    fn only_wrappers_are_wrappers() {
        let wrapped = |name: &str| Message::named(name).unwrap().wrapped();
        assert_eq!(wrapped("google.protobuf.UInt32Value"), Some(Kind::Uint32));
        assert_eq!(wrapped("google.protobuf.StringValue"), Some(Kind::String));
        assert_eq!(wrapped("google.protobuf.Value"), None);
        assert_eq!(wrapped("google.protobuf.ListValue"), None);
        assert_eq!(wrapped("google.protobuf.Struct"), None);
        assert_eq!(wrapped("envoy.admin.v3.SimpleMetric"), None);
    }
}
