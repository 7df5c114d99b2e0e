//! Transport sockets: how connections are secured, and whether the PROXY protocol comes first.

use super::{Given, metadata, tls};
use crate::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use crate::pb::envoy::config::core::v3::proxy_protocol_config::Version;
use crate::pb::envoy::config::core::v3::transport_socket::ConfigType;
use crate::pb::envoy::config::core::v3::{ProxyProtocolConfig, TransportSocket};
use crate::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use crate::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use crate::pb::envoy::extensions::transport_sockets::tls::v3::{
    DownstreamTlsContext, UpstreamTlsContext,
};
use crate::pb::google::protobuf::Any;
use crate::wire::{At, each, enumeration, refuse, required, type_name, unpack};
use mesh_core::Invalid;
use mesh_core::model::{ClientTls, ProxyProtocol, ServerTls, TlsMatch};
use prost::Name as _;
use std::collections::HashSet;
use std::sync::Arc;

/// How connections to endpoints start.
#[derive(Default)]
pub(super) struct Client {
    pub(super) tls: Option<Arc<ClientTls>>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
}

/// How connections from callers are secured. None is not at all.
pub(super) fn server(
    value: Option<&TransportSocket>,
    given: &mut Given,
) -> Result<Option<Arc<ServerTls>>, Invalid> {
    let Some(value) = value else {
        return Ok(None);
    };
    let any = config(value)?;
    let mut read = || match type_name(any) {
        name if name == RawBuffer::full_name() => plain(any).map(|()| None),
        name if name == DownstreamTlsContext::full_name() => {
            tls::server(&unpack(any)?, given).map(Arc::new).map(Some)
        }
        name => Err(unknown(name)),
    };
    read().at("typed_config").at("transport_socket")
}

/// How connections to endpoints are secured, and what is sent before.
pub(super) fn client(
    value: Option<&TransportSocket>,
    given: &mut Given,
) -> Result<Client, Invalid> {
    let Some(value) = value else {
        return Ok(Client::default());
    };
    let any = config(value)?;
    let mut read = || {
        if type_name(any) == ProxyProtocolUpstreamTransport::full_name() {
            return announced(&unpack(any)?, given);
        }
        Ok(Client {
            tls: inner(any, given)?,
            proxy_protocol: None,
        })
    };
    read().at("typed_config").at("transport_socket")
}

/// How connections to some endpoints start, by what these say, in order.
pub(super) fn matches(
    value: &[TransportSocketMatch],
    given: &mut Given,
) -> Result<Vec<(TlsMatch, Option<ProxyProtocol>)>, Invalid> {
    let one = |value: &TransportSocketMatch| {
        let TransportSocketMatch {
            name,
            r#match: labels,
            transport_socket,
        } = value;
        if name.is_empty() {
            return Err(Invalid::new("name", "required, but missing"));
        }
        let labels = labels.as_ref().map(metadata::values).unwrap_or_default();
        let how = client(transport_socket.as_ref(), given)?;
        let one = TlsMatch {
            name: name.into(),
            labels,
            tls: how.tls,
        };
        Ok((one, how.proxy_protocol))
    };
    let matches = each("transport_socket_matches", value, one)?;
    // As in Envoy.
    let mut names = HashSet::new();
    match matches.iter().find(|(one, _)| !names.insert(&one.name)) {
        Some((twice, _)) => {
            let message = format!("two are called {:?}", twice.name);
            Err(Invalid::new("transport_socket_matches", message))
        }
        None => Ok(matches),
    }
}

fn config(value: &TransportSocket) -> Result<&Any, Invalid> {
    let TransportSocket {
        // A name without a meaning: Envoy goes by the type of the message.
        name: _,
        config_type,
    } = value;
    let ConfigType::TypedConfig(any) =
        required("typed_config", config_type).at("transport_socket")?;
    Ok(any)
}

fn plain(any: &Any) -> Result<(), Invalid> {
    let RawBuffer {} = unpack(any)?;
    Ok(())
}

fn inner(any: &Any, given: &mut Given) -> Result<Option<Arc<ClientTls>>, Invalid> {
    match type_name(any) {
        name if name == RawBuffer::full_name() => plain(any).map(|()| None),
        name if name == UpstreamTlsContext::full_name() => {
            tls::client(&unpack(any)?, given).map(Arc::new).map(Some)
        }
        name => Err(unknown(name)),
    }
}

fn announced(value: &ProxyProtocolUpstreamTransport, given: &mut Given) -> Result<Client, Invalid> {
    let ProxyProtocolUpstreamTransport {
        config: header,
        transport_socket,
        allow_unspecified_address,
        tlv_as_pool_key,
    } = value;
    refuse!(allow_unspecified_address, tlv_as_pool_key);
    let default = ProxyProtocolConfig::default();
    let ProxyProtocolConfig {
        version,
        pass_through_tlvs,
        added_tlvs,
    } = header.as_ref().unwrap_or(&default);
    let version = || {
        refuse!(pass_through_tlvs, added_tlvs);
        enumeration("version", *version)
    };
    let version = match version().at("config")? {
        Version::V1 => ProxyProtocol::V1,
        Version::V2 => ProxyProtocol::V2,
    };
    let any = config(required("transport_socket", transport_socket)?)?;
    let tls = inner(any, given);
    Ok(Client {
        tls: tls.at("typed_config").at("transport_socket")?,
        proxy_protocol: Some(version),
    })
}

fn unknown(name: &str) -> Invalid {
    Invalid::new("", format!("{name:?} is not supported"))
}
