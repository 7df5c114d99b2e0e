//! How a control plane is reached: `GrpcService`.

use super::Ads;
use super::ignored::pass_over;
use crate::pb::envoy::config::core::v3::GrpcService;
use crate::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use crate::read::opening::{authority as read_authority, metadata};
use crate::read::{ClusterResource, SecretResource, SecretValue};
use crate::wire::{At, each, refuse, required};
use mesh_core::Invalid;
use mesh_core::model::{
    Address, ClientTls, Endpoint, EndpointSet, Health, Secret, SecretName, SecretRef, SecretSource,
};
use std::sync::Arc;

/// Secrets that lie in no file.
type Given = Vec<(SecretRef, Arc<Secret>)>;

pub(super) fn ads(
    value: &GrpcService,
    delta: bool,
    clusters: &[ClusterResource],
    secrets: &[SecretResource],
) -> Result<Ads, Invalid> {
    let GrpcService {
        timeout,
        initial_metadata,
        retry_policy,
        target_specifier,
    } = value;
    refuse!(retry_policy);
    pass_over!("envoy.config.core.v3.GrpcService": timeout);
    let metadata = each("initial_metadata", initial_metadata, metadata)?;
    let read = match required("target_specifier", target_specifier)? {
        TargetSpecifier::EnvoyGrpc(target) => target,
        TargetSpecifier::GoogleGrpc(_) => {
            let message = "not supported; use envoy_grpc with a static cluster";
            return Err(Invalid::new("google_grpc", message));
        }
    };
    let mut ads = envoy_grpc(read, clusters, secrets).at("envoy_grpc")?;
    ads.delta = delta;
    ads.metadata = metadata;
    Ok(ads)
}

fn envoy_grpc(
    value: &EnvoyGrpc,
    clusters: &[ClusterResource],
    secrets: &[SecretResource],
) -> Result<Ads, Invalid> {
    let EnvoyGrpc {
        cluster_name,
        authority,
        retry_policy,
        max_receive_message_length,
        skip_envoy_headers,
    } = value;
    refuse!(retry_policy, max_receive_message_length);
    pass_over!("envoy.config.core.v3.GrpcService.EnvoyGrpc": skip_envoy_headers);
    let called = read_authority(authority)?;
    let named = |cluster: &&ClusterResource| *cluster.cluster.name == **cluster_name;
    let Some(cluster) = clusters.iter().find(named) else {
        let message = format!("no static cluster is called {cluster_name:?}");
        return Err(Invalid::new("cluster_name", message));
    };
    if cluster.cluster.proxy_protocol.is_some() {
        let message = format!(
            "the cluster {cluster_name:?} speaks the PROXY protocol, which is not supported to a \
             control plane"
        );
        return Err(Invalid::new("cluster_name", message));
    }
    if cluster.cluster.bind_source.is_some() {
        let message = format!(
            "the cluster {cluster_name:?} has an upstream_bind_config, which is not supported to a \
             control plane"
        );
        return Err(Invalid::new("cluster_name", message));
    }
    let (tls, given) = match &cluster.cluster.tls {
        Some(tls) => {
            let (tls, given) = own_secrets(tls, cluster, secrets).at("cluster_name")?;
            (Some(tls), given)
        }
        None => (None, Vec::new()),
    };
    let endpoints = cluster.endpoints.iter().flat_map(in_order);
    let servers: Vec<String> = endpoints
        .map(|endpoint| server_uri(&endpoint.address, tls.is_some()))
        .collect();
    if servers.is_empty() {
        let message = format!("the cluster {cluster_name:?} has no endpoints of its own");
        return Err(Invalid::new("cluster_name", message));
    }
    Ok(Ads {
        delta: false,
        servers,
        tls,
        secrets: given,
        authority: (!called.is_empty()).then_some(called),
        metadata: Vec::new(),
        connect_timeout: cluster.cluster.connect_timeout,
    })
}

/// The endpoints of a control plane or service in the order in which they are called: by priority,
/// and in each the degraded ones last. What is said to be unhealthy or to drain is left out, unless
/// there is nothing else, as Envoy does it in panic.
pub fn in_order(set: &EndpointSet) -> Vec<&Endpoint> {
    let all = || {
        let localities = set.localities.iter();
        localities.flat_map(|of| of.endpoints.iter().map(|one| (of.priority, &**one)))
    };
    let usable = |one: &Endpoint| matches!(one.health, Health::Healthy | Health::Degraded);
    let mut found: Vec<_> = all().filter(|(_, one)| usable(one)).collect();
    if found.is_empty() {
        found = all().collect();
    }
    found.sort_by_key(|(priority, one)| (*priority, one.health != Health::Healthy));
    found.into_iter().map(|(_, one)| one).collect()
}

/// The address of a server, as [`client::Server`](crate::client::Server) takes it.
pub fn server_uri(address: &Address, secure: bool) -> String {
    match (address, secure) {
        (Address::Unix(_), _) => address.to_string(),
        (other, true) => format!("https://{other}"),
        (other, false) => format!("http://{other}"),
    }
}

/// TLS whose secrets are all at hand: in files, or among those that the bootstrap has.
fn own_secrets(
    tls: &Arc<ClientTls>,
    cluster: &ClusterResource,
    secrets: &[SecretResource],
) -> Result<(Arc<ClientTls>, Given), Invalid> {
    let mut given = cluster.secrets.clone();
    let mut tls = ClientTls::clone(tls);
    let mut place = |named: &mut SecretRef| {
        let at_hand = !matches!(SecretName::of(&named.name), SecretName::Other(_))
            || given.iter().any(|(known, _)| known == named);
        if named.source == SecretSource::Local && at_hand {
            return Ok(());
        }
        let known = secrets.iter().find(|known| known.name == named.name);
        match known.filter(|_| named.source == SecretSource::Local) {
            Some(known) => match &known.value {
                SecretValue::Given(secret) => given.push((named.clone(), secret.clone())),
                SecretValue::At(name) => *named = SecretRef::local(name.clone()),
            },
            None => {
                let message = format!(
                    "TLS to a control plane needs the secret {:?}, which would come from a \
                     discovery service; give files, or the secret in place",
                    named.name
                );
                return Err(Invalid::new("", message));
            }
        }
        Ok(())
    };
    tls.certificates.iter_mut().try_for_each(&mut place)?;
    if let Some(validation) = &mut tls.validation {
        let trust = validation.roots.iter_mut().chain(&mut validation.revoked);
        trust.into_iter().try_for_each(&mut place)?;
    }
    Ok((Arc::new(tls), given))
}
