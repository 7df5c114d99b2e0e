//! Subsets of a cluster by the metadata of its endpoints (Envoy's `SubsetLoadBalancer`).

use super::group::{Group, Plan, Within};
use super::list::Slots;
use crate::{Host, labels};
use mesh_core::Name;
use mesh_core::model::{SubsetBalancing, SubsetFallback, SubsetLocalities};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The subsets of one set of hosts.
#[derive(Debug)]
pub(crate) struct Subsets {
    config: Arc<SubsetBalancing>,
    /// In order of what is asked for.
    parts: Vec<Part>,
    /// The endpoints that are like the default subset, where anybody falls back on it.
    default: Option<Group>,
    /// Endpoints that had no room in a subset for one, of the last priority.
    duplicates: u64,
}

/// One subset.
#[derive(Debug)]
pub(crate) struct Part {
    /// What its endpoints have, in order of the names.
    criteria: Criteria,
    pub(crate) held: Held,
}

/// Who is in a subset.
#[derive(Debug)]
pub(crate) enum Held {
    Group(Group),
    /// The one endpoint, healthy or not.
    Single(Arc<Host>),
}

/// What who asks for a subset, or for none, is led to.
#[derive(Debug)]
pub(crate) enum Way<'a> {
    /// The subset.
    Part(&'a Part),
    /// What those get who ask by the same names where their subset does not exist.
    Instead(SubsetFallback),
    /// What everybody else gets.
    Usual(SubsetFallback),
}

type Criteria = Vec<(Name, Name)>;

/// The most subsets that one selector puts an endpoint in because of its lists.
const MOST_PARTS: usize = 1024;

// === impl Subsets ===

impl Subsets {
    pub(crate) fn build(plan: Plan<'_>, config: &Arc<SubsetBalancing>, slots: &mut Slots) -> Self {
        let hosts = plan.members.hosts();
        let sizes = (plan.weighted && config.localities == SubsetLocalities::Scaled)
            .then(|| plan.members.sizes());
        let plan = Plan {
            within: Some(Within {
                sizes: sizes.as_ref(),
            }),
            ..plan
        };
        let mut found: HashMap<Criteria, (bool, Vec<&Arc<Host>>)> = HashMap::new();
        let mut duplicates: BTreeMap<u32, u64> = BTreeMap::new();
        for host in hosts {
            let count = duplicates.entry(host.priority()).or_default();
            for selector in &config.selectors {
                for criteria in criteria_of(host, &selector.keys, config.list_as_any) {
                    // Of two selectors by the same keys the first says what kind of subset it is.
                    let (single, members) = found
                        .entry(criteria)
                        .or_insert_with(|| (selector.single, Vec::new()));
                    let same_priority = |other: &&Arc<Host>| other.priority() == host.priority();
                    if *single && members.iter().any(same_priority) {
                        *count += 1;
                    } else if members.last().is_none_or(|last| last.id() != host.id()) {
                        members.push(host);
                    }
                }
            }
        }
        let mut parts: Vec<_> = found
            .into_iter()
            .filter_map(|(criteria, (single, members))| {
                let held = match single {
                    true => {
                        let first = members.iter().min_by_key(|host| host.priority())?;
                        Held::Single(Arc::clone(first))
                    }
                    false => Held::Group(Group::build(plan, members.into_iter(), slots)),
                };
                Some(Part { criteria, held })
            })
            .collect();
        parts.sort_by(|a, b| a.criteria.cmp(&b.criteria));
        let default = needs_default(config).then(|| {
            let is_like_it = |host: &&Arc<Host>| {
                let has = &host.endpoint().subset;
                labels::has_all(has, &config.default, config.list_as_any)
            };
            Group::build(plan, hosts.iter().filter(is_like_it), slots)
        });
        Self {
            config: config.clone(),
            parts,
            default,
            duplicates: duplicates.into_values().last().unwrap_or(0),
        }
    }

    /// What who asks for this is led to.
    pub(crate) fn way(&self, wanted: Option<&BTreeMap<Name, Name>>) -> Way<'_> {
        if let Some(wanted) = wanted {
            let enough = self.config.redundant_keys.then(|| self.enough(wanted));
            let enough = enough.flatten();
            let wanted = enough.as_ref().unwrap_or(wanted);
            if let Some(part) = self.find(wanted) {
                return Way::Part(part);
            }
            if let Some((fallback, keys)) = self.fallback_of(wanted) {
                if fallback != SubsetFallback::Keys {
                    return Way::Instead(fallback);
                }
                let of_those = |(name, value): (&Name, &Name)| {
                    let is_one = keys.contains(name);
                    is_one.then(|| (name.clone(), value.clone()))
                };
                let reduced: BTreeMap<_, _> = wanted.iter().filter_map(of_those).collect();
                // Each time there are fewer, so there is an end to it.
                return match reduced.len() < wanted.len() {
                    true => self.way(Some(&reduced)),
                    false => Way::Instead(SubsetFallback::None),
                };
            }
        }
        Way::Usual(self.config.fallback)
    }

    /// What a request asks for in turn that brings a list of further wishes along. None where it
    /// brings none, or nobody reads such a list.
    pub(crate) fn wishes(
        &self,
        wanted: Option<&BTreeMap<Name, Name>>,
    ) -> Option<Vec<BTreeMap<Name, Name>>> {
        let wanted = wanted.filter(|_| self.config.fallback_list)?;
        let list = wanted.get(SubsetBalancing::FALLBACK_LIST)?;
        let mut base = wanted.clone();
        base.remove(SubsetBalancing::FALLBACK_LIST);
        let entries = labels::entries(list).unwrap_or_default();
        if entries.is_empty() {
            return Some(vec![base]);
        }
        let with = |entry: &str| {
            let mut wish = base.clone();
            wish.extend(labels::fields(entry).unwrap_or_default());
            wish
        };
        Some(entries.into_iter().map(with).collect())
    }

    /// What counts of a request that may ask by more keys than are needed: the keys of the first
    /// selector that it has all of. None where there is no such selector.
    fn enough(&self, wanted: &BTreeMap<Name, Name>) -> Option<BTreeMap<Name, Name>> {
        let value = |key: &Name| Some((key.clone(), wanted.get(key)?.clone()));
        let mut selectors = self.config.selectors.iter();
        selectors.find_map(|selector| selector.keys.iter().map(value).collect())
    }

    /// The subset that has just what is asked for.
    fn find(&self, wanted: &BTreeMap<Name, Name>) -> Option<&Part> {
        if wanted.is_empty() {
            return None;
        }
        let order = |part: &Part| -> Ordering {
            let has = part.criteria.iter().map(|(name, value)| (name, value));
            has.cmp(wanted)
        };
        let at = self.parts.binary_search_by(order).ok()?;
        Some(&self.parts[at])
    }

    /// What who asks by these names gets where their subset does not exist. None is what everybody
    /// else gets.
    fn fallback_of(&self, wanted: &BTreeMap<Name, Name>) -> Option<(SubsetFallback, &[Name])> {
        if wanted.is_empty() {
            return None;
        }
        let by_these = |keys: &[Name]| keys.iter().eq(wanted.keys());
        let selectors = &self.config.selectors;
        let selector = selectors.iter().find(|selector| by_these(&selector.keys))?;
        Some((selector.fallback?, &selector.fallback_keys))
    }

    pub(crate) fn config(&self) -> &SubsetBalancing {
        &self.config
    }

    pub(crate) fn default_group(&self) -> Option<&Group> {
        self.default.as_ref()
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    pub(crate) fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// How many of these `other` has not got.
    pub(crate) fn missing_in(&self, other: Option<&Self>) -> usize {
        let has = |part: &&Part| {
            other.is_some_and(|other| {
                let order = |of: &Part| of.criteria.cmp(&part.criteria);
                other.parts.binary_search_by(order).is_ok()
            })
        };
        self.parts.iter().filter(|part| !has(part)).count()
    }

    /// Shares the tables of hashes of `previous` that are the same.
    pub(crate) fn adopt_tables(&self, plan: Plan<'_>, previous: &Self) {
        for part in &self.parts {
            let at = previous
                .parts
                .binary_search_by(|of| of.criteria.cmp(&part.criteria));
            let old = at.ok().map(|at| &previous.parts[at].held);
            if let (Held::Group(group), Some(Held::Group(old))) = (&part.held, old) {
                group.adopt_tables(plan, old);
            }
        }
        if let (Some(group), Some(old)) = (&self.default, &previous.default) {
            group.adopt_tables(plan, old);
        }
    }
}

/// What a host has under all of these names, in their order; a name that comes twice counts once.
/// Where lists stand for any of their entries, each combination of those (Envoy
/// `extractSubsetMetadata`, with what it makes of an empty list: the names before it do not count).
fn criteria_of(host: &Host, keys: &[Name], list_as_any: bool) -> Vec<Criteria> {
    let has = &host.endpoint().subset;
    let keys: BTreeSet<&Name> = keys.iter().collect();
    let mut found: Vec<Criteria> = Vec::new();
    for key in keys {
        let Some(value) = has.get(key) else {
            return Vec::new();
        };
        let entries = list_as_any.then(|| labels::entries(value)).flatten();
        let values = match entries {
            Some(entries) => entries.into_iter().map(Name::from).collect(),
            None => vec![value.clone()],
        };
        if found.is_empty() {
            found.push(Criteria::new());
        }
        let with = |before: &Criteria| {
            let before = before.clone();
            let add = |value: &Name| {
                let mut criteria = before.clone();
                criteria.push((key.clone(), value.clone()));
                criteria
            };
            values.iter().map(add).collect::<Vec<_>>()
        };
        found = found.iter().flat_map(with).collect();
        found.truncate(MOST_PARTS);
    }
    found
}

/// Whether anybody falls back on the default subset.
fn needs_default(config: &SubsetBalancing) -> bool {
    let selectors = &config.selectors;
    config.fallback == SubsetFallback::Default
        || selectors
            .iter()
            .any(|selector| selector.fallback == Some(SubsetFallback::Default))
}

#[cfg(test)]
mod tests;
