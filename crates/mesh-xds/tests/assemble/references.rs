//! What refers to what, what is asked for, and what is refused.

use super::support::*;
use mesh_core::model::{Cluster, RouteTable, VirtualHost};
use mesh_xds::TypeUrl;
use mesh_xds::assemble::{Change, Interest, Options, To};
use mesh_xds::read::{Reference, Resource, RouteSource, Source};

fn starts(interests: &[Interest]) -> Vec<(TypeUrl, &str)> {
    let starts = interests.iter().filter_map(|interest| match interest {
        Interest::Start(kind, to) => Some((*kind, to.name.as_str())),
        Interest::Stop(..) => None,
    });
    starts.collect()
}

fn stops(interests: &[Interest]) -> Vec<(TypeUrl, &str)> {
    let stops = interests.iter().filter_map(|interest| match interest {
        Interest::Stop(kind, _, name) => Some((*kind, name.as_str())),
        Interest::Start(..) => None,
    });
    stops.collect()
}

#[test]
fn only_what_is_referred_to_is_asked_for_and_only_as_long() {
    let mut world = World::new();
    let step = world.set([eds_cluster("a"), cluster("b"), listener("l", 80, "t")]);
    assert_eq!(
        starts(&step.interests),
        [(TypeUrl::Endpoints, "a"), (TypeUrl::Routes, "t")]
    );
    // Asked for once, however many refer to it.
    let step = world.set([listener("m", 81, "t")]);
    assert_eq!(step.interests, []);
    assert_eq!(world.remove(TypeUrl::Listener, "l").interests, []);
    let step = world.remove(TypeUrl::Listener, "m");
    assert_eq!(stops(&step.interests), [(TypeUrl::Routes, "t")]);
    let step = world.remove(TypeUrl::Cluster, "a");
    assert_eq!(stops(&step.interests), [(TypeUrl::Endpoints, "a")]);
    // Who comes back has to be asked for again, and waits again.
    let step = world.set([eds_cluster("a")]);
    assert_eq!(starts(&step.interests), [(TypeUrl::Endpoints, "a")]);
    assert!(!world.has_cluster("a"));
}

#[test]
fn what_is_let_go_and_taken_up_in_one_step_is_not_forgotten() {
    let mut world = World::new();
    world.set([cluster("a"), listener("l", 80, "t"), routes("t", &["a"])]);
    let step = world.apply([
        To::Gone(TypeUrl::Listener, "l".into()),
        To::Is(listener("m", 80, "t")),
    ]);
    assert_eq!(step.interests, []);
    assert_eq!(world.listeners(), [("m".to_owned(), 80)]);
    assert_eq!(world.routes("t").unwrap(), ["a"]);
}

#[test]
fn endpoints_change_without_a_new_snapshot() {
    let mut world = World::new();
    world.set([eds_cluster("a"), endpoints("a", &[1])]);
    let live = world.snapshot().cluster("a").unwrap().live().clone();
    let feed = live.endpoints();
    let before = feed.version();
    let step = world.set([endpoints("a", &[2, 3])]);
    assert!(step.snapshot.is_none());
    assert_eq!(accepted(&step), ["a"]);
    assert_eq!((feed.load().len(), feed.version()), (2, before + 1));
    // The same again is no news.
    world.set([endpoints("a", &[2, 3])]);
    assert_eq!(feed.version(), before + 1);
}

#[test]
fn clusters_that_share_endpoints_all_get_them() {
    let mut world = World::new();
    let Resource::Cluster(mut b) = eds_cluster("b") else {
        unreachable!()
    };
    b.eds = Some(ads("a", Some(WAIT)));
    world.set([eds_cluster("a"), Resource::Cluster(b)]);
    world.set([endpoints("a", &[1])]);
    world.set([endpoints("a", &[2])]);
    assert_eq!((world.ports("a"), world.ports("b")), (vec![2], vec![2]));
    world.remove(TypeUrl::Cluster, "a");
    world.set([endpoints("a", &[3])]);
    assert_eq!(world.ports("b"), [3]);
}

#[test]
fn a_removed_cluster_leaves_with_the_next_snapshot_and_is_warned_of() {
    let mut world = World::new();
    world.set([cluster("a"), listener("l", 80, "t"), routes("t", &["a"])]);
    let step = world.remove(TypeUrl::Cluster, "a");
    assert!(step.snapshot.is_some() && !world.has_cluster("a"));
    assert!(step.warnings[0].message.contains("503 NC"));
    // Said once.
    let step = world.set([listener("m", 81, "t")]);
    assert_eq!(step.warnings.len(), 0);
}

#[test]
fn a_table_that_validates_its_clusters_is_refused_with_an_unknown_one() {
    let mut world = World::new();
    let strict = |to: &[&str]| {
        let mut table = table("t", to);
        table.validate_clusters = true;
        Resource::Routes(Box::new(table))
    };
    world.set([cluster("a"), listener("l", 80, "t"), strict(&["a"])]);
    let step = world.set([strict(&["a", "gone"])]);
    assert!(refused(&step)[0].1.contains("\"gone\""), "{step:?}");
    assert_eq!(world.routes("t").unwrap(), ["a"], "the last good one stays");
    // A cluster that leaves later takes nothing with it.
    world.remove(TypeUrl::Cluster, "a");
    assert_eq!(world.routes("t").unwrap(), ["a"]);
    // With its table an inline listener is refused, and nothing of it stays.
    let mut table = table("x", &["gone"]);
    table.validate_clusters = true;
    let step = world.set([listener_with("m", 90, RouteSource::Inline(Box::new(table)))]);
    assert_eq!(refused(&step)[0].0, "m");
    let step = world.set([listener("n", 90, "t")]);
    assert_eq!(refused(&step), []);
}

#[test]
fn a_domain_in_two_virtual_hosts_refuses_the_table_alone() {
    let mut world = World::new();
    world.set([cluster("a"), listener("l", 80, "t"), routes("t", &["a"])]);
    let twice = table("t", &["a"]).host(VirtualHost::new("other", ["*"]));
    let step = world.set([Resource::Routes(Box::new(twice)), cluster("b")]);
    assert!(refused(&step)[0].1.contains("virtual_hosts[other].domains"));
    assert!(world.has_cluster("b"));
    assert_eq!(world.routes("t").unwrap(), ["a"]);
}

#[test]
fn names_that_are_made_up_here_cannot_be_sent() {
    let mut world = World::new();
    let inline = RouteSource::Inline(Box::new(table("t", &[])));
    world.set([listener_with("l", 80, inline)]);
    let step = world.set([routes("t (inline in l)", &["evil"])]);
    assert_eq!(refused(&step).len(), 1);
    assert_eq!(world.routes("t (inline in l)").unwrap(), Vec::<&str>::new());
}

#[test]
fn static_resources_win_and_are_never_removed() {
    let mut world = World::new();
    let now = world.now;
    let step = world.assemble.fix(
        [cluster("s"), listener("l", 80, "t"), routes("t", &["s"])],
        now,
    );
    assert!(step.snapshot.is_some());
    assert_eq!(step.interests, [], "the table is there");
    let mut changed = Cluster::new("s");
    changed.panic_threshold = 1;
    let step = world.set([
        eds_cluster_with(changed, None),
        listener("l", 81, "t"),
        routes("t", &["other"]),
    ]);
    assert_eq!(refused(&step), []);
    assert_eq!(step.warnings.len(), 3);
    for (kind, name) in [
        (TypeUrl::Cluster, "s"),
        (TypeUrl::Listener, "l"),
        (TypeUrl::Routes, "t"),
    ] {
        world.remove(kind, name);
    }
    world.set([
        cluster("b"),
        listener("m", 82, "u"),
        routes("u", &["b", "s"]),
    ]);
    assert_eq!(world.ports("s"), [1]);
    assert_eq!(world.listeners().len(), 2);
    assert_eq!(world.listeners()[0].1, 80);
    assert_eq!(world.routes("t").unwrap(), ["s"]);
}

#[test]
fn resources_from_files_are_reported_and_kept_apart_from_others() {
    let mut world = World::new();
    let file = |name: &str| Reference {
        name: name.into(),
        from: Source::Path("/etc/rds.yaml".into()),
        initial_fetch_timeout: Some(WAIT),
        watched_directory: None,
    };
    let step = world.set([
        listener_with("l", 80, RouteSource::Named(file("t"))),
        listener("m", 81, "t"),
    ]);
    let wanted: Vec<&Interest> = step.interests.iter().collect();
    assert!(wanted.contains(&&Interest::Start(TypeUrl::Routes, file("t"))));
    assert!(wanted.contains(&&Interest::Start(TypeUrl::Routes, ads("t", Some(WAIT)))));
    world.set([cluster("a"), cluster("b"), routes("t", &["a"])]);
    assert_eq!(world.listeners(), [("m".to_owned(), 81)]);
    let change = Change {
        from: Source::Path("/etc/rds.yaml".into()),
        ticket: 9,
        to: To::Is(routes("t", &["b"])),
    };
    let step = world.assemble.apply(vec![change], world.now);
    assert_eq!(accepted(&step), ["t"]);
    assert_eq!(world.listeners().len(), 2);
    assert_eq!(world.routes("t").unwrap(), ["a"]);
    assert_eq!(world.routes("t (from /etc/rds.yaml)").unwrap(), ["b"]);
    let step = world.remove(TypeUrl::Listener, "l");
    let stop = Interest::Stop(
        TypeUrl::Routes,
        Source::Path("/etc/rds.yaml".into()),
        "t".into(),
    );
    assert_eq!(step.interests, [stop]);
}

#[test]
fn a_file_that_is_to_be_watched_elsewhere_is_reported_again() {
    let mut world = World::new();
    let file = |directory: &str| {
        let mut file = ads("t", Some(WAIT));
        file.from = Source::Path("/etc/x/current/rds.yaml".into());
        file.watched_directory = Some(directory.into());
        file
    };
    let named = |directory: &str| listener_with("l", 80, RouteSource::Named(file(directory)));
    let start = |directory: &str| Interest::Start(TypeUrl::Routes, file(directory));
    assert_eq!(world.set([named("/etc/x")]).interests, [start("/etc/x")]);
    assert_eq!(world.set([named("/etc")]).interests, [start("/etc")]);
    assert_eq!(world.set([named("/etc")]).interests, []);
}

#[test]
fn a_configuration_that_does_not_fit_together_leaves_the_last_one_in_force() {
    let mut options = Options::default();
    options.configure = Some(Box::new(|builder| {
        builder.cluster(Cluster::new("extra"));
        builder.routes(RouteTable::new("t"));
    }));
    let mut world = World::with(options);
    assert!(world.set([cluster("a")]).snapshot.is_some());
    assert!(world.has_cluster("extra"), "the hook added it");
    let step = world.set([listener("l", 80, "t"), routes("t", &["a"])]);
    assert!(step.snapshot.is_none());
    assert_eq!(refused(&step).len(), 2);
    assert_eq!(world.listeners(), []);
    // It comes right as soon as it fits.
    let step = world.remove(TypeUrl::Listener, "l");
    assert!(step.snapshot.is_some());
}

#[test]
fn every_resource_gets_exactly_one_verdict() {
    let mut world = World::new();
    let mut verdicts = 0;
    let mut count = |step: mesh_xds::assemble::Step| verdicts += step.verdicts.len();
    count(world.set([
        eds_cluster("a"),
        listener("l", 80, "t"),
        routes("t", &["a"]),
    ]));
    count(world.set([routes("t", &["a", "b"]), listener("l", 80, "t")]));
    count(world.remove(TypeUrl::Listener, "l"));
    count(world.set([endpoints("a", &[1])]));
    assert_eq!(verdicts, 6);
}
