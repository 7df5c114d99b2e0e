//! Extensions: which are known, and which are passed over.

use super::ignored;
use crate::pb::envoy::config::core::v3::transport_socket::ConfigType;
use crate::pb::envoy::config::core::v3::{TransportSocket, TypedExtensionConfig};
use crate::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use crate::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use crate::pb::google::protobuf::Any;
use crate::wire::{At, pass_over, refuse, required, type_name, unpack};
use mesh_core::Invalid;
use prost::Name as _;

/// Passes over an extension that [`ignored::EXTENSIONS`] lists and refuses any other.
pub(super) fn passed_over(any: &Any) -> Result<(), Invalid> {
    let name = type_name(any);
    if ignored::EXTENSIONS
        .iter()
        .any(|known| known.message == name)
    {
        return Ok(());
    }
    Err(Invalid::new("", format!("{name:?} is not supported")))
}

/// Only plain connections are supported so far.
pub(super) fn transport_socket(value: Option<&TransportSocket>) -> Result<(), Invalid> {
    let Some(TransportSocket {
        name: _,
        config_type,
    }) = value
    else {
        return Ok(());
    };
    let plain = || {
        let ConfigType::TypedConfig(any) = required("typed_config", config_type)?;
        if type_name(any) == RawBuffer::full_name() {
            return Ok(());
        }
        let message = format!(
            "{:?} is not supported yet: connections are plain; leave transport_socket out or \
             use envoy.transport_sockets.raw_buffer",
            type_name(any)
        );
        Err(Invalid::new("typed_config", message))
    };
    plain().at("transport_socket")
}

/// The system's resolver is used, so a resolver may be named but not sent elsewhere.
pub(super) fn dns_resolver(value: Option<&TypedExtensionConfig>) -> Result<(), Invalid> {
    let Some(TypedExtensionConfig {
        name: _,
        typed_config,
    }) = value
    else {
        return Ok(());
    };
    let check = || {
        let any = required("typed_config", typed_config)?;
        if type_name(any) != CaresDnsResolverConfig::full_name() {
            return passed_over(any).at("typed_config");
        }
        cares(&unpack(any)?).at("typed_config")
    };
    check().at("typed_dns_resolver_config")
}

fn cares(value: &CaresDnsResolverConfig) -> Result<(), Invalid> {
    let CaresDnsResolverConfig {
        resolvers,
        use_resolvers_as_fallback,
        filter_unroutable_families,
        dns_resolver_options,
        udp_max_queries,
        query_timeout_seconds,
        query_tries,
        rotate_nameservers,
        edns0_max_payload_size,
        max_udp_channel_duration,
        reinit_channel_on_timeout,
        qcache_max_ttl,
    } = value;
    refuse!(resolvers, use_resolvers_as_fallback, dns_resolver_options);
    pass_over!("envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig":
        edns0_max_payload_size,
        filter_unroutable_families,
        max_udp_channel_duration,
        qcache_max_ttl,
        query_timeout_seconds,
        query_tries,
        reinit_channel_on_timeout,
        rotate_nameservers,
        udp_max_queries,
    );
    Ok(())
}
