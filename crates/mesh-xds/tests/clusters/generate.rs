//! How endpoints are chosen, at random.

use http::HeaderName;
use mesh_core::Name;
use mesh_core::model::{
    Balancing, Cluster, HashFunction, HashKeys, LocalityBalancing, Maglev, Real, ReportedWeights,
    RingHash, SessionHealth, SlowStart, SubsetBalancing, SubsetFallback, SubsetLocalities,
    SubsetSelector, ZoneAware,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a cluster says of its balancing.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    balancing: Balancing,
    slow_start: Option<SlowStart>,
    localities: LocalityBalancing,
    subsets: Option<SubsetBalancing>,
    reported: Option<ReportedWeights>,
    host_headers: Vec<HeaderName>,
    session_health: SessionHealth,
}

impl Choice {
    /// What goes with the policy; the rest is not said. Where the type of the cluster decides,
    /// localities alone are.
    pub(crate) fn lay(self, cluster: &mut Cluster, provided: bool) {
        let hashes = matches!(
            self.balancing,
            Balancing::RingHash(_) | Balancing::Maglev(_)
        );
        let slow = matches!(
            self.balancing,
            Balancing::RoundRobin | Balancing::LeastRequest { .. }
        );
        let reported = self
            .reported
            .filter(|_| self.balancing == Balancing::RoundRobin && !provided);
        cluster.session_health = self.session_health;
        cluster.localities = match self.localities {
            LocalityBalancing::ZoneAware(_) if (hashes || reported.is_some()) && !provided => {
                LocalityBalancing::Weighted
            }
            other => other,
        };
        if provided {
            return;
        }
        cluster.balancing = self.balancing;
        cluster.reported_weights = reported.map(Arc::new);
        cluster.host_headers = self.host_headers;
        cluster.slow_start = self.slow_start.filter(|_| slow);
        cluster.subsets = self.subsets.map(|mut subsets| {
            // They weigh what has weights.
            if cluster.localities != LocalityBalancing::Weighted {
                subsets.localities = SubsetLocalities::Ignored;
            }
            Arc::new(subsets)
        });
    }
}

pub(crate) fn choice() -> BoxedStrategy<Choice> {
    (
        balancing(),
        option::of(slow_start()),
        localities(),
        option::of(subsets()),
        option::of(reported()),
        host_headers(),
        session_health(),
    )
        .prop_map(|choice| {
            let (
                balancing,
                slow_start,
                localities,
                subsets,
                reported,
                host_headers,
                session_health,
            ) = choice;
            Choice {
                balancing,
                slow_start,
                localities,
                subsets,
                reported,
                host_headers,
                session_health,
            }
        })
        .boxed()
}

fn reported() -> BoxedStrategy<ReportedWeights> {
    let time = || (0_u64..1_000_000_000_000).prop_map(Duration::from_nanos);
    let names = vec("[a-z_.*]{0,9}".prop_map(Name::from), 0..3);
    (time(), time(), time(), 0_f32..1e30, names)
        .prop_map(|(blackout, expiration, update, penalty, names)| {
            let mut policy = ReportedWeights::default();
            policy.blackout = blackout;
            policy.expiration = expiration;
            policy.update = update;
            policy.error_penalty = Real::new(penalty.into()).unwrap_or(Real::ZERO);
            policy.utilization = names;
            policy
        })
        .boxed()
}

fn host_headers() -> BoxedStrategy<Vec<HeaderName>> {
    let names = ["x-to", "x-too", "host"].map(HeaderName::from_static);
    let some = vec(proptest::sample::select(names.to_vec()), 1..3);
    prop_oneof![3 => Just(Vec::new()), 1 => some].boxed()
}

fn session_health() -> BoxedStrategy<SessionHealth> {
    let one = any::<[bool; 4]>().prop_map(|[healthy, degraded, unhealthy, draining]| {
        let mut health = SessionHealth::NONE;
        (health.healthy, health.degraded) = (healthy, degraded);
        (health.unhealthy, health.draining) = (unhealthy, draining);
        health
    });
    prop_oneof![Just(SessionHealth::default()), one].boxed()
}

/// Names and values as JSON in its one form.
pub(crate) fn values() -> BoxedStrategy<BTreeMap<Name, Name>> {
    let value = prop_oneof![
        "[a-z é]{0,4}".prop_map(|text| format!("\"{text}\"")),
        any::<i32>().prop_map(|number| number.to_string()),
        Just("-0.5".to_owned()),
        Just("true".to_owned()),
        Just("null".to_owned()),
        Just(r#"{"a":[1,"\"\\\u0001"],"b":{}}"#.to_owned()),
    ];
    let value = value.prop_map(Name::from);
    btree_map("[a-z.]{1,4}".prop_map(Name::from), value, 0..3).boxed()
}

fn keys() -> BoxedStrategy<HashKeys> {
    (any::<bool>(), option::of(100_u32..))
        .prop_map(|(hostname, factor)| {
            let mut keys = HashKeys::default();
            keys.hostname = hostname;
            keys.balance_factor = factor;
            keys
        })
        .boxed()
}

fn real(least: f64) -> BoxedStrategy<Real> {
    prop_oneof![Just(1.0), least..1e6, Just(1e300), Just(1e-300)]
        .prop_map(|real| Real::new(real).unwrap())
        .boxed()
}

fn balancing() -> BoxedStrategy<Balancing> {
    let most = 8_u64 << 20;
    let function = prop_oneof![Just(HashFunction::XxHash), Just(HashFunction::Murmur2)];
    let ring = (1..=most, 1..=most, function, keys()).prop_map(|(one, other, function, keys)| {
        let mut ring = RingHash::default();
        ring.minimum = one.min(other);
        ring.maximum = one.max(other);
        ring.function = function;
        ring.keys = keys;
        ring
    });
    let primes = [2_u64, 3, 1009, 65_537, 5_000_011];
    let maglev = (proptest::sample::select(primes.to_vec()), keys()).prop_map(|(size, keys)| {
        let mut table = Maglev::default();
        table.size = size;
        table.keys = keys;
        table
    });
    prop_oneof![
        Just(Balancing::RoundRobin),
        Just(Balancing::Random),
        Just(Balancing::RingHash(RingHash::default())),
        ring.prop_map(Balancing::RingHash),
        maglev.prop_map(Balancing::Maglev),
        (2_u32.., real(0.0)).prop_map(|(choices, bias)| Balancing::LeastRequest { choices, bias }),
    ]
    .boxed()
}

fn slow_start() -> BoxedStrategy<SlowStart> {
    (1_u64..1_000_000_000, real(0.001), 0_u32..=100)
        .prop_map(|(nanos, aggression, minimum)| {
            let mut slow = SlowStart::new(Duration::from_nanos(nanos));
            slow.aggression = aggression;
            slow.minimum = minimum;
            slow
        })
        .boxed()
}

fn localities() -> BoxedStrategy<LocalityBalancing> {
    let zones = (0_u32..=100, any::<u64>(), any::<bool>()).prop_map(|(enabled, least, fail)| {
        let mut zones = ZoneAware::default();
        zones.enabled = enabled;
        zones.minimum = least;
        zones.fail_in_panic = fail;
        LocalityBalancing::ZoneAware(zones)
    });
    prop_oneof![
        Just(LocalityBalancing::Ignored),
        Just(LocalityBalancing::Weighted),
        Just(LocalityBalancing::ZoneAware(ZoneAware::default())),
        zones,
    ]
    .boxed()
}

fn subsets() -> BoxedStrategy<SubsetBalancing> {
    let fallback = || {
        prop_oneof![
            Just(SubsetFallback::None),
            Just(SubsetFallback::Any),
            Just(SubsetFallback::Default),
        ]
    };
    let keys = btree_set("[a-z]{0,3}".prop_map(Name::from), 0..3);
    let selector = (keys, any::<bool>(), option::of(fallback()), any::<bool>());
    let selector = selector.prop_map(|(keys, single, fallback, by_fewer)| {
        let mut selector = SubsetSelector::default();
        selector.keys = keys.into_iter().collect();
        selector.single = single;
        selector.fallback = fallback;
        if by_fewer && selector.keys.len() > 1 {
            selector.fallback = Some(SubsetFallback::Keys);
            selector.fallback_keys = selector.keys[1..].to_vec();
        }
        selector
    });
    let localities = prop_oneof![
        Just(SubsetLocalities::Ignored),
        Just(SubsetLocalities::Weighted),
        Just(SubsetLocalities::Scaled),
    ];
    let bools = any::<[bool; 4]>();
    let more = (bools, localities);
    (vec(selector, 1..4), fallback(), values(), more)
        .prop_map(|(selectors, fallback, default, more)| {
            let mut subsets = SubsetBalancing::default();
            subsets.selectors = selectors;
            subsets.fallback = fallback;
            subsets.default = default;
            [
                subsets.panic_mode_any,
                subsets.list_as_any,
                subsets.fallback_list,
                subsets.redundant_keys,
            ] = more.0;
            subsets.localities = more.1;
            subsets
        })
        .boxed()
}
