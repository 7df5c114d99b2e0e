//! Control planes and services of a bootstrap, as the client reaches them.

use mesh_core::Invalid;
use mesh_core::model::SecretSource;
use mesh_xds::bootstrap::{Ads, server_uri};
use mesh_xds::client::Server;
use mesh_xds::read::ClusterResource;

/// The servers of the aggregated stream.
pub(super) fn of_ads(ads: &Ads) -> Vec<Server> {
    let server = |uri: &String| {
        let mut server = Server::at(uri.as_str());
        if let Some(tls) = &ads.tls {
            server = server.tls(tls.clone());
        }
        if let Some(authority) = &ads.authority {
            server = server.authority(authority.clone());
        }
        for (named, secret) in &ads.secrets {
            server = server.secret(named.clone(), secret.clone());
        }
        for (name, value) in &ads.metadata {
            server = server.metadata(name.clone(), value.clone());
        }
        server
    };
    ads.servers.iter().map(server).collect()
}

/// Where the service at a cluster can be called: at its first address, if it has one of its own.
///
/// # Errors
/// If its TLS would need secrets from a service.
pub(super) fn of_cluster(one: &ClusterResource) -> Result<Option<Server>, Invalid> {
    let endpoint = one.endpoints.as_ref().and_then(|set| set.iter().next());
    let Some(endpoint) = endpoint else {
        return Ok(None);
    };
    let Some(tls) = &one.cluster.tls else {
        return Ok(Some(Server::at(server_uri(&endpoint.address, false))));
    };
    if tls
        .secrets()
        .any(|named| named.source != SecretSource::Local)
    {
        let message = "TLS of a secret service cannot itself wait for secrets: give files";
        return Err(Invalid::new("transport_socket", message));
    }
    let server = Server::at(server_uri(&endpoint.address, true)).tls(tls.clone());
    let given = one.secrets.iter();
    Ok(Some(given.fold(server, |server, (named, secret)| {
        server.secret(named.clone(), secret.clone())
    })))
}
