//! Paths as they are before anything judges them.

use crate::{Input, Target};
use mesh_core::model::{EscapedSlashes, PathNormalization};
use mesh_policy::path::{Normalized, normalize};

/// `path_normalizer`: a character that says which rules there are, and a target.
pub(crate) const TARGET: Target = Target {
    name: "path_normalizer",
    run,
    input: Input::Text,
};

/// The rules that a byte stands for.
fn rules(byte: u8) -> PathNormalization {
    PathNormalization {
        normalize: byte & 1 != 0,
        merge_slashes: byte & 2 != 0,
        escaped_slashes: match (byte >> 2) & 3 {
            0 => EscapedSlashes::Keep,
            1 => EscapedSlashes::Reject,
            2 => EscapedSlashes::Redirect,
            _ => EscapedSlashes::Decode,
        },
    }
}

fn run(data: &[u8]) {
    let Some((which, target)) = data.split_first() else {
        return;
    };
    let Ok(target) = std::str::from_utf8(target) else {
        return;
    };
    let rules = rules(*which);
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let (path, rest) = target.split_at(end);
    let is_path = path.starts_with('/');
    let lower = path.to_ascii_lowercase();
    let slashes = lower.contains("%2f") || lower.contains("%5c");
    let rejects = rules.escaped_slashes == EscapedSlashes::Reject;
    let decodes = rules.escaped_slashes != EscapedSlashes::Keep;
    let path = match decodes {
        true => slashes_decoded(path),
        false => path.to_owned(),
    };
    let path = match rules.normalize {
        true => without_parameters(&path),
        false => path,
    };
    let refused = is_path && (slashes && rejects || rules.normalize && path.contains("%00"));
    let (became, redirected) = match normalize(target, rules) {
        Normalized::Reject => {
            assert!(refused, "{target:?} {rules:?}");
            return;
        }
        Normalized::Redirect(to) => (to, true),
        Normalized::Path(to) => (to.into_owned(), false),
    };
    assert!(!refused, "{target:?} {rules:?}");
    let asked = slashes && rules.escaped_slashes == EscapedSlashes::Redirect;
    assert_eq!(redirected, is_path && asked, "{target:?} {rules:?}");
    if !is_path {
        assert_eq!(became, target);
        return;
    }
    assert_eq!(became, naive(&path, rules) + rest, "{target:?} {rules:?}");
    let path = &became[..became.len() - rest.len()];
    assert!(path.starts_with('/'));
    if rules.normalize {
        assert!(!path.contains('\\') && !path.contains('"'));
        assert!(!path.split('/').any(|it| it == "." || it == ".."));
    }
    if rules.merge_slashes {
        assert!(path == "//" || !path.contains("//"), "{path:?}");
    }
}

fn slashes_decoded(path: &str) -> String {
    let mut path = path.to_owned();
    for (escape, plain) in [("%2f", "/"), ("%2F", "/"), ("%5c", "\\"), ("%5C", "\\")] {
        path = path.split(escape).collect::<Vec<_>>().join(plain);
    }
    path
}

/// Of a segment that begins with one or two dots and a `;` nothing but the dots stays.
fn without_parameters(path: &str) -> String {
    let mut plain = String::new();
    let mut rest = path;
    while let Some(c) = rest.chars().next() {
        let dots = [("/.;", "/."), ("/..;", "/..")];
        match dots.into_iter().find(|(begin, _)| rest.starts_with(begin)) {
            Some((begin, dots)) => {
                plain.push_str(dots);
                let rest_of = &rest[begin.len()..];
                rest = &rest_of[rest_of.find('/').unwrap_or(rest_of.len())..];
            }
            None => {
                plain.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    plain
}

/// The rest in as many passes as there are rules.
fn naive(path: &str, rules: PathNormalization) -> String {
    let mut path = path.to_owned();
    if rules.normalize {
        path = dots(&escapes(&path));
    }
    if rules.merge_slashes {
        let slashes = path.chars().take_while(|c| *c == '/').count();
        if slashes > 1 && slashes == path.len() {
            return "//".to_owned();
        }
        while path.contains("//") {
            path = path.replace("//", "/");
        }
    }
    path
}

/// RFC 3986 §6.2.2.2, and what no path may hold.
fn escapes(path: &str) -> String {
    let mut rest = path;
    let mut plain = String::new();
    while let Some(c) = rest.chars().next() {
        let escape = rest
            .get(1..3)
            .filter(|two| c == '%' && two.bytes().all(|it| it.is_ascii_hexdigit()))
            .and_then(|two| u8::from_str_radix(two, 16).ok());
        match escape {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                plain.push(char::from(byte));
                rest = &rest[3..];
            }
            Some(_) => {
                plain.push_str(&rest[..3]);
                rest = &rest[3..];
            }
            None => {
                match c {
                    '\\' => plain.push('/'),
                    '"' | '<' | '>' | '^' | '`' | '{' | '|' | '}' => {
                        plain += &format!("%{:02X}", u32::from(c));
                    }
                    c => plain.push(c),
                }
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    plain
}

/// `remove_dot_segments` as RFC 3986 §5.2.4 writes it down, for what begins with a slash.
fn dots(path: &str) -> String {
    let mut input = path.to_owned();
    let mut output = String::new();
    while !input.is_empty() {
        if input.starts_with("/./") {
            input.replace_range(..2, "");
        } else if input == "/." {
            input = "/".to_owned();
        } else if input.starts_with("/../") || input == "/.." {
            input.replace_range(..3, "");
            if input.is_empty() {
                input = "/".to_owned();
            }
            output.truncate(output.rfind('/').unwrap_or(0));
        } else {
            let end = input[1..].find('/').map_or(input.len(), |at| at + 1);
            output.extend(input.drain(..end));
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_way_of_doing_it_does_what_the_rfc_has_for_an_example() {
        assert_eq!(dots("/a/b/c/./../../g"), "/a/g");
        assert_eq!(escapes("/%7Ea%2fb%zz|"), "/~a%2fb%zz%7C");
    }
}
