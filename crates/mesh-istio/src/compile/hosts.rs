//! Virtual hosts of outbound tables: who answers to which name.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::model::{Rule, VirtualHost};
use mesh_core::{Name, Origin};

use super::Compiler;
use super::memory::{Rules, Subject};
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
) -> Vec<Arc<VirtualHost>> {
    let owners = owners(compiler, scope);
    let mut table = Table {
        reach,
        domains: HashSet::new(),
        hosts: Vec::new(),
    };
    let mut covered = HashSet::new();
    for (index, (meta, spec)) in scope.virtual_services.iter().enumerate() {
        let mut ports = BTreeSet::new();
        for &position in owners.services.get(&index).into_iter().flatten() {
            let entry = scope.services[position];
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
                    covered.insert((position, port));
                    let origin = compiler.origin(meta, meta.at);
                    table.service(compiler, entry, port, Some(&rules), origin);
                }
            }
        }
        // A name that no service has is served like one on the usual port.
        if ports.is_empty() {
            ports.insert(80);
        }
        for host in owners.names.get(&index).into_iter().flatten() {
            for &port in ports.iter().filter(|port| reach.takes(**port)) {
                let site = Site {
                    gateway: "mesh",
                    port,
                };
                let rules = route::rules(compiler, meta, spec, site);
                if !rules.is_empty() {
                    let origin = compiler.origin(meta, meta.at);
                    let subject = Subject {
                        entry: None,
                        port,
                        proxy: reach == Reach::Proxy,
                        short: port == 80 || ports.len() == 1,
                    };
                    table.push(compiler, host, &subject, Some(&rules), origin);
                }
            }
        }
    }
    for (position, entry) in scope.services.iter().enumerate() {
        for (port, _) in entry.http_ports() {
            if reach.takes(port) && !covered.contains(&(position, port)) {
                let origin = compiler.origin(&entry.meta, entry.at);
                table.service(compiler, entry, port, None, origin);
            }
        }
    }
    table.hosts
}

/// What each virtual service speaks for, by its place in the scope.
#[derive(Default)]
struct Owners {
    /// Places of services in the scope, in order.
    services: HashMap<usize, BTreeSet<usize>>,
    /// Hosts that no service has, wildcards among them.
    names: HashMap<usize, BTreeSet<Name>>,
}

fn owners(compiler: &mut Compiler<'_>, scope: &Scope<'_>) -> Owners {
    let places: HashMap<&str, usize> = scope
        .services
        .iter()
        .enumerate()
        .map(|(place, entry)| (entry.host(), place))
        .collect();
    let mut owned: HashMap<usize, usize> = HashMap::new();
    let mut named: HashMap<String, usize> = HashMap::new();
    let mut wildcards: Vec<(String, usize)> = Vec::new();
    for (index, (meta, spec)) in scope.virtual_services.iter().enumerate() {
        for host in &spec.hosts {
            let full = complete(host, &meta.namespace);
            let first = match places.get(full.as_str()) {
                Some(&place) => *owned.entry(place).or_insert(index),
                None => *named.entry(full.clone()).or_insert(index),
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
    let mut owners = Owners::default();
    for (place, entry) in scope.services.iter().enumerate() {
        let closest = || {
            let mut each = wildcards.iter();
            let found = each.find(|(host, _)| covers(host, entry.host()));
            found.map(|(_, index)| *index)
        };
        if let Some(index) = owned.get(&place).copied().or_else(closest) {
            owners.services.entry(index).or_default().insert(place);
        }
    }
    for (host, index) in named {
        owners.names.entry(index).or_default().insert(host.into());
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
    domains: HashSet<Name>,
    hosts: Vec<Arc<VirtualHost>>,
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
    /// Adds a port of a service; without rules, with the one that leads there.
    fn service(
        &mut self,
        compiler: &mut Compiler<'_>,
        entry: &Arc<Entry>,
        port: u16,
        rules: Option<&Rules>,
        origin: Origin,
    ) {
        let subject = Subject {
            entry: Some(Arc::clone(entry)),
            port,
            proxy: self.reach == Reach::Proxy,
            short: entry.kubernetes && entry.namespace() == compiler.viewer.namespace(),
        };
        let name = &entry.service.id.host;
        let wanting = match rules {
            Some(_) => None,
            None => route::wanting(compiler, entry, port, origin),
        };
        self.push(compiler, name, &subject, rules.or(wanting.as_ref()), origin);
    }

    /// Adds a virtual host under those of its domains that are still to be had.
    fn push(
        &mut self,
        compiler: &mut Compiler<'_>,
        name: &Name,
        subject: &Subject,
        rules: Option<&Rules>,
        origin: Origin,
    ) {
        let all = compiler
            .memory
            .domains(name, subject, || domains(name, subject));
        let free = all.iter().filter(|one| self.domains.insert((*one).clone()));
        let free: Vec<Name> = free.cloned().collect();
        if free.is_empty() {
            return;
        }
        let whole = free.len() == all.len();
        let known = whole
            .then(|| compiler.memory.filled(name, subject, rules, origin))
            .flatten();
        let host = known.unwrap_or_else(|| {
            let mut host = VirtualHost::new(format!("{name}:{}", subject.port), free);
            host.origin = origin;
            host.count_attempts = true;
            host.rules = match rules {
                Some(rules) => rules.to_vec(),
                None => vec![Arc::new(route::default_rule(
                    compiler,
                    name,
                    subject.port,
                    origin,
                ))],
            };
            let host = Arc::new(host);
            if whole {
                let memory = &mut compiler.memory;
                memory.keep_filled(name, subject, rules, &host);
            }
            host
        });
        self.hosts.push(host);
    }
}

/// All domains of a subject, in order.
fn domains(name: &Name, subject: &Subject) -> Vec<String> {
    let port = subject.port;
    let (names, bare) = match &subject.entry {
        Some(entry) => {
            // Without a port in the authority 80 is meant, or the only port there is.
            let bare = port == 80 || entry.http_ports().count() == 1;
            (forms(entry, subject.short), bare)
        }
        None => (vec![name.to_string()], subject.short),
    };
    let mut domains = Vec::new();
    for name in names {
        let name = name.to_ascii_lowercase();
        if !subject.proxy {
            domains.push(name);
            continue;
        }
        domains.push(format!("{name}:{port}"));
        if bare {
            domains.push(name);
        }
    }
    domains
}

/// Every name that a service answers to; short ones, in its own namespace.
fn forms(entry: &Entry, short: bool) -> Vec<String> {
    let host = entry.host();
    let mut forms = vec![host.to_owned()];
    if !host.starts_with('*') && !host.ends_with('.') {
        forms.push(format!("{host}."));
    }
    if entry.kubernetes {
        let (name, namespace) = (&entry.service.name, entry.namespace());
        if short {
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
