//! The subjects, side by side: long-lived, given new configurations again and again.

mod bootstrap;
pub(crate) mod istio;
pub(crate) mod raw;

use crate::config::Config;
use crate::envoy::statistics;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// A configuration with the name and the port that it has at every subject.
#[derive(Debug)]
pub(crate) struct Placed<'a> {
    pub(crate) id: String,
    pub(crate) port: u16,
    pub(crate) config: &'a Config,
}

/// A subject, as it is seen from outside.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    /// Where its listeners are: each subject has an address of its own.
    pub(crate) address: IpAddr,
    /// Its admin interfaces: one for each of its processes.
    pub(crate) admins: Vec<SocketAddr>,
    /// Its access log, if it has one.
    pub(crate) log: Option<PathBuf>,
    /// Configurations that it was not given.
    pub(crate) absent: BTreeSet<String>,
    /// Facts that cannot be seen of it, and why. A star stands for anything.
    pub(crate) left_out: &'static [(&'static str, &'static str)],
}

/// Whether a text is one that the pattern stands for.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            let mut ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.any(|at| fits(rest, &text[at..]))
        }),
    }
}

// === impl Peer ===

impl Peer {
    /// One that everything can be seen of.
    pub(crate) fn new(name: &'static str, address: IpAddr, log: PathBuf) -> Self {
        Self {
            name,
            address,
            admins: Vec::new(),
            log: Some(log),
            absent: BTreeSet::new(),
            left_out: &[],
        }
    }

    /// Whether a fact cannot be seen of it.
    pub(crate) fn leaves_out(&self, fact: &str) -> bool {
        self.left_out.iter().any(|(pattern, _)| fits(pattern, fact))
    }

    /// The statistics of all its processes.
    pub(crate) async fn statistics(&self) -> BTreeMap<String, u64> {
        let each = self.admins.iter().map(|admin| statistics(*admin));
        let all = futures_util::future::join_all(each).await;
        all.into_iter().flatten().collect()
    }

    /// Whether a resource's name says that it is of a configuration.
    fn is_of(placed: &Placed<'_>, name: &str) -> bool {
        let port = placed.port.to_string();
        name.contains(&placed.id) || name.split(['.', '_', '|']).any(|part| part == port)
    }
}

/// Which configurations a subject refused, and what it said.
pub(crate) type Refused = BTreeMap<String, String>;

/// What every subject logs of a request: its number, and fields that are compared one by one.
pub(crate) const LOG: &str = "%REQ(X-CASE)%\tcode=%RESPONSE_CODE%\tflags=%RESPONSE_FLAGS%\t\
    details=%RESPONSE_CODE_DETAILS%\tfailure=%UPSTREAM_TRANSPORT_FAILURE_REASON%\t\
    protocol=%PROTOCOL%\treceived=%BYTES_RECEIVED%\tsent=%BYTES_SENT%\t\
    attempts=%UPSTREAM_REQUEST_ATTEMPT_COUNT%\troute=%ROUTE_NAME%\tcluster=%UPSTREAM_CLUSTER%\t\
    host=%UPSTREAM_HOST%\tmethod=%REQ(:METHOD)%\tpath=%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%\t\
    authority=%REQ(:AUTHORITY)%\tsent-path=%REQ(:PATH)%\tremote=%DOWNSTREAM_REMOTE_ADDRESS%\t\
    x-a=%REQ(X-A?X-B)%\tpeer=%DOWNSTREAM_PEER_URI_SAN%\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("log*", "log flags", true),
            ("log*", "upstream log", false),
            ("upstream * header x-a", "upstream 12 header x-a", true),
            ("upstream * header x-a", "upstream 12 header x-ab", false),
            ("upstream * header x-a*", "upstream 12 header x-ab", true),
            ("version", "version", true),
            ("version", "versions", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
