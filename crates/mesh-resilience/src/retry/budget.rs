//! How many retries there may be at once, over all requests.
//!
//! A cluster's limits say either a number (`max_retries`) or a budget: a share of the requests
//! under way. Both are kept in the cluster's [`Usage`]. A budget with an interval counts the
//! requests that began within that time instead of those under way, which needs a memory of its
//! own: the [`Budgets`].

use mesh_core::model::{ClusterEntry, ClusterKey, Limits, LiveCluster, Priority, RetryBudget};
use mesh_core::usage::{Resource, Taken};
use mesh_core::{Exchange, Usage};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What retry budgets with an interval remember about each cluster. Clones share it.
///
/// Layers of several workers that shall keep one budget together are given clones of one of
/// these; see [`RetryLayer::budgets`](super::RetryLayer::budgets). Clusters without such a budget
/// take no place here, and those that were removed are forgotten.
#[derive(Clone, Debug, Default)]
pub struct Budgets {
    clusters: Arc<Mutex<HashMap<(ClusterKey, Priority), Remembered>>>,
}

#[derive(Debug)]
struct Remembered {
    cluster: Weak<LiveCluster>,
    window: Arc<Window>,
}

/// How many requests began within an interval: a ring of slots, each a tenth of it.
#[derive(Debug)]
pub(super) struct Window(Mutex<Ring>);

#[derive(Debug)]
struct Ring {
    start: Instant,
    /// Nanoseconds of a slot.
    width: u64,
    counts: [u32; SLOTS],
    /// The slot that `counts` ends with, counted from the start.
    newest: u64,
}

const SLOTS: usize = 10;

// === impl Budgets ===

impl Budgets {
    /// Counts a request where its cluster's budget has an interval.
    pub(super) fn begin(&self, exchange: &Exchange, now: Instant) -> Option<Arc<Window>> {
        let cluster = exchange.cluster()?;
        let config = cluster.config();
        // Most clusters have no budget, and then the rule need not be looked at.
        config.limits.budget.or(config.high.budget)?;
        let priority = exchange.priority();
        let interval = interval_of(config.limits_of(priority))?;
        let window = self.window((cluster, priority), interval, now);
        window.add(now);
        Some(window)
    }

    fn window(
        &self,
        (cluster, priority): (&ClusterEntry, Priority),
        interval: Duration,
        now: Instant,
    ) -> Arc<Window> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (cluster.key(), priority);
        if !clusters.contains_key(&key) {
            clusters.retain(|_, remembered| remembered.cluster.strong_count() > 0);
        }
        let remembered = clusters.entry(key).or_insert_with(|| Remembered {
            cluster: Arc::downgrade(cluster.live()),
            window: Arc::new(Window::new(interval, now)),
        });
        if !remembered.window.is_for(interval) {
            remembered.window = Arc::new(Window::new(interval, now));
        }
        remembered.window.clone()
    }
}

/// The interval of a budget that has one.
pub(super) fn interval_of(limits: &Limits) -> Option<Duration> {
    limits
        .budget
        .map(|budget| budget.interval)
        .filter(|interval| !interval.is_zero())
}

/// Takes a retry, if the limits leave one.
pub(super) fn take(
    usage: &Arc<Usage>,
    limits: &Limits,
    window: Option<&Window>,
    now: Instant,
) -> Option<Taken> {
    match (window, limits.budget) {
        (Some(window), Some(budget)) => {
            let most = allowed(budget, window.count(now));
            usage.take(Resource::Retries, most)
        }
        _ => usage.take_retry(limits),
    }
}

/// The share of `requests` that may be retries, or the least number that always may.
fn allowed(budget: RetryBudget, requests: u64) -> u32 {
    let share = requests.saturating_mul(budget.share.as_millionths().into()) / 1_000_000;
    u32::try_from(share)
        .unwrap_or(u32::MAX)
        .max(budget.min_concurrency)
}

// === impl Window ===

impl Window {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        Self(Mutex::new(Ring {
            start: now,
            width: width(interval),
            counts: [0; SLOTS],
            newest: 0,
        }))
    }

    fn is_for(&self, interval: Duration) -> bool {
        self.ring().width == width(interval)
    }

    /// A request began.
    pub(super) fn add(&self, now: Instant) {
        let mut ring = self.ring();
        let slot = ring.advance(now);
        ring.counts[slot] = ring.counts[slot].saturating_add(1);
    }

    /// How many began within the interval before `now`, to a tenth of it.
    pub(super) fn count(&self, now: Instant) -> u64 {
        let mut ring = self.ring();
        ring.advance(now);
        ring.counts.iter().map(|count| u64::from(*count)).sum()
    }

    fn ring(&self) -> std::sync::MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn width(interval: Duration) -> u64 {
    let nanos = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
    (nanos / SLOTS as u64).max(1)
}

impl Ring {
    /// Empties the slots that `now` has left behind; the place of the slot for `now`.
    fn advance(&mut self, now: Instant) -> usize {
        let age = now.saturating_duration_since(self.start).as_nanos();
        let slot = u64::try_from(age).unwrap_or(u64::MAX) / self.width;
        // A thread whose clock is a little behind counts in the newest slot.
        let passed = slot.saturating_sub(self.newest);
        for step in 1..=passed.min(SLOTS as u64) {
            self.counts[place(self.newest + step)] = 0;
        }
        self.newest += passed;
        place(self.newest)
    }
}

fn place(slot: u64) -> usize {
    // Less than SLOTS.
    (slot % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::{Cluster, Fraction, Rule, SnapshotBuilder};
    use mesh_test::fixture;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn budget(interval: Duration) -> RetryBudget {
        RetryBudget {
            share: Fraction::percent(20.0).unwrap(),
            min_concurrency: 1,
            interval,
        }
    }

    fn cluster(budget: RetryBudget) -> Cluster {
        let mut cluster = Cluster::new("a");
        cluster.limits = Limits::unlimited();
        cluster.limits.budget = Some(budget);
        cluster
    }

    #[test]
    fn a_budget_is_a_share_but_never_less_than_its_minimum() {
        for (requests, expected) in [(0, 1), (9, 1), (10, 2), (50, 10)] {
            assert_eq!(allowed(budget(SECOND), requests), expected);
        }
    }

    #[tokio::test]
    async fn with_an_interval_the_requests_of_that_time_count() {
        let now = Instant::now();
        let budgets = Budgets::default();
        let rule = Rule::prefix_to("/", "a");
        let exchange = fixture::exchange(rule, Some(cluster(budget(10 * SECOND))));
        // None of these is under way any more, yet they count.
        let windows: Vec<_> = (0..15)
            .map(|_| budgets.begin(&exchange, now).unwrap())
            .collect();
        let cluster = exchange.cluster().unwrap();
        let (usage, limits) = (cluster.live().usage(), cluster.config().limits);
        let takes = |now| {
            let mut taken = Vec::new();
            while taken.len() < 9
                && let Some(unit) = take(usage, &limits, Some(&windows[0]), now)
            {
                taken.push(unit);
            }
            taken.len()
        };
        assert_eq!(takes(now), 3, "20 % of 15");
        assert_eq!(takes(now + 11 * SECOND), 1, "the minimum");
    }

    #[tokio::test]
    async fn without_an_interval_nothing_is_remembered() {
        let budgets = Budgets::default();
        let rule = Rule::prefix_to("/", "a");
        let exchange = fixture::exchange(rule, Some(cluster(budget(Duration::ZERO))));
        assert!(budgets.begin(&exchange, Instant::now()).is_none());
        assert!(budgets.clusters.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_cluster_that_is_gone_is_forgotten() {
        let now = Instant::now();
        let budgets = Budgets::default();
        let mut snapshot = fixture::snapshot(vec![Rule::prefix_to("/", "a")], vec![]);
        for _ in 0..3 {
            // Removed and added again a cluster has another key.
            for clusters in [vec![], vec![cluster(budget(SECOND))]] {
                let mut builder = SnapshotBuilder::from(&snapshot);
                builder.routes((**snapshot.table("t").unwrap()).clone());
                for cluster in clusters {
                    builder.cluster(cluster);
                }
                snapshot = builder.build().unwrap().0;
            }
            budgets.begin(&fixture::matched(&snapshot), now).unwrap();
        }
        assert_eq!(budgets.clusters.lock().unwrap().len(), 1);
    }

    proptest! {
        /// Against a list of all moments.
        #[test]
        fn a_window_counts_what_began_within_it_to_a_tenth(
            waits in prop::collection::vec(0..400_u64, 1..60),
        ) {
            let start = Instant::now();
            let window = Window::new(SECOND, start);
            let mut moments = Vec::new();
            let mut millis = 0;
            for wait in waits {
                millis += wait;
                let now = start + Duration::from_millis(millis);
                window.add(now);
                moments.push(millis);
                let within = |span: u64| {
                    let oldest = millis.saturating_sub(span);
                    moments.iter().filter(|moment| **moment >= oldest).count() as u64
                };
                let count = window.count(now);
                prop_assert!(count >= within(899), "{count} of {moments:?}");
                prop_assert!(count <= within(1000), "{count} of {moments:?}");
            }
        }
    }
}
