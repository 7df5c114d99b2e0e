//! The subjects, side by side: long-lived, given new configurations again and again.

pub(crate) mod raw;

use crate::config::Config;
use std::collections::BTreeMap;
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
    pub(crate) admin: SocketAddr,
    pub(crate) log: PathBuf,
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
    x-a=%REQ(X-A?X-B)%\n";
