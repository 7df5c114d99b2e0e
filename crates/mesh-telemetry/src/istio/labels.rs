//! The labels of Istio's standard metrics, from what is known of a request. Pure.

use mesh_core::model::{ServiceRef, WorkloadRef};
use mesh_core::{Flags, Name};

/// How many labels a series has.
pub(crate) const LABELS: usize = 25;

/// The names of the labels, in the order of their values in [`Labels`].
pub(crate) const NAMES: [&str; LABELS] = [
    "reporter",
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_cluster",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
    "request_protocol",
    "response_code",
    "response_flags",
    "grpc_response_status",
    "connection_security_policy",
];

/// The values of a series' labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Labels(pub(super) [Name; LABELS]);

/// Which side of a call reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reporter {
    Source,
    Destination,
}

/// What the labels are made from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) reporter: Reporter,
    pub(crate) source: Option<&'a WorkloadRef>,
    pub(crate) destination: Option<&'a WorkloadRef>,
    /// The cluster's name and what it stands for.
    pub(crate) cluster: Option<(&'a Name, &'a ServiceRef)>,
    pub(crate) outcome: Outcome,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Outcome {
    /// The HTTP status; 0 where no response began.
    pub(crate) code: u16,
    pub(crate) flags: Flags,
    pub(crate) spoken: Spoken,
    pub(crate) grpc_status: Option<u32>,
    /// The caller's connection is encrypted.
    pub(crate) tls: bool,
}

/// What is spoken: the `request_protocol` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Spoken {
    Http,
    Grpc,
    Tcp,
}

const UNKNOWN: &str = "unknown";

/// Labels that connections which are passed on as they are do not have.
const ONLY_HTTP: [&str; 2] = ["response_code", "grpc_response_status"];

// === impl Reporter ===

impl Reporter {
    fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

// === impl Labels ===

impl Labels {
    pub(crate) fn of(facts: &Facts<'_>) -> Self {
        let unknown = Name::from(UNKNOWN);
        let known = |name: &Name| {
            if name.is_empty() {
                unknown.clone()
            } else {
                name.clone()
            }
        };
        let workload = |workload: Option<&WorkloadRef>| {
            let none = WorkloadRef::default();
            let it = workload.unwrap_or(&none);
            // An identity is one only where the connection proved it.
            let principal = if facts.outcome.tls {
                &it.principal
            } else {
                &none.principal
            };
            [
                &it.name,
                &it.canonical_service,
                &it.canonical_revision,
                &it.namespace,
                principal,
                &it.app,
                &it.version,
                &it.cluster,
            ]
            .map(known)
        };
        let [
            s_name,
            s_service,
            s_revision,
            s_namespace,
            s_principal,
            s_app,
            s_version,
            s_cluster,
        ] = workload(facts.source);
        let [
            d_name,
            d_service,
            d_revision,
            d_namespace,
            d_principal,
            d_app,
            d_version,
            d_cluster,
        ] = workload(facts.destination);
        let [service, service_name, service_namespace] = service(facts).map(|name| known(&name));
        let outcome = facts.outcome;
        let grpc_status = match outcome.grpc_status {
            Some(status) if outcome.spoken == Spoken::Grpc => status.to_string(),
            _ => String::new(),
        };
        // The source does not know how its own caller's connection relates to the one upstream.
        let security = match facts.reporter {
            Reporter::Source => UNKNOWN,
            Reporter::Destination if outcome.tls => "mutual_tls",
            Reporter::Destination => "none",
        };
        Self([
            facts.reporter.name().into(),
            s_name,
            s_service,
            s_revision,
            s_namespace,
            s_principal,
            s_app,
            s_version,
            s_cluster,
            d_name,
            d_namespace,
            d_principal,
            d_app,
            d_version,
            d_service,
            d_revision,
            d_cluster,
            service,
            service_name,
            service_namespace,
            match outcome.spoken {
                Spoken::Http => "http",
                Spoken::Grpc => "grpc",
                Spoken::Tcp => "tcp",
            }
            .into(),
            outcome.code.to_string().into(),
            outcome.flags.to_string().into(),
            grpc_status.into(),
            security.into(),
        ])
    }

    /// The labels of the series that takes what finds no room.
    pub(crate) fn overflow(reporter: Reporter) -> Self {
        let mut labels: [Name; LABELS] = std::array::from_fn(|_| "overflow".into());
        labels[0] = reporter.name().into();
        Self(labels)
    }

    /// Names and values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        NAMES.into_iter().zip(self.0.iter().map(Name::as_str))
    }

    /// Names and values, without those that only HTTP has.
    pub(crate) fn of_tcp(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.iter().filter(|(name, _)| !ONLY_HTTP.contains(name))
    }
}

/// Host, short name and namespace of the destination service.
fn service(facts: &Facts<'_>) -> [Name; 3] {
    let Some((cluster, service)) = facts.cluster else {
        return Default::default();
    };
    // Istio names these after the cluster: nothing else is known of where they lead.
    if matches!(
        cluster.as_str(),
        "BlackHoleCluster" | "PassthroughCluster" | "InboundPassthroughCluster"
    ) {
        return [
            service.host.clone(),
            cluster.clone(),
            service.namespace.clone(),
        ];
    }
    let name = if service.name.is_empty() {
        service.host.split('.').next().unwrap_or("").into()
    } else {
        service.name.clone()
    };
    let namespace = match facts.destination {
        Some(workload) if service.namespace.is_empty() => workload.namespace.clone(),
        _ => service.namespace.clone(),
    };
    [service.host.clone(), name, namespace]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(name: &str) -> WorkloadRef {
        let mut workload = WorkloadRef::default();
        workload.name = name.into();
        workload.namespace = format!("{name}-ns").into();
        workload.canonical_service = format!("{name}-service").into();
        workload
    }

    fn outcome() -> Outcome {
        Outcome {
            code: 200,
            flags: Flags::default(),
            spoken: Spoken::Http,
            grpc_status: None,
            tls: false,
        }
    }

    fn value<'a>(labels: &'a Labels, name: &str) -> &'a str {
        labels.iter().find(|(known, _)| *known == name).unwrap().1
    }

    #[test]
    fn each_workload_and_the_service_fill_their_own_labels() {
        let (source, destination) = (workload("page"), workload("reviews-v1"));
        let service = ServiceRef {
            host: "reviews.default.svc.cluster.local".into(),
            namespace: "default".into(),
            ..ServiceRef::default()
        };
        let labels = Labels::of(&Facts {
            reporter: Reporter::Source,
            source: Some(&source),
            destination: Some(&destination),
            cluster: Some((&"c".into(), &service)),
            outcome: Outcome {
                flags: Flags::UF,
                code: 503,
                ..outcome()
            },
        });
        for (name, expected) in [
            ("reporter", "source"),
            ("source_workload", "page"),
            ("source_workload_namespace", "page-ns"),
            ("source_canonical_service", "page-service"),
            ("source_app", "unknown"),
            ("destination_workload", "reviews-v1"),
            ("destination_workload_namespace", "reviews-v1-ns"),
            ("destination_canonical_service", "reviews-v1-service"),
            ("destination_canonical_revision", "unknown"),
            ("destination_service", "reviews.default.svc.cluster.local"),
            ("destination_service_name", "reviews"),
            ("destination_service_namespace", "default"),
            ("request_protocol", "http"),
            ("response_code", "503"),
            ("response_flags", "UF"),
            ("grpc_response_status", ""),
            ("connection_security_policy", "unknown"),
        ] {
            assert_eq!(value(&labels, name), expected, "{name}");
        }
    }

    #[test]
    fn without_a_cluster_the_destination_is_unknown() {
        let source = workload("page");
        let labels = Labels::of(&Facts {
            reporter: Reporter::Source,
            source: Some(&source),
            destination: None,
            cluster: None,
            outcome: outcome(),
        });
        for (name, value) in labels
            .iter()
            .filter(|(name, _)| name.starts_with("destination"))
        {
            assert_eq!(value, "unknown", "{name}");
        }
    }

    #[test]
    fn a_cluster_without_a_service_is_known_by_its_name_where_istio_does_so() {
        let none = ServiceRef::default();
        for (name, expected) in [
            ("PassthroughCluster", "PassthroughCluster"),
            ("other", "unknown"),
        ] {
            let labels = Labels::of(&Facts {
                reporter: Reporter::Source,
                source: None,
                destination: None,
                cluster: Some((&name.into(), &none)),
                outcome: outcome(),
            });
            assert_eq!(value(&labels, "destination_service_name"), expected);
            assert_eq!(value(&labels, "destination_service"), "unknown");
        }
    }

    #[test]
    fn a_grpc_status_is_told_of_grpc_requests_only_and_security_by_the_destination_only() {
        let facts = |reporter, grpc, tls| Facts {
            reporter,
            source: None,
            destination: None,
            cluster: None,
            outcome: Outcome {
                spoken: if grpc { Spoken::Grpc } else { Spoken::Http },
                tls,
                grpc_status: Some(14),
                ..outcome()
            },
        };
        let labels = Labels::of(&facts(Reporter::Destination, true, true));
        assert_eq!(value(&labels, "grpc_response_status"), "14");
        assert_eq!(value(&labels, "request_protocol"), "grpc");
        assert_eq!(value(&labels, "connection_security_policy"), "mutual_tls");
        let labels = Labels::of(&facts(Reporter::Destination, false, false));
        assert_eq!(value(&labels, "grpc_response_status"), "");
        assert_eq!(value(&labels, "connection_security_policy"), "none");
        let labels = Labels::of(&facts(Reporter::Source, false, true));
        assert_eq!(value(&labels, "connection_security_policy"), "unknown");
    }

    #[test]
    fn names_are_unique() {
        let mut names = NAMES.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), LABELS);
    }
}
