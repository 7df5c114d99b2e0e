//! What is made of a rejection.

use crate::http::page;
use crate::support::{Plane, sidecar, yaml};
use mesh_xds::TypeUrl;

#[tokio::test]
async fn a_rejection_is_reported_with_the_yaml_that_it_is_about() {
    let plane = Plane::of(&yaml(2, "1s", "10.0.0.1")).await;
    let mut client = plane.connect(&sidecar()).await;
    client.settle(&["http_proxy"]).await;
    plane.change(&yaml(2, "2s", "10.0.0.1"));
    let response = client.next().await.unwrap();
    assert_eq!(response.type_url, TypeUrl::Routes.url());
    let message =
        "http_proxy: virtual_hosts[s0.default.svc.cluster.local:80].routes[0].timeout: no";
    client.nack(&response, message).await;

    let types = loop {
        let (status, list) = page(&plane.control, "/debug/syncz").await;
        assert_eq!(status, 200);
        let types = list[0]["types"].clone();
        if types["RDS"]["status"] == "NACKED" {
            break types;
        }
        tokio::task::yield_now().await;
    };
    let nacked = &types["RDS"]["nacked"];
    assert_eq!(nacked["message"], message);
    assert_eq!(nacked["resources"][0], "http_proxy");
    let origin = nacked["origins"][0].as_str().unwrap();
    assert!(
        origin.starts_with("VirtualService v.default (mesh.yaml:5:"),
        "{origin}"
    );

    let (_, metrics) = crate::http::text(&plane.control, "/metrics").await;
    let line = "pilot_total_xds_rejects{type=\"rds\"} 1";
    assert!(metrics.lines().any(|one| one == line), "{metrics}");

    // A version that is accepted takes the report away.
    plane.change(&yaml(2, "3s", "10.0.0.1"));
    client.until(TypeUrl::Routes).await;
    loop {
        let (_, list) = page(&plane.control, "/debug/syncz").await;
        if list[0]["types"]["RDS"]["status"] == "SYNCED" {
            assert!(list[0]["types"]["RDS"]["nacked"].is_null());
            break;
        }
        tokio::task::yield_now().await;
    }
}
