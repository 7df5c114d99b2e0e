//! What is read of peers, taken off and answered.

use super::*;
use crate::istio::peer::{Introduction, METADATA, METADATA_ID, encode};
use mesh_core::model::{Cluster, Rule};

fn workload(name: &str) -> WorkloadRef {
    let mut workload = WorkloadRef::default();
    workload.name = name.into();
    workload.namespace = "default".into();
    workload
}

/// Which of the two headers there are.
fn shown(headers: &HeaderMap) -> (bool, bool) {
    (
        headers.contains_key(METADATA),
        headers.contains_key(METADATA_ID),
    )
}

fn saying(metadata: bool, id: bool) -> Request<BoxedBody> {
    let mut request = Request::new(empty());
    if metadata {
        request
            .headers_mut()
            .insert(METADATA, encode(&workload("caller")));
    }
    if id {
        let id = HeaderValue::from_static("caller");
        request.headers_mut().insert(METADATA_ID, id);
    }
    request
}

#[tokio::test(start_paused = true)]
async fn an_inbound_request_is_answered_in_kind_and_the_application_sees_nothing() {
    for (metadata, id) in [(false, false), (true, false), (false, true), (true, true)] {
        let place = Place::new(Direction::Inbound);
        let own = Introduction::of(place.telemetry.node()).unwrap();
        let probe = Probe::new();
        let request = fixture::with(saying(metadata, id), &place.exchange());
        let response = place.layer().layer(probe.clone()).oneshot(request).await;
        let response = response.unwrap();
        assert_eq!(shown(probe.requests()[0].headers()), (false, false));
        let headers = response.headers();
        assert_eq!(shown(headers), (metadata, id));
        if metadata && id {
            assert_eq!(headers[METADATA], own.metadata());
            assert_eq!(headers[METADATA_ID], own.id());
        }
        drop(response);
        let source = if metadata { "caller" } else { "unknown" };
        let label = format!("source_workload=\"{source}\"");
        assert!(place.series().contains(&label), "{}", place.series());
    }
}

#[tokio::test(start_paused = true)]
async fn an_application_cannot_answer_for_us() {
    let place = Place::new(Direction::Inbound);
    let mut headers = HeaderMap::new();
    headers.insert(METADATA, HeaderValue::from_static("forged"));
    let probe = Probe::answering([Answers::WithHeaders(StatusCode::OK, headers, "")]);
    let request = fixture::with(saying(true, true), &place.exchange());
    let response = place.layer().layer(probe).oneshot(request).await.unwrap();
    let own = Introduction::of(place.telemetry.node()).unwrap();
    assert_eq!(response.headers()[METADATA], own.metadata());
}

/// A response that says who it is from, to a request that went to an endpoint of this cluster. Its
/// series, once the caller has it without those headers.
async fn answered_by(
    direction: Direction,
    said: HeaderValue,
    known: WorkloadRef,
    cluster: Option<Cluster>,
) -> String {
    let place = Place::new(direction);
    let matched = cluster.map(|cluster| {
        let rule = Rule::prefix_to("/", cluster.name.clone());
        let exchange = fixture::exchange(rule, Some(cluster));
        exchange.matched().unwrap().clone()
    });
    let inner = service_fn(move |request: Request<Taken>| {
        let exchange = Exchange::of(&request).unwrap();
        if let Some(matched) = &matched {
            exchange.set_matched(matched.clone());
        }
        let mut endpoint = Endpoint::new(fixture::address("127.0.0.1:1"));
        endpoint.workload = Arc::new(known.clone());
        exchange.set_upstream(Upstream::new(Arc::new(endpoint)));
        let response = Response::builder()
            .header(METADATA, said.clone())
            .header(METADATA_ID, "server");
        std::future::ready(Ok::<_, Infallible>(response.body(empty()).unwrap()))
    });
    let mut request: Request<BoxedBody> = Request::new(empty());
    let mut caller = Caller::default();
    caller.manager = Some(place.manager.clone());
    let mut info = mesh_core::exchange::TlsInfo::default();
    info.version = Some(mesh_core::model::TlsVersion::V1_3);
    caller.tls = Some(Arc::new(info));
    Exchange::new(tokio::time::Instant::now().into_std(), caller).attach(&mut request);
    let response = place.layer().layer(inner).oneshot(request).await.unwrap();
    assert_eq!(shown(response.headers()), (false, false));
    drop(response);
    place.series()
}

#[tokio::test(start_paused = true)]
async fn an_upstream_says_who_it_is_and_its_endpoint_what_it_may_not_say() {
    let mut said = workload("reviews-v2");
    said.app = "reviews".into();
    let mut known = workload("reviews");
    known.principal = "spiffe://td/ns/default/sa/reviews".into();
    known.version = "v9".into();
    for direction in [Direction::Outbound, Direction::Gateway] {
        for cluster in [Some(Cluster::new("c")), None] {
            let series = answered_by(direction, encode(&said), known.clone(), cluster).await;
            for label in [
                "destination_workload=\"reviews-v2\"",
                "destination_app=\"reviews\"",
                "destination_version=\"unknown\"",
                "destination_principal=\"spiffe://td/ns/default/sa/reviews\"",
            ] {
                assert!(series.contains(label), "{label} in {series}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_or_comes_from_outside_changes_nothing() {
    let mut outside = Cluster::new("c");
    outside.metadata.insert("external".into(), "true".into());
    let forged = encode(&workload("forged"));
    let garbage = HeaderValue::from_static("garbage!");
    for (said, cluster) in [(forged, outside), (garbage, Cluster::new("c"))] {
        let known = workload("reviews");
        let series = answered_by(Direction::Outbound, said, known, Some(cluster)).await;
        let label = "destination_workload=\"reviews\"";
        assert!(series.contains(label), "{label} in {series}");
    }
}

#[tokio::test]
async fn who_is_nobody_leaves_the_headers_alone() {
    for direction in [Direction::Outbound, Direction::Inbound] {
        let telemetry = Telemetry::new(WorkloadRef::default()).direction(direction);
        let layer = FinishLayer::<Taken>::new(Arc::new(telemetry));
        let mut headers = HeaderMap::new();
        headers.insert(METADATA, HeaderValue::from_static("theirs"));
        let probe = Probe::answering([Answers::WithHeaders(StatusCode::OK, headers, "")]);
        let request = saying(true, true);
        let response = layer.layer(probe.clone()).oneshot(request).await.unwrap();
        assert_eq!(shown(probe.requests()[0].headers()), (true, true));
        assert_eq!(response.headers()[METADATA], "theirs");
        assert_eq!(shown(response.headers()), (true, false));
    }
}
