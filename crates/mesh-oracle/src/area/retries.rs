//! Attempts: what is tried again, how often, where, for how long, and what is kept for it.

mod pauses;
mod scripts;

use super::{cluster, cluster2};
use crate::config::{Config, Source};
use crate::dice::Dice;
use crate::request::Call;
use scripts::{CONDITIONS, Condition, Limit};
use serde_json::{Value, json};

const TYPE: &str = "type.googleapis.com/envoy";

/// Longer than what is kept for another attempt.
const TOO_LONG: usize = 1_200_000;

/// So long that an answer at once comes in time on a busy machine, and so short that all attempts
/// are over before the caller is.
const LIMIT: &str = "0.600s";

/// What a route tries out, besides its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    /// The limit of an attempt, and what hangs.
    PerTry,
    /// The same, with attempts that overlap.
    Hedge,
    /// The same without progress.
    Idle,
    /// The limit of the whole request.
    Timeout,
    /// A limit that the caller brings.
    Grpc,
    /// The longest that a stream may last.
    Duration,
    /// Everything is asked for by the request.
    Headers,
}

/// A route, and what its requests are made of.
struct Place {
    path: String,
    kind: Kind,
    /// Its conditions, and whether their failures are told in HTTP/2.
    conditions: Vec<&'static Condition>,
    http2: bool,
    /// Something ends what does not go on.
    limit: Limit,
    /// It has statistics of its own.
    counted: bool,
    /// Its first attempt reaches a backend.
    reached: bool,
    /// A caller's own limit counts, of gRPC or not.
    grpc_limit: bool,
    /// Its requests have no body: Envoy keeps none of a request that no failure is retried for, and
    /// makes the attempt beside a late one all the same, without it.
    bodiless: bool,
}

pub(super) fn generate(dice: &mut Dice, requests: usize) -> Config {
    if dice.turn(13) == 6 {
        return pauses::generate(dice, requests);
    }
    let mut routes = Vec::new();
    let mut places = Vec::new();
    for n in 0..dice.between(6, 9) {
        let (place, route) = route(dice, n);
        places.push(place);
        routes.push(route);
    }
    let mut host = json!({"name": "$v0", "domains": ["*"], "routes": routes});
    if dice.chance(50) {
        host["include_request_attempt_count"] = json!(true);
    }
    if dice.chance(30) {
        host["include_attempt_count_in_response"] = json!(true);
    }
    if dice.chance(30) {
        let conditions = conditions(dice);
        host["retry_policy"] = policy(dice, &conditions);
    }
    if dice.chance(20) {
        host["response_headers_to_add"] = json!([{
            "header": {"key": "x-edit", "value": "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_REQUEST_ATTEMPT_COUNT%"},
        }]);
        host["request_headers_to_add"] = json!([{
            "header": {"key": "x-so-far", "value": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"},
        }]);
    }
    let calls = (0..requests).map(|_| call(dice, &places)).collect();
    Config {
        area: "retries",
        source: Source {
            manager: json!({"route_config": {"virtual_hosts": [host]}}),
            clusters: json!(clusters()),
        },
        calls,
    }
}

/// The names of all conditions.
pub(crate) fn retry_conditions() -> impl Iterator<Item = &'static str> {
    CONDITIONS.iter().map(|it| it.name)
}

/// The one condition that a route's attempts are made again for, if it is one.
pub(crate) fn retried_for<'a>(config: &'a Config, route: &str) -> Option<&'a str> {
    let host = &config.source.manager["route_config"]["virtual_hosts"][0];
    let routes = host["routes"].as_array()?;
    let policy = &routes.iter().find(|it| it["name"] == route)?["route"]["retry_policy"];
    let on = policy["retry_on"].as_str()?;
    (!on.contains(',') && policy["num_retries"] != 0).then_some(on)
}

fn clusters() -> Vec<Value> {
    let twins = ["twin1", "twin2", "twin3"];
    let mut clusters = vec![
        cluster("a", &["a"]),
        cluster2("h", &["h"]),
        cluster("twins", &twins),
        cluster("refused", &["nobody"]),
    ];
    // All have what somebody avoids: where a turn begins is left to chance, how often it goes on is
    // not.
    let hosts = &mut clusters[2]["load_assignment"]["endpoints"][0]["lb_endpoints"];
    for host in hosts.as_array_mut().into_iter().flatten() {
        let has = json!({"canary": true, "stage": ["new", "old"]});
        host["metadata"] = json!({"filter_metadata": {"envoy.lb": has}});
    }
    // Another priority, which only a further attempt comes to.
    let mut over = cluster("over", &["nobody"]);
    let mut second = cluster("over", &["a"])["load_assignment"]["endpoints"][0].clone();
    second["priority"] = json!(1);
    let first = over["load_assignment"]["endpoints"][0].clone();
    over["load_assignment"]["endpoints"] = json!([first, second]);
    clusters.push(over);
    for cluster in &mut clusters {
        // How many retries are under way at a time is nothing that two proxies agree on.
        cluster["circuit_breakers"] = json!({"thresholds": [{"max_retries": 1000}]});
    }
    let mut none = cluster("no-retries", &["a"]);
    none["circuit_breakers"] = json!({"thresholds": [{"max_retries": 0}]});
    let mut budget = cluster("no-budget", &["a"]);
    budget["circuit_breakers"] = json!({"thresholds": [{"retry_budget": {
        "budget_percent": {"value": 0}, "min_retry_concurrency": 0,
    }}]});
    let mut rich = cluster("budget", &["a"]);
    rich["circuit_breakers"] = json!({"thresholds": [{"retry_budget": {
        "budget_percent": {"value": 100}, "min_retry_concurrency": 100,
    }}]});
    clusters.extend([none, budget, rich]);
    clusters
}

fn conditions(dice: &mut Dice) -> Vec<&'static Condition> {
    let number = if dice.chance(75) {
        1
    } else {
        dice.between(2, 4)
    };
    let mut chosen: Vec<&Condition> = Vec::new();
    for _ in 0..number {
        let one = &CONDITIONS[dice.below(CONDITIONS.len())];
        if !chosen.iter().any(|it| it.name == one.name) {
            chosen.push(one);
        }
    }
    chosen
}

/// The names in a policy or header, in one text.
fn names(conditions: &[&Condition]) -> String {
    let names: Vec<&str> = conditions.iter().map(|it| it.name).collect();
    names.join(",")
}

fn policy(dice: &mut Dice, conditions: &[&Condition]) -> Value {
    let mut policy = json!({
        "retry_on": names(conditions),
        "retry_back_off": {"base_interval": format!("0.{:03}s", dice.between(1, 6))},
    });
    if dice.chance(75) {
        policy["num_retries"] = json!(dice.pick(&[0, 1, 1, 2, 2, 3]));
    }
    if dice.chance(10) {
        policy["retry_back_off"]["max_interval"] = json!("0.010s");
    }
    if conditions
        .iter()
        .any(|it| it.name == "retriable-status-codes")
        || dice.chance(10)
    {
        policy["retriable_status_codes"] = json!([418, 404]);
    }
    if conditions.iter().any(|it| it.name == "retriable-headers") || dice.chance(10) {
        policy["retriable_headers"] = dice.pick(&[
            json!([{"name": "x-retriable", "present_match": true}]),
            json!([{"name": "x-other"}, {"name": "X-Retriable"}]),
            json!([{"name": "x-retriable", "string_match": {"exact": "no"}, "invert_match": true}]),
            json!([{"name": "x-retriable", "string_match": {"safe_regex": {"regex": "yes|true"}}}]),
        ]);
    }
    if dice.chance(12) {
        policy["retriable_request_headers"] = dice.pick(&[
            json!([{"name": ":method", "string_match": {"exact": "GET"}}]),
            json!([{"name": ":method", "string_match": {"exact": "POST"}}, {"name": "x-other"}]),
            json!([{"name": ":path", "string_match": {"prefix": "/r"}}]),
            json!([{"name": "x-other", "invert_match": true, "present_match": true}]),
        ]);
    }
    if dice.chance(25) {
        policy["rate_limited_retry_back_off"] = json!({"reset_headers": [
            {"name": "x-ratelimit-reset", "format": "UNIX_TIMESTAMP"},
            {"name": "Retry-After", "format": "SECONDS"},
        ]});
        if dice.chance(40) {
            // Too short for any wait that is asked for.
            policy["rate_limited_retry_back_off"]["max_interval"] = json!("0.900s");
        }
    }
    let mut predicates = Vec::new();
    for number in 0..3 {
        if dice.chance(25) {
            predicates.push(predicate(dice, number));
        }
    }
    if !predicates.is_empty() {
        policy["retry_host_predicate"] = json!(predicates);
        policy["host_selection_retry_max_attempts"] = json!(dice.pick(&[3, 5, 10]));
    }
    policy
}

/// Where another attempt would rather not go.
fn predicate(dice: &mut Dice, number: usize) -> Value {
    let (name, kind) = [
        ("previous_hosts", "PreviousHostsPredicate"),
        ("omit_canary_hosts", "OmitCanaryHostsPredicate"),
        ("omit_host_metadata", "OmitHostMetadataConfig"),
    ][number % 3];
    let mut config = json!({"@type": format!("{TYPE}.extensions.retry.host.{name}.v3.{kind}")});
    if name == "omit_host_metadata" {
        let stage = dice.pick(&[json!("old"), json!("older"), json!(["new", "old"])]);
        let wanted = json!({"canary": true, "stage": stage});
        config["metadata_match"] = json!({"filter_metadata": {"envoy.lb": wanted}});
    }
    json!({
        "name": format!("envoy.retry_host_predicates.{name}"),
        "typed_config": config,
    })
}

/// Another priority after so many attempts.
fn other_priorities(dice: &mut Dice) -> Value {
    json!({
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": {
            "@type": format!(
                "{TYPE}.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
            ),
            "update_frequency": dice.pick(&[1, 1, 2]),
        },
    })
}

fn route(dice: &mut Dice, n: usize) -> (Place, Value) {
    let conditions = conditions(dice);
    let kind = match dice.below(20) {
        0 => Kind::PerTry,
        1 | 10 => Kind::Hedge,
        2 => Kind::Idle,
        3 => Kind::Timeout,
        4 | 5 => Kind::Grpc,
        6 => Kind::Duration,
        7..=9 => Kind::Headers,
        _ => Kind::Plain,
    };
    let unreachable = conditions.iter().any(|it| it.unreachable);
    let framed = conditions.iter().any(|it| it.framed);
    let (cluster, http2) = match dice.below(20) {
        0..=8 if unreachable => (dice.pick(&["$over", "$refused"]), false),
        0..=12 if framed => ("$h", true),
        0 => ("$no-retries", false),
        1 => ("$no-budget", false),
        2 => ("$budget", false),
        3 => ("$refused", false),
        4..=8 => ("$twins", false),
        9..=12 => ("$h", true),
        _ => ("$a", false),
    };
    let mut action = json!({"cluster": cluster});
    let mut grpc_limit = false;
    let mut bodiless = false;
    let mut limit = match kind {
        Kind::Timeout | Kind::Duration => Limit::Whole,
        _ => Limit::None,
    };
    if dice.chance(92) {
        match kind {
            Kind::PerTry | Kind::Hedge => limit = Limit::Head,
            Kind::Idle => limit = Limit::Idle,
            _ => {}
        }
        let mut policy = policy(dice, &conditions);
        if cluster == "$over" {
            policy["retry_priority"] = other_priorities(dice);
        }
        if matches!(kind, Kind::Hedge | Kind::PerTry) {
            // How many of such waits end before the whole does is left to chance.
            policy
                .as_object_mut()
                .and_then(|it| it.remove("rate_limited_retry_back_off"));
        }
        match kind {
            Kind::Hedge => {
                policy["per_try_timeout"] = json!(LIMIT);
                policy["num_retries"] = json!(dice.between(1, 3));
                bodiless = policy.get("retriable_request_headers").is_some();
                // What hangs for ever ends with the whole.
                action["timeout"] = json!("3s");
            }
            Kind::PerTry => {
                policy["per_try_timeout"] = json!(LIMIT);
                action["timeout"] = json!("3s");
                if dice.chance(20) {
                    // Not shorter than the whole, which counts alone then.
                    action["timeout"] = json!(LIMIT);
                }
            }
            Kind::Idle => policy["per_try_idle_timeout"] = json!(LIMIT),
            _ => {}
        }
        action["retry_policy"] = policy;
    }
    match kind {
        Kind::Hedge => {
            limit = Limit::Head;
            action["timeout"] = json!("3s");
            action["hedge_policy"] = json!({"hedge_on_per_try_timeout": true});
            if dice.chance(30) {
                action["hedge_policy"]["initial_requests"] = json!(2);
            }
        }
        Kind::Timeout => action["timeout"] = json!(LIMIT),
        Kind::Grpc if dice.chance(50) => {
            limit = Limit::Whole;
            action["max_grpc_timeout"] = json!("0.700s");
            if dice.chance(40) {
                action["grpc_timeout_offset"] = json!(dice.pick(&["0.100s", "10s"]));
            }
        }
        Kind::Grpc => {
            grpc_limit = true;
            let most = dice.pick(&["0s", "0.700s", "30s"]);
            action["max_stream_duration"] = json!({"grpc_timeout_header_max": most});
            if dice.chance(40) {
                action["max_stream_duration"]["grpc_timeout_header_offset"] = json!("0.100s");
            }
        }
        Kind::Duration => action["max_stream_duration"] = json!({"max_stream_duration": LIMIT}),
        _ => {}
    }
    let path = format!("/r{n}");
    let mut route = json!({
        "name": format!("r{n}"),
        "match": {"path_separated_prefix": path},
        "route": action,
    });
    // What each of several attempts came to is not counted for the rule.
    let counted = dice.chance(30) && kind != Kind::Hedge;
    if counted {
        route["stat_prefix"] = json!(format!("p{n}"));
    }
    if matches!(
        kind,
        Kind::Headers | Kind::PerTry | Kind::Hedge | Kind::Timeout
    ) {
        let names = [
            "retry-on",
            "retry-grpc-on",
            "max-retries",
            "retriable-status-codes",
            "retriable-header-names",
            "upstream-rq-timeout-alt-response",
        ];
        // A caller may not say these itself; the route says them for it.
        let of_caller = names.map(|name| {
            json!({
                "header": {"key": format!("x-envoy-{name}"), "value": format!("%REQ(x-say-{name})%")},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            })
        });
        route["request_headers_to_add"] = json!(of_caller);
    }
    let place = Place {
        path,
        kind,
        conditions,
        http2,
        limit,
        counted,
        reached: !matches!(cluster, "$over" | "$refused"),
        grpc_limit,
        bodiless,
    };
    (place, route)
}

fn call(dice: &mut Dice, places: &[Place]) -> Call {
    let place = &places[dice.below(places.len())];
    let mut call = Call::get(&place.path);
    let grpc = place.conditions.iter().any(|it| it.grpc) || place.kind == Kind::Grpc;
    match dice.below(20) {
        _ if place.bodiless => {}
        0..=13 if grpc => {
            call = call.grpc();
            call.body = "\0\0\0\0\u{1}x".into();
        }
        0..=3 => {
            call.method = "POST".into();
            call.body = "body".repeat(dice.between(0, 30));
            call.chunked = dice.chance(30);
        }
        4 => call.method = "HEAD".into(),
        // Where nobody is reached it is a matter of time how much of it was read before.
        5 if place.reached && dice.chance(20) => {
            call.method = "PUT".into();
            call.body = "x".repeat(TOO_LONG);
        }
        _ => {}
    }
    let is_grpc = call
        .headers
        .iter()
        .any(|(_, value)| value == "application/grpc");
    // Only a gRPC request has the limit that the rule sets for those.
    let mut limit = place.limit;
    if place.kind == Kind::Grpc && !is_grpc {
        limit = Limit::None;
    }
    if place.kind == Kind::Grpc && dice.chance(60) {
        let asked = dice.pick(&["600m", "20S", "600000u", "nonsense", "99999999H"]);
        call = call.with("grpc-timeout", asked);
        if place.grpc_limit && asked.starts_with("600") {
            limit = Limit::Whole;
        }
    }
    if place.kind == Kind::Headers {
        call = with_headers(dice, call);
    } else if dice.chance(30) && !(is_grpc && place.counted) && place.kind != Kind::Hedge {
        call = call.with("x-say-upstream-rq-timeout-alt-response", "1");
    }
    call = call.script(&scripts::script(
        dice,
        &place.conditions,
        place.http2,
        limit,
    ));
    if dice.chance(5) {
        // From a caller it means nothing.
        call = call.with("x-envoy-retry-on", "5xx");
    }
    call.http2 = dice.chance(25) && call.body.len() < TOO_LONG && call.head().is_some();
    call
}

/// What the route says for the caller.
fn with_headers(dice: &mut Dice, mut call: Call) -> Call {
    if dice.chance(60) {
        let conditions = conditions(dice);
        call = call.with("x-say-retry-on", &names(&conditions));
    }
    if dice.chance(30) {
        let on = dice.pick(&[
            "cancelled",
            "unavailable,internal",
            "5xx",
            "resource-exhausted",
        ]);
        call = call.with("x-say-retry-grpc-on", on);
    }
    if dice.chance(40) {
        let most = dice.pick(&["0", "1", "2", "4", "many", "-1"]);
        call = call.with("x-say-max-retries", most);
    }
    if dice.chance(40) {
        let codes = dice.pick(&["404", "418,409", " 503 , x,404", "99999"]);
        call = call.with("x-say-retriable-status-codes", codes);
    }
    if dice.chance(40) {
        let names = dice.pick(&["x-retriable", "X-Retriable , x-other", "x-other"]);
        call = call.with("x-say-retriable-header-names", names);
    }
    if dice.chance(30) {
        call = call.with("x-say-upstream-rq-timeout-alt-response", "1");
    }
    call
}
