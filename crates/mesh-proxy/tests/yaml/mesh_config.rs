//! `MeshConfig`: what holds for all.

use crate::connection_pool::full_queue;
use crate::town::{
    Backend, Reply, Town, ask, client, free_port, mesh_config, nobody, object, object_in,
    patiently, policy, refused, request, routes, send_to, service, service_at,
};
use std::time::Duration;

const HTTP: &str = "{name: http, port: 80}";

#[tokio::test]
async fn outbound_traffic_policy_is_allow_any_unless_it_is_said() {
    let outside = Backend::start("outside").await;
    let host = outside.address.to_string();
    for (config, line) in [
        ("", "200 outside"),
        ("outboundTrafficPolicy: {mode: ALLOW_ANY}", "200 outside"),
        ("outboundTrafficPolicy: {mode: REGISTRY_ONLY}", "502 "),
    ] {
        let town = Town::client(&mesh_config(&["rootNamespace: istio-system", config])).await;
        assert_eq!(town.get(&host, "/").await.line(), line, "{config}");
    }
}

#[tokio::test]
async fn default_http_retry_policy_is_for_routes_that_say_nothing() {
    let one = Backend::start("v1").await;
    one.always(Reply::With(500, vec![]));
    let config = "defaultHttpRetryPolicy: {attempts: 3, retryOn: 5xx, backoff: 1ms}";
    let own = routes("{retries: {attempts: 1, retryOn: 5xx}, route: [{destination: {host: a}}]}");
    let silent = routes("{route: [{destination: {host: a}}]}");
    for (routes, expected) in [("", 4), (silent.as_str(), 4), (own.as_str(), 2)] {
        one.forget();
        let yaml = mesh_config(&[config]) + &service("a", &[&one]) + routes;
        Town::client(&yaml).await.get("a", "/").await;
        assert_eq!(one.count(), expected, "{routes}");
    }
    one.forget();
    let yaml = mesh_config(&["defaultHttpRetryPolicy: {attempts: 0}"])
        + &service_at("a", "default", HTTP, &[("v1", nobody())]);
    let town = Town::client(&yaml).await;
    town.get("a", "/").await;
    assert_eq!(town.stat("", "upstream_cx_connect_fail").await, 1);
    let errors = refused(&mesh_config(&[
        "defaultHttpRetryPolicy: {attempts: 1, perTryTimeout: 1s}",
    ]));
    assert!(errors.contains("perTryTimeout"), "{errors}");
}

#[tokio::test]
async fn connect_timeout_is_for_every_cluster_without_one() {
    let full = full_queue().await;
    let no_retry = routes("{retries: {attempts: 0}, route: [{destination: {host: a}}]}");
    let yaml = mesh_config(&["connectTimeout: 0.1s"])
        + &service_at("a", "default", HTTP, &[("v1", full.0)])
        + &no_retry;
    let town = Town::client(&yaml).await;
    assert_eq!(town.get("a", "/").await.status, 503);
    assert_eq!(town.stat("", "upstream_cx_connect_timeout").await, 1);
    let yaml =
        yaml.replace("0.1s", "1h") + &policy("{connectionPool: {tcp: {connectTimeout: 0.1s}}}");
    assert_eq!(Town::client(&yaml).await.get("a", "/").await.status, 503);
}

#[tokio::test]
async fn path_normalization_decides_what_is_matched_and_forwarded() {
    let raw = "/a/../b//c/%2Fd%2e/x";
    for (mode, path) in [
        ("NONE", raw),
        ("BASE", "/b//c/%2Fd./x"),
        ("DEFAULT", "/b//c/%2Fd./x"),
        ("", "/b//c/%2Fd./x"),
        ("MERGE_SLASHES", "/b/c/%2Fd./x"),
        ("DECODE_AND_MERGE_SLASHES", "/b/c/d./x"),
    ] {
        let one = Backend::start("v1").await;
        let config = match mode {
            "" => String::new(),
            mode => mesh_config(&[&format!("pathNormalization: {{normalization: {mode}}}")]),
        };
        let yaml = config
            + &service("a", &[&one])
            + &routes(
                "{match: [{uri: {prefix: /b}}], headers: {response: {set: {x-matched: b}}}, \
                 route: [{destination: {host: a}}]}, {route: [{destination: {host: a}}]}",
            );
        let answer = Town::client(&yaml).await.get("a", raw).await;
        assert_eq!(one.only().path, path, "{mode}");
        assert_eq!(answer.header("x-matched") == "b", mode != "NONE", "{mode}");
    }
}

/// The first line that a log file gets.
pub(crate) async fn first_line(path: &std::path::Path) -> String {
    patiently("a line in the log".to_owned(), async {
        loop {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            if let Some((line, _)) = text.split_once('\n') {
                return line.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test]
async fn access_log_file_and_format_say_where_and_how_requests_are_logged() {
    let directory = tempfile::tempdir().unwrap();
    for (number, (format, expected)) in [
        ("", "\"GET /p?q HTTP/1.1\" 200 - via_upstream - \"-\" 0 2 "),
        (
            "accessLogFormat: \"%REQ(:METHOD)% %REQ(X-USER)% %RESPONSE_CODE% %ROUTE_NAME%\\n\"",
            "GET jason 200 main",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let (one, path) = (
            Backend::start("v1").await,
            directory.path().join(number.to_string()),
        );
        let file = format!("accessLogFile: {}", path.display());
        let yaml = mesh_config(&[&file, "accessLogEncoding: TEXT", format])
            + &service("a", &[&one])
            + &routes("{name: main, route: [{destination: {host: a}}]}");
        let town = Town::client(&yaml).await;
        town.send(request("GET", "a", "/p?q", &[("x-user", "jason")]))
            .await;
        let line = first_line(&path).await;
        assert!(line.contains(expected), "{line}");
    }
}

#[tokio::test]
async fn default_traffic_policy_lies_under_every_rule_block_by_block() {
    let config = mesh_config(&[
        "defaultTrafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}",
    ]);
    for (rule, connections) in [
        ("", 4),
        ("{loadBalancer: {simple: RANDOM}}", 4),
        ("{connectionPool: {http: {maxRetries: 1}}}", 1),
    ] {
        let one = Backend::start("v1").await;
        let mut yaml = config.clone() + &service("a", &[&one]);
        if !rule.is_empty() {
            yaml += &policy(rule);
        }
        let town = Town::client(&yaml).await;
        town.bodies("a", "/", 4).await;
        assert_eq!(
            town.stat("", "upstream_cx_total").await,
            connections,
            "{rule}"
        );
    }
    let errors = refused(&mesh_config(&[
        "defaultTrafficPolicy: {loadBalancer: {simple: RANDOM}}",
    ]));
    assert!(
        errors.contains("only connectionPool and outlierDetection"),
        "{errors}"
    );
}

#[tokio::test]
async fn root_namespace_has_the_rules_for_all() {
    let one = Backend::start("v1").await;
    let rule = "{host: a.default.svc.cluster.local, \
                trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}";
    for (root, connections) in [("istio-system", 1), ("headquarters", 4)] {
        let yaml = mesh_config(&[&format!("rootNamespace: {root}")])
            + &service("a", &[&one])
            + &object_in("headquarters", "DestinationRule", "a", rule);
        let town = Town::client(&yaml).await;
        town.bodies("a", "/", 4).await;
        assert_eq!(
            town.stat("", "upstream_cx_total").await,
            connections,
            "{root}"
        );
    }
}

#[tokio::test]
async fn proxy_listen_port_is_where_applications_reach_their_sidecar() {
    let (one, port) = (Backend::start("v1").await, free_port());
    let yaml = mesh_config(&[&format!("proxyListenPort: {port}")])
        + &service("a", &[&one])
        + &object(
            "Gateway",
            "unused",
            "{servers: [{port: {number: 80, name: h, protocol: HTTP}, hosts: [a]}]}",
        );
    let _town = Town::unmoved(&yaml, client()).await;
    assert_eq!(
        send_to(([127, 0, 0, 1], port).into(), ask("a", "/"))
            .await
            .line(),
        "200 v1"
    );
}

#[tokio::test]
async fn default_virtual_service_export_to_hides_those_that_do_not_say() {
    let (one, two) = (Backend::start("v1").await, Backend::start("v2").await);
    for (config, body) in [("'*'", "v2"), ("'.'", "v1")] {
        let yaml = mesh_config(&[&format!("defaultVirtualServiceExportTo: [{config}]")])
            + &service_at("b", "other", HTTP, &[("v1", one.address)])
            + &service_at("c", "other", HTTP, &[("v2", two.address)])
            + &object_in(
                "other",
                "VirtualService",
                "b",
                "{hosts: [b], http: [{route: [{destination: {host: c}}]}]}",
            );
        assert_eq!(
            Town::client(&yaml).await.get("b.other", "/").await.body,
            body
        );
    }
}

#[test]
fn what_would_have_no_effect_is_refused_by_name() {
    for line in [
        "inboundTrafficPolicy: {mode: LOCALHOST}",
        "accessLogEncoding: JSON",
        "enableTracing: true",
        "h2UpgradePolicy: UPGRADE",
        "outboundTrafficPolicy: {mode: ALLOW_ANY_DYNAMIC_DNS}",
    ] {
        let errors = refused(&mesh_config(&[line]));
        assert!(
            errors.contains(line.split(':').next().unwrap()),
            "{line}: {errors}"
        );
    }
}
