//! Services that are asked, written and read back, and what is refused.

use crate::authz::{packed, refusal, rules, text};
use crate::{back, name};
use http::{HeaderName, HeaderValue};
use mesh_core::model::{
    Ask, AskGrpc, AskHttp, AskedBody, Authz, External, FilterChain, HttpManager, Listener, TcpProxy,
};
use mesh_xds::pb::envoy::config::core::v3 as core;
use mesh_xds::pb::envoy::config::core::v3::grpc_service::{EnvoyGrpc, TargetSpecifier};
use mesh_xds::pb::envoy::extensions::filters::http::ext_authz::v3 as http_pb;
use mesh_xds::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use mesh_xds::pb::envoy::r#type::matcher::v3::metadata_matcher::{
    PathSegment, path_segment::Segment,
};
use mesh_xds::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern as TextPattern;
use mesh_xds::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use mesh_xds::pb::envoy::r#type::matcher::v3::{MetadataMatcher, StringMatcher, ValueMatcher};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Name as _;
use std::sync::Arc;
use std::time::Duration;

fn over_http() -> BoxedStrategy<Ask> {
    let lists = (
        vec(text(), 0..3),
        vec(text(), 0..3),
        vec(text(), 0..3),
        vec(text(), 0..3),
        vec(text(), 0..3),
    );
    let added = vec(("x-[a-z]{1,4}", "[a-z %]{0,5}[a-z]"), 0..3);
    (name(), "(/[a-z]{0,3})?", lists, added)
        .prop_map(|(uri, prefix, lists, added)| {
            let mut ask = AskHttp::default();
            ask.uri = uri;
            ask.path_prefix = prefix.into();
            (
                ask.headers,
                ask.upstream,
                ask.upstream_append,
                ask.deny,
                ask.allow,
            ) = lists;
            let pair = |(name, value): (String, String)| {
                let name = HeaderName::try_from(name).unwrap();
                (name, HeaderValue::try_from(value).unwrap())
            };
            ask.add = added.into_iter().map(pair).collect();
            Ask::Http(ask)
        })
        .boxed()
}

fn over_grpc() -> BoxedStrategy<Ask> {
    ("[a-z]{0,4}", vec(text(), 0..3))
        .prop_map(|(authority, headers)| {
            let mut ask = AskGrpc::default();
            ask.authority = authority.into();
            ask.headers = headers;
            Ask::Grpc(ask)
        })
        .boxed()
}

/// A service, and the rules on trial that say when it is asked.
fn asking(ask: BoxedStrategy<Ask>) -> BoxedStrategy<Authz> {
    let body =
        (1..9_u32, any::<bool>(), any::<bool>()).prop_map(|(limit, partial, raw)| AskedBody {
            limit,
            partial,
            raw,
        });
    let more = (
        any::<bool>(),
        proptest::sample::select(vec![403_u16, 429, 503]),
        option::of(body),
        any::<bool>(),
    );
    let timeout = option::of((1..9000_u64).prop_map(Duration::from_millis));
    let only = option::of((text(), rules(), option::of(rules()), name()));
    (name(), ask, timeout, more, only, name())
        .prop_map(|(cluster, ask, timeout, more, only, prefix)| {
            let mut external = External::new(cluster, ask);
            external.timeout = timeout;
            let (fail_open, status, body, clear_route) = more;
            (external.fail_open, external.status_on_error) = (fail_open, status);
            (external.body, external.clear_route) = (body, clear_route);
            external.stat_prefix = prefix;
            let Some((only, trial, rules, prefix)) = only else {
                return Authz::asking(external);
            };
            external.only = Some(only);
            let mut authz = Authz::asking(external);
            (authz.trial, authz.rules) = (Some(trial), rules);
            authz.stat_prefix = prefix.clone();
            authz.trial_prefix = prefix;
            authz
        })
        .boxed()
}

fn listener(chain: FilterChain) -> Listener {
    Listener::new("l", ([127, 0, 0, 1], 80).into()).chain(chain)
}

proptest! {
    #[test]
    fn questions_about_requests_survive_their_protobuf(
        all in vec(asking(prop_oneof![over_http(), over_grpc()].boxed()), 0..3)
    ) {
        let mut manager = HttpManager::new("p", "r");
        manager.authz = all.into_iter().map(Arc::new).collect();
        let before = listener(FilterChain::http(manager.clone()));
        let read = back(&before, None);
        prop_assert_eq!(&read.listener.managers().next().unwrap().authz, &manager.authz);
    }

    #[test]
    fn questions_about_connections_survive_their_protobuf(all in vec(asking(over_grpc()), 0..3)) {
        let mut tcp = FilterChain::tcp(TcpProxy::to("p", "c"));
        tcp.authz = all.into_iter().map(|mut authz| {
            // Of requests alone.
            let external = authz.external.as_mut().unwrap();
            external.status_on_error = 403;
            (external.body, external.clear_route) = (None, false);
            if let Ask::Grpc(ask) = &mut external.ask {
                ask.headers.clear();
            }
            Arc::new(authz)
        }).collect();
        let before = listener(tcp);
        let read = back(&before, None);
        prop_assert_eq!(&read.listener.chains[0].authz, &before.chains[0].authz);
    }
}

#[test]
fn what_cannot_be_asked_here_is_refused_with_its_place() {
    let refused = |change: fn(&mut http_pb::ExtAuthz), rules: bool| {
        let mut filter = http_pb::ExtAuthz {
            transport_api_version: 2,
            services: Some(http_pb::ext_authz::Services::GrpcService(
                core::GrpcService {
                    target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
                        cluster_name: "c".to_owned(),
                        ..EnvoyGrpc::default()
                    })),
                    ..core::GrpcService::default()
                },
            )),
            filter_enabled_metadata: Some(MetadataMatcher {
                filter: "envoy.filters.http.rbac".to_owned(),
                path: vec![PathSegment {
                    segment: Some(Segment::Key("asks_shadow_effective_policy_id".to_owned())),
                }],
                value: Some(ValueMatcher {
                    match_pattern: Some(MatchPattern::StringMatch(StringMatcher {
                        match_pattern: Some(TextPattern::Prefix("a".to_owned())),
                        ignore_case: false,
                    })),
                }),
                invert: false,
            }),
            ..http_pb::ExtAuthz::default()
        };
        change(&mut filter);
        let asks = ("asks", packed(&filter, http_pb::ExtAuthz::full_name()));
        let before = Rbac {
            shadow_rules: Some(Default::default()),
            shadow_rules_stat_prefix: "asks_".to_owned(),
            ..Rbac::default()
        };
        let before = ("rules", packed(&before, Rbac::full_name()));
        match rules {
            true => refusal(None, &[before, asks]),
            false => refusal(None, &[asks]),
        }
    };
    assert_eq!(refused(|_| {}, true), "");
    let said = refused(|_| {}, false);
    assert!(said.contains("filter_enabled_metadata.path: "), "{said}");
    let said = refused(|it| it.include_peer_certificate = true, true);
    assert!(
        said.contains("include_peer_certificate: not supported"),
        "{said}"
    );
    let said = refused(|it| it.services = None, true);
    assert!(said.contains("services: required"), "{said}");
    let said = refused(|it| it.transport_api_version = 0, true);
    assert!(said.contains("transport_api_version"), "{said}");
    let said = refused(
        |it| it.with_request_body = Some(http_pb::BufferSettings::default()),
        true,
    );
    assert!(said.contains("max_request_bytes"), "{said}");
}
