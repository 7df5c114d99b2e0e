//! Changes of a response's headers that were decided on its way in.

use http::{HeaderMap, HeaderName, HeaderValue};

/// A change of a response's headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyEdit {
    /// The header.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
    /// What becomes of those that are there.
    pub put: PutReply,
}

/// What becomes of headers of the same name (Envoy `HeaderAppendAction`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutReply {
    /// They stay, and it comes beside them.
    Add,
    /// They are replaced.
    Set,
    /// They stay, and nothing is put where there is one.
    IfAbsent,
    /// They are replaced, and nothing is put where there is none.
    IfPresent,
}

// === impl ReplyEdit ===

impl ReplyEdit {
    /// Changes headers.
    pub fn apply(self, headers: &mut HeaderMap) {
        let Self { name, value, put } = self;
        let present = headers.contains_key(&name);
        match put {
            PutReply::Add => {
                headers.append(name, value);
            }
            PutReply::IfAbsent if present => {}
            PutReply::IfPresent if !present => {}
            _ => {
                headers.insert(name, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_stays_or_goes_as_it_is_said() {
        for (put, with, without) in [
            (PutReply::Add, "old new", "new"),
            (PutReply::Set, "new", "new"),
            (PutReply::IfAbsent, "old", "new"),
            (PutReply::IfPresent, "new", ""),
        ] {
            for (before, expected) in [(true, with), (false, without)] {
                let mut headers = HeaderMap::new();
                let name = HeaderName::from_static("x-a");
                if before {
                    headers.insert(&name, HeaderValue::from_static("old"));
                }
                let value = HeaderValue::from_static("new");
                let (name, get) = (name.clone(), name);
                ReplyEdit { name, value, put }.apply(&mut headers);
                let all: Vec<_> = headers.get_all(get).iter().collect();
                let all: Vec<_> = all.iter().map(|v| v.to_str().unwrap()).collect();
                assert_eq!(all.join(" "), expected, "{put:?} {before}");
            }
        }
    }
}
