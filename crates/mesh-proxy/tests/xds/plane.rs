//! A control plane with raw resources, callers that never stop, and what both need.

use crate::support::{Http1, free_address, get, text};
use mesh_core::Feed;
use mesh_core::model::{
    Address, Cluster, DiscoveryKind, EndpointSet, HttpManager, Listener, RouteTable, Rule,
    VirtualHost,
};
use mesh_proxy::Running;
use mesh_proxy::xds::Driver;
use mesh_xds::client::{Client, Variant};
use mesh_xds::pb::envoy::config as pb;
use mesh_xds::server::{Changes, Client as Peer, Event, ResourceSet, Server, View};
use mesh_xds::{Encoded, Node, TypeUrl, write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Longer than anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A control plane whose resources the test sets.
pub(crate) struct Plane {
    pub(crate) set: ResourceSet,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<Event>>>,
    happened: Arc<Notify>,
    serving: JoinHandle<()>,
}

/// A proxy that a driver drives.
pub(crate) struct Driven {
    pub(crate) proxy: Running,
    driving: JoinHandle<()>,
}

/// A caller that goes on until it is stopped, and fails on the first response that is none of
/// those expected.
pub(crate) struct Caller {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    calling: JoinHandle<()>,
}

// === impl Plane ===

impl Plane {
    pub(crate) async fn start() -> Self {
        // One that nobody takes while it is down.
        Self::with(ResourceSet::new(), free_address()).await
    }

    /// Serves what it had on the address that it had.
    pub(crate) async fn restarted(set: ResourceSet, address: SocketAddr) -> Self {
        Self::with(set, address).await
    }

    async fn with(set: ResourceSet, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::<Mutex<Vec<Event>>>::default();
        let happened = Arc::<Notify>::default();
        let (seen, news, shared) = (log.clone(), happened.clone(), set.clone());
        let server = Server::builder(move |_: &Node| Ok(Feed::fixed(View::of([shared.clone()]))))
            .observer(move |_: &Peer, event: &Event| {
                seen.lock().unwrap().push(event.clone());
                news.notify_waiters();
            })
            .build();
        let serving = tokio::spawn(async move {
            server
                .serve(listener, std::future::pending())
                .await
                .unwrap();
        });
        Self {
            set,
            address,
            log,
            happened,
            serving,
        }
    }

    /// Cuts every connection and listens no more.
    pub(crate) async fn kill(self) -> (ResourceSet, SocketAddr) {
        self.serving.abort();
        // Cancelled, which is what was asked for.
        let _ = self.serving.await;
        (self.set, self.address)
    }

    pub(crate) fn apply(&self, changes: Changes) {
        self.set.apply(changes);
    }

    /// Waits for something to happen on a stream, now or in the past.
    pub(crate) async fn saw<T>(&self, what: impl Fn(&Event) -> Option<T>) -> T {
        let look = async {
            loop {
                // Before looking, so that nothing happens unnoticed in between.
                let more = self.happened.notified();
                if let Some(found) = self.log.lock().unwrap().iter().find_map(&what) {
                    return found;
                }
                more.await;
            }
        };
        match tokio::time::timeout(SOON, look).await {
            Ok(found) => found,
            Err(_) => panic!("it did not happen: {:#?}", self.log.lock().unwrap()),
        }
    }

    /// Waits until a response of a type was acknowledged, and forgets what happened before.
    pub(crate) async fn acknowledged(&self, of: TypeUrl) {
        self.saw(|event| matches!(event, Event::Acked { kind, .. } if *kind == of).then_some(()))
            .await;
        self.forget();
    }

    /// Forgets what happened before.
    pub(crate) fn forget(&self) {
        self.log.lock().unwrap().clear();
    }

    pub(crate) async fn rejected(&self, of: TypeUrl) -> String {
        self.saw(|event| match event {
            Event::Nacked { kind, message, .. } if *kind == of => Some(message.to_string()),
            _ => None,
        })
        .await
    }
}

// === impl Driven ===

impl Driven {
    /// A proxy that this control plane drives.
    pub(crate) async fn by(plane: &Plane, variant: Variant) -> Self {
        Self::by_address(plane.address, variant).await
    }

    pub(crate) async fn by_address(plane: SocketAddr, variant: Variant) -> Self {
        Self::with(driver(plane, variant)).await
    }

    /// What drives it.
    pub(crate) fn driver(plane: &Plane, variant: Variant) -> Driver {
        driver(plane.address, variant)
    }

    pub(crate) async fn with(driver: Driver) -> Self {
        let builder = driver.proxy().concurrency(2);
        let proxy = builder
            .admin(Some(SocketAddr::from(([127, 0, 0, 1], 0))))
            .start()
            .await
            .unwrap();
        let driving = tokio::spawn(driver.run());
        Self { proxy, driving }
    }

    /// Waits until what the control plane has is in force.
    pub(crate) async fn initialized(&self) {
        let wait = self.proxy.initialized();
        tokio::time::timeout(SOON, wait).await.expect("configured");
    }

    pub(crate) async fn admin(&self, path: &str) -> String {
        let mut client = Http1::connect(self.proxy.admin().unwrap()).await;
        text(client.send(get(path)).await).await
    }

    /// Waits until what the admin interface shows at a path meets a condition.
    pub(crate) async fn shows(&self, path: &str, what: impl Fn(&str) -> bool) -> String {
        let look = async {
            loop {
                let shown = self.admin(path).await;
                if what(&shown) {
                    return shown;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        match tokio::time::timeout(SOON, look).await {
            Ok(shown) => shown,
            Err(_) => panic!("{path} shows\n{}", self.admin(path).await),
        }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.driving.abort();
    }
}

fn driver(plane: SocketAddr, variant: Variant) -> Driver {
    let client = Client::builder([format!("http://{plane}")])
        .backoff(Duration::from_millis(10), Duration::from_millis(50))
        .variant(variant);
    Driver::new(node(), client).unwrap()
}

// === impl Caller ===

impl Caller {
    /// Calls on new connections and on one that stays.
    pub(crate) fn start(address: SocketAddr, expected: &'static [&'static str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicU64::new(0));
        let (stopped, count) = (stop.clone(), answers.clone());
        let calling = tokio::spawn(async move {
            let mut one = Http1::connect(address).await;
            while !stopped.load(Ordering::Relaxed) {
                let mut other = Http1::connect(address).await;
                for client in [&mut one, &mut other] {
                    let response = client.send(get("/")).await;
                    let status = response.status();
                    let body = text(response).await;
                    assert_eq!(status, 200, "{body}");
                    assert!(expected.contains(&body.as_str()), "{body}");
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self {
            stop,
            answers,
            calling,
        }
    }

    /// Waits for some more answers.
    pub(crate) async fn goes_on(&self) {
        let enough = self.answers.load(Ordering::Relaxed) + 20;
        while self.answers.load(Ordering::Relaxed) < enough && !self.calling.is_finished() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Fails if any call did.
    pub(crate) async fn end(self) {
        self.goes_on().await;
        self.stop.store(true, Ordering::Relaxed);
        self.calling.await.unwrap();
    }
}

// === resources ===

/// A listener whose routes come from the table `t`.
pub(crate) fn listener(name: &str, address: SocketAddr) -> Encoded {
    let listener = Listener::http(name, address, HttpManager::new(name, "t"));
    write::encode(name, &write::listener(&listener, None))
}

/// The table `t` with one route to a cluster.
pub(crate) fn routes(cluster: &str) -> Encoded {
    let host = VirtualHost::new("all", ["*"]).rule(Rule::prefix_to("/", cluster));
    let table = RouteTable::new("t").host(host);
    write::encode("t", &write::route::table(&table))
}

/// A cluster whose endpoints are a resource of their own.
pub(crate) fn cluster(name: &str) -> Encoded {
    let mut cluster = Cluster::new(name);
    cluster.discovery = DiscoveryKind::Endpoints;
    write::encode(name, &write::cluster(&cluster, None))
}

pub(crate) fn endpoints(cluster: &str, to: &[SocketAddr]) -> Encoded {
    let set = EndpointSet::of(to.iter().copied().map(Address::from));
    write::encode(cluster, &write::endpoints(cluster, &set))
}

/// Everything for a listener that forwards to one cluster.
pub(crate) fn all(address: SocketAddr, to: &str, at: SocketAddr) -> Changes {
    Changes::new()
        .set(TypeUrl::Listener, listener("in", address))
        .set(TypeUrl::Routes, routes(to))
        .set(TypeUrl::Cluster, cluster(to))
        .set(TypeUrl::Endpoints, endpoints(to, &[at]))
}

/// A listener that is refused: it has no address.
pub(crate) fn bad_listener(name: &str) -> Encoded {
    let proto = pb::listener::v3::Listener {
        name: name.to_owned(),
        ..Default::default()
    };
    write::encode(name, &proto)
}

/// A table `t` that is refused: its virtual host has no domains.
pub(crate) fn bad_routes() -> Encoded {
    let proto = pb::route::v3::RouteConfiguration {
        name: "t".to_owned(),
        virtual_hosts: vec![pb::route::v3::VirtualHost {
            name: "none".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    write::encode("t", &proto)
}

pub(crate) fn node() -> Node {
    Node::new("sidecar~127.0.0.1~a.shop~shop.svc.cluster.local")
}
