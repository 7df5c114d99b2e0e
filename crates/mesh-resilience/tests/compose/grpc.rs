//! A gRPC method without generated code: it answers what it is sent.

use bytes::{Buf, BufMut};
use http::{Request, Response};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::UnaryService;
use tower::Service;

/// Text as it is.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;
    fn encode(&mut self, item: String, dst: &mut EncodeBuf<'_>) -> Result<(), Status> {
        dst.put_slice(item.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;
    fn decode(&mut self, src: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = src.copy_to_bytes(src.remaining());
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}

/// Calls the method.
pub(crate) async fn echo<T>(channel: T, text: &str) -> Result<String, Status>
where
    T: GrpcService<Body>,
    T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    <T::ResponseBody as http_body::Body>::Error:
        Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    let origin = http::Uri::from_static("http://echo");
    let mut client = tonic::client::Grpc::with_origin(channel, origin);
    client
        .ready()
        .await
        .map_err(|error| Status::unknown(error.into().to_string()))?;
    let path = http::uri::PathAndQuery::from_static("/test.Echo/Echo");
    let request = tonic::Request::new(text.to_owned());
    let response = client.unary(request, path, Text).await?;
    Ok(response.into_inner())
}

/// The server of the method.
#[derive(Clone)]
pub(crate) struct Echo {
    failures: Arc<AtomicU32>,
}

impl Echo {
    /// Answers UNAVAILABLE that many times first.
    pub(crate) fn failing(failures: u32) -> Self {
        Self {
            failures: Arc::new(AtomicU32::new(failures)),
        }
    }
}

impl UnaryService<String> for Echo {
    type Response = String;
    type Future = std::future::Ready<Result<tonic::Response<String>, Status>>;

    fn call(&mut self, request: tonic::Request<String>) -> Self::Future {
        let left = &self.failures;
        let fails = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        std::future::ready(match fails {
            Ok(_) => Err(Status::unavailable("not yet")),
            Err(_) => Ok(tonic::Response::new(request.into_inner())),
        })
    }
}

impl<B> Service<Request<B>> for Echo
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move { Ok(tonic::server::Grpc::new(Text).unary(service, request).await) })
    }
}
