//! Keys of issuers that are got before a snapshot is made: where they are, and what came.
//!
//! Whoever compiles says which it needs ([`WantedKeys`]); whoever gets them hands them over
//! ([`KeyBook`]), and they are in the next snapshot as [`Jwks::Inline`](super::Jwks::Inline).

use crate::Name;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Where a set of keys is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum KeySource {
    /// At this URI of http or https (Istio's `jwksUri`).
    Uri(Name),
    /// Where the OpenID configuration of this issuer says (OpenID Connect Discovery 1.0 §4).
    Issuer(Name),
}

/// The sets of keys that are wanted, each with how long it may take to get it.
pub type WantedKeys = BTreeMap<KeySource, Duration>;

/// Sets of keys (RFC 7517) that were got, by where they came from.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeyBook(BTreeMap<KeySource, Name>);

// === impl KeySource ===

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uri(uri) => f.write_str(uri),
            Self::Issuer(issuer) => write!(f, "the OpenID configuration of {issuer}"),
        }
    }
}

// === impl KeyBook ===

impl KeyBook {
    /// The last good set from there, as it came.
    pub fn get(&self, source: &KeySource) -> Option<&Name> {
        self.0.get(source)
    }

    /// Writes down a set. Returns whether it is another one than before.
    pub fn set(&mut self, source: KeySource, keys: Name) -> bool {
        let before = self.0.insert(source, keys.clone());
        before != Some(keys)
    }

    /// Forgets what is not among these. Returns whether there was anything.
    pub fn retain(&mut self, wanted: &WantedKeys) -> bool {
        let before = self.0.len();
        self.0.retain(|source, _| wanted.contains_key(source));
        self.0.len() < before
    }

    /// How many sets there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A set may hold symmetric keys, so none is shown.
impl fmt::Debug for KeyBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes = self.0.iter().map(|(source, keys)| (source, keys.len()));
        f.debug_map().entries(sizes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_book_says_what_changed_and_shows_no_key() {
        let mut book = KeyBook::default();
        let source = || KeySource::Uri("http://a/k".into());
        assert!(book.set(source(), "secret".into()));
        assert!(!book.set(source(), "secret".into()));
        assert!(book.set(source(), "others".into()));
        assert_eq!(book.get(&source()).map(|keys| &**keys), Some("others"));
        let said = format!("{book:?}");
        assert!(
            said.contains("http://a/k") && !said.contains("others"),
            "{said}"
        );
        assert!(!book.retain(&WantedKeys::from([(source(), Duration::ZERO)])));
        assert!(book.retain(&WantedKeys::new()));
        assert!(book.is_empty());
    }
}
