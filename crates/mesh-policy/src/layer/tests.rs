use super::*;
use http::StatusCode;
use mesh_core::model::{
    AuthzAction, AuthzPolicy, AuthzRules, Cidr, Fact, HttpManager, Predicate, StringMatch,
};
use mesh_core::stats::{AuthzStat, Block};
use mesh_core::{Caller, reply};
use mesh_test::{Probe, contract, empty};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Instant;
use tower::ServiceExt;

fn prefix(path: &str) -> Predicate {
    Predicate::Fact(Fact::Path(StringMatch::Prefix(path.into())))
}

fn rules(action: AuthzAction, name: &str, permission: Predicate) -> AuthzRules {
    AuthzRules::new(
        action,
        [AuthzPolicy::new(name, permission, Predicate::Always)],
    )
}

fn authz(rules: AuthzRules) -> Authz {
    let mut authz = Authz::default();
    authz.rules = Some(rules);
    authz
}

#[tokio::test]
async fn keeps_the_contract_of_a_layer() {
    let all = authz(rules(AuthzAction::Allow, "all", Predicate::Always));
    contract::check(AuthzLayer::fixed([all])).await;
    contract::check(AuthzLayer::per_listener()).await;
}

async fn ask(layer: &AuthzLayer, target: &str) -> Result<(), Error> {
    let request = Request::get(target).body(empty()).unwrap();
    layer.layer(Probe::new()).oneshot(request).await.map(|_| ())
}

#[tokio::test]
async fn alone_it_judges_the_path_that_it_sends_on() {
    let layer = AuthzLayer::fixed([authz(rules(AuthzAction::Deny, "d", prefix("/admin")))]);
    for target in [
        "/admin",
        "/a/../admin",
        "/%61dmin",
        "/x/%2e%2e/admin",
        "/a\\..\\../admin",
    ] {
        let error = ask(&layer, target).await.unwrap_err();
        assert_eq!(error.failure(), Failure::Denied, "{target}");
        assert_eq!(
            reply::details(&error),
            "rbac_access_denied_matched_policy[d]"
        );
        assert_eq!(error.status(), StatusCode::FORBIDDEN);
    }
    let error = ask(&layer, "/a%00").await.unwrap_err();
    assert_eq!(error.failure(), Failure::InvalidPath);
    ask(&layer, "/a?/../admin").await.unwrap();
}

#[tokio::test]
async fn what_one_set_of_rules_allows_the_next_may_deny() {
    let layer = AuthzLayer::fixed([
        authz(rules(AuthzAction::Log, "l", Predicate::Always)),
        authz(rules(AuthzAction::Deny, "d", prefix("/d"))),
        authz(rules(AuthzAction::Allow, "a", prefix("/a"))),
    ]);
    ask(&layer, "/a").await.unwrap();
    let cause = |error: Error| error.cause();
    assert_eq!(
        cause(ask(&layer, "/d").await.unwrap_err()).as_deref(),
        Some("d")
    );
    assert_eq!(
        cause(ask(&layer, "/b").await.unwrap_err()).as_deref(),
        Some("none")
    );
}

#[tokio::test]
async fn behind_a_listener_its_rules_judge_and_are_counted() {
    let mut both = authz(rules(AuthzAction::Deny, "d", prefix("/d")));
    both.trial = Some(rules(AuthzAction::Allow, "t", prefix("/t")));
    both.trial_prefix = "istio_dry_run_allow_".into();
    let mut manager = HttpManager::new("in", "t");
    manager.authz = vec![Arc::new(both)];
    let blocks: Mutex<BTreeMap<String, Arc<Block<AuthzStat>>>> = Mutex::default();
    let judges = Judges::of_requests(
        &manager.authz,
        |name| {
            let mut blocks = blocks.lock().unwrap();
            blocks.entry(name.to_string()).or_default().clone()
        },
        |_| Arc::default(),
    );
    manager.authz_slot.get_or_init(|| judges);
    let mut caller = Caller::default();
    caller.peer = Some(([10, 1, 1, 1], 1).into());
    caller.manager = Some(Arc::new(manager));
    let layer = AuthzLayer::per_listener();
    for (target, allowed) in [("/d", false), ("/t", true), ("/", true)] {
        let mut request = Request::get(target).body(empty()).unwrap();
        Exchange::new(Instant::now(), caller.clone()).attach(&mut request);
        let answer = layer.layer(Probe::new()).oneshot(request).await;
        assert_eq!(answer.is_ok(), allowed, "{target}");
    }
    let blocks = blocks.into_inner().unwrap();
    let counted: Vec<_> = blocks
        .iter()
        .map(|(name, block)| {
            let get = |stat| block.get(stat);
            (
                name.as_str(),
                get(AuthzStat::Allowed),
                get(AuthzStat::Denied),
            )
        })
        .collect();
    let trial = "rbac.istio_dry_run_allow_.shadow_";
    assert_eq!(counted, [("rbac.", 2, 1), (trial, 1, 2)]);
}

#[tokio::test]
async fn a_caller_is_told_from_the_connection_and_from_what_a_proxy_says() {
    let block = |text: &str| text.parse::<Cidr>().unwrap();
    let mut caller = Caller::default();
    caller.peer = Some(([10, 1, 1, 1], 1).into());
    caller.direct = Some(([10, 2, 2, 2], 1).into());
    let exchange = Exchange::new(Instant::now(), caller);
    exchange.set_remote(([10, 3, 3, 3], 0).into());
    for (fact, expected) in [
        (Fact::Source(block("10.1.0.0/16")), true),
        (Fact::Source(block("10.2.0.0/16")), false),
        (Fact::Direct(block("10.2.0.0/16")), true),
        (Fact::Direct(block("10.1.0.0/16")), false),
        (Fact::Remote(block("10.3.0.0/16")), true),
        (Fact::Remote(block("10.1.0.0/16")), false),
    ] {
        let allow = authz(rules(
            AuthzAction::Allow,
            "a",
            Predicate::Fact(fact.clone()),
        ));
        let mut request = Request::get("/").body(empty()).unwrap();
        exchange.attach(&mut request);
        let answer = AuthzLayer::fixed([allow])
            .layer(Probe::new())
            .oneshot(request);
        assert_eq!(answer.await.is_ok(), expected, "{fact:?}");
    }
}

#[test]
fn the_future_is_small() {
    // On top of the inner future.
    assert_eq!(size_of::<ResponseFuture<[u64; 4]>>(), 8 + 32);
}
