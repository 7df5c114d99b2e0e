//! `http[].fault`: delays and aborts.

use crate::town::{Answer, Backend, Town, patiently, request, routes, service};
use std::time::Duration;

async fn town(fault: &str, more: &str) -> (Town, Backend) {
    let one = Backend::start("v1").await;
    let rules = format!("{{fault: {fault}, {more}route: [{{destination: {{host: a}}}}]}}");
    (
        Town::client(&(service("a", &[&one]) + &routes(&rules))).await,
        one,
    )
}

async fn answered(fault: &str) -> (Answer, usize) {
    let (town, one) = town(fault, "").await;
    (town.get("a", "/").await, one.count())
}

#[tokio::test]
async fn abort_http_status_answers_instead_of_the_service() {
    let fault = "{abort: {httpStatus: 418, percentage: {value: 100}}}";
    let (answer, reached) = answered(fault).await;
    assert_eq!(
        (answer.line().as_str(), reached),
        ("418 fault filter abort", 0)
    );
}

#[tokio::test]
async fn abort_grpc_status_answers_with_trailers_only() {
    let (town, one) = town(
        "{abort: {grpcStatus: NOT_FOUND, percentage: {value: 100}}}",
        "",
    )
    .await;
    let grpc = [("content-type", "application/grpc")];
    let answer = town.send(request("POST", "a", "/", &grpc)).await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.header("grpc-status").as_str()
        ),
        (200, "5")
    );
    assert_eq!(one.count(), 0);
}

#[tokio::test]
async fn percentage_is_a_share_and_nothing_said_is_none() {
    for abort in [
        "{httpStatus: 500}",
        "{httpStatus: 500, percentage: {value: 0}}",
    ] {
        let (answer, reached) = answered(&format!("{{abort: {abort}}}")).await;
        assert_eq!((answer.line().as_str(), reached), ("200 v1", 1), "{abort}");
    }
    let (town, one) = town("{abort: {httpStatus: 500, percentage: {value: 25}}}", "").await;
    town.bodies("a", "/", 400).await;
    // Five standard deviations to each side of 300.
    assert!((256..=344).contains(&one.count()), "{}", one.count());
}

#[tokio::test]
async fn the_deprecated_percent_works_with_a_warning() {
    let (town, _) = town("{abort: {httpStatus: 500, percent: 100}}", "").await;
    assert!(crate::town::lines(&town.findings).contains("deprecated"));
    assert_eq!(town.get("a", "/").await.status, 500);
}

/// Waits until this many requests are under way.
async fn under_way(town: &Town, number: u64) {
    let line = format!(
        "http.outbound_127.0.0.1_{}.downstream_rq_active: {number}\n",
        town.at.port()
    );
    patiently("requests under way".to_owned(), async {
        // The worker may not have opened the listener yet: then there is no such line.
        while !town.admin("/stats").await.contains(&line) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn delay_holds_the_request_and_then_forwards_it() {
    let one = Backend::start("v1").await;
    let to = "route: [{destination: {host: a}}]";
    // It is not the route's: the timeout, shorter than the delay, does not end it.
    let rules = format!(
        "{{match: [{{uri: {{prefix: /late}}}}], timeout: 1s, \
         fault: {{delay: {{fixedDelay: 5s, percentage: {{value: 100}}}}}}, \
         headers: {{response: {{set: {{x-flags: '%RESPONSE_FLAGS%'}}}}}}, {to}}}, {{{to}}}"
    );
    let town = Town::client(&(service("a", &[&one]) + &routes(&rules))).await;
    let late = town.start_get("a", "/late");
    under_way(&town, 1).await;
    town.get("a", "/soon").await;
    let late = late.await.unwrap();
    assert_eq!(
        (late.line().as_str(), late.header("x-flags").as_str()),
        ("200 v1", "DI")
    );
    let order: Vec<String> = one.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(order, ["/soon", "/late"]);
}

#[tokio::test]
async fn a_delay_without_a_percentage_is_none() {
    let (answer, _) = answered("{delay: {fixedDelay: 1h}}").await;
    assert_eq!(answer.line(), "200 v1");
}

#[tokio::test]
async fn delay_comes_before_abort() {
    let both = |delay: &str| {
        format!(
            "{{delay: {{fixedDelay: {delay}, percentage: {{value: 100}}}}, \
             abort: {{httpStatus: 500, percentage: {{value: 100}}}}}}"
        )
    };
    let (answer, reached) = answered(&both("1ms")).await;
    assert_eq!(
        (answer.line().as_str(), reached),
        ("500 fault filter abort", 0)
    );
    let (town, _) = town(&both("1h"), "").await;
    let held = town.start_get("a", "/");
    under_way(&town, 1).await;
    assert!(!held.is_finished());
    held.abort();
}

#[test]
fn what_istio_does_not_do_either_is_refused() {
    for (fault, word) in [
        ("{delay: {exponentialDelay: 1s}}", "exponentialDelay"),
        ("{abort: {http2Error: X}}", "http2Error"),
        (
            "{abort: {httpStatus: 500, percentage: {value: 101}}}",
            "percentage",
        ),
        ("{}", "delay or abort"),
    ] {
        let rules = format!("{{fault: {fault}, route: [{{destination: {{host: a}}}}]}}");
        let errors = crate::town::refused(&routes(&rules));
        assert!(errors.contains(word), "{fault}: {errors}");
    }
}
