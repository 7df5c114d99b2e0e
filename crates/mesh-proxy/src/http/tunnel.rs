//! What was HTTP/1 and is another protocol from now on.

use crate::listener::Counted;
use http::Response;
use mesh_core::Caller;
use mesh_core::stats::{HttpStat, Raised};
use mesh_http1::upgrade::{OnUpgrade, on};
use tokio::io::copy_bidirectional;

/// Copies bytes both ways, once both sides have switched protocols as `response` says.
pub(super) fn tunnel<B>(
    downstream: OnUpgrade,
    response: &mut Response<B>,
    caller: Caller,
) -> impl Future<Output = ()> + Send + use<B> {
    copy(downstream, on(response.extensions_mut()), caller)
}

async fn copy(downstream: OnUpgrade, upstream: Option<OnUpgrade>, caller: Caller) {
    caller.count(HttpStat::CxUpgradesTotal);
    let _active = caller.stats.clone().map(|stats| {
        Raised::new(
            Counted::new(stats),
            caller.shard,
            HttpStat::CxUpgradesActive,
        )
    });
    // Always there: upstreams switch protocols in HTTP/1 only.
    let Some(upstream) = upstream else { return };
    let (mut downstream, mut upstream) = match tokio::try_join!(downstream, upstream) {
        Ok(both) => both,
        Err(error) => {
            tracing::debug!(%error, "upgrade");
            return;
        }
    };
    if let Err(error) = copy_bidirectional(&mut downstream, &mut upstream).await {
        tracing::debug!(%error, "upgraded connection");
    }
}
