//! Parts of a cluster that requests ask for.

use super::balancing::{eds, listed, with};
use mesh_core::model::{SubsetFallback, SubsetLocalities};
use mesh_xds::pb::envoy::config::cluster::v3 as pb;
use mesh_xds::pb::envoy::config::cluster::v3::cluster::{
    LbPolicy, LbSubsetConfig, lb_subset_config::LbSubsetSelector,
};
use mesh_xds::pb::envoy::extensions::load_balancing_policies as policies;
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
        subset_lb_policy: Some(listed(&policies::round_robin::v3::RoundRobin::default())),
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
fn subsets_that_nobody_can_ask_for_are_none() {
    let mut proto = eds();
    proto.lb_subset_config = Some(LbSubsetConfig::default());
    assert_eq!(read::cluster(&proto).unwrap().cluster.subsets, None);
}
