//! The names of the fields of the head before: the next one mostly has the same in the same order, and
//! to compare a name takes a fraction of what making one does.

use crate::HeadError;
use http::header::{self, HeaderName};

/// Names of one kind of heads, requests' or responses'.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<Known>);

#[derive(Debug)]
struct Known {
    /// As it was written.
    text: Box<[u8]>,
    name: HeaderName,
    role: Role,
}

/// What a field has to do with the message and its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    None,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    Te,
}

/// So many names are remembered, and only short ones: a peer chooses them.
const MOST: usize = 32;
const LONGEST: usize = 48;

// === impl Names ===

impl Names {
    /// The name of the field `at` this place of a head.
    ///
    /// # Errors
    /// If it cannot be one.
    pub(super) fn name(&mut self, at: usize, text: &[u8]) -> Result<(HeaderName, Role), HeadError> {
        if let Some(known) = self.0.get(at)
            // Mostly letters are as large as they were, too.
            && (*known.text == *text || known.text.eq_ignore_ascii_case(text))
        {
            return Ok((known.name.clone(), known.role));
        }
        let (name, role) = Self::made(text)?;
        if at < MOST && text.len() <= LONGEST {
            let entry = Known {
                text: text.into(),
                name: name.clone(),
                role,
            };
            let count = self.0.len();
            match self.0.get_mut(at) {
                Some(known) => *known = entry,
                None if at == count => self.0.push(entry),
                // One before it was too long.
                None => {}
            }
        }
        Ok((name, role))
    }

    /// A name that nothing is known of.
    ///
    /// # Errors
    /// If it cannot be one.
    pub(super) fn made(text: &[u8]) -> Result<(HeaderName, Role), HeadError> {
        let name = HeaderName::from_bytes(text).map_err(|_| HeadError::Field)?;
        let role = Role::of(&name);
        Ok((name, role))
    }
}

// === impl Role ===

impl Role {
    fn of(name: &HeaderName) -> Self {
        match *name {
            header::CONTENT_LENGTH => Self::ContentLength,
            header::TRANSFER_ENCODING => Self::TransferEncoding,
            header::CONNECTION => Self::Connection,
            header::UPGRADE => Self::Upgrade,
            header::EXPECT => Self::Expect,
            header::TE => Self::Te,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_long_name_is_not_remembered_and_none_behind_many() {
        let mut names = Names::default();
        let long = [b'a'; LONGEST + 1];
        assert_eq!(names.name(0, &long).unwrap().0.as_str().as_bytes(), long);
        assert!(names.0.is_empty());
        for at in 0..2 * MOST {
            names.name(at, b"x").unwrap();
        }
        assert_eq!(names.0.len(), MOST);
        assert_eq!(names.name(0, b"a b").unwrap_err(), HeadError::Field);
    }

    proptest! {
        #[test]
        fn what_was_remembered_changes_no_name(
            heads in prop::collection::vec(
                prop::collection::vec("[tT][eE]|[uU]pgrade|x-[a-c]|X-[A-C]|content-length|a b", 0..6),
                1..6,
            ),
        ) {
            let mut names = Names::default();
            for head in heads {
                for (at, text) in head.iter().enumerate() {
                    let text = text.as_bytes();
                    let fresh = Names::made(text);
                    prop_assert_eq!(names.name(at, text), fresh);
                }
            }
        }
    }
}
