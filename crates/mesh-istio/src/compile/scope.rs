//! What a sidecar can see: everything, or what a `Sidecar` resource leaves of it.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::model::UnixPath;

use super::Compiler;
use crate::names::{complete, covers, overlap};
use crate::registry::{Entry, contains};
use crate::spec::Bind;
use crate::spec::kubernetes::Protocol;
use crate::spec::sidecar::{Egress, EgressPort, OutboundPolicy};
use crate::spec::{Meta, Sidecar, VirtualService};
use crate::world::World;

/// What one outbound listener can reach.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    /// The port and address of its own, and where it says so.
    pub(super) listener: Option<(&'a Meta, &'a Egress, EgressPort)>,
    pub(super) bind: Option<IpAddr>,
    pub(super) unix: Option<&'a UnixPath>,
    pub(super) services: Vec<&'a Arc<Entry>>,
    pub(super) virtual_services: Vec<(&'a Meta, &'a VirtualService)>,
}

/// The `Sidecar` for a workload: by its labels, then its namespace's, then the root's.
pub(super) fn sidecar<'a>(compiler: &Compiler<'a>) -> Option<(&'a Meta, &'a Sidecar)> {
    let (world, viewer): (&'a World, _) = (compiler.world, &compiler.viewer);
    let mut all: Vec<_> = world.sidecars().collect();
    all.sort_by_key(|(meta, _)| meta.seniority());
    let own = |meta: &Meta| meta.namespace == viewer.namespace();
    let root = |meta: &Meta| meta.namespace == compiler.mesh.root_namespace;
    let selected = all.iter().find(|(meta, spec)| {
        own(meta)
            && spec
                .selector
                .as_ref()
                .is_some_and(|labels| contains(viewer.labels(), labels))
    });
    let plain = |mine: &dyn Fn(&Meta) -> bool| {
        all.iter()
            .find(|(meta, spec)| mine(meta) && spec.selector.is_none())
    };
    selected
        .or_else(|| plain(&own))
        .or_else(|| plain(&root))
        .copied()
}

/// One scope per egress listener; the last has no port of its own and is always there.
pub(super) fn scopes<'a>(
    compiler: &Compiler<'a>,
    sidecar: Option<(&'a Meta, &'a Sidecar)>,
) -> Vec<Scope<'a>> {
    let everything = everything(compiler);
    let Some((meta, spec)) = sidecar.filter(|(_, spec)| !spec.egress.is_empty()) else {
        return vec![everything];
    };
    // A root namespace's Sidecar stands for one in the workload's own namespace.
    let namespace = compiler.viewer.namespace();
    let mut scopes: Vec<Scope<'a>> = spec
        .egress
        .iter()
        .map(|egress| {
            let mut scope = narrowed(&everything, egress, namespace);
            scope.listener = egress.port.map(|port| (meta, egress, port));
            match &egress.bind {
                Some(Bind::Ip(ip)) => scope.bind = Some(*ip),
                Some(Bind::Unix(path)) => scope.unix = Some(path),
                None => {}
            }
            let all = |port: &EgressPort| port.proxy || scope.unix.is_some();
            if let Some(port) = egress.port.filter(|port| !all(port)) {
                let http = port.protocol.is_http();
                let serves = |entry: &&Arc<Entry>| {
                    let fits = |(own, spoken): (u16, Protocol)| {
                        own == port.number && spoken.is_http() >= http
                    };
                    entry.ports().any(fits)
                };
                scope.services.retain(serves);
            }
            scope
        })
        .collect();
    if scopes.last().is_some_and(|scope| scope.listener.is_some()) {
        // Nothing was said about other ports: what any listener reaches, the proxy reaches.
        let mut rest = Scope {
            listener: None,
            bind: None,
            unix: None,
            services: Vec::new(),
            virtual_services: Vec::new(),
        };
        let (mut hosts, mut names) = (HashSet::new(), HashSet::new());
        for egress in &spec.egress {
            let part = narrowed(&everything, egress, namespace);
            let fresh = part.services.into_iter();
            rest.services
                .extend(fresh.filter(|entry| hosts.insert(entry.host())));
            let fresh = part.virtual_services.into_iter();
            rest.virtual_services
                .extend(fresh.filter(|(meta, _)| names.insert((&meta.namespace, &meta.name))));
        }
        rest.virtual_services
            .sort_by_key(|(meta, _)| meta.seniority());
        scopes.push(rest);
    }
    scopes
}

/// Whether unknown hosts are let through.
pub(super) fn outbound_policy(
    compiler: &Compiler<'_>,
    sidecar: Option<(&Meta, &Sidecar)>,
) -> OutboundPolicy {
    sidecar
        .and_then(|(_, spec)| spec.outbound)
        .unwrap_or(compiler.mesh.outbound)
}

fn everything<'a>(compiler: &Compiler<'a>) -> Scope<'a> {
    Scope {
        listener: None,
        bind: None,
        unix: None,
        services: services(compiler),
        virtual_services: virtual_services(compiler)
            .into_iter()
            .filter(|(_, spec)| spec.in_mesh())
            .collect(),
    }
}

/// Every service that the node's namespace sees, with the addresses that the node knows it by.
pub(super) fn services<'a>(compiler: &Compiler<'a>) -> Vec<&'a Arc<Entry>> {
    let services: &'a crate::registry::Services = compiler.services;
    let all = services
        .iter()
        .filter(|entry| entry.shows(compiler.viewer.namespace()));
    if !compiler.viewer.uses_allocated() {
        return all.collect();
    }
    let v6 = compiler.viewer.speaks_v6();
    all.map(|entry| match services.allocated(entry.host()) {
        Some(allocated) => allocated.entry(v6),
        None => entry,
    })
    .collect()
}

/// Every virtual service that the node's namespace sees, oldest first.
pub(super) fn virtual_services<'a>(compiler: &Compiler<'a>) -> Vec<(&'a Meta, &'a VirtualService)> {
    let world: &'a World = compiler.world;
    let usual = &compiler.mesh.virtual_service_export;
    let mut all: Vec<_> = world
        .virtual_services()
        .filter(|(meta, spec)| {
            let visibility = spec.export_to.as_ref().unwrap_or(usual);
            visibility.shows(&meta.namespace, compiler.viewer.namespace())
        })
        .collect();
    all.sort_by_key(|(meta, _)| meta.seniority());
    all
}

fn narrowed<'a>(all: &Scope<'a>, egress: &Egress, namespace: &str) -> Scope<'a> {
    let takes = |exclude: bool, owner: &str, fits: &dyn Fn(&str) -> bool| {
        egress
            .hosts
            .iter()
            .filter(|host| host.exclude == exclude)
            .any(|host| {
                let mine = match host.namespace.as_str() {
                    "*" => true,
                    "." => owner == namespace,
                    "~" => false,
                    named => owner == named,
                };
                mine && fits(&host.host)
            })
    };
    let service = |entry: &&&Arc<Entry>| {
        let fits = |host: &str| covers(host, entry.host());
        takes(false, entry.namespace(), &fits) && !takes(true, entry.namespace(), &fits)
    };
    let virtual_service = |(meta, spec): &&(&Meta, &VirtualService)| {
        let fits = |host: &str| {
            spec.hosts
                .iter()
                .any(|own| overlap(host, &complete(own, &meta.namespace)))
        };
        takes(false, &meta.namespace, &fits)
    };
    Scope {
        listener: None,
        bind: None,
        unix: None,
        services: all.services.iter().filter(service).copied().collect(),
        virtual_services: all
            .virtual_services
            .iter()
            .filter(virtual_service)
            .copied()
            .collect(),
    }
}
