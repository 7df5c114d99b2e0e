//! Control planes and services of a bootstrap, as the client reaches them.

use mesh_core::Invalid;
use mesh_core::model::SecretSource;
use mesh_xds::bootstrap::{Ads, in_order, server_uri};
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
/// If its TLS would need secrets from a service, or it says which address to connect from.
pub(super) fn of_cluster(one: &ClusterResource) -> Result<Option<Server>, Invalid> {
    let endpoints = one.endpoints.as_ref().map(in_order).unwrap_or_default();
    let Some(endpoint) = endpoints.first() else {
        return Ok(None);
    };
    if one.cluster.bind_source.is_some() {
        let message = "not supported to a secret service";
        return Err(Invalid::new("upstream_bind_config", message));
    }
    if !one.cluster.tls_matches.is_empty() {
        let message = "not supported to a secret service";
        return Err(Invalid::new("transport_socket_matches", message));
    }
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
