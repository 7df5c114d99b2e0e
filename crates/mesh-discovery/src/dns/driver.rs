//! Asks what is due and hands the answers over.

use super::Lookup;
use super::plan::{Plan, Question};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use mesh_core::model::Snapshot;
use mesh_core::{Feed, Rng};
use std::fmt;
use tokio::time::Instant;

/// Keeps the addresses behind the names of a mesh up to date.
///
/// It works while [`Resolver::run`] is polled, and starts nothing of its own. When it is dropped,
/// requests go to the names themselves again.
pub struct Resolver<L> {
    snapshots: Feed<Snapshot>,
    lookup: L,
    rng: Rng,
}

// === impl Resolver ===

impl<L: Lookup> Resolver<L> {
    /// Follows these snapshots and asks `lookup`.
    pub fn new(snapshots: Feed<Snapshot>, lookup: L) -> Self {
        Self {
            snapshots,
            lookup,
            rng: Rng::default(),
        }
    }

    /// Sets the source of randomness: of jitter, and of waits after failures.
    #[must_use]
    pub fn rng(mut self, rng: Rng) -> Self {
        self.rng = rng;
        self
    }

    /// Works until the snapshots end.
    pub async fn run(self) {
        let Self {
            mut snapshots,
            lookup,
            rng,
        } = self;
        let lookup = &lookup;
        let ask = |question: Question| async move {
            let answer = lookup.lookup(&question.name, question.family).await;
            (question.id, answer)
        };
        let mut plan = Plan::default();
        let mut asked = FuturesUnordered::new();
        plan.adopt(&snapshots.load(), now());
        loop {
            asked.extend(plan.take_due(now()).into_iter().map(ask));
            let due = plan.next();
            tokio::select! {
                changed = snapshots.changed() => match changed {
                    Ok(snapshot) => plan.adopt(&snapshot, now()),
                    Err(_) => return,
                },
                Some((id, answer)) = asked.next() => {
                    plan.answer(id, answer, now(), rng.word());
                }
                () = tokio::time::sleep_until(due.map_or_else(Instant::now, Instant::from_std)),
                    if due.is_some() => {}
            }
        }
    }
}

impl<L> fmt::Debug for Resolver<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests;
