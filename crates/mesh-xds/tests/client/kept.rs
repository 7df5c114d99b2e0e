//! What is in force stays while newer versions cannot be used: one rule per test.

use crate::demand::{accept, following, host, receive, texts};
use crate::support::*;
use mesh_xds::TypeUrl;
use mesh_xds::client::{Event, ResourceState, Variant};

const VHDS: TypeUrl = TypeUrl::VirtualHost;

#[test]
fn a_version_on_demand_that_cannot_be_read_leaves_the_last_one_in_force() {
    let mut client = following(&["t/a"]);
    receive(&mut client, vec![host("t/one", &["t/a"], Some("x"))], &[]);
    accept(&mut client);
    client.requests();
    receive(&mut client, vec![host("t/one", &["t/a"], Some("bad"))], &[]);
    assert_eq!(accept(&mut client), (vec![], vec![], vec![]));
    assert!(client.request().error_detail.is_some());
    assert_eq!(*client.machine.resolved(VHDS, &"t/a".into()), "t/one");

    // And a cluster likewise.
    let mut client = Client::delta();
    client.machine.ask(CDS, &"c".into());
    client.open();
    client.have(CDS, "1", &["c"]);
    client.receive(CDS, "2", vec![any(CDS, "c", "bad")]);
    assert_eq!(accept(&mut client), (vec![], vec![], vec![]));
    let known: Vec<_> = client.machine.resources(CDS).collect();
    assert_eq!(known[0].version.as_deref(), Some("1"));
}

#[test]
fn an_alias_does_not_leave_what_is_in_force_for_what_cannot_be_read() {
    let mut client = following(&["t/a"]);
    receive(&mut client, vec![host("t/one", &["t/a"], Some("x"))], &[]);
    accept(&mut client);
    receive(&mut client, vec![host("t/two", &["t/a"], Some("bad"))], &[]);
    assert_eq!(accept(&mut client), (vec![], vec![], vec![]));
    assert_eq!(*client.machine.resolved(VHDS, &"t/a".into()), "t/one");
}

#[test]
fn what_an_alias_leaves_goes_once_what_it_leads_to_is_accepted() {
    let mut client = following(&["t/a"]);
    receive(&mut client, vec![host("t/one", &["t/a"], Some("x"))], &[]);
    accept(&mut client);
    receive(&mut client, vec![host("t/two", &["t/a"], Some("y"))], &[]);
    let update = client.update();
    assert_eq!(names(&update), ["t/two"]);
    assert!(update.removed.is_empty());
    assert_eq!(update.instead, [("t/two".into(), "t/one".into())]);
    assert!(client.machine.poll_event().is_none());
    let leads_to = |client: &Client| client.machine.resolved(VHDS, &"t/a".into()).to_string();
    assert_eq!(leads_to(&client), "t/one");
    client
        .machine
        .settle(update.ticket, &"t/two".into(), Ok(()));
    assert_eq!(leads_to(&client), "t/two");
    assert_eq!(client.update().removed, ["t/one"]);
    assert!(client.machine.poll_event().is_none());
}

#[test]
fn an_alias_does_not_leave_what_is_in_force_for_what_is_refused_later() {
    let mut client = following(&["t/a"]);
    receive(&mut client, vec![host("t/one", &["t/a"], Some("x"))], &[]);
    accept(&mut client);
    receive(&mut client, vec![host("t/two", &["t/a"], Some("y"))], &[]);
    let update = client.update();
    let refused = Err("no".to_owned());
    client
        .machine
        .settle(update.ticket, &"t/two".into(), refused);
    client.machine.handed_over(update.ticket);
    assert_eq!(accept(&mut client), (vec![], vec![], vec![]));
    assert_eq!(*client.machine.resolved(VHDS, &"t/a".into()), "t/one");
    // The next one is taken as if that had not come.
    receive(&mut client, vec![host("t/three", &["t/a"], Some("z"))], &[]);
    assert_eq!(accept(&mut client).1, ["t/one"]);
    assert_eq!(*client.machine.resolved(VHDS, &"t/a".into()), "t/three");
}

#[test]
fn an_alias_goes_by_what_came_last_whenever_that_is_accepted() {
    let mut client = following(&["t/a"]);
    receive(&mut client, vec![host("t/one", &["t/a"], Some("x"))], &[]);
    accept(&mut client);
    receive(&mut client, vec![host("t/two", &["t/a"], Some("y"))], &[]);
    let two = client.update();
    receive(&mut client, vec![host("t/three", &["t/a"], Some("z"))], &[]);
    let three = client.update();
    let left: Vec<_> = three
        .instead
        .iter()
        .map(|(_, left)| left.as_str())
        .collect();
    assert_eq!(left, ["t/two", "t/one"]);
    client
        .machine
        .settle(three.ticket, &"t/three".into(), Ok(()));
    assert_eq!(*client.machine.resolved(VHDS, &"t/a".into()), "t/three");
    client.machine.settle(two.ticket, &"t/two".into(), Ok(()));
    assert_eq!(*client.machine.resolved(VHDS, &"t/a".into()), "t/three");
    let mut gone = accept(&mut client).1;
    gone.sort();
    assert_eq!(gone, ["t/one", "t/two"]);
}

#[test]
fn what_goes_before_it_was_accepted_takes_along_what_it_was_to_replace() {
    let mut client = following(&["t/a"]);
    receive(&mut client, vec![host("t/one", &["t/a"], Some("x"))], &[]);
    accept(&mut client);
    receive(&mut client, vec![host("t/two", &["t/a"], Some("y"))], &[]);
    let two = client.update();
    receive(&mut client, vec![], &["t/two"]);
    let (_, mut gone, absent) = accept(&mut client);
    gone.sort();
    assert_eq!(
        (gone, absent),
        (texts(&["t/one", "t/two"]), texts(&["t/a"]))
    );
    client.machine.settle(two.ticket, &"t/two".into(), Ok(()));
    assert_eq!(*client.machine.resolved(VHDS, &"t/a".into()), "t/a");
}

#[test]
fn what_still_has_an_alias_is_not_replaced() {
    let mut client = following(&["t/a", "t/b"]);
    let both = host("t/one", &["t/a", "t/b"], Some("x"));
    receive(&mut client, vec![both], &[]);
    accept(&mut client);
    receive(&mut client, vec![host("t/two", &["t/a"], Some("y"))], &[]);
    let two = client.update();
    assert!(two.instead.is_empty());
    client.machine.settle(two.ticket, &"t/two".into(), Ok(()));
    assert_eq!(*client.machine.resolved(VHDS, &"t/b".into()), "t/one");
    assert!(client.machine.poll_event().is_none());
}

#[test]
fn what_came_for_an_alias_that_nobody_wants_by_then_goes() {
    let mut client = following(&["t/a"]);
    receive(&mut client, vec![host("t/one", &["t/a"], Some("x"))], &[]);
    accept(&mut client);
    receive(&mut client, vec![host("t/two", &["t/a"], Some("y"))], &[]);
    let two = client.update();
    client.machine.take_back(VHDS, &"t/a".into());
    assert_eq!(client.update().removed, ["t/one"]);
    client.machine.settle(two.ticket, &"t/two".into(), Ok(()));
    assert_eq!(client.update().removed, ["t/two"]);
}

#[test]
fn what_is_too_much_is_not_waited_for() {
    let mut client = Client::with(Variant::Delta, |config| config.limits.resources = 2);
    client.machine.follow(&"t".into());
    client.machine.ask(VHDS, &"t/a".into());
    client.open();
    receive(&mut client, vec![host("t/one", &[], Some("x"))], &[]);
    accept(&mut client);
    receive(&mut client, vec![host("t/two", &["t/a"], Some("x"))], &[]);
    assert_eq!(accept(&mut client), (vec![], vec![], texts(&["t/a"])));
}

#[test]
fn what_never_came_cannot_be_kept() {
    let mut client = Client::with(Variant::Delta, |config| {
        config.ignore_resource_deletion = true;
    });
    for held in ["a", "b"] {
        client.machine.subscribe(CDS, &held.into());
    }
    client.open();
    client.have(CDS, "1", &["a"]);
    assert!(!client.machine.has_everything());
    client.receive_with(CDS, "2", vec![], &["a", "b"]);
    assert_eq!(client.update().removed, ["b"]);
    assert!(client.machine.has_everything());
    let state = |name: &str| {
        let mut known = client.machine.resources(CDS);
        known.find(|one| one.name == *name).unwrap().state
    };
    assert_eq!(
        (state("a"), state("b")),
        (ResourceState::Accepted, ResourceState::DoesNotExist)
    );
}

#[test]
fn a_name_that_is_wanted_for_good_stays_when_no_request_wants_it_any_more() {
    for first_on_demand in [true, false] {
        let mut client = Client::delta();
        let name = name("c");
        if first_on_demand {
            client.machine.ask(CDS, &name);
        }
        client.machine.subscribe(CDS, &name);
        client.machine.ask(CDS, &name);
        client.open();
        assert!(!client.machine.has_everything(), "it is wanted for good");
        client.have(CDS, "1", &["c"]);
        client.machine.take_back(CDS, &name);
        assert!(client.requests().is_empty());
        assert!(client.machine.wants(CDS, "c"));
        client.machine.unsubscribe(CDS, &name);
        assert_eq!(client.request().resource_names_unsubscribe, ["c"]);
    }
}

#[test]
fn a_name_that_a_request_wants_stays_when_nothing_refers_to_it_any_more() {
    let mut client = Client::delta();
    let name = name("c");
    client.machine.subscribe(CDS, &name);
    client.machine.ask(CDS, &name);
    client.open();
    client.have(CDS, "1", &["c"]);
    client.machine.unsubscribe(CDS, &name);
    assert!(client.requests().is_empty());
    client.machine.take_back(CDS, &name);
    assert_eq!(client.request().resource_names_unsubscribe, ["c"]);
}

#[test]
fn nothing_is_followed_in_state_of_the_world() {
    let mut client = Client::sotw();
    client.machine.follow(&"t".into());
    assert!(client.open().is_empty());
}

// --- glob collections -----------------------------------------------------------------------

const GLOB: &str = "xdstp://a/envoy.config.cluster.v3.Cluster/d/*?k=v";
const ONE: &str = "xdstp://a/envoy.config.cluster.v3.Cluster/d/one?k=v";
const TWO: &str = "xdstp://a/envoy.config.cluster.v3.Cluster/d/two?k=v";

fn collecting() -> Client {
    let mut client = Client::delta();
    client.machine.subscribe(CDS, &GLOB.into());
    client.open();
    client
}

#[test]
fn a_collection_is_asked_for_by_its_name_and_comes_by_those_of_its_members() {
    let mut client = Client::delta();
    client.machine.subscribe(CDS, &GLOB.into());
    client.machine.opened("http://a:1");
    assert_eq!(client.request().resource_names_subscribe, [GLOB]);
    assert!(!client.machine.has_everything());
    let other = "xdstp://a/envoy.config.cluster.v3.Cluster/other/one?k=v";
    let deeper = "xdstp://a/envoy.config.cluster.v3.Cluster/d/e/one?k=v";
    let members = [ONE, TWO, other, deeper].map(|name| any(CDS, name, "1"));
    client.receive(CDS, "1", members.into());
    assert_eq!(names(&client.update()), [ONE, TWO]);
}

#[test]
fn members_come_and_go_one_by_one() {
    let mut client = collecting();
    client.have(CDS, "1", &[ONE]);
    assert!(client.machine.has_everything());
    client.receive_with(CDS, "2", vec![any(CDS, TWO, "2")], &[ONE]);
    let update = client.update();
    assert_eq!(
        (names(&update), &update.removed[..]),
        (vec![TWO], &[ONE.into()][..])
    );
}

#[test]
fn a_collection_with_nothing_in_it_is_not_waited_for() {
    let mut client = collecting();
    client.receive_with(CDS, "1", vec![], &[GLOB]);
    client.accept();
    assert!(client.machine.has_everything());
}

#[test]
fn a_new_stream_says_which_members_are_there() {
    let mut client = collecting();
    client.have(CDS, "1", &[ONE]);
    let request = one_delta(client.reconnect("http://a:1"));
    assert_eq!(request.resource_names_subscribe, [GLOB]);
    let versions = request.initial_resource_versions;
    assert_eq!(versions.get(ONE).map(String::as_str), Some("1"));
}

#[test]
fn a_collection_that_is_no_longer_asked_for_takes_along_what_nothing_else_asks_for() {
    let mut client = collecting();
    client.machine.subscribe(CDS, &TWO.into());
    client.requests();
    client.have(CDS, "1", &[ONE, TWO]);
    client.machine.unsubscribe(CDS, &GLOB.into());
    match client.machine.poll_event() {
        Some(Event::Update(update)) => assert_eq!(update.removed, [ONE]),
        other => panic!("{other:?}"),
    }
    assert_eq!(client.request().resource_names_unsubscribe, [GLOB]);
    assert!(client.machine.poll_event().is_none());
}
