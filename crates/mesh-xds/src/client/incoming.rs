//! Streams in either variant, over one of two services.

use super::machine::{Request, Response, Variant};
use super::remote::{Remote, said};
use crate::pb::envoy::service::discovery::v3 as discovery;
use crate::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::Streaming;
use tonic::transport::Channel;

/// Responses in either variant.
pub(super) enum Incoming {
    Delta(Streaming<discovery::DeltaDiscoveryResponse>),
    Sotw(Streaming<discovery::DiscoveryResponse>),
}

/// What a stream is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Api {
    /// Everything.
    Aggregated,
    /// Secrets.
    Secrets,
}

/// How a stream is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) api: Api,
    pub(super) variant: Variant,
    /// The most bytes of a message.
    pub(super) message: usize,
}

// === impl Opening ===

impl Opening {
    /// Opens a stream on a connection to a server; `queue` are the requests.
    pub(super) async fn open(
        self,
        channel: Channel,
        server: &Remote,
        queue: mpsc::Receiver<Request>,
    ) -> Result<Incoming, String> {
        let Self {
            api,
            variant,
            message,
        } = self;
        let opened = match (api, variant) {
            (Api::Aggregated, Variant::Delta) => {
                let mut client = AggregatedDiscoveryServiceClient::new(channel)
                    .max_decoding_message_size(message)
                    .max_encoding_message_size(message);
                let requests = server.request(delta(queue))?;
                let answer = client.delta_aggregated_resources(requests).await;
                answer.map(|answer| Incoming::Delta(answer.into_inner()))
            }
            (Api::Aggregated, Variant::Sotw) => {
                let mut client = AggregatedDiscoveryServiceClient::new(channel)
                    .max_decoding_message_size(message)
                    .max_encoding_message_size(message);
                let requests = server.request(sotw(queue))?;
                let answer = client.stream_aggregated_resources(requests).await;
                answer.map(|answer| Incoming::Sotw(answer.into_inner()))
            }
            (Api::Secrets, Variant::Delta) => {
                let mut client = SecretDiscoveryServiceClient::new(channel)
                    .max_decoding_message_size(message)
                    .max_encoding_message_size(message);
                let requests = server.request(delta(queue))?;
                let answer = client.delta_secrets(requests).await;
                answer.map(|answer| Incoming::Delta(answer.into_inner()))
            }
            (Api::Secrets, Variant::Sotw) => {
                let mut client = SecretDiscoveryServiceClient::new(channel)
                    .max_decoding_message_size(message)
                    .max_encoding_message_size(message);
                let requests = server.request(sotw(queue))?;
                let answer = client.stream_secrets(requests).await;
                answer.map(|answer| Incoming::Sotw(answer.into_inner()))
            }
        };
        opened.map_err(|status| said(&status))
    }
}

fn delta(
    queue: mpsc::Receiver<Request>,
) -> impl Stream<Item = discovery::DeltaDiscoveryRequest> + Send + 'static {
    ReceiverStream::new(queue).filter_map(|request| match request {
        Request::Delta(request) => Some(*request),
        Request::Sotw(_) => None,
    })
}

fn sotw(
    queue: mpsc::Receiver<Request>,
) -> impl Stream<Item = discovery::DiscoveryRequest> + Send + 'static {
    ReceiverStream::new(queue).filter_map(|request| match request {
        Request::Sotw(request) => Some(*request),
        Request::Delta(_) => None,
    })
}

// === impl Incoming ===

impl Incoming {
    /// The next response, or why there is none.
    pub(super) async fn next(&mut self) -> Result<Response, String> {
        let next = match self {
            Self::Delta(stream) => {
                let message = stream.message().await;
                message.map(|one| one.map(|message| Response::Delta(Box::new(message))))
            }
            Self::Sotw(stream) => {
                let message = stream.message().await;
                message.map(|one| one.map(|message| Response::Sotw(Box::new(message))))
            }
        };
        match next {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err("the server ended the stream".to_owned()),
            Err(status) => Err(said(&status)),
        }
    }
}
