//! Names that wait to be looked at.

use super::kind::Why;
use mesh_core::Name;
use std::collections::{BTreeMap, HashMap};

/// Names that wait to be looked at, in the order in which they came up, so that what changes all
/// the time does not hold up the rest.
#[derive(Default)]
pub(super) struct Queue {
    places: HashMap<Name, (u64, Why)>,
    order: BTreeMap<u64, Name>,
    next: u64,
}

// === impl Queue ===

impl Queue {
    /// A name that waits already keeps its place; of two reasons the later one counts.
    pub(super) fn push(&mut self, name: Name, why: Why) {
        if let Some((_, known)) = self.places.get_mut(&name) {
            *known = why.max(*known);
            return;
        }
        self.order.insert(self.next, name.clone());
        self.places.insert(name, (self.next, why));
        self.next += 1;
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some((place, _)) = self.places.remove(name) {
            self.order.remove(&place);
        }
    }

    /// Takes the first ones away.
    pub(super) fn advance(&mut self, count: usize) {
        for _ in 0..count {
            if let Some((_, name)) = self.order.pop_first() {
                self.places.remove(&name);
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<Why> {
        self.places.get(name).map(|(_, why)| *why)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The names, first come first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Name, Why)> {
        let each = self.order.values();
        each.filter_map(|name| Some((name, self.get(name)?)))
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.order.retain(|_, name| keep(name));
        self.places.retain(|name, _| keep(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(u8, Why),
        Remove(u8),
        Advance(usize),
        Retain(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let why = prop::sample::select(vec![Why::Changed, Why::Resend, Why::Asked]);
        prop_oneof![
            4 => (0_u8..6, why).prop_map(|(name, why)| Step::Push(name, why)),
            1 => (0_u8..6).prop_map(Step::Remove),
            1 => (0_usize..3).prop_map(Step::Advance),
            1 => (0_u8..6).prop_map(Step::Retain),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_list_without_repetitions(steps in prop::collection::vec(step(), 0..40)) {
            let (mut queue, mut list) = (Queue::default(), Vec::<(Name, Why)>::new());
            for step in steps {
                match step {
                    Step::Push(name, why) => {
                        let name = Name::from(name.to_string());
                        queue.push(name.clone(), why);
                        match list.iter_mut().find(|one| one.0 == name) {
                            Some(one) => one.1 = one.1.max(why),
                            None => list.push((name, why)),
                        }
                    }
                    Step::Remove(name) => {
                        queue.remove(&name.to_string());
                        list.retain(|one| *one.0 != *name.to_string());
                    }
                    Step::Advance(count) => {
                        queue.advance(count);
                        list.drain(..count.min(list.len()));
                    }
                    Step::Retain(below) => {
                        queue.retain(|name| *name < *below.to_string());
                        list.retain(|one| *one.0 < *below.to_string());
                    }
                }
                let now: Vec<_> = queue.iter().map(|(name, why)| (name.clone(), why)).collect();
                prop_assert_eq!(&now, &list);
                prop_assert_eq!(queue.places.len(), list.len());
                prop_assert_eq!(queue.is_empty(), list.is_empty());
            }
        }
    }
}
