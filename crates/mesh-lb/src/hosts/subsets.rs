//! Subsets of a cluster by the metadata of its endpoints (Envoy's `SubsetLoadBalancer`).

use super::group::{Group, Plan};
use super::list::Slots;
use crate::Host;
use mesh_core::Name;
use mesh_core::model::{SubsetBalancing, SubsetFallback};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
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

// === impl Subsets ===

impl Subsets {
    pub(crate) fn build(plan: Plan<'_>, config: &Arc<SubsetBalancing>, slots: &mut Slots) -> Self {
        let hosts = plan.members.hosts();
        let mut found: HashMap<Criteria, (bool, Vec<&Arc<Host>>)> = HashMap::new();
        let mut duplicates: BTreeMap<u32, u64> = BTreeMap::new();
        for host in hosts {
            let count = duplicates.entry(host.priority()).or_default();
            for selector in &config.selectors {
                let Some(criteria) = criteria_of(host, &selector.keys) else {
                    continue;
                };
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
                config
                    .default
                    .iter()
                    .all(|(name, value)| has.get(name) == Some(value))
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
            if let Some(part) = self.find(wanted) {
                return Way::Part(part);
            }
            if let Some(fallback) = self.fallback_of(wanted) {
                return Way::Instead(fallback);
            }
        }
        Way::Usual(self.config.fallback)
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
    fn fallback_of(&self, wanted: &BTreeMap<Name, Name>) -> Option<SubsetFallback> {
        let by_these = |keys: &[Name]| keys.iter().eq(wanted.keys());
        let selectors = &self.config.selectors;
        let selector = selectors.iter().find(|selector| by_these(&selector.keys))?;
        selector.fallback
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
fn criteria_of(host: &Host, keys: &[Name]) -> Option<Criteria> {
    let has = &host.endpoint().subset;
    let found: Option<BTreeMap<_, _>> = keys
        .iter()
        .map(|key| Some((key.clone(), has.get(key)?.clone())))
        .collect();
    let criteria: Criteria = found?.into_iter().collect();
    (!criteria.is_empty()).then_some(criteria)
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
mod tests {
    use super::*;
    use crate::hash::Table;
    use crate::hosts::{HostSet, Members, Setting};
    use crate::{Ask, Picker};
    use mesh_core::model::{Balancing, Cluster, Endpoint, EndpointSet, Maglev, SubsetSelector};

    /// Endpoints with a version each, in a cluster whose subsets are those.
    fn versions(hosts: &[(u8, &str)], previous: Option<&HostSet>) -> HostSet {
        let endpoints = hosts.iter().map(|(at, version)| {
            let address = mesh_test::fixture::address(&format!("127.0.77.{at}:81"));
            let mut endpoint = Endpoint::new(address);
            endpoint.subset = Arc::new(BTreeMap::from([("version".into(), (*version).into())]));
            Arc::new(endpoint)
        });
        let endpoints = EndpointSet::from_endpoints(endpoints.collect());
        let old = previous.map(|set| set.members().clone());
        let members = Members::build(1, &endpoints, &old.unwrap_or_default());
        let mut subsets = SubsetBalancing::default();
        let mut selector = SubsetSelector::default();
        selector.keys = vec!["version".into()];
        subsets.selectors = vec![selector];
        let mut cluster = Cluster::new("c");
        cluster.balancing = Balancing::Maglev(Maglev::default());
        cluster.subsets = Some(Arc::new(subsets));
        let setting = Setting {
            previous,
            ..Setting::default()
        };
        HostSet::build(1, Arc::new(cluster), Arc::new(members), setting)
    }

    /// The table of a version, if it was built.
    fn table_of(set: &HostSet, version: &str) -> Option<Arc<Table>> {
        let wanted = BTreeMap::from([("version".into(), version.into())]);
        match &set.subsets()?.find(&wanted)?.held {
            Held::Group(group) => group.tiers()[0].built_table().cloned(),
            Held::Single(_) => None,
        }
    }

    #[test]
    fn subsets_keep_their_tables_while_their_hosts_stay() {
        let first = versions(&[(1, "a"), (2, "a"), (3, "b"), (4, "c")], None);
        for version in ["a", "b"] {
            let wanted = BTreeMap::from([("version".into(), version.into())]);
            let mut ask = Ask::new(0).hash(Some(7));
            ask.subset = Some(&wanted);
            assert!(Picker::default().choose(&first, &ask).is_some());
        }
        let built = |version| table_of(&first, version).expect("somebody asked for it");
        let second = versions(&[(1, "a"), (2, "a"), (5, "b"), (4, "c")], Some(&first));
        let kept = table_of(&second, "a").expect("it is carried over");
        assert!(Arc::ptr_eq(&kept, &built("a")));
        assert!(table_of(&second, "b").is_none(), "other hosts");
        assert!(table_of(&second, "c").is_none(), "nobody asked for it");
        let third = versions(&[(1, "a"), (2, "a")], Some(&second));
        assert!(Arc::ptr_eq(&table_of(&third, "a").unwrap(), &kept));
    }
}
