//! Base64url, read as leniently as Envoy does (`absl::WebSafeBase64Unescape`).

/// What stands for nothing.
const NONE: u8 = 0xff;

const fn values() -> [u8; 256] {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut values = [NONE; 256];
    let mut at = 0;
    while at < alphabet.len() {
        #[allow(clippy::cast_possible_truncation, reason = "there are 64")]
        {
            values[alphabet[at] as usize] = at as u8;
        }
        at += 1;
    }
    values
}

const VALUES: [u8; 256] = values();

/// The bytes that a text stands for. White space is passed over, padding may be there or not, and
/// bits that are left over may be anything. None if it is not Base64url.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut held, mut bits) = (0_u32, 0_u32);
    let (mut digits, mut padding) = (0_usize, 0_usize);
    for &byte in text {
        if byte.is_ascii_whitespace() || byte == 0x0b {
            continue;
        }
        if byte == b'=' {
            padding += 1;
            continue;
        }
        let value = VALUES[usize::from(byte)];
        if value == NONE || padding > 0 {
            return None;
        }
        digits += 1;
        held = held << 6 | u32::from(value);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits & 0xff).to_le_bytes()[0]);
        }
    }
    let missing = match digits % 4 {
        0 => 0,
        2 => 2,
        3 => 1,
        _ => return None,
    };
    (padding == 0 || padding == missing).then_some(out)
}

/// Base64 with the usual alphabet and padding.
pub(super) fn encode(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let all = at(0) << 16 | at(1) << 8 | at(2);
        for n in 0..4_usize {
            let digit = (all >> (18 - 6 * n)) & 0x3f;
            match n <= chunk.len() {
                true => out.push(char::from(ALPHABET[digit as usize])),
                false => out.push('='),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_envoy_reads() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("Zg", Some(b"f")),
            ("Zg==", Some(b"f")),
            ("Zh", Some(b"f")),
            ("Z g\n", Some(b"f")),
            ("Zm8", Some(b"fo")),
            ("Zm9v", Some(b"foo")),
            ("-_-_", Some(&[0xfb, 0xff, 0xbf])),
            ("Zg=", None),
            ("Zg===", None),
            ("Z", None),
            ("Zg==Zg==", None),
            ("+/+/", None),
            ("Zm9v!", None),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), bytes, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_was_written_is_read(bytes: Vec<u8>) {
            let text = encode(&bytes).replace('+', "-").replace('/', "_");
            proptest::prop_assert_eq!(decode(text.as_bytes()), Some(bytes));
        }
    }
}
