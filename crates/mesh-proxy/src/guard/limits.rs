//! The limits of a proxy that no listener's configuration says.

use super::monitor;
use mesh_core::model::{Overload, OverloadAction, OverloadRule, OverloadTrigger};
use std::time::Duration;

/// What callers may ask of the whole process. What a listener, a chain or a bootstrap says itself
/// wins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at once, of all listeners together; one more is closed as soon as it was
    /// accepted (`listener.*.downstream_global_cx_overflow`). Envoy's monitor
    /// `global_downstream_max_connections` in a bootstrap wins. Default: four fifths of the
    /// descriptors that the process may have, so that there are some for endpoints; Envoy has no
    /// limit.
    pub connections: Option<u64>,
    /// Of these, from one address (for IPv6: one network of 64 bits), as it is before any PROXY
    /// protocol (`listener.*.downstream_address_cx_overflow`). Default: no limit, because many
    /// callers may share an address. Envoy has none.
    pub connections_per_address: Option<u32>,
    /// Handshakes of TLS under way; one more is not begun, and its connection closed
    /// (`listener.*.downstream_cx_handshake_overflow`). Default: no limit but that on connections.
    /// Envoy has none.
    pub handshakes: Option<u32>,
    /// How long a handshake may take where its chain does not say it
    /// (`transport_socket_connect_timeout`). Default 15 s, as Istio has it; in Envoy it is without
    /// end.
    pub handshake_time: Option<Duration>,
    /// How long the head of a request of HTTP/1 may take from its first byte where the listener does
    /// not say it (`request_headers_timeout`). Default 60 s; in Envoy a stream's idle timeout holds.
    pub head_time: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        let most = monitor::most_descriptors().ok();
        Self {
            connections: most
                .filter(|most| *most < u64::MAX)
                .map(|most| most / 5 * 4),
            connections_per_address: None,
            handshakes: None,
            handshake_time: Some(Duration::from_secs(15)),
            head_time: Some(Duration::from_secs(60)),
        }
    }
}

/// What is done about descriptors where nobody says what is to be done: the mildest first. Of memory
/// it is not known how much there may be.
pub(crate) fn usual() -> Overload {
    let at = |action, pressure| {
        let trigger = OverloadTrigger::threshold(Overload::DESCRIPTORS, pressure);
        OverloadRule::new(action, vec![trigger])
    };
    let mut overload = Overload::default();
    overload.rules = vec![
        at(OverloadAction::DisableKeepalive, 0.85),
        at(OverloadAction::StopRequests, 0.95),
        at(OverloadAction::StopAccepting, 0.98),
    ];
    overload
}
