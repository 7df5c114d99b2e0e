//! Whatever the order in which resources come, the end is the same and nothing on the way is torn.

use super::support::*;
use mesh_core::Name;
use mesh_core::model::{Cluster, Snapshot};
use mesh_xds::TypeUrl;
use mesh_xds::assemble::{Interest, To};
use mesh_xds::read::{Resource, RouteSource};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a server has at one moment: numbers stand for names.
#[derive(Clone, Debug)]
struct Plan {
    /// Clusters: whether by EDS, a setting, and ports.
    clusters: BTreeMap<u8, (bool, u32, u16)>,
    /// Tables: the clusters that they refer to.
    tables: BTreeMap<u8, Vec<u8>>,
    /// Listeners: the table, and whether it comes inline.
    listeners: BTreeMap<u8, (u8, bool)>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let cluster = (any::<bool>(), 0..3_u32, 1..4_u16);
    (
        prop::collection::btree_map(0..6_u8, cluster, 1..6),
        prop::collection::btree_map(0..4_u8, prop::collection::vec(any::<u8>(), 0..4), 4),
        prop::collection::btree_map(0..4_u8, (0..4_u8, any::<bool>()), 0..4),
    )
        .prop_map(|(clusters, mut tables, listeners)| {
            // Consistent: tables refer to clusters that are there.
            let known: Vec<u8> = clusters.keys().copied().collect();
            for to in tables.values_mut().flatten() {
                *to = known[usize::from(*to) % known.len()];
            }
            Plan {
                clusters,
                tables,
                listeners,
            }
        })
}

type Key = (TypeUrl, Name);

fn resources(plan: &Plan) -> BTreeMap<Key, Resource> {
    let mut all = BTreeMap::new();
    let cluster_name = |at: u8| format!("c{at}");
    let routes_of = |at: u8| {
        let names: Vec<String> = plan.tables[&at].iter().copied().map(cluster_name).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        table(&format!("t{at}"), &names)
    };
    for (at, (eds, setting, port)) in &plan.clusters {
        let name = cluster_name(*at);
        let mut config = Cluster::new(name.as_str());
        config.panic_threshold = *setting;
        let mut cluster = eds_cluster_with(config, Some(WAIT));
        if *eds {
            let key = (TypeUrl::Endpoints, name.as_str().into());
            all.insert(key, endpoints(&name, &[*port]));
        } else if let Resource::Cluster(cluster) = &mut cluster {
            cluster.eds = None;
            cluster.endpoints = Some(set(&[*port]));
        }
        all.insert((TypeUrl::Cluster, name.into()), cluster);
    }
    for at in plan.tables.keys() {
        let table = routes_of(*at);
        all.insert(
            (TypeUrl::Routes, table.name.clone()),
            Resource::Routes(Box::new(table)),
        );
    }
    for (at, (routes, inline)) in &plan.listeners {
        let name = format!("l{at}");
        let routes = if *inline {
            RouteSource::Inline(Box::new(routes_of(*routes)))
        } else {
            RouteSource::Named(ads(&format!("t{routes}"), Some(WAIT)))
        };
        let listener = listener_with(&name, 1000 + u16::from(*at), routes);
        all.insert((TypeUrl::Listener, name.into()), listener);
    }
    all
}

/// Changes from one moment to the next, in a random order and cut at random places.
fn changes(
    from: &BTreeMap<Key, Resource>,
    to: &BTreeMap<Key, Resource>,
    words: &[u32],
) -> Vec<Vec<To>> {
    let gone = from.keys().filter(|key| !to.contains_key(*key));
    let gone = gone.map(|(kind, name)| To::Gone(*kind, name.clone()));
    let came = to.iter().filter(|(key, new)| from.get(*key) != Some(*new));
    let came = came.map(|(_, resource)| To::Is(resource.clone()));
    let mut all: Vec<To> = gone.chain(came).collect();
    let word = |at: usize| words[at % words.len()].wrapping_mul(at as u32 * 2 + 1) as usize;
    for at in (1..all.len()).rev() {
        all.swap(at, word(at) % (at + 1));
    }
    let mut batches = vec![Vec::new()];
    for (at, change) in all.into_iter().enumerate() {
        if word(at + 1000) % 3 == 0 {
            batches.push(Vec::new());
        }
        batches.last_mut().unwrap().push(change);
    }
    batches
}

/// A world, and a server that sends what is asked for.
struct Run {
    world: World,
    sent: BTreeMap<Key, Resource>,
    verdicts: usize,
    owed: usize,
}

impl Run {
    fn new() -> Self {
        Self {
            world: World::new(),
            sent: BTreeMap::new(),
            verdicts: 0,
            owed: 0,
        }
    }

    fn feed(&mut self, batch: Vec<To>) {
        let mut batch = batch;
        while !batch.is_empty() {
            for change in &batch {
                match change {
                    To::Is(resource) => {
                        self.owed += 1;
                        self.sent.insert(key_of(resource), resource.clone());
                    }
                    To::Gone(kind, name) => {
                        self.sent.remove(&(*kind, name.clone()));
                    }
                }
            }
            let before = self.world.snapshot().clone();
            let step = self.world.apply(std::mem::take(&mut batch));
            assert_eq!(refused(&step), []);
            self.verdicts += step.verdicts.len();
            self.check(&before);
            for interest in step.interests {
                if let Interest::Start(kind, to) = interest
                    && let Some(again) = self.sent.get(&(kind, to.name))
                {
                    batch.push(To::Is(again.clone()));
                }
            }
        }
    }

    /// Nothing in force is torn.
    fn check(&self, before: &Snapshot) {
        let snapshot = self.world.snapshot();
        for listener in snapshot.listeners() {
            let manager = listener.managers().next().unwrap();
            assert!(snapshot.table(&manager.routes).is_some());
        }
        for table in snapshot.tables() {
            let old = before.table(&table.name);
            if old.is_some_and(|old| Arc::ptr_eq(old, table)) {
                continue;
            }
            // A table that just came into force refers to no cluster that is known but warms.
            for cluster in clusters_of(table) {
                let known = self.sent.contains_key(&(TypeUrl::Cluster, cluster.clone()));
                assert_eq!(snapshot.cluster(&cluster).is_some(), known, "{cluster}");
            }
        }
    }
}

fn key_of(resource: &Resource) -> Key {
    match resource {
        Resource::Cluster(all) => (TypeUrl::Cluster, all.cluster.name.clone()),
        Resource::Endpoints(all) => (TypeUrl::Endpoints, all.name.clone()),
        Resource::Listener(all) => (TypeUrl::Listener, all.listener.name.clone()),
        Resource::Routes(table) => (TypeUrl::Routes, table.name.clone()),
        _ => unreachable!(),
    }
}

/// Everything that can be seen of a snapshot.
fn seen(snapshot: &Snapshot) -> String {
    let clusters = snapshot.clusters().iter().map(|entry| {
        let endpoints = entry.live().endpoints().load();
        format!("{:?} {endpoints:?}", entry.config())
    });
    let clusters: Vec<String> = clusters.collect();
    let tables: BTreeSet<String> = snapshot.tables().iter().map(|t| format!("{t:?}")).collect();
    format!("{:?}\n{tables:?}\n{clusters:?}", snapshot.listeners())
}

proptest! {
    #[test]
    fn any_order_and_any_cuts_end_in_the_same_snapshot(
        first in plan(),
        second in plan(),
        words in prop::collection::vec(any::<u32>(), 1..30),
    ) {
        let (first, second) = (resources(&first), resources(&second));
        let mut run = Run::new();
        for batch in changes(&BTreeMap::new(), &first, &words) {
            run.feed(batch);
        }
        let mut whole = Run::new();
        whole.feed(first.values().cloned().map(To::Is).collect());
        prop_assert_eq!(seen(run.world.snapshot()), seen(whole.world.snapshot()));

        // And from there to another moment.
        for batch in changes(&first, &second, &words) {
            run.feed(batch);
        }
        let mut whole = Run::new();
        whole.feed(second.values().cloned().map(To::Is).collect());
        prop_assert_eq!(seen(run.world.snapshot()), seen(whole.world.snapshot()));
        prop_assert_eq!(run.verdicts, run.owed);
        prop_assert_eq!(run.world.assemble.deadline(), None);
        prop_assert_eq!(run.world.listeners().len(),
            second.keys().filter(|(kind, _)| *kind == TypeUrl::Listener).count());
    }
}
