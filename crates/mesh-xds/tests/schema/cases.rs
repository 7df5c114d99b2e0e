//! Bootstraps that Envoy accepts, and bootstraps with one fault each.

const CLUSTER: &str = "static_resources.clusters[0]";
const HCM: &str = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
const VIRTUAL_HOST: &str = "static_resources.listeners[0].filter_chains[0].filters[0]\
    .typed_config.route_config.virtual_hosts[0]";
const ROUTE: &str = "static_resources.listeners[0].filter_chains[0].filters[0]\
    .typed_config.route_config.virtual_hosts[0].routes[0]";
const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// A bootstrap, in words and in YAML, and the path of its fault.
pub(crate) struct Case {
    pub(crate) yaml: String,
    pub(crate) fault: Option<String>,
}

// === impl Case ===

impl Case {
    fn good(yaml: String) -> Self {
        Self { yaml, fault: None }
    }

    fn bad(yaml: String, outer: &str, path: &str) -> Self {
        let fault = match path.starts_with('[') {
            true => format!("{outer}{path}"),
            false => format!("{outer}.{path}"),
        };
        Self {
            yaml,
            fault: Some(fault),
        }
    }

    /// Envoy's name for the field at fault: the last one of the path.
    pub(crate) fn field(&self) -> Option<String> {
        let fault = self.fault.as_ref()?;
        let name = fault.rsplit('.').next()?.split('[').next()?;
        let words = name.split('_').map(|word| {
            let (first, rest) = word.split_at(1);
            first.to_uppercase() + rest
        });
        Some(words.collect())
    }
}

fn cluster(name: &str, fields: &str) -> String {
    format!("static_resources: {{clusters: [{{name: {name}, {fields}}}]}}")
}

/// A listener with one network filter of this type.
fn network(kind: &str, fields: &str) -> String {
    format!(
        "static_resources: {{listeners: [{{name: l, address: {{socket_address: {{address: \
         127.0.0.1, port_value: 0}}}}, filter_chains: [{{filters: [{{name: f, typed_config: \
         {{'@type': {TYPES}.filters.network.{kind}, {fields}}}}}]}}]}}]}}"
    )
}

fn hcm(fields: &str) -> String {
    let router = format!(
        "http_filters: [{{name: r, typed_config: {{'@type': {TYPES}.filters.http.router.v3.Router}}}}]"
    );
    let kind = "http_connection_manager.v3.HttpConnectionManager";
    network(kind, &format!("{router}, {fields}"))
}

fn virtual_host(fields: &str) -> String {
    hcm(&format!(
        "stat_prefix: s, route_config: {{name: r, virtual_hosts: [{{{fields}}}]}}"
    ))
}

fn route(fields: &str) -> String {
    virtual_host(&format!("name: v, domains: ['*'], routes: [{{{fields}}}]"))
}

/// A route that answers itself.
fn answering(fields: &str) -> String {
    route(&format!(
        "match: {{prefix: /}}, direct_response: {{status: 200}}, {fields}"
    ))
}

/// A route to cluster `c`, which is looked for when it is needed.
fn forwarding(fields: &str) -> String {
    let route = format!("cluster_header: x-c, {fields}");
    self::route(&format!("match: {{prefix: /}}, route: {{{route}}}"))
}

fn endpoint(fields: &str) -> String {
    cluster(
        "c",
        &format!("load_assignment: {{cluster_name: c, endpoints: [{{{fields}}}]}}"),
    )
}

fn http_options(fields: &str) -> String {
    let name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    cluster(
        "c",
        &format!(
            "typed_extension_protocol_options: {{{name}: {{'@type': type.googleapis.com/{name}, \
             {fields}}}}}"
        ),
    )
}

/// A virtual host with a policy of its own, in an `Any` in a map.
fn rbac(policy: &str) -> String {
    let fields = format!(
        "name: v, domains: ['*'], typed_per_filter_config: {{envoy.filters.http.rbac: {{'@type': \
         {TYPES}.filters.http.rbac.v3.RBACPerRoute, rbac: {{rules: {{policies: {{p: \
         {{{policy}}}}}}}}}}}}}"
    );
    virtual_host(&fields)
}

pub(crate) fn cases_of_clusters() -> Vec<Case> {
    let health = |fields: &str| cluster("c", &format!("health_checks: [{{{fields}}}]"));
    let bad = |fields: &str, path: &str| Case::bad(cluster("c", fields), CLUSTER, path);
    let address = "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address";
    let options = "typed_extension_protocol_options\
        [envoy.extensions.upstreams.http.v3.HttpProtocolOptions]";
    vec![
        Case::bad(cluster("''", "connect_timeout: 1s"), CLUSTER, "name"),
        bad("connect_timeout: 0s", "connect_timeout"),
        bad("lb_policy: 99", "lb_policy"),
        bad("lb_policy: 4", "lb_policy"),
        bad(
            "ring_hash_lb_config: {minimum_ring_size: 8388609}",
            "ring_hash_lb_config.minimum_ring_size",
        ),
        bad(
            "least_request_lb_config: {choice_count: 1}",
            "least_request_lb_config.choice_count",
        ),
        bad(
            "outlier_detection: {interval: 0s}",
            "outlier_detection.interval",
        ),
        bad(
            "outlier_detection: {max_ejection_percent: 101}",
            "outlier_detection.max_ejection_percent",
        ),
        bad(
            "circuit_breakers: {thresholds: [{priority: 9}]}",
            "circuit_breakers.thresholds[0].priority",
        ),
        bad("dns_refresh_rate: 0.0005s", "dns_refresh_rate"),
        bad(
            "dns_failure_refresh_rate: {max_interval: 1s}",
            "dns_failure_refresh_rate.base_interval",
        ),
        bad(
            "preconnect_policy: {per_upstream_preconnect_ratio: 0.5}",
            "preconnect_policy.per_upstream_preconnect_ratio",
        ),
        bad(
            "preconnect_policy: {per_upstream_preconnect_ratio: 3.5}",
            "preconnect_policy.per_upstream_preconnect_ratio",
        ),
        bad(
            "common_lb_config: {healthy_panic_threshold: {value: 100.5}}",
            "common_lb_config.healthy_panic_threshold.value",
        ),
        bad(
            "typed_dns_resolver_config: {name: a}",
            "typed_dns_resolver_config.typed_config",
        ),
        bad("load_assignment: {}", "load_assignment.cluster_name"),
        Case::bad(
            endpoint("priority: 129"),
            CLUSTER,
            "load_assignment.endpoints[0].priority",
        ),
        Case::bad(
            endpoint(
                "lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 65536}}}}]",
            ),
            CLUSTER,
            &format!("{address}.socket_address.port_value"),
        ),
        Case::bad(
            endpoint(
                "lb_endpoints: [{endpoint: {address: {socket_address: {address: '', port_value: 1}}}}]",
            ),
            CLUSTER,
            &format!("{address}.socket_address.address"),
        ),
        Case::bad(
            endpoint("lb_endpoints: [{endpoint: {address: {}}}]"),
            CLUSTER,
            &format!("{address}.address"),
        ),
        Case::bad(
            health(
                "interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}",
            ),
            CLUSTER,
            "health_checks[0].timeout",
        ),
        Case::bad(
            health("timeout: 1s, interval: 1s, unhealthy_threshold: 1, tcp_health_check: {}"),
            CLUSTER,
            "health_checks[0].healthy_threshold",
        ),
        Case::bad(
            health("timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1"),
            CLUSTER,
            "health_checks[0].health_checker",
        ),
        Case::bad(
            health(
                "timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /, method: CONNECT}",
            ),
            CLUSTER,
            "health_checks[0].http_health_check.method",
        ),
        Case::bad(
            http_options("common_http_protocol_options: {}"),
            CLUSTER,
            &format!("{options}.upstream_protocol_options"),
        ),
        Case::bad(
            http_options(
                "explicit_http_config: {http2_protocol_options: {initial_stream_window_size: 100}}",
            ),
            CLUSTER,
            &format!(
                "{options}.explicit_http_config.http2_protocol_options.initial_stream_window_size"
            ),
        ),
        Case::good(cluster("c", "connect_timeout: 0.000000001s")),
        Case::good(cluster("c", "lb_policy: MAGLEV")),
        Case::good(cluster(
            "c",
            "metadata: {typed_filter_metadata: {m: {'@type': \
             type.googleapis.com/envoy.config.core.v3.HeaderValue, key: ''}}}",
        )),
        Case::good(cluster(
            "c",
            "outlier_detection: {max_ejection_percent: 100, interval: 0.001s}",
        )),
        Case::good(cluster(
            "c",
            "outlier_detection: {}, circuit_breakers: {thresholds: [{}]}",
        )),
        Case::good(cluster(
            "c",
            "preconnect_policy: {per_upstream_preconnect_ratio: 3}",
        )),
        Case::good(endpoint(
            "lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 65535}}}}]",
        )),
        Case::good(endpoint("priority: 0, lb_endpoints: []")),
        Case::good(http_options(
            "explicit_http_config: {http2_protocol_options: {}}",
        )),
        Case::good(health(
            "timeout: 1s, interval: 1s, unhealthy_threshold: 1, healthy_threshold: 1, tcp_health_check: {}",
        )),
    ]
}

pub(crate) fn cases_of_listeners() -> Vec<Case> {
    let bad = |fields: &str, path: &str| Case::bad(hcm(fields), HCM, path);
    let route_config = "route_config: {name: r}";
    let policy =
        format!("{VIRTUAL_HOST}.typed_per_filter_config[envoy.filters.http.rbac].rbac.rules");
    let log = |filter: &str| {
        hcm(&format!(
            "stat_prefix: s, {route_config}, access_log: [{{name: a, filter: {{{filter}}}, \
             typed_config: {{'@type': {TYPES}.access_loggers.stream.v3.StdoutAccessLog}}}}]"
        ))
    };
    vec![
        bad(route_config, "stat_prefix"),
        bad("stat_prefix: s", "route_specifier"),
        bad(
            &format!("stat_prefix: s, {route_config}, codec_type: 17"),
            "codec_type",
        ),
        bad(
            &format!("stat_prefix: s, {route_config}, max_request_headers_kb: 0"),
            "max_request_headers_kb",
        ),
        bad(
            &format!("stat_prefix: s, {route_config}, max_request_headers_kb: 8193"),
            "max_request_headers_kb",
        ),
        Case::bad(
            log("response_flag_filter: {flags: [UH, XX]}"),
            HCM,
            "access_log[0].filter.response_flag_filter.flags[1]",
        ),
        Case::bad(
            log("and_filter: {filters: []}"),
            HCM,
            "access_log[0].filter.and_filter.filters",
        ),
        Case::bad(
            log("duration_filter: {}"),
            HCM,
            "access_log[0].filter.duration_filter.comparison",
        ),
        Case::bad(
            rbac("permissions: [], principals: [{any: true}]"),
            &policy,
            "policies[p].permissions",
        ),
        Case::bad(
            rbac("permissions: [{any: true}], principals: [{any: false}]"),
            &policy,
            "policies[p].principals[0].any",
        ),
        Case::bad(
            network("tcp_proxy.v3.TcpProxy", "stat_prefix: s"),
            HCM,
            "cluster_specifier",
        ),
        Case::bad(
            network(
                "tcp_proxy.v3.TcpProxy",
                "stat_prefix: s, weighted_clusters: {clusters: [{name: a}]}",
            ),
            HCM,
            "weighted_clusters.clusters[0].weight",
        ),
        Case::good(hcm(&format!("stat_prefix: s, {route_config}"))),
        Case::good(hcm(&format!(
            "stat_prefix: s, {route_config}, max_request_headers_kb: 8192"
        ))),
        Case::good(log("response_flag_filter: {flags: [UH, DC]}")),
        Case::good(log("response_flag_filter: {}")),
        Case::good(rbac(
            "permissions: [{any: true}], principals: [{any: true}]",
        )),
    ]
}

pub(crate) fn cases_of_routes() -> Vec<Case> {
    let host = |fields: &str, path: &str| Case::bad(virtual_host(fields), VIRTUAL_HOST, path);
    let bad = |yaml: String, path: &str| Case::bad(yaml, ROUTE, path);
    let matching = |fields: &str| {
        route(&format!(
            "match: {{{fields}}}, direct_response: {{status: 200}}"
        ))
    };
    let long = "x".repeat(1025);
    vec![
        host("name: '', domains: ['*']", "name"),
        host("name: v", "domains"),
        host("name: v, domains: [\"a\\nb\"]", "domains[0]"),
        host("name: v, domains: ['*'], require_tls: 5", "require_tls"),
        bad(route("direct_response: {status: 200}"), "match"),
        bad(route("match: {prefix: /}"), "action"),
        bad(matching(""), "match.path_specifier"),
        bad(
            matching("path_separated_prefix: /a/"),
            "match.path_separated_prefix",
        ),
        bad(
            matching("safe_regex: {regex: ''}"),
            "match.safe_regex.regex",
        ),
        bad(
            matching("prefix: /, headers: [{name: '', present_match: true}]"),
            "match.headers[0].name",
        ),
        bad(
            matching(&format!("prefix: /, query_parameters: [{{name: {long}}}]")),
            "match.query_parameters[0].name",
        ),
        bad(
            matching("prefix: /, runtime_fraction: {default_value: {denominator: 7}}"),
            "match.runtime_fraction.default_value.denominator",
        ),
        bad(
            matching("prefix: /, runtime_fraction: {}"),
            "match.runtime_fraction.default_value",
        ),
        bad(
            route("match: {prefix: /}, route: {cluster: ''}"),
            "route.cluster",
        ),
        bad(
            route("match: {prefix: /}, route: {}"),
            "route.cluster_specifier",
        ),
        bad(
            route("match: {prefix: /}, direct_response: {status: 600}"),
            "direct_response.status",
        ),
        bad(
            route("match: {prefix: /}, direct_response: {status: 199}"),
            "direct_response.status",
        ),
        bad(
            route("match: {prefix: /}, redirect: {response_code: 9}"),
            "redirect.response_code",
        ),
        bad(
            route("match: {prefix: /}, redirect: {host_redirect: \"a\\rb\"}"),
            "redirect.host_redirect",
        ),
        bad(
            forwarding("prefix_rewrite: \"/\\n\""),
            "route.prefix_rewrite",
        ),
        bad(
            forwarding("hedge_policy: {initial_requests: 0}"),
            "route.hedge_policy.initial_requests",
        ),
        bad(
            forwarding("retry_policy: {retry_back_off: {}}"),
            "route.retry_policy.retry_back_off.base_interval",
        ),
        bad(
            forwarding("retry_policy: {retry_back_off: {base_interval: 0s}}"),
            "route.retry_policy.retry_back_off.base_interval",
        ),
        bad(
            forwarding("rate_limits: [{actions: []}]"),
            "route.rate_limits[0].actions",
        ),
        bad(
            forwarding("rate_limits: [{stage: 11, actions: [{remote_address: {}}]}]"),
            "route.rate_limits[0].stage",
        ),
        bad(
            forwarding(
                "rate_limits: [{actions: [{remote_address: {}}], hits_addend: {format: x}}]",
            ),
            "route.rate_limits[0].hits_addend.format",
        ),
        bad(
            forwarding("internal_redirect_policy: {response_headers_to_copy: [a, a]}"),
            "route.internal_redirect_policy.response_headers_to_copy",
        ),
        bad(
            answering("request_headers_to_add: [{header: {key: ''}}]"),
            "request_headers_to_add[0].header.key",
        ),
        bad(
            answering("request_headers_to_add: [{header: {key: \"a\\nb\"}}]"),
            "request_headers_to_add[0].header.key",
        ),
        bad(
            answering("request_headers_to_add: [{header: {key: a, value: \"a\\nb\"}}]"),
            "request_headers_to_add[0].header.value",
        ),
        bad(
            answering("request_headers_to_add: [{}]"),
            "request_headers_to_add[0].header",
        ),
        bad(
            answering("request_headers_to_remove: [a, '']"),
            "request_headers_to_remove[1]",
        ),
        Case::good(virtual_host("name: v, domains: ['*']")),
        Case::good(matching("prefix: ''")),
        Case::good(matching("path_separated_prefix: /a")),
        Case::good(matching(
            "prefix: /, headers: [{name: a, string_match: {exact: ''}}]",
        )),
        Case::good(route("match: {prefix: /}, direct_response: {status: 599}")),
        Case::good(route("match: {prefix: /}, redirect: {}")),
        Case::good(forwarding(
            "retry_policy: {retry_back_off: {base_interval: 0.001s}}",
        )),
        Case::good(forwarding(
            "internal_redirect_policy: {response_headers_to_copy: [a, b]}",
        )),
        Case::good(answering(
            "request_headers_to_add: [{header: {key: a}, keep_empty_value: true}]",
        )),
    ]
}
