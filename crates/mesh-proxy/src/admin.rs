//! The admin interface: what an operator may look at, and two things to ask for.
//!
//! Paths and shapes are Envoy's where Envoy has them. It belongs on a loopback address; elsewhere what
//! changes something, and what is known of secrets, needs a token (`access.rs`). Anything that changes
//! something wants `POST`.

mod access;
mod certs;
mod clusters;
mod dump;
mod origins;
mod secrets;
mod serving;
mod statistics;

pub(crate) use dump::time as timestamp;

use self::access::Kind;
use crate::accept::{Accept, Accepting, UnixSocket};
use crate::explain::{Question, explain};
use crate::runtime::{Order, Shared};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use mesh_core::model::{ListenerAddress, Pattern, UnixPath};
use mesh_telemetry::expose::Output;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tower::service_fn;

/// Connections served at once; more wait.
const MOST_CONNECTIONS: usize = 64;

/// The admin interface, bound.
pub(crate) struct Admin {
    listener: Listener,
    address: ListenerAddress,
    shared: Arc<Shared>,
}

/// Its socket.
enum Listener {
    Tcp(TcpListener),
    Unix(Accepting),
}

const HELP: &[(&str, &str)] = &[
    (
        "GET /certs",
        "the certificates that are shown and trusted, and until when they are valid",
    ),
    (
        "GET /clusters[?format=json]",
        "endpoints of every cluster with their health and counts",
    ),
    (
        "GET /config_dump[?include_eds&resource=FIELD&name_regex=REGEX]",
        "the configuration in force, and what was refused, as Envoy shows it",
    ),
    (
        "GET /config_dump?origins",
        "the configuration in force, with the place of each part in its YAML",
    ),
    (
        "POST /drain_listeners",
        "stop accepting and let connections finish",
    ),
    (
        "GET /explain?request=GET%20URL[&header=NAME:VALUE&listener=NAME]",
        "why a request goes where it goes, with the configuration and the endpoints of now",
    ),
    ("GET /help", "this list"),
    ("GET /init_dump", "what waits for something else"),
    (
        "GET /listeners[?format=json]",
        "listeners and their addresses",
    ),
    ("POST /quitquitquit", "drain, then end the process"),
    ("GET /ready", "200 LIVE when traffic is served, else 503"),
    ("GET /server_info", "version, state and age"),
    (
        "GET /stats[?usedonly&filter=REGEX&format=json|prometheus]",
        "statistics",
    ),
    (
        "GET /stats/prometheus",
        "statistics and Istio's metrics for Prometheus",
    ),
];

// === impl Admin ===

impl Admin {
    /// With the file mode of a Unix domain socket; 0 leaves it to the process.
    pub(crate) async fn bind(
        address: &ListenerAddress,
        mode: u32,
        shared: Arc<Shared>,
    ) -> io::Result<Self> {
        let (listener, address) = listen(address, mode).await.map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("admin cannot listen on {address}: {error}"),
            )
        })?;
        if let Some(control) = &shared.control {
            control.admin_at(address.clone());
        }
        Ok(Self {
            listener,
            address,
            shared,
        })
    }

    pub(crate) fn address(&self) -> &ListenerAddress {
        &self.address
    }

    /// Serves until the proxy has ended.
    pub(crate) async fn run(self, ended: watch::Receiver<bool>) {
        match self.listener {
            Listener::Tcp(listener) => serve(listener, self.address, self.shared, ended).await,
            Listener::Unix(listener) => serve(listener, self.address, self.shared, ended).await,
        }
    }
}

async fn listen(address: &ListenerAddress, mode: u32) -> io::Result<(Listener, ListenerAddress)> {
    match address {
        ListenerAddress::Socket(address) => {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok((Listener::Tcp(listener), address.into()))
        }
        ListenerAddress::Unix(path) => {
            let socket = UnixSocket::bind(path, mode)?;
            socket.listen()?;
            Ok((Listener::Unix(socket.accepting()?), path.clone().into()))
        }
    }
}

async fn serve(
    listener: impl Accept,
    address: ListenerAddress,
    shared: Arc<Shared>,
    mut ended: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let server = serving::server();
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            ready = listener.next() => ready.stream,
            _ = ended.wait_for(|ended| *ended) => return,
        };
        while connections.try_join_next().is_some() {}
        // Never closed, so there is always a permit to wait for.
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let (shared, address) = (shared.clone(), address.clone());
        let service = service_fn(move |request| {
            let response = answer(&shared, &address, &request);
            async move { Ok::<_, Infallible>(response.await) }
        });
        let connection = server.serve(stream, b"", service);
        connections.spawn(async move {
            if let Err(error) = serving::attend(connection).await {
                tracing::debug!(%error, "admin connection");
            }
            drop(permit);
        });
    }
}

fn answer<B>(
    shared: &Arc<Shared>,
    address: &ListenerAddress,
    request: &Request<B>,
) -> impl Future<Output = Response<Full<Bytes>>> + Send + use<B> {
    let shared = shared.clone();
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let kind = Kind::of(uri.path());
    let allowed = kind.check(request.headers(), shared.admin_token.as_ref(), address);
    async move {
        let query = Parameters(uri.query().unwrap_or_default().to_owned());
        let changes = kind == Kind::Change;
        if changes && method != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n");
        }
        if !changes && method != Method::GET {
            return text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        }
        if let Err((status, why)) = allowed {
            let mut response = text(status, why);
            if status == StatusCode::UNAUTHORIZED {
                let scheme = HeaderValue::from_static("Bearer");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, scheme);
            }
            return response;
        }
        match uri.path() {
            "/" | "/help" => text(StatusCode::OK, help()),
            "/ready" => match state(&shared).await {
                "LIVE" => text(StatusCode::OK, "LIVE\n"),
                other => text(StatusCode::SERVICE_UNAVAILABLE, format!("{other}\n")),
            },
            "/server_info" => json(&server_info(&shared).await),
            "/listeners" => listeners(&shared, query.is("format", "json")),
            "/clusters" if query.is("format", "json") => json(&clusters::json(&shared)),
            "/clusters" => text(StatusCode::OK, clusters::text(&shared)),
            "/certs" => json(&certs::json(&shared)),
            "/config_dump" if query.get("origins").is_some() => {
                json(&origins::json(&shared.feed.load()))
            }
            "/explain" => explanation(&shared, &query),
            "/config_dump" => config_dump(&shared, &query).await,
            "/init_dump" => json(&dump::unready(&shared).await),
            "/stats" => statistics::answer(&shared, &query.0, Output::Text).await,
            "/stats/prometheus" => statistics::answer(&shared, &query.0, Output::Prometheus).await,
            "/drain_listeners" => order(&shared, Order::DrainListeners).await,
            "/quitquitquit" => order(&shared, Order::Quit).await,
            other => text(
                StatusCode::NOT_FOUND,
                format!("no {other} here\n\n{}", help()),
            ),
        }
    }
}

async fn server_info(shared: &Shared) -> serde_json::Value {
    let uptime = format!("{}s", shared.started.elapsed().as_secs());
    serde_json::json!({
        "version": concat!("mesh-proxy/", env!("CARGO_PKG_VERSION")),
        "state": state(shared).await,
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
        "hot_restart_version": "disabled",
        "command_line_options": {"concurrency": shared.workers},
        "node": dump::bootstrap(shared)["node"].clone(),
    })
}

fn explanation(shared: &Shared, query: &Parameters) -> Response<Full<Bytes>> {
    let request = query.get("request").unwrap_or_default();
    let question = Question::parse(&request, query.all("header"));
    let question = question.map(|question| question.listener(query.get("listener")));
    match question.and_then(|question| explain(&shared.feed.load(), &question)) {
        Ok(answer) => respond(StatusCode::OK, "application/json", answer.into()),
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

async fn config_dump(shared: &Shared, query: &Parameters) -> Response<Full<Bytes>> {
    if query.get("mask").is_some() {
        return text(
            StatusCode::BAD_REQUEST,
            "mask is not supported; use resource and name_regex\n",
        );
    }
    let names = match query.get("name_regex").as_deref().map(Pattern::new) {
        Some(Err(error)) => {
            return text(StatusCode::BAD_REQUEST, format!("name_regex: {error}\n"));
        }
        Some(Ok(pattern)) => Some(pattern),
        None => None,
    };
    let asked = dump::Asked {
        include_eds: query.get("include_eds").is_some(),
        resource: query.get("resource"),
        names,
    };
    match dump::json(shared, &asked).await {
        Ok(value) => json(&value),
        Err(error) => text(StatusCode::NOT_FOUND, format!("{error}\n")),
    }
}

async fn order(shared: &Shared, order: Order) -> Response<Full<Bytes>> {
    match shared.orders.send(order).await {
        Ok(()) => text(StatusCode::OK, "OK\n"),
        Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "the proxy has ended\n"),
    }
}

async fn state(shared: &Shared) -> &'static str {
    if shared.draining.load(Ordering::Relaxed) {
        return "DRAINING";
    }
    if shared.control.is_some() {
        // A listener that a control plane wants and that cannot be opened is no reason to take
        // the others out of service.
        return match shared.is_initialized().await {
            true => "LIVE",
            false => "INITIALIZING",
        };
    }
    let listening = shared.listening.load();
    match listening.version {
        0 => "INITIALIZING",
        _ if !listening.failed.is_empty() => "PRE_INITIALIZING",
        _ => "LIVE",
    }
}

fn listeners(shared: &Shared, as_json: bool) -> Response<Full<Bytes>> {
    let listening = shared.listening.load();
    if as_json {
        let statuses: Vec<_> = listening
            .open
            .iter()
            .map(|(name, address)| {
                serde_json::json!({"name": name.as_str(), "local_address": listener_address(address)})
            })
            .collect();
        return json(&serde_json::json!({"listener_statuses": statuses}));
    }
    let mut out = String::new();
    for (name, address) in &listening.open {
        out += &format!("{name}::{address}\n");
    }
    for (name, reason) in &listening.failed {
        out += &format!("{name}::failed: {reason}\n");
    }
    text(StatusCode::OK, out)
}

/// An address in the form of Envoy's `Address`.
fn listener_address(address: &ListenerAddress) -> serde_json::Value {
    match address {
        ListenerAddress::Socket(address) => socket(*address),
        ListenerAddress::Unix(path) => pipe(path),
    }
}

fn pipe(path: &UnixPath) -> serde_json::Value {
    serde_json::json!({"pipe": {"path": path.as_str()}})
}

fn socket(address: SocketAddr) -> serde_json::Value {
    serde_json::json!({
        "socket_address": {"address": address.ip().to_string(), "port_value": address.port()}
    })
}

fn help() -> String {
    HELP.iter()
        .map(|(path, what)| format!("{path}\n    {what}\n"))
        .collect()
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    respond(status, "text/plain; charset=UTF-8", body.into())
}

fn json(value: &serde_json::Value) -> Response<Full<Bytes>> {
    // Maps with text keys always have a JSON form.
    let body = serde_json::to_vec_pretty(value).unwrap_or_default();
    respond(StatusCode::OK, "application/json", body.into())
}

fn respond(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-cache, max-age=0"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// A query string, asked for single parameters.
struct Parameters(String);

impl Parameters {
    fn get(&self, name: &str) -> Option<String> {
        self.all(name).next()
    }

    /// Every value that a name has.
    fn all(&self, name: &str) -> impl Iterator<Item = String> {
        self.0.split('&').filter_map(move |part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let decode = |text: &str| {
                let spaced = text.replace('+', " ");
                percent_encoding::percent_decode_str(&spaced)
                    .decode_utf8_lossy()
                    .into_owned()
            };
            (decode(key) == name).then(|| decode(value))
        })
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name).is_some_and(|found| found == value)
    }
}
