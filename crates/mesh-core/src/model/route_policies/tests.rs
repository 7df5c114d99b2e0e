use super::*;
use crate::exchange::Pinned;
use crate::model::{Ask, AskHttp, Rule, SnapshotBuilder, VirtualHost};

const RBAC: &str = "envoy.filters.http.rbac";
const ASK: &str = "envoy.filters.http.ext_authz";

fn matched(rule: RoutePolicies, host: RoutePolicies) -> Matched {
    let mut of_rule = Rule::prefix_to("/", "c");
    of_rule.policies = (!rule.is_empty()).then(|| Arc::new(rule));
    let mut of_host = VirtualHost::new("h", ["*"]).rule(of_rule);
    of_host.policies = (!host.is_empty()).then(|| Arc::new(host));
    let mut builder = SnapshotBuilder::new();
    builder.routes(RouteTable::new("t").host(of_host));
    let (snapshot, _) = builder.build().unwrap();
    Matched::new(Pinned::new(snapshot), 0, 0, 0)
}

fn off(filter: &str) -> RoutePolicies {
    let mut policies = RoutePolicies::default();
    policies.off.insert(filter.into());
    policies
}

fn rules(filter: &str, prefix: &str) -> RoutePolicies {
    let mut policies = RoutePolicies::default();
    let authz = Authz {
        stat_prefix: prefix.into(),
        ..Authz::default()
    };
    policies.authz.insert(filter.into(), Arc::new(authz));
    policies
}

fn context(pairs: &[(&str, &str)]) -> RoutePolicies {
    let mut policies = RoutePolicies::default();
    let pairs = pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()));
    policies.context.insert(ASK.into(), pairs.collect());
    policies
}

#[test]
fn what_a_rule_says_of_a_filter_takes_the_place_of_what_its_host_says() {
    let nothing = RoutePolicies::default;
    assert!(matched(off(RBAC), nothing()).goes_round(RBAC));
    assert!(matched(nothing(), off(RBAC)).goes_round(RBAC));
    assert!(matched(off(RBAC), rules(RBAC, "host")).goes_round(RBAC));
    assert!(!matched(rules(RBAC, "rule"), off(RBAC)).goes_round(RBAC));
    assert!(!matched(off("other"), nothing()).goes_round(RBAC));
    assert!(matched(rules("other", "rule"), off(RBAC)).goes_round(RBAC));

    let prefix = |matched: &Matched| matched.authz(RBAC).map(|rules| rules.stat_prefix.clone());
    assert_eq!(prefix(&matched(nothing(), nothing())), None);
    let both = matched(rules(RBAC, "rule"), rules(RBAC, "host"));
    assert_eq!(prefix(&both), Some("rule".into()));
    let one = matched(rules("other", "rule"), rules(RBAC, "host"));
    assert_eq!(prefix(&one), Some("host".into()));
}

#[test]
fn of_tokens_the_first_level_that_says_something_counts() {
    let asks = |name: Option<&str>| {
        let mut policies = RoutePolicies::default();
        let name = name.map(Name::from);
        policies.tokens.insert(Authn::FILTER.into(), name);
        policies
    };
    let none = matched(off(RBAC), RoutePolicies::default());
    assert_eq!(none.tokens(), None);
    let nothing = matched(asks(None), asks(Some("a")));
    assert_eq!(nothing.tokens(), Some(None));
    let something = matched(off(RBAC), asks(Some("a")));
    assert_eq!(something.tokens(), Some(Some(&"a".into())));
}

#[test]
fn who_is_asked_is_told_of_both_levels_and_settings_of_a_rule_undo_those_of_its_host() {
    let mut unasked = RoutePolicies::default();
    unasked.unasked.insert(ASK.into());
    assert!(matched(unasked.clone(), context(&[("a", "1")])).is_unasked(ASK));
    assert!(!matched(context(&[]), unasked.clone()).is_unasked(ASK));
    assert!(matched(off(RBAC), unasked).is_unasked(ASK));

    let both = matched(
        context(&[("a", "rule"), ("b", "rule")]),
        context(&[("a", "host"), ("c", "host")]),
    );
    let told: Vec<_> = both.context(ASK).into_iter().collect();
    let told: Vec<_> = told
        .iter()
        .map(|(name, value)| (&***name, &***value))
        .collect();
    assert_eq!(told, [("a", "rule"), ("b", "rule"), ("c", "host")]);

    let body = |body| {
        let mut policies = context(&[]);
        policies.bodies.insert(ASK.into(), body);
        policies
    };
    let some = AskedBody {
        limit: 1,
        partial: false,
        raw: false,
    };
    let of = |rule, host| matched(rule, host).asked_body(ASK);
    assert_eq!(of(off(RBAC), body(None)), Some(None));
    assert_eq!(of(body(Some(some)), body(None)), Some(Some(some)));
    // Settings that say nothing of bodies take the place of those that do.
    assert_eq!(of(context(&[]), body(None)), None);
}

#[test]
fn a_snapshot_knows_whether_a_route_says_something() {
    let build = |previous: Option<&Arc<crate::model::Snapshot>>, tables: Vec<Arc<RouteTable>>| {
        let mut builder = previous.map_or_else(SnapshotBuilder::new, SnapshotBuilder::from);
        for table in tables {
            builder.routes(table);
        }
        builder.build().unwrap().0
    };
    let mut rule = Rule::prefix_to("/", "c");
    let plain = RouteTable::new("plain").host(VirtualHost::new("h", ["*"]).rule(rule.clone()));
    rule.policies = Some(Arc::new(off(RBAC)));
    let says = RouteTable::new("says").host(VirtualHost::new("h", ["*"]).rule(rule));
    let (plain, says) = (Arc::new(plain), Arc::new(says));
    let first = build(None, vec![plain.clone()]);
    assert!(!first.says_policies());
    let second = build(Some(&first), vec![plain.clone(), says.clone()]);
    assert!(second.says_policies());
    // The same tables again, which are not looked at.
    let third = build(Some(&second), vec![plain.clone(), says]);
    assert!(third.says_policies());
    assert!(!build(Some(&third), vec![plain]).says_policies());
}

#[test]
fn filters_have_istios_names_where_none_is_said_and_one_that_only_asks_has_no_rules() {
    let mut authz = Authz::asking(External::new("c", Ask::Http(AskHttp::default())));
    assert_eq!(authz.filter(), RBAC);
    assert_eq!(authz.external.as_ref().unwrap().filter(), ASK);
    assert!(!authz.is_filter());
    assert!(Authz::default().is_filter());
    authz.name = "own".into();
    assert_eq!(authz.filter(), "own");
}
