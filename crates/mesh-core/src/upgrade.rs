//! Requests that ask to go on in another protocol (RFC 9110 §7.8).

use http::Extensions;
use http::header::{self, HeaderMap, HeaderValue};
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The protocol that a request asks to switch to, if it does: `upgrade`, which `connection` has to
/// name. Nobody switches to `h2c` any more (RFC 9113 §3.1), so that is no such wish.
///
/// # Example
///
/// ```
/// let request = http::Request::get("/chat")
///     .header("connection", "keep-alive, Upgrade")
///     .header("upgrade", "websocket")
///     .body(())
///     .unwrap();
/// assert_eq!(mesh_core::upgrade::of(request.headers()).unwrap(), "websocket");
/// ```
pub fn of(headers: &HeaderMap) -> Option<&HeaderValue> {
    let upgrade = crate::seldom::get(headers, &header::UPGRADE)?;
    let asks = || {
        headers.get_all(header::CONNECTION).iter().any(|value| {
            value
                .as_bytes()
                .split(|byte| *byte == b',')
                .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        })
    };
    (!upgrade.as_bytes().eq_ignore_ascii_case(b"h2c") && asks()).then_some(upgrade)
}

/// Whether that is WebSocket (RFC 6455): Envoy bounds the time until such a request is answered as
/// that of any other, and of no other upgrade.
pub fn is_websocket(headers: &HeaderMap) -> bool {
    of(headers).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Details of an answer to a WebSocket that is neither 101 nor an error: nothing of it but its head
/// is passed on, and it counts as no answer of its cluster (as in Envoy, `UpstreamRequest`).
pub const UNSUCCESSFUL: &str = "websocket_handshake_unsuccessful";

/// What lasts as long as a connection that has switched protocols.
///
/// The body of an answer of 101 is empty and soon gone, while the exchange goes on in what both
/// sides say to each other. So what layers keep until the end of an answer (that the request is
/// under way, who is to be told how it ended) lies in here, and this lies in the extensions of the
/// answer. Whoever carries the bytes takes it out and drops it at the end.
#[derive(Clone, Default)]
pub struct Tunnel {
    kept: Arc<Mutex<Vec<Box<dyn Any + Send>>>>,
    leave: Leave,
}

/// Whether it was the caller who ended a [`Tunnel`].
#[derive(Clone, Debug, Default)]
pub struct Leave(Arc<AtomicBool>);

// === impl Tunnel ===

impl Tunnel {
    /// That of an answer of 101.
    pub fn of(extensions: &mut Extensions) -> &Self {
        extensions.get_or_insert_default()
    }

    /// Takes it off an answer of 101, if anything lasts.
    pub fn take(extensions: &mut Extensions) -> Option<Self> {
        extensions.remove()
    }

    /// Drops `guard` when the tunnel has ended.
    pub fn keep<G: Any + Send>(&self, guard: G) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(Box::new(guard));
    }

    /// Says how it ended, or will have ended by the time that what is kept is dropped.
    pub fn leave(&self) -> &Leave {
        &self.leave
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Tunnel")
            .field("kept", &kept.len())
            .field("leave", &self.leave)
            .finish()
    }
}

// === impl Leave ===

impl Leave {
    /// It was the caller.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was the caller. Otherwise it was the upstream, or nobody carried anything.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_lasts_until_the_last_is_gone() {
        let mut extensions = Extensions::new();
        let guard = Arc::new(());
        Tunnel::of(&mut extensions).keep(guard.clone());
        Tunnel::of(&mut extensions).keep(guard.clone());
        let tunnel = Tunnel::take(&mut extensions).unwrap();
        assert!(Tunnel::take(&mut extensions).is_none());
        assert_eq!(Arc::strong_count(&guard), 3);
        let leave = tunnel.leave().clone();
        assert!(!leave.is_set());
        tunnel.leave().set();
        drop(tunnel);
        assert_eq!(Arc::strong_count(&guard), 1);
        assert!(leave.is_set());
    }

    #[test]
    fn both_fields_have_to_ask() {
        let asks = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let to = of(&headers).map(|to| to.to_str().unwrap().to_owned());
            (to, is_websocket(&headers))
        };
        let (connection, upgrade) = ("connection", "upgrade");
        for (lines, expected) in [
            (vec![(connection, "upgrade"), (upgrade, "foo")], Some("foo")),
            (
                vec![
                    (connection, "close"),
                    (connection, "x , UPGRADE"),
                    (upgrade, "a, b"),
                ],
                Some("a, b"),
            ),
            (vec![(upgrade, "foo")], None),
            (vec![(connection, "upgrade")], None),
            (vec![(connection, "upgrades"), (upgrade, "foo")], None),
            (vec![(connection, "upgrade"), (upgrade, "H2C")], None),
        ] {
            assert_eq!(
                asks(&lines),
                (expected.map(str::to_owned), false),
                "{lines:?}"
            );
        }
        let lines = [(connection, "Upgrade"), (upgrade, "WebSocket")];
        assert!(asks(&lines).1);
    }
}
