//! Client status, load reports and health over sockets.

use crate::service::{Delta, asking, node_of, run, run_with, set, until};
use crate::support::{Cluster, Routes};
use mesh_xds::Encoded;
use mesh_xds::pb::envoy::admin::v3::ClientResourceStatus;
use mesh_xds::pb::envoy::config::endpoint::v3 as endpoint;
use mesh_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use mesh_xds::pb::envoy::service::load_stats::v3::LoadStatsRequest;
use mesh_xds::pb::envoy::service::load_stats::v3::load_reporting_service_client::LoadReportingServiceClient;
use mesh_xds::pb::envoy::service::status::v3::ClientStatusRequest;
use mesh_xds::pb::envoy::service::status::v3::client_status_discovery_service_client::ClientStatusDiscoveryServiceClient;
use mesh_xds::pb::google::rpc;
use mesh_xds::server::{Limits, Sync};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

#[tokio::test]
async fn client_status_tells_what_was_sent_and_what_was_said_to_it() {
    let running = run().await;
    // A message with a name: what cannot be read is not shown.
    let good = b"\x0a\x04good";
    running
        .set
        .apply(set(Cluster, "good", "\n\x04good").set(Routes, Encoded::new("bad", &b"1"[..])));
    let mut client = Delta::open(&running.channel, "n-1", asking(Cluster, &["good", "none"])).await;
    let response = client.next().await.unwrap();
    client.ack(&response).await;
    client.say(asking(Routes, &["bad"])).await;
    let response = client.next().await.unwrap();
    client
        .say(DeltaDiscoveryRequest {
            response_nonce: response.nonce,
            error_detail: Some(rpc::Status {
                message: "bad: no".into(),
                ..Default::default()
            }),
            ..asking(Routes, &[])
        })
        .await;
    until(|| {
        let types = &running.server.connections()[0].types;
        types.iter().any(|one| one.sync == Sync::Nacked)
    })
    .await;

    let mut status = ClientStatusDiscoveryServiceClient::new(running.channel.clone());
    let answer = status
        .fetch_client_status(ClientStatusRequest::default())
        .await
        .unwrap();
    let config = answer.into_inner().config;
    assert_eq!(config[0].node.as_ref().unwrap().id, "n-1");
    let of = |name: &str| {
        let all = config[0].generic_xds_configs.iter();
        all.clone().find(|one| one.name == name).unwrap()
    };
    assert_eq!(of("good").client_status(), ClientResourceStatus::Acked);
    assert!(!of("good").version_info.is_empty());
    assert_eq!(of("good").xds_config.as_ref().unwrap().value, good);
    assert_eq!(
        of("none").client_status(),
        ClientResourceStatus::DoesNotExist
    );
    assert_eq!(of("bad").client_status(), ClientResourceStatus::Nacked);
    assert_eq!(of("bad").error_state.as_ref().unwrap().details, "bad: no");

    // The streaming call, for another node.
    use mesh_xds::pb::envoy::r#type::matcher::v3 as matcher;
    let other = ClientStatusRequest {
        node_matchers: vec![matcher::NodeMatcher {
            node_id: Some(matcher::StringMatcher {
                match_pattern: Some(matcher::string_matcher::MatchPattern::Exact("other".into())),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut from = status
        .stream_client_status(tokio_stream::iter([other]))
        .await
        .unwrap()
        .into_inner();
    assert!(from.message().await.unwrap().unwrap().config.is_empty());
}

#[tokio::test]
async fn load_is_asked_for_and_kept_within_bounds() {
    let running = run_with(|builder| {
        let mut limits = Limits::default();
        limits.load_reports = 2;
        limits.load_clusters = 1;
        builder
            .limits(limits)
            .load_interval(Duration::from_millis(1500))
    })
    .await;
    let mut client = LoadReportingServiceClient::new(running.channel.clone());
    let (to, requests) = mpsc::channel(8);
    to.send(LoadStatsRequest {
        node: node_of("n"),
        ..Default::default()
    })
    .await
    .unwrap();
    let mut from = client
        .stream_load_stats(ReceiverStream::new(requests))
        .await
        .unwrap()
        .into_inner();
    let wanted = from.message().await.unwrap().unwrap();
    let every = wanted.load_reporting_interval.unwrap();
    assert_eq!(
        (wanted.send_all_clusters, every.seconds, every.nanos),
        (true, 1, 500_000_000)
    );
    for dropped in 1..=3 {
        let stats = |name: &str| endpoint::ClusterStats {
            cluster_name: name.into(),
            total_dropped_requests: dropped,
            ..Default::default()
        };
        let cluster_stats = vec![stats("a"), stats("b")];
        to.send(LoadStatsRequest {
            node: None,
            cluster_stats,
        })
        .await
        .unwrap();
    }
    let dropped = || -> Vec<u64> {
        let reports = running.server.load_reports();
        reports
            .iter()
            .flat_map(|one| &one.clusters)
            .map(|one| one.dropped)
            .collect()
    };
    until(|| dropped() == [2, 3]).await;
    let report = &running.server.load_reports()[0];
    assert_eq!((report.node.id(), report.left_out), ("n", 1));
    drop((to, from));
    until(|| running.server.load_reports().is_empty()).await;
}

#[tokio::test]
async fn health_is_served() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_client::HealthClient;
    let running = run().await;
    let mut client = HealthClient::new(running.channel.clone());
    let answer = client
        .check(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        answer.status(),
        tonic_health::pb::health_check_response::ServingStatus::Serving
    );
}
