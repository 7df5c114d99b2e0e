//! Listeners that want one address.

use super::support::*;
use mesh_xds::TypeUrl;

fn served(resources: impl IntoIterator<Item = mesh_xds::read::Resource>) -> World {
    let mut world = World::new();
    world.set([cluster("a"), routes("t", &["a"])]);
    world.set(resources);
    world
}

fn ports(world: &World) -> Vec<u16> {
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
    assert_eq!(ports(&world), [80, 81, 82]);
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
    assert_eq!(ports(&world), [81, 80]);
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
    assert_eq!(ports(&world), [80]);
    world.set([routes("u", &["a"])]);
    assert_eq!(ports(&world), [81, 80]);
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
    assert_eq!(ports(&world), [80, 81, 82]);
}

#[test]
fn an_address_is_free_again_when_its_listener_is_removed() {
    let mut world = served([listener("l", 80, "t")]);
    world.remove(TypeUrl::Listener, "l");
    let step = world.set([listener("m", 80, "t"), routes("t", &["a"])]);
    assert_eq!(refused(&step), []);
    assert_eq!(world.listeners(), [("m".to_owned(), 80)]);
}
