//! What becomes of a head.

use super::*;
use mesh_core::Caller;
use mesh_core::exchange::{Head, Watch};
use mesh_core::model::{Direction, EscapedSlashes, PathNormalization, UnixPath};
use mesh_core::stats::Block;

fn manager() -> HttpManager {
    HttpManager::new("test", "t")
}

fn exchange() -> Exchange {
    let mut caller = Caller::default();
    caller.peer = Some("[::ffff:10.1.2.3]:999".parse().unwrap());
    Exchange::new(tokio::time::Instant::now().into_std(), caller)
}

fn run(request: http::request::Builder, manager: &HttpManager) -> Result<Request<()>, Error> {
    let mut request = request.body(()).unwrap();
    admit(
        &mut request,
        manager,
        &exchange(),
        &Rng::with_seed(1),
        None,
        &mut None,
    )?;
    Ok(request)
}

#[test]
fn the_authority_of_an_absolute_target_wins_over_host() {
    let request = Request::get("http://reviews:9080/x").header("host", "other");
    assert_eq!(
        run(request, &manager()).unwrap().headers()["host"],
        "reviews:9080"
    );
}

#[test]
fn a_request_without_a_host_or_with_two_is_refused() {
    let error = run(Request::get("/x"), &manager()).unwrap_err();
    assert_eq!(error.failure(), Failure::MissingHost);
    let two = Request::get("/x").header("host", "a").header("host", "b");
    assert_eq!(
        run(two, &manager()).unwrap_err().failure(),
        Failure::BadRequest
    );
}

#[test]
fn a_tunnel_meets_no_rule_and_counts_as_in_envoys_router() {
    let block = Arc::new(Block::<HttpStat>::default());
    let mut caller = Caller::default();
    caller.stats = Some(block.clone());
    let exchange = Exchange::new(tokio::time::Instant::now().into_std(), caller);
    let mut request = Request::connect("a.b:80").body(()).unwrap();
    let error = admit(
        &mut request,
        &manager(),
        &exchange,
        &Rng::with_seed(1),
        None,
        &mut None,
    )
    .unwrap_err();
    assert_eq!(error.failure(), Failure::NoRoute);
    // Envoy 1.40: http.in.rq_total: 1, http.in.no_route: 1.
    assert_eq!(block.get(HttpStat::RouterRqTotal), 1);
    assert_eq!(block.get(HttpStat::NoRoute), 1);
}

#[test]
fn a_head_that_is_refused_is_the_last_on_its_connection() {
    let error = run(Request::get("/x"), &manager()).unwrap_err();
    let answer = closing(error).take_answer().unwrap();
    assert_eq!(answer.status, 400);
    assert_eq!(answer.headers["connection"], "close");
    let connect = Request::connect("a:1").header("host", "a:1");
    let error = closing(run(connect, &manager()).unwrap_err());
    assert_eq!(error.failure(), Failure::NoRoute);
    let answer = closing(Error::new(Failure::NotAPath)).take_answer();
    assert!(!answer.unwrap().headers.contains_key("connection"));
    let elsewhere = Answer::new(StatusCode::TEMPORARY_REDIRECT);
    let answer = closing(Error::answer(Failure::InvalidPath, elsewhere)).take_answer();
    assert!(!answer.unwrap().headers.contains_key("connection"));
}

#[test]
fn what_is_forwarded_is_the_normalised_path() {
    let request = run(Request::get("/a/../b?c").header("host", "h"), &manager()).unwrap();
    assert_eq!(request.uri(), "/b?c");
    let mut keep = manager();
    keep.path = PathNormalization::default();
    let request = run(Request::get("/a/../b?c").header("host", "h"), &keep).unwrap();
    assert_eq!(request.uri(), "/a/../b?c");
}

#[test]
fn who_calls_over_a_unix_socket_adds_nothing_to_the_list_of_addresses() {
    let headers = |trusted_hops| {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "192.0.2.9".parse().unwrap());
        headers.insert("x-forwarded-proto", "https".parse().unwrap());
        let mut caller = Caller::default();
        caller.unix = Some(UnixPath::new("/run/a.sock").unwrap());
        let mut edge = manager();
        edge.use_remote_address = true;
        edge.trusted_hops = trusted_hops;
        let now = tokio::time::Instant::now().into_std();
        forwarded(&mut headers, &Exchange::new(now, caller), &edge, true);
        let text = |name: &str| Some(headers.get(name)?.to_str().unwrap().to_owned());
        let names = [
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-envoy-external-address",
        ];
        names.map(|name| text(name).unwrap_or_default())
    };
    // As a real Envoy 1.40 does.
    assert_eq!(headers(0), ["192.0.2.9", "http", ""]);
    assert_eq!(headers(1), ["192.0.2.9", "https", "192.0.2.9"]);
}

#[test]
fn cookies_of_http_2_are_one_line_again() {
    let cookies = |version| {
        let request = Request::get("/").version(version).header("host", "h");
        let request = request.header("cookie", "a=1").header("cookie", "b=2; c=3");
        let request = run(request, &manager()).unwrap();
        let lines = request.headers().get_all("cookie").iter();
        let lines = lines.map(|line| line.to_str().unwrap().to_owned());
        lines.collect::<Vec<_>>()
    };
    assert_eq!(cookies(Version::HTTP_2), ["a=1; b=2; c=3"]);
    // Two lines of HTTP/1.1 stay what they are.
    assert_eq!(cookies(Version::HTTP_11), ["a=1", "b=2; c=3"]);
}

#[test]
fn lines_that_say_who_calls_are_one_line_and_no_others_are_joined() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let request = Request::get("/").version(version).header("host", "h");
        let request = request
            .header("authorization", "Bearer a")
            .header("x-a", "1");
        let request = request
            .header("authorization", "Bearer b")
            .header("x-a", "2");
        let request = run(request, &manager()).unwrap();
        let lines = |name| request.headers().get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(lines("authorization"), ["Bearer a,Bearer b"]);
        assert_eq!(lines("x-a"), ["1", "2"]);
    }
}

#[test]
fn a_request_id_is_a_random_uuid_and_an_inner_one_is_kept() {
    let request = run(Request::get("/").header("host", "h"), &manager()).unwrap();
    let id = request.headers()["x-request-id"].to_str().unwrap();
    assert_eq!(id.len(), 36);
    assert_eq!(&id[14..15], "4");
    assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
    let inner = Request::get("/")
        .header("host", "h")
        .header("x-request-id", "mine");
    assert_eq!(
        run(inner, &manager()).unwrap().headers()["x-request-id"],
        "mine"
    );
}

#[test]
fn the_edge_writes_down_the_peer_and_drops_what_only_insiders_may_say() {
    let mut edge = manager();
    edge.use_remote_address = true;
    let request = Request::get("/")
        .header("host", "h")
        .header("x-forwarded-for", "1.1.1.1")
        .header("x-forwarded-proto", "https")
        .header("x-envoy-max-retries", "9")
        .header("x-request-id", "theirs");
    let request = run(request, &edge).unwrap();
    assert_eq!(request.headers()["x-forwarded-for"], "1.1.1.1,10.1.2.3");
    assert_eq!(request.headers()["x-forwarded-proto"], "http");
    assert_eq!(request.headers()["x-envoy-external-address"], "10.1.2.3");
    assert!(!request.headers().contains_key("x-envoy-max-retries"));
    assert_ne!(request.headers()["x-request-id"], "theirs");
}

#[test]
fn a_trusted_proxy_in_front_names_the_caller() {
    let mut edge = manager();
    edge.use_remote_address = true;
    edge.trusted_hops = 1;
    let request = Request::get("/")
        .header("host", "h")
        .header("x-forwarded-for", "8.8.8.8, 9.9.9.9");
    let request = run(request, &edge).unwrap();
    assert_eq!(request.headers()["x-envoy-external-address"], "9.9.9.9");
}

#[test]
fn the_list_of_proxies_may_be_on_several_lines() {
    let mut edge = manager();
    edge.use_remote_address = true;
    edge.trusted_hops = 1;
    let request = Request::get("/")
        .header("host", "h")
        .header("x-forwarded-for", "8.8.8.8")
        .header("x-forwarded-for", "")
        .header("x-forwarded-for", "7.7.7.7, 9.9.9.9");
    let request = run(request, &edge).unwrap();
    assert_eq!(request.headers()["x-envoy-external-address"], "9.9.9.9");
    let mut lists = request.headers().get_all("x-forwarded-for").iter();
    assert_eq!(lists.next().unwrap(), "8.8.8.8,7.7.7.7, 9.9.9.9,10.1.2.3");
    assert!(lists.next().is_none());
}

#[test]
fn connection_cannot_take_away_what_we_add() {
    let mut edge = manager();
    edge.use_remote_address = true;
    let request = Request::get("/")
        .header("host", "h")
        .header("connection", "close, x-mine")
        .header(
            "connection",
            "X-Forwarded-For, x-request-id, x-forwarded-proto",
        )
        .header("x-mine", "1");
    let request = run(request, &edge).unwrap();
    for name in ["x-forwarded-for", "x-request-id", "x-forwarded-proto"] {
        assert!(request.headers().contains_key(name), "{name}");
    }
    for name in ["x-mine", "connection"] {
        assert!(!request.headers().contains_key(name), "{name}");
    }
}

#[test]
fn whoever_has_the_host_removed_has_none() {
    // Envoy 1.40 answers 400 `missing_host_header`, unless the target has one.
    let hop = |target: &str, upgrade: &'static str| {
        let request = Request::get(target).header("host", "h");
        let request = request.header("connection", "x-a, Host, upgrade");
        let mut fit = manager();
        fit.upgrades = vec!["foo".into()];
        run(request.header("upgrade", upgrade), &fit)
    };
    let error = hop("/", "h2c").unwrap_err();
    assert_eq!(error.failure(), Failure::MissingHost);
    assert_eq!(hop("http://g/", "h2c").unwrap().headers()["host"], "g");
    // What a switch of protocols brings along stays.
    assert_eq!(hop("/", "foo").unwrap().headers()["host"], "h");
}

#[test]
fn nobody_switches_to_h2c() {
    let request = |upgrade: &str| {
        let request = Request::get("/").header("host", "h");
        request
            .header("connection", "Upgrade, http2-settings")
            .header("upgrade", upgrade)
            .header("http2-settings", "AAMAAABkAAQAAP__")
    };
    let passed = run(request("H2C"), &manager()).unwrap();
    for name in ["connection", "upgrade", "http2-settings"] {
        assert!(!passed.headers().contains_key(name), "{name}");
    }
    // One of several is no wish that we know.
    let error = run(request("h2c, foo"), &manager()).unwrap_err();
    assert_eq!(error.failure(), Failure::UpgradeRefused);
}

#[test]
fn an_outsider_cannot_forge_what_a_rewrite_leaves() {
    for (edge, left) in [(true, 0), (false, 2)] {
        let mut manager = manager();
        manager.use_remote_address = edge;
        let request = Request::get("/")
            .header("host", "h")
            .header("x-envoy-original-host", "forged")
            .header("x-envoy-original-path", "/forged");
        let request = run(request, &manager).unwrap();
        let names = request.headers().keys();
        let claims = names.filter(|name| name.as_str().starts_with("x-envoy-original"));
        assert_eq!(claims.count(), left, "{edge}");
    }
}

#[test]
fn an_outsider_cannot_claim_a_certificate() {
    let mut edge = manager();
    edge.use_remote_address = true;
    let claim = || {
        Request::get("/")
            .header("host", "h")
            .header("x-forwarded-client-cert", "By=x")
    };
    let request = run(claim(), &edge).unwrap();
    assert!(!request.headers().contains_key("x-forwarded-client-cert"));
    // Nor can anybody who showed none, as in Envoy unless it is told to forward always.
    let request = run(claim(), &manager()).unwrap();
    assert!(!request.headers().contains_key("x-forwarded-client-cert"));
}

#[test]
fn nobody_who_comes_through_a_gateway_is_a_workload() {
    let claim = || {
        Request::get("/")
            .header("host", "h")
            .header("x-envoy-peer-metadata", "CgA=")
            .header("x-envoy-peer-metadata-id", "mine")
    };
    for (direction, left) in [
        (Direction::Gateway, 0),
        (Direction::Outbound, 2),
        (Direction::Inbound, 2),
    ] {
        let mut manager = manager();
        manager.direction = direction;
        let request = run(claim(), &manager).unwrap();
        let names = request.headers().keys();
        let claims = names.filter(|name| name.as_str().contains("peer"));
        assert_eq!(claims.count(), left, "{direction:?}");
    }
}

#[test]
fn a_host_is_an_authority_and_nothing_else() {
    for host in ["reviews", "reviews:9080", "[::1]:80", "a_b.c-d~e", "x%20"] {
        assert!(
            run(Request::get("/").header("host", host), &manager()).is_ok(),
            "{host}"
        );
    }
    for host in ["a/b", "a b", "a?b", "a#b", "u@a", "a\\b", "a\tb"] {
        let request = Request::get("/").version(Version::HTTP_2);
        let error = run(request.header("host", host), &manager()).unwrap_err();
        assert_eq!(error.failure(), Failure::BadRequest, "{host}");
    }
}

#[test]
fn tunnels_are_refused() {
    let request = Request::connect("a:443").header("host", "a:443");
    let error = run(request, &manager()).unwrap_err();
    assert_eq!(error.failure(), Failure::NoRoute);
}

#[test]
fn only_upgrades_that_the_listener_allows_pass() {
    let upgrade = |to| {
        Request::get("/")
            .header("host", "h")
            .header("connection", "upgrade")
            .header("upgrade", to)
    };
    assert!(run(upgrade("WebSocket"), &manager()).is_ok());
    let error = run(upgrade("h2c, websocket"), &manager()).unwrap_err();
    assert_eq!(error.failure(), Failure::UpgradeRefused);
}

#[test]
fn a_route_lets_upgrades_pass_or_not_whatever_the_listener_says() {
    use mesh_core::Publisher;
    use mesh_core::model::{Action, Forward, RouteTable, Rule, SnapshotBuilder, VirtualHost};
    let mut forward = Forward::to("a");
    forward.upgrades = vec![("websocket".into(), false), ("foo".into(), true)];
    let rule = Rule::new(Default::default(), Action::Forward(forward));
    let mut builder = SnapshotBuilder::new();
    let host = VirtualHost::new("all", ["here"]).rule(rule);
    builder.routes(RouteTable::new("t").host(host));
    let feed = Publisher::from_arc(builder.build().unwrap().0).feed();
    let notes = mesh_route::RouteLayer::new(feed).table("t").notes();
    let upgrade = |to: &str, host: &str| {
        let request = Request::get("/").header("host", host);
        let request = request
            .header("connection", "upgrade")
            .header("upgrade", to);
        let mut request = request.body(()).unwrap();
        let exchange = exchange();
        exchange.attach(&mut request);
        admit(
            &mut request,
            &manager(),
            &exchange,
            &Rng::with_seed(1),
            Some(&notes),
            &mut None,
        )
        .is_ok()
    };
    assert!(!upgrade("WebSocket", "here"));
    assert!(upgrade("Foo", "here"));
    assert!(!upgrade("bar", "here"));
    assert!(upgrade("websocket", "elsewhere"));
    assert!(!upgrade("foo", "elsewhere"));
}

#[test]
fn nobody_steers_retries_and_timeouts_from_outside() {
    let steering = Request::get("/")
        .header("host", "h")
        .header("x-envoy-retry-on", "5xx")
        .header("x-envoy-upstream-rq-timeout-ms", "1")
        .header("x-envoy-decorator-operation", "mine")
        .header("x-request-id", "");
    let request = run(steering, &manager()).unwrap();
    let has = |name: &str| request.headers().contains_key(name);
    assert!(!has("x-envoy-retry-on") && !has("x-envoy-upstream-rq-timeout-ms"));
    assert!(has("x-envoy-decorator-operation"), "only the edge takes it");
    assert!(!request.headers()["x-request-id"].is_empty());
}

#[test]
fn what_is_no_path_is_not_found_and_no_route_is_looked_for() {
    let star = Request::options("*").header("host", "h");
    let error = run(star, &manager()).unwrap_err();
    assert_eq!(error.failure(), Failure::NotAPath);
}

/// Who a caller at 10.1.2.3:999 is said to be.
fn remote(manager: &HttpManager, list: &[&'static str]) -> String {
    let mut request = Request::get("/").header("host", "h").body(()).unwrap();
    for line in list {
        let line = HeaderValue::from_static(line);
        request.headers_mut().append("x-forwarded-for", line);
    }
    let exchange = exchange();
    admit(
        &mut request,
        manager,
        &exchange,
        &Rng::with_seed(1),
        None,
        &mut None,
    )
    .unwrap();
    exchange.remote().unwrap().to_string()
}

#[test]
fn who_calls_is_what_a_trusted_proxy_says() {
    let peer = "[::ffff:10.1.2.3]:999";
    for (hops, list, inside, at_the_edge) in [
        (0, &["1.1.1.1, 2.2.2.2"][..], "2.2.2.2:0", peer),
        (1, &["1.1.1.1, 2.2.2.2"], "1.1.1.1:0", "2.2.2.2:0"),
        (1, &["1.1.1.1", " ::1 "], "1.1.1.1:0", "[::1]:0"),
        (2, &["1.1.1.1, 2.2.2.2"], peer, "1.1.1.1:0"),
        (0, &["nonsense"], peer, peer),
        (1, &[], peer, peer),
    ] {
        let mut manager = manager();
        manager.trusted_hops = hops;
        assert_eq!(remote(&manager, list), inside, "{hops} {list:?}");
        manager.use_remote_address = true;
        assert_eq!(remote(&manager, list), at_the_edge, "{hops} {list:?}");
    }
}

#[test]
fn the_edge_may_leave_the_list_of_addresses_alone() {
    let mut edge = manager();
    edge.use_remote_address = true;
    edge.keep_forwarded_for = true;
    let request = Request::get("/")
        .header("host", "h")
        .header("x-forwarded-for", "1.1.1.1");
    let request = run(request, &edge).unwrap();
    assert_eq!(request.headers()["x-forwarded-for"], "1.1.1.1");
    assert_eq!(request.headers()["x-envoy-external-address"], "10.1.2.3");
}

#[test]
fn ports_are_taken_off_before_anything_looks_at_the_authority() {
    for (which, host, expected) in [
        (StripPort::Any, "a:81", "a"),
        (StripPort::Any, "[::1]:81", "[::1]"),
        (StripPort::Any, "[::1]", "[::1]"),
        (StripPort::Any, "a", "a"),
        (StripPort::Any, "a:", "a:"),
        (StripPort::Matching, "a:81", "a:81"),
        (StripPort::Matching, "a:80", "a"),
        (StripPort::Keep, "a:80", "a:80"),
    ] {
        let mut manager = manager();
        manager.strip_port = which;
        let mut caller = Caller::default();
        caller.local = Some("10.0.0.1:80".parse().unwrap());
        let exchange = Exchange::new(tokio::time::Instant::now().into_std(), caller);
        for request in [
            Request::get("/").header("host", host),
            Request::get(format!("http://{host}/")),
        ] {
            let Ok(mut request) = request.body(()) else {
                // No URI has such an authority.
                continue;
            };
            admit(
                &mut request,
                &manager,
                &exchange,
                &Rng::with_seed(1),
                None,
                &mut None,
            )
            .unwrap();
            assert_eq!(request.headers()["host"], expected, "{which:?} {host}");
            let authority = request.uri().authority().map(|it| it.as_str());
            assert!(authority.is_none_or(|it| it == expected), "{request:?}");
        }
    }
}

#[test]
fn we_join_those_who_passed_a_request_on() {
    let mut named = manager();
    named.via = "1.1 me".into();
    let via = |request| run(request, &named).unwrap().headers()["via"].clone();
    let plain = || Request::get("/").header("host", "h");
    assert_eq!(via(plain()), "1.1 me");
    assert_eq!(via(plain().header("via", "1.0 a")), "1.0 a, 1.1 me");
    assert!(
        !run(plain(), &manager())
            .unwrap()
            .headers()
            .contains_key("via")
    );
}

#[test]
fn every_head_is_noted_as_it_goes_on_for_who_wants_it() {
    let noted = |request: http::request::Builder, watched: &'static str| {
        let exchange = exchange();
        exchange.watch(Arc::new(Watch {
            target: true,
            headers: vec![HeaderName::from_static(watched)],
        }));
        let mut request = request.body(()).unwrap();
        let rng = Rng::with_seed(1);
        admit(&mut request, &manager(), &exchange, &rng, None, &mut None).unwrap();
        exchange.take_head().unwrap()
    };
    let plain = |path| Request::get(path).header("host", "h");
    let head = noted(plain("/a"), "x-a");
    assert_eq!(head.target.unwrap().1, "/a", "nothing of it changed");
    let head = noted(plain("/a/../b"), "x-a");
    assert_eq!(head.target.unwrap().1, "/b");
    let head = noted(plain("/a"), "x-forwarded-proto");
    assert_eq!(head.headers[0].1, "http");
    let steered = plain("/a").header("x-envoy-retry-on", "5xx");
    assert!(noted(steered, "x-envoy-retry-on").headers.is_empty());
}

#[test]
fn a_head_that_is_refused_is_noted_as_it_came() {
    let mut strict = manager();
    strict.path.escaped_slashes = EscapedSlashes::Reject;
    for builder in [
        Request::get("/a%2fb")
            .header("host", "h")
            .header("connection", "x"),
        Request::get("/a%2fb").header("host", "h"),
        Request::get("/a"),
        Request::get("*").header("host", "h"),
        Request::connect("a:1"),
    ] {
        let exchange = exchange();
        let watch = Arc::new(Watch {
            target: true,
            headers: vec![header::CONNECTION],
        });
        exchange.watch(watch.clone());
        let mut request = builder.body(()).unwrap();
        let came = Head::of(&request, &watch);
        let rng = Rng::with_seed(1);
        assert!(admit(&mut request, &strict, &exchange, &rng, None, &mut None).is_err());
        let head = exchange.take_head().expect("it is noted all the same");
        assert_eq!(format!("{head:?}"), format!("{came:?}"));
    }
}

#[test]
fn an_id_is_a_random_uuid() {
    let id = request_id(0x0123_4567_89ab_cdef, 0x0011_2233_4455_6677);
    assert_eq!(id, "01234567-89ab-4def-8011-223344556677");
    let id = request_id(u64::MAX, u64::MAX);
    assert_eq!(id, "ffffffff-ffff-4fff-bfff-ffffffffffff");
}
