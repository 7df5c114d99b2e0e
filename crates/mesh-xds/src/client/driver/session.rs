//! One stream to one server.

use super::{Client, now, sleep_until};
use crate::client::backoff::Backoff;
use crate::client::machine::{Request, Response, Variant};
use crate::pb::envoy::service::discovery::v3 as discovery;
use discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_core::Rng;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Requests that wait for the connection to take them.
const REQUESTS: usize = 64;

/// Time between two looks at whether a better server can be reached, besides a back-off up to
/// [`SEARCH`].
const LEAST_SEARCH: Duration = Duration::from_secs(1);

/// Windows of the back-off of the search for a better server.
pub(super) const SEARCH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(59));

/// Why a session ended.
pub(super) enum End {
    /// The stream ended, or could not be opened.
    Failed(String),
    /// A better server can be reached. With how the search for it went on.
    Better(usize, Backoff),
}

/// Responses in either variant.
enum Incoming {
    Delta(Streaming<discovery::DeltaDiscoveryResponse>),
    Sotw(Streaming<discovery::DiscoveryResponse>),
}

// === impl Client ===

impl Client {
    /// Connects to a server and speaks to it until that ends.
    pub(super) async fn session(&mut self, at: usize) -> End {
        let Some(server) = self.servers.get(at) else {
            return End::Failed("no such server".to_owned());
        };
        let (uri, endpoint) = (server.uri.clone(), server.endpoint.clone());
        let better: Vec<Endpoint> = self.servers[..at]
            .iter()
            .map(|server| server.endpoint.clone())
            .collect();
        let channel = match self.beside(endpoint.connect(), None).await {
            Ok(channel) => channel,
            Err(error) => return End::Failed(with_sources(&error)),
        };
        self.core.machine.opened(&uri);
        let (requests, queue) = mpsc::channel(REQUESTS);
        // What a server answers it may answer only after a first request.
        self.send(&requests);
        let variant = self.core.machine.config().variant;
        let message = self.core.machine.config().limits.message;
        let opening = open(channel, variant, queue, message);
        let mut incoming = match self.beside(opening, Some(&requests)).await {
            Ok(incoming) => incoming,
            Err(status) => return End::Failed(said(&status)),
        };
        self.core.connected(&uri);
        let mut better = pin!(look_for_better(
            better,
            self.search.clone(),
            self.random.fork()
        ));
        loop {
            self.send(&requests);
            let reads = self.core.machine.may_receive();
            let full = requests.capacity() == 0;
            tokio::select! {
                message = incoming.next(), if reads => match message {
                    Ok(Some(response)) => {
                        self.core.machine.receive(response, now());
                        self.core.work(now());
                    }
                    Ok(None) => return End::Failed("the server ended the stream".to_owned()),
                    Err(status) => return End::Failed(said(&status)),
                },
                (at, search) = &mut better => return End::Better(at, search),
                _ = requests.reserve(), if full => {}
                () = sleep_until(self.core.deadline()) => self.core.tick(now()),
                Some(command) = self.commands.recv() => self.core.command(command, now()),
            }
        }
    }

    /// Hands requests over as far as there is room.
    fn send(&mut self, requests: &mpsc::Sender<Request>) {
        while let Ok(place) = requests.try_reserve() {
            match self.core.machine.poll_request(now()) {
                Some(request) => place.send(request),
                None => return,
            }
        }
    }

    /// Waits for something and goes on with everything else meanwhile.
    async fn beside<F: Future>(
        &mut self,
        future: F,
        requests: Option<&mpsc::Sender<Request>>,
    ) -> F::Output {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                output = &mut future => return output,
                () = sleep_until(self.core.deadline()) => self.core.tick(now()),
                Some(command) = self.commands.recv() => self.core.command(command, now()),
            }
            if let Some(requests) = requests {
                self.send(requests);
            }
        }
    }
}

// === impl Incoming ===

impl Incoming {
    async fn next(&mut self) -> Result<Option<Response>, Status> {
        Ok(match self {
            Self::Delta(stream) => {
                let message = stream.message().await?;
                message.map(|message| Response::Delta(Box::new(message)))
            }
            Self::Sotw(stream) => {
                let message = stream.message().await?;
                message.map(|message| Response::Sotw(Box::new(message)))
            }
        })
    }
}

async fn open(
    channel: Channel,
    variant: Variant,
    queue: mpsc::Receiver<Request>,
    message: usize,
) -> Result<Incoming, Status> {
    let mut client = AggregatedDiscoveryServiceClient::new(channel)
        .max_decoding_message_size(message)
        .max_encoding_message_size(message);
    let queue = ReceiverStream::new(queue);
    Ok(match variant {
        Variant::Delta => {
            let requests = queue.filter_map(|request| match request {
                Request::Delta(request) => Some(*request),
                Request::Sotw(_) => None,
            });
            let answer = client.delta_aggregated_resources(requests).await?;
            Incoming::Delta(answer.into_inner())
        }
        Variant::Sotw => {
            let requests = queue.filter_map(|request| match request {
                Request::Sotw(request) => Some(*request),
                Request::Delta(_) => None,
            });
            let answer = client.stream_aggregated_resources(requests).await?;
            Incoming::Sotw(answer.into_inner())
        }
    })
}

/// Tries the servers that are better than the present one again and again (gRFC A71). Returns the
/// place of one that can be reached.
async fn look_for_better(
    servers: Vec<Endpoint>,
    mut search: Backoff,
    random: Rng,
) -> (usize, Backoff) {
    if servers.is_empty() {
        return std::future::pending().await;
    }
    loop {
        let wait = search.next(random.word());
        tokio::time::sleep(LEAST_SEARCH + wait).await;
        for (at, server) in servers.iter().enumerate() {
            if server.connect().await.is_ok() {
                return (at, search);
            }
        }
    }
}

pub(in crate::client) fn said(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

pub(in crate::client) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
