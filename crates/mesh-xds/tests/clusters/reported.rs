//! Weights that endpoints report, and endpoints that requests name.

use super::balancing::{eds, listed};
use mesh_core::model::{Balancing, LocalityBalancing, Real, SessionHealth};
use mesh_xds::pb::envoy::config::cluster::v3 as pb;
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::extensions::load_balancing_policies as policies;
use mesh_xds::pb::envoy::r#type::metadata::v3::MetadataKey;
use mesh_xds::pb::google::protobuf::{BoolValue, Duration as Wire, FloatValue};
use mesh_xds::read;
use policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin;
use policies::override_host::v3::{OverrideHost, override_host::OverrideHostSource};
use policies::round_robin::v3::RoundRobin;
use policies::subset::v3::Subset;
use policies::wrr_locality::v3::WrrLocality;
use prost::{Message, Name};
use std::time::Duration;

fn with<M: Message + Name>(policy: &M) -> pb::Cluster {
    pb::Cluster {
        load_balancing_policy: Some(listed(policy)),
        ..eds()
    }
}

fn refused<M: Message + Name>(policy: &M) -> String {
    read::cluster(&with(policy)).unwrap_err().to_string()
}

fn seconds(seconds: i64) -> Option<Wire> {
    Some(Wire { seconds, nanos: 0 })
}

#[test]
fn nothing_said_is_what_envoy_does_where_nothing_is_said() {
    let read = read::cluster(&with(&ClientSideWeightedRoundRobin::default())).unwrap();
    let policy = read.cluster.weighed_by_reports().unwrap();
    assert_eq!(read.cluster.balancing, Balancing::RoundRobin);
    assert_eq!(policy.blackout, Duration::from_secs(10));
    assert_eq!(policy.expiration, Duration::from_secs(180));
    assert_eq!(policy.interval(), Duration::from_secs(1));
    // Whatever its documentation says: seen of 1.40.
    assert_eq!(policy.error_penalty, Real::ZERO);
    assert!(policy.utilization.is_empty());
}

#[test]
fn what_is_said_is_read_within_localities_too() {
    let asked = ClientSideWeightedRoundRobin {
        blackout_period: seconds(0),
        weight_expiration_period: seconds(5),
        weight_update_period: Some(Wire {
            seconds: 0,
            nanos: 1,
        }),
        error_utilization_penalty: Some(FloatValue { value: 0.5 }),
        metric_names_for_computing_utilization: vec!["named_metrics.a".to_owned()],
        oob_reporting_period: seconds(1),
        ..Default::default()
    };
    let proto = with(&WrrLocality {
        endpoint_picking_policy: Some(listed(&asked)),
    });
    let cluster = read::cluster(&proto).unwrap().cluster;
    assert_eq!(cluster.localities, LocalityBalancing::Weighted);
    let policy = cluster.weighed_by_reports().unwrap();
    assert_eq!(policy.blackout, Duration::ZERO);
    assert_eq!(policy.expiration, Duration::from_secs(5));
    assert_eq!(policy.interval(), Duration::from_millis(100), "at least");
    assert_eq!(policy.error_penalty.get(), 0.5);
    assert_eq!(*policy.utilization[0], *"named_metrics.a");
}

#[test]
fn reports_out_of_band_are_refused_and_what_is_no_number() {
    let mut policy = ClientSideWeightedRoundRobin {
        enable_oob_load_report: Some(BoolValue { value: true }),
        ..Default::default()
    };
    let place = "load_balancing_policy.policies[0].typed_extension_config.typed_config";
    let message = format!("{place}.enable_oob_load_report: not supported");
    assert!(refused(&policy).contains(&message), "{}", refused(&policy));
    policy.enable_oob_load_report = Some(BoolValue { value: false });
    for value in [f32::NAN, f32::INFINITY, -1.0] {
        policy.error_utilization_penalty = Some(FloatValue { value });
        let message = format!("error_utilization_penalty: {value} is not a number that is");
        assert!(refused(&policy).contains(&message), "{}", refused(&policy));
    }
}

fn source(header: &str) -> OverrideHostSource {
    OverrideHostSource {
        header: header.to_owned(),
        metadata: None,
    }
}

fn named(sources: &[OverrideHostSource]) -> OverrideHost {
    OverrideHost {
        override_host_sources: sources.to_vec(),
        selected_host_key: None,
        fallback_policy: Some(listed(&RoundRobin::default())),
    }
}

#[test]
fn headers_name_endpoints_and_the_rest_is_left_to_another_policy() {
    let read = read::cluster(&with(&named(&[source("X-To"), source("host")]))).unwrap();
    assert_eq!(read.cluster.host_headers, ["x-to", "host"]);
    assert_eq!(read.cluster.balancing, Balancing::RoundRobin);
}

#[test]
fn what_needs_metadata_of_requests_is_refused_and_what_stands_inside_another_policy() {
    let metadata = OverrideHostSource {
        metadata: Some(MetadataKey::default()),
        ..source("")
    };
    let told = OverrideHost {
        selected_host_key: Some(MetadataKey::default()),
        ..named(&[source("x-to")])
    };
    let alone = OverrideHost {
        fallback_policy: None,
        ..named(&[source("x-to")])
    };
    let inside = Subset {
        subset_lb_policy: Some(listed(&named(&[source("x-to")]))),
        ..Default::default()
    };
    let twice = OverrideHost {
        fallback_policy: Some(listed(&named(&[source("x-to")]))),
        ..named(&[source("x-to")])
    };
    for (message, expected) in [
        (refused(&named(&[])), "override_host_sources"),
        (
            refused(&named(&[source("a"), source("")])),
            "override_host_sources[1].header: required, but missing",
        ),
        (
            refused(&named(&[source("a b")])),
            "override_host_sources[0].header: \"a b\" is not the name of a header",
        ),
        (
            refused(&named(&[metadata])),
            "override_host_sources[0].metadata: not supported",
        ),
        (refused(&told), "selected_host_key: not supported"),
        (refused(&alone), "fallback_policy: required, but missing"),
        (
            refused(&inside),
            "subset_lb_policy: override_host in another policy is not supported",
        ),
        (
            refused(&twice),
            "fallback_policy: override_host in another policy is not supported",
        ),
    ] {
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn where_sessions_may_be_kept_is_envoys_default_or_what_is_said() {
    let health = |statuses: Option<&[core::HealthStatus]>| {
        let mut proto = eds();
        let common = proto.common_lb_config.get_or_insert_default();
        common.override_host_status = statuses.map(|statuses| core::HealthStatusSet {
            statuses: statuses.iter().copied().map(i32::from).collect(),
        });
        read::cluster(&proto).unwrap().cluster.session_health
    };
    assert_eq!(health(None), SessionHealth::default());
    assert_eq!(health(Some(&[])), SessionHealth::NONE);
    use core::HealthStatus::{Degraded, Draining, Healthy, Unknown};
    // As istiod writes it.
    let mut persistent = SessionHealth::default();
    persistent.draining = true;
    assert_eq!(
        health(Some(&[Healthy, Draining, Unknown, Degraded])),
        persistent
    );
}
