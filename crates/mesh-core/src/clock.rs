//! The time of day, injected: for access logs and, later, certificates.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Tells the time of day. Cheap to clone.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

// === impl WallClock ===

impl WallClock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Arc::new(SystemTime::now))
    }

    /// A clock that always shows this much after 1970, for tests.
    pub fn fixed(since_epoch: Duration) -> Self {
        Self(Arc::new(move || SystemTime::UNIX_EPOCH + since_epoch))
    }

    /// The present time.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl Default for WallClock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WallClock")
    }
}
