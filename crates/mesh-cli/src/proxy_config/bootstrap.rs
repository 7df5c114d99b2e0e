//! What a proxy was started with, in short.

use super::{address, at, list};
use crate::table::Table;
use serde_json::Value;

pub(super) fn table(bootstrap: &Value) -> Table {
    let mut table = Table::with_header(&["BOOTSTRAP", "VALUE"]);
    let mut row = |name: &str, value: String| {
        if !value.is_empty() {
            table.push([name.into(), value.into()]);
        }
    };
    row("node", at(bootstrap, "/node/id").to_owned());
    row("cluster", at(bootstrap, "/node/cluster").to_owned());
    row("version", version(&bootstrap["node"]));
    let istio = at(bootstrap, "/node/metadata/ISTIO_VERSION");
    row("istio version", istio.to_owned());
    row(
        "namespace",
        at(bootstrap, "/node/metadata/NAMESPACE").to_owned(),
    );
    let (host, port) = address(&bootstrap["admin"]["address"]);
    row(
        "admin",
        port.map(|port| format!("{host}:{port}")).unwrap_or(host),
    );
    row("aggregated xDS", aggregated(bootstrap));
    for (name, pointer) in [("CDS", "/cds_config"), ("LDS", "/lds_config")] {
        let source = bootstrap.pointer(&format!("/dynamic_resources{pointer}"));
        row(name, source.map(described).unwrap_or_default());
    }
    let names = |pointer: &str| {
        let names = list(bootstrap, pointer).iter().map(|one| at(one, "/name"));
        names.collect::<Vec<_>>().join(", ")
    };
    row("static clusters", names("/static_resources/clusters"));
    row("static listeners", names("/static_resources/listeners"));
    table
}

fn version(node: &Value) -> String {
    let number = |name: &str| {
        let number = node.pointer(&format!("/user_agent_build_version/version/{name}"));
        number.and_then(Value::as_u64).unwrap_or(0)
    };
    let name = at(node, "/user_agent_name");
    match (name, at(node, "/user_agent_version")) {
        ("", version) => version.to_owned(),
        (name, "") if node.get("user_agent_build_version").is_some() => format!(
            "{name} {}.{}.{}",
            number("major_number"),
            number("minor_number"),
            number("patch")
        ),
        (name, version) => format!("{name} {version}").trim_end().to_owned(),
    }
}

/// The protocol of the aggregated stream and the cluster or address that it goes to.
fn aggregated(bootstrap: &Value) -> String {
    let Some(ads) = bootstrap.pointer("/dynamic_resources/ads_config") else {
        return String::new();
    };
    let kind = at(ads, "/api_type");
    let services = list(ads, "/grpc_services").iter().map(|service| {
        match at(service, "/envoy_grpc/cluster_name") {
            "" => at(service, "/google_grpc/target_uri"),
            name => name,
        }
    });
    let services: Vec<&str> = services.collect();
    format!("{kind} {}", services.join(", ")).trim().to_owned()
}

fn described(source: &Value) -> String {
    if source.get("ads").is_some() {
        return "aggregated".to_owned();
    }
    match at(source, "/path_config_source/path") {
        "" if source.get("api_config_source").is_some() => "a server of its own".to_owned(),
        path => path.to_owned(),
    }
}
