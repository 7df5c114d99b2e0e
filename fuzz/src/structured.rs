//! Inputs that are steps: as many as the bytes are good for.

use arbitrary::{Arbitrary, Unstructured};

/// The most steps that one input may have; more of the same shows nothing more.
const MOST: usize = 200;

/// The steps that these bytes stand for.
pub(crate) fn steps<'a, T: Arbitrary<'a>>(input: &mut Unstructured<'a>) -> Vec<T> {
    let mut steps = Vec::new();
    while steps.len() < MOST && !input.is_empty() {
        match input.arbitrary() {
            Ok(step) => steps.push(step),
            Err(_) => break,
        }
    }
    steps
}

/// A seed for steps: numbers as text, of which each line `START LENGTH` becomes so many bytes that
/// are spread evenly and always the same.
pub(crate) fn spread(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        let wrong = || format!("{line:?} is not two numbers");
        let (start, length) = line.split_once(' ').ok_or_else(wrong)?;
        let mut word: u64 = start.parse().map_err(|_| wrong())?;
        let length: usize = length.parse().map_err(|_| wrong())?;
        for _ in 0..length.min(4_096) {
            // Knuth's MMIX generator; its upper bits are the good ones.
            word = word
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            bytes.push((word >> 56) as u8);
        }
    }
    Ok(bytes)
}
