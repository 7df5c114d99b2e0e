//! Scalars by the rules of proto-JSON, as the Kubernetes API applies them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::Cursor;
use crate::spec::Spanned;
use crate::yaml::{Sort, Value};

impl Cursor<'_> {
    /// Text. A plain number or boolean is refused as the API server refuses it:
    /// `version: 1.10` would otherwise quietly become the label `1.1`.
    pub(crate) fn string(&self) -> Option<String> {
        match &self.node.value {
            Value::Scalar(scalar) if scalar.sort() == Sort::Text => Some(scalar.text.to_string()),
            Value::Scalar(scalar) if scalar.sort() != Sort::Null => {
                let found = self.node.describe();
                self.error(format!(
                    "expected text, found {found}; quote it: {:?}",
                    scalar.text
                ));
                None
            }
            _ => self.expected("text"),
        }
    }

    /// Text that must not be empty.
    pub(crate) fn filled(&self) -> Option<String> {
        let text = self.string()?;
        if text.is_empty() {
            self.error("must not be empty");
            return None;
        }
        Some(text)
    }

    /// A value together with its place.
    pub(crate) fn spanned<T>(&self, read: impl FnOnce(&Self) -> Option<T>) -> Option<Spanned<T>> {
        Some(Spanned {
            value: read(self)?,
            at: self.at(),
        })
    }

    pub(crate) fn bool(&self) -> Option<bool> {
        match &self.node.value {
            Value::Scalar(scalar) => match scalar.sort() {
                Sort::Bool(value) => Some(value),
                _ => self.expected("true or false"),
            },
            _ => self.expected("true or false"),
        }
    }

    /// A whole number; proto-JSON also takes it as text.
    pub(crate) fn integer(&self, least: i64, most: i64) -> Option<i64> {
        let Value::Scalar(scalar) = &self.node.value else {
            return self.expected("a whole number");
        };
        let Ok(number) = scalar.text.parse::<i64>() else {
            return self.expected("a whole number");
        };
        if !(least..=most).contains(&number) {
            self.error(format!("{number} is not between {least} and {most}"));
            return None;
        }
        Some(number)
    }

    pub(crate) fn u32(&self) -> Option<u32> {
        u32::try_from(self.integer(0, i64::from(u32::MAX))?).ok()
    }

    /// An `int32` that may not be negative.
    pub(crate) fn count(&self) -> Option<u32> {
        u32::try_from(self.integer(0, i64::from(i32::MAX))?).ok()
    }

    /// A port from 1 to 65535.
    pub(crate) fn port(&self) -> Option<u16> {
        u16::try_from(self.integer(1, 65_535)?).ok()
    }

    /// An HTTP status from 200 to 599.
    pub(crate) fn status(&self) -> Option<u16> {
        u16::try_from(self.integer(200, 599)?).ok()
    }

    pub(crate) fn double(&self) -> Option<f64> {
        let Value::Scalar(scalar) = &self.node.value else {
            return self.expected("a number");
        };
        match scalar.text.parse::<f64>() {
            Ok(number) if number.is_finite() => Some(number),
            _ => self.expected("a number"),
        }
    }

    /// A duration such as `1.5s`, `100ms` or `1m30s`.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let text = match &self.node.value {
            Value::Scalar(scalar) if scalar.sort() != Sort::Null => &scalar.text,
            _ => return self.expected("a duration such as \"1.5s\""),
        };
        let parsed = parse_duration(text);
        if parsed.is_none() {
            self.error(format!(
                "{text:?} is not a duration; expected something like \"1.5s\""
            ));
        }
        parsed
    }

    /// A duration of at least a millisecond.
    pub(crate) fn positive_duration(&self) -> Option<Duration> {
        let duration = self.duration()?;
        if duration < Duration::from_millis(1) {
            self.error("must be at least 1ms");
            return None;
        }
        Some(duration)
    }

    /// One of several names.
    pub(crate) fn choice<T: Copy>(&self, names: &[(&str, T)]) -> Option<T> {
        let text = self.string()?;
        let found = names
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            self.error(format!("{text:?} is not one of {}", names.join(", ")));
        }
        found
    }

    /// A map from text to text, as labels are.
    pub(crate) fn string_map(&self) -> Option<BTreeMap<String, String>> {
        let entries =
            self.entries(|key, value| value.string().map(|value| (key.to_owned(), value)))?;
        Some(entries.into_iter().collect())
    }

    /// An IP address.
    pub(crate) fn ip(&self) -> Option<IpAddr> {
        let text = self.string()?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.error(format!("{text:?} is not an IP address"));
        }
        parsed
    }

    /// Bytes in standard base64.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        let decoded = decode_base64(&self.string()?);
        if decoded.is_none() {
            self.error("not base64");
        }
        decoded
    }
}

/// Go's duration grammar, without a sign: `1h30m`, `1.5s`, `250ms`.
fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let unit: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u128 = if whole.is_empty() {
            0
        } else {
            whole.parse().ok()?
        };
        nanos = nanos.checked_add(whole.checked_mul(unit)?)?;
        let mut place = unit;
        for digit in fraction.chars() {
            place /= 10;
            nanos = nanos.checked_add(u128::from(digit.to_digit(10)?) * place)?;
        }
        rest = tail;
    }
    // proto's Duration ends at 10,000 years; a century is more than any timer needs.
    let limit = Duration::from_secs(100 * 366 * 86_400);
    let nanos = (!text.is_empty() && nanos <= limit.as_nanos()).then_some(nanos)?;
    Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
}

pub(crate) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut have) = (0u32, 0u32);
    for byte in text.bytes() {
        // Both alphabets, as proto-JSON demands of a reader.
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(digit);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push(u8::try_from((bits >> have) & 0xff).ok()?);
        }
    }
    (have < 6).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, millis) in [
            ("1s", 1_000),
            ("1.5s", 1_500),
            ("0.25s", 250),
            (".5s", 500),
            ("100ms", 100),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("0s", 0),
            ("0", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        assert_eq!(
            parse_duration("1.000000001s"),
            Some(Duration::from_nanos(1_000_000_001))
        );
        for text in [
            "",
            "1",
            "s",
            ".s",
            "-1s",
            "1 s",
            "1d",
            "1s2",
            "1..5s",
            "99999999999999h",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn decodes_base64() {
        assert_eq!(decode_base64("aGVsbG8=").as_deref(), Some(&b"hello"[..]));
        assert_eq!(decode_base64("aGVsbG8").as_deref(), Some(&b"hello"[..]));
        assert_eq!(decode_base64("").as_deref(), Some(&b""[..]));
        assert_eq!(decode_base64("a"), None);
        assert_eq!(decode_base64("a b="), None);
    }
}
