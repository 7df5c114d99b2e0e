//! What is done with a request that met a route: redirects, rewrites, edits, answers, copies.

mod follow;

use super::{cluster, other_case, paths, usual_clusters};
use crate::config::{Config, Source};
use crate::dice::Dice;
use crate::request::Call;
use serde_json::{Value, json};

const TYPE: &str = "type.googleapis.com/envoy";

/// Names that edits and requests have in common.
const HEADERS: &[&str] = &["x-a", "x-b", "x-r", "x-new", "x-multi"];

const VALUES: &[&str] = &[
    "plain",
    "%REQ(x-a)%",
    "%REQ(x-none)%",
    "%REQ(x-multi)%",
    "%RESPONSE_CODE%",
    "%RESPONSE_CODE_DETAILS%",
    "%RESPONSE_FLAGS%",
    "%PROTOCOL%",
    "%ROUTE_NAME%",
    "%UPSTREAM_CLUSTER%",
    "%UPSTREAM_HOST%",
    "%DOWNSTREAM_LOCAL_ADDRESS%",
    "%DOWNSTREAM_REMOTE_ADDRESS%",
    "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "%RESP(x-backend)%",
    "100%%",
    "a-%PROTOCOL%-b",
    "%REQ(:path)%",
    "%REQ(:authority)%",
    "%REQ(:method)% %REQ(:scheme)%",
    "%REQ(x-none?x-a)%",
    "%REQ(x-a?:path)%",
    "%REQ(x-a?x-b):3%",
    "%REQ(:path):4%",
    "%RESP(x-r?x-backend):1%",
    "",
];

pub(super) fn generate(dice: &mut Dice, requests: usize) -> Config {
    let routes: Vec<Value> = (0..dice.between(3, 7)).map(|n| route(dice, n)).collect();
    let follows = routes.iter().any(follow::is_followed);
    let mut host = json!({"name": "v0", "domains": ["*"], "routes": routes});
    edits(dice, &mut host, 25);
    if dice.chance(40) {
        host["typed_per_filter_config"] = json!({"envoy.filters.http.cors": cors(dice)});
    }
    if dice.chance(25) {
        host["include_request_attempt_count"] = json!(true);
    }
    if dice.chance(25) {
        host["include_attempt_count_in_response"] = json!(true);
    }
    let mut manager =
        json!({"route_config": {"virtual_hosts": [host], "validate_clusters": false}});
    let table = &mut manager["route_config"];
    edits(dice, table, 25);
    if dice.chance(40) {
        table["most_specific_header_mutations_wins"] = json!(true);
    }
    of_manager(dice, &mut manager);
    if follows {
        follow::keep_scheme(&mut manager);
    }
    let calls = (0..requests).map(|_| call(dice, &routes)).collect();
    let mut clusters = usual_clusters();
    clusters.push(cluster("m", &["m"]));
    clusters.push(cluster("empty", &[]));
    Config {
        area: "actions",
        source: Source {
            manager,
            clusters: json!(clusters),
        },
        calls,
    }
}

fn of_manager(dice: &mut Dice, manager: &mut Value) {
    for name in [
        "use_remote_address",
        "preserve_external_request_id",
        "skip_xff_append",
        "always_set_request_id_in_response",
    ] {
        if dice.chance(25) {
            manager[name] = json!(true);
        }
    }
    if dice.chance(15) {
        manager["generate_request_id"] = json!(false);
    }
    if dice.chance(25) {
        manager["xff_num_trusted_hops"] = json!(dice.between(0, 2));
    }
    match dice.below(6) {
        0 => manager["server_header_transformation"] = json!("PASS_THROUGH"),
        1 => manager["server_header_transformation"] = json!("APPEND_IF_ABSENT"),
        2 => manager["server_name"] = json!("mine"),
        _ => {}
    }
    if dice.chance(20) {
        manager["via"] = json!("1.1 mine");
    }
    match dice.below(8) {
        0 => manager["strip_any_host_port"] = json!(true),
        1 => manager["strip_matching_host_port"] = json!(true),
        _ => {}
    }
}

fn route(dice: &mut Dice, number: usize) -> Value {
    let path = format!("/r{number}");
    let condition = match dice.below(6) {
        0..=2 => json!({"prefix": path}),
        3 => json!({"prefix": format!("{path}/")}),
        4 => json!({"path_separated_prefix": path}),
        _ => json!({"safe_regex": {"regex": format!("{path}/.*")}}),
    };
    let mut route = json!({"name": format!("v0r{number}"), "match": condition});
    match dice.below(10) {
        0 => route["redirect"] = redirect(dice),
        1 => {
            route["direct_response"] = json!({"status": dice.pick(&[200, 201, 404, 429, 503])});
            if dice.chance(70) {
                route["direct_response"]["body"] = json!({"inline_string": "direct\n"});
            }
        }
        _ => route["route"] = forward(dice),
    }
    edits(dice, &mut route, 40);
    if dice.chance(20) {
        route["typed_per_filter_config"] = json!({"envoy.filters.http.cors": cors(dice)});
    }
    route
}

fn redirect(dice: &mut Dice) -> Value {
    let mut to = json!({});
    match dice.below(4) {
        0 => to["https_redirect"] = json!(true),
        1 => to["scheme_redirect"] = json!(dice.pick(&["http", "https"])),
        _ => {}
    }
    if dice.chance(40) {
        to["host_redirect"] = json!(dice.pick(&["new.test", "new.test:81"]));
    }
    if dice.chance(30) {
        to["port_redirect"] = json!(dice.pick(&[80, 443, 8443]));
    }
    match dice.below(5) {
        0 => to["path_redirect"] = json!(dice.pick(&["/new", "/new?own=1"])),
        1 => to["prefix_rewrite"] = json!(dice.pick(&["/new", "/new/", "/"])),
        2 => to["regex_rewrite"] = regex(dice),
        _ => {}
    }
    if dice.chance(30) {
        to["strip_query"] = json!(true);
    }
    if dice.chance(50) {
        to["response_code"] = json!(dice.pick(&[
            "FOUND",
            "SEE_OTHER",
            "TEMPORARY_REDIRECT",
            "PERMANENT_REDIRECT",
        ]));
    }
    to
}

fn regex(dice: &mut Dice) -> Value {
    let (pattern, with) = dice.pick(&[
        ("^/r(\\d)/(.*)$", "/\\2/\\1"),
        ("[0-9]+", "n"),
        ("/r", "/"),
        ("(a)|(b)", "<\\1\\2>"),
        ("x*", "-"),
        ("/r\\d/([^/]+)(/.*)?", "/\\0!\\1"),
    ]);
    json!({"pattern": {"regex": pattern}, "substitution": with})
}

fn forward(dice: &mut Dice) -> Value {
    let mut to = match dice.below(10) {
        0 | 1 => {
            let mut parts = Vec::new();
            let drawn = draw(dice);
            let first = match drawn {
                // Chance decides about nothing.
                None => dice.pick(&[0, 1, 100]),
                Some(_) => dice.pick(&[1, 2, 5]),
            };
            let second = if drawn.is_some() {
                3
            } else {
                i32::from(first == 0)
            };
            for (name, weight) in [("$a", first), ("$b", second)] {
                let mut part = json!({"name": name, "weight": weight});
                if dice.chance(20) {
                    part = json!({"cluster_header": "x-cluster", "weight": weight});
                }
                edits(dice, &mut part, 40);
                if dice.chance(10) {
                    part["host_rewrite_literal"] = json!("weighted.test");
                }
                parts.push(part);
            }
            let mut to = json!({"weighted_clusters": {"clusters": parts}});
            if let Some((name, value)) = drawn {
                to["weighted_clusters"][name] = value;
                if name == "use_hash_policy" {
                    to["hash_policy"] = hash(dice);
                }
            }
            to
        }
        2 => json!({"cluster_header": "x-cluster"}),
        _ => json!({"cluster": dice.pick(&["$a", "$b", "$c"])}),
    };
    match dice.below(6) {
        0 => to["prefix_rewrite"] = json!(dice.pick(&["/", "/new", "/new/", "/n?x=1"])),
        1 => to["regex_rewrite"] = regex(dice),
        _ => {}
    }
    match dice.below(8) {
        0 => to["host_rewrite_literal"] = json!(dice.pick(&["new.test", "new.test:81"])),
        1 => to["host_rewrite_header"] = json!("x-host"),
        2 => {
            let pattern = json!({"regex": dice.pick(&["^/r(\\d).*$", ".*/(x\\.test)/.*|.*"])});
            to["host_rewrite_path_regex"] = json!({"pattern": pattern, "substitution": "h\\1"});
        }
        _ => {}
    }
    if dice.chance(25) {
        to["append_x_forwarded_host"] = json!(true);
    }
    if dice.chance(20) {
        let mut mirror = json!({"cluster": "$m"});
        if dice.chance(25) {
            mirror = json!({"cluster_header": "x-copy"});
        }
        if dice.chance(30) {
            mirror["host_rewrite_literal"] = json!(dice.pick(&["copy.test", "copy.test:81"]));
        }
        if dice.chance(30) {
            mirror["disable_shadow_host_suffix_append"] = json!(true);
        }
        if dice.chance(40) {
            mirror["request_headers_mutations"] = mutations(dice);
        }
        if dice.chance(50) {
            let share = dice.pick(&[0, 100]);
            mirror["runtime_fraction"] =
                json!({"default_value": {"numerator": share, "denominator": "HUNDRED"}});
        }
        to["request_mirror_policies"] = json!([mirror]);
    }
    // In which order copies of several requests come is a matter of time.
    if to["request_mirror_policies"].is_null() && dice.chance(40) {
        follow::policy(dice, &mut to);
    }
    if dice.chance(20) {
        to["timeout"] = json!(dice.pick(&["0s", "3s", "2.500s"]));
    }
    to
}

/// Changes of a copy's headers, none of them of the same.
fn mutations(dice: &mut Dice) -> Value {
    let mut append = edit(dice);
    append["header"]["key"] = json!("x-a");
    // Whether the request itself has a host by then is a matter of time.
    if append["header"]["value"] == "%UPSTREAM_HOST%" {
        append["header"]["value"] = json!("plain");
    }
    let mut all = vec![json!({"append": append})];
    if dice.chance(40) {
        let value = dice.pick(&["%REQ(x-a)%", "%REQ(:authority)%", "more"]);
        all.push(json!({"append": {"header": {"key": "x-more", "value": value}}}));
    }
    if dice.chance(60) {
        all.push(json!({"remove": dice.pick(&["x-b", "x-multi", "x-none"])}));
    }
    json!(all)
}

/// What a split is drawn by other than chance.
fn draw(dice: &mut Dice) -> Option<(&'static str, Value)> {
    match dice.below(3) {
        0 => Some(("header_name", json!("x-draw"))),
        1 => Some(("use_hash_policy", json!(true))),
        _ => None,
    }
}

/// The address of the caller is there in any case.
fn hash(dice: &mut Dice) -> Value {
    let mut all = vec![dice.pick(&[
        json!({"header": {"header_name": "x-a"}}),
        json!({"query_parameter": {"name": "q"}, "terminal": true}),
        json!({"cookie": {"name": "c"}}),
    ])];
    all.push(json!({"connection_properties": {"source_ip": true}}));
    json!(all)
}

/// Edits of headers at one level.
fn edits(dice: &mut Dice, level: &mut Value, percent: usize) {
    for direction in ["request", "response"] {
        if dice.chance(percent) {
            let adds: Vec<Value> = (0..dice.between(1, 2)).map(|_| edit(dice)).collect();
            level[format!("{direction}_headers_to_add")] = json!(adds);
        }
        if dice.chance(percent / 2) {
            let names = [
                "x-a",
                "x-b",
                "x-r",
                "x-backend",
                "X-Multi",
                "server",
                "user-agent",
            ];
            let name = if direction == "request" && dice.chance(10) {
                "x-forwarded-proto"
            } else {
                dice.pick(&names)
            };
            level[format!("{direction}_headers_to_remove")] = json!([name]);
        }
    }
}

fn edit(dice: &mut Dice) -> Value {
    let mut edit = json!({
        "header": {"key": dice.pick(HEADERS), "value": dice.pick(VALUES)},
        "append_action": dice.pick(&[
            "APPEND_IF_EXISTS_OR_ADD",
            "ADD_IF_ABSENT",
            "OVERWRITE_IF_EXISTS",
            "OVERWRITE_IF_EXISTS_OR_ADD",
        ]),
    });
    if dice.chance(20) {
        edit["keep_empty_value"] = json!(true);
    }
    edit
}

fn cors(dice: &mut Dice) -> Value {
    let mut cors = json!({
        "@type": format!("{TYPE}.extensions.filters.http.cors.v3.CorsPolicy"),
        "allow_origin_string_match": [dice.pick(&[
            json!({"exact": "http://good.test"}),
            json!({"suffix": ".good.test"}),
            json!({"exact": "*"}),
            json!({"safe_regex": {"regex": "https?://[a-z]+\\.test"}}),
        ])],
    });
    for (name, value) in [
        ("allow_methods", "GET, POST"),
        ("allow_headers", "x-a,x-b"),
        ("expose_headers", "x-c"),
        ("max_age", "60"),
    ] {
        if dice.chance(50) {
            cors[name] = json!(value);
        }
    }
    for name in ["allow_credentials", "forward_not_matching_preflights"] {
        if dice.chance(30) {
            cors[name] = json!(dice.chance(70));
        }
    }
    cors
}

fn call(dice: &mut Dice, routes: &[Value]) -> Call {
    let number = dice.below(routes.len() + 1);
    let path = format!("/r{number}");
    let mut call = Call::get(&match dice.below(5) {
        0 => path,
        1 => format!("{path}/"),
        2 => format!("{path}/x.test/y"),
        _ => format!("{path}{}", paths::path(dice, 3)),
    });
    if dice.chance(30) {
        call.target += dice.pick(&["?q=1", "?", "?q=/r1/x", "?a=1&b=2"]);
    }
    call.host = Some(
        dice.pick(&["mesh.test", "mesh.test:8080", "mesh.test:80", "[::1]:80"])
            .into(),
    );
    call = call.with(
        "x-cluster",
        dice.pick(&["$a", "$b", "$a", "$missing", "$empty", ""]),
    );
    let draws = ["0", "1", "2", "3", "7", " +4 ", "18446744073709551615"];
    if dice.chance(60) {
        call = call.with("x-copy", dice.pick(&["$m", "$m", "$missing", ""]));
    }
    call = call.with("x-draw", dice.pick(&draws));
    if dice.chance(20) {
        call = call.with("cookie", dice.pick(&["c=1", "c=\"2\"; c=3", "d=1"]));
    }
    if dice.chance(30) {
        call = call.with("x-host", dice.pick(&["given.test", "given.test:82", ""]));
    }
    for name in HEADERS {
        if dice.chance(25) {
            call = call.with(name, dice.pick(&["one", "two words", "", "1"]));
        }
        if dice.chance(6) {
            call = call.with(&other_case(dice, name), "again");
        }
    }
    if dice.chance(25) {
        let (name, value) = dice.pick(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "1.2.3.4, 10.0.0.1"),
            ("x-forwarded-for", "nonsense"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-proto", "http"),
            ("x-request-id", "00000000-0000-4000-8000-000000000001"),
            ("x-request-id", "mine"),
            ("x-envoy-original-path", "/forged"),
            ("x-envoy-original-host", "forged"),
            ("x-envoy-internal", "true"),
            ("x-envoy-external-address", "9.9.9.9"),
            ("x-envoy-attempt-count", "7"),
            ("x-envoy-expected-rq-timeout-ms", "5"),
            ("x-envoy-upstream-rq-timeout-ms", "2000"),
            ("x-envoy-decorator-operation", "op"),
            ("x-envoy-downstream-service-cluster", "c"),
            ("x-forwarded-host", "there.test"),
            ("x-forwarded-host", "there.test,mesh.test"),
            ("x-forwarded-client-cert", "By=x"),
            ("user-agent", "me"),
            ("via", "1.0 old"),
        ]);
        call = call.with(name, value);
    }
    if dice.chance(30) {
        let origins = [
            "http://good.test",
            "http://x.good.test",
            "https://bad.test:1",
            "",
        ];
        call = call.with("origin", dice.pick(&origins));
        if dice.chance(50) {
            call.method = "OPTIONS".into();
            if dice.chance(80) {
                call = call.with(
                    "access-control-request-method",
                    dice.pick(&["GET", "PUT", ""]),
                );
            }
            if dice.chance(30) {
                call = call.with("access-control-request-headers", "x-z");
            }
        }
    } else if dice.chance(30) {
        call.method = dice.pick(&["POST", "HEAD", "PUT", "DELETE"]).into();
        if call.method == "POST" {
            call.body = "body of it".into();
        }
    }
    if dice.chance(35) {
        call = follow::call(dice, call, routes.len());
    } else if dice.chance(30) {
        call = call.script(dice.pick(&["cookies", "cors", "503", "404", "204", "chunked", "301"]));
    }
    call.http2 = dice.chance(25) && call.head().is_some();
    call
}
