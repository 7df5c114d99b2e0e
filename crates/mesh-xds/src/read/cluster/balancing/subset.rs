//! Parts of a cluster that requests ask for.

use crate::pb::envoy::config::cluster::v3::cluster::LbSubsetConfig;
use crate::pb::envoy::config::cluster::v3::cluster::lb_subset_config::{
    LbSubsetFallbackPolicy as Fallback, LbSubsetSelector, lb_subset_selector,
};
use crate::pb::envoy::extensions::load_balancing_policies::subset::v3::{Subset, subset as newer};
use crate::pb::google::protobuf::Struct;
use crate::read::metadata;
use crate::wire::{each, enumeration, refuse};
use lb_subset_selector::LbSubsetSelectorFallbackPolicy as Own;
use mesh_core::model::{SubsetBalancing, SubsetFallback, SubsetSelector};
use mesh_core::{Invalid, Name};

/// The older field; nothing where no selector is, as in Envoy.
pub(super) fn by_name(value: &LbSubsetConfig) -> Result<Option<SubsetBalancing>, Invalid> {
    let LbSubsetConfig {
        fallback_policy,
        default_subset,
        subset_selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
    } = value;
    refuse!(
        locality_weight_aware,
        scale_locality_weight,
        list_as_any,
        metadata_fallback_policy
    );
    let selectors = each("subset_selectors", subset_selectors, selector)?;
    made(
        *fallback_policy,
        default_subset.as_ref(),
        selectors,
        *panic_mode_any,
    )
}

/// The newer one, but for the policy inside.
pub(super) fn extension(value: &Subset) -> Result<Option<SubsetBalancing>, Invalid> {
    let Subset {
        fallback_policy,
        default_subset,
        subset_selectors,
        allow_redundant_keys,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        subset_lb_policy: _,
    } = value;
    refuse!(
        allow_redundant_keys,
        locality_weight_aware,
        scale_locality_weight,
        list_as_any,
        metadata_fallback_policy
    );
    let selectors = each("subset_selectors", subset_selectors, |value| {
        let newer::LbSubsetSelector {
            keys,
            single_host_per_subset,
            fallback_policy,
            fallback_keys_subset,
        } = value;
        // The numbers of both are the same.
        selector(&LbSubsetSelector {
            keys: keys.clone(),
            single_host_per_subset: *single_host_per_subset,
            fallback_policy: *fallback_policy,
            fallback_keys_subset: fallback_keys_subset.clone(),
        })
    })?;
    made(
        *fallback_policy,
        default_subset.as_ref(),
        selectors,
        *panic_mode_any,
    )
}

fn made(
    fallback: i32,
    default: Option<&Struct>,
    selectors: Vec<SubsetSelector>,
    panic_mode_any: bool,
) -> Result<Option<SubsetBalancing>, Invalid> {
    let fallback = match enumeration("fallback_policy", fallback)? {
        Fallback::NoFallback => SubsetFallback::None,
        Fallback::AnyEndpoint => SubsetFallback::Any,
        Fallback::DefaultSubset => SubsetFallback::Default,
    };
    if selectors.is_empty() {
        return Ok(None);
    }
    let mut subsets = SubsetBalancing::default();
    subsets.selectors = selectors;
    subsets.fallback = fallback;
    subsets.default = default.map(metadata::values).unwrap_or_default();
    subsets.panic_mode_any = panic_mode_any;
    Ok(Some(subsets))
}

fn selector(value: &LbSubsetSelector) -> Result<SubsetSelector, Invalid> {
    let LbSubsetSelector {
        keys,
        single_host_per_subset,
        fallback_policy,
        fallback_keys_subset,
    } = value;
    refuse!(fallback_keys_subset);
    let mut selector = SubsetSelector::default();
    selector.keys = keys.iter().map(Name::from).collect();
    selector.keys.sort();
    selector.keys.dedup();
    selector.single = *single_host_per_subset;
    selector.fallback = match enumeration("fallback_policy", *fallback_policy)? {
        Own::NotDefined => None,
        Own::NoFallback => Some(SubsetFallback::None),
        Own::AnyEndpoint => Some(SubsetFallback::Any),
        Own::DefaultSubset => Some(SubsetFallback::Default),
        Own::KeysSubset => {
            return Err(Invalid::new(
                "fallback_policy",
                "KEYS_SUBSET is not supported",
            ));
        }
    };
    Ok(selector)
}
