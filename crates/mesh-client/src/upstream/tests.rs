//! The pool over in-memory pipes and paused time. Every test ends with [`Net::finish`], which
//! checks that everything that was counted up has come down again.

mod caller;
mod endings;
mod http1;
mod http2;
mod limits;
pub(crate) mod pki;
mod priority;
mod tls;

use super::connect::{Connector, InMemory};
use crate::{Body, Upstreams};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mesh_core::Error;
use mesh_core::model::{Cluster, ClusterEntry, Priority};
use mesh_core::stats::ClusterStat;
use mesh_core::usage::Resource;
use mesh_lb::{Balance, Host, MakeEndpoint};
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tower::ServiceExt;

type Whole = Full<Bytes>;

/// One cluster with one endpoint, whose connections the test answers.
struct Net {
    client: Balance<Watched>,
    upstreams: Upstreams,
    entry: Arc<ClusterEntry>,
    made: Arc<AtomicUsize>,
    host: Arc<Mutex<Option<Arc<Host>>>>,
}

/// Notes the host, whose counts are checked at the end.
#[derive(Clone)]
struct Watched(Upstreams, Arc<Mutex<Option<Arc<Host>>>>);

// === impl Watched ===

impl MakeEndpoint for Watched {
    type Service = crate::Endpoint;

    const COUNTS_REQUESTS: bool = Upstreams::COUNTS_REQUESTS;

    fn make(&self, host: &Arc<Host>, cluster: &Arc<ClusterEntry>) -> crate::Endpoint {
        *self.1.lock().unwrap() = Some(host.clone());
        self.0.make(host, cluster)
    }
}

// === impl Net ===

impl Net {
    /// `serve` gets the number of each connection, from 0, and its other end.
    fn new(cluster: Cluster, serve: impl Fn(usize, DuplexStream) + Send + Sync + 'static) -> Self {
        Self::connecting(cluster, move |number| {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            serve(number, theirs);
            Box::pin(std::future::ready(Ok(ours)))
        })
    }

    /// `connect` gets the number of each connection, from 0, and makes it.
    fn connecting(
        cluster: Cluster,
        connect: impl Fn(usize) -> InMemory + Send + Sync + 'static,
    ) -> Self {
        let made = Arc::new(AtomicUsize::new(0));
        let count = made.clone();
        let connector = Connector::Memory(Arc::new(move |_| {
            connect(count.fetch_add(1, Ordering::Relaxed))
        }));
        let upstreams = Upstreams::with_connector(connector);
        let snapshot = mesh_test::fixture::snapshot(vec![], vec![cluster]);
        let entry = snapshot.clusters()[0].clone();
        let host = Arc::default();
        let watched = Watched(upstreams.clone(), Arc::clone(&host));
        Self {
            client: Balance::new(entry.clone(), watched),
            upstreams,
            entry,
            made,
            host,
        }
    }

    /// Sends a request. The future belongs to nobody but the caller: dropping it gives up.
    fn send(
        &self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<> {
        let sending = self.client.clone().oneshot(request);
        async move { Ok(sending.await?.map(Body::new)) }
    }

    /// Sends a request in a task.
    fn spawn(&self, request: Request<Body>) -> JoinHandle<Result<Response<Body>, Error>> {
        tokio::spawn(self.send(request))
    }

    /// Sends a plain request and reads the answer.
    async fn get(&self) -> Result<String, Error> {
        Ok(mesh_test::read(self.send(get()).await?.into_body()).await)
    }

    fn stat(&self, stat: ClusterStat) -> u64 {
        self.entry.live().stats().block().get(stat)
    }

    fn in_use(&self, resource: Resource) -> u32 {
        self.entry.live().usage().get(resource)
    }

    /// How often a connection was attempted.
    fn made(&self) -> usize {
        self.made.load(Ordering::Relaxed)
    }

    /// Lets go of everything and checks that nothing is counted as in use any more.
    async fn finish(self) {
        let Self {
            client,
            upstreams,
            entry,
            host,
            ..
        } = self;
        drop(client);
        settle().await;
        for resource in [
            Resource::Connections,
            Resource::Pending,
            Resource::Requests,
            Resource::Retries,
            Resource::Pools,
        ] {
            for priority in [Priority::Default, Priority::High] {
                let usage = entry.live().usage_of(priority);
                assert_eq!(usage.get(resource), 0, "{resource:?} of {priority:?}");
            }
        }
        let stats = entry.live().stats().block();
        for gauge in [
            ClusterStat::CxActive,
            ClusterStat::RqPendingActive,
            ClusterStat::RqActive,
        ] {
            assert_eq!(stats.get(gauge), 0, "{gauge:?}");
        }
        assert_eq!(
            stats.get(ClusterStat::CxTotal),
            stats.get(ClusterStat::CxDestroy),
            "what was opened was closed"
        );
        assert_eq!(
            stats.get(ClusterStat::CxDestroyLocal) + stats.get(ClusterStat::CxDestroyRemote),
            stats.get(ClusterStat::CxDestroy),
            "by one side or the other"
        );
        let host = host.lock().unwrap().take().expect("a request was made");
        assert_eq!(host.counts().cx_active, 0);
        assert_eq!(host.active(), 0);
        assert_eq!(upstreams.pools().1, 0, "no task holds on to a pool");
    }
}

/// Lets every task do what it can do without time passing.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn cluster() -> Cluster {
    Cluster::new("c")
}

fn get() -> Request<Body> {
    Request::get("/")
        .header("host", "c")
        .body(Body::empty())
        .unwrap()
}

/// A request whose body is what is sent to the channel.
fn upload() -> (Request<Body>, mpsc::UnboundedSender<&'static str>) {
    let (to, mut from) = mpsc::unbounded_channel();
    let frames = futures_util::stream::poll_fn(move |cx| {
        from.poll_recv(cx).map(|part: Option<&'static str>| {
            part.map(|part| Ok::<_, Infallible>(Frame::data(Bytes::from_static(part.as_bytes()))))
        })
    });
    let body = Body::new(StreamBody::new(frames));
    let request = Request::post("/").header("host", "c").body(body).unwrap();
    (request, to)
}

/// Answers HTTP/1.1 on a connection until it ends.
fn serve<F, R, IO>(stream: IO, answer: F) -> JoinHandle<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Response<Whole>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    tokio::spawn(async move {
        // How it ends is up to the client.
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
    })
}

/// Answers each request with the number of its connection.
fn numbered(number: usize, stream: DuplexStream) {
    serve(stream, move |_| async move { text(number.to_string()) });
}

fn text(text: impl Into<Bytes>) -> Response<Whole> {
    Response::new(Whole::new(text.into()))
}

fn refused() -> io::Error {
    io::Error::from_raw_os_error(111)
}
