use crate::{Facts, Judges, OnRoute, Step};
use http::Request;
use mesh_core::exchange::Pinned;
use mesh_core::model::{
    Ask, AskGrpc, Authz, AuthzAction, AuthzPolicy, AuthzRules, External, Predicate, RoutePolicies,
    RouteTable, Rule, SnapshotBuilder, StringMatch, VirtualHost,
};
use mesh_core::{Matched, Shard};
use std::sync::Arc;

const RBAC: &str = "envoy.filters.http.rbac";
const ASK: &str = "envoy.filters.http.ext_authz";

fn rules(action: AuthzAction) -> AuthzRules {
    let policy = AuthzPolicy::new("everything", Predicate::Always, Predicate::Always);
    AuthzRules::new(action, [policy])
}

fn judging(action: AuthzAction) -> Authz {
    let mut authz = Authz::default();
    authz.rules = Some(rules(action));
    authz
}

fn asking() -> External {
    External::new("c", Ask::Grpc(AskGrpc::default()))
}

fn route(say: impl FnOnce(&mut RoutePolicies)) -> Matched {
    let mut policies = RoutePolicies::default();
    say(&mut policies);
    let mut rule = Rule::prefix_to("/", "c");
    rule.policies = Some(Arc::new(policies));
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("t").host(VirtualHost::new("h", ["*"]).rule(rule)));
    let (snapshot, _) = builder.build().unwrap();
    Matched::new(Pinned::new(snapshot), 0, 0, 0)
}

fn judged(authz: Authz, first: Option<&Matched>, now: Option<&Matched>) -> Option<Step> {
    let request = Request::get("/a").body(()).unwrap();
    let judges = Judges::new(&[Arc::new(authz)]);
    let facts = Facts::of_request(&request);
    let on = OnRoute::of(first, now);
    let step = judges.step_on(on, 0..usize::MAX, &facts, Shard::default());
    step.ok()
}

#[test]
fn rules_of_a_route_take_the_place_of_the_filters() {
    let denies = route(|it| {
        let own = judging(AuthzAction::Deny);
        it.authz.insert(RBAC.into(), Arc::new(own));
    });
    let of = |authz| judged(authz, Some(&denies), Some(&denies));
    assert_eq!(of(judging(AuthzAction::Allow)), None);
    assert_eq!(of(Authz::default()), None);
    let mut other = judging(AuthzAction::Allow);
    other.name = "other".into();
    assert_eq!(of(other), Some(Step::Admitted), "another filter");
    assert_eq!(of(Authz::asking(asking())), Some(Step::Ask(0)), "no filter");

    let none = route(|it| {
        it.authz.insert(RBAC.into(), Arc::default());
    });
    let deny = judging(AuthzAction::Deny);
    assert_eq!(judged(deny, Some(&none), Some(&none)), Some(Step::Admitted));
}

#[test]
fn the_route_of_the_request_as_it_came_says_which_filters_it_goes_round() {
    let off = route(|it| {
        it.off.insert(RBAC.into());
        it.off.insert(ASK.into());
    });
    let on = route(|it| {
        it.off.insert("another".into());
    });
    let deny = || judging(AuthzAction::Deny);
    assert_eq!(judged(deny(), Some(&off), Some(&on)), Some(Step::Admitted));
    assert_eq!(judged(deny(), Some(&on), Some(&off)), None);
    assert_eq!(judged(deny(), None, Some(&off)), None, "it met none");
    assert_eq!(judged(deny(), None, None), None);
    let asks = || Authz::asking(asking());
    assert_eq!(judged(asks(), Some(&off), Some(&on)), Some(Step::Admitted));
    assert_eq!(judged(asks(), Some(&on), Some(&off)), Some(Step::Ask(0)));
}

#[test]
fn a_route_may_say_that_nobody_is_asked() {
    let unasked = route(|it| {
        it.unasked.insert(ASK.into());
    });
    let of = |external| judged(Authz::asking(external), Some(&unasked), Some(&unasked));
    assert_eq!(of(asking()), Some(Step::Admitted));
    let mut other = asking();
    other.name = "other".into();
    assert_eq!(of(other), Some(Step::Ask(0)));
}

#[test]
fn who_asks_finds_what_rules_of_the_same_prefix_note() {
    let mut authz = Authz::asking(asking());
    authz.trial = Some(rules(AuthzAction::Deny));
    authz.trial_prefix = "asked_".into();
    authz.external.as_mut().unwrap().only = Some(StringMatch::Prefix(String::new()));
    let of = |say: &dyn Fn(&mut RoutePolicies)| {
        let route = route(say);
        judged(authz.clone(), Some(&route), Some(&route))
    };
    let own = |prefix: &str, trial: bool| {
        let mut own = Authz::default();
        own.trial = trial.then(|| rules(AuthzAction::Deny));
        own.trial_prefix = prefix.into();
        Arc::new(own)
    };
    assert_eq!(judged(authz.clone(), None, None), Some(Step::Ask(0)));
    for (rules, step) in [
        (own("asked_", true), Step::Ask(0)),
        (own("asked_", false), Step::Admitted),
        (own("", true), Step::Ask(0)),
        (own("other_", true), Step::Admitted),
    ] {
        let said = of(&|it| {
            it.authz.insert(RBAC.into(), rules.clone());
        });
        assert_eq!(said, Some(step));
    }
    let round = of(&|it| {
        it.off.insert(RBAC.into());
    });
    assert_eq!(round, Some(Step::Admitted), "nobody notes anything");
}
