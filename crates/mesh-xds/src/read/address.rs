//! Addresses.

use crate::pb::envoy::config::core::v3 as core;
use crate::wire::{At, refuse, required};
use mesh_core::Invalid;
use mesh_core::model::{Address, ListenerAddress, UnixPath};
use std::net::IpAddr;

/// An IP address or host name and a port, or a Unix domain socket. A text that is no IP address is
/// a host name.
pub(crate) fn address(value: &core::Address) -> Result<Address, Invalid> {
    let core::Address { address } = value;
    match required("address", address)? {
        core::address::Address::SocketAddress(socket) => {
            socket_address(socket).at("socket_address")
        }
        core::address::Address::Pipe(value) => {
            let (path, mode) = pipe(value).at("pipe")?;
            if mode != 0 {
                let message = "has no effect on a socket that somebody else listens on";
                return Err(Invalid::new("pipe.mode", message));
            }
            Ok(Address::Unix(path))
        }
        core::address::Address::EnvoyInternalAddress(_) => {
            let message = "addresses inside one proxy are not supported";
            Err(Invalid::new("envoy_internal_address", message))
        }
    }
}

/// Where a listener or the admin interface is, and the file mode of a Unix domain socket.
pub(crate) fn listener_address(value: &core::Address) -> Result<(ListenerAddress, u32), Invalid> {
    if let Some(core::address::Address::Pipe(value)) = &value.address {
        let (path, mode) = pipe(value).at("pipe")?;
        return Ok((path.into(), mode));
    }
    match address(value)? {
        Address::Socket(socket) => Ok((socket.into(), 0)),
        other => {
            let message = format!("{other} is not an IP address and a port");
            Err(Invalid::new("socket_address.address", message))
        }
    }
}

/// A Unix domain socket and its file mode, of which 0 is none, as Envoy judges them
/// (`PipeInstance`).
fn pipe(value: &core::Pipe) -> Result<(UnixPath, u32), Invalid> {
    let core::Pipe { path, mode } = value;
    let path = UnixPath::new(path).at("path")?;
    if *mode > 0o777 {
        let message = format!("{mode} is no file mode; the most is 511 (0777)");
        return Err(Invalid::new("mode", message));
    }
    if *mode != 0 && path.abstract_name().is_some() {
        let message = format!("{path} is in no file system and has no mode");
        return Err(Invalid::new("mode", message));
    }
    Ok((path, *mode))
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
        for text in [
            "10.0.0.1:80",
            "[2001:db8::1]:443",
            "a.example:8080",
            "unix:///run/a.sock",
            "unix://./etc/istio/proxy/XDS",
            "unix://@a",
        ] {
            let known: Address = text.parse().unwrap();
            assert_eq!(address(&to_address(&known)).unwrap(), known, "{text}");
        }
    }

    #[test]
    fn a_unix_socket_has_a_file_mode_where_it_is_listened_on() {
        let given = |path: &str, mode| core::Address {
            address: Some(core::address::Address::Pipe(core::Pipe {
                path: path.to_owned(),
                mode,
            })),
        };
        let (at, mode) = listener_address(&given("/run/a", 0o600)).unwrap();
        assert_eq!((at.to_string().as_str(), mode), ("/run/a", 0o600));
        for (wrong, field) in [
            (given("", 0), "pipe.path"),
            (given(&"x".repeat(108), 0), "pipe.path"),
            (given("/run/a", 0o1000), "pipe.mode"),
            (given("@a", 0o600), "pipe.mode"),
        ] {
            assert_eq!(listener_address(&wrong).unwrap_err().path(), field);
        }
        let called = address(&given("/run/a", 0o600)).unwrap_err();
        assert_eq!(called.path(), "pipe.mode");
    }

    #[test]
    fn what_is_inside_a_proxy_is_refused() {
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
