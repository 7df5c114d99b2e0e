//! How messages are walked; which rules there are is tested over whole bootstraps.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, Route, RouteMatch, VirtualHost, route,
};
use envoy_types::pb::google::protobuf::{Any, Duration};
use proptest::prelude::{any, prop, proptest};
use prost::{Message as _, Name};

use super::*;

fn fault<M: Name + prost::Message>(message: &M) -> Option<String> {
    let error = check(&M::full_name(), &message.encode_to_vec()).err()?;
    Some(error.to_string())
}

fn cluster() -> Cluster {
    Cluster {
        name: "a".into(),
        ..Cluster::default()
    }
}

fn answer(status: u32) -> Route {
    let action = DirectResponseAction {
        status,
        ..DirectResponseAction::default()
    };
    Route {
        action: Some(route::Action::DirectResponse(action)),
        ..Route::default()
    }
}

#[test]
fn messages_say_the_rule() {
    let with = |duration| Cluster {
        connect_timeout: Some(duration),
        ..cluster()
    };
    let zero = with(Duration::default());
    let expected = "connect_timeout: has to be greater than 0s";
    assert_eq!(fault(&zero).as_deref(), Some(expected));
    assert_eq!(
        fault(&with(Duration {
            seconds: 0,
            nanos: 1
        })),
        None
    );
    let expected = "action: is required: one of route, redirect, direct_response, filter_action, \
        non_forwarding_action";
    let route = Route {
        r#match: Some(RouteMatch {
            path_specifier: Some(
                envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier::Prefix(
                    String::new(),
                ),
            ),
            ..RouteMatch::default()
        }),
        ..Route::default()
    };
    assert_eq!(fault(&route).as_deref(), Some(expected));
    let header = HeaderValue {
        key: "a".repeat(16385),
        ..HeaderValue::default()
    };
    assert_eq!(
        fault(&header).as_deref(),
        Some("key: has to have at most 16384 bytes")
    );
}

#[test]
fn the_occurrences_of_a_message_are_merged() {
    // Half of a duration twice: 1 s and 5 ns; alone the first would do, the second not.
    let half = |duration: Duration| {
        Cluster {
            name: String::new(),
            connect_timeout: Some(duration),
            ..Cluster::default()
        }
        .encode_to_vec()
    };
    let name = cluster().encode_to_vec();
    let one = half(Duration {
        seconds: -1,
        nanos: 0,
    });
    let other = half(Duration {
        seconds: 2,
        nanos: 0,
    });
    let of = |parts: &[&[u8]]| check("envoy.config.cluster.v3.Cluster", &parts.concat());
    assert!(of(&[&name, &one]).is_err());
    assert_eq!(of(&[&name, &one, &other]), Ok(()));
    assert!(of(&[&name, &other, &one]).is_err());
    // The last scalar counts.
    let unnamed = b"\x0a\x00";
    assert!(of(&[&name, unnamed]).is_err());
    assert_eq!(of(&[unnamed, &name]), Ok(()));
}

#[test]
fn of_a_oneof_only_the_last_member_is_looked_at() {
    let matching = b"\x0a\x02\x0a\x00";
    let bad = answer(600).encode_to_vec();
    let redirect = Route {
        action: Some(route::Action::Redirect(RedirectAction::default())),
        ..Route::default()
    }
    .encode_to_vec();
    let of = |parts: &[&[u8]]| check("envoy.config.route.v3.Route", &parts.concat());
    assert!(of(&[matching, &bad]).is_err());
    assert_eq!(of(&[matching, &bad, &redirect]), Ok(()));
    assert!(of(&[matching, &redirect, &bad]).is_err());
    // What was replaced is not merged with what comes back.
    let empty = b"\x3a\x00";
    assert!(of(&[matching, &answer(200).encode_to_vec(), empty]).is_ok());
    assert!(of(&[matching, &answer(200).encode_to_vec(), &redirect, empty]).is_err());
}

#[test]
fn of_a_maps_entries_with_one_key_the_last_is_looked_at() {
    let entry = |config: Vec<u8>| {
        let any = Any {
            type_url: format!("type.googleapis.com/{}", HeaderValue::full_name()),
            value: config,
        };
        VirtualHost {
            typed_per_filter_config: [("f".to_owned(), any)].into(),
            ..VirtualHost::default()
        }
        .encode_to_vec()
    };
    let host = VirtualHost {
        name: "v".into(),
        domains: vec!["*".into()],
        ..VirtualHost::default()
    }
    .encode_to_vec();
    let good = entry(b"\x0a\x01a".to_vec());
    let bad = entry(Vec::new());
    let of = |parts: &[&[u8]]| check("envoy.config.route.v3.VirtualHost", &parts.concat());
    let error = of(&[&host, &good, &bad]).unwrap_err();
    assert_eq!(error.path(), "typed_per_filter_config[f].key");
    assert_eq!(of(&[&host, &bad, &good]), Ok(()));
}

#[test]
fn an_any_of_an_unknown_type_is_left_to_the_reader() {
    let cluster = Cluster {
        typed_extension_protocol_options: [(
            "f".to_owned(),
            Any {
                type_url: "type.googleapis.com/orchard.Tree".into(),
                value: b"\xff".to_vec(),
            },
        )]
        .into(),
        ..cluster()
    };
    assert_eq!(fault(&cluster), None);
}

#[test]
fn depth_has_a_bound() {
    let nested = |levels| {
        (0..levels).fold(Vec::new(), |value, _| {
            let type_url = "type.googleapis.com/google.protobuf.Any".into();
            Any { type_url, value }.encode_to_vec()
        })
    };
    assert_eq!(check("google.protobuf.Any", &nested(99)), Ok(()));
    let error = check("google.protobuf.Any", &nested(101)).unwrap_err();
    assert!(error.message().contains("100 levels"), "{error}");
}

#[test]
fn what_is_not_protobuf_or_not_known_is_refused() {
    let name = "envoy.config.cluster.v3.Cluster";
    assert!(
        check(name, b"\x0a\x05a")
            .unwrap_err()
            .message()
            .contains("not protobuf")
    );
    assert_eq!(
        check(name, b"\x0a\x01\xff").unwrap_err().to_string(),
        "name: has to be UTF-8"
    );
    assert!(check("orchard.Tree", b"").is_err());
}

#[test]
fn the_work_does_not_grow_faster_than_the_bytes() {
    // Members of one oneof in turn, and one map's entries: a quarter of a million of each.
    let route = [answer(200).encode_to_vec(), b"\x1a\x00".to_vec()].concat();
    let many = route.repeat(250_000);
    assert!(check("envoy.config.route.v3.Route", &many).is_err());
    let entries = b"\x22\x03\x0a\x01a".repeat(250_000);
    let _ = check("envoy.config.route.v3.Route", &entries);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let _ = check("envoy.config.route.v3.VirtualHost", &bytes);
        let _ = check("google.protobuf.Any", &bytes);
    }
}
