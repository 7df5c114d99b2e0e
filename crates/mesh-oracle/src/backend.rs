//! Backends that write down what they see and do what the request tells them.
//!
//! The header `x-script` holds one word per attempt, the last for all that follow: a status,
//! or one of the words in [`plain`] and [`framed`].

mod framed;
mod plain;

use crate::config::Backends;
use crate::wire::Message;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;

/// Backends that speak HTTP/1.1, and those that speak HTTP/2.
const NAMES: [(&str, bool); 7] = [
    ("a", false),
    ("b", false),
    ("c", false),
    ("d", false),
    ("m", false),
    ("h", true),
    ("i", true),
];

/// Requests by the number in their `x-case`: which backend had which.
#[derive(Debug, Default)]
pub(crate) struct Log {
    seen: Mutex<HashMap<String, Vec<(&'static str, Message)>>>,
}

/// Starts all backends. They end with the process.
pub(crate) async fn start(log: &Arc<Log>) -> io::Result<Backends> {
    // Nobody has port 1.
    let mut backends = Backends::from([("nobody", SocketAddr::from(([127, 0, 0, 1], 1)))]);
    for (name, http2) in NAMES {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        backends.insert(name, listener.local_addr()?);
        let log = log.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                // Small answers must not wait for acknowledgements.
                let _ = stream.set_nodelay(true);
                let log = log.clone();
                tokio::spawn(async move {
                    if http2 {
                        framed::serve(name, stream, &log).await;
                    } else {
                        plain::serve(name, stream, &log).await;
                    }
                });
            }
        });
    }
    Ok(backends)
}

// === impl Log ===

impl Log {
    /// What was seen of a case.
    pub(crate) fn take(&self, case: &str) -> Vec<(&'static str, Message)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(case).unwrap_or_default()
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Writes a request down and chooses the word of its script.
    fn note(&self, backend: &'static str, message: Message) -> String {
        let script = message.header("x-script").unwrap_or("200").to_owned();
        let case = message.header("x-case").unwrap_or("").to_owned();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let of_case = seen.entry(case).or_default();
        let main = |it: &Message| !is_copy(it);
        let attempt = of_case.iter().filter(|(_, it)| main(it)).count();
        of_case.push((backend, message));
        let words: Vec<&str> = script.split(',').collect();
        words[attempt.min(words.len() - 1)].to_owned()
    }
}

/// Whether a request is the copy that a mirror policy made.
pub(crate) fn is_copy(message: &Message) -> bool {
    let host = message
        .header("host")
        .or_else(|| message.header(":authority"));
    host.is_some_and(|host| host.contains("-shadow"))
}
