//! What a request's head says in the end: who calls, and what access logs tell of it.
//!
//! A head changes on its way: its path is normalised, headers are edited, the authority is
//! rewritten. Envoy's access log has it as it left. Whoever writes one says beforehand what is
//! wanted of it, so that those who change heads keep that and nothing else.

use super::Exchange;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use std::net::SocketAddr;
use std::sync::Arc;

/// What is wanted of a request's head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// Method, target and `host`.
    pub target: bool,
    /// The first value of each of these headers.
    pub headers: Vec<HeaderName>,
}

/// What was wanted of a request's head, as it was at some time.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// Method, target, and `host` where the target has no authority.
    pub target: Option<(Method, Uri, Option<HeaderValue>)>,
    /// Headers that were there.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

// === impl Exchange ===

impl Exchange {
    /// Records who really calls, as a trusted proxy in front says. Only the first call counts.
    pub fn set_remote(&self, address: SocketAddr) {
        // Nobody may take back what was decided when the request came in.
        let _ = self.request.remote.set(address);
    }

    /// Who calls, as far as is known: what [`Exchange::set_remote`] recorded, else the peer. An
    /// address that a header named has port 0, as in Envoy.
    pub fn remote(&self) -> Option<SocketAddr> {
        let said = self.request.remote.get().copied();
        said.or_else(|| self.caller().peer)
    }

    /// Says what is wanted of the head in the end. Only the first call counts.
    pub fn watch(&self, watch: Arc<Watch>) {
        // A second log of the same request would be a mistake of composition.
        let _ = self.request.watch.set(watch);
    }

    /// Whether a header is wanted in the end. To add what nobody asks for is no change to note.
    pub fn watches(&self, name: &HeaderName) -> bool {
        let watch = self.request.watch.get();
        watch.is_some_and(|watch| watch.headers.contains(name))
    }

    /// Keeps what is wanted of a head that has changed. Does nothing where nothing is.
    pub fn note_head<B>(&self, request: &Request<B>) {
        if let Some(watch) = self.request.watch.get() {
            let head = Head::of(request, watch);
            self.shared().head = Some(Box::new(head));
        }
    }

    /// The head as it was last noted, if it changed and anything of it is wanted.
    pub fn take_head(&self) -> Option<Head> {
        self.request.watch.get()?;
        self.shared().head.take().map(|head| *head)
    }
}

/// With more headers than this, each wanted one is searched for.
const FEW: usize = 16;

/// The first value of each of the `wanted` headers that are there, in any order.
fn first_of(wanted: &[HeaderName], headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut there: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(wanted.len());
    if headers.len() > FEW {
        for name in wanted {
            if let Some(value) = headers.get(name) {
                there.push((name.clone(), value.clone()));
            }
        }
        return there;
    }
    // To look at the few that there are takes less than to compute where each would be. Most are of
    // another length than all that are wanted.
    let length = |name: &HeaderName| 1_u64 << (name.as_str().len() % 64);
    let lengths = wanted.iter().fold(0, |all, name| all | length(name));
    let is_wanted = |name: &HeaderName| lengths & length(name) != 0 && wanted.contains(name);
    for (name, value) in headers.iter().filter(|(name, _)| is_wanted(name)) {
        if !there.iter().any(|(known, _)| known == name) {
            there.push((name.clone(), value.clone()));
        }
    }
    there
}

// === impl Head ===

impl Head {
    /// What is wanted of a request's head.
    pub fn of<B>(request: &Request<B>, watch: &Watch) -> Self {
        let headers = request.headers();
        let target = watch.target.then(|| {
            let uri = request.uri().clone();
            let host = match uri.authority() {
                Some(_) => None,
                None => headers.get(HOST).cloned(),
            };
            (request.method().clone(), uri, host)
        });
        Self {
            target,
            headers: first_of(&watch.headers, headers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Caller;
    use std::time::Instant;

    #[test]
    fn a_head_is_kept_only_as_far_as_somebody_wants_it() {
        let exchange = Exchange::new(Instant::now(), Caller::default());
        let request = Request::get("/new")
            .header(HOST, "a")
            .header("x-a", "1")
            .header("x-a", "2")
            .header("x-b", "3")
            .body(())
            .unwrap();
        exchange.note_head(&request);
        assert!(exchange.take_head().is_none(), "nobody wants it");

        let watched_name = HeaderName::from_static("x-a");
        let watched = ["x-a", "x-none"].map(HeaderName::from_static);
        exchange.watch(Arc::new(Watch {
            target: true,
            headers: watched.to_vec(),
        }));
        assert!(exchange.watches(&watched_name) && !exchange.watches(&HOST));
        assert!(exchange.take_head().is_none(), "it has not changed");
        exchange.note_head(&Request::get("/old").body(()).unwrap());
        exchange.note_head(&request);
        let head = exchange.take_head().unwrap();
        let (method, uri, host) = head.target.unwrap();
        assert_eq!(
            (method, uri.path(), host.unwrap()),
            (Method::GET, "/new", HeaderValue::from_static("a"))
        );
        let [(name, value)] = &head.headers[..] else {
            panic!("{:?}", head.headers)
        };
        assert_eq!((name.as_str(), value.as_bytes()), ("x-a", &b"1"[..]));
    }

    #[test]
    fn of_few_headers_and_of_many_the_same_is_kept() {
        let wanted = ["x-3", "x-none", "x-1"].map(HeaderName::from_static);
        let watch = Watch {
            target: false,
            headers: wanted.to_vec(),
        };
        for count in [1, 2, 4, 5, 6, 20] {
            let mut request = Request::new(());
            for at in 0..count {
                let name = HeaderName::try_from(format!("x-{at}")).unwrap();
                for line in 0..3 {
                    let value = HeaderValue::try_from(format!("{at}.{line}")).unwrap();
                    request.headers_mut().append(name.clone(), value);
                }
            }
            let head = Head::of(&request, &watch);
            let mut kept: Vec<_> = head
                .headers
                .iter()
                .map(|(name, value)| format!("{name}={value:?}"))
                .collect();
            kept.sort();
            let there = [(1, "x-1=\"1.0\""), (3, "x-3=\"3.0\"")].into_iter();
            let there = there.filter(|(at, _)| *at < count).map(|(_, text)| text);
            assert_eq!(kept, there.collect::<Vec<_>>(), "{count}");
        }
    }

    #[test]
    fn who_calls_is_the_peer_unless_a_proxy_in_front_is_believed() {
        let caller = Caller {
            peer: Some("10.0.0.1:5".parse().unwrap()),
            ..Caller::default()
        };
        let exchange = Exchange::new(Instant::now(), caller);
        assert_eq!(exchange.remote().unwrap().to_string(), "10.0.0.1:5");
        exchange.set_remote("1.2.3.4:0".parse().unwrap());
        exchange.set_remote("5.6.7.8:0".parse().unwrap());
        assert_eq!(exchange.remote().unwrap().to_string(), "1.2.3.4:0");
    }
}
