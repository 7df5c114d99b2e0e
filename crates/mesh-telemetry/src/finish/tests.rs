use super::*;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use mesh_core::model::{AccessLog, Direction, Endpoint, HttpManager, WorkloadRef};
use mesh_core::stats::{Block, HttpStat};
use mesh_core::{BoxError, Caller, Error, Failure, Flags, WallClock, exchange::Upstream};
use mesh_test::{Answers, BoxedBody, Probe, chunks, contract, empty, fixture, read, text};
use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::Duration;
use tower::{ServiceExt, service_fn};

mod logs;
mod metrics;
mod peers;
mod route;

type Taken = Received<BoxedBody>;

/// What was logged.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A listener with everything that can be told of it.
struct Place {
    telemetry: Arc<Telemetry>,
    stats: Arc<Block<HttpStat>>,
    manager: Arc<HttpManager>,
    log: Memory,
}

const FORMAT: &str = "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %BYTES_RECEIVED% \
                      %BYTES_SENT% %DURATION% %REQUEST_DURATION% %GRPC_STATUS(NUMBER)%";

impl Place {
    fn new(direction: Direction) -> Self {
        Self::with_format(direction, FORMAT)
    }

    fn with_format(direction: Direction, format: &str) -> Self {
        let mut manager = HttpManager::new("here", "t");
        manager.direction = direction;
        manager.access_log = vec![AccessLog {
            path: "log".into(),
            format: format.into(),
        }];
        let log = Memory::default();
        let mut node = WorkloadRef::default();
        node.name = "node".into();
        let telemetry = Telemetry::new(node)
            .clock(WallClock::fixed(Duration::ZERO))
            .output("log", log.clone());
        Self {
            telemetry: Arc::new(telemetry),
            stats: Arc::default(),
            manager: Arc::new(manager),
            log,
        }
    }

    fn exchange(&self) -> Exchange {
        let mut caller = Caller::default();
        caller.manager = Some(self.manager.clone());
        caller.stats = Some(self.stats.clone());
        Exchange::new(tokio::time::Instant::now().into_std(), caller)
    }

    fn layer(&self) -> FinishLayer<Taken> {
        FinishLayer::new(self.telemetry.clone())
    }

    /// The response to a request with this body, and the exchange.
    async fn ask(
        &self,
        probe: &Probe,
        body: BoxedBody,
    ) -> (Response<Tracked<BoxedBody>>, Exchange) {
        let exchange = self.exchange();
        let request = fixture::with(Request::new(body), &exchange);
        let response = self.layer().layer(probe.clone()).oneshot(request).await;
        (response.unwrap(), exchange)
    }

    fn lines(&self) -> String {
        self.telemetry.flush().unwrap();
        String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap()
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let nonzero = |(name, _, value)| (value != 0).then_some((name, value));
        self.stats.iter().filter_map(nonzero).collect()
    }

    fn metrics(&self) -> String {
        crate::expose::Scrape::new()
            .telemetry(&self.telemetry)
            .prometheus(&Default::default())
    }

    /// The only series of requests that there is.
    fn series(&self) -> String {
        let metrics = self.metrics();
        let mut lines = metrics
            .lines()
            .filter(|line| line.starts_with("istio_requests_total"));
        let line = lines.next().expect("there is a series").to_owned();
        assert_eq!(lines.next(), None);
        line
    }
}

#[tokio::test]
async fn keeps_the_contract_without_an_exchange() {
    let telemetry = Arc::new(Telemetry::new(WorkloadRef::default()));
    contract::check(FinishLayer::<Taken>::new(telemetry)).await;
}

#[tokio::test(start_paused = true)]
async fn a_request_is_finished_when_its_response_has_been_read() {
    let place = Place::new(Direction::Outbound);
    let (response, exchange) = place.ask(&Probe::new(), text("hello")).await;
    assert_eq!(
        place.counts(),
        [
            ("downstream_rq_total", 1),
            ("downstream_rq_http1_total", 1),
            ("downstream_rq_active", 1)
        ]
    );
    assert_eq!(place.lines(), "");
    tokio::time::advance(Duration::from_millis(25)).await;
    assert_eq!(read(response.into_body()).await, "ok");
    assert_eq!(place.lines(), "200 - via_upstream 5 2 25 0 -\n");
    assert_eq!(
        place.counts(),
        [
            ("downstream_rq_total", 1),
            ("downstream_rq_http1_total", 1),
            ("downstream_rq_completed", 1),
            ("downstream_rq_2xx", 1)
        ]
    );
    assert_eq!(exchange.flags(), Flags::default());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_while_it_waits_is_noted() {
    let place = Place::new(Direction::Outbound);
    let exchange = place.exchange();
    let request = fixture::with(Request::new(empty()), &exchange);
    let service = place.layer().layer(Probe::answering([Answers::Never]));
    let waiting = tokio::time::timeout(Duration::from_millis(40), service.oneshot(request));
    assert!(waiting.await.is_err());
    assert_eq!(
        place.lines(),
        "0 DC downstream_remote_disconnect 0 0 40 0 -\n"
    );
    assert_eq!(
        place.counts(),
        [
            ("downstream_rq_total", 1),
            ("downstream_rq_http1_total", 1),
            ("downstream_rq_rx_reset", 1)
        ]
    );
    assert_eq!(
        exchange.with_notes(|notes| notes.failure),
        Some(Failure::ClientGone)
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_in_the_middle_of_its_request_is_answered_by_nobody() {
    for (failure, expected) in [
        (Failure::ClientGone, "0 DC downstream_remote_disconnect"),
        (Failure::ClientReset, "0 DR http2.remote_reset"),
        (Failure::ClientRefused, "0 DR http2.remote_refuse"),
    ] {
        let place = Place::new(Direction::Outbound);
        let exchange = place.exchange();
        let request = fixture::with(Request::new(empty()), &exchange);
        // What becomes of an upload that breaks off.
        let inner = service_fn(move |request: Request<Taken>| async move {
            let exchange = Exchange::of(&request).cloned().unwrap();
            exchange.note_error(&Error::with_source(failure, io::Error::other("broken")));
            let mut response = Response::new(text("nobody reads it"));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            Ok::<_, Infallible>(response)
        });
        let response = place.layer().layer(inner).oneshot(request).await.unwrap();
        drop(response);
        assert_eq!(place.lines(), format!("{expected} 0 0 0 0 -\n"));
        assert_eq!(
            place.counts(),
            [
                ("downstream_rq_total", 1),
                ("downstream_rq_http1_total", 1),
                ("downstream_rq_rx_reset", 1)
            ]
        );
        assert_eq!(
            exchange.with_notes(|notes| notes.transport_failure.clone()),
            None
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_in_the_middle_of_a_response_is_noted_once() {
    let place = Place::new(Direction::Outbound);
    let inner = service_fn(|_: Request<Taken>| async {
        Ok::<_, Infallible>(Response::new(chunks(["one", "two"], None)))
    });
    let request = fixture::with(Request::new(empty()), &place.exchange());
    let response = place.layer().layer(inner).oneshot(request).await.unwrap();
    let mut body = response.into_body();
    assert!(body.frame().await.is_some());
    drop(body);
    assert_eq!(
        place.lines(),
        "200 DC downstream_remote_disconnect 0 3 0 0 -\n"
    );
    assert_eq!(place.stats.get(HttpStat::RqRxReset), 1);
    assert_eq!(place.stats.get(HttpStat::Rq2xx), 1);
    assert_eq!(place.stats.get(HttpStat::RqActive), 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_has_to_ask_again_is_complete() {
    // HEAD, no content, and a length that was sent in full: servers drop these bodies early.
    let place = Place::new(Direction::Outbound);
    let inner = service_fn(|request: Request<Taken>| async move {
        let mut response = Response::new(chunks(["1234"], None));
        match request.uri().path() {
            "/none" => *response.status_mut() = StatusCode::NO_CONTENT,
            _ => {
                let length = HeaderValue::from_static("4");
                response.headers_mut().insert("content-length", length);
            }
        }
        Ok::<_, Infallible>(response)
    });
    for (method, path, read) in [("HEAD", "/", 0), ("GET", "/none", 0), ("GET", "/length", 1)] {
        let request = Request::builder().method(method).uri(path).body(empty());
        let request = fixture::with(request.unwrap(), &place.exchange());
        let response = place.layer().layer(inner).oneshot(request).await.unwrap();
        let mut body = response.into_body();
        for _ in 0..read {
            body.frame().await;
        }
    }
    assert_eq!(
        place.lines(),
        "200 - via_upstream 0 0 0 0 -\n204 - via_upstream 0 0 0 0 -\n200 - via_upstream 0 4 0 0 -\n"
    );
    assert_eq!(place.stats.get(HttpStat::RqRxReset), 0);
    assert_eq!(place.stats.get(HttpStat::RqCompleted), 3);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_nobody_answered_is_noted_and_passed_on_as_it_is() {
    let place = Place::new(Direction::Outbound);
    let probe = Probe::answering([
        Answers::Fails(Failure::NoHealthyHost),
        Answers::FailsForeign("broken"),
    ]);
    for expected in [Failure::NoHealthyHost, Failure::Internal] {
        let request = fixture::with(Request::new(empty()), &place.exchange());
        let error: BoxError = place
            .layer()
            .layer(probe.clone())
            .oneshot(request)
            .await
            .unwrap_err();
        assert_eq!(Error::wrap(error).failure(), expected);
    }
    assert_eq!(
        place.lines(),
        "0 UH no_healthy_upstream 0 0 0 0 -\n0 - internal_error 0 0 0 0 -\n"
    );
    assert_eq!(place.stats.get(HttpStat::RqCompleted), 0);
    assert_eq!(place.stats.get(HttpStat::RqRxReset), 0);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_our_own_type_is_seen_too() {
    let place = Place::new(Direction::Outbound);
    let inner = service_fn(|_: Request<Taken>| async {
        Err::<Response<BoxedBody>, _>(Error::new(Failure::Overflow))
    });
    let request = fixture::with(Request::new(empty()), &place.exchange());
    assert!(place.layer().layer(inner).oneshot(request).await.is_err());
    assert_eq!(
        place.lines(),
        "0 UO upstream_reset_before_response_started{overflow} 0 0 0 0 -\n"
    );
}

#[tokio::test(start_paused = true)]
async fn a_response_that_breaks_off_is_noted() {
    let place = Place::new(Direction::Outbound);
    let frames = |error: BoxError| {
        let mut parts = vec![Err(error), Ok(Frame::data(Bytes::from_static(b"part")))];
        let next = std::future::poll_fn(move |_| Poll::Ready(parts.pop()));
        BodyExt::boxed(Frames(next))
    };
    let inner = service_fn(|request: Request<Taken>| {
        let exchange = Exchange::of(&request).unwrap();
        let endpoint = Endpoint::new(fixture::address("127.0.0.1:1"));
        exchange.set_upstream(Upstream::new(Arc::new(endpoint)));
        let body = match request.uri().path() {
            "/ours" => frames(Error::new(Failure::StreamIdle).into()),
            _ => frames("connection lost".into()),
        };
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    });
    for (path, kind) in [
        ("/ours", "text/plain"),
        ("/theirs", "text/plain"),
        ("/ours", "application/grpc"),
        ("/theirs", "application/grpc"),
    ] {
        let request = Request::get(path).header("content-type", kind);
        let request = fixture::with(request.body(empty()).unwrap(), &place.exchange());
        let response = place.layer().layer(inner).oneshot(request).await.unwrap();
        assert!(response.into_body().collect().await.is_err());
    }
    assert_eq!(
        place.lines(),
        "200 SI stream_idle_timeout 0 4 0 0 -\n\
         200 UC upstream_reset_after_response_started{connection_termination} 0 4 0 0 -\n"
            .repeat(2)
    );
    assert_eq!(place.stats.get(HttpStat::RqTxReset), 4);
    // Envoy counts calls that were not yet taken for a success or a failure.
    assert_eq!(place.stats.get(HttpStat::RqResetAfterStart), 1);
    assert_eq!(place.stats.get(HttpStat::RqRxReset), 4, "as in Envoy");
}

/// A body of what a function gives.
struct Frames<F>(F);

impl<F> Body for Frames<F>
where
    F: Future<Output = Option<Result<Frame<Bytes>, BoxError>>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_grpc_response_is_read_from_its_trailers_or_its_head() {
    let place = Place::new(Direction::Inbound);
    let inner = service_fn(|request: Request<Taken>| async move {
        let mut status = HeaderMap::new();
        status.insert("grpc-status", HeaderValue::from_static("5"));
        let response = if request.uri().path() == "/trailers" {
            Response::new(chunks(["x"], Some(status)))
        } else {
            let mut response = Response::new(empty());
            *response.headers_mut() = status;
            response
        };
        Ok::<_, Infallible>(response)
    });
    for path in ["/trailers", "/head", "/other"] {
        let mut request = Request::get(path).body(empty()).unwrap();
        if path != "/other" {
            let grpc = HeaderValue::from_static("application/grpc");
            request.headers_mut().insert("content-type", grpc);
        }
        let request = fixture::with(request, &place.exchange());
        let response = place.layer().layer(inner).oneshot(request).await.unwrap();
        read(response.into_body()).await;
    }
    assert_eq!(
        place.lines(),
        "200 - via_upstream 0 1 0 0 5\n200 - via_upstream 0 0 0 0 5\n200 - via_upstream 0 0 0 0 -\n"
    );
    let metrics = place.metrics();
    assert!(metrics.contains("request_protocol=\"grpc\",response_code=\"200\",response_flags=\"-\",grpc_response_status=\"5\""));
    assert!(metrics.contains("request_protocol=\"http\",response_code=\"200\",response_flags=\"-\",grpc_response_status=\"\""));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_request_is_told_when_it_is_read_empty_or_dropped() {
    let place = Place::new(Direction::Outbound);
    // Read in two parts, the second a second later.
    let inner = service_fn(|request: Request<Taken>| async move {
        let exchange = Exchange::of(&request).unwrap().clone();
        let mut body = request.into_body();
        body.frame().await;
        assert!(!exchange.request_end().is_set());
        tokio::time::sleep(Duration::from_secs(1)).await;
        while body.frame().await.is_some() {}
        assert!(exchange.request_end().is_set());
        assert_eq!(exchange.received(), 6);
        // Kept on purpose: it has ended all the same.
        let response = Response::new(empty());
        drop(body);
        Ok::<_, Infallible>(response)
    });
    let request = Request::new(chunks(["one", "two"], None));
    let request = fixture::with(request, &place.exchange());
    place.layer().layer(inner).oneshot(request).await.unwrap();
    assert_eq!(place.lines(), "200 - via_upstream 6 0 1000 1000 -\n");

    let exchange = place.exchange();
    drop(Received::new(text("unread"), exchange.clone(), None));
    assert!(exchange.request_end().is_set());
    let exchange = place.exchange();
    let _kept = Received::new(empty(), exchange.clone(), None);
    assert!(exchange.request_end().is_set());
}

#[tokio::test(start_paused = true)]
async fn a_request_for_another_protocol_never_ends_and_timeouts_begin_for_websockets_alone() {
    let place = Place::new(Direction::Outbound);
    for (protocol, bounded, whole) in [
        ("WebSocket", true, false),
        ("foo", false, false),
        ("h2c", true, true),
    ] {
        let exchange = place.exchange();
        let mut request = Request::new(empty());
        let headers = request.headers_mut();
        headers.insert("connection", HeaderValue::from_static("upgrade"));
        headers.insert("upgrade", HeaderValue::from_static(protocol));
        let request = fixture::with(request, &exchange);
        let response = place.layer().layer(Probe::new()).oneshot(request).await;
        drop(response);
        assert_eq!(exchange.request_end().is_set(), bounded, "{protocol}");
        assert_eq!(exchange.request_is_whole(), whole, "{protocol}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_future_dropped_in_its_first_poll_leaves_no_gauge_raised() {
    let place = Place::new(Direction::Outbound);
    let request = fixture::with(Request::new(empty()), &place.exchange());
    let mut service = place.layer().layer(Probe::new());
    let ready = service.ready().await.unwrap();
    drop(ready.call(request));
    assert_eq!(place.stats.get(HttpStat::RqActive), 0);
    assert_eq!(place.stats.get(HttpStat::RqRxReset), 1);
}

#[tokio::test(start_paused = true)]
async fn running_telemetry_writes_lines_out_without_being_asked() {
    let place = Place::with_format(Direction::Outbound, "line");
    let telemetry = place.telemetry.clone();
    let running = tokio::spawn(async move { telemetry.run(Duration::from_secs(1)).await });
    place
        .ask(&Probe::new(), empty())
        .await
        .0
        .into_body()
        .collect()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(*place.log.0.lock().unwrap(), b"line\n");
    running.abort();
}

#[test]
fn futures_and_bodies_stay_small() {
    assert!(size_of::<Tally>() <= 48);
    assert!(size_of::<Tracked<()>>() <= 48);
    assert!(size_of::<Received<()>>() <= 48);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_told_as_it_left() {
    let format = "%REQ(:METHOD)% %REQ(:PATH)% %REQ(:AUTHORITY)% %REQ(X-A)% %REQ(X-B?X-A)% \
                  %DOWNSTREAM_REMOTE_ADDRESS%";
    let place = Place::with_format(Direction::Outbound, format);
    let told = async |change: fn(&Exchange)| {
        let exchange = place.exchange();
        let request = Request::get("http://a/old").header("x-a", "came");
        let request = fixture::with(request.body(empty()).unwrap(), &exchange);
        let inner = service_fn(|_: Request<Taken>| async {
            change(&exchange);
            Ok::<_, Infallible>(Response::new(empty()))
        });
        place.layer().layer(inner).oneshot(request).await.unwrap();
        let lines = place.lines();
        lines.lines().next_back().unwrap().to_owned()
    };
    assert_eq!(told(|_| {}).await, "GET /old a came came -");
    let left = told(|exchange| {
        exchange.set_remote("1.2.3.4:0".parse().unwrap());
        let left = Request::get("/new").header("host", "b").header("x-b", "");
        exchange.note_head(&left.body(()).unwrap());
    });
    // Seen of Envoy: a header that is there and empty is no dash.
    assert_eq!(left.await, "GET /new b -  1.2.3.4:0");
}
