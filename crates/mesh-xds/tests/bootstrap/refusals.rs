//! What a bootstrap cannot say.

use crate::{ADS, GRPC, INLINE, cluster, listener, refused};
use mesh_xds::bootstrap::Bootstrap;

#[test]
fn what_is_not_supported_is_refused_by_its_name() {
    for (text, expected) in [
        ("tracing: {http: {name: z}}", "tracing: not supported"),
        ("stats_sinks: [{name: x}]", "stats_sinks: not supported"),
        (
            "bootstrap_extensions: [{name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]",
            "bootstrap_extensions: not supported",
        ),
        ("header_prefix: x-a", "header_prefix: not supported"),
        (
            "cluster_manager: {outlier_detection: {event_service: {grpc_service: {envoy_grpc: {cluster_name: a}}}}}",
            "cluster_manager.outlier_detection.event_service: not supported",
        ),
        (
            "layered_runtime: {layers: [{name: a, static_layer: {}}, {name: d, disk_layer: {symlink_root: /x}}]}",
            "layered_runtime.layers[1].disk_layer: not supported",
        ),
        (
            "admin: {allow_paths: [{exact: /stats}]}",
            "admin.allow_paths: not supported",
        ),
        (
            "admin: {address: {envoy_internal_address: {server_listener_name: x}}}",
            "admin.address.envoy_internal_address: ",
        ),
        (
            "admin: {address: {socket_address: {address: localhost, port_value: 1}}}",
            "admin.address.socket_address.address: localhost:",
        ),
        (
            "static_resources: {secrets: [{name: a, generic_secret: {}}]}",
            "static_resources.secrets[0].generic_secret: not supported",
        ),
        (
            "dynamic_resources: {lds_resources_locator: 'xdstp://a'}",
            "dynamic_resources.lds_resources_locator: not supported",
        ),
        (
            "dynamic_resources: {cds_config: {path_config_source: {path: /x, poll_interval: 1s}}}",
            "dynamic_resources.cds_config.path_config_source.poll_interval: not supported",
        ),
        (
            "dynamic_resources: {cds_config: {api_config_source: {api_type: GRPC, grpc_services: [{envoy_grpc: {cluster_name: x}}]}}}",
            "dynamic_resources.cds_config.api_config_source: not supported",
        ),
        (
            "dynamic_resources: {cds_config: {self: {}}}",
            "dynamic_resources.cds_config.self: not supported",
        ),
        (
            "default_regex_engine: {name: x, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}}",
            "default_regex_engine.typed_config: \"envoy.extensions.filters.http.lua.v3.Lua\"",
        ),
    ] {
        let said = refused(text);
        assert!(said.starts_with(expected), "{text}: {said}");
    }
}

#[test]
fn a_control_plane_that_cannot_be_found_is_an_error_that_says_where() {
    let with = |from: &str, to: &str| {
        let text = format!(
            "static_resources:\n  clusters:{}{ADS}",
            cluster("xds_cluster", 1, GRPC)
        );
        assert!(text.contains(from));
        refused(&text.replace(from, to))
    };
    for (from, to, expected) in [
        (
            "cluster_name: xds_cluster }",
            "cluster_name: other }",
            "dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name: no static cluster is called \"other\"",
        ),
        (
            "DELTA_GRPC",
            "REST",
            "dynamic_resources.ads_config.api_type: REST is not supported",
        ),
        (
            "transport_api_version: V3",
            "transport_api_version: V2",
            "dynamic_resources.ads_config.transport_api_version: only version 3",
        ),
        (
            "- envoy_grpc: { cluster_name: xds_cluster }",
            "- google_grpc: { target_uri: a, stat_prefix: b }",
            "dynamic_resources.ads_config.grpc_services[0].google_grpc: not supported",
        ),
        (
            "- envoy_grpc: { cluster_name: xds_cluster }",
            "- envoy_grpc: { cluster_name: xds_cluster, max_receive_message_length: 1 }",
            "dynamic_resources.ads_config.grpc_services[0].envoy_grpc.max_receive_message_length: not supported",
        ),
        (
            "connect_timeout: 0.25s",
            "connect_timeout: 0.25s\n    transport_socket: {name: tls, typed_config: {'@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {tls_certificate_sds_secret_configs: [{name: own, sds_config: {ads: {}}}]}}}",
            "dynamic_resources.ads_config.grpc_services[0].envoy_grpc.cluster_name: TLS to a control plane needs the secret \"own\", which would come from a discovery service",
        ),
    ] {
        let said = with(from, to);
        assert!(said.starts_with(expected), "{said}");
    }
}

#[test]
fn what_comes_from_ads_needs_ads() {
    let needs = |text: &str| refused(text);
    let said = needs("dynamic_resources: {lds_config: {ads: {}}}");
    assert_eq!(
        said,
        "dynamic_resources.lds_config: ads, but there is no ads_config"
    );
    let rds = "rds: {route_config_name: r, config_source: {ads: {}}}";
    let said = needs(&format!(
        "static_resources:\n  listeners:{}",
        listener(80, rds)
    ));
    assert!(
        said.starts_with("static_resources.listeners[0].rds: comes from ADS"),
        "{said}"
    );
    let eds = "static_resources: {clusters: [{name: a, connect_timeout: 1s, type: EDS, eds_cluster_config: {eds_config: {ads: {}}}}]}";
    let said = needs(eds);
    assert!(
        said.starts_with("static_resources.clusters[0].eds_cluster_config.eds_config"),
        "{said}"
    );
}

#[test]
fn what_asks_on_demand_needs_a_stream_in_delta() {
    const CDS: &str = "{ source: { ads: {}, resource_api_version: V3 } }";
    const VHDS: &str = "{ config_source: { ads: {}, resource_api_version: V3 } }";
    let filter = "type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand";
    let asks = format!(
        "{{ name: envoy.filters.http.on_demand, typed_config: {{ '@type': {filter}, odcds: {CDS} }} }}"
    );
    let of_filter = listener(1, INLINE).replace(
        "http_filters:\n",
        &format!("http_filters:\n          - {asks}\n"),
    );
    let of_table = listener(
        1,
        &INLINE.replace("name: local,", &format!("name: local, vhds: {VHDS},")),
    );
    let of_bytes = "
  - name: l
    address: { socket_address: { address: 0.0.0.0, port_value: 1 } }
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: t
          cluster: c
          on_demand: { odcds_config: { ads: {}, resource_api_version: V3 } }
"
    .to_owned();
    for (text, field) in [
        (
            of_filter,
            "static_resources.listeners[0].http_filters: odcds",
        ),
        (of_table, "static_resources.listeners[0].route_config.vhds"),
        (of_bytes, "static_resources.listeners[0].on_demand"),
    ] {
        let resources = format!(
            "\nstatic_resources:\n  listeners:{text}\n  clusters:{}",
            cluster("xds_cluster", 1, GRPC)
        );
        let said = refused(&resources);
        assert!(said.starts_with(field), "{said}");
        assert!(said.contains("ads_config"), "{said}");
        let whole = ADS.replace("DELTA_GRPC", "GRPC");
        let said = refused(&format!("{resources}{whole}"));
        assert!(said.starts_with(field), "{said}");
        assert!(Bootstrap::from_yaml(&format!("{resources}{ADS}")).is_ok());
    }
}
