//! Which rules and settings make an interception: Istio's, for given options.
//!
//! The order within a chain decides, and it is that of `istio-iptables` (Istio 1.30). Two things differ, and neither for a connection that Istio intercepts: interfaces to
//! leave alone are named at the head of Istio's chains instead of in the built-in ones, where a
//! RETURN would end the rules of others too; and chains that nothing leads to are not made.

use super::dns::{self, DNS};
use super::options::{ALWAYS_EXCLUDED, Options, Selection};
use super::rule::{Chain, Condition, Family, INBOUND_MARK, OUTBOUND_MARK, Rule, Table, Target};
use mesh_core::model::Cidr;
use std::net::{Ipv4Addr, Ipv6Addr};

/// The port of Istio's tunnel between nodes (HBONE), which is not redirected.
const TUNNEL_PORT: u16 = 15008;
/// Routes what is marked to this machine (Istio's `INBOUND_TPROXY_ROUTE_TABLE`).
const ROUTE_TABLE: &str = "133";
/// [`INBOUND_MARK`] as `ip` takes it.
const ROUTE_MARK: &str = "1337";

/// What one family needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) family: Family,
    pub(super) tables: Vec<(Table, Vec<Rule>)>,
    pub(super) settings: Vec<Setting>,
}

/// What is set with `ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setting {
    /// The source of passed-through inbound connections, `::6`. For IPv4 it is 127.0.0.6, which
    /// every machine has.
    Source,
    /// Marked packets look into our routing table.
    Rule,
    /// That table says that every address is here.
    Route,
}

/// The rules and settings of a family.
pub(super) fn plan(options: &Options, family: Family) -> Plan {
    let tproxy = options.is_tproxy();
    let mut tables = Vec::new();
    let zones = dns::zones(options, family);
    if !zones.is_empty() {
        tables.push((Table::Raw, zones));
    }
    if tproxy {
        tables.push((Table::Mangle, mangle(options, family)));
    }
    tables.push((Table::Nat, nat(options, family)));
    let mut settings = Vec::new();
    if family == Family::V6 {
        settings.push(Setting::Source);
    }
    if tproxy {
        settings.extend([Setting::Rule, Setting::Route]);
    }
    Plan {
        family,
        tables,
        settings,
    }
}

fn nat(options: &Options, family: Family) -> Vec<Rule> {
    let mut rules = Vec::new();
    if options.has_inbound() && !options.is_tproxy() {
        let rule =
            |conditions: Vec<Condition>, target| Rule::new(Chain::IstioInbound, conditions, target);
        rules.push(Rule::new(
            Chain::Prerouting,
            [Condition::Tcp],
            Target::Chain(Chain::IstioInbound),
        ));
        rules.extend(interfaces_left_alone(options));
        rules.push(rule(port(TUNNEL_PORT), Target::Return));
        rules.extend(inbound(options, |conditions| {
            vec![rule(conditions, Target::Chain(Chain::IstioInRedirect))]
        }));
    }
    rules.extend(virtual_machines(options, family));
    rules.push(Rule::new(
        Chain::Output,
        [],
        Target::Chain(Chain::IstioOutput),
    ));
    rules.extend(outbound(options, family));
    rules.extend(dns::datagrams(options, family));
    for (chain, port) in [
        (Chain::IstioRedirect, options.outbound_port),
        (Chain::IstioInRedirect, options.inbound_port),
    ] {
        let target = Target::Redirect(port.get());
        rules.push(Rule::new(chain, [Condition::Tcp], target));
    }
    rules
}

/// The inbound ports: those to leave alone, and what to do with the rest.
fn inbound(options: &Options, capture: impl Fn(Vec<Condition>) -> Vec<Rule>) -> Vec<Rule> {
    match &options.include_inbound_ports {
        Selection::All => {
            let asked_for = options.exclude_inbound_ports.0.iter().copied();
            let excluded = asked_for.filter(|port| !ALWAYS_EXCLUDED.contains(port));
            let mut rules: Vec<Rule> = ALWAYS_EXCLUDED
                .into_iter()
                .chain(excluded)
                .map(|number| Rule::new(Chain::IstioInbound, port(number), Target::Return))
                .collect();
            rules.extend(capture(vec![Condition::Tcp]));
            rules
        }
        Selection::Only(ports) => {
            let ports = ports.0.iter().copied();
            ports.flat_map(|number| capture(port(number))).collect()
        }
    }
}

/// What comes in from virtual machines is outbound. Before everything else, because theirs is the
/// destination that they mean.
fn virtual_machines(options: &Options, family: Family) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for name in &options.kubevirt_interfaces.0 {
        for to in destinations(options, family) {
            let conditions = [Condition::In(name.clone())].into_iter().chain(to);
            rules.push(Rule {
                place: Some(rules.len() + 1),
                ..Rule::new(
                    Chain::Prerouting,
                    conditions,
                    Target::Chain(Chain::IstioRedirect),
                )
            });
        }
    }
    rules
}

fn outbound(options: &Options, family: Family) -> Vec<Rule> {
    let rule =
        |conditions: Vec<Condition>, target| Rule::new(Chain::IstioOutput, conditions, target);
    let lo = || Condition::Out("lo".into());
    let mut rules = Vec::new();
    for name in &options.exclude_interfaces.0 {
        rules.push(rule(vec![Condition::Out(name.clone())], Target::Return));
    }
    for number in &options.exclude_outbound_ports.0 {
        rules.push(rule(port(*number), Target::Return));
    }
    // What the proxy passes through to an application here.
    let from = Condition::From(passthrough_source(family));
    rules.push(rule(vec![lo(), from], Target::Return));
    let owners: [(&[u32], Own, Own); 2] = [
        (&options.proxy_uid.0, Condition::User, Condition::NotUser),
        (&options.proxy_gid.0, Condition::Group, Condition::NotGroup),
    ];
    for (ids, is, is_not) in owners {
        if ids.is_empty() {
            continue;
        }
        // An application that calls itself by its service address: the proxy sends it to this
        // machine, and inbound has its say too.
        for id in ids {
            let ports = match options.redirect_dns {
                // A name server here is asked directly.
                true => Condition::NotPorts([DNS, TUNNEL_PORT]),
                false => Condition::NotPort(TUNNEL_PORT),
            };
            let conditions = vec![
                lo(),
                Condition::NotTo(loopback(family)),
                Condition::Tcp,
                ports,
                is(*id),
            ];
            rules.push(rule(conditions, Target::Chain(Chain::IstioInRedirect)));
        }
        // An application that calls itself or a neighbour by the machine's own address. One rule
        // for all owners: with one each, the first would answer for the second.
        if !options.includes_loopback() {
            let mut conditions = vec![lo()];
            if options.redirect_dns {
                // A name server may be on this machine too.
                conditions.extend([Condition::Tcp, Condition::NotPort(DNS)]);
            }
            conditions.extend(ids.iter().map(|id| is_not(*id)));
            rules.push(rule(conditions, Target::Return));
        }
        // No loops: the proxy's own connections go where they want.
        for id in ids {
            rules.push(rule(vec![is(*id)], Target::Return));
        }
    }
    rules.extend(dns::connections(options, family));
    rules.push(rule(vec![Condition::To(loopback(family))], Target::Return));
    for block in options.exclude_outbound_ip_ranges.of(family == Family::V4) {
        rules.push(rule(vec![Condition::To(block)], Target::Return));
    }
    for number in &options.include_outbound_ports.0 {
        let target = Target::Chain(Chain::IstioRedirect);
        rules.push(rule(port(*number), target));
    }
    for to in destinations(options, family) {
        let target = Target::Chain(Chain::IstioRedirect);
        rules.push(rule(to.into_iter().collect(), target));
    }
    rules
}

/// Makes a condition of an owner.
type Own = fn(u32) -> Condition;

fn mangle(options: &Options, family: Family) -> Vec<Rule> {
    let inside =
        |conditions: Vec<Condition>, target| Rule::new(Chain::IstioInbound, conditions, target);
    let (lo_in, lo_out) = (Condition::In("lo".into()), Condition::Out("lo".into()));
    let mut rules = vec![
        Rule::new(
            Chain::Prerouting,
            [Condition::Tcp],
            Target::Chain(Chain::IstioInbound),
        ),
        // The proxy connects to the application with the client's address and marks it; the answer
        // is known by the connection's mark.
        Rule::new(
            Chain::Prerouting,
            [Condition::Tcp, Condition::Mark(INBOUND_MARK)],
            Target::SaveMark,
        ),
        Rule::new(
            Chain::Output,
            [
                Condition::Tcp,
                lo_out.clone(),
                Condition::Mark(INBOUND_MARK),
            ],
            Target::Return,
        ),
    ];
    // An application that calls itself by its service address: from the proxy to here, inbound.
    let users = options.proxy_uid.0.iter().copied().map(Condition::User);
    let groups = options.proxy_gid.0.iter().copied().map(Condition::Group);
    for owner in users.chain(groups) {
        let elsewhere = Condition::NotTo(loopback(family));
        let conditions = [elsewhere, Condition::Tcp, lo_out.clone(), owner];
        rules.push(Rule::new(
            Chain::Output,
            conditions,
            Target::SetMark(OUTBOUND_MARK),
        ));
    }
    rules.push(Rule::new(
        Chain::Output,
        [Condition::Tcp, Condition::ConnectionMark(INBOUND_MARK)],
        Target::RestoreMark,
    ));
    rules.extend(interfaces_left_alone(options));
    let from = Condition::From(passthrough_source(family));
    rules.push(inside(
        vec![Condition::Tcp, Condition::Mark(INBOUND_MARK)],
        Target::Return,
    ));
    rules.push(inside(
        vec![Condition::Tcp, from, lo_in.clone()],
        Target::Return,
    ));
    rules.push(inside(
        vec![Condition::Tcp, lo_in, Condition::NotMark(OUTBOUND_MARK)],
        Target::Return,
    ));
    rules.extend(inbound(options, |conditions| {
        let mut established = conditions.clone();
        established.push(Condition::Established);
        vec![
            inside(established, Target::Chain(Chain::IstioDivert)),
            inside(conditions, Target::Chain(Chain::IstioTproxy)),
        ]
    }));
    let divert = |target| Rule::new(Chain::IstioDivert, [], target);
    rules.push(divert(Target::SetMark(INBOUND_MARK)));
    rules.push(divert(Target::Accept));
    rules.push(Rule::new(
        Chain::IstioTproxy,
        [Condition::NotTo(loopback(family)), Condition::Tcp],
        Target::Tproxy(options.inbound_port.get()),
    ));
    rules
}

/// Interfaces whose traffic is not inbound: those to leave alone, and those of virtual machines,
/// whose traffic is outbound or nothing.
fn interfaces_left_alone(options: &Options) -> impl Iterator<Item = Rule> {
    let excluded = options.exclude_interfaces.0.iter();
    excluded.chain(&options.kubevirt_interfaces.0).map(|name| {
        let conditions = [Condition::In(name.clone())];
        Rule::new(Chain::IstioInbound, conditions, Target::Return)
    })
}

/// A condition for each block that is intercepted on the way out, none for all of them.
fn destinations(options: &Options, family: Family) -> Vec<Option<Condition>> {
    match &options.include_outbound_ip_ranges {
        Selection::All => vec![None],
        Selection::Only(blocks) => {
            let blocks = blocks.of(family == Family::V4);
            blocks.map(|block| Some(Condition::To(block))).collect()
        }
    }
}

fn port(number: u16) -> Vec<Condition> {
    vec![Condition::Tcp, Condition::Port(number)]
}

fn loopback(family: Family) -> Cidr {
    Cidr::single(match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    })
}

/// What inbound passthrough clusters bind to (Istio's `InboundPassthroughBindIpv4` and `…Ipv6`).
fn passthrough_source(family: Family) -> Cidr {
    Cidr::single(match family {
        Family::V4 => Ipv4Addr::new(127, 0, 0, 6).into(),
        Family::V6 => Ipv6Addr::from_bits(6).into(),
    })
}

// === impl Plan ===

impl Plan {
    /// A family that is left alone.
    pub(super) fn nothing(family: Family) -> Self {
        Self {
            family,
            tables: Vec::new(),
            settings: Vec::new(),
        }
    }
}

// === impl Setting ===

impl Setting {
    pub(super) const ALL: [Self; 3] = [Self::Source, Self::Rule, Self::Route];

    /// The command that sets it.
    pub(super) fn add(self, family: Family) -> Vec<&'static str> {
        self.command(family, "add")
    }

    /// The command that takes it back.
    pub(super) fn delete(self, family: Family) -> Vec<&'static str> {
        self.command(family, "del")
    }

    fn command(self, family: Family, verb: &'static str) -> Vec<&'static str> {
        let mut words = vec!["ip", family.option()];
        let rest: &[&str] = match self {
            Self::Source => &["addr", verb, "::6/128", "dev", "lo"],
            Self::Rule => &["rule", verb, "fwmark", ROUTE_MARK, "lookup", ROUTE_TABLE],
            Self::Route => &[
                "route",
                verb,
                "local",
                "default",
                "dev",
                "lo",
                "table",
                ROUTE_TABLE,
            ],
        };
        words.extend(rest);
        words
    }

    /// The command that lists what there is of the kind, as JSON.
    pub(super) fn list(self, family: Family) -> Vec<&'static str> {
        let mut words = vec!["ip", "-j", family.option()];
        let rest: &[&str] = match self {
            Self::Source => &["addr", "show", "dev", "lo"],
            Self::Rule => &["rule", "show"],
            Self::Route => &["route", "show", "table", ROUTE_TABLE],
        };
        words.extend(rest);
        words
    }

    /// Whether it is in such a list.
    pub(super) fn is_in(self, list: &serde_json::Value) -> bool {
        let entries = list.as_array().map(Vec::as_slice).unwrap_or_default();
        entries.iter().any(|entry| match self {
            Self::Source => entry["addr_info"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one["local"] == "::6")),
            Self::Rule => {
                entry["fwmark"] == format!("{INBOUND_MARK:#x}") && entry["table"] == ROUTE_TABLE
            }
            Self::Route => {
                entry["type"] == "local" && entry["dst"] == "default" && entry["dev"] == "lo"
            }
        })
    }
}
