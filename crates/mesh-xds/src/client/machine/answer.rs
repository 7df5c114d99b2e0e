//! What the caller says of resources, and the answers that follow from it.

use super::record::Refused;
use super::ticket::{Ticket, shortened};
use super::{Machine, Timer};
use crate::TypeUrl;
use mesh_core::Name;
use std::time::Instant;

/// An answer to a response, to be sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) kind: Option<TypeUrl>,
    pub(super) nonce: String,
    pub(super) error: Option<String>,
}

// === impl Machine ===

impl<R> Machine<R> {
    /// Says what became of a resource of an update: accepted, or why not. Verdicts may come later
    /// than [`Machine::handed_over`]; the answer waits for them.
    pub fn settle(&mut self, ticket: u64, name: &Name, result: Result<(), String>) {
        let Some(update) = self.tickets.get_mut(&ticket) else {
            return;
        };
        let Some(offered) = update.waiting.remove(name) else {
            return;
        };
        let (kind, server) = (update.kind, update.server.clone());
        if let Err(reason) = &result {
            update.refused.push((name.to_string(), reason.clone()));
        }
        let moves = update.moves.extract_if(.., |(_, to)| to == name);
        let aliases: Vec<Name> = moves.map(|(alias, _)| alias).collect();
        let accepted = result.is_ok();
        let mut expires = None;
        if let Some(all) = self.kinds.get_mut(&kind) {
            let wanted = all.wants(name);
            if let Some(record) = all.records.get_mut(name) {
                record.offered = record.offered.saturating_sub(1);
                match result {
                    _ if !wanted || record.newest > ticket => {}
                    Ok(()) => {
                        record.newest = ticket;
                        all.changed = all.changed.max(ticket);
                        record.accepted = Some((offered.version, server));
                        record.body = offered.body;
                        record.refused = None;
                        record.missing = false;
                        expires = Some(offered.expires);
                    }
                    Err(reason) => {
                        record.refused = Some(Refused {
                            version: offered.version,
                            reason: shortened(&reason).to_owned(),
                            body: offered.body,
                        });
                    }
                }
            }
            all.tidy(name);
        }
        if let Some(at) = expires {
            self.expires(kind, name, at);
        }
        if accepted {
            self.moved(kind, ticket, name, aliases);
        } else {
            for alias in &aliases {
                self.is_unusable(kind, alias);
            }
        }
        self.finish(ticket, kind);
    }

    /// Says that an update was applied, as far as it can be now.
    pub fn handed_over(&mut self, ticket: u64) {
        let Some(update) = self.tickets.get_mut(&ticket) else {
            return;
        };
        update.handed_over = true;
        let kind = update.kind;
        self.finish(ticket, kind);
    }

    /// Answers what is complete, in the order in which it came.
    fn finish(&mut self, ticket: u64, kind: TypeUrl) {
        let Some(all) = self.kinds.get_mut(&kind) else {
            return;
        };
        // The stream that it came on is gone, or it was answered early.
        if !all.unanswered.contains(&ticket) {
            if self.tickets.get(&ticket).is_some_and(Ticket::is_complete) {
                self.tickets.remove(&ticket);
            }
            return;
        }
        while let Some(first) = all.unanswered.front() {
            if !self.tickets.get(first).is_none_or(Ticket::is_complete) {
                return;
            }
            let Some(first) = all.unanswered.pop_front() else {
                return;
            };
            let Some(done) = self.tickets.remove(&first) else {
                continue;
            };
            let error = done.error();
            all.answered_with(first, &done.version, &done.server, error.as_deref());
            self.requests.push_back(Answer {
                url: kind.url().to_owned(),
                kind: Some(kind),
                nonce: done.nonce,
                error,
            });
        }
    }

    /// State of the world: a request says nothing new while a response waits for its answer, so
    /// what waits is answered as it stands. Returns false if the caller has not seen it yet.
    pub(super) fn answer_early(&mut self, kind: TypeUrl) -> bool {
        let Some(all) = self.kinds.get_mut(&kind) else {
            return true;
        };
        let seen = |ticket: &u64| self.tickets.get(ticket).is_none_or(|t| t.handed_over);
        if !all.unanswered.iter().all(seen) {
            return false;
        }
        for ticket in std::mem::take(&mut all.unanswered) {
            let Some(early) = self.tickets.get(&ticket) else {
                continue;
            };
            let error = early.error();
            all.answered_with(ticket, &early.version, &early.server, error.as_deref());
            self.requests.push_back(Answer {
                url: kind.url().to_owned(),
                kind: Some(kind),
                nonce: early.nonce.clone(),
                error,
            });
        }
        true
    }

    /// Sets when a resource's TTL passes.
    pub(super) fn expires(&mut self, kind: TypeUrl, name: &Name, at: Option<Instant>) {
        let all = self.kinds.get_mut(&kind);
        let Some(record) = all.and_then(|all| all.records.get_mut(name)) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut record.expires, at) {
            self.timers
                .remove(&(old, kind, name.clone(), Timer::Expired));
        }
        if let Some(at) = at {
            self.timers.insert((at, kind, name.clone(), Timer::Expired));
        }
    }
}
