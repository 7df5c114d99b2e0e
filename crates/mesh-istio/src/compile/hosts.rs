//! Virtual hosts of outbound tables: who answers to which name.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::model::{Rule, VirtualHost};
use mesh_core::{Name, Origin};

use super::Compiler;
use super::route::{self, Site};
use super::scope::Scope;
use crate::names::{complete, covers, specificity};
use crate::registry::Entry;
use crate::spec::{Meta, Spanned};

/// Which requests a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Requests for services with this port; the port in the authority does not count.
    Port(u16),
    /// Requests for any service; the port in the authority decides.
    Proxy,
}

/// The virtual hosts of a scope: those of virtual services first, since the
/// first to claim a domain has it.
pub(super) fn outbound(
    compiler: &mut Compiler<'_>,
    scope: &Scope<'_>,
    reach: Reach,
) -> Vec<VirtualHost> {
    let owners = owners(compiler, scope);
    let mut table = Table {
        reach,
        domains: HashSet::new(),
        hosts: Vec::new(),
    };
    let mut covered = HashSet::new();
    for (index, (meta, spec)) in scope.virtual_services.iter().enumerate() {
        let owned = owners.services.iter().filter(|(_, owner)| **owner == index);
        let mine: Vec<&Entry> = owned
            .map(|(position, _)| scope.services[*position])
            .collect();
        let mut ports = BTreeSet::new();
        for entry in &mine {
            for (port, _) in entry.http_ports() {
                ports.insert(port);
                if !reach.takes(port) {
                    continue;
                }
                let site = Site {
                    gateway: "mesh",
                    port,
                };
                let rules = route::rules(compiler, meta, spec, site);
                if !rules.is_empty() {
                    covered.insert((entry.host(), port));
                    let origin = compiler.origin(meta, meta.at);
                    table.service(compiler, entry, port, rules, origin);
                }
            }
        }
        // A name that no service has is served like one on the usual port.
        if ports.is_empty() {
            ports.insert(80);
        }
        let names = owners.names.iter().filter(|(_, owner)| **owner == index);
        for (host, _) in names {
            for &port in ports.iter().filter(|port| reach.takes(**port)) {
                let site = Site {
                    gateway: "mesh",
                    port,
                };
                let rules = route::rules(compiler, meta, spec, site);
                if !rules.is_empty() {
                    let origin = compiler.origin(meta, meta.at);
                    let bare = port == 80 || ports.len() == 1;
                    table.push(host, port, [host.clone()], bare, rules, origin);
                }
            }
        }
    }
    for entry in &scope.services {
        for (port, _) in entry.http_ports() {
            if reach.takes(port) && !covered.contains(&(entry.host(), port)) {
                let origin = compiler.origin(&entry.meta, entry.at);
                let rule = route::default_rule(compiler, entry.host(), port, origin);
                table.service(compiler, entry, port, vec![rule], origin);
            }
        }
    }
    table.hosts
}

/// Which virtual service speaks for what.
struct Owners {
    /// By the place of a service in the scope.
    services: BTreeMap<usize, usize>,
    /// By hosts that no service has, wildcards among them.
    names: BTreeMap<String, usize>,
}

fn owners(compiler: &mut Compiler<'_>, scope: &Scope<'_>) -> Owners {
    let places: BTreeMap<&str, usize> = scope
        .services
        .iter()
        .enumerate()
        .map(|(place, entry)| (entry.host(), place))
        .collect();
    let mut owners = Owners {
        services: BTreeMap::new(),
        names: BTreeMap::new(),
    };
    let mut wildcards: Vec<(String, usize)> = Vec::new();
    for (index, (meta, spec)) in scope.virtual_services.iter().enumerate() {
        for host in &spec.hosts {
            let full = complete(host, &meta.namespace);
            let first = match places.get(full.as_str()) {
                Some(&place) => *owners.services.entry(place).or_insert(index),
                None => *owners.names.entry(full.clone()).or_insert(index),
            };
            if first != index {
                warn_second(compiler, scope.virtual_services[first].0, meta, host);
            } else if full.starts_with('*') {
                wildcards.push((full, index));
            }
        }
    }
    // Services that nobody named go to the closest wildcard, the older of two as close.
    wildcards.sort_by_key(|(host, _)| Reverse(specificity(host)));
    for (place, entry) in scope.services.iter().enumerate() {
        if !owners.services.contains_key(&place)
            && let Some((_, index)) = wildcards
                .iter()
                .find(|(host, _)| covers(host, entry.host()))
        {
            owners.services.insert(place, *index);
        }
    }
    owners
}

fn warn_second(compiler: &mut Compiler<'_>, winner: &Meta, meta: &Meta, host: &Spanned<String>) {
    let message = format!(
        "{winner} speaks for host {:?} already; for sidecars the first wins",
        host.value
    );
    compiler.warn(meta, host.at, "spec.hosts", message);
}

struct Table {
    reach: Reach,
    /// Domains given away.
    domains: HashSet<String>,
    hosts: Vec<VirtualHost>,
}

impl Reach {
    fn takes(self, port: u16) -> bool {
        match self {
            Self::Port(own) => own == port,
            Self::Proxy => true,
        }
    }
}

impl Table {
    fn service(
        &mut self,
        compiler: &Compiler<'_>,
        entry: &Entry,
        port: u16,
        rules: Vec<Rule>,
        origin: Origin,
    ) {
        // Without a port in the authority 80 is meant, or the only port there is.
        let bare = port == 80 || entry.http_ports().count() == 1;
        let names = forms(entry, &compiler.node.namespace);
        self.push(entry.host(), port, names, bare, rules, origin);
    }

    /// Adds a virtual host under those of its domains that are still to be had.
    fn push(
        &mut self,
        host: &str,
        port: u16,
        names: impl IntoIterator<Item = String>,
        bare: bool,
        rules: Vec<Rule>,
        origin: Origin,
    ) {
        let mut domains: Vec<String> = Vec::new();
        for name in names {
            let name = name.to_ascii_lowercase();
            match self.reach {
                Reach::Port(_) => domains.push(name),
                Reach::Proxy => {
                    domains.push(format!("{name}:{port}"));
                    if bare {
                        domains.push(name);
                    }
                }
            }
        }
        domains.retain(|domain| self.domains.insert(domain.clone()));
        if domains.is_empty() {
            return;
        }
        let mut virtual_host = VirtualHost::new(format!("{host}:{port}"), domains);
        virtual_host.origin = origin;
        virtual_host.count_attempts = true;
        virtual_host.rules = rules.into_iter().map(Arc::new).collect();
        self.hosts.push(virtual_host);
    }
}

/// Every name that a service answers to, seen from a namespace.
fn forms(entry: &Entry, viewer: &str) -> Vec<String> {
    let host = entry.host();
    let mut forms = vec![host.to_owned()];
    if !host.starts_with('*') && !host.ends_with('.') {
        forms.push(format!("{host}."));
    }
    if entry.kubernetes {
        let (name, namespace) = (&entry.service.name, entry.namespace());
        if namespace == viewer {
            forms.push(name.to_string());
        }
        forms.push(format!("{name}.{namespace}"));
        forms.push(format!("{name}.{namespace}.svc"));
        if entry.headless {
            // Its endpoints have names of their own below the service's.
            let below: Vec<String> = forms.iter().map(|form| format!("*.{form}")).collect();
            forms.extend(below);
        }
    }
    forms.extend(entry.service.addresses.iter().map(|address| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }));
    forms
}

/// The host for everything that no other one takes.
pub(super) fn fallback(name: &str, rule: Rule) -> VirtualHost {
    let mut rule = rule;
    rule.name = Name::from(name);
    let mut host = VirtualHost::new(name, ["*"]).rule(rule);
    host.count_attempts = true;
    host
}
