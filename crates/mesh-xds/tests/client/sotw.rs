//! State of the world.

use super::support::*;
use mesh_xds::client::{Event, ResourceState, Response, Variant};
use mesh_xds::pb::envoy::service::discovery::v3 as discovery;
use mesh_xds::pb::google::protobuf::Any;
use prost::Message;
use std::time::Duration;

#[test]
fn an_answer_echoes_version_and_nonce_and_names_what_is_asked_for() {
    let mut client = Client::sotw();
    client.machine.subscribe(EDS, &name("a"));
    let first = one_sotw(client.open());
    assert_eq!(first.node.unwrap().id, "me");
    assert_eq!(
        (first.version_info.as_str(), first.response_nonce.as_str()),
        ("", "")
    );
    client.receive(EDS, "7", vec![any(EDS, "a", "x")]);
    client.accept();
    let answer = client.sotw_request();
    assert_eq!(
        (answer.version_info.as_str(), answer.response_nonce.as_str()),
        ("7", "1")
    );
    assert_eq!(answer.resource_names, ["a"]);
    assert!(answer.node.is_none() && answer.error_detail.is_none());
}

#[test]
fn a_refusal_keeps_the_old_version() {
    let mut client = Client::sotw();
    client.machine.subscribe_all(CDS);
    client.open();
    client.have(CDS, "1", &["a"]);
    client.receive(CDS, "2", vec![any(CDS, "a", "bad")]);
    let update = client.update();
    assert!(
        update.removed.is_empty(),
        "what is there but bad is not removed"
    );
    client.machine.handed_over(update.ticket);
    let answer = client.sotw_request();
    assert_eq!(
        (answer.version_info.as_str(), answer.response_nonce.as_str()),
        ("1", "2")
    );
    assert_eq!(answer.error_detail.unwrap().message, "a: lb_policy: is bad");
    let again = one_sotw(client.reconnect("http://a:1"));
    assert_eq!(again.version_info, "1");
    let elsewhere = one_sotw(client.reconnect("http://other:1"));
    assert_eq!(
        elsewhere.version_info, "",
        "versions mean nothing to another server"
    );
}

#[test]
fn clusters_and_listeners_that_are_left_out_are_removed_and_others_are_not() {
    let mut client = Client::sotw();
    client.machine.subscribe_all(CDS);
    client.machine.subscribe(EDS, &name("a"));
    client.machine.subscribe(EDS, &name("b"));
    client.open();
    client.have(CDS, "1", &["a", "b"]);
    client.have(EDS, "1", &["a", "b"]);
    client.receive(CDS, "2", vec![any(CDS, "b", "x")]);
    assert_eq!(client.update().removed, ["a"]);
    client.receive(EDS, "2", vec![any(EDS, "b", "x")]);
    assert!(client.update().removed.is_empty());
}

#[test]
fn nothing_is_removed_by_a_response_with_a_resource_that_has_no_name() {
    let mut client = Client::sotw();
    client.machine.subscribe_all(CDS);
    client.open();
    client.have(CDS, "1", &["a"]);
    let garbage = Any {
        type_url: CDS.url().to_owned(),
        value: vec![0xff; 3],
    };
    client.receive(CDS, "2", vec![garbage]);
    let update = client.update();
    assert!(update.removed.is_empty());
    client.machine.handed_over(update.ticket);
    let message = client.sotw_request().error_detail.unwrap().message;
    assert!(message.starts_with("resources[0]:"), "{message}");
}

#[test]
fn a_resource_that_cannot_be_read_is_refused_by_its_name() {
    let mut client = Client::sotw();
    client.machine.subscribe_all(CDS);
    client.open();
    client.have(CDS, "1", &["a", "b", "c"]);
    // Cut off behind its name, as it is and in a wrapper.
    let cut = |name: &str| {
        let mut any = any(CDS, name, "x");
        any.value.pop();
        any
    };
    let mut wrapped = Any {
        type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".to_owned(),
        value: discovery::Resource {
            resource: Some(any(CDS, "b", "x")),
            ..Default::default()
        }
        .encode_to_vec(),
    };
    wrapped.value.pop();
    client.receive(CDS, "2", vec![cut("a"), wrapped]);
    let update = client.update();
    assert_eq!(names(&update), [""; 0]);
    assert_eq!(update.removed, ["c"], "the others are there, if broken");
    client.machine.handed_over(update.ticket);
    let message = client.sotw_request().error_detail.unwrap().message;
    let named: Vec<&str> = message.lines().map(|line| &line[..3]).collect();
    assert_eq!(named, ["a: ", "b: "], "{message}");
    let refused = client.machine.resources(CDS).map(|resource| resource.state);
    assert!(
        refused
            .take(2)
            .all(|state| matches!(state, ResourceState::Refused { .. }))
    );
}

#[test]
fn removals_can_be_ignored() {
    for variant in [Variant::Sotw, Variant::Delta] {
        let mut client = Client::with(variant, |config| config.ignore_resource_deletion = true);
        client.machine.subscribe_all(CDS);
        client.open();
        client.have(CDS, "1", &["a", "b"]);
        client.receive_with(CDS, "2", vec![any(CDS, "b", "x")], &["a"]);
        assert!(client.update().removed.is_empty());
        assert_eq!(client.machine.resources(CDS).count(), 2);
    }
}

#[test]
fn what_does_not_come_within_its_time_does_not_exist() {
    let mut client = Client::sotw();
    client.machine.subscribe(RDS, &name("a"));
    client.machine.subscribe(RDS, &name("b"));
    client.open();
    client.receive(RDS, "1", vec![any(RDS, "a", "x")]);
    client.accept();
    client.sleep(Duration::from_secs(14));
    assert_eq!(client.machine.poll_event(), None);
    client.sleep(Duration::from_secs(1));
    assert_eq!(
        client.machine.poll_event(),
        Some(Event::Missing(RDS, name("b")))
    );
    let states: Vec<_> = client.machine.resources(RDS).map(|r| r.state).collect();
    assert_eq!(
        states,
        [ResourceState::Accepted, ResourceState::DoesNotExist]
    );
    // It may come all the same.
    client.have(RDS, "2", &["a", "b"]);
    let states: Vec<_> = client.machine.resources(RDS).map(|r| r.state).collect();
    assert_eq!(states, [ResourceState::Accepted, ResourceState::Accepted]);
}

#[test]
fn nothing_is_missing_while_nobody_is_asked() {
    let mut client = Client::sotw();
    client.machine.subscribe(RDS, &name("a"));
    client.open();
    client.sleep(Duration::from_secs(10));
    client.machine.closed(client.now, 0);
    client.sleep(Duration::from_secs(60));
    assert_eq!(client.machine.poll_event(), None);
    client.machine.opened("http://a:1");
    client.requests();
    client.sleep(Duration::from_secs(14));
    assert_eq!(client.machine.poll_event(), None);
    client.sleep(Duration::from_secs(1));
    assert_eq!(
        client.machine.poll_event(),
        Some(Event::Missing(RDS, name("a")))
    );
}

#[test]
fn a_change_of_names_while_a_verdict_is_out_answers_what_is_clear_so_far() {
    let mut client = Client::sotw();
    client.machine.subscribe(RDS, &name("a"));
    client.open();
    client.receive(RDS, "1", vec![any(RDS, "a", "x")]);
    let update = client.update();
    client.machine.subscribe(RDS, &name("b"));
    assert_eq!(client.requests(), [], "the caller has not even seen it");
    client.machine.handed_over(update.ticket);
    let request = client.sotw_request();
    assert_eq!(request.resource_names, ["a", "b"]);
    assert_eq!(
        (
            request.version_info.as_str(),
            request.response_nonce.as_str()
        ),
        ("1", "1")
    );
    // The verdict comes later and is noted.
    client.machine.settle(update.ticket, &name("a"), Ok(()));
    assert_eq!(client.requests(), []);
    let states: Vec<_> = client.machine.resources(RDS).map(|r| r.state).collect();
    assert_eq!(states[0], ResourceState::Accepted);
}

#[test]
fn only_the_latest_response_is_answered() {
    let mut client = Client::sotw();
    client.machine.subscribe_all(CDS);
    client.open();
    client.receive(CDS, "1", vec![any(CDS, "a", "x")]);
    client.receive(CDS, "2", vec![any(CDS, "a", "y")]);
    client.accept();
    let answer = client.sotw_request();
    assert_eq!(
        (answer.version_info.as_str(), answer.response_nonce.as_str()),
        ("2", "2")
    );
}

#[test]
fn a_name_that_was_never_sent_is_not_taken_back() {
    let mut client = Client::sotw();
    client.machine.subscribe(EDS, &name("a"));
    client.open();
    client.have(EDS, "1", &["a"]);
    client.machine.subscribe(EDS, &name("b"));
    client.machine.unsubscribe(EDS, &name("b"));
    assert_eq!(
        client.requests(),
        [],
        "the server knows what there is to know"
    );
}

#[test]
fn the_last_name_let_go_leaves_an_empty_list() {
    let mut client = Client::sotw();
    client.machine.subscribe(EDS, &name("a"));
    client.open();
    client.have(EDS, "1", &["a"]);
    client.machine.unsubscribe(EDS, &name("a"));
    let request = client.sotw_request();
    assert!(request.resource_names.is_empty());
    assert_eq!(request.response_nonce, "1");
    assert_eq!(
        client.reconnect("http://a:1"),
        [],
        "asked again it would mean all"
    );
}

#[test]
fn a_name_that_is_let_go_and_taken_up_at_once_is_left_out_for_one_request() {
    let mut client = Client::sotw();
    client.machine.subscribe(EDS, &name("a"));
    client.machine.subscribe(EDS, &name("b"));
    client.open();
    client.have(EDS, "1", &["a", "b"]);
    client.machine.unsubscribe(EDS, &name("a"));
    client.machine.subscribe(EDS, &name("a"));
    // The same names again would tell the server nothing, and it would not send a again.
    let requests = sotws(client.requests());
    assert_eq!(requests[0].resource_names, ["b"]);
    assert_eq!(requests[1].resource_names, ["a", "b"]);
    assert_eq!(requests.len(), 2);
}

#[test]
fn a_wrapped_resource_may_have_a_ttl() {
    let mut client = Client::sotw();
    client.machine.subscribe_all(CDS);
    client.open();
    let wrapped = discovery::Resource {
        name: "a".into(),
        ttl: Some(seconds(5)),
        resource: Some(any(CDS, "a", "x")),
        ..Default::default()
    };
    let wrapped = Any {
        type_url: "type.googleapis.com/envoy.service.discovery.v3.Resource".into(),
        value: wrapped.encode_to_vec(),
    };
    client.receive(CDS, "1", vec![wrapped]);
    client.accept();
    client.sleep(Duration::from_secs(5));
    assert_eq!(client.update().removed, ["a"]);
}

#[test]
fn a_refused_type_in_state_of_the_world_is_answered_with_its_nonce() {
    let mut client = Client::sotw();
    client.machine.subscribe_all(CDS);
    client.open();
    let response = discovery::DiscoveryResponse {
        type_url: "x".into(),
        nonce: "n".into(),
        ..Default::default()
    };
    let now = client.now;
    client
        .machine
        .receive(Response::Sotw(Box::new(response)), now);
    let answer = client.sotw_request();
    assert_eq!(
        (answer.type_url.as_str(), answer.response_nonce.as_str()),
        ("x", "n")
    );
    assert!(answer.error_detail.is_some());
}

/// Found by fuzzing: a server that has just the old version again sends nothing, and what it no
/// longer has would stay in force.
#[test]
fn a_version_is_not_claimed_on_a_new_stream_where_more_is_in_force_than_it_had() {
    let reconnect = |client: &mut Client| {
        client.machine.closed(client.now, 0);
        one_sotw(client.open()).version_info
    };
    let mut client = Client::sotw();
    client.machine.subscribe_all(CDS);
    client.open();
    client.have(CDS, "1", &["a"]);
    // The verdict comes after the stream is gone.
    client.receive(CDS, "2", vec![any(CDS, "a", "1"), any(CDS, "b", "2")]);
    assert_eq!(reconnect(&mut client), "");
    client.accept();
    assert_eq!(reconnect(&mut client), "");

    // A part is refused, another is in force.
    client.have(CDS, "3", &["a"]);
    assert_eq!(reconnect(&mut client), "3");
    client.receive(CDS, "4", vec![any(CDS, "a", "bad"), any(CDS, "b", "4")]);
    client.accept();
    assert_eq!(reconnect(&mut client), "");
}
