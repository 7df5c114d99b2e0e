//! What a client is told before it runs.

use super::core::Core;
use super::lane::Lane;
use super::names::Names;
use super::{Client, Server, Shared};
use crate::assemble::{Admit, Assemble, Configure, Options, Permit};
use crate::client::demand::{DemandLimits, Demands};
use crate::client::handle::Handle;
use crate::client::machine::{Config, Decode, Limits, Machine, Variant};
use crate::client::remote::{Patience, remotes};
use crate::read::{Reader, Resource};
use crate::{Node, TypeUrl, xdstp};
use mesh_core::model::{Listener, Snapshot, SnapshotBuilder};
use mesh_core::{Invalid, Name, Rng, WallClock};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// How many commands may wait.
const COMMANDS: usize = 16;

/// Looks at a snapshot before it is published: to compile what it needs ahead.
pub type Prepare = Box<dyn Fn(&Snapshot) + Send + Sync>;

/// Which resources of a type are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted {
    /// All that the server has for this node (`*`).
    #[default]
    All,
    /// Those with these names (proxyless clients). By delta a name may be a glob collection
    /// (`xdstp://…/*`): everything that is in it, by its own name.
    Named(Vec<Name>),
    /// None: they come from elsewhere.
    Nothing,
}

/// Settings of a [`Client`].
#[must_use]
pub struct Builder {
    pub(super) servers: Vec<Server>,
    authorities: BTreeMap<Name, Vec<Server>>,
    pub(super) config: Config,
    options: Options,
    fixed: Vec<Resource>,
    pub(super) listeners: Wanted,
    pub(super) clusters: Wanted,
    names: bool,
    pub(super) initial_fetch_timeout: Option<Duration>,
    prepare: Option<Prepare>,
    demand_limits: DemandLimits,
    decode: Option<Decode<Resource>>,
    pub(super) connect_timeout: Duration,
    keep_alive: (Duration, Duration),
    random: Rng,
    clock: WallClock,
}

// === impl Builder ===

impl Builder {
    pub(super) fn new(servers: Vec<Server>) -> Self {
        Self {
            servers,
            authorities: BTreeMap::new(),
            config: Config::new(Node::default()),
            options: Options::default(),
            fixed: Vec::new(),
            listeners: Wanted::All,
            clusters: Wanted::All,
            names: false,
            initial_fetch_timeout: Some(Duration::from_secs(15)),
            prepare: None,
            demand_limits: DemandLimits::default(),
            decode: None,
            connect_timeout: Duration::from_secs(5),
            keep_alive: (Duration::from_secs(30), Duration::from_secs(20)),
            random: Rng::from_system(),
            clock: WallClock::system(),
        }
    }

    /// Who we are.
    pub fn node(mut self, node: Node) -> Self {
        self.config.node = node;
        self
    }

    /// The servers of an authority, the best first: resources named `xdstp://AUTHORITY/…` come from
    /// them (gRFC A47). Without any they come from the servers that the client has anyway. The
    /// authority may be empty.
    ///
    /// As soon as one authority is known, structured names of others are asked for nowhere, and the
    /// log says so. Authorities with the same servers share a stream; a server is not called before
    /// something is wanted of it.
    pub fn authority<S: Into<Server>>(
        mut self,
        authority: impl Into<Name>,
        servers: impl IntoIterator<Item = S>,
    ) -> Self {
        let servers = servers.into_iter().map(Into::into).collect();
        self.authorities.insert(authority.into(), servers);
        self
    }

    /// Which variant of the protocol is spoken. Default delta.
    pub fn variant(mut self, variant: Variant) -> Self {
        self.config.variant = variant;
        self
    }

    /// Which listeners are asked for (LDS). Default all.
    pub fn listeners(mut self, wanted: Wanted) -> Self {
        self.listeners = wanted;
        self
    }

    /// Which clusters are asked for (CDS). Default all.
    pub fn clusters(mut self, wanted: Wanted) -> Self {
        self.clusters = wanted;
        self
    }

    /// Whether the names that the node may resolve in the mesh are asked for (Istio's NDS).
    /// Default no: not every control plane has them.
    pub fn names(mut self, wanted: bool) -> Self {
        self.names = wanted;
        self
    }

    /// Resources that are there from the start and for good: they win over those of the same name
    /// that a server sends, and are never removed (Envoy's `static_resources`).
    pub fn fixed(mut self, resources: impl IntoIterator<Item = Resource>) -> Self {
        self.fixed.extend(resources);
        self
    }

    /// Changes what is about to become a snapshot, for instance access logs.
    pub fn configure(
        mut self,
        configure: impl Fn(&mut SnapshotBuilder) + Send + Sync + 'static,
    ) -> Self {
        let configure: Configure = Box::new(configure);
        self.options.configure = Some(configure);
        self
    }

    /// Looks at each snapshot before it is published, to compile what it needs ahead.
    pub fn prepare(mut self, prepare: impl Fn(&Snapshot) + Send + Sync + 'static) -> Self {
        self.prepare = Some(Box::new(prepare));
        self
    }

    /// Is asked before a listener is accepted, when it is new or wants another address: to open its
    /// socket. An error refuses the listener with that reason, alone, and the last good version
    /// stays. As in Envoy nothing is tried again until the listener comes again: with the next
    /// version of anything in state of the world, with its own next version in delta, or on a new
    /// stream. [Fixed](Builder::fixed) listeners are not asked for.
    pub fn admit(
        mut self,
        admit: impl Fn(&Listener) -> Result<Permit, Invalid> + Send + Sync + 'static,
    ) -> Self {
        let admit: Admit = Box::new(admit);
        self.options.admit = Some(admit);
        self
    }

    /// How long route tables wait for the first answer about clusters (Envoy's
    /// `cds_config.initial_fetch_timeout`). Default 15 s; none does not wait.
    pub fn initial_fetch_timeout(mut self, wait: Option<Duration>) -> Self {
        self.initial_fetch_timeout = wait;
        self
    }

    /// How long a route table waits for clusters that are known but not yet in force. Default
    /// 15 s.
    pub fn routes_wait(mut self, wait: Duration) -> Self {
        self.options.routes_wait = wait;
        self
    }

    /// State of the world: when a resource that was asked for by name and did not come is taken
    /// not to exist. Default 15 s; none never.
    pub fn missing_after(mut self, wait: Option<Duration>) -> Self {
        self.config.missing_after = wait;
        self
    }

    /// Keep listeners and clusters that the server removes (gRFC A53). Default no.
    pub fn ignore_resource_deletion(mut self, ignore: bool) -> Self {
        self.config.ignore_resource_deletion = ignore;
        self
    }

    /// Keep listeners, clusters and routes as they came, for those who show them
    /// ([`ResourceStatus::body`](crate::client::ResourceStatus::body)). Default no: it takes as much
    /// memory as they have bytes.
    pub fn keep_bodies(mut self, keep: bool) -> Self {
        self.config.keep_bodies = keep;
        self
    }

    /// What a server may make us keep.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// How much is asked for on demand ([`Handle::demand`]).
    pub fn demand_limits(mut self, limits: DemandLimits) -> Self {
        self.demand_limits = limits;
        self
    }

    /// Limit for establishing a connection. Default 5 s.
    pub fn connect_timeout(mut self, wait: Duration) -> Self {
        self.connect_timeout = wait;
        self
    }

    /// HTTP/2 PING after this long without traffic, and how long to wait for the answer. Default
    /// 30 s and 20 s.
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keep_alive = (interval, timeout);
        self
    }

    /// First and largest window of the waits between attempts to connect. Default 500 ms and 30 s.
    pub fn backoff(mut self, first: Duration, most: Duration) -> Self {
        self.config.backoff = (first, most);
        self
    }

    /// Reads resources in another way than by a [`Reader`].
    pub fn decode(
        mut self,
        decode: impl Fn(TypeUrl, &[u8]) -> Result<Resource, Invalid> + Send + Sync + 'static,
    ) -> Self {
        self.decode = Some(Arc::new(decode));
        self
    }

    /// Where random words come from, for tests.
    pub fn random(mut self, random: Rng) -> Self {
        self.random = random;
        self
    }

    /// Where the time of day comes from, for tests.
    pub fn clock(mut self, clock: WallClock) -> Self {
        self.clock = clock;
        self
    }

    /// The client, ready to run.
    ///
    /// # Errors
    /// If a server's address is none that can be reached, or a fixed resource was refused; without
    /// servers and in state of the world also if one asks for something on demand.
    pub fn build(self) -> Result<Client, Invalid> {
        // Lists of servers, each once, and which authority has which.
        let mut lists = vec![self.servers];
        let mut authorities = BTreeMap::new();
        for (authority, servers) in self.authorities {
            let index = match lists.iter().position(|known| *known == servers) {
                _ if servers.is_empty() => 0,
                Some(index) => index,
                None => {
                    lists.push(servers);
                    lists.len() - 1
                }
            };
            authorities.insert(authority, index);
        }
        let lengths: Vec<usize> = lists.iter().map(Vec::len).collect();
        let patience = Patience {
            connect: self.connect_timeout,
            keep_alive: Some(self.keep_alive),
        };
        let (remotes, keys) = remotes(lists.into_iter().flatten().collect(), patience)?;
        let mut remotes = remotes.into_iter();
        let lanes: Vec<Lane> = lengths
            .iter()
            .enumerate()
            .map(|(index, count)| {
                let servers = remotes.by_ref().take(*count).collect();
                Lane::new(index, servers, self.random.fork())
            })
            .collect();
        let answers_demands = self.config.variant == Variant::Delta && lengths[0] > 0;
        let reader = Reader::default();
        let decode: Decode<Resource> = match (self.decode, answers_demands) {
            (Some(decode), _) => decode,
            (None, true) => Arc::new(move |kind, bytes: &[u8]| reader.resource(kind, bytes)),
            (None, false) => {
                Arc::new(move |kind, bytes: &[u8]| super::sotw::resource(&reader, kind, bytes))
            }
        };
        for resource in self.fixed.iter().filter(|_| !answers_demands) {
            let within = |error: Invalid| error.within(super::given::called(resource));
            super::sotw::check(resource).map_err(within)?;
        }
        let machine = || Machine::reading(self.config.clone(), Arc::clone(&decode));
        let mut machines: Vec<Machine> = lanes.iter().map(|_| machine()).collect();
        for (kind, wanted) in [
            (TypeUrl::Cluster, &self.clusters),
            (TypeUrl::Listener, &self.listeners),
        ] {
            if *wanted == Wanted::All {
                machines[0].subscribe_all(kind);
            }
        }
        if self.names {
            machines[0].subscribe_all(TypeUrl::NameTable);
        }
        let waits = lengths.iter().any(|count| *count > 0) && self.clusters != Wanted::Nothing;
        let names = Names::new(authorities);
        for (field, kind, wanted) in [
            ("clusters", TypeUrl::Cluster, &self.clusters),
            ("listeners", TypeUrl::Listener, &self.listeners),
        ] {
            for name in wanted.names() {
                names
                    .place(kind, name)
                    .map_err(|error| error.within(field))?;
                if self.config.variant == Variant::Sotw && xdstp::is_glob(name) {
                    let message = format!("{name:?}: a glob collection needs the delta variant");
                    return Err(Invalid::new(field, message));
                }
            }
        }
        let mut core = Core::new(
            machines,
            names,
            Assemble::new(self.options),
            self.fixed,
            self.prepare,
            self.initial_fetch_timeout.filter(|_| waits),
            self.clock,
        )?;
        core.demands = Demands::new(self.demand_limits);
        core.answers_demands = answers_demands;
        for (kind, wanted) in [
            (TypeUrl::Cluster, &self.clusters),
            (TypeUrl::Listener, &self.listeners),
        ] {
            for name in wanted.names() {
                core.subscribe(kind, name);
            }
        }
        let (sender, commands) = mpsc::channel(COMMANDS);
        Ok(Client {
            shared: Shared {
                core: Mutex::new(core),
                lanes: lanes.iter().map(|_| Notify::new()).collect(),
                timers: Notify::new(),
            },
            lanes,
            keys,
            commands,
            handle: Handle::new(sender),
        })
    }
}

// === impl Wanted ===

impl Wanted {
    fn names(&self) -> &[Name] {
        match self {
            Self::Named(names) => names,
            Self::All | Self::Nothing => &[],
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("servers", &self.servers)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
