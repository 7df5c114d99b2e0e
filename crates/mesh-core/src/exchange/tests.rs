use super::*;
use crate::model::{Action, Condition, Forward, RouteTable, SnapshotBuilder, VirtualHost};
use crate::{Failure, Matched, Pinned};

#[test]
fn attempts_share_the_request_and_nothing_of_what_they_learn() {
    let exchange = Exchange::new(Instant::now(), Caller::default());
    let second = exchange.for_attempt();
    exchange.note_tried(HostId(1));
    assert!(second.was_tried(HostId(1)));
    assert_eq!(second.attempts(), 2);

    second.note_error(&Error::new(Failure::ConnectFailed));
    assert!(exchange.flags().is_empty());
    exchange.adopt(&second);
    assert_eq!(exchange.flags(), Flags::UF);
    exchange.adopt(&exchange.clone());
    assert_eq!(
        exchange.flags(),
        Flags::UF,
        "adopting oneself changes nothing"
    );
}

#[test]
fn a_request_carries_one_exchange() {
    let exchange = Exchange::new(Instant::now(), Caller::default());
    let mut request = Request::new(());
    assert!(Exchange::of(&request).is_none());
    exchange.attach(&mut request);
    exchange.count_sent(3);
    assert_eq!(Exchange::of(&request).map(Exchange::sent), Some(3));
}

#[test]
fn who_gives_up_on_all_attempts_tells_of_the_one_that_began_last() {
    let exchange = Exchange::new(Instant::now(), Caller::default());
    let address = crate::model::Address::Socket("127.0.0.1:1".parse().unwrap());
    let upstream = Upstream::new(Arc::new(crate::model::Endpoint::new(address)));
    for refused in [true, false] {
        let attempt = exchange.for_attempt();
        attempt.set_upstream(upstream.clone());
        attempt.with_notes_mut(|notes| {
            notes.transport_failure = refused.then(|| "refused".to_owned());
        });
        assert!(exchange.with_notes(|notes| notes.upstream.is_none()) || !refused);
        exchange.adopt_latest_upstream();
        exchange.with_notes(|notes| {
            assert!(notes.upstream.is_some());
            assert_eq!(
                notes.transport_failure.as_deref(),
                refused.then_some("refused")
            );
        });
    }
}

#[test]
fn the_rule_says_the_priority_but_not_of_a_copy() {
    let mut forward = Forward::to("c");
    forward.priority = Priority::High;
    let rule = Rule::new(Condition::default(), Action::Forward(forward));
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("t").host(VirtualHost::new("v", ["*"]).rule(rule)));
    let (snapshot, _) = builder.build().unwrap();
    let matched = Matched::new(Pinned::new(snapshot), 0, 0, 0);
    let exchange = Exchange::new(Instant::now(), Caller::default());
    assert_eq!(exchange.priority(), Priority::Default, "no rule");
    exchange.set_matched(matched.clone());
    assert_eq!(exchange.priority(), Priority::High);
    assert_eq!(exchange.for_attempt().priority(), Priority::High);
    assert_eq!(exchange.for_shadow(matched).priority(), Priority::Default);
}
