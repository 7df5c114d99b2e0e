//! JSON as text, in one form: what is equal has equal text.
//!
//! Object keys are sorted, there is no space, numbers are as short as they can be, and only what
//! has to be is escaped. The values of `envoy.lb` metadata are compared in this form.

use crate::pb::google::protobuf::{ListValue, Struct, Value, value::Kind};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;

/// How deep lists and objects may stand in one another when text is read. Messages have a limit of
/// their own.
const DEPTH: usize = 64;

/// A value as text. A number that JSON has no form for becomes `null`.
pub(crate) fn text(value: &Value) -> String {
    let mut out = String::new();
    print(value, &mut out);
    out
}

/// The value that a text stands for; nothing if it is not JSON.
pub(crate) fn value(text: &str) -> Option<Value> {
    let mut rest = text.chars().peekable();
    let value = parse(&mut rest, 0)?;
    space(&mut rest);
    rest.next().is_none().then_some(value)
}

// The depth is bounded: protobuf is not decoded beyond a hundred levels.
fn print(value: &Value, out: &mut String) {
    match &value.kind {
        Some(Kind::BoolValue(value)) => out.push_str(if *value { "true" } else { "false" }),
        // -0 is 0.
        Some(Kind::NumberValue(number)) if number.is_finite() => {
            let _ = write!(out, "{}", number + 0.0);
        }
        None | Some(Kind::NullValue(_) | Kind::NumberValue(_)) => out.push_str("null"),
        Some(Kind::StringValue(text)) => quote(text, out),
        Some(Kind::ListValue(ListValue { values })) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                print(value, out);
            }
            out.push(']');
        }
        Some(Kind::StructValue(Struct { fields })) => {
            let sorted: BTreeMap<_, _> = fields.iter().collect();
            out.push('{');
            for (at, (key, value)) in sorted.into_iter().enumerate() {
                out.push_str(if at > 0 { "," } else { "" });
                quote(key, out);
                out.push(':');
                print(value, out);
            }
            out.push('}');
        }
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

type Rest<'t> = Peekable<Chars<'t>>;

fn space(rest: &mut Rest<'_>) {
    while rest
        .next_if(|c| matches!(c, ' ' | '\t' | '\r' | '\n'))
        .is_some()
    {}
}

fn parse(rest: &mut Rest<'_>, depth: usize) -> Option<Value> {
    if depth > DEPTH {
        return None;
    }
    space(rest);
    let kind = match *rest.peek()? {
        '"' => Kind::StringValue(string(rest)?),
        '[' => Kind::ListValue(ListValue {
            values: items(rest, ']', |rest| parse(rest, depth + 1))?,
        }),
        '{' => {
            let fields = items(rest, '}', |rest| {
                let key = string(rest)?;
                space(rest);
                rest.next_if_eq(&':')?;
                Some((key, parse(rest, depth + 1)?))
            })?;
            Kind::StructValue(Struct {
                fields: fields.into_iter().collect(),
            })
        }
        _ => {
            let mut word = String::new();
            while let Some(char) =
                rest.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
            {
                word.push(char);
            }
            match word.as_str() {
                "null" => Kind::NullValue(0),
                "true" => Kind::BoolValue(true),
                "false" => Kind::BoolValue(false),
                number => Kind::NumberValue(parse_number(number)?),
            }
        }
    };
    Some(Value { kind: Some(kind) })
}

/// What stands between brackets, with commas between.
fn items<T>(
    rest: &mut Rest<'_>,
    end: char,
    mut item: impl FnMut(&mut Rest<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    rest.next();
    let mut found = Vec::new();
    space(rest);
    if rest.next_if_eq(&end).is_some() {
        return Some(found);
    }
    loop {
        space(rest);
        found.push(item(rest)?);
        space(rest);
        match rest.next()? {
            ',' => {}
            char if char == end => return Some(found),
            _ => return None,
        }
    }
}

fn string(rest: &mut Rest<'_>) -> Option<String> {
    rest.next_if_eq(&'"')?;
    let mut out = String::new();
    loop {
        match rest.next()? {
            '"' => return Some(out),
            '\\' => out.push(match rest.next()? {
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => unicode(rest)?,
                plain @ ('"' | '\\' | '/') => plain,
                _ => return None,
            }),
            control if control < ' ' => return None,
            other => out.push(other),
        }
    }
}

/// A code point, which may be spread over two escapes.
fn unicode(rest: &mut Rest<'_>) -> Option<char> {
    let mut four = || {
        let digits: Option<String> = (0..4)
            .map(|_| rest.next_if(char::is_ascii_hexdigit))
            .collect();
        u32::from_str_radix(&digits?, 16).ok()
    };
    let high = four()?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high);
    }
    rest.next_if_eq(&'\\')?;
    rest.next_if_eq(&'u')?;
    let digits: Option<String> = (0..4)
        .map(|_| rest.next_if(char::is_ascii_hexdigit))
        .collect();
    let low = u32::from_str_radix(&digits?, 16).ok()?;
    let low = (0xdc00..0xe000).contains(&low).then(|| low - 0xdc00)?;
    char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + low)
}

/// JSON's numbers: no sign but a minus, no leading zero, digits on both sides of a point.
fn parse_number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let whole = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(whole);
    let fraction = rest.strip_prefix('.');
    let right = !whole.is_empty()
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if !right {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Kind::NullValue(0)),
            any::<bool>().prop_map(Kind::BoolValue),
            (-1e9..1e9).prop_map(Kind::NumberValue),
            any::<i32>().prop_map(|number| Kind::NumberValue(number.into())),
            ".{0,6}".prop_map(Kind::StringValue),
        ];
        let leaf = leaf.prop_map(|kind| Value { kind: Some(kind) });
        leaf.prop_recursive(3, 16, 4, |inner| {
            let list = proptest::collection::vec(inner.clone(), 0..4);
            let object = proptest::collection::hash_map(".{0,3}", inner, 0..4);
            prop_oneof![
                list.prop_map(|values| Kind::ListValue(ListValue { values })),
                object.prop_map(|fields| Kind::StructValue(Struct { fields })),
            ]
            .prop_map(|kind| Value { kind: Some(kind) })
        })
    }

    #[test]
    fn what_is_equal_has_equal_text() {
        for (one, other) in [
            (
                r#" {"b" : 1.0, "a":[true , null]} "#,
                r#"{"a":[true,null],"b":1}"#,
            ),
            ("1e2", "100"),
            ("-0", "0"),
            (r#""\u0041\/\n\ud83d\ude00""#, "\"A/\\u000a😀\""),
        ] {
            assert_eq!(text(&value(one).unwrap()), other);
            assert_eq!(text(&value(other).unwrap()), other);
        }
    }

    #[test]
    fn what_is_no_json_is_nothing() {
        for wrong in [
            "",
            "v1",
            "'a'",
            "01",
            "+1",
            ".5",
            "1.",
            "NaN",
            "inf",
            "1e999",
            "[1,]",
            "[1",
            "{1:2}",
            r#"{"a"}"#,
            "\"",
            r#""\x""#,
            r#""\ud800""#,
            "1 2",
            "\"\n\"",
            "truefalse",
        ] {
            assert_eq!(value(wrong), None, "{wrong}");
        }
        let deep = "[".repeat(100_000);
        assert_eq!(value(&deep), None);
    }

    proptest! {
        #[test]
        fn every_value_survives(one in any_value()) {
            prop_assert_eq!(value(&text(&one)), Some(one));
        }

        #[test]
        fn text_that_is_read_is_json_to_others_too(one in any_value()) {
            let text = text(&one);
            #[cfg(feature = "json")]
            prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            prop_assert!(!text.is_empty());
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[\\[\\]{}\":,0-9eE.+\\-a-f\\\\u ]{0,40}") {
            let read = value(&text);
            #[cfg(feature = "json")]
            if read.is_some() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
            }
            drop(read);
        }
    }
}
