use super::*;
use crate::istio::peer::{METADATA, METADATA_ID, decode};
use http::HeaderMap;
use mesh_core::Caller;
use mesh_core::model::{HttpManager, Rule, WorkloadRef};
use mesh_test::{BoxedBody, Probe, contract, empty, fixture};
use tower::ServiceExt;

fn telemetry(name: &str) -> Telemetry {
    let mut node = WorkloadRef::default();
    node.name = name.into();
    Telemetry::new(node)
}

/// Who the request's headers say the caller is, as an upstream sees them.
async fn told(layer: IntroduceLayer, exchange: Option<Exchange>, forged: bool) -> String {
    let probe = Probe::new();
    let mut request: Request<BoxedBody> = Request::new(empty());
    if forged {
        request
            .headers_mut()
            .insert(METADATA, "Zm9v".parse().unwrap());
        request
            .headers_mut()
            .insert(METADATA_ID, "forged".parse().unwrap());
    }
    if let Some(exchange) = &exchange {
        exchange.attach(&mut request);
    }
    layer.layer(probe.clone()).oneshot(request).await.unwrap();
    said_in(probe.requests()[0].headers())
}

fn said_in(headers: &HeaderMap) -> String {
    let id = headers.get(METADATA_ID).map(|id| id.to_str().unwrap());
    match (headers.get(METADATA), id) {
        (None, None) => "nothing".into(),
        (Some(_), Some("forged")) => "forged".into(),
        (Some(metadata), Some(_)) => decode(metadata.as_bytes()).unwrap().name.to_string(),
        odd => panic!("one without the other: {odd:?}"),
    }
}

fn to(change: impl FnOnce(&mut Cluster)) -> Exchange {
    let mut cluster = Cluster::new("c");
    change(&mut cluster);
    let rule = Rule::prefix_to("/", cluster.name.clone());
    fixture::exchange(rule, Some(cluster))
}

fn through(direction: Direction) -> Exchange {
    let mut manager = HttpManager::new("here", "t");
    manager.direction = direction;
    let mut caller = Caller::default();
    caller.manager = Some(Arc::new(manager));
    let exchange = Exchange::new(tokio::time::Instant::now().into_std(), caller);
    exchange.set_matched(to(|_| {}).matched().unwrap().clone());
    exchange
}

#[tokio::test]
async fn keeps_the_contract_without_an_exchange() {
    contract::check(IntroduceLayer::default()).await;
    contract::check(IntroduceLayer::per_route(&telemetry("client"))).await;
    contract::check(IntroduceLayer::fixed(&telemetry("client"))).await;
}

#[tokio::test]
async fn upstreams_inside_the_mesh_are_told_and_nobody_speaks_for_us() {
    let layer = IntroduceLayer::per_route(&telemetry("client"));
    for forged in [false, true] {
        let said = told(layer.clone(), Some(to(|_| {})), forged).await;
        assert_eq!(said, "client");
        for direction in [Direction::Outbound, Direction::Gateway] {
            let said = told(layer.clone(), Some(through(direction)), forged).await;
            assert_eq!(said, "client", "{direction:?}");
        }
    }
}

#[tokio::test]
async fn services_outside_the_mesh_are_told_nothing() {
    let fact = |key: &'static str, value: &'static str| {
        to(|cluster| drop(cluster.metadata.insert(key.into(), value.into())))
    };
    let layer = IntroduceLayer::fixed(&telemetry("client"));
    for (exchange, said) in [
        (
            to(|cluster| cluster.discovery = DiscoveryKind::Authority),
            "nothing",
        ),
        (
            to(|cluster| cluster.name = "PassthroughCluster".into()),
            "nothing",
        ),
        (fact("external", "true"), "nothing"),
        (fact("istio/external", "true"), "nothing"),
        (fact("istio/disable_mx", "true"), "nothing"),
        (fact("external", "false"), "client"),
        (fact("config", "true"), "client"),
        (
            to(|cluster| cluster.discovery = DiscoveryKind::StrictDns),
            "client",
        ),
    ] {
        let cluster = exchange.cluster().unwrap().config().clone();
        assert_eq!(
            told(layer.clone(), Some(exchange), true).await,
            said,
            "{cluster:?}"
        );
    }
}

#[tokio::test]
async fn the_application_behind_an_inbound_listener_is_left_alone() {
    let layer = IntroduceLayer::fixed(&telemetry("server"));
    let said = told(layer, Some(through(Direction::Inbound)), false).await;
    assert_eq!(said, "nothing");
    let inbound = telemetry("server").direction(Direction::Inbound);
    let said = told(IntroduceLayer::fixed(&inbound), Some(to(|_| {})), false).await;
    assert_eq!(said, "nothing", "without a listener");
}

#[tokio::test]
async fn what_was_not_routed_is_told_by_a_fixed_layer_only() {
    let now = tokio::time::Instant::now().into_std();
    for exchange in [None, Some(Exchange::new(now, Caller::default()))] {
        let node = telemetry("client");
        let layer = IntroduceLayer::per_route(&node);
        assert_eq!(told(layer, exchange.clone(), true).await, "forged");
        let layer = IntroduceLayer::fixed(&node);
        assert_eq!(told(layer, exchange, true).await, "client");
    }
}

#[tokio::test]
async fn who_is_nobody_says_nothing_and_changes_nothing() {
    for forged in [false, true] {
        let layer = IntroduceLayer::fixed(&telemetry(""));
        let said = told(layer, Some(to(|_| {})), forged).await;
        assert_eq!(said, if forged { "forged" } else { "nothing" });
    }
}
