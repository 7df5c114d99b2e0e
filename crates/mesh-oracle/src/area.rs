//! What is generated: an area each, with configurations that come close to its edges.

mod actions;
pub(crate) mod balancing;
mod ejection;
mod matching;
mod objects;
mod paths;
pub(crate) mod policy;
pub(crate) mod protocol;
mod replies;
mod retries;
mod routes;
mod yaml;

pub(crate) use retries::{retried_for, retry_conditions};

use crate::config::Config;
use crate::dice::Dice;
use serde_json::{Value, json};

/// An area and what makes its configurations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub(crate) name: &'static str,
    /// A configuration with so many requests.
    pub(crate) generate: fn(&mut Dice, usize) -> Config,
    /// Its part of all configurations.
    pub(crate) share: usize,
}

pub(crate) const AREAS: &[Area] = &[
    Area {
        name: "routes",
        generate: routes::generate,
        share: 10,
    },
    Area {
        name: "actions",
        generate: actions::generate,
        share: 4,
    },
    Area {
        name: "replies",
        generate: replies::generate,
        share: 2,
    },
    Area {
        name: "protocol",
        generate: protocol::generate,
        share: 1,
    },
    Area {
        name: "retries",
        generate: retries::generate,
        share: 2,
    },
    Area {
        name: "balancing",
        generate: balancing::generate,
        share: 4,
    },
    Area {
        name: "yaml",
        generate: yaml::generate,
        share: 6,
    },
    Area {
        name: "ejection",
        generate: ejection::generate,
        share: 2,
    },
    Area {
        name: "policy",
        generate: policy::generate,
        share: 8,
    },
];

/// A cluster with these backends.
fn cluster(name: &str, backends: &[&str]) -> Value {
    let endpoints: Vec<Value> = backends
        .iter()
        .map(|backend| {
            json!({"endpoint": {"address": {"socket_address": {
                "address": "127.0.0.1", "port_value": format!("@{backend}"),
            }}}})
        })
        .collect();
    json!({
        "name": format!("${name}"),
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": format!("${name}"),
            "endpoints": [{"lb_endpoints": endpoints}],
        },
    })
}

/// The same that speaks HTTP/2.
fn cluster2(name: &str, backends: &[&str]) -> Value {
    let mut cluster = cluster(name, backends);
    cluster["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    });
    cluster
}

/// Clusters that most configurations use.
fn usual_clusters() -> Vec<Value> {
    ["a", "b", "c"]
        .iter()
        .map(|name| cluster(name, &[name]))
        .collect()
}

/// A word with the case of some letters changed.
fn other_case(dice: &mut Dice, word: &str) -> String {
    let flip = |dice: &mut Dice, c: char| {
        if !dice.chance(50) {
            c
        } else if c.is_ascii_lowercase() {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        }
    };
    word.chars().map(|c| flip(dice, c)).collect()
}
