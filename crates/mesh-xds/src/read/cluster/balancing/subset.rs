//! Parts of a cluster that requests ask for.

use crate::pb::envoy::config::cluster::v3::cluster::LbSubsetConfig;
use crate::pb::envoy::config::cluster::v3::cluster::lb_subset_config::{
    LbSubsetFallbackPolicy as Fallback, LbSubsetMetadataFallbackPolicy as Wishes, LbSubsetSelector,
    lb_subset_selector,
};
use crate::pb::envoy::extensions::load_balancing_policies::subset::v3::{Subset, subset as newer};
use crate::pb::google::protobuf::Struct;
use crate::read::metadata;
use crate::wire::{each, enumeration};
use lb_subset_selector::LbSubsetSelectorFallbackPolicy as Own;
use mesh_core::model::{SubsetBalancing, SubsetFallback, SubsetLocalities, SubsetSelector};
use mesh_core::{Invalid, Name};
use newer::LbSubsetMetadataFallbackPolicy as NewerWishes;

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
    let selectors = each("subset_selectors", subset_selectors, selector)?;
    let wishes: Wishes = enumeration("metadata_fallback_policy", *metadata_fallback_policy)?;
    let mut subsets = made(*fallback_policy, default_subset.as_ref(), selectors)?;
    subsets.panic_mode_any = *panic_mode_any;
    subsets.list_as_any = *list_as_any;
    subsets.localities = localities(*locality_weight_aware, *scale_locality_weight);
    subsets.fallback_list = wishes == Wishes::FallbackList;
    Ok(some(subsets))
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
    let wishes: NewerWishes = enumeration("metadata_fallback_policy", *metadata_fallback_policy)?;
    let mut subsets = made(*fallback_policy, default_subset.as_ref(), selectors)?;
    subsets.panic_mode_any = *panic_mode_any;
    subsets.list_as_any = *list_as_any;
    subsets.localities = localities(*locality_weight_aware, *scale_locality_weight);
    subsets.fallback_list = wishes == NewerWishes::FallbackList;
    subsets.redundant_keys = *allow_redundant_keys;
    Ok(some(subsets))
}

/// Scaling is about weights that are there.
fn localities(weighted: bool, scaled: bool) -> SubsetLocalities {
    match (weighted, scaled) {
        (false, _) => SubsetLocalities::Ignored,
        (true, false) => SubsetLocalities::Weighted,
        (true, true) => SubsetLocalities::Scaled,
    }
}

/// Nothing where no selector is, as in Envoy.
fn some(subsets: SubsetBalancing) -> Option<SubsetBalancing> {
    (!subsets.selectors.is_empty()).then_some(subsets)
}

fn made(
    fallback: i32,
    default: Option<&Struct>,
    selectors: Vec<SubsetSelector>,
) -> Result<SubsetBalancing, Invalid> {
    let fallback = match enumeration("fallback_policy", fallback)? {
        Fallback::NoFallback => SubsetFallback::None,
        Fallback::AnyEndpoint => SubsetFallback::Any,
        Fallback::DefaultSubset => SubsetFallback::Default,
    };
    let mut subsets = SubsetBalancing::default();
    subsets.selectors = selectors;
    subsets.fallback = fallback;
    subsets.default = default.map(metadata::values).unwrap_or_default();
    Ok(subsets)
}

fn selector(value: &LbSubsetSelector) -> Result<SubsetSelector, Invalid> {
    let LbSubsetSelector {
        keys,
        single_host_per_subset,
        fallback_policy,
        fallback_keys_subset,
    } = value;
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
        Own::KeysSubset => Some(SubsetFallback::Keys),
    };
    selector.fallback_keys = fallback_keys_subset.iter().map(Name::from).collect();
    selector.fallback_keys.sort();
    selector.fallback_keys.dedup();
    let keys = &selector.fallback_keys;
    let message = match selector.fallback {
        Some(SubsetFallback::Keys) if keys.is_empty() => "must not be empty for KEYS_SUBSET",
        Some(SubsetFallback::Keys) if !keys.iter().all(|key| selector.keys.contains(key)) => {
            "must be some of keys"
        }
        Some(SubsetFallback::Keys) if keys.len() == selector.keys.len() => {
            "must not be all of keys"
        }
        Some(SubsetFallback::Keys) => return Ok(selector),
        _ if keys.is_empty() => return Ok(selector),
        _ => "is for KEYS_SUBSET only",
    };
    Err(Invalid::new("fallback_keys_subset", message))
}
