//! Backends that write down what they see and do what the request tells them.
//!
//! The header `x-script` holds one word per attempt, the last for all that follow: a status,
//! or one of the words in [`plain`] and [`framed`].

mod asked;
mod framed;
mod load;
mod plain;

use crate::config::Backends;
use crate::wire::Message;
use crate::wire::PATIENCE;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// Backends, and those that speak nothing but HTTP/2; the others speak it to whoever begins with
/// its preface, too.
const NAMES: [(&str, bool); 13] = [
    ("a", false),
    ("b", false),
    ("c", false),
    ("d", false),
    ("m", false),
    ("h", true),
    ("i", true),
    ("twin1", false),
    ("twin2", false),
    ("twin3", false),
    (EVERYWHERE, false),
    ("y", true),
    ("z", false),
];

/// Backends that nobody can tell apart, by the order in which a request came to them.
const TWINS: [&str; 3] = ["TWIN-A", "TWIN-B", "TWIN-C"];

/// How often it is looked whether something happened.
const LOOK: Duration = Duration::from_millis(2);

/// The one that is at every address of this machine, so that it can be many endpoints.
const EVERYWHERE: &str = "w";

/// Of a request that says what health checks are answered from now on: the host that they ask for.
pub(crate) const HEALTH: &str = "x-health";

/// Requests by the number in their `x-case`: which backend had which.
#[derive(Debug, Default)]
pub(crate) struct Log {
    seen: Mutex<HashMap<String, Vec<(&'static str, Message)>>>,
    /// What health checks are answered, by the host that they ask for and by backend.
    health: Mutex<HashMap<String, HashMap<String, String>>>,
    /// What requests begin with that are answered no later any more.
    released: Mutex<HashSet<String>>,
    /// Cases whose heads a backend has, of requests that never end.
    uploads: Mutex<HashSet<String>>,
}

/// Starts all backends. They end with the process.
pub(crate) async fn start(log: &Arc<Log>) -> io::Result<Backends> {
    // Nobody has port 1.
    let mut backends = Backends::from([("nobody", SocketAddr::from(([127, 0, 0, 1], 1)))]);
    for (name, http2) in NAMES {
        let at = match name {
            EVERYWHERE => Ipv4Addr::UNSPECIFIED,
            _ => Ipv4Addr::LOCALHOST,
        };
        let listener = TcpListener::bind((at, 0)).await?;
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
                    if http2 || begins_http2(&stream).await {
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

/// Whether a connection begins as HTTP/2 does (RFC 9113 §3.4), and no method of HTTP/1.1 here does.
async fn begins_http2(stream: &TcpStream) -> bool {
    // `PROPFIND` begins nearly so.
    let mut first = [0; 3];
    while stream
        .peek(&mut first)
        .await
        .is_ok_and(|n| n == 1 || n == 2)
    {
        sleep(LOOK).await;
    }
    &first == b"PRI"
}

/// What is compared in place of the names and addresses of twins: which of them is the first is a
/// matter of chance, the others are not.
pub(crate) fn twins(
    seen: &[(&'static str, Message)],
    backends: &Backends,
) -> Vec<(String, &'static str)> {
    let mut met = Vec::new();
    for (name, _) in seen {
        if name.starts_with("twin") && !met.contains(name) {
            met.push(*name);
        }
    }
    let masks = met.iter().zip(TWINS).flat_map(|(name, mask)| {
        let address = backends.get(name).map(ToString::to_string);
        [
            ((*name).to_owned(), mask),
            (address.unwrap_or_default(), mask),
        ]
    });
    masks.collect()
}

// === impl Log ===

impl Log {
    /// What was seen of a case.
    pub(crate) fn take(&self, case: &str) -> Vec<(&'static str, Message)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(case).unwrap_or_default()
    }

    /// What a backend answers a health check; none if the request is no health check.
    fn check(&self, backend: &str, message: &Message) -> Option<String> {
        if message.header("user-agent") != Some("Envoy/HC") {
            return None;
        }
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let host = message.header("host");
        let host = host.or_else(|| message.header(":authority"));
        let of_host = health.get(host.unwrap_or(""));
        let word = of_host.and_then(|words| words.get(backend));
        Some(word.map_or("200", String::as_str).to_owned())
    }

    /// Takes note of what health checks are to be answered from now on, if a request says so:
    /// beside [`HEALTH`], `x-health-words` has `BACKEND=WORD` with commas.
    fn script_health(&self, message: &Message) {
        let (Some(host), Some(words)) = (message.header(HEALTH), message.header("x-health-words"))
        else {
            return;
        };
        let words = words.split(',').filter_map(|it| it.split_once('='));
        let words = words.map(|(name, word)| (name.to_owned(), word.to_owned()));
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.insert(host.to_owned(), words.collect());
    }

    /// Whether a backend has a case.
    pub(crate) fn has(&self, case: &str) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.contains_key(case)
    }

    /// A backend has the head of a request. Of one that never ends that is all that is noted: how
    /// much of its body comes is a matter of time.
    fn begin(&self, head: &Message) {
        if !is_upload(head) {
            return;
        }
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.insert(head.header("x-case").unwrap_or("").to_owned());
    }

    /// Waits until a backend has the head of a request that never ends, for as long as that may
    /// take.
    pub(crate) async fn upload(&self, case: &str) {
        let end = Instant::now() + PATIENCE;
        let has = || {
            let uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
            uploads.contains(case)
        };
        while !has() && Instant::now() < end {
            sleep(LOOK).await;
        }
    }

    /// Waits until a backend has a case, for as long as that may take.
    pub(crate) async fn arrival(&self, case: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.has(case) && Instant::now() < end {
            sleep(LOOK).await;
        }
    }

    /// Lets all requests with the script `hold` go whose cases begin like this.
    pub(crate) fn release(&self, cases: &str) {
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        released.insert(cases.to_owned());
    }

    /// Waits until a case is released.
    async fn hold(&self, case: &str) {
        let end = Instant::now() + PATIENCE;
        let is_released = || {
            let released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
            released.iter().any(|cases| case.starts_with(cases))
        };
        while !is_released() && Instant::now() < end {
            sleep(LOOK).await;
        }
    }

    /// Forgets every request.
    pub(crate) fn clear(&self) {
        self.uploads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.released
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Writes a request down and chooses the word of its script.
    fn note(&self, backend: &'static str, mut message: Message) -> String {
        message.at = Some(Instant::now());
        let script = message.header("x-script").unwrap_or("200").to_owned();
        let case = message.header("x-case").unwrap_or("").to_owned();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let of_case = seen.entry(case).or_default();
        // Whoever is asked about a request gets no attempt of it.
        let main =
            |backend: &str, it: &Message| !is_copy(backend, it) && !asked::ASKED.contains(&backend);
        let attempt = of_case.iter().filter(|(at, it)| main(at, it)).count();
        let copy = is_copy(backend, &message);
        let word = message.header("x-asked").unwrap_or("allow").to_owned();
        of_case.push((backend, message));
        if asked::ASKED.contains(&backend) {
            return word;
        }
        if copy {
            // It comes at any time, so no word of the script is for it.
            return "200".to_owned();
        }
        let words: Vec<&str> = script.split(',').collect();
        words[attempt.min(words.len() - 1)].to_owned()
    }
}

/// Whether a request's body never ends.
fn is_upload(head: &Message) -> bool {
    head.header("x-script") == Some(UPLOAD)
}

/// The script of requests whose callers leave before their bodies end.
pub(crate) const UPLOAD: &str = "upload";

/// The backend for copies that nothing else tells from their requests.
const MIRROR: &str = "m";

/// Whether a request is the copy that a mirror policy made.
pub(crate) fn is_copy(backend: &str, message: &Message) -> bool {
    let host = message
        .header("host")
        .or_else(|| message.header(":authority"));
    backend == MIRROR || host.is_some_and(|host| host.contains("-shadow"))
}
