//! What is asked for because a request wants it: one rule per test.

use crate::support::*;
use mesh_xds::TypeUrl;
use mesh_xds::client::{Event, Response};
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;

const VHDS: TypeUrl = TypeUrl::VirtualHost;

/// A virtual host under its own name, with aliases; without a text there is nothing under them.
pub(crate) fn host(name: &str, aliases: &[&str], text: Option<&str>) -> discovery::Resource {
    discovery::Resource {
        name: name.to_owned(),
        aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        version: "1".to_owned(),
        // What Envoy calls it need not be what the resource is called.
        resource: text.map(|text| any(VHDS, "another-name", text)),
        ..Default::default()
    }
}

pub(crate) fn receive(client: &mut Client, resources: Vec<discovery::Resource>, removed: &[&str]) {
    let response = discovery::DeltaDiscoveryResponse {
        type_url: VHDS.url().to_owned(),
        nonce: "n".to_owned(),
        resources,
        removed_resources: removed.iter().map(|&name| name.to_owned()).collect(),
        ..Default::default()
    };
    let now = client.now;
    client
        .machine
        .receive(Response::Delta(Box::new(response)), now);
}

/// Accepts whatever came; returns what came, what went, and what is absent.
pub(crate) fn accept(client: &mut Client) -> (Vec<String>, Vec<String>, Vec<String>) {
    let (mut came, mut went, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    // What is accepted may let something else go.
    while let Some(event) = client.machine.poll_event() {
        match event {
            Event::Update(update) => {
                for (name, _) in &update.resources {
                    client.machine.settle(update.ticket, name, Ok(()));
                    came.push(name.to_string());
                }
                went.extend(update.removed.iter().map(ToString::to_string));
                client.machine.handed_over(update.ticket);
            }
            Event::Absent(_, name) => absent.push(name.to_string()),
            other => panic!("{other:?}"),
        }
    }
    (came, went, absent)
}

pub(crate) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// A client that follows table `t` and asked for these hosts of it.
pub(crate) fn following(hosts: &[&str]) -> Client {
    let mut client = Client::delta();
    client.machine.follow(&"t".into());
    for name in hosts {
        client.machine.ask(VHDS, &(*name).into());
    }
    client.open();
    client
}

#[test]
fn a_table_that_is_followed_is_said_by_a_request_without_names() {
    let mut client = Client::delta();
    client.machine.follow(&"t".into());
    client.machine.opened("http://a:1");
    let request = client.request();
    assert_eq!(request.type_url, VHDS.url());
    assert!(request.resource_names_subscribe.is_empty());
    client.machine.ask(VHDS, &"t/a".into());
    assert_eq!(client.request().resource_names_subscribe, ["t/a"]);
}

#[test]
fn what_has_an_alias_that_was_asked_for_is_taken_in_under_its_own_name() {
    let mut client = following(&["t/a"]);
    receive(&mut client, vec![host("t/one", &["t/a"], Some("x"))], &[]);
    assert_eq!(accept(&mut client), (texts(&["t/one"]), vec![], vec![]));
    assert_eq!(*client.machine.resolved(VHDS, &"t/a".into()), "t/one");
}

#[test]
fn what_was_not_asked_for_is_taken_in_for_a_table_that_is_followed_and_for_no_other() {
    let mut client = following(&[]);
    let pushed = vec![host("t/one", &[], Some("x")), host("u/one", &[], Some("x"))];
    receive(&mut client, pushed, &[]);
    assert_eq!(accept(&mut client).0, ["t/one"]);
}

#[test]
fn nothing_under_an_alias_means_that_it_does_not_exist() {
    let mut client = following(&["t/a", "t/b"]);
    receive(&mut client, vec![host("t/none", &["t/a"], None)], &[]);
    assert_eq!(accept(&mut client).2, ["t/a"]);
    // Or under the name itself, or said to be removed.
    receive(&mut client, vec![host("t/b", &[], None)], &["t/a"]);
    let (_, _, mut absent) = accept(&mut client);
    absent.sort();
    assert_eq!(absent, ["t/a", "t/b"]);
}

#[test]
fn what_cannot_be_read_is_refused_and_not_waited_for() {
    let mut client = following(&["t/a"]);
    receive(&mut client, vec![host("t/one", &["t/a"], Some("bad"))], &[]);
    assert_eq!(accept(&mut client).2, ["t/a"]);
    let answer = client.request();
    assert!(answer.error_detail.unwrap().message.contains("is bad"));
}

#[test]
fn what_no_alias_leads_to_any_more_is_forgotten() {
    let mut client = following(&["t/a", "t/b"]);
    let both = host("t/one", &["t/a", "t/b"], Some("x"));
    receive(&mut client, vec![both], &[]);
    accept(&mut client);
    client.machine.take_back(VHDS, &"t/a".into());
    assert_eq!(accept(&mut client).1, Vec::<String>::new());
    client.machine.take_back(VHDS, &"t/b".into());
    assert_eq!(accept(&mut client).1, ["t/one"]);
}

#[test]
fn a_removed_host_leaves_its_aliases_without_one() {
    let mut client = following(&["t/a"]);
    receive(&mut client, vec![host("t/one", &["t/a"], Some("x"))], &[]);
    accept(&mut client);
    receive(&mut client, vec![], &["t/one"]);
    assert_eq!(
        accept(&mut client),
        (vec![], texts(&["t/one"]), texts(&["t/a"]))
    );
    assert_eq!(*client.machine.resolved(VHDS, &"t/a".into()), "t/a");
}

#[test]
fn a_new_stream_asks_for_the_aliases_and_says_which_hosts_are_there() {
    let mut client = following(&["t/a"]);
    receive(&mut client, vec![host("t/one", &["t/a"], Some("x"))], &[]);
    accept(&mut client);
    client.machine.opened("http://a:1");
    let request = client.request();
    assert_eq!(request.resource_names_subscribe, ["t/a"]);
    let versions = request.initial_resource_versions;
    assert_eq!(versions.get("t/one").map(String::as_str), Some("1"));
}

#[test]
fn a_table_that_is_no_longer_followed_takes_its_hosts_along() {
    let mut client = following(&["t/a"]);
    receive(
        &mut client,
        vec![
            host("t/one", &["t/a"], Some("x")),
            host("t/two", &[], Some("y")),
        ],
        &[],
    );
    accept(&mut client);
    client.requests();
    client.machine.unfollow(&"t".into());
    let mut gone = accept(&mut client).1;
    gone.sort();
    assert_eq!(gone, ["t/one", "t/two"]);
    assert_eq!(client.request().resource_names_unsubscribe, ["t/a"]);
}

#[test]
fn what_crosses_the_message_that_it_is_not_wanted_any_more_is_passed_over() {
    let mut client = following(&["t/a"]);
    receive(&mut client, vec![host("t/none", &["t/a"], None)], &[]);
    assert_eq!(accept(&mut client).2, ["t/a"]);
    client.requests();
    client.machine.take_back(VHDS, &"t/a".into());
    assert_eq!(client.request().resource_names_unsubscribe, ["t/a"]);
    // Nobody would tell what becomes of them.
    let crossed = vec![
        host("t/a", &[], Some("x")),
        host("t/one", &["t/a"], Some("x")),
    ];
    receive(&mut client, crossed, &[]);
    assert_eq!(accept(&mut client).0, Vec::<String>::new());
    // What another one leads to is wanted all the same, and so is this one once it is asked for.
    client.machine.ask(VHDS, &"t/b".into());
    let shared = host("t/one", &["t/a", "t/b"], Some("x"));
    receive(&mut client, vec![shared], &[]);
    assert_eq!(accept(&mut client).0, ["t/one"]);
    client.machine.ask(VHDS, &"t/a".into());
    receive(&mut client, vec![host("t/a", &[], Some("x"))], &[]);
    assert_eq!(accept(&mut client).0, ["t/a"]);
}

#[test]
fn a_cluster_that_a_request_wants_is_asked_for_without_everything_else() {
    let mut client = Client::delta();
    client.machine.ask(CDS, &"a".into());
    client.machine.opened("http://a:1");
    assert_eq!(client.request().resource_names_subscribe, ["a"]);
    // A fallback to another server is not for the sake of what a request wants.
    assert!(client.machine.has_everything());
}
