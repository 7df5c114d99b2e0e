//! One form for resources that mean the same.
//!
//! Lists whose order does not count become maps by what names their items, or sorted lists;
//! numbers, durations and shares get one spelling; what is a default is taken out; and so is what
//! serves telemetry only and is not written by us at all: where a route was configured, tracing,
//! statistics of gRPC methods.

use serde_json::{Map, Value, json};

use crate::recorded::Kind;

/// The form that is compared.
pub(crate) fn normal(kind: Kind, mut resource: Value) -> Value {
    spell(&mut resource);
    match kind {
        Kind::Cluster => cluster(&mut resource),
        Kind::Endpoints => endpoints(&mut resource),
        Kind::Listener => listener(&mut resource),
        Kind::Routes => table(&mut resource),
    }
    resource
}

/// One spelling for numbers, durations and shares.
fn spell(value: &mut Value) {
    match value {
        Value::Number(number) => *value = number.as_f64().into(),
        Value::String(text) => {
            if let Some(seconds) = text.strip_suffix('s').and_then(|n| n.parse::<f64>().ok()) {
                *text = format!("{seconds}s");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(spell),
        Value::Object(fields) => {
            fields.values_mut().for_each(spell);
            if let Some(share) = share(fields) {
                *value = share;
            }
        }
        _ => {}
    }
}

/// A `FractionalPercent` as a share of one.
fn share(fields: &Map<String, Value>) -> Option<Value> {
    let known = ["numerator", "denominator"];
    if fields.is_empty() || !fields.keys().all(|key| known.contains(&key.as_str())) {
        return None;
    }
    let whole = match fields.get("denominator").map(Value::as_str) {
        None => 100.0,
        Some(Some("TEN_THOUSAND")) => 10_000.0,
        Some(Some("MILLION")) => 1_000_000.0,
        _ => return None,
    };
    let part = fields.get("numerator").map_or(Some(0.0), Value::as_f64)?;
    Some((part / whole).into())
}

fn cluster(cluster: &mut Value) {
    drop_empty(cluster, "common_lb_config");
    metadata(cluster);
    if let Some(assignment) = cluster.get_mut("load_assignment") {
        endpoints(assignment);
    }
    // The type says what it is.
    let inside = "/transport_socket/typed_config/transport_socket";
    if let Some(socket) = cluster.pointer_mut(inside) {
        keep(socket, |key| key != "name");
    }
    // Even, from 10 % on, whether it is said or not.
    for policy in ["round_robin_lb_config", "least_request_lb_config"] {
        if let Some(slow) = cluster.pointer_mut(&format!("/{policy}/slow_start_config")) {
            let even = json!({"default_value": 1.0, "runtime_key": "("});
            default(slow, "aggression", even);
            default(slow, "min_weight_percent", json!({"value": 10.0}));
        }
    }
    if let Some(detection) = cluster.get_mut("outlier_detection") {
        outlier(detection);
    }
}

/// Envoy's defaults written out, less what is switched off.
fn outlier(detection: &mut Value) {
    for (field, value) in [
        ("consecutive_5xx", 5),
        ("consecutive_gateway_failure", 5),
        ("consecutive_local_origin_failure", 5),
        ("enforcing_consecutive_5xx", 100),
        ("enforcing_consecutive_gateway_failure", 0),
        ("enforcing_consecutive_local_origin_failure", 100),
        ("enforcing_success_rate", 100),
        ("enforcing_local_origin_success_rate", 100),
        ("enforcing_failure_percentage", 0),
        ("enforcing_failure_percentage_local_origin", 0),
        ("max_ejection_percent", 10),
    ] {
        default(detection, field, f64::from(value).into());
    }
    for (field, value) in [
        ("interval", "10s"),
        ("base_ejection_time", "30s"),
        ("max_ejection_time", "300s"),
    ] {
        default(detection, field, value.into());
    }
    let off: Vec<String> = detection
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| **value == 0.0)
        .filter_map(|(field, _)| Some(field.strip_prefix("enforcing_")?.to_owned()))
        .collect();
    let split = detection["split_external_local_origin_errors"] == true;
    keep(detection, |field| {
        let rule = field.strip_prefix("enforcing_").unwrap_or(field);
        !off.iter().any(|off| off == rule) && (split || !rule.contains("local_origin_"))
    });
}

/// Istio's own, less where something was configured: that serves telemetry only, and ours travels
/// by a debug request.
fn metadata(owner: &mut Value) {
    if let Some(all) = owner.pointer_mut("/metadata/filter_metadata") {
        keep(all, |key| key == "istio");
        keep(&mut all["istio"], |key| key != "config");
    }
}

fn endpoints(assignment: &mut Value) {
    let groups = take_list(assignment, "endpoints");
    let mut by_locality = Map::new();
    for mut group in groups {
        let mut members = Map::new();
        for mut endpoint in take_list(&mut group, "lb_endpoints") {
            metadata(&mut endpoint);
            workload(&mut endpoint);
            // What is not known to be ill is well.
            if endpoint["health_status"] == "HEALTHY" {
                keep(&mut endpoint, |key| key != "health_status");
            }
            let address = endpoint["endpoint"]["address"].to_string();
            members.insert(address, endpoint);
        }
        group["lb_endpoints"] = Value::Object(members);
        let place = format!("{} {}", group["locality"], group["priority"]);
        by_locality.insert(place, group);
    }
    assignment["endpoints"] = Value::Object(by_locality);
}

/// A version that nobody gave is `latest` to every proxy; istiod leaves it to them to say so.
fn workload(endpoint: &mut Value) {
    let path = "/metadata/filter_metadata/istio/workload";
    if let Some(Value::String(text)) = endpoint.pointer_mut(path) {
        let mut parts: Vec<&str> = text.split(';').collect();
        if parts[3].is_empty() {
            parts[3] = "latest";
        }
        *text = parts.join(";");
    }
}

fn listener(listener: &mut Value) {
    for filter in list(listener, "listener_filters") {
        // How much is read at first; more is, if need be.
        keep(&mut filter["typed_config"], |key| {
            key != "initial_read_buffer_size"
        });
    }
    chains(listener, "filter_chains");
    // A list of one, for a moment.
    if let Some(chain) = listener.get_mut("default_filter_chain").map(Value::take) {
        listener["default_filter_chain"] = vec![chain].into();
        chains(listener, "default_filter_chain");
        let mut only = take_list(listener, "default_filter_chain");
        listener["default_filter_chain"] = only.remove(0);
    }
}

fn chains(listener: &mut Value, key: &str) {
    for chain in list(listener, key) {
        // istiod says where it was configured; we say to our own proxies which way it faces.
        keep(chain, |key| key != "metadata");
        // It matches everything.
        drop_empty(chain, "filter_chain_match");
        for filter in list(chain, "filters") {
            let manager = &mut filter["typed_config"];
            keep(manager, |key| {
                !matches!(key, "tracing" | "request_id_extension")
            });
            drop_empty(manager, "http_protocol_options");
            drop_empty(manager, "http2_protocol_options");
            // Tables inside a listener are compared apart; what counts here is which one it is.
            for (source, name) in [("rds", "route_config_name"), ("route_config", "name")] {
                if let Some(table) = manager.get(source).map(|table| table[name].clone()) {
                    keep(manager, |key| key != source);
                    manager["table"] = table;
                }
            }
            if manager["server_name"] == "envoy" {
                keep(manager, |key| key != "server_name");
            }
            let statistics = |filter: &Value| filter["name"] == "envoy.filters.http.grpc_stats";
            // It limits nothing by itself; it is there for routes that bring a bucket.
            let idle = |filter: &Value| {
                filter["name"] == "envoy.filters.http.local_ratelimit"
                    && filter["typed_config"].get("token_bucket").is_none()
            };
            if let Some(Value::Array(filters)) = manager.get_mut("http_filters") {
                filters.retain(|filter| !statistics(filter) && !idle(filter));
            }
        }
    }
}

fn table(table: &mut Value) {
    let mut hosts = Map::new();
    let mut bodies = false;
    for mut host in take_list(table, "virtual_hosts") {
        sort(&mut host, "domains");
        for route in list(&mut host, "routes") {
            bodies |= route["direct_response"]["body"].is_object();
            rule(route);
        }
        let name = host["name"].to_string();
        hosts.insert(name, host);
    }
    table["virtual_hosts"] = Value::Object(hosts);
    if !bodies {
        // It limits bodies that are not there.
        keep(table, |key| key != "max_direct_response_body_size_bytes");
    }
}

fn rule(rule: &mut Value) {
    // It says where the route was configured.
    keep(rule, |key| key != "metadata");
    condition(&mut rule["match"]);
    edits(rule);
    if let Some(forward) = rule.get_mut("route") {
        list_in(forward, "weighted_clusters", "clusters").for_each(edits);
        if let Some(Value::String(words)) = forward.pointer_mut("/retry_policy/retry_on") {
            let mut sorted: Vec<_> = words.split(',').filter(|word| !word.is_empty()).collect();
            sorted.sort_unstable();
            *words = sorted.join(",");
        }
    }
    if let Some(redirect) = rule.get_mut("redirect") {
        to(redirect);
    }
    if let Some(body) = rule.pointer_mut("/direct_response/body")
        && let Some(bytes) = body["inline_bytes"].as_str()
    {
        *body = serde_json::json!({"inline_string": base64(bytes)});
    }
    if let Some(cors) = rule.pointer_mut("/typed_per_filter_config/envoy.filters.http.cors")
        && cors["allow_credentials"] == false
    {
        keep(cors, |key| key != "allow_credentials");
    }
    if let Some(fault) = rule.pointer_mut("/typed_per_filter_config/envoy.filters.http.fault") {
        for part in ["delay", "abort"] {
            let Some(part) = fault.get_mut(part) else {
                continue;
            };
            // Nothing of it is said in three ways.
            let share = &part["percentage"];
            if *share == 0.0 || share.as_object().is_some_and(Map::is_empty) {
                keep(part, |key| key != "percentage");
            }
        }
    }
}

fn condition(condition: &mut Value) {
    // Regular expressions say themselves whether case counts.
    if condition["case_sensitive"] == true || condition["safe_regex"].is_object() {
        keep(condition, |key| key != "case_sensitive");
    }
    for header in list(condition, "headers") {
        // Not there is the opposite of there.
        if header["present_match"] == false {
            let inverted = header["invert_match"] == true;
            header["present_match"] = true.into();
            header["invert_match"] = (!inverted).into();
        }
    }
    sort(condition, "headers");
    sort(condition, "query_parameters");
}

fn to(redirect: &mut Value) {
    if redirect["path_redirect"] == "" {
        keep(redirect, |key| key != "path_redirect");
    }
    // A port may stand with the host or by itself.
    let host = redirect["host_redirect"].as_str().map(str::to_owned);
    if let Some((host, port)) = host.as_deref().and_then(|host| host.split_once(':'))
        && redirect.get("port_redirect").is_none()
    {
        redirect["port_redirect"] = port.parse::<f64>().unwrap().into();
        redirect["host_redirect"] = host.into();
    }
}

/// The text that was encoded.
fn base64(text: &str) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = DIGITS.iter().position(|digit| *digit == byte).unwrap();
        bits = (bits << 6) | u32::try_from(digit).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    String::from_utf8(bytes).unwrap()
}

/// Header changes by name; those of one name keep their order.
fn edits(owner: &mut Value) {
    for side in ["request", "response"] {
        let add = owner.get_mut(format!("{side}_headers_to_add"));
        if let Some(Value::Array(add)) = add {
            add.sort_by_key(|edit| edit["header"]["key"].to_string());
        }
        sort(owner, &format!("{side}_headers_to_remove"));
    }
}

fn list<'v>(value: &'v mut Value, key: &str) -> impl Iterator<Item = &'v mut Value> {
    let items = value.get_mut(key).and_then(Value::as_array_mut);
    items.into_iter().flatten()
}

fn list_in<'v>(
    value: &'v mut Value,
    outer: &str,
    key: &str,
) -> impl Iterator<Item = &'v mut Value> {
    let items = value
        .get_mut(outer)
        .and_then(|inner| inner.get_mut(key))
        .and_then(Value::as_array_mut);
    items.into_iter().flatten()
}

fn take_list(value: &mut Value, key: &str) -> Vec<Value> {
    match value.get_mut(key).map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

fn sort(value: &mut Value, key: &str) {
    if let Some(Value::Array(items)) = value.get_mut(key) {
        items.sort_by_key(Value::to_string);
    }
}

fn keep(value: &mut Value, wanted: impl Fn(&str) -> bool) {
    if let Value::Object(fields) = value {
        fields.retain(|key, _| wanted(key));
    }
}

fn default(owner: &mut Value, field: &str, value: Value) {
    if let Value::Object(fields) = owner {
        fields.entry(field).or_insert(value);
    }
}

fn drop_empty(value: &mut Value, key: &str) {
    if value
        .get(key)
        .and_then(Value::as_object)
        .is_some_and(Map::is_empty)
    {
        keep(value, |other| other != key);
    }
}
