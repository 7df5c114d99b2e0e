//! Which hosts of a cluster a request may get, and why not the others.
//!
//! The answer is read off the same lists, shares and subsets that a [`Picker`](crate::Picker)
//! chooses from. What a picker decides by a worker's own state is not judged: least request, slow
//! start, the hosts that an earlier attempt tried, and which zone a request stays in where zones
//! are preferred.
//!
//! ```
//! use mesh_core::model::{Address, Cluster, Endpoint, EndpointSet, Health, SnapshotBuilder};
//! use mesh_lb::{ClusterHosts, Verdict};
//! use std::sync::Arc;
//!
//! let mut drains = Endpoint::new("10.0.0.2:80".parse::<Address>()?);
//! drains.health = Health::Draining;
//! let serves = Endpoint::new("10.0.0.1:80".parse::<Address>()?);
//! let mut builder = SnapshotBuilder::new();
//! builder.cluster(Cluster::new("reviews"));
//! builder.endpoints("reviews", EndpointSet::from_endpoints(vec![serves.into(), drains.into()]));
//! let (snapshot, _) = builder.build()?;
//!
//! let standings = ClusterHosts::of(&snapshot.clusters()[0]).standings(None);
//! let verdicts: Vec<Verdict> = standings.hosts.iter().map(|host| host.verdict).collect();
//! assert_eq!(verdicts, [Verdict::Eligible, Verdict::Draining]);
//! # Ok::<(), mesh_core::Invalid>(())
//! ```

use crate::dispatch::Wanted;
use crate::hosts::{Group, Held, Tier, Way};
use crate::tier::Availability;
use crate::{ClusterHosts, Host, HostSet, HostView};
use mesh_core::model::{Balancing, Endpoint, Health, LocalityBalancing, SubsetFallback};
use mesh_core::{Exchange, HostId, Name};
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// The hosts of a cluster as one request sees them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Standings {
    /// All of them, in the order in which discovery names them.
    pub hosts: Vec<Standing>,
    /// The priorities of those that are asked for, first used first.
    pub priorities: Vec<PriorityView>,
}

/// One host.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Standing {
    /// What an admin page shows of it.
    pub view: HostView,
    /// What discovery says of it.
    pub endpoint: Arc<Endpoint>,
    /// Whether it may be chosen.
    pub verdict: Verdict,
}

/// What a priority gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PriorityView {
    /// Its number.
    pub priority: u32,
    /// The share of its healthy hosts, in percent of all requests.
    pub healthy: u32,
    /// The share of its degraded hosts, in percent of all requests.
    pub degraded: u32,
    /// It uses all of its hosts, healthy or not, because too few are usable.
    pub panic: bool,
}

/// Whether a host may be chosen. [`Display`](fmt::Display) says it in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It may.
    Eligible,
    /// It may although it would not otherwise: its priority is in panic.
    EligibleInPanic,
    /// Discovery says that it is going away.
    Draining,
    /// Outlier detection has taken it out.
    Ejected,
    /// It fails its active health checks, or was not asked yet.
    Failing,
    /// Discovery says that it is not healthy.
    Unhealthy,
    /// There are enough healthy hosts, or the balancer goes by hashes and knows healthy ones only.
    Degraded,
    /// Other priorities get all requests.
    Priority,
    /// Its locality has no weight, and others have.
    Locality,
    /// It is not in the subset that is asked for.
    Subset,
    /// Its priority is in panic, and the cluster wants requests refused then.
    Refused,
}

/// Whom a request may ask.
enum Asked<'a> {
    Nobody,
    One(&'a Arc<Host>),
    Group(&'a Group),
}

/// What was found, and for which requests there is nobody in it.
struct Found {
    standings: Standings,
    left: Points,
}

/// Requests by the percent that their word or hash falls on, which chooses the priority. A bit for each
/// of the hundred: who finds nobody looks elsewhere with the word that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Points(u128);

/// Judges the hosts of a group.
struct Judge<'a> {
    set: &'a HostSet,
    group: &'a Group,
    /// Of each priority who is in it, and who hashes lead to where the balancer goes by them.
    tiers: Vec<(Ids, Option<Ids>)>,
    /// Of each priority how many of the points lead to healthy and to degraded ones.
    shares: Vec<(u32, u32)>,
}

type Ids = HashSet<HostId>;

// === impl Verdict ===

impl Verdict {
    /// Whether it may be chosen.
    pub fn is_eligible(self) -> bool {
        matches!(self, Self::Eligible | Self::EligibleInPanic)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eligible => "eligible",
            Self::EligibleInPanic => "eligible, because its priority is in panic",
            Self::Draining => "is draining",
            Self::Ejected => "is ejected by outlier detection",
            Self::Failing => "fails its health checks",
            Self::Unhealthy => "is unhealthy, says discovery",
            Self::Degraded => "is degraded, and there are healthy ones",
            Self::Priority => "other priorities get all requests",
            Self::Locality => "its locality has no weight",
            Self::Subset => "is not in the subset",
            Self::Refused => "its priority is in panic, and requests are refused then",
        })
    }
}

// === impl Standings ===

impl Standings {
    /// How many hosts may be chosen.
    pub fn eligible(&self) -> usize {
        let eligible = |host: &&Standing| host.verdict.is_eligible();
        self.hosts.iter().filter(eligible).count()
    }
}

// === impl ClusterHosts ===

impl ClusterHosts {
    /// Who may be chosen for a request that asks for this subset, with the endpoints that are in
    /// force now.
    pub fn standings(&self, subset: Option<&BTreeMap<Name, Name>>) -> Standings {
        self.follow();
        self.with(|set| set.standings(subset))
    }

    /// As [`ClusterHosts::standings`], for the subset that the route of this request asks for.
    pub fn standings_for(&self, exchange: &Exchange) -> Standings {
        self.standings(Wanted::of(Some(exchange)).subset())
    }
}

// === impl HostSet ===

impl HostSet {
    /// Who may be chosen for a request that asks for this subset.
    pub fn standings(&self, subset: Option<&BTreeMap<Name, Name>>) -> Standings {
        let wishes = self.subsets().and_then(|subsets| subsets.wishes(subset));
        let Some(wishes) = wishes else {
            return self.standings_of(subset, Points::ALL).standings;
        };
        // Each in turn, for whom those before leave over.
        let mut found = None;
        for wish in &wishes {
            found = Some(match found {
                None => self.standings_of(Some(wish), Points::ALL),
                Some(before) => Found::or(before, |left| self.standings_of(Some(wish), left)),
            });
        }
        let found = found.unwrap_or_else(|| self.standings_of(None, Points::ALL));
        found.standings
    }

    fn standings_of(&self, subset: Option<&BTreeMap<Name, Name>>, points: Points) -> Found {
        let found = self.standings_among(&self.asked(subset), points);
        let panics = self.subsets().filter(|subsets| {
            let way = subsets.way(subset);
            subsets.config().panic_mode_any
                && matches!(way, Way::Usual(fallback) if fallback != SubsetFallback::None)
        });
        match panics {
            Some(_) => found.or(|left| self.standings_among(&Asked::Group(self.whole()), left)),
            None => found,
        }
    }

    fn asked(&self, subset: Option<&BTreeMap<Name, Name>>) -> Asked<'_> {
        let Some(subsets) = self.subsets() else {
            return Asked::Group(self.whole());
        };
        let fallback = match subsets.way(subset) {
            Way::Part(part) => {
                return match &part.held {
                    Held::Group(group) => Asked::Group(group),
                    Held::Single(host) => Asked::One(host),
                };
            }
            Way::Instead(fallback) | Way::Usual(fallback) => fallback,
        };
        match fallback {
            SubsetFallback::Any => Asked::Group(self.whole()),
            SubsetFallback::Default => subsets.default_group().map_or(Asked::Nobody, Asked::Group),
            _ => Asked::Nobody,
        }
    }

    fn standings_among(&self, asked: &Asked<'_>, points: Points) -> Found {
        let judge = match asked {
            Asked::Group(group) => Some(Judge::new(self, group, points)),
            _ => None,
        };
        let verdict = |host: &Arc<Host>| match (asked, &judge) {
            (Asked::One(one), _) if one.id() == host.id() => Verdict::Eligible,
            (_, Some(judge)) => judge.verdict(host),
            _ => Verdict::Subset,
        };
        let hosts = self.hosts().iter().map(|host| Standing {
            view: HostView::of(host),
            endpoint: host.endpoint().clone(),
            verdict: verdict(host),
        });
        let hosts: Vec<Standing> = hosts.collect();
        let (priorities, left) = match (asked, &judge) {
            (Asked::Group(group), Some(judge)) => (priorities(group), judge.left(&hosts, points)),
            (Asked::One(_), _) => (Vec::new(), Points::NONE),
            _ => (Vec::new(), points),
        };
        Found {
            standings: Standings { hosts, priorities },
            left,
        }
    }
}

// === impl Found ===

impl Found {
    /// With what there is for those that have nobody so far.
    fn or(mut self, other: impl FnOnce(Points) -> Self) -> Self {
        if self.left == Points::NONE {
            return self;
        }
        let other = other(self.left);
        if self.standings.eligible() == 0 {
            return other;
        }
        let hosts = self.standings.hosts.iter_mut();
        for (host, other) in hosts.zip(other.standings.hosts) {
            if !host.verdict.is_eligible() && other.verdict.is_eligible() {
                host.verdict = other.verdict;
            }
        }
        self.left = other.left;
        self
    }
}

// === impl Points ===

impl Points {
    const ALL: Self = Self((1 << 100) - 1);
    const NONE: Self = Self(0);

    fn each(self) -> impl Iterator<Item = u64> {
        (0..100).filter(move |point| self.0 >> point & 1 == 1)
    }
}

impl FromIterator<u64> for Points {
    fn from_iter<I: IntoIterator<Item = u64>>(points: I) -> Self {
        Self(points.into_iter().fold(0, |all, point| all | 1 << point))
    }
}

// === impl Judge ===

impl<'a> Judge<'a> {
    fn new(set: &'a HostSet, group: &'a Group, points: Points) -> Self {
        let hashes = matches!(
            set.balancing(),
            Balancing::RingHash(_) | Balancing::Maglev(_)
        );
        let tiers = group.tiers().iter().enumerate().map(|(at, tier)| {
            let all = tier.all.hosts().iter().map(|host| host.id());
            let hashed = hashes.then(|| {
                let hosts = group.weighed(at, set.plan());
                hosts.iter().map(|one| one.host.id()).collect()
            });
            (all.collect(), hashed)
        });
        let mut shares = vec![(0, 0); group.tiers().len()];
        for (tier, availability) in points.each().filter_map(|at| group.load().choose(at)) {
            match availability {
                Availability::Degraded => shares[tier].1 += 1,
                Availability::Healthy | Availability::Panic => shares[tier].0 += 1,
            }
        }
        Self {
            set,
            group,
            tiers: tiers.collect(),
            shares,
        }
    }

    /// The points that lead to nobody: to a priority of which a table of hashes knows nobody, for one.
    fn left(&self, hosts: &[Standing], points: Points) -> Points {
        let serves = |point: &u64| {
            let Some((tier, availability)) = self.group.load().choose(*point) else {
                return false;
            };
            let wanted = match availability {
                // Hashes lead to whom there is.
                _ if self.tiers[tier].1.is_some() => None,
                Availability::Healthy => Some(Health::Healthy),
                Availability::Degraded => Some(Health::Degraded),
                Availability::Panic => None,
            };
            let mut each = self.set.hosts().iter().zip(hosts);
            each.any(|(host, standing)| {
                standing.verdict.is_eligible()
                    && host.priority() == self.group.tiers()[tier].priority
                    && wanted.is_none_or(|wanted| host.health() == wanted)
            })
        };
        points.each().filter(|point| !serves(point)).collect()
    }

    fn verdict(&self, host: &Host) -> Verdict {
        let mut tiers = self.group.tiers().iter().enumerate();
        let Some((at, tier)) = tiers.find(|(_, tier)| tier.priority == host.priority()) else {
            return Verdict::Subset;
        };
        let (all, hashed) = &self.tiers[at];
        if !all.contains(&host.id()) {
            return Verdict::Subset;
        }
        let load = self.group.load();
        let (healthy, degraded) = self.shares[at];
        let panic = load.is_in_panic(at) && healthy + degraded > 0;
        if let Some(hashed) = hashed {
            // Hashes lead to whom the table of the priority is made of, whatever its share is of.
            return match host.health() {
                _ if healthy + degraded == 0 => without_share(host),
                _ if hashed.contains(&host.id()) => fit(panic, host),
                Health::Degraded if !panic => Verdict::Degraded,
                Health::Unhealthy | Health::Draining if !panic => unusable(host),
                _ => Verdict::Locality,
            };
        }
        if panic {
            return match self.set.config().localities {
                LocalityBalancing::ZoneAware(zone) if zone.fail_in_panic => Verdict::Refused,
                _ => fit(panic, host),
            };
        }
        match host.health() {
            Health::Healthy if healthy == 0 => Verdict::Priority,
            Health::Healthy if self.is_passed_over(tier, host, true) => Verdict::Locality,
            Health::Degraded if degraded == 0 && healthy == 0 => Verdict::Priority,
            Health::Degraded if degraded == 0 => Verdict::Degraded,
            Health::Degraded if self.is_passed_over(tier, host, false) => Verdict::Locality,
            Health::Healthy | Health::Degraded => fit(panic, host),
            _ => unusable(host),
        }
    }

    /// Whether localities have weights and the host's has none while another has.
    fn is_passed_over(&self, tier: &Tier, host: &Host, healthy: bool) -> bool {
        if self.set.config().localities != LocalityBalancing::Weighted {
            return false;
        }
        let areas = &tier.schedules[usize::from(!healthy)].areas;
        let is_own = |(at, _): &(usize, f64)| *tier.areas[*at].locality == *host.locality();
        !areas.is_empty() && !areas.iter().any(is_own)
    }
}

/// A healthy host needs no panic to be chosen.
fn fit(panic: bool, host: &Host) -> Verdict {
    match panic && host.health() != Health::Healthy {
        true => Verdict::EligibleInPanic,
        false => Verdict::Eligible,
    }
}

fn without_share(host: &Host) -> Verdict {
    match host.health() {
        Health::Healthy | Health::Degraded => Verdict::Priority,
        _ => unusable(host),
    }
}

fn unusable(host: &Host) -> Verdict {
    match (host.is_ejected(), host.checked().failed) {
        _ if host.health() == Health::Draining => Verdict::Draining,
        (true, _) => Verdict::Ejected,
        (false, true) => Verdict::Failing,
        (false, false) => Verdict::Unhealthy,
    }
}

fn priorities(group: &Group) -> Vec<PriorityView> {
    let tiers = group.tiers().iter().zip(group.load().shares());
    tiers
        .enumerate()
        .map(|(at, (tier, (healthy, degraded)))| PriorityView {
            priority: tier.priority,
            healthy: *healthy,
            degraded: *degraded,
            panic: group.load().is_in_panic(at),
        })
        .collect()
}

#[cfg(test)]
mod tests;
