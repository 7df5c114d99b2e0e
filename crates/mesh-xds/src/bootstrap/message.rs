//! The message itself.

use super::dynamic;
use super::ignored::pass_over;
use super::overload;
use super::{Ads, Bootstrap, MESSAGE};
use crate::Node;
use crate::pb::envoy::config::bootstrap::v3 as pb;
use crate::pb::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use crate::pb::envoy::config::bootstrap::v3::runtime_layer::LayerSpecifier;
use crate::pb::envoy::config::core::v3 as core;
use crate::read::{
    self, ClusterResource, ListenerResource, RouteSource, SecretResource, Source, listener_address,
};
use crate::schema;
use crate::wire::{At, Wiped, each, refuse, required, type_name};
use bytes::Bytes;
use mesh_core::model::{ListenerAddress, Secret, SecretName, SecretRef, SecretSource};
use mesh_core::{Invalid, Name};
use prost::Message;
use std::collections::HashSet;
use std::sync::Arc;
use zeroize::Zeroizing;

/// `static_resources`.
#[derive(Default)]
struct Statics {
    clusters: Vec<ClusterResource>,
    listeners: Vec<ListenerResource>,
    secrets: Vec<SecretResource>,
}

/// Reads the message.
#[expect(deprecated, reason = "Envoy still reads the older spellings")]
pub(super) fn bootstrap(bytes: &[u8]) -> Result<Bootstrap, Invalid> {
    // Of bytes like these no copy is made on the way, which would stay in memory.
    let bytes = Bytes::from_owner(Zeroizing::new(bytes.to_vec()));
    let mut message = Wiped(pb::Bootstrap::default());
    message
        .0
        .merge(bytes)
        .map_err(|error| Invalid::new("", format!("cannot be decoded: {error}")))?;
    let pb::Bootstrap {
        node,
        node_context_params,
        static_resources,
        dynamic_resources,
        cluster_manager: manager,
        hds_config,
        flags_path,
        stats_sinks,
        deferred_stat_options,
        stats_config,
        stats_flush_interval,
        watchdog,
        watchdogs,
        tracing,
        layered_runtime,
        admin: administration,
        overload_manager,
        enable_dispatcher_stats,
        header_prefix,
        stats_server_version_override,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        bootstrap_extensions,
        fatal_actions,
        config_sources,
        default_config_source,
        default_socket_interface,
        certificate_provider_instances,
        inline_headers,
        perf_tracing_file_path,
        default_regex_engine,
        xds_delegate_extension,
        xds_config_tracker_extension,
        listener_manager,
        application_log_config,
        grpc_async_client_manager_config,
        memory_allocator_manager,
        enable_worker_cpu_affinity,
        stats_flush,
        stats_eviction,
    } = &message.0;
    refuse!(
        node_context_params,
        flags_path,
        stats_sinks,
        tracing,
        header_prefix,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        bootstrap_extensions,
        fatal_actions,
        config_sources,
        default_config_source,
        default_socket_interface,
        certificate_provider_instances,
        perf_tracing_file_path,
        xds_delegate_extension,
        xds_config_tracker_extension,
        listener_manager,
    );
    pass_over!("envoy.config.bootstrap.v3.Bootstrap":
        application_log_config,
        deferred_stat_options,
        enable_dispatcher_stats,
        enable_worker_cpu_affinity,
        grpc_async_client_manager_config,
        inline_headers,
        memory_allocator_manager,
        stats_config,
        stats_eviction,
        stats_flush,
        stats_flush_interval,
        stats_server_version_override,
        watchdog,
        watchdogs,
    );
    extension(typed_dns_resolver_config.as_ref()).at("typed_dns_resolver_config")?;
    extension(default_regex_engine.as_ref()).at("default_regex_engine")?;
    let (local_cluster, ejection_log) = match manager {
        Some(manager) => cluster_manager(manager).at("cluster_manager")?,
        None => (None, None),
    };
    if let Some(runtime) = layered_runtime {
        each("layers", &runtime.layers, layer).at("layered_runtime")?;
    }
    let admin = administration.as_ref().map(admin).transpose();
    let (admin, admin_mode) = admin.at("admin")?.flatten().unzip();
    let admin_mode = admin_mode.unwrap_or_default();
    let Statics {
        clusters,
        listeners,
        secrets,
    } = match static_resources {
        Some(resources) => statics(resources).at("static_resources")?,
        None => Statics::default(),
    };
    let overload = overload_manager.as_ref().map(overload::read);
    let overload = overload.transpose().at("overload_manager")?;
    let dynamic = match dynamic_resources {
        Some(resources) => dynamic::read(resources, &clusters, &secrets).at("dynamic_resources")?,
        None => dynamic::Dynamic::default(),
    };
    let hds = hds_config
        .as_ref()
        .map(|config| dynamic::service(config, &clusters, &secrets));
    let hds = hds.transpose().at("hds_config")?;
    if hds.as_ref().is_some_and(|hds| hds.delta) {
        let message = "this service knows no changes; use GRPC";
        return Err(Invalid::new("hds_config.api_type", message));
    }
    needs_ads(dynamic.ads.as_ref(), &clusters, &listeners).at("static_resources")?;
    Ok(Bootstrap {
        node: Node::from_proto(with_agent(node.clone().unwrap_or_default())),
        admin,
        admin_mode,
        clusters,
        listeners,
        secrets,
        ads: dynamic.ads,
        hds,
        lds: dynamic.lds,
        cds: dynamic.cds,
        local_cluster,
        ejection_log,
        overload,
        encoded: shown(&message.0),
    })
}

/// The bytes of the message without what nobody may see. Maps have no order of their own: one text
/// is to be one bootstrap.
fn shown(message: &pb::Bootstrap) -> Bytes {
    let all = Zeroizing::new(message.encode_to_vec());
    let shown = schema::redact(MESSAGE, &all);
    Bytes::from(schema::canonical(MESSAGE, shown))
}

/// What a node says of its software where the bootstrap is silent.
fn with_agent(mut node: core::Node) -> core::Node {
    if node.user_agent_name.is_empty() {
        node.user_agent_name = Node::new("").to_proto().user_agent_name;
    }
    node
}

fn admin(value: &pb::Admin) -> Result<Option<(ListenerAddress, u32)>, Invalid> {
    #[expect(deprecated, reason = "Envoy still reads `access_log_path`")]
    let pb::Admin {
        access_log,
        access_log_path,
        profile_path,
        address,
        socket_options,
        ignore_global_conn_limit,
        allow_paths,
    } = value;
    refuse!(socket_options, allow_paths);
    pass_over!("envoy.config.bootstrap.v3.Admin":
        access_log,
        access_log_path,
        ignore_global_conn_limit,
        profile_path,
    );
    // Without an address Envoy has no admin interface either.
    let address = address
        .as_ref()
        .map(|address| listener_address(address).at("address"));
    address.transpose()
}

fn statics(value: &StaticResources) -> Result<Statics, Invalid> {
    let StaticResources {
        listeners,
        clusters,
        secrets,
    } = value;
    let all = Statics {
        clusters: each("clusters", clusters, read::cluster)?,
        listeners: each("listeners", listeners, read::listener)?,
        secrets: each("secrets", secrets, read::secret)?,
    };
    let mut known = HashSet::new();
    for (at, secret) in all.secrets.iter().enumerate() {
        if !known.insert(&secret.name) {
            let message = format!("{:?} is defined twice", secret.name);
            return Err(Invalid::new(format!("secrets[{at}].name"), message));
        }
    }
    let known = |named: &SecretRef, given: &[(SecretRef, Arc<Secret>)]| {
        let found = named.source != SecretSource::Local
            || !matches!(SecretName::of(&named.name), SecretName::Other(_))
            || known.contains(&named.name)
            || given.iter().any(|(given, _)| given == named);
        let unknown = || format!("no static secret is called {:?}", named.name);
        if found {
            Ok(())
        } else {
            Err(Invalid::new("transport_socket", unknown()))
        }
    };
    for (at, cluster) in all.clusters.iter().enumerate() {
        let tls = cluster.cluster.tls.iter();
        for named in tls.flat_map(|tls| tls.secrets()) {
            known(named, &cluster.secrets).at(format_args!("clusters[{at}]"))?;
        }
    }
    for (at, listener) in all.listeners.iter().enumerate() {
        let chains = listener.listener.all_chains();
        let tls = chains.filter_map(|chain| chain.tls.as_ref());
        for named in tls.flat_map(|tls| tls.secrets()) {
            known(named, &listener.secrets).at(format_args!("listeners[{at}]"))?;
        }
    }
    Ok(all)
}

/// What waits for an aggregated stream needs one.
fn needs_ads(
    ads: Option<&Ads>,
    clusters: &[ClusterResource],
    listeners: &[ListenerResource],
) -> Result<(), Invalid> {
    if !ads.is_some_and(|ads| ads.delta) {
        // Nobody would answer.
        for (at, listener) in listeners.iter().enumerate() {
            if let Some(field) = read::on_demand::of_listener(listener) {
                let message = "needs dynamic_resources.ads_config with DELTA_GRPC";
                return Err(Invalid::new(format!("listeners[{at}].{field}"), message));
            }
        }
    }
    if ads.is_some() {
        return Ok(());
    }
    let message = "comes from ADS, but there is no dynamic_resources.ads_config";
    for (at, cluster) in clusters.iter().enumerate() {
        if cluster
            .eds
            .as_ref()
            .is_some_and(|eds| eds.from == Source::Ads)
        {
            let field = format!("clusters[{at}].eds_cluster_config.eds_config");
            return Err(Invalid::new(field, message));
        }
    }
    for (at, listener) in listeners.iter().enumerate() {
        let by_ads = |routes: &RouteSource| match routes {
            RouteSource::Named(routes) => routes.from == Source::Ads,
            RouteSource::Inline(_) => false,
        };
        if listener.routes.iter().any(by_ads) {
            return Err(Invalid::new(format!("listeners[{at}].rds"), message));
        }
    }
    Ok(())
}

/// The name of the cluster of nodes like this one, and the file that ejections are logged to, if
/// there are such.
fn cluster_manager(value: &pb::ClusterManager) -> Result<(Option<Name>, Option<Name>), Invalid> {
    let pb::ClusterManager {
        local_cluster_name,
        outlier_detection,
        upstream_bind_config,
        load_stats_config,
        enable_deferred_cluster_creation,
    } = value;
    refuse!(upstream_bind_config, load_stats_config);
    pass_over!("envoy.config.bootstrap.v3.ClusterManager": enable_deferred_cluster_creation);
    let path = match outlier_detection {
        Some(detection) => event_log(detection).at("outlier_detection")?,
        None => "",
    };
    let said = |text: &str| (!text.is_empty()).then(|| text.into());
    Ok((said(local_cluster_name), said(path)))
}

fn event_log(value: &pb::cluster_manager::OutlierDetection) -> Result<&str, Invalid> {
    let pb::cluster_manager::OutlierDetection {
        event_log_path,
        event_service,
    } = value;
    refuse!(event_service);
    Ok(event_log_path)
}

/// Layers without a source of their own: nothing here looks at any key.
fn layer(value: &pb::RuntimeLayer) -> Result<(), Invalid> {
    let pb::RuntimeLayer {
        name: _,
        layer_specifier,
    } = value;
    match required("layer_specifier", layer_specifier)? {
        LayerSpecifier::StaticLayer(static_layer) => {
            pass_over!("envoy.config.bootstrap.v3.RuntimeLayer": static_layer);
            Ok(())
        }
        LayerSpecifier::AdminLayer(admin_layer) => {
            pass_over!("envoy.config.bootstrap.v3.RuntimeLayer": admin_layer);
            Ok(())
        }
        LayerSpecifier::DiskLayer(_) => Err(Invalid::new("disk_layer", "not supported")),
        LayerSpecifier::RtdsLayer(_) => Err(Invalid::new("rtds_layer", "not supported")),
    }
}

/// An extension that is on the list, or none.
fn extension(value: Option<&core::TypedExtensionConfig>) -> Result<(), Invalid> {
    let Some(any) = value.and_then(|value| value.typed_config.as_ref()) else {
        return Ok(());
    };
    let name = type_name(any);
    let listed = super::ignored::EXTENSIONS;
    // With settings of its own it would do something.
    if listed.iter().any(|known| known.message == name) && any.value.is_empty() {
        return Ok(());
    }
    let message = format!("{name:?} with these settings is not supported");
    Err(Invalid::new("typed_config", message))
}
