//! How an endpoint is chosen, and what consistent hashing goes by.

use super::Pattern;
use crate::Name;
use http::HeaderName;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Balancing {
    /// Each in turn, by weight.
    RoundRobin,
    /// The one with fewer requests under way of `choices` drawn at random; by weight over requests
    /// where weights differ.
    LeastRequest {
        /// How many are drawn. Default 2.
        choices: u32,
        /// How much requests under way weigh: weight / (requests + 1)^bias. Default 1.0; not
        /// negative (Envoy `active_request_bias`).
        bias: Real,
    },
    /// Any.
    #[default]
    Random,
    /// The endpoint after the request's hash on a ring of hashes.
    RingHash(RingHash),
    /// The endpoint that the request's hash has in a table in which all are equally frequent.
    Maglev(Maglev),
}

/// A ring of hashes (Envoy `RingHashLbConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RingHash {
    /// At least so many points. Default 1024.
    pub minimum: u64,
    /// At most so many points. Default and most 8,388,608.
    pub maximum: u64,
    /// What endpoints are hashed with.
    pub function: HashFunction,
    /// What of an endpoint is hashed, and how even the load is kept.
    pub keys: HashKeys,
}

/// A table with a place for each hash (Envoy `MaglevLbConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Maglev {
    /// How many places there are: a prime, at most 5,000,011. Default 65,537.
    pub size: u64,
    /// What of an endpoint is hashed, and how even the load is kept.
    pub keys: HashKeys,
}

/// What of an endpoint is hashed (Envoy `ConsistentHashingLbConfig`). An endpoint's own
/// [`Endpoint::hash_key`](super::Endpoint::hash_key) comes before both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct HashKeys {
    /// Its host name rather than its address.
    pub hostname: bool,
    /// No endpoint gets more than so many percent of the average of requests under way; the next
    /// one gets the request instead. At least 100. None is no bound.
    pub balance_factor: Option<u32>,
}

/// What endpoints are hashed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HashFunction {
    /// XXH64 with seed 0.
    #[default]
    XxHash,
    /// MurmurHash2 64 A as in libstdc++, with its seed 0xc70f6907.
    Murmur2,
}

/// What a request is hashed by (Envoy `HashPolicy`). The hashes of all that apply are combined.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HashPolicy {
    /// What is hashed.
    pub source: HashSource,
    /// With a hash from this one (or from those before it) the rest are not looked at.
    pub terminal: bool,
}

/// Something of a request that is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum HashSource {
    /// A header's value, or what becomes of it when each match of the expression is replaced.
    Header(HeaderName, Option<(Pattern, String)>),
    /// A cookie's value.
    Cookie(HashCookie),
    /// The caller's address.
    SourceIp,
    /// The first value of a query parameter.
    Query(Name),
    /// An object that the listener kept of the request, if it can be hashed.
    FilterState(Name),
}

/// A cookie to hash by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HashCookie {
    /// Its name.
    pub name: Name,
    /// Where there is none, make one that lives so long; zero for the session. None makes none.
    pub ttl: Option<Duration>,
    /// The path of one that is made; empty is none.
    pub path: Name,
    /// More attributes of one that is made, e.g. `SameSite` and `Strict`; empty values are flags.
    pub attributes: Vec<(Name, Name)>,
}

/// New endpoints get their share little by little (Envoy `SlowStartConfig`): weight ×
/// max(minimum, (time / window)^(1 / aggression)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SlowStart {
    /// How long an endpoint is new.
    pub window: Duration,
    /// Above 1 faster at first, below slower; above 0. Default 1.0: evenly.
    pub aggression: Real,
    /// The share at first, in percent. Default 10.
    pub minimum: u32,
}

/// Whether localities of one priority are told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LocalityBalancing {
    /// They are not, unless the node knows its own zone and others like it (Envoy's
    /// `local_cluster_name`): then as with the default of [`ZoneAware`].
    #[default]
    Ignored,
    /// Each gets its weight's share (Envoy `LocalityWeightedLbConfig`). Without any weight as
    /// [`LocalityBalancing::Ignored`].
    Weighted,
    /// The caller's own zone comes first as far as it can take it (Envoy `ZoneAwareLbConfig`).
    ZoneAware(ZoneAware),
}

/// How the caller's own zone is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ZoneAware {
    /// The share of requests that it is done for, in percent. Default 100.
    pub enabled: u32,
    /// Not with fewer endpoints than this. Default 6.
    pub minimum: u64,
    /// In panic, refuse rather than send anywhere.
    pub fail_in_panic: bool,
}

/// Parts of a cluster that requests ask for by metadata (Envoy `LbSubsetConfig`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubsetBalancing {
    /// What a request may ask by.
    pub selectors: Vec<SubsetSelector>,
    /// What a request gets whose subset is empty or does not exist.
    pub fallback: SubsetFallback,
    /// What the default subset is: names and values as JSON.
    pub default: BTreeMap<Name, Name>,
    /// In panic, use the whole cluster's endpoints rather than the subset's.
    pub panic_mode_any: bool,
    /// An endpoint whose value is a list is in the subset of each of its entries, instead of in
    /// that of the whole list.
    pub list_as_any: bool,
    /// Whether localities have their weights within subsets, too.
    pub localities: SubsetLocalities,
    /// Where a request's subset and what there is instead of it have nobody, asks again for each
    /// entry of [`SubsetBalancing::FALLBACK_LIST`] in turn (Envoy `metadata_fallback_policy`
    /// `FALLBACK_LIST`).
    pub fallback_list: bool,
    /// A request may ask by more than a selector's keys: of the selectors all of whose keys it asks
    /// by the first decides, and the rest of what it asks for is left out (Envoy
    /// `allow_redundant_keys`).
    pub redundant_keys: bool,
}

/// Whether localities have their weights within subsets, where they have any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubsetLocalities {
    /// They have none.
    #[default]
    Ignored,
    /// They have those of the whole cluster (Envoy `locality_weight_aware`).
    Weighted,
    /// The same, each by the share of its endpoints that are in the subset (Envoy
    /// `scale_locality_weight`).
    Scaled,
}

/// Keys that a request asks by, all of them together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubsetSelector {
    /// The keys, sorted.
    pub keys: Vec<Name>,
    /// Each subset has one endpoint only; of several the first is used.
    pub single: bool,
    /// What a request by these keys gets instead of [`SubsetBalancing::fallback`].
    pub fallback: Option<SubsetFallback>,
    /// Some of the keys, sorted, for [`SubsetFallback::Keys`] (Envoy `fallback_keys_subset`).
    pub fallback_keys: Vec<Name>,
}

/// What a request gets whose subset is empty or does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubsetFallback {
    /// 503.
    #[default]
    None,
    /// Any endpoint.
    Any,
    /// One of the default subset.
    Default,
    /// What who asks only by the keys in [`SubsetSelector::fallback_keys`] gets.
    Keys,
}

/// A finite number that is equal to itself.
#[derive(Clone, Copy, PartialOrd)]
pub struct Real(f64);

// === impl SubsetBalancing ===

impl SubsetBalancing {
    /// The name that a request has a list of further wishes under.
    pub const FALLBACK_LIST: &str = "fallback_list";
}

// === impl RingHash ===

impl Default for RingHash {
    fn default() -> Self {
        Self {
            minimum: 1024,
            maximum: 8 << 20,
            function: HashFunction::default(),
            keys: HashKeys::default(),
        }
    }
}

// === impl Maglev ===

impl Default for Maglev {
    fn default() -> Self {
        Self {
            size: 65_537,
            keys: HashKeys::default(),
        }
    }
}

// === impl HashPolicy ===

impl HashPolicy {
    /// Hashes by this, and goes on with the next.
    pub fn new(source: HashSource) -> Self {
        Self {
            source,
            terminal: false,
        }
    }
}

// === impl SlowStart ===

impl SlowStart {
    /// Even, from 10 % on.
    pub fn new(window: Duration) -> Self {
        Self {
            window,
            aggression: Real::ONE,
            minimum: 10,
        }
    }
}

// === impl ZoneAware ===

impl Default for ZoneAware {
    fn default() -> Self {
        Self {
            enabled: 100,
            minimum: 6,
            fail_in_panic: false,
        }
    }
}

// === impl Balancing ===

impl Balancing {
    /// Envoy's least request: of two, with a bias of 1.
    pub const LEAST_REQUEST: Self = Self::LeastRequest {
        choices: 2,
        bias: Real::ONE,
    };
}

// === impl Real ===

impl Real {
    /// 0.
    pub const ZERO: Self = Self(0.0);

    /// 1.
    pub const ONE: Self = Self(1.0);

    /// None for what is no number or without end. -0 becomes 0.
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self(value + 0.0))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Real {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Real {}

impl Hash for Real {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl fmt::Debug for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Real {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_finite_and_zero_has_no_sign() {
        assert_eq!(Real::new(f64::NAN), None);
        assert_eq!(Real::new(f64::INFINITY), None);
        assert_eq!(Real::new(-0.0), Real::new(0.0));
        assert_ne!(Real::new(1.0), Real::new(2.0));
    }
}
