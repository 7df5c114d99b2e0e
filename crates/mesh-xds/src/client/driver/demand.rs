//! What requests find missing: asked for, answered, given up.
//!
//! Only the servers that have the names without an authority are asked: what requests name is never
//! a structured name, and tables with one have no virtual hosts on demand.

use super::core::Core;
use crate::TypeUrl;
use crate::assemble::{Change, To, Verdict};
use crate::client::demand::{Key, Todo};
use crate::read::Source;
use mesh_core::Name;
use mesh_core::demand::{Missing, Outcome};
use std::time::Instant;
use tokio::sync::oneshot;

// === impl Core ===

impl Core {
    /// A request wants something that is not there.
    pub(super) fn ask(
        &mut self,
        missing: &Missing,
        answer: oneshot::Sender<Outcome>,
        now: Instant,
    ) {
        let key = self.demands.limits().key(missing);
        let Some(key) = key.filter(|_| self.answers_demands) else {
            // Whoever asked may be gone, here and below: no matter.
            let _ = answer.send(Outcome::Absent);
            return;
        };
        let (kind, name) = &key;
        if *kind == TypeUrl::Cluster && self.snapshots.load().cluster(name).is_some() {
            let _ = answer.send(Outcome::Came);
            return;
        }
        let todo = self.demands.ask(key, answer);
        self.follow(todo, now);
        self.work(now);
    }

    /// There is an answer to a question.
    pub(super) fn answered(&mut self, key: &Key, outcome: Outcome, now: Instant) {
        let todo = self.demands.answered(key, outcome);
        self.follow(todo, now);
    }

    fn follow(&mut self, todo: Todo, now: Instant) {
        if let Some((kind, name)) = todo.drop {
            tracing::debug!(kind = kind.short(), %name, "no longer wanted on demand");
            self.machines[0].take_back(kind, &name);
            // What is wanted for good or is part of everything stays as long as the server says so.
            if !self.machines[0].wants(kind, &name) {
                let gone = Change {
                    from: Source::Ads,
                    ticket: 0,
                    to: To::Gone(kind, name),
                };
                let step = self.assemble.apply(vec![gone], now);
                self.act(step, now);
            }
        }
        if let Some((kind, name)) = todo.ask {
            self.machines[0].ask(kind, &name);
        }
    }

    /// Clusters that were asked for may be in force.
    pub(super) fn clusters_came(&mut self) {
        let snapshot = self.snapshots.load();
        let open = self.demands.open(TypeUrl::Cluster);
        let came = open.filter(|name| snapshot.cluster(name).is_some());
        let came: Vec<Name> = came.cloned().collect();
        for name in came {
            self.settled((TypeUrl::Cluster, name), Outcome::Came);
        }
    }

    /// What was asked for is in force, or was refused.
    pub(super) fn demands_settled(&mut self, verdicts: &[Verdict]) {
        for Verdict {
            kind, name, result, ..
        } in verdicts
        {
            match (kind, result) {
                // The snapshot says when it is in force.
                (TypeUrl::Cluster, Ok(())) => {}
                // An older version comes into force once it is warm.
                (TypeUrl::Cluster, Err(_)) if self.machines[0].has(*kind, name) => {}
                (TypeUrl::Cluster, Err(_)) => {
                    self.settled((*kind, name.clone()), Outcome::Absent);
                }
                (TypeUrl::VirtualHost, _) => {
                    // With a refused version an older one may be in force.
                    let there = result.is_ok() || self.machines[0].has(*kind, name);
                    let outcome = match there {
                        true => Outcome::Came,
                        false => Outcome::Absent,
                    };
                    for asked in self.machines[0].answers_for(*kind, name) {
                        self.settled((*kind, asked), outcome);
                    }
                }
                _ => {}
            }
        }
    }

    /// There is an answer to a question, if it is open. What follows from it is done later.
    fn settled(&mut self, key: Key, outcome: Outcome) {
        if self.demands.is_open(&key) {
            let todo = self.demands.answered(&key, outcome);
            self.dropped.extend(todo.drop);
        }
    }

    /// Nothing has virtual hosts of this table any more.
    pub(super) fn unfollow(&mut self, table: &Name) {
        for key in self.demands.of_table(table) {
            self.demands.answered(&key, Outcome::Absent);
        }
        self.machines[0].unfollow(table);
    }

    /// Lets go of what was given up while something else was done.
    pub(super) fn let_go(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.dropped) {
            let todo = Todo {
                ask: None,
                drop: Some(key),
            };
            self.follow(todo, now);
        }
    }
}
