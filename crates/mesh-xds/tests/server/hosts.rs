//! Virtual hosts that are asked for one by one, as Envoy asks for them.

use crate::support::*;
use mesh_xds::server::{Changes, Response};
use mesh_xds::{Encoded, TypeUrl};

const VHDS: TypeUrl = TypeUrl::VirtualHost;

fn host(name: &str, aliases: &[&str], text: &str) -> Encoded {
    Encoded::new(name, text.as_bytes().to_vec()).with_aliases(aliases.iter().copied())
}

fn put(desk: &mut Desk, name: &str, aliases: &[&str], text: &str) {
    desk.apply(Changes::new().set(VHDS, host(name, aliases, text)));
}

/// What a response says: name, aliases and whether there is something under it.
fn said(response: &Response) -> Vec<(String, Vec<String>, bool)> {
    let item = |item: &mesh_xds::server::Item| {
        let mut aliases: Vec<String> = item.aliases.iter().map(ToString::to_string).collect();
        aliases.sort();
        (item.resource.name.to_string(), aliases, !item.heartbeat)
    };
    response.resources.iter().map(item).collect()
}

fn one(name: &str, aliases: &[&str], there: bool) -> (String, Vec<String>, bool) {
    let aliases = aliases.iter().map(|&alias| alias.to_owned()).collect();
    (name.to_owned(), aliases, there)
}

/// A client of virtual hosts that has asked for nothing yet.
fn desk() -> Desk {
    let mut desk = Desk::delta();
    put(&mut desk, "t/one", &["t/a", "t/b"], "x");
    desk.change(VHDS, &[], &[]).unwrap();
    let first = desk.next().expect("a client waits for the first answer");
    assert_eq!((first.resources.len(), first.removed.len()), (0, 0));
    desk.ack(&first);
    desk
}

#[test]
fn a_first_request_without_names_is_answered_with_nothing() {
    desk().expect_silence();
}

#[test]
fn a_host_is_found_by_each_alias_and_sent_once_under_its_own_name() {
    let mut desk = desk();
    desk.change(VHDS, &["t/a", "t/b"], &[]).unwrap();
    let response = desk.next().unwrap();
    assert_eq!(said(&response), [one("t/one", &["t/a", "t/b"], true)]);
    desk.ack(&response);
    // By its own name as well.
    desk.change(VHDS, &["t/one"], &[]).unwrap();
    assert_eq!(said(&desk.next().unwrap()), [one("t/one", &[], true)]);
}

#[test]
fn the_aliases_are_on_the_wire() {
    use prost::Message;
    let mut desk = desk();
    desk.change(VHDS, &["t/a", "t/none"], &[]).unwrap();
    let response = desk.next().unwrap();
    let mut bytes = Vec::new();
    response.encode(&mut bytes);
    assert_eq!(bytes.len(), response.encoded_len());
    let read =
        mesh_xds::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse::decode(&bytes[..]);
    let read = read.unwrap();
    let resources = read.resources.iter();
    let mut read: Vec<_> = resources
        .map(|r| (r.name.as_str(), r.aliases.join(","), r.resource.is_some()))
        .collect();
    read.sort();
    assert_eq!(
        read,
        [
            ("t/none", "t/none".to_owned(), false),
            ("t/one", "t/a".to_owned(), true)
        ]
    );
}

#[test]
fn what_does_not_exist_is_said_each_time_and_sent_once_it_exists() {
    let mut desk = desk();
    for _ in 0..2 {
        desk.change(VHDS, &["t/new"], &[]).unwrap();
        let response = desk.next().unwrap();
        assert_eq!(said(&response), [one("t/new", &["t/new"], false)]);
        assert!(response.removed.is_empty());
        desk.ack(&response);
    }
    put(&mut desk, "t/two", &["t/new"], "y");
    assert_eq!(
        said(&desk.next().unwrap()),
        [one("t/two", &["t/new"], true)]
    );
}

#[test]
fn a_change_is_sent_to_those_who_asked_by_an_alias_and_to_nobody_else() {
    let mut desk = desk();
    put(&mut desk, "t/one", &["t/a", "t/b"], "y");
    desk.expect_silence();
    desk.change(VHDS, &["t/a"], &[]).unwrap();
    desk.ack_all();
    put(&mut desk, "t/one", &["t/a", "t/b"], "z");
    assert_eq!(said(&desk.next().unwrap()), [one("t/one", &["t/a"], true)]);
}

#[test]
fn a_host_that_goes_is_removed_by_its_own_name_once() {
    let mut desk = desk();
    desk.change(VHDS, &["t/a", "t/b"], &[]).unwrap();
    desk.ack_all();
    desk.remove(&[(VHDS, "t/one")]);
    let response = desk.next().unwrap();
    assert_eq!(
        (removed(&response), said(&response)),
        (vec!["t/one"], vec![])
    );
}

#[test]
fn an_alias_that_goes_elsewhere_brings_what_it_leads_to_now() {
    let mut desk = desk();
    desk.change(VHDS, &["t/a"], &[]).unwrap();
    desk.ack_all();
    let changes = Changes::new()
        .set(VHDS, host("t/one", &["t/b"], "x2"))
        .set(VHDS, host("t/two", &["t/a"], "y"));
    desk.apply(changes);
    let response = desk.next().unwrap();
    assert_eq!(said(&response), [one("t/two", &["t/a"], true)]);
    assert!(response.removed.is_empty(), "the first one lives");
}

#[test]
fn a_client_that_comes_back_is_told_what_of_its_hosts_is_gone() {
    let mut desk = Desk::delta();
    put(&mut desk, "t/one", &["t/a"], "x");
    let has = [("t/one", version("x")), ("t/old", version("o"))];
    let has: Vec<_> = has.iter().map(|(n, v)| (*n, v.as_str())).collect();
    desk.resume(VHDS, &["t/a"], &has);
    let response = desk.next().unwrap();
    assert_eq!(removed(&response), ["t/old"]);
    assert_eq!(said(&response), [one("t/one", &["t/a"], true)]);
}

#[test]
fn aliases_are_no_resources_of_their_own() {
    let set = mesh_xds::server::ResourceSet::new();
    set.apply(Changes::new().set(VHDS, host("t/one", &["t/a", "t/b"], "x")));
    assert_eq!((set.len(VHDS), set.all(VHDS).len()), (1, 1));
    assert_eq!(set.get(VHDS, "t/b").unwrap().name, "t/one");
    assert_eq!(set.replace(VHDS, vec![host("t/two", &["t/b"], "y")]), 2);
    assert!(set.get(VHDS, "t/a").is_none() && set.get(VHDS, "t/one").is_none());
    assert_eq!(set.get(VHDS, "t/b").unwrap().name, "t/two");
    assert_eq!(set.clear(), 1);
    assert!(set.get(VHDS, "t/b").is_none());
}

#[test]
fn clusters_are_had_one_by_one_without_everything_else() {
    let mut desk = Desk::delta();
    desk.set(&[(Cluster, "a", "x"), (Cluster, "b", "y")]);
    desk.change(Cluster, &["a", "none"], &[]).unwrap();
    let response = desk.expect_removed(Cluster, &["none"]);
    assert_eq!(sorted(&response), ["a"]);
}
