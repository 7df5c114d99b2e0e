//! Which connections a chain is for, and that no two chains are for the same.

use crate::pb::envoy::config::core::v3::CidrRange;
use crate::pb::envoy::config::listener::v3::FilterChainMatch;
use crate::pb::envoy::config::listener::v3::filter_chain_match::ConnectionSourceType;
use crate::wire::{At, each, enumeration, number, refuse};
use mesh_core::model::{ChainMatch, Cidr, FilterChain, SourceKind, TransportProtocol};
use mesh_core::{Invalid, Name};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

pub(super) fn matches(value: &FilterChainMatch) -> Result<ChainMatch, Invalid> {
    let FilterChainMatch {
        destination_port,
        prefix_ranges,
        address_suffix,
        suffix_len,
        direct_source_prefix_ranges,
        source_type,
        source_prefix_ranges,
        source_ports,
        server_names,
        transport_protocol,
        application_protocols,
    } = value;
    // Envoy refuses these, too.
    refuse!(address_suffix, suffix_len);
    let mut matches = ChainMatch::default();
    matches.destination_port = match number(destination_port.as_ref()) {
        None => None,
        Some(number) => Some(port(&number).at("destination_port")?),
    };
    matches.destinations = each("prefix_ranges", prefix_ranges, block)?;
    matches.server_names = each("server_names", server_names, server_name)?;
    matches.transport = match transport_protocol.as_str() {
        "" => None,
        "raw_buffer" => Some(TransportProtocol::Plain),
        "tls" => Some(TransportProtocol::Tls),
        other => {
            let message = format!("{other:?} is not supported; use raw_buffer or tls");
            return Err(Invalid::new("transport_protocol", message));
        }
    };
    matches.protocols = application_protocols.iter().map(Name::from).collect();
    let direct = direct_source_prefix_ranges;
    matches.direct_sources = each("direct_source_prefix_ranges", direct, block)?;
    matches.source_kind = match enumeration("source_type", *source_type)? {
        ConnectionSourceType::Any => SourceKind::Any,
        ConnectionSourceType::SameIpOrLoopback => SourceKind::SameIpOrLoopback,
        ConnectionSourceType::External => SourceKind::External,
    };
    matches.sources = each("source_prefix_ranges", source_prefix_ranges, block)?;
    matches.source_ports = each("source_ports", source_ports, port)?;
    Ok(matches)
}

fn port(value: &u32) -> Result<u16, Invalid> {
    let port = u16::try_from(*value).ok().filter(|port| *port > 0);
    port.ok_or_else(|| Invalid::new("", format!("{value} is not a port")))
}

/// A block of addresses. As in Envoy, nothing said is the empty prefix, and one that is too long
/// is the whole address.
pub(in crate::read) fn block(value: &CidrRange) -> Result<Cidr, Invalid> {
    let CidrRange {
        address_prefix,
        prefix_len,
    } = value;
    let address: IpAddr = address_prefix.parse().map_err(|_| {
        let message = format!("{address_prefix:?} is not an IP address");
        Invalid::new("address_prefix", message)
    })?;
    let most = Cidr::single(address).length();
    let length = number(prefix_len.as_ref()).unwrap_or(0);
    let length = u8::try_from(length).unwrap_or(most).min(most);
    Cidr::new(address, length).at("prefix_len")
}

/// Exact, or `*.` and a suffix.
fn server_name(name: &String) -> Result<Name, Invalid> {
    if name.strip_prefix("*.").unwrap_or(name).contains('*') {
        let message = format!("{name:?}: only a whole first label may be `*`");
        return Err(Invalid::new("", message));
    }
    Ok(name.into())
}

/// Refuses two chains that a connection could match equally closely, as Envoy does: there must be
/// no combination of conditions, one of each kind, that both have.
pub(super) fn distinct(chains: &[Arc<FilterChain>]) -> Result<(), Invalid> {
    let any = Name::default();
    let mut alike: HashMap<(Option<u16>, &Name), Vec<usize>> = HashMap::new();
    for (at, chain) in chains.iter().enumerate() {
        let names = match chain.matches.server_names.as_slice() {
            [] => std::slice::from_ref(&any),
            names => names,
        };
        for name in names {
            let others = alike
                .entry((chain.matches.destination_port, name))
                .or_default();
            // One name may stand twice in the same chain.
            if others.last() == Some(&at) {
                continue;
            }
            let same = |other: &&usize| overlap(&chains[**other].matches, &chain.matches);
            if let Some(other) = others.iter().find(same) {
                let message = format!("matches the same as filter_chains[{other}]");
                return Err(Invalid::new(
                    format!("filter_chains[{at}].filter_chain_match"),
                    message,
                ));
            }
            others.push(at);
        }
    }
    Ok(())
}

/// Whether two matches of one port and one server name have a combination in common.
fn overlap(one: &ChainMatch, other: &ChainMatch) -> bool {
    fn common<T: PartialEq>(one: &[T], other: &[T]) -> bool {
        // No condition is one of its own: it is less close than any other.
        (one.is_empty() && other.is_empty()) || one.iter().any(|one| other.contains(one))
    }
    one.transport == other.transport
        && one.source_kind == other.source_kind
        && common(&one.destinations, &other.destinations)
        && common(&one.protocols, &other.protocols)
        && common(&one.direct_sources, &other.direct_sources)
        && common(&one.sources, &other.sources)
        && common(&one.source_ports, &other.source_ports)
}
