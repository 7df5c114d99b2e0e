//! The name servers that the machine uses.

use super::{Answer, Lookup, LookupError};
use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ConnectionProvider, Resolver, TokioResolver};
use mesh_core::model::DnsFamily;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Most addresses that one answer may have; the rest is left out.
pub(super) const MOST_ADDRESSES: usize = 1024;

/// Asks the name servers of `/etc/resolv.conf`, after looking into `/etc/hosts`.
///
/// Nothing is kept from one question to the next: how long an answer holds is the asker's
/// business. What `/etc/resolv.conf` says is read when the first question is asked.
#[derive(Default)]
pub struct System {
    servers: Vec<SocketAddr>,
    /// One for each family, made when first needed.
    resolvers: Mutex<HashMap<DnsFamily, Arc<TokioResolver>>>,
}

// === impl System ===

impl System {
    /// The machine's name servers.
    pub fn new() -> Self {
        Self::default()
    }

    /// These name servers instead of the machine's, asked over UDP and TCP.
    pub fn with_servers(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            servers: servers.into_iter().collect(),
            ..Self::default()
        }
    }

    fn resolver(&self, family: DnsFamily) -> Result<Arc<TokioResolver>, String> {
        let mut resolvers = self
            .resolvers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(resolver) = resolvers.get(&family) {
            return Ok(resolver.clone());
        }
        let mut builder = match self.servers.as_slice() {
            [] => Resolver::builder_tokio().map_err(|error| error.to_string())?,
            servers => {
                Resolver::builder_with_config(config(servers), TokioRuntimeProvider::default())
            }
        };
        options(builder.options_mut(), family);
        let resolver = Arc::new(builder.build().map_err(|error| error.to_string())?);
        resolvers.insert(family, resolver.clone());
        Ok(resolver)
    }
}

impl Lookup for System {
    async fn lookup(&self, name: &str, family: DnsFamily) -> Result<Answer, LookupError> {
        let resolver = self.resolver(family).map_err(|reason| LookupError {
            name: name.to_owned(),
            reason,
        })?;
        ask(&resolver, name).await
    }
}

/// Asks, and takes what comes for an answer.
pub(super) async fn ask<P: ConnectionProvider>(
    resolver: &Resolver<P>,
    name: &str,
) -> Result<Answer, LookupError> {
    match resolver.lookup_ip(name).await {
        Ok(found) => {
            let ttl = found.valid_until().saturating_duration_since(now());
            let addresses: Vec<IpAddr> = found.iter().take(MOST_ADDRESSES).collect();
            Ok(Answer {
                addresses,
                ttl: whole_seconds(ttl),
            })
        }
        Err(error) if error.is_no_records_found() => Ok(Answer::default()),
        Err(error) => Err(LookupError {
            name: name.to_owned(),
            reason: error.to_string(),
        }),
    }
}

impl fmt::Debug for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("System")
            .field("servers", &self.servers)
            .finish_non_exhaustive()
    }
}

pub(super) fn config(servers: &[SocketAddr]) -> ResolverConfig {
    let mut config = ResolverConfig::from_name_servers(Vec::new());
    for server in servers {
        let mut one = NameServerConfig::udp_and_tcp(server.ip());
        for connection in &mut one.connections {
            connection.port = server.port();
        }
        config.add_name_server(one);
    }
    config
}

pub(super) fn options(options: &mut ResolverOpts, family: DnsFamily) {
    options.cache_size = 0;
    options.ip_strategy = match family {
        DnsFamily::V4Only => LookupIpStrategy::Ipv4Only,
        DnsFamily::V6Only => LookupIpStrategy::Ipv6Only,
        DnsFamily::V4Preferred => LookupIpStrategy::Ipv4thenIpv6,
        DnsFamily::All => LookupIpStrategy::Ipv4AndIpv6,
        _ => LookupIpStrategy::Ipv6thenIpv4,
    };
}

/// The answer's own number: what is left of it a moment later, rounded up again. What comes from
/// `/etc/hosts` holds for ever, which is as good as unknown.
fn whole_seconds(left: Duration) -> Duration {
    const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
    if left > LONGEST {
        return Duration::ZERO;
    }
    Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0))
}

#[allow(
    clippy::disallowed_methods,
    reason = "hickory counts in the same clock"
)]
fn now() -> Instant {
    Instant::now()
}
