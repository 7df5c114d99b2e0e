//! Changes encoded messages so that they stay messages: fields are dropped, doubled, moved and
//! altered at any depth, and the lengths around them are right afterwards.
//!
//! libFuzzer alone changes bytes, and hardly any change of a length or inside of one survives.
//! Nothing is known of types here: a field that reads as a message is taken for one.

/// The deepest level that is looked into.
const DEEPEST: usize = 24;

/// A field: its number, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Field {
    number: u32,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(Vec<u8>),
    Message(Vec<Field>),
}

/// A source of numbers.
#[derive(Debug)]
pub(crate) struct Dice(u64);

/// Changes a message, if it is one. `alter` changes the contents of a field, which it may lengthen.
pub fn mutate(bytes: &[u8], seed: u32, alter: &mut dyn FnMut(&mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut fields = parse(bytes, 0).filter(|fields| !fields.is_empty())?;
    let mut dice = Dice::new(seed);
    for _ in 0..=dice.below(3) {
        change(&mut fields, &mut dice, alter);
    }
    let mut out = Vec::with_capacity(bytes.len() + 64);
    write(&fields, &mut out);
    Some(out)
}

fn change(all: &mut Vec<Field>, dice: &mut Dice, alter: &mut dyn FnMut(&mut Vec<u8>)) {
    let donor = all.clone();
    let fields = descend(all, dice);
    if fields.is_empty() {
        fields.push(borrowed(&donor, dice));
        return;
    }
    let at = dice.below(fields.len());
    match dice.below(8) {
        0 => drop(fields.remove(at)),
        1 => {
            let copy = fields[at].clone();
            fields.insert(at, copy);
        }
        2 => {
            let other = dice.below(fields.len());
            fields.swap(at, other);
        }
        // Something from elsewhere in the message.
        3 => fields[at].value = borrowed(&donor, dice).value,
        4 => fields.insert(at, borrowed(&donor, dice)),
        5 => fields[at].number = 1 + dice.below(60) as u32,
        _ => match &mut fields[at].value {
            Value::Varint(number) => *number = dice.number(*number),
            Value::Fixed64(bytes) => *bytes = dice.next().to_le_bytes(),
            Value::Fixed32(bytes) => *bytes = (dice.next() as u32).to_le_bytes(),
            Value::Bytes(bytes) => alter(bytes),
            Value::Message(inner) => match dice.below(3) {
                0 => inner.clear(),
                _ => inner.push(borrowed(&donor, dice)),
            },
        },
    }
}

/// Goes down into messages within, at random.
fn descend<'a>(mut fields: &'a mut Vec<Field>, dice: &mut Dice) -> &'a mut Vec<Field> {
    loop {
        let is_message = |field: &Field| matches!(field.value, Value::Message(_));
        let inner: Vec<usize> = (0..fields.len())
            .filter(|at| is_message(&fields[*at]))
            .collect();
        if inner.is_empty() || dice.below(4) == 0 {
            return fields;
        }
        let at = inner[dice.below(inner.len())];
        let Value::Message(next) = &mut fields[at].value else {
            unreachable!("it was just looked at");
        };
        fields = next;
    }
}

/// A field from anywhere, or an empty one if there is none.
fn borrowed(mut fields: &[Field], dice: &mut Dice) -> Field {
    loop {
        if fields.is_empty() {
            let value = Value::Message(Vec::new());
            return Field { number: 1, value };
        }
        let field = &fields[dice.below(fields.len())];
        match &field.value {
            Value::Message(inner) if !inner.is_empty() && dice.below(3) > 0 => fields = inner,
            _ => return field.clone(),
        }
    }
}

fn parse(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let number = u32::try_from(key >> 3)
            .ok()
            .filter(|number| (1..1 << 29).contains(number))?;
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => Value::Fixed64(take(&mut bytes, 8)?.try_into().ok()?),
            5 => Value::Fixed32(take(&mut bytes, 4)?.try_into().ok()?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let inner = take(&mut bytes, length)?;
                let message = (depth < DEEPEST && !inner.is_empty())
                    .then(|| parse(inner, depth + 1))
                    .flatten();
                message.map_or_else(|| Value::Bytes(inner.to_vec()), Value::Message)
            }
            _ => return None,
        };
        fields.push(Field { number, value });
    }
    Some(fields)
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(head)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let [byte] = take(bytes, 1)?.try_into().ok()?;
        let byte: u8 = byte;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn write(fields: &[Field], out: &mut Vec<u8>) {
    for field in fields {
        let key = |kind: u64| u64::from(field.number) << 3 | kind;
        match &field.value {
            Value::Varint(number) => {
                put(key(0), out);
                put(*number, out);
            }
            Value::Fixed64(bytes) => {
                put(key(1), out);
                out.extend_from_slice(bytes);
            }
            Value::Fixed32(bytes) => {
                put(key(5), out);
                out.extend_from_slice(bytes);
            }
            Value::Bytes(bytes) => {
                put(key(2), out);
                put(bytes.len() as u64, out);
                out.extend_from_slice(bytes);
            }
            Value::Message(inner) => {
                let mut bytes = Vec::new();
                write(inner, &mut bytes);
                put(key(2), out);
                put(bytes.len() as u64, out);
                out.append(&mut bytes);
            }
        }
    }
}

fn put(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

// === impl Dice ===

impl Dice {
    pub(crate) fn new(seed: u32) -> Self {
        Self(u64::from(seed) | 1 << 40)
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below `most`, which is not 0.
    pub(crate) fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }

    /// A number near this one, or near a border.
    fn number(&mut self, old: u64) -> u64 {
        match self.below(8) {
            0 => old.wrapping_add(1),
            1 => old.wrapping_sub(1),
            2 => 0,
            3 => 1,
            4 => u64::MAX,
            5 => 1 << self.below(64),
            6 => self.next() >> self.below(64),
            _ => u64::from(self.next() as u8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1: 150`, and in field 2 a message with a text.
    const SAMPLE: [u8; 13] = [8, 150, 1, 18, 8, 10, 6, b'a', b'b', b'c', 0xff, 0xff, b'f'];

    #[test]
    fn what_is_read_is_written_as_it_was() {
        let fields = parse(&SAMPLE, 0).unwrap();
        assert!(matches!(fields[1].value, Value::Message(_)));
        let mut out = Vec::new();
        write(&fields, &mut out);
        assert_eq!(out, SAMPLE);
    }

    #[test]
    fn what_comes_out_is_a_message_and_mostly_another_one() {
        let mut other = 0;
        for seed in 0..500 {
            let mut alter = |bytes: &mut Vec<u8>| bytes.extend_from_slice(&[b'x'; 200]);
            let out = mutate(&SAMPLE, seed, &mut alter).unwrap();
            assert!(parse(&out, 0).is_some());
            other += usize::from(out != SAMPLE);
        }
        assert!(other > 400, "{other}");
    }

    #[test]
    fn what_is_no_message_is_left_to_others() {
        assert_eq!(mutate(&[0xff; 20], 1, &mut |_| {}), None);
        assert_eq!(mutate(&[], 1, &mut |_| {}), None);
    }
}
