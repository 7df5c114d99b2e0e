//! Path normalisation: what is matched and judged is what is forwarded.
//!
//! Pure functions on the text of a path, for Istio's `pathNormalization` modes (Envoy's
//! `normalize_path`, `merge_slashes`, `path_with_escaped_slashes_action`).

use mesh_core::model::{EscapedSlashes, PathNormalization};
use std::borrow::Cow;

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Normalized<'a> {
    /// This path, which may be the same.
    Path(Cow<'a, str>),
    /// Answer 400.
    Reject,
    /// Redirect (307) to this path.
    Redirect(String),
}

/// Normalises a path with its query. The query is left alone.
pub fn normalize(target: &str, rules: PathNormalization) -> Normalized<'_> {
    let at = target.find(['?', '#']).unwrap_or(target.len());
    let (path, query) = target.split_at(at);
    if !path.starts_with('/') {
        // `*` of OPTIONS and the authority of CONNECT are no paths.
        return Normalized::Path(Cow::Borrowed(target));
    }
    let mut path = Cow::Borrowed(path);
    let mut redirect = false;
    if has_escape(&path, *b"2f") || has_escape(&path, *b"5c") {
        match rules.escaped_slashes {
            EscapedSlashes::Keep => {}
            EscapedSlashes::Reject => return Normalized::Reject,
            action => {
                redirect = action == EscapedSlashes::Redirect;
                path = Cow::Owned(decode_slashes(&path));
            }
        }
    }
    if rules.normalize {
        if path.contains("/.;") || path.contains("/..;") {
            path = Cow::Owned(without_parameters(&path));
        }
        if has_escape(&path, *b"00") {
            return Normalized::Reject;
        }
        if needs_work(&path) {
            path = Cow::Owned(canonical(&path));
        }
    }
    if rules.merge_slashes && path.contains("//") {
        path = Cow::Owned(merge(&path));
    }
    match path {
        Cow::Borrowed(_) => Normalized::Path(Cow::Borrowed(target)),
        Cow::Owned(path) if redirect => Normalized::Redirect(path + query),
        Cow::Owned(path) => Normalized::Path(Cow::Owned(path + query)),
    }
}

/// Whether the path contains `%` and these two (lower case) hexadecimal digits.
fn has_escape(path: &str, digits: [u8; 2]) -> bool {
    path.as_bytes().windows(3).any(|window| {
        window[0] == b'%'
            && [
                window[1].to_ascii_lowercase(),
                window[2].to_ascii_lowercase(),
            ] == digits
    })
}

fn decode_slashes(path: &str) -> String {
    path.replace("%2f", "/")
        .replace("%2F", "/")
        .replace("%5c", "\\")
        .replace("%5C", "\\")
}

/// What no path may hold as it is (RFC 3986 §3.3), though `http::Uri` lets it through.
const MUST_BE_ESCAPED: &[u8] = b"\"<>^`{|}";

/// Most paths need nothing: this looks before anything is copied.
fn needs_work(path: &str) -> bool {
    path.contains("/.")
        || path
            .bytes()
            .any(|byte| matches!(byte, b'%' | b'\\') || MUST_BE_ESCAPED.contains(&byte))
}

/// Takes from dot segments what stands behind a `;`: some servers read `/..;x/` as `/../`, so that
/// it has to be judged so. As in Envoy segments are those of the path as it came: an escaped dot, or
/// a `\` before it, leaves it as it is.
fn without_parameters(path: &str) -> String {
    let plain = |segment| match segment {
        dot if str::starts_with(dot, ".;") => ".",
        dots if str::starts_with(dots, "..;") => "..",
        other => other,
    };
    let segments: Vec<&str> = path.split('/').map(plain).collect();
    segments.join("/")
}

/// RFC 3986 §6.2: unreserved characters unescaped, `\` as `/`, dot segments resolved.
fn canonical(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| hex(bytes.get(at + 1..at + 3)?))
            .flatten();
        match escaped {
            Some(byte) if is_unreserved(byte) => {
                plain.push(byte);
                at += 3;
            }
            // Other escapes keep the case they came in, as in Envoy.
            Some(_) => {
                plain.extend(&bytes[at..at + 3]);
                at += 3;
            }
            None if MUST_BE_ESCAPED.contains(&bytes[at]) => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                let byte = usize::from(bytes[at]);
                plain.extend([b'%', HEX[byte >> 4], HEX[byte & 0xf]]);
                at += 1;
            }
            None => {
                plain.push(if bytes[at] == b'\\' { b'/' } else { bytes[at] });
                at += 1;
            }
        }
    }
    // Only ASCII was added, and only whole characters were copied.
    let plain = String::from_utf8(plain).unwrap_or_else(|_| path.to_owned());
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_open = false;
    for segment in plain[1..].split('/') {
        ends_open = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut out = String::with_capacity(plain.len());
    for segment in &segments {
        out.push('/');
        out.push_str(segment);
    }
    if ends_open || out.is_empty() {
        out.push('/');
    }
    out
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(digits[0])? * 16 + digit(digits[1])?).ok()
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn merge(path: &str) -> String {
    // Envoy keeps a slash at the beginning and one at the end, even with nothing between them.
    if path.bytes().all(|byte| byte == b'/') {
        return "//".to_owned();
    }
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !out.ends_with('/') {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: PathNormalization = PathNormalization {
        normalize: true,
        merge_slashes: false,
        escaped_slashes: EscapedSlashes::Keep,
    };

    fn path(target: &str, rules: PathNormalization) -> String {
        match normalize(target, rules) {
            Normalized::Path(path) => path.into_owned(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn dot_segments_are_resolved_and_the_query_is_left_alone() {
        for (target, expected) in [
            ("/a/./b/../c", "/a/c"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/.", "/a/"),
            ("/a\\b", "/a/b"),
            ("/%61%2e%2E/x", "/a../x"),
            ("/a/%2e%2e/b?x=/../y", "/b?x=/../y"),
            ("/a//b", "/a//b"),
            ("/a%2fb%zz", "/a%2fb%zz"),
            ("/a|b{c}", "/a%7Cb%7Bc%7D"),
            ("/a.b/.c", "/a.b/.c"),
            ("*", "*"),
        ] {
            assert_eq!(path(target, BASE), expected, "{target}");
        }
    }

    #[test]
    fn a_dot_segment_is_one_whatever_stands_behind_a_semicolon() {
        // Each seen of Envoy 1.40.
        for (target, expected) in [
            ("/a/..;x=1", "/"),
            ("/a/.;x", "/a/"),
            ("/a/..;", "/"),
            ("/..;x/a", "/a"),
            ("/a/..;x=%2f/c", "/c"),
            ("/a/..;%00/c", "/c"),
            ("/a/..;<x>/c", "/c"),
            ("/a/b/..;/..;/c", "/c"),
            ("/a/b/..;..;x/c", "/a/c"),
            ("/a/..;x\\c/d", "/d"),
            ("//a//..;x//c", "//a//c"),
            ("/a/..;x?..;y", "/?..;y"),
            ("/a/...;x/c", "/a/...;x/c"),
            ("/a/..x;y/c", "/a/..x;y/c"),
            ("/a/;x/c", "/a/;x/c"),
            ("/a/b;/..;x/c", "/a/c"),
            ("/a/b;x/c", "/a/b;x/c"),
            ("/a/b/..\\c;/d", "/a/c;/d"),
            // Only as it came.
            ("/a/%2e%2e;x/c", "/a/..;x/c"),
            ("/a/..%3bx/c", "/a/..%3bx/c"),
            ("/a\\..;x\\c", "/a/..;x/c"),
            ("/a%2f..;x/c", "/a%2f..;x/c"),
        ] {
            assert_eq!(path(target, BASE), expected, "{target}");
        }
        let decode = PathNormalization {
            escaped_slashes: EscapedSlashes::Decode,
            ..BASE
        };
        assert_eq!(path("/a%2f..;x/c", decode), "/c");
        let left = PathNormalization::default();
        assert_eq!(path("/a/..;x/c", left), "/a/..;x/c");
    }

    #[test]
    fn the_stronger_modes_merge_and_decode() {
        let merge = PathNormalization {
            merge_slashes: true,
            ..BASE
        };
        assert_eq!(path("//a///b/", merge), "/a/b/");
        // Seen of Envoy: slashes alone become two.
        assert_eq!(path("///?q", merge), "//?q");
        let decode = PathNormalization {
            escaped_slashes: EscapedSlashes::Decode,
            ..merge
        };
        assert_eq!(path("/a%2F%2fb%5cc", decode), "/a/b/c");
        let reject = PathNormalization {
            escaped_slashes: EscapedSlashes::Reject,
            ..BASE
        };
        assert_eq!(normalize("/a%2fb", reject), Normalized::Reject);
        let redirect = PathNormalization {
            escaped_slashes: EscapedSlashes::Redirect,
            ..BASE
        };
        assert_eq!(
            normalize("/a%2fb?q", redirect),
            Normalized::Redirect("/a/b?q".into())
        );
    }

    #[test]
    fn a_nul_is_refused_where_paths_are_normalised() {
        assert_eq!(normalize("/a%00", BASE), Normalized::Reject);
        assert_eq!(path("/a%00", PathNormalization::default()), "/a%00");
        assert_eq!(path("/a?%00", PathNormalization::default()), "/a?%00");
    }

    #[test]
    fn an_ordinary_path_is_not_copied() {
        assert!(matches!(
            normalize("/a/b?c", BASE),
            Normalized::Path(Cow::Borrowed(_))
        ));
    }

    use proptest::prelude::*;
    proptest! {
        #[test]
        fn normalising_twice_changes_nothing_more(target in "/[a-c./%2fF5Ee\\\\]{0,24}") {
            let once = path(&target, BASE);
            // An escape that decodes to another escape's digits is not decoded again by either.
            if !once.contains('%') {
                prop_assert_eq!(&path(&once, BASE), &once);
            }
            prop_assert!(!once.contains("/../") && !once.ends_with("/.."));
        }
    }
}
