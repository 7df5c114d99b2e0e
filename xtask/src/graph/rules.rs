//! Who may import what. To change a line here is a decision: write its reason into
//! ARCHITECTURE.md in the same commit.

/// What one of our crates may import.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// Those of our own crates that it may import.
    pub(crate) ours: &'static [&'static str],
    /// Crates of others that must not come in with it, by whatever way.
    pub(crate) never: &'static [&'static str],
    /// Crates of others that it must not name itself.
    pub(crate) not_directly: &'static [&'static str],
    /// The only features that it may switch on in a crate of others.
    pub(crate) features: &'static [(&'static str, &'static [&'static str])],
}

/// Stands for all of our crates.
pub(crate) const ANYTHING: &[&str] = &["anything of ours"];

/// The crate that every other may use in its tests.
pub(crate) const ONLY_FOR_TESTS: &str = "mesh-test";

/// Wire formats stop at the crate that reads them: crates of others, and who of ours may name
/// them. What is under `examples/` and `benches/` is free.
pub(crate) const USERS: &[(&str, &[&str])] = &[
    // mesh-xds: its server bounds the age of connections itself.
    ("hyper", &["mesh-client", "mesh-proxy", "mesh-xds"]),
    ("prost", &["mesh-xds", "mesh-control", "xtask"]),
    ("serde-saphyr", &["mesh-istio", "mesh-xds"]),
    ("rustls", &["mesh-identity"]),
];

/// The rules for one crate.
pub(crate) fn of(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

/// What no policy crate brings in: it must fit on any `Service` of `http` types.
const NO_WIRE: &[&str] = &["hyper", "prost", "serde-saphyr", "rustls"];

const NOTHING: Rule = Rule {
    name: "",
    ours: &[],
    never: &[],
    not_directly: &[],
    features: &[],
};

const RULES: &[Rule] = &[
    // Vocabulary: whoever implements one layer outside of this workspace builds all of this.
    Rule {
        name: "mesh-core",
        never: &["hyper", "prost", "serde-saphyr", "rustls", "tower"],
        features: &[("tokio", &["sync"])],
        ..NOTHING
    },
    // Policy crates never import each other; they meet in mesh-core's Exchange.
    Rule {
        name: "mesh-route",
        ours: &["mesh-core"],
        never: NO_WIRE,
        ..NOTHING
    },
    Rule {
        name: "mesh-lb",
        ours: &["mesh-core"],
        never: NO_WIRE,
        ..NOTHING
    },
    Rule {
        name: "mesh-policy",
        ours: &["mesh-core"],
        never: NO_WIRE,
        ..NOTHING
    },
    Rule {
        name: "mesh-resilience",
        ours: &["mesh-core"],
        never: NO_WIRE,
        ..NOTHING
    },
    Rule {
        name: "mesh-telemetry",
        ours: &["mesh-core"],
        ..NOTHING
    },
    // A codec: no policy, and nothing of the mesh.
    Rule {
        name: "mesh-http1",
        never: NO_WIRE,
        ..NOTHING
    },
    // The only one that knows rustls.
    Rule {
        name: "mesh-identity",
        ours: &["mesh-core"],
        never: &["hyper", "prost", "serde-saphyr"],
        ..NOTHING
    },
    // Sources of configuration and of services.
    Rule {
        name: "mesh-xds",
        // For TLS to control planes, with a feature of its own.
        ours: &["mesh-core", "mesh-identity"],
        ..NOTHING
    },
    Rule {
        name: "mesh-istio",
        ours: &["mesh-core"],
        never: &["hyper", "prost"],
        not_directly: &["tokio"],
        ..NOTHING
    },
    Rule {
        name: "mesh-discovery",
        ours: &["mesh-core"],
        ..NOTHING
    },
    // What it gets is judged by those who will use it; the rest is a small client of HTTP.
    Rule {
        name: "mesh-keys",
        ours: &["mesh-core", "mesh-http1", "mesh-identity", "mesh-policy"],
        never: &["hyper", "prost", "serde-saphyr"],
        ..NOTHING
    },
    // Composition.
    Rule {
        name: "mesh-client",
        ours: &[
            "mesh-core",
            "mesh-http1",
            "mesh-identity",
            "mesh-discovery",
            "mesh-route",
            "mesh-lb",
            "mesh-policy",
            "mesh-resilience",
            "mesh-telemetry",
        ],
        ..NOTHING
    },
    Rule {
        name: "mesh-proxy",
        ours: &[
            "mesh-core",
            "mesh-http1",
            "mesh-identity",
            "mesh-discovery",
            "mesh-client",
            "mesh-route",
            "mesh-lb",
            "mesh-policy",
            "mesh-resilience",
            "mesh-telemetry",
            "mesh-istio",
            "mesh-keys",
            "mesh-xds",
        ],
        ..NOTHING
    },
    Rule {
        name: "mesh-control",
        ours: &[
            "mesh-core",
            "mesh-identity",
            "mesh-istio",
            "mesh-keys",
            "mesh-xds",
        ],
        never: &["mesh-client"],
        ..NOTHING
    },
    Rule {
        name: "mesh-cli",
        ours: ANYTHING,
        ..NOTHING
    },
    // Not product code.
    Rule {
        name: "mesh-test",
        ours: &["mesh-core"],
        never: NO_WIRE,
        ..NOTHING
    },
    // Judges the others from outside, as a real Envoy does the same work beside them.
    Rule {
        name: "mesh-oracle",
        ours: ANYTHING,
        ..NOTHING
    },
    Rule {
        name: "xtask",
        ..NOTHING
    },
];
