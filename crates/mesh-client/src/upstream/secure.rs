//! TLS towards endpoints: what a cluster's configuration was compiled to.

use super::counted::Counted;
use super::transport::Transport;
use mesh_core::exchange::TlsInfo;
use mesh_core::model::{ClientTls, ClusterEntry, Endpoint};
use mesh_core::{Error, Failure, Name};
use mesh_identity::{Connector, TlsError, TlsStream};
use std::sync::{Arc, OnceLock};

const H2: &str = "h2";
const HTTP_1: &str = "http/1.1";

/// What is offered in ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// What the configuration says, or nothing: for bytes.
    Own,
    /// A connection that will speak HTTP/1.1 whatever the endpoint would rather.
    Http1,
    /// The same for HTTP/2.
    Http2,
    /// The endpoint chooses.
    Either,
}

/// A cluster's ways of TLS, compiled: kept with the cluster for as long as they stay the same.
#[derive(Default)]
struct Ways {
    usual: Secured,
    /// For some endpoints, as `Cluster::tls_matches` has them; made when one is first needed.
    matched: OnceLock<Box<[Secured]>>,
}

/// One way of TLS, compiled. Secrets are looked at with each handshake, so connections that are there live on with an old
/// certificate and new ones have the new.
#[derive(Default)]
pub(crate) struct Secured {
    /// One for each [`Offer`], made when it is first needed.
    connectors: [OnceLock<Result<Connector, String>>; 4],
}

/// Why there is no secured connection.
pub(crate) enum Refused {
    /// The configuration cannot be compiled.
    Unusable(String),
    /// The handshake failed.
    Tls(TlsError),
}

// === impl Offer ===

impl Offer {
    /// What to offer, given what the configuration names. A connection whose protocol is settled
    /// must not agree on another one: Envoy leaves that to who configures it and breaks otherwise.
    fn protocols(self, configured: &[Name]) -> Vec<Name> {
        let without = |unwanted: &[&str]| -> Vec<Name> {
            let wanted = |name: &&Name| !unwanted.contains(&name.as_str());
            configured.iter().filter(wanted).cloned().collect()
        };
        let (offered, usual): (_, &[&str]) = match self {
            Self::Own => (configured.to_vec(), &[]),
            Self::Http1 => (without(&[H2]), &[HTTP_1]),
            Self::Http2 => (without(&[HTTP_1, "http/1.0"]), &[H2]),
            Self::Either => (configured.to_vec(), &[H2, HTTP_1]),
        };
        if offered.is_empty() {
            return usual.iter().map(|name| Name::from(*name)).collect();
        }
        offered
    }
}

// === impl Secured ===

impl Secured {
    /// The TLS to this endpoint of a cluster, if there is any: what it is, and what it was compiled
    /// to.
    pub(crate) fn of<'a>(
        entry: &'a ClusterEntry,
        endpoint: &Endpoint,
    ) -> Option<(&'a Arc<ClientTls>, &'a Self)> {
        let config = entry.config();
        let mut matches = config.tls_matches.iter();
        let Some(at) = matches.position(|one| one.is_for(endpoint)) else {
            let tls = config.tls.as_ref()?;
            return Some((tls, &entry.tls_slot().get_or_init(Ways::default).usual));
        };
        let tls = config.tls_matches[at].tls.as_ref()?;
        let ways = entry.tls_slot().get_or_init(Ways::default);
        let none = || config.tls_matches.iter().map(|_| Self::default()).collect();
        Some((tls, ways.matched.get_or_init(none).get(at)?))
    }

    /// Whether the endpoint agreed on HTTP/2.
    pub(crate) fn is_http2(info: Option<&Arc<TlsInfo>>) -> bool {
        info.is_some_and(|info| info.alpn == H2)
    }

    pub(crate) async fn handshake(
        &self,
        tls: &Arc<ClientTls>,
        entry: &ClusterEntry,
        offer: Offer,
        transport: Transport,
        name: Option<&str>,
    ) -> Result<(TlsStream<Transport>, Arc<TlsInfo>), Refused> {
        let made = self.connectors[offer as usize].get_or_init(|| compile(tls, entry, offer));
        match made {
            Ok(connector) => connector
                .connect(transport, name)
                .await
                .map_err(Refused::Tls),
            Err(invalid) => Err(Refused::Unusable(invalid.clone())),
        }
    }
}

fn compile(tls: &Arc<ClientTls>, entry: &ClusterEntry, offer: Offer) -> Result<Connector, String> {
    let alpn = offer.protocols(&tls.alpn);
    let tls = if alpn == tls.alpn {
        tls.clone()
    } else {
        let mut offering = ClientTls::clone(tls);
        offering.alpn = alpn;
        Arc::new(offering)
    };
    Connector::new(tls, |named| entry.secret(named).cloned()).map_err(|invalid| invalid.to_string())
}

// === impl Refused ===

impl Refused {
    /// Counts what went wrong, as Envoy does.
    pub(crate) fn count(&self, counted: &Counted) {
        if let Self::Tls(error) = self
            && let Some(stat) = error.cluster_stat()
        {
            counted.count(stat);
        }
    }

    /// To the request it is a connection that could not be made, for this reason.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Unusable(invalid) => Error::with_source(Failure::ConnectFailed, invalid),
            Self::Tls(error) => Error::with_source(Failure::ConnectFailed, error),
        }
        .unsent()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_offered_cannot_end_in_a_protocol_that_is_not_spoken() {
        let both: Vec<Name> = vec![H2.into(), HTTP_1.into()];
        let own: Vec<Name> = vec!["istio".into(), H2.into()];
        for (offer, configured, expected) in [
            (Offer::Own, &both, &["h2", "http/1.1"][..]),
            (Offer::Own, &vec![], &[]),
            (Offer::Http1, &vec![], &["http/1.1"]),
            (Offer::Http1, &both, &["http/1.1"]),
            (Offer::Http1, &own, &["istio"]),
            (Offer::Http2, &vec![], &["h2"]),
            (Offer::Http2, &both, &["h2"]),
            (Offer::Http2, &own, &["istio", "h2"]),
            (Offer::Either, &vec![], &["h2", "http/1.1"]),
            (Offer::Either, &own, &["istio", "h2"]),
        ] {
            let offered = offer.protocols(configured);
            let offered: Vec<_> = offered.iter().map(Name::as_str).collect();
            assert_eq!(offered, expected, "{offer:?} {configured:?}");
        }
    }
}
