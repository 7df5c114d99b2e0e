//! What a proxy says of itself in the two headers, and taking them off again.

use super::{METADATA, METADATA_ID, encode};
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::model::WorkloadRef;

/// What a workload says of itself: the values of both headers, encoded once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    metadata: HeaderValue,
    id: HeaderValue,
}

/// What a message said of its sender, after it was taken off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) metadata: Option<HeaderValue>,
    pub(crate) id: bool,
}

/// Which of the headers a request had: an answer has the same ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) metadata: bool,
    pub(crate) id: bool,
}

// === impl Introduction ===

impl Introduction {
    /// What `workload` says of itself. None if it has no name: whoever does not know who they are
    /// say nothing.
    ///
    /// Istio's proxies remember metadata by the id that came with it, so the id changes whenever
    /// the metadata does: `NAME.NAMESPACE~HASH`.
    pub fn of(workload: &WorkloadRef) -> Option<Self> {
        if workload.name.is_empty() {
            return None;
        }
        let metadata = encode(workload);
        let hash = fnv1a(metadata.as_bytes());
        let named = format!("{}.{}~{hash:016x}", workload.name, workload.namespace);
        // A name that no header can hold does without.
        let id = HeaderValue::try_from(named).unwrap_or_else(|_| hash.into());
        Some(Self { metadata, id })
    }

    /// The value of [`METADATA`].
    pub fn metadata(&self) -> &HeaderValue {
        &self.metadata
    }

    /// The value of [`METADATA_ID`].
    pub fn id(&self) -> &HeaderValue {
        &self.id
    }

    /// Puts both headers in place of whatever was there under their names.
    pub fn write(&self, headers: &mut HeaderMap) {
        let both = Asked {
            metadata: true,
            id: true,
        };
        self.answer(both, headers);
    }

    /// Puts those headers on that were asked for.
    pub(crate) fn answer(&self, asked: Asked, headers: &mut HeaderMap) {
        if asked.metadata {
            headers.insert(METADATA, self.metadata.clone());
        }
        if asked.id {
            headers.insert(METADATA_ID, self.id.clone());
        }
    }
}

/// Takes both headers off.
pub(crate) fn take(headers: &mut HeaderMap) -> Taken {
    // One look at the names: most messages have neither.
    let theirs = |name: &HeaderName| *name == METADATA || *name == METADATA_ID;
    if !headers.keys().any(theirs) {
        return Taken::default();
    }
    Taken {
        metadata: headers.remove(METADATA),
        id: headers.remove(METADATA_ID).is_some(),
    }
}

// === impl Taken ===

impl Taken {
    pub(crate) fn asked(&self) -> Asked {
        Asked {
            metadata: self.metadata.is_some(),
            id: self.id,
        }
    }
}

/// FNV-1a with 64 bits: tells different metadata apart, no more.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::super::decode;
    use super::*;

    fn workload(name: &str, version: &str) -> WorkloadRef {
        let mut workload = WorkloadRef::default();
        workload.name = name.into();
        workload.namespace = "default".into();
        workload.version = version.into();
        workload
    }

    #[test]
    fn a_workload_without_a_name_has_nothing_to_say() {
        assert_eq!(Introduction::of(&WorkloadRef::default()), None);
        assert_eq!(Introduction::of(&workload("", "v1")), None);
    }

    #[test]
    fn the_id_is_another_whenever_the_metadata_is() {
        let one = Introduction::of(&workload("reviews", "v1")).unwrap();
        let same = Introduction::of(&workload("reviews", "v1")).unwrap();
        let next = Introduction::of(&workload("reviews", "v2")).unwrap();
        assert_eq!(one, same);
        assert_ne!(one.id(), next.id());
        let id = one.id().to_str().unwrap();
        assert!(id.starts_with("reviews.default~"), "{id}");
    }

    #[test]
    fn a_name_that_no_header_can_hold_is_still_told_in_the_metadata() {
        let odd = workload("a\nb", "");
        let said = Introduction::of(&odd).unwrap();
        assert!(said.id().to_str().unwrap().parse::<u64>().is_ok());
        assert_eq!(decode(said.metadata().as_bytes()), Some(odd));
    }

    #[test]
    fn what_is_written_replaces_every_value_and_what_is_taken_is_gone() {
        let said = Introduction::of(&workload("reviews", "v1")).unwrap();
        let mut headers = HeaderMap::new();
        headers.append(METADATA, HeaderValue::from_static("one"));
        headers.append(METADATA, HeaderValue::from_static("two"));
        headers.append("x-kept", HeaderValue::from_static("yes"));
        said.write(&mut headers);
        assert_eq!(headers.get_all(METADATA).iter().count(), 1);
        assert_eq!(headers[METADATA_ID], said.id());
        let taken = take(&mut headers);
        assert_eq!(taken.metadata.as_ref(), Some(said.metadata()));
        assert!(taken.asked().metadata && taken.asked().id);
        assert_eq!(headers.len(), 1);
        assert_eq!(take(&mut headers).asked(), Asked::default());
    }

    #[test]
    fn an_answer_has_the_headers_that_were_asked_for() {
        let said = Introduction::of(&workload("reviews", "v1")).unwrap();
        for (metadata, id) in [(false, false), (true, false), (false, true), (true, true)] {
            let mut headers = HeaderMap::new();
            said.answer(Asked { metadata, id }, &mut headers);
            let has = |name| headers.contains_key(name);
            assert_eq!((has(METADATA), has(METADATA_ID)), (metadata, id));
        }
    }
}
