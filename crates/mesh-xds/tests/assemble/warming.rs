//! What waits, for what, and for how long.

use super::support::*;
use mesh_core::model::Cluster;
use mesh_xds::TypeUrl;
use mesh_xds::assemble::Options;
use mesh_xds::read::{Resource, RouteSource};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_cluster_comes_into_force_with_its_endpoints() {
    let mut world = World::new();
    let step = world.set([eds_cluster("a")]);
    assert!(step.snapshot.is_none(), "nothing to see yet");
    assert_eq!(accepted(&step), ["a"], "the server may go on");
    let step = world.set([endpoints("a", &[1, 2])]);
    assert!(step.snapshot.is_some());
    assert_eq!(world.ports("a"), [1, 2]);
    assert_eq!(world.assemble.deadline(), None, "nobody waits any more");
}

#[test]
fn a_cluster_goes_on_without_endpoints_when_its_time_is_up() {
    let mut world = World::new();
    world.set([eds_cluster("a")]);
    assert_eq!(world.assemble.deadline(), Some(world.now + WAIT));
    assert!(world.sleep(WAIT - SECOND).snapshot.is_none());
    let step = world.sleep(SECOND);
    assert!(step.snapshot.is_some() && step.warnings.len() == 1);
    assert!(world.ports("a").is_empty());
    // They come late: no new snapshot is needed.
    assert!(world.set([endpoints("a", &[7])]).snapshot.is_none());
    assert_eq!(world.ports("a"), [7]);
}

#[test]
fn an_initial_fetch_timeout_of_zero_waits_for_ever() {
    let mut world = World::new();
    world.set([eds_cluster_with(Cluster::new("a"), None)]);
    assert_eq!(world.assemble.deadline(), None);
    world.sleep(1000 * WAIT);
    assert!(!world.has_cluster("a"));
}

#[test]
fn a_cluster_without_endpoints_to_wait_for_is_in_force_at_once() {
    let mut world = World::new();
    assert!(world.set([cluster("a")]).snapshot.is_some());
    assert_eq!(world.ports("a"), [1]);
}

#[test]
fn an_updated_cluster_keeps_its_old_version_while_the_new_one_warms() {
    let mut world = World::new();
    world.set([eds_cluster("a"), endpoints("a", &[1])]);
    // The new version gets its endpoints elsewhere.
    let mut changed = Cluster::new("a");
    changed.panic_threshold = 7;
    let Resource::Cluster(mut resource) = eds_cluster_with(changed, Some(WAIT)) else {
        unreachable!()
    };
    resource.eds = Some(ads("elsewhere", Some(WAIT)));
    let threshold = |world: &World| {
        world
            .snapshot()
            .cluster("a")
            .unwrap()
            .config()
            .panic_threshold
    };
    assert!(world.set([Resource::Cluster(resource)]).snapshot.is_none());
    assert_eq!((threshold(&world), world.ports("a")), (50, vec![1]));
    // The old version goes on living.
    world.set([endpoints("a", &[2])]);
    assert_eq!(world.ports("a"), [2]);
    world.set([endpoints("elsewhere", &[3])]);
    assert_eq!((threshold(&world), world.ports("a")), (7, vec![3]));
}

#[test]
fn an_updated_cluster_whose_endpoints_are_known_does_not_wait() {
    let mut world = World::new();
    world.set([eds_cluster("a"), endpoints("a", &[1])]);
    let mut changed = Cluster::new("a");
    changed.panic_threshold = 7;
    let step = world.set([eds_cluster_with(changed, Some(WAIT))]);
    assert!(step.snapshot.is_some());
    assert_eq!(world.ports("a"), [1]);
}

#[test]
fn a_warming_cluster_holds_back_only_what_needs_it() {
    let mut world = World::new();
    world.set([cluster("a"), listener("l", 80, "t"), routes("t", &["a"])]);
    world.set([eds_cluster("b")]);
    let step = world.set([
        routes("t", &["b"]),
        cluster("c"),
        listener("m", 81, "u"),
        routes("u", &["c"]),
    ]);
    assert_eq!(world.routes("t").unwrap(), ["a"], "waits for b");
    assert_eq!(world.routes("u").unwrap(), ["c"]);
    assert_eq!(world.listeners().len(), 2);
    assert!(
        !accepted(&step).contains(&"t"),
        "not acknowledged before it is in force"
    );
    let step = world.set([endpoints("b", &[1])]);
    assert_eq!(world.routes("t").unwrap(), ["b"]);
    assert_eq!(accepted(&step), ["b", "t"]);
}

#[test]
fn a_table_waits_for_warming_clusters_only_so_long() {
    let mut options = Options::default();
    options.routes_wait = 3 * SECOND;
    let mut world = World::with(options);
    world.set([cluster("a"), listener("l", 80, "t"), routes("t", &["a"])]);
    world.set([
        eds_cluster_with(Cluster::new("b"), None),
        routes("t", &["b"]),
    ]);
    assert!(world.sleep(2 * SECOND).snapshot.is_none());
    let step = world.sleep(SECOND);
    assert_eq!(world.routes("t").unwrap(), ["b"]);
    assert_eq!(accepted(&step), ["t"]);
    assert!(step.warnings.iter().any(|w| w.message.contains("503 NC")));
}

#[test]
fn a_newer_table_takes_the_place_of_one_that_waits() {
    let mut world = World::new();
    world.set([cluster("a"), listener("l", 80, "t"), eds_cluster("b")]);
    world.set([routes("t", &["b"])]);
    let step = world.set([routes("t", &["a"])]);
    assert_eq!(world.routes("t").unwrap(), ["a"]);
    // Both versions got their verdict.
    assert_eq!(accepted(&step), ["t", "t"]);
    assert!(world.set([endpoints("b", &[1])]).verdicts.len() == 1);
    assert_eq!(world.routes("t").unwrap(), ["a"]);
}

#[test]
fn a_table_in_force_is_not_held_back_by_an_update_of_a_cluster_it_uses() {
    let mut world = World::new();
    world.set([eds_cluster("a"), endpoints("a", &[1])]);
    world.set([listener("l", 80, "t"), routes("t", &["a"])]);
    let Resource::Cluster(mut resource) = eds_cluster("a") else {
        unreachable!()
    };
    resource.eds = Some(ads("elsewhere", None));
    world.set([Resource::Cluster(resource)]);
    world.set([cluster("c"), routes("t", &["a", "c"])]);
    assert_eq!(world.routes("t").unwrap(), ["a", "c"]);
}

#[test]
fn routes_wait_for_the_first_answer_about_clusters() {
    let mut world = World::new();
    world.assemble.expect_clusters(world.now + WAIT);
    world.set([listener("l", 80, "t"), routes("t", &["a"])]);
    assert_eq!(world.listeners(), []);
    world.assemble.clusters_answered();
    let step = world.set([cluster("a")]);
    assert_eq!(world.listeners().len(), 1);
    assert!(step.warnings.is_empty(), "nobody saw an unknown cluster");

    let mut world = World::new();
    world.assemble.expect_clusters(world.now + SECOND);
    world.set([listener("l", 80, "t"), routes("t", &["a"])]);
    world.sleep(SECOND);
    assert_eq!(world.listeners().len(), 1, "it waits only so long");
}

#[test]
fn a_listener_waits_for_its_table_and_then_goes_on_with_an_empty_one() {
    let mut world = World::new();
    let step = world.set([listener("l", 80, "t")]);
    assert_eq!(accepted(&step), ["l"]);
    assert_eq!(world.listeners(), []);
    world.sleep(WAIT);
    assert_eq!(world.listeners().len(), 1);
    assert!(
        world
            .snapshot()
            .table("t")
            .unwrap()
            .virtual_hosts
            .is_empty()
    );
    world.set([cluster("a"), routes("t", &["a"])]);
    assert_eq!(world.routes("t").unwrap(), ["a"]);
}

#[test]
fn an_updated_listener_keeps_its_old_version_while_the_new_one_warms() {
    let mut world = World::new();
    world.set([cluster("a"), listener("l", 80, "t"), routes("t", &["a"])]);
    let step = world.set([listener("l", 81, "u")]);
    assert!(step.snapshot.is_none());
    assert_eq!(world.listeners(), [("l".to_owned(), 80)]);
    world.set([routes("u", &["a"])]);
    assert_eq!(world.listeners(), [("l".to_owned(), 81)]);
    assert!(world.snapshot().table("t").is_none(), "nobody refers to it");
}

#[test]
fn an_update_that_is_taken_back_while_it_warms_leaves_no_trace() {
    let mut world = World::new();
    world.set([cluster("a"), listener("l", 80, "t"), routes("t", &["a"])]);
    let before = world.snapshot().clone();
    world.set([listener("l", 81, "u"), eds_cluster("a")]);
    world.set([listener("l", 80, "t"), cluster("a")]);
    assert_eq!(world.snapshot().listeners(), before.listeners());
    assert_eq!(world.assemble.deadline(), None);
    // The address that the new version would have had is free.
    let step = world.set([listener("m", 81, "t")]);
    assert_eq!(refused(&step), []);
}

#[test]
fn what_does_not_exist_is_not_waited_for() {
    let mut world = World::new();
    world.set([eds_cluster("a"), listener("l", 80, "t")]);
    world.remove(TypeUrl::Endpoints, "a");
    assert!(world.ports("a").is_empty());
    world.remove(TypeUrl::Routes, "t");
    assert_eq!(world.listeners().len(), 1);
    assert_eq!(world.assemble.deadline(), None);
}

#[test]
fn what_is_removed_while_in_use_stays_until_nobody_refers_to_it() {
    let mut world = World::new();
    world.set([eds_cluster("a"), endpoints("a", &[1])]);
    world.set([listener("l", 80, "t"), routes("t", &["a"])]);
    world.remove(TypeUrl::Endpoints, "a");
    world.remove(TypeUrl::Routes, "t");
    assert_eq!(world.ports("a"), [1]);
    assert_eq!(world.routes("t").unwrap(), ["a"]);
    world.remove(TypeUrl::Listener, "l");
    assert_eq!(world.listeners(), []);
    assert_eq!(world.routes("t"), None);
}

#[test]
fn an_inline_table_comes_into_force_with_its_listener() {
    let mut world = World::new();
    let inline = |to: &str| RouteSource::Inline(Box::new(table("local", &[to])));
    let step = world.set([
        eds_cluster("a"),
        listener_with("l", 80, inline("a")),
        listener_with("m", 81, inline("b")),
    ]);
    assert_eq!(world.listeners(), [("m".to_owned(), 81)], "l waits for a");
    assert_eq!(accepted(&step), ["a", "m"]);
    let step = world.set([endpoints("a", &[1])]);
    assert_eq!(accepted(&step), ["a", "l"]);
    // Two tables of one name, each with its listener.
    assert_eq!(world.routes("local (inline in l)").unwrap(), ["a"]);
    assert_eq!(world.routes("local (inline in m)").unwrap(), ["b"]);
    // New version of the listener, new version of its table: together.
    world.set([eds_cluster("c"), listener_with("l", 82, inline("c"))]);
    assert_eq!(world.listeners()[0].1, 80);
    assert_eq!(world.routes("local (inline in l)").unwrap(), ["a"]);
    world.set([endpoints("c", &[1])]);
    assert_eq!(world.listeners()[0].1, 82);
    assert_eq!(world.routes("local (inline in l)").unwrap(), ["c"]);
}
