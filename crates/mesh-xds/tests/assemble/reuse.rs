//! What did not change is not made anew.

use super::support::*;
use mesh_core::model::{RouteTable, Rule, VirtualHost};
use mesh_xds::read::Resource;
use std::sync::Arc;

/// A table of 100 virtual hosts with 100 rules each; one rule of one host goes elsewhere.
fn large(changed: Option<usize>) -> Resource {
    let mut table = RouteTable::new("t");
    for at in 0..100 {
        let domain = format!("host-{at}.example.com");
        let mut host = VirtualHost::new(domain.as_str(), [domain.as_str()]);
        for rule in 0..100 {
            let to = if changed == Some(at) && rule == 50 {
                "b"
            } else {
                "a"
            };
            host = host.rule(Rule::prefix_to(&format!("/{rule}"), to));
        }
        table = table.host(host);
    }
    Resource::Routes(Box::new(table))
}

#[test]
fn one_changed_host_among_ten_thousand_routes_recompiles_one_host() {
    let mut world = World::new();
    world.set([
        cluster("a"),
        cluster("b"),
        listener("l", 80, "t"),
        large(None),
    ]);
    for host in &world.snapshot().table("t").unwrap().virtual_hosts {
        host.slot.get_or_init(|| "compiled");
    }
    world.set([large(Some(42))]);
    let table = world.snapshot().table("t").unwrap();
    let fresh: Vec<usize> = (0..100)
        .filter(|at| table.virtual_hosts[*at].slot.get::<&str>().is_none())
        .collect();
    assert_eq!(fresh, [42]);
}

#[test]
fn a_change_leaves_everything_else_the_very_same_thing() {
    let mut world = World::new();
    world.set([
        cluster("a"),
        cluster("b"),
        eds_cluster("c"),
        endpoints("c", &[1]),
    ]);
    world.set([listener("l", 80, "t"), routes("t", &["a"])]);
    world.set([listener("m", 81, "u"), routes("u", &["a"])]);
    let before = world.snapshot().clone();
    world.set([routes("u", &["b"])]);
    let after = world.snapshot().clone();
    assert!(Arc::ptr_eq(&before.listeners()[0], &after.listeners()[0]));
    assert!(Arc::ptr_eq(
        before.table("t").unwrap(),
        after.table("t").unwrap()
    ));
    for name in ["a", "b", "c"] {
        assert!(Arc::ptr_eq(
            before.cluster(name).unwrap(),
            after.cluster(name).unwrap()
        ));
    }
    // What is sent again as it was makes no snapshot.
    let step = world.set([
        routes("u", &["b"]),
        cluster("a"),
        eds_cluster("c"),
        endpoints("c", &[1]),
        listener("l", 80, "t"),
    ]);
    assert!(step.snapshot.is_none());
    assert_eq!(accepted(&step).len(), 5);
}
