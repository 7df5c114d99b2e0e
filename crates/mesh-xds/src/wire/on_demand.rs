//! What is asked for on demand: `OnDemandCds` and its kin, both ways.

use super::{At, maybe_duration, refuse, required, to_duration};
use crate::pb::envoy::config::core::v3::ConfigSource;
use crate::pb::envoy::config::route::v3::Vhds;
use crate::pb::envoy::extensions::filters::http::on_demand::v3 as http;
use crate::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy as tcp;
use crate::read::{Source, reference};
use crate::write::ads;
use crate::xdstp;
use mesh_core::model::{ClustersOnDemand, HostsOnDemand};
use mesh_core::{Invalid, Name};
use std::time::Duration;

/// How long a request waits for a cluster where nothing is said.
const HTTP: Duration = Duration::from_secs(5);

/// How long a connection that is passed on as it is waits for a cluster where nothing is said.
const TCP: Duration = Duration::from_secs(60);

/// Reads how requests ask for clusters.
pub(crate) fn clusters(value: Option<&http::OnDemandCds>) -> Result<ClustersOnDemand, Invalid> {
    let Some(http::OnDemandCds {
        source,
        resources_locator,
        timeout,
    }) = value
    else {
        return Ok(ClustersOnDemand::Off);
    };
    refuse!(resources_locator);
    from_stream("source", source)?;
    let timeout = maybe_duration("timeout", timeout.as_ref())?;
    Ok(ClustersOnDemand::Within(timeout.unwrap_or(HTTP)))
}

/// Writes it.
pub(crate) fn to_clusters(value: ClustersOnDemand) -> Option<http::OnDemandCds> {
    match value {
        ClustersOnDemand::Off => None,
        ClustersOnDemand::Within(limit) => Some(http::OnDemandCds {
            source: Some(ads()),
            resources_locator: String::new(),
            timeout: Some(to_duration(limit)),
        }),
    }
}

/// Reads how connections ask for clusters.
pub(crate) fn tcp(value: Option<&tcp::OnDemand>) -> Result<ClustersOnDemand, Invalid> {
    let Some(tcp::OnDemand {
        odcds_config,
        resources_locator,
        timeout,
    }) = value
    else {
        return Ok(ClustersOnDemand::Off);
    };
    refuse!(resources_locator);
    if odcds_config.is_none() {
        // As Envoy has it: without a source it is switched off.
        return Ok(ClustersOnDemand::Off);
    }
    from_stream("odcds_config", odcds_config)?;
    let timeout = maybe_duration("timeout", timeout.as_ref())?;
    Ok(ClustersOnDemand::Within(timeout.unwrap_or(TCP)))
}

/// Writes it.
pub(crate) fn to_tcp(value: ClustersOnDemand) -> Option<tcp::OnDemand> {
    match value {
        ClustersOnDemand::Off => None,
        ClustersOnDemand::Within(limit) => Some(tcp::OnDemand {
            odcds_config: Some(ads()),
            resources_locator: String::new(),
            timeout: Some(to_duration(limit)),
        }),
    }
}

/// Reads how a table's virtual hosts are asked for.
pub(crate) fn hosts(table: &str, value: Option<&Vhds>) -> Result<Option<HostsOnDemand>, Invalid> {
    let Some(Vhds { config_source }) = value else {
        return Ok(None);
    };
    let wait = from_stream("config_source", config_source)?;
    if table.is_empty() {
        let message = "needs a table with a name: virtual hosts are asked for as NAME/HOST";
        return Err(Invalid::new("", message));
    }
    if xdstp::is_structured(table) {
        // What is made of it would be no structured name, and nobody could say who has it.
        let message = format!(
            "not supported in a table with a structured name ({table:?}): virtual hosts are asked \
             for as NAME/HOST"
        );
        return Err(Invalid::new("", message));
    }
    let table = Name::from(table);
    Ok(Some(HostsOnDemand { table, wait }))
}

/// Writes it.
pub(crate) fn to_hosts(value: &HostsOnDemand) -> Vhds {
    Vhds {
        config_source: Some(ConfigSource {
            // Zero is for ever.
            initial_fetch_timeout: Some(to_duration(value.wait.unwrap_or_default())),
            ..ads()
        }),
    }
}

/// Only the aggregated stream has what comes on demand. Returns how long to wait at first.
fn from_stream(field: &str, source: &Option<ConfigSource>) -> Result<Option<Duration>, Invalid> {
    let read = reference("", required(field, source)?).at(field)?;
    if read.from != Source::Ads {
        let message = "only ads and self are supported: there is no other delta stream";
        return Err(Invalid::new(field, message));
    }
    Ok(read.initial_fetch_timeout)
}
