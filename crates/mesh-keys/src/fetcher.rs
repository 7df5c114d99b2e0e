//! Who asks, and for whom.

use crate::answer::GetError;
use crate::plan::{MOST_SOURCES, Plan};
use crate::web::{self, Get};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use mesh_core::model::{KeyBook, KeySource, WantedKeys};
use mesh_core::{Feed, Name, Publisher, Rng};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

/// Says which sets are wanted, and has those that came. Clones are the same one.
#[derive(Clone)]
pub struct Keys {
    wanted: Arc<Publisher<WantedKeys>>,
    book: Feed<KeyBook>,
    fetches: Feed<Fetches>,
}

/// How often sets were asked for, by what came of it: istiod's
/// `pilot_jwks_resolver_network_fetch_success_total` and `…_fail_total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetches {
    /// A set came in which there is a key.
    pub succeeded: u64,
    /// Nothing came, or nothing that could be used.
    pub failed: u64,
}

/// Gets the sets that its [`Keys`] want, for as long as somebody runs it.
pub struct Fetcher {
    wanted: Feed<WantedKeys>,
    /// The version of what is wanted that the plan knows.
    known: u64,
    book: Publisher<KeyBook>,
    fetches: Publisher<Fetches>,
    plan: Plan,
    get: Get,
    under_way: FuturesUnordered<UnderWay>,
    /// What was said of a source the last time, if that was an error.
    said: HashMap<KeySource, String>,
    chance: Rng,
}

/// Makes a [`Fetcher`].
#[derive(Clone, Debug)]
pub struct Builder {
    refresh: Duration,
    roots: Option<Vec<u8>>,
}

type UnderWay = Pin<Box<dyn Future<Output = (KeySource, Result<Name, GetError>)> + Send>>;

/// As istiod's `PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`.
const REFRESH: Duration = Duration::from_secs(1200);
/// The least time between two requests for a set that was got.
const SHORTEST: Duration = Duration::from_secs(1);

// === impl Keys ===

impl Keys {
    /// Which sets are wanted from now on, instead of those that were before; what is new is asked
    /// for at once. Nothing happens if they are the same. Of more than
    /// [`MOST_SOURCES`](crate::MOST_SOURCES), some are never got.
    pub fn want(&self, wanted: WantedKeys) {
        if *self.wanted.load() != wanted {
            self.wanted.publish(Arc::new(wanted));
        }
    }

    /// What came, now and as it changes.
    pub fn feed(&self) -> Feed<KeyBook> {
        self.book.clone()
    }

    /// How often they were asked for, now and as it goes on.
    pub fn fetches(&self) -> Feed<Fetches> {
        self.fetches.clone()
    }

    /// What came so far.
    pub fn load(&self) -> Arc<KeyBook> {
        self.book.load()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Keys");
        shown.field("wanted", &self.wanted.load());
        shown.field("book", &self.book.load()).finish()
    }
}

// === impl Fetcher ===

impl Fetcher {
    /// One that asks every 20 minutes, and believes the roots that the machine trusts.
    pub fn builder() -> Builder {
        Builder {
            refresh: REFRESH,
            roots: None,
        }
    }

    /// Gets what is wanted, and looks for changes of it, until it is dropped.
    ///
    /// # Panics
    /// Outside of a tokio runtime with time and I/O enabled.
    pub async fn run(mut self) {
        loop {
            self.step().await;
        }
    }

    /// Until each set that is wanted now was asked for once, or time is up: for whoever would
    /// rather wait a moment than begin by refusing good tokens. What is still on its way is
    /// taken by [`Fetcher::run`].
    ///
    /// # Cancel safety
    /// Nothing is lost.
    ///
    /// # Panics
    /// As [`Fetcher::run`].
    pub async fn begin(&mut self, limit: Duration) {
        let all = async {
            self.look();
            while !self.plan.is_settled() {
                self.step().await;
            }
        };
        // Time that is up is no failure: those that are late come later.
        let _ = timeout(limit, all).await;
    }

    /// Does what is due, and waits for the next thing that happens.
    async fn step(&mut self) {
        self.look();
        while let Some((source, limit)) = self.plan.take(Instant::now()) {
            let getting = (self.get)(source.clone(), limit);
            let under_way = async move { (source, getting.await) };
            self.under_way.push(Box::pin(under_way));
        }
        let due = self.plan.due();
        tokio::select! {
            Some((source, got)) = self.under_way.next() => self.take(source, got),
            () = changed(&mut self.wanted) => {}
            () = until(due) => {}
        }
    }

    /// Takes over what is wanted, if that changed.
    fn look(&mut self) {
        let version = self.wanted.version();
        if version == self.known {
            return;
        }
        self.known = version;
        let wanted = self.wanted.load();
        let too_many = self.plan.want(&wanted, Instant::now());
        if too_many > 0 {
            tracing::warn!(
                too_many,
                most = MOST_SOURCES,
                "more sets of keys than are got"
            );
        }
        self.said.retain(|source, _| wanted.contains_key(source));
        let mut book = KeyBook::clone(&self.book.load());
        if book.retain(&wanted) {
            self.book.publish(Arc::new(book));
        }
    }

    fn take(&mut self, source: KeySource, got: Result<Name, GetError>) {
        let word = self.chance.word();
        let mut fetches = *self.fetches.load();
        match got {
            Ok(_) => fetches.succeeded += 1,
            Err(_) => fetches.failed += 1,
        }
        self.fetches.publish(Arc::new(fetches));
        // What is wanted may have changed while it was on its way.
        self.look();
        if !self.plan.ended(&source, got.is_ok(), Instant::now(), word) {
            return;
        }
        match got {
            Ok(keys) => {
                let failed = self.said.remove(&source).is_some();
                let mut book = KeyBook::clone(&self.book.load());
                let changed = book.set(source.clone(), keys);
                if failed || changed {
                    tracing::info!(%source, changed, "keys came");
                }
                if changed {
                    self.book.publish(Arc::new(book));
                }
            }
            Err(error) => {
                let text = error.to_string();
                let kept = self.book.load().get(&source).is_some();
                // Each try fails in the same way until something is done about it.
                if self.said.get(&source) != Some(&text) {
                    tracing::warn!(%source, error = text, kept, "keys cannot be got");
                    self.said.insert(source, text);
                }
            }
        }
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Fetcher");
        shown.field("plan", &self.plan).field("book", &self.book);
        shown.finish_non_exhaustive()
    }
}

/// A feed whose publisher is gone does not change any more.
async fn changed(wanted: &mut Feed<WantedKeys>) {
    if wanted.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

// === impl Builder ===

impl Builder {
    /// How often a set that was got is asked for again, less up to a tenth by chance. Default 20
    /// minutes, at least a second.
    #[must_use]
    pub fn refresh(mut self, every: Duration) -> Self {
        self.refresh = every.max(SHORTEST);
        self
    }

    /// Roots that servers of https may be certified by besides those that the machine trusts, as
    /// PEM. Check them with [`check_secret`](mesh_identity::check_secret): with one that cannot be
    /// read no server is believed.
    #[must_use]
    pub fn roots(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    /// The fetcher, and the means to tell it what to get. It does nothing until it is run.
    pub fn build(self) -> (Keys, Fetcher) {
        let get = web::servers(self.roots.clone());
        self.with(get)
    }

    pub(crate) fn with(self, get: Get) -> (Keys, Fetcher) {
        let wanted = Arc::new(Publisher::new(WantedKeys::new()));
        let book = Publisher::new(KeyBook::default());
        let fetcher = Fetcher {
            wanted: wanted.feed(),
            known: wanted.version(),
            plan: Plan::new(self.refresh),
            get,
            under_way: FuturesUnordered::new(),
            said: HashMap::new(),
            chance: Rng::from_system(),
            book,
            fetches: Publisher::new(Fetches::default()),
        };
        let keys = Keys {
            wanted,
            book: fetcher.book.feed(),
            fetches: fetcher.fetches.feed(),
        };
        (keys, fetcher)
    }
}

#[cfg(test)]
#[path = "fetcher/tests.rs"]
mod tests;
