//! Addresses.

use crate::pb::envoy::config::core::v3 as core;
use crate::wire::{At, refuse, required};
use mesh_core::Invalid;
use mesh_core::model::Address;
use std::net::IpAddr;

/// An IP address or host name, and a port. A text that is no IP address is a host name.
pub(super) fn address(value: &core::Address) -> Result<Address, Invalid> {
    let core::Address { address } = value;
    match required("address", address)? {
        core::address::Address::SocketAddress(socket) => {
            socket_address(socket).at("socket_address")
        }
        core::address::Address::Pipe(_) => {
            Err(Invalid::new("pipe", "Unix sockets are not supported"))
        }
        core::address::Address::EnvoyInternalAddress(_) => {
            let message = "addresses inside one proxy are not supported";
            Err(Invalid::new("envoy_internal_address", message))
        }
    }
}

/// The same without a choice of kinds.
pub(super) fn socket_address(socket: &core::SocketAddress) -> Result<Address, Invalid> {
    let core::SocketAddress {
        protocol,
        address,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath,
        port_specifier,
    } = socket;
    // The default of `protocol` is TCP.
    refuse!(
        protocol,
        resolver_name,
        ipv4_compat,
        network_namespace_filepath
    );
    let port = match required("port_specifier", port_specifier)? {
        core::socket_address::PortSpecifier::PortValue(port) => u16::try_from(*port)
            .map_err(|_| Invalid::new("port_value", format!("{port} is not a port")))?,
        core::socket_address::PortSpecifier::NamedPort(_) => {
            return Err(Invalid::new("named_port", "not supported; use port_value"));
        }
    };
    if address.is_empty() {
        return Err(Invalid::new("address", "required, but missing"));
    }
    Ok(match address.parse::<IpAddr>() {
        Ok(ip) => Address::Socket((ip, port).into()),
        Err(_) => Address::Host(address.into(), port),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::to_address;

    #[test]
    fn an_address_is_a_host_name_unless_it_is_an_ip_address() {
        for text in ["10.0.0.1:80", "[2001:db8::1]:443", "a.example:8080"] {
            let known: Address = text.parse().unwrap();
            assert_eq!(address(&to_address(&known)).unwrap(), known, "{text}");
        }
    }

    #[test]
    fn what_is_not_reached_over_tcp_is_refused() {
        let pipe = core::Address {
            address: Some(core::address::Address::Pipe(core::Pipe::default())),
        };
        assert_eq!(address(&pipe).unwrap_err().path(), "pipe");
        let inside = core::address::Address::EnvoyInternalAddress(Default::default());
        let inside = core::Address {
            address: Some(inside),
        };
        assert_eq!(
            address(&inside).unwrap_err().path(),
            "envoy_internal_address"
        );
        assert_eq!(
            address(&core::Address::default()).unwrap_err().path(),
            "address"
        );
    }

    #[test]
    fn a_port_above_the_last_one_is_refused() {
        let socket = core::SocketAddress {
            address: "10.0.0.1".to_owned(),
            port_specifier: Some(core::socket_address::PortSpecifier::PortValue(65536)),
            ..Default::default()
        };
        let value = core::Address {
            address: Some(core::address::Address::SocketAddress(socket)),
        };
        assert_eq!(
            address(&value).unwrap_err().path(),
            "socket_address.port_value"
        );
    }
}
