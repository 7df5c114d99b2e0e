//! One stream to one server.

use super::lane::Lane;
use super::{Shared, now};
use crate::client::backoff::Backoff;
use crate::client::incoming::{Api, Opening};
use crate::client::machine::Request;
use crate::client::remote::Remote;
use mesh_core::Rng;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::transport::Channel;

/// Requests that wait for the connection to take them.
const REQUESTS: usize = 64;

/// Time between two looks at whether a better server answers, besides a back-off up to [`SEARCH`].
const LEAST_SEARCH: Duration = Duration::from_secs(1);

/// Windows of the back-off of the search for a better server.
pub(super) const SEARCH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(59));

/// How long a better server may take to answer. One that takes longer is asked again later.
const ANSWER: Duration = Duration::from_secs(15);

/// Why a session ended.
pub(super) enum End {
    /// The stream ended, or could not be opened.
    Failed(String),
    /// A better server has answered. With the connection to it, and how the search for it went on.
    Better(usize, Channel, Backoff),
}

/// A search for a better server.
struct Search<'a> {
    servers: &'a [Remote],
    opening: Opening,
    /// What it is asked.
    question: Option<Request>,
    backoff: Backoff,
    random: Rng,
}

// === impl Lane ===

impl Lane {
    /// Speaks to a server until that ends, over this connection if there is one already.
    pub(super) async fn session(
        &mut self,
        shared: &Shared,
        at: usize,
        connected: Option<Channel>,
    ) -> End {
        let server = &self.servers[at];
        let index = self.index;
        let news = &shared.lanes[index];
        let channel = match connected {
            Some(channel) => channel,
            None => match server.connect().await {
                Ok(channel) => channel,
                Err(error) => return End::Failed(error),
            },
        };
        let (requests, queue) = mpsc::channel(REQUESTS);
        let opening = {
            let mut core = shared.core();
            core.opened(index, server);
            let config = core.machine_ref(index).config();
            Opening {
                api: Api::Aggregated,
                variant: config.variant,
                message: config.limits.message,
            }
        };
        // What a server answers it may answer only after a first request.
        shared.send(index, &requests);
        let mut opened = pin!(opening.open(channel, server, queue));
        let mut incoming = loop {
            tokio::select! {
                opened = &mut opened => match opened {
                    Ok(incoming) => break incoming,
                    Err(error) => return End::Failed(error),
                },
                () = news.notified() => shared.send(index, &requests),
            }
        };
        shared.core().connected(index, &server.uri);
        let search = Search {
            servers: &self.servers[..at],
            opening,
            question: shared.core().machine_ref(index).question(),
            backoff: self.search.clone(),
            random: self.random.fork(),
        };
        let mut better = pin!(search.run());
        loop {
            shared.send(index, &requests);
            let reads = shared.core().machine_ref(index).may_receive();
            let full = requests.capacity() == 0;
            tokio::select! {
                message = incoming.next(), if reads => match message {
                    Ok(response) => {
                        let mut core = shared.core();
                        core.machine(index).receive(response, now());
                        core.work(now());
                        drop(core);
                        shared.happened(Some(index));
                    }
                    Err(error) => return End::Failed(error),
                },
                (at, channel, backoff) = &mut better => return End::Better(at, channel, backoff),
                _ = requests.reserve(), if full => {}
                () = news.notified() => {}
            }
        }
    }
}

// === impl Shared ===

impl Shared {
    /// Hands requests over as far as there is room.
    fn send(&self, index: usize, requests: &mpsc::Sender<Request>) {
        let mut core = self.core();
        while let Ok(place) = requests.try_reserve() {
            match core.machine(index).poll_request(now()) {
                Some(request) => place.send(request),
                None => break,
            }
        }
        drop(core);
        // A request may have started the time in which its answer has to come.
        self.timers.notify_one();
    }
}

// === impl Search ===

impl Search<'_> {
    /// Tries better servers again and again. Returns the place of one that answers.
    async fn run(mut self) -> (usize, Channel, Backoff) {
        let Some(question) = self.question.take().filter(|_| !self.servers.is_empty()) else {
            return std::future::pending().await;
        };
        loop {
            let wait = self.backoff.next(self.random.word());
            tokio::time::sleep(LEAST_SEARCH + wait).await;
            for (at, server) in self.servers.iter().enumerate() {
                match timeout(ANSWER, ask(server, self.opening, question.clone())).await {
                    Ok(Ok(channel)) => return (at, channel, self.backoff),
                    Ok(Err(error)) => {
                        tracing::debug!(server = %server.uri, %error, "still of no use");
                    }
                    Err(_) => tracing::debug!(server = %server.uri, "still does not answer"),
                }
            }
        }
    }
}

/// Asks a server something on a stream of its own. The connection can be used afterwards.
async fn ask(server: &Remote, opening: Opening, question: Request) -> Result<Channel, String> {
    let channel = server.connect().await?;
    let (requests, queue) = mpsc::channel(1);
    requests
        .try_send(question)
        .map_err(|_| "the question could not be asked".to_owned())?;
    let mut incoming = opening.open(channel.clone(), server, queue).await?;
    incoming.next().await?;
    Ok(channel)
}
