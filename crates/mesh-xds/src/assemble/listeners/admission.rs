//! What listeners have to be given before they are accepted: their sockets.

use super::{Assemble, ListenerResource};
use mesh_core::Invalid;
use mesh_core::model::Listener;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Asks for what a listener needs that the assembly cannot give, its socket above all. An error
/// refuses the listener; the last good version stays.
pub type Admit = Box<dyn Fn(&Listener) -> Result<Permit, Invalid> + Send + Sync>;

/// What a listener was given. It is dropped with the last version of the listener that has the
/// same address, whether that was in force or never came to it.
#[derive(Clone)]
pub struct Permit(
    #[expect(dead_code, reason = "it is dropped, and that is all")] Arc<dyn Any + Send + Sync>,
);

// === impl Permit ===

impl Permit {
    /// Holds on to this.
    pub fn holding(what: impl Any + Send + Sync) -> Self {
        Self(Arc::new(what))
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

// === impl Assemble ===

impl Assemble {
    /// The permit for a version of a listener: the one that it has, if it stays where it is.
    pub(super) fn admit(&self, resource: &ListenerResource) -> Result<Option<Permit>, Invalid> {
        let Some(admit) = &self.options.admit else {
            return Ok(None);
        };
        let listener = &resource.listener;
        if !listener.bind {
            // It gets what others hand over; it has no socket.
            return Ok(None);
        }
        let state = self.listeners.all.get(&listener.name);
        let held = state.and_then(|state| state.permit_for(&listener.address));
        match held {
            Some(permit) => Ok(Some(permit.clone())),
            None => admit(listener).map(Some),
        }
    }
}
