//! `/config_dump?origins`: the configuration in force in a shape of our own, each part with the
//! place in the YAML that it came from.

use mesh_core::model::{
    Action, Endpoint, PathMatch, RouteTable, Rule, Snapshot, Target, VirtualHost,
};
use mesh_core::{Origin, Origins};
use serde_json::{Value, json};

pub(super) fn json(snapshot: &Snapshot) -> Value {
    let origins = snapshot.origins();
    let listeners: Vec<Value> = snapshot
        .listeners()
        .iter()
        .map(|listener| {
            let Some(manager) = listener.managers().next() else {
                return Value::Null;
            };
            json!({
                "name": listener.name.as_str(),
                "address": listener.address.to_string(),
                "route_table": manager.routes.as_str(),
                "direction": format!("{:?}", manager.direction).to_lowercase(),
                "stat_prefix": manager.stat_prefix.as_str(),
                "origin": place(listener.origin, origins),
            })
        })
        .collect();
    let tables: Vec<Value> = snapshot
        .tables()
        .iter()
        .map(|t| table(t, origins))
        .collect();
    let clusters: Vec<Value> = snapshot
        .clusters()
        .iter()
        .map(|entry| {
            let config = entry.config();
            let endpoints: Vec<Value> = entry
                .live()
                .endpoints()
                .load()
                .iter()
                .map(|e| endpoint(e))
                .collect();
            json!({
                "name": config.name.as_str(),
                "discovery": format!("{:?}", config.discovery),
                "balancing": format!("{:?}", config.balancing),
                "protocol": format!("{:?}", config.protocol),
                "connect_timeout": seconds(config.connect_timeout),
                "limits": {
                    "max_connections": config.limits.max_connections,
                    "max_pending_requests": config.limits.max_pending,
                    "max_requests": config.limits.max_requests,
                    "max_retries": config.limits.max_retries,
                },
                "max_requests_per_connection": config.max_requests_per_connection,
                "outlier_detection": config.outlier.as_ref().map(|outlier| json!({
                    "consecutive_5xx": outlier.consecutive_5xx,
                    "consecutive_gateway_failure": outlier.consecutive_gateway_failure,
                    "interval": seconds(outlier.interval),
                    "base_ejection_time": seconds(outlier.base_ejection_time),
                    "max_ejection_percent": outlier.max_ejection_percent,
                    "origin": place(outlier.origin, origins),
                })),
                "endpoints": endpoints,
                "origin": place(config.origin, origins),
                "policy_origin": place(config.policy_origin, origins),
            })
        })
        .collect();
    json!({
        "version": snapshot.version(),
        "listeners": listeners,
        "route_tables": tables,
        "clusters": clusters,
    })
}

fn table(table: &RouteTable, origins: &Origins) -> Value {
    let hosts: Vec<Value> = table
        .virtual_hosts
        .iter()
        .map(|h| host(h, origins))
        .collect();
    json!({
        "name": table.name.as_str(),
        "ignore_port": table.ignore_port,
        "virtual_hosts": hosts,
    })
}

fn host(host: &VirtualHost, origins: &Origins) -> Value {
    let domains: Vec<&str> = host.domains.iter().map(|domain| domain.as_str()).collect();
    let rules: Vec<Value> = host.rules.iter().map(|r| rule(r, origins)).collect();
    json!({
        "name": host.name.as_str(),
        "domains": domains,
        "rules": rules,
        "require_tls": host.require_tls,
        "origin": place(host.origin, origins),
    })
}

fn rule(rule: &Rule, origins: &Origins) -> Value {
    let path = match &rule.condition.path {
        PathMatch::Prefix(p) => json!({"prefix": p}),
        PathMatch::Exact(p) => json!({"exact": p}),
        PathMatch::SeparatedPrefix(p) => json!({"path_separated_prefix": p}),
        PathMatch::Regex(p) => json!({"regex": p.source()}),
        PathMatch::Template(p) => json!({"template": p.as_str()}),
        other => json!({"match": format!("{other:?}")}),
    };
    let headers: Vec<String> = rule
        .condition
        .headers
        .iter()
        .map(|header| format!("{header:?}"))
        .collect();
    let query: Vec<String> = rule
        .condition
        .query
        .iter()
        .map(|q| format!("{q:?}"))
        .collect();
    let action = match &rule.action {
        Action::Forward(forward) => match &forward.to {
            Target::Cluster(name, origin) => {
                json!({"cluster": name.as_str(), "origin": place(*origin, origins)})
            }
            Target::Weighted(parts) => {
                let parts: Vec<Value> = parts
                    .iter()
                    .map(|part| {
                        json!({
                            "cluster": part.cluster.as_str(),
                            "cluster_header": part.cluster_header.as_ref().map(|it| it.as_str()),
                            "weight": part.weight,
                            "origin": place(part.origin, origins),
                        })
                    })
                    .collect();
                json!({"weighted_clusters": parts})
            }
            other => json!({"target": format!("{other:?}")}),
        },
        Action::Redirect(redirect) => json!({"redirect": format!("{redirect:?}")}),
        Action::Respond(respond) => json!({"direct_response": respond.status.as_u16()}),
        other => json!({"action": format!("{other:?}")}),
    };
    let mirrors: Vec<Value> = rule
        .mirrors
        .iter()
        .map(|mirror| {
            json!({
                "cluster": mirror.cluster.as_str(),
                "share": mirror.share.to_string(),
                "origin": place(mirror.origin, origins),
            })
        })
        .collect();
    json!({
        "name": rule.name.as_str(),
        "path": path,
        "headers": headers,
        "query": query,
        "action": action,
        "timeout": rule.timeout.map(seconds),
        "retry": rule.retry.as_ref().map(|retry| json!({
            "attempts": retry.attempts,
            "on": retry.on.names().collect::<Vec<_>>(),
            "per_try_timeout": retry.per_try_timeout.map(seconds),
            "origin": place(retry.origin, origins),
        })),
        "fault": rule.fault.as_ref().map(|fault| json!({
            "delay": fault.delay.as_ref().map(|delay| format!("{:?} for {}", delay.by, delay.share)),
            "abort": fault.abort.as_ref().map(|abort| format!("{:?} for {}", abort.with, abort.share)),
            "origin": place(fault.origin, origins),
        })),
        "cors": rule.cors.as_ref().map(|cors| place(cors.origin, origins)),
        "mirrors": mirrors,
        "origin": place(rule.origin, origins),
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let labels: serde_json::Map<String, Value> = endpoint
        .labels
        .iter()
        .map(|(key, value)| (key.to_string(), Value::from(value.as_str())))
        .collect();
    json!({
        "address": endpoint.address.to_string(),
        "weight": endpoint.weight,
        "health": format!("{:?}", endpoint.health),
        "workload": endpoint.workload.name.as_str(),
        "labels": labels,
    })
}

fn place(origin: Origin, origins: &Origins) -> Value {
    origins
        .place(origin)
        .map_or(Value::Null, |place| Value::from(place.to_string()))
}

fn seconds(duration: std::time::Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}
