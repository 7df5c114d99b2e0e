//! What Istio's metrics say of a request.

use super::*;
use mesh_core::model::{Cluster, Rule, ServiceRef};

fn workload(name: &str) -> Arc<WorkloadRef> {
    let mut workload = WorkloadRef::default();
    workload.name = name.into();
    workload.namespace = "default".into();
    Arc::new(workload)
}

/// A service behind which a rule, a cluster of this service and an endpoint are found.
async fn routed(place: &Place, request: Request<BoxedBody>) {
    let mut cluster = Cluster::new("c");
    cluster.service = ServiceRef {
        host: "reviews.default.svc.cluster.local".into(),
        name: "reviews".into(),
        namespace: "default".into(),
        ..ServiceRef::default()
    };
    let found = fixture::exchange(Rule::prefix_to("/", "c"), Some(cluster));
    let matched = found.matched().unwrap().clone();
    let inner = service_fn(move |request: Request<Taken>| {
        let exchange = Exchange::of(&request).unwrap();
        exchange.set_matched(matched.clone());
        let mut endpoint = Endpoint::new(fixture::address("127.0.0.1:1"));
        endpoint.workload = workload("reviews-v1");
        exchange.set_upstream(Upstream::new(Arc::new(endpoint)));
        std::future::ready(Ok::<_, Infallible>(Response::new(empty())))
    });
    let request = fixture::with(request, &place.exchange());
    place.layer().layer(inner).oneshot(request).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_source_knows_the_endpoints_workload_and_the_clusters_service() {
    for direction in [Direction::Outbound, Direction::Gateway] {
        let place = Place::new(direction);
        routed(&place, Request::new(empty())).await;
        let series = place.series();
        for label in [
            "reporter=\"source\"",
            "source_workload=\"node\"",
            "destination_workload=\"reviews-v1\"",
            "destination_service=\"reviews.default.svc.cluster.local\"",
            "destination_service_name=\"reviews\"",
            "destination_service_namespace=\"default\"",
            "connection_security_policy=\"unknown\"",
        ] {
            assert!(series.contains(label), "{label} in {series}");
        }
        assert!(series.ends_with("} 1"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_destination_knows_its_caller_by_its_metadata() {
    let header = crate::istio::peer::encode(&workload("productpage-v1"));
    for (header, source) in [
        (Some(header), "productpage-v1"),
        (Some(HeaderValue::from_static("garbage")), "unknown"),
        (None, "unknown"),
    ] {
        let place = Place::new(Direction::Inbound);
        let mut request = Request::new(empty());
        if let Some(header) = header {
            request
                .headers_mut()
                .insert(crate::istio::peer::METADATA, header);
        }
        routed(&place, request).await;
        let series = place.series();
        for label in [
            "reporter=\"destination\"".to_owned(),
            format!("source_workload=\"{source}\""),
            "destination_workload=\"node\"".to_owned(),
            "destination_service=\"reviews.default.svc.cluster.local\"".to_owned(),
            "connection_security_policy=\"none\"".to_owned(),
        ] {
            assert!(series.contains(&label), "{label} in {series}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_histograms_hold_milliseconds_and_bytes() {
    let place = Place::new(Direction::Outbound);
    let probe = Probe::answering([Answers::After(Duration::from_millis(30), StatusCode::OK)]);
    let (response, _) = place.ask(&probe, text("hello")).await;
    read(response.into_body()).await;
    let metrics = place.metrics();
    let value = |name: &str, label: &str| {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(name) && line.contains(label))
            .unwrap();
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    let duration = "istio_request_duration_milliseconds";
    assert_eq!(value(&format!("{duration}_bucket"), "le=\"25\""), "0");
    assert_eq!(value(&format!("{duration}_bucket"), "le=\"50\""), "1");
    assert!(value(&format!("{duration}_sum"), "").starts_with("30"));
    assert_eq!(value("istio_request_bytes_sum", ""), "5");
    assert_eq!(value("istio_response_bytes_sum", ""), "4");
}
