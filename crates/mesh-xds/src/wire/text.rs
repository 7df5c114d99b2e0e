//! Text, expressions and header names.

use super::{At, pass_over, required, unsupported};
use crate::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use crate::pb::envoy::r#type::matcher::v3::{RegexMatchAndSubstitute, RegexMatcher, StringMatcher};
use http::HeaderName;
use mesh_core::Invalid;
use mesh_core::model::{Pattern, StringMatch};

/// An expression that no text matches.
const NOTHING: &str = r"[^\x00-\x{10FFFF}]";

/// A regular expression.
pub(crate) fn pattern(value: &RegexMatcher) -> Result<Pattern, Invalid> {
    let RegexMatcher { regex, engine_type } = value;
    pass_over!("envoy.type.matcher.v3.RegexMatcher": engine_type);
    Pattern::new(regex).at("regex")
}

/// A regular expression for Envoy's default engine.
pub(crate) fn to_pattern(pattern: &Pattern) -> RegexMatcher {
    // Envoy refuses an empty expression; this one is the same.
    let source = match pattern.source() {
        "" => "(?:)",
        source => source,
    };
    expression(source)
}

fn expression(source: &str) -> RegexMatcher {
    RegexMatcher {
        regex: source.to_owned(),
        engine_type: None,
    }
}

/// An expression and what its matches become.
pub(crate) fn substitution(value: &RegexMatchAndSubstitute) -> Result<(Pattern, String), Invalid> {
    let RegexMatchAndSubstitute {
        pattern: expression,
        substitution,
    } = value;
    let expression = pattern(required("pattern", expression)?).at("pattern")?;
    Ok((expression, substitution.clone()))
}

/// An expression and what its matches become.
pub(crate) fn to_substitution(pattern: &Pattern, with: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute {
        pattern: Some(to_pattern(pattern)),
        substitution: with.to_owned(),
    }
}

/// A condition on a text. `ignore_case` does not reach expressions, as in Envoy.
pub(crate) fn string_match(value: &StringMatcher) -> Result<StringMatch, Invalid> {
    let StringMatcher {
        ignore_case,
        match_pattern,
    } = value;
    let pattern_of = |value| pattern(value).at("safe_regex");
    Ok(
        match (required("match_pattern", match_pattern)?, ignore_case) {
            (MatchPattern::Exact(text), false) => StringMatch::Exact(text.clone()),
            (MatchPattern::Exact(text), true) => StringMatch::ExactIgnoreCase(text.clone()),
            (MatchPattern::Prefix(text), false) => StringMatch::Prefix(text.clone()),
            (MatchPattern::Prefix(text), true) => StringMatch::PrefixIgnoreCase(text.clone()),
            (MatchPattern::Suffix(text), false) => StringMatch::Suffix(text.clone()),
            (MatchPattern::Suffix(text), true) => StringMatch::SuffixIgnoreCase(text.clone()),
            (MatchPattern::Contains(text), false) => StringMatch::Contains(text.clone()),
            (MatchPattern::Contains(text), true) => StringMatch::ContainsIgnoreCase(text.clone()),
            (MatchPattern::SafeRegex(regex), _) => StringMatch::Regex(pattern_of(regex)?),
            (MatchPattern::Custom(_), _) => return Err(unsupported("custom")),
        },
    )
}

/// A condition on a text. One that every text meets becomes an expression, because Envoy refuses
/// an empty prefix, suffix or part.
pub(crate) fn to_string_match(value: &StringMatch) -> StringMatcher {
    let (kind, text, ignore_case): (fn(String) -> MatchPattern, _, _) = match value {
        StringMatch::Exact(text) => (MatchPattern::Exact, text, false),
        StringMatch::ExactIgnoreCase(text) => (MatchPattern::Exact, text, true),
        StringMatch::Prefix(text) => (MatchPattern::Prefix, text, false),
        StringMatch::PrefixIgnoreCase(text) => (MatchPattern::Prefix, text, true),
        StringMatch::Suffix(text) => (MatchPattern::Suffix, text, false),
        StringMatch::SuffixIgnoreCase(text) => (MatchPattern::Suffix, text, true),
        StringMatch::Contains(text) => (MatchPattern::Contains, text, false),
        StringMatch::ContainsIgnoreCase(text) => (MatchPattern::Contains, text, true),
        StringMatch::Regex(pattern) => {
            return matcher(MatchPattern::SafeRegex(to_pattern(pattern)), false);
        }
        // A new kind of condition: nothing is safer than something wrong.
        _ => return to_nothing(),
    };
    if text.is_empty()
        && !matches!(
            value,
            StringMatch::Exact(_) | StringMatch::ExactIgnoreCase(_)
        )
    {
        return matcher(MatchPattern::SafeRegex(expression(".*")), false);
    }
    matcher(kind(text.clone()), ignore_case)
}

/// A condition that no text meets: what stands for one that protobuf has no form for.
pub(crate) fn to_nothing() -> StringMatcher {
    matcher(MatchPattern::SafeRegex(expression(NOTHING)), false)
}

fn matcher(match_pattern: MatchPattern, ignore_case: bool) -> StringMatcher {
    StringMatcher {
        ignore_case,
        match_pattern: Some(match_pattern),
    }
}

/// The name of a header. Pseudo-headers are none.
pub(crate) fn header_name(field: &str, name: &str) -> Result<HeaderName, Invalid> {
    HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Invalid::new(field, format!("{name:?} is not the name of a header")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_checked() {
        let mut value = expression("a+");
        assert_eq!(pattern(&value).unwrap().source(), "a+");
        value.regex = "(".to_owned();
        assert_eq!(pattern(&value).unwrap_err().path(), "regex");
    }

    #[test]
    fn a_condition_without_a_pattern_or_with_an_extension_is_refused() {
        let mut value = StringMatcher::default();
        assert_eq!(string_match(&value).unwrap_err().path(), "match_pattern");
        value.match_pattern = Some(MatchPattern::Custom(Default::default()));
        assert_eq!(string_match(&value).unwrap_err().path(), "custom");
    }

    #[test]
    fn case_is_not_ignored_in_an_expression() {
        let value = StringMatcher {
            ignore_case: true,
            match_pattern: Some(MatchPattern::SafeRegex(expression("a"))),
        };
        assert!(!string_match(&value).unwrap().matches(b"A"));
    }

    #[test]
    fn every_condition_on_text_survives() {
        let text = || "Ab".to_owned();
        for value in [
            StringMatch::Exact(text()),
            StringMatch::ExactIgnoreCase(text()),
            StringMatch::Prefix(text()),
            StringMatch::PrefixIgnoreCase(text()),
            StringMatch::Suffix(text()),
            StringMatch::SuffixIgnoreCase(text()),
            StringMatch::Contains(text()),
            StringMatch::ContainsIgnoreCase(text()),
            StringMatch::Regex(Pattern::new("Ab?").unwrap()),
        ] {
            assert_eq!(string_match(&to_string_match(&value)).unwrap(), value);
        }
    }

    #[test]
    fn what_envoy_would_refuse_as_empty_is_written_as_an_expression_that_matches_the_same() {
        let any: [fn(String) -> StringMatch; 3] = [
            StringMatch::Prefix,
            StringMatch::SuffixIgnoreCase,
            StringMatch::Contains,
        ];
        for any in any {
            let read = string_match(&to_string_match(&any(String::new()))).unwrap();
            assert!(read.matches(b"") && read.matches(b"x y"), "{read}");
        }
        let empty = pattern(&to_pattern(&Pattern::new("").unwrap())).unwrap();
        assert!(empty.is_match(b"") && !empty.is_match(b"a"));
        let nothing = Pattern::new(NOTHING).unwrap();
        assert!(!nothing.is_match(b"") && !nothing.is_match(b"a"));
    }

    #[test]
    fn a_pseudo_header_is_not_the_name_of_a_header() {
        assert_eq!(header_name("name", "X-User").unwrap(), "x-user");
        assert_eq!(header_name("name", ":path").unwrap_err().path(), "name");
    }
}
