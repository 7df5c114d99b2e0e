//! Base64 (RFC 4648 §4), encoding only: for credentials to compare and bytes that are no text.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let (second, third) = (group.get(1), group.get(2));
        let bits = u32::from(group[0]) << 16
            | u32::from(*second.unwrap_or(&0)) << 8
            | u32::from(*third.unwrap_or(&0));
        out.push(digit(bits >> 18));
        out.push(digit(bits >> 12));
        out.push(second.map_or('=', |_| digit(bits >> 6)));
        out.push(third.map_or('=', |_| digit(bits)));
    }
    out
}

fn digit(bits: u32) -> char {
    char::from(ALPHABET[(bits & 63) as usize])
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn encodes_the_test_vectors_of_rfc_4648() {
        for (plain, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(plain.as_bytes()), encoded);
        }
    }
}
