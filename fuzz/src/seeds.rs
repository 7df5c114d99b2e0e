//! Seeds of bytes, as one can read and write them.

/// Lines of hexadecimal digits, in which spaces mean nothing, of text in quotes, with `\\r`, `\\n`
/// and `\\0`, and of remarks that begin with `#`.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    for line in text.lines().map(str::trim) {
        let wrong = || format!("{line:?} is neither digits in pairs nor quoted text");
        if line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix('"') {
            let quoted = rest.strip_suffix('"').ok_or_else(wrong)?;
            let plain = quoted.replace("\\r", "\r").replace("\\n", "\n");
            out.extend_from_slice(plain.replace("\\0", "\0").as_bytes());
            continue;
        }
        let digits = line.chars().filter(|sign| *sign != ' ');
        let digits = digits.map(|digit| digit.to_digit(16).ok_or_else(wrong));
        let digits = digits.collect::<Result<Vec<u32>, String>>()?;
        for pair in digits.chunks(2) {
            let &[high, low] = pair else {
                return Err(wrong());
            };
            out.push((high * 16 + low) as u8);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_text_become_bytes() {
        let text = "# a remark\n16 0301\n\"a b\\r\\n\"\n";
        assert_eq!(bytes(text).unwrap(), b"\x16\x03\x01a b\r\n");
        for wrong in ["0", "0g", "\"a"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }
}
