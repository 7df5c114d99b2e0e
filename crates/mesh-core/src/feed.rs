//! One writer, many readers, latest value wins.
//!
//! [`Feed::load`] is wait-free from any clone and never goes stale, so a service that is cloned
//! for each request may hold one. Waiting for a change is separate ([`Feed::changed`]) and is what
//! tasks do. A burst of values needs no queue: whoever was away sees the last one.

use arc_swap::ArcSwap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// The writing half: publishes values.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    news: watch::Sender<u64>,
}

/// The reading half: always has the latest value.
pub struct Feed<T> {
    shared: Arc<Shared<T>>,
    news: watch::Receiver<u64>,
    /// The version that this clone's `changed` has reported.
    seen: u64,
}

/// The publisher is gone and every value that it published has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the publisher of this feed is gone")]
pub struct Closed;

struct Shared<T> {
    value: ArcSwap<T>,
    version: AtomicU64,
}

// === impl Publisher ===

impl<T> Publisher<T> {
    /// A publisher whose feeds start with `value`.
    pub fn new(value: T) -> Self {
        Self::from_arc(Arc::new(value))
    }

    /// A publisher whose feeds start with `value`.
    pub fn from_arc(value: Arc<T>) -> Self {
        let shared = Shared {
            value: ArcSwap::new(value),
            version: AtomicU64::new(1),
        };
        Self {
            shared: Arc::new(shared),
            news: watch::Sender::new(1),
        }
    }

    /// Replaces the value for every reader.
    pub fn publish(&self, value: Arc<T>) {
        self.shared.value.store(value);
        // The value first: who sees the new version must find the new value.
        let version = self.shared.version.fetch_add(1, Ordering::Release) + 1;
        self.news
            .send_modify(|latest| *latest = version.max(*latest));
    }

    /// A reader. Its first [`Feed::changed`] waits for the next value, not the present one.
    pub fn feed(&self) -> Feed<T> {
        let mut news = self.news.subscribe();
        let seen = *news.borrow_and_update();
        Feed {
            shared: self.shared.clone(),
            news,
            seen,
        }
    }

    /// The latest value.
    pub fn load(&self) -> Arc<T> {
        self.shared.value.load_full()
    }

    /// As [`Feed::version`].
    pub fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }
}

impl<T: fmt::Debug> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Publisher")
            .field(&self.shared.value.load())
            .finish()
    }
}

// === impl Feed ===

impl<T> Feed<T> {
    /// A feed that has one value for ever.
    pub fn fixed(value: T) -> Self {
        Publisher::new(value).feed()
    }

    /// The latest value. Wait-free.
    pub fn load(&self) -> Arc<T> {
        self.shared.value.load_full()
    }

    /// Calls `read` with the latest value, without touching its reference count.
    pub fn with<R>(&self, read: impl FnOnce(&Arc<T>) -> R) -> R {
        read(&self.shared.value.load())
    }

    /// A number that grows with each value. One atomic load: for readers that keep what they
    /// derived from a value.
    pub fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Acquire)
    }

    /// Waits for a value that this clone has not reported yet and returns it.
    ///
    /// # Errors
    /// [`Closed`] when the publisher is gone. A last value that was never seen is returned first.
    ///
    /// # Cancel safety
    /// A value is reported by the call that returns it, so nothing is lost when the future is
    /// dropped.
    pub async fn changed(&mut self) -> Result<Arc<T>, Closed> {
        loop {
            let version = *self.news.borrow_and_update();
            if version > self.seen {
                self.seen = version;
                return Ok(self.load());
            }
            // An error means that the sender is gone; the value is looked at once more, because
            // it may have been sent just before.
            if self.news.changed().await.is_err() && *self.news.borrow() <= self.seen {
                return Err(Closed);
            }
        }
    }
}

impl<T> Clone for Feed<T> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            news: self.news.clone(),
            seen: self.seen,
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for Feed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Feed")
            .field(&self.shared.value.load())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_value_is_seen_although_the_publisher_is_gone() {
        let publisher = Publisher::new(1);
        let mut feed = publisher.feed();
        publisher.publish(Arc::new(2));
        drop(publisher);
        assert_eq!(feed.changed().await.as_deref(), Ok(&2));
        assert_eq!(feed.changed().await, Err(Closed));
        assert_eq!(*feed.load(), 2);
    }

    #[tokio::test]
    async fn a_burst_is_seen_as_its_last_value() {
        let publisher = Publisher::new(0);
        let mut feed = publisher.feed();
        let other = feed.clone();
        for value in 1..=9 {
            publisher.publish(Arc::new(value));
        }
        assert_eq!(feed.changed().await.as_deref(), Ok(&9));
        assert_eq!(*other.load(), 9);
        assert_eq!(other.version(), 10);
        tokio::select! {
            biased;
            value = feed.changed() => panic!("reported twice: {value:?}"),
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let publisher = Publisher::new(0);
        let mut feed = publisher.feed();
        let waiting = tokio::spawn(async move { feed.changed().await });
        tokio::task::yield_now().await;
        publisher.publish(Arc::new(1));
        assert_eq!(waiting.await.unwrap().as_deref(), Ok(&1));
    }
}
