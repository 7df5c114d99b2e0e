//! Extensions: which are known, and which are passed over.

use super::ignored;
use crate::pb::envoy::config::core::v3::TypedExtensionConfig;
use crate::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use crate::pb::google::protobuf::Any;
use crate::wire::{At, pass_over, refuse, required, type_name, unpack};
use mesh_core::Invalid;
use prost::{Message as _, Name as _};

/// The names of a message that carries the configuration of an extension as a `Struct`. Istio has
/// its own extensions in it.
const TYPED_STRUCTS: [&str; 2] = ["udpa.type.v1.TypedStruct", "xds.type.v3.TypedStruct"];

/// The field of such a message that says whose configuration it is.
#[derive(Clone, PartialEq, prost::Message)]
struct TypedStruct {
    #[prost(string, tag = "1")]
    type_url: String,
}

/// Passes over an extension that [`ignored::EXTENSIONS`] lists and refuses any other.
pub(super) fn passed_over(any: &Any) -> Result<(), Invalid> {
    let inner;
    let name = match type_name(any) {
        name if TYPED_STRUCTS.contains(&name) => {
            let decoded = TypedStruct::decode(any.value.as_slice());
            inner =
                decoded.map_err(|error| Invalid::new("", format!("cannot be decoded: {error}")))?;
            let url = inner.type_url.as_str();
            url.rsplit_once('/').map_or(url, |(_, name)| name)
        }
        name => name,
    };
    if ignored::EXTENSIONS
        .iter()
        .any(|known| known.message == name)
    {
        return Ok(());
    }
    Err(Invalid::new("", format!("{name:?} is not supported")))
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
