//! A town: YAML in, a proxy for one node of it out, and backends that write down what they saw.

pub(crate) use crate::objects::*;
use crate::support::{Http1, Whole, backend, http2_to, text};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use mesh_core::Publisher;
use mesh_core::model::SnapshotBuilder;
use mesh_istio::{Diagnostic, Files, Node, World, compile};
use mesh_proxy::explain::Token;
use mesh_proxy::{Proxy, Running};
use std::collections::VecDeque;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;

/// Nothing that is waited for takes longer, unless it never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running proxy, configured by YAML.
pub(crate) struct Town {
    /// Where the node's application reaches others, or the first listener of a gateway.
    pub(crate) at: SocketAddr,
    pub(crate) proxy: Running,
    pub(crate) findings: Vec<Diagnostic>,
    // Without it the feed would end.
    _publisher: Publisher<mesh_core::model::Snapshot>,
}

/// A service behind the proxy. It answers with its name, or as it was told to.
#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    seen: Mutex<Vec<Seen>>,
    plan: Mutex<VecDeque<Reply>>,
    usual: Mutex<Option<Reply>>,
    arrived: Notify,
    release: Notify,
}

/// How a backend answers.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// With this status and these headers.
    With(u16, Vec<(&'static str, &'static str)>),
    /// Not before [`Backend::release`].
    Hold,
    /// Not at all.
    Never,
}

/// A request as a backend saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A response as the client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

// === impl Backend ===

impl Backend {
    pub(crate) async fn start(name: &'static str) -> Self {
        let inner = Arc::new(Inner::default());
        let ours = inner.clone();
        let address = backend(move |request| ours.clone().answer(name, request)).await;
        Self {
            name,
            address,
            inner,
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.seen.lock().unwrap().len()
    }

    /// The only request so far.
    pub(crate) fn only(&self) -> Seen {
        let mut seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    pub(crate) fn forget(&self) {
        self.inner.seen.lock().unwrap().clear();
    }

    /// The next answers, before the usual one.
    pub(crate) fn plan(&self, replies: impl IntoIterator<Item = Reply>) {
        self.inner.plan.lock().unwrap().extend(replies);
    }

    /// Every answer from now on.
    pub(crate) fn always(&self, reply: Reply) {
        *self.inner.usual.lock().unwrap() = Some(reply);
    }

    /// Lets those held go on.
    pub(crate) fn release(&self) {
        self.inner.release.notify_waiters();
    }

    /// Waits until this many requests have arrived in all.
    pub(crate) async fn arrived(&self, number: usize) {
        patiently(format!("request {number} at {}", self.name), async {
            loop {
                let notified = self.inner.arrived.notified();
                if self.count() >= number {
                    return;
                }
                notified.await;
            }
        })
        .await;
    }
}

impl Inner {
    async fn answer(
        self: Arc<Self>,
        name: &'static str,
        request: Request<Incoming>,
    ) -> Response<Whole> {
        let (head, body) = request.into_parts();
        let planned = self.plan.lock().unwrap().pop_front();
        let usual = || self.usual.lock().unwrap().clone();
        let reply = planned
            .or_else(usual)
            .unwrap_or(Reply::With(200, Vec::new()));
        let body = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        let host = head
            .headers
            .get("host")
            .map(|host| host.to_str().unwrap().to_owned());
        let authority = head.uri.authority().map(ToString::to_string);
        let released = self.release.notified();
        tokio::pin!(released);
        released.as_mut().enable();
        self.seen.lock().unwrap().push(Seen {
            method: head.method.to_string(),
            path: head
                .uri
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default(),
            host: authority.or(host).unwrap_or_default(),
            version: head.version,
            headers: head.headers,
            body: String::from_utf8(body.unwrap_or_default().to_vec()).unwrap(),
        });
        self.arrived.notify_waiters();
        let mut response = Response::new(Whole::from(name));
        match reply {
            Reply::With(status, headers) => {
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                for (name, value) in headers {
                    response.headers_mut().append(name, value.parse().unwrap());
                }
            }
            Reply::Hold => released.await,
            Reply::Never => std::future::pending().await,
        }
        response
    }
}

// === impl Seen ===

impl Seen {
    /// A header, or `-`.
    pub(crate) fn header(&self, name: &str) -> String {
        joined(&self.headers, name)
    }
}

// === impl Answer ===

impl Answer {
    /// A header, or `-`.
    pub(crate) fn header(&self, name: &str) -> String {
        joined(&self.headers, name)
    }

    /// The status and the body in one line.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.status.as_u16(), self.body)
    }
}

fn joined(headers: &HeaderMap, name: &str) -> String {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    if values.is_empty() {
        "-".to_owned()
    } else {
        values.join(",")
    }
}

// === impl Town ===

impl Town {
    /// The sidecar of the workload `client` in namespace `default`.
    pub(crate) async fn client(yaml: &str) -> Self {
        Self::of(yaml, client()).await
    }

    /// A node, with one worker. A sidecar's outbound listener is on a port of its own.
    pub(crate) async fn of(yaml: &str, mut node: Node) -> Self {
        if let (None, mesh_istio::Role::Sidecar { .. }) = (node.base_port, &node.role) {
            node.base_port = Some(port_before_a_free_one());
        }
        Self::unmoved(yaml, node).await
    }

    /// A node exactly as it is.
    pub(crate) async fn unmoved(yaml: &str, node: Node) -> Self {
        let (world, findings) = world(yaml);
        assert!(
            !findings.iter().any(Diagnostic::is_error),
            "{}",
            lines(&findings)
        );
        Self::start(&world, node, findings, None).await
    }

    /// As [`Town::client`]; requests that bring this token are explained.
    pub(crate) async fn explaining(yaml: &str, token: &str) -> Self {
        let mut node = client();
        node.base_port = Some(port_before_a_free_one());
        let (world, findings) = world(yaml);
        let token = Token::new(token).unwrap();
        Self::start(&world, node, findings, Some(token)).await
    }

    async fn start(
        world: &World,
        node: Node,
        mut findings: Vec<Diagnostic>,
        token: Option<Token>,
    ) -> Self {
        let mut builder = SnapshotBuilder::new();
        findings.extend(compile(world, &node, &mut builder));
        let (snapshot, _) = builder.build().unwrap();
        let at = match snapshot.listeners() {
            [] => panic!("nothing to listen on\n{}", lines(&findings)),
            _ if node.base_port.is_some() => node.outbound(0),
            listeners => listeners[0].address.socket().unwrap(),
        };
        let publisher = Publisher::from_arc(snapshot);
        let zone = node.self_discovery.then(|| mesh_lb::Zone {
            locality: node.locality.clone(),
            cluster: Some(mesh_istio::names::LOCAL.into()),
        });
        let proxy = Proxy::builder(publisher.feed())
            .concurrency(1)
            .zone(zone)
            .seed(Some(7))
            .drain_time(Duration::ZERO)
            .admin(Some(SocketAddr::from(([127, 0, 0, 1], 0))))
            .explain_token(token)
            .start()
            .await
            .unwrap();
        let listening = proxy.ready().await;
        assert!(listening.failed.is_empty(), "{listening:?}");
        Self {
            at,
            proxy,
            findings,
            _publisher: publisher,
        }
    }

    /// Asks for a path of a host.
    pub(crate) async fn get(&self, host: &str, path: &str) -> Answer {
        self.send(ask(host, path)).await
    }

    /// Sends a request over a connection of its own.
    pub(crate) async fn send(&self, request: Request<Whole>) -> Answer {
        send_to(self.at, request).await
    }

    /// Sends a request and does not wait.
    pub(crate) fn start_get(&self, host: &str, path: &str) -> tokio::task::JoinHandle<Answer> {
        tokio::spawn(send_to(self.at, ask(host, path)))
    }

    /// Sends over HTTP/2.
    pub(crate) async fn get_http2(&self, host: &str, path: &str) -> Answer {
        let client = http2_to::<Whole>(self.at).await;
        let request = Request::get(format!("http://{host}{path}"))
            .body(Whole::default())
            .unwrap();
        let response = client.clone().send_request(request).await.unwrap();
        Answer::read(response).await
    }

    /// What the backends' bodies were, of this many requests, in order.
    pub(crate) async fn bodies(&self, host: &str, path: &str, number: usize) -> Vec<String> {
        let mut bodies = Vec::new();
        for _ in 0..number {
            bodies.push(self.get(host, path).await.body);
        }
        bodies
    }

    pub(crate) async fn admin(&self, path: &str) -> String {
        let mut client = Http1::connect(self.proxy.admin().unwrap()).await;
        text(client.send(ask("admin", path)).await).await
    }

    /// A statistic of the cluster `outbound|80|SUBSET|a.default.svc.cluster.local`.
    pub(crate) async fn stat(&self, subset: &str, name: &str) -> u64 {
        self.whole_stat(&format!(
            "cluster.outbound|80|{subset}|a.default.svc.cluster.local.{name}"
        ))
        .await
    }

    pub(crate) async fn whole_stat(&self, name: &str) -> u64 {
        let stats = self.admin("/stats").await;
        let prefix = format!("{name}: ");
        stats
            .lines()
            .find_map(|line| line.strip_prefix(prefix.as_str()))
            .unwrap_or_else(|| panic!("no {name} in\n{stats}"))
            .parse()
            .unwrap()
    }

    /// Waits until a statistic of the service `a` has this value.
    pub(crate) async fn until(&self, name: &str, value: u64) {
        patiently(format!("{name} to become {value}"), async {
            while self.stat("", name).await != value {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }
}

pub(crate) async fn send_to(address: SocketAddr, request: Request<Whole>) -> Answer {
    patiently(format!("an answer from {address}"), async {
        let mut client = Http1::connect(address).await;
        Answer::read(client.send(request).await).await
    })
    .await
}

/// Waits for something that has to happen.
pub(crate) async fn patiently<T>(what: String, event: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

pub(crate) fn client() -> Node {
    let mut node = Node::sidecar("client", "default");
    node.labels.insert("app".to_owned(), "client".to_owned());
    node
}

pub(crate) fn world(yaml: &str) -> (World, Vec<Diagnostic>) {
    let mut world = World::default();
    let findings = world.update(&Files::from_text("mesh.yaml", yaml));
    (world, findings)
}

pub(crate) fn lines(findings: &[Diagnostic]) -> String {
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// The errors that this YAML is refused with.
pub(crate) fn refused(yaml: &str) -> String {
    let (_, findings) = world(yaml);
    let errors: Vec<Diagnostic> = findings.into_iter().filter(Diagnostic::is_error).collect();
    lines(&errors)
}

/// A port that is followed by one nobody else of this process gets.
fn port_before_a_free_one() -> u16 {
    free_port() - 1
}

/// A port below those that the system hands out by itself, so nobody takes it in between. Processes
/// that run at once keep to a block of ports each; whoever listens on its first port has it.
pub(crate) fn free_port() -> u16 {
    const BLOCK: u16 = 1_000;
    static OURS: OnceLock<(TcpListener, u16)> = OnceLock::new();
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let (_, first) = OURS.get_or_init(|| {
        // Where more tests run at once than there are blocks, one is free soon.
        for _ in 0..6_000 {
            let mut blocks = (20_000..30_000).step_by(usize::from(BLOCK));
            let claimed = blocks.find_map(|first| {
                let guard = TcpListener::bind(("127.0.0.1", first)).ok()?;
                Some((guard, first))
            });
            if let Some(claimed) = claimed {
                return claimed;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        panic!("no block of ports is free")
    });
    loop {
        // Every second port, so that the one before it is free as well.
        let port = first + 3 + (NEXT.fetch_add(2, Ordering::Relaxed) % (BLOCK - 4));
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A request as an application makes it.
pub(crate) fn ask(host: &str, path: &str) -> Request<Whole> {
    request("GET", host, path, &[])
}

pub(crate) fn request(
    method: &str,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Request<Whole> {
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header("host", host);
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(Whole::default()).unwrap()
}
