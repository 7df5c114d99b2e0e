//! What a cluster has in use right now: the numbers that limits are compared with.
//!
//! Shared by all workers of the process, as in Envoy, so limits are global. Each number is its
//! own relaxed atomic; a limit may be overshot by as many requests as there are workers.

use crate::model::Limits;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A cluster's requests, pending requests, retries, connections and pools in use.
#[derive(Debug, Default)]
pub struct Usage {
    counts: [AtomicU32; 5],
}

/// One of the numbers in [`Usage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Connections open or being opened.
    Connections,
    /// Requests waiting for a connection.
    Pending,
    /// Requests under way.
    Requests,
    /// Retries under way.
    Retries,
    /// Pools that have connections, or somebody who waits for one.
    Pools,
}

/// One unit of a [`Resource`], given back when dropped.
#[derive(Debug)]
pub struct Taken {
    usage: Arc<Usage>,
    resource: Resource,
}

// === impl Usage ===

impl Usage {
    fn count(&self, resource: Resource) -> &AtomicU32 {
        &self.counts[resource as usize]
    }

    /// How much is in use.
    pub fn get(&self, resource: Resource) -> u32 {
        self.count(resource).load(Ordering::Relaxed)
    }

    /// Takes one unit, unless `limit` units are in use.
    pub fn take(self: &Arc<Self>, resource: Resource, limit: u32) -> Option<Taken> {
        let count = self.count(resource);
        // Add first and give back on failure: one atomic where there is room, which is nearly
        // always.
        if count.fetch_add(1, Ordering::Relaxed) >= limit {
            count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Taken {
            usage: self.clone(),
            resource,
        })
    }

    /// Takes one unit whatever the limit: for the one connection that a chosen endpoint gets.
    pub fn take_anyway(self: &Arc<Self>, resource: Resource) -> Taken {
        self.count(resource).fetch_add(1, Ordering::Relaxed);
        Taken {
            usage: self.clone(),
            resource,
        }
    }

    /// Takes a retry within the limits: a number, or a share of what is under way.
    pub fn take_retry(self: &Arc<Self>, limits: &Limits) -> Option<Taken> {
        let limit = match limits.budget {
            None => limits.max_retries,
            Some(budget) => {
                let busy = u64::from(self.get(Resource::Requests))
                    + u64::from(self.get(Resource::Pending));
                let share = busy * u64::from(budget.share.as_millionths()) / 1_000_000;
                u32::try_from(share)
                    .unwrap_or(u32::MAX)
                    .max(budget.min_concurrency)
            }
        };
        self.take(Resource::Retries, limit)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.usage
            .count(self.resource)
            .fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Fraction, RetryBudget};

    #[test]
    fn a_limit_holds_until_something_is_given_back() {
        let usage = Arc::new(Usage::default());
        let first = usage.take(Resource::Requests, 1);
        assert!(first.is_some());
        assert!(usage.take(Resource::Requests, 1).is_none());
        assert_eq!(usage.get(Resource::Requests), 1);
        let above = usage.take_anyway(Resource::Requests);
        assert_eq!(usage.get(Resource::Requests), 2);
        drop((first, above));
        assert_eq!(usage.get(Resource::Requests), 0);
    }

    #[test]
    fn a_budget_is_a_share_of_what_is_under_way_but_never_less_than_its_minimum() {
        let usage = Arc::new(Usage::default());
        let limits = Limits {
            budget: Some(RetryBudget {
                share: Fraction::percent(20.0).unwrap(),
                min_concurrency: 3,
                ..RetryBudget::default()
            }),
            ..Limits::envoy()
        };
        let mut retries: Vec<_> = (0..4).map_while(|_| usage.take_retry(&limits)).collect();
        assert_eq!(retries.len(), 3);
        let _busy: Vec<_> = (0..50)
            .map(|_| usage.take_anyway(Resource::Requests))
            .collect();
        retries.extend((0..20).map_while(|_| usage.take_retry(&limits)));
        assert_eq!(retries.len(), 10);
    }
}
