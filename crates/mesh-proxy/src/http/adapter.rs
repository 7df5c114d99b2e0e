//! From a connection to the stack and back.
//!
//! One adapter per connection holds one clone of the worker's stack and calls that: hyper-util's
//! adapter clones the whole stack for every request and throws away what the clone learned.

use super::admit::{X_REQUEST_ID, append_via};
use super::serve::Connection;
use super::stack::{RequestStack, StackBody, StackFuture};
use super::tunnel::tunnel;
use crate::guard::Guard;
use crate::listener::Counted;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body::Body as _;
use mesh_client::Body;
use mesh_core::model::HttpManager;
use mesh_core::stats::{HttpStat, Raised};
use mesh_core::{Caller, Exchange, Resets};
use mesh_http1::server::Refused;
use mesh_http1::upgrade::OnUpgrade;
use mesh_http1::{HeadError, upgrade};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tower_service::Service;

/// One connection's way into the stack. As a service it takes requests of HTTP/1.
pub(crate) struct Adapter {
    stack: RequestStack,
    caller: Arc<Caller>,
    /// The `server` header of every response.
    server: Option<HeaderValue>,
    /// What else the listener puts on responses; mostly nothing.
    marks: Option<Arc<HttpManager>>,
    tasks: TaskTracker,
    guard: Guard,
    /// There was a request.
    begun: bool,
}

/// The response future: the stack's, then what the connection adds to the response.
///
/// The stack's is a parameter, for the compiler's sake: what pin-project writes for a field of that very type
/// takes rustc ten seconds to check.
#[pin_project::pin_project]
pub(crate) struct Answering<F> {
    #[pin]
    inner: F,
    server: Option<HeaderValue>,
    marks: Option<Marks>,
    /// An HTTP/1 request that has a body.
    arriving: Option<Exchange>,
    /// It was not polled yet.
    at_once: bool,
    /// The connection of HTTP/1 ends with the response.
    last: bool,
    /// Most requests have nothing.
    special: Option<(Special, Exchange)>,
}

pub(crate) type ResponseFuture = Answering<StackFuture>;

/// What is particular about a request.
enum Special {
    /// It wants to switch protocols.
    Upgrade(Box<Upgrade>),
    /// It is none.
    Refused(Refused),
}

/// What an upgrade takes.
struct Upgrade {
    downstream: OnUpgrade,
    tasks: TaskTracker,
    upgrading: Option<Upgrading>,
}

/// Counts as a connection that is upgraded for as long as it lives.
pub(super) type Upgrading = Raised<Counted<HttpStat>, HttpStat>;

/// What a listener puts on responses where it is told to.
struct Marks {
    manager: Arc<HttpManager>,
    exchange: Exchange,
}

// === impl Adapter ===

impl Adapter {
    pub(crate) fn new(connection: Connection) -> Self {
        let mut caller = connection.caller;
        let manager = connection.manager;
        caller.manager = Some(manager.clone());
        caller.stats = Some(connection.stats);
        Self {
            stack: connection.stack,
            caller: Arc::new(caller),
            server: connection.server,
            marks: Some(manager).filter(|manager| {
                manager.request_id_in_response
                    || !manager.via.is_empty()
                    || manager.server_if_absent
            }),
            tasks: connection.tasks,
            guard: connection.guard,
            begun: false,
        }
    }

    /// Counts the connection with its first request.
    pub(super) fn begin(&mut self, stat: HttpStat) {
        if !std::mem::replace(&mut self.begun, true) {
            self.caller.count(stat);
        }
    }

    /// Requests end early by the resets that are noted there.
    pub(super) fn note_resets(&mut self, resets: Arc<Resets>) {
        Arc::make_mut(&mut self.caller).resets = Some(resets);
    }

    pub(super) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Whether the connection is to end with the next response because the process runs out of
    /// something. Counts it.
    pub(super) fn is_last(&self) -> bool {
        let last = self.guard.ends_connections();
        if last {
            self.caller.count(HttpStat::CxOverloadDisableKeepalive);
        }
        last
    }

    /// Calls the stack, in which nothing is ever not ready.
    pub(super) fn send(&mut self, request: Request<Body>) -> (ResponseFuture, Exchange) {
        self.send_begun(request, Instant::now())
    }

    fn send_begun(
        &mut self,
        mut request: Request<Body>,
        began: Instant,
    ) -> (ResponseFuture, Exchange) {
        let exchange = Exchange::new(began.into_std(), self.caller.clone());
        exchange.attach(&mut request);
        let marks = self.marks.clone().map(|manager| Marks {
            manager,
            exchange: exchange.clone(),
        });
        let future = Answering {
            inner: self.stack.call(request),
            server: self.server.clone(),
            marks,
            arriving: None,
            at_once: true,
            last: false,
            special: None,
        };
        (future, exchange)
    }

    /// Takes off what is particular about a request; what is none is made to look so in the log.
    fn special(&self, request: &mut Request<mesh_http1::Body>) -> Option<Special> {
        if request.extensions().is_empty() {
            return None;
        }
        if let Some(refused) = request.extensions().get::<Refused>().copied() {
            *request.uri_mut() = Uri::from_static("-");
            if let Ok(method) = Method::from_bytes(b"-") {
                *request.method_mut() = method;
            }
            return Some(Special::Refused(refused));
        }
        mesh_core::upgrade::of(request.headers())?;
        let downstream = upgrade::on(request.extensions_mut())?;
        let stats = self.caller.stats.clone().map(Counted::new);
        let active = HttpStat::CxUpgradesActive;
        let upgrading = stats.map(|stats| Raised::new(stats, self.caller.shard, active));
        Some(Special::Upgrade(Box::new(Upgrade {
            downstream,
            tasks: self.tasks.clone(),
            upgrading,
        })))
    }
}

impl Service<Request<mesh_http1::Body>> for Adapter {
    type Response = Response<StackBody>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<mesh_http1::Body>) -> ResponseFuture {
        self.begin(HttpStat::CxHttp1Total);
        let special = self.special(&mut request);
        let has_body = !request.body().is_end_stream();
        let mut began = Instant::now();
        if let Some(Special::Refused(Refused::Timeout)) = &special {
            // It began with its first byte.
            let waited = self.caller.manager.as_ref();
            let waited = waited.and_then(|manager| manager.request_head_timeout);
            let waited = waited.or_else(|| self.guard.limits().head_time);
            began = began
                .checked_sub(waited.unwrap_or_default())
                .unwrap_or(began);
        }
        let (mut future, exchange) = self.send_begun(request.map(Body::new), began);
        future.special = special.map(|special| (special, exchange.clone()));
        future.arriving = has_body.then_some(exchange);
        future.last = self.is_last();
        future
    }
}

// === impl Answering ===

impl Future for Answering<StackFuture> {
    type Output = Result<Response<StackBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let at_once = std::mem::take(this.at_once);
        let Ok(mut response) = ready!(this.inner.poll(cx));
        if let Some(server) = this.server.take() {
            // Envoy overwrites what the upstream said (`server_header_transformation`).
            let marks = this.marks.as_ref();
            if !marks.is_some_and(|marks| marks.leaves_server(response.headers())) {
                response.headers_mut().insert(header::SERVER, server);
            }
        }
        if let Some(marks) = this.marks.take() {
            marks.put(response.headers_mut());
        }
        if let Some((special, exchange)) = this.special.take() {
            special.answered(&exchange, &mut response);
        }
        let early = this.arriving.take();
        let early = early.is_some_and(|exchange| is_early(&exchange, at_once));
        if (early || *this.last) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(header::CONNECTION, close);
        }
        Poll::Ready(Ok(response))
    }
}

/// Whether the answer comes before the request is whole, so that the connection is closed after it
/// as in Envoy (`ActiveStream::encodeHeaders`): a body that nobody wants is not waited for.
///
/// What we answer ourselves after having waited for something does not count: Envoy reads on
/// meanwhile, and usually has the rest when we have not looked at it.
fn is_early(exchange: &Exchange, at_once: bool) -> bool {
    let from_upstream = || exchange.with_notes(|notes| notes.failure.is_none());
    !exchange.request_is_whole() && (at_once || from_upstream())
}

// === impl Special ===

impl Special {
    fn answered(self, exchange: &Exchange, response: &mut Response<StackBody>) {
        match self {
            Self::Upgrade(upgrade) => {
                let Upgrade {
                    downstream,
                    tasks,
                    upgrading,
                } = *upgrade;
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    // The task ends when either side closes; a worker that drains waits for it as
                    // it does for connections.
                    tasks.spawn(tunnel(downstream, response, exchange.clone(), upgrading));
                } else {
                    // What came behind the request is of the other protocol, and no request (as in
                    // Envoy, where such a request never ends).
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
            }
            // The answer is not over before its body is, so the log has not been written.
            Self::Refused(refused) => {
                if let Some(details) = details(refused) {
                    exchange.set_details(details);
                }
            }
        }
    }
}

/// Envoy's words for what is wrong with a head, where they say more than that something is.
fn details(refused: Refused) -> Option<&'static str> {
    let Refused::Head(error) = refused else {
        return None;
    };
    Some(match error {
        HeadError::Version => "low_version",
        HeadError::TooLarge | HeadError::TargetTooLong => "http1.headers_too_large",
        HeadError::TooManyFields => "http1.too_many_headers",
        HeadError::TwoLengths => "http1.content_length_and_chunked_not_allowed",
        HeadError::TransferEncoding => "http1.invalid_transfer_encoding",
        HeadError::Value => "http1.invalid_characters",
        HeadError::ConnectBody => "http1.body_disallowed",
        HeadError::TargetForm => "http1.invalid_url",
        HeadError::Scheme => "http1.invalid_scheme",
        HeadError::Host => "http.invalid_authority",
        HeadError::Connection => "http1.connection_header_rejected",
        _ => return None,
    })
}

// === impl Marks ===

impl Marks {
    fn leaves_server(&self, headers: &HeaderMap) -> bool {
        self.manager.server_if_absent && headers.contains_key(header::SERVER)
    }

    fn put(&self, headers: &mut HeaderMap) {
        if !self.manager.via.is_empty() {
            append_via(headers, &self.manager.via);
        }
        if self.manager.request_id_in_response
            && let Some(id) = self.exchange.request_id()
        {
            headers.insert(X_REQUEST_ID, id);
        }
    }
}
