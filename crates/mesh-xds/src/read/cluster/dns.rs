//! How names of endpoints are resolved.

use crate::pb::envoy::config::cluster::v3::cluster::DnsLookupFamily;
use crate::pb::envoy::config::core::v3::TypedExtensionConfig;
use crate::pb::google::protobuf::Duration as Wire;
use crate::read::extension::dns_resolver;
use crate::wire::{At, enumeration, maybe_duration};
use mesh_core::Invalid;
use mesh_core::model::{Dns, DnsFamily};
use std::time::Duration;

/// The fields that clusters and the DNS extension have in common.
pub(super) struct Parts<'a> {
    pub(super) refresh: Option<&'a Wire>,
    pub(super) jitter: Option<&'a Wire>,
    pub(super) respect_ttl: bool,
    /// The first and the longest wait.
    pub(super) failure: Option<(Option<&'a Wire>, Option<&'a Wire>)>,
    pub(super) family: DnsFamily,
    pub(super) resolver: Option<&'a TypedExtensionConfig>,
}

impl Parts<'_> {
    pub(super) fn read(self) -> Result<Dns, Invalid> {
        dns_resolver(self.resolver)?;
        let mut dns = Dns::default();
        match maybe_duration("dns_refresh_rate", self.refresh)? {
            // As Envoy has it for one of the two places where it can stand.
            Some(refresh) if refresh <= Duration::from_millis(1) => {
                return Err(Invalid::new("dns_refresh_rate", "must be more than 1 ms"));
            }
            Some(refresh) => dns.refresh = refresh,
            None => {}
        }
        dns.jitter = maybe_duration("dns_jitter", self.jitter)?.unwrap_or_default();
        dns.respect_ttl = self.respect_ttl;
        dns.failure_refresh = match self.failure {
            None => None,
            Some((base, max)) => Some(failure(base, max).at("dns_failure_refresh_rate")?),
        };
        dns.family = self.family;
        Ok(dns)
    }
}

/// Nothing said of the longest wait is ten times the first.
fn failure(base: Option<&Wire>, max: Option<&Wire>) -> Result<(Duration, Duration), Invalid> {
    let base = positive("base_interval", base)?
        .ok_or_else(|| Invalid::new("base_interval", "required, but missing"))?;
    let max = positive("max_interval", max)?.unwrap_or_else(|| base.saturating_mul(10));
    if max < base {
        let message = "is shorter than base_interval";
        return Err(Invalid::new("max_interval", message));
    }
    Ok((base, max))
}

fn positive(field: &str, value: Option<&Wire>) -> Result<Option<Duration>, Invalid> {
    match maybe_duration(field, value)? {
        Some(Duration::ZERO) => Err(Invalid::new(field, "must be more than zero")),
        time => Ok(time),
    }
}

/// Which addresses are looked for.
pub(super) fn family(field: &str, value: i32) -> Result<DnsFamily, Invalid> {
    Ok(match enumeration(field, value)? {
        DnsLookupFamily::Auto => DnsFamily::Auto,
        DnsLookupFamily::V4Only => DnsFamily::V4Only,
        DnsLookupFamily::V6Only => DnsFamily::V6Only,
        DnsLookupFamily::V4Preferred => DnsFamily::V4Preferred,
        DnsLookupFamily::All => DnsFamily::All,
    })
}
