//! How an endpoint is chosen: the newer spellings, defaults, and what is refused.

use mesh_core::model::{
    Balancing, Cluster, HashFunction, HashKeys, LocalityBalancing, Maglev, Real, RingHash,
    SlowStart, ZoneAware,
};
use mesh_xds::pb::envoy::config::cluster::v3 as pb;
use mesh_xds::pb::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LbSubsetConfig, LeastRequestLbConfig, MaglevLbConfig,
    RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
};
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::core::v3::RuntimeDouble;
use mesh_xds::pb::envoy::extensions::load_balancing_policies as policies;
use mesh_xds::pb::google::protobuf::{Any, Duration as Wire, UInt32Value, UInt64Value};
use mesh_xds::{read, write};
use pb::cluster::common_lb_config as common;
use pb::cluster::lb_subset_config::LbSubsetSelector;
use pb::load_balancing_policy::Policy as Listed;
use policies::common::v3 as shared;
use prost::{Message, Name};
use std::time::Duration;

pub(crate) fn eds() -> pb::Cluster {
    write::cluster(&Cluster::new("c"), None)
}

fn refused(cluster: &pb::Cluster) -> String {
    read::cluster(cluster).unwrap_err().to_string()
}

fn wide(value: u64) -> Option<UInt64Value> {
    Some(UInt64Value { value })
}

fn is(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn statuses(statuses: &[core::HealthStatus]) -> Option<core::HealthStatusSet> {
    Some(core::HealthStatusSet {
        statuses: statuses.iter().copied().map(i32::from).collect(),
    })
}

fn real(default_value: f64) -> Option<RuntimeDouble> {
    Some(RuntimeDouble {
        default_value,
        runtime_key: "a.key".to_owned(),
    })
}

pub(crate) fn listed<M: Message + Name>(config: &M) -> pb::LoadBalancingPolicy {
    pb::LoadBalancingPolicy {
        policies: vec![Listed {
            typed_extension_config: Some(core::TypedExtensionConfig {
                name: "any".to_owned(),
                typed_config: Some(Any {
                    type_url: M::type_url(),
                    value: config.encode_to_vec(),
                }),
            }),
        }],
    }
}

pub(crate) fn with<M: Message + Name>(config: &M) -> pb::Cluster {
    pb::Cluster {
        load_balancing_policy: Some(listed(config)),
        ..eds()
    }
}

fn by_weight() -> Option<shared::LocalityLbConfig> {
    use shared::locality_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
    let config = LocalityWeightedLbConfig::default();
    Some(shared::LocalityLbConfig {
        locality_config_specifier: Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(config)),
    })
}

fn slowly() -> Option<shared::SlowStartConfig> {
    Some(shared::SlowStartConfig {
        slow_start_window: Some(Wire {
            seconds: 30,
            nanos: 0,
        }),
        aggression: real(2.0),
        min_weight_percent: None,
    })
}

fn expected_slow() -> SlowStart {
    let mut slow = SlowStart::new(Duration::from_secs(30));
    slow.aggression = Real::new(2.0).unwrap();
    slow
}

#[test]
fn the_newer_spelling_of_weights_has_slow_start_and_localities_in_it() {
    let proto = with(&policies::round_robin::v3::RoundRobin {
        slow_start_config: slowly(),
        locality_lb_config: by_weight(),
    });
    let read = read::cluster(&proto).unwrap().cluster;
    assert_eq!(read.balancing, Balancing::RoundRobin);
    assert_eq!(read.slow_start, Some(expected_slow()));
    assert_eq!(read.localities, LocalityBalancing::Weighted);

    let proto = with(&policies::least_request::v3::LeastRequest {
        choice_count: is(3),
        active_request_bias: real(0.5),
        slow_start_config: slowly(),
        ..Default::default()
    });
    let read = read::cluster(&proto).unwrap().cluster;
    let bias = Real::new(0.5).unwrap();
    assert_eq!(read.balancing, Balancing::LeastRequest { choices: 3, bias });
    assert_eq!(read.slow_start, Some(expected_slow()));
    assert_eq!(read.localities, LocalityBalancing::Ignored);
}

#[test]
fn the_own_zone_comes_first_where_it_is_asked_for() {
    use shared::locality_lb_config::{LocalityConfigSpecifier, ZoneAwareLbConfig};
    let zones = |change: fn(&mut ZoneAwareLbConfig)| {
        let mut zones = ZoneAwareLbConfig::default();
        change(&mut zones);
        let specifier = LocalityConfigSpecifier::ZoneAwareLbConfig(zones);
        with(&policies::random::v3::Random {
            locality_lb_config: Some(shared::LocalityLbConfig {
                locality_config_specifier: Some(specifier),
            }),
        })
    };
    let read = read::cluster(&zones(|_| {})).unwrap().cluster;
    let default = LocalityBalancing::ZoneAware(ZoneAware::default());
    assert_eq!(
        (read.balancing, read.localities),
        (Balancing::Random, default)
    );
    let at = "load_balancing_policy.policies[0].typed_extension_config.typed_config.\
              locality_lb_config.zone_aware_lb_config";
    let error = refused(&zones(|zones| {
        zones.force_local_zone = Some(Default::default())
    }));
    assert_eq!(error, format!("{at}.force_local_zone: not supported"));
    let error = refused(&zones(|zones| zones.locality_basis = 1));
    assert_eq!(error, format!("{at}.locality_basis: not supported"));
}

#[test]
fn the_newer_spelling_of_a_ring_has_the_older_fields_of_its_keys_too() {
    #[expect(deprecated, reason = "this is what is tested")]
    let mut ring = policies::ring_hash::v3::RingHash {
        hash_function: 2,
        minimum_ring_size: wide(7),
        maximum_ring_size: wide(9),
        use_hostname_for_hashing: true,
        hash_balance_factor: is(120),
        consistent_hashing_lb_config: None,
        locality_weighted_lb_config: Some(Default::default()),
    };
    let mut expected = RingHash::default();
    expected.minimum = 7;
    expected.maximum = 9;
    expected.function = HashFunction::Murmur2;
    expected.keys.hostname = true;
    expected.keys.balance_factor = Some(120);
    let read = read::cluster(&with(&ring)).unwrap().cluster;
    assert_eq!(read.balancing, Balancing::RingHash(expected));
    assert_eq!(read.localities, LocalityBalancing::Weighted);
    ring.consistent_hashing_lb_config = Some(Default::default());
    let read = read::cluster(&with(&ring)).unwrap().cluster;
    expected.keys = HashKeys::default();
    assert_eq!(read.balancing, Balancing::RingHash(expected));
}

#[test]
fn the_newer_spelling_of_a_table_is_read() {
    let proto = with(&policies::maglev::v3::Maglev {
        table_size: wide(1009),
        consistent_hashing_lb_config: Some(shared::ConsistentHashingLbConfig {
            use_hostname_for_hashing: true,
            ..Default::default()
        }),
        locality_weighted_lb_config: None,
    });
    let mut expected = Maglev::default();
    expected.size = 1009;
    expected.keys.hostname = true;
    let read = read::cluster(&proto).unwrap().cluster;
    assert_eq!(read.balancing, Balancing::Maglev(expected));
}

#[test]
fn localities_by_weight_have_a_policy_inside() {
    let inside = listed(&policies::round_robin::v3::RoundRobin::default());
    let proto = with(&policies::wrr_locality::v3::WrrLocality {
        endpoint_picking_policy: Some(inside),
    });
    let read = read::cluster(&proto).unwrap().cluster;
    assert_eq!(read.balancing, Balancing::RoundRobin);
    assert_eq!(read.localities, LocalityBalancing::Weighted);
    let empty = with(&policies::wrr_locality::v3::WrrLocality::default());
    assert!(refused(&empty).ends_with("endpoint_picking_policy: required, but missing"));
}

#[test]
fn policies_do_not_stand_in_one_another_without_end() {
    let mut deep = listed(&policies::round_robin::v3::RoundRobin::default());
    for _ in 0..20 {
        deep = listed(&policies::wrr_locality::v3::WrrLocality {
            endpoint_picking_policy: Some(deep),
        });
    }
    let proto = pb::Cluster {
        load_balancing_policy: Some(deep),
        ..eds()
    };
    assert!(refused(&proto).ends_with("more than 16 policies in one another"));
}

#[test]
fn a_ring_and_a_table_have_envoys_sizes_where_nothing_is_said() {
    for (policy, expected) in [
        (LbPolicy::RingHash, Balancing::RingHash(RingHash::default())),
        (LbPolicy::Maglev, Balancing::Maglev(Maglev::default())),
    ] {
        let mut proto = eds();
        proto.lb_policy = policy.into();
        assert_eq!(read::cluster(&proto).unwrap().cluster.balancing, expected);
    }
}

#[test]
fn a_start_without_a_window_is_not_slow() {
    let mut proto = eds();
    proto.lb_policy = LbPolicy::RoundRobin.into();
    proto.lb_config = Some(LbConfig::RoundRobinLbConfig(RoundRobinLbConfig {
        slow_start_config: Some(SlowStartConfig {
            aggression: real(3.0),
            ..Default::default()
        }),
    }));
    assert_eq!(read::cluster(&proto).unwrap().cluster.slow_start, None);
}

#[test]
fn beside_hashes_there_are_no_zones() {
    let mut proto = eds();
    let zones = common::ZoneAwareLbConfig::default();
    proto.common_lb_config = Some(CommonLbConfig {
        locality_config_specifier: Some(common::LocalityConfigSpecifier::ZoneAwareLbConfig(zones)),
        ..Default::default()
    });
    let localities = |proto: &pb::Cluster| read::cluster(proto).unwrap().cluster.localities;
    let default = LocalityBalancing::ZoneAware(ZoneAware::default());
    assert_eq!(localities(&proto), default);
    proto.lb_policy = LbPolicy::Maglev.into();
    assert_eq!(localities(&proto), LocalityBalancing::Ignored);
}

#[test]
fn balancing_that_cannot_be_is_refused_by_its_field() {
    type Change = fn(&mut pb::Cluster);
    fn ring(c: &mut pb::Cluster, minimum: Option<u64>, maximum: Option<u64>) {
        c.lb_policy = LbPolicy::RingHash.into();
        c.lb_config = Some(LbConfig::RingHashLbConfig(RingHashLbConfig {
            minimum_ring_size: minimum.and_then(wide),
            maximum_ring_size: maximum.and_then(wide),
            ..Default::default()
        }));
    }
    fn table(c: &mut pb::Cluster, size: u64) {
        c.lb_policy = LbPolicy::Maglev.into();
        let table_size = wide(size);
        c.lb_config = Some(LbConfig::MaglevLbConfig(MaglevLbConfig { table_size }));
    }
    fn slow(c: &mut pb::Cluster, slow_start_config: SlowStartConfig) {
        c.lb_policy = LbPolicy::LeastRequest.into();
        c.lb_config = Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
            slow_start_config: Some(SlowStartConfig {
                slow_start_window: Some(Wire {
                    seconds: 1,
                    nanos: 0,
                }),
                ..slow_start_config
            }),
            ..Default::default()
        }));
    }
    fn selector(c: &mut pb::Cluster, change: fn(&mut LbSubsetSelector)) {
        let mut selector = LbSubsetSelector::default();
        change(&mut selector);
        c.lb_subset_config = Some(LbSubsetConfig {
            subset_selectors: vec![selector],
            ..Default::default()
        });
    }
    fn keys(c: &mut pb::Cluster, factor: u32) {
        c.common_lb_config
            .get_or_insert_default()
            .consistent_hashing_lb_config = Some(common::ConsistentHashingLbConfig {
            hash_balance_factor: is(factor),
            ..Default::default()
        });
    }
    let changes: [(&str, Change); 23] = [
        (
            "ring_hash_lb_config.minimum_ring_size: 0 is not a number from 1",
            |c| {
                ring(c, Some(0), None);
            },
        ),
        (
            "ring_hash_lb_config.minimum_ring_size: 8388609 is not",
            |c| {
                ring(c, Some((8 << 20) + 1), None);
            },
        ),
        (
            "ring_hash_lb_config.maximum_ring_size: 8388609 is not",
            |c| {
                ring(c, None, Some((8 << 20) + 1));
            },
        ),
        (
            "ring_hash_lb_config.minimum_ring_size: 9 is more than maximum_ring_size, 8",
            |c| {
                ring(c, Some(9), Some(8));
            },
        ),
        (
            "ring_hash_lb_config.minimum_ring_size: 1024 is more than maximum_ring_size, 8",
            |c| {
                ring(c, None, Some(8));
            },
        ),
        (
            "maglev_lb_config.table_size: 1000 is not a prime number",
            |c| table(c, 1000),
        ),
        (
            "maglev_lb_config.table_size: 0 is not a prime number",
            |c| table(c, 0),
        ),
        (
            "maglev_lb_config.table_size: 5000077 is not a prime number",
            |c| table(c, 5_000_077),
        ),
        (
            "ring_hash_lb_config: does not go with lb_policy RANDOM",
            |c| {
                ring(c, None, None);
                c.lb_policy = LbPolicy::Random.into();
            },
        ),
        (
            "common_lb_config.consistent_hashing_lb_config.hash_balance_factor: 99 is less",
            |c| {
                c.lb_policy = LbPolicy::Maglev.into();
                keys(c, 99);
            },
        ),
        (
            "common_lb_config.consistent_hashing_lb_config: goes with lb_policy RING_HASH",
            |c| {
                keys(c, 100);
            },
        ),
        (
            "common_lb_config.override_host_status.statuses: UNKNOWN and HEALTHY are only",
            |c| {
                c.common_lb_config
                    .get_or_insert_default()
                    .override_host_status = statuses(&[core::HealthStatus::Healthy]);
            },
        ),
        (
            "common_lb_config.override_host_status.statuses: UNHEALTHY and TIMEOUT are only",
            |c| {
                c.common_lb_config
                    .get_or_insert_default()
                    .override_host_status = statuses(&[core::HealthStatus::Timeout]);
            },
        ),
        (
            "least_request_lb_config.active_request_bias.default_value: -1 is not",
            |c| {
                c.lb_policy = LbPolicy::LeastRequest.into();
                c.lb_config = Some(LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                    active_request_bias: real(-1.0),
                    ..Default::default()
                }));
            },
        ),
        (
            "least_request_lb_config.slow_start_config.aggression.default_value: 0 is not",
            |c| {
                let aggression = real(0.0);
                slow(
                    c,
                    SlowStartConfig {
                        aggression,
                        ..Default::default()
                    },
                );
            },
        ),
        (
            "least_request_lb_config.slow_start_config.min_weight_percent.value: 0.5 is not",
            |c| {
                let half = Some(mesh_xds::pb::envoy::r#type::v3::Percent { value: 0.5 });
                slow(
                    c,
                    SlowStartConfig {
                        min_weight_percent: half,
                        ..Default::default()
                    },
                );
            },
        ),
        (
            "lb_subset_config.subset_selectors[0].fallback_keys_subset: must not be empty",
            |c| {
                selector(c, |selector| selector.fallback_policy = 4);
            },
        ),
        (
            "lb_subset_config.subset_selectors[0].fallback_keys_subset: is for KEYS_SUBSET only",
            |c| {
                selector(c, |selector| {
                    selector.fallback_keys_subset.push("k".to_owned())
                });
            },
        ),
        (
            "lb_subset_config.subset_selectors[0].fallback_keys_subset: must be some of keys",
            |c| {
                selector(c, |selector| {
                    selector.keys = vec!["a".to_owned(), "b".to_owned()];
                    selector.fallback_policy = 4;
                    selector.fallback_keys_subset.push("k".to_owned());
                });
            },
        ),
        (
            "lb_subset_config.subset_selectors[0].fallback_keys_subset: must not be all of keys",
            |c| {
                selector(c, |selector| {
                    selector.keys = vec!["k".to_owned()];
                    selector.fallback_policy = 4;
                    selector.fallback_keys_subset.push("k".to_owned());
                });
            },
        ),
        ("lb_subset_config.metadata_fallback_policy: ", |c| {
            let metadata_fallback_policy = 2;
            c.lb_subset_config = Some(LbSubsetConfig {
                metadata_fallback_policy,
                ..Default::default()
            });
        }),
        (
            "lb_subset_config: cannot be combined with load_balancing_policy",
            |c| {
                c.load_balancing_policy =
                    Some(listed(&policies::round_robin::v3::RoundRobin::default()));
                c.lb_subset_config = Some(LbSubsetConfig::default());
            },
        ),
        (
            "common_lb_config.consistent_hashing_lb_config: cannot be combined",
            |c| {
                c.load_balancing_policy = Some(listed(&policies::maglev::v3::Maglev::default()));
                keys(c, 100);
            },
        ),
    ];
    for (message, change) in changes {
        let mut proto = eds();
        change(&mut proto);
        let error = refused(&proto);
        assert!(error.starts_with(message), "{error}, not {message}");
    }
}
