//! What is intercepted and what is left alone.

use mesh_core::model::Cidr;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::str::FromStr;

/// What Istio's injection always leaves alone on the way in: the proxy's Prometheus page, its
/// readiness and the agent's status.
pub(super) const ALWAYS_EXCLUDED: [u16; 3] = [15090, 15021, 15020];

/// What is intercepted, in the terms and with the defaults of Istio's annotations
/// `traffic.sidecar.istio.io/…`.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct Options {
    /// How inbound connections reach the proxy. Outbound ones are always redirected.
    #[arg(long, value_enum, default_value = "redirect")]
    pub(super) mode: Mode,
    /// Where the proxy listens for what applications here send.
    #[arg(long, value_name = "PORT", default_value = "15001")]
    pub(super) outbound_port: NonZeroU16,
    /// Where the proxy listens for what applications here are sent.
    #[arg(long, value_name = "PORT", default_value = "15006")]
    pub(super) inbound_port: NonZeroU16,
    /// Users that proxies run as; what they send is not intercepted.
    #[arg(long, value_name = "UID,…", default_value = "1337")]
    pub(super) proxy_uid: Ids,
    /// Groups that proxies run as.
    #[arg(long, value_name = "GID,…", default_value = "1337")]
    pub(super) proxy_gid: Ids,
    /// Ports to intercept on the way in: a list, `*` for all, or an empty text for none.
    #[arg(long, value_name = "PORT,…", default_value = "*")]
    pub(super) include_inbound_ports: Selection<Ports>,
    /// Ports to leave alone on the way in, besides 15020, 15021 and 15090; only where all are
    /// intercepted.
    #[arg(long, value_name = "PORT,…", default_value = "")]
    pub(super) exclude_inbound_ports: Ports,
    /// Destinations to intercept on the way out: blocks of addresses, `*` for all, or an empty
    /// text for none.
    #[arg(long, value_name = "CIDR,…", default_value = "*")]
    pub(super) include_outbound_ip_ranges: Selection<Blocks>,
    /// Destinations to leave alone.
    #[arg(long, value_name = "CIDR,…", default_value = "")]
    pub(super) exclude_outbound_ip_ranges: Blocks,
    /// Ports to intercept on the way out whatever the destination, unless it is excluded.
    #[arg(long, value_name = "PORT,…", default_value = "")]
    pub(super) include_outbound_ports: Ports,
    /// Ports to leave alone on the way out.
    #[arg(long, value_name = "PORT,…", default_value = "")]
    pub(super) exclude_outbound_ports: Ports,
    /// Interfaces of virtual machines: what comes in there is treated as outbound.
    #[arg(long, value_name = "NAME,…", default_value = "")]
    pub(super) kubevirt_interfaces: Interfaces,
    /// Interfaces to leave alone, both ways.
    #[arg(long, value_name = "NAME,…", default_value = "")]
    pub(super) exclude_interfaces: Interfaces,
    /// Leave all of IPv6 alone.
    #[arg(long)]
    pub(super) no_ipv6: bool,
    /// Send applications' questions to the name servers of /etc/resolv.conf, over UDP and TCP, to
    /// the proxy's own name server instead (mesh-proxy's --dns-proxy).
    #[arg(long)]
    pub(super) redirect_dns: bool,
    /// Do so with questions to any name server.
    #[arg(long, requires = "redirect_dns", conflicts_with = "dns_servers")]
    pub(super) capture_all_dns: bool,
    /// Do so with questions to these name servers instead of those of /etc/resolv.conf.
    #[arg(
        long,
        value_name = "ADDRESS,…",
        default_value = "",
        requires = "redirect_dns"
    )]
    pub(super) dns_servers: Addresses,
    /// Where the proxy's own name server listens on loopback.
    #[arg(long, value_name = "PORT", default_value = "15053")]
    pub(super) dns_port: NonZeroU16,
}

/// How inbound connections reach the proxy (`sidecar.istio.io/interceptionMode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Mode {
    /// By rewriting the destination; the proxy asks the kernel for the original one.
    Redirect,
    /// As they are, to a transparent socket; the proxy can use the client's address as its own.
    Tproxy,
}

/// All, or some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Selection<T> {
    All,
    Only(T),
}

/// Ports, in the order in which they were given, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ports(pub(super) Vec<u16>);

/// Blocks of addresses of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Blocks(pub(super) Vec<Cidr>);

/// Addresses of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses(pub(super) Vec<IpAddr>);

/// Users or groups, by number: names need not be the same in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ids(pub(super) Vec<u32>);

/// Network interfaces. A `+` at the end stands for any ending, as in iptables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Interfaces(pub(super) Vec<String>);

/// What is wrong with the options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong(String);

// === impl Options ===

impl Options {
    /// Looks for options that are in each other's way.
    ///
    /// # Errors
    /// Says which, and what to do.
    pub(super) fn check(&self) -> Result<(), Wrong> {
        let captures = self.redirect_dns && !self.capture_all_dns;
        if captures && self.dns_servers.0.is_empty() {
            return wrong(
                "--redirect-dns: /etc/resolv.conf names no name server; name some with \
                 --dns-servers, or take --capture-all-dns",
            );
        }
        if captures && self.no_ipv6 && self.dns_servers.0.iter().all(IpAddr::is_ipv6) {
            return wrong(
                "--redirect-dns: all name servers are asked over IPv6, which is left alone \
                 (--no-ipv6): no question would be taken; name others with --dns-servers, or take \
                 --capture-all-dns",
            );
        }
        if self.redirect_dns && [self.outbound_port, self.inbound_port].contains(&self.dns_port) {
            return wrong(format!(
                "--dns-port: {} is where connections of other kinds go",
                self.dns_port
            ));
        }
        if self.outbound_port == self.inbound_port {
            return wrong(format!(
                "--inbound-port: {} is the outbound port already; the proxy tells the two \
                 directions apart by them",
                self.inbound_port
            ));
        }
        if self.proxy_uid.0.is_empty() && self.proxy_gid.0.is_empty() {
            return wrong(
                "--proxy-uid: neither a user nor a group is a proxy's; what the proxy sends would \
                 return to it for ever",
            );
        }
        if self.include_inbound_ports != Selection::All && !self.exclude_inbound_ports.0.is_empty()
        {
            return wrong(
                "--exclude-inbound-ports: applies only where all inbound ports are intercepted; \
                 leave the ports out of --include-inbound-ports instead",
            );
        }
        let virtual_ones = &self.kubevirt_interfaces.0;
        let both = |name: &&String| virtual_ones.contains(name);
        if let Some(name) = self.exclude_interfaces.0.iter().find(both) {
            return wrong(format!(
                "--exclude-interfaces: {name} is in --kubevirt-interfaces too"
            ));
        }
        Ok(())
    }

    /// Takes the name servers of a `resolv.conf` where they are needed and none are named.
    pub(super) fn read_servers(&mut self, read: impl FnOnce() -> Vec<IpAddr>) {
        let named = self.capture_all_dns || !self.dns_servers.0.is_empty();
        if self.redirect_dns && !named {
            self.dns_servers.0 = read();
        }
    }

    /// Whether any inbound port is intercepted.
    pub(super) fn has_inbound(&self) -> bool {
        self.include_inbound_ports != Selection::Only(Ports::default())
    }

    /// Whether inbound connections go to a transparent socket.
    pub(super) fn is_tproxy(&self) -> bool {
        self.mode == Mode::Tproxy && self.has_inbound()
    }

    /// Whether a block of loopback was asked for by name. Istio leaves applications' calls of each
    /// other over loopback alone unless it is so.
    pub(super) fn includes_loopback(&self) -> bool {
        let is_loopback = |block: &Cidr| match block.address() {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => address.is_loopback(),
        };
        match &self.include_outbound_ip_ranges {
            Selection::All => false,
            Selection::Only(blocks) => blocks.0.iter().any(is_loopback),
        }
    }
}

// === impl Selection ===

impl<T: FromStr> FromStr for Selection<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text.trim() == "*" {
            return Ok(Self::All);
        }
        text.parse().map(Self::Only)
    }
}

// === impl Ports ===

impl FromStr for Ports {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        list(text, |item| match item.parse::<NonZeroU16>() {
            // A sign is no part of a port.
            Ok(port) if item.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port.get()),
            _ => wrong(format!("{item:?} is no port from 1 to 65535")),
        })
        .map(Self)
    }
}

// === impl Blocks ===

impl Blocks {
    /// Those of IPv4, or those of IPv6.
    pub(super) fn of(&self, is_v4: bool) -> impl Iterator<Item = Cidr> {
        let blocks = self.0.iter().copied();
        blocks.filter(move |block| block.address().is_ipv4() == is_v4)
    }
}

impl FromStr for Blocks {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        list(text, |item| match item {
            "*" => wrong("`*` must stand alone, and only where everything is to be included"),
            item => item
                .parse::<Cidr>()
                .or_else(|error| wrong(error.to_string())),
        })
        .map(Self)
    }
}

// === impl Addresses ===

impl FromStr for Addresses {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        list(text, |item| {
            let address = item.parse::<IpAddr>();
            address.or_else(|_| wrong(format!("{item:?} is no IP address")))
        })
        .map(Self)
    }
}

// === impl Ids ===

impl FromStr for Ids {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        list(text, |item| match item.parse::<u32>() {
            // The highest number stands for "none" in the kernel.
            Ok(id) if id != u32::MAX && item.bytes().all(|byte| byte.is_ascii_digit()) => Ok(id),
            _ => wrong(format!("{item:?} is no number of a user or a group")),
        })
        .map(Self)
    }
}

// === impl Interfaces ===

impl FromStr for Interfaces {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        // The kernel's limit is 15 bytes. It allows more characters than these, but nobody uses
        // them, and some would have to be quoted.
        let is_right = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:@".contains(&byte);
        list(text, |item| {
            let name = item.strip_suffix('+').unwrap_or(item);
            let is_name = !name.is_empty() && item.len() <= 15 && name.bytes().all(is_right);
            if !is_name || name.starts_with('-') || name == "." || name == ".." {
                return wrong(format!("{item:?} is no name of a network interface"));
            }
            Ok(item.to_owned())
        })
        .map(Self)
    }
}

// === impl Wrong ===

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

fn wrong<T>(message: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong(message.into()))
}

/// Reads a list with commas. Nothing between two of them is nothing, as in Istio: its injection
/// writes lists that end in one.
fn list<T: PartialEq>(
    text: &str,
    read: impl Fn(&str) -> Result<T, Wrong>,
) -> Result<Vec<T>, Wrong> {
    let mut items = Vec::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let item = read(item)?;
        if !items.contains(&item) {
            items.push(item);
        }
    }
    Ok(items)
}
