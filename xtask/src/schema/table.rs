//! The table's format, writing side. mesh-xds's `schema/table.rs` reads it and describes it; a
//! change here needs one there and a new [`MAGIC`].

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use prost::Message as _;
use prost_reflect::{
    EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
};

use super::select::Messages;

/// The first bytes, with the format's version.
pub(crate) const MAGIC: &[u8; 4] = b"MXS2";

/// What these hold is said by a name in them, as with an `Any`.
const TYPED_STRUCTS: [&str; 2] = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// What may be a credential and is not marked as one (`udpa.annotations.sensitive`).
const SENSITIVE: [&str; 1] = ["envoy.config.core.v3.GrpcService.initial_metadata"];

/// What stands in a field's place for a oneof when it is in none.
const NO_ONEOF: u8 = u8::MAX;

/// The sections as they grow.
struct Table {
    names: BTreeMap<String, u16>,
    enums: BTreeMap<String, u16>,
    rules_of_field: ExtensionDescriptor,
    required_oneof: ExtensionDescriptor,
    sensitive: ExtensionDescriptor,
    messages: Vec<u8>,
    fields: Vec<u8>,
    oneofs: Vec<u8>,
    rules: Vec<u8>,
    strings: Strings,
}

/// Every name once.
#[derive(Default)]
struct Strings {
    known: BTreeMap<String, u32>,
    bytes: Vec<u8>,
}

/// What a walk can find in a message or below.
#[derive(Clone, Copy, Default, PartialEq)]
struct Within {
    rules: bool,
    maps: bool,
    secrets: bool,
}

/// The whole file.
///
/// # Errors
///
/// If a message has something that the format has no place for.
pub(crate) fn write(messages: &Messages) -> anyhow::Result<Vec<u8>> {
    let enums = enums_of(messages);
    let mut table = Table::new(messages, &enums)?;
    let within = within(messages, &table);
    let count_of_values = enums.values().map(|one| one.values().len()).sum::<usize>();
    for message in messages.values() {
        table.message(message, within[message.full_name()])?;
    }
    let (enum_records, values) = table.enums(&enums)?;

    let mut file = MAGIC.to_vec();
    for count in [
        messages.len(),
        table.fields.len() / 20,
        table.oneofs.len() / 8,
        enums.len(),
        count_of_values,
        table.rules.len(),
        table.strings.bytes.len(),
    ] {
        file.extend(u32::try_from(count)?.to_le_bytes());
    }
    let Table {
        messages,
        fields,
        oneofs,
        rules,
        strings,
        ..
    } = table;
    for section in [messages, fields, oneofs, enum_records, values, rules] {
        file.extend(section);
    }
    file.extend(strings.bytes);
    Ok(file)
}

fn enums_of(messages: &Messages) -> BTreeMap<String, EnumDescriptor> {
    let mut enums = BTreeMap::new();
    for field in messages.values().flat_map(MessageDescriptor::fields) {
        if let Kind::Enum(one) = field.kind() {
            enums.insert(one.full_name().to_owned(), one);
        }
    }
    enums
}

/// What can be found in each message: grows until nothing changes.
fn within(messages: &Messages, table: &Table) -> BTreeMap<String, Within> {
    let mut known: BTreeMap<String, Within> = messages
        .keys()
        .map(|name| (name.clone(), Within::default()))
        .collect();
    loop {
        let before = known.clone();
        for (name, message) in messages {
            // An Any can hold anything.
            let any = name == "google.protobuf.Any";
            let mut found = Within {
                rules: any || message.oneofs().any(|oneof| table.is_required(&oneof)),
                maps: any,
                secrets: any || TYPED_STRUCTS.contains(&name.as_str()),
            };
            for field in message.fields() {
                found.rules |= field.options().has_extension(&table.rules_of_field);
                found.maps |= field.is_map();
                found.secrets |= table.is_sensitive(&field);
                if let Kind::Message(inner) = field.kind() {
                    found.rules |= before[inner.full_name()].rules;
                    found.maps |= before[inner.full_name()].maps;
                    found.secrets |= before[inner.full_name()].secrets;
                }
            }
            known.insert(name.clone(), found);
        }
        if known == before {
            return known;
        }
    }
}

// === impl Table ===

impl Table {
    fn new(messages: &Messages, enums: &BTreeMap<String, EnumDescriptor>) -> anyhow::Result<Self> {
        let pool = messages
            .values()
            .next()
            .context("no message")?
            .parent_pool();
        let extension = |name: &str| {
            pool.get_extension_by_name(name)
                .with_context(|| format!("there is no extension {name}"))
        };
        for name in ["validate.disabled", "validate.ignored"] {
            let extension = extension(name)?;
            let mut with = messages
                .values()
                .filter(|message| message.options().has_extension(&extension));
            if let Some(message) = with.next() {
                bail!("{}: the table has no place for {name}", message.full_name());
            }
        }
        Ok(Self {
            names: numbered(messages.keys())?,
            enums: numbered(enums.keys())?,
            rules_of_field: extension("validate.rules")?,
            required_oneof: extension("validate.required")?,
            sensitive: extension("udpa.annotations.sensitive")?,
            messages: Vec::new(),
            fields: Vec::new(),
            oneofs: Vec::new(),
            rules: Vec::new(),
            strings: Strings::default(),
        })
    }

    fn is_required(&self, oneof: &prost_reflect::OneofDescriptor) -> bool {
        let options = oneof.options();
        options.has_extension(&self.required_oneof)
            && options.get_extension(&self.required_oneof).as_bool() == Some(true)
    }

    fn is_sensitive(&self, field: &FieldDescriptor) -> bool {
        if SENSITIVE.contains(&field.full_name()) {
            return true;
        }
        let options = field.options();
        options.has_extension(&self.sensitive)
            && options.get_extension(&self.sensitive).as_bool() == Some(true)
    }

    fn message(&mut self, message: &MessageDescriptor, within: Within) -> anyhow::Result<()> {
        let name = message.full_name();
        let mut fields: Vec<_> = message.fields().collect();
        fields.sort_by_key(FieldDescriptor::number);
        // Those of `optional` fields are last, and only an artefact.
        let oneofs: Vec<_> = message
            .oneofs()
            .filter(|oneof| !oneof.is_synthetic())
            .collect();
        let first_field = self.fields.len() / 20;
        let first_oneof = self.oneofs.len() / 8;
        for field in &fields {
            self.field(field)
                .with_context(|| format!("in {}", field.full_name()))?;
        }
        for oneof in &oneofs {
            let place = self.strings.place(oneof.name())?;
            self.oneofs.extend(place.to_le_bytes());
            self.oneofs.push(u8::try_from(oneof.name().len())?);
            self.oneofs.push(u8::from(self.is_required(oneof)));
            self.oneofs.extend([0, 0]);
        }
        let flags = u8::from(message.is_map_entry())
            | u8::from(within.rules) << 1
            | u8::from(within.maps) << 2
            | u8::from(within.secrets) << 3;
        let record = &mut self.messages;
        record.extend(self.strings.place(name)?.to_le_bytes());
        record.extend(u16::try_from(name.len())?.to_le_bytes());
        record.extend([flags, 0]);
        record.extend(u32::try_from(first_field)?.to_le_bytes());
        record.extend(u32::try_from(first_oneof)?.to_le_bytes());
        record.extend(u16::try_from(fields.len())?.to_le_bytes());
        record.extend(u16::try_from(oneofs.len())?.to_le_bytes());
        Ok(())
    }

    fn field(&mut self, field: &FieldDescriptor) -> anyhow::Result<()> {
        let name = field.name();
        ensure!(!field.is_group(), "a group");
        ensure!(!field.is_required(), "a required field");
        ensure!(
            field.json_name() == json_name(name),
            "its JSON name is `{}`, which does not follow from its name",
            field.json_name()
        );
        let (kind, refers_to) = match field.kind() {
            Kind::Double => (1, 0),
            Kind::Float => (2, 0),
            Kind::Int64 => (3, 0),
            Kind::Uint64 => (4, 0),
            Kind::Int32 => (5, 0),
            Kind::Fixed64 => (6, 0),
            Kind::Fixed32 => (7, 0),
            Kind::Bool => (8, 0),
            Kind::String => (9, 0),
            Kind::Message(inner) => (11, self.names[inner.full_name()]),
            Kind::Bytes => (12, 0),
            Kind::Uint32 => (13, 0),
            Kind::Enum(inner) => (14, self.enums[inner.full_name()]),
            Kind::Sfixed32 => (15, 0),
            Kind::Sfixed64 => (16, 0),
            Kind::Sint32 => (17, 0),
            Kind::Sint64 => (18, 0),
        };
        let label = if field.is_map() {
            3
        } else if field.is_list() {
            2
        } else {
            u8::from(field.supports_presence())
        };
        let oneof = match field.containing_oneof() {
            Some(oneof) if !oneof.is_synthetic() => {
                let mut siblings = field.parent_message().oneofs();
                let index = siblings.position(|other| other == oneof);
                u8::try_from(index.context("a oneof is one of its message's")?)?
            }
            _ => NO_ONEOF,
        };
        let rules = self.rules(field)?;
        let sensitive = u8::from(self.is_sensitive(field));
        let record = &mut self.fields;
        record.extend(field.number().to_le_bytes());
        record.extend(self.strings.place(name)?.to_le_bytes());
        record.extend([u8::try_from(name.len())?, kind, label, oneof]);
        record.extend(refers_to.to_le_bytes());
        record.extend([sensitive, 0]);
        record.extend(rules.to_le_bytes());
        Ok(())
    }

    /// Where its rules are, counted from one; zero if it has none.
    fn rules(&mut self, field: &FieldDescriptor) -> anyhow::Result<u32> {
        let options = field.options();
        if !options.has_extension(&self.rules_of_field) {
            return Ok(0);
        }
        let rules = options.get_extension(&self.rules_of_field);
        let rules = rules.as_message().context("rules are a message")?;
        let rules = rules.encode_to_vec();
        let place = u32::try_from(self.rules.len())?;
        self.rules.extend(u16::try_from(rules.len())?.to_le_bytes());
        self.rules.extend(rules);
        Ok(place + 1)
    }

    /// The records of the enums and of their values.
    fn enums(
        &mut self,
        enums: &BTreeMap<String, EnumDescriptor>,
    ) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
        let (mut records, mut values) = (Vec::new(), Vec::new());
        for one in enums.values() {
            records.extend(u32::try_from(values.len() / 12)?.to_le_bytes());
            records.extend(u16::try_from(one.values().len())?.to_le_bytes());
            records.extend([0, 0]);
            // In the order of the file: of two names for one number the first is the one to print.
            for value in one.values() {
                values.extend(value.number().to_le_bytes());
                values.extend(self.strings.place(value.name())?.to_le_bytes());
                values.extend(u16::try_from(value.name().len())?.to_le_bytes());
                values.extend([0, 0]);
            }
        }
        Ok((records, values))
    }
}

// === impl Strings ===

impl Strings {
    fn place(&mut self, text: &str) -> anyhow::Result<u32> {
        if let Some(place) = self.known.get(text) {
            return Ok(*place);
        }
        let place = u32::try_from(self.bytes.len())?;
        self.bytes.extend(text.as_bytes());
        self.known.insert(text.to_owned(), place);
        Ok(place)
    }
}

fn numbered<'a>(names: impl Iterator<Item = &'a String>) -> anyhow::Result<BTreeMap<String, u16>> {
    names
        .enumerate()
        .map(|(index, name)| Ok((name.clone(), u16::try_from(index)?)))
        .collect()
}

/// The name that proto3's JSON mapping gives a field.
pub(crate) fn json_name(name: &str) -> String {
    let mut after_underscore = false;
    let mut json = String::new();
    for character in name.chars() {
        match character {
            '_' => after_underscore = true,
            other if after_underscore => {
                json.push(other.to_ascii_uppercase());
                after_underscore = false;
            }
            other => json.push(other),
        }
    }
    json
}
