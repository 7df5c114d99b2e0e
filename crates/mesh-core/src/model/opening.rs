//! What streams to a gRPC service begin with.

use crate::Name;
use http::{HeaderName, HeaderValue};
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

/// What streams to a gRPC service begin with besides what every one does (Envoy `GrpcService`). By
/// default nothing. Values of metadata may be credentials: `Debug` never shows them.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct StreamOpening {
    /// What requests call the service (`:authority`; Envoy `envoy_grpc.authority`); empty is by its
    /// address.
    pub authority: Name,
    /// Metadata, in this order (Envoy `initial_metadata`).
    pub metadata: Arc<[(HeaderName, HeaderValue)]>,
}

// === impl StreamOpening ===

impl StreamOpening {
    /// Whether there is nothing besides what every stream begins with.
    pub fn is_empty(&self) -> bool {
        self.authority.is_empty() && self.metadata.is_empty()
    }

    fn key(&self) -> (&str, impl Iterator<Item = (&str, &[u8])>) {
        let metadata = self.metadata.iter();
        let metadata = metadata.map(|(name, value)| (name.as_str(), value.as_bytes()));
        (&self.authority, metadata)
    }
}

impl fmt::Debug for StreamOpening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.metadata.iter().map(|(name, _)| name.as_str());
        f.debug_struct("StreamOpening")
            .field("authority", &self.authority)
            .field("metadata", &names.collect::<Vec<_>>())
            .finish()
    }
}

impl PartialOrd for StreamOpening {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for StreamOpening {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((one, metadata), (two, others)) = (self.key(), other.key());
        one.cmp(two).then_with(|| metadata.cmp(others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_compared_and_never_shown() {
        let with = |value: &'static str| StreamOpening {
            authority: Name::default(),
            metadata: [(
                HeaderName::from_static("x-key"),
                HeaderValue::from_static(value),
            )]
            .into(),
        };
        let (one, two) = (with("hush-1"), with("hush-2"));
        assert!(one != two && one < two && StreamOpening::default() < one);
        assert_eq!(one.cmp(&with("hush-1")), Ordering::Equal);
        assert!(StreamOpening::default().is_empty() && !one.is_empty());
        let shown = format!("{one:?}");
        assert!(
            shown.contains("x-key") && !shown.contains("hush"),
            "{shown}"
        );
    }
}
