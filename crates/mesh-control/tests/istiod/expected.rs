//! What may differ from istiod, and why. `docs/compatibility-istiod.md` says the same in prose.

use crate::excuse::Excuse;
use crate::excuse::Verdict::{self, Deliberate};
use crate::recorded::Kind::{Cluster, Endpoints, Listener, Routes};
use crate::recorded::Node::Sidecar;

/// Differences; the first entry that covers one decides.
pub(crate) const EXCUSES: &[Excuse] = &[
    Excuse {
        verdict: Deliberate,
        why: "the cluster without endpoints is told so like any other",
        cases: &["00"],
        node: None,
        places: &[
            (Cluster, "BlackHoleCluster", "type"),
            (Cluster, "BlackHoleCluster", "eds_cluster_config"),
            (Endpoints, "BlackHoleCluster", ""),
        ],
    },
    Excuse {
        verdict: Deliberate,
        why: "what istioctl validate refuses, we refuse",
        cases: &["43"],
        node: Some(Sidecar),
        places: &[
            (Routes, "80", "*.routes"),
            (
                Cluster,
                "outbound|80||md.shop.svc.cluster.local",
                "lb_policy",
            ),
        ],
    },
    Excuse {
        verdict: Deliberate,
        why: "how many connections are accepted at once is left to the proxy",
        cases: &[
            "00", "16", "27", "28", "29", "30", "31", "32", "33", "34", "35", "36", "40", "44",
        ],
        node: None,
        places: &[
            (
                Listener,
                "0.0.0.0_*",
                "max_connections_to_accept_per_socket_event",
            ),
            (
                Listener,
                "virtual*",
                "max_connections_to_accept_per_socket_event",
            ),
        ],
    },
    Excuse {
        verdict: Deliberate,
        why: "names are looked up by whatever resolver the proxy has",
        cases: &["26"],
        node: Some(Sidecar),
        places: &[(Cluster, "outbound|*", "typed_dns_resolver_config")],
    },
    Excuse {
        verdict: Deliberate,
        why: "how long an original destination is remembered is left to the proxy",
        cases: &["33", "34", "35", "36", "40"],
        node: Some(Sidecar),
        places: &[(Cluster, "inbound|*", "cleanup_interval")],
    },
];

/// Objects that are refused whole: the case, the object, and why.
pub(crate) const REFUSED: &[(&str, &str, Verdict)] = &[
    ("43", "DestinationRule md.shop", Deliberate),
    ("43", "VirtualService catalog.shop", Deliberate),
];
