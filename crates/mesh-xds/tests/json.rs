//! Envoy's YAML and JSON, there and back.

#![cfg(feature = "json")]

use std::fs;
use std::path::Path;

use mesh_xds::json::Codec;
use mesh_xds::{TypeUrl, schema};
use proptest::prelude::*;
use serde_json::{Value, json};

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";
const ROUTES: &str = "envoy.config.route.v3.RouteConfiguration";
const LISTENER: &str = "envoy.config.listener.v3.Listener";

fn printed(message: &str, bytes: &[u8]) -> Value {
    serde_json::from_str(&Codec::new().to_json(message, bytes).unwrap()).unwrap()
}

/// Reads JSON and prints it again.
fn there_and_back(message: &str, value: &Value) -> Value {
    let bytes = Codec::new().from_json(message, &value.to_string()).unwrap();
    printed(message, &bytes)
}

/// The error for a text, as users see it.
fn error(message: &str, text: &str) -> String {
    Codec::new()
        .from_yaml(message, text)
        .unwrap_err()
        .to_string()
}

#[test]
fn a_cluster_of_istiods_shape_comes_back_as_it_was() {
    let cluster = json!({
        "alt_stat_name": "outbound|8080||pears.orchard.svc.cluster.local;",
        "circuit_breakers": {"thresholds": [{"max_connections": 4_294_967_295_u32, "max_retries": 7}]},
        "common_lb_config": {"healthy_panic_threshold": {}},
        "connect_timeout": "2.500s",
        "eds_cluster_config": {
            "eds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"},
            "service_name": "outbound|8080||pears.orchard.svc.cluster.local"
        },
        "lb_policy": "RING_HASH",
        "metadata": {"filter_metadata": {"istio": {"services": [
            {"host": "pears.orchard.svc.cluster.local", "weight": 1.5, "old": null, "on": true}
        ]}}},
        "name": "outbound|8080||pears.orchard.svc.cluster.local",
        "ring_hash_lb_config": {"minimum_ring_size": "2048"},
        "type": "EDS",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 1_073_741_824}}
            }
        }
    });
    assert_eq!(there_and_back(CLUSTER, &cluster), cluster);
}

#[test]
fn routes_of_istiods_shape_come_back_as_they_were() {
    let routes = json!({
        "max_direct_response_body_size_bytes": 1_048_576,
        "name": "8080",
        "validate_clusters": false,
        "virtual_hosts": [{
            "domains": ["pears.orchard.svc.cluster.local", "10.1.2.3"],
            "include_request_attempt_count": true,
            "name": "pears.orchard.svc.cluster.local:8080",
            "routes": [{
                "decorator": {"operation": "pears.orchard.svc.cluster.local:8080/*"},
                "match": {"prefix": "/", "case_sensitive": true, "headers": [
                    {"name": "x-ripe", "string_match": {"safe_regex": {"regex": "y.*"}}}
                ]},
                "route": {
                    "max_grpc_timeout": "0s",
                    "retry_policy": {
                        "host_selection_retry_max_attempts": "5",
                        "num_retries": 2,
                        "retriable_status_codes": [503, 504],
                        "retry_host_predicate": [{
                            "name": "envoy.retry_host_predicates.previous_hosts",
                            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}
                        }]
                    },
                    "timeout": "0s",
                    "weighted_clusters": {
                        "clusters": [{"name": "a", "weight": 90}, {"name": "b", "weight": 10}],
                        "total_weight": 100
                    }
                },
                "typed_per_filter_config": {"envoy.filters.http.fault": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
                    "abort": {"http_status": 418, "percentage": {"denominator": "MILLION", "numerator": 125_000}}
                }}
            }]
        }]
    });
    assert_eq!(there_and_back(ROUTES, &routes), routes);
}

#[test]
fn a_listener_with_a_typed_struct_comes_back_as_it_was() {
    let listener = json!({
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15_006}},
        "bind_to_port": false,
        "filter_chains": [{
            "filter_chain_match": {"destination_port": 80, "prefix_ranges": [
                {"address_prefix": "10.0.0.0", "prefix_len": 8}
            ]},
            "filters": [{
                "name": "orchard.counts",
                "typed_config": {
                    "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
                    "type_url": "type.googleapis.com/orchard.Counts",
                    "value": {"trees": 12, "names": ["a", {"b": null}]}
                }
            }, {
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "cluster": "inbound|80||",
                    "idle_timeout": "3600s",
                    "stat_prefix": "inbound|80||"
                }
            }]
        }],
        "name": "virtualInbound",
        "traffic_direction": "INBOUND"
    });
    assert_eq!(there_and_back(LISTENER, &listener), listener);
    let old = listener.to_string().replace("xds.type.v3", "udpa.type.v1");
    let old: Value = serde_json::from_str(&old).unwrap();
    assert_eq!(there_and_back(LISTENER, &old), old);
}

#[test]
fn both_spellings_and_all_forms_of_values_are_read() {
    let codec = Codec::new();
    let plain = codec
        .from_yaml(
            CLUSTER,
            "name: a\nlb_policy: RANDOM\nconnect_timeout: 1s\nrespect_dns_ttl: true\n\
             circuit_breakers: {thresholds: [{max_retries: 16}]}\n\
             maglev_lb_config: {table_size: 65537}\nring_hash_lb_config: null\n",
        )
        .unwrap();
    let other = codec.from_yaml(
        CLUSTER,
        "connectTimeout: 1.000s\nmaglevLbConfig: {tableSize: '65537'}\nrespectDnsTtl: on\n\
             circuitBreakers: {thresholds: [{maxRetries: 020}]}\nlbPolicy: 3\nname: 'a'\n",
    );
    // `ring_hash_lb_config: null` is left out, and so shares no oneof with maglev.
    assert_eq!(Ok(plain), other);
}

#[test]
fn bytes_of_prost_and_of_text_are_the_same() {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::google::protobuf::{Duration, UInt32Value};
    use prost::Message as _;

    let cluster = Cluster {
        name: "a".into(),
        connect_timeout: Some(Duration {
            seconds: 0,
            nanos: 0,
        }),
        per_connection_buffer_limit_bytes: Some(UInt32Value { value: 0 }),
        ..Cluster::default()
    };
    let text = "name: a\nconnectTimeout: 0s\nperConnectionBufferLimitBytes: 0\n";
    assert_eq!(
        Codec::new().from_yaml(CLUSTER, text),
        Ok(cluster.encode_to_vec())
    );
}

#[test]
fn errors_say_where_and_what_was_expected() {
    let yaml = "name: a\nload_assignment:\n  cluster_name: a\n  endpoints:\n  - lb_endpoints:\n    \
                - endpoints: {}\n";
    assert_eq!(
        error(CLUSTER, yaml),
        "6:7: load_assignment.endpoints[0].lb_endpoints[0].endpoints: \
         envoy.config.endpoint.v3.LbEndpoint has no such field"
    );
    let inside = "name: l\nfilter_chains:\n- filters:\n  - name: f\n    typed_config:\n      \
                  '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n      \
                  stat_prefix: 7\n";
    assert_eq!(
        error(LISTENER, inside),
        "7:20: filter_chains[0].filters[0].typed_config.stat_prefix: has to be a string, not a number"
    );
    for (text, expected) in [
        (
            "lb_policy: FASTEST",
            "1:12: lb_policy: `FASTEST` is none of ROUND_ROBIN, LEAST_REQUEST, RING_HASH, RANDOM, MAGLEV, CLUSTER_PROVIDED, LOAD_BALANCING_POLICY_CONFIG",
        ),
        (
            "connect_timeout: 5",
            "1:18: connect_timeout: has to be a duration such as `1.5s`, not a number",
        ),
        ("name: a\nname: b", ""),
        (
            "connect_timeout: 1s\nconnectTimeout: 1s",
            "2:1: connectTimeout: is there twice",
        ),
        (
            "type: EDS\ncluster_type: {name: a}",
            "2:1: cluster_type: cannot be there together with type",
        ),
        (
            "per_connection_buffer_limit_bytes: -1",
            "1:36: per_connection_buffer_limit_bytes: has to be from 0 to 4294967295, not -1",
        ),
        (
            "health_checks: {}",
            "1:16: health_checks: has to be a list, not a map",
        ),
        (
            "metadata: {typed_filter_metadata: {a: {x: 1}}}",
            "1:39: metadata.typed_filter_metadata[a]: has to have an @type",
        ),
        (
            "metadata: {typed_filter_metadata: {a: {'@type': a/b.C}}}",
            "1:40: metadata.typed_filter_metadata[a].@type: there is no message `a/b.C`",
        ),
        (
            "[]",
            "1:1: has to be a map, which envoy.config.cluster.v3.Cluster is, not a list",
        ),
    ] {
        let found = error(CLUSTER, text);
        if expected.is_empty() {
            assert!(found.contains("twice"), "{found}");
        } else {
            assert_eq!(found, expected);
        }
    }
    let json = Codec::new()
        .from_json(CLUSTER, "{\"name\": 1,\n}")
        .unwrap_err();
    assert_eq!(json.place(), Some((2, 1)));
    let unknown = Codec::new().from_yaml("a.B", "{}").unwrap_err();
    assert_eq!(unknown.to_string(), "there is no message `a.B`");
}

#[test]
fn an_any_of_an_unknown_type_is_printed_as_base64() {
    use envoy_types::pb::google::protobuf::Any;
    use prost::Message as _;

    let any = Any {
        type_url: "example.org/orchard.Tree".into(),
        value: b"foobar".to_vec(),
    };
    assert_eq!(
        printed("google.protobuf.Any", &any.encode_to_vec()),
        json!({"@type": "example.org/orchard.Tree", "value": "Zm9vYmFy"})
    );
}

#[test]
fn well_known_types_in_an_any_stand_in_a_value() {
    for value in [
        json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "x"}),
        json!({"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}),
        json!({"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": [1, null]}}),
        json!({"@type": "type.googleapis.com/google.protobuf.Empty"}),
        json!({
            "@type": "type.googleapis.com/google.protobuf.Any",
            "value": {"@type": "type.googleapis.com/google.protobuf.Value", "value": null}
        }),
    ] {
        assert_eq!(there_and_back("google.protobuf.Any", &value), value);
    }
}

#[test]
fn text_that_is_nested_too_deep_is_refused() {
    let log = "envoy.config.accesslog.v3.AccessLogFilter";
    let nested =
        |levels: usize| "{\"and_filter\": {\"filters\": [".repeat(levels) + &"]}}".repeat(levels);
    for (levels, is_read) in [(30, true), (42, true), (43, false), (100_000, false)] {
        let text = nested(levels);
        assert_eq!(
            Codec::new().from_json(log, &text).is_ok(),
            is_read,
            "{levels}"
        );
        assert_eq!(
            Codec::new().from_yaml(log, &text).is_ok(),
            is_read,
            "{levels}"
        );
    }
}

/// `MESH_XDS_RESOURCES`: a folder with folders of files that hold lists of resources, under
/// `clusters`, `endpoints`, `listeners` and `routes`, as recorded from another control plane.
#[test]
fn recorded_resources_come_back_as_they_were() {
    let Ok(folder) = std::env::var("MESH_XDS_RESOURCES") else {
        return;
    };
    let kinds = [
        ("clusters", TypeUrl::Cluster),
        ("endpoints", TypeUrl::Endpoints),
        ("listeners", TypeUrl::Listener),
        ("routes", TypeUrl::Routes),
    ];
    let mut count = 0;
    for file in files(Path::new(&folder)) {
        let recorded: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        for (key, kind) in kinds {
            let message = kind.url().rsplit('/').next().unwrap();
            for resource in recorded[key].as_array().into_iter().flatten() {
                let context = format!("{} of {}", resource["name"], file.display());
                let back = there_and_back(message, resource);
                assert_eq!(numbers(back), numbers(resource.clone()), "{context}");
                let text = resource.to_string();
                let bytes = Codec::new().from_json(message, &text).unwrap();
                assert_eq!(schema::check(message, &bytes), Ok(()), "{context}");
                assert_eq!(
                    Codec::new().from_yaml(message, &text),
                    Ok(bytes),
                    "{context}"
                );
                count += 1;
            }
        }
    }
    println!("{count} resources");
    assert!(count > 0, "no resource in {folder}");
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let folders = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let inside = folders.filter(|path| path.is_dir()).flat_map(|folder| {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().path())
            .collect::<Vec<_>>()
    });
    inside
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect()
}

/// The same with every number as a double: some write 1 as `1.0`, which is the same in JSON.
fn numbers(value: Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64()),
        Value::Array(items) => items.into_iter().map(numbers).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            Value::Object(fields.map(|(name, value)| (name, numbers(value))).collect())
        }
        other => other,
    }
}

/// Any value that a `Struct` can hold and JSON can say.
fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<i32>().prop_map(|number| json!(f64::from(number) / 4.0)),
        "\\PC{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("\\PC{0,4}", inner, 0..4).prop_map(|fields| json!(fields)),
        ]
    })
}

proptest! {
    #[test]
    fn every_value_comes_back_as_it_was(value in values()) {
        let back = there_and_back("google.protobuf.Value", &value);
        prop_assert_eq!(numbers(back), numbers(value));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,40}|[a-z:{}\\[\\], \n'\"@-]{0,40}") {
        let _ = Codec::new().from_yaml(CLUSTER, &text);
        let _ = Codec::new().from_json(CLUSTER, &text);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Codec::new().to_json(CLUSTER, &bytes);
        let _ = schema::check(CLUSTER, &bytes);
        let _ = Codec::new().to_json("google.protobuf.Any", &bytes);
    }
}

/// Found by fuzzing: `lb_policy` as a varint of which the lower 32 bits are 0.
#[test]
fn a_number_that_is_too_wide_and_becomes_the_default_is_left_out_like_the_default() {
    let bytes = [0x30, 0x80, 0x80, 0x80, 0x80, 0x10];
    assert_eq!(printed(CLUSTER, &bytes), json!({}));
    // One bit more, and it is RING_HASH.
    let bytes = [0x30, 0x82, 0x80, 0x80, 0x80, 0x10];
    assert_eq!(printed(CLUSTER, &bytes), json!({"lb_policy": "RING_HASH"}));
}

/// Found by fuzzing: `redirect_response_codes`, packed, of no length.
#[test]
fn a_list_with_nothing_in_it_is_left_out_also_if_the_bytes_have_it() {
    let bytes = [0x1a, 7, 0x12, 5, 0x92, 2, 2, 0x12, 0];
    assert_eq!(
        printed("envoy.config.route.v3.VirtualHost", &bytes),
        json!({"routes": [{"route": {"internal_redirect_policy": {}}}]})
    );
}
