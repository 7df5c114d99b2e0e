//! Envoy's bootstrap: with the list of `benches/peers/FEATURES.md`, as a plain forwarder, and with
//! much configuration.

use std::{fs, path::Path};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    memory::Held,
    peer::{Peer, Setting, Start},
    process::Program,
};

mod http;
mod mutual;

/// No limit, as far as a field of 32 bits goes.
const NONE: u32 = u32::MAX;
/// The field of a cluster that says of which protocol it is.
const OPTIONS: &str = "typed_extension_protocol_options";

/// Envoy with the list or, without it, one that forwards.
pub(crate) fn start(peer: &Peer, setting: &Setting, list: bool) -> anyhow::Result<Start> {
    let access_log = list.then(|| setting.file(peer.kind, "access.log"));
    let log = access_log.as_ref().map(|it| it.display().to_string());
    let file = setting.file(peer.kind, "json");
    write(&file, &bootstrap(setting, log.as_deref()))?;
    Ok(Start {
        program: program(peer, setting.workers, &file),
        access_log,
    })
}

/// Envoy with so many routes or clusters, and nothing else.
///
/// # Errors
///
/// If the configuration cannot be written.
pub(crate) fn holding(peer: &Peer, setting: &Setting, held: Held) -> anyhow::Result<Program> {
    let file = setting.file(peer.kind, &format!("{}.json", held.name()));
    write(&file, &held_bootstrap(setting, held)?)?;
    Ok(program(peer, setting.workers, &file))
}

/// The configuration for [`holding`].
///
/// # Errors
///
/// If the bootstrap is not built as this expects.
pub(crate) fn held_bootstrap(setting: &Setting, held: Held) -> anyhow::Result<Value> {
    let mut config = bootstrap(setting, None);
    let resources = &mut config["static_resources"];
    match held {
        Held::Routes(number) => {
            let routes = &mut resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
                ["route_config"]["virtual_hosts"][0]["routes"];
            let last = routes.take();
            let many = (0..number).map(|at| {
                json!({"name": format!("r{at}"), "match": {"prefix": format!("/api/v1/service-{at}/")},
                       "route": {"cluster": "http"}})
            });
            *routes = many
                .chain(last.as_array().cloned().unwrap_or_default())
                .collect();
        }
        Held::Clusters(number) => {
            let clusters = resources["clusters"].as_array_mut();
            let clusters = clusters.context("a bootstrap has clusters")?;
            clusters.extend((0..number).map(|at| {
                let name = format!("outbound|80||service-{at}.example.com");
                cluster(&name, &setting.upstreams[..1], false, None)
            }));
        }
    }
    Ok(config)
}

/// # Errors
///
/// If the file cannot be written.
pub(crate) fn write(file: &Path, config: &Value) -> anyhow::Result<()> {
    fs::write(file, config.to_string()).with_context(|| format!("cannot write {file:?}"))
}

/// The program with so many workers, and this bootstrap.
pub(crate) fn program(peer: &Peer, workers: usize, file: &Path) -> Program {
    Program::new(&peer.program)
        .arguments(["-c".to_owned(), file.display().to_string()])
        .arguments(["--concurrency".to_owned(), workers.to_string()])
        .arguments(["--disable-hot-restart", "--log-level", "error"])
}

/// The configuration; the list is on if there is an access log.
pub(crate) fn bootstrap(setting: &Setting, access_log: Option<&str>) -> Value {
    let listens = setting.listens;
    let list = access_log.is_some();
    let upstreams = &setting.upstreams;
    let manager = |name| http::manager(name, access_log, "");
    let tls = json!({
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": downstream_params(),
                "tls_certificates": [{
                    "certificate_chain": {"filename": setting.certificate},
                    "private_key": {"filename": setting.key},
                }],
            },
        },
    });
    let tcp = json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp",
            "cluster": "tcp",
        },
    });
    let listener = |name: &str, port: u16, chain: Value| json!({"name": name, "address": address(port), "filter_chains": [chain]});
    let mut listeners = vec![
        listener("h1", listens.h1, json!({"filters": [manager("h1")]})),
        listener("h2c", listens.h2c, json!({"filters": [manager("h2c")]})),
        listener(
            "tls",
            listens.tls,
            json!({"filters": [manager("tls")], "transport_socket": tls}),
        ),
        listener("tcp", listens.tcp, json!({"filters": [tcp]})),
    ];
    let mut clusters = clusters("", upstreams, list);
    clusters.push(cluster("tcp", upstreams, list, None));
    if let Some(mutual) = &setting.mutual {
        let mut manager = http::manager("mtls", access_log, mutual::PREFIX);
        if list {
            mutual::tell(&mut manager["typed_config"]);
        }
        let socket = mutual::downstream(mutual);
        listeners.push(listener(
            "mtls",
            listens.mtls,
            json!({"filters": [manager], "transport_socket": socket}),
        ));
        for mut cluster in self::clusters(mutual::PREFIX, &mutual.upstreams, list) {
            let is_h2 = cluster.get(OPTIONS).is_some();
            cluster["transport_socket"] = mutual::upstream(mutual, is_h2);
            clusters.push(cluster);
        }
    }
    json!({
        "admin": {"address": address(listens.admin)},
        "node": {"id": "bench", "cluster": "bench"},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

/// TLS 1.3 with callers.
fn downstream_params() -> Value {
    json!({
        "tls_minimum_protocol_version": "TLSv1_3",
        "tls_maximum_protocol_version": "TLSv1_3",
        "ecdh_curves": ["X25519MLKEM768", "X25519"],
    })
}

/// Those of HTTP, which the routes with this prefix know.
fn clusters(prefix: &str, upstreams: &[u16; 4], list: bool) -> Vec<Value> {
    let subsets: &[(&str, &[u16])] = if list {
        &[("-v1", &upstreams[..2]), ("-v2", &upstreams[2..])]
    } else {
        &[("", upstreams)]
    };
    let kinds = [("http", None), ("h2", Some(http::h2()))];
    let all = kinds.iter().flat_map(|(kind, options)| {
        subsets.iter().map(move |(subset, upstreams)| {
            let name = format!("{prefix}{kind}{subset}");
            cluster(&name, upstreams, list, options.clone())
        })
    });
    all.collect()
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}

/// The cluster of a control plane.
pub(crate) fn control(port: u16) -> Value {
    cluster("control", &[port], false, Some(http::h2()))
}

fn cluster(name: &str, upstreams: &[u16], list: bool, options: Option<Value>) -> Value {
    let endpoints: Vec<_> = upstreams
        .iter()
        .map(|port| json!({"endpoint": {"address": address(*port)}}))
        .collect();
    // An object of DestinationRule with the same limits says the same.
    let limits = json!({
        "max_connections": NONE,
        "max_pending_requests": 1_000_000,
        "max_requests": 1_000_000,
        "max_retries": 1_000,
        "track_remaining": list,
    });
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        "circuit_breakers": {"thresholds": [limits]},
    });
    if list {
        cluster["outlier_detection"] = json!({
            "consecutive_5xx": 5,
            "interval": "10s",
            "base_ejection_time": "30s",
            "max_ejection_percent": 10,
        });
    }
    if let Some(options) = options {
        cluster[OPTIONS] = options;
    }
    cluster
}

#[cfg(test)]
mod tests;
