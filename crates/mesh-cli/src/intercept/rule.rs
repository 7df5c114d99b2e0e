//! A rule of netfilter, written as iptables-restore reads it.

use mesh_core::model::Cidr;
use std::fmt;

/// What tells our rules in the built-in chains from others'.
pub(super) const MARK_OF_OURS: &str = "mesh-intercept";

/// Marks a packet that is on its way between the proxy and an application here with the client's
/// address (Istio's `INBOUND_TPROXY_MARK`).
pub(super) const INBOUND_MARK: u32 = 1337;
/// Marks a packet of the proxy to an application here, which has yet to pass inbound (Istio's
/// `OutboundMark`).
pub(super) const OUTBOUND_MARK: u32 = 1338;

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

/// The tables that interception uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    Raw,
    Mangle,
    Nat,
}

/// The built-in chains that interception hooks into, and Istio's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chain {
    Prerouting,
    Output,
    IstioInbound,
    IstioInRedirect,
    IstioOutput,
    IstioOutputDns,
    IstioRedirect,
    IstioDivert,
    IstioTproxy,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) chain: Chain,
    /// Its place in the chain from 1 on; the end if there is none.
    pub(super) place: Option<usize>,
    pub(super) conditions: Vec<Condition>,
    pub(super) target: Target,
}

/// What a packet must be for a rule to apply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    In(String),
    Out(String),
    From(Cidr),
    To(Cidr),
    NotTo(Cidr),
    Tcp,
    Udp,
    Port(u16),
    SourcePort(u16),
    NotPort(u16),
    /// None of them.
    NotPorts([u16; 2]),
    Established,
    Mark(u32),
    NotMark(u32),
    ConnectionMark(u32),
    User(u32),
    NotUser(u32),
    Group(u32),
    NotGroup(u32),
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Return,
    Accept,
    Chain(Chain),
    Redirect(u16),
    Tproxy(u16),
    SetMark(u32),
    SaveMark,
    RestoreMark,
    /// Connections are told apart from those of other zones.
    Zone(u16),
}

// === impl Family ===

impl Family {
    /// The option of `ip` for it.
    pub(super) fn option(self) -> &'static str {
        match self {
            Self::V4 => "-4",
            Self::V6 => "-6",
        }
    }

    /// The program that puts rules in.
    pub(super) fn restore(self) -> &'static str {
        match self {
            Self::V4 => "iptables-restore",
            Self::V6 => "ip6tables-restore",
        }
    }

    /// The program that lists rules.
    pub(super) fn save(self) -> &'static str {
        match self {
            Self::V4 => "iptables-save",
            Self::V6 => "ip6tables-save",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

// === impl Table ===

impl Table {
    pub(super) const ALL: [Self; 3] = [Self::Raw, Self::Mangle, Self::Nat];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Mangle => "mangle",
            Self::Raw => "raw",
        }
    }
}

// === impl Chain ===

impl Chain {
    /// Istio's.
    pub(super) const OURS: [Self; 7] = [
        Self::IstioInbound,
        Self::IstioInRedirect,
        Self::IstioOutput,
        Self::IstioOutputDns,
        Self::IstioRedirect,
        Self::IstioDivert,
        Self::IstioTproxy,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Output => "OUTPUT",
            Self::IstioInbound => "ISTIO_INBOUND",
            Self::IstioInRedirect => "ISTIO_IN_REDIRECT",
            Self::IstioOutput => "ISTIO_OUTPUT",
            Self::IstioOutputDns => "ISTIO_OUTPUT_DNS",
            Self::IstioRedirect => "ISTIO_REDIRECT",
            Self::IstioDivert => "ISTIO_DIVERT",
            Self::IstioTproxy => "ISTIO_TPROXY",
        }
    }

    /// Whether the kernel made it. Those are shared with others.
    pub(super) fn is_built_in(self) -> bool {
        matches!(self, Self::Prerouting | Self::Output)
    }
}

// === impl Rule ===

impl Rule {
    /// A rule at the end of a chain.
    pub(super) fn new(
        chain: Chain,
        conditions: impl IntoIterator<Item = Condition>,
        target: Target,
    ) -> Self {
        Self {
            chain,
            place: None,
            conditions: conditions.into_iter().collect(),
            target,
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(place) => write!(f, "-I {} {place}", self.chain.name())?,
            None => write!(f, "-A {}", self.chain.name())?,
        }
        for condition in &self.conditions {
            write!(f, " {condition}")?;
        }
        if self.chain.is_built_in() {
            write!(f, " -m comment --comment {MARK_OF_OURS}")?;
        }
        write!(f, " -j {}", self.target)
    }
}

// === impl Condition ===

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(name) => write!(f, "-i {name}"),
            Self::Out(name) => write!(f, "-o {name}"),
            Self::From(block) => write!(f, "-s {block}"),
            Self::To(block) => write!(f, "-d {block}"),
            Self::NotTo(block) => write!(f, "! -d {block}"),
            Self::Tcp => write!(f, "-p tcp"),
            Self::Udp => write!(f, "-p udp"),
            Self::Port(port) => write!(f, "--dport {port}"),
            Self::SourcePort(port) => write!(f, "--sport {port}"),
            Self::NotPorts([one, other]) => {
                write!(f, "-m multiport ! --dports {one},{other}")
            }
            Self::NotPort(port) => write!(f, "! --dport {port}"),
            Self::Established => write!(f, "-m conntrack --ctstate RELATED,ESTABLISHED"),
            Self::Mark(mark) => write!(f, "-m mark --mark {mark}"),
            Self::NotMark(mark) => write!(f, "-m mark ! --mark {mark}"),
            Self::ConnectionMark(mark) => write!(f, "-m connmark --mark {mark}"),
            Self::User(id) => write!(f, "-m owner --uid-owner {id}"),
            Self::NotUser(id) => write!(f, "-m owner ! --uid-owner {id}"),
            Self::Group(id) => write!(f, "-m owner --gid-owner {id}"),
            Self::NotGroup(id) => write!(f, "-m owner ! --gid-owner {id}"),
        }
    }
}

// === impl Target ===

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Return => f.write_str("RETURN"),
            Self::Accept => f.write_str("ACCEPT"),
            Self::Chain(chain) => f.write_str(chain.name()),
            Self::Redirect(port) => write!(f, "REDIRECT --to-ports {port}"),
            Self::Tproxy(port) => write!(
                f,
                "TPROXY --tproxy-mark {INBOUND_MARK}/0xffffffff --on-port {port}"
            ),
            Self::SetMark(mark) => write!(f, "MARK --set-mark {mark}"),
            Self::SaveMark => f.write_str("CONNMARK --save-mark"),
            Self::RestoreMark => f.write_str("CONNMARK --restore-mark"),
            Self::Zone(zone) => write!(f, "CT --zone {zone}"),
        }
    }
}
