//! What each task of `examples/tasks/` promises, whatever the proxies are.

// Threads are collected so that all of them run before the first is joined.
#![allow(clippy::needless_collect, unreachable_pub)]

mod balancing;
mod gateways;
mod identities;

use crate::demo::Demo;
use crate::support::{Answer, Client, wait_until};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// A test for each task, on the demo that an expression starts. Where it starts none there is
/// nothing to test with, which has been said.
macro_rules! test_every_task_on {
    ($demo:expr) => {
        $crate::cases::test_every_task_on! { $demo;
            task_01_a_signed_in_user_gets_another_version_than_everyone_else
            task_02_faults_hit_one_user_and_nobody_else
            task_03_traffic_shifts_by_weight_and_moves_without_a_failed_request
            task_04_a_timeout_answers_before_the_slow_backend_does
            task_05_a_circuit_breaker_opens_and_a_failing_host_is_ejected_and_let_back
            task_06_a_mirror_gets_a_copy_of_everything_and_changes_nothing
            task_07_the_gateway_lets_two_paths_in_and_nothing_else
            task_08_only_registered_services_outside_can_be_reached_unless_any_may
            task_09_people_of_one_company_share_two_versions
            task_10_old_paths_are_rewritten_and_a_moved_host_is_redirected
            task_11_the_documented_gateway_serves_five_ports_each_in_its_own_way
            task_12_each_of_two_domains_has_its_own_certificate_which_is_replaced_under_way
            task_13_the_port_decides_where_a_connection_goes
            task_14_connections_are_shared_by_weight_and_moved
            task_15_tls_is_passed_on_unopened_by_server_name
            task_16_a_sidecar_speaks_tls_where_its_application_speaks_http
            task_17_a_caller_stays_with_an_endpoint_by_a_cookie_or_a_header
            task_18_requests_stay_near_until_nobody_is_there_or_follow_shares
            task_19_who_has_no_certificate_of_the_mesh_is_refused
        }
    };
    ($demo:expr; $($task:ident)*) => {
        $(
            #[test]
            fn $task() {
                let demo: Option<$crate::demo::Demo> = $demo;
                let Some(demo) = demo else { return };
                $crate::cases::$task(&demo);
                demo.assert_nothing_is_rejected();
            }
        )*
    };
}
pub use balancing::*;
pub use gateways::*;
pub use identities::*;
pub(crate) use test_every_task_on;

pub const REVIEWS: &str = "http://reviews:9080/reviews/0";

pub fn version(answer: &Answer) -> &str {
    answer
        .headers
        .get("x-served-by")
        .map(String::as_str)
        .unwrap_or_default()
}

pub fn task_01_a_signed_in_user_gets_another_version_than_everyone_else(demo: &Demo) {
    demo.apply("1");
    for _ in 0..20 {
        assert_eq!(
            version(&demo.call(REVIEWS, &[("end-user", "jason")])),
            "reviews-v2"
        );
        assert_eq!(
            version(&demo.call(REVIEWS, &[("end-user", "jasonx")])),
            "reviews-v1"
        );
        assert_eq!(version(&demo.call(REVIEWS, &[])), "reviews-v1");
    }
    let page = Client::connect(demo.gateway()).get(
        "/productpage",
        &[("host", "demo"), ("cookie", "session=jason")],
    );
    assert_eq!(page.status, 200);
    assert!(page.body.contains("reviews-v2"));
}

pub fn task_02_faults_hit_one_user_and_nobody_else(demo: &Demo) {
    demo.apply("2");
    demo.change(|dir| {
        let file = dir.join("task/ratings.yaml");
        let text = fs::read_to_string(&file).unwrap();
        let delay = "delay: {fixedDelay: 7s, percentage: {value: 100}}";
        let abort = "abort: {httpStatus: 500, percentage: {value: 100}}";
        fs::write(&file, text.replace(delay, abort)).unwrap();
    });
    let ratings = "http://ratings:9080/ratings/0";
    let aborted = demo.call(ratings, &[("end-user", "jason")]);
    assert_eq!(
        (aborted.status, aborted.body.as_str()),
        (500, "fault filter abort")
    );
    assert_eq!(demo.call(ratings, &[]).status, 200);
    assert_eq!(demo.stat(0, "fault.aborts_injected"), 1);

    demo.apply("2");
    // The delayed answer comes after one that was asked for later.
    let order = AtomicUsize::new(0);
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let answer = demo.call(ratings, &[("end-user", "jason")]);
            (answer.status, order.fetch_add(1, Ordering::SeqCst))
        });
        wait_until(|| demo.stat(0, "fault.delays_injected") == 1);
        assert_eq!(demo.call(ratings, &[]).status, 200);
        assert_eq!(order.fetch_add(1, Ordering::SeqCst), 0);
        assert_eq!(slow.join().unwrap(), (200, 1));
    });
}

pub fn task_03_traffic_shifts_by_weight_and_moves_without_a_failed_request(demo: &Demo) {
    demo.apply("3");
    const REQUESTS: usize = 4_000;
    let share = || {
        let mut client = Client::connect(demo.outbound());
        let mut v1 = 0;
        for _ in 0..REQUESTS / 4 {
            let answer = client.get(REVIEWS, &[]);
            assert_eq!(answer.status, 200);
            match version(&answer) {
                "reviews-v1" => v1 += 1,
                other => assert_eq!(other, "reviews-v3"),
            }
        }
        v1
    };
    let v1: usize = thread::scope(|scope| {
        let callers: Vec<_> = (0..4).map(|_| scope.spawn(share)).collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .sum()
    });
    // Five standard deviations to each side of 50 %.
    assert!(
        (1_842..=2_158).contains(&v1),
        "{v1} of {REQUESTS} went to v1"
    );

    // Load goes on while the weights are edited.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut client = Client::connect(demo.outbound());
            let mut answers = 0_usize;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(client.get(REVIEWS, &[]).status, 200);
                answers += 1;
            }
            answers
        });
        for (from, to) in [("weight: 50", "weight: 0"), ("weight: 0", "weight: 50")] {
            demo.change(|dir| {
                let file = dir.join("task/reviews.yaml");
                let text = fs::read_to_string(&file).unwrap();
                // Only the first weight, v1's.
                fs::write(&file, text.replacen(from, to, 1)).unwrap();
            });
            if to == "weight: 0" {
                for _ in 0..200 {
                    assert_eq!(version(&demo.call(REVIEWS, &[])), "reviews-v3");
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        assert!(load.join().unwrap() > 0);
    });
}

pub fn task_04_a_timeout_answers_before_the_slow_backend_does(demo: &Demo) {
    demo.apply("4");
    // Late enough on a busy machine too.
    demo.change(|dir| {
        let file = dir.join("task/ratings.yaml");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains("fixedDelay: 2s"));
        fs::write(&file, text.replace("fixedDelay: 2s", "fixedDelay: 10s")).unwrap();
    });
    let order = AtomicUsize::new(0);
    thread::scope(|scope| {
        let backend = scope.spawn(|| {
            let answer = demo.call("http://ratings:9080/ratings/0", &[]);
            (answer.status, order.fetch_add(1, Ordering::SeqCst))
        });
        wait_until(|| demo.stat(0, "fault.delays_injected") == 1);
        let answer = demo.call(REVIEWS, &[]);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (504, "upstream request timeout")
        );
        assert_eq!(order.fetch_add(1, Ordering::SeqCst), 0, "answered first");
        assert_eq!(backend.join().unwrap(), (200, 1));
    });
}

pub fn task_05_a_circuit_breaker_opens_and_a_failing_host_is_ejected_and_let_back(demo: &Demo) {
    demo.apply("5");
    let answers: Vec<Answer> = thread::scope(|scope| {
        let callers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| demo.at_gateway("/delay/3")))
            .collect();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap())
            .collect()
    });
    let refused: Vec<_> = answers
        .iter()
        .filter(|answer| answer.status == 503)
        .collect();
    assert!(!refused.is_empty() && refused.len() < 3, "{answers:?}");
    for answer in &refused {
        assert_eq!(answer.headers["x-envoy-overloaded"], "true");
        assert!(
            answer.body.ends_with("reset reason: overflow"),
            "{}",
            answer.body
        );
    }
    let cluster = "outbound|8000||httpbin.default.svc.cluster.local.upstream_rq_pending_overflow";
    assert_eq!(demo.stat(9, cluster), refused.len() as u64);

    // One 5xx ejects the only host; then there is none, and after a while there is one again.
    assert_eq!(demo.at_gateway("/status/500").status, 500);
    let mut ejected = demo.at_gateway("/headers");
    if demo.is_on_envoys {
        // A worker of Envoy leaves it to the main thread; meanwhile the host is there.
        wait_until(|| {
            if ejected.status != 503 {
                ejected = demo.at_gateway("/headers");
            }
            ejected.status == 503
        });
    }
    assert_eq!(
        (ejected.status, ejected.body.as_str()),
        (503, "no healthy upstream")
    );
    wait_until(|| demo.at_gateway("/headers").status == 200);
}

pub fn task_06_a_mirror_gets_a_copy_of_everything_and_changes_nothing(demo: &Demo) {
    demo.apply("6");
    let before = demo.stat(4, "||.upstream_rq_total");
    for _ in 0..50 {
        assert_eq!(version(&demo.call(REVIEWS, &[])), "reviews-v1");
    }
    wait_until(|| demo.stat(4, "||.upstream_rq_total") == before + 50);
}

pub fn task_07_the_gateway_lets_two_paths_in_and_nothing_else(demo: &Demo) {
    assert_eq!(
        demo.at_gateway("/status/418").status,
        404,
        "not before the task"
    );
    demo.apply("7");
    assert_eq!(demo.at_gateway("/status/418").status, 418);
    let headers = demo.at_gateway("/headers");
    assert_eq!(headers.status, 200);
    assert!(headers.body.contains("X-Request-Id"), "{}", headers.body);
    let unknown = demo.at_gateway("/delay/1");
    assert_eq!((unknown.status, unknown.body.as_str()), (404, ""));

    let port = demo.base + 951;
    demo.change(|dir| {
        let gateway = format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: secure}}\nspec:\n  \
             selector: {{istio: ingressgateway}}\n  servers:\n  - port: {{number: {port}, name: http, \
             protocol: HTTP}}\n    hosts: [secure.example.com]\n    tls: {{httpsRedirect: true}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: secure}}\n\
             spec:\n  hosts: [secure.example.com]\n  gateways: [secure]\n  http:\n  - route: \
             [{{destination: {{host: httpbin}}}}]\n"
        );
        fs::write(dir.join("secure.yaml"), gateway).unwrap();
    });
    let secure = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    wait_until(|| std::net::TcpStream::connect(secure).is_ok());
    let redirect = Client::connect(secure).get("/headers?x", &[("host", "secure.example.com")]);
    assert_eq!(redirect.status, 301);
    assert_eq!(
        redirect.headers["location"],
        "https://secure.example.com/headers?x"
    );
    let stranger = Client::connect(secure).get("/headers", &[("host", "other.example.com")]);
    assert_eq!(stranger.status, 404);
}

pub fn task_08_only_registered_services_outside_can_be_reached_unless_any_may(demo: &Demo) {
    let outside = format!("http://localhost:{}/headers", demo.base + 680);
    assert_eq!(demo.call(&outside, &[]).status, 502, "not before the task");
    demo.apply("8");
    assert_eq!(demo.call(&outside, &[]).status, 200);
    assert_eq!(
        demo.call("http://httpbin.example.com/headers", &[]).status,
        200
    );
    let by_address = format!("http://127.0.0.1:{}/status/204", demo.base + 680);
    assert_eq!(demo.call(&by_address, &[]).status, 502);
    demo.change(|dir| {
        let file = dir.join("mesh-config.yaml");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, text.replace("REGISTRY_ONLY", "ALLOW_ANY")).unwrap();
    });
    assert_eq!(demo.call(&by_address, &[]).status, 204);
}

pub fn task_09_people_of_one_company_share_two_versions(demo: &Demo) {
    demo.apply("9");
    let mut client = Client::connect(demo.outbound());
    let mut v2 = 0;
    for _ in 0..1_000 {
        let cookie = ("cookie", "a=1;email=x@somecompany-name.com;b=2");
        let answer = client.get(REVIEWS, &[cookie]);
        match version(&answer) {
            "reviews-v2" => v2 += 1,
            other => assert_eq!(other, "reviews-v1"),
        }
        let stranger = client.get(REVIEWS, &[("cookie", "email=x@elsewhere.com")]);
        assert_eq!(version(&stranger), "reviews-v1");
    }
    // Five standard deviations to each side of half of them.
    assert!((420..=580).contains(&v2), "{v2} of 1000 went to v2");
}

pub fn task_10_old_paths_are_rewritten_and_a_moved_host_is_redirected(demo: &Demo) {
    demo.apply("10");
    for path in ["wpcatalog", "consumercatalog"] {
        let answer = demo.call(&format!("http://reviews:9080/{path}/x"), &[]);
        assert_eq!(version(&answer), "reviews-v2");
        assert!(answer.body.contains("/newcatalog/x"), "{}", answer.body);
    }
    assert_eq!(version(&demo.call(REVIEWS, &[])), "reviews-v1");
    let moved = demo.call("http://reviews:9080/v1/getProductRatings", &[]);
    assert_eq!(moved.status, 301);
    assert_eq!(
        moved.headers["location"],
        "http://newratings.default.svc.cluster.local/v1/bookRatings"
    );
}
