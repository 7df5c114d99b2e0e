//! Listeners that lack filters which routes configure.

use super::support::*;
use http::StatusCode;
use mesh_core::model::{
    AbortWith, Cors, Fault, FaultAbort, Fraction, HttpManager, Listener, RateLimit, RouteTable,
    Rule, VirtualHost,
};
use mesh_xds::TypeUrl;
use mesh_xds::read::{ListenerResource, Resource, RouteSource};
use std::sync::Arc;
use std::time::Duration;

const CORS: &str = "envoy.filters.http.cors";
const FAULT: &str = "envoy.filters.http.fault";
const LIMIT: &str = "envoy.filters.http.local_ratelimit";

fn lacking(name: &str, port: u16, routes: RouteSource, missing: &[&str]) -> Resource {
    let table = match &routes {
        RouteSource::Inline(table) => table.name.clone(),
        RouteSource::Named(reference) => reference.name.clone(),
    };
    let mut manager = HttpManager::new(name, table);
    manager.missing_filters = missing.iter().map(|name| (*name).into()).collect();
    Resource::Listener(Box::new(ListenerResource {
        listener: Listener::http(name, ([127, 0, 0, 1], port).into(), manager),
        routes: vec![routes],
        secrets: Vec::new(),
    }))
}

fn named(table: &str) -> RouteSource {
    RouteSource::Named(ads(table, Some(WAIT)))
}

/// A table with each of the policies, and a host without any.
fn policies(name: &str) -> RouteTable {
    let mut fault = Fault::default();
    fault.abort = Some(FaultAbort {
        with: AbortWith::Http(StatusCode::IM_A_TEAPOT),
        share: Fraction::ALL,
    });
    let mut rule = Rule::prefix_to("/", "a");
    rule.fault = Some(Arc::new(fault));
    rule.cors = Some(Arc::new(Cors::default()));
    rule.rate_limit = Some(Arc::new(RateLimit::new(1, 1, Duration::from_secs(1))));
    let mut host = VirtualHost::new("some", ["some"]).rule(rule);
    host.cors = Some(Arc::new(Cors::default()));
    let plain = VirtualHost::new("plain", ["plain"]).rule(Rule::prefix_to("/", "a"));
    RouteTable::new(name).host(host).host(plain)
}

fn world(resources: impl IntoIterator<Item = Resource>) -> World {
    let mut world = World::new();
    world.set([cluster("a"), Resource::Routes(Box::new(policies("t")))]);
    world.set(resources);
    world
}

/// Which policies the rule that a listener has are there: cross-origin rules, its host's, fault,
/// limit.
fn has(world: &World, listener: &str) -> [bool; 4] {
    let table = table_of(world, listener);
    let (host, rule) = (&table.virtual_hosts[0], &table.virtual_hosts[0].rules[0]);
    [
        rule.cors.is_some(),
        host.cors.is_some(),
        rule.fault.is_some(),
        rule.rate_limit.is_some(),
    ]
}

fn table_of(world: &World, name: &str) -> Arc<RouteTable> {
    let mut listeners = world.snapshot().listeners().iter();
    let listener = listeners.find(|one| one.name == name).unwrap();
    let routes = &listener.managers().next().unwrap().routes;
    world.snapshot().table(routes).unwrap().clone()
}

#[test]
fn what_a_route_says_for_a_filter_that_its_listener_lacks_has_no_effect() {
    let world = world([
        lacking("all", 80, named("t"), &[]),
        lacking("no-fault", 81, named("t"), &[FAULT]),
        lacking("no-cors", 82, named("t"), &[CORS]),
        lacking("none", 83, named("t"), &[CORS, FAULT, LIMIT]),
        lacking(
            "inline",
            84,
            RouteSource::Inline(Box::new(policies("t"))),
            &[FAULT, LIMIT],
        ),
    ]);
    assert_eq!(has(&world, "all"), [true; 4]);
    assert_eq!(has(&world, "no-fault"), [true, true, false, true]);
    assert_eq!(has(&world, "no-cors"), [false, false, true, true]);
    assert_eq!(has(&world, "none"), [false; 4]);
    assert_eq!(has(&world, "inline"), [true, true, false, false]);
    // What has nothing of it is the same.
    let plain = |listener: &str| table_of(&world, listener).virtual_hosts[1].clone();
    assert!(Arc::ptr_eq(&plain("all"), &plain("none")));
}

#[test]
fn a_listener_that_lacks_only_what_no_route_configures_shares_the_table() {
    let mut world = world([lacking("l", 80, named("t"), &[FAULT])]);
    assert_eq!(
        &*table_of(&world, "l").name,
        "t (without envoy.filters.http.fault)"
    );
    world.set([routes("t", &["a"])]);
    assert_eq!(&*table_of(&world, "l").name, "t");
    assert_eq!(world.snapshot().tables().len(), 1);
    world.set([Resource::Routes(Box::new(policies("t")))]);
    assert_eq!(has(&world, "l"), [true, true, false, true]);
    // A listener that gets the filter gets the policy.
    world.set([lacking("l", 80, named("t"), &[])]);
    assert_eq!(has(&world, "l"), [true; 4]);
    assert_eq!(world.snapshot().tables().len(), 1);
    world.set([lacking("l", 80, named("t"), &[LIMIT])]);
    assert_eq!(has(&world, "l"), [true, true, true, false]);
    world.remove(TypeUrl::Listener, "l");
    assert_eq!(world.snapshot().tables().len(), 0);
}

#[test]
fn what_did_not_change_is_not_made_again() {
    let mut world = world([
        lacking("l", 80, named("t"), &[FAULT]),
        lacking("m", 81, named("t"), &[FAULT]),
    ]);
    let before = table_of(&world, "l");
    assert!(Arc::ptr_eq(&before, &table_of(&world, "m")));
    world.set([listener("n", 82, "t"), cluster("b")]);
    assert!(Arc::ptr_eq(&before, &table_of(&world, "l")));
    world.set([cluster("c")]);
    assert!(Arc::ptr_eq(&before, &table_of(&world, "l")));
}
