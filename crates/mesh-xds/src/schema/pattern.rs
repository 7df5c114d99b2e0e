//! The regular expressions that occur in rules, without a regular expression engine.
//!
//! There are ten, all of them "some characters of a set": two that protobuf's rules have a name
//! for, and eight that Envoy's definitions spell out. A test over the table fails when a new
//! version of envoy-types brings another.

/// `HTTP_HEADER_NAME`, strictly: a token, with a colon in front for a pseudo header.
pub(super) fn is_header_name(text: &str) -> bool {
    let token = text.strip_prefix(':').unwrap_or(text);
    // The definition's set has `+-.`, which is a range and so has the comma too.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+,-.^_|~`".contains(&byte);
    !token.is_empty() && token.bytes().all(allowed)
}

/// `HTTP_HEADER_VALUE`, strictly: no control characters but the tab.
pub(super) fn is_header_value(text: &str) -> bool {
    text.bytes()
        .all(|byte| !byte.is_ascii_control() || byte == b'\t')
}

/// Both of them where `strict` is off: nothing that could end a line.
pub(super) fn is_header_text(text: &str) -> bool {
    !text.contains(['\0', '\n', '\r'])
}

/// Whether `text` matches one of the patterns; nothing if the pattern is not one of them.
pub(super) fn matches(pattern: &str, text: &str) -> Option<bool> {
    let is_cookie = |byte: u8| !(byte.is_ascii_control() || b" \",;<>\\".contains(&byte));
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.~:".contains(&byte);
    let matches = match pattern {
        "^[^/]*$" => !text.contains('/'),
        "^[a-z0-9_\\-]*$" => text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-')),
        "^[0-9a-zA-Z_\\-\\.~:]+$" => !text.is_empty() && text.bytes().all(is_word),
        "^[0-9a-zA-Z_\\-\\./~:]+$" => {
            !text.is_empty() && text.bytes().all(|byte| is_word(byte) || byte == b'/')
        }
        "^[^?#]+[^?#/]$" => {
            text.chars().nth(1).is_some() && !text.contains(['?', '#']) && !text.ends_with('/')
        }
        "^$|^.*\\.mmdb$" => text.is_empty() || (text.ends_with(".mmdb") && !text.contains('\n')),
        "^$|^[^\\x00-\\x1f\\x7f \",;<>\\\\]+$" => text.bytes().all(is_cookie),
        "^$|^/[^\\x00-\\x1f\\x7f \",;<>\\\\]*$" => {
            text.is_empty() || (text.starts_with('/') && text.bytes().all(is_cookie))
        }
        _ => return None,
    };
    Some(matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_are_tokens() {
        for name in ["x-a", ":path", "a,b", "X_1~`"] {
            assert!(is_header_name(name), "{name}");
        }
        for name in ["", ":", "a:b", "a b", "ä", "a/b", "a\n", "::a"] {
            assert!(!is_header_name(name), "{name:?}");
        }
    }

    #[test]
    fn header_values_have_no_control_characters() {
        assert!(is_header_value("") && is_header_value("a\tb ü"));
        for value in ["a\nb", "a\rb", "\0", "\x7f", "\x1f"] {
            assert!(!is_header_value(value), "{value:?}");
        }
        assert!(is_header_text("\x01 \x7f"));
        assert!(!is_header_text("a\r") && !is_header_text("a\0") && !is_header_text("a\n"));
    }

    #[test]
    fn patterns_match_what_they_say() {
        for (pattern, matching, other) in [
            ("^[^/]*$", &["", "a", "\n"][..], &["/", "a/b"][..]),
            ("^[a-z0-9_\\-]*$", &["", "a-b_9"], &["A", "a.b"]),
            ("^[0-9a-zA-Z_\\-\\.~:]+$", &["aZ0_-.~:"], &["", "a/b", "ä"]),
            ("^[0-9a-zA-Z_\\-\\./~:]+$", &["a/b"], &["", "a b"]),
            (
                "^[^?#]+[^?#/]$",
                &["/a", "ab", "/ä", "//a"],
                &["", "/", "a", "/a/", "/a?", "#a"],
            ),
            (
                "^$|^.*\\.mmdb$",
                &["", ".mmdb", "/a.mmdb"],
                &["a", "a.mmdb2", "\n.mmdb"],
            ),
            (
                "^$|^[^\\x00-\\x1f\\x7f \",;<>\\\\]+$",
                &["", "a=b"],
                &["a b", "a;", "\\"],
            ),
            (
                "^$|^/[^\\x00-\\x1f\\x7f \",;<>\\\\]*$",
                &["", "/", "/a"],
                &["a", "/ ", "/\x7f"],
            ),
        ] {
            for text in matching {
                assert_eq!(matches(pattern, text), Some(true), "{pattern} on {text:?}");
            }
            for text in other {
                assert_eq!(matches(pattern, text), Some(false), "{pattern} on {text:?}");
            }
        }
        assert_eq!(matches("^a$", "a"), None);
    }
}
