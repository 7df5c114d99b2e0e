//! Endpoints from pods and workload entries.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mesh_core::Name;
use mesh_core::discovery::Instance;
use mesh_core::model::{Address, Endpoint, Health, Locality, UnixPath, WorkloadRef};

use super::names;
use crate::node::parse_locality;
use crate::spec::{Meta, WorkloadEntry};

/// The label by which a workload says itself what it is called.
const NAME: &str = "service.istio.io/workload-name";

/// What an endpoint says of the workload behind it.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    labels: Arc<BTreeMap<Name, Name>>,
    reference: Arc<WorkloadRef>,
    locality: Locality,
    weight: u32,
}

impl Workload {
    /// A workload with this name, which may be that of one of its pods.
    pub(super) fn new(
        name: &str,
        namespace: &str,
        labels: &BTreeMap<String, String>,
        account: &str,
        trust_domain: &str,
    ) -> Self {
        let label = |keys: &[&str]| {
            let found = keys.iter().find_map(|key| labels.get(*key));
            found.map(Name::from)
        };
        let name = workload_name(name, labels);
        let mut reference = WorkloadRef::default();
        reference.app = label(&["app"]).unwrap_or_default();
        reference.version = label(&["version"]).unwrap_or_default();
        reference.canonical_service = label(&[
            "service.istio.io/canonical-name",
            "app.kubernetes.io/name",
            "app",
        ])
        .unwrap_or_else(|| Name::from(name));
        reference.canonical_revision = label(&[
            "service.istio.io/canonical-revision",
            "app.kubernetes.io/version",
            "version",
        ])
        .unwrap_or_else(|| Name::from("latest"));
        if !account.is_empty() {
            reference.principal = Name::from(format!(
                "spiffe://{trust_domain}/ns/{namespace}/sa/{account}"
            ));
        }
        reference.name = Name::from(name);
        reference.namespace = Name::from(namespace);
        reference.cluster = Name::from("Kubernetes");
        Self {
            labels: Arc::new(names(labels)),
            reference: Arc::new(reference),
            locality: Locality::default(),
            weight: 1,
        }
    }

    /// A workload described by hand, with this name and these labels; `meta` is its own object,
    /// or the service entry that it stands in.
    pub(super) fn of_entry(
        name: &str,
        meta: &Meta,
        entry: &WorkloadEntry,
        labels: &BTreeMap<String, String>,
        trust_domain: &str,
    ) -> Self {
        let account = &entry.service_account;
        let mut workload = Self::new(name, &meta.namespace, labels, account, trust_domain);
        workload.locality = parse_locality(&entry.locality);
        workload.weight = entry.weight.max(1);
        workload
    }

    pub(super) fn in_locality(mut self, locality: Locality) -> Self {
        self.locality = locality;
        self
    }

    /// What is said of a zone holds where nothing better is known.
    pub(super) fn or_in_zone(mut self, zone: &str) -> Self {
        if self.locality == Locality::default() {
            self.locality.zone = Name::from(zone);
        }
        self
    }

    pub(super) fn at(&self, service_port: u16, address: Address, health: Health) -> Instance {
        let mut endpoint = Endpoint::new(address);
        endpoint.weight = self.weight;
        endpoint.health = health;
        endpoint.workload = Arc::clone(&self.reference);
        endpoint.labels = Arc::clone(&self.labels);
        let mut instance = Instance::new(service_port, Arc::new(endpoint));
        instance.locality = self.locality.clone();
        instance
    }
}

/// An address that is an IP address, a host name, or a Unix domain socket, which has no port.
pub(super) fn address(host: &str, port: u16) -> Address {
    if let Some(Ok(path)) = UnixPath::from_url(host) {
        return Address::Unix(path);
    }
    match host.parse::<IpAddr>() {
        Ok(ip) => Address::Socket(SocketAddr::new(ip, port)),
        Err(_) => Address::Host(Name::from(host), port),
    }
}

/// A workload is called as its label says, else as its deployment is, whose pods are called
/// `<deployment>-<template hash>-<random>`.
pub(crate) fn workload_name<'a>(pod: &'a str, labels: &'a BTreeMap<String, String>) -> &'a str {
    let said = labels.get(NAME).filter(|name| !name.is_empty());
    if let Some(said) = said {
        return said;
    }
    labels
        .get("pod-template-hash")
        .and_then(|hash| {
            pod.rsplit_once('-')?
                .0
                .strip_suffix(hash.as_str())?
                .strip_suffix('-')
        })
        .filter(|name| !name.is_empty())
        .unwrap_or(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_of_a_deployment_is_called_after_it() {
        let labels = BTreeMap::from([("pod-template-hash".to_owned(), "5d8f".to_owned())]);
        assert_eq!(
            workload_name("reviews-v1-5d8f-abcde", &labels),
            "reviews-v1"
        );
        assert_eq!(workload_name("reviews-v1-x", &labels), "reviews-v1-x");
        assert_eq!(
            workload_name("reviews-v1-5d8f-abcde", &BTreeMap::new()),
            "reviews-v1-5d8f-abcde"
        );
    }

    #[test]
    fn a_label_says_what_a_workload_is_called() {
        let labels = |name: &str| {
            BTreeMap::from([
                ("pod-template-hash".to_owned(), "5d8f".to_owned()),
                (NAME.to_owned(), name.to_owned()),
            ])
        };
        assert_eq!(workload_name("vm-7", &labels("shop")), "shop");
        assert_eq!(workload_name("a-5d8f-x", &labels("")), "a");
    }

    #[test]
    fn a_locality_has_up_to_three_parts() {
        assert_eq!(parse_locality("r1/z1").to_string(), "r1/z1/");
        assert_eq!(parse_locality("").to_string(), "//");
    }
}
