//! Secrets: who waits for them, and what becomes of them.

use crate::support::{World, cluster, listener, routes, table};
use mesh_core::model::{
    ClientTls, FilterChain, HttpManager, Listener, Secret, SecretName, SecretRef, SecretSource,
    ServerTls, Snapshot, StreamOpening, Validation,
};
use mesh_xds::TypeUrl;
use mesh_xds::assemble::{Interest, Step, To};
use mesh_xds::read::{
    ListenerResource, Resource, RouteSource, SecretResource, SecretValue, Source,
};
use std::sync::Arc;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(10);

fn by_ads(name: &str, wait: Duration) -> SecretRef {
    SecretRef {
        name: name.into(),
        source: SecretSource::ControlPlane {
            initial_fetch_timeout: wait,
        },
    }
}

fn by_service(name: &str) -> SecretRef {
    SecretRef {
        name: name.into(),
        source: SecretSource::Service {
            cluster: "sds-grpc".into(),
            delta: false,
            opening: StreamOpening::default(),
            initial_fetch_timeout: Duration::ZERO,
        },
    }
}

/// A listener with routes of its own that shows this certificate.
fn secured(name: &str, port: u16, certificate: &SecretRef) -> ListenerResource {
    let mut tls = ServerTls::default();
    tls.certificates = vec![certificate.clone()];
    let mut chain = FilterChain::http(HttpManager::new(name, "t"));
    chain.tls = Some(Arc::new(tls));
    ListenerResource {
        listener: Listener::new(name, ([127, 0, 0, 1], port).into()).chain(chain),
        routes: vec![RouteSource::Inline(Box::new(table("t", &[])))],
        secrets: Vec::new(),
    }
}

fn server(name: &str, port: u16, certificate: &SecretRef) -> Resource {
    Resource::Listener(Box::new(secured(name, port, certificate)))
}

fn client(name: &str, roots: &SecretRef) -> Resource {
    let Resource::Cluster(mut resource) = cluster(name) else {
        unreachable!()
    };
    let mut tls = ClientTls::default();
    let mut validation = Validation::default();
    validation.roots = Some(roots.clone());
    tls.validation = Some(validation);
    resource.cluster.tls = Some(Arc::new(tls));
    Resource::Cluster(resource)
}

fn is(name: &str, value: SecretValue) -> Resource {
    Resource::Secret(SecretResource {
        name: name.into(),
        value,
    })
}

fn roots(text: &str) -> SecretValue {
    SecretValue::Given(Arc::new(Secret::roots(text)))
}

fn live(snapshot: &Snapshot, named: &SecretRef) -> Option<Arc<Secret>> {
    (*snapshot.secret(named).unwrap().value().load()).clone()
}

fn starts(step: &Step) -> Vec<(TypeUrl, &str)> {
    let starts = step.interests.iter().filter_map(|interest| match interest {
        Interest::Start(kind, to) => Some((*kind, to.name.as_str())),
        Interest::Stop(..) => None,
    });
    starts.collect()
}

#[test]
fn a_listener_waits_for_its_secret_and_holds_nobody_else_back() {
    let mut world = World::new();
    let named = by_ads("cert", Duration::ZERO);
    let step = world.set([
        server("waits", 80, &named),
        listener("other", 81, "r"),
        routes("r", &[]),
    ]);
    assert!(starts(&step).contains(&(TypeUrl::Secret, "cert")));
    let snapshot = step.snapshot.unwrap();
    let names: Vec<_> = snapshot.listeners().iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["other"]);

    let step = world.set([is("cert", roots("one"))]);
    let snapshot = step.snapshot.unwrap();
    assert_eq!(snapshot.listeners().len(), 2);
    assert_eq!(
        live(&snapshot, &named),
        Some(Arc::new(Secret::roots("one")))
    );
}

#[test]
fn a_secret_that_does_not_come_in_time_is_gone_on_without() {
    let mut world = World::new();
    let (server_cert, client_roots) = (by_ads("cert", WAIT), by_ads("roots", WAIT));
    world.set([server("l", 80, &server_cert), client("c", &client_roots)]);
    assert!(world.listeners().is_empty() && !world.has_cluster("c"));
    let step = world.sleep(WAIT);
    let snapshot = step.snapshot.unwrap();
    assert_eq!(
        (snapshot.listeners().len(), snapshot.clusters().len()),
        (1, 1)
    );
    assert_eq!(live(&snapshot, &server_cert), None);
    assert_eq!(step.warnings.len(), 2, "{:?}", step.warnings);

    // It is used as soon as it comes, without a new snapshot.
    let step = world.set([is("roots", roots("late"))]);
    assert!(step.snapshot.is_none());
    assert_eq!(
        live(&snapshot, &client_roots),
        Some(Arc::new(Secret::roots("late")))
    );
}

#[test]
fn a_secret_that_changes_or_goes_changes_nothing_else() {
    let mut world = World::new();
    let named = by_ads("cert", Duration::ZERO);
    world.set([server("l", 80, &named), is("cert", roots("one"))]);
    let snapshot = world.assemble.snapshot().clone();
    let step = world.set([is("cert", roots("two"))]);
    assert!(step.snapshot.is_none());
    assert_eq!(
        live(&snapshot, &named),
        Some(Arc::new(Secret::roots("two")))
    );
    let step = world.remove(TypeUrl::Secret, "cert");
    assert!(step.snapshot.is_none());
    assert_eq!(live(&snapshot, &named), None);
    assert_eq!(world.assemble.snapshot().listeners().len(), 1);
}

#[test]
fn one_that_is_known_not_to_exist_is_not_waited_for() {
    let mut world = World::new();
    let named = by_ads("cert", Duration::ZERO);
    world.set([server("l", 80, &named)]);
    assert!(world.listeners().is_empty());
    let step = world.remove(TypeUrl::Secret, "cert");
    assert_eq!(step.snapshot.unwrap().listeners().len(), 1);
}

#[test]
fn a_secret_is_asked_for_once_and_as_long_as_anybody_needs_it() {
    let mut world = World::new();
    let named = by_ads("shared", Duration::ZERO);
    // A cluster and a listener of one name, and two waits for one secret.
    let other = by_ads("shared", WAIT);
    let step = world.set([client("x", &named), server("x", 80, &other)]);
    assert_eq!(starts(&step), [(TypeUrl::Secret, "shared")]);
    world.set([is("shared", roots("one"))]);
    let snapshot = world.assemble.snapshot().clone();
    for named in [&named, &other] {
        assert_eq!(live(&snapshot, named), Some(Arc::new(Secret::roots("one"))));
    }
    let step = world.remove(TypeUrl::Cluster, "x");
    assert!(step.interests.is_empty(), "{:?}", step.interests);
    let step = world.remove(TypeUrl::Listener, "x");
    let stop = Interest::Stop(TypeUrl::Secret, Source::Ads, "shared".into());
    assert!(step.interests.contains(&stop), "{:?}", step.interests);
    // Somebody new waits again.
    assert!(world.set([client("y", &named)]).snapshot.is_none());
}

#[test]
fn the_same_name_from_two_places_is_two_secrets() {
    let mut world = World::new();
    let (ads, service) = (by_ads("a", Duration::ZERO), by_service("a"));
    let step = world.set([client("ads", &ads), client("service", &service)]);
    let from = Source::Service {
        cluster: "sds-grpc".into(),
        delta: false,
        opening: StreamOpening::default(),
    };
    let asked = |interest: &Interest| matches!(interest, Interest::Start(_, to) if to.from == from);
    assert!(step.interests.iter().any(asked));
    let step = world.set([is("a", roots("of ads"))]);
    assert_eq!(step.snapshot.unwrap().clusters().len(), 1);
    let step = world.apply_from(from, [To::Is(is("a", roots("of the service")))]);
    let snapshot = step.snapshot.unwrap();
    assert_eq!(
        live(&snapshot, &ads),
        Some(Arc::new(Secret::roots("of ads")))
    );
    assert_eq!(
        live(&snapshot, &service),
        Some(Arc::new(Secret::roots("of the service")))
    );
}

#[test]
fn who_waited_in_vain_does_not_show_what_the_stream_begins_with() {
    let mut world = World::new();
    let key = http::HeaderName::from_static("x-key");
    let of = |value| {
        let mut named = by_service("a");
        if let SecretSource::Service {
            opening,
            initial_fetch_timeout,
            ..
        } = &mut named.source
        {
            opening.metadata = [(key.clone(), http::HeaderValue::from_static(value))].into();
            *initial_fetch_timeout = WAIT;
        }
        named
    };
    let (one, two) = (of("hush-1"), of("hush-2"));
    let step = world.set([client("c", &one), client("d", &two)]);
    let asked = step.interests.iter().filter_map(|interest| match interest {
        Interest::Start(TypeUrl::Secret, to) => Some(&to.from),
        _ => None,
    });
    let asked: Vec<_> = asked.collect();
    assert!(asked.len() == 2 && asked[0] != asked[1], "{asked:?}");
    let step = world.sleep(WAIT);
    assert_eq!(step.warnings.len(), 2);
    for warning in &step.warnings {
        let expected = "did not get its secret \"a (from service sds-grpc)\" in time";
        assert!(warning.message.contains(expected), "{warning}");
    }
    assert_eq!(step.snapshot.unwrap().clusters().len(), 2);
}

#[test]
fn a_secret_in_files_is_called_so_by_who_needs_it() {
    let mut world = World::new();
    let named = by_ads("cert", Duration::ZERO);
    let file = |path: &str| SecretName::RootFile(path).to_name();
    world.set([client("c", &named), is("cert", SecretValue::At(file("/a")))]);
    let roots_of = |snapshot: &Snapshot| {
        let tls = snapshot.cluster("c").unwrap().config().tls.clone().unwrap();
        tls.validation.clone().unwrap().roots.unwrap()
    };
    let snapshot = world.assemble.snapshot().clone();
    assert_eq!(roots_of(&snapshot), SecretRef::local(file("/a")));
    // What does not change stays the very same.
    world.set([cluster("other")]);
    let config = |snapshot: &Snapshot| snapshot.cluster("c").unwrap().config().clone();
    assert!(Arc::ptr_eq(
        &config(&snapshot),
        &config(world.assemble.snapshot())
    ));
    world.set([is("cert", SecretValue::At(file("/b")))]);
    assert_eq!(
        roots_of(world.assemble.snapshot()),
        SecretRef::local(file("/b"))
    );
    world.set([is("cert", roots("in place"))]);
    let snapshot = world.assemble.snapshot();
    assert_eq!(roots_of(snapshot), named);
    assert_eq!(
        live(snapshot, &named),
        Some(Arc::new(Secret::roots("in place")))
    );
}

#[test]
fn what_comes_with_a_resource_or_the_bootstrap_is_there_at_once() {
    let mut world = World::new();
    let fixed = SecretRef::local("static");
    let now = world.now;
    world.assemble.fix([is("static", roots("fixed"))], now);
    let given = SecretRef::local("inline:1");
    let mut resource = secured("l", 80, &given);
    resource.secrets = vec![(given.clone(), Arc::new(Secret::certificate("chain", "key")))];
    let mut changed = resource.clone();
    let all = [Resource::Listener(Box::new(resource)), client("c", &fixed)];
    let snapshot = world.set(all).snapshot.unwrap();
    assert_eq!(
        live(&snapshot, &fixed),
        Some(Arc::new(Secret::roots("fixed")))
    );
    let key = |key: &str| Arc::new(Secret::certificate("chain", key));
    assert_eq!(live(&snapshot, &given), Some(key("key")));
    // Another key under the name of the same chain.
    changed.secrets[0].1 = key("other");
    world.set([Resource::Listener(Box::new(changed))]);
    assert_eq!(live(&snapshot, &given), Some(key("other")));
}

#[test]
fn a_static_secret_that_does_not_exist_refuses_who_names_it() {
    let mut world = World::new();
    let unknown = SecretRef::local("unknown");
    let step = world.set([client("c", &unknown), server("l", 80, &unknown)]);
    assert!(step.snapshot.is_none());
    for verdict in &step.verdicts {
        let error = verdict.result.as_ref().unwrap_err().to_string();
        assert_eq!(
            error,
            "transport_socket: no static secret is called \"unknown\""
        );
    }
    assert_eq!(step.verdicts.len(), 2);
    // A name that says where it lies needs nobody.
    let file = SecretRef::local(SecretName::SystemRoots.to_name());
    assert!(world.set([client("c", &file)]).snapshot.is_some());
}

#[test]
fn the_old_version_serves_while_the_new_one_waits() {
    let mut world = World::new();
    world.set([cluster("c")]);
    let named = by_ads("roots", Duration::ZERO);
    let step = world.set([client("c", &named)]);
    assert!(step.snapshot.is_none());
    let tls = |world: &World| {
        let snapshot = world.assemble.snapshot();
        snapshot.cluster("c").unwrap().config().tls.is_some()
    };
    assert!(!tls(&world));
    world.set([is("roots", roots("one"))]);
    assert!(tls(&world));
}

#[test]
fn a_listener_has_a_table_for_each_of_its_managers() {
    let mut world = World::new();
    let chain = |routes: &str, name: &str| {
        let mut chain = FilterChain::http(HttpManager::new("s", routes));
        chain.matches.server_names = vec![name.into()];
        chain
    };
    let listener = Listener::new("l", ([127, 0, 0, 1], 80).into())
        .chain(chain("a", "a.example"))
        .chain(chain("b", "b.example"))
        .chain(chain("b", "c.example"))
        .chain(chain("b", "d.example"));
    let inline = |to: &str| RouteSource::Inline(Box::new(table("b", &[to])));
    let resource = ListenerResource {
        listener,
        routes: vec![
            RouteSource::Named(crate::support::ads("a", None)),
            inline("x"),
            inline("y"),
            inline("x"),
        ],
        secrets: Vec::new(),
    };
    let all = Resource::Listener(Box::new(resource));
    let step = world.set([cluster("x"), cluster("y"), all]);
    let of_listener = |step: &Step| {
        let verdicts = step.verdicts.iter();
        verdicts
            .filter(|verdict| verdict.kind == TypeUrl::Listener)
            .count()
    };
    assert_eq!(of_listener(&step), 1, "{:?}", step.verdicts);
    assert!(
        step.snapshot
            .is_none_or(|snapshot| snapshot.listeners().is_empty())
    );
    let step = world.set([routes("a", &["x"])]);
    let snapshot = step.snapshot.unwrap();
    let managers = snapshot.listeners()[0].managers();
    let tables: Vec<_> = managers.map(|manager| manager.routes.as_str()).collect();
    assert_eq!(
        tables,
        [
            "a",
            "b (inline in l)",
            "b 2 (inline in l)",
            "b (inline in l)"
        ]
    );
    assert!(tables.iter().all(|table| snapshot.table(table).is_some()));
}

#[test]
fn one_bad_table_of_several_refuses_the_listener_once() {
    let mut world = World::new();
    let chain = |routes: &str, name: &str| {
        let mut chain = FilterChain::http(HttpManager::new("s", routes));
        chain.matches.server_names = vec![name.into()];
        chain
    };
    let mut bad = table("b", &["nobody"]);
    bad.validate_clusters = true;
    let resource = ListenerResource {
        listener: Listener::new("l", ([127, 0, 0, 1], 80).into())
            .chain(chain("a", "a.example"))
            .chain(chain("b", "b.example")),
        routes: vec![
            RouteSource::Inline(Box::new(table("a", &[]))),
            RouteSource::Inline(Box::new(bad)),
        ],
        secrets: Vec::new(),
    };
    let step = world.set([Resource::Listener(Box::new(resource))]);
    let [verdict] = step.verdicts.as_slice() else {
        panic!("{:?}", step.verdicts)
    };
    assert!(
        verdict
            .result
            .as_ref()
            .unwrap_err()
            .to_string()
            .contains("nobody")
    );
    assert!(
        step.snapshot
            .is_none_or(|snapshot| snapshot.listeners().is_empty())
    );
}

#[test]
fn a_listener_for_bytes_waits_for_no_table() {
    use mesh_core::model::TcpProxy;
    let mut world = World::new();
    let listener = Listener::tcp("l", ([127, 0, 0, 1], 80).into(), TcpProxy::to("s", "c"));
    let resource = ListenerResource {
        listener,
        routes: Vec::new(),
        secrets: Vec::new(),
    };
    let step = world.set([Resource::Listener(Box::new(resource))]);
    assert_eq!(step.snapshot.unwrap().listeners().len(), 1);
}
