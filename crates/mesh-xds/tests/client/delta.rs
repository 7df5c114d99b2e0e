//! The delta variant.

use super::support::*;
use mesh_xds::client::{Event, ResourceState, Response};
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use std::collections::HashMap;
use std::time::Duration;

#[test]
fn the_node_is_in_the_first_request_only() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.machine.subscribe_all(LDS);
    let requests = deltas(client.open());
    assert_eq!(requests[0].node.as_ref().unwrap().id, "me");
    assert_eq!(requests[0].type_url, CDS.url(), "clusters first");
    assert_eq!((requests.len(), requests[1].node.is_none()), (2, true));
    client.have(CDS, "1", &["a"]);
    let requests = deltas(client.reconnect("http://a:1"));
    assert!(requests[0].node.is_some() && requests[1].node.is_none());
}

#[test]
fn everything_is_asked_for_by_naming_nothing_and_names_only_when_there_are_some() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    let request = one_delta(client.open());
    assert!(request.resource_names_subscribe.is_empty());
    client.machine.subscribe(EDS, &name("a"));
    client.machine.subscribe(EDS, &name("b"));
    let request = client.request();
    assert_eq!(request.type_url, EDS.url());
    assert_eq!(request.resource_names_subscribe, ["a", "b"]);
    client.machine.subscribe(EDS, &name("c"));
    client.machine.unsubscribe(EDS, &name("a"));
    let request = client.request();
    assert_eq!(request.resource_names_subscribe, ["c"]);
    assert_eq!(request.resource_names_unsubscribe, ["a"]);
    // Without any name left, a new stream must not ask for endpoints: that would ask for all.
    client.machine.unsubscribe(EDS, &name("b"));
    client.machine.unsubscribe(EDS, &name("c"));
    client.requests();
    let request = one_delta(client.reconnect("http://a:1"));
    assert_eq!(request.type_url, CDS.url());
}

#[test]
fn a_wildcard_beside_names_is_written_out() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.machine.subscribe(CDS, &name("on-demand"));
    let request = one_delta(client.open());
    assert_eq!(request.resource_names_subscribe, ["on-demand", "*"]);
    let mut client = Client::delta();
    client.machine.subscribe(CDS, &name("a"));
    client.open();
    client.machine.subscribe_all(CDS);
    assert_eq!(client.request().resource_names_subscribe, ["*"]);
}

#[test]
fn a_name_that_is_let_go_and_taken_up_again_is_asked_for_again() {
    let mut client = Client::delta();
    client.machine.subscribe(EDS, &name("a"));
    client.open();
    client.have(EDS, "1", &["a"]);
    client.machine.unsubscribe(EDS, &name("a"));
    client.machine.subscribe(EDS, &name("a"));
    let request = client.request();
    assert_eq!(request.resource_names_subscribe, ["a"]);
    assert!(request.resource_names_unsubscribe.is_empty());
}

#[test]
fn a_name_that_was_never_sent_is_not_taken_back() {
    let mut client = Client::delta();
    client.machine.subscribe(EDS, &name("a"));
    client.open();
    client.machine.subscribe(EDS, &name("b"));
    client.machine.unsubscribe(EDS, &name("b"));
    assert_eq!(client.requests(), []);
    // One that was sent is, whatever happened in between.
    client.machine.unsubscribe(EDS, &name("a"));
    client.machine.subscribe(EDS, &name("a"));
    client.machine.unsubscribe(EDS, &name("a"));
    let request = client.request();
    assert_eq!(request.resource_names_subscribe, [""; 0]);
    assert_eq!(request.resource_names_unsubscribe, ["a"]);
    // A new stream knows nothing of the old one.
    client.machine.subscribe(EDS, &name("c"));
    client.requests();
    client.machine.opened("http://a:1");
    client.machine.unsubscribe(EDS, &name("c"));
    assert_eq!(client.requests(), []);
}

#[test]
fn a_resource_that_cannot_be_read_is_refused_by_its_name() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.open();
    let resource = |name: &str, inner: &str| {
        let mut body = any(CDS, inner, "x");
        body.value.pop();
        discovery::Resource {
            name: name.to_owned(),
            resource: Some(body),
            ..Default::default()
        }
    };
    let response = discovery::DeltaDiscoveryResponse {
        type_url: CDS.url().to_owned(),
        nonce: "1".to_owned(),
        resources: vec![resource("a", "a"), resource("", "b"), resource("c", "")],
        ..Default::default()
    };
    let response = Response::Delta(Box::new(response));
    client.machine.receive(response, client.now);
    client.accept();
    let message = client.request().error_detail.unwrap().message;
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines, ["a: is garbage", "b: is garbage", "c: is garbage"]);
}

#[test]
fn nothing_is_acknowledged_before_every_resource_has_its_verdict() {
    let mut client = Client::delta();
    client.machine.subscribe_all(RDS);
    client.open();
    client.receive(RDS, "1", vec![any(RDS, "a", "x"), any(RDS, "b", "x")]);
    let update = client.update();
    assert_eq!(names(&update), ["a", "b"]);
    client.machine.settle(update.ticket, &name("a"), Ok(()));
    client.machine.handed_over(update.ticket);
    assert_eq!(client.requests(), []);
    // A later response is answered after the earlier one.
    client.receive(RDS, "2", vec![any(RDS, "c", "x")]);
    client.accept();
    assert_eq!(client.requests(), []);
    client.machine.settle(update.ticket, &name("b"), Ok(()));
    let answers = deltas(client.requests());
    let nonces: Vec<&str> = answers.iter().map(|a| a.response_nonce.as_str()).collect();
    assert_eq!(nonces, ["1", "2"]);
    assert!(answers.iter().all(|answer| answer.error_detail.is_none()));
}

#[test]
fn an_empty_response_is_acknowledged_once_it_was_applied() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.open();
    client.receive(CDS, "1", vec![]);
    assert_eq!(client.requests(), []);
    client.accept();
    assert_eq!(client.request().response_nonce, "1");
}

#[test]
fn a_refusal_lists_the_reason_for_each_resource() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.open();
    client.receive(
        CDS,
        "1",
        vec![
            any(CDS, "a", "good"),
            any(CDS, "b", "bad"),
            any(CDS, "c", "good"),
        ],
    );
    let update = client.update();
    assert_eq!(names(&update), ["a", "c"], "what is good is handed on");
    client.machine.settle(update.ticket, &name("a"), Ok(()));
    let clash = Err("address: is taken".to_owned());
    client.machine.settle(update.ticket, &name("c"), clash);
    client.machine.handed_over(update.ticket);
    let answer = client.request();
    assert_eq!(answer.response_nonce, "1");
    let error = answer.error_detail.unwrap();
    assert_eq!(error.message, "b: lb_policy: is bad\nc: address: is taken");
    assert_ne!(error.code, 0);
}

#[test]
fn a_new_stream_starts_from_what_was_accepted() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.open();
    client.have(CDS, "1", &["a", "b"]);
    // A bad new version of a: the old one is what we have.
    client.receive(CDS, "2", vec![any(CDS, "a", "bad"), any(CDS, "c", "bad")]);
    client.accept();
    client.requests();
    let request = one_delta(client.reconnect("http://a:1"));
    let have = [("a", "1"), ("b", "1")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    assert_eq!(request.initial_resource_versions, HashMap::from(have));
}

#[test]
fn another_server_is_told_the_names_but_no_versions() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.open();
    client.have(CDS, "1", &["a", "b"]);
    let request = one_delta(client.reconnect("http://other:1"));
    let mut have: Vec<_> = request.initial_resource_versions.into_iter().collect();
    have.sort();
    assert_eq!(
        have,
        [("a", ""), ("b", "")].map(|(n, v)| (n.to_owned(), v.to_owned()))
    );
    // What came from it counts with it.
    client.have(CDS, "7", &["a"]);
    let request = one_delta(client.reconnect("http://other:1"));
    assert_eq!(request.initial_resource_versions["a"], "7");
    assert_eq!(request.initial_resource_versions["b"], "");
}

#[test]
fn what_is_removed_is_handed_on_and_no_longer_known() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.machine.subscribe(EDS, &name("e"));
    client.open();
    client.have(CDS, "1", &["a", "b"]);
    client.receive_with(CDS, "2", vec![], &["a", "never-seen"]);
    assert_eq!(client.update().removed, ["a"]);
    // Nobody has it, but it was asked for: it does not exist.
    client.receive_with(EDS, "2", vec![], &["e"]);
    assert_eq!(client.update().removed, ["e"]);
    let state: Vec<_> = client.machine.resources(EDS).map(|r| r.state).collect();
    assert_eq!(state, [ResourceState::DoesNotExist]);
    let request = deltas(client.reconnect("http://a:1"));
    assert_eq!(request[0].initial_resource_versions.len(), 1);
}

#[test]
fn a_removal_wins_over_an_earlier_version_that_is_accepted_later() {
    let mut client = Client::delta();
    client.machine.subscribe_all(RDS);
    client.open();
    client.receive(RDS, "1", vec![any(RDS, "a", "x")]);
    let update = client.update();
    client.machine.handed_over(update.ticket);
    client.receive_with(RDS, "2", vec![], &["a"]);
    assert_eq!(client.update().removed, ["a"]);
    client.machine.settle(update.ticket, &name("a"), Ok(()));
    let request = one_delta(client.reconnect("http://a:1"));
    assert!(request.initial_resource_versions.is_empty());
}

#[test]
fn resources_that_were_not_asked_for_are_passed_over() {
    let mut client = Client::delta();
    client.machine.subscribe(EDS, &name("a"));
    client.open();
    client.receive(EDS, "1", vec![any(EDS, "a", "x"), any(EDS, "b", "bad")]);
    let update = client.update();
    assert_eq!(names(&update), ["a"]);
    client.machine.settle(update.ticket, &name("a"), Ok(()));
    // Let go meanwhile: what is under way is of no interest.
    client.machine.unsubscribe(EDS, &name("a"));
    client.receive(EDS, "2", vec![any(EDS, "a", "x")]);
    let update = client.update();
    assert!(update.resources.is_empty());
    client.machine.handed_over(update.ticket);
    assert_eq!(client.machine.resources(EDS).count(), 0);
}

#[test]
fn a_ttl_removes_a_resource_unless_a_sign_of_life_comes() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.open();
    let response = |nonce: &str, body: bool| {
        Response::Delta(Box::new(discovery::DeltaDiscoveryResponse {
            type_url: CDS.url().to_owned(),
            nonce: nonce.to_owned(),
            resources: vec![discovery::Resource {
                name: "a".into(),
                version: "1".into(),
                ttl: Some(seconds(10)),
                resource: body.then(|| any(CDS, "a", "x")),
                ..Default::default()
            }],
            ..Default::default()
        }))
    };
    let now = client.now;
    client.machine.receive(response("1", true), now);
    client.accept();
    assert_eq!(
        client.machine.deadline(),
        Some(now + Duration::from_secs(10))
    );
    client.sleep(Duration::from_secs(9));
    let now = client.now;
    client.machine.receive(response("2", false), now);
    let update = client.update();
    assert!(update.resources.is_empty() && update.removed.is_empty());
    client.machine.handed_over(update.ticket);
    client.sleep(Duration::from_secs(9));
    assert_eq!(client.machine.poll_event(), None);
    client.sleep(Duration::from_secs(1));
    assert_eq!(client.update().removed, ["a"]);
    let request = one_delta(client.reconnect("http://a:1"));
    assert!(request.initial_resource_versions.is_empty());
}

#[test]
fn verdicts_that_come_after_the_stream_has_gone_count_all_the_same() {
    let mut client = Client::delta();
    client.machine.subscribe_all(RDS);
    client.open();
    client.receive(RDS, "1", vec![any(RDS, "a", "x")]);
    let update = client.update();
    client.machine.handed_over(update.ticket);
    // The server hears that there is something, so that it can say that it is gone.
    let request = one_delta(client.reconnect("http://a:1"));
    assert_eq!(request.initial_resource_versions["a"], "");
    client.machine.settle(update.ticket, &name("a"), Ok(()));
    assert_eq!(
        client.requests(),
        [],
        "the new stream knows nothing of that nonce"
    );
    let request = one_delta(client.reconnect("http://a:1"));
    assert_eq!(request.initial_resource_versions["a"], "1");
}

#[test]
fn a_response_that_names_a_resource_twice_is_refused_as_a_whole() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.open();
    client.receive(CDS, "1", vec![any(CDS, "a", "x"), any(CDS, "a", "y")]);
    assert!(matches!(
        client.machine.poll_event(),
        Some(Event::Refused(..))
    ));
    assert!(
        client
            .request()
            .error_detail
            .unwrap()
            .message
            .contains("\"a\"")
    );
    client.receive_with(CDS, "2", vec![any(CDS, "a", "x")], &["a"]);
    assert!(client.request().error_detail.is_some());
}

#[test]
fn a_type_that_was_not_asked_for_is_refused() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.open();
    client.receive(EDS, "1", vec![any(EDS, "a", "x")]);
    let answer = client.request();
    assert_eq!(
        (answer.type_url.as_str(), answer.response_nonce.as_str()),
        (EDS.url(), "1")
    );
    assert!(answer.error_detail.is_some());
    let unknown = discovery::DeltaDiscoveryResponse {
        type_url: "type.googleapis.com/x.Y".into(),
        nonce: "n".into(),
        ..Default::default()
    };
    let now = client.now;
    client
        .machine
        .receive(Response::Delta(Box::new(unknown)), now);
    let answer = client.request();
    assert_eq!(answer.type_url, "type.googleapis.com/x.Y");
    assert!(answer.error_detail.is_some());
}

#[test]
fn a_resource_of_another_type_or_another_name_is_refused_alone() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.open();
    let resource = |name: &str, any| discovery::Resource {
        name: name.into(),
        version: "1".into(),
        resource: Some(any),
        ..Default::default()
    };
    let response = discovery::DeltaDiscoveryResponse {
        type_url: CDS.url().to_owned(),
        nonce: "n".into(),
        resources: vec![
            resource("a", any(EDS, "a", "x")),
            resource("b", any(CDS, "other", "x")),
            resource("", any(CDS, "c", "x")),
        ],
        ..Default::default()
    };
    let now = client.now;
    client
        .machine
        .receive(Response::Delta(Box::new(response)), now);
    assert_eq!(client.machine.resources(CDS).count(), 3);
    client.accept();
    let message = client.request().error_detail.unwrap().message;
    assert!(
        message.contains("a: is a type.googleapis.com/"),
        "{message}"
    );
    assert!(message.contains("b: the resource itself is called \"other\""));
    assert!(!message.contains("c:"));
}
