use super::*;
use http::{HeaderName, HeaderValue, StatusCode};
use mesh_core::model::{Endpoint, HashCookie, HttpManager, Rule, SessionState};
use mesh_core::{Caller, Name, Shard, base64};
use mesh_test::{Probe, contract, empty, fixture};
use proptest::prelude::*;
use std::convert::Infallible;
use std::time::{Duration, Instant};
use tower::{ServiceExt, service_fn};

const HERE: &str = "10.0.0.1:80";
const THERE: &str = "10.0.0.2:80";
const NOW: u64 = 1_800_000_000;

fn cookie(path: &str, ttl: Option<u64>) -> SessionState {
    let mut cookie = HashCookie::default();
    cookie.name = "sc".into();
    cookie.path = path.into();
    cookie.ttl = ttl.map(Duration::from_secs);
    SessionState::Cookie(cookie)
}

fn header() -> SessionState {
    SessionState::Header(HeaderName::from_static("x-s"))
}

fn envelope() -> SessionState {
    SessionState::Envelope(HeaderName::from_static("x-e"))
}

fn old(address: &str) -> String {
    base64::encode(address.as_bytes())
}

fn new(address: &str, ends: Option<u64>) -> String {
    let mut message = Vec::new();
    mesh_core::protobuf::put_bytes(1, address.as_bytes(), &mut message);
    if let Some(ends) = ends {
        mesh_core::protobuf::put_number(2, ends, &mut message);
    }
    base64::encode(&message)
}

fn request(uri: &str, lines: &[(&'static str, &str)]) -> Request<()> {
    let mut request = Request::get(uri).body(()).unwrap();
    for (name, value) in lines {
        let value = HeaderValue::from_str(value).unwrap();
        request.headers_mut().append(*name, value);
    }
    request
}

fn found(state: &SessionState, uri: &str, lines: &[(&'static str, &str)]) -> Found {
    state::read(state, &mut request(uri, lines), NOW)
}

fn asked(address: &str) -> Found {
    Found::Asked(Some(address.to_owned()))
}

/// All of these were seen of Envoy 1.40.
#[test]
fn cookies_are_read_as_envoy_reads_them() {
    let of = |value: String| found(&cookie("", None), "/", &[("cookie", &value)]);
    let nobody = Found::Asked(None);
    for (value, expected) in [
        (format!("sc={}", new(HERE, None)), asked(HERE)),
        (format!("a=b; sc=\"{}\"", new(HERE, None)), asked(HERE)),
        (format!("sc={}", new(HERE, Some(0))), asked(HERE)),
        (format!("sc={}", new(HERE, Some(NOW))), asked(HERE)),
        (format!("sc={}", new(HERE, Some(NOW - 1))), nobody.clone()),
        (
            format!("sc={}; sc={}", new(HERE, None), new(THERE, None)),
            asked(HERE),
        ),
        // The address alone, unless it happens to be a message.
        (
            format!("sc={}", old("127.0.0.1:38089")),
            asked("127.0.0.1:38089"),
        ),
        (format!("sc={}", old(HERE)), nobody.clone()),
        (
            format!("sc={}", new(HERE, Some(NOW)).trim_end_matches('=')),
            nobody.clone(),
        ),
        ("sc=!!".to_owned(), nobody.clone()),
        ("sc=".to_owned(), nobody.clone()),
        ("other=x".to_owned(), nobody.clone()),
        // An end without an address.
        ("sc=EAU=".to_owned(), nobody),
    ] {
        assert_eq!(of(value.clone()), expected, "{value}");
    }
}

#[test]
fn a_cookie_is_for_the_requests_below_its_path() {
    let is_for = |path, uri| found(&cookie(path, None), uri, &[]) != Found::Nowhere;
    for (path, uri, expected) in [
        ("", "/any", true),
        ("/", "/any", true),
        ("/a", "/a", true),
        ("/a", "/a/b", true),
        ("/a", "/a?b", true),
        ("/a", "/ab", false),
        ("/a", "/", false),
        ("/a/", "/a", false),
        ("/a/", "/a/", true),
        ("/a/", "/a/b", true),
    ] {
        assert_eq!(is_for(path, uri), expected, "{path} {uri}");
    }
}

#[test]
fn a_header_is_the_address_alone() {
    let of = |value: &str| found(&header(), "/", &[("x-s", value)]);
    assert_eq!(of(&old(HERE)), asked(HERE));
    assert_eq!(of("zz"), Found::Asked(None));
    assert_eq!(found(&header(), "/", &[]), Found::Asked(None));
    assert_ne!(
        of(&new(HERE, None)),
        asked(HERE),
        "as it is written in cookies"
    );
}

/// All of these were seen of Envoy 1.40.
#[test]
fn an_envelope_is_taken_off_where_there_is_something_in_it() {
    let (here, own) = (old(HERE), old("sid"));
    for (value, expected, left) in [
        (format!("{here};UV:{own}"), Some(HERE), "sid"),
        (format!("{here};;Q:1;UV:{own}"), Some(HERE), "sid"),
        (format!("zz;UV:{own}"), None, "sid"),
        (here.clone(), None, &here),
        (format!("{here};UV:"), None, &format!("{here};UV:")),
        (format!("{here};UV:!"), None, &format!("{here};UV:!")),
    ] {
        let mut request = request("/", &[("x-e", &value)]);
        let found = state::read(&envelope(), &mut request, NOW);
        assert_eq!(found, Found::Asked(expected.map(str::to_owned)), "{value}");
        assert_eq!(request.headers()["x-e"], left, "{value}");
    }
}

fn told(state: &SessionState, is_other: bool, own: &[&'static str]) -> Option<String> {
    let mut headers = HeaderMap::new();
    for own in own {
        headers.append("x-e", HeaderValue::from_static(own));
    }
    let told = state::write(state, HERE, is_other, &headers, || NOW)?;
    Some(format!("{}: {}", told.name, told.value.to_str().unwrap()))
}

#[test]
fn callers_are_told_as_envoy_tells_them() {
    // From Envoy: 127.0.0.1:38707 without an end.
    let state = cookie("/ck/", None);
    let seen = state::write(&state, "127.0.0.1:38707", true, &HeaderMap::new(), || NOW).unwrap();
    assert_eq!(
        seen.value,
        "sc=\"Cg8xMjcuMC4wLjE6Mzg3MDc=\"; Path=/ck/; HttpOnly"
    );

    let expected = format!(
        "set-cookie: sc=\"{}\"; Max-Age=60; HttpOnly",
        new(HERE, Some(NOW + 60))
    );
    assert_eq!(told(&cookie("", Some(60)), true, &[]), Some(expected));
    assert_eq!(told(&cookie("", Some(60)), false, &[]), None);
    let plain = format!("set-cookie: sc=\"{}\"; HttpOnly", new(HERE, None));
    assert_eq!(told(&cookie("", Some(0)), true, &[]), Some(plain));
    assert_eq!(
        told(&header(), true, &[]),
        Some(format!("x-s: {}", old(HERE)))
    );
    assert_eq!(told(&header(), false, &[]), None);
    let wrapped = format!("x-e: {};UV:{}", old(HERE), old("sid"));
    assert_eq!(told(&envelope(), false, &["sid"]), Some(wrapped));
    assert_eq!(told(&envelope(), true, &[]), None);
    assert_eq!(told(&envelope(), true, &["a", "b"]), None);
}

proptest! {
    #[test]
    fn what_is_told_is_read_back(address in "[ -~]{1,40}", ttl in prop::option::of(0..1_000_000_u64), own in "[!-~]{1,20}") {
        for state in [cookie("", ttl), header(), envelope()] {
            let mut answer = HeaderMap::new();
            answer.insert("x-e", HeaderValue::from_str(&own).unwrap());
            let told = state::write(&state, &address, true, &answer, || NOW).unwrap();
            let value = told.value.to_str().unwrap();
            let name = if told.name == SET_COOKIE { "cookie" } else if told.name == "x-s" { "x-s" } else { "x-e" };
            let value = value.split("; ").next().unwrap();
            prop_assert_eq!(found(&state, "/", &[(name, value)]), asked(&address));
        }
    }

    #[test]
    fn whatever_callers_say_is_read(value in "[ -~]{0,60}") {
        for (name, state) in [("cookie", cookie("", None)), ("x-s", header()), ("x-e", envelope())] {
            let line = if name == "cookie" { format!("sc={value}") } else { value.clone() };
            let _ = found(&state, "/", &[(name, &line)]);
        }
    }
}

// === the layer ===

fn manager(session: Option<Policy>) -> Caller {
    let mut manager = HttpManager::new("in", "routes");
    manager.session = session.map(Arc::new);
    let mut caller = Caller::default();
    caller.manager = Some(Arc::new(manager));
    caller
}

fn counting(state: Option<SessionState>, strict: bool) -> Policy {
    let mut policy = Policy::default();
    policy.state = state;
    policy.strict = strict;
    policy.stat_prefix = "st".into();
    policy
}

fn counts(book: &SessionBook) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for ((manager, prefix), block) in book.all() {
        let owner = manager.map_or_else(String::new, |manager: Name| format!("{manager}."));
        let stats = block.iter().filter(|(_, _, value)| *value > 0);
        all.extend(stats.map(|(name, _, value)| (format!("{owner}{prefix}.{name}"), value)));
    }
    all
}

/// What a caller gets whose request asks for HERE and is answered by this endpoint.
async fn exchanged(
    policy: Policy,
    uri: &str,
    endpoint: Option<&'static str>,
    failure: Option<Failure>,
) -> (Result<Response<()>, Error>, Exchange, Vec<(String, u64)>) {
    let exchange = Exchange::new(Instant::now(), manager(Some(policy)));
    let book = SessionBook::default();
    let clock = WallClock::fixed(Duration::from_secs(NOW));
    let layer = SessionLayer::per_route().book(book.clone()).clock(clock);
    let service = layer.layer(service_fn(move |request: Request<()>| async move {
        if let Some(endpoint) = endpoint {
            let endpoint = Endpoint::new(fixture::address(endpoint));
            let upstream = mesh_core::exchange::Upstream::new(Arc::new(endpoint));
            Exchange::of(&request).unwrap().set_upstream(upstream);
        }
        match failure {
            Some(failure) => Err(Error::new(failure)),
            None => Ok(Response::new(())),
        }
    }));
    let mut request = request(uri, &[("x-s", &old(HERE))]);
    exchange.attach(&mut request);
    let result = service.oneshot(request).await;
    (result, exchange, counts(&book))
}

fn one(name: &str) -> Vec<(String, u64)> {
    vec![(format!("in.st.{name}"), 1)]
}

#[tokio::test]
async fn a_caller_is_told_of_another_endpoint_only() {
    let policy = || counting(Some(header()), false);
    let (result, exchange, counted) = exchanged(policy(), "/", Some(HERE), None).await;
    assert!(result.unwrap().headers().is_empty());
    assert_eq!(exchange.session_host().unwrap().address, HERE);
    assert_eq!(counted, one("routed"));
    let (result, _, counted) = exchanged(policy(), "/", Some(THERE), None).await;
    assert_eq!(result.unwrap().headers()["x-s"], old(THERE));
    assert_eq!(counted, one("failed_open"));
    let (result, _, counted) = exchanged(policy(), "/", None, None).await;
    assert!(result.unwrap().headers().is_empty(), "nobody was asked");
    assert_eq!(counted, []);
}

#[tokio::test]
async fn an_answer_of_ours_tells_of_the_endpoint_that_was_tried() {
    let policy = counting(Some(header()), false);
    let failure = Some(Failure::ConnectFailed);
    let (result, exchange, counted) = exchanged(policy, "/", Some(THERE), failure).await;
    assert_eq!(result.unwrap_err().failure(), Failure::ConnectFailed);
    let mut headers = HeaderMap::new();
    for edit in exchange.take_reply_edits() {
        edit.apply(&mut headers);
    }
    assert_eq!(headers["x-s"], old(THERE));
    assert_eq!(counted, one("failed_open"));
}

#[tokio::test]
async fn where_it_has_to_be_the_same_it_counts_what_was_refused() {
    let mut policy = counting(Some(header()), true);
    policy.missing_status = StatusCode::NOT_FOUND;
    let failure = Some(Failure::NoHealthyHost);
    let (_, exchange, counted) = exchanged(policy, "/", None, failure).await;
    let asked = exchange.session_host().unwrap();
    assert_eq!(
        (asked.strict, asked.missing_status),
        (true, StatusCode::NOT_FOUND)
    );
    assert_eq!(counted, one("failed_closed"));
    let policy = counting(Some(header()), false);
    let (_, _, counted) = exchanged(policy, "/", None, failure).await;
    assert_eq!(counted, []);
}

#[tokio::test]
async fn requests_without_a_session_are_counted_where_they_reach_an_endpoint() {
    let (result, exchange, counted) = exchanged(counting(None, false), "/", Some(HERE), None).await;
    assert!(result.unwrap().headers().is_empty());
    assert_eq!(exchange.session_host(), None);
    assert_eq!(counted, one("no_session"));
    let elsewhere = counting(Some(cookie("/a", None)), false);
    let (_, _, counted) = exchanged(elsewhere, "/b", Some(HERE), None).await;
    assert_eq!(counted, one("no_session"));
    let (_, _, counted) = exchanged(
        counting(None, true),
        "/",
        None,
        Some(Failure::NoHealthyHost),
    )
    .await;
    assert_eq!(counted, []);
}

fn kept(
    listener: Option<Policy>,
    rule: Option<RouteSession>,
    caller: bool,
) -> Option<(bool, bool)> {
    let mut routed = Rule::prefix_to("/", "c");
    routed.session = rule;
    let matched = fixture::exchange(routed, Some(mesh_core::model::Cluster::new("c")));
    let caller = match caller {
        true => manager(listener),
        false => Caller::default(),
    };
    let exchange = Exchange::new(Instant::now(), caller);
    exchange.set_matched(matched.matched().unwrap().clone());
    let (policy, of_listener) = policy(&exchange)?;
    Some((policy.strict, of_listener))
}

#[test]
fn a_rule_has_a_say_where_its_listener_keeps_sessions() {
    let own = || Some(RouteSession::Instead(Arc::new(counting(None, true))));
    let listener = || Some(counting(None, false));
    assert_eq!(kept(listener(), None, true), Some((false, true)));
    assert_eq!(kept(listener(), own(), true), Some((true, false)));
    assert_eq!(kept(listener(), Some(RouteSession::Off), true), None);
    assert_eq!(kept(None, own(), true), None);
    assert_eq!(
        kept(None, own(), false),
        Some((true, false)),
        "without a listener"
    );
    assert_eq!(kept(None, None, false), None);
}

#[tokio::test]
async fn a_redirect_that_is_followed_tells_nobody_of_its_endpoint() {
    let exchange = Exchange::new(
        Instant::now(),
        manager(Some(counting(Some(header()), false))),
    );
    let endpoint = Endpoint::new(fixture::address(THERE));
    exchange.set_upstream(mesh_core::exchange::Upstream::new(Arc::new(endpoint)));
    exchange.go_on(mesh_core::Onward {
        request: Request::new(Vec::new()),
        trailers: None,
    });
    let book = SessionBook::default();
    let service = SessionLayer::per_route().book(book.clone());
    let service = service.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(()))
    }));
    let mut request = request("/", &[]);
    exchange.attach(&mut request);
    let response = service.oneshot(request).await.unwrap();
    assert!(response.headers().is_empty());
    assert_eq!(counts(&book), []);
    assert_eq!(exchange.shard(), Shard::default());
}

#[tokio::test]
async fn keeps_the_contract_without_an_exchange() {
    contract::check(SessionLayer::fixed(Policy::new(header()))).await;
    contract::check(SessionLayer::per_route()).await;
    let probe = Probe::new();
    let service = SessionLayer::per_route().layer(probe.clone());
    service.oneshot(Request::new(empty())).await.unwrap();
    assert_eq!(probe.calls(), 1);
}
