//! As much of protobuf's wire format as a `google.protobuf.Struct` of strings needs.
//!
//! A `Struct` is a map from strings to `Value`s: field 1, repeated, each an entry with key 1 and
//! value 2. A `Value` is one of several; field 3 is a string and field 5 a `Struct`
//! (<https://protobuf.dev/programming-guides/encoding/>).

/// Fields of the messages concerned.
const STRUCT_FIELDS: u64 = 1;
const ENTRY_KEY: u64 = 1;
const ENTRY_VALUE: u64 = 2;
const VALUE_STRING: u64 = 3;
const VALUE_STRUCT: u64 = 5;

/// The wire type of strings and messages.
const DELIMITED: u64 = 2;

/// A value in a `Struct`, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Text(&'a str),
    /// A nested `Struct`, not read yet. Whoever reads decides how deep to go.
    Struct(&'a [u8]),
    Other,
}

/// The fields of a `Struct`, in the order in which they are written. `None` once something is
/// malformed.
#[derive(Debug)]
pub(super) struct Fields<'a>(Reader<'a>);

#[derive(Clone, Copy, Debug)]
struct Reader<'a>(&'a [u8]);

/// Adds a string to a `Struct`.
pub(super) fn put_string(key: &str, text: &str, out: &mut Vec<u8>) {
    put_field(key, VALUE_STRING, text.as_bytes(), out);
}

/// Adds a `Struct` to a `Struct`.
pub(super) fn put_struct(key: &str, fields: &[u8], out: &mut Vec<u8>) {
    put_field(key, VALUE_STRUCT, fields, out);
}

fn put_field(key: &str, kind: u64, content: &[u8], out: &mut Vec<u8>) {
    let mut value = Vec::with_capacity(content.len() + 4);
    put(kind, content, &mut value);
    let mut entry = Vec::with_capacity(key.len() + value.len() + 8);
    put(ENTRY_KEY, key.as_bytes(), &mut entry);
    put(ENTRY_VALUE, &value, &mut entry);
    put(STRUCT_FIELDS, &entry, out);
}

fn put(field: u64, content: &[u8], out: &mut Vec<u8>) {
    put_varint(field << 3 | DELIMITED, out);
    put_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

fn put_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        // The low seven bits, and that more follow.
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(Reader(bytes))
    }

    fn read(&mut self) -> Option<(&'a str, Value<'a>)> {
        loop {
            let (field, content) = self.0.field()?;
            if let (STRUCT_FIELDS, Some(entry)) = (field, content) {
                return read_entry(Reader(entry));
            }
            if self.0.0.is_empty() {
                // Trailing fields that a Struct does not have.
                return Some(("", Value::Other));
            }
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(&'a str, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.0.is_empty() {
            return None;
        }
        let read = self.read();
        if read.is_none() {
            self.0.0 = &[];
        }
        Some(read)
    }
}

fn read_entry<'a>(mut entry: Reader<'a>) -> Option<(&'a str, Value<'a>)> {
    let (mut key, mut value) = ("", Value::Other);
    while !entry.0.is_empty() {
        match entry.field()? {
            (ENTRY_KEY, Some(text)) => key = std::str::from_utf8(text).ok()?,
            (ENTRY_VALUE, Some(bytes)) => value = read_value(Reader(bytes))?,
            _ => {}
        }
    }
    Some((key, value))
}

fn read_value(mut bytes: Reader<'_>) -> Option<Value<'_>> {
    let mut value = Value::Other;
    while !bytes.0.is_empty() {
        value = match bytes.field()? {
            (VALUE_STRING, Some(text)) => Value::Text(std::str::from_utf8(text).ok()?),
            (VALUE_STRUCT, Some(fields)) => Value::Struct(fields),
            _ => Value::Other,
        };
    }
    Some(value)
}

// === impl Reader ===

impl<'a> Reader<'a> {
    /// The next field, with its content if that is a string or message.
    fn field(&mut self) -> Option<(u64, Option<&'a [u8]>)> {
        let tag = self.varint()?;
        let content = match tag & 7 {
            0 => {
                self.varint()?;
                None
            }
            1 => {
                self.take(8)?;
                None
            }
            DELIMITED => {
                let length = usize::try_from(self.varint()?).ok()?;
                Some(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                None
            }
            // Groups are long gone from protobuf.
            _ => return None,
        };
        Some((tag >> 3, content))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
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
