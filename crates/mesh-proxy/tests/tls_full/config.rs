//! A bootstrap of Envoy, piece by piece.

use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;

/// The bootstrap, with these listeners and clusters.
pub fn bootstrap(listeners: &[Value], clusters: &[Value]) -> Value {
    json!({
        "static_resources": {"listeners": listeners, "clusters": clusters},
    })
}

/// A listener.
pub fn listener(name: &str, at: SocketAddr, inspects: bool, chains: &[Value]) -> Value {
    let inspector = json!({
        "name": "tls_inspector",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        },
    });
    let inspectors: Vec<_> = inspects.then_some(inspector).into_iter().collect();
    json!({
        "name": name,
        "address": socket(at),
        "listener_filters": inspectors,
        "filter_chains": chains,
    })
}

/// A chain, for all server names if none are given.
pub fn chain(names: &[&str], filter: &Value, tls: Option<&Value>) -> Value {
    let mut chain = json!({"filters": [filter]});
    if !names.is_empty() {
        chain["filter_chain_match"] = json!({"server_names": names});
    }
    if let Some(tls) = tls {
        chain["transport_socket"] = transport("DownstreamTlsContext", tls);
    }
    chain
}

/// A cluster with one endpoint.
pub fn cluster(name: &str, to: SocketAddr, tls: Option<&Value>) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(to)}}]}],
        },
    });
    if let Some(tls) = tls {
        cluster["transport_socket"] = transport("UpstreamTlsContext", tls);
    }
    cluster
}

/// Adds options of HTTP to a cluster.
pub fn with_http(mut cluster: Value, mut options: Value) -> Value {
    options["@type"] =
        "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions".into();
    cluster["typed_extension_protocol_options"] =
        json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options});
    cluster
}

/// HTTP with these routes, which logs into a file.
pub fn http(name: &str, log: &Path, format: &str, routes: &[Value]) -> Value {
    json!({
        "name": "http",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "access_log": access_log(log, format),
            "route_config": {
                "name": name,
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
            },
            "http_filters": [{
                "name": "router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                },
            }],
        },
    })
}

/// Bytes to a cluster.
pub fn tcp(name: &str, log: &Path, format: &str, cluster: &str) -> Value {
    json!({
        "name": "tcp",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name,
            "cluster": cluster,
            "access_log": access_log(log, format),
        },
    })
}

fn access_log(path: &Path, format: &str) -> Value {
    json!([{
        "name": "file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path.to_str().unwrap(),
            "log_format": {"text_format_source": {"inline_string": format}},
        },
    }])
}

fn transport(kind: &str, tls: &Value) -> Value {
    let mut config = tls.clone();
    config["@type"] =
        format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{kind}").into();
    json!({"name": "tls", "typed_config": config})
}

fn socket(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}
