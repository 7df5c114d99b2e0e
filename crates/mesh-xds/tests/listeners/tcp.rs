//! The TCP proxy: what is refused or defaulted.

use crate::{any_of, refused, unknown};
use mesh_core::model::{Direction, Listener, TcpProxy, TcpTarget};
use mesh_xds::pb::envoy::config::listener::v3 as pb;
use mesh_xds::pb::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use mesh_xds::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy as inner;
use mesh_xds::pb::google::protobuf::{Any, UInt32Value};
use mesh_xds::{read, write};

const SNI_CLUSTER: &str = "envoy.extensions.filters.network.sni_cluster.v3.SniCluster";

fn filter(any: Any) -> pb::Filter {
    pb::Filter {
        config_type: Some(pb::filter::ConfigType::TypedConfig(any)),
        ..Default::default()
    }
}

/// A listener with these network filters.
fn with(filters: Vec<Any>) -> pb::Listener {
    let model = Listener::tcp("l", ([127, 0, 0, 1], 80).into(), TcpProxy::to("s", "c"));
    let mut proto = write::listener(&model, None);
    proto.filter_chains[0].filters = filters.into_iter().map(filter).collect();
    proto
}

fn proxy() -> tcp::TcpProxy {
    tcp::TcpProxy {
        stat_prefix: "s".to_owned(),
        cluster_specifier: Some(inner::ClusterSpecifier::Cluster("c".to_owned())),
        ..Default::default()
    }
}

fn read_proxy(proto: &pb::Listener) -> TcpProxy {
    let read = read::listener(proto).unwrap();
    assert!(read.routes.is_empty(), "bytes have no routes");
    TcpProxy::clone(read.listener.chains[0].proxy().unwrap())
}

#[test]
fn a_proxy_that_says_nothing_has_envoys_defaults() {
    assert_eq!(
        read_proxy(&with(vec![any_of(&proxy())])),
        TcpProxy::to("s", "c")
    );
}

#[test]
fn the_filter_before_it_makes_the_server_name_choose() {
    let read = read_proxy(&with(vec![unknown(SNI_CLUSTER), any_of(&proxy())]));
    assert_eq!(read.target, TcpTarget::ServerName("c".into()));
    let mut weighted = proxy();
    weighted.cluster_specifier =
        Some(inner::ClusterSpecifier::WeightedClusters(Default::default()));
    let error = refused(&with(vec![unknown(SNI_CLUSTER), any_of(&weighted)]));
    assert!(
        error.contains("weighted_clusters: not supported behind the sni_cluster"),
        "{error}"
    );
}

#[test]
fn a_listener_on_the_way_in_has_proxies_on_the_way_in() {
    let mut proto = with(vec![any_of(&proxy())]);
    proto.traffic_direction = 1;
    assert_eq!(read_proxy(&proto).direction, Direction::Inbound);
}

#[test]
fn zero_is_for_ever_where_envoy_says_so() {
    let mut forever = proxy();
    forever.idle_timeout = Some(Default::default());
    assert_eq!(read_proxy(&with(vec![any_of(&forever)])).idle_timeout, None);
    let mut never = proxy();
    never.max_downstream_connection_duration = Some(Default::default());
    let error = refused(&with(vec![any_of(&never)]));
    assert!(error.contains("max_downstream_connection_duration: must be more than zero"));
}

#[test]
fn what_a_proxy_cannot_do_is_refused_by_its_field() {
    type Change = fn(&mut tcp::TcpProxy);
    let changes: [(&str, Change); 6] = [
        ("stat_prefix: required, but missing", |p| {
            p.stat_prefix.clear()
        }),
        ("cluster_specifier: required, but missing", |p| {
            p.cluster_specifier = None
        }),
        (
            "on_demand.odcds_config.config_source_specifier: required",
            |p| {
                p.on_demand = Some(inner::OnDemand {
                    odcds_config: Some(Default::default()),
                    ..Default::default()
                })
            },
        ),
        ("max_connect_attempts: must be 1 or more", |p| {
            p.max_connect_attempts = Some(UInt32Value { value: 0 });
        }),
        (
            "tunneling_config.hostname: \"%HOST%\" is not supported",
            |p| {
                p.tunneling_config = Some(inner::TunnelingConfig {
                    hostname: "%HOST%".to_owned(),
                    ..Default::default()
                });
            },
        ),
        (
            "hash_policy[0].policy_specifier: required, but missing",
            |p| {
                p.hash_policy = vec![Default::default()];
            },
        ),
    ];
    for (message, change) in changes {
        let mut value = proxy();
        change(&mut value);
        let error = refused(&with(vec![any_of(&value)]));
        let expected = format!("filter_chains[0].filters[0].typed_config.{message}");
        assert!(error.starts_with(&expected), "{error}");
    }
    let error = refused(&with(vec![any_of(&proxy()), any_of(&proxy())]));
    assert!(
        error.starts_with("filter_chains[0].filters[0]: nothing may follow"),
        "{error}"
    );
    let error = refused(&with(vec![unknown("x.Rbac"), any_of(&proxy())]));
    assert_eq!(
        error,
        "filter_chains[0].filters[0].typed_config: \"x.Rbac\" is not supported"
    );
}
