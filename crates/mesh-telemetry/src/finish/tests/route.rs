//! What is counted for rules with statistics of their own.

use super::*;
use crate::expose::{Query, Scrape};
use mesh_core::exchange::HostId;
use mesh_core::model::{Rule, Snapshot};
use mesh_core::{Matched, Pinned};

/// What the layers below do with a request, in one word each.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// An attempt goes to a host.
    Host,
    /// There was no connection to it.
    Unreached,
    /// There is a retry.
    Again,
    /// Something is flagged.
    Flag(Flags),
    /// The answer is made here.
    Made(Failure),
    /// Nothing comes.
    Wait,
    /// The response's body breaks off.
    Broken(Failure),
}
use Step::{Again, Broken, Flag, Host, Made, Unreached, Wait};

fn snapshot(prefix: &str) -> Arc<Snapshot> {
    let mut rule = Rule::prefix_to("/", "c");
    rule.stat_prefix = prefix.into();
    fixture::snapshot(vec![rule], vec![])
}

/// Has a request answered with this status after these steps.
async fn run(place: &Place, snapshot: &Arc<Snapshot>, steps: &'static [Step], status: u16) {
    let inner = service_fn(move |request: Request<Taken>| async move {
        let exchange = Exchange::of(&request).unwrap();
        let mut body = chunks(["body"], None);
        for step in steps {
            match step {
                Host => {
                    exchange.note_tried(HostId(exchange.attempts().into()));
                    let endpoint = Endpoint::new(fixture::address("127.0.0.1:1"));
                    exchange.set_upstream(Upstream::new(Arc::new(endpoint)));
                }
                Unreached => exchange.note_unreached(),
                Again => drop(exchange.for_attempt()),
                Flag(flags) => exchange.flag(*flags),
                Made(failure) => exchange.note_error(&Error::new(*failure)),
                Wait => std::future::pending().await,
                Broken(failure) => {
                    let mut error = Some(BoxError::from(Error::new(*failure)));
                    let next = std::future::poll_fn(move |_| Poll::Ready(error.take().map(Err)));
                    body = BodyExt::boxed(Frames(next));
                }
            }
        }
        let response = Response::builder().status(status).body(body);
        Ok::<_, Infallible>(response.unwrap())
    });
    let exchange = place.exchange();
    exchange.set_matched(Matched::new(Pinned::new(snapshot.clone()), 0, 0, 0));
    let request = fixture::with(Request::new(empty()), &exchange);
    let answer = place.layer().layer(inner).oneshot(request);
    if let Ok(response) = tokio::time::timeout(Duration::from_secs(1), answer).await {
        let _ = response.unwrap().into_body().collect().await;
    }
}

fn stats(place: &Place, snapshot: Option<&Snapshot>) -> String {
    let mut scrape = Scrape::new();
    if let Some(snapshot) = snapshot {
        scrape.snapshot(snapshot);
    }
    let query = Query::parse("usedonly&filter=^vhost").unwrap();
    scrape.telemetry(&place.telemetry).text(&query)
}

#[tokio::test(start_paused = true)]
async fn a_rule_counts_what_envoys_router_counts_and_nothing_else() {
    let rows: &[(&'static [Step], u16, &str)] = &[
        (&[Host], 200, "200 2xx completed total"),
        (&[Host], 404, "404 4xx completed total"),
        (&[Made(Failure::NoHealthyHost)], 503, "503 5xx completed"),
        (
            &[Host, Unreached, Made(Failure::ConnectFailed)],
            503,
            "503 5xx completed",
        ),
        (
            &[Host, Made(Failure::TryTimeout)],
            504,
            "504 5xx completed total",
        ),
        (
            &[Host, Made(Failure::RequestTimeout)],
            504,
            "504 5xx completed timeout total",
        ),
        (&[Made(Failure::Overflow)], 503, "503 5xx completed"),
        // What answers before the router, or around it.
        (&[Made(Failure::DirectResponse)], 200, ""),
        (&[Made(Failure::Redirect)], 301, ""),
        (&[Made(Failure::FaultAbort(503))], 503, ""),
        (&[Made(Failure::RateLimited(429))], 429, ""),
        (&[Made(Failure::NoCluster)], 503, ""),
        (&[], 200, ""),
        // Retries.
        (
            &[Host, Again, Host],
            200,
            "200 2xx completed retry retry_success total=2",
        ),
        (
            &[Host, Again, Host, Made(Failure::RemoteReset)],
            503,
            "503 5xx completed retry retry_success total=2",
        ),
        (
            &[Host, Again, Host, Again, Host, Flag(Flags::URX)],
            503,
            "503 5xx completed retry=2 retry_limit_exceeded total=3",
        ),
        (
            &[Host, Flag(Flags::UO)],
            503,
            "503 5xx completed retry_overflow total",
        ),
        (
            &[Host, Flag(Flags::UO), Made(Failure::TryTimeout)],
            504,
            "504 5xx completed retry_overflow total",
        ),
        (
            &[Host, Again, Made(Failure::NoHealthyHost)],
            503,
            "503 5xx completed retry total",
        ),
        // No answer, or none that lasts.
        (&[Host, Again, Host, Wait], 200, "retry total=2"),
        (
            &[Host, Broken(Failure::RemoteReset)],
            200,
            "200 2xx completed total",
        ),
        (
            &[Host, Broken(Failure::RequestTimeout)],
            200,
            "200 2xx completed timeout total",
        ),
    ];
    let snapshot = snapshot("p");
    for (steps, status, expected) in rows {
        let place = Place::new(Direction::Outbound);
        run(&place, &snapshot, steps, *status).await;
        let expected: String = expected
            .split_whitespace()
            .map(|one| one.split_once('=').unwrap_or((one, "1")))
            .map(|(name, value)| format!("vhost.all.route.p.upstream_rq_{name}: {value}\n"))
            .collect();
        assert_eq!(stats(&place, None), expected, "{steps:?}");
    }
}

#[tokio::test]
async fn a_rule_without_a_prefix_has_no_statistics() {
    let place = Place::new(Direction::Outbound);
    let snapshot = snapshot("");
    run(&place, &snapshot, &[Host], 200).await;
    assert_eq!(stats(&place, Some(&snapshot)), "");
}

#[tokio::test]
async fn names_are_shown_before_anything_is_counted_and_only_once() {
    let place = Place::new(Direction::Outbound);
    let snapshot = snapshot("p:1\n");
    let text = |query: &str| {
        let mut scrape = Scrape::new();
        let scrape = scrape.snapshot(&snapshot).telemetry(&place.telemetry);
        scrape.write(&Query::parse(query).unwrap())
    };
    let total = "vhost.all.route.p:1_.upstream_rq_total";
    assert_eq!(text("filter=vhost.*rq_total"), format!("{total}: 0\n"));
    run(&place, &snapshot, &[Host], 200).await;
    assert_eq!(text("filter=vhost.*rq_total"), format!("{total}: 1\n"));
    assert_eq!(
        text("filter=vhost.*2xx&format=prometheus"),
        "# HELP envoy_vhost_route_upstream_rq_xx Envoy statistic \
         vhost.*.route.*.upstream_rq_xx.\n\
         # TYPE envoy_vhost_route_upstream_rq_xx counter\n\
         envoy_vhost_route_upstream_rq_xx{envoy_response_code_class=\"2\",\
         envoy_virtual_host=\"all\",envoy_route=\"p:1_\"} 1\n"
    );
}
