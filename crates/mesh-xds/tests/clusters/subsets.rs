//! Parts of a cluster that requests ask for.

use super::balancing::{eds, listed, with};
use mesh_core::model::{SubsetFallback, SubsetLocalities};
use mesh_xds::pb::envoy::config::cluster::v3 as pb;
use mesh_xds::pb::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LbPolicy, LbSubsetConfig,
    common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig},
    lb_subset_config::LbSubsetSelector,
};
use mesh_xds::pb::envoy::extensions::load_balancing_policies::{self as policies, common};
use mesh_xds::pb::google::protobuf::{Struct, Value, value::Kind};
use mesh_xds::read;

#[test]
fn both_spellings_of_subsets_mean_the_same() {
    let fields = [(
        "v".to_owned(),
        Value {
            kind: Some(Kind::StringValue("1".to_owned())),
        },
    )];
    let default = Struct {
        fields: fields.into_iter().collect(),
    };
    let selector = LbSubsetSelector {
        keys: vec!["b".to_owned(), "a".to_owned(), "b".to_owned()],
        fallback_policy: 4,
        fallback_keys_subset: vec!["b".to_owned()],
        single_host_per_subset: true,
    };
    // What weighs localities in either spelling.
    let weighted = CommonLbConfig {
        locality_config_specifier: Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(
            LocalityWeightedLbConfig::default(),
        )),
        ..Default::default()
    };
    let by_weight = common::v3::LocalityLbConfig {
        locality_config_specifier: Some(
            common::v3::locality_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
                Default::default(),
            ),
        ),
    };
    let older = pb::Cluster {
        lb_policy: LbPolicy::RoundRobin.into(),
        lb_subset_config: Some(LbSubsetConfig {
            fallback_policy: 2,
            default_subset: Some(default.clone()),
            subset_selectors: vec![selector],
            panic_mode_any: true,
            list_as_any: true,
            locality_weight_aware: true,
            scale_locality_weight: true,
            metadata_fallback_policy: 1,
        }),
        common_lb_config: Some(weighted),
        ..eds()
    };
    let newer = with(&policies::subset::v3::Subset {
        fallback_policy: 2,
        default_subset: Some(default),
        subset_selectors: vec![policies::subset::v3::subset::LbSubsetSelector {
            keys: vec!["a".to_owned(), "b".to_owned()],
            fallback_policy: 4,
            fallback_keys_subset: vec!["b".to_owned()],
            single_host_per_subset: true,
        }],
        panic_mode_any: true,
        list_as_any: true,
        locality_weight_aware: true,
        scale_locality_weight: true,
        metadata_fallback_policy: 1,
        subset_lb_policy: Some(listed(&policies::round_robin::v3::RoundRobin {
            locality_lb_config: Some(by_weight),
            ..Default::default()
        })),
        ..Default::default()
    });
    let older = read::cluster(&older).unwrap().cluster;
    assert_eq!(read::cluster(&newer).unwrap().cluster, older);
    let subsets = older.subsets.unwrap();
    assert_eq!(subsets.selectors[0].keys, ["a", "b"]);
    assert_eq!(subsets.selectors[0].fallback, Some(SubsetFallback::Keys));
    assert_eq!(subsets.selectors[0].fallback_keys, ["b"]);
    assert_eq!(subsets.localities, SubsetLocalities::Scaled);
    assert!(subsets.list_as_any && subsets.fallback_list);
    assert_eq!(subsets.fallback, SubsetFallback::Default);
    assert_eq!(subsets.default["v"], "\"1\"");
}

#[test]
fn weights_of_localities_in_subsets_need_weights_of_localities() {
    let mut proto = eds();
    proto.lb_subset_config = Some(LbSubsetConfig {
        locality_weight_aware: true,
        ..Default::default()
    });
    let zones = LocalityConfigSpecifier::ZoneAwareLbConfig(ZoneAwareLbConfig::default());
    for locality_config_specifier in [None, Some(zones)] {
        proto.common_lb_config = Some(CommonLbConfig {
            locality_config_specifier,
            ..Default::default()
        });
        let error = read::cluster(&proto).unwrap_err();
        assert_eq!(error.path(), "lb_subset_config.locality_weight_aware");
    }
}

#[test]
fn subsets_that_nobody_can_ask_for_are_none() {
    let mut proto = eds();
    proto.lb_subset_config = Some(LbSubsetConfig::default());
    assert_eq!(read::cluster(&proto).unwrap().cluster.subsets, None);
}
