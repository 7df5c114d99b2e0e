//! Resources in any order and of any sense: every snapshot on the way is consistent.

use crate::structured::steps;
use crate::{Input, Target};
use arbitrary::{Arbitrary, Unstructured};
use mesh_core::Name;
use mesh_core::model::{
    Address, ClientTls, Cluster, EndpointSet, HttpManager, Listener, RouteTable, Rule, Secret,
    SecretRef, SecretSource, ServerTls, Validation, VirtualHost,
};
use mesh_xds::TypeUrl;
use mesh_xds::assemble::{Assemble, Change, Interest, Options, Step as Followed, To};
use mesh_xds::read::{
    ClusterResource, EndpointsResource, ListenerResource, Reference, Resource, RouteSource,
    SecretResource, SecretValue, Source,
};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const TARGET: Target = Target {
    name: "assemble",
    run,
    input: Input::Steps,
};

/// Something that happens.
#[derive(Arbitrary, Debug)]
enum Step {
    Apply(Vec<(From, Made)>),
    /// What is there for good.
    Fix(Vec<Made>),
    Expect(u8),
    Answered,
    Sleep(u8),
}

/// A resource, or its end.
#[derive(Arbitrary, Debug)]
enum Made {
    Cluster(u8, Eds, u8, Option<Tls>),
    Endpoints(u8, Vec<u8>),
    Table(u8, bool, Vec<u8>),
    Listener(u8, u8, Routes, Option<Tls>),
    Secret(u8, Value),
    Gone(u8, u8),
}

/// Who says something.
#[derive(Arbitrary, Debug)]
enum From {
    Ads,
    File,
    Service,
}

/// The secrets that something needs.
#[derive(Arbitrary, Debug)]
struct Tls {
    certificate: (u8, Provider),
    roots: Option<(u8, Provider)>,
    /// Comes with it.
    given: Option<(u8, u8)>,
}

#[derive(Arbitrary, Debug)]
enum Provider {
    Local,
    InFile,
    Ads(u8),
    Service(u8),
    File,
}

#[derive(Arbitrary, Debug)]
enum Value {
    Certificate(u8),
    Roots(u8),
    At(u8),
}

#[derive(Arbitrary, Debug)]
enum Eds {
    None,
    Own,
    Other(u8),
    Wait(u8, u8),
    File(u8),
}

#[derive(Arbitrary, Debug)]
enum Routes {
    Named(u8, Option<u8>),
    File(u8),
    Inline(u8, Vec<u8>),
}

struct Run {
    assemble: Assemble,
    now: Instant,
    ticket: u64,
    /// Changes without a verdict, by ticket.
    owed: BTreeMap<u64, (TypeUrl, Name)>,
    /// What is referred to.
    interests: HashSet<(TypeUrl, Source, Name)>,
}

fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut options = Options::default();
    options.routes_wait = Duration::from_secs(input.arbitrary::<u8>().unwrap_or_default().into());
    let mut run = Run {
        assemble: Assemble::new(options),
        now: Instant::now(),
        ticket: 0,
        owed: BTreeMap::new(),
        interests: HashSet::new(),
    };
    for step in steps(&mut input) {
        run.step(step);
    }
    // Nobody waits for longer than this.
    run.step(Step::Answered);
    for _ in 0..3 {
        run.step(Step::Sleep(u8::MAX));
    }
    assert!(run.owed.is_empty(), "never decided: {:?}", run.owed);
    assert_eq!(run.assemble.deadline(), None, "still waits");
}

impl Run {
    fn step(&mut self, step: Step) {
        let followed = match step {
            Step::Apply(all) => {
                let changes = all.into_iter().take(20).map(|(from, made)| {
                    self.ticket += 1;
                    let to = made.to();
                    if let To::Is(resource) = &to {
                        self.owed.insert(self.ticket, key_of(resource));
                    }
                    Change {
                        from: match from {
                            From::Ads => Source::Ads,
                            From::File => source(0),
                            From::Service => Source::Service {
                                cluster: SERVICE.into(),
                                opening: Default::default(),
                                delta: false,
                            },
                        },
                        ticket: self.ticket,
                        to,
                    }
                });
                let changes: Vec<Change> = changes.collect();
                self.assemble.apply(changes, self.now)
            }
            Step::Fix(all) => {
                let all = all.into_iter().take(5).filter_map(|made| match made.to() {
                    To::Is(resource) => Some(resource),
                    To::Gone(..) => None,
                });
                let all: Vec<Resource> = all.collect();
                self.assemble.fix(all, self.now)
            }
            Step::Expect(seconds) => {
                let due = self.now + Duration::from_secs(seconds.into());
                self.assemble.expect_clusters(due);
                return;
            }
            Step::Answered => {
                self.assemble.clusters_answered();
                self.assemble.apply(Vec::new(), self.now)
            }
            Step::Sleep(seconds) => {
                self.now += Duration::from_secs(seconds.into());
                self.assemble.tick(self.now)
            }
        };
        self.follow(followed);
        self.check();
    }

    fn follow(&mut self, followed: Followed) {
        for verdict in followed.verdicts {
            // What is there for good has no ticket.
            if verdict.ticket > 0 {
                let owed = self.owed.remove(&verdict.ticket);
                assert_eq!(owed, Some((verdict.kind, verdict.name)), "decided twice");
            }
        }
        for interest in followed.interests {
            match interest {
                Interest::Start(kind, to) => {
                    let new = self
                        .interests
                        .insert((kind, to.from.clone(), to.name.clone()));
                    assert!(new, "asks for {kind} {to:?} twice");
                }
                Interest::Stop(kind, from, name) => {
                    let had = self.interests.remove(&(kind, from, name.clone()));
                    assert!(had, "leaves {kind} {name}, which it never asked for");
                }
            }
        }
        if let Some(snapshot) = followed.snapshot {
            assert!(Arc::ptr_eq(&snapshot, self.assemble.snapshot()));
            mesh_route::prepare(&snapshot);
        }
    }

    fn check(&self) {
        let next = self.assemble.deadline();
        assert!(
            next.is_none_or(|at| at > self.now),
            "a deadline is left behind"
        );
        let snapshot = self.assemble.snapshot();
        let mut names = HashSet::new();
        let mut addresses = HashSet::new();
        for listener in snapshot.listeners() {
            assert!(
                names.insert(&listener.name),
                "two listeners {}",
                listener.name
            );
            assert!(
                addresses.insert(&listener.address),
                "two at {}",
                listener.address
            );
            for manager in listener.managers() {
                let there = snapshot.table(&manager.routes).is_some();
                assert!(there, "{} has no table {}", listener.name, manager.routes);
            }
        }
        let mut names = HashSet::new();
        for entry in snapshot.clusters() {
            let name = &entry.config().name;
            assert!(names.insert(name), "two clusters {name}");
        }
    }
}

impl Made {
    fn to(self) -> To {
        match self {
            Self::Cluster(at, eds, setting, tls) => {
                let name = format!("c{}", at % 5);
                let mut cluster = Cluster::new(name.as_str());
                cluster.panic_threshold = u32::from(setting % 3);
                let eds = match eds {
                    Eds::None => None,
                    Eds::Own => Some(to(&name, Source::Ads, None)),
                    Eds::Other(other) => Some(to(&format!("c{}", other % 5), Source::Ads, Some(5))),
                    Eds::Wait(other, wait) => {
                        Some(to(&format!("c{}", other % 5), Source::Ads, Some(wait)))
                    }
                    Eds::File(file) => Some(to(&name, source(file), Some(5))),
                };
                let endpoints = eds.is_none().then(|| set(&[setting]));
                cluster.tls = tls.as_ref().map(|tls| Arc::new(tls.client()));
                let resource = ClusterResource {
                    cluster,
                    endpoints,
                    eds,
                    secrets: tls.iter().flat_map(Tls::given).collect(),
                };
                To::Is(Resource::Cluster(Box::new(resource)))
            }
            Self::Endpoints(at, ports) => To::Is(Resource::Endpoints(EndpointsResource {
                name: format!("c{}", at % 5).into(),
                endpoints: set(&ports),
            })),
            Self::Table(at, strict, clusters) => {
                let mut table = table(at, &clusters);
                table.validate_clusters = strict;
                To::Is(Resource::Routes(Box::new(table)))
            }
            Self::Listener(at, port, routes, tls) => {
                let name = format!("l{}", at % 4);
                let routes = match routes {
                    Routes::Named(table, wait) => {
                        RouteSource::Named(to(&format!("t{}", table % 4), Source::Ads, wait))
                    }
                    Routes::File(table) => {
                        RouteSource::Named(to(&format!("t{}", table % 4), source(0), Some(5)))
                    }
                    Routes::Inline(at, clusters) => {
                        RouteSource::Inline(Box::new(table(at, &clusters)))
                    }
                };
                let called = match &routes {
                    RouteSource::Inline(table) => table.name.clone(),
                    RouteSource::Named(reference) => reference.name.clone(),
                };
                let address = ([127, 0, 0, 1], 1 + u16::from(port % 4)).into();
                let manager = HttpManager::new(name.as_str(), called);
                let mut listener = Listener::http(name.as_str(), address, manager);
                listener.for_each_chain(|chain| {
                    chain.tls = tls.as_ref().map(|tls| Arc::new(tls.server()));
                });
                To::Is(Resource::Listener(Box::new(ListenerResource {
                    listener,
                    routes: vec![routes],
                    secrets: tls.iter().flat_map(Tls::given).collect(),
                })))
            }
            Self::Secret(at, value) => To::Is(Resource::Secret(SecretResource {
                name: secret_name(at),
                value: match value {
                    Value::Certificate(version) => SecretValue::Given(certificate(version)),
                    Value::Roots(version) => SecretValue::Given(Secret::roots([version]).into()),
                    Value::At(file) => SecretValue::At(file_name(file)),
                },
            })),
            Self::Gone(kind, at) => {
                let kind = TypeUrl::ALL[usize::from(kind) % TypeUrl::ALL.len()];
                let first = match kind {
                    TypeUrl::Secret => 's',
                    TypeUrl::Cluster | TypeUrl::Endpoints => 'c',
                    TypeUrl::Listener => 'l',
                    _ => 't',
                };
                To::Gone(kind, format!("{first}{}", at % 5).into())
            }
        }
    }
}

// === impl Tls ===

impl Tls {
    fn certificates(&self) -> Vec<SecretRef> {
        vec![named(&self.certificate)]
    }

    fn validation(&self) -> Option<Validation> {
        self.roots.as_ref().map(|roots| {
            let mut validation = Validation::default();
            validation.roots = Some(named(roots));
            validation
        })
    }

    fn client(&self) -> ClientTls {
        let mut tls = ClientTls::default();
        tls.certificates = self.certificates();
        tls.validation = self.validation();
        tls
    }

    fn server(&self) -> ServerTls {
        let mut tls = ServerTls::default();
        tls.certificates = self.certificates();
        tls.validation = self.validation();
        tls
    }

    fn given(&self) -> Option<(SecretRef, Arc<Secret>)> {
        let (at, version) = self.given?;
        Some((SecretRef::local(secret_name(at)), certificate(version)))
    }
}

/// Who else provides secrets.
const SERVICE: &str = "sds-grpc";

fn named((at, provider): &(u8, Provider)) -> SecretRef {
    let wait = |seconds: &u8| Duration::from_secs((*seconds).into());
    let source = match provider {
        Provider::Local => SecretSource::Local,
        Provider::InFile => return SecretRef::local(file_name(*at)),
        Provider::Ads(seconds) => SecretSource::ControlPlane {
            initial_fetch_timeout: wait(seconds),
        },
        Provider::Service(seconds) => SecretSource::Service {
            cluster: SERVICE.into(),
            delta: false,
            opening: Default::default(),
            initial_fetch_timeout: wait(seconds),
        },
        Provider::File => SecretSource::File {
            path: "/f0".into(),
            watched: Name::default(),
        },
    };
    let name = secret_name(*at);
    SecretRef { name, source }
}

fn secret_name(at: u8) -> Name {
    format!("s{}", at % 5).into()
}

fn file_name(at: u8) -> Name {
    format!("file-root:/r{}", at % 2).into()
}

fn certificate(version: u8) -> Arc<Secret> {
    Secret::certificate([version], [version]).into()
}

fn source(at: u8) -> Source {
    Source::Path(format!("/f{}", at % 2).into())
}

fn to(name: &str, from: Source, wait: Option<u8>) -> Reference {
    Reference {
        watched_directory: None,
        name: name.into(),
        from,
        initial_fetch_timeout: wait.map(|seconds| Duration::from_secs(seconds.into())),
    }
}

fn set(ports: &[u8]) -> EndpointSet {
    let address = |port: &u8| Address::Socket(([127, 0, 0, 1], 1 + u16::from(*port)).into());
    EndpointSet::of(ports.iter().take(4).map(address))
}

fn table(at: u8, clusters: &[u8]) -> RouteTable {
    let clusters = clusters.iter().take(4).map(|to| format!("c{}", to % 6));
    let host = clusters.fold(VirtualHost::new("all", ["*"]), |host, to| {
        host.rule(Rule::prefix_to("/", to))
    });
    RouteTable::new(format!("t{}", at % 4)).host(host)
}

fn key_of(resource: &Resource) -> (TypeUrl, Name) {
    match resource {
        Resource::Cluster(all) => (TypeUrl::Cluster, all.cluster.name.clone()),
        Resource::Endpoints(all) => (TypeUrl::Endpoints, all.name.clone()),
        Resource::Listener(all) => (TypeUrl::Listener, all.listener.name.clone()),
        Resource::Routes(table) => (TypeUrl::Routes, table.name.clone()),
        Resource::Secret(secret) => (TypeUrl::Secret, secret.name.clone()),
        other => unreachable!("{other:?} is not made"),
    }
}
