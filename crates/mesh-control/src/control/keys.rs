//! Keys of tokens that are outside of the mesh: which are wanted, and those that came.

use super::Control;
use crate::engine::lock;
use crate::inputs::Inputs;
use mesh_core::Feed;
use mesh_core::model::{KeyBook, WantedKeys};
use mesh_keys::{Fetches, Keys};
use std::sync::Arc;

impl Control {
    /// The sets of keys that RequestAuthentications need from outside of the mesh, now and as
    /// objects change: see [`mesh_istio::wanted_keys`].
    pub fn wanted_keys(&self) -> Feed<WantedKeys> {
        self.wanted.feed()
    }

    /// Takes over the sets of keys that came. Proxies get them inline, so that none of them asks by
    /// itself; until a set is there its issuer's tokens are refused.
    pub fn set_keys(&self, keys: Arc<KeyBook>) {
        let mut accepted = lock(&self.accepted);
        if accepted.keys == keys {
            return;
        }
        accepted.keys = keys.clone();
        // Before the first update there is nothing to change.
        let Some(before) = accepted.inputs.clone() else {
            return;
        };
        let mut world = before.world.clone();
        world.set_keys(keys);
        accepted.inputs = Some(Arc::new(Inputs::of(world, Some(&before))));
        drop(accepted);
        self.request("keys");
    }

    /// Has these get the sets that are wanted, and takes over what they get. Runs until it is
    /// dropped; the [`Fetcher`](mesh_keys::Fetcher) that they came with has to run, too.
    ///
    /// # Cancel safety
    /// What came stays in force.
    pub async fn follow_keys(&self, keys: Keys) {
        let (mut wanted, mut book) = (self.wanted_keys(), keys.feed());
        let (mut fetches, mut counted) = (keys.fetches(), Fetches::default());
        keys.want(WantedKeys::clone(&wanted.load()));
        self.set_keys(book.load());
        loop {
            let now = *fetches.load();
            self.count_fetches(counted, now);
            counted = now;
            tokio::select! {
                Ok(wanted) = wanted.changed() => keys.want(WantedKeys::clone(&wanted)),
                Ok(book) = book.changed() => self.set_keys(book),
                Ok(_) = fetches.changed() => {}
                // Whoever got them is gone: those that came stay.
                else => std::future::pending().await,
            }
        }
    }

    fn count_fetches(&self, before: Fetches, now: Fetches) {
        let metrics = &self.engine.metrics;
        let help = "Requests for keys of tokens that were answered with some.";
        let name = "pilot_jwks_resolver_network_fetch_success_total";
        metrics.count(name, help, "", now.succeeded - before.succeeded);
        let help = "Requests for keys of tokens of which nothing came, or nothing of use.";
        let name = "pilot_jwks_resolver_network_fetch_fail_total";
        metrics.count(name, help, "", now.failed - before.failed);
    }
}
