//! Requests of a discovery stream, out of a gRPC body.

use super::Refused;
use bytes::{Buf, Bytes, BytesMut};
use http_body::Body as _;
use prost::Message;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::pin::Pin;
use tonic::Code;
use tonic::body::Body;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What gRPC puts before a message: whether it is compressed, and its length.
const HEAD: usize = 5;

/// The requests of a stream. Between two of them it holds no buffer, however long they are.
pub(super) struct Requests<R> {
    body: Body,
    buffer: BytesMut,
    /// How long a request may be, in bytes.
    most: usize,
    kind: PhantomData<fn() -> R>,
}

// === impl Requests ===

impl<R: Message + Default> Requests<R> {
    pub(super) fn new<B>(body: B, most: usize) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self {
            body: Body::new(body),
            buffer: BytesMut::new(),
            most,
            kind: PhantomData,
        }
    }

    /// The next request; none once the client has left.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Option<R>, Refused> {
        loop {
            if let Some(request) = self.decode()? {
                return Ok(Some(request));
            }
            match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.buffer.extend_from_slice(&data),
                    Err(_trailers) => return Ok(None),
                },
                Some(Err(status)) if status.code() == Code::Cancelled => return Ok(None),
                // The client has gone, and nobody hears it.
                Some(Err(status)) => return Err(Refused::invalid(status.message())),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Refused::invalid("the stream ends within a message")),
            }
        }
    }

    fn decode(&mut self) -> Result<Option<R>, Refused> {
        let Some((head, rest)) = self.buffer.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [compressed, len @ ..] = *head;
        if compressed != 0 {
            return Err(Refused::invalid(
                "a message says that it is compressed; send it as it is",
            ));
        }
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if len > self.most {
            return Err(Refused::exhausted(format!(
                "a request has {len} bytes; at most {} are allowed",
                self.most
            )));
        }
        if rest.len() < len {
            // As far as anything of it has come; a length alone costs nothing.
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let message = self.buffer.split_to(len);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        let decoded = R::decode(message);
        decoded
            .map(Some)
            .map_err(|error| Refused::invalid(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
    use futures_util::FutureExt;
    use http_body::Frame;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    struct Chunks(VecDeque<Bytes>);

    impl http_body::Body for Chunks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
    }

    fn request(names: usize) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            resource_names_subscribe: (0..names).map(|name| name.to_string()).collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    fn framed(request: &DeltaDiscoveryRequest) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(request.encoded_len()).unwrap().to_be_bytes());
        bytes.extend(request.encode_to_vec());
        bytes
    }

    fn reading(bytes: &[u8], chunk: usize) -> Requests<DeltaDiscoveryRequest> {
        let chunks = bytes.chunks(chunk).map(Bytes::copy_from_slice);
        Requests::new(Chunks(chunks.collect()), 4_000)
    }

    fn next(
        of: &mut Requests<DeltaDiscoveryRequest>,
    ) -> Result<Option<DeltaDiscoveryRequest>, Refused> {
        of.next().now_or_never().unwrap()
    }

    proptest! {
        #[test]
        fn requests_are_read_however_they_are_cut(
            names in prop::collection::vec(0_usize..100, 0..6),
            chunk in 1_usize..600,
        ) {
            let all: Vec<_> = names.into_iter().map(request).collect();
            let bytes: Vec<u8> = all.iter().flat_map(framed).collect();
            let mut requests = reading(&bytes, chunk);
            for one in all {
                prop_assert_eq!(next(&mut requests).unwrap(), Some(one));
            }
            prop_assert_eq!(next(&mut requests).unwrap(), None);
        }

        #[test]
        fn any_bytes_are_requests_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            chunk in 1_usize..50,
        ) {
            let mut requests = reading(&bytes, chunk);
            while let Ok(Some(_)) = next(&mut requests) {}
        }
    }

    #[test]
    fn no_buffer_is_kept_of_a_long_request() {
        let mut requests = reading(&framed(&request(500)), 1_000);
        next(&mut requests).unwrap();
        assert_eq!(requests.buffer.capacity(), 0);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let cut = &framed(&request(5))[..9];
        let (flag, long) = ([1, 0, 0, 0, 0], [0, 0, 0, 0x0f, 0xa1]);
        let cases = [(cut, 3), (&flag[..], 3), (&long[..], 8)];
        for (bytes, code) in cases {
            let refused = next(&mut reading(bytes, 100)).unwrap_err();
            assert_eq!(refused.code(), code, "{refused:?}");
        }
    }
}
