//! How far a client is.

use super::Machine;
use super::kind::{Kind, Stamp};
use crate::server::status::{Nacked, ResourceState, ResourceStatus, Sent, Sync, TypeStatus};
use crate::{Encoded, TypeUrl};
use std::collections::HashSet;
use std::time::Instant;

// === impl Machine ===

impl Machine {
    /// How far the client is with each type that it asked for.
    pub fn status(&self, now: Instant) -> Vec<TypeStatus> {
        self.kinds.values().map(|kind| kind.status(now)).collect()
    }

    /// A resource as it is now.
    pub(in crate::server) fn present(&self, kind: TypeUrl, name: &str) -> Option<Encoded> {
        self.present.get(kind, name)
    }

    /// How the client stands to each resource of a type, by name. Costs as much as there are.
    pub fn resources(&self, kind: TypeUrl) -> Vec<ResourceStatus> {
        let Some(state) = self.kinds.get(&kind) else {
            return Vec::new();
        };
        let in_flight = state.in_flight.iter().flat_map(|sent| &sent.items);
        let in_flight: HashSet<&str> = in_flight.map(|(name, _)| name.as_str()).collect();
        let mut all: Vec<_> = state
            .entries
            .iter()
            .map(|(name, entry)| {
                let state = match &entry.sent {
                    None if state.is_pending(name) => ResourceState::Requested,
                    None => ResourceState::DoesNotExist,
                    Some(_) if in_flight.contains(name.as_str()) => ResourceState::Requested,
                    Some(version) => match state.rejected.get(name) {
                        Some(rejected) => ResourceState::Nacked {
                            message: rejected.message.clone(),
                            before: rejected.before.clone(),
                        },
                        None => match self.present.get(kind, name) {
                            Some(there) if there.version == *version => ResourceState::Acked,
                            _ => ResourceState::Stale,
                        },
                    },
                };
                ResourceStatus {
                    name: name.clone(),
                    version: entry.sent.clone(),
                    state,
                }
            })
            .collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }
}

// === impl Kind ===

impl Kind {
    fn status(&self, now: Instant) -> TypeStatus {
        let resources = self
            .entries
            .values()
            .filter(|entry| entry.sent.is_some())
            .count();
        let sync = match &self.nacked {
            _ if self.in_flight.is_some() || self.has_pending() => Sync::Stale,
            Some(_) => Sync::Nacked,
            None if self.gates.len() > 0 => Sync::Stale,
            None if self.sent.is_none() && self.acked.is_none() && resources == 0 => Sync::NotSent,
            None => Sync::Synced,
        };
        TypeStatus {
            kind: self.kind,
            wildcard: self.wildcard,
            named: self.named,
            resources,
            sync,
            sent: self.sent.as_ref().map(|stamp| stamp.sent(now)),
            acked: self.acked.as_ref().map(|stamp| stamp.sent(now)),
            nacked: self.nacked.as_ref().map(|(stamp, message)| Nacked {
                version: stamp.version.clone(),
                nonce: stamp.nonce.clone(),
                message: message.clone(),
                ago: now.saturating_duration_since(stamp.at),
            }),
            held: self.gates.len(),
        }
    }

    fn is_pending(&self, name: &str) -> bool {
        self.pending.everything || self.pending.names.contains(name)
    }
}

// === impl Stamp ===

impl Stamp {
    fn sent(&self, now: Instant) -> Sent {
        Sent {
            version: self.version.clone(),
            nonce: self.nonce.clone(),
            ago: now.saturating_duration_since(self.at),
        }
    }
}
