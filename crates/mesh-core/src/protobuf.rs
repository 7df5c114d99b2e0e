//! As much of protobuf's wire format as values of headers need: the fields of one message, one after
//! the other (<https://protobuf.dev/programming-guides/encoding/>).
//!
//! What is here knows no schema. Whoever reads takes the fields that it knows with the types that
//! they have, and passes over the rest, as protobuf does.
//!
//! ```
//! use mesh_core::protobuf::{Fields, Value};
//!
//! // Field 1 is a text, field 2 a number.
//! let mut fields = Fields::new(b"\x0a\x02hi\x10\x2a");
//! assert_eq!(fields.next(), Some(Some((1, Value::Bytes(b"hi")))));
//! assert_eq!(fields.next(), Some(Some((2, Value::Number(42)))));
//! assert_eq!(fields.next(), None);
//! // It breaks off.
//! assert_eq!(Fields::new(b"\x0a\x05hi").next(), Some(None));
//! ```

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// A number of variable length: integers and booleans.
    Number(u64),
    /// Eight bytes: a `double`, a `fixed64`.
    Eight([u8; 8]),
    /// Bytes, a text, or a message.
    Bytes(&'a [u8]),
    /// Four bytes: a `float`, a `fixed32`.
    Four([u8; 4]),
    /// A group, which was passed over.
    Group,
}

/// The fields of a message in the order in which they are written. Once something is malformed there
/// is a `None` among them, and nothing after it.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(&'a [u8]);

/// Groups in groups, at most (protobuf's own limit for messages).
const DEEPEST: u32 = 100;

/// The end of a group.
const END: u64 = 4;

// === impl Fields ===

impl<'a> Fields<'a> {
    /// The fields of the message that these bytes are.
    pub fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn field(&mut self, depth: u32) -> Option<(u64, Value<'a>)> {
        let (number, kind) = self.tag()?;
        Some((number, self.value(number, kind, depth)?))
    }

    fn tag(&mut self) -> Option<(u64, u64)> {
        let tag = self.varint()?;
        let number = tag >> 3;
        // Tags have 32 bits, and no field has the number 0.
        (number != 0 && tag <= u64::from(u32::MAX)).then_some((number, tag & 7))
    }

    fn value(&mut self, number: u64, kind: u64, depth: u32) -> Option<Value<'a>> {
        Some(match kind {
            0 => Value::Number(self.varint()?),
            1 => Value::Eight(*self.take(8)?.first_chunk()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            3 if depth < DEEPEST => {
                self.pass_group(number, depth)?;
                Value::Group
            }
            5 => Value::Four(*self.take(4)?.first_chunk()?),
            _ => return None,
        })
    }

    /// Everything up to the end of the group.
    fn pass_group(&mut self, of: u64, depth: u32) -> Option<()> {
        loop {
            let (number, kind) = self.tag()?;
            if kind == END {
                return (number == of).then_some(());
            }
            self.value(number, kind, depth + 1)?;
        }
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            // Of the tenth byte only the lowest bit counts.
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field(0);
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// Adds a field with bytes, a text or a message.
pub fn put_bytes(field: u64, content: &[u8], out: &mut Vec<u8>) {
    put_varint(field << 3 | 2, out);
    put_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

/// Adds a field with a number.
pub fn put_number(field: u64, number: u64, out: &mut Vec<u8>) {
    put_varint(field << 3, out);
    put_varint(number, out);
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        // The low seven bits, and that more follow.
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(message: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
        Fields::new(message).collect()
    }

    #[test]
    fn every_type_is_read() {
        let message =
            b"\x08\x96\x01\x11\x01\x02\x03\x04\x05\x06\x07\x08\x1a\x01a\x25\x01\x02\x03\x04";
        let expected = vec![
            (1, Value::Number(150)),
            (2, Value::Eight([1, 2, 3, 4, 5, 6, 7, 8])),
            (3, Value::Bytes(b"a")),
            (4, Value::Four([1, 2, 3, 4])),
        ];
        assert_eq!(read(message), Some(expected));
    }

    #[test]
    fn groups_are_passed_over_with_what_is_in_them() {
        // Field 15 begins, field 1 in it, field 2 begins and ends in it, field 15 ends; field 1.
        let message = b"\x7b\x08\x05\x13\x14\x7c\x08\x01";
        let expected = vec![(15, Value::Group), (1, Value::Number(1))];
        assert_eq!(read(message), Some(expected));
        for wrong in [&b"\x7b"[..], b"\x7b\x14", b"\x7c", &[0x0b; 1000]] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_malformed_ends_the_message() {
        for wrong in [
            &b"\x00\x00"[..],
            b"\x08",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x09\x01",
            b"\x0a\x02a",
            b"\x0d\x01",
            b"\x0e",
        ] {
            let mut fields = Fields::new(wrong);
            assert_eq!(fields.next(), Some(None), "{wrong:?}");
            assert_eq!(fields.next(), None);
        }
    }

    proptest! {
        #[test]
        fn what_is_put_is_read(number in any::<u64>(), field in 1..1000_u64, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            put_number(field, number, &mut out);
            put_bytes(field, &bytes, &mut out);
            prop_assert_eq!(read(&out), Some(vec![(field, Value::Number(number)), (field, Value::Bytes(&bytes))]));
        }

        #[test]
        fn nothing_panics_and_everything_ends(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Fields::new(&bytes).count() <= bytes.len());
        }
    }
}
