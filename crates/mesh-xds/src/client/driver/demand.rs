//! What requests find missing: asked for, answered, given up.

use super::core::Core;
use crate::TypeUrl;
use crate::assemble::{Change, To, Verdict};
use crate::client::demand::{Key, Todo};
use crate::client::machine::Variant;
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
        let speaks_delta = self.machines[0].config().variant == Variant::Delta;
        let key = self.demands.limits().key(missing);
        let Some(key) = key.filter(|_| speaks_delta) else {
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
            self.machines[0].unsubscribe(kind, &name);
            // What is part of everything stays as long as the server says so.
            if !self.machines[0].wants(kind, &name) {
                let gone = Change {
                    from: Source::Ads,
                    ticket: 0,
                    to: To::Gone(kind, name),
                };
                let step = self.assemble.apply(vec![gone], now);
                self.act(step);
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
            let todo = self
                .demands
                .answered(&(TypeUrl::Cluster, name), Outcome::Came);
            self.dropped.extend(todo.drop);
        }
    }

    /// Virtual hosts that were asked for are in force, or were refused.
    pub(super) fn hosts_settled(&mut self, verdicts: &[Verdict]) {
        let hosts = verdicts.iter().filter(|v| v.kind == TypeUrl::VirtualHost);
        let mut answers = Vec::new();
        for verdict in hosts {
            let outcome = match verdict.result {
                Ok(()) => Outcome::Came,
                Err(_) => Outcome::Absent,
            };
            let open = self.demands.open(TypeUrl::VirtualHost);
            let of = |name: &&Name| {
                *self.machines[0].resolved(TypeUrl::VirtualHost, name) == verdict.name
            };
            answers.extend(open.filter(of).map(|name| (name.clone(), outcome)));
        }
        for (name, outcome) in answers {
            let todo = self
                .demands
                .answered(&(TypeUrl::VirtualHost, name), outcome);
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
