//! Applications' questions for names, which go to the proxy's own name server.
//!
//! The rules are Istio's. Only questions to the name servers of `resolv.conf` are taken unless all
//! are asked for: a name server on this machine, between the proxy's and the real ones, would
//! otherwise get its own questions back. What the proxy asks goes where it wants.

use super::options::Options;
use super::rule::{Chain, Condition, Family, Rule, Target};
use mesh_core::model::Cidr;
use mesh_discovery::dns::server::ResolvConf;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where name servers listen.
pub(super) const DNS: u16 = 53;

/// Connection tracking zones, so that an application's question and the proxy's own, which may
/// have the same ports, are not taken for one: the proxy's with its name servers, and the
/// applications' with the proxy.
const UPSTREAM: u16 = 1;
const DOWNSTREAM: u16 = 2;

/// The addresses of the name servers in `/etc/resolv.conf`, as programs in a network namespace see
/// it (ip-netns(8)).
pub(super) fn servers(netns: Option<&str>) -> Vec<IpAddr> {
    let usual = PathBuf::from("/etc/resolv.conf");
    let own = netns.map(|name| Path::new("/etc/netns").join(name).join("resolv.conf"));
    let file = own.filter(|file| file.exists()).unwrap_or(usual);
    let conf = ResolvConf::read(&file).unwrap_or_default();
    let mut servers: Vec<IpAddr> = conf.servers.iter().map(|server| server.ip()).collect();
    let mut seen = Vec::new();
    servers.retain(|server| {
        let fresh = !seen.contains(server);
        seen.push(*server);
        fresh
    });
    servers
}

/// In the chain of what goes out, behind the rules about the proxy's own: connections.
pub(super) fn connections(options: &Options, family: Family) -> Vec<Rule> {
    let target = Target::Redirect(options.dns_port.get());
    let each = asked(options, family).into_iter().map(|to| {
        let mut conditions = vec![Condition::Tcp, Condition::Port(DNS)];
        conditions.extend(to);
        Rule::new(Chain::IstioOutput, conditions, target)
    });
    each.collect()
}

/// In the same table: datagrams.
pub(super) fn datagrams(options: &Options, family: Family) -> Vec<Rule> {
    let asked = asked(options, family);
    if asked.is_empty() {
        return Vec::new();
    }
    let rule = |more: Option<Condition>, target| {
        let conditions = [Condition::Udp, Condition::Port(DNS)];
        Rule::new(
            Chain::IstioOutputDns,
            conditions.into_iter().chain(more),
            target,
        )
    };
    let mut rules = vec![leads_to(Chain::Output, Chain::IstioOutputDns)];
    rules.extend(owners(options).map(|owner| rule(Some(owner), Target::Return)));
    let target = Target::Redirect(options.dns_port.get());
    rules.extend(asked.into_iter().map(|to| rule(to, target)));
    rules
}

/// In the table before tracking: which zone a datagram belongs to.
pub(super) fn zones(options: &Options, family: Family) -> Vec<Rule> {
    let all = asked(options, family);
    if all.is_empty() {
        return Vec::new();
    }
    let mut rules = vec![leads_to(Chain::Output, Chain::IstioOutputDns)];
    let rule = |conditions: Vec<Condition>, zone| {
        Rule::new(Chain::IstioOutputDns, conditions, Target::Zone(zone))
    };
    for owner in owners(options) {
        let port = Condition::Port(DNS);
        rules.push(rule(vec![Condition::Udp, port, owner.clone()], UPSTREAM));
        let port = Condition::SourcePort(options.dns_port.get());
        rules.push(rule(vec![Condition::Udp, port, owner], DOWNSTREAM));
    }
    // The first zone that a datagram gets is the one that it has: the proxy's are gone already.
    for to in &all {
        let mut conditions = vec![Condition::Udp, Condition::Port(DNS)];
        conditions.extend(to.clone());
        rules.push(rule(conditions, DOWNSTREAM));
    }
    rules.push(leads_to(Chain::Prerouting, Chain::IstioInbound));
    for to in all {
        let mut conditions = vec![Condition::Udp, Condition::SourcePort(DNS)];
        conditions.extend(to.map(|to| match to {
            Condition::To(server) => Condition::From(server),
            other => other,
        }));
        let target = Target::Zone(UPSTREAM);
        rules.push(Rule::new(Chain::IstioInbound, conditions, target));
    }
    rules
}

/// Whose questions are taken: a condition for each name server of the family, none for all.
fn asked(options: &Options, family: Family) -> Vec<Option<Condition>> {
    if !options.redirect_dns {
        return Vec::new();
    }
    if options.capture_all_dns {
        return vec![None];
    }
    let servers = options.dns_servers.0.iter();
    let servers = servers.filter(|server| server.is_ipv4() == (family == Family::V4));
    servers
        .map(|server| Some(Condition::To(Cidr::single(*server))))
        .collect()
}

/// Those that are the proxy.
fn owners(options: &Options) -> impl Iterator<Item = Condition> {
    let users = options.proxy_uid.0.iter().copied().map(Condition::User);
    users.chain(options.proxy_gid.0.iter().copied().map(Condition::Group))
}

fn leads_to(from: Chain, to: Chain) -> Rule {
    Rule::new(from, [Condition::Udp], Target::Chain(to))
}
