//! Virtual hosts that come on demand join their table.

use crate::support::*;
use mesh_core::model::{HostsOnDemand, RouteTable, Rule, VirtualHost};
use mesh_xds::TypeUrl;
use mesh_xds::assemble::{Interest, Step};
use mesh_xds::read::{Resource, RouteSource, VirtualHostResource};
use std::sync::Arc;

const VHDS: TypeUrl = TypeUrl::VirtualHost;

/// A table with a virtual host of its own for `own`.
fn asking(name: &str) -> RouteTable {
    let own = VirtualHost::new("own", ["own"]).rule(Rule::prefix_to("/", "a"));
    let mut table = RouteTable::new(name).host(own);
    table.on_demand = Some(HostsOnDemand {
        table: name.into(),
        wait: None,
    });
    table
}

fn host(name: &str, domain: &str, cluster: &str) -> Resource {
    host_instead(&[], name, domain, cluster)
}

fn host_instead(instead_of: &[&str], name: &str, domain: &str, cluster: &str) -> Resource {
    let host = VirtualHost::new("any", [domain]).rule(Rule::prefix_to("/", cluster));
    Resource::VirtualHost(Box::new(VirtualHostResource {
        name: name.into(),
        host,
        instead_of: instead_of.iter().map(|&name| name.into()).collect(),
    }))
}

/// A world in which a listener has table `t`, and cluster `a` is in force.
fn world() -> (World, Step) {
    let mut world = World::new();
    world.set([cluster("a")]);
    let step = world.set([
        listener("in", 80, "t"),
        Resource::Routes(Box::new(asking("t"))),
    ]);
    (world, step)
}

fn domains(world: &World, table: &str) -> Vec<String> {
    let table = world.snapshot().table(table).unwrap();
    let domains = table.virtual_hosts.iter().flat_map(|host| &host.domains);
    domains.map(ToString::to_string).collect()
}

#[test]
fn a_table_with_hosts_on_demand_is_followed_until_it_goes() {
    let (mut world, step) = world();
    let follows =
        |interest: &Interest| matches!(interest, Interest::Start(VHDS, to) if to.name == "t");
    assert!(step.interests.iter().any(follows), "{:?}", step.interests);
    let step = world.remove(TypeUrl::Listener, "in");
    let stops =
        |interest: &Interest| matches!(interest, Interest::Stop(VHDS, _, name) if name == "t");
    assert!(step.interests.iter().any(stops), "{:?}", step.interests);
}

#[test]
fn a_host_joins_its_table_and_nothing_else_is_made_anew() {
    let (mut world, _) = world();
    let before = world.snapshot().table("t").unwrap().virtual_hosts[0].clone();
    let step = world.set([host("t/one", "one", "a")]);
    assert_eq!(accepted(&step), ["t/one"]);
    assert_eq!(domains(&world, "t"), ["own", "one"]);
    let after = &world.snapshot().table("t").unwrap().virtual_hosts[0];
    assert!(Arc::ptr_eq(&before, after));
    world.remove(VHDS, "t/one");
    assert_eq!(domains(&world, "t"), ["own"]);
}

#[test]
fn a_new_version_of_the_table_keeps_the_hosts_that_came() {
    let (mut world, _) = world();
    world.set([host("t/one", "one", "a")]);
    let mut table = asking("t");
    table.ignore_port = true;
    world.set([Resource::Routes(Box::new(table))]);
    assert_eq!(domains(&world, "t"), ["own", "one"]);
    assert!(world.snapshot().table("t").unwrap().ignore_port);
    // Without the mark they go.
    let mut table = asking("t");
    table.on_demand = None;
    world.set([Resource::Routes(Box::new(table))]);
    assert_eq!(domains(&world, "t"), ["own"]);
}

#[test]
fn a_host_whose_cluster_warms_is_accepted_when_it_is_in_force() {
    let (mut world, _) = world();
    let step = world.set([eds_cluster("b"), host("t/one", "one", "b")]);
    assert_eq!(accepted(&step), ["b"]);
    assert_eq!(domains(&world, "t"), ["own"]);
    // Another one meanwhile does not make the first one seem to be there.
    let step = world.set([host("t/two", "two", "a")]);
    assert_eq!(accepted(&step), Vec::<&str>::new());
    let step = world.set([endpoints("b", &[1])]);
    let mut said = accepted(&step);
    said.sort_unstable();
    assert_eq!(said, ["b", "t/one", "t/two"]);
    assert_eq!(domains(&world, "t"), ["own", "one", "two"]);
}

#[test]
fn a_host_with_the_domain_of_another_is_refused_alone() {
    let (mut world, _) = world();
    let step = world.set([
        host("t/one", "one", "a"),
        host("t/two", "one", "a"),
        host("t/three", "three", "a"),
    ]);
    let refusals = refused(&step);
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].0, "t/two");
    assert!(refusals[0].1.starts_with("domains[0]"), "{refusals:?}");
    assert_eq!(domains(&world, "t"), ["own", "one", "three"]);
    // What comes with the table wins over what came on demand.
    world.set([host("t/four", "own", "a")]);
    assert_eq!(domains(&world, "t"), ["own", "one", "three"]);
}

#[test]
fn a_host_takes_the_place_of_another_unless_it_is_refused() {
    let mut world = World::new();
    let mut table = asking("t");
    table.validate_clusters = true;
    world.set([
        cluster("a"),
        listener("in", 80, "t"),
        Resource::Routes(Box::new(table)),
    ]);
    world.set([host("t/one", "one", "a"), host("t/other", "other", "a")]);
    // With a cluster that nobody knows, and with a domain of somebody else's.
    for bad in [("one", "gone"), ("other", "a")] {
        let step = world.set([host_instead(&["t/one"], "t/two", bad.0, bad.1)]);
        assert_eq!(refused(&step)[0].0, "t/two");
        assert_eq!(domains(&world, "t"), ["own", "one", "other"]);
    }
    let step = world.set([host_instead(&["t/one"], "t/two", "one", "a")]);
    assert_eq!(accepted(&step), ["t/two"]);
    assert_eq!(domains(&world, "t"), ["own", "other", "one"]);
    // That the other one is gone is said then, and is no news.
    assert!(world.remove(VHDS, "t/one").snapshot.is_none());
    assert_eq!(domains(&world, "t"), ["own", "other", "one"]);
}

#[test]
fn a_host_for_no_table_is_accepted_and_has_no_effect() {
    let (mut world, _) = world();
    let step = world.set([host("u/one", "one", "a"), host("none", "one", "a")]);
    assert_eq!(accepted(&step), ["u/one", "none"]);
    assert!(step.snapshot.is_none());
}

#[test]
fn a_table_that_checks_its_clusters_refuses_a_host_with_one_that_nobody_knows() {
    let mut world = World::new();
    let mut table = asking("t");
    table.validate_clusters = true;
    world.set([
        cluster("a"),
        listener("in", 80, "t"),
        Resource::Routes(Box::new(table)),
    ]);
    let step = world.set([host("t/one", "one", "gone"), host("t/two", "two", "a")]);
    assert_eq!(refused(&step)[0].0, "t/one");
    assert_eq!(domains(&world, "t"), ["own", "two"]);
}

#[test]
fn tables_that_came_with_listeners_share_the_hosts_of_their_name() {
    let mut world = World::new();
    let inline = || RouteSource::Inline(Box::new(asking("t")));
    world.set([
        cluster("a"),
        listener_with("one", 80, inline()),
        listener_with("two", 81, inline()),
    ]);
    world.set([host("t/one", "one", "a")]);
    for of in ["one", "two"] {
        assert_eq!(
            domains(&world, &format!("t (inline in {of})")),
            ["own", "one"]
        );
    }
}
