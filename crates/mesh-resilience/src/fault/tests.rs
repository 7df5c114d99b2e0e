use super::*;
use http::StatusCode;
use mesh_core::Caller;
use mesh_core::model::{FaultAbort, FaultDelay, Rule};
use mesh_core::stats::Block;
use mesh_test::{Answers, BoxedBody, Probe, contract, empty, fixture};
use tokio::time::Instant;
use tower::ServiceExt;

const SECOND: Duration = Duration::from_secs(1);

fn fault(delay: Option<Fraction>, abort: Option<Fraction>) -> model::Fault {
    let mut fault = model::Fault::default();
    fault.delay = delay.map(|share| FaultDelay {
        by: DelayBy::Fixed(7 * SECOND),
        share,
    });
    fault.abort = abort.map(|share| FaultAbort {
        with: AbortWith::Http(StatusCode::INTERNAL_SERVER_ERROR),
        share,
    });
    fault
}

#[tokio::test]
async fn keeps_the_contract_of_a_layer() {
    contract::check(FaultLayer::fixed(fault(None, None))).await;
    contract::check(FaultLayer::per_route()).await;
}

#[tokio::test(start_paused = true)]
async fn a_delayed_request_goes_to_the_service_that_was_ready() {
    // The probe panics when it is called without having been ready itself.
    let probe = Probe::new();
    let mut service = FaultLayer::fixed(fault(Some(Fraction::ALL), None)).layer(probe.clone());
    for _ in 0..3 {
        let ready = ServiceExt::<Request<BoxedBody>>::ready(&mut service)
            .await
            .unwrap();
        assert!(ready.call(Request::new(empty())).await.is_ok());
        assert!(service.clone().oneshot(Request::new(empty())).await.is_ok());
    }
    assert_eq!(probe.calls(), 6);
}

#[test]
fn delay_and_abort_are_drawn_on_their_own() {
    let half = Fraction::percent(50.0).unwrap();
    let fault = fault(Some(half), Some(half));
    let (hit, miss) = (0, 999_999);
    let abort = Failure::FaultAbort(500);
    for (words, expected) in [
        ((hit, hit), (Some(7 * SECOND), Some(abort))),
        ((hit, miss), (Some(7 * SECOND), None)),
        ((miss, hit), (None, Some(abort))),
        ((miss, miss), (None, None)),
    ] {
        let plan = decide(&fault, &HeaderMap::new(), [words.0, words.1, 0]);
        assert_eq!((plan.delay, plan.abort), expected);
    }
}

#[test]
fn a_share_is_met_over_many_requests() {
    let tenth = Some(Fraction::percent(10.0).unwrap());
    let fault = fault(tenth, tenth);
    let rng = Rng::with_seed(7);
    let plans: Vec<_> = (0..20_000)
        .map(|_| decide(&fault, &HeaderMap::new(), [(); 3].map(|()| rng.word())))
        .collect();
    let delayed = plans.iter().filter(|plan| plan.delay.is_some()).count();
    let both = plans
        .iter()
        .filter(|plan| plan.delay.is_some() && plan.abort.is_some())
        .count();
    assert!((1_850..2_150).contains(&delayed), "{delayed}");
    assert!((140..260).contains(&both), "{both} of 20,000 is 1 %");
}

#[tokio::test(start_paused = true)]
async fn a_delayed_request_is_passed_on_late_and_an_aborted_one_never() {
    for (delay, abort, waits, calls) in [
        (Some(Fraction::ALL), None, 7, 1),
        (None, Some(Fraction::ALL), 0, 0),
        (Some(Fraction::ALL), Some(Fraction::ALL), 7, 0),
        (Some(Fraction::NONE), Some(Fraction::NONE), 0, 1),
    ] {
        let start = Instant::now();
        let probe = Probe::new();
        let service = FaultLayer::fixed(fault(delay, abort)).layer(probe.clone());
        let result = service.oneshot(Request::new(empty())).await;
        assert_eq!(start.elapsed(), waits * SECOND);
        assert_eq!(probe.calls(), calls);
        let failure = result.err().map(|error| error.failure());
        assert_eq!(failure, (calls == 0).then_some(Failure::FaultAbort(500)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_rules_fault_is_flagged_and_counted() {
    let mut grpc = fault(Some(Fraction::ALL), Some(Fraction::ALL));
    grpc.abort.as_mut().unwrap().with = AbortWith::Grpc(14);
    let mut rule = Rule::prefix_to("/", "a");
    rule.fault = Some(Arc::new(grpc));
    let mut caller = Caller::default();
    caller.stats = Some(Arc::new(Block::default()));
    let exchange = Exchange::new(Instant::now().into_std(), caller);
    exchange.set_matched(fixture::exchange(rule, None).matched().unwrap().clone());

    let service = FaultLayer::per_route().layer(Probe::new());
    let request = fixture::with(Request::new(empty()), &exchange);
    let error = service.oneshot(request).await.unwrap_err();
    assert_eq!(error.failure(), Failure::FaultAbortGrpc(14));
    assert_eq!(exchange.flags(), Flags::DI.with(Flags::FI));
    let stats = exchange.caller().stats.as_ref().unwrap();
    assert_eq!(stats.get(HttpStat::FaultDelays), 1);
    assert_eq!(stats.get(HttpStat::FaultAborts), 1);
}

#[tokio::test(start_paused = true)]
async fn a_delay_that_is_dropped_does_nothing() {
    let probe = Probe::new();
    let service = FaultLayer::fixed(fault(Some(Fraction::ALL), None)).layer(probe.clone());
    let request = service.oneshot(Request::new(empty()));
    assert!(tokio::time::timeout(SECOND, request).await.is_err());
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(probe.calls(), 0);
}

#[test]
fn the_future_is_small() {
    // On top of the inner future (a boxed one here: 16), whatever the request's size.
    assert_eq!(size_of::<ResponseFuture<Probe, BoxedBody>>(), 8 + 16);
}

#[test]
fn requests_ask_for_what_is_left_to_their_headers() {
    let percent = Fraction::percent(1.0).unwrap();
    let mut fault = fault(Some(Fraction::percent(50.0).unwrap()), Some(Fraction::ALL));
    fault.delay.as_mut().unwrap().by = DelayBy::Header(percent);
    fault.abort.as_mut().unwrap().with = AbortWith::Header(percent);
    // Of a million words.
    let plan = |lines: &[(&'static str, &'static str)], word: u64| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::try_from(format!("x-envoy-fault-{name}")).unwrap();
            headers.append(name, http::HeaderValue::from_static(value));
        }
        let plan = decide(&fault, &headers, [word; 3]);
        (plan.delay.map(|it| it.as_millis()), plan.abort)
    };
    let (http, grpc) = (Failure::FaultAbort, Failure::FaultAbortGrpc);
    let (delay, share) = ("delay-request", "delay-request-percentage");
    assert_eq!(plan(&[], 0), (None, None));
    for (value, expected) in [
        (" +5", Some(5)),
        ("0", None),
        ("-1", None),
        ("1s", None),
        ("", None),
    ] {
        assert_eq!(plan(&[(delay, value)], 0), (expected, None), "{value}");
    }
    assert_eq!(plan(&[(delay, "5"), (delay, "6")], 0), (Some(5), None));
    for (said, word, expected) in [
        ("10", 99_999, Some(5)),
        ("10", 100_000, None),
        ("60", 499_999, Some(5)),
        ("60", 500_000, None),
        ("ten", 499_999, Some(5)),
        ("4294967296", 499_999, Some(5)),
        ("0", 0, None),
    ] {
        assert_eq!(
            plan(&[(delay, "5"), (share, said)], word),
            (expected, None),
            "{said}"
        );
    }
    let (abort, abort_grpc) = ("abort-request", "abort-grpc-request");
    for (lines, expected) in [
        (vec![(abort, "418")], Some(http(418))),
        (vec![(abort, "599"), (abort_grpc, "5")], Some(http(599))),
        (vec![(abort, "600"), (abort_grpc, "5")], Some(grpc(5))),
        (vec![(abort, "199")], None),
        (vec![(abort_grpc, "x")], None),
        (
            vec![(abort, "418"), ("abort-request-percentage", "0")],
            None,
        ),
    ] {
        assert_eq!(plan(&lines, 0), (None, expected), "{lines:?}");
    }
}

#[tokio::test]
async fn a_fault_is_only_for_the_requests_that_it_names() {
    let like = |name: &'static str, value: &str| {
        let key = model::HeaderKey::Header(HeaderName::from_static(name));
        model::HeaderMatch::text(key, model::StringMatch::Exact(value.into()))
    };
    let mut only = fault(None, Some(Fraction::ALL));
    only.nodes = vec!["n1".into(), "n2".into()];
    only.headers = vec![like("x-a", "1")];
    only.upstream = "a".into();
    let aborted = |cluster: &str, lines: &[(&str, &str)]| {
        let mut rule = Rule::prefix_to("/", cluster);
        rule.fault = Some(Arc::new(only.clone()));
        let clusters = vec![model::Cluster::new(cluster)];
        let exchange = fixture::matched(&fixture::snapshot(vec![rule], clusters));
        let mut request = Request::get("/");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let request = fixture::with(request.body(empty()).unwrap(), &exchange);
        let service = FaultLayer::per_route().layer(Probe::new());
        async move { service.oneshot(request).await.is_err() }
    };
    let node = "x-envoy-downstream-service-node";
    assert!(aborted("a", &[(node, "n2"), ("x-a", "1")]).await);
    assert!(!aborted("b", &[(node, "n2"), ("x-a", "1")]).await);
    assert!(!aborted("a", &[(node, "n3"), ("x-a", "1")]).await);
    assert!(!aborted("a", &[("x-a", "1")]).await);
    assert!(!aborted("a", &[(node, "n1"), ("x-a", "2")]).await);
}

fn listener(fault: model::Fault) -> (Exchange, Arc<Block<HttpStat>>) {
    let mut rule = Rule::prefix_to("/", "a");
    rule.fault = Some(Arc::new(fault));
    let stats = Arc::<Block<HttpStat>>::default();
    let mut caller = Caller::default();
    caller.stats = Some(stats.clone());
    let exchange = Exchange::new(Instant::now().into_std(), caller);
    exchange.set_matched(fixture::exchange(rule, None).matched().unwrap().clone());
    (exchange, stats)
}

/// Polls once what has to wait.
async fn begin<F: Future>(waiting: &mut Pin<Box<F>>) {
    let waits = std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending()));
    assert!(waits.await);
}

fn slow(rate: u64) -> Option<model::FaultSlow> {
    Some(model::FaultSlow {
        by: SlowBy::Fixed(NonZeroU64::new(rate).unwrap()),
        share: Fraction::ALL,
    })
}

#[test]
fn a_request_says_how_slow_its_answer_is_where_that_is_left_to_it() {
    let percent = Fraction::percent(1.0).unwrap();
    let mut fault = fault(None, None);
    fault.slow = Some(model::FaultSlow {
        by: SlowBy::Header(percent),
        share: Fraction::percent(50.0).unwrap(),
    });
    for (rate, share, word, expected) in [
        (Some("7"), None, 0, Some(7)),
        (Some("7"), None, 500_000, None),
        (Some("7"), Some("10"), 99_999, Some(7)),
        (Some("7"), Some("10"), 100_000, None),
        (Some("7"), Some("60"), 499_999, Some(7)),
        (Some("7"), Some("0"), 0, None),
        (Some("0"), None, 0, None),
        (Some("x"), None, 0, None),
        (None, None, 0, None),
    ] {
        let mut headers = HeaderMap::new();
        for (name, value) in [(SLOW, rate), (SLOW_SHARE, share)] {
            if let Some(value) = value {
                headers.insert(name, http::HeaderValue::from_static(value));
            }
        }
        let plan = decide(&fault, &headers, [999_999, 999_999, word]);
        assert_eq!(
            plan.slow.map(NonZeroU64::get),
            expected,
            "{rate:?} {share:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_counts_until_it_is_over_and_a_slow_answer_until_its_request_is() {
    // As Envoy 1.40 shows `active_faults`.
    let (exchange, stats) = listener(fault(Some(Fraction::ALL), None));
    let service = FaultLayer::per_route().layer(Probe::answering([Answers::Never]));
    let request = fixture::with(Request::new(empty()), &exchange);
    let mut waiting = Box::pin(service.oneshot(request));
    begin(&mut waiting).await;
    assert_eq!(stats.get(HttpStat::FaultActive), 1);
    assert!(
        tokio::time::timeout(8 * SECOND, &mut waiting)
            .await
            .is_err()
    );
    assert_eq!(stats.get(HttpStat::FaultActive), 0);

    let mut slowly = fault(Some(Fraction::ALL), None);
    slowly.slow = slow(3);
    let (exchange, stats) = listener(slowly);
    let service = FaultLayer::per_route().layer(Probe::new());
    let request = fixture::with(Request::new(empty()), &exchange);
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(exchange.pace().map(NonZeroU64::get), Some(3));
    assert_eq!(stats.get(HttpStat::FaultSlow), 1);
    assert_eq!(stats.get(HttpStat::FaultActive), 1);
    drop((response, exchange));
    assert_eq!(stats.get(HttpStat::FaultActive), 0);
}

#[tokio::test(start_paused = true)]
async fn what_would_be_one_fault_too_many_is_none_and_each_is_counted() {
    // As Envoy 1.40 counts `faults_overflow`.
    for (most, calls, overflows) in [(0, 1, 3), (1, 0, 0)] {
        let mut all = fault(Some(Fraction::ALL), Some(Fraction::ALL));
        all.slow = slow(1);
        all.max_active = Some(most);
        let (exchange, stats) = listener(all);
        let probe = Probe::new();
        let service = FaultLayer::per_route().layer(probe.clone());
        let request = fixture::with(Request::new(empty()), &exchange);
        let result = service.oneshot(request).await;
        assert_eq!(result.is_err(), calls == 0);
        assert_eq!(probe.calls(), calls);
        assert_eq!(stats.get(HttpStat::FaultOverflow), overflows);
        assert_eq!(stats.get(HttpStat::FaultAborts), 1 - calls as u64);
        drop(result);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_listener_the_layer_counts_its_own() {
    let mut limited = fault(Some(Fraction::ALL), None);
    limited.max_active = Some(1);
    let service = FaultLayer::fixed(limited).layer(Probe::new());
    let start = Instant::now();
    let first = service.clone().oneshot(Request::new(empty()));
    let mut first = Box::pin(first);
    begin(&mut first).await;
    service
        .clone()
        .oneshot(Request::new(empty()))
        .await
        .unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO, "there is one already");
    first.await.unwrap();
    service.oneshot(Request::new(empty())).await.unwrap();
    assert_eq!(start.elapsed(), 14 * SECOND);
}
