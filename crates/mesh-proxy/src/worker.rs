//! One core's loop: accepts connections on its own sockets and serves them with its own stack and
//! its own connection pools.

use crate::accept::{Accept, Opened, Ready};
use crate::connection::{Site, serve, serve_plain};
use crate::guard::Permit;
use crate::listener::{ListenerState, Plan, Plans};
use crate::origin::NOWHERE;
use mesh_client::Upstreams;
use mesh_core::model::{Listener, ListenerAddress};
use mesh_core::{InForce, Name};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// How often unused connections to endpoints are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// What a worker is told to do. Everything else it reads from its feed.
#[derive(Debug)]
pub(crate) enum Command {
    /// Serve a new listener on this socket.
    Open(Arc<Listener>, Opened),
    /// Serve a new listener that only gets what others hand over.
    Stand(Arc<Listener>),
    /// Use these settings for an open listener.
    Update(Arc<Listener>),
    /// Accept nothing more on a listener and let its connections finish.
    Close(Name),
    /// Do that for all listeners, for good.
    Drain,
}

pub(crate) struct Worker {
    pub(crate) site: Site,
    pub(crate) upstreams: Upstreams,
    pub(crate) in_force: InForce,
    pub(crate) plans: Plans,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
}

/// One worker's listeners, by the addresses that they are bound to or stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listeners(Arc<Mutex<HashMap<SocketAddr, Arc<ListenerState>>>>);

/// A connection that is served, and its place.
#[pin_project::pin_project]
struct Admitted<F> {
    #[pin]
    serving: F,
    _permit: Permit,
}

/// A listener in service. Dropping it ends its accept loop and drains its connections.
struct Open {
    state: Arc<ListenerState>,
    drain: watch::Sender<bool>,
    listeners: Listeners,
}

// === impl Worker ===

impl Worker {
    /// Runs until told to drain and every connection has finished, or `drain_time` is over.
    pub(crate) async fn run(mut self, drain_time: Duration) {
        let mut open: HashMap<Name, Open> = HashMap::new();
        let mut sweep = tokio::time::interval(SWEEP);
        let mut feed = self.in_force.feed().clone();
        loop {
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(Command::Open(listener, socket)) => {
                        if let Some(opened) = self.open(&listener, socket) {
                            open.insert(listener.name.clone(), opened);
                        }
                    }
                    Some(Command::Stand(listener)) => {
                        let opened = self.stand(&listener, listener.address.clone());
                        open.insert(listener.name.clone(), opened);
                    }
                    Some(Command::Update(listener)) => {
                        if let Some(open) = open.get(&listener.name) {
                            open.state.update(self.plan(&listener, open.state.address()));
                        }
                    }
                    Some(Command::Close(name)) => drop(open.remove(&name)),
                    // Without a sender there is nobody left to run for.
                    Some(Command::Drain) | None => break,
                },
                // Without a request nobody would notice, and what was in force before stay in memory.
                Ok(_) = feed.changed() => self.in_force.let_go(),
                _ = sweep.tick() => {
                    self.upstreams.sweep(tokio::time::Instant::now().into_std());
                    let tcp = &self.site.tcp;
                    tcp.upstreams.adopt(&tcp.feed.load());
                }
            }
        }
        drop(open);
        let tasks = &self.site.tasks;
        tasks.close();
        if tokio::time::timeout(drain_time, tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(left = tasks.len(), "drain time is over");
        }
    }

    fn plan(&self, listener: &Arc<Listener>, address: &ListenerAddress) -> Arc<Plan> {
        self.plans.of(listener, address, &self.site.tcp.feed.load())
    }

    fn open(&self, listener: &Arc<Listener>, socket: Opened) -> Option<Open> {
        let opened = match socket {
            Opened::Tcp(socket) => {
                // Port 0 means any: connections come in at another one.
                let address = socket.local_addr().map(ListenerAddress::Socket);
                let address = address.unwrap_or_else(|_| listener.address.clone());
                TcpListener::from_std(socket).map(|socket| self.accept(listener, address, socket))
            }
            Opened::Unix(socket) => socket
                .accepting()
                .map(|socket| self.accept(listener, listener.address.clone(), socket)),
        };
        let said = |error: &io::Error| {
            tracing::error!(listener = %listener.name, %error, "cannot watch the socket");
        };
        opened.inspect_err(said).ok()
    }

    fn accept(
        &self,
        listener: &Arc<Listener>,
        address: ListenerAddress,
        socket: impl Accept,
    ) -> Open {
        let open = self.stand(listener, address);
        let (state, drained) = (open.state.clone(), open.drain.subscribe());
        let accepting = accept_all(socket, state, self.site.clone(), drained);
        self.site.tasks.spawn(accepting);
        open
    }

    /// A listener that others can hand connections to.
    fn stand(&self, listener: &Arc<Listener>, address: ListenerAddress) -> Open {
        let plan = self.plan(listener, &address);
        let state = Arc::new(ListenerState::new(plan, address));
        self.site.listeners.add(state.clone());
        Open {
            state,
            drain: watch::Sender::new(false),
            listeners: self.site.listeners.clone(),
        }
    }
}

// === impl Listeners ===

impl Listeners {
    /// The listener for a connection that was going to an address: the one there, or the one for
    /// all addresses at its port (Envoy `use_original_dst`).
    pub(crate) fn of(&self, address: SocketAddr) -> Option<Arc<ListenerState>> {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = listeners.get(&address);
        let found = found.or_else(|| listeners.get(&SocketAddr::new(any, address.port())));
        found.cloned()
    }

    pub(crate) fn add(&self, state: Arc<ListenerState>) {
        // Nothing else than addresses can be asked for.
        let Some(address) = state.address().socket() else {
            return;
        };
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.insert(address, state);
    }

    /// Forgets a listener, unless another has its address by now.
    fn remove(&self, state: &Arc<ListenerState>) {
        let Some(address) = state.address().socket() else {
            return;
        };
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if listeners
            .get(&address)
            .is_some_and(|there| Arc::ptr_eq(there, state))
        {
            listeners.remove(&address);
        }
    }
}

// === impl Admitted ===

impl<F> Admitted<F> {
    fn new(serving: F, permit: Permit) -> Self {
        Self {
            serving,
            _permit: permit,
        }
    }
}

impl<F: Future> Future for Admitted<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().serving.poll(cx)
    }
}

// === impl Open ===

impl Drop for Open {
    fn drop(&mut self) {
        self.listeners.remove(&self.state);
        self.drain.send_replace(true);
        self.state.drain();
    }
}

/// Accepts until told to drain. What the kernel has already accepted for us is still served: it
/// would be reset with the socket.
async fn accept_all<A: Accept>(
    socket: A,
    state: Arc<ListenerState>,
    site: Site,
    mut drained: watch::Receiver<bool>,
) {
    let site = Arc::new(site);
    let serve = |ready: Ready<A::Stream>| {
        let Ready {
            stream,
            peer,
            local,
        } = ready;
        // Of a socket that is gone already.
        let local = local
            .or_else(|| state.address().socket())
            .unwrap_or(NOWHERE);
        let permit = match site.guard.admit(peer) {
            Ok(permit) => permit,
            Err(refused) => return state.current().count(site.shard, refused),
        };
        match serve_plain(stream, peer, local, &state, &site) {
            Ok(serving) => site.tasks.spawn(Admitted::new(serving, permit)),
            Err(stream) => {
                let serving = serve(stream, peer, local, state.clone(), site.clone());
                site.tasks.spawn(Admitted::new(serving, permit))
            }
        };
    };
    let mut stopped = site.guard.stopped();
    loop {
        let open = !*stopped.borrow_and_update();
        // To drain first: with enough callers there is always one more to accept.
        tokio::select! {
            biased;
            // Both a changed value and a lost sender mean the end.
            _ = drained.wait_for(|drain| *drain) => break,
            // The guard, which has the sender, lives as long as this.
            _ = stopped.changed() => {}
            accepted = socket.next(), if open => serve(accepted),
        }
    }
    socket.waiting().into_iter().for_each(serve);
}
