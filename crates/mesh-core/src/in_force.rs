//! The snapshot in force, pinned.

use crate::Feed;
use crate::Pinned;
use crate::model::Snapshot;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// The snapshot in force, pinned once for all clones of this: what one worker's layers share.
///
/// The lock is one that nobody waits for: where two threads meet, one takes the snapshot from the feed
/// instead, which costs an allocation. Give each worker one of its own ([`InForce::new`]) and they never
/// meet.
///
/// What is pinned stays in memory until the next request, or until [`InForce::let_go`].
///
/// ```
/// use mesh_core::model::SnapshotBuilder;
/// use mesh_core::{InForce, Publisher};
/// use std::sync::Arc;
///
/// let snapshot = || SnapshotBuilder::default().build().unwrap().0;
/// let publisher = Publisher::from_arc(snapshot());
/// let in_force = InForce::new(publisher.feed());
/// let old = Arc::downgrade(in_force.pinned().snapshot());
/// publisher.publish(snapshot());
/// // An idle worker would have it for ever.
/// assert!(old.upgrade().is_some());
/// in_force.let_go();
/// assert!(old.upgrade().is_none());
/// ```
#[derive(Clone)]
pub struct InForce {
    feed: Feed<Snapshot>,
    /// The pinned snapshot and the version of the feed at which it was pinned.
    pin: Arc<Mutex<Option<(u64, Pinned)>>>,
}

// === impl InForce ===

impl InForce {
    /// What is in force by this feed, with a pin of its own.
    pub fn new(feed: Feed<Snapshot>) -> Self {
        Self {
            feed,
            pin: Arc::default(),
        }
    }

    /// Where the snapshots come from.
    #[inline]
    pub fn feed(&self) -> &Feed<Snapshot> {
        &self.feed
    }

    /// The snapshot in force.
    #[inline]
    pub fn pinned(&self) -> Pinned {
        // The version first: a snapshot that comes after it is only pinned too early, never late.
        let version = self.feed.version();
        let Some(mut pin) = self.pin.try_lock() else {
            return Pinned::new(self.feed.load());
        };
        match &*pin {
            Some((at, pinned)) if *at == version => pinned.clone(),
            _ => {
                let pinned = Pinned::new(self.feed.load());
                *pin = Some((version, pinned.clone()));
                pinned
            }
        }
    }

    /// Lets go of a snapshot that is no longer in force. Requests that met it keep it until they end.
    pub fn let_go(&self) {
        let version = self.feed.version();
        // Whoever has the lock pins the new one.
        let old = self.pin.try_lock();
        let old = old.and_then(|mut pin| pin.take_if(|(at, _)| *at != version));
        // Without the lock: it may be the last that has it.
        drop(old);
    }
}

impl From<Feed<Snapshot>> for InForce {
    fn from(feed: Feed<Snapshot>) -> Self {
        Self::new(feed)
    }
}

impl fmt::Debug for InForce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.pin.lock().as_ref().map(|(at, _)| *at);
        f.debug_struct("InForce")
            .field("pinned", &at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Publisher;
    use crate::model::SnapshotBuilder;

    fn snapshot() -> Arc<Snapshot> {
        SnapshotBuilder::default().build().unwrap().0
    }

    #[test]
    fn clones_share_one_pin_until_there_is_another_snapshot() {
        let publisher = Publisher::from_arc(snapshot());
        let in_force = InForce::new(publisher.feed());
        let other = in_force.clone();
        let first = in_force.pinned();
        let shared = other.pinned();
        assert!(std::ptr::eq(first.snapshot(), shared.snapshot()));
        let next = snapshot();
        publisher.publish(next.clone());
        assert!(Arc::ptr_eq(in_force.pinned().snapshot(), &next));
    }

    #[test]
    fn who_meets_another_thread_takes_it_from_the_feed() {
        let publisher = Publisher::from_arc(snapshot());
        let in_force = InForce::new(publisher.feed());
        let kept = in_force.pinned();
        let held = in_force.pin.lock();
        let own = in_force.pinned();
        assert!(Arc::ptr_eq(kept.snapshot(), own.snapshot()));
        assert!(!std::ptr::eq(kept.snapshot(), own.snapshot()));
        // Nor does this wait.
        in_force.let_go();
        drop(held);
    }

    #[test]
    fn only_what_is_no_longer_in_force_is_let_go_of() {
        let publisher = Publisher::from_arc(snapshot());
        let in_force = InForce::new(publisher.feed());
        let kept = in_force.pinned();
        in_force.let_go();
        assert!(std::ptr::eq(kept.snapshot(), in_force.pinned().snapshot()));
        let old = Arc::downgrade(kept.snapshot());
        publisher.publish(snapshot());
        in_force.let_go();
        assert!(old.upgrade().is_some(), "a request still has it");
        drop(kept);
        assert!(old.upgrade().is_none());
    }
}
