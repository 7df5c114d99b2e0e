//! Listeners that want one address.

use super::support::*;
use mesh_core::Invalid;
use mesh_core::model::Listener;
use mesh_xds::TypeUrl;
use mesh_xds::assemble::{Options, Permit};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

fn served(resources: impl IntoIterator<Item = mesh_xds::read::Resource>) -> World {
    let mut world = World::new();
    world.set([cluster("a"), routes("t", &["a"])]);
    world.set(resources);
    world
}

fn bound(world: &World) -> Vec<u16> {
    world
        .listeners()
        .into_iter()
        .map(|(_, port)| port)
        .collect()
}

#[test]
fn a_listener_that_clashes_is_refused_alone_and_its_last_good_version_stays() {
    let mut world = served([listener("l", 80, "t"), listener("m", 81, "t")]);
    let step = world.set([listener("m", 80, "t"), listener("n", 82, "t")]);
    let refused = refused(&step);
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].0, "m");
    assert!(refused[0].1.contains("127.0.0.1:80") && refused[0].1.contains("\"l\""));
    assert_eq!(bound(&world), [80, 81, 82]);
}

#[test]
fn of_two_new_listeners_with_one_address_the_first_by_name_gets_it() {
    let mut world = served([]);
    let step = world.set([listener("m", 80, "t"), listener("l", 80, "t")]);
    assert_eq!(refused(&step)[0].0, "m");
    assert_eq!(world.listeners(), [("l".to_owned(), 80)]);
}

#[test]
fn two_listeners_may_swap_their_addresses() {
    let mut world = served([listener("l", 80, "t"), listener("m", 81, "t")]);
    let step = world.set([listener("l", 81, "t"), listener("m", 80, "t")]);
    assert_eq!(refused(&step), []);
    assert_eq!(bound(&world), [81, 80]);
    // In force as claimed: neither address is free.
    let step = world.set([listener("n", 80, "t"), listener("o", 81, "t")]);
    assert_eq!(refused(&step).len(), 2);
}

#[test]
fn an_address_is_taken_over_only_when_it_is_free() {
    let mut world = served([listener("l", 80, "t")]);
    // l moves away when its new table is there; m follows.
    let step = world.set([listener("l", 81, "u"), listener("m", 80, "t")]);
    assert_eq!(refused(&step), []);
    assert_eq!(bound(&world), [80]);
    world.set([routes("u", &["a"])]);
    assert_eq!(bound(&world), [81, 80]);
}

#[test]
fn a_listener_that_cannot_move_stays_in_the_way_of_others() {
    let mut world = served([
        listener("l", 80, "t"),
        listener("m", 81, "t"),
        listener("n", 82, "t"),
    ]);
    // l cannot have 82, so it stays at 80, where m cannot go then.
    let step = world.set([listener("l", 82, "t"), listener("m", 80, "t")]);
    assert_eq!(refused(&step).len(), 2);
    assert_eq!(bound(&world), [80, 81, 82]);
}

#[test]
fn an_address_is_free_again_when_its_listener_is_removed() {
    let mut world = served([listener("l", 80, "t")]);
    world.remove(TypeUrl::Listener, "l");
    let step = world.set([listener("m", 80, "t"), routes("t", &["a"])]);
    assert_eq!(refused(&step), []);
    assert_eq!(world.listeners(), [("m".to_owned(), 80)]);
}

/// Ports that are in use by others, and those that the world has opened.
#[derive(Clone, Default)]
struct Ports {
    taken: Arc<Mutex<BTreeSet<u16>>>,
    open: Arc<Mutex<Vec<u16>>>,
}

/// A port for as long as a listener has it.
struct Port(u16, Ports);

// === impl Ports ===

impl Ports {
    fn world(&self) -> World {
        let ports = self.clone();
        let mut options = Options::default();
        options.admit = Some(Box::new(move |listener: &Listener| {
            let port = listener.address.port();
            if ports.taken.lock().unwrap().contains(&port) {
                return Err(Invalid::new("address", "in use"));
            }
            ports.open.lock().unwrap().push(port);
            Ok(Permit::holding(Port(port, ports.clone())))
        }));
        let mut world = World::with(options);
        world.set([cluster("a"), routes("t", &["a"])]);
        world
    }

    fn open(&self) -> Vec<u16> {
        let mut open = self.open.lock().unwrap().clone();
        open.sort_unstable();
        open
    }

    fn take(&self, port: u16) {
        self.taken.lock().unwrap().insert(port);
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mut open = self.1.open.lock().unwrap();
        let at = open.iter().position(|port| *port == self.0).unwrap();
        open.remove(at);
    }
}

#[test]
fn a_listener_that_is_not_admitted_is_refused_alone_and_stays_where_it_was() {
    let ports = Ports::default();
    let mut world = ports.world();
    world.set([listener("l", 80, "t")]);
    ports.take(81);
    // m wanted the address that l did not leave.
    let step = world.set([
        listener("l", 81, "t"),
        listener("m", 80, "t"),
        listener("n", 82, "t"),
    ]);
    let refused = refused(&step);
    assert_eq!(refused[0], ("l".to_owned(), "address: in use".to_owned()));
    assert!(refused[1].0 == "m" && refused[1].1.contains("listener \"l\""));
    assert_eq!(ports.open(), [80, 82], "what m was given is given back");
    assert_eq!(bound(&world), [80, 82]);
}

#[test]
fn the_verdict_does_not_wait_for_the_listeners_table() {
    let ports = Ports::default();
    let mut world = ports.world();
    ports.take(80);
    let step = world.set([listener("l", 80, "late"), listener("m", 81, "late")]);
    assert_eq!(refused(&step)[0].0, "l");
    assert_eq!(accepted(&step), ["m"]);
    assert_eq!(ports.open(), [81]);
    assert_eq!(world.listeners(), []);
}

#[test]
fn an_address_is_held_for_as_long_as_a_version_of_the_listener_has_it() {
    let ports = Ports::default();
    let mut world = ports.world();
    world.set([listener("l", 80, "t")]);
    // Another table at the same address: it is not asked for again.
    ports.take(80);
    assert_eq!(refused(&world.set([listener("l", 80, "late")])), []);
    assert_eq!(ports.open(), [80]);
    // Elsewhere, and back before it came into force.
    world.set([listener("l", 81, "late")]);
    assert_eq!(ports.open(), [80, 81]);
    world.set([listener("l", 80, "t")]);
    assert_eq!(ports.open(), [80]);
    // It moves for good, and leaves.
    world.set([listener("l", 82, "t")]);
    assert_eq!(ports.open(), [82]);
    world.remove(TypeUrl::Listener, "l");
    assert_eq!(ports.open(), [0; 0]);
}

#[test]
fn a_listener_that_is_not_bound_is_not_asked_for_a_socket() {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = asked.clone();
    let mut options = Options::default();
    options.admit = Some(Box::new(move |_| {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Permit::holding(()))
    }));
    let mut world = World::with(options);
    let mesh_xds::read::Resource::Listener(mut resource) = listener("l", 80, "r") else {
        unreachable!()
    };
    resource.listener.bind = false;
    let unbound = mesh_xds::read::Resource::Listener(resource);
    world.set([unbound, routes("r", &[])]);
    assert_eq!(world.listeners().len(), 1);
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 0);
    // Bound from now on, at the same address.
    world.set([listener("l", 80, "r")]);
    assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
}
