//! The codec of discovery streams: requests are decoded, responses write themselves.

use super::Response;
use prost::Message;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

pub(super) struct DiscoveryCodec<R>(PhantomData<fn() -> R>);

pub(super) struct Write;

pub(super) struct Read<R>(PhantomData<fn() -> R>);

// === impl DiscoveryCodec ===

impl<R> Default for DiscoveryCodec<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R: Message + Default + 'static> Codec for DiscoveryCodec<R> {
    type Encode = Response;
    type Decode = R;
    type Encoder = Write;
    type Decoder = Read<R>;

    fn encoder(&mut self) -> Write {
        Write
    }

    fn decoder(&mut self) -> Read<R> {
        Read(PhantomData)
    }
}

// === impl Write ===

impl Encoder for Write {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, item: Response, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // Once, instead of growing step by step.
        to.reserve(item.encoded_len());
        item.encode(to);
        Ok(())
    }
}

// === impl Read ===

impl<R: Message + Default> Decoder for Read<R> {
    type Item = R;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<R>, Status> {
        // gRPC: INTERNAL is what other implementations answer to bytes that are no message.
        R::decode(from)
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}
