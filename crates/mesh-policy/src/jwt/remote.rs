//! Keys that are got from somewhere else, and kept for a while.
//!
//! One request gets them, the others wait for it. What failed is not tried again at once: after 1 s,
//! then twice as long each time up to 30 s, requests are refused without asking (Envoy asks for every
//! one of them). Keys that are too old are not used.

use super::keys::{KeySet, MAX_JWKS};
use super::status::JwtStatus;
use bytes::Bytes;
use mesh_core::BoxError;
use mesh_core::model::RemoteJwks;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// More requests than this never wait for one set of keys; those beyond fail as if it could not be
/// got.
const MOST_WAITING: usize = 4096;
/// Whoever waited for them may use them.
const SHORTEST: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What an attempt to get keys gives: when it ended, and the body of an answer with status 200.
pub type Fetched = Pin<Box<dyn Future<Output = (Instant, Result<Bytes, BoxError>)> + Send>>;

/// Gets sets of keys, e.g. with HTTP.
///
/// An attempt ends within [`RemoteJwks::timeout`] and reads at most [`MAX_JWKS`] bytes; it makes as
/// many further attempts as [`RemoteJwks::retries`] says.
pub trait Fetch: Send + Sync {
    /// Begins an attempt.
    fn fetch(&self, from: &RemoteJwks) -> Fetched;
}

/// The keys of one provider, shared by all who verify.
#[derive(Debug)]
pub(super) struct RemoteKeys {
    from: RemoteJwks,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// Somebody gets them.
    busy: bool,
    waiting: Vec<Waker>,
    /// Why there are none, until when nobody asks again, and how long that pause is.
    failed: Option<(JwtStatus, Instant, Duration)>,
}

/// Waits until there is something new to know.
pub(super) struct Wait {
    keys: Arc<RemoteKeys>,
    getting: Option<Getting>,
}

/// Somebody gets the keys: us.
struct Getting {
    attempt: Fetched,
    keys: Arc<RemoteKeys>,
}

/// What is known.
#[derive(Debug)]
pub(super) enum Remote {
    Keys(Arc<KeySet>),
    Failed(JwtStatus),
    /// Nothing yet, or it is too old.
    Nothing,
}

// === impl RemoteKeys ===

impl RemoteKeys {
    pub(super) fn new(from: RemoteJwks) -> Self {
        Self {
            from,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn known(&self, now: Instant) -> Remote {
        self.state().known(now)
    }

    /// Gets them, or waits for who does; none where too many do.
    pub(super) fn wait(self: &Arc<Self>, fetch: &dyn Fetch, now: Instant) -> Option<Wait> {
        let mut state = self.state();
        if state.waiting.len() >= MOST_WAITING {
            return None;
        }
        let begins = !state.busy && matches!(state.known(now), Remote::Nothing);
        state.busy |= begins;
        drop(state);
        Some(Wait {
            getting: begins.then(|| Getting {
                attempt: fetch.fetch(&self.from),
                keys: self.clone(),
            }),
            keys: self.clone(),
        })
    }

    fn got(&self, body: Result<Bytes, BoxError>, now: Instant) -> bool {
        let keys = match body {
            Ok(body) if body.len() <= MAX_JWKS => KeySet::parse(&body),
            _ => Err(JwtStatus::FetchFailed),
        };
        let mut state = self.state();
        match keys {
            Ok(keys) => {
                // None is later than any time that is told.
                let until = now.checked_add(self.from.cache_for.max(SHORTEST));
                let until = until.unwrap_or(now + Duration::from_secs(86_400));
                state.keys = Some((Arc::new(keys), until));
                state.failed = None;
                true
            }
            Err(status) => {
                let before = state.failed.as_ref().map(|(.., pause)| *pause * 2);
                let pause = before.unwrap_or(FIRST_PAUSE).min(LONGEST_PAUSE);
                state.failed = Some((status, now + pause, pause));
                false
            }
        }
    }
}

// === impl State ===

impl State {
    fn known(&self, now: Instant) -> Remote {
        match (&self.keys, &self.failed) {
            (Some((keys, until)), _) if now < *until => Remote::Keys(keys.clone()),
            (_, Some((status, until, _))) if now < *until => Remote::Failed(*status),
            _ => Remote::Nothing,
        }
    }
}

// === impl Wait ===

/// Ready with whether keys were got by this very wait (none: by another, or there was no need).
impl Future for Wait {
    type Output = Option<bool>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<bool>> {
        let this = self.get_mut();
        if let Some(getting) = &mut this.getting {
            let (now, body) = std::task::ready!(getting.attempt.as_mut().poll(cx));
            let good = this.keys.got(body, now);
            // Wakes the others.
            this.getting = None;
            return Poll::Ready(Some(good));
        }
        let mut state = this.keys.state();
        if !state.busy {
            return Poll::Ready(None);
        }
        if !state.waiting.iter().any(|one| one.will_wake(cx.waker())) {
            state.waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

// === impl Getting ===

/// Whether it came to an end or was given up: the next one may begin.
impl Drop for Getting {
    fn drop(&mut self) {
        let mut state = self.keys.state();
        state.busy = false;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        for waker in waiting {
            waker.wake();
        }
    }
}
