//! Answers that a proxy makes itself, each for its own reason, and those that fail on their way.

use super::{cluster, cluster2, usual_clusters};
use crate::backend::UPLOAD;
use crate::config::{Config, Source};
use crate::dice::Dice;
use crate::request::{Call, Leave};
use serde_json::{Value, json};

const TYPE: &str = "type.googleapis.com/envoy";

/// Answers that do not come, or do not end, so that their callers can leave before they do.
const LEFT: &[&str] = &["hang", "head-then-hang"];

/// How slow an answer may be asked to be, in words that are understood or not.
const SLOWLY: &[&str] = &["100", "0", "x", "-1", " +64", "18446744073709551615"];
/// Shares of either everything or nothing.
const SHARES: &[&str] = &["0", "10000", "4294967295", "x"];

/// The routes: their paths, and the scripts that lead to a failure there.
const ROUTES: &[(&str, &[&str])] = &[
    (
        "/fine",
        &["200", "404", "503", "204", "chunked", "grpc-0", "grpc-5"],
    ),
    (
        "/cut",
        &[
            "close",
            "reset",
            "head-then-close",
            "head-then-reset",
            "chunked-cut",
        ],
    ),
    ("/garbage", &["garbage"]),
    ("/refused", &["200"]),
    ("/empty", &["200"]),
    ("/missing", &["200"]),
    ("/missing-404", &["200"]),
    ("/no-requests", &["200"]),
    ("/no-pending", &["200"]),
    ("/timeout", &["hang", "200", "503", "head-then-hang"]),
    ("/try", &["hang", "hang,200", "200"]),
    ("/retry", &["503", "503,200", "close", "503,503,503", "200"]),
    ("/no-retries", &["503", "503,200", "200"]),
    ("/abort", &["200"]),
    ("/abort-grpc", &["200"]),
    ("/delay", &["200"]),
    ("/asked", &["200"]),
    ("/asked-100", &["200"]),
    ("/slow", &["200", "chunked", "trailers", "204"]),
    ("/slow-asked", &["200", "chunked"]),
    ("/too-many", &["200"]),
    ("/limited", &["200"]),
    ("/maintenance", &["200"]),
    (
        "/two",
        &[
            "200",
            "404",
            "trailers",
            "interim",
            "early",
            "grpc-0",
            "grpc-14",
            "grpc-late-5",
            "grpc-late-0",
        ],
    ),
    (
        "/two-cut",
        &["reset", "refuse", "cancel", "head-then-reset"],
    ),
    ("/left", LEFT),
    ("/left-two", LEFT),
    ("/left-upload", &[UPLOAD]),
    ("/left-upload-two", &[UPLOAD]),
    ("/tls", &["200"]),
    ("/header", &["200"]),
    ("/none", &["200"]),
];

pub(super) fn generate(dice: &mut Dice, requests: usize) -> Config {
    let mut chosen = Vec::new();
    for _ in 0..dice.between(5, 8) {
        let route = dice.pick(ROUTES);
        if !chosen.contains(&route) {
            chosen.push(route);
        }
    }
    let routes: Vec<Value> = chosen
        .iter()
        .filter(|(path, _)| *path != "/none")
        .map(|(path, _)| route(path))
        .collect();
    let mut host = json!({"name": "v0", "domains": ["*"], "routes": routes});
    if dice.chance(30) {
        host["response_headers_to_add"] = json!([{
            "header": {"key": "x-edit", "value": "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%"},
        }]);
    }
    if dice.chance(30) {
        host["typed_per_filter_config"] = json!({"envoy.filters.http.cors": {
            "@type": format!("{TYPE}.extensions.filters.http.cors.v3.CorsPolicy"),
            "allow_origin_string_match": [{"exact": "http://good.test"}],
        }});
    }
    if dice.chance(10) {
        host["require_tls"] = json!("ALL");
    }
    let manager = json!({"route_config": {"virtual_hosts": [host], "validate_clusters": false}});
    let bodies = dice.chance(60);
    let calls = (0..requests).map(|_| call(dice, &chosen, bodies));
    let calls = calls.collect();
    Config {
        area: "replies",
        source: Source {
            manager,
            clusters: json!(clusters()),
        },
        calls,
    }
}

fn clusters() -> Vec<Value> {
    let mut clusters = usual_clusters();
    for cluster in &mut clusters {
        // How many retries are under way at a time is nothing that two proxies agree on.
        cluster["circuit_breakers"] = json!({"thresholds": [{"max_retries": 1000}]});
    }
    let limited = |name: &str, field: &str| {
        let mut cluster = cluster(name, &["a"]);
        cluster["circuit_breakers"] = json!({"thresholds": [{field: 0}]});
        cluster
    };
    clusters.extend([
        cluster("refused", &["nobody"]),
        cluster("empty", &[]),
        limited("no-requests", "max_requests"),
        limited("no-pending", "max_pending_requests"),
        limited("no-retries", "max_retries"),
        cluster2("h", &["h"]),
    ]);
    // A backend that closes at once when it is spoken to in TLS.
    let mut tls = cluster("tls", &["h"]);
    tls["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": format!("{TYPE}.extensions.transport_sockets.tls.v3.UpstreamTlsContext"),
        },
    });
    clusters.push(tls);
    clusters
}

fn route(path: &str) -> Value {
    let to = |cluster: &str| json!({"cluster": cluster});
    let filter = |name: &str, mut config: Value| {
        let kind = if name == "fault" {
            "HTTPFault"
        } else {
            "LocalRateLimit"
        };
        config["@type"] = json!(format!("{TYPE}.extensions.filters.http.{name}.v3.{kind}"));
        json!({format!("envoy.filters.http.{name}"): config})
    };
    let always = json!({"numerator": 100});
    let mut filters = Value::Null;
    let mut action = match path {
        "/refused" => to("$refused"),
        "/empty" => to("$empty"),
        "/missing" => to("$missing"),
        "/missing-404" => {
            json!({"cluster": "$missing", "cluster_not_found_response_code": "NOT_FOUND"})
        }
        "/no-requests" => to("$no-requests"),
        "/no-pending" => to("$no-pending"),
        "/no-retries" => to("$no-retries"),
        "/tls" => to("$tls"),
        "/two" | "/two-cut" | "/left-two" | "/left-upload-two" => to("$h"),
        "/header" => json!({"cluster_header": "x-cluster"}),
        _ => to("$a"),
    };
    match path {
        "/timeout" => action["timeout"] = json!("0.250s"),
        "/try" => {
            action["retry_policy"] =
                json!({"retry_on": "5xx", "num_retries": 1, "per_try_timeout": "0.250s"});
        }
        "/retry" | "/no-retries" => {
            action["retry_policy"] = json!({"retry_on": "5xx", "num_retries": 1});
        }
        "/abort" => {
            let abort = json!({"http_status": 418, "percentage": always});
            filters = filter("fault", json!({"abort": abort}));
        }
        "/abort-grpc" => {
            let abort = json!({"grpc_status": 8, "percentage": always});
            filters = filter("fault", json!({"abort": abort}));
        }
        "/delay" => {
            let delay = json!({"fixed_delay": "0.020s", "percentage": always});
            filters = filter("fault", json!({"delay": delay}));
        }
        "/asked" | "/asked-100" => {
            // Nothing or everything: chance decides about none of them.
            let share = match path {
                "/asked" => json!({"numerator": 10_000, "denominator": "TEN_THOUSAND"}),
                _ => always,
            };
            let mut config = json!({
                "abort": {"header_abort": {}, "percentage": share},
                "delay": {"header_delay": {}, "percentage": share},
            });
            if path == "/asked-100" {
                config["headers"] = json!([
                    {"name": "x-a", "string_match": {"exact": "1"}, "invert_match": true},
                    {"name": ":method", "string_match": {"prefix": "P"}},
                ]);
                config["upstream_cluster"] = json!("$a");
                config["downstream_nodes"] = json!(["n1", "n2"]);
            }
            filters = filter("fault", config);
        }
        "/slow" => {
            // Slow enough to be seen in a test of time, and too fast for anything here.
            let slow = json!({"fixed_limit": {"limit_kbps": 100}, "percentage": always});
            filters = filter(
                "fault",
                json!({"response_rate_limit": slow, "max_active_faults": 1}),
            );
        }
        "/slow-asked" => {
            let slow = json!({"header_limit": {}, "percentage": always});
            filters = filter("fault", json!({"response_rate_limit": slow}));
        }
        "/too-many" => {
            let abort = json!({"http_status": 418, "percentage": always});
            let slow = json!({"fixed_limit": {"limit_kbps": 1}, "percentage": always});
            let mut fault = json!({"abort": abort, "max_active_faults": 0});
            fault["response_rate_limit"] = slow;
            filters = filter("fault", fault);
        }
        "/limited" => {
            filters = filter(
                "local_ratelimit",
                json!({
                    "stat_prefix": "limit",
                    "token_bucket": {"max_tokens": 1, "tokens_per_fill": 1, "fill_interval": "3600s"},
                    "filter_enabled": {"default_value": always},
                    "filter_enforced": {"default_value": always},
                }),
            );
        }
        _ => {}
    }
    let mut route = json!({
        "name": format!("v0{}", path.replace('/', ".")),
        "match": {"path_separated_prefix": path},
        "route": action,
    });
    if path == "/maintenance" {
        route["route"] = Value::Null;
        route.as_object_mut().map(|it| it.remove("route"));
        route["direct_response"] = json!({"status": 503, "body": {"inline_string": "later"}});
    }
    if !filters.is_null() {
        route["typed_per_filter_config"] = filters;
    }
    route
}

/// Asks for faults, in words that are understood or not.
fn ask(dice: &mut Dice, mut call: Call) -> Call {
    let mut say = |dice: &mut Dice, percent, name: &str, values: &[&str]| {
        if dice.chance(percent) {
            let name = format!("x-envoy-fault-{name}");
            call.headers.push((name, dice.pick(values).into()));
        }
    };
    let statuses = [
        "418", "200", "503", "599", "600", "199", " +429", "x", "", "-1",
    ];
    say(dice, 60, "abort-request", &statuses);
    say(
        dice,
        40,
        "abort-grpc-request",
        &["5", "0", "99", "x", "+14"],
    );
    // From 10,000 on it is all of either denominator.
    let shares = ["0", "10000", "4294967295", "4294967296", "x", "-1"];
    say(dice, 40, "abort-request-percentage", &shares);
    say(
        dice,
        40,
        "delay-request",
        &["5", "0", "+7", "5.5", "x", "-1"],
    );
    say(dice, 30, "delay-request-percentage", &shares);
    if dice.chance(70) {
        call = call.with(
            "x-envoy-downstream-service-node",
            dice.pick(&["n1", "n2", "n3"]),
        );
    }
    if dice.chance(70) {
        call = call.with("x-a", dice.pick(&["1", "2"]));
    }
    call
}

fn call(dice: &mut Dice, routes: &[(&str, &[&str])], bodies: bool) -> Call {
    let (path, scripts) = dice.pick(routes);
    let mut call = Call::get(path);
    if path.starts_with("/left") {
        call.http2 = true;
        let ways = [
            Leave::Cancel,
            Leave::Refuse,
            Leave::CancelAndClose,
            Leave::Close,
        ];
        call.leaves = Some(dice.pick(&ways));
        if path.starts_with("/left-upload") {
            call.method = "POST".into();
            call.body = "not all".into();
            if dice.chance(40) {
                call.http2 = false;
                call.leaves = Some(Leave::Close);
            }
        }
        return call.script(dice.pick(scripts));
    }
    if dice.chance(40) {
        call.target += "/x?y=1";
    }
    match dice.below(10) {
        0 | 1 => call.method = "HEAD".into(),
        2 | 3 => {
            call.method = "POST".into();
            call.body = if bodies { "body" } else { "" }.into();
        }
        4..=6 => {
            call = call.grpc();
            if bodies && dice.chance(30) {
                call.body = "\0\0\0\0\u{1}x".into();
            }
        }
        _ => {}
    }
    if path == "/slow-asked" {
        for (percent, name, values) in [
            (80, "x-envoy-fault-throughput-response", SLOWLY),
            (40, "x-envoy-fault-throughput-response-percentage", SHARES),
        ] {
            if dice.chance(percent) {
                call = call.with(name, dice.pick(values));
            }
        }
    }
    if path.starts_with("/asked") {
        call = ask(dice, call);
    }
    if path == "/header" {
        call = match dice.below(3) {
            0 => call.with("x-cluster", "$a"),
            1 => call.with("x-cluster", "$missing"),
            _ => call,
        };
    }
    if dice.chance(10) {
        call = call.with("origin", "http://good.test");
    }
    call = call.script(dice.pick(scripts));
    call.http2 = dice.chance(35) && call.head().is_some();
    call
}
