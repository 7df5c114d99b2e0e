use super::*;
use crate::server::Variant;
use crate::server::response::Item;
use crate::{Encoded, TypeUrl};
use futures_util::{StreamExt, stream};
use http_body::Body;
use proptest::prelude::*;
use std::task::Waker;

fn response(lengths: &[usize]) -> Response {
    let each = lengths.iter().enumerate();
    let resources = each.map(|(index, len)| {
        let bytes = vec![index as u8; *len];
        Item::new(Encoded::new(format!("r{index}"), bytes), false)
    });
    Response {
        variant: Variant::Delta,
        url: TypeUrl::Cluster.url().into(),
        version: "v".into(),
        nonce: "n".into(),
        resources: resources.collect(),
        removed: vec!["gone".into()],
        control_plane: None,
    }
}

fn messages(all: Vec<Result<Response, Status>>) -> Messages {
    Messages::new(stream::iter(all).boxed())
}

/// The pieces, and then the trailers.
fn drain(mut messages: Messages) -> (Vec<Bytes>, HeaderMap) {
    let mut pieces = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut messages).poll_frame(&mut cx) else {
            panic!("a frame");
        };
        match frame.into_data() {
            Ok(piece) => pieces.push(piece),
            Err(frame) => {
                assert!(messages.is_end_stream());
                let end = Pin::new(&mut messages).poll_frame(&mut cx);
                assert!(matches!(end, Poll::Ready(None)));
                return (pieces, frame.into_trailers().unwrap());
            }
        }
    }
}

fn framed(response: &Response) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(response.encoded_len()).unwrap().to_be_bytes());
    response.encode(&mut bytes);
    bytes
}

proptest! {
    #[test]
    fn pieces_are_the_message_and_none_is_long(
        lengths in prop::collection::vec(prop_oneof![0_usize..3_000, 10_000_usize..90_000], 0..40),
    ) {
        let response = response(&lengths);
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let (pieces, _) = drain(messages(vec![Ok(response.clone())]));
        let most = longest.max(PIECE + SHARED + 512);
        let fits = |piece: &Bytes| !piece.is_empty() && piece.len() <= most;
        prop_assert!(pieces.iter().all(fits));
        prop_assert_eq!(pieces.concat(), framed(&response));
    }
}

#[test]
fn a_long_resource_is_sent_without_a_copy() {
    let response = response(&[10, SHARED, 10]);
    let bytes = response.resources[1].resource.bytes.clone();
    let (pieces, _) = drain(messages(vec![Ok(response)]));
    assert!(pieces.iter().any(|piece| piece.as_ptr() == bytes.as_ptr()));
}

#[test]
fn nothing_is_kept_of_what_was_sent() {
    let mut messages = Messages::new(
        stream::iter([Ok(response(&[1_000; 100]))])
            .chain(stream::pending())
            .boxed(),
    );
    let mut cx = Context::from_waker(Waker::noop());
    while let Poll::Ready(frame) = Pin::new(&mut messages).poll_frame(&mut cx) {
        let piece = frame.unwrap().unwrap().into_data().unwrap();
        // Nobody else refers to the buffer.
        assert!(piece.is_unique());
    }
    assert!(messages.writing.is_none());
}

#[test]
fn a_response_is_written_only_as_fast_as_it_is_taken() {
    let mut writing = Writing::new(response(&[1_000; 1_000])).unwrap();
    writing.next().unwrap();
    assert!(writing.at < 40, "{}", writing.at);
}

#[test]
fn the_end_is_told_in_trailers() {
    let (pieces, trailers) = drain(messages(vec![Ok(response(&[])), Ok(response(&[]))]));
    assert_eq!(pieces.concat(), framed(&response(&[])).repeat(2));
    assert_eq!(trailers["grpc-status"], "0");
    let refused = Err(Status::resource_exhausted("too much"));
    let (pieces, trailers) = drain(messages(vec![refused]));
    assert!(pieces.is_empty());
    assert_eq!(trailers["grpc-status"], "8");
    assert_eq!(trailers["grpc-message"], "too%20much");
}
