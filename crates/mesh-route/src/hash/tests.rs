use super::*;
use http::{HeaderMap, HeaderName, Uri};
use mesh_core::Caller;
use mesh_core::model::{
    Action, Cluster, FilterObject, FilterState, HashCookie, HashSource, Pattern, RingHash, Rule,
};
use mesh_test::{Answers, Probe, contract, empty, fixture};
use proptest::prelude::*;
use std::time::Duration;
use tower::ServiceExt;
use xxhash_rust::xxh64::xxh64;

fn header(name: &'static str) -> HashPolicy {
    HashPolicy::new(HashSource::Header(HeaderName::from_static(name), None))
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let lines = lines
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
    let mut headers = HeaderMap::new();
    lines.for_each(|(name, value)| {
        headers.append(name, value);
    });
    headers
}

fn hash(policies: &[HashPolicy], lines: &[(&'static str, &str)], uri: &str) -> Option<u64> {
    let uri: Uri = uri.parse().unwrap();
    decide(
        policies,
        &headers(lines),
        &uri,
        &exchange_of(Caller::default()),
    )
    .hash
}

fn exchange_of(caller: Caller) -> Exchange {
    Exchange::new(std::time::Instant::now(), caller)
}

#[test]
fn the_values_of_a_header_count_in_any_order() {
    let one = hash(&[header("x-a")], &[("x-a", "v")], "/");
    assert_eq!(one, Some(xxh64(b"v", 0)));
    let several = hash(&[header("x-a")], &[("x-a", "b"), ("x-a", "a")], "/");
    assert_eq!(several, Some(xxh64(b"b", xxh64(b"a", 0))));
    assert_eq!(
        several,
        hash(&[header("x-a")], &[("x-a", "a"), ("x-a", "b")], "/")
    );
    assert_eq!(hash(&[header("x-a")], &[], "/"), None);
}

#[test]
fn of_what_was_kept_only_what_may_be_hashed_counts() {
    let exchange = exchange_of(Caller::default());
    let mut state = FilterState::new(false);
    state.set("text".into(), FilterObject::Text(b"v".to_vec()));
    state.set("hashed".into(), FilterObject::HashableText(b"v".to_vec()));
    exchange.set_filter_state(state);
    let of = |keys: &[&str]| {
        let policies: Vec<_> = keys
            .iter()
            .map(|key| HashPolicy::new(HashSource::FilterState((*key).into())))
            .collect();
        let uri = Uri::from_static("/");
        decide(&policies, &HeaderMap::new(), &uri, &exchange).hash
    };
    assert_eq!(of(&["text"]), None);
    assert_eq!(of(&["missing"]), None);
    assert_eq!(of(&["text", "hashed"]), Some(xxh64(b"v", 0)));
}

#[test]
fn a_header_may_be_rewritten_first() {
    let rewrite = (Pattern::new("^/([^/]+)/.*").unwrap(), "\\1".to_owned());
    let source = HashSource::Header(HeaderName::from_static("x-a"), Some(rewrite));
    let policy = [HashPolicy::new(source)];
    assert_eq!(
        hash(&policy, &[("x-a", "/shop/1")], "/"),
        Some(xxh64(b"shop", 0))
    );
}

#[test]
fn the_host_is_found_wherever_it_is() {
    let expected = Some(xxh64(b"shop", 0));
    assert_eq!(hash(&[header("host")], &[("host", "shop")], "/"), expected);
    assert_eq!(hash(&[header("host")], &[], "http://shop/"), expected);
}

#[test]
fn the_first_value_of_a_query_parameter_counts_as_it_stands() {
    let policy = [HashPolicy::new(HashSource::Query("q".into()))];
    let of = |value: &[u8]| Some(xxh64(value, 0));
    assert_eq!(hash(&policy, &[], "/?a=1&q=x%20y&q=z"), of(b"x%20y"));
    assert_eq!(hash(&policy, &[], "/?q"), of(b""));
    assert_eq!(hash(&policy, &[], "/?qq=1"), None);
    assert_eq!(hash(&policy, &[], "/"), None);
}

#[test]
fn hashes_are_turned_and_combined_until_one_is_the_last() {
    let lines = [("x-a", "1"), ("x-b", "2")];
    let (a, b) = (xxh64(b"1", 0), xxh64(b"2", 0));
    let both = [header("x-a"), header("x-b")];
    assert_eq!(hash(&both, &lines, "/"), Some(a.rotate_left(1) ^ b));
    let mut last = both.clone();
    last[0].terminal = true;
    assert_eq!(hash(&last, &lines, "/"), Some(a));
    // One that finds nothing ends it only if there is a hash already.
    let mut absent = header("x-none");
    absent.terminal = true;
    assert_eq!(
        hash(&[absent.clone(), both[0].clone()], &lines, "/"),
        Some(a)
    );
    let ended = [both[0].clone(), absent, both[1].clone()];
    assert_eq!(hash(&ended, &lines, "/"), Some(a));
}

#[test]
fn the_callers_address_is_hashed_without_its_port() {
    let policy = [HashPolicy::new(HashSource::SourceIp)];
    // What the head says by now counts for nothing: an edit may have changed it.
    let lines = headers(&[
        ("x-forwarded-for", "1.1.1.1"),
        ("x-envoy-external-address", "1.1.1.1"),
    ]);
    let hash = |peer: &str, said: Option<&str>| {
        let mut caller = Caller::default();
        caller.peer = Some(peer.parse().unwrap());
        let manager = mesh_core::model::HttpManager::new("in", "t");
        caller.manager = Some(Arc::new(manager));
        let exchange = exchange_of(caller);
        if let Some(said) = said {
            exchange.set_remote(said.parse().unwrap());
        }
        decide(&policy, &lines, &Uri::from_static("/"), &exchange).hash
    };
    let of = |text: &[u8]| Some(xxh64(text, 0));
    assert_eq!(hash("10.0.0.1:5", None), of(b"10.0.0.1"));
    assert_eq!(hash("[::ffff:10.0.0.1]:5", None), of(b"10.0.0.1"));
    assert_eq!(hash("[::1]:5", None), of(b"::1"));
    assert_eq!(hash("10.0.0.1:5", Some("2.2.2.2:0")), of(b"2.2.2.2"));
    // As a real Envoy 1.40 does with such an address in `x-forwarded-for`.
    let mapped = "[::ffff:2.2.2.2]:0";
    assert_eq!(hash("10.0.0.1:5", Some(mapped)), of(b"::ffff:2.2.2.2"));
}

fn cookie(ttl: Option<u64>) -> HashCookie {
    let mut cookie = HashCookie::default();
    cookie.name = "stay".into();
    cookie.ttl = ttl.map(Duration::from_secs);
    cookie.path = "/p".into();
    cookie.attributes = vec![
        ("SameSite".into(), "Strict".into()),
        ("Secure".into(), "".into()),
    ];
    cookie
}

#[test]
fn a_cookie_is_read_and_made_only_where_there_is_none() {
    let made = |ttl, line| {
        let mut caller = Caller::default();
        caller.peer = Some("10.0.0.1:5".parse().unwrap());
        caller.local = Some("10.0.0.2:80".parse().unwrap());
        // Whoever hands the connection on with the PROXY protocol is nobody here.
        caller.direct = Some("10.0.0.9:9".parse().unwrap());
        let policy = [HashPolicy::new(HashSource::Cookie(cookie(ttl)))];
        decide(
            &policy,
            &headers(&[("cookie", line)]),
            &Uri::from_static("/"),
            &exchange_of(caller),
        )
    };
    let known = made(Some(60), "a=b; stay=\"me\"; stay=you");
    assert_eq!(
        (known.hash, known.cookies.len()),
        (Some(xxh64(b"me", 0)), 0)
    );
    assert_eq!(made(None, "a=b"), Decision::default());

    let value = format!("{:016x}", xxh64(b"10.0.0.1:510.0.0.2:80", 0));
    let new = made(Some(60), "stay=; staying=1");
    assert_eq!(new.hash, Some(xxh64(value.as_bytes(), 0)));
    let line = format!("stay=\"{value}\"; Max-Age=60; Path=/p; SameSite=Strict; Secure; HttpOnly");
    assert_eq!(new.cookies, [line.as_str()]);
    let session = made(Some(0), "");
    assert!(!session.cookies[0].to_str().unwrap().contains("Max-Age"));
}

fn exchange(by_hash: bool) -> Exchange {
    let mut rule = Rule::prefix_to("/", "c");
    if let Action::Forward(forward) = &mut rule.action {
        forward.hash = vec![HashPolicy::new(HashSource::Cookie(cookie(Some(5))))];
    }
    let mut cluster = Cluster::new("c");
    if by_hash {
        cluster.balancing = Balancing::RingHash(RingHash::default());
    }
    fixture::exchange(rule, Some(cluster))
}

#[tokio::test]
async fn the_layer_records_the_hash_and_gives_the_cookie() {
    for by_hash in [true, false] {
        let exchange = exchange(by_hash);
        let service = HashLayer::per_route().layer(Probe::new());
        let request = fixture::with(Request::new(empty()), &exchange);
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(exchange.hash().is_some(), by_hash);
        assert_eq!(response.headers().contains_key(SET_COOKIE), by_hash);
    }
}

#[tokio::test]
async fn an_answer_of_our_own_carries_no_cookie() {
    let exchange = exchange(true);
    let probe = Probe::answering([Answers::Fails(mesh_core::Failure::ConnectFailed)]);
    let service = HashLayer::per_route().layer(probe);
    let request = fixture::with(Request::new(empty()), &exchange);
    service.oneshot(request).await.unwrap_err();
    assert!(exchange.take_reply_headers().is_empty());
}

#[tokio::test]
async fn keeps_the_contract() {
    contract::check(HashLayer::per_route()).await;
    contract::check(HashLayer::fixed([header("x-a")])).await;
}

proptest! {
    #[test]
    fn no_cookie_line_and_no_query_make_it_panic(
        line in "[ -~]{0,40}", query in "[a-z&=%]{0,20}", ttl in prop::option::of(0..9_u64),
    ) {
        let policies = [
            HashPolicy::new(HashSource::Cookie(cookie(ttl))),
            HashPolicy::new(HashSource::Query("a".into())),
            HashPolicy::new(HashSource::SourceIp),
        ];
        let uri: Uri = format!("/?{query}").parse().unwrap();
        let lines = headers(&[("cookie", &line), ("x-forwarded-for", &line)]);
        let decision = decide(&policies, &lines, &uri, &exchange_of(Caller::default()));
        prop_assert!(decision.cookies.len() <= 1);
    }
}
