//! What an index over regular expressions needs: how an expression has to begin, and many
//! expressions matched in one pass.

use super::text::Pattern;
use regex_syntax::hir::{Hir, HirKind};
use std::fmt;

/// Expressions that are matched against one text together, in the time of about one.
#[derive(Clone)]
pub struct Patterns(regex::bytes::RegexSet);

/// The most memory that expressions compiled together may take, in bytes.
const MAX_TOGETHER: usize = 16 << 20;
/// The most memory that matching them may take while it goes on, in bytes for each thread.
const MAX_MATCHING: usize = 1 << 20;

// === impl Patterns ===

impl Patterns {
    /// Compiles expressions together; none if that takes more memory than it is worth (16 MiB).
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a Pattern>) -> Option<Self> {
        Self::within(patterns, MAX_TOGETHER)
    }

    fn within<'a>(patterns: impl IntoIterator<Item = &'a Pattern>, most: usize) -> Option<Self> {
        let sources = patterns.into_iter().map(Pattern::whole);
        regex::bytes::RegexSetBuilder::new(sources)
            .size_limit(most)
            .dfa_size_limit(MAX_MATCHING)
            .build()
            .ok()
            .map(Self)
    }

    /// The places of the expressions that match the whole text, in order. Allocates a byte for
    /// each expression.
    pub fn matching(&self, text: &[u8]) -> Matching {
        Matching(self.0.matches(text).into_iter())
    }
}

/// Places of expressions ([`Patterns::matching`]).
pub struct Matching(regex::bytes::SetMatchesIntoIter);

// === impl Matching ===

impl Iterator for Matching {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.0.next()
    }
}

impl fmt::Debug for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Matching")
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Patterns({})", self.0.len())
    }
}

// === impl Pattern ===

impl Pattern {
    /// The bytes that every text begins with that matches as a whole. It need not be all of them.
    pub fn stem(&self) -> Vec<u8> {
        let mut parser = regex_syntax::ParserBuilder::new().utf8(false).build();
        let mut stem = Vec::new();
        // It was parsed before, when the pattern was made.
        if let Ok(hir) = parser.parse(self.whole()) {
            begin(&hir, &mut stem);
        }
        stem
    }
}

/// Adds what texts of an expression begin with, and says whether that is all there is to it.
fn begin(hir: &Hir, stem: &mut Vec<u8>) -> bool {
    match hir.kind() {
        // An assertion takes up no text.
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => {
            stem.extend_from_slice(&literal.0);
            true
        }
        HirKind::Capture(capture) => begin(&capture.sub, stem),
        HirKind::Concat(parts) => parts.iter().all(|part| begin(part, stem)),
        HirKind::Repetition(repetition) if repetition.min > 0 => {
            begin(&repetition.sub, stem);
            false
        }
        HirKind::Alternation(ways) => {
            stem.extend(shared(ways));
            false
        }
        HirKind::Repetition(_) | HirKind::Class(_) => false,
    }
}

/// What all alternatives begin with.
fn shared(ways: &[Hir]) -> Vec<u8> {
    let mut all = ways.iter().map(|way| {
        let mut stem = Vec::new();
        begin(way, &mut stem);
        stem
    });
    let mut shared = all.next().unwrap_or_default();
    for stem in all {
        let same = shared.iter().zip(&stem).take_while(|(a, b)| a == b).count();
        shared.truncate(same);
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stem(source: &str) -> String {
        String::from_utf8(Pattern::new(source).unwrap().stem()).unwrap()
    }

    #[test]
    fn an_expression_begins_with_its_literals() {
        for (source, expected) in [
            ("/api/[0-9]+", "/api/"),
            ("/api/v1", "/api/v1"),
            ("^/api/.*$", "/api/"),
            ("/(api)/x?", "/api/"),
            ("/a+b", "/a"),
            ("/a*b", "/"),
            ("(ab){2}c", "ab"),
            ("(?i)/api", "/"),
            ("/a|/b", "/"),
            ("/(ab|ac*)d", "/a"),
            (".*", ""),
            ("", ""),
            ("\\Q/a.b\\E.*", "/a.b"),
            ("/\u{e9}.", "/\u{e9}"),
        ] {
            assert_eq!(stem(source), expected, "{source}");
        }
    }

    #[test]
    fn too_many_expressions_are_not_compiled_together() {
        let pattern = |n| Pattern::new(&format!("/{n}/[a-z]{{20}}")).unwrap();
        let patterns: Vec<Pattern> = (0..10).map(pattern).collect();
        assert!(Patterns::within(&patterns, 16 << 10).is_none());
        assert!(Patterns::within(&patterns[..1], 16 << 10).is_some());
        assert!(Patterns::new(&patterns).is_some());
    }

    fn source() -> impl Strategy<Value = String> {
        "(\\^?)(/|a|b|\\(ab\\)|\\(a\\|b\\)|\\[ab\\]|a\\+|b\\*|\\(ab\\)\\{1,2\\}|\\.|\\(\\?i:a\\)|\\$){0,6}"
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn what_matches_begins_with_the_stem(source in source(), text in "[abAB/]{0,6}") {
            let pattern = Pattern::new(&source).unwrap();
            if pattern.is_match(text.as_bytes()) {
                let stem = pattern.stem();
                prop_assert!(text.as_bytes().starts_with(&stem), "{source} {text} {stem:?}");
            }
        }

        #[test]
        fn together_they_match_what_each_matches(
            sources in prop::collection::vec(source(), 0..10),
            text in "[abAB/]{0,6}",
        ) {
            let patterns: Vec<Pattern> =
                sources.iter().map(|source| Pattern::new(source).unwrap()).collect();
            let together = Patterns::new(&patterns).unwrap();
            let found: Vec<usize> = together.matching(text.as_bytes()).collect();
            let alone = patterns.iter().enumerate();
            let alone = alone.filter(|(_, pattern)| pattern.is_match(text.as_bytes()));
            let alone: Vec<usize> = alone.map(|(place, _)| place).collect();
            prop_assert_eq!(found, alone);
        }
    }
}
