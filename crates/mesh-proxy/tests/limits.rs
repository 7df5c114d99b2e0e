//! Limits on connections, with Envoy's own configuration, over real sockets: by what is closed and
//! what is counted. With `MESH_ENVOY` the same goes through a real Envoy.

#![allow(unreachable_pub)]

#[allow(dead_code)]
#[path = "support/child.rs"]
mod child;
mod support;

use child::{Proxy, ask, stat};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use support::{free_address, named};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TYPES: &str = "type.googleapis.com/envoy.extensions";
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n";

fn socket(at: SocketAddr) -> Value {
    let (address, port) = (at.ip().to_string(), at.port());
    json!({"socket_address": {"address": address, "port_value": port}})
}

async fn start(
    binary: &str,
    directory: &Path,
    at: SocketAddr,
    filters: Value,
    more: Value,
) -> Proxy {
    std::fs::create_dir_all(directory).unwrap();
    let mut all = filters.as_array().unwrap().clone();
    all.push(json!({"name": "http", "typed_config": {
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in",
        "http_filters": [{"name": "router", "typed_config": {
            "@type": format!("{TYPES}.filters.http.router.v3.Router"),
        }}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "backend"}},
        ]}]},
    }}));
    let mut config = json!({"static_resources": {
        "listeners": [{"name": "in", "address": socket(at), "filter_chains": [{"filters": all}]}],
        "clusters": [{
            "name": "backend",
            "type": "STATIC",
            "load_assignment": {"cluster_name": "backend", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": socket(named("well").await)}}]},
            ]},
        }],
    }});
    for (field, value) in more.as_object().unwrap() {
        config[field] = value.clone();
    }
    Proxy::start(binary, config, directory).await
}

/// A connection that was served once; none if it was closed.
async fn served(at: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(at).await.unwrap();
    // What is closed at once may be closed before this.
    let _ = stream.write_all(GET).await;
    let mut said = Vec::new();
    while !said.ends_with(b"well") {
        if !matches!(stream.read_buf(&mut said).await, Ok(1..)) {
            return None;
        }
    }
    Some(stream)
}

/// A connection is closed before that is counted.
async fn counts(proxy: &Proxy, name: &str, expected: u64, binary: &str) {
    let mut now = stat(proxy.admin, name).await;
    for _ in 0..1000 {
        if now == expected {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        now = stat(proxy.admin, name).await;
    }
    assert_eq!(now, expected, "{binary}: {name}");
}

fn binaries() -> Vec<String> {
    let ours = env!("CARGO_BIN_EXE_mesh-proxy").to_owned();
    std::iter::once(ours)
        .chain(std::env::var("MESH_ENVOY"))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_more_than_there_may_be_is_closed_and_counted() {
    for binary in binaries() {
        let directory = tempfile::tempdir().unwrap();
        let at = free_address();
        let more = json!({"overload_manager": {"resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": format!("{TYPES}.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"),
                "max_active_downstream_connections": 2,
            },
        }]}, "admin": {"ignore_global_conn_limit": true}});
        let proxy = start(&binary, directory.path(), at, json!([]), more).await;
        let first = served(at).await.unwrap();
        let second = served(at).await.unwrap();
        assert!(served(at).await.is_none(), "{binary}");
        let address = at.to_string().replace(':', "_");
        let name = format!("listener.{address}.downstream_global_cx_overflow");
        counts(&proxy, &name, 1, &binary).await;
        drop(first);
        // It takes its time until that is noticed.
        let mut again = served(at).await;
        for _ in 0..1000 {
            if again.is_some() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            again = served(at).await;
        }
        assert!(again.is_some(), "{binary}");
        drop(second);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_has_as_many_connections_as_its_filter_says() {
    for binary in binaries() {
        let directory = tempfile::tempdir().unwrap();
        let at = free_address();
        let limit = json!([{"name": "limit", "typed_config": {
            "@type": format!("{TYPES}.filters.network.connection_limit.v3.ConnectionLimit"),
            "stat_prefix": "few",
            "max_connections": 1,
        }}]);
        let proxy = start(&binary, directory.path(), at, limit, json!({})).await;
        let first = served(at).await.unwrap();
        assert!(served(at).await.is_none(), "{binary}");
        let limited = "connection_limit.few.limited_connections";
        counts(&proxy, limited, 1, &binary).await;
        let active = "connection_limit.few.active_connections";
        counts(&proxy, active, 1, &binary).await;
        drop(first);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_pressure_requests_are_refused_in_envoys_words() {
    for binary in binaries() {
        let directory = tempfile::tempdir().unwrap();
        let at = free_address();
        // Every process has more than a byte.
        let more = json!({"overload_manager": {
            "refresh_interval": "0.05s",
            "resource_monitors": [{
                "name": "envoy.resource_monitors.fixed_heap",
                "typed_config": {
                    "@type": format!("{TYPES}.resource_monitors.fixed_heap.v3.FixedHeapConfig"),
                    "max_heap_size_bytes": 1,
                },
            }],
            "actions": [{
                "name": "envoy.overload_actions.stop_accepting_requests",
                "triggers": [{"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": 0.9}}],
            }],
        }});
        let proxy = start(&binary, directory.path(), at, json!([]), more).await;
        let active = "overload.envoy.overload_actions.stop_accepting_requests.active";
        counts(&proxy, active, 1, &binary).await;
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(GET).await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"overloaded") {
            assert!(
                stream.read_buf(&mut said).await.unwrap() > 0,
                "{binary}: {said:?}"
            );
        }
        assert!(said.starts_with(b"HTTP/1.1 503"), "{binary}");
        let closed = "http.in.downstream_rq_overload_close";
        counts(&proxy, closed, 1, &binary).await;
        let monitor = "overload.envoy.resource_monitors.fixed_heap.pressure";
        assert!(
            ask(proxy.admin, "/stats").await.contains(monitor),
            "{binary}"
        );
    }
}
