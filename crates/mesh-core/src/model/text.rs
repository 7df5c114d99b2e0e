//! Matching text: exact, prefix, suffix, contained, or a regular expression.

use crate::Invalid;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// How a piece of text is compared (`envoy.type.matcher.v3.StringMatcher`, Istio `StringMatch`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StringMatch {
    /// The whole text is this.
    Exact(String),
    /// The text begins with this.
    Prefix(String),
    /// The text ends with this.
    Suffix(String),
    /// The text contains this.
    Contains(String),
    /// As [`StringMatch::Exact`], ASCII case ignored.
    ExactIgnoreCase(String),
    /// As [`StringMatch::Prefix`], ASCII case ignored.
    PrefixIgnoreCase(String),
    /// As [`StringMatch::Suffix`], ASCII case ignored.
    SuffixIgnoreCase(String),
    /// As [`StringMatch::Contains`], ASCII case ignored.
    ContainsIgnoreCase(String),
    /// The whole text matches the expression.
    Regex(Pattern),
}

/// A regular expression in RE2's syntax that has to match the whole text.
///
/// Two patterns are equal when their sources are. Cheap to clone: all clones share what is compiled.
#[derive(Clone)]
pub struct Pattern(Arc<Expression>);

/// What text is matched with. Most text is compared without it, so that it is not in place: wherever
/// there could be an expression it would take as much room.
struct Expression {
    source: String,
    whole: regex::bytes::Regex,
    part: regex::bytes::Regex,
}

/// The longest regular expression that is accepted, in bytes (Istio's limit).
pub const MAX_PATTERN: usize = 1024;

/// The most memory that one compiled expression may take, in bytes.
const MAX_COMPILED: usize = 1 << 20;

// === impl StringMatch ===

impl StringMatch {
    /// Whether `text` matches. Works on bytes because header values need not be UTF-8.
    pub fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(want) => text == want.as_bytes(),
            Self::Prefix(want) => text.starts_with(want.as_bytes()),
            Self::Suffix(want) => text.ends_with(want.as_bytes()),
            Self::Contains(want) => contains(text, want.as_bytes(), false),
            Self::ExactIgnoreCase(want) => text.eq_ignore_ascii_case(want.as_bytes()),
            Self::PrefixIgnoreCase(want) => text
                .get(..want.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(want.as_bytes())),
            Self::SuffixIgnoreCase(want) => text
                .len()
                .checked_sub(want.len())
                .is_some_and(|at| text[at..].eq_ignore_ascii_case(want.as_bytes())),
            Self::ContainsIgnoreCase(want) => contains(text, want.as_bytes(), true),
            Self::Regex(pattern) => pattern.is_match(text),
        }
    }
}

impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(t) => write!(f, "exact {t:?}"),
            Self::Prefix(t) => write!(f, "prefix {t:?}"),
            Self::Suffix(t) => write!(f, "suffix {t:?}"),
            Self::Contains(t) => write!(f, "contains {t:?}"),
            Self::ExactIgnoreCase(t) => write!(f, "exact {t:?} (any case)"),
            Self::PrefixIgnoreCase(t) => write!(f, "prefix {t:?} (any case)"),
            Self::SuffixIgnoreCase(t) => write!(f, "suffix {t:?} (any case)"),
            Self::ContainsIgnoreCase(t) => write!(f, "contains {t:?} (any case)"),
            Self::Regex(p) => write!(f, "regex {:?}", p.source()),
        }
    }
}

// An empty needle is contained in everything, as in Envoy.
fn contains(text: &[u8], want: &[u8], any_case: bool) -> bool {
    if want.is_empty() {
        return true;
    }
    text.windows(want.len()).any(|window| {
        if any_case {
            window.eq_ignore_ascii_case(want)
        } else {
            window == want
        }
    })
}

// === impl Pattern ===

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// If the expression is longer than [`MAX_PATTERN`], is not valid, or would need too much
    /// memory.
    pub fn new(source: &str) -> Result<Self, Invalid> {
        if source.len() > MAX_PATTERN {
            let message = format!(
                "regular expression of {} bytes is longer than the {MAX_PATTERN} allowed",
                source.len()
            );
            return Err(Invalid::new("", message));
        }
        let body = ascii_classes(source)?;
        // The body alone first: wrapped, an unbalanced ")(" would become a different expression.
        let part = build(&body, source)?;
        let whole = build(&format!("\\A(?:{body})\\z"), source)?;
        Ok(Self(Arc::new(Expression {
            source: source.to_owned(),
            whole,
            part,
        })))
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// The expression that matches the whole text, in the syntax of the library.
    pub(super) fn whole(&self) -> &str {
        self.0.whole.as_str()
    }

    /// Whether the whole text matches.
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.0.whole.is_match(text)
    }

    /// Whether any part of the text matches.
    pub fn is_found_in(&self, text: &[u8]) -> bool {
        self.0.part.is_match(text)
    }

    /// Replaces every match in `text`. In `with`, `\0` to `\9` stand for the groups and `\\` for
    /// a backslash, as in RE2's `GlobalReplace`.
    pub fn replace_all(&self, text: &[u8], with: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        let mut last = 0;
        for groups in self.0.part.captures_iter(text) {
            let Some(all) = groups.get(0) else { continue };
            out.extend_from_slice(&text[last..all.start()]);
            last = all.end();
            let mut bytes = with.bytes();
            while let Some(byte) = bytes.next() {
                match byte {
                    b'\\' => match bytes.next() {
                        Some(digit @ b'0'..=b'9') => {
                            if let Some(group) = groups.get(usize::from(digit - b'0')) {
                                out.extend_from_slice(group.as_bytes());
                            }
                        }
                        Some(other) => out.push(other),
                        None => {}
                    },
                    other => out.push(other),
                }
            }
        }
        out.extend_from_slice(&text[last..]);
        out
    }
}

fn build(body: &str, source: &str) -> Result<regex::bytes::Regex, Invalid> {
    regex::bytes::RegexBuilder::new(body)
        .size_limit(MAX_COMPILED)
        .dfa_size_limit(MAX_COMPILED)
        .build()
        .map_err(|error| {
            Invalid::new(
                "",
                format!("invalid regular expression {source:?}: {error}"),
            )
        })
}

/// Rewrites RE2 syntax to the regex crate's: `\d \w \s \b` are ASCII in RE2, `\Q…\E` quotes, and a
/// `[` inside a class is plain. `\C` (one byte) is refused.
fn ascii_classes(source: &str) -> Result<String, Invalid> {
    let mut out = String::with_capacity(source.len() + 16);
    let mut chars = source.chars().peekable();
    let mut class = false;
    let mut class_start = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                class_start = false;
                match chars.next() {
                    Some('d') => out.push_str(if class { "0-9" } else { "[0-9]" }),
                    Some('D') => out.push_str("[^0-9]"),
                    Some('w') => {
                        out.push_str(if class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" });
                    }
                    Some('W') => out.push_str("[^0-9A-Za-z_]"),
                    Some('s') => out.push_str(if class {
                        "\\t\\n\\f\\r "
                    } else {
                        "[\\t\\n\\f\\r ]"
                    }),
                    Some('S') => out.push_str("[^\\t\\n\\f\\r ]"),
                    Some('b') if !class => out.push_str("(?-u:\\b)"),
                    Some('B') if !class => out.push_str("(?-u:\\B)"),
                    Some('Q') => {
                        let mut quoted = String::new();
                        while let Some(q) = chars.next() {
                            if q == '\\' && chars.peek() == Some(&'E') {
                                chars.next();
                                break;
                            }
                            quoted.push(q);
                        }
                        out.push_str(&regex::escape(&quoted));
                    }
                    Some('E') => {}
                    Some('C') => {
                        return Err(Invalid::new(
                            "",
                            format!("invalid regular expression {source:?}: \\C is not supported"),
                        ));
                    }
                    Some(other) => {
                        out.push('\\');
                        out.push(other);
                    }
                    None => out.push('\\'),
                }
            }
            '[' if !class => {
                class = true;
                class_start = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    out.push('^');
                    chars.next();
                }
            }
            '[' if class => {
                class_start = false;
                // `[:alpha:]` stays a named class; any other `[` is a plain character in RE2.
                out.push_str(if chars.peek() == Some(&':') {
                    "["
                } else {
                    "\\["
                });
                if chars.peek() == Some(&':') {
                    for named in chars.by_ref() {
                        out.push(named);
                        if named == ']' {
                            break;
                        }
                    }
                }
            }
            ']' if class && !class_start => {
                class = false;
                out.push(']');
            }
            ']' if class => {
                class_start = false;
                out.push_str("\\]");
            }
            '&' | '~' | '-' if class && chars.peek() == Some(&c) => {
                // `&&`, `--` and `~~` are set operators in the regex crate, text in RE2.
                class_start = false;
                out.push('\\');
                out.push(c);
            }
            other => {
                class_start = false;
                out.push(other);
            }
        }
    }
    Ok(out)
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source() == other.source()
    }
}

impl Eq for Pattern {}

impl Hash for Pattern {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source().hash(state);
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({:?})", self.source())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(source: &str) -> Pattern {
        Pattern::new(source).unwrap()
    }

    #[test]
    fn a_pattern_has_to_match_the_whole_text() {
        assert!(pattern("a|ab").is_match(b"ab"));
        assert!(!pattern("a").is_match(b"ab"));
        assert!(!pattern("b").is_match(b"ab"));
        assert!(pattern("b").is_found_in(b"abc"));
        assert!(Pattern::new(")(").is_err());
    }

    #[test]
    fn classes_are_ascii_as_in_re2() {
        assert!(!pattern("\\d").is_match("٣".as_bytes()));
        assert!(pattern("[\\d.]+").is_match(b"1.2"));
        assert!(!pattern("\\w").is_match("é".as_bytes()));
        assert!(pattern("\\Qa.b\\E+").is_match(b"a.bb"));
        assert!(!pattern("\\Qa.b\\E").is_match(b"axb"));
        assert!(pattern("[[a]+").is_match(b"[a"));
        assert!(pattern("[]a]+").is_match(b"]a"));
        assert!(pattern("[[:alpha:]]+").is_match(b"ab"));
        assert!(Pattern::new("\\C").is_err());
    }

    #[test]
    fn the_cookie_pattern_of_the_canary_task_matches_one_cookie_among_several() {
        let cookie = pattern("^(.*?;)?(email=[^;]*@somecompany-name.com)(;.*)?$");
        assert!(cookie.is_match(b"a=1;email=x@somecompany-name.com;b=2"));
        assert!(!cookie.is_match(b"email=x@elsewhere.com"));
    }

    #[test]
    fn too_long_a_pattern_is_refused() {
        assert!(Pattern::new(&"a".repeat(MAX_PATTERN + 1)).is_err());
        assert!(Pattern::new("(a{1000}){1000}").is_err());
    }

    #[test]
    fn a_rewrite_replaces_every_match_and_fills_in_groups() {
        let version = pattern("/v(\\d+)");
        assert_eq!(
            version.replace_all(b"/v1/x/v22", "/version\\1"),
            b"/version1/x/version22"
        );
        assert_eq!(version.replace_all(b"/none", "-"), b"/none");
    }

    #[test]
    fn matching_without_case_is_ascii_only() {
        assert!(StringMatch::PrefixIgnoreCase("/A".into()).matches(b"/ab"));
        assert!(StringMatch::SuffixIgnoreCase("B".into()).matches(b"/ab"));
        assert!(!StringMatch::SuffixIgnoreCase("xyz/ab".into()).matches(b"/ab"));
        assert!(StringMatch::ContainsIgnoreCase("A".into()).matches(b"bab"));
        assert!(!StringMatch::ExactIgnoreCase("É".into()).matches("é".as_bytes()));
    }

    proptest! {
        #[test]
        fn compiling_never_panics(source in ".{0,40}") {
            let _ = Pattern::new(&source);
        }

        #[test]
        fn quoted_text_matches_itself(text in "[a-z.*+?()\\[\\]{}|^$]{0,20}") {
            let pattern = Pattern::new(&format!("\\Q{text}\\E")).unwrap();
            prop_assert!(pattern.is_match(text.as_bytes()));
        }
    }
}
