//! What happens to a request on its way, and DestinationRules.

use super::{Place, object, texts};
use crate::config::Role;
use crate::dice::Dice;
use serde_json::{Value, json};

const VALUES: &[&str] = &[
    "plain",
    "two words",
    "%REQ(x-a)%",
    "%REQ(x-none)%",
    "%REQ(x-none?x-a)%",
    "%REQ(x-a):3%",
    "%RESPONSE_CODE%",
    "%RESPONSE_CODE_DETAILS%",
    "%RESPONSE_FLAGS%",
    "%ROUTE_NAME%",
    "%UPSTREAM_CLUSTER%",
    "%UPSTREAM_HOST%",
    "100%%",
];

/// Those that nobody but a proxy knows.
const OF_A_PROXY: &[&str] = &[
    "%PROTOCOL%",
    "%DOWNSTREAM_LOCAL_ADDRESS%",
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%REQ(:path)%",
];

/// A timeout that is waited for.
pub(super) const LIMIT: &str = "2s";

/// Fields that a rule may have whatever it does, and those for its action.
pub(super) fn more(dice: &mut Dice, rule: &mut Value, place: Place) {
    if dice.chance(45) {
        rule["headers"] = headers(dice, place);
    }
    if dice.chance(25) {
        rule["corsPolicy"] = cors(dice);
    }
    if rule["route"].is_null() {
        return;
    }
    if dice.chance(25) {
        rule["timeout"] = json!(dice.pick(&[LIMIT, "5s", "0s"]));
    }
    if dice.chance(40) {
        rule["retries"] = retries(dice);
        if rule["timeout"] == LIMIT {
            // Which of two limits is first is nothing that two proxies agree on.
            rule["retries"]
                .as_object_mut()
                .map(|it| it.remove("perTryTimeout"));
        }
    }
    if dice.chance(35) {
        rule["fault"] = fault(dice);
    }
    // A copy of what cannot be sent on has no body here: see docs/envoy-differences.md, "Open".
    let route = rule["route"].to_string();
    let away = ["gone.", "nowhere", "missing", "none"];
    if away.iter().any(|it| route.contains(it)) {
        return;
    }
    match dice.below(12) {
        0 | 3 => {
            rule["mirror"] = json!({"host": "m"});
            if dice.chance(60) {
                rule["mirrorPercentage"] = json!({"value": dice.pick(&[100, 100, 0])});
            }
        }
        1 | 2 => {
            let mut one = json!({"destination": {"host": "m", "port": {"number": 8081}}});
            if dice.chance(60) {
                one["percentage"] = json!({"value": dice.pick(&[100.0, 100.0, 0.0])});
            }
            rule["mirrors"] = json!([one]);
        }
        _ => {}
    }
    if rule["mirror"].is_object() {
        rule["mirror"]["port"] = json!({"number": place.port()});
    }
}

pub(super) fn headers(dice: &mut Dice, place: Place) -> Value {
    let value = |dice: &mut Dice| match place.role {
        Role::Gateway if dice.chance(25) => dice.pick(OF_A_PROXY),
        _ => dice.pick(VALUES),
    };
    let mut both = json!({});
    for (side, names) in [
        ("request", ["x-a", "x-new", "x-multi"]),
        ("response", ["x-backend", "x-new", "x-multi"]),
    ] {
        if !dice.chance(65) {
            continue;
        }
        let mut edits = json!({});
        for field in ["set", "add"] {
            if dice.chance(50) {
                edits[field] = json!({dice.pick(&names): value(dice)});
            }
        }
        if dice.chance(35) {
            edits["remove"] = json!([dice.pick(&["x-b", "x-multi", "x-gone"])]);
        }
        both[side] = edits;
    }
    both
}

fn cors(dice: &mut Dice) -> Value {
    let mut cors = json!({"allowOrigins": [dice.pick(&[
        json!({"exact": "http://good.test"}),
        json!({"prefix": "http://good"}),
        json!({"regex": "https?://[a-z]+\\.test"}),
        json!({"exact": "*"}),
    ])]});
    for (name, value) in [
        ("allowMethods", json!(["GET", "POST"])),
        ("allowHeaders", json!(["x-a", "x-b"])),
        ("exposeHeaders", json!(["x-c"])),
        ("maxAge", json!("60s")),
        ("allowCredentials", json!(true)),
        ("unmatchedPreflights", json!("IGNORE")),
    ] {
        if dice.chance(50) {
            cors[name] = value;
        }
    }
    cors
}

fn retries(dice: &mut Dice) -> Value {
    if dice.chance(10) {
        return json!({"attempts": 0});
    }
    let mut retries = json!({
        "attempts": dice.between(1, 3),
        "retryOn": dice.pick(&[
            "5xx",
            "gateway-error,reset",
            "connect-failure,refused-stream",
            "503,404",
            "retriable-4xx,reset-before-request",
            "cancelled,unavailable,resource-exhausted",
        ]),
    });
    for (name, value) in [
        ("perTryTimeout", json!("1.5s")),
        ("backoff", json!("0.005s")),
        ("retryIgnorePreviousHosts", json!(dice.chance(50))),
        ("retryRemoteLocalities", json!(dice.chance(50))),
    ] {
        if dice.chance(40) {
            retries[name] = value;
        }
    }
    retries
}

fn fault(dice: &mut Dice) -> Value {
    let mut fault = json!({});
    let share = |dice: &mut Dice| json!({"value": dice.pick(&[100.0, 0.0])});
    if dice.chance(40) {
        fault["delay"] = json!({"fixedDelay": "0.010s", "percentage": share(dice)});
    }
    if fault == json!({}) || dice.chance(50) {
        fault["abort"] = dice.pick(&[
            json!({"httpStatus": 418}),
            json!({"httpStatus": 503}),
            json!({"grpcStatus": "UNAVAILABLE"}),
            json!({"grpcStatus": "NOT_FOUND"}),
        ]);
        fault["abort"]["percentage"] = share(dice);
    }
    fault
}

/// Subsets, pools, and a hash. What only chance decides is left out.
pub(super) fn destination_rules(dice: &mut Dice, place: Place) -> Vec<Value> {
    let mut subsets: Vec<Value> = ["v1", "v2", "v3"]
        .iter()
        .map(|version| json!({"name": version, "labels": {"version": version}}))
        .collect();
    subsets.push(json!({"name": "none", "labels": {"version": "v9"}}));
    if dice.chance(50) {
        subsets[0]["trafficPolicy"] = policy(dice, place);
    }
    let mut own = json!({"host": "a", "subsets": subsets});
    if dice.chance(60) {
        own["trafficPolicy"] = policy(dice, place);
    }
    let mut hashed = json!({"host": "k.{id}.svc.cluster.local"});
    hashed["trafficPolicy"] = json!({"loadBalancer": {"consistentHash": hash(dice, place)}});
    vec![
        object("DestinationRule", "a", own),
        object("DestinationRule", "k", hashed),
    ]
}

fn policy(dice: &mut Dice, place: Place) -> Value {
    let mut policy = json!({});
    let kinds = ["ROUND_ROBIN", "RANDOM", "LEAST_REQUEST"];
    if dice.chance(50) {
        policy["loadBalancer"] = json!({"simple": dice.pick(&kinds)});
    }
    if dice.chance(70) {
        let mut http = json!({});
        for (name, value) in [
            ("http1MaxPendingRequests", json!(dice.between(1, 9))),
            ("http2MaxRequests", json!(dice.between(1, 9))),
            ("maxRequestsPerConnection", json!(dice.between(1, 3))),
            ("maxRetries", json!(dice.between(5, 9))),
            ("idleTimeout", json!("30s")),
            ("h2UpgradePolicy", json!("DO_NOT_UPGRADE")),
        ] {
            if dice.chance(40) {
                http[name] = value;
            }
        }
        // A client inside of a process has nobody whose protocol it could speak.
        if place.role == Role::Gateway && dice.chance(40) {
            http["useClientProtocol"] = json!(true);
        }
        let mut tcp = json!({});
        for (name, value) in [
            ("maxConnections", json!(dice.between(1, 9))),
            ("connectTimeout", json!("2s")),
            (
                "tcpKeepalive",
                json!({"time": "60s", "interval": "10s", "probes": 3}),
            ),
            ("maxConnectionDuration", json!("60s")),
        ] {
            if dice.chance(35) {
                tcp[name] = value;
            }
        }
        policy["connectionPool"] = json!({"http": http, "tcp": tcp});
    }
    if dice.chance(40) {
        policy["outlierDetection"] = json!({
            "consecutive5xxErrors": 0,
            "consecutiveGatewayErrors": 0,
            "interval": "60s",
        });
    }
    if dice.chance(20) {
        policy["portLevelSettings"] = json!([{
            "port": {"number": 8081},
            "connectionPool": {"http": {"maxRequestsPerConnection": 1}},
        }]);
    }
    policy
}

fn hash(dice: &mut Dice, place: Place) -> Value {
    // Nor anybody's address.
    let kinds = if place.role == Role::Gateway { 4 } else { 3 };
    let mut hash = match dice.below(kinds) {
        3 => json!({"useSourceIp": true}),
        0 => json!({"httpHeaderName": "x-k"}),
        1 => json!({"httpCookie": {"name": "k", "ttl": dice.pick(&["0s", "60s"])}}),
        _ => json!({"httpQueryParameterName": "k"}),
    };
    match dice.below(3) {
        0 => hash["ringHash"] = json!({"minimumRingSize": dice.pick(&[64, 1024, 1000])}),
        1 => hash["maglev"] = json!({"tableSize": dice.pick(&[251, 65_537])}),
        _ => {}
    }
    hash
}

/// An origin that may be allowed.
pub(super) fn origin(dice: &mut Dice) -> &'static str {
    dice.pick(&[
        "http://good.test",
        "http://good.test:81",
        "https://bad.test",
        "http://x.y.test",
    ])
}

/// A value of a header that some rule looks at.
pub(super) fn value(dice: &mut Dice) -> &'static str {
    let wanted = texts::any(dice);
    texts::text(dice, &wanted, false)
}
