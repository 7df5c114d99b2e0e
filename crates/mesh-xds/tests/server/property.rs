//! A machine and a model of a client, with messages on the way between them in any order of events.

use crate::support::{Cluster, Routes, fixed, limited};
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::pb::google::rpc;
use mesh_xds::server::{Changes, Machine, ResourceSet, Response, Variant};
use mesh_xds::{Encoded, Node, TypeUrl};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

#[derive(Clone, Debug)]
enum Step {
    /// The route turns to a cluster, which appears if need be; clusters without a route vanish.
    Turn(u8, u8),
    /// The route vanishes.
    Drop(u8),
    /// A cluster that is there changes.
    Touch(u8),
    /// The server says something, if it has to.
    Say,
    /// The client handles the oldest message that is on the way to it.
    Handle { reject: bool },
    /// The server hears the oldest message that is on the way to it.
    Hear,
    /// The client changes its mind about a route.
    Subscribe(u8, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4_u8, 0..5_u8).prop_map(|(route, cluster)| Step::Turn(route, cluster)),
        1 => (0..4_u8).prop_map(Step::Drop),
        1 => (0..5_u8).prop_map(Step::Touch),
        6 => Just(Step::Say),
        6 => prop::bool::weighted(0.15).prop_map(|reject| Step::Handle { reject }),
        6 => Just(Step::Hear),
        2 => (0..4_u8, any::<bool>()).prop_map(|(route, on)| Step::Subscribe(route, on)),
    ]
}

enum Message {
    Whole(discovery::DiscoveryRequest),
    Delta(discovery::DeltaDiscoveryRequest),
}

struct World {
    variant: Variant,
    set: ResourceSet,
    machine: Machine,
    now: Instant,
    down: VecDeque<Response>,
    up: VecDeque<Message>,
    /// Nonces that the server has sent and heard no answer to.
    open: HashMap<TypeUrl, String>,
    // --- the client ---
    clusters: BTreeMap<String, String>,
    /// Name to version and target.
    routes: BTreeMap<String, (String, String)>,
    wanted: BTreeSet<String>,
    nonces: HashMap<TypeUrl, String>,
    versions: HashMap<TypeUrl, String>,
    rejected: BTreeMap<String, String>,
    touched: u64,
}

impl World {
    fn new(variant: Variant, most: usize) -> Self {
        let set = ResourceSet::new();
        let now = Instant::now();
        let options = limited(variant, |limits| limits.response_resources = most);
        let machine = Machine::new(options, &Node::new("n"), fixed([set.clone()]), now);
        let mut world = Self {
            variant,
            set,
            machine,
            now,
            down: VecDeque::new(),
            up: VecDeque::new(),
            open: HashMap::new(),
            clusters: BTreeMap::new(),
            routes: BTreeMap::new(),
            wanted: (0..3).map(|index| format!("r{index}")).collect(),
            nonces: HashMap::new(),
            versions: HashMap::new(),
            rejected: BTreeMap::new(),
            touched: 0,
        };
        world.send(Cluster, &[], &[], None);
        let names: Vec<String> = world.wanted.iter().cloned().collect();
        world.send(Routes, &names, &[], None);
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Turn(route, cluster) => {
                let target = format!("c{cluster}");
                let mut changes = Changes::new();
                if self.set.get(Cluster, &target).is_none() {
                    changes = changes.set(Cluster, Encoded::new(target.clone(), &b"new"[..]));
                }
                let route = format!("r{route}");
                changes = changes.set(Routes, Encoded::new(route.clone(), target.clone()));
                self.apply(changes, &route, Some(&target));
            }
            // As state of the world a route goes only with the listener that asked for it.
            Step::Drop(_) if self.variant == Variant::StateOfTheWorld => {}
            Step::Drop(route) => {
                let route = format!("r{route}");
                self.apply(Changes::new().remove(Routes, route.clone()), &route, None);
            }
            Step::Touch(cluster) => {
                let name = format!("c{cluster}");
                if self.set.get(Cluster, &name).is_some() {
                    self.touched += 1;
                    let text = self.touched.to_string();
                    self.set
                        .apply(Changes::new().set(Cluster, Encoded::new(name, text)));
                    self.machine.refresh(self.now);
                }
            }
            Step::Say => {
                let Some(response) = self.machine.poll_response(self.now) else {
                    return;
                };
                let kind = response.kind().unwrap();
                let before = self.open.insert(kind, response.nonce.to_string());
                assert_eq!(before, None, "two unanswered responses of type {kind}");
                let names: BTreeSet<_> = response
                    .resources
                    .iter()
                    .map(|item| item.resource.name.clone())
                    .collect();
                assert_eq!(names.len(), response.resources.len(), "a name twice");
                self.down.push_back(response);
            }
            Step::Handle { reject } => {
                if let Some(response) = self.down.pop_front() {
                    self.handle(&response, reject);
                }
            }
            Step::Hear => self.hear(),
            // With a stale nonce nobody hears that a name was dropped and asked for again: a race
            // that the protocol leaves to its clients.
            Step::Subscribe(..)
                if self.variant == Variant::StateOfTheWorld && self.open.contains_key(&Routes) => {}
            Step::Subscribe(route, on) => {
                self.subscribe(format!("r{route}"), on);
                while self.variant == Variant::StateOfTheWorld && !self.up.is_empty() {
                    self.hear();
                }
            }
        }
        for (name, (_, target)) in &self.routes {
            let known = self.clusters.contains_key(target);
            assert!(
                known,
                "the client's route {name} leads to {target}, which it has not"
            );
        }
    }

    /// Applies changes, and removes in the same step the clusters that no route leads to.
    fn apply(&mut self, mut changes: Changes, route: &str, target: Option<&str>) {
        let routes = self
            .set
            .all(Routes)
            .into_iter()
            .filter(|one| one.name != route);
        let mut used: BTreeSet<String> = routes
            .map(|one| String::from_utf8(one.bytes.to_vec()).unwrap())
            .collect();
        used.extend(target.map(str::to_owned));
        for cluster in self.set.all(Cluster) {
            if !used.contains(cluster.name.as_str()) {
                changes = changes.remove(Cluster, cluster.name);
            }
        }
        self.set.apply(changes);
        self.machine.refresh(self.now);
    }

    // --- the client -----------------------------------------------------------------------------

    fn handle(&mut self, response: &Response, reject: bool) {
        let kind = response.kind().unwrap();
        // Only routes are ever rejected: without a cluster that it refuses, a client's routes
        // cannot all lead somewhere.
        let reject = reject && kind == Routes && !response.resources.is_empty();
        self.nonces.insert(kind, response.nonce.to_string());
        if kind == Cluster && self.variant == Variant::StateOfTheWorld {
            self.clusters.clear();
        }
        for name in &response.removed {
            self.clusters
                .remove(name.as_str())
                .filter(|_| kind == Cluster);
            if kind == Routes {
                self.routes.remove(name.as_str());
            }
        }
        for item in &response.resources {
            let name = item.resource.name.to_string();
            let version = item.resource.version.to_string();
            let text = String::from_utf8(item.resource.bytes.to_vec()).unwrap();
            if kind == Cluster {
                self.clusters.insert(name, version);
            } else if reject {
                self.rejected.insert(name, version);
            } else if self.wanted.contains(&name) {
                self.rejected.remove(&name);
                self.routes.insert(name, (version, text));
            }
        }
        if !reject {
            self.versions.insert(kind, response.version.to_string());
        }
        let error = reject.then(|| rpc::Status {
            message: "no".into(),
            ..rpc::Status::default()
        });
        self.send(kind, &[], &[], error);
    }

    fn subscribe(&mut self, route: String, on: bool) {
        if on {
            self.wanted.insert(route.clone());
            self.send(Routes, &[route], &[], None);
        } else if self.wanted.remove(&route) {
            self.routes.remove(&route);
            self.rejected.remove(&route);
            self.send(Routes, &[], &[route], None);
        }
    }

    fn send(
        &mut self,
        kind: TypeUrl,
        add: &[String],
        drop: &[String],
        error_detail: Option<rpc::Status>,
    ) {
        let changes = !add.is_empty() || !drop.is_empty();
        let nonce = self.nonces.get(&kind).cloned().unwrap_or_default();
        self.up.push_back(match self.variant {
            Variant::StateOfTheWorld => Message::Whole(discovery::DiscoveryRequest {
                type_url: kind.url().into(),
                version_info: self.versions.get(&kind).cloned().unwrap_or_default(),
                resource_names: match kind {
                    Routes => self.wanted.iter().cloned().collect(),
                    _ => Vec::new(),
                },
                response_nonce: nonce,
                error_detail,
                ..discovery::DiscoveryRequest::default()
            }),
            Variant::Delta => Message::Delta(discovery::DeltaDiscoveryRequest {
                type_url: kind.url().into(),
                resource_names_subscribe: add.to_vec(),
                resource_names_unsubscribe: drop.to_vec(),
                response_nonce: if changes { String::new() } else { nonce },
                error_detail,
                ..discovery::DeltaDiscoveryRequest::default()
            }),
        });
    }

    fn hear(&mut self) {
        let Some(message) = self.up.pop_front() else {
            return;
        };
        let (url, nonce) = match &message {
            Message::Whole(request) => (&request.type_url, &request.response_nonce),
            Message::Delta(request) => (&request.type_url, &request.response_nonce),
        };
        let kind = TypeUrl::from_url(url).unwrap();
        if self.open.get(&kind) == Some(nonce) {
            self.open.remove(&kind);
        }
        match message {
            Message::Whole(request) => self.machine.request(request, self.now).unwrap(),
            Message::Delta(request) => self.machine.delta_request(request, self.now).unwrap(),
        }
    }

    /// Everything arrives, and everything is accepted.
    fn quiet(&mut self) {
        for _ in 0..1_000 {
            self.step(Step::Say);
            self.step(Step::Handle { reject: false });
            self.step(Step::Hear);
            if self.down.is_empty() && self.up.is_empty() {
                self.step(Step::Say);
                if self.down.is_empty() {
                    return;
                }
            }
        }
        panic!("it never becomes quiet");
    }

    fn check(&self) {
        let there: BTreeMap<_, _> = self
            .set
            .all(Routes)
            .into_iter()
            .filter(|one| self.wanted.contains(one.name.as_str()))
            .map(|one| (one.name.to_string(), one.version.to_string()))
            .collect();
        for (name, version) in &there {
            if self.rejected.get(name) != Some(version) {
                let held = self.routes.get(name).map(|(version, _)| version);
                assert_eq!(held, Some(version), "route {name}");
            }
        }
        if self.variant == Variant::Delta {
            let extra = self.routes.keys().find(|name| !there.contains_key(*name));
            assert_eq!(extra, None, "a route that is gone");
        }
        let clusters = self.set.all(Cluster).into_iter();
        let clusters: BTreeMap<_, _> = clusters
            .map(|one| (one.name.to_string(), one.version.to_string()))
            .collect();
        if self.rejected.is_empty() && self.variant == Variant::Delta {
            let server = (
                self.machine.status(self.now),
                self.machine.resources(Routes),
            );
            assert_eq!(self.clusters, clusters, "{server:#?}");
        }
        for (name, version) in &clusters {
            assert_eq!(self.clusters.get(name), Some(version), "cluster {name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_route_of_a_client_ever_leads_nowhere_and_in_the_end_it_has_what_there_is(
        delta in any::<bool>(),
        most in 1_usize..4,
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let variant = if delta { Variant::Delta } else { Variant::StateOfTheWorld };
        let mut world = World::new(variant, most);
        for step in steps {
            world.step(step);
        }
        world.quiet();
        world.check();
    }

    #[test]
    fn nothing_that_a_client_says_makes_the_machine_panic(
        steps in prop::collection::vec(
            (0..5_u8, prop::collection::vec("[a*]", 0..3), prop::collection::vec("[ab*]", 0..3),
             any::<(bool, bool, bool)>()),
            0..60,
        ),
    ) {
        for variant in [Variant::Delta, Variant::StateOfTheWorld] {
            let mut world = World::new(variant, 1);
            for (kind, names, drop, (set, answer, reject)) in &steps {
                let kind = TypeUrl::ALL[usize::from(*kind)];
                let response = world.machine.poll_response(world.now);
                let nonce = response.filter(|_| *answer).map(|one| one.nonce.to_string());
                let error_detail = reject.then(rpc::Status::default);
                let changes = Changes::new();
                world.set.apply(match set {
                    true => changes.set(kind, Encoded::new("a", names.concat())),
                    false => changes.remove(kind, "a"),
                });
                world.machine.refresh(world.now);
                let response_nonce = nonce.unwrap_or_default();
                let type_url = kind.url().to_owned();
                let heard = match variant {
                    Variant::Delta => world.machine.delta_request(
                        discovery::DeltaDiscoveryRequest {
                            type_url, response_nonce, error_detail,
                            resource_names_subscribe: names.clone(),
                            resource_names_unsubscribe: drop.clone(),
                            ..Default::default()
                        },
                        world.now,
                    ),
                    Variant::StateOfTheWorld => world.machine.request(
                        discovery::DiscoveryRequest {
                            type_url, response_nonce, error_detail,
                            resource_names: names.clone(),
                            ..Default::default()
                        },
                        world.now,
                    ),
                };
                prop_assert!(heard.is_ok());
                let _ = world.machine.status(world.now);
                let _ = world.machine.resources(kind);
                let _ = world.machine.deadline();
            }
        }
    }
}
