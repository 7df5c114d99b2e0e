//! Clusters to compare.

mod chances;

pub use chances::{chances, dropped, least};

use http::HeaderName;
use mesh_core::Name;
use mesh_core::model::{
    AddMode, Balancing, Cluster, Endpoint, EndpointSet, Forward, HashFunction, HashKeys,
    HashPolicy, HashSource, HeaderAdd, HeaderTemplate, Health, Locality, LocalityBalancing,
    LocalityEndpoints, Maglev, Pattern, RingHash, SubsetBalancing, SubsetFallback, SubsetSelector,
};
use mesh_lb::Zone;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

pub struct Case {
    pub cluster: Cluster,
    pub endpoints: EndpointSet,
    pub policies: Vec<HashPolicy>,
    pub subset: BTreeMap<Name, Name>,
    pub judge: Judge,
}

/// What has to be the same.
pub enum Judge {
    /// The endpoint of each key.
    Same,
    /// How many requests each endpoint gets, up to this.
    Shares(usize),
}

impl Case {
    pub fn forward(&self) -> Forward {
        let mut forward = Forward::to(self.cluster.name.clone());
        forward.hash.clone_from(&self.policies);
        forward.subset.clone_from(&self.subset);
        forward
    }

    /// Whether a statistic of the cluster says something about balancing.
    pub fn compares(&self, stat: &str) -> bool {
        let many_workers = [
            // Counted once for each of Envoy's threads.
            "lb_subsets_active",
            "lb_subsets_created",
            "lb_subsets_removed",
            "lb_recalculate_zone_structures",
            "lb_zone_cluster_too_small",
        ];
        (stat.starts_with("lb_")
            && !many_workers.contains(&stat)
            && stat != "lb_local_cluster_not_ok")
            // With subsets it is that of whichever Envoy looked at last.
            || (self.cluster.subsets.is_none()
                && (stat.starts_with("ring_hash_lb") || stat.starts_with("maglev_lb")))
            || stat == "upstream_rq_5xx"
            || stat == "upstream_rq_completed"
    }

    /// By how much it may differ: not at all where nothing is left to chance.
    pub fn slack(&self, _: &str) -> u64 {
        match self.judge {
            Judge::Same => 0,
            Judge::Shares(tolerance) => tolerance as u64,
        }
    }
}

pub fn zone() -> Zone {
    Zone {
        locality: locality("own"),
        cluster: Some("peers".into()),
    }
}

fn locality(zone: &str) -> Locality {
    Locality {
        region: "r".into(),
        zone: zone.into(),
        sub_zone: Name::default(),
    }
}

pub fn ring() -> Balancing {
    Balancing::RingHash(RingHash::default())
}

fn ring_of(change: impl FnOnce(&mut RingHash)) -> Balancing {
    let mut ring = RingHash::default();
    change(&mut ring);
    Balancing::RingHash(ring)
}

fn maglev_of(change: impl FnOnce(&mut Maglev)) -> Balancing {
    let mut maglev = Maglev::default();
    change(&mut maglev);
    Balancing::Maglev(maglev)
}

fn key() -> HashSource {
    HashSource::Header(HeaderName::from_static("x-key"), None)
}

/// Endpoints at these backends, changed one by one.
fn endpoints(backends: &[SocketAddr], change: impl Fn(usize, &mut Endpoint)) -> Vec<Arc<Endpoint>> {
    let endpoints = backends.iter().enumerate().map(|(at, backend)| {
        let mut endpoint = Endpoint::new(*backend);
        change(at, &mut endpoint);
        Arc::new(endpoint)
    });
    endpoints.collect()
}

fn group(
    zone: &str,
    priority: u32,
    weight: u32,
    endpoints: Vec<Arc<Endpoint>>,
) -> LocalityEndpoints {
    let mut group = LocalityEndpoints::default();
    group.locality = locality(zone);
    group.priority = priority;
    group.weight = weight;
    group.endpoints = endpoints;
    group
}

fn set(groups: impl IntoIterator<Item = LocalityEndpoints>) -> EndpointSet {
    let mut set = EndpointSet::default();
    set.localities.extend(groups);
    set
}

/// All backends alike, and a header as the key.
pub fn plain(name: &str, balancing: Balancing, backends: &[SocketAddr]) -> Case {
    let mut cluster = Cluster::new(name);
    cluster.balancing = balancing;
    Case {
        cluster,
        endpoints: set([group("a", 0, 0, endpoints(backends, |_, _| {}))]),
        policies: vec![HashPolicy::new(key())],
        subset: BTreeMap::new(),
        judge: Judge::Same,
    }
}

/// The cluster of nodes like this one: a quarter of them here.
pub fn peers(backends: &[SocketAddr]) -> Case {
    let mut case = plain("peers", Balancing::Random, backends);
    case.endpoints = set([
        group("own", 0, 0, endpoints(&backends[..1], |_, _| {})),
        group("b", 0, 0, endpoints(&backends[1..4], |_, _| {})),
    ]);
    case.judge = Judge::Shares(150);
    case
}

pub fn rings(backends: &[SocketAddr]) -> Vec<Case> {
    let xx = |change: fn(&mut RingHash)| ring_of(change);
    let rings = [
        ("ring", ring()),
        (
            "ring-murmur",
            xx(|ring| ring.function = HashFunction::Murmur2),
        ),
        (
            "ring-small",
            xx(|ring| (ring.minimum, ring.maximum) = (3, 17)),
        ),
        (
            "ring-tiny",
            xx(|ring| (ring.minimum, ring.maximum) = (1, 1)),
        ),
        ("ring-large", xx(|ring| ring.minimum = 50_000)),
        (
            "ring-bounded",
            xx(|ring| ring.keys.balance_factor = Some(110)),
        ),
    ];
    let mut cases = weighted_or_not(rings, backends);
    let named = ring_of(|ring| ring.keys = hostnames());
    cases.push(names("ring-names", named, backends));
    cases
}

pub fn maglevs(backends: &[SocketAddr]) -> Vec<Case> {
    let tables = [
        ("maglev", maglev_of(|_| {})),
        ("maglev-small", maglev_of(|maglev| maglev.size = 13)),
        ("maglev-large", maglev_of(|maglev| maglev.size = 500_009)),
        (
            "maglev-bounded",
            maglev_of(|maglev| maglev.keys.balance_factor = Some(100)),
        ),
    ];
    let mut cases = weighted_or_not(tables, backends);
    let named = maglev_of(|maglev| maglev.keys = hostnames());
    cases.push(names("maglev-names", named, backends));
    cases
}

fn weighted_or_not<const N: usize>(
    all: [(&str, Balancing); N],
    backends: &[SocketAddr],
) -> Vec<Case> {
    let weigh = |at: usize, endpoint: &mut Endpoint| endpoint.weight = [1, 2, 7, 100][at % 4];
    let mut cases = Vec::new();
    for (name, balancing) in all {
        cases.push(plain(name, balancing, backends));
        let mut weighted = plain(&format!("{name}-weighted"), balancing, backends);
        weighted.endpoints = set([group("a", 0, 0, endpoints(backends, weigh))]);
        cases.push(weighted);
    }
    cases
}

fn hostnames() -> HashKeys {
    let mut keys = HashKeys::default();
    keys.hostname = true;
    keys
}

fn names(name: &str, balancing: Balancing, backends: &[SocketAddr]) -> Case {
    let mut case = plain(name, balancing, backends);
    case.endpoints = set([group(
        "a",
        0,
        0,
        endpoints(backends, |at, endpoint| {
            endpoint.hostname = format!("host-{at}").into();
            if at % 3 == 0 {
                endpoint.hash_key = format!("key of {at}").into();
            }
        }),
    )]);
    case
}

pub fn localities(backends: &[SocketAddr]) -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, balancing) in [("ring", ring()), ("maglev", maglev_of(|_| {}))] {
        // "own" is not the first in any order but the node's.
        let mut weighted = plain(&format!("{name}-localities"), balancing, backends);
        weighted.cluster.localities = LocalityBalancing::Weighted;
        let weigh = |at: usize, endpoint: &mut Endpoint| {
            endpoint.weight = 1 + at as u32;
            if at == 2 {
                endpoint.health = Health::Unhealthy;
            }
        };
        weighted.endpoints = set([
            group("z", 0, 2, endpoints(&backends[..4], weigh)),
            group("own", 0, 3, endpoints(&backends[4..6], weigh)),
            group("a", 0, 5, endpoints(&backends[6..11], weigh)),
            group("none", 0, 0, endpoints(&backends[11..], weigh)),
        ]);
        cases.push(weighted);

        // Half of the first priority is gone: 1.4 × 2/4 stays.
        let mut spills = plain(&format!("{name}-priorities"), balancing, backends);
        let half = |at: usize, endpoint: &mut Endpoint| {
            if at.is_multiple_of(2) {
                endpoint.health = Health::Unhealthy;
            }
        };
        spills.endpoints = set([
            group("a", 0, 0, endpoints(&backends[..4], half)),
            group("b", 0, 0, endpoints(&backends[4..6], |_, _| {})),
            group("a", 1, 0, endpoints(&backends[6..], half)),
        ]);
        spills.endpoints.overprovisioning = Some(100);
        cases.push(spills);

        let mut panics = plain(&format!("{name}-panic"), balancing, backends);
        panics.endpoints = set([group(
            "a",
            0,
            0,
            endpoints(backends, |at, endpoint| {
                if at > 2 {
                    endpoint.health = Health::Unhealthy;
                }
            }),
        )]);
        cases.push(panics);

        let mut nobody = plain(&format!("{name}-nobody"), balancing, backends);
        nobody.cluster.panic_threshold = 0;
        nobody.endpoints = set([group(
            "a",
            0,
            0,
            endpoints(backends, |_, endpoint| endpoint.health = Health::Unhealthy),
        )]);
        cases.push(nobody);
    }
    cases
}

pub fn policies(backends: &[SocketAddr]) -> Vec<Case> {
    let header = |name: &'static str| HashSource::Header(HeaderName::from_static(name), None);
    let terminal = |source| {
        let mut policy = HashPolicy::new(source);
        policy.terminal = true;
        policy
    };
    let rewritten = |name: &'static str, pattern: &str, with: &str| {
        let rewrite = Some((Pattern::new(pattern).unwrap(), with.to_owned()));
        HashSource::Header(HeaderName::from_static(name), rewrite)
    };
    let mut stay = mesh_core::model::HashCookie::default();
    stay.name = "stay".into();
    let all: Vec<(&str, Vec<HashPolicy>)> = vec![
        ("by-edited", vec![HashPolicy::new(header("x-edited"))]),
        ("by-many", vec![HashPolicy::new(header("x-many"))]),
        (
            "by-rewritten",
            vec![HashPolicy::new(rewritten("x-many", "[ab]([0-9])", "<\\1>"))],
        ),
        (
            "by-host",
            vec![HashPolicy::new(header("host")), HashPolicy::new(key())],
        ),
        ("by-cookie", vec![HashPolicy::new(HashSource::Cookie(stay))]),
        ("by-source", vec![HashPolicy::new(HashSource::SourceIp)]),
        (
            "by-query",
            vec![HashPolicy::new(HashSource::Query("q".into()))],
        ),
        (
            "by-several",
            vec![
                HashPolicy::new(key()),
                HashPolicy::new(HashSource::Query("q".into())),
                HashPolicy::new(header("x-absent")),
                HashPolicy::new(key()),
            ],
        ),
        (
            "by-terminal",
            vec![
                terminal(header("x-absent")),
                terminal(HashSource::SourceIp),
                HashPolicy::new(key()),
            ],
        ),
        (
            "by-late-terminal",
            vec![
                HashPolicy::new(key()),
                terminal(header("x-absent")),
                HashPolicy::new(HashSource::Query("q".into())),
            ],
        ),
    ];
    let cases = all.into_iter().map(|(name, policies)| {
        let mut case = plain(name, ring(), backends);
        case.policies = policies;
        case
    });
    cases.collect()
}

pub fn subsets(backends: &[SocketAddr]) -> Vec<Case> {
    let name = |text: &str| Name::from(text);
    let labels = |at: usize, endpoint: &mut Endpoint| {
        let mut subset = BTreeMap::new();
        subset.insert(name("version"), Name::from(format!("\"v{}\"", at % 3)));
        if at.is_multiple_of(2) {
            subset.insert(name("stage"), name("\"prod\""));
        }
        subset.insert(name("id"), Name::from(format!("{at}")));
        endpoint.subset = Arc::new(subset);
        endpoint.weight = 1 + at as u32 % 2;
    };
    let selector = |keys: &[&str], single: bool, fallback: Option<SubsetFallback>| {
        let mut selector = SubsetSelector::default();
        selector.keys = keys.iter().map(|key| name(key)).collect();
        selector.single = single;
        selector.fallback = fallback;
        selector
    };
    let mut config = SubsetBalancing::default();
    config.selectors = vec![
        selector(&["version"], false, None),
        selector(&["stage", "version"], false, Some(SubsetFallback::Any)),
        selector(&["id"], true, Some(SubsetFallback::None)),
        selector(&["stage"], true, None),
    ];
    config.fallback = SubsetFallback::Default;
    config.default = BTreeMap::from([(name("version"), name("\"v1\""))]);
    let wanted: [(&str, &[(&str, &str)]); 9] = [
        ("sub-nothing", &[]),
        ("sub-version", &[("version", "\"v2\"")]),
        ("sub-both", &[("version", "\"v1\""), ("stage", "\"prod\"")]),
        (
            "sub-selector-any",
            &[("version", "\"v9\""), ("stage", "\"prod\"")],
        ),
        ("sub-unknown-value", &[("version", "\"v9\"")]),
        ("sub-unknown-key", &[("colour", "\"red\"")]),
        ("sub-single", &[("id", "7")]),
        ("sub-single-none", &[("id", "70")]),
        ("sub-single-first", &[("stage", "\"prod\"")]),
    ];
    let mut cases = Vec::new();
    for (called, criteria) in wanted {
        let mut case = plain(called, ring(), backends);
        case.endpoints = set([group("a", 0, 0, endpoints(backends, labels))]);
        case.cluster.subsets = Some(Arc::new(config.clone()));
        case.subset = criteria
            .iter()
            .map(|(key, value)| (name(key), name(value)))
            .collect();
        cases.push(case);
    }
    for (called, panic) in [("sub-panic-any", true), ("sub-panic-none", false)] {
        let mut config = config.clone();
        config.default = BTreeMap::from([(name("version"), name("\"v9\""))]);
        config.panic_mode_any = panic;
        let mut case = plain(called, maglev_of(|_| {}), backends);
        case.endpoints = set([group("a", 0, 0, endpoints(backends, labels))]);
        case.cluster.subsets = Some(Arc::new(config));
        cases.push(case);
    }
    cases
}

/// What both do to requests: they are hashed by what goes out.
pub fn edit() -> HeaderAdd {
    HeaderAdd {
        name: HeaderName::from_static("x-edited"),
        value: HeaderTemplate::Fixed(http::HeaderValue::from_static("edited")),
        mode: AddMode::Overwrite,
        keep_empty: false,
    }
}
