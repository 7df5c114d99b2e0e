use super::*;
use http::HeaderValue;
use http_body_util::{BodyExt, Full};
use mesh_test::{BoxedBody, chunks, empty, read, read_all, text};
use proptest::prelude::*;

const LIMIT: usize = 1000;

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", HeaderValue::from_static("yes"));
    trailers
}

/// Reads up to `frames` frames as text.
async fn some<B>(body: &mut ReplayBody<B>, frames: usize) -> String
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let mut read = String::new();
    for _ in 0..frames {
        let Some(frame) = body.frame().await else {
            break;
        };
        if let Ok(data) = frame.unwrap().into_data() {
            read.push_str(std::str::from_utf8(&data).unwrap());
        }
    }
    read
}

#[tokio::test]
async fn every_attempt_sends_the_same_body_and_trailers() {
    let (replay, first) = Replay::begin(chunks(["a", "b", "c"], Some(trailers())), LIMIT);
    let second = replay.next();
    let expected = ("abc".to_owned(), Some(trailers()));
    // The first was superseded, so begin with what came after it.
    assert!(first.collect().await.is_err());
    assert_eq!(read_all(second).await, expected);
    for _ in 0..2 {
        assert_eq!(read_all(replay.next()).await, expected);
    }
}

#[tokio::test]
async fn an_attempt_goes_on_where_the_one_before_it_stopped() {
    let (replay, mut first) = Replay::begin(chunks(["a", "b", "c", "d"], None), LIMIT);
    assert_eq!(some(&mut first, 2).await, "ab");
    let mut second = replay.next();
    assert_eq!(some(&mut second, 3).await, "abc");
    assert_eq!(read(replay.next()).await, "abcd");
}

#[tokio::test]
async fn an_abandoned_body_fails_rather_than_ends() {
    let (replay, mut first) = Replay::begin(text("whole"), LIMIT);
    let _second = replay.next();
    assert!(!first.is_end_stream());
    let error = first.frame().await.unwrap().unwrap_err();
    assert_eq!(error.failure(), Failure::LocalReset);
}

#[tokio::test]
async fn beyond_the_limit_a_body_streams_on_and_cannot_be_sent_again() {
    let (replay, first) = Replay::begin(chunks(["12345", "67890", "!", "?"], None), 10);
    assert!(replay.is_possible());
    assert_eq!(read(first).await, "1234567890!?");
    assert!(!replay.is_possible());
    let (replay, first) = Replay::begin(chunks(["12345", "67890"], None), 10);
    assert_eq!(read(first).await, "1234567890");
    assert!(replay.is_possible(), "just as much as fits");
}

#[tokio::test]
async fn a_body_in_too_many_pieces_cannot_be_sent_again() {
    for (frames, possible) in [(MOST_FRAMES, true), (MOST_FRAMES + 1, false)] {
        let (replay, first) = Replay::begin(chunks(vec![""; frames], None), LIMIT);
        assert_eq!(read(first).await, "");
        assert_eq!(replay.is_possible(), possible);
    }
}

#[tokio::test]
async fn once_there_is_no_other_attempt_nothing_more_is_kept() {
    let (replay, mut first) = Replay::begin(chunks(["a", "b", "c"], Some(trailers())), LIMIT);
    assert_eq!(some(&mut first, 1).await, "a");
    let mut second = replay.next();
    drop(replay);
    assert_eq!(some(&mut second, 2).await, "ab");
    let Kind::Shared(sender) = &second.kind else {
        panic!("there is a body");
    };
    assert!(lock(&sender.shared).kept.is_empty());
    assert_eq!(read_all(second).await, ("c".to_owned(), Some(trailers())));
}

#[tokio::test]
async fn a_source_that_fails_is_never_taken_for_one_that_ended() {
    let failing = text("x").map_frame(|frame| frame);
    let failing = failing.map_err(|never| never);
    let broken = Broken(Some(failing.boxed()));
    let (replay, mut first) = Replay::begin(broken, LIMIT);
    assert_eq!(some(&mut first, 1).await, "x");
    for _ in 0..2 {
        assert!(first.frame().await.unwrap().is_err());
        assert!(!first.is_end_stream());
    }
    assert!(!replay.is_possible());
    assert_eq!(replay.ended(), None);
}

/// A body that fails where it should end.
struct Broken(Option<BoxedBody>);

impl Body for Broken {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(inner) = &mut self.0 else {
            panic!("polled after it failed");
        };
        match ready!(Pin::new(inner).poll_frame(cx)) {
            Some(frame) => Poll::Ready(Some(frame)),
            None => {
                self.0 = None;
                Poll::Ready(Some(Err("broken".into())))
            }
        }
    }
}

#[tokio::test]
async fn every_attempt_announces_the_same_length() {
    let (replay, first) = Replay::begin(Full::new(Bytes::from_static(b"12345")), LIMIT);
    let mut second = replay.next();
    assert_eq!(first.size_hint().exact(), Some(5));
    assert_eq!(second.size_hint().exact(), Some(5));
    assert!(!second.is_end_stream());
    assert_eq!(some(&mut second, 1).await, "12345");
    assert_eq!(second.size_hint().exact(), Some(0));
    assert!(second.is_end_stream());

    // A length that was unknown stays unknown, or trailers would be lost in HTTP/1.
    let (replay, first) = Replay::begin(chunks(["a"], Some(trailers())), LIMIT);
    read(first).await;
    assert_eq!(replay.next().size_hint().exact(), None);
    assert!(!replay.next().is_end_stream());
}

#[tokio::test]
async fn an_attempt_after_a_body_of_no_bytes_is_framed_as_the_first_one_was() {
    // A length that was not told: chunks of HTTP/1.1 that end at once.
    let (replay, first) = Replay::begin(chunks([], None), LIMIT);
    assert!(!first.is_end_stream());
    assert_eq!(read(first).await, "");
    let second = replay.next();
    assert!(!second.is_end_stream(), "it would be sent with a length");
    assert_eq!(second.size_hint().exact(), None);
    assert_eq!(read(second).await, "");
}

#[tokio::test]
async fn without_a_body_there_is_nothing_to_share() {
    let (replay, first) = Replay::begin(empty(), LIMIT);
    assert!(!replay.has_body());
    assert!(first.is_end_stream() && replay.next().is_end_stream());
    assert_eq!(read(replay.next()).await, "");
}

#[tokio::test]
async fn a_body_that_is_sent_once_is_what_it_was() {
    let body = ReplayBody::once(chunks(["a", "b"], Some(trailers())));
    assert_eq!(read_all(body).await, ("ab".to_owned(), Some(trailers())));
}

#[test]
fn the_end_of_the_request_is_noted_when_it_is_read() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (replay, mut first) = Replay::begin(chunks(["a", "b"], None), LIMIT);
        some(&mut first, 1).await;
        assert_eq!(replay.ended(), None);
        some(&mut first, 9).await;
        let ended = replay.ended().unwrap();
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        read(replay.next()).await;
        assert_eq!(replay.ended(), Some(ended), "read again it ends no later");
    });
}

proptest! {
    /// Whatever is abandoned where, an attempt that is read to its end reads everything, and
    /// another is possible exactly as long as what was read fits.
    #[test]
    fn any_attempt_reads_everything_while_another_is_possible(
        frames in prop::collection::vec("[a-z]{0,6}", 0..12),
        stops in prop::collection::vec(0..14_usize, 0..5),
        limit in 0..40_usize,
        with_trailers: bool,
    ) {
        let whole = frames.concat();
        let end = with_trailers.then(trailers);
        let leaked: Vec<&'static str> = frames
            .iter()
            .map(|frame| &*Box::leak(frame.clone().into_boxed_str()))
            .collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (replay, mut body) = Replay::begin(chunks(leaked, end.clone()), limit);
            let mut furthest = 0;
            for stop in stops {
                let got = some(&mut body, stop).await;
                assert!(whole.starts_with(&got));
                furthest = furthest.max(got.len());
                assert_eq!(replay.is_possible(), furthest <= limit);
                if !replay.is_possible() {
                    // It can still be read on.
                    let (rest, trailers) = read_all(body).await;
                    assert_eq!(got + &rest, whole);
                    if stop <= frames.len() {
                        assert_eq!(trailers, end);
                    }
                    return;
                }
                body = replay.next();
            }
            assert_eq!(read_all(body).await, (whole, end));
        });
    }
}
