//! What a server cannot make a client keep.

use super::support::*;
use mesh_xds::client::Variant;

#[test]
fn too_many_resources_in_one_response_refuse_it() {
    let mut client = Client::with(Variant::Delta, |config| config.limits.resources = 3);
    client.machine.subscribe_all(CDS);
    client.open();
    let many = (0..4).map(|at| any(CDS, &at.to_string(), "x")).collect();
    client.receive(CDS, "1", many);
    let message = client.request().error_detail.unwrap().message;
    assert!(message.contains("4 resources"), "{message}");
    assert_eq!(client.machine.resources(CDS).count(), 0);
}

#[test]
fn more_resources_than_fit_are_refused_one_by_one() {
    let mut client = Client::with(Variant::Delta, |config| config.limits.resources = 3);
    client.machine.subscribe_all(CDS);
    client.open();
    client.have(CDS, "1", &["a", "b"]);
    client.receive(CDS, "2", ["c", "d", "e"].map(|n| any(CDS, n, "x")).into());
    client.accept();
    let message = client.request().error_detail.unwrap().message;
    assert_eq!(
        message,
        "d: more than 3 of this type\ne: more than 3 of this type"
    );
    // Room is made.
    client.receive_with(CDS, "3", vec![], &["a"]);
    client.accept();
    client.requests();
    client.receive(CDS, "4", vec![any(CDS, "d", "x")]);
    client.accept();
    assert!(client.request().error_detail.is_none());
}

#[test]
fn too_long_a_name_refuses_the_response() {
    let mut client = Client::with(Variant::Delta, |config| config.limits.name = 10);
    client.machine.subscribe_all(CDS);
    client.open();
    client.receive(CDS, "1", vec![any(CDS, &"x".repeat(11), "x")]);
    assert!(
        client
            .request()
            .error_detail
            .unwrap()
            .message
            .contains("11 bytes")
    );
}

#[test]
fn nothing_is_read_while_too_much_waits_for_its_verdict() {
    let mut client = Client::with(Variant::Delta, |config| config.limits.unanswered = 2);
    client.machine.subscribe_all(RDS);
    client.open();
    client.receive(RDS, "1", vec![any(RDS, "a", "x")]);
    assert!(client.machine.may_receive());
    client.receive(RDS, "2", vec![any(RDS, "b", "x")]);
    assert!(!client.machine.may_receive());
    client.accept();
    assert!(client.machine.may_receive());
}

#[test]
fn refused_resources_do_not_pile_up() {
    for variant in [Variant::Delta, Variant::Sotw] {
        let mut client = Client::with(variant, |config| config.limits.resources = 5);
        client.machine.subscribe_all(CDS);
        client.open();
        for at in 0..100 {
            let bad = any(CDS, &format!("bad-{at}"), "bad");
            client.receive(CDS, "1", vec![bad]);
            client.accept();
        }
        assert!(client.machine.resources(CDS).count() <= 5);
        if variant == Variant::Sotw {
            // What a server no longer has is no longer counted.
            client.have(CDS, "2", &["a", "b", "c", "d", "e"]);
            let refused = client.machine.status(CDS).update_rejected;
            assert_eq!((client.machine.resources(CDS).count(), refused), (5, 100));
        }
    }
}

#[test]
fn what_comes_before_it_was_asked_for_counts_as_an_attempt_that_was_refused() {
    let mut client = Client::delta();
    client.machine.subscribe_all(CDS);
    client.machine.opened("http://a:1");
    // The first request was not sent yet.
    client.receive(CDS, "1", vec![any(CDS, "a", "x")]);
    let status = client.machine.status(CDS);
    assert_eq!((status.update_attempt, status.update_rejected), (1, 1));
}
