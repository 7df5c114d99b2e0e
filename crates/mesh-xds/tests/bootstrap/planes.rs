//! The servers of a control plane.

use crate::{ADS, read, refused};
use std::time::Duration;

#[test]
fn several_servers_are_tried_in_order() {
    let text = format!(
        "
static_resources:
  clusters:
  - name: xds_cluster
    connect_timeout: 1s
    type: STRICT_DNS
    load_assignment:
      cluster_name: xds_cluster
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: one.test, port_value: 1 }} }} }}
        - endpoint: {{ address: {{ socket_address: {{ address: '::1', port_value: 2 }} }} }}
{ADS}"
    );
    let servers = read(&text).ads.unwrap().servers;
    assert_eq!(servers, ["http://one.test:1", "http://[::1]:2"]);
}

/// A control plane's cluster with endpoints: their ports, priorities and health.
fn plane(endpoints: &[(u16, u32, &str)], more: &str) -> String {
    let each = endpoints.iter().map(|(port, priority, health)| {
        format!(
            "
      - priority: {priority}
        lb_endpoints:
        - health_status: {health}
          endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}"
        )
    });
    let each: String = each.collect();
    format!(
        "
static_resources:
  clusters:
  - name: xds_cluster
    {more}
    load_assignment:
      cluster_name: xds_cluster
      endpoints:{each}
{ADS}"
    )
}

#[test]
fn control_planes_are_called_by_priority_and_not_where_they_are_said_to_be_down() {
    let text = plane(
        &[
            (1, 2, "HEALTHY"),
            (2, 1, "DEGRADED"),
            (3, 0, "UNHEALTHY"),
            (4, 1, "UNKNOWN"),
            (5, 0, "DRAINING"),
        ],
        "connect_timeout: 3s",
    );
    let ads = read(&text).ads.unwrap();
    let ports: Vec<&str> = ads.servers.iter().map(|uri| &uri[17..]).collect();
    assert_eq!(ports, ["4", "2", "1"]);
    assert_eq!(ads.connect_timeout, Duration::from_secs(3));
    // With nothing else at all, those are better than none.
    let ads = read(&plane(
        &[(2, 1, "UNHEALTHY"), (1, 0, "DRAINING")],
        "type: STATIC",
    ));
    let ads = ads.ads.unwrap();
    assert_eq!(ads.servers, ["http://127.0.0.1:1", "http://127.0.0.1:2"]);
    assert_eq!(ads.connect_timeout, Duration::from_secs(5));
}

#[test]
fn a_control_plane_is_not_called_from_an_address() {
    let source = "{ source_address: { address: 127.0.0.2, port_value: 0 } }";
    let bind = format!("upstream_bind_config: {source}");
    let said = refused(&plane(&[(1, 0, "HEALTHY")], &bind));
    assert!(
        said.contains("grpc_services[0].envoy_grpc.cluster_name"),
        "{said}"
    );
    assert!(said.contains("upstream_bind_config"), "{said}");
}
