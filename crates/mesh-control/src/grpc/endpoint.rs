//! Endpoints (gRFC A27), which gRPC refuses as a whole if one of its rules is broken.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use mesh_core::model::{Endpoint, EndpointSet, Locality, LocalityEndpoints};

use super::cluster::socket;

/// One locality at one priority.
#[derive(Default)]
struct Group {
    weight: u64,
    endpoints: Vec<Arc<Endpoint>>,
}

/// The endpoints as gRPC takes them: addresses once each, localities once for each priority and
/// with a weight, priorities without gaps.
pub(super) fn usable(set: &EndpointSet) -> EndpointSet {
    let mut priorities: BTreeMap<u32, BTreeMap<Locality, Group>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for group in &set.localities {
        let each = group.endpoints.iter();
        let endpoints: Vec<_> = each
            .filter(|one| socket(&one.address).is_some_and(|address| seen.insert(address)))
            .cloned()
            .collect();
        if endpoints.is_empty() {
            continue;
        }
        let own = u64::from(group.weight);
        let sum: u64 = endpoints
            .iter()
            .map(|one| u64::from(one.weight.max(1)))
            .sum();
        let localities = priorities.entry(group.priority).or_default();
        let into = localities.entry(group.locality.clone()).or_default();
        into.weight += if own > 0 { own } else { sum };
        into.endpoints.extend(endpoints);
    }
    let mut out = EndpointSet::default();
    for (priority, localities) in (0..).zip(priorities.into_values()) {
        let sum: u64 = localities.values().map(|group| group.weight).sum();
        // The sum has to fit 32 bits, and there are fewer localities than half of that.
        let scale = sum / u64::from(u32::MAX / 2) + 1;
        for (locality, group) in localities {
            let mut written = LocalityEndpoints::default();
            written.locality = locality;
            written.priority = priority;
            let weight = u32::try_from(group.weight / scale).unwrap_or(u32::MAX);
            written.weight = weight.max(1);
            written.endpoints = group.endpoints;
            out.localities.push(written);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::model::Address;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn group() -> impl Strategy<Value = LocalityEndpoints> {
        let address = select(vec!["10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1", "a.test:1"]);
        let endpoint = (address, any::<u32>()).prop_map(|(address, weight)| {
            let mut endpoint = Endpoint::new(address.parse::<Address>().unwrap());
            endpoint.weight = weight;
            Arc::new(endpoint)
        });
        let endpoints = prop::collection::vec(endpoint, 0..4);
        let weight = prop_oneof![Just(0), Just(1), Just(u32::MAX)];
        (select(vec!["r", "s"]), 0_u32..5, weight, endpoints).prop_map(
            |(region, priority, weight, endpoints)| {
                let mut group = LocalityEndpoints::default();
                group.locality.region = region.into();
                (group.priority, group.weight) = (priority * 7, weight);
                group.endpoints = endpoints;
                group
            },
        )
    }

    fn sockets(set: &EndpointSet) -> Vec<std::net::SocketAddr> {
        set.iter().filter_map(|one| socket(&one.address)).collect()
    }

    proptest! {
        #[test]
        fn what_is_left_breaks_no_rule_of_grpc(groups in prop::collection::vec(group(), 0..8)) {
            let mut set = EndpointSet::default();
            set.localities = groups;
            let usable = usable(&set);
            let mut left = sockets(&usable);
            left.sort();
            prop_assert_eq!(left.len(), usable.len());
            let mut all = sockets(&set);
            all.sort();
            all.dedup();
            prop_assert_eq!(left, all);
            let groups = usable.localities.iter();
            let mut keys: Vec<_> = groups.clone().map(|one| (one.priority, &one.locality)).collect();
            keys.sort();
            keys.dedup();
            prop_assert_eq!(keys.len(), usable.localities.len());
            let mut priorities: Vec<u32> = groups.clone().map(|one| one.priority).collect();
            priorities.dedup();
            prop_assert!(priorities.iter().copied().eq(0..u32::try_from(priorities.len()).unwrap()));
            for priority in priorities {
                let weights = groups.clone().filter(|one| one.priority == priority);
                let weights: Vec<u64> = weights.map(|one| one.weight.into()).collect();
                prop_assert!(weights.iter().all(|weight| *weight > 0));
                prop_assert!(weights.iter().sum::<u64>() <= u32::MAX.into());
            }
        }
    }

    #[test]
    fn a_locality_without_a_weight_weighs_as_much_as_its_endpoints() {
        let endpoint = |address: &str, weight| {
            let mut endpoint = Endpoint::new(address.parse::<Address>().unwrap());
            endpoint.weight = weight;
            Arc::new(endpoint)
        };
        let mut set =
            EndpointSet::from_endpoints(vec![endpoint("10.0.0.1:1", 3), endpoint("10.0.0.2:1", 4)]);
        assert_eq!(usable(&set).localities[0].weight, 1);
        set.localities[0].weight = 0;
        assert_eq!(usable(&set).localities[0].weight, 7);
    }
}
