//! Protocol buffers, as far as two messages need them, written and read by hand: a policy crate knows
//! no wire format's library.

use bytes::{BufMut, Bytes, BytesMut};

/// A message being written.
#[derive(Debug, Default)]
pub(super) struct Writer(BytesMut);

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a fixed length; nothing that is read here has one.
    Fixed,
}

/// The fields of a message, in the order in which they are there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(&'a [u8]);

/// This is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

// === impl Writer ===

impl Writer {
    /// Text or bytes; left out where they are empty, as a default is.
    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.present(field, value);
        }
    }

    /// A number; left out where it is 0.
    pub(super) fn number(&mut self, field: u32, value: u64) {
        if value != 0 {
            self.varint(u64::from(field << 3));
            self.varint(value);
        }
    }

    /// A message, there even where nothing is in it.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        write(&mut inner);
        self.present(field, &inner.0);
    }

    /// An entry of a map from text to text.
    pub(super) fn entry(&mut self, field: u32, key: &[u8], value: &[u8]) {
        self.message(field, |entry| {
            entry.bytes(1, key);
            entry.bytes(2, value);
        });
    }

    /// The message in gRPC's frame.
    pub(super) fn framed(self) -> Bytes {
        let mut framed = BytesMut::with_capacity(self.0.len() + 5);
        framed.put_u8(0);
        framed.put_u32(u32::try_from(self.0.len()).unwrap_or(u32::MAX));
        framed.put(self.0);
        framed.freeze()
    }

    fn present(&mut self, field: u32, value: &[u8]) {
        self.varint(u64::from(field << 3 | 2));
        self.varint(value.len() as u64);
        self.0.put_slice(value);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.put_u8(value as u8);
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    pub(super) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }

    /// The one message of a gRPC answer.
    pub(super) fn framed(framed: &'a [u8]) -> Result<Self, Broken> {
        // Without compression: none was offered.
        let (frame, message) = framed.split_first_chunk::<5>().ok_or(Broken)?;
        let [0, length @ ..] = frame else {
            return Err(Broken);
        };
        match usize::try_from(u32::from_be_bytes(*length)) == Ok(message.len()) {
            true => Ok(Self(message)),
            false => Err(Broken),
        }
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Broken> {
        let key = self.varint()?;
        let field = u32::try_from(key >> 3).map_err(|_| Broken)?;
        let value = match key & 7 {
            _ if field == 0 => return Err(Broken),
            0 => Value::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Broken)?;
                Value::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed
            }
            _ => return Err(Broken),
        };
        Ok((field, value))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Broken)?;
        self.0 = rest;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Broken> {
        let mut value = 0;
        for at in 0..10 {
            let (first, rest) = self.0.split_first().ok_or(Broken)?;
            self.0 = rest;
            value |= u64::from(first & 0x7f) << (7 * at);
            if first & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Broken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

// === impl Value ===

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Broken> {
        match self {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(Broken),
        }
    }

    pub(super) fn text(self) -> Result<&'a str, Broken> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Broken)
    }

    pub(super) fn number(self) -> Result<u64, Broken> {
        match self {
            Value::Number(number) => Ok(number),
            _ => Err(Broken),
        }
    }

    pub(super) fn fields(self) -> Result<Fields<'a>, Broken> {
        self.bytes().map(Fields::of)
    }
}
