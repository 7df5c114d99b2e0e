//! What was HTTP/1 and is another protocol from now on.

use super::adapter::Upgrading;
use http::Response;
use mesh_http1::upgrade::{OnUpgrade, on};
use tokio::io::copy_bidirectional;

/// Copies bytes both ways, once both sides have switched protocols as `response` says.
pub(super) fn tunnel<B>(
    downstream: OnUpgrade,
    response: &mut Response<B>,
    upgrading: Option<Upgrading>,
) -> impl Future<Output = ()> + Send + use<B> {
    copy(downstream, on(response.extensions_mut()), upgrading)
}

async fn copy(downstream: OnUpgrade, upstream: Option<OnUpgrade>, _upgrading: Option<Upgrading>) {
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
