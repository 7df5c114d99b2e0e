//! Something that happens once and that others may wait for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Set once; wakes everyone who waits. Costs nothing to create.
#[derive(Debug, Default)]
pub struct Signal {
    set: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

/// More tasks than this never wait for one request. Extra wakers replace the oldest.
const MOST_WAITING: usize = 16;

// === impl Signal ===

impl Signal {
    /// Sets the signal and wakes everyone who waits.
    pub fn set(&self) {
        if self.set.swap(true, Ordering::AcqRel) {
            return;
        }
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for waker in waiting {
            waker.wake();
        }
    }

    /// Whether it is set.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Ready once the signal is set; otherwise the task is woken when it is.
    pub fn poll_set(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_set() {
            return Poll::Ready(());
        }
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                if waiting.len() == MOST_WAITING {
                    waiting.remove(0).wake();
                }
                waiting.push(cx.waker().clone());
            }
        }
        // It may have been set between the first look and the registration.
        if self.is_set() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_task_that_waits_is_woken_once_the_signal_is_set() {
        let signal = Arc::new(Signal::default());
        let theirs = signal.clone();
        let task = tokio::spawn(async move { poll_fn(|cx| theirs.poll_set(cx)).await });
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        signal.set();
        task.await.unwrap();
        assert!(signal.is_set());
    }
}
