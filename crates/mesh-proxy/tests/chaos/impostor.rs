//! Whoever has the control plane's port while it is away.

use crate::support::Whole;
use bytes::Bytes;
use http::Response;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// What it does to who connects.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Closes at once.
    Closes,
    /// Sends bytes that mean nothing.
    Babbles,
    /// Speaks the wrong protocol.
    SpeaksHttp1,
    /// Begins well, in HTTP/2, and then sends bytes that mean nothing.
    BeginsWell,
    /// Answers with gRPC messages that are no protobuf.
    AnswersNonsense,
}

/// Has the port until it is ended.
pub(crate) struct Impostor {
    met: Arc<Semaphore>,
    task: JoinHandle<()>,
}

/// An empty SETTINGS frame (RFC 9113 §6.5).
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A gRPC message of four bytes that are no protobuf.
const NONSENSE: &[u8] = &[0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff];

// === impl Impostor ===

impl Impostor {
    /// There is one in every round but each sixth, in which the port is just closed.
    pub(crate) async fn of_round(round: usize, at: SocketAddr) -> Option<Self> {
        let manner = match round % 6 {
            1 => Manner::Babbles,
            2 => Manner::SpeaksHttp1,
            3 => Manner::BeginsWell,
            4 => Manner::AnswersNonsense,
            5 => Manner::Closes,
            _ => return None,
        };
        let listener = TcpListener::bind(at).await.unwrap();
        let met = Arc::new(Semaphore::new(0));
        let meeting = met.clone();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                manner.treat(stream).await;
                meeting.add_permits(1);
            }
        });
        Some(Self { met, task })
    }

    /// Waits until the proxy has met it twice.
    pub(crate) async fn met(&self) {
        let twice = self.met.acquire_many(2).await;
        twice.expect("it is never closed").forget();
    }

    /// Frees the port.
    pub(crate) async fn end(self) {
        self.task.abort();
        // Cancelled, which is what was asked for.
        let _ = self.task.await;
    }
}

// === impl Manner ===

impl Manner {
    /// Until the connection is closed. That the other side closes it first is no failure.
    async fn treat(self, mut stream: TcpStream) {
        let junk: Vec<u8> = (0..4096_u32).map(|at| (at * 7 + 0x80) as u8).collect();
        match self {
            Self::Closes => {}
            Self::Babbles => drop(stream.write_all(&junk).await),
            Self::SpeaksHttp1 => {
                let answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";
                drop(stream.write_all(answer).await);
            }
            Self::BeginsWell => {
                let both = [&SETTINGS[..], &junk].concat();
                drop(stream.write_all(&both).await);
            }
            Self::AnswersNonsense => {
                let service = service_fn(|_| async {
                    let response = Response::builder()
                        .header("content-type", "application/grpc")
                        .body(Whole::from(Bytes::from_static(NONSENSE)));
                    Ok::<_, Infallible>(response.expect("a header that may be"))
                });
                let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                drop(http.serve_connection(TokioIo::new(stream), service).await);
            }
        }
    }
}
