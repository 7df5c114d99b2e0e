//! What a token says: JSON as `google.protobuf.Struct` has it, numbers as doubles.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A value in a token's payload.
///
/// Equality of numbers is that of their bits, so that every value equals itself.
#[derive(Clone)]
#[non_exhaustive]
pub enum Claim {
    /// `null`
    Null,
    /// `true` and `false`
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// Named values. JSON has each name once.
    Object(BTreeMap<String, Self>),
}

/// The claims of a token that was found valid. Cheap to clone. As an extension of a request they
/// are those of its caller.
#[derive(Clone, PartialEq, Eq)]
pub struct Claims(Arc<Claim>);

// === impl Claim ===

impl Claim {
    /// The value at the end of a way through objects; none where there is none.
    pub fn at<S: AsRef<str>>(&self, way: &[S]) -> Option<&Self> {
        way.iter().try_fold(self, |value, name| match value {
            Self::Object(fields) => fields.get(name.as_ref()),
            _ => None,
        })
    }

    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl PartialEq for Claim {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => a.to_bits() == b.to_bits(),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::List(a), Self::List(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Claim {}

/// What callers say of themselves does not belong in logs.
impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Bool(_) => f.write_str("Bool(..)"),
            Self::Number(_) => f.write_str("Number(..)"),
            Self::Text(_) => f.write_str("Text(..)"),
            Self::List(items) => write!(f, "List({})", items.len()),
            Self::Object(fields) => write!(f, "Object({})", fields.len()),
        }
    }
}

// === impl Claims ===

impl Claims {
    /// Claims of a payload.
    pub fn new(payload: Claim) -> Self {
        Self(Arc::new(payload))
    }

    /// The payload.
    pub fn payload(&self) -> &Claim {
        &self.0
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Claims")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_leads_through_objects_only_and_nothing_is_told_in_debug() {
        let inner = Claim::Object([("b".to_owned(), Claim::Text("secret".into()))].into());
        let list = Claim::List(vec![inner.clone()]);
        let all = Claim::Object([("a".to_owned(), inner), ("l".to_owned(), list)].into());
        assert_eq!(all.at(&["a", "b"]).and_then(Claim::text), Some("secret"));
        assert_eq!(all.at(&["l", "b"]), None);
        assert_eq!(all.at(&["a", "b", "c"]), None);
        assert!(!format!("{all:?} {:?}", Claims::new(all.clone())).contains("secret"));
        let number = Claim::Number(f64::NAN);
        assert_eq!(number, number.clone());
    }
}
