//! Our model as Envoy's static configuration.

use super::policy::{cors, fault, rate_limit, retry};
use mesh_core::model::{
    Action, AddMode, AuthorityRewrite, Balancing, Cluster, Condition, EscapedSlashes, Forward,
    Fraction, HeaderEdits, HeaderKey, HeaderMatch, HeaderTemplate, HttpManager, PathMatch,
    PathRewrite, Piece, QueryMatch, Redirect, RedirectPath, RouteTable, Rule, StringMatch, Target,
    UpstreamProtocol, ValueMatch, VirtualHost,
};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::time::Duration;

pub const TYPE: &str = "type.googleapis.com/envoy";

/// A listener on a port of Envoy's choice.
pub fn listener(name: &str, manager: &HttpManager, table: &RouteTable) -> Value {
    let escaped = match manager.path.escaped_slashes {
        EscapedSlashes::Keep => "KEEP_UNCHANGED",
        EscapedSlashes::Reject => "REJECT_REQUEST",
        EscapedSlashes::Redirect => "UNESCAPE_AND_REDIRECT",
        EscapedSlashes::Decode => "UNESCAPE_AND_FORWARD",
    };
    let upgrades: Vec<Value> = manager
        .upgrades
        .iter()
        .map(|name| json!({"upgrade_type": name.as_str()}))
        .collect();
    let logs: Vec<Value> = manager
        .access_log
        .iter()
        .map(|log| {
            json!({
                "name": "log",
                "typed_config": {
                    "@type": format!("{TYPE}.extensions.access_loggers.file.v3.FileAccessLog"),
                    "path": log.path.as_str(),
                    "log_format": {"text_format_source": {"inline_string": log.format.as_str()}},
                },
            })
        })
        .collect();
    let filter = |name: &str, kind: &str| {
        json!({
            "name": format!("envoy.filters.http.{name}"),
            "typed_config": {"@type": format!("{TYPE}.extensions.filters.http.{name}.v3.{kind}")},
        })
    };
    let mut limit = filter("local_ratelimit", "LocalRateLimit");
    limit["typed_config"]["stat_prefix"] = json!("limit");
    let mut config = json!({
        "@type": format!("{TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": manager.stat_prefix.as_str(),
        "codec_type": "AUTO",
        "route_config": routes(table),
        "http_filters": [
            limit,
            filter("fault", "HTTPFault"),
            filter("cors", "Cors"),
            filter("router", "Router"),
        ],
        "access_log": logs,
        "use_remote_address": manager.use_remote_address,
        "xff_num_trusted_hops": manager.trusted_hops,
        "generate_request_id": manager.request_id,
        "preserve_external_request_id": manager.keep_external_request_id,
        "normalize_path": manager.path.normalize,
        "merge_slashes": manager.path.merge_slashes,
        "path_with_escaped_slashes_action": escaped,
        "stream_idle_timeout": duration(manager.stream_idle_timeout.unwrap_or_default()),
        "request_timeout": duration(manager.request_timeout.unwrap_or_default()),
        "max_request_headers_kb": manager.max_head_kib,
        "common_http_protocol_options": {"max_headers_count": manager.max_headers},
        "upgrade_configs": upgrades,
    });
    if manager.server_name.is_empty() {
        config["server_header_transformation"] = json!("PASS_THROUGH");
    } else {
        config["server_name"] = json!(manager.server_name.as_str());
    }
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": config,
        }]}],
    })
}

/// A cluster with these endpoints.
pub fn cluster(cluster: &Cluster, endpoints: &[SocketAddr]) -> Value {
    let policy = match cluster.balancing {
        Balancing::RoundRobin => "ROUND_ROBIN",
        Balancing::LeastRequest { .. } => "LEAST_REQUEST",
        _ => "RANDOM",
    };
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|at| {
            json!({"endpoint": {"address": {"socket_address": {
                "address": at.ip().to_string(), "port_value": at.port(),
            }}}})
        })
        .collect();
    let limits = &cluster.limits;
    let mut thresholds = json!({
        "max_connections": limits.max_connections,
        "max_pending_requests": limits.max_pending,
        "max_requests": limits.max_requests,
        "max_retries": limits.max_retries,
    });
    if let Some(budget) = &limits.budget {
        thresholds["retry_budget"] = json!({
            "budget_percent": {"value": f64::from(budget.share.as_millionths()) / 10_000.0},
            "min_retry_concurrency": budget.min_concurrency,
        });
    }
    let protocol = match cluster.protocol {
        UpstreamProtocol::Http2 => json!({"explicit_http_config": {"http2_protocol_options": {}}}),
        _ => json!({"explicit_http_config": {"http_protocol_options": {}}}),
    };
    let mut options = protocol;
    options["@type"] = json!(format!(
        "{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions"
    ));
    if cluster.max_requests_per_connection > 0 {
        options["common_http_protocol_options"] =
            json!({"max_requests_per_connection": cluster.max_requests_per_connection});
    }
    json!({
        "name": cluster.name.as_str(),
        "type": "STATIC",
        "connect_timeout": duration(cluster.connect_timeout),
        "lb_policy": policy,
        "load_assignment": {
            "cluster_name": cluster.name.as_str(),
            "endpoints": [{"lb_endpoints": endpoints}],
        },
        "circuit_breakers": {"thresholds": [thresholds]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options,
        },
    })
}

fn routes(table: &RouteTable) -> Value {
    let hosts: Vec<Value> = table.virtual_hosts.iter().map(|it| host(it)).collect();
    let mut out = json!({
        "name": table.name.as_str(),
        "virtual_hosts": hosts,
        "validate_clusters": table.validate_clusters,
        "ignore_port_in_host_matching": table.ignore_port,
        "most_specific_header_mutations_wins": table.most_specific_edits_win,
    });
    edits(&mut out, &table.request_edits, &table.response_edits);
    out
}

fn host(host: &VirtualHost) -> Value {
    let domains: Vec<&str> = host.domains.iter().map(|it| it.as_str()).collect();
    let rules: Vec<Value> = host.rules.iter().map(|it| rule(it)).collect();
    let mut out = json!({
        "name": host.name.as_str(),
        "domains": domains,
        "routes": rules,
        "require_tls": if host.require_tls { "ALL" } else { "NONE" },
        "include_request_attempt_count": host.count_attempts,
    });
    if let Some(policy) = &host.retry {
        out["retry_policy"] = retry(policy);
    }
    if let Some(policy) = &host.cors {
        out["typed_per_filter_config"] = json!({"envoy.filters.http.cors": cors(policy)});
    }
    edits(&mut out, &host.request_edits, &host.response_edits);
    out
}

fn rule(rule: &Rule) -> Value {
    let mut out = json!({
        "name": rule.name.as_str(),
        "match": condition(&rule.condition),
    });
    match &rule.action {
        Action::Forward(to) => out["route"] = forward(rule, to),
        Action::Redirect(to) => out["redirect"] = redirect(to),
        Action::Respond(with) => {
            out["direct_response"] = json!({"status": with.status.as_u16()});
            if !with.body.is_empty() {
                let body = String::from_utf8(with.body.to_vec()).unwrap();
                out["direct_response"]["body"] = json!({"inline_string": body});
            }
        }
        other => panic!("{other:?} is not known here"),
    }
    let mut filters = Map::new();
    if let Some(policy) = &rule.fault {
        filters.insert("envoy.filters.http.fault".into(), fault(policy));
    }
    if let Some(policy) = &rule.cors {
        filters.insert("envoy.filters.http.cors".into(), cors(policy));
    }
    if let Some(policy) = &rule.rate_limit {
        filters.insert(
            "envoy.filters.http.local_ratelimit".into(),
            rate_limit(policy),
        );
    }
    out["typed_per_filter_config"] = Value::Object(filters);
    edits(&mut out, &rule.request_edits, &rule.response_edits);
    out
}

fn condition(condition: &Condition) -> Value {
    let (path, any_case) = match &condition.path {
        PathMatch::Prefix(path) => (json!({"prefix": path}), false),
        PathMatch::Exact(path) => (json!({"path": path}), false),
        PathMatch::SeparatedPrefix(path) => (json!({"path_separated_prefix": path}), false),
        PathMatch::PrefixIgnoreCase(path) => (json!({"prefix": path}), true),
        PathMatch::ExactIgnoreCase(path) => (json!({"path": path}), true),
        PathMatch::SeparatedPrefixIgnoreCase(path) => {
            (json!({"path_separated_prefix": path}), true)
        }
        PathMatch::Regex(pattern) => (json!({"safe_regex": {"regex": pattern.source()}}), false),
        other => panic!("{other:?} is not known here"),
    };
    let mut out = path;
    if any_case {
        out["case_sensitive"] = json!(false);
    }
    out["headers"] = condition.headers.iter().map(header).collect();
    out["query_parameters"] = condition.query.iter().map(query).collect();
    if condition.grpc {
        out["grpc"] = json!({});
    }
    if let Some(share) = condition.share {
        out["runtime_fraction"] = json!({"default_value": fraction(share)});
    }
    out
}

fn header(header: &HeaderMatch) -> Value {
    let name = match &header.key {
        HeaderKey::Method => ":method",
        HeaderKey::Authority => ":authority",
        HeaderKey::Scheme => ":scheme",
        HeaderKey::Path => ":path",
        HeaderKey::Header(name) => name.as_str(),
    };
    let mut out = match &header.value {
        ValueMatch::Text(text) => json!({"string_match": string(text)}),
        ValueMatch::Present(present) => json!({"present_match": present}),
        ValueMatch::Range(start, end) => json!({"range_match": {"start": start, "end": end}}),
    };
    out["name"] = json!(name);
    out["invert_match"] = json!(header.invert);
    out["treat_missing_header_as_empty"] = json!(header.missing_is_empty);
    out
}

fn query(query: &QueryMatch) -> Value {
    match &query.value {
        ValueMatch::Text(text) => json!({"name": query.name, "string_match": string(text)}),
        ValueMatch::Present(present) => json!({"name": query.name, "present_match": present}),
        ValueMatch::Range(..) => panic!("a query parameter has no range in Envoy"),
    }
}

pub fn string(text: &StringMatch) -> Value {
    match text {
        StringMatch::Exact(text) => json!({"exact": text}),
        StringMatch::Prefix(text) => json!({"prefix": text}),
        StringMatch::Suffix(text) => json!({"suffix": text}),
        StringMatch::Contains(text) => json!({"contains": text}),
        StringMatch::ExactIgnoreCase(text) => json!({"exact": text, "ignore_case": true}),
        StringMatch::PrefixIgnoreCase(text) => json!({"prefix": text, "ignore_case": true}),
        StringMatch::SuffixIgnoreCase(text) => json!({"suffix": text, "ignore_case": true}),
        StringMatch::ContainsIgnoreCase(text) => json!({"contains": text, "ignore_case": true}),
        StringMatch::Regex(pattern) => json!({"safe_regex": {"regex": pattern.source()}}),
        other => panic!("{other:?} is not known here"),
    }
}

fn forward(rule: &Rule, to: &Forward) -> Value {
    let mut out = match &to.to {
        Target::Cluster(name, _) => json!({"cluster": name.as_str()}),
        Target::Header(name) => json!({"cluster_header": name.as_str()}),
        Target::Weighted(parts) => {
            let parts: Vec<Value> = parts
                .iter()
                .map(|part| {
                    let mut out = json!({"name": part.cluster.as_str(), "weight": part.weight});
                    edits(&mut out, &part.request_edits, &part.response_edits);
                    out
                })
                .collect();
            json!({"weighted_clusters": {"clusters": parts}})
        }
        other => panic!("{other:?} is not known here"),
    };
    match &to.path {
        PathRewrite::Keep => {}
        PathRewrite::Prefix(with) => out["prefix_rewrite"] = json!(with),
        PathRewrite::Regex(pattern, with) => out["regex_rewrite"] = regex(pattern.source(), with),
        other => panic!("{other:?} is not known here"),
    }
    match to.authority.as_deref() {
        None => {}
        Some(AuthorityRewrite::Literal(name)) => {
            out["host_rewrite_literal"] = json!(name.as_str());
        }
        Some(AuthorityRewrite::FromHeader(name)) => {
            out["host_rewrite_header"] = json!(name.as_str());
        }
        Some(other) => panic!("{other:?} is not known here"),
    }
    if let Some(status) = to.not_found {
        out["cluster_not_found_response_code"] = match status.as_u16() {
            404 => json!("NOT_FOUND"),
            500 => json!("INTERNAL_SERVER_ERROR"),
            _ => json!("SERVICE_UNAVAILABLE"),
        };
    }
    // Envoy's own default is 15 s; none is none.
    out["timeout"] = json!(duration(rule.timeout.unwrap_or_default()));
    if let Some(limit) = rule.idle_timeout {
        out["idle_timeout"] = json!(duration(limit));
    }
    let most = rule.max_grpc_timeout.map(duration);
    match rule.max_stream_duration {
        Some(limit) => {
            out["max_stream_duration"] = json!({"max_stream_duration": duration(limit)});
            if let Some(most) = most {
                out["max_stream_duration"]["grpc_timeout_header_max"] = json!(most);
            }
        }
        None => {
            if let Some(most) = most {
                out["max_grpc_timeout"] = json!(most);
            }
        }
    }
    if let Some(policy) = &rule.retry {
        out["retry_policy"] = retry(policy);
    }
    out
}

fn redirect(to: &Redirect) -> Value {
    let mut out = json!({"strip_query": to.strip_query});
    if to.code != 0 {
        out["response_code"] = json!(match to.code {
            301 => "MOVED_PERMANENTLY",
            302 => "FOUND",
            303 => "SEE_OTHER",
            307 => "TEMPORARY_REDIRECT",
            308 => "PERMANENT_REDIRECT",
            other => panic!("no redirect has status {other}"),
        });
    }
    if let Some(scheme) = &to.scheme {
        out["scheme_redirect"] = json!(scheme.as_str());
    }
    if let Some(host) = &to.host {
        out["host_redirect"] = json!(host.as_str());
    }
    if let Some(port) = to.port {
        out["port_redirect"] = json!(port);
    }
    match &to.path {
        RedirectPath::Keep => {}
        RedirectPath::Full(path) => out["path_redirect"] = json!(path),
        RedirectPath::Prefix(with) => out["prefix_rewrite"] = json!(with),
        RedirectPath::Regex(pattern, with) => out["regex_rewrite"] = regex(pattern.source(), with),
    }
    out
}

fn regex(pattern: &str, with: &str) -> Value {
    json!({"pattern": {"regex": pattern}, "substitution": with})
}

fn edits(out: &mut Value, request: &HeaderEdits, response: &HeaderEdits) {
    for (direction, edits) in [("request", request), ("response", response)] {
        let remove: Vec<&str> = edits.remove.iter().map(|name| name.as_str()).collect();
        out[format!("{direction}_headers_to_remove")] = json!(remove);
        let add: Vec<Value> = edits
            .add
            .iter()
            .map(|add| {
                let action = match add.mode {
                    AddMode::Append => "APPEND_IF_EXISTS_OR_ADD",
                    AddMode::Overwrite => "OVERWRITE_IF_EXISTS_OR_ADD",
                    AddMode::IfAbsent => "ADD_IF_ABSENT",
                    AddMode::OverwriteIfPresent => "OVERWRITE_IF_EXISTS",
                };
                json!({
                    "header": {"key": add.name.as_str(), "value": template(&add.value)},
                    "append_action": action,
                })
            })
            .collect();
        out[format!("{direction}_headers_to_add")] = json!(add);
    }
}

fn template(template: &HeaderTemplate) -> String {
    let pieces = match template {
        HeaderTemplate::Fixed(value) => return value.to_str().unwrap().replace('%', "%%"),
        HeaderTemplate::Pieces(pieces) => pieces,
    };
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.replace('%', "%%"),
        Piece::RequestHeader(name) => format!("%REQ({name})%"),
        Piece::ResponseHeader(name) => format!("%RESP({name})%"),
        Piece::DownstreamRemoteAddress => "%DOWNSTREAM_REMOTE_ADDRESS%".into(),
        Piece::DownstreamRemoteAddressWithoutPort => {
            "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%".into()
        }
        Piece::DownstreamLocalAddress => "%DOWNSTREAM_LOCAL_ADDRESS%".into(),
        Piece::Protocol => "%PROTOCOL%".into(),
        Piece::ResponseCode => "%RESPONSE_CODE%".into(),
        Piece::ResponseFlags => "%RESPONSE_FLAGS%".into(),
        Piece::ResponseCodeDetails => "%RESPONSE_CODE_DETAILS%".into(),
        Piece::RouteName => "%ROUTE_NAME%".into(),
        Piece::UpstreamHost => "%UPSTREAM_HOST%".into(),
        Piece::UpstreamCluster => "%UPSTREAM_CLUSTER%".into(),
        other => panic!("{other:?} is not known here"),
    };
    pieces.iter().map(piece).collect()
}

pub fn fraction(share: Fraction) -> Value {
    json!({"numerator": share.as_millionths(), "denominator": "MILLION"})
}

pub fn duration(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}
