//! What may differ from istiod, and why. `docs/compatibility-istiod.md` says the same in prose.

use crate::excuse::Excuse;
use crate::excuse::Verdict::{self, Deliberate, NotYet};
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
    Excuse {
        verdict: NotYet(5),
        why: "consistent hashing",
        cases: &["10", "18", "19", "23"],
        node: Some(Sidecar),
        places: &[(Routes, "80", "*.route.hash_policy")],
    },
    Excuse {
        verdict: NotYet(5),
        why: "consistent hashing; retries may go to the same host",
        cases: &["10", "23"],
        node: Some(Sidecar),
        places: &[(Routes, "80", "*.retry_policy.retry_host_predicate")],
    },
    Excuse {
        verdict: NotYet(5),
        why: "consistent hashing",
        cases: &["10", "18"],
        node: Some(Sidecar),
        places: &[
            (Cluster, "outbound|80||*", "lb_policy"),
            (Cluster, "outbound|80||*", "ring_hash_lb_config"),
        ],
    },
    Excuse {
        verdict: NotYet(5),
        why: "consistent hashing",
        cases: &["19"],
        node: Some(Sidecar),
        places: &[
            (Cluster, "outbound|80||m*", "lb_policy"),
            (Cluster, "outbound|80||m*", "maglev_lb_config"),
        ],
    },
    Excuse {
        verdict: NotYet(5),
        why: "consistent hashing",
        cases: &["23"],
        node: Some(Sidecar),
        places: &[
            (Cluster, "outbound|80|v2|*", "lb_policy"),
            (Cluster, "outbound|80|v2|*", "ring_hash_lb_config"),
        ],
    },
    Excuse {
        verdict: NotYet(5),
        why: "locality",
        cases: &["20"],
        node: Some(Sidecar),
        places: &[
            (
                Cluster,
                "outbound|80||*",
                "common_lb_config.locality_weighted_lb_config",
            ),
            (Endpoints, "outbound|80||*", "endpoints"),
        ],
    },
    Excuse {
        verdict: NotYet(5),
        why: "warm-up",
        cases: &["21"],
        node: Some(Sidecar),
        places: &[(Cluster, "outbound|80||*", "*_lb_config")],
    },
    Excuse {
        verdict: NotYet(7),
        why: "chains of the mesh's own mutual TLS",
        cases: &["00", "33", "34", "35", "36", "40", "44"],
        node: Some(Sidecar),
        places: &[(Listener, "virtualInbound", "mutual_tls")],
    },
    Excuse {
        verdict: NotYet(7),
        why: "what is said of callers' certificates",
        cases: &["00", "16", "28", "29", "32", "33", "35", "36", "40", "44"],
        node: None,
        places: &[
            (Listener, "*", "*.forward_client_cert_details"),
            (Listener, "*", "*.set_current_client_cert_details"),
        ],
    },
    Excuse {
        verdict: NotYet(7),
        why: "PeerAuthentication, AuthorizationPolicy and RequestAuthentication",
        cases: &["34", "35", "36"],
        node: Some(Sidecar),
        places: &[
            (Listener, "virtualInbound", "filter_chains"),
            (Listener, "virtualInbound", "listener_filters"),
        ],
    },
    Excuse {
        verdict: NotYet(7),
        why: "ISTIO_MUTUAL",
        cases: &["25"],
        node: Some(Sidecar),
        places: &[(
            Cluster,
            "outbound|80||istiom.shop.svc.cluster.local",
            "transport_socket",
        )],
    },
    Excuse {
        verdict: NotYet(7),
        why: "mutual TLS by itself",
        cases: &["40"],
        node: Some(Sidecar),
        places: &[
            (Cluster, "outbound|*", "transport_socket_matches"),
            (
                Cluster,
                "outbound|443||kubernetes.default.svc.cluster.local",
                "",
            ),
        ],
    },
];

/// Objects that are refused whole: the case, the object, and why.
pub(crate) const REFUSED: &[(&str, &str, Verdict)] = &[
    ("10", "DestinationRule sticky.shop", NotYet(5)),
    ("18", "DestinationRule c.shop", NotYet(5)),
    ("18", "DestinationRule c0.shop", NotYet(5)),
    ("18", "DestinationRule cn.shop", NotYet(5)),
    ("18", "DestinationRule h.shop", NotYet(5)),
    ("18", "DestinationRule ip.shop", NotYet(5)),
    ("18", "DestinationRule q.shop", NotYet(5)),
    ("19", "DestinationRule m.shop", NotYet(5)),
    ("19", "DestinationRule mt.shop", NotYet(5)),
    ("20", "DestinationRule dist.shop", NotYet(5)),
    ("20", "DestinationRule fail.shop", NotYet(5)),
    ("20", "DestinationRule loff.shop", NotYet(5)),
    ("20", "DestinationRule none.shop", NotYet(5)),
    ("20", "DestinationRule prio.shop", NotYet(5)),
    ("21", "DestinationRule old.shop", NotYet(5)),
    ("21", "DestinationRule rnd.shop", NotYet(5)),
    ("21", "DestinationRule w.shop", NotYet(5)),
    ("21", "DestinationRule wd.shop", NotYet(5)),
    ("23", "DestinationRule catalog.shop", NotYet(5)),
    ("25", "DestinationRule istiom.shop", NotYet(7)),
    ("34", "PeerAuthentication client.shop", NotYet(7)),
    ("34", "PeerAuthentication default.shop", NotYet(7)),
    ("35", "AuthorizationPolicy allow-some.shop", NotYet(7)),
    ("35", "AuthorizationPolicy audit-some.shop", NotYet(7)),
    ("35", "AuthorizationPolicy deny-some.shop", NotYet(7)),
    ("35", "AuthorizationPolicy nothing.pay", NotYet(7)),
    ("36", "AuthorizationPolicy need-jwt.shop", NotYet(7)),
    ("36", "RequestAuthentication jwt.shop", NotYet(7)),
    ("40", "PeerAuthentication paoff.shop", NotYet(7)),
    ("40", "PeerAuthentication strict.shop", NotYet(7)),
    ("43", "DestinationRule md.shop", Deliberate),
    ("43", "VirtualService catalog.shop", Deliberate),
];
