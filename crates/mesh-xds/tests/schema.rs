//! The rules of Envoy's messages, over whole bootstraps: what we refuse, Envoy refuses.
//!
//! Each case says where we find the fault. With `MESH_XDS_ENVOY=/path/to/envoy` the same
//! configurations go to a real Envoy too, which has to name the same field.

#![cfg(feature = "json")]

use std::process::Command;

use mesh_xds::{json::Codec, schema};

#[path = "schema/cases.rs"]
mod cases;

use cases::{Case, cases_of_clusters, cases_of_listeners, cases_of_routes};

const BOOTSTRAP: &str = "envoy.config.bootstrap.v3.Bootstrap";
fn cases() -> Vec<Case> {
    let mut cases = cases_of_clusters();
    cases.extend(cases_of_listeners());
    cases.extend(cases_of_routes());
    cases
}

#[test]
fn the_first_broken_rule_is_found_where_it_is() {
    for case in cases() {
        let bytes = Codec::new()
            .from_yaml(BOOTSTRAP, &case.yaml)
            .expect(&case.yaml);
        let found = schema::check(BOOTSTRAP, &bytes);
        let path = found.as_ref().err().map(|error| error.path());
        assert_eq!(path, case.fault.as_deref(), "{found:?} in {}", case.yaml);
    }
}

#[test]
fn envoy_refuses_the_same_fields() {
    let Ok(envoy) = std::env::var("MESH_XDS_ENVOY") else {
        return;
    };
    let mut differences = Vec::new();
    for case in cases() {
        let output = Command::new(&envoy)
            .args(["--mode", "validate", "--config-yaml", &case.yaml])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        let agrees = match case.field() {
            // E.g. "ClusterValidationError.ConnectTimeout: value must be …"
            Some(field) => {
                let oneof = case
                    .fault
                    .as_ref()
                    .and_then(|fault| fault.rsplit('.').next());
                text.contains(&format!("ValidationError.{field}"))
                    || oneof.is_some_and(|name| text.contains(&format!("field: \"{name}\"")))
            }
            None => output.status.success(),
        };
        if !agrees {
            let last = text.lines().last().unwrap_or_default();
            differences.push(format!("{:?}: {}\n  {last}", case.fault, case.yaml));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Found by fuzzing: a map of the wrong wire type, which prost reads as if it were of the right one.
#[test]
fn what_is_decoded_as_the_entry_of_a_map_is_not_passed_over() {
    use mesh_xds::pb::envoy::config::cluster::v3::Cluster;
    use prost::Message as _;
    // The name; field 36 as a varint of 4; what looks like another name.
    let bytes = [0x0a, 1, b'a', 0xa0, 2, 4, 0x0a, 2, b'x', b'y'];
    if let Ok(cluster) = Cluster::decode(bytes.as_slice()) {
        assert!(cluster.typed_extension_protocol_options.contains_key("xy"));
    }
    assert!(schema::check("envoy.config.cluster.v3.Cluster", &bytes).is_err());
}
