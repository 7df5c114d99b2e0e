//! `dynamic_resources`: where the rest comes from.

use super::ignored::pass_over;
use super::{Ads, From, Subscription, WatchedPath};
use crate::pb::envoy::config::bootstrap::v3::bootstrap::DynamicResources;
use crate::pb::envoy::config::core::v3::api_config_source::ApiType;
use crate::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use crate::pb::envoy::config::core::v3::{
    ApiConfigSource, ApiVersion, ConfigSource, PathConfigSource, WatchedDirectory,
};
use crate::read::{ClusterResource, SecretResource};
use crate::wire::{At, enumeration, maybe_duration, refuse, required};
use mesh_core::Invalid;
use std::time::Duration;

/// How long Envoy waits for resources where nothing is said.
const INITIAL_FETCH: Duration = Duration::from_secs(15);

/// What `dynamic_resources` says.
#[derive(Debug, Default)]
pub(super) struct Dynamic {
    pub(super) ads: Option<Ads>,
    pub(super) lds: Option<Subscription>,
    pub(super) cds: Option<Subscription>,
}

pub(super) fn read(
    value: &DynamicResources,
    clusters: &[ClusterResource],
    secrets: &[SecretResource],
) -> Result<Dynamic, Invalid> {
    let DynamicResources {
        lds_config,
        lds_resources_locator,
        cds_config,
        cds_resources_locator,
        ads_config,
    } = value;
    refuse!(lds_resources_locator, cds_resources_locator);
    let ads = ads_config
        .as_ref()
        .map(|config| service(config, clusters, secrets));
    let ads = ads.transpose().at("ads_config")?;
    let subscription = |field: &str, source: &Option<ConfigSource>| {
        let Some(source) = source else {
            return Ok(None);
        };
        let subscription = subscription(source).at(field)?;
        if subscription.from == From::Ads && ads.is_none() {
            let message = "ads, but there is no ads_config";
            return Err(Invalid::new(field, message));
        }
        Ok(Some(subscription))
    };
    Ok(Dynamic {
        lds: subscription("lds_config", lds_config)?,
        cds: subscription("cds_config", cds_config)?,
        ads,
    })
}

/// A service that is reached by gRPC.
pub(super) fn service(
    value: &ApiConfigSource,
    clusters: &[ClusterResource],
    secrets: &[SecretResource],
) -> Result<Ads, Invalid> {
    let ApiConfigSource {
        api_type,
        transport_api_version,
        cluster_names,
        grpc_services,
        refresh_delay,
        request_timeout,
        rate_limit_settings,
        set_node_on_first_message_only,
        config_validators,
    } = value;
    refuse!(cluster_names, rate_limit_settings, config_validators);
    pass_over!("envoy.config.core.v3.ApiConfigSource":
        refresh_delay,
        request_timeout,
        set_node_on_first_message_only,
    );
    version("transport_api_version", *transport_api_version)?;
    let delta = match enumeration("api_type", *api_type)? {
        ApiType::Grpc | ApiType::AggregatedGrpc => false,
        ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc => true,
        other => {
            let message = format!(
                "{} is not supported; use GRPC or DELTA_GRPC",
                other.as_str_name()
            );
            return Err(Invalid::new("api_type", message));
        }
    };
    let [service] = grpc_services.as_slice() else {
        let message = format!("{} services, but one is needed", grpc_services.len());
        return Err(Invalid::new("grpc_services", message));
    };
    super::grpc::ads(service, delta, clusters, secrets).at("grpc_services[0]")
}

fn subscription(value: &ConfigSource) -> Result<Subscription, Invalid> {
    let ConfigSource {
        authorities,
        initial_fetch_timeout,
        resource_api_version,
        config_source_specifier,
    } = value;
    refuse!(authorities);
    version("resource_api_version", *resource_api_version)?;
    let wait = maybe_duration("initial_fetch_timeout", initial_fetch_timeout.as_ref())?;
    let wait = wait.unwrap_or(INITIAL_FETCH);
    #[expect(deprecated, reason = "Envoy still reads `path`")]
    let from = match required("config_source_specifier", config_source_specifier)? {
        ConfigSourceSpecifier::Ads(_) => From::Ads,
        ConfigSourceSpecifier::Path(path) => From::Path(watched(path, None).at("path")?),
        ConfigSourceSpecifier::PathConfigSource(source) => {
            From::Path(path_source(source).at("path_config_source")?)
        }
        ConfigSourceSpecifier::ApiConfigSource(_) => {
            let message = "not supported; use ads or path_config_source";
            return Err(Invalid::new("api_config_source", message));
        }
        ConfigSourceSpecifier::Self_(_) => {
            return Err(Invalid::new("self", "not supported in a bootstrap"));
        }
    };
    Ok(Subscription {
        from,
        initial_fetch_timeout: (!wait.is_zero()).then_some(wait),
    })
}

fn path_source(value: &PathConfigSource) -> Result<WatchedPath, Invalid> {
    let PathConfigSource {
        path,
        watched_directory,
        poll_interval,
    } = value;
    refuse!(poll_interval);
    watched(path, watched_directory.as_ref()).at("path")
}

fn watched(path: &str, directory: Option<&WatchedDirectory>) -> Result<WatchedPath, Invalid> {
    if path.is_empty() {
        return Err(Invalid::new("", "required, but missing"));
    }
    Ok(WatchedPath {
        path: path.into(),
        watched_directory: directory.map(|directory| directory.path.as_str().into()),
    })
}

fn version(field: &str, value: i32) -> Result<(), Invalid> {
    match enumeration(field, value)? {
        ApiVersion::Auto | ApiVersion::V3 => Ok(()),
        _ => Err(Invalid::new(
            field,
            "only version 3 of the API is supported",
        )),
    }
}
