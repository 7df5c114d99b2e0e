//! How an endpoint of a cluster is chosen.

use mesh_core::model::{Balancing, Cluster, DiscoveryKind, Maglev, RingHash, SlowStart};

use crate::spec::traffic_policy::{Balancer, HashAlgorithm, Simple};

/// How an endpoint is chosen, where that is not known from the connection.
pub(super) fn apply(cluster: &mut Cluster, asked: Option<&Balancer>) {
    let usual = Balancer::default();
    let asked = asked.unwrap_or(&usual);
    cluster.balancing = match asked.simple {
        Simple::LeastRequest => Balancing::LEAST_REQUEST,
        Simple::RoundRobin => Balancing::RoundRobin,
        Simple::Random | Simple::Passthrough => Balancing::Random,
    };
    if matches!(
        cluster.discovery,
        DiscoveryKind::Authority | DiscoveryKind::OriginalDestination
    ) {
        return;
    }
    match asked.hash.as_ref().map(|hash| hash.algorithm) {
        Some(HashAlgorithm::Ring(least)) => {
            let mut ring = RingHash::default();
            ring.minimum = least;
            cluster.balancing = Balancing::RingHash(ring);
        }
        Some(HashAlgorithm::Maglev(size)) => {
            let mut table = Maglev::default();
            table.size = size;
            cluster.balancing = Balancing::Maglev(table);
        }
        // By weight alone an endpoint can be slow.
        None if matches!(asked.simple, Simple::RoundRobin | Simple::LeastRequest) => {
            cluster.slow_start = asked.warmup.map(|warmup| {
                let mut slow = SlowStart::new(warmup.duration);
                slow.minimum = warmup.minimum;
                slow.aggression = warmup.aggression;
                slow
            });
        }
        None => {}
    }
}
