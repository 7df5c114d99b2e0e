//! What differs between two worlds, and how much of it has to be compiled again.

use crate::inputs::{Inputs, ip};
use mesh_istio::World;
use mesh_istio::spec::service_entry::Resolution;
use mesh_istio::spec::{Kind, Object, Spec};
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

/// What differs.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Objects added, changed and removed, by kind.
    pub(crate) counts: BTreeMap<(Kind, &'static str), u64>,
    /// Nothing but endpoints differs, and no object moved in its file.
    pub(crate) endpoints_only: bool,
    /// Pods have other names below those of headless services, or such pods come or go.
    pub(crate) renames_pods: bool,
}

type Key<'a> = (Kind, &'a str, &'a str);

// === impl Difference ===

impl Difference {
    pub(crate) fn of(before: &World, now: &World) -> Self {
        let mut found = Self {
            counts: BTreeMap::new(),
            endpoints_only: true,
            renames_pods: false,
        };
        let old = by_key(before);
        let new = by_key(now);
        for (key, object) in &new {
            match old.get(key) {
                None => {
                    found.renames_pods |= name_below(object).is_some();
                    found.note("add", object, is_endpoints(object));
                }
                Some(was) if Arc::ptr_eq(was, object) => {}
                // Lines moved, in it or before it: origins have to follow.
                Some(was) if was == object => found.endpoints_only &= is_endpoints(object),
                Some(was) => {
                    found.renames_pods |= name_below(was) != name_below(object);
                    found.note("update", object, differ_in_endpoints(was, object));
                }
            }
        }
        for (key, object) in &old {
            if !new.contains_key(key) {
                found.renames_pods |= name_below(object).is_some();
                found.note("delete", object, is_endpoints(object));
            }
        }
        // Nothing differs: but the files were read again for some reason, lines moved for one.
        found.endpoints_only &= !found.counts.is_empty();
        found
    }

    fn note(&mut self, event: &'static str, object: &Object, endpoints: bool) {
        *self.counts.entry((object.meta.kind, event)).or_default() += 1;
        self.endpoints_only &= endpoints;
    }
}

/// The addresses of the endpoints that came or left; `None` if endpoints changed that are not
/// sent on their own.
pub(crate) fn moved_addresses(before: &Inputs, now: &Inputs) -> Option<HashSet<IpAddr>> {
    let mut moved = HashSet::new();
    let mut count = 0;
    for known in now.moved(before) {
        count += 1;
        let was = before.services.get(&known.service.id.host)?;
        let old: HashSet<IpAddr> = was.instances.iter().filter_map(ip).collect();
        let new: HashSet<IpAddr> = known.instances.iter().filter_map(ip).collect();
        moved.extend(old.symmetric_difference(&new));
    }
    let others = now.services.iter().filter(|(host, known)| {
        let was = before.services.get(*host);
        was.is_none_or(|was| !Arc::ptr_eq(&was.instances, &known.instances))
    });
    (others.count() == count).then_some(moved)
}

fn by_key(world: &World) -> BTreeMap<Key<'_>, &Arc<Object>> {
    let each = world.objects().map(|object| {
        let meta = &object.meta;
        let key = (meta.kind, meta.namespace.as_str(), meta.name.as_str());
        (key, object)
    });
    each.collect()
}

fn is_there(one: &Object, other: &Object) -> bool {
    one.meta.file == other.meta.file && one.meta.at == other.meta.at
}

/// What says which name a pod has below that of a headless service, and what for: subdomain,
/// hostname (else its own name) and addresses.
fn name_below(object: &Object) -> Option<(&str, &str, &[IpAddr])> {
    let Spec::Pod(pod) = &object.spec else {
        return None;
    };
    let named = !pod.subdomain.is_empty();
    named.then_some((&pod.subdomain, &pod.hostname, &pod.addresses))
}

/// Whether an object only gives endpoints to services.
fn is_endpoints(object: &Object) -> bool {
    match &object.spec {
        Spec::Endpoints(_) | Spec::EndpointSlice(_) | Spec::Pod(_) => true,
        // It may describe a node.
        Spec::WorkloadEntry(_) => {
            let mut keys = object.meta.annotations.keys();
            !keys.any(|key| key.starts_with("mesh-rs.dev/"))
        }
        _ => false,
    }
}

fn differ_in_endpoints(was: &Object, now: &Object) -> bool {
    match (&was.spec, &now.spec) {
        (Spec::ServiceEntry(old), Spec::ServiceEntry(new)) => {
            let mut old = old.clone();
            old.endpoints.clone_from(&new.endpoints);
            was.meta == now.meta
                && is_there(was, now)
                && old == *new
                && new.resolution == Resolution::Static
        }
        _ => is_endpoints(was) && is_endpoints(now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_istio::Files;

    const SERVICE: &str =
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}\n---\n";

    fn entry(address: &str, more: &str) -> String {
        format!(
            "{SERVICE}{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: \
             w{more}}}, spec: {{address: {address}}}}}"
        )
    }

    fn external(hosts: &str, address: &str, resolution: &str) -> String {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {{name: e}}, \
             spec: {{hosts: [{hosts}], resolution: {resolution}, ports: [{{number: 80, name: \
             http, protocol: HTTP}}], endpoints: [{{address: {address}}}]}}}}"
        )
    }

    fn only_endpoints(before: &str, now: &str) -> bool {
        let read = |text: &str| {
            let mut world = World::default();
            let findings = world.update(&Files::from_text("a.yaml", text));
            assert!(findings.is_empty(), "{findings:?}");
            world
        };
        let (before, mut now) = (read(before), read(now));
        now.settle(&before);
        Difference::of(&before, &now).endpoints_only
    }

    #[test]
    fn only_what_cannot_change_anything_else_is_endpoints_only() {
        let one = entry("10.0.0.1", "");
        assert!(only_endpoints(&one, &entry("10.0.0.2", "")));
        assert!(only_endpoints(&one, SERVICE), "removed");
        assert!(!only_endpoints(&one, &one), "lines may have moved");
        let moved = format!("# moved\n{}", entry("10.0.0.2", ""));
        assert!(!only_endpoints(&one, &moved), "lines did move");
        let node = ", annotations: {mesh-rs.dev/base-port: '20100'}";
        assert!(
            !only_endpoints(&one, &entry("10.0.0.1", node)),
            "it describes a node"
        );
        assert!(!only_endpoints(&one, &one.replace("port: 80", "port: 81")));
    }

    #[test]
    fn endpoints_within_a_service_entry_are_endpoints_too() {
        let one = external("a.b", "10.0.0.1", "STATIC");
        assert!(only_endpoints(&one, &external("a.b", "10.0.0.2", "STATIC")));
        assert!(!only_endpoints(
            &one,
            &external("a.c", "10.0.0.2", "STATIC")
        ));
        let dns = external("a.b", "x.y", "DNS");
        assert!(
            !only_endpoints(&dns, &external("a.b", "x.z", "DNS")),
            "they travel in clusters"
        );
    }
}
