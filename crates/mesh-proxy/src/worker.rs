//! One core's loop: accepts connections on its own sockets and serves them with its own stack and
//! its own connection pools.

use crate::accept;
use crate::http::serve::serve;
use crate::http::stack::RequestStack;
use crate::listener::{HttpBlocks, ListenerState};
use mesh_client::Upstreams;
use mesh_core::model::Listener;
use mesh_core::{Name, Shard};
use std::collections::HashMap;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

/// How often unused connections to endpoints are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// What a worker is told to do. Everything else it reads from its feed.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve a new listener on this socket.
    Open(Arc<Listener>, StdListener),
    /// Use these settings for an open listener.
    Update(Arc<Listener>),
    /// Accept nothing more on a listener and let its connections finish.
    Close(Name),
    /// Do that for all listeners, for good.
    Drain,
}

pub(crate) struct Worker {
    pub(crate) shard: Shard,
    pub(crate) stack: RequestStack,
    pub(crate) upstreams: Upstreams,
    pub(crate) blocks: HttpBlocks,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) tasks: TaskTracker,
}

/// An open listener. Dropping `drain` ends its accept loop and drains its connections.
struct Open {
    state: Arc<ListenerState>,
    drain: watch::Sender<bool>,
}

// === impl Worker ===

impl Worker {
    /// Runs until told to drain and every connection has finished, or `drain_time` is over.
    pub(crate) async fn run(mut self, drain_time: Duration) {
        let mut open: HashMap<Name, Open> = HashMap::new();
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Open(listener, socket)) => {
                        if let Some(opened) = self.open(&listener, socket) {
                            open.insert(listener.name.clone(), opened);
                        }
                    }
                    Some(Command::Update(listener)) => {
                        if let Some(open) = open.get(&listener.name) {
                            open.state.update(&listener, &self.blocks);
                        }
                    }
                    Some(Command::Close(name)) => drop(open.remove(&name)),
                    // Without a sender there is nobody left to run for.
                    Some(Command::Drain) | None => break,
                },
                _ = sweep.tick() => self.upstreams.sweep(tokio::time::Instant::now().into_std()),
            }
        }
        drop(open);
        self.tasks.close();
        if tokio::time::timeout(drain_time, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(left = self.tasks.len(), "drain time is over");
        }
    }

    fn open(&self, listener: &Listener, socket: StdListener) -> Option<Open> {
        let state = Arc::new(ListenerState::new(listener, self.shard, &self.blocks));
        let socket = match TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::error!(listener = %listener.name, %error, "cannot watch the socket");
                return None;
            }
        };
        let (drain, drained) = watch::channel(false);
        let accepting = accept_all(
            socket,
            self.stack.clone(),
            state.clone(),
            self.tasks.clone(),
            drained,
        );
        self.tasks.spawn(accepting);
        Some(Open { state, drain })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.drain.send_replace(true);
    }
}

/// Accepts until told to drain. What the kernel has already accepted for us is still served: it
/// would be reset with the socket.
async fn accept_all(
    socket: TcpListener,
    stack: RequestStack,
    state: Arc<ListenerState>,
    tasks: TaskTracker,
    drained: watch::Receiver<bool>,
) {
    let serve = |(stream, peer)| {
        tasks.spawn(serve(
            stream,
            peer,
            stack.clone(),
            state.clone(),
            tasks.clone(),
            drained.clone(),
        ));
    };
    let mut drain = drained.clone();
    loop {
        // To drain first: with enough callers there is always one more to accept.
        tokio::select! {
            biased;
            // Both a changed value and a lost sender mean the end.
            _ = drain.wait_for(|drain| *drain) => break,
            accepted = accept::next(&socket) => serve(accepted),
        }
    }
    accept::waiting(socket).into_iter().for_each(serve);
}
