//! The connection manager: routes and filters.

use serde_json::{Value, json};

/// Istio's default format (`EnvoyTextLogFormat`), which both sides write.
const FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" ",
    "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// Streams at once on a connection, as mesh-proxy has it.
const STREAMS: u32 = 1024;

/// The manager of a listener, to clusters with this prefix; the list is on if there is an access log.
pub(super) fn manager(name: &str, access_log: Option<&str>, prefix: &str) -> Value {
    let list = access_log.is_some();
    let mut filters = Vec::new();
    if list {
        filters.push(filter("rbac", "rbac.v3.RBAC", &rbac()));
        filters.push(filter("fault", "fault.v3.HTTPFault", &json!({})));
        filters.push(filter("cors", "cors.v3.Cors", &json!({})));
    }
    filters.push(filter("router", "router.v3.Router", &json!({})));
    let virtual_host = json!({
        "name": "all",
        "domains": ["*"],
        "include_request_attempt_count": list,
        "routes": routes(list, prefix),
    });
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "http2_protocol_options": {"max_concurrent_streams": STREAMS},
        "route_config": {"name": name, "virtual_hosts": [virtual_host]},
        "http_filters": filters,
    });
    if let Some(path) = access_log {
        manager["access_log"] = json!([{
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": path,
                "log_format": {"text_format_source": {"inline_string": FORMAT}},
            },
        }]);
        manager["use_remote_address"] = json!(true);
        manager["server_name"] = json!("istio-envoy");
        manager["normalize_path"] = json!(true);
    }
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager})
}

/// What makes a cluster speak h2c.
pub(super) fn h2() -> Value {
    json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    })
}

fn filter(name: &str, kind: &str, config: &Value) -> Value {
    let mut config = config.clone();
    config["@type"] = json!(format!(
        "type.googleapis.com/envoy.extensions.filters.http.{kind}"
    ));
    json!({"name": format!("envoy.filters.http.{name}"), "typed_config": config})
}

/// One path is denied.
fn rbac() -> Value {
    json!({"rules": {
        "action": "DENY",
        "policies": {"bench": {
            "permissions": [{"url_path": {"path": {"exact": "/denied"}}}],
            "principals": [{"any": true}],
        }},
    }})
}

fn routes(list: bool, prefix: &str) -> Value {
    let [http, h2] = ["http", "h2"].map(|kind| format!("{prefix}{kind}"));
    if !list {
        return json!([
            {"name": "h2", "match": {"prefix": "/h2/"}, "route": {"cluster": h2}},
            {"name": "grpc", "match": {"prefix": "/bench.Echo/"}, "route": {"cluster": h2}},
            {"name": "last", "match": {"prefix": "/"}, "route": {"cluster": http}},
        ]);
    }
    let mut routes: Vec<Value> = (0..9).map(|at| guarded(at, &http)).collect();
    for (name, path, cluster) in [
        ("h2", "/h2/", &h2),
        ("h2", "/bench.Echo/", &h2),
        ("last", "/", &http),
    ] {
        let mut route = json!({"name": name, "match": {"prefix": path}, "route": action(cluster)});
        route["typed_per_filter_config"] = json!({"envoy.filters.http.cors": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy",
            "allow_origin_string_match": [{"exact": "https://example.com"}],
            "allow_methods": "GET",
        }});
        routes.push(route);
    }
    routes.into()
}

/// One of the routes that look at two headers.
fn guarded(at: usize, cluster: &str) -> Value {
    let prefix = if at % 2 == 1 {
        format!("/svc{at}/")
    } else {
        "/".to_owned()
    };
    let mut route = json!({
        "name": format!("r{at}"),
        "match": {
            "prefix": prefix,
            "headers": [
                {"name": "x-env", "string_match": {"exact": format!("canary{at}")}},
                {"name": "x-user", "string_match": {"prefix": format!("u{at}")}},
            ],
        },
        "route": action(cluster),
    });
    if at == 8 {
        route["typed_per_filter_config"] = json!({"envoy.filters.http.fault": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
            "abort": {"http_status": 418, "percentage": {"numerator": 100}},
        }});
    }
    route
}

/// Two subsets by weight, with retries and timeouts.
fn action(cluster: &str) -> Value {
    let previous = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate";
    json!({
        "weighted_clusters": {"clusters": [
            {"name": format!("{cluster}-v1"), "weight": 90},
            {"name": format!("{cluster}-v2"), "weight": 10},
        ]},
        "timeout": "15s",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
            "retriable_status_codes": [503],
            "num_retries": 2,
            "per_try_timeout": "5s",
            "retry_host_predicate": [{
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": format!("type.googleapis.com/{previous}")},
            }],
            "host_selection_retry_max_attempts": "5",
        },
    })
}
