use std::path::PathBuf;

use super::*;
use crate::peers::ports::Listens;

fn setting() -> Setting {
    Setting {
        listens: Listens {
            h1: 1,
            h2c: 2,
            tls: 3,
            mtls: 6,
            tcp: 4,
            admin: 5,
        },
        upstreams: [11, 12, 13, 14],
        certificate: PathBuf::from("/c"),
        key: PathBuf::from("/k"),
        mutual: None,
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

fn with_mutual_tls() -> Setting {
    let mutual = crate::peers::mutual::Mutual {
        upstreams: [21, 22, 23, 24],
        folder: PathBuf::from("/m"),
    };
    Setting {
        mutual: Some(mutual),
        ..setting()
    }
}

#[test]
fn every_cluster_of_a_route_is_there() {
    let settings = [(setting(), 4), (with_mutual_tls(), 8)];
    for ((setting, count), log) in settings
        .iter()
        .flat_map(|it| [(it, None), (it, Some("/log"))])
    {
        let config = bootstrap(setting, log);
        let resources = &config["static_resources"];
        let mut names = Vec::new();
        all(&resources["clusters"], "name", &mut names);
        let mut wanted = Vec::new();
        all(&resources["listeners"], "cluster", &mut wanted);
        let listeners = resources["listeners"].to_string();
        let weighted = names.iter().filter(|it| it.contains("-v"));
        assert!(weighted.clone().all(|it| listeners.contains(it.as_str())));
        assert_eq!(weighted.count(), if log.is_some() { *count } else { 0 });
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
fn with_mutual_tls_all_is_there_once_more_and_nothing_else_changes() {
    let (without, with) = (setting(), with_mutual_tls());
    for log in [None, Some("/log")] {
        let [without, with] = [&without, &with].map(|setting| bootstrap(setting, log));
        let of = |config: &Value, kind: &str| {
            config["static_resources"][kind].as_array().unwrap().clone()
        };
        let (listeners, clusters) = (of(&with, "listeners"), of(&with, "clusters"));
        let before = of(&without, "listeners");
        assert_eq!(listeners[..before.len()], before);
        let [more] = &listeners[before.len()..] else {
            panic!("one listener more: {listeners:?}");
        };
        let chain = &more["filter_chains"][0];
        let context = &chain["transport_socket"]["typed_config"];
        assert_eq!(context["require_client_certificate"], json!(true));
        let trusted = &context["common_tls_context"]["validation_context"]["trusted_ca"];
        assert_eq!(trusted["filename"], "/m/ca.pem");
        // The routes are the same, and lead to clusters of their own.
        let routes = |chain: &Value| {
            let manager = &chain["filters"][0]["typed_config"];
            manager["route_config"]["virtual_hosts"][0].clone()
        };
        let plain = routes(&before[0]["filter_chains"][0]).to_string();
        let secure = routes(chain).to_string().replace("\"mtls-h", "\"h");
        assert_eq!(secure, plain);
        let before = of(&without, "clusters");
        assert_eq!(clusters[..before.len()], before);
        assert_eq!(clusters.len(), before.len() * 2 - 1);
        for cluster in &clusters[before.len()..] {
            let context = &cluster["transport_socket"]["typed_config"]["common_tls_context"];
            let shown = &context["tls_certificates"][0]["private_key"]["filename"];
            assert_eq!(shown, "/m/proxy.key");
            let names = &context["validation_context"]["match_typed_subject_alt_names"];
            assert_eq!(names[0]["matcher"]["exact"], crate::peers::mutual::BACKEND);
            let is_h2 = cluster["name"].as_str().unwrap().contains("h2");
            assert_eq!(context.get("alpn_protocols").is_some(), is_h2);
        }
    }
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
