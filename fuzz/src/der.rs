//! Changes DER so that it stays DER: elements are dropped, doubled, moved and altered at any depth,
//! and the lengths around them are right afterwards. As [`wire`](crate::wire), which see.

use crate::wire::Dice;

/// The deepest level that is looked into.
const DEEPEST: usize = 24;

/// Elements in strings of octets and bits: X.509 puts keys and extensions there.
const BIT_STRING: u8 = 3;
const OCTET_STRING: u8 = 4;
const CONSTRUCTED: u8 = 0x20;

/// An element: its tag, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Element {
    tag: u8,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Bytes(Vec<u8>),
    /// Elements, behind the number of unused bits if this is a string of bits.
    Elements(Vec<Element>),
}

/// Changes elements, if there are any. `alter` changes the contents of one, which it may lengthen.
pub fn mutate(bytes: &[u8], seed: u32, alter: &mut dyn FnMut(&mut Vec<u8>)) -> Option<Vec<u8>> {
    let mut elements = parse(bytes, 0).filter(|elements| !elements.is_empty())?;
    let mut dice = Dice::new(seed);
    for _ in 0..=dice.below(3) {
        change(&mut elements, &mut dice, alter);
    }
    let mut out = Vec::with_capacity(bytes.len() + 64);
    write(&elements, &mut out);
    Some(out)
}

fn change(all: &mut Vec<Element>, dice: &mut Dice, alter: &mut dyn FnMut(&mut Vec<u8>)) {
    let donor = all.clone();
    let elements = descend(all, dice);
    if elements.is_empty() {
        elements.extend(borrowed(&donor, dice));
        return;
    }
    let at = dice.below(elements.len());
    match dice.below(9) {
        0 => drop(elements.remove(at)),
        1 => elements.insert(at, elements[at].clone()),
        2 => {
            let other = dice.below(elements.len());
            elements.swap(at, other);
        }
        // Something from elsewhere.
        3 => elements
            .splice(at..at, borrowed(&donor, dice))
            .for_each(drop),
        4 => elements
            .splice(at..=at, borrowed(&donor, dice))
            .for_each(drop),
        5 => elements[at].tag = dice.next() as u8,
        _ => match &mut elements[at].value {
            Value::Bytes(bytes) => alter(bytes),
            Value::Elements(inner) => match dice.below(3) {
                0 => inner.clear(),
                _ => inner.extend(borrowed(&donor, dice)),
            },
        },
    }
}

/// Goes down into elements within, at random.
fn descend<'a>(mut elements: &'a mut Vec<Element>, dice: &mut Dice) -> &'a mut Vec<Element> {
    loop {
        let holds = |element: &Element| matches!(element.value, Value::Elements(_));
        let inner: Vec<usize> = (0..elements.len())
            .filter(|at| holds(&elements[*at]))
            .collect();
        if inner.is_empty() || dice.below(5) == 0 {
            return elements;
        }
        let at = inner[dice.below(inner.len())];
        let Value::Elements(next) = &mut elements[at].value else {
            unreachable!("it was just looked at");
        };
        elements = next;
    }
}

/// An element from anywhere.
fn borrowed(mut elements: &[Element], dice: &mut Dice) -> Option<Element> {
    loop {
        if elements.is_empty() {
            return None;
        }
        let element = &elements[dice.below(elements.len())];
        match &element.value {
            Value::Elements(inner) if !inner.is_empty() && dice.below(3) > 0 => elements = inner,
            _ => return Some(element.clone()),
        }
    }
}

fn parse(mut bytes: &[u8], depth: usize) -> Option<Vec<Element>> {
    let mut elements = Vec::new();
    while let [tag, first, rest @ ..] = bytes {
        // Numbers of tags above 30 are not met.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (length, rest) = match first {
            0..=0x7f => (usize::from(*first), rest),
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = digits
                    .iter()
                    .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        let within = match (*tag, content) {
            (BIT_STRING, [0, within @ ..]) => Some(within),
            (OCTET_STRING, within) => Some(within),
            (tag, within) => (tag & CONSTRUCTED > 0).then_some(within),
        };
        let inner = within
            .filter(|within| depth < DEEPEST && !within.is_empty())
            .and_then(|within| parse(within, depth + 1));
        elements.push(Element {
            tag: *tag,
            value: inner.map_or_else(|| Value::Bytes(content.to_vec()), Value::Elements),
        });
    }
    bytes.is_empty().then_some(elements)
}

fn write(elements: &[Element], out: &mut Vec<u8>) {
    for element in elements {
        let mut content = Vec::new();
        match &element.value {
            Value::Bytes(bytes) => content.extend_from_slice(bytes),
            Value::Elements(inner) => {
                if element.tag == BIT_STRING {
                    content.push(0);
                }
                write(inner, &mut content);
            }
        }
        out.push(element.tag);
        let digits = (content.len() as u32).to_be_bytes();
        match digits {
            [0, 0, 0, length @ ..=0x7f] => out.push(length),
            _ => {
                let zeros = digits.iter().take_while(|digit| **digit == 0).count();
                out.push(0x80 | (digits.len() - zeros) as u8);
                out.extend_from_slice(&digits[zeros..]);
            }
        }
        out.append(&mut content);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `SEQUENCE { INTEGER 5, OCTET STRING { SEQUENCE { BOOLEAN } }, BIT STRING { NULL } }`.
    const SAMPLE: [u8; 17] = [0x30, 15, 2, 1, 5, 4, 5, 0x30, 3, 1, 1, 0xff, 3, 3, 0, 5, 0];

    #[test]
    fn what_is_read_is_written_as_it_was() {
        let elements = parse(&SAMPLE, 0).unwrap();
        assert!(format!("{elements:?}").matches("Elements").count() == 4);
        let mut out = Vec::new();
        write(&elements, &mut out);
        assert_eq!(out, SAMPLE);
        for length in [127_usize, 128, 255, 256, 70_000] {
            let digits = &(length as u32).to_be_bytes()[1..];
            let long = [&[4, 0x83][..], digits, &vec![0xff; length]].concat();
            let elements = parse(&long, 0).unwrap();
            out.clear();
            write(&elements, &mut out);
            assert_eq!(parse(&out, 0).unwrap(), elements);
        }
    }

    #[test]
    fn what_comes_out_is_der_and_mostly_other() {
        let mut other = 0;
        for seed in 0..500 {
            let mut alter = |bytes: &mut Vec<u8>| bytes.extend_from_slice(&[b'x'; 200]);
            let out = mutate(&SAMPLE, seed, &mut alter).unwrap();
            other += usize::from(out != SAMPLE);
        }
        assert!(other > 400, "{other}");
    }

    #[test]
    fn what_is_no_der_is_left_to_others() {
        assert_eq!(mutate(&[0xff; 20], 1, &mut |_| {}), None);
        assert_eq!(mutate(&[], 1, &mut |_| {}), None);
    }
}
