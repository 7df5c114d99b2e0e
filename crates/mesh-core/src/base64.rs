//! Base64 with the standard alphabet and padding (RFC 4648 §4).
//!
//! ```
//! use mesh_core::base64;
//!
//! assert_eq!(base64::encode(b"mesh"), "bWVzaA==");
//! assert_eq!(base64::decode(b"bWVzaA==").as_deref(), Some(&b"mesh"[..]));
//! assert_eq!(base64::decode(b"bWVzaA"), None);
//! assert_eq!(base64::decode_unpadded(b"bWVzaA").as_deref(), Some(&b"mesh"[..]));
//! ```

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes bytes as base64.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let word = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            // Of a chunk of n bytes only the first n + 1 characters say something.
            if place > chunk.len() {
                out.push('=');
            } else {
                let sextet = word >> (18 - 6 * place) & 63;
                out.push(char::from(ALPHABET[sextet as usize]));
            }
        }
    }
    out
}

/// Reads base64; none if it is malformed. Padding is required and bits that say nothing are zero,
/// so that each value has one spelling.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text
        .iter()
        .rev()
        .take(2)
        .take_while(|c| **c == b'=')
        .count();
    decode_unpadded(&text[..text.len() - padding])
}

/// Reads base64 whose padding was left out; none if it is malformed, or has some.
pub fn decode_unpadded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for chunk in text.chunks(4) {
        let mut word = 0;
        for place in 0..4 {
            word = word << 6 | chunk.get(place).map_or(Some(0), |c| sextet(*c))?;
        }
        let [_, bytes @ ..] = word.to_be_bytes();
        // Of one character alone nothing is said.
        let (said, unsaid) = bytes.split_at(chunk.len() - 1);
        if said.is_empty() {
            return None;
        }
        if unsaid.iter().any(|byte| *byte != 0) {
            return None;
        }
        out.extend_from_slice(said);
    }
    Some(out)
}

fn sextet(c: u8) -> Option<u32> {
    Some(u32::from(match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_test_vectors_of_rfc_4648_hold() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(plain.as_bytes()));
        }
    }

    #[test]
    fn what_is_malformed_is_nothing() {
        for text in [
            "Zg", "Zg=", "Zh==", "Z===", "====", "Zm9=", "Zg==Zg==", "Zm 9", "Zm-_",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decode(encode(&bytes).as_bytes()), Some(bytes));
        }
    }
}
