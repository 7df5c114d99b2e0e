//! Which connections a chain is for.

use crate::pb::envoy::config::core::v3::CidrRange;
use crate::pb::envoy::config::listener::v3::FilterChainMatch;
use crate::pb::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use crate::wire::to_number;
use mesh_core::model::{ChainMatch, Cidr, SourceKind, TransportProtocol};

/// Nothing where all connections match.
pub(super) fn matches(matches: &ChainMatch) -> Option<FilterChainMatch> {
    if *matches == ChainMatch::default() {
        return None;
    }
    let blocks = |blocks: &[Cidr]| blocks.iter().map(block).collect();
    Some(FilterChainMatch {
        destination_port: matches
            .destination_port
            .and_then(|port| to_number(port.into())),
        prefix_ranges: blocks(&matches.destinations),
        server_names: matches
            .server_names
            .iter()
            .map(ToString::to_string)
            .collect(),
        transport_protocol: match matches.transport {
            None => "",
            Some(TransportProtocol::Plain) => "raw_buffer",
            Some(TransportProtocol::Tls) => "tls",
        }
        .to_owned(),
        application_protocols: matches.protocols.iter().map(ToString::to_string).collect(),
        direct_source_prefix_ranges: blocks(&matches.direct_sources),
        source_type: match matches.source_kind {
            SourceKind::Any => ConnectionSourceType::Any,
            SourceKind::SameIpOrLoopback => ConnectionSourceType::SameIpOrLoopback,
            SourceKind::External => ConnectionSourceType::External,
        }
        .into(),
        source_prefix_ranges: blocks(&matches.sources),
        source_ports: matches
            .source_ports
            .iter()
            .map(|port| (*port).into())
            .collect(),
        ..FilterChainMatch::default()
    })
}

pub(in crate::write) fn block(block: &Cidr) -> CidrRange {
    CidrRange {
        address_prefix: block.address().to_string(),
        prefix_len: to_number(block.length().into()),
    }
}
