use super::*;
use http_body_util::BodyExt;
use mesh_core::BoxError;
use mesh_test::{BoxedBody, chunks, contract, empty, fixture, read};
use std::time::Duration;
use tokio::time::{Sleep, sleep};
use tower::{ServiceExt, service_fn};

/// 150 bytes.
const LONG: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
                    xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

fn kib(rate: u64) -> NonZeroU64 {
    NonZeroU64::new(rate).unwrap()
}

#[tokio::test]
async fn keeps_the_contract_of_a_layer() {
    contract::check(PaceLayer::fixed(kib(1))).await;
    contract::check(PaceLayer::per_route()).await;
}

/// Each frame, and when it came in milliseconds.
async fn frames<B: Body<Data = bytes::Bytes> + Unpin>(mut body: B) -> Vec<(u128, usize)> {
    let start = Instant::now();
    let mut seen = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, bytes::Bytes::len);
        seen.push((start.elapsed().as_millis(), length));
    }
    seen
}

fn answering(
    body: impl Fn() -> BoxedBody + Clone,
) -> impl Service<Request<BoxedBody>, Response = Response<BoxedBody>, Error = BoxError, Future: Send>
+ Clone {
    service_fn(move |_: Request<BoxedBody>| {
        let body = body();
        async { Ok::<_, BoxError>(Response::new(body)) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_slice_is_passed_on_at_once_and_more_every_50_ms() {
    let service = PaceLayer::fixed(kib(1)).layer(answering(|| mesh_test::text(LONG)));
    let response = service.oneshot(Request::new(empty())).await.unwrap();
    assert_eq!(response.body().size_hint().exact(), Some(150));
    // As Envoy 1.40: 51 bytes, then as many as 50 ms are worth.
    let seen = frames(response.into_body()).await;
    assert_eq!(seen[..2], [(0, 51), (50, 51)]);
    assert_eq!(seen.iter().map(|(_, length)| length).sum::<usize>(), 150);
    assert_eq!(seen.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn trailers_come_behind_the_last_byte() {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-after", http::HeaderValue::from_static("1"));
    let of = trailers.clone();
    let service = PaceLayer::fixed(kib(1)).layer(answering(move || {
        chunks([&LONG[..60], &LONG[..40]], Some(of.clone()))
    }));
    let response = service.oneshot(Request::new(empty())).await.unwrap();
    let start = Instant::now();
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(start.elapsed().as_millis(), 50);
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(collected.to_bytes().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_fast_reader_of_a_slow_answer_waits_for_the_answer_alone() {
    // Ten bytes now and ten a second later are less than the rate.
    let service = PaceLayer::fixed(kib(1)).layer(service_fn(|_: Request<BoxedBody>| async {
        Ok::<_, BoxError>(Response::new(Late(2, Box::pin(sleep(Duration::ZERO)))))
    }));
    let response = service.oneshot(Request::new(empty())).await.unwrap();
    assert_eq!(frames(response.into_body()).await, [(0, 10), (1000, 10)]);
}

/// So many times ten bytes, each a second after the one before.
struct Late(u8, Pin<Box<Sleep>>);

impl Body for Late {
    type Data = bytes::Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, BoxError>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        ready!(self.1.as_mut().poll(cx));
        self.0 -= 1;
        self.1 = Box::pin(sleep(Duration::from_secs(1)));
        let data = bytes::Bytes::from_static(b"0123456789");
        Poll::Ready(Some(Ok(http_body::Frame::data(data))))
    }
}

#[tokio::test(start_paused = true)]
async fn the_exchange_says_how_slow_an_answer_is_and_keeps_what_it_holds() {
    let held = std::sync::Arc::new(());
    for slow in [true, false] {
        let exchange = fixture::exchange(mesh_core::model::Rule::prefix_to("/", "a"), None);
        if slow {
            exchange.set_pace(kib(1), Some(Box::new(held.clone())));
        }
        let request = fixture::with(Request::new(empty()), &exchange);
        let service = PaceLayer::per_route().layer(answering(|| mesh_test::text(&LONG[..100])));
        let response = service.oneshot(request).await.unwrap();
        drop(exchange);
        let start = Instant::now();
        assert_eq!(read(response.into_body()).await.len(), 100);
        assert_eq!(start.elapsed().as_millis(), if slow { 50 } else { 0 });
        assert_eq!(
            std::sync::Arc::strong_count(&held),
            1,
            "the request is over"
        );
    }
}

#[tokio::test]
async fn a_request_without_an_exchange_gets_one_to_write_into() {
    let service =
        PaceLayer::per_route().layer(service_fn(|request: Request<BoxedBody>| async move {
            let exchange = Exchange::of(&request).unwrap();
            exchange.set_pace(kib(1), None);
            Ok::<_, BoxError>(Response::new(empty()))
        }));
    assert!(service.oneshot(Request::new(empty())).await.is_ok());
}
