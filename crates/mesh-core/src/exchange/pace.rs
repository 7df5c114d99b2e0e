//! Answers that are to be passed on slowly.

use super::Exchange;
use std::any::Any;
use std::fmt;
use std::num::NonZeroU64;

/// How slowly, and what is held until the request is over.
pub(super) struct Slow {
    rate: NonZeroU64,
    held: Option<Box<dyn Any + Send + Sync>>,
}

impl Exchange {
    /// Has the answer passed on at this rate, in KiB (1,024 bytes) a second, by whoever looks at
    /// [`Exchange::pace`] (Envoy `HTTPFault.response_rate_limit`). `held` is dropped when the request
    /// is over.
    pub fn set_pace(&self, rate: NonZeroU64, held: Option<Box<dyn Any + Send + Sync>>) {
        self.shared().pace = Some(Box::new(Slow { rate, held }));
    }

    /// How slowly the answer is to be passed on, in KiB a second. None: as it comes.
    pub fn pace(&self) -> Option<NonZeroU64> {
        self.shared().pace.as_ref().map(|slow| slow.rate)
    }
}

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slow")
            .field("rate", &self.rate)
            .field("holds", &self.held.is_some())
            .finish()
    }
}
