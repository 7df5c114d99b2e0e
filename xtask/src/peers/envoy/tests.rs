use std::path::PathBuf;

use super::*;
use crate::peers::ports::Listens;

fn setting() -> Setting {
    Setting {
        listens: Listens {
            h1: 1,
            h2c: 2,
            tls: 3,
            tcp: 4,
            admin: 5,
        },
        upstreams: [11, 12, 13, 14],
        certificate: PathBuf::from("/c"),
        key: PathBuf::from("/k"),
        workers: 1,
        folder: PathBuf::from("/f"),
    }
}

/// All strings of a field, wherever it is.
fn all(value: &Value, field: &str, found: &mut Vec<String>) {
    match value {
        Value::Array(array) => array.iter().for_each(|it| all(it, field, found)),
        Value::Object(object) => {
            if let Some(text) = object.get(field).and_then(Value::as_str) {
                found.push(text.to_owned());
            }
            object.values().for_each(|it| all(it, field, found));
        }
        _ => {}
    }
}

#[test]
fn every_cluster_of_a_route_is_there() {
    for log in [None, Some("/log")] {
        let config = bootstrap(&setting(), log);
        let resources = &config["static_resources"];
        let mut names = Vec::new();
        all(&resources["clusters"], "name", &mut names);
        let mut wanted = Vec::new();
        all(&resources["listeners"], "cluster", &mut wanted);
        let listeners = resources["listeners"].to_string();
        let weighted = names.iter().filter(|it| it.contains("-v"));
        assert!(weighted.clone().all(|it| listeners.contains(it.as_str())));
        assert_eq!(weighted.count(), if log.is_some() { 4 } else { 0 });
        assert!(wanted.iter().all(|it| names.contains(it)), "{wanted:?}");
    }
}

#[test]
fn the_list_is_on_with_an_access_log_only() {
    let with = bootstrap(&setting(), Some("/log")).to_string();
    let without = bootstrap(&setting(), None).to_string();
    for feature in [
        "filters.http.rbac",
        "filters.http.cors",
        "outlier_detection",
        "retry_policy",
        "\"/log\"",
    ] {
        assert!(with.contains(feature), "{feature}");
        assert!(!without.contains(feature), "{feature}");
    }
}

#[test]
fn a_log_line_has_a_field_for_each_of_istio() {
    let with = bootstrap(&setting(), Some("/log")).to_string();
    assert_eq!(with.matches("%ROUTE_NAME%").count(), 3);
    assert_eq!(with.matches("%START_TIME%").count(), 3);
}

#[test]
fn as_much_is_held_as_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting {
        folder: folder.path().to_owned(),
        ..setting()
    };
    let peer = Peer {
        kind: crate::peers::peer::Kind::EnvoyPlain,
        program: PathBuf::from("envoy"),
        version: String::new(),
        has_tcp: true,
        module: None,
    };
    for (held, routes, clusters) in [(Held::Routes(5), 8, 3), (Held::Clusters(5), 3, 8)] {
        let program = holding(&peer, &setting, held).unwrap();
        let file = program.arguments[1].clone();
        let config: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let resources = &config["static_resources"];
        let filter = &resources["listeners"][0]["filter_chains"][0]["filters"][0];
        let hosts = &filter["typed_config"]["route_config"]["virtual_hosts"];
        assert_eq!(hosts[0]["routes"].as_array().unwrap().len(), routes);
        assert_eq!(resources["clusters"].as_array().unwrap().len(), clusters);
    }
}
