//! The way out of a sidecar whose connections are intercepted, as far as HTTP goes.
//!
//! One table per port with every service that has it, named after the port; ports whose protocol
//! is found out by looking have one per service, `<host>:<port>`. The listeners that lead to them
//! look at connections before there is HTTP, and are not compiled yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::Name;
use mesh_core::model::RouteTable;

use super::hosts::{self, Reach};
use super::scope::Scope;
use super::{Compiler, cluster, outbound, scope};
use crate::registry::Entry;
use crate::spec::kubernetes::Protocol;
use crate::spec::sidecar::OutboundPolicy;

pub(super) fn compile(compiler: &mut Compiler<'_>) {
    cluster::built_in(compiler);
    let sidecar = scope::sidecar(compiler);
    let policy = scope::outbound_policy(compiler, sidecar);
    let scopes = scope::scopes(compiler, sidecar);
    for entry in scopes.iter().flat_map(|scope| &scope.services) {
        cluster::service(compiler, entry);
    }
    for scope in &scopes {
        if let Some((meta, egress, port)) = scope.listener {
            if port.proxy {
                let message = "an intercepted sidecar has no HTTP_PROXY listener yet: ignored";
                compiler.warn(meta, egress.at, "spec.egress", message.to_owned());
            } else {
                // Its scope has just the services with this port.
                shared(compiler, scope, port.number, policy);
            }
            continue;
        }
        // By port, the services that have it, and whether one of them needs the shared table.
        let mut ports: BTreeMap<u16, (Vec<&Arc<Entry>>, bool)> = BTreeMap::new();
        for entry in &scope.services {
            for (port, protocol) in entry.http_ports() {
                let (services, needed) = ports.entry(port).or_default();
                services.push(entry);
                if sniffed(entry, protocol) {
                    own(compiler, &part(scope, vec![entry]), entry, port);
                } else {
                    *needed = true;
                }
            }
        }
        for (port, (services, needed)) in ports {
            if needed {
                shared(compiler, &part(scope, services), port, policy);
            }
        }
    }
}

/// Whether a port's connections come in by the service's address, so that a listener and a table
/// are for this service alone.
fn sniffed(entry: &Entry, protocol: Protocol) -> bool {
    protocol == Protocol::Unknown && (entry.kubernetes || !entry.service.addresses.is_empty())
}

/// The table of a port, for the services that have it.
fn shared(compiler: &mut Compiler<'_>, scope: &Scope<'_>, port: u16, policy: OutboundPolicy) {
    let mut table = RouteTable::new(port.to_string());
    table.ignore_port = true;
    table.virtual_hosts = hosts::outbound(compiler, scope, Reach::Port(port));
    table.virtual_hosts.push(outbound::rest(compiler, policy));
    compiler.table(table);
}

/// The table of one port of one service: everything that gets there is for it.
fn own(compiler: &mut Compiler<'_>, scope: &Scope<'_>, entry: &Entry, port: u16) {
    let name = format!("{}:{port}", entry.host());
    let mut table = RouteTable::new(name.as_str());
    table.ignore_port = true;
    let mut hosts = hosts::outbound(compiler, scope, Reach::Port(port)).into_iter();
    if let Some(mut host) = hosts.find(|host| *host.name == *name) {
        Arc::make_mut(&mut host).domains = vec![Name::from("*")];
        table.virtual_hosts.push(host);
    }
    compiler.table(table);
}

/// These services of a scope.
fn part<'a>(scope: &Scope<'a>, services: Vec<&'a Arc<Entry>>) -> Scope<'a> {
    Scope {
        listener: None,
        bind: None,
        services,
        virtual_services: scope.virtual_services.clone(),
    }
}
