//! What requests wait for, and what came because a request once waited for it. Both are bounded:
//! who sends requests chooses the names.
//!
//! ```text
//!          ask                    answered: Came
//!  (none) ─────► open, with waiters ─────────────► kept ─► the oldest goes when there are too many
//!                   │ answered: Absent; or nobody waits any more and the room is needed
//!                   └────────────────► (none): asked again the next time
//! ```

use crate::TypeUrl;
use mesh_core::Name;
use mesh_core::demand::{Answered, Missing, Outcome, Provide};
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::{mpsc, oneshot};

use super::handle::Command;

/// Bounds on what is asked for on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DemandLimits {
    /// Questions without an answer. Beyond it requests are refused
    /// ([`Outcome::Refused`]), unless there is one that nobody waits for any more: that is given
    /// up. Default 1,000.
    pub open: usize,
    /// Resources that came on demand, of both types together. Beyond it the one that was asked for
    /// the longest ago is given up; a request that wants it asks again. Default 10,000.
    pub kept: usize,
    /// Bytes of an authority or a cluster's name. Longer ones do not exist. Default 512.
    pub name: usize,
}

/// A name of a type.
pub(super) type Key = (TypeUrl, Name);

/// What is asked for on demand.
#[derive(Debug)]
pub(super) struct Demands {
    limits: DemandLimits,
    entries: BTreeMap<Key, Entry>,
    /// From the one that was asked for the longest ago.
    order: BTreeMap<u64, Key>,
    next: u64,
    /// Those without an answer.
    open: BTreeSet<Key>,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    /// None: it came.
    waiting: Option<Vec<oneshot::Sender<Outcome>>>,
}

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Todo {
    /// To be subscribed to.
    pub(super) ask: Option<Key>,
    /// To be unsubscribed from.
    pub(super) drop: Option<Key>,
}

/// Asks a client that runs.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) commands: mpsc::Sender<Command>,
}

// === impl DemandLimits ===

impl Default for DemandLimits {
    fn default() -> Self {
        Self {
            open: 1_000,
            kept: 10_000,
            name: 512,
        }
    }
}

impl DemandLimits {
    /// How a missing part is called, if it can exist.
    pub(super) fn key(&self, missing: &Missing) -> Option<Key> {
        match missing {
            Missing::VirtualHost { table, host } => {
                // A slash ends the table's name.
                let fits = !host.is_empty() && host.len() <= self.name && !host.contains('/');
                let name = || Name::from(format!("{table}/{host}"));
                fits.then(|| (TypeUrl::VirtualHost, name()))
            }
            Missing::Cluster(name) => {
                let fits = !name.is_empty() && name.len() <= self.name;
                // Who sends requests may not ask for everything, nor for collections.
                let plain = &**name != "*" && !name.starts_with("xdstp:");
                (fits && plain).then(|| (TypeUrl::Cluster, name.clone()))
            }
            _ => None,
        }
    }
}

// === impl Demands ===

impl Demands {
    pub(super) fn new(limits: DemandLimits) -> Self {
        Self {
            limits,
            entries: BTreeMap::new(),
            order: BTreeMap::new(),
            next: 0,
            open: BTreeSet::new(),
        }
    }

    pub(super) fn limits(&self) -> &DemandLimits {
        &self.limits
    }

    /// Somebody wants to know. Answers at once if there is nothing to wait for.
    pub(super) fn ask(&mut self, key: Key, waiter: oneshot::Sender<Outcome>) -> Todo {
        // Whoever waited may be gone by the time of the answer, here and below: no matter.
        match self.entries.get_mut(&key).map(|entry| &mut entry.waiting) {
            // kept ─► kept
            Some(None) => {
                let _ = waiter.send(Outcome::Came);
                Todo::default()
            }
            // open ─► open, with one more
            Some(Some(waiting)) => {
                if waiting.len() == waiting.capacity() {
                    waiting.retain(|waiter| !waiter.is_closed());
                }
                waiting.push(waiter);
                Todo::default()
            }
            // (none) ─► open
            None => {
                let mut drop = None;
                if self.open.len() >= self.limits.open {
                    drop = self.abandoned();
                    let Some(abandoned) = &drop else {
                        let _ = waiter.send(Outcome::Refused);
                        return Todo::default();
                    };
                    self.remove(abandoned);
                }
                let number = self.next;
                self.next += 1;
                self.order.insert(number, key.clone());
                let entry = Entry {
                    number,
                    waiting: Some(vec![waiter]),
                };
                self.entries.insert(key.clone(), entry);
                self.open.insert(key.clone());
                Todo {
                    ask: Some(key),
                    drop,
                }
            }
        }
    }

    /// There is an answer.
    pub(super) fn answered(&mut self, key: &Key, outcome: Outcome) -> Todo {
        let mut todo = Todo::default();
        if outcome != Outcome::Came {
            // open, kept ─► (none)
            if let Some(entry) = self.remove(key) {
                for waiter in entry.waiting.into_iter().flatten() {
                    let _ = waiter.send(outcome);
                }
                todo.drop = Some(key.clone());
            }
            return todo;
        }
        let entry = self.entries.get_mut(key);
        // open ─► kept
        if let Some(waiting) = entry.and_then(|entry| entry.waiting.take()) {
            self.open.remove(key);
            for waiter in waiting {
                let _ = waiter.send(Outcome::Came);
            }
            if self.entries.len() - self.open.len() > self.limits.kept {
                let kept = |key: &&Key| self.entries.get(*key).is_some_and(|e| e.waiting.is_none());
                todo.drop = self.order.values().find(kept).cloned();
                if let Some(drop) = &todo.drop {
                    self.remove(drop);
                }
            }
        }
        todo
    }

    /// What has no answer yet, of one type.
    pub(super) fn open(&self, kind: TypeUrl) -> impl Iterator<Item = &Name> {
        let open = self.open.range((kind, Name::default())..);
        let open = open.take_while(move |(of, _)| *of == kind);
        open.map(|(_, name)| name)
    }

    pub(super) fn is_open(&self, key: &Key) -> bool {
        self.open.contains(key)
    }

    /// The virtual hosts of a table.
    pub(super) fn of_table(&self, table: &str) -> Vec<Key> {
        let prefix = format!("{table}/");
        let first = (TypeUrl::VirtualHost, Name::from(prefix.as_str()));
        let keys = self.entries.range(first..).map(|(key, _)| key);
        let begin_so =
            |(kind, name): &&Key| *kind == TypeUrl::VirtualHost && name.starts_with(&prefix);
        let is = |(_, name): &&Key| name.rsplit_once('/').is_some_and(|(of, _)| of == table);
        keys.take_while(begin_so).filter(is).cloned().collect()
    }

    /// The oldest question that nobody waits for any more.
    fn abandoned(&self) -> Option<Key> {
        let is = |key: &&Key| {
            let waiting = self.entries.get(*key).and_then(|e| e.waiting.as_ref());
            waiting.is_some_and(|all| all.iter().all(oneshot::Sender::is_closed))
        };
        self.order.values().find(is).cloned()
    }

    fn remove(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.number);
        self.open.remove(key);
        Some(entry)
    }
}

// === impl Asker ===

impl Provide for Asker {
    fn ask(&self, missing: Missing) -> Answered {
        let commands = self.commands.clone();
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let command = Command::Ask { missing, answer };
            // A client that has ended gets nothing any more.
            if commands.send(command).await.is_err() {
                return Outcome::Absent;
            }
            answered.await.unwrap_or(Outcome::Absent)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        (TypeUrl::Cluster, name.into())
    }

    fn demands(open: usize, kept: usize) -> Demands {
        Demands::new(DemandLimits {
            open,
            kept,
            ..DemandLimits::default()
        })
    }

    fn ask(demands: &mut Demands, name: &str) -> (Todo, oneshot::Receiver<Outcome>) {
        let (sender, receiver) = oneshot::channel();
        (demands.ask(key(name), sender), receiver)
    }

    #[test]
    fn several_that_want_the_same_share_a_question_and_its_answer() {
        let mut demands = demands(1, 1);
        let (todo, mut one) = ask(&mut demands, "a");
        assert_eq!(todo.ask, Some(key("a")));
        let (todo, mut two) = ask(&mut demands, "a");
        assert_eq!(todo, Todo::default());
        demands.answered(&key("a"), Outcome::Came);
        assert_eq!(
            (one.try_recv(), two.try_recv()),
            (Ok(Outcome::Came), Ok(Outcome::Came))
        );
        // What came is not asked for again.
        let (todo, mut three) = ask(&mut demands, "a");
        assert_eq!(
            (todo, three.try_recv()),
            (Todo::default(), Ok(Outcome::Came))
        );
    }

    #[test]
    fn what_does_not_exist_is_let_go_and_asked_for_anew() {
        let mut demands = demands(1, 1);
        let (_, mut one) = ask(&mut demands, "a");
        let todo = demands.answered(&key("a"), Outcome::Absent);
        assert_eq!(
            (todo.drop, one.try_recv()),
            (Some(key("a")), Ok(Outcome::Absent))
        );
        assert_eq!(ask(&mut demands, "a").0.ask, Some(key("a")));
        // Nobody asked for this one.
        assert_eq!(
            demands.answered(&key("b"), Outcome::Absent),
            Todo::default()
        );
    }

    #[test]
    fn too_many_questions_are_refused_unless_one_is_waited_for_by_nobody() {
        let mut demands = demands(2, 1);
        let (_, one) = ask(&mut demands, "a");
        let (_, _two) = ask(&mut demands, "b");
        let (todo, mut refused) = ask(&mut demands, "c");
        assert_eq!(
            (todo, refused.try_recv()),
            (Todo::default(), Ok(Outcome::Refused))
        );
        drop(one);
        let (todo, _three) = ask(&mut demands, "c");
        assert_eq!((todo.ask, todo.drop), (Some(key("c")), Some(key("a"))));
        assert_eq!(demands.open(TypeUrl::Cluster).count(), 2);
    }

    #[test]
    fn of_what_came_the_oldest_goes_when_there_is_too_much() {
        let mut demands = demands(10, 2);
        for name in ["a", "b"] {
            let _waits = ask(&mut demands, name);
            assert_eq!(demands.answered(&key(name), Outcome::Came), Todo::default());
        }
        let _waits = ask(&mut demands, "c");
        let todo = demands.answered(&key("c"), Outcome::Came);
        assert_eq!(todo.drop, Some(key("a")));
        assert_eq!(ask(&mut demands, "a").0.ask, Some(key("a")));
    }

    #[test]
    fn those_who_no_longer_wait_take_no_room() {
        let mut demands = demands(1, 1);
        let (_, _first) = ask(&mut demands, "a");
        for _ in 0..10_000 {
            drop(ask(&mut demands, "a"));
        }
        let waiting = demands.entries[&key("a")].waiting.as_ref();
        assert!(waiting.is_some_and(|waiting| waiting.len() < 16));
    }

    #[test]
    fn names_that_a_caller_may_not_choose_are_not_asked_for() {
        let limits = DemandLimits::default();
        let host = |host: &str| {
            limits.key(&Missing::VirtualHost {
                table: "t".into(),
                host: host.into(),
            })
        };
        assert_eq!(host("a:80"), Some((TypeUrl::VirtualHost, "t/a:80".into())));
        for bad in ["", "a/b", &"a".repeat(513)] {
            assert_eq!(host(bad), None, "{bad}");
        }
        let cluster = |name: &str| limits.key(&Missing::Cluster(name.into()));
        assert_eq!(cluster("a"), Some(key("a")));
        for bad in ["", "*", "xdstp://x/c/*", &"a".repeat(513)] {
            assert_eq!(cluster(bad), None, "{bad}");
        }
    }
}
