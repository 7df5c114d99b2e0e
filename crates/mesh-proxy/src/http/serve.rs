//! Serving one HTTP connection: every timeout and limit of hyper is set here and nowhere else.

use super::adapter::{Activity, Adapter};
use super::stack::RequestStack;
use crate::listener::ListenerState;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use mesh_core::stats::HttpStat;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// HTTP/2 windows: a stream's is smaller than the connection's, so that one slow reader does not
/// hold up the others.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// Serves a connection until it closes, was idle for too long, or `drain` says to finish.
pub(crate) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    stack: RequestStack,
    listener: Arc<ListenerState>,
    mut drain: watch::Receiver<bool>,
) {
    let local = stream.local_addr().unwrap_or(listener.address());
    let manager = listener.manager();
    listener.count(HttpStat::CxTotal);
    let _open = listener.raise(HttpStat::CxActive);

    let mut builder = auto::Builder::new(TokioExecutor::new());
    let head = usize::try_from(manager.max_head_kib)
        .unwrap_or(60)
        .saturating_mul(1024)
        .max(8192);
    builder
        .http1()
        .timer(TokioTimer::new())
        // Covers the wait for the next request too, so without a limit of its own a head gets as
        // long as a connection may idle.
        .header_read_timeout(manager.request_head_timeout.or(manager.idle_timeout))
        .max_headers(usize::try_from(manager.max_headers).unwrap_or(100))
        .max_buf_size(head)
        .half_close(true)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
        .max_concurrent_streams(manager.max_concurrent_streams)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);

    let activity = Arc::new(Activity::default());
    let adapter = Adapter::new(stack, listener.clone(), peer, local, activity.clone());
    let mut connection =
        pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), adapter));
    let mut idle = pin!(idle(manager.idle_timeout, activity));
    let mut draining = *drain.borrow_and_update();
    if draining {
        connection.as_mut().graceful_shutdown();
    }
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "connection");
                    if is_protocol_error(&*error) {
                        listener.count(HttpStat::CxProtocolError);
                    }
                }
                break;
            }
            changed = drain.changed(), if !draining => {
                // The sender is gone only when the worker is: then finish as well.
                if changed.is_err() || *drain.borrow() {
                    draining = true;
                    listener.count(HttpStat::CxDrainClose);
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = idle.as_mut(), if !draining => {
                draining = true;
                listener.count(HttpStat::CxIdleTimeout);
                connection.as_mut().graceful_shutdown();
            }
        }
    }
    listener.count(HttpStat::CxDestroy);
}

fn is_protocol_error(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<hyper::Error>()
        .is_some_and(hyper::Error::is_parse)
}

/// Ends once nothing happened for `limit`. Looks only when the limit would be up, so a busy
/// connection pays nothing for it.
async fn idle(limit: Option<Duration>, activity: Arc<Activity>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    loop {
        let before = activity.requests.load(Ordering::Relaxed);
        tokio::time::sleep(limit).await;
        let quiet = activity.requests.load(Ordering::Relaxed) == before;
        if quiet && activity.active.load(Ordering::Relaxed) == 0 {
            return;
        }
    }
}
