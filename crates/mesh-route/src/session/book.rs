//! What is counted of sessions, by prefix.

use mesh_core::Name;
use mesh_core::model::Session;
use mesh_core::stats::{Block, SessionStat};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// What is counted of sessions, by the prefix of the listener's manager, none for those of rules, and
/// that of the session. Cheap to clone; clones share it. Prefixes come from configuration, never from
/// callers.
#[derive(Clone, Debug, Default)]
pub struct SessionBook(Arc<Mutex<Blocks>>);

type Blocks = BTreeMap<Prefixes, Arc<Block<SessionStat>>>;

/// The prefix of the listener's manager, none for a rule's session, and that of the session.
type Prefixes = (Option<Name>, Name);

// === impl SessionBook ===

impl SessionBook {
    /// All that was counted, sorted.
    pub fn all(&self) -> Vec<(Prefixes, Arc<Block<SessionStat>>)> {
        let blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        blocks
            .iter()
            .map(|(key, block)| (key.clone(), block.clone()))
            .collect()
    }

    /// Where it is counted, if the session has a prefix. Found once for each session.
    pub(super) fn of<'a>(
        &self,
        manager: Option<&Name>,
        session: &'a Session,
    ) -> Option<&'a Block<SessionStat>> {
        let prefix = Some(&session.stat_prefix).filter(|prefix| !prefix.is_empty())?;
        let block: &Arc<Block<SessionStat>> = session.slot.get_or_init(|| {
            let key = (manager.cloned(), prefix.clone());
            let mut blocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            blocks.entry(key).or_default().clone()
        });
        Some(block)
    }
}
