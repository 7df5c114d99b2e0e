//! One cluster of three in-memory hosts, one of which fails and is ejected.
//!
//! ```text
//! cargo run -p mesh-lb --example balance
//! ```

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use mesh_core::Rng;
use mesh_core::model::{
    Address, Balancing, Cluster, ClusterEntry, EndpointSet, Outlier, SnapshotBuilder,
};
use mesh_lb::{Balance, Host};
use std::convert::Infallible;
use std::sync::Arc;
use tower::{ServiceExt, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut cluster = Cluster::new("reviews");
    cluster.balancing = Balancing::RoundRobin;
    let mut outlier = Outlier::default();
    outlier.consecutive_5xx = 2;
    outlier.max_ejection_percent = 50;
    cluster.outlier = Some(outlier);

    let mut builder = SnapshotBuilder::new();
    builder.cluster(cluster);
    let addresses = ["10.0.0.1:9080", "10.0.0.2:9080", "10.0.0.3:9080"];
    let addresses: Result<Vec<Address>, _> = addresses.iter().map(|text| text.parse()).collect();
    builder.endpoints("reviews", EndpointSet::of(addresses?));
    let (snapshot, _) = builder.build()?;

    // In earnest this connects to `host.address()`; any HTTP client that is a Service will do.
    let make = |host: &Arc<Host>, _: &Arc<ClusterEntry>| {
        let address = host.address().clone();
        service_fn(move |_: Request<Full<Bytes>>| {
            let is_broken = address.to_string().starts_with("10.0.0.2");
            let mut response = Response::new(Full::<Bytes>::from(address.to_string()));
            if is_broken {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            std::future::ready(Ok::<_, Infallible>(response))
        })
    };
    let reviews =
        Balance::new(snapshot.clusters()[0].clone(), make).rng(Arc::new(Rng::with_seed(1)));
    for _ in 0..9 {
        let request = Request::new(Full::default());
        let response = reviews.clone().oneshot(request).await?;
        println!("{}", response.status());
    }
    for host in reviews.hosts().view() {
        println!(
            "{} requests {} errors {} ejected {}",
            host.address, host.counts.rq_total, host.counts.rq_error, host.ejected
        );
    }
    Ok(())
}
