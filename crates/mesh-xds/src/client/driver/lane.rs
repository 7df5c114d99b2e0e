//! The servers of one authority, or of several with the same servers, one at a time.

use super::session::{End, SEARCH};
use super::{Shared, now, sleep_until};
use crate::client::backoff::Backoff;
use crate::client::fallback::{Fallback, Next};
use crate::client::remote::Remote;
use mesh_core::Rng;
use std::fmt;

/// The servers of one machine.
pub(super) struct Lane {
    /// The place of its machine.
    pub(super) index: usize,
    pub(super) servers: Vec<Remote>,
    pub(super) random: Rng,
    /// How long it takes to look for a better server.
    pub(super) search: Backoff,
    fallback: Fallback,
}

// === impl Lane ===

impl Lane {
    pub(super) fn new(index: usize, servers: Vec<Remote>, random: Rng) -> Self {
        Self {
            index,
            fallback: Fallback::new(servers.len()),
            servers,
            random,
            search: Backoff::new(SEARCH.0, SEARCH.1),
        }
    }

    /// Speaks to one server after the other, for ever.
    pub(super) async fn serve(&mut self, shared: &Shared) {
        if self.servers.is_empty() {
            return std::future::pending().await;
        }
        let mut connected = None;
        loop {
            self.idle(shared).await;
            let at = self.fallback.at();
            let uri = &self.servers[at].uri;
            tracing::debug!(server = %uri, "connecting to the control plane");
            let end = self.session(shared, at, connected.take()).await;
            let mut core = shared.core();
            let (answered, complete) = {
                let machine = core.machine(self.index);
                (machine.is_answered(), machine.has_everything())
            };
            match end {
                End::Better(better, channel, search) => {
                    self.search = search;
                    self.fallback.better(better);
                    connected = Some(channel);
                    core.closed(self.index, None, now());
                }
                End::Failed(reason) => {
                    let server = self.servers[at].uri.clone();
                    core.closed(self.index, Some((server, reason)), now());
                    if answered && at == 0 {
                        self.search.reset();
                    }
                    if self.fallback.failed(answered, complete) == Next::Later {
                        let word = self.random.word();
                        core.machine(self.index).closed(now(), word);
                    }
                }
            }
            drop(core);
            shared.happened(Some(self.index));
        }
    }

    /// Until something is asked for and the next attempt to connect is due.
    async fn idle(&mut self, shared: &Shared) {
        loop {
            let until = {
                let core = shared.core();
                let machine = core.machine_ref(self.index);
                let retry = machine.retry_at();
                // Others than the first are called only when something is wanted of them.
                if self.index > 0 && !machine.asks() {
                    None
                } else if retry.is_none_or(|at| at <= now())
                    || (!machine.has_everything() && self.fallback.missing())
                {
                    return;
                } else {
                    retry
                }
            };
            tokio::select! {
                () = sleep_until(until) => {}
                () = shared.lanes[self.index].notified() => {}
            }
        }
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.servers.iter().map(|server| &server.uri);
        f.debug_list().entries(servers).finish()
    }
}
