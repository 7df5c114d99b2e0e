//! What a client says to a response.

use super::Machine;
use super::kind::{InFlight, Kind, Rejected, Stamp};
use crate::TypeUrl;
use crate::pb::google::rpc;
use crate::server::Event;
use mesh_core::Name;
use std::time::Instant;

/// How much of an error message is kept, in bytes.
const MESSAGE: usize = 4096;

// === impl Machine ===

impl Machine {
    /// The client acknowledges or rejects what is in flight.
    pub(super) fn answer(&mut self, kind: TypeUrl, error: Option<rpc::Status>, now: Instant) {
        let whole = self.is_whole(kind);
        let Some(state) = self.kinds.get_mut(&kind) else {
            return;
        };
        let Some(sent) = state.in_flight.take() else {
            return;
        };
        let stamp = Stamp {
            version: sent.version.clone(),
            nonce: sent.nonce.clone(),
            at: now,
        };
        let event = match error {
            None => state.acknowledge(sent, stamp, now),
            Some(error) => state.reject(sent, stamp, &error, whole),
        };
        self.tell(event);
    }
}

// === impl Kind ===

impl Kind {
    fn acknowledge(&mut self, sent: InFlight, stamp: Stamp, now: Instant) -> Event {
        for (name, _) in &sent.items {
            self.rejected.remove(name);
        }
        self.nacked = None;
        self.rejected_whole = false;
        if let Some(covers) = &sent.covers {
            self.advance(covers);
        }
        self.acked = Some(stamp);
        Event::Acked {
            kind: self.kind,
            nonce: sent.nonce,
            took: now.saturating_duration_since(sent.at),
            converged: sent.changed.map(|at| now.saturating_duration_since(at)),
        }
    }

    fn reject(&mut self, sent: InFlight, stamp: Stamp, error: &rpc::Status, whole: bool) -> Event {
        let message = Name::from(cut(&error.message, MESSAGE));
        let named: Vec<Name> = {
            let names = sent.items.iter().map(|(name, _)| name);
            names
                .filter(|name| !name.is_empty() && message.contains(name.as_str()))
                .cloned()
                .collect()
        };
        let resources = match named.is_empty() {
            true => sent.items.iter().map(|(name, _)| name.clone()).collect(),
            false => named,
        };
        for (name, before) in sent.items {
            // A removal cannot be invalid; and what is no longer held is of no concern.
            if self
                .entries
                .get(&name)
                .is_none_or(|entry| entry.sent.is_none())
            {
                continue;
            }
            let before = match self.rejected.remove(&name) {
                Some(older) => older.before,
                None => before,
            };
            let message = message.clone();
            self.rejected.insert(name, Rejected { message, before });
        }
        self.rejected_whole = whole && self.rejected.is_empty();
        self.nacked = Some((stamp, message.clone()));
        if let Some(covers) = &sent.covers {
            self.advance(covers);
        }
        Event::Nacked {
            kind: self.kind,
            nonce: sent.nonce,
            message,
            resources,
        }
    }
}

/// The beginning of a text, at most this many bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    let most = (0..=most.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    &text[..most.unwrap_or(0)]
}
