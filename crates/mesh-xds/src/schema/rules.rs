//! The rules of one field.

use std::collections::HashSet;
use std::fmt::{Debug, Display};

use envoy_types::pb::google::protobuf::Duration;
use envoy_types::pb::validate::field_rules::Type;
use envoy_types::pb::validate::string_rules::WellKnown;
use envoy_types::pb::validate::{
    AnyRules, BytesRules, DurationRules, EnumRules, FieldRules, KnownRegex, StringRules,
};

use super::occurrences::default;
use super::pattern;
use super::table::Kind;
use super::wire::{self, Entries, Value};

/// The value of a field, or that it has none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present<'a> {
    pub(super) kind: Kind,
    pub(super) value: Option<Value<'a>>,
}

/// What a check returns: the rule that is broken, to be read after the field's name.
type Checked = Result<(), String>;

/// Checks a list's own rules, and returns those of its items.
pub(super) fn repeated<'a>(
    rules: Option<&'a FieldRules>,
    items: &[Value<'_>],
) -> Result<Option<&'a FieldRules>, String> {
    let Some(Type::Repeated(rules)) = rules.and_then(|rules| rules.r#type.as_ref()) else {
        return Ok(None);
    };
    if items.is_empty() && rules.ignore_empty() {
        return Ok(None);
    }
    at_least(items.len(), rules.min_items, "item", "items")?;
    at_most(items.len(), rules.max_items, "item", "items")?;
    if rules.unique() {
        let mut seen = HashSet::new();
        if let Some(index) = items.iter().position(|item| !seen.insert(item)) {
            return Err(format!("has to have no item twice, as its item {index} is"));
        }
    }
    Ok(rules.items.as_deref())
}

/// Checks a map's own rules, and returns those of its keys and of its values.
pub(super) fn map(
    rules: Option<&FieldRules>,
    entries: usize,
) -> Result<(Option<&FieldRules>, Option<&FieldRules>), String> {
    let Some(Type::Map(rules)) = rules.and_then(|rules| rules.r#type.as_ref()) else {
        return Ok((None, None));
    };
    if entries == 0 && rules.ignore_empty() {
        return Ok((None, None));
    }
    at_least(entries, rules.min_pairs, "entry", "entries")?;
    at_most(entries, rules.max_pairs, "entry", "entries")?;
    Ok((rules.keys.as_deref(), rules.values.as_deref()))
}

/// Checks a value, and returns whether what is below it is to be checked.
pub(super) fn value(rules: Option<&FieldRules>, present: Present<'_>) -> Result<bool, String> {
    let Some(rules) = rules else {
        return Ok(true);
    };
    let of_message = rules.message.unwrap_or_default();
    let kind_requires = match &rules.r#type {
        Some(Type::Any(rules)) => rules.required(),
        Some(Type::Duration(rules)) => rules.required(),
        Some(Type::Timestamp(rules)) => rules.required(),
        _ => false,
    };
    let Some(value) = present.value else {
        if of_message.required() || kind_requires {
            return Err("is required".into());
        }
        return Ok(false);
    };
    if let Some(of_type) = &rules.r#type {
        let (kind, value) = unwrapped(present.kind, value);
        typed(of_type, kind, value)?;
    }
    Ok(!of_message.skip())
}

/// The value inside a wrapper such as `UInt32Value`: rules on the field are about that.
fn unwrapped(kind: Kind, value: Value<'_>) -> (Kind, Value<'_>) {
    let (Kind::Message(message), Value::Bytes(bytes)) = (kind, value) else {
        return (kind, value);
    };
    let Some(inner) = message.wrapped() else {
        return (kind, value);
    };
    let entries = Entries::of(bytes).filter_map(Result::ok);
    let last = entries.filter(|entry| entry.number == 1).last();
    (
        inner,
        last.map_or_else(|| default(inner), |entry| entry.value),
    )
}

/// Checks what every kind of number has.
macro_rules! number {
    ($rules:ident, $value:expr) => {{
        let value = $value;
        if $rules.ignore_empty() && is_default(&value) {
            return Ok(());
        }
        if let Some(only) = $rules.r#const {
            equal(value == only, only)?;
        }
        range(value, $rules.gt, $rules.gte, $rules.lt, $rules.lte)?;
        member(&value, &$rules.r#in, &$rules.not_in)
    }};
}

fn typed(rules: &Type, kind: Kind, value: Value<'_>) -> Checked {
    // Truncated as protobuf decoders do it.
    let number = match value {
        Value::Varint(number) | Value::Fixed64(number) => number,
        Value::Fixed32(number) => number.into(),
        Value::Bytes(_) | Value::Group => 0,
    };
    match rules {
        Type::Float(rules) => number!(rules, f32::from_bits(number as u32)),
        Type::Double(rules) => number!(rules, f64::from_bits(number)),
        Type::Int32(rules) => number!(rules, number as i32),
        Type::Int64(rules) => number!(rules, number.cast_signed()),
        Type::Uint32(rules) => number!(rules, number as u32),
        Type::Uint64(rules) => number!(rules, number),
        Type::Sint32(rules) => number!(rules, wire::zigzag(number) as i32),
        Type::Sint64(rules) => number!(rules, wire::zigzag(number)),
        Type::Fixed32(rules) => number!(rules, number as u32),
        Type::Fixed64(rules) => number!(rules, number),
        Type::Sfixed32(rules) => number!(rules, number as i32),
        Type::Sfixed64(rules) => number!(rules, number.cast_signed()),
        Type::Bool(rules) => match rules.r#const {
            Some(only) => equal((number != 0) == only, only),
            None => Ok(()),
        },
        Type::Enum(rules) => enumeration(rules, kind, number as i32),
        Type::String(rules) => {
            let text = std::str::from_utf8(value.bytes().unwrap_or_default());
            string(rules, text.map_err(|_| "has to be UTF-8")?)
        }
        Type::Bytes(rules) => bytes(rules, value.bytes().unwrap_or_default()),
        Type::Duration(rules) => duration(rules, value.bytes().unwrap_or_default()),
        Type::Any(rules) => any(rules, value.bytes().unwrap_or_default()),
        // Envoy has none of these on a single value; a test over the table says so.
        Type::Repeated(_) | Type::Map(_) | Type::Timestamp(_) => Ok(()),
    }
}

fn string(rules: &StringRules, text: &str) -> Checked {
    if text.is_empty() && rules.ignore_empty() {
        return Ok(());
    }
    let characters = text.chars().count();
    if let Some(only) = &rules.r#const {
        equal(text == only, only)?;
    }
    exactly(characters, rules.len, "character", "characters")?;
    at_least(characters, rules.min_len, "character", "characters")?;
    at_most(characters, rules.max_len, "character", "characters")?;
    exactly(text.len(), rules.len_bytes, "byte", "bytes")?;
    at_least(text.len(), rules.min_bytes, "byte", "bytes")?;
    at_most(text.len(), rules.max_bytes, "byte", "bytes")?;
    let holds = |what: &str, part: &Option<String>, does: fn(&str, &str) -> bool| match part {
        Some(part) if !does(text, part) => Err(format!("has to {what} `{part}`")),
        _ => Ok(()),
    };
    holds("start with", &rules.prefix, |text, part| {
        text.starts_with(part)
    })?;
    holds("end in", &rules.suffix, |text, part| text.ends_with(part))?;
    holds("contain", &rules.contains, |text, part| text.contains(part))?;
    holds("be free of", &rules.not_contains, |text, part| {
        !text.contains(part)
    })?;
    member(&text, &rules.r#in, &rules.not_in)?;
    if let Some(pattern) = &rules.pattern
        && pattern::matches(pattern, text) == Some(false)
    {
        return Err(format!("has to match `{pattern}`"));
    }
    let Some(WellKnown::WellKnownRegex(known)) = rules.well_known else {
        return Ok(());
    };
    let strict = rules.strict.unwrap_or(true);
    match KnownRegex::try_from(known) {
        Ok(KnownRegex::HttpHeaderName) if strict && !pattern::is_header_name(text) => {
            Err("has to be the name of an HTTP header".into())
        }
        Ok(KnownRegex::HttpHeaderValue) if strict && !pattern::is_header_value(text) => {
            Err("has to be the value of an HTTP header, without control characters".into())
        }
        Ok(KnownRegex::HttpHeaderName | KnownRegex::HttpHeaderValue)
            if !pattern::is_header_text(text) =>
        {
            Err("has to be free of NUL, CR and LF".into())
        }
        _ => Ok(()),
    }
}

fn bytes(rules: &BytesRules, bytes: &[u8]) -> Checked {
    if bytes.is_empty() && rules.ignore_empty() {
        return Ok(());
    }
    exactly(bytes.len(), rules.len, "byte", "bytes")?;
    at_least(bytes.len(), rules.min_len, "byte", "bytes")?;
    at_most(bytes.len(), rules.max_len, "byte", "bytes")
}

fn enumeration(rules: &EnumRules, kind: Kind, number: i32) -> Checked {
    if let Some(only) = rules.r#const {
        equal(number == only, only)?;
    }
    if let Kind::Enum(definition) = kind
        && rules.defined_only()
        && !definition.defines(number)
    {
        return Err(format!("has to be a defined value, not {number}"));
    }
    let names = |numbers: &[i32]| {
        let name = |number: &i32| match kind {
            Kind::Enum(definition) => definition
                .values()
                .find(|(defined, _)| defined == number)
                .map_or_else(|| number.to_string(), |(_, name)| name.into()),
            _ => number.to_string(),
        };
        numbers.iter().map(name).collect::<Vec<_>>()
    };
    member(&number, &rules.r#in, &[]).map_err(|_| one_of(&names(&rules.r#in)))?;
    member(&number, &[], &rules.not_in).map_err(|_| none_of(&names(&rules.not_in)))
}

fn duration(rules: &DurationRules, bytes: &[u8]) -> Checked {
    let nanos = |duration: &Duration| {
        i128::from(duration.seconds) * 1_000_000_000 + i128::from(duration.nanos)
    };
    let decoded: Duration =
        prost::Message::decode(bytes).map_err(|_| "is not protobuf: cut short or damaged")?;
    let limit = |duration: &Option<Duration>| duration.as_ref().map(|one| Nanos(nanos(one)));
    let value = Nanos(nanos(&decoded));
    if let Some(only) = limit(&rules.r#const) {
        equal(value == only, only)?;
    }
    let (gt, gte) = (limit(&rules.gt), limit(&rules.gte));
    range(value, gt, gte, limit(&rules.lt), limit(&rules.lte))?;
    let all = |list: &[Duration]| list.iter().map(|one| Nanos(nanos(one))).collect::<Vec<_>>();
    member(&value, &all(&rules.r#in), &all(&rules.not_in))
}

fn any(rules: &AnyRules, bytes: &[u8]) -> Checked {
    let (url, _) =
        wire::url_and_value(bytes).map_err(|_| "is not protobuf: cut short or damaged")?;
    member(&url, &rules.r#in, &rules.not_in)
}

/// A duration, shown in seconds.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Nanos(i128);

impl Display for Nanos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}s", self.0 as f64 / 1e9)
    }
}

fn range<T: PartialOrd + Display + Copy>(
    value: T,
    gt: Option<T>,
    gte: Option<T>,
    lt: Option<T>,
    lte: Option<T>,
) -> Checked {
    // Said so that NaN, which compares with nothing, passes: Envoy refuses only what is outside.
    if let Some(limit) = gt.filter(|limit| value <= *limit) {
        return Err(format!("has to be greater than {limit}"));
    }
    if let Some(limit) = gte.filter(|limit| value < *limit) {
        return Err(format!("has to be at least {limit}"));
    }
    if let Some(limit) = lt.filter(|limit| value >= *limit) {
        return Err(format!("has to be less than {limit}"));
    }
    if let Some(limit) = lte.filter(|limit| value > *limit) {
        return Err(format!("has to be at most {limit}"));
    }
    Ok(())
}

fn member<T: PartialEq<U>, U: Display>(value: &T, only: &[U], never: &[U]) -> Checked {
    if !only.is_empty() && !only.iter().any(|one| value == one) {
        return Err(one_of(only));
    }
    if never.iter().any(|one| value == one) {
        return Err(none_of(never));
    }
    Ok(())
}

fn one_of(allowed: &[impl Display]) -> String {
    format!("has to be one of {}", listed(allowed))
}

fn none_of(refused: &[impl Display]) -> String {
    format!("has to be none of {}", listed(refused))
}

fn listed(values: &[impl Display]) -> String {
    let shown: Vec<_> = values.iter().map(ToString::to_string).collect();
    shown.join(", ")
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn equal(is: bool, only: impl Display) -> Checked {
    if is {
        Ok(())
    } else {
        Err(format!("has to be {only}"))
    }
}

fn exactly(count: usize, only: Option<u64>, one: &str, many: &str) -> Checked {
    match only {
        Some(only) if count as u64 != only => {
            Err(format!("has to have exactly {}", counted(only, one, many)))
        }
        _ => Ok(()),
    }
}

fn at_least(count: usize, least: Option<u64>, one: &str, many: &str) -> Checked {
    match least {
        Some(least) if (count as u64) < least => Err(format!(
            "has to have at least {}",
            counted(least, one, many)
        )),
        _ => Ok(()),
    }
}

fn at_most(count: usize, most: Option<u64>, one: &str, many: &str) -> Checked {
    match most {
        Some(most) if count as u64 > most => {
            Err(format!("has to have at most {}", counted(most, one, many)))
        }
        _ => Ok(()),
    }
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::pattern;
    use crate::schema::table::Message;
    use prost::Message as _;

    /// Every rule of the table, those of items, keys and values too.
    fn all() -> Vec<FieldRules> {
        let fields = Message::all().flat_map(Message::fields);
        let mut waiting: Vec<FieldRules> = fields
            .filter_map(|field| field.rules())
            .map(|rules| FieldRules::decode(rules).unwrap())
            .collect();
        let mut found = Vec::new();
        while let Some(rules) = waiting.pop() {
            match &rules.r#type {
                Some(Type::Repeated(rules)) => waiting.extend(rules.items.as_deref().cloned()),
                Some(Type::Map(rules)) => {
                    waiting.extend(rules.keys.as_deref().cloned());
                    waiting.extend(rules.values.as_deref().cloned());
                }
                _ => {}
            }
            found.push(rules);
        }
        found
    }

    #[test]
    fn there_is_no_rule_that_is_not_checked() {
        let all = all();
        assert!(all.len() > 1000, "{}", all.len());
        for rules in all {
            match rules.r#type {
                Some(Type::String(rules)) => {
                    if let Some(pattern) = &rules.pattern {
                        assert!(pattern::matches(pattern, "").is_some(), "{pattern}");
                    }
                    let known =
                        matches!(rules.well_known, None | Some(WellKnown::WellKnownRegex(_)));
                    assert!(known, "{rules:?}");
                }
                Some(Type::Bytes(rules)) => {
                    let only = BytesRules {
                        len: rules.len,
                        min_len: rules.min_len,
                        max_len: rules.max_len,
                        ignore_empty: rules.ignore_empty,
                        ..BytesRules::default()
                    };
                    assert_eq!(rules, only);
                }
                Some(Type::Timestamp(rules)) => panic!("{rules:?}"),
                Some(Type::Map(rules)) => assert!(!rules.no_sparse(), "{rules:?}"),
                _ => {}
            }
        }
    }

    #[test]
    fn a_range_leaves_nan_alone() {
        assert_eq!(range(f64::NAN, Some(0.0), None, None, Some(1.0)), Ok(()));
        assert!(range(1.5, None, None, None, Some(1.0)).is_err());
    }
}
