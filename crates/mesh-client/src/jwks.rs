//! Gets the keys of tokens from clusters.

use crate::Body;
use crate::upstream::Upstreams;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, HOST};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use mesh_core::model::{RemoteJwks, Snapshot};
use mesh_core::{BoxError, Caller, Exchange, Feed, Shard};
use mesh_lb::Dispatch;
use mesh_policy::jwt::{Fetch, Fetched, MAX_JWKS};
use std::fmt;
use tokio::time::{Instant, timeout};
use tower_service::Service;

/// Sends to the clusters of the snapshot in force. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Fetcher {
    feed: Feed<Snapshot>,
    dispatch: Dispatch<Upstreams>,
    shard: Shard,
}

// === impl Fetcher ===

impl Fetcher {
    pub(crate) fn new(feed: Feed<Snapshot>, dispatch: Dispatch<Upstreams>, shard: Shard) -> Self {
        Self {
            feed,
            dispatch,
            shard,
        }
    }

    async fn once(self, from: RemoteJwks) -> Result<Bytes, BoxError> {
        let snapshot = self.feed.load();
        let cluster = snapshot.cluster(&from.cluster);
        let cluster = cluster.ok_or_else(|| format!("there is no cluster {:?}", from.cluster))?;
        let mut caller = Caller::default();
        caller.shard = self.shard;
        let exchange = Exchange::new(Instant::now().into_std(), caller);
        exchange.set_cluster(cluster.clone());
        let authority = from.uri.authority().map(|it| it.as_str());
        let path = from.uri.path_and_query().map_or("/", |both| both.as_str());
        let mut request = Request::get(path)
            .header(HOST, HeaderValue::from_str(authority.unwrap_or_default())?)
            .header(ACCEPT, HeaderValue::from_static("application/json"))
            .body(Body::new(Empty::new()))?;
        exchange.attach(&mut request);
        let mut dispatch = self.dispatch;
        let response = dispatch.call(request).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("answered {}", response.status()).into());
        }
        let mut body = std::pin::pin!(response.into_body());
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(Into::<BoxError>::into)?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            if all.len() + data.len() > MAX_JWKS {
                return Err(format!("larger than {MAX_JWKS} bytes").into());
            }
            all.extend_from_slice(&data);
        }
        Ok(all.freeze())
    }
}

impl Fetch for Fetcher {
    fn fetch(&self, from: &RemoteJwks) -> Fetched {
        let (fetcher, from) = (self.clone(), from.clone());
        Box::pin(async move {
            let mut attempts = 0;
            let body = loop {
                let attempt = fetcher.clone().once(from.clone());
                let body = match timeout(from.timeout, attempt).await {
                    Ok(body) => body,
                    Err(elapsed) => Err(elapsed.into()),
                };
                if body.is_ok() || attempts >= from.retries {
                    break body;
                }
                attempts += 1;
            };
            (Instant::now().into_std(), body)
        })
    }
}

impl fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fetcher")
    }
}
