//! Callers over HTTP/1.1 and HTTP/2, on connections that stay and on new ones, that never stop.

use crate::support::{Http1, Whole, get, http2_to, text};
use http::Request;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::task::JoinHandle;

/// Calls on one HTTP/2 connection at a time.
const STREAMS: usize = 4;

/// The callers. Each fails on the first answer that is not 200 from a version that may answer.
pub(crate) struct Load {
    state: Arc<State>,
    callers: [JoinHandle<()>; 2],
}

#[derive(Default)]
struct State {
    stop: AtomicBool,
    answers: [AtomicUsize; 2],
    /// The oldest version that may answer a request that begins now.
    oldest: AtomicUsize,
    /// The newest version that there is.
    newest: AtomicUsize,
}

// === impl Load ===

impl Load {
    pub(crate) fn start(at: SocketAddr) -> Self {
        let state = Arc::<State>::default();
        let callers = [
            tokio::spawn(state.clone().one(at)),
            tokio::spawn(state.clone().two(at)),
        ];
        Self { state, callers }
    }

    /// From now on this version may answer as well.
    pub(crate) fn may_answer(&self, version: usize) {
        self.state.newest.store(version, Ordering::SeqCst);
    }

    /// From now on no older version may answer.
    pub(crate) fn must_answer(&self, version: usize) {
        self.state.oldest.store(version, Ordering::SeqCst);
    }

    /// Waits for some more answers on both protocols. A caller that has failed is no wait: its
    /// failure shows at the end.
    pub(crate) async fn goes_on(&self) {
        for (caller, answers) in self.callers.iter().zip(&self.state.answers) {
            let enough = answers.load(Ordering::SeqCst) + 10;
            while answers.load(Ordering::SeqCst) < enough {
                assert!(!caller.is_finished(), "a caller has failed");
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
        }
    }

    /// Fails if any call did. How many there were.
    pub(crate) async fn end(self) -> usize {
        self.goes_on().await;
        self.state.stop.store(true, Ordering::SeqCst);
        for caller in self.callers {
            caller.await.unwrap();
        }
        let answers = self.state.answers.iter();
        answers.map(|one| one.load(Ordering::SeqCst)).sum()
    }
}

// === impl State ===

impl State {
    async fn one(self: Arc<Self>, at: SocketAddr) {
        let mut stays = Http1::connect(at).await;
        while !self.stop.load(Ordering::SeqCst) {
            let mut new = Http1::connect(at).await;
            for client in [&mut stays, &mut new] {
                let oldest = self.oldest.load(Ordering::SeqCst);
                let response = client.send(get("/")).await;
                let status = response.status();
                self.check(oldest, status, &text(response).await);
                self.answers[0].fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    async fn two(self: Arc<Self>, at: SocketAddr) {
        let stays = http2_to::<Whole>(at).await;
        while !self.stop.load(Ordering::SeqCst) {
            let new = http2_to::<Whole>(at).await;
            for client in [&stays, &new] {
                let calls = (0..STREAMS).map(|_| async {
                    let oldest = self.oldest.load(Ordering::SeqCst);
                    let request = Request::get("http://mesh/").body(Whole::default()).unwrap();
                    let response = client.clone().send_request(request).await.unwrap();
                    let status = response.status();
                    self.check(oldest, status, &text(response).await);
                });
                futures_util::future::join_all(calls).await;
                self.answers[1].fetch_add(STREAMS, Ordering::SeqCst);
            }
        }
    }

    fn check(&self, oldest: usize, status: http::StatusCode, body: &str) {
        assert_eq!(status, 200, "{body}");
        let version: usize = body.parse().expect("a version");
        let newest = self.newest.load(Ordering::SeqCst);
        assert!(
            (oldest..=newest).contains(&version),
            "version {version} answered; it had to be {oldest} to {newest}"
        );
    }
}
