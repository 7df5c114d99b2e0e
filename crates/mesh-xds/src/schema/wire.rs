//! The protobuf wire format: one level of an encoded message at a time.

use super::MAX_DEPTH;

/// The fields of an encoded message in the order in which they stand there.
#[derive(Clone, Debug)]
pub(crate) struct Entries<'a> {
    rest: &'a [u8],
}

/// One occurrence of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
    /// All of its bytes: key, length and contents.
    pub(crate) whole: &'a [u8],
}

/// What an occurrence holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    /// Strings, bytes, messages and packed lists.
    Bytes(&'a [u8]),
    /// Left over from proto2; no message here has one.
    Group,
}

/// The bytes are not protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

// === impl Entries ===

impl<'a> Entries<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn read(&mut self) -> Result<Entry<'a>, Malformed> {
        let start = self.rest;
        let (number, wire) = self.key()?;
        let value = match wire {
            3 => {
                self.skip_group(number)?;
                Value::Group
            }
            4 => return Err(Malformed),
            wire => self.value(wire)?,
        };
        Ok(Entry {
            number,
            value,
            whole: &start[..start.len() - self.rest.len()],
        })
    }

    fn key(&mut self) -> Result<(u32, u8), Malformed> {
        let key = u32::try_from(varint(&mut self.rest)?).map_err(|_| Malformed)?;
        match (key >> 3, (key & 7) as u8) {
            (0, _) => Err(Malformed),
            key => Ok(key),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes a value of this wire type off the front.
    pub(crate) fn value(&mut self, wire: u8) -> Result<Value<'a>, Malformed> {
        let rest = &mut self.rest;
        match wire {
            0 => Ok(Value::Varint(varint(rest)?)),
            1 => {
                let (bytes, after) = rest.split_first_chunk().ok_or(Malformed)?;
                *rest = after;
                Ok(Value::Fixed64(u64::from_le_bytes(*bytes)))
            }
            2 => {
                let length = usize::try_from(varint(rest)?).map_err(|_| Malformed)?;
                let (bytes, after) = rest.split_at_checked(length).ok_or(Malformed)?;
                *rest = after;
                Ok(Value::Bytes(bytes))
            }
            5 => {
                let (bytes, after) = rest.split_first_chunk().ok_or(Malformed)?;
                *rest = after;
                Ok(Value::Fixed32(u32::from_le_bytes(*bytes)))
            }
            _ => Err(Malformed),
        }
    }

    fn skip_group(&mut self, number: u32) -> Result<(), Malformed> {
        let mut open = vec![number];
        while let Some(innermost) = open.last() {
            match self.key()? {
                (number, 3) if open.len() < MAX_DEPTH => open.push(number),
                (number, 4) if number == *innermost => {
                    open.pop();
                }
                (_, 3 | 4) => return Err(Malformed),
                (_, wire) => {
                    self.value(wire)?;
                }
            }
        }
        Ok(())
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.read();
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}

// === impl Value ===

impl<'a> Value<'a> {
    /// The contents of a string, of bytes or of a message.
    pub(crate) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Takes a varint off the front.
pub(crate) fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for (index, byte) in rest.iter().enumerate().take(10) {
        // The tenth byte has place for one bit.
        if index == 9 && *byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(Malformed)
}

/// The number that a `sint32` or `sint64` stands for.
pub(crate) fn zigzag(encoded: u64) -> i64 {
    (encoded >> 1).cast_signed() ^ -(encoded & 1).cast_signed()
}

/// The value of an `Any` taken apart: URL and contents.
pub(crate) fn url_and_value(bytes: &[u8]) -> Result<(&str, &[u8]), Malformed> {
    let (mut url, mut value) = (&[][..], &[][..]);
    for entry in Entries::of(bytes) {
        match entry? {
            Entry {
                number: 1,
                value: Value::Bytes(bytes),
                ..
            } => url = bytes,
            Entry {
                number: 2,
                value: Value::Bytes(bytes),
                ..
            } => value = bytes,
            _ => {}
        }
    }
    let url = std::str::from_utf8(url).map_err(|_| Malformed)?;
    Ok((url, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
        Entries::of(bytes)
            .map(|entry| entry.map(|entry| (entry.number, entry.value)))
            .collect()
    }

    #[test]
    fn each_wire_type_is_read() {
        let bytes =
            b"\x08\x96\x01\x12\x02ab\x1d\x01\x00\x00\x00\x21\x02\x00\x00\x00\x00\x00\x00\x00";
        let expected = vec![
            (1, Value::Varint(150)),
            (2, Value::Bytes(b"ab")),
            (3, Value::Fixed32(1)),
            (4, Value::Fixed64(2)),
        ];
        assert_eq!(all(bytes), Ok(expected));
    }

    #[test]
    fn a_group_is_one_entry_with_all_that_it_holds() {
        // Group 1 with a varint and a group 2 in it, then field 3.
        let bytes = b"\x0b\x08\x01\x13\x14\x0c\x18\x05";
        assert_eq!(
            all(bytes),
            Ok(vec![(1, Value::Group), (3, Value::Varint(5))])
        );
        assert_eq!(all(b"\x0b\x14"), Err(Malformed), "another group's end");
        assert_eq!(all(b"\x0c"), Err(Malformed), "an end without a start");
        assert_eq!(all(&[0x0b; 300]), Err(Malformed), "too deep");
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_malformed() {
        for bytes in [
            &b"\x08"[..],
            b"\x08\x80",
            b"\x12\x03ab",
            b"\x1d\x01",
            b"\x00\x01",
            b"\x0e",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
        ] {
            assert_eq!(all(bytes), Err(Malformed), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn the_entries_of_any_bytes_are_the_bytes(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            if let Ok(entries) = Entries::of(&bytes).collect::<Result<Vec<_>, _>>() {
                let joined = entries.iter().map(|entry| entry.whole).collect::<Vec<_>>().concat();
                prop_assert_eq!(joined, bytes);
            }
        }
    }
}
